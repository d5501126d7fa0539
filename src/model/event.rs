//! The atom of atomicity: an immutable event, all of it visible or none.
//!
//! An event's hash covers its header and the *hashes* of its mutations, chained over all earlier events of its
//! replica. So a mutation can be left out (for a node that does not take its range) or erased, and the chain still
//! verifies. The two are different marks: what is left out must never count as known.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::mutation::{Malformed, Mutation, PackedMutation, Roster};
use super::{CollectionName, ObjectKey};
use crate::causal::{Dot, EventHash, HashPrefix, Known, Proposal, ReplicaId, Witness};
use crate::codec::{self, DecodeError};

/// The longest event: 4 MiB encoded. A transaction that needs more must be split.
pub const EVENT_BYTES_MAX: usize = 4 << 20;

/// An event whose form was checked. That its author signed it is what a [`super::Segment`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its name.
    pub dot: Dot,
    /// The hash of the event of the same replica before it.
    pub previous: EventHash,
    /// Its own hash.
    pub hash: EventHash,
    /// 1 + the greatest depth that its author knew.
    pub depth: u64,
    /// What its author knew, as the events that nothing else known then depended on.
    pub dependencies: Vec<Witness>,
    /// The last event that its author knew of every other replica that is named in its mutations. They say which
    /// history a name stands for, should it turn out that there are several.
    pub witnesses: Vec<Witness>,
    /// What it does, sorted by collection and key, each object once.
    pub mutations: Vec<Mutation>,
    /// What clients said of some of the mutations, by their place.
    pub remarks: Vec<(u32, Remark)>,
}

/// What a client said of a write of its own. It changes nothing of what the write does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remark {
    /// Under which id it asked for it.
    pub id: Option<ClientId>,
    /// The client's own version of the row.
    pub source_version: Option<i64>,
    /// As whom it wrote, which the device that wrote for it vouches for.
    pub by: Option<ClientName>,
}

impl Remark {
    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The longest [`ClientId`], in bytes.
const CLIENT_ID_BYTES_MAX: usize = 128;

/// The id that a client gave a write of its own, so that the write takes effect once however often it is sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClientId(String);

/// A text that is no id of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the id of a write has 1 to {CLIENT_ID_BYTES_MAX} bytes, not {0}")]
pub struct InvalidClientId(usize);

impl ClientId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ClientId {
    type Error = InvalidClientId;

    fn try_from(text: String) -> Result<Self, InvalidClientId> {
        if (1..=CLIENT_ID_BYTES_MAX).contains(&text.len()) { Ok(Self(text)) } else { Err(InvalidClientId(text.len())) }
    }
}

impl From<ClientId> for String {
    fn from(id: ClientId) -> Self {
        id.0
    }
}

/// The longest [`ClientName`], in bytes.
const CLIENT_NAME_BYTES_MAX: usize = 64;

/// As whom a client writes that has no key of its own: for people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClientName(String);

/// A text that is no name of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a client has 1 to {CLIENT_NAME_BYTES_MAX} bytes, not {0}")]
pub struct InvalidClientName(usize);

impl ClientName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ClientName {
    type Error = InvalidClientName;

    fn try_from(text: String) -> Result<Self, InvalidClientName> {
        let is_valid = (1..=CLIENT_NAME_BYTES_MAX).contains(&text.len());
        if is_valid { Ok(Self(text)) } else { Err(InvalidClientName(text.len())) }
    }
}

impl From<ClientName> for String {
    fn from(name: ClientName) -> Self {
        name.0
    }
}

/// An event's bytes: what is hashed, and what travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PackedEvent {
    #[serde(with = "serde_bytes")]
    header: Vec<u8>,
    bodies: Vec<PackedBody>,
}

/// One mutation of a packed event. Variants are only ever appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum PackedBody {
    /// All of it.
    Present(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Not sent, since the receiver does not take its range. Its effect is *not* known by whoever has this.
    LeftOut([u8; 32]),
    /// Erased for good. Its effect *is* known: there is none any more.
    Erased([u8; 32]),
}

#[derive(Serialize, Deserialize)]
struct Header {
    depth: u64,
    /// The replicas that are named below by their place here, counting from 1; 0 is the author. Of each the last event
    /// that the author knew: its counter and the beginning of its hash.
    replicas: Vec<(ReplicaId, u64, HashPrefix)>,
    /// So many of the first of these are direct dependencies.
    dependencies: u32,
    collections: Vec<CollectionName>,
    /// The object of each mutation: a node that leaves a mutation out still knows what it touches.
    touched: Vec<(u32, ObjectKey)>,
    /// What is said of an event without changing what it does: type and bytes, each type once. It is hashed and
    /// forwarded; unknown types are ignored.
    remarks: Vec<(u32, ByteBuf)>,
}

/// The type of what [`Event::remarks`] holds.
const OF_CLIENTS: u32 = 1;

impl Event {
    /// Writes an event of an author who knows `known`; its hash is computed.
    pub(crate) fn write(
        dot: Dot,
        previous: EventHash,
        depth: u64,
        known: &Known,
        mut mutations: Vec<Mutation>,
        said: &[(&CollectionName, &ObjectKey, &Remark)],
    ) -> (Self, PackedEvent) {
        let dependencies = known.dependencies(dot.replica);
        mutations.sort_by(|a, b| (&a.collection, &a.key).cmp(&(&b.collection, &b.key)));
        let mut roster = Roster::from_iter([dot.replica]);
        for dependency in &dependencies {
            roster.number(dependency.dot.replica);
        }
        let bodies: Vec<_> = (mutations.iter())
            .map(|mutation| PackedBody::Present(codec::encode(&PackedMutation::pack(mutation, &mut roster))))
            .collect();
        let mut collections: Vec<CollectionName> = mutations.iter().map(|m| m.collection.clone()).collect();
        collections.dedup();
        let touched = (mutations.iter())
            .map(|mutation| {
                let at = collections.binary_search(&mutation.collection).unwrap_or_default();
                (u32::try_from(at).unwrap_or(u32::MAX), mutation.key.clone())
            })
            .collect();
        let named = &roster.replicas()[1..];
        // Nobody observes what they do not know, so there is a witness of everything that is named.
        let nothing = |replica| Witness { dot: Dot::new(replica, 0), hash: HashPrefix::default() };
        let witness = |replica: &ReplicaId| known.witness(*replica).unwrap_or_else(|| nothing(*replica));
        let replicas =
            named.iter().map(witness).map(|witness| (witness.dot.replica, witness.dot.counter, witness.hash));
        let replicas = replicas.collect();
        let witnesses = named[dependencies.len()..].iter().map(witness).collect();
        let place = |collection: &CollectionName, key: &ObjectKey| {
            let at = mutations.binary_search_by(|other| (&other.collection, &other.key).cmp(&(collection, key)));
            at.ok().and_then(|at| u32::try_from(at).ok())
        };
        let said: BTreeMap<u32, Remark> = (said.iter())
            .filter_map(|(collection, key, remark)| Some((place(collection, key)?, (*remark).clone())))
            .collect();
        let said: Vec<(u32, Remark)> = said.into_iter().collect();
        let of_clients = || (OF_CLIENTS, ByteBuf::from(codec::encode(&said)));
        let remarks = if said.is_empty() { Vec::new() } else { vec![of_clients()] };
        let count = u32::try_from(dependencies.len()).unwrap_or(u32::MAX);
        let header = Header { depth, replicas, dependencies: count, collections, touched, remarks };
        let packed = PackedEvent { header: codec::encode(&header), bodies };
        let hash = packed.hash(previous);
        (Self { dot, previous, hash, depth, dependencies, witnesses, mutations, remarks: said }, packed)
    }

    /// Reads an event that claims to be `dot` and to follow `previous`.
    pub(crate) fn read(dot: Dot, previous: EventHash, packed: &PackedEvent) -> Result<Self, InvalidEvent> {
        let hash = packed.hash(previous);
        let header: Header = codec::decode("event header", &packed.header)?;
        let malformed = Malformed { what: "event header" };
        let named = header.replicas.iter().map(|(replica, ..)| *replica);
        let roster: Roster = std::iter::once(dot.replica).chain(named).collect();
        let in_order = header.collections.is_sorted_by(|a, b| a < b)
            && header.touched.is_sorted_by(|a, b| a < b)
            && header.remarks.is_sorted_by(|a, b| a.0 < b.0);
        if roster.replicas().len() != header.replicas.len() + 1
            || header.replicas.iter().any(|(_, counter, _)| *counter == 0)
            || !in_order
            || header.touched.len() != packed.bodies.len()
            || packed.bodies.is_empty()
        {
            return Err(malformed.into());
        }
        let direct = usize::try_from(header.dependencies).ok().filter(|direct| *direct <= header.replicas.len());
        let direct = direct.ok_or_else(|| malformed.clone())?;
        let witness = |&(replica, counter, hash): &_| Witness { dot: Dot::new(replica, counter), hash };
        let mut dependencies: Vec<Witness> = header.replicas.iter().map(witness).collect();
        let witnesses = dependencies.split_off(direct);
        let known: BTreeMap<ReplicaId, u64> = header.replicas.iter().map(|(id, counter, _)| (*id, *counter)).collect();
        let mut mutations = Vec::with_capacity(packed.bodies.len());
        for ((at, key), body) in header.touched.into_iter().zip(&packed.bodies) {
            let collection = usize::try_from(at).ok().and_then(|at| header.collections.get(at));
            let collection = collection.ok_or_else(|| malformed.clone())?.clone();
            let PackedBody::Present(bytes) = body else {
                return Err(InvalidEvent::Partial { dot });
            };
            let packed: PackedMutation = codec::decode("mutation", bytes)?;
            let mutation = packed.unpack(collection, key, &roster)?;
            // Nobody has observed what they are about to write, or more of others than they say that they know.
            let known = |replica: ReplicaId| match replica == dot.replica {
                true => dot.counter - 1,
                false => known.get(&replica).copied().unwrap_or(0),
            };
            if mutation.claims(dot).any(|claim| claim.counter > known(claim.replica)) {
                return Err(Malformed { what: "mutation" }.into());
            }
            mutations.push(mutation);
        }
        let of_clients = header.remarks.iter().find(|(kind, _)| *kind == OF_CLIENTS);
        let remarks: Vec<(u32, Remark)> =
            of_clients.map_or_else(|| Ok(Vec::new()), |(_, bytes)| codec::decode("remarks of clients", bytes))?;
        let in_place = |at: u32| usize::try_from(at).is_ok_and(|at| at < mutations.len());
        if !remarks.is_sorted_by(|a, b| a.0 < b.0) || remarks.last().is_some_and(|(at, _)| !in_place(*at)) {
            return Err(malformed.into());
        }
        // Nobody writes that nothing is to be changed, unless a client says something new of it.
        let has_version = |at: usize| {
            let said = remarks.binary_search_by(|(of, _)| usize::try_from(*of).unwrap_or(usize::MAX).cmp(&at));
            said.is_ok_and(|said| remarks[said].1.source_version.is_some())
        };
        if mutations.iter().enumerate().any(|(at, mutation)| mutation.is_empty() && !has_version(at)) {
            return Err(Malformed { what: "mutation" }.into());
        }
        Ok(Self { dot, previous, hash, depth: header.depth, dependencies, witnesses, mutations, remarks })
    }

    /// Every dot that its author must have known, though it is not listed as a dependency: what it observed, and the
    /// counts of others that it repeats or takes away.
    ///
    /// **Invariant for whoever applies it**: all of these are known first, as if they were dependencies. A forged event
    /// that claims to have observed what is still on its way would otherwise remove it here and not there, or fix
    /// somebody's counter for ever at a count that they never reached. None exceeds what the event witnesses
    /// (reading an event sees to that), so it is enough to look at the witnesses.
    pub fn claims(&self) -> impl Iterator<Item = Dot> + '_ {
        self.mutations.iter().flat_map(|mutation| mutation.claims(self.dot))
    }

    /// What it says of its place in causality.
    pub fn proposal(&self) -> Proposal<'_> {
        Proposal {
            dot: self.dot,
            previous: self.previous,
            hash: self.hash,
            depth: self.depth,
            dependencies: &self.dependencies,
        }
    }
}

impl PackedEvent {
    /// Whether it has the parts that every event has. Says nothing of what is in them.
    pub(super) fn has_parts(&self) -> bool {
        !self.header.is_empty() && !self.bodies.is_empty()
    }

    /// Its hash, after `previous`.
    pub(crate) fn hash(&self, previous: EventHash) -> EventHash {
        let mut hasher = blake3::Hasher::new_derive_key("thence 1 event");
        hasher.update(previous.as_bytes());
        hasher.update(blake3::hash(&self.header).as_bytes());
        for body in &self.bodies {
            match body {
                PackedBody::Present(bytes) => hasher.update(blake3::hash(bytes).as_bytes()),
                PackedBody::LeftOut(hash) | PackedBody::Erased(hash) => hasher.update(hash),
            };
        }
        EventHash::from_bytes(*hasher.finalize().as_bytes())
    }

    /// About how many bytes it takes.
    pub(crate) fn bytes(&self) -> usize {
        let body = |body: &PackedBody| match body {
            PackedBody::Present(bytes) => bytes.len() + 4,
            PackedBody::LeftOut(_) | PackedBody::Erased(_) => 33,
        };
        self.header.len() + 8 + self.bodies.iter().map(body).sum::<usize>()
    }
}

/// Why bytes are no event. Whoever sent them is at fault; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEvent {
    /// Not an encoding of an event.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// An event that no author would have made.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A part was left out or erased; this release takes whole events only.
    #[error("event {dot:?} is not whole")]
    Partial {
        /// The event.
        dot: Dot,
    },
    /// Longer than an event may be.
    #[error("an event of {bytes} bytes; at most {EVENT_BYTES_MAX} are allowed")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
}
