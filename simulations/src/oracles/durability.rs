//! Durability: what a user was told is written survives any crash. Commit before send: what another node can see lies
//! on the sender's disk.

use thence::causal::Dot;
use thence::model::SpaceId;

use super::history::{History, Shelf};
use super::{Verdict, broken};

/// Whether a disk still holds what it held before a crash, and what users were told: `acknowledged` is the node's own
/// last event that it acknowledged. A log never changes where it was read before.
pub(crate) fn check_reopened(before: &Shelf, now: &Shelf, acknowledged: Option<Dot>) -> Verdict {
    if let Some(own) = acknowledged.filter(|own| !now.vector.contains(*own)) {
        return broken("durability", format!("{own:?} was acknowledged and is gone"));
    }
    if !now.log.starts_with(&before.log) {
        return broken("durability", "the log is not what it was before the crash");
    }
    Ok(())
}

/// Whether a segment that a node sends lies on its disk.
pub(crate) fn check_sent(history: &History, space: SpaceId, shelf: &Shelf, bytes: &[u8]) -> Verdict {
    match history.find(space, bytes) {
        Some((_, last)) if shelf.vector.contains(last) => Ok(()),
        Some((_, last)) => broken("commit before send", format!("{last:?} is sent and not durable at the sender")),
        None => broken("commit before send", "a segment is sent that lies on no disk"),
    }
}
