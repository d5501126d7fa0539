//! A request on its way to its answer: what handlers and extractors may ask the server about it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::extract::{FromRequestParts, MatchedPath};
use axum::http::Extensions;
use axum::http::request::Parts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::limits::{Limit, Limits};
use super::metrics::Metrics;
use super::request_id::RequestId;
use crate::relay::{Problem, ProblemCode};

/// In pieces of how many bytes the memory for bodies is given out.
const BLOCK_BYTES: usize = 16 << 10;

/// How far a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It serves.
    Serving,
    /// It finishes what is under way, and tells everybody else to come again.
    Stopping,
    /// Nothing is under way any more.
    Done,
    /// What is under way all the same is given up.
    Over,
}

/// What all requests share that is given out and taken back.
#[derive(Debug)]
pub struct Shares {
    pub limits: Limits,
    pub metrics: Arc<Metrics>,
    bodies: Arc<Semaphore>,
    stage: watch::Receiver<Stage>,
}

impl Shares {
    pub fn new(limits: Limits, metrics: Arc<Metrics>, stage: watch::Receiver<Stage>) -> Self {
        let blocks = (limits.bodies_bytes_max / BLOCK_BYTES).clamp(1, Semaphore::MAX_PERMITS);
        Self { limits, metrics, bodies: Arc::new(Semaphore::new(blocks)), stage }
    }

    /// Tells when it stops.
    pub fn stopping(&self) -> Stopping {
        Stopping { stage: self.stage.clone(), awaited: Stage::Stopping }
    }

    /// Tells when even what is under way is given up.
    pub fn over(&self) -> Stopping {
        Stopping { stage: self.stage.clone(), awaited: Stage::Over }
    }

    /// Tells a connection when it is to end: one that was there before the server began to stop, then; one that came
    /// later, when it has had the time to be told.
    pub fn ending(&self) -> Stopping {
        let awaited = if *self.stage.borrow() == Stage::Serving { Stage::Stopping } else { Stage::Done };
        Stopping { stage: self.stage.clone(), awaited }
    }
}

/// One request, and what it holds of the memory for bodies until it is answered.
#[derive(Clone, Debug)]
pub struct Exchange(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: RequestId,
    client: SocketAddr,
    shares: Arc<Shares>,
    route: OnceLock<MatchedPath>,
    held: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Exchange {
    pub(super) fn new(id: RequestId, client: SocketAddr, shares: Arc<Shares>) -> Self {
        Self(Arc::new(Inner { id, client, shares, route: OnceLock::new(), held: Mutex::default() }))
    }

    /// The one that a request belongs to. A router that is called without a server has the usual limits.
    pub(super) fn of(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_else(|| {
            let (_, stage) = watch::channel(Stage::Serving);
            let shares = Shares::new(Limits::default(), Arc::default(), stage);
            Self::new(RequestId::draw(), SocketAddr::from(([0, 0, 0, 0], 0)), Arc::new(shares))
        })
    }

    /// Under which id the request is logged.
    pub fn id(&self) -> &RequestId {
        &self.0.id
    }

    /// Who asks, or the proxy in front of them.
    pub fn client(&self) -> SocketAddr {
        self.0.client
    }

    /// Whether the server stops, so that streams end where they can be taken up again.
    pub fn stopping(&self) -> Stopping {
        self.0.shares.stopping()
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.0.shares.limits
    }

    pub(in crate::relay) fn refused(&self, limit: Limit) {
        self.0.shares.metrics.refused(limit);
    }

    pub(super) fn route(&self) -> Option<&str> {
        self.0.route.get().map(MatchedPath::as_str)
    }

    /// Notes where a request was led to.
    pub(super) fn note_route(extensions: &Extensions) {
        if let (Some(exchange), Some(route)) = (extensions.get::<Self>(), extensions.get::<MatchedPath>()) {
            let _ = exchange.0.route.set(route.clone());
        }
    }

    /// Takes memory for a body that has `bytes` by now.
    pub(super) fn hold(&self, bytes: usize) -> Result<(), Problem> {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        let has = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let wants = bytes.div_ceil(BLOCK_BYTES).saturating_sub(has);
        if wants == 0 {
            return Ok(());
        }
        let wants = u32::try_from(wants).unwrap_or(u32::MAX);
        match Arc::clone(&self.0.shares.bodies).try_acquire_many_owned(wants) {
            Ok(more) => {
                match held.as_mut() {
                    Some(held) => held.merge(more),
                    None => *held = Some(more),
                }
                Ok(())
            }
            Err(_) => {
                self.refused(Limit::BodiesBytes);
                Err(overloaded("too much is being uploaded at once"))
            }
        }
    }

    /// Gives back what was held.
    pub(super) fn release(&self) {
        drop(self.0.held.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Exchange {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::of(&parts.extensions))
    }
}

/// Tells a stream that the server stops.
#[derive(Clone, Debug)]
pub struct Stopping {
    stage: watch::Receiver<Stage>,
    awaited: Stage,
}

impl Stopping {
    /// Whether it stops.
    pub fn is_wanted(&self) -> bool {
        *self.stage.borrow() >= self.awaited
    }

    /// Waits until the server stops.
    pub async fn wanted(&mut self) {
        let awaited = self.awaited;
        // Without a server nobody can want it.
        if self.stage.wait_for(|stage| *stage >= awaited).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// There is too much to do; another moment is better.
pub fn overloaded(detail: &str) -> Problem {
    Problem::new(ProblemCode::Unavailable, detail, "try again after the seconds in Retry-After").retry_after(1)
}
