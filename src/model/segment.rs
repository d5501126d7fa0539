//! A run of consecutive events of one replica: hash-chained, and signed once by its device.
//!
//! One signature for many events is what makes catching up fast; one per event would cap it at two percent of what
//! the disk can do. A segment travels and is stored as the very bytes that were hashed and signed, so every node can
//! verify authorship, whoever forwarded it.
//!
//! **Invariant**: a [`Segment`] exists only if its signature and its form were verified, or if this node signed it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::event::{EVENT_BYTES_MAX, Event, InvalidEvent, PackedEvent};
use super::{DeviceId, DeviceKey, SpaceId};
use crate::causal::{Dot, EventHash, ReplicaId};
use crate::codec::{self, DecodeError};

/// The longest segment: one event of the greatest length, and room for its frame.
pub const SEGMENT_BYTES_MAX: usize = EVENT_BYTES_MAX + (64 << 10);

/// No event is shorter: its depth, its lists, the names of a collection and a key, and what it does there.
const EVENT_BYTES_MIN: usize = 16;

/// What makes a replica id: it names its device, so that nobody else can claim it, not even before its first event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Incarnation {
    /// The device whose store it is.
    pub device: DeviceId,
    /// Drawn at random when the store was made.
    pub nonce: u64,
}

impl Incarnation {
    /// The id: sixteen bytes of the hash of device and nonce.
    ///
    /// Decision (2026-11): derived and not drawn, so that it certifies itself. With a drawn id a hostile peer could
    /// announce somebody else's id as its own to a node that had not met it yet.
    pub fn replica(&self) -> ReplicaId {
        let mut hasher = blake3::Hasher::new_derive_key("thence 1 replica");
        hasher.update(self.device.as_bytes());
        hasher.update(&self.nonce.to_le_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        ReplicaId::from_bytes(id)
    }
}

/// A verified segment.
#[derive(Clone, Debug)]
pub struct Segment {
    revision: u64,
    bytes: Arc<[u8]>,
    author: Incarnation,
    events: Vec<Event>,
}

#[derive(Serialize, Deserialize)]
struct PackedSegment {
    author: Incarnation,
    first: u64,
    previous: EventHash,
    events: Vec<PackedEvent>,
    #[serde(with = "codec::signature")]
    signature: [u8; 64],
}

impl PackedSegment {
    /// What is signed. The space and its revision are part of it, so that no segment can be moved to another.
    fn message(&self, space: SpaceId, revision: u64, last: EventHash) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("thence 1 segment");
        hasher.update(if planted!("segment-fits-any-space") { &[0; 16] } else { space.as_bytes() });
        hasher.update(&revision.to_le_bytes());
        hasher.update(self.author.device.as_bytes());
        hasher.update(&self.author.nonce.to_le_bytes());
        hasher.update(&self.first.to_le_bytes());
        hasher.update(&(self.events.len() as u64).to_le_bytes());
        hasher.update(self.previous.as_bytes());
        hasher.update(last.as_bytes());
        *hasher.finalize().as_bytes()
    }

    /// Checks all that must hold before anything is hashed or parsed, and returns the hash of the last event.
    fn checked(&self, bytes: &[u8]) -> Result<EventHash, InvalidSegment> {
        let count = u64::try_from(self.events.len()).unwrap_or(u64::MAX);
        let from_the_start = self.previous == EventHash::start(self.author.replica());
        if count == 0
            || self.first.checked_add(count).is_none()
            || self.first == 0
            || from_the_start != (self.first == 1)
        {
            return Err(InvalidSegment::Counters);
        }
        // Four million events of no bytes would take a second of hashing to refuse.
        if self.events.len() > bytes.len() / EVENT_BYTES_MIN || !self.events.iter().all(PackedEvent::has_parts) {
            return Err(InvalidSegment::Counters);
        }
        Ok(self.events.iter().fold(self.previous, |previous, event| event.hash(previous)))
    }

    fn unpack(self, revision: u64, bytes: Arc<[u8]>) -> Result<Segment, InvalidSegment> {
        let replica = self.author.replica();
        let mut events = Vec::with_capacity(self.events.len());
        let mut previous = self.previous;
        for (counter, event) in (self.first..).zip(&self.events) {
            if event.bytes() > EVENT_BYTES_MAX {
                return Err(InvalidEvent::TooLarge { bytes: event.bytes() }.into());
            }
            let event = Event::read(Dot::new(replica, counter), previous, event)?;
            previous = event.hash;
            events.push(event);
        }
        Ok(Segment { revision, bytes, author: self.author, events })
    }
}

/// Why bytes are no segment. Whoever sent them is at fault; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSegment {
    /// Not an encoding of a segment.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// One of its events is not well formed.
    #[error(transparent)]
    Event(#[from] InvalidEvent),
    /// No event at all, empty ones, or counters that cannot be.
    #[error("a segment without events, with empty ones, or with impossible counters")]
    Counters,
    /// Its author did not sign it.
    #[error("a segment that {device} did not sign")]
    Forged {
        /// Who it claims to be from.
        device: DeviceId,
    },
}

impl Segment {
    /// Signs events that `key`'s device wrote as `author`: consecutive, in order, at least one.
    pub(crate) fn sign(
        space: SpaceId,
        revision: u64,
        author: Incarnation,
        key: &DeviceKey,
        events: Vec<(Event, PackedEvent)>,
    ) -> Option<Self> {
        let (events, packed): (Vec<_>, Vec<_>) = events.into_iter().unzip();
        let (first, last) = (events.first()?, events.last()?);
        let mut segment = PackedSegment {
            author,
            first: first.dot.counter,
            previous: first.previous,
            events: packed,
            signature: [0; 64],
        };
        segment.signature = key.sign(&segment.message(space, revision, last.hash));
        Some(Self { revision, bytes: codec::encode(&segment).into(), author, events })
    }

    /// Verifies bytes that somebody sent, or that were stored.
    pub fn verify(space: SpaceId, revision: u64, bytes: Arc<[u8]>) -> Result<Self, InvalidSegment> {
        if bytes.len() > SEGMENT_BYTES_MAX {
            let (what, bytes, bytes_max) = ("segment", bytes.len(), SEGMENT_BYTES_MAX);
            return Err(DecodeError::TooLarge { what, bytes, bytes_max }.into());
        }
        let packed: PackedSegment = codec::decode("segment", &bytes)?;
        let last = packed.checked(&bytes)?;
        // The signature first: an attacker must not make us parse mutations for nothing.
        let device = packed.author.device;
        let genuine = device.verifies(&packed.message(space, revision, last), &packed.signature);
        if !genuine && !planted!("signature-unchecked") {
            return Err(InvalidSegment::Forged { device });
        }
        packed.unpack(revision, bytes)
    }

    /// Reads bytes that were verified before they were stored.
    pub(crate) fn read_stored(revision: u64, bytes: Arc<[u8]>) -> Result<Self, InvalidSegment> {
        let packed: PackedSegment = codec::decode("segment", &bytes)?;
        packed.checked(&bytes)?;
        packed.unpack(revision, bytes)
    }

    /// The same events as if `key`'s device had written and signed them, whatever they are; none if `bytes` are not even
    /// laid out as a segment. For tests of what happens then: whoever has a key can make such bytes.
    #[doc(hidden)]
    pub fn resign(space: SpaceId, revision: u64, key: &DeviceKey, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut packed: PackedSegment = codec::decode("segment", bytes).ok()?;
        packed.author.device = key.device();
        if packed.first == 1 {
            packed.previous = EventHash::start(packed.author.replica());
        }
        let last = packed.events.iter().fold(packed.previous, |previous, event| event.hash(previous));
        packed.signature = key.sign(&packed.message(space, revision, last));
        Some(codec::encode(&packed))
    }

    /// The revision of its space in which it was written.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The counter of the first event, read from the front of bytes that were verified when they were stored.
    pub(crate) fn first_counter(bytes: &[u8]) -> Option<u64> {
        codec::decode_front::<(Incarnation, u64)>(bytes).map(|(_, first)| first)
    }

    /// The bytes that were hashed and signed.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Whose events these are.
    pub fn author(&self) -> Incarnation {
        self.author
    }

    /// The events, consecutive; at least one.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The hash of the last event, which names the whole chain below it.
    pub fn hash(&self) -> EventHash {
        self.events[self.events.len() - 1].hash
    }

    /// The name of the first event.
    pub fn first(&self) -> Dot {
        self.events[0].dot
    }

    /// The name of the last event.
    pub fn last(&self) -> Dot {
        self.events[self.events.len() - 1].dot
    }
}
