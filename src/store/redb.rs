//! The default store: one file of the storage engine redb. Nothing else in the crate names that engine.
//!
//! **Invariant**: a file that is refused is left as it was, byte for byte, and once a file is open, every commit is
//! two-phase and synced. One kind of commit per file, no quick-repair and no savepoints: mixing them is what lets a
//! flipped bit after a crash roll an acknowledged commit back in silence.
//!
//! - Keys with the same first byte have a table of their own. The engine packs a table whose new keys all come at its
//!   end, as those of a log do, and leaves its pages half empty when they come in the middle; in one table for
//!   everything, every log but one would grow in the middle.
//! - An open runs over [`Held`] changes, which reach the file only when the engine has accepted it and our table is
//!   in it: the engine repairs as it goes, and would have rewritten the header of a damaged file before it gave up.
//! - A file is made beside its place and renamed when its first batch is durable: a crash while the engine makes a
//!   new file can leave one that never opens.
//! - The engine panics on some damaged files, so every call into it is sheltered. A panic while opening is
//!   [`StoreError::Unreadable`], while reading or committing [`StoreError::Damaged`]. The caller's own closures are
//!   not sheltered: a panic in one of them is a bug, and is passed on.
//! - After a failure of the medium, or any failed commit, nothing is done any more until [`Store::reopen`]. That
//!   closes the old engine first, whose snapshots then fail: they neither keep the file locked nor block anything.
//!
//! - Every block of the file carries a check ([`blocks`]): what the engine would read wrong, and could follow to wrong
//!   rows or to none, it gives up on instead.
//!
//! It does not keep a process from calling `commit` or `reopen` inside the closure of a commit, which waits for itself for ever.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::{Bound, ControlFlow};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use ::redb::backends::FileBackend;
use ::redb::{
    BackendError, Builder, ConcurrencyMode, Database, Durability, Error as EngineError, ReadOnlyTable, ReadTransaction,
    ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, TableHandle, UntypedTableHandle,
    WriteTransaction,
};

use self::blocks::{Blocks, Damage};
use self::held::{Change, Held};
use super::{Batch, Read, Snapshot, Store, StoreError};

mod blocks;
mod held;

#[doc(hidden)]
pub use ::redb::StorageBackend;

/// What every store of ours has, with nothing in it: the other tables come as they are needed.
const MARK: Definition<'static> = TableDefinition::new("thence");

/// Every table is an ordered map of bytes.
type Definition<'a> = TableDefinition<'a, &'static [u8], &'static [u8]>;

/// The byte whose lock tells the engine's readers that whoever writes left the file consistent
/// (`CONSISTENT_BYTE` of its lock protocol; see [`RedbStore::peek`]).
const CONSISTENT_BYTE: Bound<u64> = Bound::Included((1 << 62) + 4);

/// What [`RedbStore::peek`] may cache, in bytes: it reads one path through the tree.
const PEEK_CACHE_BYTES: usize = 1 << 20;

/// How much room there must be before a store that failed is written to again, in bytes: about what the largest group of
/// a busy node takes.
const PROBE_BYTES: usize = 4 << 20;

/// Opens the medium, again and again: once to begin with, and once for every reopening.
type Source = dyn Fn() -> io::Result<Box<dyn StorageBackend>> + Send + Sync;

/// A store in one file.
pub struct RedbStore {
    /// What errors call the file.
    name: String,
    source: Box<Source>,
    /// Where [`Store::probe`] finds out about room; nowhere if the medium is the caller's.
    probe_path: Option<PathBuf>,
    /// What was found damaged since this was made.
    damage: Damage,
    cache_bytes: usize,
    /// `None` only while a reopening runs, and after one that failed.
    open: RwLock<Option<Open>>,
    /// Held by a commit and by a reopening from beginning to end. No other lock is held while a closure of the
    /// caller runs.
    turn: Mutex<()>,
}

impl RedbStore {
    /// Opens the store at `path`, with a cache of `cache_bytes` bytes.
    ///
    /// After a kill the engine first checks and repairs the whole file, which takes time in proportion to its size.
    /// Errors: [`StoreError::InUse`]; [`StoreError::Unreadable`], with the file untouched, when it is missing, may not
    /// be opened, or is not a whole and sound store; [`StoreError::Io`].
    pub fn open(path: &Path, cache_bytes: usize) -> Result<RedbStore, StoreError> {
        let path = absolute(path)?;
        let name = path.display().to_string();
        let probe_path = Some(beside(&path, ".probe"));
        let source = Box::new(move || file(OpenOptions::new().read(true).write(true), &path));
        Self::start(name, source, probe_path, cache_bytes)
    }

    /// Creates a store at `path` that holds `first`, and opens it with a cache of `cache_bytes` bytes.
    ///
    /// The file appears at `path` only when `first` is durable in it. Until then it is called `path` with `.new`
    /// appended; what a crash left under that name is replaced.
    /// Errors: [`StoreError::Unreadable`] when there is a file at `path` already (it is not touched);
    /// [`StoreError::InUse`] when another process is creating the same store; [`StoreError::Io`].
    pub fn create(path: &Path, cache_bytes: usize, first: Batch) -> Result<RedbStore, StoreError> {
        let path = absolute(path)?;
        let name = path.display().to_string();
        let (probe_path, beside) = (Some(beside(&path, ".probe")), beside(&path, ".new"));
        let refuse = |trouble: Trouble| trouble.refusing(&name);
        vacant(&path).map_err(refuse)?;
        // Not truncated here: it may be another process's, which only the engine's lock can tell.
        let backend = file(OpenOptions::new().read(true).write(true).create(true).truncate(false), &beside)
            .map_err(|error| refuse(Trouble::of_io(error)))?;
        let damage = Damage::default();
        let open = Open::create(backend, &damage, cache_bytes, &first).map_err(refuse)?;
        // Asked again under the lock: if another process was quicker, then what is locked here under the name that it
        // had before the rename is the finished store, and nothing may be let through to it.
        vacant(&path).map_err(refuse)?;
        open.let_through().map_err(refuse)?;
        fs::rename(&beside, &path)
            .and_then(|()| sync_directory_of(&path))
            .map_err(|error| StoreError::Io(format!("{name}: {error}")))?;
        // The file stays open, and locked, across the rename, so that there is no moment for anyone else.
        let source = Box::new(move || file(OpenOptions::new().read(true).write(true), &path));
        Ok(Self { name, source, probe_path, damage, cache_bytes, open: RwLock::new(Some(open)), turn: Mutex::new(()) })
    }

    /// The value under `key` in the store at `path`, read without changing the file: so that a caller can look at the
    /// format version, and whose store it is, before [`RedbStore::open`] writes to it.
    ///
    /// It reads one path through the tree, also when the process that wrote the file was killed. The engine's
    /// read-only open refuses such a file, because a plain commit could have left it half written; after two-phase
    /// commits, and there are no others here, the last one is whole whenever the process dies. The engine knows
    /// that case: beside a living writer it takes an unclean file if the writer holds the lock that says
    /// "consistent". Here that lock is taken for the one who can no longer do it.
    ///
    /// Errors are those of [`RedbStore::open`]. A success does not mean that the rest of the file is sound.
    pub fn peek(path: &Path, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let path = absolute(path)?;
        let looked = File::open(&path).map_err(Trouble::of_io).and_then(|file| {
            sheltered(|| -> Result<_, EngineError> {
                let consistent = FileBackend::new(file)?;
                match consistent.try_lock_shared_range(CONSISTENT_BYTE, CONSISTENT_BYTE) {
                    Ok(true) => {}
                    Ok(false) => return Err(EngineError::DatabaseAlreadyOpen),
                    // Then a clean file can still be read.
                    Err(BackendError::Unsupported) => {}
                    Err(error) => return Err(error.into()),
                }
                let reader = Builder::new()
                    .set_cache_size(PEEK_CACHE_BYTES)
                    .set_concurrency_mode(ConcurrencyMode::SingleWriter)
                    .open_read_only_with_backend(Blocks::over(
                        Box::new(FileBackend::new(File::open(&path)?)?),
                        Damage::default(),
                    ))?;
                let transaction = reader.begin_read()?;
                transaction.open_table(MARK)?;
                let Some(table) = (&transaction).table(first_of(key))? else { return Ok(None) };
                let value = table.get(key)?.map(|value| value.value().to_vec());
                Ok(value)
            })
        });
        looked.map_err(|trouble| trouble.refusing(&path.display().to_string()))
    }

    /// A store on a medium of the caller's: for disks that fail on purpose.
    ///
    /// `source` is called once now and once for every reopening; two media of one source show the same bytes. With
    /// `first` the store is made anew on it, whatever was there (the rename of [`RedbStore::create`] is then the
    /// caller's affair); without, it is opened.
    #[doc(hidden)]
    pub fn with_backend<B: StorageBackend>(
        source: impl Fn() -> io::Result<B> + Send + Sync + 'static,
        cache_bytes: usize,
        first: Option<Batch>,
    ) -> Result<RedbStore, StoreError> {
        let name = "the store".to_string();
        let source: Box<Source> = Box::new(move || Ok(Box::new(source()?)));
        let Some(first) = first else {
            return Self::start(name, source, None, cache_bytes);
        };
        let damage = Damage::default();
        let open = source()
            .map_err(Trouble::of_io)
            .and_then(|backend| Open::create(backend, &damage, cache_bytes, &first))
            .and_then(|open| open.let_through().map(|()| open))
            .map_err(|trouble| trouble.refusing(&name))?;
        let open = RwLock::new(Some(open));
        Ok(Self { name, source, probe_path: None, damage, cache_bytes, open, turn: Mutex::new(()) })
    }

    fn start(
        name: String,
        source: Box<Source>,
        probe_path: Option<PathBuf>,
        cache_bytes: usize,
    ) -> Result<RedbStore, StoreError> {
        let damage = Damage::default();
        let open = Open::existing(&*source, &damage, cache_bytes).map_err(|trouble| trouble.refusing(&name))?;
        Ok(Self { name, source, probe_path, damage, cache_bytes, open: RwLock::new(Some(open)), turn: Mutex::new(()) })
    }

    /// What `work` makes of the open engine, or an error while there is none that works.
    fn with_open<T>(&self, work: impl FnOnce(&Open) -> Result<T, StoreError>) -> Result<T, StoreError> {
        match &*self.open.read().unwrap_or_else(PoisonError::into_inner) {
            Some(open) => {
                open.health.check()?;
                work(open)
            }
            None => Err(StoreError::Io("the store is closed until it is reopened".to_string())),
        }
    }
}

impl Store for RedbStore {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.with_open(|open| {
            let transaction =
                sheltered(|| open.database().begin_read()).map_err(|trouble| open.health.note(trouble))?;
            let (tables, health) = (RefCell::default(), open.health.clone());
            Ok(Box::new(RedbSnapshot { transaction, tables, health }) as Box<dyn Snapshot>)
        })
    }

    fn commit(&self, compute: &mut dyn FnMut(&dyn Read) -> Result<Batch, StoreError>) -> Result<(), StoreError> {
        let _turn = locked(&self.turn);
        // The transaction outlives the lock on the engine, which must not be held while `compute` runs: it may
        // take snapshots. The engine stays, because only a reopening takes it away, and it is not its turn.
        let (transaction, health) = self.with_open(|open| {
            let transaction = sheltered(|| begin(open.database())).map_err(|trouble| open.health.note(trouble))?;
            Ok((transaction, open.health.clone()))
        })?;
        match fill(&transaction, compute, &health) {
            Ok(true) => sheltered(|| transaction.commit()).map_err(|trouble| health.fail(trouble)),
            unchanged => {
                let aborted = sheltered(|| transaction.abort()).map_err(|trouble| health.fail(trouble));
                unchanged.and(aborted)
            }
        }
    }

    fn reopen(&self) -> Result<(), StoreError> {
        let _turn = locked(&self.turn);
        if self.with_open(|_| Ok(())).is_ok() {
            return Ok(());
        }
        // Taken out in a statement of its own, so that the lock is free while the engine closes and opens.
        let old = self.open.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(old);
        let open = Open::existing(&*self.source, &self.damage, self.cache_bytes);
        let open = open.map_err(|trouble| trouble.refusing(&self.name))?;
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = Some(open);
        Ok(())
    }

    fn damage(&self) -> Option<String> {
        let damage = locked(&self.damage);
        let first = damage.first()?;
        Some(format!(
            "{} is damaged: {} of its blocks were found so far, the first is block {first}",
            self.name,
            damage.len()
        ))
    }

    fn failure(&self) -> Option<StoreError> {
        self.with_open(|_| Ok(())).err()
    }

    fn probe(&self) -> Result<(), StoreError> {
        let Some(path) = &self.probe_path else { return Ok(()) };
        let probed = File::create(path).and_then(|mut file| {
            file.write_all(&vec![0x5a; PROBE_BYTES])?;
            file.sync_all()
        });
        // Also what is only half there takes room.
        let removed = fs::remove_file(path);
        probed.and(removed).map_err(|error| StoreError::Io(format!("{}: {error}", self.name)))
    }
}

fn begin(database: &Database) -> Result<WriteTransaction, EngineError> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    transaction.set_two_phase_commit(!planted!("commit-in-one-phase"));
    Ok(transaction)
}

/// Puts the batch of `compute` into the transaction, and says whether there was anything to put.
fn fill(
    transaction: &WriteTransaction,
    compute: &mut dyn FnMut(&dyn Read) -> Result<Batch, StoreError>,
    health: &Arc<Health>,
) -> Result<bool, StoreError> {
    let tables = RefCell::default();
    let batch = compute(&Reading { transaction, tables: &tables, health });
    // The engine opens a table once at a time. After a panic in there a table that closes panics as well, and two at once
    // would end the process: each is closed by itself.
    let close = |table| {
        sheltered(|| {
            drop(table);
            Ok::<_, EngineError>(())
        })
    };
    let closed: Vec<_> = tables.take().into_values().map(close).collect();
    let batch = batch?;
    closed.into_iter().collect::<Result<(), _>>().map_err(|trouble| health.note(trouble))?;
    sheltered(|| apply(transaction, &batch)).map_err(|trouble| health.note(trouble))?;
    Ok(!batch.is_empty())
}

fn apply(transaction: &WriteTransaction, batch: &Batch) -> Result<(), EngineError> {
    let mut changes = batch.iter().peekable();
    while let Some(first) = changes.peek().map(|(key, _)| first_of(key)) {
        let mut table = transaction.open_table(Definition::new(&name_of(first)))?;
        while let Some((key, value)) = changes.next_if(|(key, _)| first_of(key) == first) {
            match value {
                Some(value) => table.insert(key.as_slice(), value.as_slice()).map(drop)?,
                None => table.remove(key.as_slice()).map(drop)?,
            }
        }
    }
    Ok(())
}

/// What says in which table a key is.
fn first_of(key: &[u8]) -> u8 {
    key.first().copied().unwrap_or_default()
}

fn name_of(first: u8) -> String {
    format!("thence {first:02x}")
}

/// A transaction whose tables can be read.
trait Tables: Copy {
    type Table: ReadableTable<&'static [u8], &'static [u8]>;

    /// The table of all keys with this first byte, if there is one.
    fn table(self, first: u8) -> Result<Option<Self::Table>, EngineError>;

    /// The first bytes that there are tables for, in order.
    fn firsts(self) -> Result<Vec<u8>, EngineError>;
}

fn firsts_in(handles: impl Iterator<Item = UntypedTableHandle>) -> Vec<u8> {
    let first = |handle: UntypedTableHandle| u8::from_str_radix(handle.name().strip_prefix("thence ")?, 16).ok();
    handles.filter_map(first).collect::<BTreeSet<u8>>().into_iter().collect()
}

impl Tables for &ReadTransaction {
    type Table = ReadOnlyTable<&'static [u8], &'static [u8]>;

    fn table(self, first: u8) -> Result<Option<Self::Table>, EngineError> {
        match self.open_table(Definition::new(&name_of(first))) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn firsts(self) -> Result<Vec<u8>, EngineError> {
        Ok(firsts_in(self.list_tables()?))
    }
}

impl<'a> Tables for &'a WriteTransaction {
    type Table = Table<'a, &'static [u8], &'static [u8]>;

    fn table(self, first: u8) -> Result<Option<Self::Table>, EngineError> {
        Ok(Some(self.open_table(Definition::new(&name_of(first)))?))
    }

    fn firsts(self) -> Result<Vec<u8>, EngineError> {
        Ok(firsts_in(self.list_tables()?))
    }
}

/// The tables that were opened so far, and those that were found not to be there.
type Opened<T> = RefCell<BTreeMap<u8, Option<Arc<T>>>>;

/// Reads of the tables, at one instant or inside of a transaction.
struct Reading<'a, T: Tables> {
    transaction: T,
    tables: &'a Opened<T::Table>,
    health: &'a Health,
}

impl<T: Tables> Reading<'_, T> {
    fn table(&self, first: u8) -> Result<Option<Arc<T::Table>>, StoreError> {
        if let Some(table) = self.tables.borrow().get(&first) {
            return Ok(table.clone());
        }
        let table = sheltered(|| self.transaction.table(first)).map_err(|trouble| self.health.note(trouble))?;
        let table = table.map(Arc::new);
        self.tables.borrow_mut().insert(first, table.clone());
        Ok(table)
    }
}

impl<T: Tables> Read for Reading<'_, T> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.health.check()?;
        let Some(table) = self.table(first_of(key))? else { return Ok(None) };
        sheltered(|| Ok::<_, EngineError>(table.get(key)?.map(|value| value.value().to_vec())))
            .map_err(|trouble| self.health.note(trouble))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.health.check()?;
        if from >= to {
            return Ok(());
        }
        let (first, last) = (first_of(from), first_of(to));
        let firsts = if first == last || first.checked_add(1).is_some_and(|next| to == [next]) {
            // The usual case: everything lies in one table.
            vec![first]
        } else {
            let firsts = sheltered(|| self.transaction.firsts()).map_err(|trouble| self.health.note(trouble))?;
            firsts.into_iter().filter(|at| (first..=last).contains(at)).collect()
        };
        for first in firsts {
            let Some(table) = self.table(first)? else { continue };
            let mut entries =
                sheltered(|| table.range::<&[u8]>(from..to)).map_err(|trouble| self.health.note(trouble))?;
            // The engine is sheltered step by step, so that a panic of `visit` passes through.
            loop {
                let next = sheltered(|| entries.next().transpose()).map_err(|trouble| self.health.note(trouble))?;
                let Some((key, value)) = next else { break };
                // In a damaged page an entry can lie beyond the end, which shows only here.
                let (key, value) = sheltered(|| Ok::<_, EngineError>((key.value(), value.value())))
                    .map_err(|trouble| self.health.note(trouble))?;
                if visit(key, value).is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The tables at one instant. They answer only while the engine that they were taken from works.
struct RedbSnapshot {
    transaction: ReadTransaction,
    tables: Opened<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    health: Arc<Health>,
}

impl RedbSnapshot {
    fn reading(&self) -> Reading<'_, &ReadTransaction> {
        Reading { transaction: &self.transaction, tables: &self.tables, health: &self.health }
    }
}

impl Read for RedbSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.reading().get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.reading().scan(from, to, visit)
    }
}

impl Snapshot for RedbSnapshot {}

/// A running engine and the medium under it.
struct Open {
    /// Taken only by `drop`.
    database: Option<Database>,
    medium: Arc<Medium>,
    health: Arc<Health>,
}

impl Open {
    /// Opens what `source` has. Nothing is changed unless this succeeds.
    fn existing(source: &Source, damage: &Damage, cache_bytes: usize) -> Result<Open, Trouble> {
        let open =
            Self::held(source().map_err(Trouble::of_io)?, damage, cache_bytes, |file| Ok(Held::over(file.len()?)))?;
        // The engine would take an empty file for a new one, and any other engine's file for ours.
        if open.medium.began_empty.load(Ordering::Acquire) {
            return Err(Trouble::Unreadable("it is empty".to_string()));
        }
        sheltered(|| -> Result<_, EngineError> { Ok(open.database().begin_read()?.open_table(MARK)?) })?;
        open.let_through()?;
        Ok(open)
    }

    /// Makes a store with `first` in it. Nothing is changed until it is let through.
    fn create(
        backend: Box<dyn StorageBackend>,
        damage: &Damage,
        cache_bytes: usize,
        first: &Batch,
    ) -> Result<Open, Trouble> {
        let open = Self::held(backend, damage, cache_bytes, |_| Ok(Held::emptied()))?;
        sheltered(|| -> Result<_, EngineError> {
            let transaction = begin(open.database())?;
            drop(transaction.open_table(MARK)?);
            apply(&transaction, first)?;
            Ok(transaction.commit()?)
        })?;
        Ok(open)
    }

    fn held(
        backend: Box<dyn StorageBackend>,
        damage: &Damage,
        cache_bytes: usize,
        over: fn(&Blocks) -> io::Result<Held>,
    ) -> Result<Open, Trouble> {
        let medium = Arc::new(Medium::new(Blocks::over(backend, Arc::clone(damage)), over));
        let engine = Handle(medium.clone());
        let database = sheltered(|| Builder::new().set_cache_size(cache_bytes).create_with_backend(engine));
        // Also the failed open must not leave a lock behind, should a panic have cut its cleaning up short.
        let database = database.inspect_err(|_| medium.retire())?;
        Ok(Open { database: Some(database), medium, health: Arc::default() })
    }

    fn let_through(&self) -> Result<(), Trouble> {
        self.medium.let_through().map_err(|error| {
            let _ = self.health.why.set(error.to_string());
            self.health.failed.store(true, Ordering::Release);
            Trouble::of_io(error)
        })
    }

    fn database(&self) -> &Database {
        // Only `drop` takes it, and nothing borrows what is being dropped.
        self.database.as_ref().expect("an open engine has a database until it is dropped")
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // An engine that failed must not write that it was closed in good order.
        if self.health.failed.swap(true, Ordering::AcqRel) {
            self.medium.cut.store(true, Ordering::Release);
        }
        let database = self.database.take();
        // Nothing can be told to anyone from here. What matters, the end of all writing and the lock, is seen to next.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(database)));
        self.medium.retire();
    }
}

/// Whether an engine still works; shared with the snapshots that were taken from it.
#[derive(Debug, Default)]
struct Health {
    failed: AtomicBool,
    /// What failed first. What follows is only a consequence.
    why: OnceLock<String>,
}

impl Health {
    fn check(&self) -> Result<(), StoreError> {
        if self.failed.load(Ordering::Acquire) {
            let why = self.why.get().map_or("the storage engine was closed", String::as_str);
            return Err(StoreError::Io(why.to_string()));
        }
        Ok(())
    }

    /// Trouble while reading, or before a commit: only that of the medium stops everything.
    fn note(&self, trouble: Trouble) -> StoreError {
        // Unreadable is a page beyond the end, after which the engine refuses everything as well.
        if matches!(trouble, Trouble::Io(_) | Trouble::Unreadable(_)) {
            return self.fail(trouble);
        }
        trouble.at_work()
    }

    /// Trouble with ending a transaction, after which the engine's own state is in doubt: stops everything.
    fn fail(&self, trouble: Trouble) -> StoreError {
        let error = trouble.at_work();
        if let StoreError::Io(why) | StoreError::Damaged(why) = &error {
            // Only the first is kept.
            let _ = self.why.set(why.clone());
        }
        self.failed.store(true, Ordering::Release);
        error
    }
}

/// What the engine may say, by what is to be done about it.
#[derive(Debug)]
enum Trouble {
    InUse,
    /// The file is no store of this format.
    Unreadable(String),
    /// The file contradicts itself.
    Damaged(String),
    /// The medium failed, or the engine says that it failed before.
    Io(String),
    /// The caller asked for what the engine does not do.
    Refused(String),
}

impl Trouble {
    fn of_io(error: io::Error) -> Trouble {
        use io::ErrorKind::{
            InvalidData, InvalidInput, IsADirectory, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem,
            UnexpectedEof,
        };
        match error.kind() {
            NotFound | NotADirectory | IsADirectory | PermissionDenied | ReadOnlyFilesystem => {
                Trouble::Unreadable(error.to_string())
            }
            // What a wrong magic number, a length that no layout has, and a page beyond the end come as.
            InvalidData | InvalidInput | UnexpectedEof => Trouble::Unreadable(error.to_string()),
            _ => Trouble::Io(error.to_string()),
        }
    }

    /// For one who wanted to open the store `name`.
    fn refusing(self, name: &str) -> StoreError {
        let path = name.to_string();
        match self {
            Trouble::InUse => StoreError::InUse { path },
            Trouble::Unreadable(detail) | Trouble::Damaged(detail) => StoreError::Unreadable { path, detail },
            Trouble::Io(detail) | Trouble::Refused(detail) => StoreError::Io(format!("{path}: {detail}")),
        }
    }

    /// For one who reads or writes.
    fn at_work(self) -> StoreError {
        match self {
            Trouble::Unreadable(detail) | Trouble::Damaged(detail) => StoreError::Damaged(detail),
            Trouble::Io(detail) | Trouble::Refused(detail) => StoreError::Io(detail),
            Trouble::InUse => StoreError::Io("the file is in use by another process".to_string()),
        }
    }
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Trouble {
        match error {
            EngineError::DatabaseAlreadyOpen | EngineError::LockProtocolMismatch => Trouble::InUse,
            EngineError::Io(error) => Trouble::of_io(error),
            EngineError::PreviousIo
            | EngineError::DatabaseClosed
            | EngineError::Unsupported
            | EngineError::LockPoisoned(_) => Trouble::Io(error.to_string()),
            EngineError::Corrupted(detail) => Trouble::Damaged(detail),
            EngineError::UpgradeRequired(_)
            | EngineError::RepairAborted
            | EngineError::TableTypeMismatch { .. }
            | EngineError::TableIsMultimap(_)
            | EngineError::TypeDefinitionChanged { .. }
            | EngineError::TableDoesNotExist(_) => Trouble::Unreadable(error.to_string()),
            other => Trouble::Refused(other.to_string()),
        }
    }
}

/// Calls into the engine. A panic in there comes of a damaged file, and is told as such.
fn sheltered<T, E: Into<EngineError>>(work: impl FnOnce() -> Result<T, E>) -> Result<T, Trouble> {
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Trouble::from(error.into())),
        Err(payload) => {
            let said = payload.downcast_ref::<&str>().copied();
            let said = said.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
            Err(Trouble::Damaged(format!("the storage engine gave up: {}", said.unwrap_or("it did not say why"))))
        }
    }
}

/// What the engine takes for its file: the real one, under changes that may have to wait.
#[derive(Debug)]
struct Medium {
    backend: Blocks,
    stage: Mutex<Stage>,
    /// Whether [`Stage::Through`] is reached, so that the usual case takes no lock.
    through: AtomicBool,
    /// Whether there was nothing when the engine first looked.
    began_empty: AtomicBool,
    /// Nothing more may reach the file.
    cut: AtomicBool,
    closed: AtomicBool,
}

#[derive(Debug)]
enum Stage {
    /// Not looked at. The length is asked for when the engine holds its lock, not before.
    New(fn(&Blocks) -> io::Result<Held>),
    Held(Held),
    Through,
}

impl Medium {
    fn new(backend: Blocks, over: fn(&Blocks) -> io::Result<Held>) -> Self {
        Self {
            backend,
            stage: Mutex::new(Stage::New(over)),
            through: AtomicBool::new(false),
            began_empty: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        }
    }

    /// Hands `work` the changes that wait, or `None` when none wait any more and the file itself is to be used.
    fn reach<T>(&self, work: impl FnOnce(Option<&mut Held>) -> io::Result<T>) -> io::Result<T> {
        if self.cut.load(Ordering::Acquire) {
            return Err(io::Error::other("the store was closed after a failure"));
        }
        if self.through.load(Ordering::Acquire) {
            return work(None);
        }
        let mut stage = locked(&self.stage);
        if let Stage::New(over) = *stage {
            let held = over(&self.backend)?;
            self.began_empty.store(held.len() == 0, Ordering::Release);
            *stage = Stage::Held(held);
        }
        match &mut *stage {
            Stage::Held(held) => work(Some(held)),
            Stage::New(_) | Stage::Through => work(None),
        }
    }

    /// Lets the changes reach the file, and all later ones at once.
    fn let_through(&self) -> io::Result<()> {
        let mut stage = locked(&self.stage);
        if let Stage::Held(held) = std::mem::replace(&mut *stage, Stage::Through) {
            for change in held.into_changes() {
                let done = match change {
                    Change::Write(offset, bytes) => self.backend.write(offset, &bytes),
                    Change::SetLen(len) => self.backend.set_len(len),
                    Change::Sync => self.backend.sync_data(),
                };
                // What the engine believes is in the file is not: it must not go on.
                done.inspect_err(|_| self.cut.store(true, Ordering::Release))?;
            }
        }
        self.through.store(true, Ordering::Release);
        Ok(())
    }

    /// Ends all use of the file and gives up its lock, whoever still holds a part of the engine.
    fn retire(&self) {
        self.cut.store(true, Ordering::Release);
        // There is nobody to tell; closing the file, with the last snapshot, ends the lock as well.
        let _ = self.close();
    }

    fn close(&self) -> io::Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) { Ok(()) } else { self.backend.close() }
    }
}

/// The engine's end of a [`Medium`].
#[derive(Debug)]
struct Handle(Arc<Medium>);

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        self.0.reach(|held| match held {
            Some(held) => Ok(held.len()),
            None => self.0.backend.len(),
        })
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.reach(|held| match held {
            Some(held) => held.read(offset, out, |at, part| self.0.backend.read(at, part)),
            None => self.0.backend.read(offset, out),
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.reach(|held| match held {
            Some(held) => {
                held.set_len(len);
                Ok(())
            }
            None => self.0.backend.set_len(len),
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.reach(|held| match held {
            Some(held) => {
                held.sync();
                Ok(())
            }
            None if planted!("nothing-synced") => Ok(()),
            None => self.0.backend.sync_data(),
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.reach(|held| match held {
            Some(held) => {
                held.write(offset, data);
                Ok(())
            }
            None => self.0.backend.write(offset, data),
        })
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.0.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.0.backend.query_lock_range(start, end)
    }
}

/// A lock that guards no data that a panic could have left half changed.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The path with `end` appended.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(end);
    beside.into()
}

/// The path as it will still mean the same file after a change of the working directory.
fn absolute(path: &Path) -> Result<PathBuf, StoreError> {
    std::path::absolute(path).map_err(|error| StoreError::Io(format!("{}: {error}", path.display())))
}

fn file(options: &OpenOptions, path: &Path) -> io::Result<Box<dyn StorageBackend>> {
    Ok(Box::new(FileBackend::new(options.open(path)?).map_err(io::Error::other)?))
}

fn vacant(path: &Path) -> Result<(), Trouble> {
    match path.try_exists() {
        Ok(false) => Ok(()),
        Ok(true) => Err(Trouble::Unreadable("a new store cannot be made: there is a file already".to_string())),
        Err(error) => Err(Trouble::of_io(error)),
    }
}

/// Makes a rename in the directory of `path` durable.
fn sync_directory_of(path: &Path) -> io::Result<()> {
    // Elsewhere a directory cannot be opened, and its changes are durable by other means.
    if cfg!(unix)
        && let Some(directory) = path.parent()
    {
        File::open(directory)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
pub(in crate::store) mod tests;
