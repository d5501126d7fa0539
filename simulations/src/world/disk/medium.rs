//! A file that may be forgotten: what the storage engine writes to, in memory.
//!
//! **Invariant**: what was synced, and nothing harmed, survives every crash. What was not synced comes back as
//! [`Tear`] says. A new file lies beside its place until it is renamed, and the new name too is certain only when the
//! folder was synced.
//!
//! A process that was ended cannot change anything any more, whoever still holds a part of it: each process of a node
//! has handles of its own, which end with it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thence::store::{Batch, RedbStore, StorageBackend, Store, StoreError};

use super::tear::{Change, SECTOR, Tear};
use super::{DiskFault, MediumFault};
use crate::world::Chance;

/// How long a stored block is, with its check: a page of zeros was never written, and rot does not go there.
const BLOCK: u64 = 4104;

/// How often to look for something that rot can strike.
const ROT_TRIES: u64 = 200;

/// Something that was done to the medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// To the file.
    Change(Change),
    /// What was done to the file before this is durable.
    Sync,
    /// The file got its name.
    Rename,
    /// So is its name.
    SyncFolder,
}

/// Where the file is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Nowhere, or beside: what lies there is replaced.
    #[default]
    Beside,
    /// In its place, unless there is a crash.
    Renamed,
    /// In its place.
    There,
}

#[derive(Debug, Default)]
struct State {
    /// What processes see.
    seen: Vec<u8>,
    /// What is certain to survive a crash.
    durable: Vec<u8>,
    /// What makes the one of the other.
    changes: Vec<Change>,
    place: Place,
    /// Which process may use it: those before it are gone.
    life: u64,
    /// Whether that process has died.
    died: bool,
    /// How often a process of it ended, to number the draws.
    ends: u64,
    /// At which change from now on the process dies, and at which ones from then on.
    crash_at: Vec<u64>,
    /// So many operations succeed, then so many fail.
    fails: (u64, u64),
    /// Which sync from now on fails.
    sync_fails: Option<u64>,
    full: bool,
    /// Which write from now on lands where.
    misdirects: Option<(u64, u64)>,
    lies: bool,
    /// After how many of the changes it said that all was synced.
    lied: Vec<usize>,
    /// Whether what was synced may not be what lies there.
    harmed: bool,
    /// Whether it may be older than what was synced.
    older: bool,
    /// Whether an operation of this process failed.
    struck: bool,
    /// An oracle reads: nothing goes wrong, and nothing is counted.
    looked_at: bool,
    hasher: blake3::Hasher,
    steps: Vec<Step>,
    recorded: bool,
}

/// A file on a disk. A clone is the same file.
#[derive(Clone, Debug)]
pub(crate) struct Medium {
    chance: Chance,
    node: u64,
    cache_bytes: usize,
    state: Arc<Mutex<State>>,
}

/// What lies on a medium.
#[derive(Clone, Debug)]
pub(crate) struct FileImage {
    bytes: Vec<u8>,
    place: Place,
    harmed: bool,
    /// Whether it may be older than what the oracles last read of it.
    older: bool,
}

impl Medium {
    /// An empty one.
    pub(crate) fn new(chance: Chance, node: usize) -> Self {
        let node = node as u64;
        let cache_bytes = *chance.draws("cache", node).pick(&[0, 1 << 16, 1 << 20]);
        Self { chance, node, cache_bytes, state: Arc::default() }
    }

    /// An honest one with these bytes in its place, whose steps are recorded.
    pub(crate) fn recorded(chance: Chance, bytes: Option<Vec<u8>>) -> Self {
        let medium = Self::new(chance, 0);
        if let Some(bytes) = bytes {
            medium.put_back(&FileImage { bytes, place: Place::There, harmed: false, older: false });
        }
        medium.lock().recorded = true;
        medium
    }

    /// An honest one on which a crash left these bytes of a creation.
    pub(crate) fn left_beside(chance: Chance, bytes: Vec<u8>) -> Self {
        let medium = Self::recorded(chance, Some(bytes));
        medium.lock().place = Place::Beside;
        medium
    }

    /// What was done to it since this was last asked.
    pub(crate) fn take_steps(&self) -> Vec<Step> {
        std::mem::take(&mut self.lock().steps)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the store that is there, or makes one with `first` in it, for the process that now begins.
    pub(crate) fn store(&self, first: &Batch) -> Result<Arc<dyn Store>, StoreError> {
        let (life, exists) = {
            let state = self.lock();
            (state.life, state.place != Place::Beside)
        };
        let medium = self.clone();
        let source = move || Ok(Handle { medium: medium.clone(), life });
        let first = (!exists).then(|| first.clone());
        let store = RedbStore::with_backend(source, self.cache_bytes, first)?;
        if !exists {
            let named = self.step(life, Step::Rename).and_then(|()| self.step(life, Step::SyncFolder));
            named.map_err(|error| StoreError::Io(error.to_string()))?;
        }
        Ok(Arc::new(store))
    }

    /// Ends the process that uses it, which does not notice.
    pub(crate) fn cut(&self) {
        self.lock().life += 1;
    }

    /// Forgets what was not synced, after the process that used it has ended.
    pub(crate) fn crash(&self) {
        let state = &mut *self.lock();
        state.ends += 1;
        state.life += 1;
        (state.died, state.struck) = (false, false);
        let mut draws = self.chance.draws("tear", self.node << 32 | state.ends);
        let mut tear = *draws.pick(&Tear::all(draws.clone().next_u64()));
        if !state.lied.is_empty() {
            // A disk that loses its cache loses what came last; or one piece here and one there.
            if draws.yes(700) {
                tear = Tear::Moment(*draws.pick(&[&[0], state.lied.as_slice()].concat()));
            }
            (state.harmed, state.older) = (true, true);
            state.lied.clear();
        }
        if !state.changes.is_empty() {
            state.durable = tear.apply(&state.durable, &state.changes);
            state.seen.clone_from(&state.durable);
            state.changes.clear();
        }
        if state.place == Place::Renamed {
            state.place = if draws.yes(500) { Place::There } else { Place::Beside };
        }
    }

    /// Whether the process died while it used it.
    pub(crate) fn has_died(&self) -> bool {
        self.lock().died
    }

    /// Whether an error of the store is this medium's fault.
    pub(crate) fn explains(&self, error: &StoreError) -> bool {
        let state = self.lock();
        state.harmed || (state.struck && matches!(error, StoreError::Io(_)))
    }

    /// Whether something that was synced may not be what lies there.
    pub(crate) fn is_harmed(&self) -> bool {
        self.lock().harmed
    }

    /// Whether it may be older than what was synced; asked once.
    pub(crate) fn take_older(&self) -> bool {
        std::mem::take(&mut self.lock().older)
    }

    /// Whether all that lies there can be read, in a copy of it that nobody closed.
    pub(crate) fn is_sound(&self) -> bool {
        let open = || -> Result<bool, StoreError> {
            let store = self.fork().store(&Batch::new())?;
            let whole = &mut |_: &[u8], _: &[u8]| std::ops::ControlFlow::Continue(());
            store.snapshot()?.scan(&[], &[u8::MAX], whole)?;
            Ok(store.damage().is_none())
        };
        open().unwrap_or(false)
    }

    /// An honest medium with the same bytes.
    pub(crate) fn fork(&self) -> Self {
        let fork = Self { state: Arc::default(), ..self.clone() };
        fork.put_back(&self.image());
        fork
    }

    /// What lies there, as processes see it.
    pub(crate) fn image(&self) -> FileImage {
        let state = self.lock();
        FileImage { bytes: state.seen.clone(), place: state.place, harmed: state.harmed, older: state.older }
    }

    /// Puts something else there.
    pub(crate) fn put_back(&self, image: &FileImage) {
        let state = &mut *self.lock();
        state.life += 1;
        state.seen.clone_from(&image.bytes);
        state.durable.clone_from(&image.bytes);
        state.changes.clear();
        state.lied.clear();
        (state.harmed, state.older) = (image.harmed, image.older);
        // A copy of a file that has its name has it for good.
        state.place = if image.place == Place::Beside { Place::Beside } else { Place::There };
    }

    /// Takes away what lies there. What may go wrong with it still does.
    pub(crate) fn erase(&self) {
        self.put_back(&FileImage { bytes: Vec::new(), place: Place::Beside, harmed: false, older: false });
    }

    /// Makes the next commit fail: at the first of its two syncs, or at the second.
    pub(crate) fn fail_next(&self, fault: DiskFault) {
        self.lock().sync_fails = Some(if fault == DiskFault::Lost { 0 } else { 1 });
    }

    /// From now on nothing goes wrong any more. What went wrong stays.
    pub(crate) fn calm(&self) {
        let state = &mut *self.lock();
        state.crash_at.clear();
        (state.fails, state.sync_fails, state.misdirects) = ((0, 0), None, None);
        (state.full, state.lies) = (false, false);
    }

    /// Lets an oracle read without any fault, or no longer.
    pub(crate) fn look_at(&self, looked_at: bool) {
        self.lock().looked_at = looked_at;
    }

    /// Does harm to it.
    pub(crate) fn suffer(&self, fault: &MediumFault) {
        let state = &mut *self.lock();
        match fault {
            MediumFault::CrashAt(changes) => state.crash_at.clone_from(changes),
            MediumFault::Fails { after, times } => state.fails = (*after, *times),
            MediumFault::Full(full) => state.full = *full,
            MediumFault::Rot(which) => state.rot(*which),
            MediumFault::Misdirects { after, to } => state.misdirects = Some((*after, *to)),
            MediumFault::Lies(lies) => state.lies = *lies,
        }
    }

    /// A hash over all that was written to it, read from it and synced, in order.
    pub(crate) fn hash(&self) -> [u8; 32] {
        *self.lock().hasher.finalize().as_bytes()
    }

    fn step(&self, life: u64, step: Step) -> io::Result<()> {
        self.lock().step(life, step)
    }
}

fn failed(what: &str) -> io::Error {
    io::Error::other(format!("the simulated disk {what}"))
}

fn position(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

impl State {
    fn note(&mut self, what: u8, numbers: [u64; 2], bytes: &[u8]) {
        self.hasher.update(&[what]);
        numbers.iter().for_each(|number| _ = self.hasher.update(&number.to_le_bytes()));
        self.hasher.update(bytes);
    }

    /// Whether the process `life` may go on, and this operation succeeds.
    fn check(&mut self, life: u64) -> io::Result<()> {
        if self.died || self.life != life {
            return Err(failed("is not this process's any more"));
        }
        let (after, times) = &mut self.fails;
        if self.looked_at || *times == 0 {
            return Ok(());
        }
        if *after > 0 {
            *after -= 1;
            return Ok(());
        }
        *times -= 1;
        self.struck = true;
        Err(failed("failed"))
    }

    /// Whether the process dies at this change.
    fn is_the_end(&mut self) -> bool {
        let Some(left) = self.crash_at.first_mut() else { return false };
        *left = left.saturating_sub(1);
        if *left > 0 {
            return false;
        }
        self.crash_at.remove(0);
        self.died = true;
        self.struck = true;
        true
    }

    fn step(&mut self, life: u64, step: Step) -> io::Result<()> {
        self.check(life)?;
        let dies = self.is_the_end();
        if self.recorded {
            self.steps.push(step.clone());
        }
        match step {
            Step::Change(Change::Write(at, bytes)) => {
                self.note(b'w', [at, bytes.len() as u64], &bytes);
                self.write(at, bytes)?;
            }
            Step::Change(change @ Change::SetLen(len)) => {
                self.note(b'l', [len, 0], &[]);
                if self.full && len > self.seen.len() as u64 {
                    return self.has_no_room();
                }
                self.change(change);
            }
            Step::Sync => {
                self.note(b's', [0, 0], &[]);
                if !dies {
                    self.sync()?;
                }
            }
            Step::Rename => {
                self.note(b'n', [0, 0], &[]);
                self.place = Place::Renamed;
            }
            Step::SyncFolder => {
                self.note(b'd', [0, 0], &[]);
                if !dies {
                    self.place = Place::There;
                }
            }
        }
        if dies { Err(failed("outlived its process")) } else { Ok(()) }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.seen);
        self.changes.push(change);
    }

    fn has_no_room(&mut self) -> io::Result<()> {
        self.struck = true;
        Err(io::Error::new(io::ErrorKind::StorageFull, "the simulated disk is full"))
    }

    fn write(&mut self, at: u64, bytes: Vec<u8>) -> io::Result<()> {
        let end = at + bytes.len() as u64;
        // Where there is nothing but zeros, nothing was ever written, and room must be found for it now.
        let was = self.seen.get(position(at)..position(end));
        if self.full && was.is_none_or(|was| was.iter().all(|byte| *byte == 0)) {
            return self.has_no_room();
        }
        let mut at = at;
        match &mut self.misdirects {
            Some((0, to)) => {
                let sectors = (self.seen.len() as u64).saturating_sub(bytes.len() as u64) / SECTOR;
                at = *to % sectors.max(1) * SECTOR;
                // A crash finds what lay there before: that may be the header of an older commit.
                (self.misdirects, self.harmed, self.older) = (None, true, true);
            }
            Some((after, _)) => *after -= 1,
            None => {}
        }
        self.change(Change::Write(at, bytes));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        match &mut self.sync_fails {
            Some(0) => {
                (self.sync_fails, self.struck) = (None, true);
                return Err(failed("could not sync"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        if self.lies {
            self.lied.push(self.changes.len());
            return Ok(());
        }
        self.changes.drain(..).for_each(|change| change.apply(&mut self.durable));
        self.lied.clear();
        Ok(())
    }

    fn rot(&mut self, which: u64) {
        let chance = Chance::new(which);
        for attempt in 0..ROT_TRIES {
            let offset = chance.draw("rot", attempt, 0) % (self.durable.len() as u64).max(1);
            let from = offset - offset % BLOCK;
            let block = position(from)..position((from + BLOCK).min(self.durable.len() as u64));
            let is_written = |bytes: &[u8]| bytes.iter().any(|byte| *byte != 0);
            // What is just being written is not there yet.
            let same = self.durable.get(block.clone()) == self.seen.get(block.clone());
            if same && self.durable.get(block).is_some_and(is_written) {
                let (at, bit) = (position(offset), chance.draw("bit", attempt, 0) % 8);
                self.durable[at] ^= 1 << bit;
                self.seen[at] ^= 1 << bit;
                self.harmed = true;
                return;
            }
        }
    }
}

/// One process's end of a medium.
#[derive(Debug)]
struct Handle {
    medium: Medium,
    life: u64,
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        let state = &mut *self.medium.lock();
        state.check(self.life)?;
        Ok(state.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = &mut *self.medium.lock();
        state.check(self.life)?;
        state.note(b'r', [offset, out.len() as u64], &[]);
        let range = position(offset)..position(offset).saturating_add(out.len());
        out.copy_from_slice(state.seen.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.medium.step(self.life, Step::Change(Change::SetLen(len)))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.medium.step(self.life, Step::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.medium.step(self.life, Step::Change(Change::Write(offset, data.to_vec())))
    }
}
