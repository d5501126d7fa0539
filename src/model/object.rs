//! The state of one object, and the one join that everything which happens to it goes through.
//!
//! An object is a causal dot store: each entry lies in a [`Slot`] and is named by the dot of the event that added it.
//! **A dot that is covered by the knowledge and absent from the state is deleted**: there are no tombstones.
//!
//! **Invariant** (the equation that the simulator checks): the entries of an object are exactly those added by known
//! events and observed by none of them. Join is commutative, associative and idempotent.
//!
//! Sources: Almeida, Shoker, Baquero, *Delta State Replicated Data Types* (JPDC 2018), §7 for dot stores;
//! Gonçalves et al., *DottedDB* (SRDS 2017), §4 for deletion without tombstones.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::mem::discriminant;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::{Path, Value};
use crate::causal::{Dot, ReplicaId, VersionVector};

/// Where in an object an entry lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Slot {
    /// The life marker. An object is visible while it has one.
    Life,
    /// A field that holds one value, or several that were written concurrently.
    Register(Path),
    /// The total that `replica` counted in a counter since its event `run`. The entry with the greatest
    /// [`Content::Total::at`] counts: a put that keeps the counter repeats the totals of all replicas.
    Counter {
        /// The field.
        path: Path,
        /// Who counted.
        replica: ReplicaId,
        /// The event of `replica` that began to count.
        run: u64,
    },
    /// How much of that total was taken away by a put or unset that had seen it.
    Base {
        /// The field.
        path: Path,
        /// Who had counted.
        replica: ReplicaId,
        /// The event of `replica` that had begun to count.
        run: u64,
    },
    /// Says "there is a set here", for sets whose elements were all removed.
    Set(Path),
    /// One element of a set.
    Element {
        /// The field.
        path: Path,
        /// The element.
        value: Value,
    },
}

impl Slot {
    /// The field that the slot belongs to; none for the life marker.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Life => None,
            Self::Register(path)
            | Self::Counter { path, .. }
            | Self::Base { path, .. }
            | Self::Set(path)
            | Self::Element { path, .. } => Some(path),
        }
    }

    /// Whether an entry in this slot can hold `content`.
    pub(crate) fn fits(&self, content: &Content) -> bool {
        match self {
            // Maps are no elements: nobody could remove one again.
            Self::Element { value, .. } => *value != Value::EmptyMap && matches!(content, Content::Mark),
            Self::Life | Self::Set(_) => matches!(content, Content::Mark),
            Self::Register(_) => matches!(content, Content::Value(_)),
            // A run cannot have counted before it began.
            Self::Counter { run, .. } | Self::Base { run, .. } => {
                matches!(content, Content::Total { at, .. } if (1..=*at).contains(run))
            }
        }
    }

    /// Whether users see what lies here. How far a counter was reset is not for them.
    pub(super) fn shows(&self) -> bool {
        !matches!(self, Self::Life | Self::Base { .. })
    }

    /// The least slots of the field `path`, one of each kind, those that show something first.
    fn least_of(path: &Path) -> [Self; 5] {
        let (path, replica, run) = (|| path.clone(), ReplicaId::from_bytes([0; 16]), 0);
        [
            Self::Register(path()),
            Self::Counter { path: path(), replica, run },
            Self::Set(path()),
            Self::Element { path: path(), value: Value::Null },
            Self::Base { path: path(), replica, run },
        ]
    }
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Content {
    /// That it is there is all it says.
    Mark,
    /// A value.
    Value(Value),
    /// A counter's total as its replica's event `at` left it. Totals go up and down; `at` says which one is later.
    Total {
        /// The event of the counting replica.
        at: u64,
        /// The sum since the run began.
        total: i64,
    },
}

/// An entry: what it holds, and the causal depth of the event that added it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The depth of its event, the first thing that decides between concurrent values.
    pub depth: u64,
    /// What it holds.
    pub content: Content,
}

/// Who wins among concurrent values: the greatest depth, then replica, then counter. The same on every node, and
/// never a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Precedence {
    depth: u64,
    dot: Dot,
}

/// What somebody had seen when they made a state: of a slot, exactly the dots that `has` says yes to.
pub trait Seen {
    /// Whether an entry of `slot` added by `dot` had been seen, be it still there or not.
    fn has(&self, slot: &Slot, dot: Dot) -> bool;
}

impl Seen for VersionVector {
    fn has(&self, _: &Slot, dot: Dot) -> bool {
        self.contains(dot)
    }
}

/// The state of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    entries: BTreeMap<(Slot, Dot), Entry>,
}

impl Object {
    /// An object that nobody ever wrote, or that was deleted whole.
    pub const fn new() -> Self {
        Self { entries: BTreeMap::new() }
    }

    /// The join: takes in `theirs`, made by somebody who had seen `theirs_seen`, where `mine_seen` is what this
    /// state stands for. Kept is what both have, and what either has and the other had not yet seen.
    pub fn join(&mut self, mine_seen: &impl Seen, theirs: &Self, theirs_seen: &impl Seen) {
        let is_kept = |(slot, dot): &Name| !theirs_seen.has(slot, *dot) || planted!("delete-removes-nothing");
        self.entries.retain(|name, _| theirs.entries.contains_key(name) || is_kept(name));
        for (name, entry) in &theirs.entries {
            if !mine_seen.has(&name.0, name.1) {
                self.entries.entry(name.clone()).or_insert_with(|| entry.clone());
            }
        }
    }

    /// All entries, sorted by slot and dot.
    pub fn entries(&self) -> impl Iterator<Item = (&Slot, Dot, &Entry)> + '_ {
        self.entries.iter().map(|((slot, dot), entry)| (slot, *dot, entry))
    }

    /// The entry of `slot` that `dot` added.
    pub fn entry(&self, slot: &Slot, dot: Dot) -> Option<&Entry> {
        // A borrowed lookup by two parts would need an owned slot; objects are small and this is not a hot path.
        self.entries.get(&(slot.clone(), dot))
    }

    /// Whether nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether users see it: its life marker is there.
    pub fn is_visible(&self) -> bool {
        self.entries.keys().next().is_some_and(|(slot, _)| *slot == Slot::Life)
    }

    /// Whether any field holds several values.
    pub fn is_conflicted(&self) -> bool {
        // What one event wrote is never in conflict with itself, and most objects are that.
        let mut dots = self.entries.keys().map(|(_, dot)| dot);
        let first = dots.next();
        dots.any(|dot| Some(dot) != first) && !self.conflicts().is_empty() && !planted!("conflict-unlisted")
    }

    /// Whether it is what is left of edits that lost to a delete.
    pub fn is_lost(&self) -> bool {
        !self.is_visible() && self.entries.keys().any(|(slot, _)| slot.shows()) && !planted!("lost-edit-unlisted")
    }

    /// The fields as users see them, each with its winner; none if the object is not visible.
    pub fn shown(&self) -> Option<Map<String, Json>> {
        self.is_visible().then(|| self.remains())
    }

    /// The fields, visible or not: what a lost edit would restore.
    pub fn remains(&self) -> Map<String, Json> {
        self.tree().members()
    }

    /// The fields that hold several values, in path order.
    pub fn conflicts(&self) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        if self.is_visible() {
            self.tree().collect_conflicts(&mut Vec::new(), &mut conflicts);
        }
        conflicts
    }

    pub(super) fn insert(&mut self, slot: Slot, dot: Dot, entry: Entry) {
        self.entries.insert((slot, dot), entry);
    }

    pub(super) fn named_entries(&self) -> impl Iterator<Item = (&Name, &Entry)> + '_ {
        self.entries.iter()
    }

    pub(super) fn last_name(&self) -> Option<&Name> {
        self.entries.last_key_value().map(|(name, _)| name)
    }

    pub(super) fn entry_named(&self, name: &Name) -> Option<&Entry> {
        self.entries.get(name)
    }

    pub(super) fn remove(&mut self, name: &Name) {
        self.entries.remove(name);
    }

    /// The names of the entries that this object has and `other` has not.
    pub(super) fn without<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Name> + 'a {
        self.entries.keys().filter(|name| !other.entries.contains_key(name))
    }

    /// The entries in `slot`.
    pub(super) fn of_slot(&self, slot: &Slot) -> impl Iterator<Item = (&Name, &Entry)> + '_ {
        self.entries.range((slot.clone(), DOT_MIN)..=(slot.clone(), DOT_MAX))
    }

    /// The entries of the field `path` itself. It and [`Object::within`] look only at what they return: an object may
    /// have ten thousand fields, and each is written one by one.
    pub(super) fn exactly<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = (&'a Name, &'a Entry)> + 'a {
        Slot::least_of(path)
            .into_iter()
            .flat_map(|least| self.following(least).take_while(|((slot, _), _)| slot.path() == Some(path)))
    }

    /// The entries of the field `path` and of all fields in it.
    pub(super) fn within<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = (&'a Name, &'a Entry)> + 'a {
        let is_within = |slot: &Slot| slot.path().is_some_and(|other| other.is_within(path.names()));
        Slot::least_of(path)
            .into_iter()
            .flat_map(move |least| self.following(least).take_while(move |((slot, _), _)| is_within(slot)))
    }

    /// The entries from `least` on that lie in slots of the same kind.
    fn following(&self, least: Slot) -> impl Iterator<Item = (&Name, &Entry)> + '_ {
        let kind = discriminant(&least);
        self.entries.range((least, DOT_MIN)..).take_while(move |((slot, _), _)| discriminant(slot) == kind)
    }

    /// Whether the field `path` shows anything.
    pub(super) fn shows(&self, path: &Path) -> bool {
        self.within(path).next().is_some_and(|((slot, _), _)| slot.shows())
    }

    /// Which kind of thing the field `path` shows.
    pub(super) fn kind(&self, path: &Path) -> Option<FieldKind> {
        let [register, counter, set, element, _] = Slot::least_of(path);
        let is_mark = |entry: &Entry| entry.content == Content::Value(Value::EmptyMap);
        let begins = |least: Slot| self.following(least).next().is_some_and(|((slot, _), _)| slot.path() == Some(path));
        let is_map = self.has_members(path) || self.of_slot(&register).any(|(_, entry)| is_mark(entry));
        let present = [
            (FieldKind::Register, self.of_slot(&register).any(|(_, entry)| !is_mark(entry))),
            (FieldKind::Counter, begins(counter)),
            (FieldKind::Set, begins(set) || begins(element)),
            (FieldKind::Map, is_map),
        ];
        let mut present = present.into_iter().filter_map(|(kind, is_present)| is_present.then_some(kind));
        match (present.next(), present.next()) {
            // Only where kinds stand against one another must the field be read, whose members may be many.
            (Some(_), Some(_)) => self.field(path).kind(),
            (only, _) => only,
        }
    }

    /// Whether the field `path` is a map that shows a member.
    fn has_members(&self, path: &Path) -> bool {
        let is_within = |slot: &Slot| slot.path().is_some_and(|other| other.is_within(path.names()));
        // The empty name is the first of all names.
        Path::member(Some(path), "").is_ok_and(|first| {
            let mut members = Slot::least_of(&first).into_iter().filter(Slot::shows);
            members.any(|least| self.following(least).next().is_some_and(|((slot, _), _)| is_within(slot)))
        })
    }

    /// All that is in the field `path`.
    pub(super) fn field<'a>(&'a self, path: &'a Path) -> Field<'a> {
        arrange(self.within(path).map(|((slot, dot), entry)| (slot, *dot, entry)), path.names().len())
    }

    /// The entries arranged by field.
    pub(super) fn tree(&self) -> Field<'_> {
        arrange(self.entries(), 0)
    }
}

/// What an entry is called within its object.
pub(super) type Name = (Slot, Dot);

const DOT_MIN: Dot = Dot::new(ReplicaId::from_bytes([0; 16]), 0);
const DOT_MAX: Dot = Dot::new(ReplicaId::from_bytes([u8::MAX; 16]), u64::MAX);

/// Arranges entries by field, below the field at `depth` that they all lie in.
fn arrange<'a>(entries: impl Iterator<Item = (&'a Slot, Dot, &'a Entry)>, depth: usize) -> Field<'a> {
    let mut root = Field::default();
    for (slot, dot, entry) in entries {
        let Some(path) = slot.path() else { continue };
        let precedence = Precedence { depth: entry.depth, dot };
        let shown = slot.shows().then_some(precedence);
        let mut field = &mut root;
        for name in &path.names()[depth..] {
            field.newest_member = shown.max(field.newest_member);
            field = field.members.entry(name).or_default();
        }
        match (slot, &entry.content) {
            (Slot::Register(_), Content::Value(Value::EmptyMap)) => field.map_mark = shown.max(field.map_mark),
            (Slot::Register(_), Content::Value(value)) => field.registers.push((precedence, value)),
            (Slot::Counter { replica, run, .. }, &Content::Total { at, total }) => {
                field.counter.entry((*replica, *run)).or_default().count(at, total);
                field.counted = shown.max(field.counted);
            }
            (Slot::Base { replica, run, .. }, &Content::Total { at, total }) => {
                field.counter.entry((*replica, *run)).or_default().take_away(at, total);
            }
            (Slot::Set(_), _) => field.set_mark = shown.max(field.set_mark),
            (Slot::Element { value, .. }, _) => {
                let element = field.elements.entry(value).or_insert(precedence);
                *element = precedence.max(*element);
            }
            // `Slot::fits` holds for every entry: drafts make no others, and decoding refuses them.
            _ => {}
        }
    }
    root
}

/// What every replica counted in every run of the counters among `entries`.
pub(super) fn tallies<'a>(
    entries: impl Iterator<Item = (&'a Name, &'a Entry)>,
) -> BTreeMap<(&'a Path, ReplicaId, u64), Tally> {
    let mut tallies: BTreeMap<_, Tally> = BTreeMap::new();
    for ((slot, _), entry) in entries {
        match (slot, &entry.content) {
            (Slot::Counter { path, replica, run }, &Content::Total { at, total }) => {
                tallies.entry((path, *replica, *run)).or_default().count(at, total);
            }
            (Slot::Base { path, replica, run }, &Content::Total { at, total }) => {
                tallies.entry((path, *replica, *run)).or_default().take_away(at, total);
            }
            _ => {}
        }
    }
    tallies
}

/// A field that holds several values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The field.
    pub path: Path,
    /// Its different values, the winner first.
    pub values: Vec<Json>,
}

/// What one replica counted in one run.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// (at, total), the latest.
    pub(super) entry: Option<(u64, i64)>,
    /// (at, total) that a reset took away, the latest.
    pub(super) base: Option<(u64, i64)>,
}

impl Tally {
    fn count(&mut self, at: u64, total: i64) {
        let held = self.entry.filter(|_| !planted!("counter-takes-any"));
        self.entry = held.max(Some((at, total)));
    }

    fn take_away(&mut self, at: u64, total: i64) {
        self.base = self.base.max(Some((at, total)));
    }

    fn value(&self) -> i128 {
        match (self.entry, self.base) {
            (None, _) => 0,
            // The reset had seen more than this entry, a total that an older put repeats.
            (Some((at, _)), Some((seen, _))) if seen >= at => 0,
            (Some((_, total)), _) if planted!("reset-forgotten") => total.into(),
            (Some((_, total)), base) => i128::from(total) - base.map_or(0, |(_, base)| i128::from(base)),
        }
    }

    /// What a reset that sees this run must take away.
    pub(super) fn reset(&self) -> Option<(u64, i64)> {
        self.entry.max(self.base)
    }
}

/// Which kind of thing a field shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldKind {
    /// A value.
    Register,
    /// A counter.
    Counter,
    /// A set.
    Set,
    /// A map of further fields.
    Map,
}

/// One field while it is read: all that concurrent writers left in it.
#[derive(Debug, Default)]
pub(super) struct Field<'a> {
    registers: Vec<(Precedence, &'a Value)>,
    pub(super) counter: BTreeMap<(ReplicaId, u64), Tally>,
    counted: Option<Precedence>,
    set_mark: Option<Precedence>,
    elements: BTreeMap<&'a Value, Precedence>,
    map_mark: Option<Precedence>,
    pub(super) members: BTreeMap<&'a str, Field<'a>>,
    /// The greatest precedence of anything shown by a member, noted here so that no reader walks the members for it.
    newest_member: Option<Precedence>,
}

/// One of the things that a field could show.
#[derive(Clone, Copy, Debug)]
enum Contender<'a> {
    Register(&'a Value),
    Counter,
    Set,
    Map,
}

impl Contender<'_> {
    fn kind(self) -> FieldKind {
        match self {
            Self::Register(_) => FieldKind::Register,
            Self::Counter => FieldKind::Counter,
            Self::Set => FieldKind::Set,
            Self::Map => FieldKind::Map,
        }
    }
}

impl<'a> Field<'a> {
    fn counter_value(&self) -> Json {
        let sum = self.counter_sum();
        // Each increment was checked against i64 where it was made; only concurrent ones can exceed it together.
        Json::from(i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX }))
    }

    /// What a counter comes to.
    pub(super) fn counter_sum(&self) -> i128 {
        self.counter.values().map(Tally::value).sum()
    }

    fn set_value(&self) -> Json {
        let mut elements: Vec<_> = self.elements.keys().map(|value| (crate::codec::encode(value), value)).collect();
        elements.sort();
        elements.into_iter().map(|(_, value)| value.to_json()).collect()
    }

    fn members(&self) -> Map<String, Json> {
        let shown = |(name, field): (&&str, &Field<'_>)| Some(((*name).to_owned(), field.winner()?.1));
        self.members.iter().filter_map(shown).collect()
    }

    /// All that the field could show, in no order.
    fn contenders(&self) -> impl Iterator<Item = (Precedence, Contender<'a>)> + '_ {
        let registers = self.registers.iter().map(|(precedence, value)| (*precedence, Contender::Register(value)));
        let counter = self.counted.map(|precedence| (precedence, Contender::Counter));
        let set = self.elements.values().copied().max().max(self.set_mark);
        let set = set.map(|precedence| (precedence, Contender::Set));
        let map = self.newest_member.max(self.map_mark).map(|precedence| (precedence, Contender::Map));
        // In reverse, since of equals the last one is the greatest; none are equal in what honest nodes write.
        map.into_iter().chain(set).chain(counter).chain(registers)
    }

    fn first(&self) -> Option<Contender<'a>> {
        self.contenders().max_by_key(|(precedence, _)| *precedence).map(|(_, contender)| contender)
    }

    fn json(&self, contender: Contender<'_>) -> Json {
        match contender {
            Contender::Register(value) => value.to_json(),
            Contender::Counter => self.counter_value(),
            Contender::Set => self.set_value(),
            Contender::Map => Json::Object(self.members()),
        }
    }

    /// The kind of what the field shows.
    pub(super) fn kind(&self) -> Option<FieldKind> {
        self.first().map(Contender::kind)
    }

    /// What the field shows, and its kind.
    pub(super) fn winner(&self) -> Option<(FieldKind, Json)> {
        self.first().map(|first| (first.kind(), self.json(first)))
    }

    /// All that the field holds, the winner first.
    pub(super) fn alternatives(&self) -> Vec<(FieldKind, Json)> {
        let mut all: Vec<_> = self.contenders().collect();
        all.reverse();
        all.sort_by_key(|(precedence, _)| Reverse(*precedence));
        all.into_iter().map(|(_, contender)| (contender.kind(), self.json(contender))).collect()
    }

    fn collect_conflicts(&self, names: &mut Vec<String>, conflicts: &mut Vec<Conflict>) {
        // The root is the object itself: it has members only.
        if let Ok(path) = Path::try_from(names.clone())
            && self.contenders().nth(1).is_some()
        {
            let mut told = BTreeSet::new();
            let mut values: Vec<Json> = self.alternatives().into_iter().map(|(_, json)| json).collect();
            values.retain(|json| told.insert(json.to_string()) && !(planted!("sibling-dropped") && told.len() > 2));
            if values.len() > 1 {
                conflicts.push(Conflict { path, values });
            }
        }
        for (name, member) in &self.members {
            names.push((*name).to_owned());
            member.collect_conflicts(names, conflicts);
            names.pop();
        }
    }
}
