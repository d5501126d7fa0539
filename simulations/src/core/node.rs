//! One node: a replica and a ledger, and what the world and the oracles keep of them.

use std::collections::{BTreeMap, BTreeSet};

use thence::causal::{EventHash, ReplicaId};
use thence::model::{DeviceId, DeviceKey, Genesis, SpaceId};
use thence::replica::{Input, Introduction, Limits, Output, Replica, SessionId};
use thence::store::{Batch, Ledger, LedgerError, Report, StoreError, Work};

use super::liar::Liar;
use crate::level::Level;
use crate::oracles::{Era, Follower, Shelf, Told};
use crate::world::{Chance, Disk, Image, Medium, Millis};

/// Who waits for a work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nobody,
    User,
    /// A peer that showed a ticket.
    Session(SessionId),
    /// A cluster peer that a space is shared with.
    Sharing(SessionId, SpaceId),
    /// A thin client: its number and the space's, and the number of what it asked.
    Client((usize, usize), u64),
}

/// Something that waits to be committed.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) asked: Asked,
}

/// A commit on its way.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) jobs: Vec<Job>,
    /// What the node was told of its own names before the commit began.
    pub(super) told: Option<Told>,
    /// What the disk said, once it did.
    pub(super) outcome: Option<Result<Report, StoreError>>,
}

/// A node's process. A crash drops it.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) ledger: Ledger,
    pub(super) replica: Replica,
    pub(super) waiting: Vec<Job>,
    /// How many of the first that wait are to be committed one by one: one of them met a damaged record.
    pub(super) singly: usize,
    pub(super) commit: Option<Commit>,
    /// How many lookups are on their way.
    pub(super) reads: u32,
    /// What it was told of its own names since the last commit began.
    pub(super) told: Option<Told>,
    /// Whether the store failed, and will be reopened.
    pub(super) is_mending: bool,
    /// Whether something may be left of what was wiped, and whether its removal was interrupted since the last step.
    pub(super) removing: bool,
    pub(super) interrupted: bool,
    /// The earliest moment at which the world will wake it.
    pub(super) wake_at: Option<Millis>,
}

impl Process {
    /// Whether a commit has landed of which the protocol has not heard yet: the disk knows of grants that it does not.
    pub(super) fn is_behind_its_disk(&self) -> bool {
        self.commit.as_ref().is_some_and(|commit| commit.outcome.is_some())
    }
}

/// A node: its disk, its process while there is one, and what the oracles know of it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) key: DeviceKey,
    pub(super) disk: Disk,
    /// Randomness for the ids of its stores, and how many of them there were before this one.
    chance: (Chance, u64),
    stores: u64,
    pub(super) disk_ms: (Millis, Millis),
    /// Which process of this node it is, counted from 1: what was meant for an earlier one is dropped.
    pub(super) life: u64,
    pub(super) process: Option<Process>,
    /// How often the disk was used, to number its draws.
    pub(super) disk_uses: u64,
    pub(super) shelves: BTreeMap<SpaceId, Shelf>,
    /// What users of this node were told is written, and no fault took away.
    pub(super) acknowledged: BTreeSet<(Era, EventHash)>,
    /// The eras that users of this node, by the name of its device, were told are begun, and no fault took away.
    pub(super) wiped: BTreeSet<(Era, DeviceId)>,
    /// The ids under which its store has ceased to write.
    pub(super) given_up: BTreeSet<ReplicaId>,
    /// The last image of its disk, and what the oracles knew of it.
    pub(super) image: Option<(Image, BTreeMap<SpaceId, Shelf>)>,
    /// How often something else was put on its disk.
    pub(super) generation: u64,
    /// How often it forgot what clients are not told any more.
    pub(super) forgot: u64,
    /// Whether somebody has noticed that its store is damaged, and will repair it.
    pub(super) is_noticed: bool,
    /// The spaces that it held before its store was repaired, and what they are called: whoever repaired it sees to it
    /// that it holds them again.
    pub(super) lost: BTreeMap<SpaceId, (Genesis, String)>,
    pub(super) followers: BTreeMap<SpaceId, Follower>,
    /// Who speaks in place of its process, once it is hostile.
    pub(super) liar: Option<Liar>,
}

impl Node {
    /// A node without a store, not started yet.
    pub(super) fn new(level: Level, chance: Chance, number: usize, disk_ms: (Millis, Millis)) -> Self {
        Self {
            key: DeviceKey::from_secret(&chance.bytes("device key", number as u64)),
            disk: Disk::new(level, chance, number),
            chance: (chance, number as u64),
            stores: 0,
            disk_ms,
            life: 0,
            process: None,
            disk_uses: 0,
            shelves: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            wiped: BTreeSet::new(),
            given_up: BTreeSet::new(),
            image: None,
            generation: 0,
            forgot: 0,
            is_noticed: false,
            lost: BTreeMap::new(),
            followers: BTreeMap::new(),
            liar: None,
        }
    }

    pub(super) fn device(&self) -> DeviceId {
        self.key.device()
    }

    /// What a new store of it begins with.
    fn first_batch(&self) -> Batch {
        let (chance, number) = self.chance;
        Ledger::first_batch(self.device(), chance.draw("incarnation", number, self.stores))
    }

    /// Starts its process on what the disk holds.
    pub(super) fn start(&mut self, now: Millis, limits: Limits) -> Result<(), LedgerError> {
        self.life += 1;
        let ledger = Ledger::open(self.disk.store(&self.first_batch())?, self.key.clone())?;
        self.join_again(&ledger, now)?;
        let mut replica = Replica::new("simulation", self.life, limits);
        replica.handle(now, Input::Writes { replica: ledger.replica() });
        for (space, revision, known, access) in ledger.held() {
            replica.handle(now, Input::Held { space, revision, known, access });
        }
        self.disk.look_at(true);
        let removals = ledger.removals();
        self.disk.look_at(false);
        let removing = removals.map_or(true, |all| all.iter().any(|removal| removal.done_ms.is_none()));
        self.process = Some(Process {
            ledger,
            replica,
            waiting: Vec::new(),
            singly: 0,
            commit: None,
            reads: 0,
            told: None,
            is_mending: false,
            removing,
            interrupted: true,
            wake_at: None,
        });
        Ok(())
    }

    /// Whether an event lies on its disk, as far as the oracles have read it.
    pub(super) fn has(&self, space: SpaceId, event: EventHash) -> bool {
        self.shelves.get(&space).is_some_and(|shelf| shelf.events.contains(&event))
    }

    /// The era in which its process holds a space, as the protocol knows it; the first if it does not.
    pub(super) fn era(&self, space: SpaceId) -> Era {
        let revision = self.process.as_ref().and_then(|process| process.replica.revision(space));
        Era { space, revision: revision.unwrap_or(1) }
    }

    /// Joins the spaces that were lost with a store.
    fn join_again(&self, ledger: &Ledger, now: Millis) -> Result<(), StoreError> {
        let missing = self.lost.iter().filter(|(space, _)| ledger.access(**space).is_none());
        let join = |(_, (genesis, name)): (&SpaceId, &(Genesis, String))| {
            let introduction =
                Introduction { genesis: *genesis, revision: thence::model::Revision::first(), name: name.clone() };
            Work::Join { introduction, introducer: genesis.creator }
        };
        let missing: Vec<Work> = missing.map(join).collect();
        if missing.is_empty() { Ok(()) } else { ledger.commit(&missing, now, 0).map(drop) }
    }

    /// Ends its process at once, or what there is of one that could not be started.
    pub(super) fn stop(&mut self) {
        self.disk.cut();
        self.process = None;
        self.disk.crash();
    }

    /// Makes its store anew from what can be read of it, as the product's `repair` does. If nothing can, the disk is
    /// emptied: then it begins with a new store.
    pub(super) fn repair(&mut self, now: Millis) {
        let Some(medium) = self.disk.medium() else { return };
        self.stores += 1;
        let (chance, number) = self.chance;
        let salvage = || -> Result<Image, LedgerError> {
            let damaged = medium.fork().store(&Batch::new())?;
            let new = Disk::Medium(Medium::new(chance, 0));
            let ledger = Ledger::open(new.store(&self.first_batch())?, self.key.clone())?;
            ledger.salvage(&*damaged, now, chance.draw("salvage", number, self.stores))?;
            Ok(new.image())
        };
        match salvage() {
            Ok(image) => self.disk.put_back(&image),
            Err(_) => medium.erase(),
        }
    }

    /// Whether its process has that space.
    pub(super) fn holds(&self, space: SpaceId) -> bool {
        self.process.as_ref().is_some_and(|process| process.ledger.access(space).is_some())
    }
}

impl Process {
    /// What the next commit holds. Where something was wiped, some of that is removed with it, up to so many rows.
    pub(super) fn next_jobs(&mut self, removed_at_once: usize) -> Vec<Job> {
        if self.singly == 0 {
            let mut jobs = std::mem::take(&mut self.waiting);
            if self.removing {
                let work = Work::Remove { again: self.interrupted, rows_max: removed_at_once };
                jobs.push(Job { work, asked: Asked::Nobody });
            }
            return jobs;
        }
        self.singly -= 1;
        self.waiting.drain(..self.waiting.len().min(1)).collect()
    }

    /// Hands in what happened, and returns what the replica wants done.
    pub(super) fn handle(&mut self, now: Millis, input: Input) -> Vec<Output> {
        self.replica.handle(now, input);
        std::iter::from_fn(|| self.replica.poll_output()).collect()
    }
}
