//! Whose turn it is on one connection, told by those who answer requests and read by those who wait for bytes.
//!
//! **Invariant**: a [`Turn`] lives from the moment in which a request's headers are complete until nothing of its answer
//! is left to be handed to the connection. So a connection without a living turn, whose writes are flushed, waits for
//! its client.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// The turns of one connection.
#[derive(Debug, Default)]
pub struct Pace {
    turns: Mutex<Turns>,
}

#[derive(Debug, Default)]
struct Turns {
    /// How many requests began and ended.
    begun: u64,
    ended: u64,
    /// Whether a body was left unread, so that its client may still be sending it.
    unread: bool,
    /// Until when answers that have begun are to be taken, by request. They begin one after the other, and all have the
    /// same time, so the first one is the first to be due.
    due: BTreeMap<u64, Instant>,
}

impl Pace {
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins.
    pub fn begin(self: &Arc<Self>) -> Turn {
        let mut turns = self.turns();
        turns.begun += 1;
        let number = turns.begun;
        drop(turns);
        Turn { pace: Arc::clone(self), number }
    }

    /// How many requests have begun, and whether one is under way.
    pub fn begun(&self) -> (u64, bool) {
        let turns = self.turns();
        (turns.begun, turns.begun > turns.ended)
    }

    /// Notes that a body was left unread.
    pub fn leave_unread(&self) {
        self.turns().unread = true;
    }

    /// Whether a body was left unread.
    pub fn is_unread(&self) -> bool {
        self.turns().unread
    }

    /// Until when the client is to have taken the oldest answer that has begun, if there is one.
    pub fn due(&self) -> Option<Instant> {
        self.turns().due.values().min().copied()
    }
}

/// A request that is under way on a connection.
#[derive(Debug)]
pub struct Turn {
    pace: Arc<Pace>,
    number: u64,
}

impl Turn {
    /// The connection's.
    pub fn pace(&self) -> Arc<Pace> {
        Arc::clone(&self.pace)
    }

    /// The answer begins, and is to be taken until `due`.
    pub fn answer_until(&self, due: Instant) {
        self.pace.turns().due.insert(self.number, due);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.pace.turns();
        turns.ended += 1;
        turns.due.remove(&self.number);
    }
}
