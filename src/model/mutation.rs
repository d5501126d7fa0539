//! What one event does to one object, and the packed forms of mutations and objects.
//!
//! A mutation is a delta for [`Object::join`]: what it adds, and exactly the dots that its author had observed. It is
//! never a vector: joined over key ranges of different knowledge, a vector would remove what nobody had seen.
//!
//! Replica ids are sixteen bytes; where many are repeated, a [`Roster`] stands in for them with small numbers.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::object::{Content, Entry, Object, Seen, Slot};
use super::{CollectionName, ObjectKey, Path, Value};
use crate::causal::{Dot, ReplicaId};

/// What one event does to one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mutation {
    /// The object's collection.
    pub collection: CollectionName,
    /// The object's key.
    pub key: ObjectKey,
    /// For put, delete and discard: every dot that the object held, sorted. All of their entries are removed.
    pub whole: Option<Vec<Dot>>,
    /// What is written slot by slot, in slot order, each slot once. Nothing where the object stays as it is, and only what
    /// a client says of it has changed.
    pub edits: Vec<Edit>,
}

/// What one mutation does to one slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The slot.
    pub slot: Slot,
    /// The dots that are removed from it, sorted. Empty where [`Mutation::whole`] says it all.
    pub observed: Vec<Dot>,
    /// What is added under the event's own dot.
    pub add: Option<Content>,
}

/// A mutation as the part of the event that it belongs to: what it had seen is what it observed, and itself.
struct Delta<'a> {
    mutation: &'a Mutation,
    dot: Dot,
}

impl Seen for Delta<'_> {
    fn has(&self, slot: &Slot, dot: Dot) -> bool {
        if dot == self.dot {
            return true;
        }
        match &self.mutation.whole {
            Some(dots) => dots.binary_search(&dot).is_ok() || planted!("delete-removes-the-unseen"),
            None => (self.mutation.edits.binary_search_by(|edit| edit.slot.cmp(slot)))
                .map(|at| &self.mutation.edits[at].observed)
                .is_ok_and(|dots| dots.binary_search(&dot).is_ok() || planted!("edit-removes-the-unseen")),
        }
    }
}

/// What a node has seen of an event that it is about to apply: nothing.
struct Fresh(Dot);

impl Seen for Fresh {
    fn has(&self, _: &Slot, dot: Dot) -> bool {
        dot != self.0
    }
}

impl Mutation {
    /// Joins this mutation, a part of the event `dot` of causal depth `depth`, to an object whose node did not know
    /// that event yet.
    pub fn apply_to(&self, object: &mut Object, dot: Dot, depth: u64) {
        let mut added = Object::new();
        for edit in &self.edits {
            if let Some(content) = &edit.add {
                added.insert(edit.slot.clone(), dot, Entry { depth, content: content.clone() });
            }
        }
        object.join(&Fresh(dot), &added, &Delta { mutation: self, dot });
    }

    /// The counters of others that are written, each as the event of its replica that its total is from.
    fn totals(&self) -> impl Iterator<Item = Dot> + '_ {
        self.edits.iter().filter_map(|edit| match (&edit.slot, &edit.add) {
            (Slot::Counter { replica, .. } | Slot::Base { replica, .. }, Some(Content::Total { at, .. })) => {
                Some(Dot::new(*replica, *at))
            }
            _ => None,
        })
    }

    /// Everything that its author must have known before it wrote the event `dot`: what it observed, and what it
    /// repeats or takes away of counters. Its own count in this very event is no such thing.
    pub(super) fn claims(&self, dot: Dot) -> impl Iterator<Item = Dot> + '_ {
        self.observed().chain(self.totals().filter(move |total| *total != dot))
    }

    /// Whether it leaves the object as it is.
    pub(super) fn is_empty(&self) -> bool {
        self.whole.is_none() && self.edits.is_empty()
    }

    /// Every dot that the author claims to have observed.
    pub fn observed(&self) -> impl Iterator<Item = Dot> + '_ {
        self.whole.iter().flatten().chain(self.edits.iter().flat_map(|edit| &edit.observed)).copied()
    }
}

/// Replica ids in the order in which they were first met: a small number for each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    replicas: Vec<ReplicaId>,
    numbers: BTreeMap<ReplicaId, u32>,
}

impl Roster {
    /// An empty roster.
    pub const fn new() -> Self {
        Self { replicas: Vec::new(), numbers: BTreeMap::new() }
    }

    /// The number of `replica`, the next free one if it has none yet.
    pub fn number(&mut self, replica: ReplicaId) -> u32 {
        let next = u32::try_from(self.replicas.len()).unwrap_or(u32::MAX);
        *self.numbers.entry(replica).or_insert_with(|| {
            self.replicas.push(replica);
            next
        })
    }

    /// The number of `replica`, if it has one.
    pub fn find(&self, replica: ReplicaId) -> Option<u32> {
        self.numbers.get(&replica).copied()
    }

    /// The replica with this number.
    pub fn replica(&self, number: u32) -> Option<ReplicaId> {
        self.replicas.get(usize::try_from(number).ok()?).copied()
    }

    /// All replicas, by number.
    pub fn replicas(&self) -> &[ReplicaId] {
        &self.replicas
    }
}

impl FromIterator<ReplicaId> for Roster {
    fn from_iter<I: IntoIterator<Item = ReplicaId>>(replicas: I) -> Self {
        let mut roster = Self::new();
        for replica in replicas {
            roster.number(replica);
        }
        roster
    }
}

/// Bytes that decode, but to something that no author would have made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}")]
pub struct Malformed {
    pub(crate) what: &'static str,
}

/// A slot with numbers for replica ids. Variants are only ever appended.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum PackedSlot {
    Life,
    Register(Path),
    Counter(Path, u32, u64),
    Base(Path, u32, u64),
    Set(Path),
    Element(Path, Value),
}

impl PackedSlot {
    fn pack(slot: &Slot, roster: &mut Roster) -> Self {
        match slot.clone() {
            Slot::Life => Self::Life,
            Slot::Register(path) => Self::Register(path),
            Slot::Counter { path, replica, run } => Self::Counter(path, roster.number(replica), run),
            Slot::Base { path, replica, run } => Self::Base(path, roster.number(replica), run),
            Slot::Set(path) => Self::Set(path),
            Slot::Element { path, value } => Self::Element(path, value),
        }
    }

    fn unpack(self, roster: &Roster) -> Option<Slot> {
        Some(match self {
            Self::Life => Slot::Life,
            Self::Register(path) => Slot::Register(path),
            Self::Counter(path, number, run) => Slot::Counter { path, replica: roster.replica(number)?, run },
            Self::Base(path, number, run) => Slot::Base { path, replica: roster.replica(number)?, run },
            Self::Set(path) => Slot::Set(path),
            Self::Element(path, value) => Slot::Element { path, value },
        })
    }
}

type PackedDot = (u32, u64);

/// A mutation without its object's name, which stands in the header of its event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PackedMutation {
    whole: Option<Vec<PackedDot>>,
    edits: Vec<(PackedSlot, Vec<PackedDot>, Option<Content>)>,
}

impl PackedMutation {
    pub(crate) fn pack(mutation: &Mutation, roster: &mut Roster) -> Self {
        let mut dots = |dots: &[Dot]| dots.iter().map(|dot| (roster.number(dot.replica), dot.counter)).collect();
        let whole = mutation.whole.as_deref().map(&mut dots);
        let edits: Vec<_> = mutation.edits.iter().map(|edit| (edit, dots(&edit.observed))).collect();
        let pack = |(edit, observed): (&Edit, _)| (PackedSlot::pack(&edit.slot, roster), observed, edit.add.clone());
        Self { whole, edits: edits.into_iter().map(pack).collect() }
    }

    /// The mutation, if it is one that an author could have made.
    pub(crate) fn unpack(
        self,
        collection: CollectionName,
        key: ObjectKey,
        roster: &Roster,
    ) -> Result<Mutation, Malformed> {
        let malformed = Malformed { what: "mutation" };
        let dots = |dots: Vec<PackedDot>| -> Option<Vec<Dot>> {
            let dots: Vec<Dot> = (dots.into_iter())
                .map(|(number, counter)| roster.replica(number).map(|replica| Dot::new(replica, counter)))
                .collect::<Option<_>>()?;
            (dots.is_sorted_by(|a, b| a < b) && dots.iter().all(|dot| dot.counter > 0)).then_some(dots)
        };
        let unpack = |(slot, observed, add): (PackedSlot, _, Option<Content>)| {
            let edit = Edit { slot: slot.unpack(roster)?, observed: dots(observed)?, add };
            let says_something = edit.add.is_some() || !edit.observed.is_empty();
            (says_something && edit.add.as_ref().is_none_or(|content| edit.slot.fits(content))).then_some(edit)
        };
        let edits: Vec<Edit> =
            self.edits.into_iter().map(unpack).collect::<Option<_>>().ok_or_else(|| malformed.clone())?;
        let whole = match self.whole {
            None => None,
            Some(whole) => Some(dots(whole).ok_or_else(|| malformed.clone())?),
        };
        let ordered = edits.is_sorted_by(|a, b| a.slot < b.slot);
        let redundant = whole.is_some() && edits.iter().any(|edit| !edit.observed.is_empty() || edit.add.is_none());
        let empty = edits.is_empty() && whole.as_ref().is_some_and(Vec::is_empty);
        if !ordered || redundant || empty {
            return Err(malformed);
        }
        Ok(Mutation { collection, key, whole, edits })
    }
}

/// An object's state as it is stored: dots once, entries pointing at them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PackedObject {
    dots: Vec<(u32, u64, u64)>,
    entries: Vec<(PackedSlot, u32, Content)>,
}

impl PackedObject {
    pub(crate) fn pack(object: &Object, roster: &mut Roster) -> Self {
        let distinct: BTreeSet<(Dot, u64)> = object.entries().map(|(_, dot, entry)| (dot, entry.depth)).collect();
        let dots: Vec<(Dot, u64)> = distinct.into_iter().collect();
        let entries = object.entries().map(|(slot, dot, entry)| {
            let at = dots.binary_search(&(dot, entry.depth)).unwrap_or_default();
            (PackedSlot::pack(slot, roster), u32::try_from(at).unwrap_or(u32::MAX), entry.content.clone())
        });
        let entries: Vec<_> = entries.collect();
        let dots = dots.iter().map(|(dot, depth)| (roster.number(dot.replica), dot.counter, *depth)).collect();
        Self { dots, entries }
    }

    pub(crate) fn unpack(self, roster: &Roster) -> Result<Object, Malformed> {
        let mut object = Object::new();
        for (slot, at, content) in self.entries {
            let malformed = Malformed { what: "object" };
            let unpacked = || {
                let (number, counter, depth) = *self.dots.get(usize::try_from(at).ok()?)?;
                let (slot, replica) = (slot.unpack(roster)?, roster.replica(number)?);
                let possible = counter > 0 && depth > 0 && slot.fits(&content);
                possible.then(|| ((slot, Dot::new(replica, counter)), Entry { depth, content }))
            };
            let (name, entry) = unpacked().filter(|(name, _)| object.last_name() < Some(name)).ok_or(malformed)?;
            object.insert(name.0, name.1, entry);
        }
        Ok(object)
    }
}
