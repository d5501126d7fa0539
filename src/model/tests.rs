//! A small world for the tests of the model: devices that write, and hear of one another's events in causal order.
//!
//! It does by hand, for a few objects in memory, what the ledger does with a store: so it says what an author owes
//! (dot, depth, dependencies, one mutation per object) and what a hearer must check.

mod contexts;
mod hostile;
mod large;
mod properties;
mod stories;

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::*;
use crate::causal::{Admission, Dot, EventHash, Known, ReplicaId, VersionVector};

/// One event as it travels, and what its author knew when it was written.
#[derive(Clone, Debug)]
struct Told {
    event: Event,
    packed: PackedEvent,
    past: VersionVector,
}

/// A device with its objects.
#[derive(Clone, Debug)]
struct Device {
    author: Incarnation,
    key: DeviceKey,
    known: Known,
    objects: BTreeMap<ObjectKey, Object>,
    log: Vec<Told>,
}

type Written = Result<Option<Told>, InvalidEdit>;

impl Device {
    fn new(number: u8) -> Self {
        let key = DeviceKey::from_secret(&[number; 32]);
        let author = Incarnation { device: key.device(), nonce: u64::from(number) };
        Self { author, key, known: Known::new(), objects: BTreeMap::new(), log: Vec::new() }
    }

    fn replica(&self) -> ReplicaId {
        self.author.replica()
    }

    fn object(&self, key: &str) -> Object {
        self.objects.get(&key.parse::<ObjectKey>().expect("a key")).cloned().unwrap_or_default()
    }

    /// A draft of the object `key`, as part of the event that this device would write next.
    fn draft(&self, key: &str) -> Draft {
        let counter = self.known.head(self.replica()).map_or(0, |head| head.counter) + 1;
        let dot = Dot::new(self.replica(), counter);
        Draft::new(collection(), key.parse().expect("a key"), self.object(key), dot, self.known.depth() + 1)
    }

    /// Writes what these drafts came to as one event; none if they came to nothing.
    fn commit(&mut self, drafts: Vec<Draft>) -> Option<Told> {
        let mutations: Vec<Mutation> = drafts.into_iter().filter_map(Draft::finish).collect();
        if mutations.is_empty() {
            return None;
        }
        let (replica, past) = (self.replica(), self.known.vector());
        let head = self.known.head(replica);
        let dot = Dot::new(replica, head.map_or(0, |head| head.counter) + 1);
        let previous = head.map_or(EventHash::start(replica), |head| head.hash);
        let (event, packed) = Event::write(dot, previous, self.known.depth() + 1, &self.known, mutations, &[]);
        let told = Told { event, packed, past };
        self.hear(&told);
        Some(told)
    }

    /// Writes to the object `key` in an event of its own.
    fn try_write(&mut self, key: &str, write: impl FnOnce(&mut Draft) -> Result<(), InvalidEdit>) -> Written {
        let mut draft = self.draft(key);
        write(&mut draft)?;
        Ok(self.commit(vec![draft]))
    }

    /// Writes to the only object of most stories.
    fn write(&mut self, write: impl FnOnce(&mut Draft) -> Result<(), InvalidEdit>) -> Option<Told> {
        self.try_write("o", write).expect("a write that is in order")
    }

    /// Applies an event, unless it is here already.
    fn hear(&mut self, told: &Told) {
        let proposal = told.event.proposal();
        if self.known.admit(&proposal) != Ok(Admission::Next) {
            assert_eq!(self.known.admit(&proposal), Ok(Admission::Known), "told out of causal order");
            return;
        }
        assert!(told.event.claims().all(|dot| self.known.contains(dot)), "an honest author knew what it observed");
        for mutation in &told.event.mutations {
            let object = self.objects.entry(mutation.key.clone()).or_default();
            mutation.apply_to(object, told.event.dot, told.event.depth);
        }
        self.known.advance(&proposal);
        self.log.push(told.clone());
    }

    /// Hears at most `count` events that `other` knows and this device does not, in the order in which `other` did.
    fn hear_from(&mut self, other: &Self, count: usize) {
        let missing: Vec<Told> =
            other.log.iter().filter(|told| !self.known.contains(told.event.dot)).take(count).cloned().collect();
        missing.iter().for_each(|told| self.hear(told));
    }

    fn shown(&self) -> Option<Json> {
        self.object("o").shown().map(Json::Object)
    }

    fn conflicts(&self) -> Vec<(String, Vec<Json>)> {
        let told = |conflict: Conflict| (conflict.path.to_string(), conflict.values);
        self.object("o").conflicts().into_iter().map(told).collect()
    }

    fn put(&mut self, json: Json) -> Option<Told> {
        self.write(|draft| draft.put(&fields(json)))
    }

    fn patch(&mut self, json: Json) -> Option<Told> {
        self.write(|draft| draft.patch(&fields(json)))
    }

    fn unset(&mut self, field: &str) -> Option<Told> {
        self.write(|draft| draft.unset(&path(field)))
    }

    fn increment(&mut self, field: &str, by: i64) -> Option<Told> {
        self.write(|draft| draft.increment(&path(field), by))
    }

    fn add(&mut self, field: &str, element: Json) -> Option<Told> {
        self.write(|draft| draft.add(&path(field), &element))
    }

    fn remove(&mut self, field: &str, element: Json) -> Option<Told> {
        self.write(|draft| draft.remove(&path(field), &element))
    }

    fn delete(&mut self) -> Option<Told> {
        self.write(Draft::delete)
    }

    fn resolve(&mut self, field: &str, json: Json) -> Option<Told> {
        self.write(|draft| draft.resolve(&path(field), &json))
    }
}

/// Both tell the other everything, and then hold the same.
fn meet(a: &mut Device, b: &mut Device) {
    a.hear_from(b, usize::MAX);
    b.hear_from(a, usize::MAX);
    assert_eq!(a.objects, b.objects, "equal knowledge, equal state");
}

/// Two devices that both know the object `json`.
fn two_with(json: Json) -> (Device, Device) {
    let (mut a, mut b) = (Device::new(1), Device::new(2));
    a.put(json);
    meet(&mut a, &mut b);
    (a, b)
}

fn collection() -> CollectionName {
    CollectionName::user("things").expect("a name")
}

fn path(field: &str) -> Path {
    field.parse().expect("a field")
}

fn fields(json: Json) -> Map<String, Json> {
    match json {
        Json::Object(fields) => fields,
        other => panic!("{other} has no fields"),
    }
}
