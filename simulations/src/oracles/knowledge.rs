//! Knowledge: it never shrinks, and every claim of it is true and durable.
//!
//! That it never shrinks needs no check of its own: a disk's vector is its log's ([`super::History::read_on`]), and a
//! log only grows ([`super::check_reopened`]).

use thence::causal::{Claims, Dot, VersionVector};
use thence::model::DeviceId;

use super::history::{History, Shelf};
use super::{Era, Verdict, broken};

/// Whether what a node says it knows is on its disk. The hash says which event is meant, whatever it is called.
pub(crate) fn check_claims(shelf: &Shelf, claims: &Claims, where_said: &str) -> Verdict {
    match claims.iter().find(|claim| shelf.find(claim).is_none()) {
        None => Ok(()),
        Some(claim) => broken("true claims", format!("{where_said} covers {:?}, which is not on that disk", claim.dot)),
    }
}

/// Whether dots are on a disk: by the name that they have there now, or by that which their author gave
/// them, since a node may say a thing just before it learns that it is called otherwise.
fn check_dots(
    history: &History,
    era: Era,
    shelf: &Shelf,
    dots: impl IntoIterator<Item = Dot>,
    where_said: &str,
) -> Verdict {
    let is_there = |dot: &Dot| {
        let by_author = || history.named.get(&(era, *dot)).into_iter().flatten();
        shelf.vector.contains(*dot) || by_author().any(|hash| shelf.events.contains(hash))
    };
    match dots.into_iter().find(|dot| !is_there(dot)) {
        None => Ok(()),
        Some(dot) => broken("true claims", format!("{where_said} covers {dot:?}, which is not on that disk")),
    }
}

/// Whether what a node believes of its peer is so. Nobody can know it of a peer that was put back, or under whose names
/// lie other events, as long as neither has found out.
pub(crate) fn check_belief(
    history: &History,
    era: Era,
    peer: DeviceId,
    shelf: &Shelf,
    belief: &VersionVector,
) -> Verdict {
    if history.copied.contains(&peer) || history.has_twins(era) {
        return Ok(());
    }
    check_dots(history, era, shelf, belief.iter(), "what it believes of its peer")
}

impl History {
    /// Whether any name in a space was ever given to two events.
    pub(crate) fn has_twins(&self, era: Era) -> bool {
        !self.copied.is_empty() && self.named.iter().any(|((of, _), hashes)| *of == era && hashes.len() > 1)
    }
}
