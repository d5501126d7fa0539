//! Durability: what a user was told is written survives any crash, unless an owner begins the space anew. Commit before
//! send: what another node can see lies on the sender's disk.

use thence::causal::EventHash;

use super::history::{History, Shelf};
use super::{Era, Verdict, broken};

/// Whether a disk still holds what it held before a crash. A log never changes where it was read before.
pub(crate) fn check_reopened(before: &Shelf, now: &Shelf) -> Verdict {
    if now.revision > before.revision {
        // It was being begun anew when the process ended.
        return Ok(());
    }
    if now.revision < before.revision || !now.began.is_superset(&before.began) {
        let (before, now) = (before.revision, now.revision);
        return broken("durability", format!("revision {before} was on the disk before the crash, {now} is there now"));
    }
    if !now.log.starts_with(&before.log) {
        return broken("durability", "the log is not what it was before the crash");
    }
    Ok(())
}

/// Whether a disk holds an event that a user was told is written; unless the space was begun anew since.
pub(crate) fn check_acknowledged(history: &History, era: Era, shelf: &Shelf, event: EventHash) -> Verdict {
    if shelf.revision > era.revision || shelf.revision == era.revision && shelf.events.contains(&event) {
        return Ok(());
    }
    broken("durability", format!("{:?} was acknowledged and is gone", history.dot(era, event)))
}

/// Whether a segment that a node sends, in that era, lies on its disk; or was there before the disk went over to a later
/// one, of which the protocol has not heard yet.
pub(crate) fn check_sent(history: &History, era: Era, shelf: &Shelf, bytes: &[u8]) -> Verdict {
    match history.find(era, bytes) {
        Some(_) if era.revision < shelf.revision => Ok(()),
        Some(events) if events.iter().all(|event| shelf.events.contains(event)) => Ok(()),
        Some(_) => broken("commit before send", "a segment is sent that is not durable at the sender"),
        None => broken("commit before send", "a segment is sent that lies on no disk"),
    }
}
