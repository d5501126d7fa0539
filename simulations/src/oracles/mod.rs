//! What must hold whatever the world does: one invariant of the design's §9 a file.
//!
//! Oracles see what no node sees: every event that was ever committed anywhere, and every disk. They share the
//! product's types, and none of its rules.

mod asked;
mod bounds;
mod causal_order;
mod convergence;
mod counters;
mod durability;
mod equation;
mod era;
mod failure;
mod feed;
mod history;
mod knowledge;
mod liveness;
mod names;
mod one_event;
mod readable;
mod renewal;
mod thin;
mod trespass;
mod watched;
mod wiping;

use std::fmt;

pub(crate) use self::asked::check_asked;
pub(crate) use self::bounds::{OnTheWay, check_in_flight, check_openings, check_session, check_silence};
pub(crate) use self::convergence::{Export, check_alike};
pub(crate) use self::durability::{check_acknowledged, check_reopened, check_sent};
pub(crate) use self::equation::check_object;
pub(crate) use self::era::Era;
pub(crate) use self::failure::{At, Failure, fail, unexpected};
pub(crate) use self::feed::Follower;
pub(crate) use self::history::{History, ObjectName, Shelf};
pub(crate) use self::knowledge::{check_belief, check_claims};
pub(crate) use self::liveness::Deadline;
pub(crate) use self::one_event::check_disks;
pub(crate) use self::readable::Listed;
pub(crate) use self::renewal::{Told, check_given_up, check_heeded, check_renewed};
pub(crate) use self::thin::{Origin, Shown as ShownTo, check_has_all, check_reset, check_taken, id_of, shown_to};
pub(crate) use self::trespass::{Shown, check_disk};
pub(crate) use self::watched::Watched;
pub(crate) use self::wiping::{
    check_kept, check_opened, check_page, check_removed, check_upload, check_wiped, has_wiped,
};
use crate::world::Millis;

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: &'static str,
    /// When it was noticed.
    pub at: Millis,
    /// At which node, if at one.
    pub node: Option<usize>,
    /// What is wrong.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ms", self.invariant, self.at)?;
        if let Some(node) = self.node {
            write!(f, " at node {node}")?;
        }
        write!(f, ": {}", self.detail)
    }
}

/// What an oracle says: nothing, or what is wrong. The caller adds when and where.
pub(crate) type Verdict = Result<(), Broken>;

/// A violation without its place.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) invariant: &'static str,
    pub(crate) detail: String,
}

pub(crate) fn broken<T>(invariant: &'static str, detail: impl Into<String>) -> Result<T, Broken> {
    Err(Broken { invariant, detail: detail.into() })
}
