//! A backup: the rows of a store at one instant, in a file that says nothing of whose store it was.
//!
//! It is a stream of checked rows, and not a second store file: it is written and read from front to end (over a socket
//! too), needs no storage engine to be verified, and has no empty pages.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | [`MAGIC`] |
//! | 4 | [`VERSION`], little-endian, as all numbers here |
//! | 4, n | length and encoding of the [`Header`] |
//! | 2, 4, k, v | a row: the lengths of key and value, the key, the stored value with its own check; in key order |
//! | 2, 8, 32 | the end: 0, the number of rows, BLAKE3 of everything before it |
//!
//! **Invariant**: what [`BackupReader`] hands out has passed the row's own check, and once it says that this was all,
//! it was all: no row is missing, repeated or out of order.
//!
//! What stays behind: the replica id, so that whoever restores cannot write under it; peers and their addresses;
//! settings, but for what says which space is the system's; what peers acknowledged. What it does not do: sign anything. Whoever can write a backup can make one up,
//! as whoever can write the store can.

use std::io::{self, Read as _};
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::record::{FORMAT, Meta};
use super::{Ledger, SYSTEM_SPACE, key, record, wiping};
use crate::codec;
use crate::model::DeviceId;
use crate::store::{Batch, StoreError};

/// How a backup begins.
const MAGIC: &[u8; 8] = b"thenceBU";
/// The version of everything around the rows.
const VERSION: u32 = 1;
/// The longest header.
const HEADER_BYTES_MAX: u32 = 1 << 10;
/// The longest value: what [`codec::decode_trusted`] takes, with the check before it.
const VALUE_BYTES_MAX: u32 = (codec::TRUSTED_BYTES_MAX as u32) + 64;
/// About how many bytes are handed on at once.
const PIECE_BYTES: usize = 48 << 10;

/// Why a file is no backup that can be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// It is some other file.
    #[error("it is not a backup of thence")]
    NotABackup,
    /// It was written by another release.
    #[error("it has version {found}; this release reads version {VERSION} with rows of format {FORMAT} only")]
    UnknownVersion {
        /// What was found: the version of the file, or the format of its rows.
        found: u32,
    },
    /// It is not as it was written.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Reading it failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What must be known before the first row.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// The format of the rows.
    format: u32,
    /// The number that the next space gets.
    next_number: u32,
    /// When it was made, in milliseconds since 1970; for people.
    made_ms: u64,
}

/// Tables that are about this store and not about what it holds.
fn stays_behind(key: &[u8]) -> bool {
    matches!(key.first(), None | Some(b'm' | b'p' | b'w')) && key != key::setting(SYSTEM_SPACE)
}

impl Ledger {
    /// Hands a backup of this instant to `to`, piece by piece, until that breaks. Later commits do not change it.
    ///
    /// Every row is checked on its way. On an error, and if `to` breaks, what was handed out lacks its end and is
    /// refused by [`BackupReader`]. `made_ms` is wall time, for people.
    pub fn back_up(&self, made_ms: u64, to: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> Result<(), StoreError> {
        let snapshot = self.store.snapshot()?;
        let meta = Self::read_meta(snapshot.get(&key::meta())?.as_deref())
            .map_err(|error| StoreError::Damaged(error.to_string()))?;
        let header = codec::encode(&Header { format: FORMAT, next_number: meta.next_number, made_ms });
        let mut pieces = Pieces { bytes: Vec::with_capacity(PIECE_BYTES), hash: blake3::Hasher::new(), to };
        let head = [&MAGIC[..], &VERSION.to_le_bytes(), &length(header.len())?, &header].concat();
        // What was wiped is gone, though its rows are not all removed yet.
        let wiped = wiping::unremoved(&*snapshot)?;
        let is_wiped = |key: &[u8]| {
            key::number_at(key, 1).is_some_and(|number| {
                wiped.contains(&number) && key::all_of(number).iter().any(|prefix| key.starts_with(prefix))
            })
        };
        let mut rows = 0u64;
        let mut result = Ok(pieces.add(&head));
        if matches!(result, Ok(ControlFlow::Continue(()))) {
            snapshot.scan(&[0], &[u8::MAX], &mut |key, value| {
                if stays_behind(key) || is_wiped(key) {
                    return ControlFlow::Continue(());
                }
                rows += 1;
                result = pieces.add_row(key, value);
                if matches!(result, Ok(ControlFlow::Continue(()))) {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
        }
        if result?.is_continue() {
            pieces.end(rows);
        }
        Ok(())
    }

    /// The first batch of a store of `device` that takes in what `backup` holds. The other batches are its rows, and
    /// nobody may open the store before they are all there. `nonce` is drawn at random: it makes a new replica id.
    pub fn first_batch_of<R: io::Read>(backup: &BackupReader<R>, device: DeviceId, nonce: u64) -> Batch {
        let meta = Meta { format: FORMAT, device, nonce, next_number: backup.header.next_number, renewals: 0 };
        let key = key::meta();
        let value = record::write(&key, &meta);
        Batch::from([(key, Some(value))])
    }
}

fn length(bytes: usize) -> Result<[u8; 4], StoreError> {
    let length = u32::try_from(bytes).map_err(|_| StoreError::Damaged(format!("a row of {bytes} bytes")))?;
    Ok(length.to_le_bytes())
}

/// A backup being made.
struct Pieces<'a> {
    bytes: Vec<u8>,
    hash: blake3::Hasher,
    to: &'a mut dyn FnMut(&[u8]) -> ControlFlow<()>,
}

impl Pieces<'_> {
    fn add(&mut self, bytes: &[u8]) -> ControlFlow<()> {
        self.hash.update(bytes);
        for part in bytes.chunks(PIECE_BYTES) {
            self.bytes.extend_from_slice(part);
            if self.bytes.len() >= PIECE_BYTES {
                (self.to)(&self.bytes)?;
                self.bytes.clear();
            }
        }
        ControlFlow::Continue(())
    }

    fn add_row(&mut self, key: &[u8], value: &[u8]) -> Result<ControlFlow<()>, StoreError> {
        record::unwrap(key, value)?;
        let key_length = u16::try_from(key.len()).map_err(|_| StoreError::Damaged("a key too long".to_owned()))?;
        let value_length = length(value.len())?;
        let parts: [&[u8]; 4] = [&key_length.to_le_bytes(), &value_length, key, value];
        Ok(parts.iter().try_for_each(|part| self.add(part)))
    }

    fn end(mut self, rows: u64) {
        let end = [&0u16.to_le_bytes()[..], &rows.to_le_bytes()].concat();
        let done = self.add(&end).is_continue();
        self.bytes.extend_from_slice(self.hash.finalize().as_bytes());
        if done {
            // The last piece: whoever takes no more of it will find that the end is missing.
            let _ = (self.to)(&self.bytes);
        }
    }
}

/// Reads a backup from front to end, and checks all of it.
#[derive(Debug)]
pub struct BackupReader<R> {
    from: R,
    hash: blake3::Hasher,
    header: Header,
    rows: u64,
    bytes: u64,
    last: Vec<u8>,
}

/// A row as it is stored: key and value.
pub type StoredRow = (Vec<u8>, Vec<u8>);

impl<R: io::Read> BackupReader<R> {
    /// Begins to read a backup.
    pub fn begin(from: R) -> Result<Self, BackupError> {
        let header = Header { format: 0, next_number: 0, made_ms: 0 };
        let mut reader = Self { from, hash: blake3::Hasher::new(), header, rows: 0, bytes: 0, last: Vec::new() };
        match reader.array::<8>() {
            Ok(magic) if magic == *MAGIC => {}
            Ok(_) | Err(BackupError::Damaged(_)) => return Err(BackupError::NotABackup),
            Err(error) => return Err(error),
        }
        let found = u32::from_le_bytes(reader.array()?);
        if found != VERSION {
            return Err(BackupError::UnknownVersion { found });
        }
        let bytes = reader.sized(HEADER_BYTES_MAX)?;
        // The format stands first and is read alone: what follows it may look different in another release.
        match codec::decode_front::<u32>(&bytes) {
            Some(FORMAT) => {}
            Some(found) => return Err(BackupError::UnknownVersion { found }),
            None => return Err(damaged("its header")),
        }
        reader.header = codec::decode("header of a backup", &bytes).map_err(|error| damaged(&error.to_string()))?;
        Ok(reader)
    }

    /// When it was made, in milliseconds since 1970; for people.
    pub fn made_ms(&self) -> u64 {
        self.header.made_ms
    }

    /// How many rows were read so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How many bytes were read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The next row; none when all of them were read and the end is what it should be.
    pub fn next_row(&mut self) -> Result<Option<StoredRow>, BackupError> {
        let key_length = u16::from_le_bytes(self.array()?);
        if key_length == 0 {
            return self.end().map(|()| None);
        }
        let value_length = u32::from_le_bytes(self.array()?);
        let key = self.take(u32::from(key_length))?;
        if stays_behind(&key) || key <= self.last {
            return Err(damaged("a row that does not belong there"));
        }
        if value_length > VALUE_BYTES_MAX {
            return Err(damaged("a row too long"));
        }
        let value = self.take(value_length)?;
        record::unwrap(&key, &value).map_err(|error| damaged(&error.to_string()))?;
        self.rows += 1;
        self.last.clone_from(&key);
        Ok(Some((key, value)))
    }

    fn end(&mut self) -> Result<(), BackupError> {
        if u64::from_le_bytes(self.array()?) != self.rows {
            return Err(damaged("rows are missing"));
        }
        let expected = self.hash.finalize();
        if self.array::<32>()? != *expected.as_bytes() {
            return Err(damaged("its last check does not match"));
        }
        if self.from.read(&mut [0])? > 0 {
            return Err(damaged("something follows its end"));
        }
        Ok(())
    }

    fn sized(&mut self, bytes_max: u32) -> Result<Vec<u8>, BackupError> {
        match u32::from_le_bytes(self.array()?) {
            length if length <= bytes_max => self.take(length),
            _ => Err(damaged("a length that cannot be")),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).map_err(cut_short)?;
        self.note(&bytes);
        Ok(bytes)
    }

    /// So many bytes. A length that is a lie costs no more memory than there are bytes.
    fn take(&mut self, length: u32) -> Result<Vec<u8>, BackupError> {
        let mut bytes = Vec::new();
        (&mut self.from).take(u64::from(length)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != u64::from(length) {
            return Err(cut_short(io::ErrorKind::UnexpectedEof.into()));
        }
        self.note(&bytes);
        Ok(bytes)
    }

    fn note(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

fn damaged(what: &str) -> BackupError {
    BackupError::Damaged(what.to_owned())
}

fn cut_short(error: io::Error) -> BackupError {
    if error.kind() == io::ErrorKind::UnexpectedEof { damaged("it ends too early") } else { error.into() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::model::{CollectionName, DeviceKey, Genesis, Operation, Request};
    use crate::store::{MemoryStore, Store, Work};

    fn key_of(n: u8) -> DeviceKey {
        DeviceKey::from_secret(&[n; 32])
    }

    /// A ledger with some objects in two spaces, a peer and a setting.
    fn ledger() -> Ledger {
        let store = MemoryStore::new();
        let first = Ledger::first_batch(key_of(1).device(), 1);
        store.commit(&mut |_| Ok(first.clone())).expect("memory does not fail");
        let ledger = Ledger::open(Arc::new(store), key_of(1)).expect("a fresh store");
        let mut work = Vec::new();
        for n in 1..=2 {
            let genesis = Genesis { creator: key_of(1).device(), nonce: [n; 16] };
            work.push(Work::Create { genesis, name: format!("space{n}") });
        }
        work.push(Work::RememberPeer { device: key_of(2).device(), addresses: vec!["198.51.100.7:7117".to_owned()] });
        work.push(Work::Setting { name: "listened".to_owned(), value: "203.0.113.9:7117".to_owned() });
        work.push(Work::Setting { name: SYSTEM_SPACE.to_owned(), value: "which one".to_owned() });
        ledger.commit(&work, 1, 7).expect("memory does not fail");
        for space in ledger.spaces() {
            let request = |n: u64| Request {
                collection: CollectionName::user("notes").expect("a name"),
                key: format!("key{n}").parse().expect("a key"),
                operation: Operation::Put(json!({ "n": n }).as_object().expect("an object").clone()),
            };
            let requests = (0..20).map(request).collect();
            ledger.commit(&[Work::Write { space, requests }], 1, 7).expect("memory does not fail");
        }
        ledger
    }

    fn backup(ledger: &Ledger) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut to = |piece: &[u8]| {
            bytes.extend_from_slice(piece);
            ControlFlow::Continue(())
        };
        ledger.back_up(77, &mut to).expect("memory does not fail");
        bytes
    }

    fn read_all(bytes: &[u8]) -> Result<Vec<StoredRow>, BackupError> {
        let mut reader = BackupReader::begin(bytes)?;
        let mut rows = Vec::new();
        while let Some(row) = reader.next_row()? {
            rows.push(row);
        }
        assert_eq!((reader.rows(), reader.bytes()), (rows.len() as u64, bytes.len() as u64));
        Ok(rows)
    }

    #[test]
    fn what_is_restored_is_what_was_there_under_a_new_replica_id() {
        let ledger = ledger();
        let bytes = backup(&ledger);
        let reader = BackupReader::begin(&bytes[..]).expect("a backup");
        assert_eq!(reader.made_ms(), 77);
        let store = MemoryStore::new();
        let mut batch = Ledger::first_batch_of(&reader, key_of(1).device(), 2);
        batch.extend(read_all(&bytes).expect("whole").into_iter().map(|(key, value)| (key, Some(value))));
        store.commit(&mut |_| Ok(batch.clone())).expect("memory does not fail");
        let restored = Ledger::open(Arc::new(store), key_of(1)).expect("a store");

        assert_eq!(restored.held(), ledger.held());
        assert_ne!(restored.replica(), ledger.replica());
        assert_eq!(restored.peers().expect("memory does not fail"), []);
        assert_eq!(restored.setting("listened").expect("memory does not fail"), None);
        let system = restored.setting(SYSTEM_SPACE).expect("memory does not fail");
        assert_eq!(system.as_deref(), Some("which one"), "it is about what is restored");
        // The number of a space is not given out again.
        let genesis = Genesis { creator: key_of(1).device(), nonce: [3; 16] };
        restored.commit(&[Work::Create { genesis, name: "space3".to_owned() }], 1, 7).expect("memory does not fail");
        let numbers = |ledger: &Ledger| ledger.lock().shelves.values().map(|shelf| shelf.row.number).max();
        assert!(numbers(&restored) > numbers(&ledger));
    }

    #[test]
    fn it_says_nothing_of_whose_store_it_was() {
        let bytes = backup(&ledger());
        let holds = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
        assert!(holds(b"key7"), "this would find it");
        assert!(!holds(key_of(2).device().as_bytes()), "a peer");
        assert!(!holds(b"198.51.100.7") && !holds(b"203.0.113.9"), "an address");
    }

    #[test]
    fn every_flipped_bit_and_every_missing_byte_is_noticed() {
        let bytes = backup(&ledger());
        assert!(read_all(&bytes).is_ok());
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(read_all(&flipped).is_err(), "byte {at}");
            assert!(read_all(&bytes[..at]).is_err(), "cut to {at}");
        }
        assert!(read_all(&[&bytes[..], b"x"].concat()).is_err());
    }

    #[test]
    fn a_damaged_row_ends_the_backup() {
        let ledger = ledger();
        let damage = key::totals(1);
        ledger.store.commit(&mut |_| Ok(Batch::from([(damage.clone(), Some(vec![0; 20]))]))).expect("memory");
        let outcome = ledger.back_up(1, &mut |_| ControlFlow::Continue(()));
        assert!(matches!(outcome, Err(StoreError::Damaged(_))), "{outcome:?}");
    }
}
