//! The name of one event, for ever.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One incarnation of a store on a device: 16 bytes, written as 32 hexadecimal digits.
///
/// A store that was lost, restored or copied gets a new one; none is ever used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReplicaId([u8; 16]);

impl ReplicaId {
    /// The name with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The name of one event: the `counter`-th of `replica` in a space, counting from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Dot {
    /// Who wrote the event.
    pub replica: ReplicaId,
    /// Which of its events, from 1 and without gaps.
    pub counter: u64,
}

impl Dot {
    /// The `counter`-th event of `replica`.
    pub const fn new(replica: ReplicaId, counter: u64) -> Self {
        Self { replica, counter }
    }
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}:{}", self.replica, self.counter)
    }
}

/// The hash of an event, chained over all earlier events of its replica: it names the whole history below it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EventHash([u8; 32]);

/// The first sixteen bytes of an [`EventHash`]: enough to notice that a dot was used twice, small enough to repeat.
///
/// Decision (2026-11): not eight, since the author of both events may be looking for two that look alike, which takes
/// four billion tries at eight bytes.
pub type HashPrefix = [u8; 16];

impl EventHash {
    /// What stands before the first event of a replica. It bears the replica's id, so that no two replicas that write the
    /// same ever share a hash.
    pub const fn start(replica: ReplicaId) -> Self {
        let (mut bytes, mut at) = ([0; 32], 0);
        while at < replica.0.len() {
            bytes[at] = replica.0[at];
            at += 1;
        }
        Self(bytes)
    }

    /// The hash with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its first sixteen bytes.
    pub fn prefix(&self) -> HashPrefix {
        let mut prefix = HashPrefix::default();
        prefix.copy_from_slice(&self.0[..16]);
        prefix
    }
}

/// An event that somebody knew: its name, and the beginning of its hash, which shows if two events bear that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Witness {
    /// The event.
    pub dot: Dot,
    /// The first sixteen bytes of its hash.
    pub hash: HashPrefix,
}

impl fmt::Debug for EventHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
