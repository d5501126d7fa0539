//! Putting another store into a data folder: from a backup, or from what can be saved of a damaged one.
//!
//! **Invariant**: the folder has its old store until the new one is whole and durable, and the old one is kept aside: a
//! crash at any moment leaves the one or the other in its place, and what is refused leaves everything as it was.
//!
//! What comes out is a new incarnation: the replica id is drawn anew, so events that were lost since the backup and
//! that peers still have come back under their own names, and none of those names is given out again.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;

use super::folder::{Claim, DataFolder, FolderError, system};
use super::surroundings::wall_ms;
use crate::causal::ReplicaId;
use crate::model::DeviceId;
use crate::store::{BackupError, BackupReader, Batch, Ledger, LedgerError, RedbStore, Salvaged, SpaceSummary, Store};

/// About how many bytes of rows are made durable at once.
const BATCH_BYTES: usize = 4 << 20;

/// Why a backup was not restored. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The backup cannot be used.
    #[error("{} cannot be restored: {error}", path.display())]
    Backup {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: BackupError,
    },
    /// The data folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// What a restore did.
#[derive(Debug)]
pub struct Restored {
    /// Whose store it is now.
    pub device: DeviceId,
    /// The replica id under which it writes from now on.
    pub replica: ReplicaId,
    /// When the backup was made, in milliseconds since 1970; for people.
    pub made_ms: u64,
    /// How many rows it has.
    pub rows: u64,
    /// The spaces that it holds.
    pub spaces: Vec<SpaceSummary>,
    /// Where the store is now that was there before, if there was one.
    pub moved_aside: Option<PathBuf>,
}

impl DataFolder {
    /// Restores the backup `file` into this folder, which becomes a device if it is not one yet. Waits up to `wait` for
    /// a short command to end, and refuses while a node runs. `progress` is told how many bytes of the backup are done.
    pub fn restore(
        &self,
        file: &Path,
        wait: Duration,
        cache_bytes: usize,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Restored, RestoreError> {
        let refused = |error: BackupError| RestoreError::Backup { path: file.to_owned(), error };
        // All of it is read before anything is touched, and again while it is restored.
        check_backup(file, progress).map_err(refused)?;
        self.init()?;
        let claim = self.claim_for_command(wait)?;
        let mut reader = open_backup(file).map_err(refused)?;
        let beside = self.path().join("thence.redb.restoring");
        let built = build(&claim, &beside, &mut reader, cache_bytes, progress);
        let (replica, spaces) = built.map_err(|error| {
            // What is not whole is of no use to anyone; should it stay, the next restore replaces it.
            let _ = fs::remove_file(&beside);
            match error {
                Unbuilt::Backup(error) => refused(error),
                Unbuilt::Folder(error) => error.into(),
            }
        })?;
        let moved_aside = put_in_place(&beside, &self.store_path()).map_err(system(self.path()))?;
        let (device, made_ms, rows) = (claim.key().device(), reader.made_ms(), reader.rows());
        Ok(Restored { device, replica, made_ms, rows, spaces, moved_aside })
    }
}

/// What a repair did.
#[derive(Debug)]
pub struct Repaired {
    /// Whose store it is.
    pub device: DeviceId,
    /// The replica id under which it writes from now on.
    pub replica: ReplicaId,
    /// The spaces that it holds now, and what was saved of each.
    pub spaces: Vec<(SpaceSummary, Salvaged)>,
    /// Where the damaged store is now.
    pub moved_aside: PathBuf,
}

impl DataFolder {
    /// Makes the store anew from what can be read of it, and keeps the damaged one aside; see [`Ledger::salvage`]. Waits
    /// up to `wait` for a short command to end, and refuses while a node runs. A store of which nothing can be read is
    /// refused and stays where it is.
    pub fn repair(&self, wait: Duration, cache_bytes: usize) -> Result<Repaired, FolderError> {
        let claim = self.claim_for_command(wait)?;
        let (path, beside) = (self.store_path(), self.path().join("thence.redb.repairing"));
        let device = claim.key().device();
        let salvage = || -> Result<_, LedgerError> {
            let damaged = RedbStore::open(&path, cache_bytes)?;
            let first = Ledger::first_batch(device, rand::rng().next_u64());
            let store = RedbStore::create(&beside, cache_bytes, first)?;
            let ledger = Ledger::open(Arc::new(store), claim.key().clone())?;
            let mut spaces = Vec::new();
            for salvaged in ledger.salvage(&damaged, wall_ms(), rand::rng().next_u64())? {
                if let Some(view) = ledger.view(salvaged.space)? {
                    spaces.push((view.summary()?, salvaged));
                }
            }
            Ok((ledger.replica(), spaces))
        };
        remove_leftover(&beside)?;
        let (replica, spaces) = salvage().inspect_err(|_| {
            let _ = fs::remove_file(&beside);
        })?;
        let moved_aside = put_in_place(&beside, &path).map_err(system(self.path()))?;
        // There was one: it was just read.
        let moved_aside = moved_aside.unwrap_or(path);
        Ok(Repaired { device, replica, spaces, moved_aside })
    }
}

/// A backup, to be read.
fn open_backup(file: &Path) -> Result<BackupReader<BufReader<File>>, BackupError> {
    BackupReader::begin(BufReader::with_capacity(1 << 20, File::open(file)?))
}

/// Reads a backup from front to end, and says what is in it. `progress` is told how many bytes are read.
pub fn check_backup(file: &Path, progress: &mut dyn FnMut(u64)) -> Result<BackupSummary, BackupError> {
    let mut reader = open_backup(file)?;
    while reader.next_row()?.is_some() {
        progress(reader.bytes());
    }
    Ok(BackupSummary { made_ms: reader.made_ms(), rows: reader.rows(), bytes: reader.bytes() })
}

/// What is in a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupSummary {
    /// When it was made, in milliseconds since 1970; for people.
    pub made_ms: u64,
    /// How many rows it has.
    pub rows: u64,
    /// How many bytes it has.
    pub bytes: u64,
}

enum Unbuilt {
    Backup(BackupError),
    Folder(FolderError),
}

impl From<BackupError> for Unbuilt {
    fn from(error: BackupError) -> Self {
        Self::Backup(error)
    }
}

impl<E: Into<LedgerError>> From<E> for Unbuilt {
    fn from(error: E) -> Self {
        Self::Folder(FolderError::Ledger(error.into()))
    }
}

/// Makes the store at `beside`, opens it once as a node would, and closes it.
fn build(
    claim: &Claim,
    beside: &Path,
    reader: &mut BackupReader<impl io::Read>,
    cache_bytes: usize,
    progress: &mut dyn FnMut(u64),
) -> Result<(ReplicaId, Vec<SpaceSummary>), Unbuilt> {
    remove_leftover(beside).map_err(Unbuilt::Folder)?;
    let nonce = rand::rng().next_u64();
    let first = Ledger::first_batch_of(reader, claim.key().device(), nonce);
    let store = RedbStore::create(beside, cache_bytes, first)?;
    let mut batch = Batch::new();
    let mut bytes = 0;
    loop {
        let row = reader.next_row()?;
        let ended = row.is_none();
        if let Some((key, value)) = row {
            bytes += key.len() + value.len();
            batch.insert(key, Some(value));
        }
        if ended || bytes >= BATCH_BYTES {
            store.commit(&mut |_| Ok(std::mem::take(&mut batch)))?;
            bytes = 0;
            progress(reader.bytes());
        }
        if ended {
            break;
        }
    }
    let ledger = Ledger::open(Arc::new(store), claim.key().clone())?;
    let mut spaces = Vec::new();
    for space in ledger.spaces() {
        if let Some(view) = ledger.view(space)? {
            spaces.push(view.summary()?);
        }
    }
    Ok((ledger.replica(), spaces))
}

/// Removes what a crash left of an earlier attempt.
fn remove_leftover(beside: &Path) -> Result<(), FolderError> {
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(system(beside)(error)),
        _ => Ok(()),
    }
}

/// Puts the store at `beside` where `store` is or is to be; where the old one is from then on, if there was one.
fn put_in_place(beside: &Path, store: &Path) -> io::Result<Option<PathBuf>> {
    let moved_aside = if store.try_exists()? { Some(keep_aside(store)?) } else { None };
    fs::rename(beside, store)?;
    // The names must survive a crash too; not every platform can sync a folder.
    let _ = store.parent().map(|folder| File::open(folder).and_then(|folder| folder.sync_all()));
    Ok(moved_aside)
}

/// Gives the store another name, under which nothing is. The old name stays where the file system can do that, so that
/// there is no moment without a store in its place.
fn keep_aside(store: &Path) -> io::Result<PathBuf> {
    let mut number = 1;
    loop {
        let aside = store.with_extension(format!("redb.aside-{number}"));
        match fs::hard_link(store, &aside) {
            Ok(()) => return Ok(aside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(_) if aside.try_exists()? => number += 1,
            Err(_) => return fs::rename(store, &aside).map(|()| aside),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_kept_aside_replaces_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let (store, beside) = (folder.path().join("thence.redb"), folder.path().join("thence.redb.restoring"));
        for round in 0..3 {
            fs::write(&beside, format!("restored {round}")).expect("a file");
            let aside = put_in_place(&beside, &store).expect("a place");
            assert_eq!(fs::read_to_string(&store).expect("a file"), format!("restored {round}"));
            assert!(!beside.exists());
            let kept = aside.map(|aside| fs::read_to_string(aside).expect("a file"));
            assert_eq!(kept, (round > 0).then(|| format!("restored {}", round - 1)));
        }
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 3);
    }
}
