//! The surroundings of one life of one node: what the product and quinn take from the world, as the world decides it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use thence::node::{Surroundings, Task};

use super::executor::{Executor, Nanos, Owner, Timer};
use crate::world::Chance;

/// When virtual time began. Nobody can see which moment that was in truth: only differences count.
fn beginning() -> Instant {
    static BEGINNING: OnceLock<Instant> = OnceLock::new();
    *BEGINNING.get_or_init(Instant::now)
}

/// The day on which every world begins, in milliseconds since 1970.
const FIRST_DAY_MS: u64 = 1_800_000_000_000;

/// See the module.
pub(super) struct Around {
    executor: Executor,
    chance: Chance,
    owner: Owner,
    drawn: AtomicU64,
    disk: (Nanos, Nanos),
    /// By how much the node's clock is wrong, in milliseconds.
    skew_ms: Arc<AtomicI64>,
}

impl Around {
    pub(super) fn new(
        executor: &Executor,
        chance: Chance,
        owner: Owner,
        disk: (Nanos, Nanos),
        skew_ms: &Arc<AtomicI64>,
    ) -> Self {
        let (executor, skew_ms) = (executor.clone(), Arc::clone(skew_ms));
        Self { executor, chance, owner, drawn: AtomicU64::new(0), disk, skew_ms }
    }

    fn nanos(at: Instant) -> Nanos {
        let since = at.saturating_duration_since(beginning());
        Nanos::try_from(since.as_nanos()).unwrap_or(Nanos::MAX)
    }
}

impl fmt::Debug for Around {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Around {:?}", self.owner)
    }
}

impl Surroundings for Around {
    fn now(&self) -> Instant {
        beginning() + Duration::from_nanos(self.executor.now())
    }

    fn wall_ms(&self) -> u64 {
        let right = FIRST_DAY_MS + self.executor.now() / 1_000_000;
        right.saturating_add_signed(self.skew_ms.load(Ordering::Relaxed))
    }

    fn random(&self) -> u64 {
        let (node, life) = self.owner;
        self.chance.draw("random", (node as u64) << 32 | life, self.drawn.fetch_add(1, Ordering::Relaxed))
    }

    fn sleep_until(&self, at: Instant) -> Task {
        Box::pin(self.executor.timer(Self::nanos(at)))
    }

    fn spawn(&self, task: Task) {
        self.executor.spawn(self.owner, task, None);
    }

    fn spawn_apart(&self, _: &'static str, task: Task) -> io::Result<()> {
        self.executor.spawn(self.owner, task, Some(self.disk));
        Ok(())
    }
}

impl quinn::Runtime for Around {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn quinn::AsyncTimer>> {
        Box::pin(self.executor.timer(Self::nanos(at)))
    }

    fn spawn(&self, task: Task) {
        self.executor.spawn(self.owner, task, None);
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "there are no real sockets in a simulation"))
    }

    fn now(&self) -> Instant {
        beginning() + Duration::from_nanos(self.executor.now())
    }
}

impl quinn::AsyncTimer for Timer {
    fn reset(mut self: Pin<&mut Self>, at: Instant) {
        Self::reset(&mut self, Around::nanos(at));
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.poll_at(context)
    }
}
