//! The file under the storage engine, in blocks that each carry a check.
//!
//! The engine verifies its own checksums only when it repairs. A flipped bit in one of its pages would be followed: a
//! key in a branch sends a search the wrong way, a page number leads to an old page, and rows that are there are not
//! found. No check *in* a row can notice that. So every block of [`BLOCK`] bytes lies in the file with eight bytes of
//! check behind it, over its number and its bytes.
//!
//! **Invariant**: the engine sees what it wrote, or a page of zeros, which is no page of any tree: it gives up on it, and
//! goes on with every other. Not an error, after which it would refuse everything.
//!
//! - The header, which the engine overwrites in place, has its check in the same sector of 512 bytes, written with it at
//!   once: what tears is a write of several sectors. One that does not match is an error, and the file is refused.
//! - Blocks are never overwritten while a committed state needs them, so what a crash tears, nobody reads.
//! - A block of zeros with a check of zeros was never written.
//!
//! - A block that this process wrote is read as it wrote it, or not at all: a disk that put a write somewhere else, or
//!   lost it, leaves a sound block there that is older. The engine would take it into its next commit, and make rows
//!   vanish for good.
//!
//! It does not notice such a block that an earlier process wrote (after a kill the engine does, which then verifies all
//! of the file), and repairs nothing.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use ::redb::{BackendError, StorageBackend};

use super::locked;

/// Bytes of a block, as the engine sees it: its smallest page.
const BLOCK: usize = 4096;
/// Bytes of a block in the file.
const STORED: usize = BLOCK + CHECK;
const CHECK: usize = 8;
/// Bytes of the engine's header and its check.
const HEAD: usize = 512;

/// The blocks that were found damaged, by number.
pub(super) type Damage = Arc<Mutex<BTreeSet<u64>>>;

/// A file of checked blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    below: Box<dyn StorageBackend>,
    damage: Damage,
    /// The check of every block that was written since this was opened, by number: less than a hundredth of what the
    /// blocks take themselves.
    written: Mutex<HashMap<u64, [u8; CHECK]>>,
}

fn check(number: u64, bytes: &[u8]) -> [u8; CHECK] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(bytes);
    let mut check = [0; CHECK];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..CHECK]);
    check
}

fn is_sound(number: u64, stored: &[u8]) -> bool {
    let (bytes, found) = stored.split_at(stored.len() - CHECK);
    found == check(number, bytes) || stored.iter().all(|byte| *byte == 0) || planted!("damage-unseen")
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Blocks {
    pub(super) fn over(below: Box<dyn StorageBackend>, damage: Damage) -> Self {
        Self { below, damage, written: Mutex::default() }
    }

    /// The header with its check.
    fn head(&self) -> io::Result<[u8; HEAD]> {
        let mut head = [0; HEAD];
        self.below.read(0, &mut head)?;
        if is_sound(0, &head) { Ok(head) } else { Err(invalid("its header is damaged")) }
    }

    /// The blocks that `offset..offset + bytes` touches: the first one's number, and all of them as they are stored.
    fn stored(&self, offset: u64, bytes: usize) -> io::Result<(u64, Vec<u8>)> {
        let first = offset / BLOCK as u64;
        let end = (offset + bytes as u64).div_ceil(BLOCK as u64);
        let mut stored = vec![0; (end - first) as usize * STORED];
        self.below.read(first * STORED as u64, &mut stored)?;
        Ok((first, stored))
    }
}

impl StorageBackend for Blocks {
    fn len(&self) -> io::Result<u64> {
        let stored = self.below.len()?;
        if !stored.is_multiple_of(STORED as u64) {
            return Err(invalid("it has a length that no store has"));
        }
        Ok(stored / STORED as u64 * BLOCK as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset < BLOCK as u64 {
            let from = offset as usize;
            let head = self.head()?;
            let Some(part) = head.get(from..from + out.len()).filter(|_| from + out.len() <= HEAD - CHECK) else {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "a read beyond the header"));
            };
            out.copy_from_slice(part);
            return Ok(());
        }
        let (first, stored) = self.stored(offset, out.len())?;
        let blocks = || (first..).zip(stored.chunks_exact(STORED));
        let damaged: Vec<u64> = {
            let written = locked(&self.written);
            let is_latest = |number, block: &[u8]| written.get(&number).is_none_or(|check| block[BLOCK..] == *check);
            let is_whole = |(number, block): &(u64, &[u8])| is_latest(*number, block) && is_sound(*number, block);
            blocks().filter(|block| !is_whole(block)).map(|(number, _)| number).collect()
        };
        if !damaged.is_empty() {
            // All that was asked for: a page of several blocks of which one is zeros might look like a page.
            out.fill(0);
            tracing::error!(blocks = ?damaged, "the store's file is damaged");
            locked(&self.damage).extend(damaged);
            return Ok(());
        }
        let (mut rest, mut skip) = (out, (offset - first * BLOCK as u64) as usize);
        for (_, block) in blocks() {
            let bytes = &block[skip..BLOCK.min(skip + rest.len())];
            let (part, others) = rest.split_at_mut(bytes.len());
            part.copy_from_slice(bytes);
            (rest, skip) = (others, 0);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if !len.is_multiple_of(BLOCK as u64) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a length of half a block"));
        }
        let blocks = len / BLOCK as u64;
        self.below.set_len(blocks * STORED as u64)?;
        locked(&self.written).retain(|number, _| *number < blocks);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.below.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset < BLOCK as u64 {
            let from = offset as usize;
            // Whole, or in a head that is sound: what is written must not make a damaged rest look well.
            let mut head = if from == 0 { [0; HEAD] } else { self.head()? };
            let Some(part) = head[..HEAD - CHECK].get_mut(from..from + data.len()) else {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "a write beyond the header"));
            };
            part.copy_from_slice(data);
            let check = check(0, &head[..HEAD - CHECK]);
            head[HEAD - CHECK..].copy_from_slice(&check);
            return self.below.write(0, &head);
        }
        if !offset.is_multiple_of(BLOCK as u64) || !data.len().is_multiple_of(BLOCK) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a write of half a block"));
        }
        let first = offset / BLOCK as u64;
        let mut stored = Vec::with_capacity(data.len() / BLOCK * STORED);
        for (number, block) in (first..).zip(data.chunks_exact(BLOCK)) {
            let check = check(number, block);
            stored.extend_from_slice(block);
            stored.extend_from_slice(&check);
            locked(&self.written).insert(number, check);
        }
        self.below.write(first * STORED as u64, &stored)
    }

    fn close(&self) -> io::Result<()> {
        self.below.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.below.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.below.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.below.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.below.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.below.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.below.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use ::redb::backends::InMemoryBackend;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_every_flipped_bit_is_noticed() {
        let below = || Box::new(InMemoryBackend::new());
        let blocks = Blocks::over(below(), Damage::default());
        blocks.set_len(4 * BLOCK as u64).expect("memory");
        let (header, page) = ([7; 320], [9; 2 * BLOCK]);
        blocks.write(0, &header).expect("memory");
        blocks.write(BLOCK as u64, &page).expect("memory");
        let read = |blocks: &Blocks| {
            let (mut head, mut pages) = ([1; 320], [1; 3 * BLOCK]);
            blocks.read(0, &mut head).map(|()| (blocks.read(BLOCK as u64, &mut pages), head, pages))
        };
        let (outcome, head, pages) = read(&blocks).expect("sound");
        assert!(outcome.is_ok() && head == header && pages[..2 * BLOCK] == page, "as it was written");
        assert!(pages[2 * BLOCK..].iter().all(|byte| *byte == 0), "as it was never written");
        let (mut some, at) = ([0; 100], 2 * BLOCK as u64 - 50);
        blocks.read(at, &mut some).expect("sound");
        assert_eq!(some, [9; 100]);

        let mut stored = vec![0; 4 * STORED];
        blocks.below.read(0, &mut stored).expect("memory");
        for bit in (0..HEAD * 8).chain(STORED * 8..4 * STORED * 8).step_by(5) {
            let mut flipped = stored.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let damaged = Blocks::over(below(), Damage::default());
            damaged.below.set_len(flipped.len() as u64).expect("memory");
            damaged.below.write(0, &flipped).expect("memory");
            match read(&damaged) {
                Err(error) => assert!(bit < HEAD * 8 && error.kind() == io::ErrorKind::InvalidData, "bit {bit}"),
                Ok((outcome, _, pages)) => {
                    assert!(outcome.is_ok() && pages.iter().all(|byte| *byte == 0), "bit {bit}: no page of any tree");
                    let number = (bit / 8 / STORED) as u64;
                    assert_eq!(*locked(&damaged.damage), BTreeSet::from([number]), "bit {bit}");
                }
            }
        }
    }

    #[test]
    fn a_block_in_the_place_of_another_is_noticed() {
        let blocks = Blocks::over(Box::new(InMemoryBackend::new()), Damage::default());
        blocks.set_len(3 * BLOCK as u64).expect("memory");
        blocks.write(BLOCK as u64, &[5; BLOCK]).expect("memory");
        let mut stored = vec![0; STORED];
        blocks.below.read(STORED as u64, &mut stored).expect("memory");
        blocks.below.write(2 * STORED as u64, &stored).expect("memory");
        let mut page = [1; BLOCK];
        blocks.read(2 * BLOCK as u64, &mut page).expect("memory");
        assert!(page.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_block_that_was_lost_is_noticed_until_it_is_written_again_or_cut_off() {
        let blocks = Blocks::over(Box::new(InMemoryBackend::new()), Damage::default());
        blocks.set_len(3 * BLOCK as u64).expect("memory");
        let page = |of: u64| {
            let mut page = [1; BLOCK];
            blocks.read(of * BLOCK as u64, &mut page).expect("memory");
            page
        };
        let mut older = vec![0; STORED];
        for version in [5, 6] {
            blocks.below.read(STORED as u64, &mut older).expect("memory");
            blocks.write(BLOCK as u64, &[version; BLOCK]).expect("memory");
            assert_eq!(page(1), [version; BLOCK]);
            blocks.below.write(STORED as u64, &older).expect("memory");
            assert_eq!((page(1), locked(&blocks.damage).contains(&1)), ([0; BLOCK], true), "older than {version}");
            locked(&blocks.damage).clear();
        }
        blocks.write(BLOCK as u64, &[7; BLOCK]).expect("memory");
        assert_eq!(page(1), [7; BLOCK]);
        blocks.write(2 * BLOCK as u64, &[8; BLOCK]).expect("memory");
        for len in [2, 3] {
            blocks.set_len(len * BLOCK as u64).expect("memory");
        }
        assert_eq!((page(2), locked(&blocks.damage).is_empty()), ([0; BLOCK], true), "it was never written since");
    }
}
