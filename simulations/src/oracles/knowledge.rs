//! Knowledge: it never shrinks, and every claim of it is true and durable.
//!
//! That it never shrinks needs no check of its own: a disk's vector is its log's ([`super::History::read_on`]), and a
//! log only grows ([`super::Promises::read`]).

use thence::causal::{Dot, VersionVector};

use super::history::Shelf;
use super::{Verdict, broken};

/// Whether what a node says it knows is on its disk.
pub(crate) fn check_claim(shelf: &Shelf, claim: &VersionVector, where_said: &str) -> Verdict {
    check_dots(shelf, claim.iter(), where_said)
}

/// The same, dot by dot.
pub(crate) fn check_dots(shelf: &Shelf, claim: impl IntoIterator<Item = Dot>, where_said: &str) -> Verdict {
    match claim.into_iter().find(|dot| !shelf.vector.contains(*dot)) {
        None => Ok(()),
        Some(dot) => broken("true claims", format!("{where_said} covers {dot:?}, which is not on that disk")),
    }
}
