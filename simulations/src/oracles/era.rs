//! What belongs together: what is written in one revision of a space.
//!
//! A space that is begun anew has the same id and nothing in common with what it was: names begin again, objects and ids
//! of clients too. So all that is kept of events is kept by era; what users are invited to, and who they are, by space.

use thence::model::SpaceId;
use thence::store::View;

/// A space in one of its revisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Era {
    pub(crate) space: SpaceId,
    pub(crate) revision: u64,
}

impl Era {
    /// The first of a space.
    pub(crate) fn first(space: SpaceId) -> Self {
        Self { space, revision: 1 }
    }

    /// The one that a view shows.
    pub(crate) fn of(view: &View) -> Self {
        Self { space: view.id(), revision: view.revision() }
    }
}
