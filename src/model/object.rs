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

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::{Path, Value};
use crate::causal::{Dot, ReplicaId, VersionVector};

/// Where in an object an entry lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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
            Self::Life | Self::Set(_) | Self::Element { .. } => matches!(content, Content::Mark),
            Self::Register(_) => matches!(content, Content::Value(_)),
            Self::Counter { .. } | Self::Base { .. } => matches!(content, Content::Total { .. }),
        }
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
        self.entries.retain(|name, _| theirs.entries.contains_key(name) || !theirs_seen.has(&name.0, name.1));
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
        dots.any(|dot| Some(dot) != first) && !self.conflicts().is_empty()
    }

    /// Whether it is what is left of edits that lost to a delete.
    pub fn is_lost(&self) -> bool {
        !self.is_visible() && self.tree().has_content()
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

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Slot, Dot) -> bool) {
        self.entries.retain(|(slot, dot), _| keep(slot, *dot));
    }

    /// The entries arranged by field.
    pub(super) fn tree(&self) -> Field<'_> {
        let mut root = Field::default();
        for (slot, dot, entry) in self.entries() {
            let Some(path) = slot.path() else { continue };
            let precedence = Precedence { depth: entry.depth, dot };
            let mut field = &mut root;
            for name in path.names() {
                field = field.members.entry(name).or_default();
            }
            match (slot, &entry.content) {
                (Slot::Register(_), Content::Value(Value::EmptyMap)) => field.map_mark.push(precedence),
                (Slot::Register(_), Content::Value(value)) => field.registers.push((precedence, value)),
                (Slot::Counter { replica, run, .. }, &Content::Total { at, total }) => {
                    let tally = field.counter.entry((*replica, *run)).or_default();
                    tally.entry = tally.entry.max(Some((at, total)));
                    tally.precedence = tally.precedence.max(Some(precedence));
                }
                (Slot::Base { replica, run, .. }, &Content::Total { at, total }) => {
                    let tally = field.counter.entry((*replica, *run)).or_default();
                    tally.base = tally.base.max(Some((at, total)));
                }
                (Slot::Set(_), _) => field.set_mark = field.set_mark.max(Some(precedence)),
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
    precedence: Option<Precedence>,
}

impl Tally {
    fn value(&self) -> i128 {
        match (self.entry, self.base) {
            (None, _) => 0,
            // The reset had seen more than this entry, a total that an older put repeats.
            (Some((at, _)), Some((seen, _))) if seen >= at => 0,
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
    set_mark: Option<Precedence>,
    elements: BTreeMap<&'a Value, Precedence>,
    map_mark: Vec<Precedence>,
    pub(super) members: BTreeMap<&'a str, Field<'a>>,
}

impl<'a> Field<'a> {
    /// The field at `names` below this one.
    pub(super) fn at(&self, names: &[String]) -> Option<&Field<'a>> {
        names.iter().try_fold(self, |field, name| field.members.get(name.as_str()))
    }

    fn has_content(&self) -> bool {
        self.precedence().is_some()
    }

    /// The greatest precedence of anything visible in here.
    fn precedence(&self) -> Option<Precedence> {
        let own = [self.counter_precedence(), self.set_precedence(), self.map_precedence()].into_iter().flatten().max();
        own.max(self.registers.iter().map(|(precedence, _)| *precedence).max())
    }

    fn counter_precedence(&self) -> Option<Precedence> {
        self.counter.values().filter_map(|tally| tally.precedence).max()
    }

    fn set_precedence(&self) -> Option<Precedence> {
        self.elements.values().copied().max().max(self.set_mark)
    }

    fn map_precedence(&self) -> Option<Precedence> {
        self.members.values().filter_map(Field::precedence).max().max(self.map_mark.iter().copied().max())
    }

    fn counter_value(&self) -> Json {
        let sum: i128 = self.counter.values().map(Tally::value).sum();
        // Each increment was checked against i64 where it was made; only concurrent ones can exceed it together.
        Json::from(i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX }))
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

    /// What the field shows, and its kind.
    pub(super) fn winner(&self) -> Option<(FieldKind, Json)> {
        self.alternatives().into_iter().next().map(|(kind, _, json)| (kind, json))
    }

    /// All that the field holds, the winner first.
    pub(super) fn alternatives(&self) -> Vec<(FieldKind, Precedence, Json)> {
        let registers = self.registers.iter().map(|(p, value)| (FieldKind::Register, *p, value.to_json()));
        let counter = self.counter_precedence().map(|p| (FieldKind::Counter, p, self.counter_value()));
        let set = self.set_precedence().map(|p| (FieldKind::Set, p, self.set_value()));
        let map = self.map_precedence().map(|p| (FieldKind::Map, p, Json::Object(self.members())));
        let mut all: Vec<_> = registers.chain(counter).chain(set).chain(map).collect();
        all.sort_by_key(|(_, precedence, _)| std::cmp::Reverse(*precedence));
        all
    }

    fn collect_conflicts(&self, names: &mut Vec<String>, conflicts: &mut Vec<Conflict>) {
        let mut values: Vec<Json> = Vec::new();
        // The root is the object itself: it has members only.
        if let Ok(path) = Path::try_from(names.clone()) {
            for (_, _, json) in self.alternatives() {
                if !values.contains(&json) {
                    values.push(json);
                }
            }
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
