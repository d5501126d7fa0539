//! Causal order: nothing is applied before what it depends on, the log is a linear extension of causality, and what an
//! event says of its past is what its author knew, no less, and nothing twice.

use thence::causal::{Dot, VersionVector};
use thence::model::{Event, SpaceId};

use super::history::Shelf;
use super::{Broken, History, Verdict, broken};

/// Whether `event` may stand next in a log.
pub(super) fn check_next(shelf: &Shelf, event: &Event) -> Verdict {
    let dot = event.dot;
    if dot.counter != shelf.vector.counter(dot.replica) + 1 {
        return broken("causal order", format!("{dot:?} follows {} of its replica", shelf.vector.counter(dot.replica)));
    }
    match event.dependencies.iter().find(|dependency| !shelf.vector.contains(dependency.dot)) {
        Some(missing) => broken("causal order", format!("{dot:?} stands before {:?}, which it builds on", missing.dot)),
        None => Ok(()),
    }
}

/// The past of an event that its author writes on a disk with this log. Direct dependencies say all of it, each of
/// them something that no other says, and the depth is one more than the greatest there.
pub(super) fn check_past(
    history: &History,
    space: SpaceId,
    shelf: &Shelf,
    event: &Event,
) -> Result<VersionVector, Broken> {
    let dot = event.dot;
    let before = Dot::new(dot.replica, dot.counter - 1);
    let direct =
        || event.dependencies.iter().map(|dependency| dependency.dot).chain((before.counter > 0).then_some(before));
    let past_of = |of: Dot| history.pasts.get(&(space, of)).cloned().unwrap_or_default();
    let mut past = VersionVector::new();
    for dependency in direct() {
        past.join(&past_of(dependency));
        past.advance(dependency);
    }
    if past != shelf.vector {
        let detail = format!("{dot:?} says that its author knew {past:?}, who knew {:?}", shelf.vector);
        return broken("causal order", detail);
    }
    let said_twice = |of: &Dot| direct().any(|other| past_of(other).contains(*of));
    if let Some(twice) = event.dependencies.iter().map(|dependency| dependency.dot).find(said_twice) {
        return broken("causal order", format!("{dot:?} names {twice:?}, which another dependency implies"));
    }
    let depth = shelf.log.iter().filter_map(|known| history.depth(space, *known)).max().unwrap_or(0) + 1;
    if event.depth != depth {
        return broken("causal order", format!("{dot:?} has depth {}, not {depth}", event.depth));
    }
    Ok(past)
}
