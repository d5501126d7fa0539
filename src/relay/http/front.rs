//! What happens to every request, whatever it is about: it gets an id, is let in or refused by a limit, is answered even if
//! its handler panics, marked for the browser, counted and logged.
//!
//! **Invariant**: each request is logged once, when its answer has gone or its client has, with the template of its route;
//! never with a path, a query, a header or a body.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, HeaderMap, HeaderValue};
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::Service as HyperService;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower_service::Service as TowerService;
use tracing::Instrument as _;

use super::answer::{as_problem, internal};
use super::body::too_large;
use super::cors::Cors;
use super::exchange::{Exchange, Shares, overloaded};
use super::limits::{Limit, Limits};
use super::metrics::{Metrics, NO_ROUTE, method_name};
use super::pace::{Pace, Turn};
use super::rate::Rate;
use super::request_id::{REQUEST_ID, RequestId};
use super::wire::headers_too_large;
use crate::relay::{Problem, ProblemCode};

/// What says whose request it is, so that each has a rate of its own: part of the headers. None for what is nobody's,
/// which counts for its address.
pub type RateKey = for<'a> fn(&'a HeaderMap) -> Option<&'a [u8]>;

/// The token, however the words before it and the spaces around it are written, or none.
pub fn by_token(headers: &HeaderMap) -> Option<&[u8]> {
    let said = headers.get(axum::http::header::AUTHORIZATION)?.as_bytes();
    let scheme = said.iter().position(|byte| *byte == b' ').unwrap_or_default();
    Some(said[scheme..].trim_ascii())
}

/// What all connections share.
#[derive(Debug)]
pub struct Front {
    router: Router,
    cors: Cors,
    rate: Rate,
    rate_key: RateKey,
    shares: Arc<Shares>,
    requests: Arc<Semaphore>,
    began: Instant,
    /// How many requests were let in and are not done with.
    under_way: watch::Sender<usize>,
}

impl Front {
    pub fn new(router: Router, cors: Cors, rate_key: RateKey, shares: Arc<Shares>) -> Self {
        let Limits { requests_per_second_max, keys_max, requests_max, .. } = shares.limits;
        let router = router.layer(axum::middleware::map_request(|request: Request<Body>| async {
            Exchange::note_route(request.extensions());
            request
        }));
        Self {
            router,
            cors,
            rate: Rate::new(requests_per_second_max, keys_max),
            rate_key,
            shares,
            requests: Arc::new(Semaphore::new(requests_max.min(Semaphore::MAX_PERMITS))),
            began: Instant::now(),
            under_way: watch::channel(0).0,
        }
    }

    pub fn shares(&self) -> &Arc<Shares> {
        &self.shares
    }

    /// Waits until nothing is under way.
    pub async fn is_done(&self) {
        // The other end is held here.
        let _ = self.under_way.subscribe().wait_for(|under_way| *under_way == 0).await;
    }

    /// Lets a request in, or says why not.
    fn admit(&self, request: &Request<Incoming>, client: IpAddr) -> Result<OwnedSemaphorePermit, (Limit, Problem)> {
        let limits = &self.shares.limits;
        let headers = request.headers();
        if self.shares.stopping().is_wanted() {
            return Err((Limit::Stopping, overloaded("the relay is stopping")));
        }
        // HTTP/1.1 is held to it where headers are read, HTTP/2 to a multiple only, since it refuses without a word.
        let weight: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if weight + request.uri().path().len() + request.uri().query().map_or(0, str::len) > limits.header_bytes_max {
            return Err((Limit::HeaderBytes, headers_too_large(limits.header_bytes_max)));
        }
        let address = client.to_canonical().to_string();
        let key = (self.rate_key)(headers).unwrap_or(address.as_bytes());
        if let Err(wait) = self.rate.admit(key, self.began.elapsed()) {
            let detail = format!("more than {} requests in a second", limits.requests_per_second_max);
            let problem = Problem::new(ProblemCode::TooManyRequests, detail, "send fewer, with more in each");
            return Err((Limit::Rate, problem.retry_after(wait.as_secs_f64().ceil().max(1.0) as u64)));
        }
        let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|declared| declared > limits.body_bytes_max as u64) {
            return Err((Limit::BodyBytes, too_large(limits.body_bytes_max)));
        }
        let permit = Arc::clone(&self.requests).try_acquire_owned();
        permit.map_err(|_| (Limit::Requests, overloaded("the relay has too much to do")))
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, client: SocketAddr, turn: Turn) -> Response<Answer> {
        let id = RequestId::of(request.headers());
        let method = method_name(request.method());
        let origin = self.cors.origin(request.headers());
        let preflight = origin.is_some() && Cors::is_preflight(request.method(), request.headers());
        let exchange = Exchange::new(id.clone(), client, Arc::clone(&self.shares));
        let mut account = Account::begin(Arc::clone(&self), exchange.clone(), method, turn);

        let response = if preflight {
            StatusCode::NO_CONTENT.into_response()
        } else {
            match self.admit(&request, client.ip()) {
                Ok(permit) => {
                    account.let_in(permit);
                    let (mut parts, body) = request.into_parts();
                    parts.extensions.insert(exchange.clone());
                    let body = Body::new(Question { body, ended: false, turn: account.pace() });
                    let span = tracing::info_span!("request", id = %id);
                    let handling = handle(self.router.clone(), Request::from_parts(parts, body));
                    let handled = handling.instrument(span).await;
                    exchange.release();
                    handled.unwrap_or_else(|()| {
                        self.shares.metrics.panicked();
                        tracing::error!(request = %id, route = exchange.route(), "a handler panicked");
                        internal().into_response()
                    })
                }
                Err((limit, problem)) => {
                    self.shares.metrics.refused(limit);
                    account.leave_unread(&request);
                    problem.into_response()
                }
            }
        };
        let mut response = as_problem(response, method).await;
        let status = response.status();
        let headers = response.headers_mut();
        if status.is_client_error() || status.is_server_error() {
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        headers.insert(REQUEST_ID, id.header());
        self.cors.mark(origin.as_ref(), preflight, headers);
        account.answer(status, response.body().size_hint().exact().is_some());
        response.map(|body| Answer { body, account })
    }
}

/// Has the router answer. A panic of the handler ends with it.
async fn handle(mut router: Router, request: Request<Body>) -> Result<Response<Body>, ()> {
    // A handler that panics leaves nothing behind that others use: what it shares with them is a node, whose own threads
    // do the work, and the counts of this server.
    let handling = catch_unwind(AssertUnwindSafe(|| TowerService::call(&mut router, request))).map_err(drop)?;
    let mut handling = Box::pin(handling);
    std::future::poll_fn(move |context| match catch_unwind(AssertUnwindSafe(|| handling.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(Ok(response))) => Poll::Ready(Ok(response)),
        Ok(Poll::Ready(Err(never))) => match never {},
        Err(_) => Poll::Ready(Err(())),
    })
    .await
}

/// One connection's way to the front.
#[derive(Clone, Debug)]
pub struct Visitor {
    pub front: Arc<Front>,
    pub client: SocketAddr,
    pub pace: Arc<Pace>,
}

impl HyperService<Request<Incoming>> for Visitor {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answer>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        // From this very moment the connection is busy; later, it would take the answer for hyper's own.
        let turn = self.pace.begin();
        let answering = Arc::clone(&self.front).answer(request, self.client, turn);
        Box::pin(async move { Ok(answering.await) })
    }
}

/// A request's body, on its way to the handler.
#[derive(Debug)]
struct Question {
    body: Incoming,
    ended: bool,
    turn: Arc<Pace>,
}

impl HttpBody for Question {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.ended |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if !self.ended && !self.body.is_end_stream() {
            self.turn.leave_unread();
        }
    }
}

/// What is to be known of a request once it is over.
#[derive(Debug)]
struct Account {
    front: Arc<Front>,
    exchange: Exchange,
    turn: Turn,
    method: &'static str,
    began: Instant,
    permit: Option<OwnedSemaphorePermit>,
    let_in: bool,
    status: Option<StatusCode>,
    bytes: u64,
}

impl Account {
    fn begin(front: Arc<Front>, exchange: Exchange, method: &'static str, turn: Turn) -> Self {
        front.metrics().begin();
        let began = Instant::now();
        Self { front, exchange, turn, method, began, permit: None, let_in: false, status: None, bytes: 0 }
    }

    fn let_in(&mut self, permit: OwnedSemaphorePermit) {
        self.permit = Some(permit);
        self.let_in = true;
        self.front.under_way.send_modify(|under_way| *under_way += 1);
    }

    fn pace(&self) -> Arc<Pace> {
        self.turn.pace()
    }

    fn leave_unread(&self, request: &Request<Incoming>) {
        if !request.body().is_end_stream() {
            self.turn.pace().leave_unread();
        }
    }

    fn route(&self) -> &str {
        self.exchange.route().unwrap_or(NO_ROUTE)
    }

    /// The answer begins. One whose length is known goes on counting as a request until it has gone.
    fn answer(&mut self, status: StatusCode, sized: bool) {
        self.status = Some(status);
        self.front.metrics().answered(self.route(), self.method, status.as_u16(), self.began.elapsed());
        if sized {
            let due = tokio::time::Instant::now() + self.front.shares.limits.answer_time_max;
            self.turn.answer_until(due);
        } else {
            self.permit = None;
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.exchange.release();
        self.front.metrics().end();
        if self.let_in {
            self.front.under_way.send_modify(|under_way| *under_way -= 1);
        }
        let (request, method, route) = (self.exchange.id(), self.method, self.route());
        let (bytes, ms) = (self.bytes, self.began.elapsed().as_micros() as f64 / 1000.0);
        match self.status.map(|status| status.as_u16()) {
            Some(status) => tracing::info!(%request, method, route, status, ms, bytes, "answered"),
            None => tracing::info!(%request, method, route, ms, "its client went away"),
        }
    }
}

impl Front {
    fn metrics(&self) -> &Metrics {
        &self.shares.metrics
    }
}

/// An answer's body, on its way to the client.
#[derive(Debug)]
pub struct Answer {
    body: Body,
    account: Account,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.account.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
