//! A disk of the levels `model` and `core`: the product's memory store behind a switch.
//!
//! **Invariant**: what the product may assume of a store holds here too. A commit is there whole or not at all, and
//! after a failure every call fails until the store is reopened.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use thence::store::{Batch, Ledger, MemoryStore, Read, Snapshot, Store, StoreError};

use super::DiskFault;

#[derive(Debug, Default)]
struct State {
    next: Option<DiskFault>,
    failed: bool,
}

/// One node's disk. It outlives the node's crashes.
#[derive(Debug, Default)]
pub(crate) struct MemoryDisk {
    memory: RwLock<Arc<MemoryStore>>,
    state: Mutex<State>,
}

impl MemoryDisk {
    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn memory(&self) -> Arc<MemoryStore> {
        Arc::clone(&self.memory.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Makes it hold `first`, if nothing is on it.
    pub(super) fn begin(&self, first: &Batch) -> Result<(), StoreError> {
        if self.memory().snapshot()?.get(&Ledger::check_key())?.is_some() {
            return Ok(());
        }
        self.memory().commit(&mut |_| Ok(first.clone()))
    }

    /// What is on it now.
    pub(crate) fn image(&self) -> MemoryStore {
        self.memory().fork()
    }

    /// Puts back what was on it, or on another disk.
    pub(crate) fn put_back(&self, image: &MemoryStore) {
        *self.memory.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(image.fork());
    }

    /// Makes the next commit fail.
    pub(crate) fn fail_next(&self, fault: DiskFault) {
        self.with(|state| state.next = Some(fault));
    }

    /// Works again, as after the process that used it was started anew.
    pub(super) fn recover(&self) {
        self.with(|state| *state = State::default());
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.with(|state| state.failed) { Err(failed()) } else { Ok(()) }
    }
}

fn failed() -> StoreError {
    StoreError::Io("the simulated disk failed".to_owned())
}

impl Store for MemoryDisk {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.check()?;
        self.memory().snapshot()
    }

    fn commit(&self, compute: &mut dyn FnMut(&dyn Read) -> Result<Batch, StoreError>) -> Result<(), StoreError> {
        self.check()?;
        match self.with(|state| state.next.take()) {
            None => self.memory().commit(compute),
            Some(fault) => {
                if fault == DiskFault::Landed {
                    self.memory().commit(compute)?;
                } else {
                    compute(&Borrowed(&*self.memory().snapshot()?)).map(drop)?;
                }
                self.with(|state| state.failed = true);
                Err(failed())
            }
        }
    }

    fn reopen(&self) -> Result<(), StoreError> {
        self.with(|state| state.failed = false);
        Ok(())
    }

    fn failure(&self) -> Option<StoreError> {
        self.check().err()
    }
}

/// A snapshot as the plain reads that a commit is computed from.
struct Borrowed<'a>(&'a dyn Snapshot);

impl Read for Borrowed<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        self.0.scan(from, to, visit)
    }
}
