//! What can happen next.

use thence::replica::SessionId;

use super::line::Lane;
use super::local::Act;

/// One thing that can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// What the set-up came to.
    Begin,
    /// A node goes on by itself.
    Act { node: usize, act: Act },
    /// The next message of a lane comes to one end.
    Deliver { edge: usize, session: SessionId, end: usize, lane: Lane },
    /// One end finds out that a session is gone.
    Notice { edge: usize, session: SessionId, end: usize },
    /// A session is made.
    Dial { edge: usize },
    /// An item of the scenario.
    Item(usize),
    /// The weather of an item befalls the next message of a lane.
    Befall { item: usize, edge: usize, session: SessionId, end: usize, lane: Lane },
    /// A user shows the ticket of an item.
    Redeem { item: usize, session: SessionId },
}

/// Who decides on a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The nodes and the network, sooner or later, whatever else happens.
    Program,
    /// Users, and whoever starts processes: at any moment, but in the end.
    User,
    /// A timer that is so long that everything else comes first.
    Late,
    /// A fault: at any moment, or never.
    Fault,
}
