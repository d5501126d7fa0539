//! What a node takes from the world around it: time, chance, and the means to do several things at once.
//!
//! **Invariant**: nothing else in [`node`](super) asks the system for the time, for randomness or for a task of its own
//! while it runs, so that a simulation that brings [`Surroundings`] of its own decides everything that happens.
//! The network is not here: an endpoint is made over a socket of the caller's. Neither are files: a node that is
//! assembled from parts is handed a ledger.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::Rng;
use tokio::sync::mpsc;

/// Something that is done beside other things.
pub type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The world around a node.
pub trait Surroundings: fmt::Debug + Send + Sync {
    /// The moment, on a clock that never goes back.
    fn now(&self) -> Instant;

    /// Milliseconds since 1970, for people: this clock may jump.
    fn wall_ms(&self) -> u64;

    /// 64 bits that nobody can foresee.
    fn random(&self) -> u64;

    /// Waits until a moment.
    fn sleep_until(&self, at: Instant) -> Task;

    /// Begins a task. It ends by itself, or with everything.
    fn spawn(&self, task: Task);

    /// Begins a task that may block, as one that uses the disk does: nothing else waits for it.
    ///
    /// # Errors
    /// What the system says if it gives no thread.
    fn spawn_apart(&self, name: &'static str, task: Task) -> io::Result<()>;
}

impl dyn Surroundings {
    /// `future`, unless `limit` passes first.
    pub(super) async fn within<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        let over = self.sleep_until(self.now() + limit);
        tokio::select! {
            biased;
            output = future => Some(output),
            () = over => None,
        }
    }

    /// Sixteen bytes that nobody can foresee.
    pub(crate) fn random_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.random().to_le_bytes());
        id[8..].copy_from_slice(&self.random().to_le_bytes());
        id
    }
}

/// The operating system and tokio.
#[derive(Debug)]
pub(super) struct System;

/// Milliseconds since 1970, as the operating system says.
pub(super) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Surroundings for System {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall_ms(&self) -> u64 {
        wall_ms()
    }

    fn random(&self) -> u64 {
        rand::rng().next_u64()
    }

    fn sleep_until(&self, at: Instant) -> Task {
        Box::pin(tokio::time::sleep_until(at.into()))
    }

    fn spawn(&self, task: Task) {
        tokio::spawn(task);
    }

    fn spawn_apart(&self, name: &'static str, task: Task) -> io::Result<()> {
        // With timers of its own: those of the runtime that the node began in may end before this task does.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new().name(name.to_owned()).spawn(move || runtime.block_on(task))?;
        Ok(())
    }
}

/// Tasks with results that belong together: when this is dropped, they end.
#[derive(Debug)]
pub(super) struct Tasks<T> {
    surroundings: Arc<dyn Surroundings>,
    sender: mpsc::UnboundedSender<Option<T>>,
    results: mpsc::UnboundedReceiver<Option<T>>,
    running: usize,
}

/// Tells that a task has ended, also by a panic.
struct Ending<T> {
    sender: mpsc::UnboundedSender<Option<T>>,
    result: Option<T>,
}

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        let _ = self.sender.send(self.result.take());
    }
}

impl<T: Send + 'static> Tasks<T> {
    pub(super) fn new(surroundings: Arc<dyn Surroundings>) -> Self {
        let (sender, results) = mpsc::unbounded_channel();
        Self { surroundings, sender, results, running: 0 }
    }

    pub(super) fn spawn(&mut self, task: impl Future<Output = T> + Send + 'static) {
        let mut ending = Ending { sender: self.sender.clone(), result: None };
        let sender = self.sender.clone();
        self.running += 1;
        self.surroundings.spawn(Box::pin(async move {
            let result = tokio::select! {
                biased;
                result = task => Some(result),
                () = sender.closed() => None,
            };
            ending.result = result;
            drop(ending);
        }));
    }

    /// Waits for the next one to end: with a result, or without one if it panicked. `None` if none is left.
    pub(super) async fn next(&mut self) -> Option<Option<T>> {
        if self.running == 0 {
            return None;
        }
        let ended = self.results.recv().await;
        self.running -= 1;
        ended
    }

    /// The same for one that has ended already.
    pub(super) fn try_next(&mut self) -> Option<Option<T>> {
        let ended = self.results.try_recv().ok()?;
        self.running -= 1;
        Some(ended)
    }
}
