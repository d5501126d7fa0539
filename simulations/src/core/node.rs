//! One node: a replica and a ledger, and what the world and the oracles keep of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thence::causal::{EventHash, ReplicaId};
use thence::model::{DeviceId, DeviceKey, SpaceId};
use thence::replica::{Input, Limits, Output, Replica, SessionId};
use thence::store::{Ledger, LedgerError, MemoryStore, Report, Store, StoreError, Work};

use super::liar::Liar;
use crate::oracles::{Follower, Shelf, Told};
use crate::world::{Chance, Disk, Millis};

/// Who waits for a work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nobody,
    User,
    /// A peer that showed a ticket.
    Session(SessionId),
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
    pub(super) commit: Option<Commit>,
    /// What it was told of its own names since the last commit began.
    pub(super) told: Option<Told>,
    /// The earliest moment at which the world will wake it.
    pub(super) wake_at: Option<Millis>,
}

/// A node: its disk, its process while there is one, and what the oracles know of it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) key: DeviceKey,
    pub(super) disk: Arc<Disk>,
    pub(super) disk_ms: (Millis, Millis),
    /// Which process of this node it is, counted from 1: what was meant for an earlier one is dropped.
    pub(super) life: u64,
    pub(super) process: Option<Process>,
    /// How often the disk was used, to number its draws.
    pub(super) disk_uses: u64,
    pub(super) shelves: BTreeMap<SpaceId, Shelf>,
    /// What users of this node were told is written, and no fault took away.
    pub(super) acknowledged: BTreeSet<(SpaceId, EventHash)>,
    /// The ids under which its store has ceased to write.
    pub(super) given_up: BTreeSet<ReplicaId>,
    /// The last image of its disk, and what the oracles knew of it.
    pub(super) image: Option<(MemoryStore, BTreeMap<SpaceId, Shelf>)>,
    pub(super) followers: BTreeMap<SpaceId, Follower>,
    /// Who speaks in place of its process, once it is hostile.
    pub(super) liar: Option<Liar>,
}

impl Node {
    /// A node with an empty store, not started yet.
    pub(super) fn new(chance: Chance, number: usize, disk_ms: (Millis, Millis)) -> Result<Self, StoreError> {
        let key = DeviceKey::from_secret(&chance.bytes("device key", number as u64));
        let disk = Disk::new();
        let batch = Ledger::first_batch(key.device(), chance.draw("incarnation", number as u64, 0));
        disk.commit(&mut |_| Ok(batch.clone()))?;
        Ok(Self {
            key,
            disk,
            disk_ms,
            life: 0,
            process: None,
            disk_uses: 0,
            shelves: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            given_up: BTreeSet::new(),
            image: None,
            followers: BTreeMap::new(),
            liar: None,
        })
    }

    pub(super) fn device(&self) -> DeviceId {
        self.key.device()
    }

    /// Starts its process on what the disk holds.
    pub(super) fn start(&mut self, now: Millis, limits: Limits) -> Result<(), LedgerError> {
        self.life += 1;
        let store: Arc<dyn Store> = Arc::clone(&self.disk) as Arc<dyn Store>;
        let ledger = Ledger::open(store, self.key.clone())?;
        let mut replica = Replica::new("simulation", limits);
        replica.handle(now, Input::Writes { replica: ledger.replica() });
        for (space, revision, known, access) in ledger.held() {
            replica.handle(now, Input::Held { space, revision, known, access });
        }
        self.process = Some(Process { ledger, replica, waiting: Vec::new(), commit: None, told: None, wake_at: None });
        Ok(())
    }

    /// Whether an event lies on its disk, as far as the oracles have read it.
    pub(super) fn has(&self, space: SpaceId, event: EventHash) -> bool {
        self.shelves.get(&space).is_some_and(|shelf| shelf.events.contains(&event))
    }

    /// Whether its process has that space.
    pub(super) fn holds(&self, space: SpaceId) -> bool {
        self.process.as_ref().is_some_and(|process| process.ledger.access(space).is_some())
    }
}

impl Process {
    /// Hands in what happened, and returns what the replica wants done.
    pub(super) fn handle(&mut self, now: Millis, input: Input) -> Vec<Output> {
        self.replica.handle(now, input);
        std::iter::from_fn(|| self.replica.poll_output()).collect()
    }
}
