//! The store without a disk: for tests, for the simulator, and for nodes that need remember nothing.
//!
//! **Invariant**: the map behind the lock is only ever replaced by the next committed one. A snapshot shares it, and
//! the first commit after a snapshot copies the map (the keys and values themselves are shared).
//!
//! Durable it is not: it lives as long as its process. It never fails and has nothing to reopen.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::{Batch, Read, Snapshot, Store, StoreError};

type Map = BTreeMap<Arc<[u8]>, Arc<[u8]>>;

/// An ordered map in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    /// The last committed state.
    committed: RwLock<Arc<Map>>,
    /// Held from the reads of a commit to its end, so that commits run one after the other.
    turn: Mutex<()>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// An independent store with what is committed now: what a crash leaves, or a backup.
    pub fn fork(&self) -> MemoryStore {
        Self { committed: RwLock::new(self.committed()), turn: Mutex::new(()) }
    }

    fn committed(&self) -> Arc<Map> {
        // A poisoned lock changes nothing: the map is replaced whole or not at all.
        self.committed.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Store for MemoryStore {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        Ok(Box::new(MemorySnapshot(self.committed())))
    }

    fn commit(&self, compute: &mut dyn FnMut(&dyn Read) -> Result<Batch, StoreError>) -> Result<(), StoreError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // This view is dropped before the map is written, or every commit would copy it.
        let batch = compute(&MemorySnapshot(self.committed()))?;
        if batch.is_empty() {
            return Ok(());
        }
        let mut committed = self.committed.write().unwrap_or_else(PoisonError::into_inner);
        let map = Arc::make_mut(&mut committed);
        for (key, value) in batch {
            match value {
                Some(value) => map.insert(key.into(), value.into()),
                None => map.remove(key.as_slice()),
            };
        }
        Ok(())
    }

    fn reopen(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

struct MemorySnapshot(Arc<Map>);

impl Read for MemorySnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.get(key).map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        // A map refuses a range that ends before it begins; here it is merely empty.
        if from >= to {
            return Ok(());
        }
        let range = (Bound::Included(from), Bound::Excluded(to));
        for (key, value) in self.0.range::<[u8], _>(range) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl Snapshot for MemorySnapshot {}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(store: &MemoryStore, key: &str, value: &str) {
        let batch = Batch::from([(key.into(), Some(value.into()))]);
        store.commit(&mut |_| Ok(batch.clone())).expect("memory does not fail");
    }

    fn value(store: &MemoryStore, key: &str) -> Option<Vec<u8>> {
        store.snapshot().and_then(|snapshot| snapshot.get(key.as_bytes())).expect("memory does not fail")
    }

    #[test]
    fn a_fork_and_its_origin_go_separate_ways() {
        let store = MemoryStore::new();
        put(&store, "a", "before");
        let fork = store.fork();
        put(&store, "a", "here");
        put(&fork, "b", "there");
        assert_eq!(value(&store, "a"), Some(b"here".to_vec()));
        assert_eq!(value(&store, "b"), None);
        assert_eq!(value(&fork, "a"), Some(b"before".to_vec()));
        assert_eq!(value(&fork, "b"), Some(b"there".to_vec()));
    }

    #[test]
    fn a_commit_without_snapshots_copies_nothing() {
        let store = MemoryStore::new();
        put(&store, "a", "1");
        let before = Arc::as_ptr(&store.committed());
        put(&store, "b", "2");
        assert_eq!(before, Arc::as_ptr(&store.committed()));
    }
}
