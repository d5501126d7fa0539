//! One dot, one event: no two events with the same dot and different hashes survive on any disk, but where a store was
//! copied or put back, or whose owner is hostile; and there each of them has a name of its own ([`super::names`]).

use std::collections::BTreeMap;

use thence::model::{DeviceId, Event};

use super::{Era, History, Shelf, Verdict, broken};

/// Whether an event of `author` that comes to a disk for the first time has a name of its own.
pub(super) fn check(history: &History, era: Era, author: DeviceId, event: &Event) -> Verdict {
    let twins = history.named.get(&(era, event.dot));
    match twins.and_then(|twins| twins.first()) {
        Some(_) if history.copied.contains(&author) => Ok(()),
        None => Ok(()),
        Some(_) if history.of_many_worlds => Ok(()),
        Some(hash) if *hash == event.hash => {
            broken("one dot, one event", format!("{:?} lies in two different segments", event.dot))
        }
        Some(hash) => {
            let detail = format!("{:?} names both {hash:?} and {:?}", event.dot, event.hash);
            broken("one dot, one event", detail)
        }
    }
}

/// Whether every name that an author gave stands for one event on all these disks of one world.
pub(crate) fn check_disks(history: &History, era: Era, shelves: &[&Shelf]) -> Verdict {
    let mut named = BTreeMap::new();
    for hash in shelves.iter().flat_map(|shelf| &shelf.events) {
        let Some(told) = history.events.get(&(era, *hash)) else { continue };
        let other = *named.entry(told.event.dot).or_insert(*hash);
        if other != *hash && !history.copied.contains(&told.author.device) {
            let detail = format!("{:?} names both {other:?} and {hash:?}", told.event.dot);
            return broken("one dot, one event", detail);
        }
    }
    Ok(())
}
