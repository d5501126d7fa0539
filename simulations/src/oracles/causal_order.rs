//! Causal order: nothing is applied before what it depends on, and the log is a linear extension of causality.

use thence::model::Event;

use super::history::Shelf;
use super::{Verdict, broken};

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
