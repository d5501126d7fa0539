//! What events are called on a disk: by the definition, from nothing but which events lie there.
//!
//! An event bears the id of its author and its number among the author's events, unless some of the author's events
//! on that disk go on from the same event: then each of these begins a history with an id of its own.

use std::collections::{BTreeMap, BTreeSet};

use thence::causal::{Dot, EventHash, ReplicaId};

use super::{Era, History};

/// The name of every event of a set that holds, with each event, all that its author wrote before it.
pub(super) fn names(history: &History, era: Era, events: &BTreeSet<EventHash>) -> BTreeMap<EventHash, Dot> {
    let told = || events.iter().filter_map(|hash| Some((*hash, history.events.get(&(era, *hash))?)));
    let mut siblings: BTreeMap<(ReplicaId, EventHash), usize> = BTreeMap::new();
    let mut in_order: Vec<(Dot, EventHash)> = Vec::new();
    for (hash, told) in told() {
        *siblings.entry((told.event.dot.replica, told.event.previous)).or_default() += 1;
        in_order.push((told.event.dot, hash));
    }
    in_order.sort();
    let mut names: BTreeMap<EventHash, Dot> = BTreeMap::new();
    for (dot, hash) in in_order {
        let Some(told) = history.events.get(&(era, hash)) else { continue };
        let previous = told.event.previous;
        let alone = siblings.get(&(dot.replica, previous)) == Some(&1);
        let name = match (alone, names.get(&previous)) {
            (false, _) => Dot::new(told.author.branch(hash), 1),
            (true, Some(before)) => Dot::new(before.replica, before.counter + 1),
            (true, None) => dot,
        };
        names.insert(hash, name);
    }
    names
}
