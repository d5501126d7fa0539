//! Durability: what a user was told is written survives any crash. Commit before send: what another node can see lies
//! on the sender's disk.

use thence::causal::EventHash;
use thence::model::SpaceId;

use super::history::{History, Shelf};
use super::{Verdict, broken};

/// Whether a disk still holds what it held before a crash. A log never changes where it was read before.
pub(crate) fn check_reopened(before: &Shelf, now: &Shelf) -> Verdict {
    if !now.log.starts_with(&before.log) {
        return broken("durability", "the log is not what it was before the crash");
    }
    Ok(())
}

/// Whether a disk holds an event that a user was told is written.
pub(crate) fn check_acknowledged(history: &History, space: SpaceId, shelf: &Shelf, event: EventHash) -> Verdict {
    if shelf.events.contains(&event) {
        return Ok(());
    }
    broken("durability", format!("{:?} was acknowledged and is gone", history.dot(space, event)))
}

/// Whether a segment that a node sends lies on its disk.
pub(crate) fn check_sent(history: &History, space: SpaceId, shelf: &Shelf, bytes: &[u8]) -> Verdict {
    match history.find(space, bytes) {
        Some(events) if events.iter().all(|event| shelf.events.contains(event)) => Ok(()),
        Some(_) => broken("commit before send", "a segment is sent that is not durable at the sender"),
        None => broken("commit before send", "a segment is sent that lies on no disk"),
    }
}
