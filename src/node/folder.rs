//! The data folder: the device's key, its store, and who may open it.
//!
//! | file | what |
//! |---|---|
//! | `device.key` | the secret key, 64 hexadecimal digits; readable by its owner only |
//! | `thence.redb` | the store |
//! | `store.lease`, `store.closed` | tell whether the store is a copy or an older state: [`super::lease`] |
//! | `thence.redb.aside-N` | a store that was there before a restore; never touched again |
//! | `reset.key` | lets peers notice at once that this node was restarted |
//! | `node.lock` | held by a node for as long as it runs, and while it waits to start |
//! | `store.lock` | held by whoever has the store open |
//! | `init.lock` | held while the key is made |
//! | `node.sock` | where commands speak to the running node |
//!
//! **Invariant**: at most one process has the store open, and a starting node never starves behind a row of short
//! commands: while a node holds or waits for the folder, no command even tries to take the store.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use rand::Rng;

use super::lease::Lease;
use crate::model::{DeviceId, DeviceKey};
use crate::store::{Batch, Ledger, LedgerError, Read, RedbStore, Snapshot, Store, StoreError};

/// Why a data folder cannot be used. Nothing in it was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// There is none yet.
    #[error("{} is not a thence data folder", path.display())]
    Absent {
        /// Where it was expected.
        path: PathBuf,
    },
    /// Something is there that is not ours.
    #[error("{} cannot become a data folder: it is not empty and holds no device.key", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// A node runs on it, so commands have to speak to that.
    #[error("a node is running on {}", path.display())]
    NodeRunning {
        /// The folder.
        path: PathBuf,
    },
    /// A command holds it for longer than it should.
    #[error("{} is in use by another thence process", path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
    },
    /// The key file does not hold a key.
    #[error("{} does not hold a device key", path.display())]
    DamagedKey {
        /// The file.
        path: PathBuf,
    },
    /// The store is not this device's, or not one that this release can read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The operating system refused something.
    #[error("{}: {error}", path.display())]
    System {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

pub(super) fn system(path: &Path) -> impl FnOnce(io::Error) -> FolderError + '_ {
    |error| FolderError::System { path: path.to_owned(), error }
}

/// How long to wait between two looks at a lock that somebody holds.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A data folder.
#[derive(Clone, Debug)]
pub struct DataFolder {
    path: PathBuf,
}

/// A data folder that this process may open the store of, until this is dropped.
#[derive(Debug)]
pub struct Claim {
    folder: DataFolder,
    key: DeviceKey,
    /// Whether the store was opened under this claim.
    opened: Arc<AtomicBool>,
    _store_lock: File,
    _node_lock: Option<File>,
}

impl DataFolder {
    /// The folder at `path`, be it there or not.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the running node listens for commands.
    pub fn socket(&self) -> PathBuf {
        self.path.join("node.sock")
    }

    fn key_path(&self) -> PathBuf {
        self.path.join("device.key")
    }

    pub(super) fn store_path(&self) -> PathBuf {
        self.path.join("thence.redb")
    }

    /// Says whether the store is the one that was written here last.
    pub(super) fn lease(&self) -> Lease {
        Lease::of(&self.store_path())
    }

    /// Whether it was initialised.
    pub fn exists(&self) -> bool {
        self.key_path().exists()
    }

    /// Makes it a data folder with a new device, unless it is one already.
    pub fn init(&self) -> Result<DeviceId, FolderError> {
        let mut folders = fs::DirBuilder::new();
        folders.recursive(true);
        // Whoever may look into the folder may read the store. One that is there already is its owner's choice.
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut folders, 0o700);
        folders.create(&self.path).map_err(system(&self.path))?;
        if !self.exists() {
            // What a crash in here leaves behind is ours: locks, and a key that nothing was ever written with.
            let foreign = |entry: io::Result<fs::DirEntry>| {
                entry.is_ok_and(|entry| {
                    let name = entry.file_name();
                    !name.to_string_lossy().ends_with(".lock") && name != "device.new"
                })
            };
            if fs::read_dir(&self.path).map_err(system(&self.path))?.any(foreign) {
                return Err(FolderError::Foreign { path: self.path.clone() });
            }
            // Two processes may find it empty at once; the second must take the first one's key for its own, not
            // replace it.
            let lock = self.open_lock("init.lock")?;
            lock.lock().map_err(system(&self.path))?;
            if !self.exists() {
                let mut secret = [0; 32];
                rand::rng().fill_bytes(&mut secret);
                write_secret(&self.key_path(), &secret)?;
            }
        }
        self.device()
    }

    /// The device whose folder it is.
    pub fn device(&self) -> Result<DeviceId, FolderError> {
        self.key().map(|key| key.device())
    }

    fn key(&self) -> Result<DeviceKey, FolderError> {
        if !self.exists() {
            let path = self.path.clone();
            // A store without its key is not an empty folder: a new key would make it somebody else's.
            let foreign = self.store_path().exists();
            return Err(if foreign { FolderError::Foreign { path } } else { FolderError::Absent { path } });
        }
        read_secret::<32>(&self.key_path()).map(|secret| DeviceKey::from_secret(&secret))
    }

    /// The key that lets peers notice a restart at once; made when it is first needed.
    pub(super) fn reset_key(&self) -> Result<[u8; 64], FolderError> {
        let path = self.path.join("reset.key");
        if !path.exists() {
            let mut secret = [0; 64];
            rand::rng().fill_bytes(&mut secret);
            write_secret(&path, &secret)?;
        }
        read_secret(&path)
    }

    /// Claims the folder for a short command, waiting up to `wait` for another one to end.
    ///
    /// [`FolderError::NodeRunning`] means that a node runs or starts: speak to its socket instead.
    pub fn claim_for_command(&self, wait: Duration) -> Result<Claim, FolderError> {
        let key = self.key()?;
        let until = Instant::now() + wait;
        let node_lock = self.open_lock("node.lock")?;
        let store_lock = self.open_lock("store.lock")?;
        loop {
            match node_lock.try_lock_shared() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(FolderError::NodeRunning { path: self.path.clone() });
                }
                Err(TryLockError::Error(error)) => return Err(system(&self.path)(error)),
            }
            // Seen free and let go at once: it is only looked at, so that a starting node finds it free too.
            node_lock.unlock().map_err(system(&self.path))?;
            match store_lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOOK_AGAIN),
                Err(TryLockError::WouldBlock) => return Err(FolderError::Busy { path: self.path.clone() }),
                Err(TryLockError::Error(error)) => return Err(system(&self.path)(error)),
            }
        }
        Ok(Claim { folder: self.clone(), key, opened: Arc::default(), _store_lock: store_lock, _node_lock: None })
    }

    /// Claims the folder for a node, waiting up to `wait` for a short command to end.
    pub fn claim_for_node(&self, wait: Duration) -> Result<Claim, FolderError> {
        let key = self.key()?;
        let until = Instant::now() + wait;
        // Commands look at this lock for an instant; only another node keeps it.
        let soon = Instant::now() + Duration::from_millis(300).min(wait);
        let node_lock = self.lock_exclusively("node.lock", soon)?;
        let node_lock = node_lock.ok_or_else(|| FolderError::NodeRunning { path: self.path.clone() })?;
        let store_lock = self.lock_exclusively("store.lock", until)?;
        let store_lock = store_lock.ok_or_else(|| FolderError::Busy { path: self.path.clone() })?;
        Ok(Claim {
            folder: self.clone(),
            key,
            opened: Arc::default(),
            _store_lock: store_lock,
            _node_lock: Some(node_lock),
        })
    }

    fn open_lock(&self, name: &str) -> Result<File, FolderError> {
        let path = self.path.join(name);
        OpenOptions::new().create(true).truncate(false).write(true).read(true).open(&path).map_err(system(&path))
    }

    fn lock_exclusively(&self, name: &str, until: Instant) -> Result<Option<File>, FolderError> {
        let file = self.open_lock(name)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOOK_AGAIN),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(system(&self.path)(error)),
            }
        }
    }
}

impl Claim {
    /// The folder.
    pub fn folder(&self) -> &DataFolder {
        &self.folder
    }

    /// The device's key.
    pub fn key(&self) -> &DeviceKey {
        &self.key
    }

    /// Opens the ledger, making an empty one if there is none yet.
    ///
    /// The folder stays claimed until the store is closed, whoever closes it.
    pub(super) fn open_ledger(self, cache_bytes: usize) -> Result<Ledger, FolderError> {
        let path = self.folder.store_path();
        let device = self.key.device();
        let lease = self.folder.lease();
        let is_as_left = lease.opening();
        let store = if path.exists() {
            // Looked at before it is opened for writing: a store that is not ours stays as it is, byte for byte.
            let meta = RedbStore::peek(&path, &Ledger::check_key()).map_err(LedgerError::from)?;
            Ledger::check(meta.as_deref(), device)?;
            RedbStore::open(&path, cache_bytes)
        } else {
            let nonce = rand::rng().next_u64();
            RedbStore::create(&path, cache_bytes, Ledger::first_batch(device, nonce))
        };
        let store = store.map_err(|error: StoreError| LedgerError::from(error))?;
        let (key, is_node, opened) = (self.key.clone(), self._node_lock.is_some(), Arc::clone(&self.opened));
        let ledger = Ledger::open(Arc::new(Claimed { store, _claim: self }), key)?;
        let nonce = rand::rng().next_u64();
        lease.take(&ledger, is_as_left, is_node, super::surroundings::wall_ms(), nonce).map_err(LedgerError::from)?;
        // What was found out is written down by now: the next one may trust what this one leaves.
        opened.store(true, Ordering::Relaxed);
        Ok(ledger)
    }
}

impl Drop for Claim {
    /// Whoever had the store open has closed it by now; the locks go after this.
    fn drop(&mut self) {
        if self.opened.load(Ordering::Relaxed) {
            self.folder.lease().closed();
        }
    }
}

/// A store, and after it, since fields are dropped in order, the right to have it open.
struct Claimed {
    store: RedbStore,
    _claim: Claim,
}

impl Store for Claimed {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.store.snapshot()
    }

    fn commit(&self, compute: &mut dyn FnMut(&dyn Read) -> Result<Batch, StoreError>) -> Result<(), StoreError> {
        self.store.commit(compute)
    }

    fn reopen(&self) -> Result<(), StoreError> {
        self.store.reopen()
    }

    fn failure(&self) -> Option<StoreError> {
        self.store.failure()
    }

    fn damage(&self) -> Option<String> {
        self.store.damage()
    }

    fn probe(&self) -> Result<(), StoreError> {
        self.store.probe()
    }
}

/// Writes a secret so that it is there whole or not at all, and readable by its owner only.
fn write_secret(path: &Path, secret: &[u8]) -> Result<(), FolderError> {
    let beside = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = (|| {
        let mut file = options.open(&beside)?;
        writeln!(file, "{}", HEXLOWER.encode(secret))?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        // The name must survive a crash too; not every platform can sync a folder.
        let _ = path.parent().map(|folder| File::open(folder).and_then(|folder| folder.sync_all()));
        Ok(())
    })();
    written.map_err(system(path))
}

fn read_secret<const N: usize>(path: &Path) -> Result<[u8; N], FolderError> {
    let text = fs::read_to_string(path).map_err(system(path))?;
    let bytes = HEXLOWER.decode(text.trim().as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| FolderError::DamagedKey { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_many_make_at_once_has_one_device() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = DataFolder::new(parent.path().join("data"));
        let init = || {
            std::thread::scope(|scope| {
                let inits: Vec<_> = (0..8).map(|_| scope.spawn(|| folder.init())).collect();
                inits
                    .into_iter()
                    .map(|init| init.join().expect("no panic").expect("an empty folder"))
                    .collect::<Vec<_>>()
            })
        };
        let devices = init();
        assert!(devices.iter().all(|device| *device == devices[0]), "{devices:?}");
        assert_eq!(folder.device().expect("a key"), devices[0]);
    }

    #[test]
    fn what_a_crash_during_the_first_start_leaves_behind_is_no_obstacle() {
        let parent = tempfile::tempdir().expect("a folder");
        fs::write(parent.path().join("device.new"), "00").expect("a file");
        fs::write(parent.path().join("init.lock"), "").expect("a file");
        assert!(DataFolder::new(parent.path()).init().is_ok());
    }

    #[test]
    fn a_folder_that_is_somebody_elses_stays_as_it_is() {
        let parent = tempfile::tempdir().expect("a folder");
        fs::write(parent.path().join("letter.txt"), "dear").expect("a file");
        assert!(matches!(DataFolder::new(parent.path()).init(), Err(FolderError::Foreign { .. })));
        assert_eq!(fs::read_dir(parent.path()).expect("readable").count(), 1);
    }
}
