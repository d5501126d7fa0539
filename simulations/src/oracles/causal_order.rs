//! Causal order: nothing is applied before what it depends on, the log is a linear extension of causality, and what an
//! event says of its past is what its author knew, no less, and nothing twice.

use std::collections::BTreeSet;

use thence::causal::EventHash;
use thence::model::Event;

use super::history::Shelf;
use super::{Era, History, Verdict, broken};

/// Whether `event` may stand next in a log.
pub(super) fn check_next(shelf: &Shelf, event: &Event) -> Verdict {
    if event.previous != EventHash::start(event.dot.replica) && !shelf.events.contains(&event.previous) {
        return broken("causal order", format!("{:?} stands before the one that it follows", event.dot));
    }
    let mut named = event.dependencies.iter().chain(&event.witnesses);
    if let Some(missing) = named.find(|witness| shelf.find(witness).is_none()) {
        let (dot, missing) = (event.dot, missing.dot);
        return broken("causal order", format!("{dot:?} stands before {missing:?}, which it builds on"));
    }
    if event.depth > shelf.depth + 1 {
        // It would win every conflict for ever.
        let (dot, depth, before) = (event.dot, event.depth, shelf.depth);
        return broken("causal order", format!("{dot:?} has depth {depth}, nothing before it more than {before}"));
    }
    Ok(())
}

/// Whether an event that its author writes when it knows `past` says so: direct dependencies say all of it, each of
/// them something that no other says, and the depth is one more than the greatest there.
pub(super) fn check_past(
    history: &History,
    era: Era,
    shelf: &Shelf,
    past: &BTreeSet<EventHash>,
    event: &Event,
) -> Verdict {
    let dot = event.dot;
    let nothing = BTreeSet::new();
    let past_of = |of: EventHash| history.events.get(&(era, of)).map_or(&nothing, |told| &told.past);
    let dependencies: Vec<EventHash> =
        event.dependencies.iter().filter_map(|dependency| shelf.find(dependency)).collect();
    let direct = || {
        dependencies.iter().copied().chain((event.previous != EventHash::start(dot.replica)).then_some(event.previous))
    };
    let mut said: BTreeSet<EventHash> = BTreeSet::new();
    for dependency in direct() {
        said.extend(past_of(dependency));
        said.insert(dependency);
    }
    if said != *past {
        let (said, known) = (said.len(), past.len());
        return broken("causal order", format!("{dot:?} says that its author knew {said} events, who knew {known}"));
    }
    let said_twice = |of: &EventHash| direct().any(|other| past_of(other).contains(of));
    if let Some(twice) = dependencies.iter().find(|of| said_twice(of)) {
        return broken("causal order", format!("{dot:?} names {twice:?}, which another dependency implies"));
    }
    let depth = past.iter().filter_map(|known| history.depth(era, *known)).max().unwrap_or(0) + 1;
    if event.depth != depth {
        return broken("causal order", format!("{dot:?} has depth {}, not {depth}", event.depth));
    }
    Ok(())
}
