//! What is kept where, and how it changes: the only writer of a store.
//!
//! **Invariant**: the vector of a space and the events that it covers are always in one batch, with the objects that
//! those events changed and the positions that the changes got. So a crash leaves a state that some sequence of whole
//! commits had left.
//!
//! One [`Ledger::commit`] is one durable batch of everything that waited for it, local writes and received segments:
//! that is group commit. Whether an event may be applied is decided here, inside the transaction; what the protocol
//! checked before only spares work.
//!
//! What it does not do: no network, no time of its own (`now_ms` is handed in, for people), no randomness.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod backup;
mod key;
mod place;
mod record;
mod rows;
mod salvage;
mod shelf;
mod split;
mod table;
#[cfg(test)]
mod tests;
mod trimming;
mod uploading;
mod view;
mod wiping;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub use self::backup::{BackupError, BackupReader, StoredRow};
use serde::{Deserialize, Serialize};

use self::record::{FORMAT, Meta, PeerRow, RenewalRow, SpaceRow};
pub use self::rows::{Page, PageLimits, Row};
pub use self::salvage::Salvaged;
use self::shelf::{Names, Shelf};
pub use self::table::{Listed, Manifest, TableSummary, Versions};
pub use self::trimming::Trimming;
pub use self::uploading::{Upload, Uploaded};
pub use self::view::{Change, ChangeKind, Copied, Found, SpaceSummary, View};
pub use self::wiping::Removal;
use self::writing::{Chance, Writing};
use super::{Batch, Read, Store, StoreError};
use crate::causal::{Known, ReplicaId, VersionVector};
use crate::model::{
    Access, DeviceId, DeviceKey, Genesis, Grant, InvalidEdit, NotGranted, Request, Revision, Segment, SpaceId,
};
use crate::replica::{Committed, Input, Introduction, Lookup, SessionId, TicketRefusal, Wanted};

/// The setting that says which space tells what the others are. It is the only one about what a store holds rather than
/// about the store, and goes where that goes: into backups, and out of a damaged store.
pub const SYSTEM_SPACE: &str = "system space";

/// Why a ledger cannot be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is a store, but not one of thence.
    #[error("the store holds no thence data")]
    NotOurs,
    /// It was written by another release.
    #[error("the store has format {found}; this release reads format {FORMAT} only")]
    UnknownFormat {
        /// The version found.
        found: u32,
    },
    /// It belongs to another device.
    #[error("the store belongs to device {found}, this is device {expected}")]
    OtherDevice {
        /// Whose it is.
        found: DeviceId,
        /// Whose key is here.
        expected: DeviceId,
    },
}

/// One thing to commit.
#[derive(Clone, Debug)]
pub enum Work {
    /// Create a space owned by this device.
    Create {
        /// How it begins.
        genesis: Genesis,
        /// What it is called.
        name: String,
    },
    /// Hold a space that a ticket gave access to. Nothing happens if it is held already.
    Join {
        /// What the inviter said of it.
        introduction: Introduction,
        /// The inviter.
        introducer: DeviceId,
    },
    /// Write a transaction: all of it or nothing.
    Write {
        /// Into which space.
        space: SpaceId,
        /// What.
        requests: Vec<Request>,
    },
    /// Write for clients: all of it or nothing, as one event.
    Upload {
        /// Into which space.
        space: SpaceId,
        /// What, each object once.
        uploads: Vec<Upload>,
    },
    /// Remove what is not told or remembered any more, where it still is as it was found.
    Trim {
        /// Of which space.
        space: SpaceId,
        /// What.
        trimming: Trimming,
    },
    /// Begin a space anew: nothing of what is in it counts any more, for anybody.
    Wipe {
        /// The space.
        space: SpaceId,
        /// Only if this is its revision.
        only: Option<u64>,
    },
    /// Go over to a revision that owners of a space began elsewhere. Nothing happens if it is known already.
    Follow {
        /// The space.
        space: SpaceId,
        /// The revision.
        revision: Revision,
    },
    /// Remove some of what was in spaces before they were begun anew.
    Remove {
        /// Whether it goes on after an interruption.
        again: bool,
        /// At most so many rows.
        rows_max: usize,
    },
    /// Grant what a ticket says to whoever shows it.
    Admit {
        /// Who shows it.
        device: DeviceId,
        /// The ticket's bytes.
        ticket: Vec<u8>,
    },
    /// Make a cluster peer an owner of a space. Nothing is written if it is one already, or if this device is none.
    Share {
        /// The space.
        space: SpaceId,
        /// The cluster peer.
        device: DeviceId,
    },
    /// Apply what a peer sent.
    Receive {
        /// Who sent it.
        session: SessionId,
        /// Into which space.
        space: SpaceId,
        /// What, in order.
        segments: Vec<Segment>,
    },
    /// Remember where a peer is reached.
    RememberPeer {
        /// The peer.
        device: DeviceId,
        /// `host:port`.
        addresses: Vec<String>,
    },
    /// Forget a peer.
    ForgetPeer {
        /// The peer.
        device: DeviceId,
    },
    /// Remember what a peer acknowledged, so that it can be told while the peer is away.
    Acknowledged(Acknowledged),
    /// Remember a setting of this node.
    Setting {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// Write under a new replica id from now on, if it is still this one.
    ///
    /// It is never lost: should the commit fail, the next one does it before anything is written.
    Renew {
        /// The id to give up.
        before: ReplicaId,
        /// Why.
        reason: Renewal,
    },
}

/// In which order the works of one commit are done, whatever the order in which they came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// What owners began anew, before what they wrote then.
    Follow,
    /// Events of others: what is written here then comes after them in the log, and may depend on any of them.
    Receive,
    /// Of what was written at the same time as a wipe, that of others is gone, and that of this device is not.
    Wipe,
    /// Everything else.
    Write,
}

impl Work {
    fn turn(&self) -> Turn {
        match self {
            Self::Follow { .. } => Turn::Follow,
            Self::Receive { .. } => Turn::Receive,
            Self::Wipe { .. } => Turn::Wipe,
            _ => Turn::Write,
        }
    }

    fn removes(&self) -> bool {
        matches!(self, Self::Remove { .. })
    }

    fn renewal(&self) -> Option<(ReplicaId, Renewal)> {
        if let Self::Renew { before, reason } = *self { Some((before, reason)) } else { None }
    }
}

/// Why a store writes under a new replica id: under the old one somebody else may have written, or it itself, before it
/// was put back to an older state. Variants are only ever appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Renewal {
    /// The lease beside the store is not of this file: it was copied, moved or replaced.
    Lease,
    /// A peer has events of this very store, up to that one, that are not here: it was put back to an older state.
    Behind {
        /// In this space.
        space: SpaceId,
        /// The event.
        counter: u64,
    },
    /// Two stores wrote under one id. What each wrote is kept, and told apart.
    Split {
        /// In this space.
        space: SpaceId,
    },
}

impl Renewal {
    /// Whether it says nothing that the other one does not say.
    fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Behind { space, counter }, Self::Behind { space: there, counter: up_to }) => {
                space == there && counter <= up_to
            }
            _ => self == other,
        }
    }
}

impl std::fmt::Display for Renewal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lease => f.write_str("this store was copied, moved or replaced"),
            Self::Behind { .. } => {
                f.write_str("this store was put back to an older state: a peer had newer events of it")
            }
            Self::Split { .. } => f.write_str("two copies of this store wrote under one id; what both wrote is kept"),
        }
    }
}

/// That a store writes under a new replica id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The id under which it wrote before.
    pub before: ReplicaId,
    /// The id under which it writes since.
    pub now: ReplicaId,
    /// Why.
    pub reason: Renewal,
    /// When, in milliseconds since 1970. For people only.
    pub at_ms: u64,
}

/// What a peer said is durable there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Of which space.
    pub space: SpaceId,
    /// In which revision.
    pub revision: u64,
    /// Which peer.
    pub device: DeviceId,
    /// What it has.
    pub vector: VersionVector,
    /// When it was last in step with this node, in milliseconds since 1970; for people.
    pub synced_ms: Option<u64>,
}

/// What became of one [`Work`].
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// Of [`Work::Create`]: the space.
    Created(SpaceId),
    /// Of [`Work::Write`].
    Written(Result<Written, WriteError>),
    /// Of [`Work::Upload`]: of each upload, in order.
    Uploaded(Result<Vec<Uploaded>, WriteError>),
    /// Of [`Work::Wipe`]: the number of the new revision.
    Wiped(Result<u64, WriteError>),
    /// Of [`Work::Remove`]: whether there may be more to remove.
    Removed {
        /// Whether there is.
        more: bool,
    },
    /// Of [`Work::Admit`].
    Admitted(Result<Introduction, TicketRefusal>),
    /// Of [`Work::Share`]: what to tell the peer of the space; none if this device does not own it.
    Shared(Option<Introduction>),
    /// Of everything else: done.
    Done,
}

/// What a transaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// How many objects it changed. 0 means that everything was so already, and no event was written.
    pub changed: usize,
    /// The space's last position after the commit that holds it.
    pub position: u64,
}

/// Why a transaction was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// There is no such space here.
    #[error("there is no space {0} here")]
    UnknownSpace(SpaceId),
    /// This device may not write there, or does not know yet that it may.
    #[error("this device may not write in this space (it is {role} there)")]
    NotGranted {
        /// What it is.
        role: String,
    },
    /// One of the requests cannot be done.
    #[error("{error}")]
    Edit {
        /// Which one, from 0.
        index: usize,
        /// Why.
        #[source]
        error: InvalidEdit,
    },
    /// What a client had seen was in a revision of the space that is over.
    #[error("the space was begun anew since; nothing of what was seen in it before is there any more")]
    Wiped {
        /// Which upload, from 0.
        index: usize,
    },
    /// The space was begun anew, and who may do what in it has not come yet.
    #[error("this space was begun anew, and who may write in it has not come yet; sync, and try again")]
    Waiting,
    /// What was in the space before is not removed yet, too many times over.
    #[error("the space was begun anew so often that what was in it before is still being removed; try again")]
    Backlog,
    /// This device owns the space, and cannot show yet who made it an owner.
    #[error("this device cannot show yet that it owns the space; sync with another owner first")]
    Unvouched,
    /// An object does not stand as the client expects it to.
    #[error("the object has changed meanwhile")]
    Changed {
        /// Which upload, from 0.
        index: usize,
    },
    /// An object would become larger than it may.
    #[error("a row has at most {bytes_max} bytes as JSON here, not {bytes}")]
    RowTooLarge {
        /// Which upload, from 0.
        index: usize,
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The transaction is larger than an event may be.
    #[error("a transaction has at most {bytes_max} bytes, not {bytes}; split it")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
}

/// What one commit did.
#[derive(Debug, Default)]
pub struct Report {
    /// What became of each work, in order.
    pub done: Vec<Done>,
    /// The spaces that are held from now on: revision, knowledge, access.
    pub held: Vec<(SpaceId, Revision, Known, Access)>,
    /// What changed in the spaces that were held before.
    pub changed: BTreeMap<SpaceId, Committed>,
    /// Whether this store writes under a new replica id from now on.
    pub renewed: Option<Renewed>,
}

/// What readers need of a space besides a snapshot.
#[derive(Clone, Debug)]
struct Published {
    row: SpaceRow,
    names: Arc<Names>,
    access: Arc<Access>,
    /// For every branch that goes on in further branches, the id under which all of it was written.
    inner_branches: Vec<ReplicaId>,
}

impl Published {
    fn of(shelf: &Shelf, names: Arc<Names>, access: Arc<Access>) -> Self {
        let known = &shelf.known;
        let inner = known.branches().filter(|(id, _)| known.is_split(*id)).map(|(_, branch)| branch.root);
        Self { row: shelf.row.clone(), names, access, inner_branches: inner.collect() }
    }
}

/// The writer's own state. It runs ahead of the store inside a commit and is loaded anew if that fails.
struct Writer {
    meta: Meta,
    shelves: BTreeMap<SpaceId, Shelf>,
    names: BTreeMap<SpaceId, Names>,
    stale: bool,
    /// What was asked for in commits that failed: what is written meanwhile may have other events' names.
    owed: Vec<(ReplicaId, Renewal)>,
}

/// The ledger of one store.
pub struct Ledger {
    store: Arc<dyn Store>,
    key: DeviceKey,
    device: DeviceId,
    replica: Mutex<ReplicaId>,
    writer: Mutex<Writer>,
    published: RwLock<BTreeMap<SpaceId, Published>>,
    /// How often a removal of what was wiped failed since one did not: it is written down with the next one that does not.
    removal_errors: AtomicU64,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ledger of {:?}", self.device)
    }
}

impl Ledger {
    /// The first batch of a new store of `device`. `nonce` is drawn at random and makes its replica id.
    pub fn first_batch(device: DeviceId, nonce: u64) -> Batch {
        let (key, meta) = (key::meta(), Meta { format: FORMAT, device, nonce, next_number: 1, renewals: 0 });
        let value = record::write(&key, &meta);
        Batch::from([(key, Some(value))])
    }

    /// The key whose value [`Ledger::check`] looks at.
    pub fn check_key() -> Vec<u8> {
        key::meta()
    }

    /// Whether a store whose [`Ledger::check_key`] holds `value` is one that `device` can open.
    pub fn check(value: Option<&[u8]>, device: DeviceId) -> Result<(), LedgerError> {
        Self::read_meta(value).and_then(|meta| {
            let (found, expected) = (meta.device, device);
            if found == expected { Ok(()) } else { Err(LedgerError::OtherDevice { found, expected }) }
        })
    }

    fn read_meta(value: Option<&[u8]>) -> Result<Meta, LedgerError> {
        let key = key::meta();
        let body = record::unwrap(&key, value.ok_or(LedgerError::NotOurs)?)?;
        // The version stands first and is read alone: what follows it may look different in another release.
        match body.first() {
            Some(&version) if u32::from(version) == FORMAT => {
                let meta: Meta = record::read(&key, value.unwrap_or_default())?;
                // Numbers of spaces end where those of 32 bits do, and nobody holds half as many.
                record::check_counts(&[meta.renewals, u64::from(meta.next_number) << 25])?;
                Ok(meta)
            }
            Some(&version) => Err(LedgerError::UnknownFormat { found: u32::from(version) }),
            None => Err(LedgerError::NotOurs),
        }
    }

    /// Opens the ledger that `store` holds.
    pub fn open(store: Arc<dyn Store>, key: DeviceKey) -> Result<Self, LedgerError> {
        let (meta, shelves, names) = Self::load(&*store)?;
        Self::check(store.snapshot()?.get(&key::meta())?.as_deref(), key.device())?;
        let (device, replica) = (meta.device, Mutex::new(meta.incarnation().replica()));
        let writer = Mutex::new(Writer { meta, shelves, names, stale: false, owed: Vec::new() });
        let ledger = Self {
            store,
            key,
            device,
            replica,
            writer,
            published: RwLock::default(),
            removal_errors: AtomicU64::new(0),
        };
        ledger.publish(&ledger.lock(), None);
        Ok(ledger)
    }

    #[expect(clippy::type_complexity)] // The two maps of `Writer`, and nothing that deserves a name.
    fn load(store: &dyn Store) -> Result<(Meta, BTreeMap<SpaceId, Shelf>, BTreeMap<SpaceId, Names>), LedgerError> {
        let read = store.snapshot()?;
        let meta = Self::read_meta(read.get(&key::meta())?.as_deref())?;
        let mut rows: Vec<SpaceRow> = Vec::new();
        shelf::rows(&*read, &key::spaces(), |_, row: SpaceRow| {
            rows.push(row);
            Ok(())
        })?;
        let (mut shelves, mut names) = (BTreeMap::new(), BTreeMap::new());
        for row in rows {
            let (shelf, shelf_names) = Shelf::load(&*read, row)?;
            names.insert(shelf.id, shelf_names);
            shelves.insert(shelf.id, shelf);
        }
        Ok((meta, shelves, names))
    }

    /// The same ledger over another store with the same content. For the simulator, which goes several ways from here.
    #[doc(hidden)]
    pub fn fork(&self, store: Arc<dyn Store>) -> Self {
        let Writer { meta, shelves, names, stale, owed } = &*self.lock();
        let (meta, shelves, names) = (meta.clone(), shelves.clone(), names.clone());
        let writer = Writer { meta, shelves, names, stale: *stale, owed: owed.clone() };
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (key, device, replica) = (self.key.clone(), self.device, Mutex::new(self.replica()));
        Self {
            store,
            key,
            device,
            replica,
            writer: Mutex::new(writer),
            published: RwLock::new(published),
            removal_errors: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Writer> {
        // A panic while the lock was held left the state half changed: it is loaded anew, as after a failed commit.
        self.writer.lock().unwrap_or_else(|poisoned| {
            let mut writer = PoisonError::into_inner(poisoned);
            writer.stale = true;
            self.writer.clear_poison();
            writer
        })
    }

    /// This device.
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// The replica id under which this store writes.
    pub fn replica(&self) -> ReplicaId {
        *self.replica.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_replica(&self, replica: ReplicaId) {
        *self.replica.lock().unwrap_or_else(PoisonError::into_inner) = replica;
    }

    /// Every time that this store began to write under a new replica id, the first one first.
    pub fn renewals(&self) -> Result<Vec<Renewed>, StoreError> {
        let mut rows: Vec<RenewalRow> = Vec::new();
        shelf::rows(&*self.store.snapshot()?, &key::renewals(), |_, row: RenewalRow| {
            rows.push(row);
            Ok(())
        })?;
        let after = rows.iter().skip(1).map(|row| row.before).chain([self.replica()]).collect::<Vec<_>>();
        let renewed = |(RenewalRow { before, reason, at_ms }, now)| Renewed { before, now, reason, at_ms };
        Ok(rows.into_iter().zip(after).map(renewed).collect())
    }

    /// The key of this device.
    pub fn key(&self) -> &DeviceKey {
        &self.key
    }

    /// What the protocol must know of every space at the start.
    pub fn held(&self) -> Vec<(SpaceId, Revision, Known, Access)> {
        let writer = self.lock();
        let held = |shelf: &Shelf| (shelf.id, shelf.row.revision.clone(), shelf.known.clone(), shelf.access.clone());
        writer.shelves.values().map(held).collect()
    }

    /// Opens the medium anew after an I/O error, and finds out what it holds: the commit that failed may be there.
    /// Readers see nothing of it before. Then tell the protocol what is [`Ledger::held`].
    pub fn reopen(&self) -> Result<(), StoreError> {
        self.store.reopen()?;
        if planted!("reopened-unread") {
            return Ok(());
        }
        self.reload(&mut self.lock())
    }

    /// Makes the writer's state what the store holds.
    fn reload(&self, writer: &mut Writer) -> Result<(), StoreError> {
        let (meta, shelves, names) = Self::load(&*self.store).map_err(|error| match error {
            LedgerError::Store(error) => error,
            other => StoreError::Damaged(other.to_string()),
        })?;
        self.set_replica(meta.incarnation().replica());
        (writer.meta, writer.shelves, writer.names, writer.stale) = (meta, shelves, names, false);
        let fresh = |(id, shelf): (&SpaceId, &Shelf)| {
            let names = Arc::new(writer.names.get(id)?.clone());
            Some((*id, Published::of(shelf, names, Arc::new(shelf.access.clone()))))
        };
        // All of it: a failed commit may have given out numbers that mean something else from now on. And at once: no
        // reader may find that there is nothing.
        let fresh = writer.shelves.iter().filter_map(fresh).collect();
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Why nothing works until [`Ledger::reopen`], if so. Costs next to nothing.
    pub fn failure(&self) -> Option<StoreError> {
        self.store.failure()
    }

    /// What was found damaged so far, in words for people; see [`Store::damage`].
    pub fn damage(&self) -> Option<String> {
        self.store.damage()
    }

    /// Whether the medium has room for more; see [`Store::probe`].
    pub fn probe(&self) -> Result<(), StoreError> {
        self.store.probe()
    }

    /// Commits `work` in one durable batch. `now_ms` is wall time, for people; `nonce` is drawn at random, and makes a
    /// new replica id should this commit have to begin one.
    ///
    /// On an error nothing of it counts as done: the store may hold it all or nothing, and the next commit finds out.
    pub fn commit(&self, work: &[Work], now_ms: u64, nonce: u64) -> Result<Report, StoreError> {
        let mut writer = self.lock();
        // Before anything can fail: what is owed is owed whatever becomes of this commit.
        if planted!("renewal-fails-for-good") {
            writer.owed.clear();
        }
        for (before, reason) in work.iter().filter_map(Work::renewal) {
            writer.owed.retain(|(_, owed)| !owed.is_within(&reason));
            writer.owed.push((before, reason));
        }
        if writer.stale {
            self.reload(&mut writer).inspect_err(|error| self.count_removal(work, error))?;
        }
        writer.stale = true;
        let mut report = Report::default();
        let mut touched = BTreeSet::new();
        {
            let Writer { meta, shelves, names, owed, .. } = &mut *writer;
            self.store
                .commit(&mut |read: &dyn Read| {
                    let mut writing = Writing::new(read, &self.key, meta, shelves, names, Chance { now_ms, nonce });
                    writing.removal_errors = self.removal_errors.load(Ordering::Relaxed);
                    let mut done: Vec<Done> = vec![Done::Done; work.len()];
                    let mut perform = |turn: Turn, writing: &mut Writing<'_>| -> Result<(), StoreError> {
                        let mut theirs = work.iter().zip(&mut done).filter(|(work, _)| work.turn() == turn);
                        theirs.try_for_each(|(work, done)| writing.perform(work).map(|this| *done = this))
                    };
                    perform(Turn::Follow, &mut writing)?;
                    perform(Turn::Receive, &mut writing)?;
                    // A new id before anything is written, as the old one may have been used for something else.
                    owed.iter().try_for_each(|(before, reason)| writing.renew_if(*before, *reason))?;
                    writing.say_again()?;
                    perform(Turn::Wipe, &mut writing)?;
                    perform(Turn::Write, &mut writing)?;
                    let (batch, mut finished, positions, places) = writing.finish()?;
                    for (work, done) in work.iter().zip(&mut done) {
                        match (work, done) {
                            (Work::Write { space, .. }, Done::Written(Ok(written))) => {
                                written.position = positions.get(space).copied().unwrap_or_default();
                            }
                            (Work::Upload { space, uploads }, Done::Uploaded(Ok(rows))) => {
                                uploading::give_versions(*space, uploads, rows, &places);
                            }
                            _ => {}
                        }
                    }
                    finished.done = done;
                    touched = finished.changed.keys().chain(finished.held.iter().map(|(id, ..)| id)).copied().collect();
                    report = finished;
                    self.publish_names(shelves, names, &touched);
                    Ok(batch)
                })
                .or_else(|error| if planted!("failed-commit-counts") { Ok(()) } else { Err(error) })
                .inspect_err(|error| self.count_removal(work, error))?;
        }
        writer.stale = false;
        writer.owed.clear();
        if work.iter().any(Work::removes) {
            self.removal_errors.store(0, Ordering::Relaxed);
        }
        if let Some(renewed) = &report.renewed {
            self.set_replica(renewed.now);
        }
        self.publish(&writer, Some(&touched));
        Ok(report)
    }

    /// Counts that a commit failed which was to remove something, if it was.
    fn count_removal(&self, work: &[Work], error: &StoreError) {
        // Of several the damage may be elsewhere: each is tried by itself then.
        let may_be_other = work.len() > 1 && matches!(error, StoreError::Damaged(_));
        let failed = work.iter().any(Work::removes) && !may_be_other;
        self.removal_errors.fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    /// Shows readers new names before anything is committed that uses them: a reader's names may be newer than its
    /// snapshot, never older. Should the commit fail, they stand for nothing, and [`Ledger::reload`] replaces them.
    fn publish_names(
        &self,
        shelves: &BTreeMap<SpaceId, Shelf>,
        names: &BTreeMap<SpaceId, Names>,
        touched: &BTreeSet<SpaceId>,
    ) {
        let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
        for id in touched {
            // Names of a revision that begins with this commit mean nothing in the one before.
            let is_same =
                |published: &Published| shelves.get(id).is_some_and(|shelf| shelf.row.number == published.row.number);
            if let (Some(published), Some(names)) = (published.get_mut(id), names.get(id))
                && is_same(published)
                && !published.names.are_all_of(names)
            {
                published.names = Arc::new(names.clone());
            }
        }
    }

    /// Shows readers the names and grants of these spaces, or of all.
    fn publish(&self, writer: &Writer, only: Option<&BTreeSet<SpaceId>>) {
        let mut published = self.published.write().unwrap_or_else(PoisonError::into_inner);
        for (id, shelf) in &writer.shelves {
            if only.is_some_and(|only| !only.contains(id)) {
                continue;
            }
            let Some(names) = writer.names.get(id) else { continue };
            let names = match published.get(id) {
                Some(old) if old.row.number == shelf.row.number && old.names.are_all_of(names) => {
                    Arc::clone(&old.names)
                }
                _ => Arc::new(names.clone()),
            };
            let access = match published.get(id) {
                Some(old) if *old.access == shelf.access => Arc::clone(&old.access),
                _ => Arc::new(shelf.access.clone()),
            };
            published.insert(*id, Published::of(shelf, names, access));
        }
    }

    fn published(&self, space: SpaceId) -> Option<Published> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).get(&space).cloned()
    }

    /// The spaces that are held here.
    pub fn spaces(&self) -> Vec<SpaceId> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// A view of one space at this instant; none if it is not held here.
    pub fn view(&self, space: SpaceId) -> Result<Option<View>, StoreError> {
        loop {
            let before = self.published(space).map(|published| published.row.number);
            // First the snapshot, then the names: they may be newer than it, never older.
            let snapshot = self.store.snapshot()?;
            let Some(published) = self.published(space) else { return Ok(None) };
            // Unless the space was begun anew in between: then the snapshot may know nothing of what is held now.
            if before == Some(published.row.number) {
                return Ok(Some(View::new(snapshot, published, self.device)));
            }
        }
    }

    /// Reads what is wanted for a peer. A space that is not held here is read as if it were empty.
    pub fn look_up(&self, lookup: &Lookup) -> Result<Input, StoreError> {
        let Lookup { session, space, revision, ref wanted } = *lookup;
        let Some(view) = self.view(space)?.filter(|view| view.revision() == revision) else {
            return Ok(lookup.failed());
        };
        Ok(match wanted {
            Wanted::Log { after, bytes_max } => {
                Input::Fetched { session, space, revision, stretches: Some(view.log_after(after, *bytes_max)?) }
            }
            Wanted::Credential => Input::Credential { session, space, revision, segments: view.credentials()? },
            Wanted::Role { device, segments } => {
                Input::Judged { session, space, revision, role: view.judge(*device, segments)? }
            }
        })
    }

    /// Who may do what in a space.
    pub fn access(&self, space: SpaceId) -> Option<Arc<Access>> {
        Some(self.published(space)?.access)
    }

    /// How a space began.
    pub fn genesis(&self, space: SpaceId) -> Option<Genesis> {
        Some(self.published(space)?.row.genesis)
    }

    /// The remembered peers and where they are reached.
    pub fn peers(&self) -> Result<Vec<(DeviceId, Vec<String>)>, StoreError> {
        let mut peers = Vec::new();
        let prefix = key::peers();
        shelf::rows(&*self.store.snapshot()?, &prefix, |key, addresses: Vec<String>| {
            let device = key[prefix.len()..].try_into().map_err(|_| StoreError::Damaged("peer".to_owned()))?;
            peers.push((DeviceId::from_bytes(device), addresses));
            Ok(())
        })?;
        Ok(peers)
    }

    /// A remembered setting.
    pub fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        let key = key::setting(name);
        self.store.snapshot()?.get(&key)?.map(|value| record::read(&key, &value)).transpose()
    }

    /// What peers acknowledged of a space, connected or not.
    pub fn acknowledged(&self, space: SpaceId) -> Result<Vec<Acknowledged>, StoreError> {
        let mut rows = Vec::new();
        let Some(revision) = self.published(space).map(|published| published.row.revision.number()) else {
            return Ok(rows);
        };
        let prefix = key::acknowledgements(space.as_bytes());
        shelf::rows(&*self.store.snapshot()?, &prefix, |key, row: PeerRow| {
            let device = key[prefix.len()..].try_into().map_err(|_| StoreError::Damaged("peer".to_owned()))?;
            let device = DeviceId::from_bytes(device);
            rows.push(Acknowledged { space, revision, device, vector: row.vector, synced_ms: row.synced_ms });
            Ok(())
        })?;
        Ok(rows)
    }
}

/// The grant of the first owner.
fn first_grant(device: DeviceId) -> Grant {
    Grant { device, role: crate::model::Role::Owner, ticket: None, voucher: None }
}

/// Why an event of a segment is refused for good.
fn misbehaved(error: NotGranted) -> crate::replica::Rejection {
    crate::replica::Rejection::Misbehaved(error.into())
}
