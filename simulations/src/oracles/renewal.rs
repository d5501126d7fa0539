//! A name that may have been used is not used again: whoever learns that its store was put back, or that a copy of it
//! wrote, writes as a new replica from then on.

use std::collections::BTreeSet;

use thence::causal::ReplicaId;

use super::{Era, Verdict, broken};

const INVARIANT: &str = "no name is used again";

/// What a node was told of its own replica: somebody has more of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) era: Era,
    pub(crate) replica: ReplicaId,
    pub(crate) counter: u64,
}

/// Whether a store that wrote as `before` writes as another replica after a commit that took in events which it had
/// written as `before` and did not have.
pub(crate) fn check_renewed(before: ReplicaId, now: ReplicaId, came_back: bool) -> Verdict {
    if !came_back || before != now {
        return Ok(());
    }
    broken(INVARIANT, format!("events of {before:?} came back to it, and it still writes under that id"))
}

/// Whether a store that was told so before a commit began has drawn the consequence. `known` is how much it has of that
/// replica after the commit: the peer may only have been quicker.
pub(crate) fn check_heeded(told: &Told, now: ReplicaId, known: u64) -> Verdict {
    if told.replica != now || known >= told.counter {
        return Ok(());
    }
    let Told { replica, counter, .. } = told;
    broken(INVARIANT, format!("a peer has {counter} events of {replica:?}, it has {known}, and writes under that id"))
}

/// Whether a store that writes as `now` has not ceased to do so before.
pub(crate) fn check_given_up(given_up: &BTreeSet<ReplicaId>, now: ReplicaId) -> Verdict {
    if !given_up.contains(&now) {
        return Ok(());
    }
    broken(INVARIANT, format!("it writes as {now:?}, which it had ceased to do"))
}
