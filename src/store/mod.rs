//! Where a node keeps what it knows: an ordered map of bytes, behind a small trait.
//!
//! **Invariant**: [`Store::commit`] is atomic and durable. When it returns `Ok`, the whole batch survives any crash;
//! when it returns `Err`, or never returns, either the whole batch is there afterwards or nothing of it.
//!
//! A store knows nothing of events or objects: what is kept under which key is the ledger's business.
//! No call assumes that a read costs nothing (a later implementation speaks to PostgreSQL), and positions can be
//! counted inside the transaction that uses them, because [`Store::commit`] hands its reads to the closure that
//! computes the batch.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

#[cfg(test)]
mod contract;
mod ledger;
mod memory;
mod redb;

pub use self::ledger::{
    Acknowledged, BackupError, BackupReader, Change, ChangeKind, Copied, Done, Found, Ledger, LedgerError, Listed,
    Manifest, Page, PageLimits, Removal, Renewal, Renewed, Report, Row, SYSTEM_SPACE, Salvaged, SpaceSummary,
    StoredRow, TableSummary, Trimming, Upload, Uploaded, Versions, View, Work, WriteError, Written,
};
pub use self::memory::MemoryStore;
pub use self::redb::RedbStore;
#[doc(hidden)]
pub use self::redb::StorageBackend;

/// Changes that become visible and durable together: key → new value, or `None` to remove the key.
pub type Batch = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Why a store did not do what it was asked. The store is unchanged in every case but one: a commit that failed with
/// [`StoreError::Io`] is there whole or not at all, which [`Store::reopen`] decides.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process holds the file.
    #[error("{path} is in use by another process")]
    InUse {
        /// The file.
        path: String,
    },
    /// The file is not a store, or its structure is damaged. It was not touched.
    #[error("{path} cannot be opened as a thence store: {detail}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the storage engine said.
        detail: String,
    },
    /// Reading or writing failed. Nothing is acknowledged until [`Store::reopen`] succeeds.
    #[error("storage failed: {0}")]
    Io(String),
    /// What was read does not match its check.
    #[error("damaged record: {0}")]
    Damaged(String),
}

/// Reads at one instant.
pub trait Read {
    /// The value under `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// The values under `keys`, in the same order.
    fn get_many(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    /// Visits the entries with `from <= key < to` in key order until `visit` breaks.
    #[expect(clippy::type_complexity, reason = "a name for the visitor would hide what it is given")]
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError>;
}

/// A view that later commits do not change.
pub trait Snapshot: Read + Send {}

/// An ordered map of bytes with snapshots and one atomic, durable commit.
pub trait Store: Send + Sync + 'static {
    /// The last committed state.
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError>;

    /// Calls `compute` once with reads inside the write transaction, and commits the batch that it returns.
    ///
    /// Commits run one after the other. An empty batch costs no write. An error of `compute` changes nothing.
    fn commit(&self, compute: &mut dyn FnMut(&dyn Read) -> Result<Batch, StoreError>) -> Result<(), StoreError>;

    /// Opens the medium anew after [`StoreError::Io`]. Until this succeeds every call fails.
    fn reopen(&self) -> Result<(), StoreError>;

    /// Why it waits for [`Store::reopen`], if it does. Costs next to nothing, and asks no disk.
    fn failure(&self) -> Option<StoreError> {
        None
    }

    /// What was found damaged so far by whoever read, in words for people. What can be read is read all the same.
    fn damage(&self) -> Option<String> {
        None
    }

    /// Finds out whether the medium has room for what a large commit puts there. Not by a commit: one that fails ends
    /// all reading until the next [`Store::reopen`].
    fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
