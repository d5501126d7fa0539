//! One dot, one event: no two events with the same dot and different hashes survive on any disk, but where a store was
//! copied or put back, or whose owner is hostile; and there each of them has a name of its own ([`super::names`]).

use thence::model::{DeviceId, Event, SpaceId};

use super::{History, Verdict, broken};

/// Whether an event of `author` that comes to a disk for the first time has a name of its own.
pub(super) fn check(history: &History, space: SpaceId, author: DeviceId, event: &Event) -> Verdict {
    let twins = history.named.get(&(space, event.dot));
    match twins.and_then(|twins| twins.first()) {
        Some(_) if history.copied.contains(&author) => Ok(()),
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
