//! One dot, one event: no two events with the same dot survive on any disk.

use thence::model::{Event, SpaceId};

use super::{History, Verdict, broken};

/// Whether an event that comes to a disk for the first time has a name of its own.
pub(super) fn check(history: &History, space: SpaceId, event: &Event) -> Verdict {
    match history.hashes.get(&(space, event.dot)) {
        None => Ok(()),
        Some(hash) if *hash == event.hash => {
            broken("one dot, one event", format!("{:?} lies in two different segments", event.dot))
        }
        Some(hash) => {
            let detail = format!("{:?} names both {hash:?} and {:?}", event.dot, event.hash);
            broken("one dot, one event", detail)
        }
    }
}
