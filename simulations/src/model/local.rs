//! One node in one state: its disk, its process while there is one, and what the oracles know of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use thence::causal::EventHash;
use thence::replica::{Input, Lookup, Replica, SessionId};
use thence::store::{Report, StoreError, Work};

use super::line::Lane;
use super::pool::{Digest, digest};
use crate::oracles::{Era, Shown};
use crate::world::DiskFault;

/// Something that one node does, or that happens to it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    /// Its process starts on what the disk holds.
    Start,
    /// Its process ends.
    Crash,
    /// It has a session.
    Connect(SessionId),
    /// It finds out that a session is gone.
    Notice(SessionId),
    /// A message comes.
    Receive(SessionId, Lane, u32),
    /// All that waits for the disk is committed. Nobody knows yet.
    Land,
    /// The same, and the disk says that it failed. Whether it is there.
    Fail(bool),
    /// It learns what became of the oldest commit that it does not know of.
    Report,
    /// A read that was asked for sees what is on the disk.
    Read(usize),
    /// It learns what a read found.
    Answer(usize),
    /// The next of its timers is due.
    Wake,
    /// A user asks for something: which item of the scenario.
    Write(usize),
    /// A user shows a ticket: which item of the scenario.
    Redeem(usize, SessionId),
    /// An image is made of its disk.
    Save,
    /// Its process ends, and its disk is put back to the image.
    PutBack,
}

impl Act {
    /// A commit that fails.
    pub(super) fn fail(fault: DiskFault) -> Self {
        Self::Fail(fault == DiskFault::Landed)
    }
}

/// Who waits for a work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nobody,
    User,
    /// A peer that showed a ticket.
    Session(SessionId),
}

/// Something that waits to be committed.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) asked: Asked,
}

/// A commit that the process has not heard of.
#[derive(Debug)]
pub(super) struct Landed {
    pub(super) jobs: Vec<Job>,
    pub(super) outcome: Result<Report, StoreError>,
}

/// A lookup for a peer.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) lookup: Lookup,
    /// What to report of it, once the disk was asked.
    pub(super) found: Option<Input>,
}

/// A process. A crash drops it.
#[derive(Clone, Debug)]
pub(super) struct Process {
    pub(super) replica: Replica,
    pub(super) waiting: Vec<Job>,
    pub(super) landed: VecDeque<Rc<Landed>>,
    /// Whether the disk failed, so that nothing is written before the process has heard of it.
    pub(super) in_doubt: bool,
    pub(super) reads: Vec<Reading>,
    /// By item: in which session a ticket was shown last.
    pub(super) tickets: BTreeMap<usize, SessionId>,
    pub(super) shown: Shown,
}

/// A node in one state.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub(super) node: usize,
    /// Which platter its disk is.
    pub(super) platter: u32,
    pub(super) process: Option<Process>,
    /// What users of this node were told is written, and no fault took away.
    pub(super) acknowledged: BTreeSet<(Era, EventHash)>,
    /// The platter that its disk can be put back to.
    pub(super) image: Option<u32>,
    /// How often it began to write under another id, which no fault takes back: to draw another one each time.
    pub(super) renewals: u64,
}

impl Local {
    pub(super) fn digest(&self) -> Digest {
        digest(self)
    }
}
