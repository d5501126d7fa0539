//! A disk with something on it, the ledger that wrote it, and what the oracles have read there.
//!
//! **Invariant**: what a ledger remembers is what it would find if it were opened anew ([`Platter::read`] checks that),
//! so disks of equal content are the same platter, whichever way led there.

use std::collections::BTreeMap;
use std::sync::Arc;

use thence::model::{DeviceKey, SpaceId};
use thence::store::{Ledger, Store, StoreError};

use super::pool::{Digest, digest_bytes};
use crate::oracles::{At, Failure, fail};
use crate::oracles::{Export, Follower, History, Shelf, check_object, check_reopened};
use crate::world::MemoryDisk;

#[derive(Debug)]
pub(super) struct Platter {
    pub(super) disk: Arc<MemoryDisk>,
    pub(super) ledger: Ledger,
    pub(super) shelves: BTreeMap<SpaceId, Shelf>,
    /// Who follows the feed of each space.
    followers: BTreeMap<SpaceId, Follower>,
    /// What users see of each space.
    pub(super) exports: BTreeMap<SpaceId, Export>,
}

impl Platter {
    /// An empty disk that a ledger was made on.
    pub(super) fn new(node: usize, key: &DeviceKey, nonce: u64) -> Result<Self, Failure> {
        let disk = Arc::new(MemoryDisk::default());
        let batch = Ledger::first_batch(key.device(), nonce);
        disk.commit(&mut |_| Ok(batch.clone())).at(node)?;
        let ledger = open(&disk, key, node)?;
        let (shelves, followers, exports) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { disk, ledger, shelves, followers, exports })
    }

    /// The same disk and ledger once more, to be written on.
    pub(super) fn fork(&self) -> (Arc<MemoryDisk>, Ledger) {
        let disk = copy(&self.disk);
        let ledger = self.ledger.fork(Arc::clone(&disk) as Arc<dyn Store>);
        (disk, ledger)
    }

    /// The same disk, with a ledger that was opened on it anew.
    pub(super) fn reopen(&self, node: usize, key: &DeviceKey) -> Result<(Arc<MemoryDisk>, Ledger), Failure> {
        let disk = copy(&self.disk);
        let ledger = open(&disk, key, node)?;
        Ok((disk, ledger))
    }

    /// After a commit of which nobody knows whether it is there.
    pub(super) fn in_doubt(&self, disk: Arc<MemoryDisk>, ledger: Ledger) -> Self {
        let (shelves, followers, exports) = (self.shelves.clone(), self.followers.clone(), self.exports.clone());
        Self { disk, ledger, shelves, followers, exports }
    }

    /// Reads and checks a disk that held what `self` does and then was written on.
    pub(super) fn read(
        &self,
        history: &mut History,
        node: usize,
        key: &DeviceKey,
        disk: Arc<MemoryDisk>,
        ledger: Ledger,
    ) -> Result<Self, Failure> {
        let mut platter = self.in_doubt(disk, ledger);
        let Self { disk, ledger, shelves, followers, exports } = &mut platter;
        let anew = open(&copy(disk), key, node)?;
        let held = |ledger: &Ledger| format!("{:?} {:?} {:?}", ledger.replica(), ledger.held(), ledger.renewals());
        if held(&anew) != held(ledger) {
            let detail = format!("the ledger remembers {}, and finds {}", held(ledger), held(&anew));
            return fail(node, "what is remembered is stored", detail);
        }
        for space in ledger.spaces() {
            let Some(view) = ledger.view(space).at(node)? else { continue };
            let before = shelves.get(&space).cloned().unwrap_or_default();
            let shelf = shelves.entry(space).or_default();
            history.read_on(key.device(), shelf, &view).at(node)?.at(node)?;
            let Some(view_anew) = anew.view(space).at(node)? else {
                return fail(node, "durability", format!("{space:?} is not there after a restart"));
            };
            check_reopened(&before, shelf).at(node)?;
            let mut shelf_anew = Shelf::default();
            history.read_on(key.device(), &mut shelf_anew, &view_anew).at(node)?.at(node)?;
            check_reopened(shelf, &shelf_anew).at(node)?;
            for name in &history.objects(space) {
                let object = view_anew.state(&name.0, &name.1).at(node)?;
                check_object(history, shelf.era(space), name, shelf, object.as_ref()).at(node)?;
            }
            let follower = followers.entry(space).or_default();
            while follower.follow(&view, 2).at(node)?.at(node)? {}
            follower.check(&view).at(node)?.at(node)?;
            exports.insert(space, Export::read(&view).at(node)?.at(node)?);
        }
        Ok(platter)
    }
}

/// What lies on a disk.
pub(super) fn content(disk: &MemoryDisk) -> Result<Digest, StoreError> {
    let mut rows: Vec<Vec<u8>> = Vec::new();
    disk.image().snapshot()?.scan(&[], &[u8::MAX; 64], &mut |key, value| {
        rows.extend([key.to_vec(), value.to_vec()]);
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(digest_bytes(rows.iter().map(Vec::as_slice)))
}

fn copy(disk: &MemoryDisk) -> Arc<MemoryDisk> {
    let copy = Arc::new(MemoryDisk::default());
    copy.put_back(&disk.image());
    copy
}

fn open(disk: &Arc<MemoryDisk>, key: &DeviceKey, node: usize) -> Result<Ledger, Failure> {
    Ledger::open(Arc::clone(disk) as Arc<dyn Store>, key.clone()).at(node)
}
