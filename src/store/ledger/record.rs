//! The rows of the ledger, each with a check of its own.
//!
//! A stored value is `[check: 8][sealing: 1][body]`. The check is the beginning of BLAKE3 over key, sealing and body:
//! a storage engine serves a flipped bit without a word, and a row that was written under another key is as wrong as a
//! damaged one. The sealing byte is 0 for "not sealed"; a later release puts a key id behind another number.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Renewal;
use crate::causal::{EventHash, HashPrefix, Head, Known, ReplicaId, VersionVector};
use crate::codec;
use crate::model::{ClientName, Context, DeviceId, Genesis, Grant, Incarnation, PackedObject, Revision, SpaceId};
use crate::store::StoreError;

/// The version of everything that is stored.
pub(super) const FORMAT: u32 = 1;

const NOT_SEALED: u8 = 0;

/// What the store is, and whose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) format: u32,
    pub(super) device: DeviceId,
    /// With the device it makes the replica id.
    pub(super) nonce: u64,
    pub(super) next_number: u32,
    /// How often this store began a new incarnation.
    pub(super) renewals: u64,
}

impl Meta {
    /// As whom this store writes.
    pub(super) fn incarnation(&self) -> Incarnation {
        Incarnation { device: self.device, nonce: self.nonce }
    }
}

/// Why this store began a new incarnation, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RenewalRow {
    /// The id under which it wrote before.
    pub(super) before: ReplicaId,
    pub(super) reason: Renewal,
    /// In milliseconds since 1970. For people only.
    pub(super) at_ms: u64,
}

/// Whose events these are: an incarnation's, or those of one of several histories that were written as it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Author {
    pub(super) incarnation: Incarnation,
    /// Of a branch: how many events of the incarnation come before its first, and the hash of that one.
    pub(super) branch: Option<(u64, EventHash)>,
}

impl Author {
    /// The author of what `id`, a replica that was written as `incarnation`, holds.
    pub(super) fn of(known: &Known, incarnation: Incarnation, id: ReplicaId) -> Self {
        Self { incarnation, branch: known.branch(id).map(|branch| (branch.after, branch.first)) }
    }

    pub(super) fn replica(&self) -> ReplicaId {
        match self.branch {
            Some((_, first)) => self.incarnation.branch(first),
            None => self.incarnation.replica(),
        }
    }
}

/// Where the events of a segment lie that are one replica's, and the beginnings of their hashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DotRow {
    pub(super) arrival: u64,
    pub(super) hashes: Vec<HashPrefix>,
}

impl DotRow {
    /// The beginning of the hash of the `counter`-th event, if the row tells of it; `last` is the counter of the last
    /// event that it tells of, which stands in its key.
    pub(super) fn hash(&self, counter: u64, last: u64) -> Option<HashPrefix> {
        let from_last = usize::try_from(last.checked_sub(counter)?).ok()?;
        let at = self.hashes.len().checked_sub(1)?.checked_sub(from_last)?;
        Some(self.hashes[at])
    }
}

/// How far a counter's run had counted when the history that it lies in was split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EndedRow {
    pub(super) at: u64,
    pub(super) total: i64,
}

/// A space, and where its current revision is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SpaceRow {
    pub(super) genesis: Genesis,
    pub(super) revision: Revision,
    pub(super) number: u32,
    /// The owner whose ticket led here: trusted until the space's own grants have come.
    pub(super) introducer: Option<DeviceId>,
    /// Who might do what before the present revision began.
    pub(super) inherited: Vec<Grant>,
    /// What the space was called when it was joined, or begun anew; its own name holds once it has come.
    pub(super) name: String,
}

/// What is counted per revision of a space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Totals {
    pub(super) objects: u64,
    pub(super) bytes: u64,
    pub(super) conflicts: u64,
    pub(super) lost: u64,
    /// The last position that was given out.
    pub(super) position: u64,
    /// The last arrival that was given out.
    pub(super) arrival: u64,
    /// The last position at which a deletion was that is not told any more, of whatever table.
    pub(super) horizon: u64,
    /// The position that the wipe took with which this revision began; 0 in the first one.
    pub(super) begun: u64,
}

/// The head of a replica.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HeadRow {
    pub(super) head: Head,
    pub(super) tip: bool,
}

/// An object, and where it stands in the feed. A deleted one stays as an empty state for as long as the feed tells of
/// its deletion.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct ObjectRow {
    pub(super) position: u64,
    pub(super) object: PackedObject,
    /// The version that a client gave it last. Never used for order.
    pub(super) source_version: Option<i64>,
}

/// What is counted per table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TableRow {
    pub(super) objects: u64,
    /// The sum of what stands for each visible row.
    pub(super) digest: u128,
    /// The last position at which one of its rows stood.
    pub(super) position: u64,
    /// The last position at which a deletion of one of its rows was that is not told any more.
    pub(super) horizon: u64,
}

/// The latest change of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FeedRow {
    pub(super) collection: u32,
    pub(super) key: String,
    pub(super) deleted: bool,
    /// The number of the replica whose event it was.
    pub(super) replica: u32,
    /// As whom a client wrote it by way of that replica. For people only.
    pub(super) by: Option<ClientName>,
    /// When it was committed here, in milliseconds since 1970. For people only.
    pub(super) modified_ms: u64,
}

/// A write that bore a client's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AskedRow {
    /// Where its object stood after it.
    pub(super) position: u64,
    /// What the client had seen of the object then, and what it wrote.
    pub(super) seen: Context,
    /// When it was committed here, in milliseconds since 1970: ids are not kept for ever.
    pub(super) at_ms: u64,
}

/// Refuses counts that no store ever comes to. What is counted on from one that was read then never overflows, though
/// it was damaged in a way that its check does not show.
pub(super) fn check_counts(counts: &[u64]) -> Result<(), StoreError> {
    const COUNT_MAX: u64 = 1 << 56;
    match counts.iter().find(|count| **count > COUNT_MAX) {
        Some(count) => Err(StoreError::Damaged(format!("{count} of something"))),
        None => Ok(()),
    }
}

/// A revision of a space that is over, whose rows are removed step by step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WipedRow {
    pub(super) space: SpaceId,
    /// The revision that began instead.
    pub(super) revision: u64,
    /// How many objects could be seen in it, and how many of those are removed.
    pub(super) objects: u64,
    pub(super) removed: u64,
    /// When it was over, in milliseconds since 1970, and when all of it was removed.
    pub(super) at_ms: u64,
    pub(super) done_ms: Option<u64>,
    /// How often the removal was interrupted.
    pub(super) interrupted: u64,
    /// How often a step of it failed.
    pub(super) errors: u64,
}

/// What a peer said is durable there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PeerRow {
    pub(super) vector: VersionVector,
    /// When it was last in step, in milliseconds since 1970. For people only.
    pub(super) synced_ms: Option<u64>,
}

fn check(key: &[u8], rest: &[u8]) -> [u8; 8] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(rest);
    let mut check = [0; 8];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    check
}

/// The stored form of `body` under `key`.
pub(super) fn wrap(key: &[u8], body: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(9 + body.len());
    value.extend_from_slice(&[0; 8]);
    value.push(NOT_SEALED);
    value.extend_from_slice(body);
    let check = check(key, &value[8..]);
    value[..8].copy_from_slice(&check);
    value
}

/// The body of a stored value.
pub(super) fn unwrap<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], StoreError> {
    let damaged = |what: &str| StoreError::Damaged(format!("{what} under key {}", data_encoding::HEXLOWER.encode(key)));
    let (stored, rest) = value.split_at_checked(8).ok_or_else(|| damaged("cut short"))?;
    if stored != check(key, rest) {
        return Err(damaged("check does not match"));
    }
    match rest.split_first() {
        Some((&NOT_SEALED, body)) => Ok(body),
        Some((sealing, _)) => Err(damaged(&format!("sealed in a way ({sealing}) that this release cannot open"))),
        None => Err(damaged("cut short")),
    }
}

/// The stored form of `row` under `key`.
pub(super) fn write<T: Serialize>(key: &[u8], row: &T) -> Vec<u8> {
    wrap(key, &codec::encode(row))
}

/// The row that is stored as `value` under `key`.
pub(super) fn read<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, StoreError> {
    codec::decode_trusted("stored row", unwrap(key, value)?).map_err(|error| StoreError::Damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let value = wrap(b"key", b"body");
        assert_eq!(unwrap(b"key", &value).expect("intact"), b"body");
        assert!(unwrap(b"kez", &value).is_err());
        for bit in 0..value.len() * 8 {
            let mut damaged = value.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(unwrap(b"key", &damaged), Err(StoreError::Damaged(_))), "bit {bit}");
        }
    }
}
