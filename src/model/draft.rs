//! One object while a transaction writes to it: what users ask for, turned into the smallest mutation.
//!
//! Every call works on the state as it will be; [`Draft::finish`] compares that with the state as it was. So several
//! writes to one field become one, a write that is taken back leaves no trace, and what a mutation observes is exact.

//!
//! A call costs what it touches, not what the object holds (the first one also measures the object): ten thousand
//! fields are written one by one, and none of them may read all the others.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json};

use super::event::EVENT_BYTES_MAX;
use super::mutation::{Edit, Mutation};
use super::object::{Content, Entry, Field, FieldKind, Name, Object, Slot, Tally, tallies};
use super::value::{InvalidValue, check_json, is_map};
use super::{Context, InvalidName, ObjectKey, Path, Value};
use crate::causal::{Dot, ReplicaId};
use crate::model::CollectionName;

/// The longest object as JSON: 1 MiB.
pub const OBJECT_BYTES_MAX: usize = 1 << 20;

/// Why a write was refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidEdit {
    /// There is no such object.
    #[error("there is no object {key} in {collection}")]
    NotFound {
        /// Its collection.
        collection: String,
        /// Its key.
        key: String,
    },
    /// There is no such lost edit.
    #[error("no edit of {key} in {collection} was lost")]
    NotLost {
        /// Its collection.
        collection: String,
        /// Its key.
        key: String,
    },
    /// There is no such field.
    #[error("there is no field {field}")]
    NoSuchField {
        /// The field.
        field: String,
    },
    /// The field holds something that is written in another way.
    #[error("the field {field} is {is}: use {command}")]
    WrongKind {
        /// The field.
        field: String,
        /// What it is.
        is: &'static str,
        /// What to do instead.
        command: &'static str,
    },
    /// A counter would leave the range of 64-bit integers.
    #[error("the counter {field} would exceed a 64-bit integer")]
    Overflow {
        /// The field.
        field: String,
    },
    /// An element of a set cannot be a map.
    #[error("an element of a set cannot be a map")]
    MapInSet,
    /// Objects are limited to [`OBJECT_BYTES_MAX`].
    #[error("an object has at most {OBJECT_BYTES_MAX} bytes as JSON, not {0}")]
    TooLarge(usize),
    /// A field is called by its name and those of all maps around it; they are limited together, as events are.
    #[error("the fields have {0} bytes of names, each with the names of the maps around it; at most {EVENT_BYTES_MAX}")]
    NamesTooLong(usize),
    /// Not a value.
    #[error(transparent)]
    Value(#[from] InvalidValue),
    /// Not a name.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

/// An object that is being written to.
#[derive(Debug)]
pub struct Draft {
    collection: CollectionName,
    key: ObjectKey,
    before: Object,
    now: Object,
    /// Whether all of `before` is observed: put, delete, discard.
    whole: bool,
    /// What there is that the writer had not seen, if they said what they had.
    beside: Option<Beside>,
    /// The event that the transaction will become.
    dot: Dot,
    depth: u64,
    /// At most so many bytes does the object have as JSON; none before the first write that may let it grow.
    bytes_bound: Option<usize>,
    /// Whether it is a change even if the object stays as it is.
    touched: bool,
}

/// What there is beside what a writer had seen.
#[derive(Debug)]
struct Beside {
    /// What the writer says to have seen; none if they go on from all that is there.
    context: Option<Context>,
    /// All that is there.
    all: Object,
    /// Whether somebody deleted it whom the writer had not heard of yet. What is written is beside that delete then:
    /// anything but a put becomes an edit that lost to it, and is kept as such.
    deleted: bool,
}

impl Draft {
    /// Begins to write to an object that stands at `before`, as part of the event `dot` of causal depth `depth`.
    pub fn new(collection: CollectionName, key: ObjectKey, before: Object, dot: Dot, depth: u64) -> Self {
        let (now, whole, beside, bytes_bound, touched) = (before.clone(), false, None, None, false);
        Self { collection, key, before, now, whole, beside, dot, depth, bytes_bound, touched }
    }

    /// The same for somebody who has seen `context` of it and no more: what is written replaces that and nothing else.
    /// Only operations that are blind ([`super::Operation::is_blind`]), or none that are, may follow.
    pub fn beside(
        collection: CollectionName,
        key: ObjectKey,
        before: &Object,
        context: &Context,
        is_blind: bool,
        dot: Dot,
        depth: u64,
    ) -> Self {
        // What adds to what is there goes on from all of that: a counter has one total per replica.
        let (seen, told) =
            if is_blind { (before.clone(), None) } else { (context.seen_of(before), Some(context.clone())) };
        let deleted = !context.is_empty() && !seen.is_visible();
        let beside = Beside { context: told, all: before.clone(), deleted };
        Self { beside: Some(beside), ..Self::new(collection, key, seen, dot, depth) }
    }

    /// The state as it will be.
    pub fn object(&self) -> &Object {
        &self.now
    }

    /// Replaces the whole object. Counters and sets that `fields` repeats as shown are left alone.
    pub fn put(&mut self, fields: &Map<String, Json>) -> Result<(), InvalidEdit> {
        let bytes = check_fields(fields)?;
        let mut leaves = Vec::new();
        flatten(fields, None, &mut leaves)?;
        let mut kept = self.repeated_beside(&leaves)?;
        if self.now.is_visible() {
            self.keep_counters_and_sets(&self.now.tree(), &mut Vec::new(), fields, &mut kept)?;
        }
        let mut next = Object::new();
        let entry = |content| Entry { depth: self.depth, content };
        for (slot, _, held) in self.now.entries() {
            let in_kept_set = slot.path().is_some_and(|path| kept.get(path) == Some(&FieldKind::Set));
            if in_kept_set && kind_of(slot) == Some(FieldKind::Set) {
                next.insert(slot.clone(), self.dot, entry(held.content.clone()));
            }
        }
        for ((path, replica, run), tally) in tallies(self.now.named_entries()) {
            let total = |(at, total)| entry(Content::Total { at, total });
            let keeps = kept.get(path) == Some(&FieldKind::Counter);
            let base = if keeps { tally.base } else { self.taken_away(path, replica, run, &tally) };
            if let Some(base) = base {
                next.insert(Slot::Base { path: path.clone(), replica, run }, self.dot, total(base));
            }
            if keeps && let Some(counted) = tally.entry {
                next.insert(Slot::Counter { path: path.clone(), replica, run }, self.dot, total(counted));
            }
        }
        next.insert(Slot::Life, self.dot, entry(Content::Mark));
        for (path, json) in leaves {
            let slots = match kept.get(&path) {
                None => vec![(Slot::Register(path), Content::Value(Value::from_json(json)?))],
                Some(kind) if self.is_gone_with(&next, &path) => self.made_anew(&path, *kind, json)?,
                Some(_) => Vec::new(),
            };
            slots.into_iter().for_each(|(slot, content)| next.insert(slot, self.dot, entry(content)));
        }
        self.now = next;
        self.whole = true;
        self.bytes_bound = Some(bytes);
        Ok(())
    }

    /// Writes these fields and leaves the others. A map is merged member by member, and what a field shows already,
    /// without any other value beside it, is not written again.
    pub fn patch(&mut self, fields: &Map<String, Json>) -> Result<(), InvalidEdit> {
        self.require_visible()?;
        let bytes = check_fields(fields)?;
        for (name, json) in fields {
            self.require_writable(&Path::member(None, name)?, json)?;
        }
        self.grow(bytes, |draft| {
            fields.iter().try_for_each(|(name, json)| draft.write_at(&Path::member(None, name)?, json, false))
        })
    }

    /// Makes the object show exactly `fields`, writing only what differs; creates it if it is not there.
    pub fn update(&mut self, fields: &Map<String, Json>) -> Result<(), InvalidEdit> {
        let Some(shown) = self.now.shown() else { return self.put(fields) };
        let bytes = check_fields(fields)?;
        if are_same(&shown, fields) {
            return Ok(());
        }
        let before = self.now.clone();
        let result = self.update_members(None, &shown, fields);
        match result {
            Ok(()) => self.bytes_bound = Some(bytes),
            Err(_) => self.now = before,
        }
        result
    }

    /// Removes a field and everything under it.
    pub fn unset(&mut self, path: &Path) -> Result<(), InvalidEdit> {
        self.require_visible()?;
        let parent = path.parent().filter(|parent| self.now.shows(parent));
        self.clear_within(path, |slot| slot.path() == Some(path) || !planted!("unset-leaves-members"));
        if let Some(parent) = parent
            && !self.now.shows(&parent)
        {
            self.set_register(parent, Value::EmptyMap);
        }
        Ok(())
    }

    /// Adds `by` to a counter, which begins at 0.
    pub fn increment(&mut self, path: &Path, by: i64) -> Result<(), InvalidEdit> {
        self.require_kind(path, FieldKind::Counter)?;
        self.require_room(path)?;
        if by == 0 && self.now.kind(path) == Some(FieldKind::Counter) {
            return Ok(());
        }
        let me = self.dot.replica;
        let overflow = || InvalidEdit::Overflow { field: path.to_string() };
        let field = self.now.field(path);
        // Concurrent increments may have left the range together; then only the way back is open.
        let sum = field.counter_sum();
        if i64::try_from(sum + i128::from(by)).is_err() && (sum > 0) == (by > 0) {
            return Err(overflow());
        }
        // A run goes on after a reset, from what was taken away: so a counter holds one run per replica, unless a
        // delete removed all trace of it, or its total, which resets do not lower, is used up.
        let own = field.counter.range((me, 0)..=(me, u64::MAX)).next_back().map(|(&(_, run), tally)| (run, tally));
        let continued = own.and_then(|(run, tally)| {
            let total = tally.reset().map_or(0, |(_, total)| total);
            let total = if planted!("counter-starts-over") { 0 } else { total };
            total.checked_add(by).map(|total| (run, total))
        });
        let (run, total) = match (continued, own) {
            (Some(continued), _) => continued,
            (None, Some((run, _))) if run == self.dot.counter => return Err(overflow()),
            (None, _) => (self.dot.counter, by),
        };
        self.grow(growth(path, 20), |draft| {
            draft.make_room(path);
            let slot = Slot::Counter { path: path.clone(), replica: me, run };
            draft.replace(slot, Content::Total { at: draft.dot.counter, total });
            Ok(())
        })
    }

    /// Adds an element to a set.
    pub fn add(&mut self, path: &Path, element: &Json) -> Result<(), InvalidEdit> {
        let value = element_of(element)?;
        self.require_kind(path, FieldKind::Set)?;
        self.require_room(path)?;
        self.grow(growth(path, json_bytes(element)), |draft| {
            draft.make_room(path);
            draft.mark_set(path);
            draft.replace(Slot::Element { path: path.clone(), value }, Content::Mark);
            Ok(())
        })
    }

    /// Removes an element from a set.
    pub fn remove(&mut self, path: &Path, element: &Json) -> Result<(), InvalidEdit> {
        let value = element_of(element)?;
        self.require_kind(path, FieldKind::Set)?;
        let removed = Slot::Element { path: path.clone(), value };
        if self.now.of_slot(&removed).next().is_some() {
            // The mark may have gone with a concurrent unset; without it, the last element would take the set along.
            self.mark_set(path);
            self.empty(&removed);
        }
        Ok(())
    }

    /// Decides a conflict: writes `json` over everything that the field holds now.
    pub fn resolve(&mut self, path: &Path, json: &Json) -> Result<(), InvalidEdit> {
        self.require_visible()?;
        check_json(json, path.names().len())?;
        check_names(path, json)?;
        if !self.now.shows(path) {
            return Err(InvalidEdit::NoSuchField { field: path.to_string() });
        }
        self.grow(growth(path, json_bytes(json)), |draft| {
            // Where a value is shown in place of the map that the field is in, it is decided for the map.
            let hiding: Vec<Path> =
                path.ancestors().filter(|above| draft.now.kind(above) != Some(FieldKind::Map)).collect();
            hiding.iter().for_each(|above| draft.clear_exactly(above));
            draft.write_at(path, json, true)
        })
    }

    /// Deletes the object.
    pub fn delete(&mut self) -> Result<(), InvalidEdit> {
        self.require_visible()?;
        self.now = Object::new();
        self.whole = true;
        Ok(())
    }

    /// Makes an object visible again that shows what was left of edits that lost to a delete.
    pub fn restore(&mut self) -> Result<(), InvalidEdit> {
        self.require_lost()?;
        self.replace(Slot::Life, Content::Mark);
        Ok(())
    }

    /// Gives up edits that lost to a delete.
    pub fn discard(&mut self) -> Result<(), InvalidEdit> {
        self.require_lost()?;
        self.now = Object::new();
        self.whole = true;
        Ok(())
    }

    /// Has it be a change even if the object stays as it is: what a client says of the object has changed.
    pub fn touch(&mut self) {
        self.touched = true;
    }

    /// The mutation that leads from the state before to the state now; none if they are the same, unless it was touched.
    pub fn finish(self) -> Option<Mutation> {
        let Self { collection, key, before, now, whole, dot, touched, .. } = self;
        if before == now {
            return touched.then(|| Mutation { collection, key, whole: None, edits: Vec::new() });
        }
        let mut edits: BTreeMap<&Slot, Edit> = BTreeMap::new();
        let blank = |slot: &Slot| Edit { slot: slot.clone(), observed: Vec::new(), add: None };
        for (slot, own, entry) in now.entries() {
            if own == dot {
                edits.entry(slot).or_insert_with(|| blank(slot)).add = Some(entry.content.clone());
            }
        }
        let observed = whole.then(|| {
            let is_seen = before.is_visible() || !planted!("put-leaves-lost-edits");
            let dots: BTreeSet<Dot> = before.entries().filter(|_| is_seen).map(|(_, dot, _)| dot).collect();
            dots.into_iter().collect()
        });
        if !whole {
            for (slot, old) in before.without(&now) {
                edits.entry(slot).or_insert_with(|| blank(slot)).observed.push(*old);
            }
        }
        Some(Mutation { collection, key, whole: observed, edits: edits.into_values().collect() })
    }

    /// Which of these fields repeat what the writer was shown of a counter or a set, whatever that shows now. Who writes
    /// something else over one is refused.
    fn repeated_beside(&self, leaves: &[(Path, &Json)]) -> Result<BTreeMap<Path, FieldKind>, InvalidEdit> {
        let (mut repeated, mut maps) = (BTreeMap::new(), BTreeSet::new());
        let Some(Beside { context: Some(context), all, .. }) = &self.beside else { return Ok(repeated) };
        for (path, json) in leaves {
            // A map is looked at once, however many members it has, and then so are those around it.
            let mut above = path.parent();
            while let Some(map) = above.filter(|map| !maps.contains(map)) {
                if let Some(kind) = context.kind_seen(&map, all) {
                    return Err(wrong_kind(&map, kind));
                }
                above = map.parent();
                maps.insert(map);
            }
            if let Some(kind) = context.kind_seen(path, all) {
                if context.repeated(path, json).is_none() && !self.shows_now(path, kind, json) {
                    return Err(wrong_kind(path, kind));
                }
                repeated.insert(path.clone(), kind);
            }
        }
        Ok(repeated)
    }

    /// Finds the counters and sets that a put keeps, and refuses a put that would change one.
    fn keep_counters_and_sets(
        &self,
        field: &Field<'_>,
        names: &mut Vec<String>,
        fields: &Map<String, Json>,
        kept: &mut BTreeMap<Path, FieldKind>,
    ) -> Result<(), InvalidEdit> {
        for (name, member) in &field.members {
            let Some(json) = fields.get(*name) else { continue };
            names.push((*name).to_owned());
            match (member.kind(), json) {
                (Some(FieldKind::Counter | FieldKind::Set), json) => {
                    let path = Path::try_from(names.clone())?;
                    // What was hidden by something else when the writer saw it is replaced together with that.
                    if let Some(kind) = self.kind_seen(&path).filter(|_| !kept.contains_key(&path)) {
                        if !self.shows_now(&path, kind, json) {
                            return Err(wrong_kind(&path, kind));
                        }
                        kept.insert(path, kind);
                    }
                }
                // Whoever is shown a map is shown its counters and sets; those behind another value were never seen.
                (Some(FieldKind::Map), Json::Object(fields)) => {
                    self.keep_counters_and_sets(member, names, fields, kept)?;
                }
                _ => {}
            }
            names.pop();
        }
        Ok(())
    }

    /// What the field `path` is, as far as the writer has seen it.
    fn kind_seen(&self, path: &Path) -> Option<FieldKind> {
        match &self.beside {
            Some(Beside { context: Some(context), all, .. }) => context.kind_seen(path, all),
            _ => self.now.kind(path),
        }
    }

    /// Whether the field `path` shows this now, whoever has seen it.
    fn shows_now(&self, path: &Path, kind: FieldKind, json: &Json) -> bool {
        let all = self.beside.as_ref().map_or(&self.now, |beside| &beside.all);
        all.field(path).winner().is_some_and(|(is, shown)| is == kind && same_value(kind, &shown, json))
    }

    /// Whether there is nothing in a field any more, by what others did whom the writer had not heard of, once what the
    /// writer had seen is replaced by `next`.
    fn is_gone_with(&self, next: &Object, path: &Path) -> bool {
        let Some(Beside { all, .. }) = &self.beside else { return false };
        let stays = |name: &Name| name.0.shows() && self.before.entry_named(name).is_none();
        !next.shows(path) && !all.within(path).any(|(name, _)| stays(name))
    }

    /// A counter or a set that shows this, begun anew.
    fn made_anew(&self, path: &Path, kind: FieldKind, json: &Json) -> Result<Vec<(Slot, Content)>, InvalidEdit> {
        let (replica, at) = (self.dot.replica, self.dot.counter);
        Ok(match (kind, json) {
            (FieldKind::Counter, Json::Number(number)) if let Some(total) = number.as_i64() => {
                vec![(Slot::Counter { path: path.clone(), replica, run: at }, Content::Total { at, total })]
            }
            (FieldKind::Set, Json::Array(elements)) => {
                let element = |json| Ok(Slot::Element { path: path.clone(), value: element_of(json)? });
                let elements = elements.iter().map(element).collect::<Result<Vec<_>, InvalidEdit>>()?;
                [Slot::Set(path.clone())].into_iter().chain(elements).map(|slot| (slot, Content::Mark)).collect()
            }
            (_, json) => vec![(Slot::Register(path.clone()), Content::Value(Value::from_json(json)?))],
        })
    }

    fn require_visible(&self) -> Result<(), InvalidEdit> {
        if self.now.is_visible() || self.beside.as_ref().is_some_and(|beside| beside.deleted) {
            return Ok(());
        }
        Err(InvalidEdit::NotFound { collection: self.collection.to_string(), key: self.key.to_string() })
    }

    fn require_lost(&self) -> Result<(), InvalidEdit> {
        if self.now.is_lost() {
            return Ok(());
        }
        Err(InvalidEdit::NotLost { collection: self.collection.to_string(), key: self.key.to_string() })
    }

    /// Refuses a counter's or set's own operation on a field that is something else.
    fn require_kind(&self, path: &Path, kind: FieldKind) -> Result<(), InvalidEdit> {
        self.require_visible()?;
        match self.now.kind(path) {
            Some(is) if is != kind => Err(wrong_kind(path, is)),
            _ => Ok(()),
        }
    }

    /// Refuses to write over a counter or a set.
    fn require_no_counter_or_set(&self, path: &Path) -> Result<(), InvalidEdit> {
        match self.kind_seen(path) {
            Some(is @ (FieldKind::Counter | FieldKind::Set)) => Err(wrong_kind(path, is)),
            _ => Ok(()),
        }
    }

    /// Refuses to make a map of a counter or a set that `path` would be nested in.
    fn require_room(&self, path: &Path) -> Result<(), InvalidEdit> {
        path.ancestors().try_for_each(|ancestor| self.require_no_counter_or_set(&ancestor))
    }

    /// Refuses what [`Draft::write_at`] would, before anything is written.
    fn require_writable(&self, path: &Path, json: &Json) -> Result<(), InvalidEdit> {
        if let Json::Object(members) = json
            && is_map(json)
        {
            self.require_no_counter_or_set(path)?;
            return members.iter().try_for_each(|(name, json)| {
                let member = Path::member(Some(path), name)?;
                self.require_writable(&member, json)
            });
        }
        self.repeats_counter_or_set(path, json).map(drop)
    }

    /// Whether `path` is a counter or set and `json` what it shows; anything else is refused there.
    fn repeats_counter_or_set(&self, path: &Path, json: &Json) -> Result<bool, InvalidEdit> {
        let context = self.beside.as_ref().and_then(|beside| beside.context.as_ref());
        if context.is_some_and(|context| context.repeated(path, json).is_some()) {
            return Ok(true);
        }
        if self.require_no_counter_or_set(path).is_ok() {
            // A value written over a map must not take the counters and sets in it away without a word either.
            let nested = self.now.within(path).find(|((slot, _), _)| counts(slot) && slot.path() != Some(path));
            let nested = nested.and_then(|((slot, _), _)| Some((slot.path()?, kind_of(slot)?)));
            return match nested.or_else(|| self.nested_seen(path)) {
                Some((nested, is)) => Err(wrong_kind(nested, is)),
                None => Ok(false),
            };
        }
        match self.kind_seen(path) {
            Some(is) if self.shows_now(path, is, json) => Ok(true),
            Some(is) => Err(wrong_kind(path, is)),
            None => Ok(false),
        }
    }

    /// A counter or a set in the map `path` that the writer had seen, whatever became of it since.
    fn nested_seen<'a>(&'a self, path: &'a Path) -> Option<(&'a Path, FieldKind)> {
        let Some(Beside { context: Some(context), all, .. }) = &self.beside else { return None };
        let nested = all.within(path).filter(|((slot, _), _)| counts(slot)).filter_map(|((slot, _), _)| slot.path());
        // Each once, since a set has many elements.
        let nested: BTreeSet<&Path> = nested.filter(|other| *other != path).collect();
        nested.into_iter().find_map(|other| Some((other, context.kind_seen(other, all)?)))
    }

    /// Makes every ancestor of `path` a map.
    fn make_room(&mut self, path: &Path) {
        path.ancestors().for_each(|ancestor| self.clear_exactly(&ancestor));
    }

    /// Does `write`, which adds at most `bytes` to the object as JSON and is refused before it changes anything; or
    /// refuses it if the object would become too large.
    fn grow(
        &mut self,
        bytes: usize,
        write: impl FnOnce(&mut Self) -> Result<(), InvalidEdit>,
    ) -> Result<(), InvalidEdit> {
        let bound = self.bytes_bound.unwrap_or_else(|| shown_bytes(&self.now)).saturating_add(bytes);
        if bound <= OBJECT_BYTES_MAX {
            write(self)?;
            self.bytes_bound = Some(bound);
            return Ok(());
        }
        // What is written over makes room: only the outcome tells. A copy of a large object, but only near the limit.
        let before = self.now.clone();
        let result = write(self).and_then(|()| match shown_bytes(&self.now) {
            bytes if bytes > OBJECT_BYTES_MAX => Err(InvalidEdit::TooLarge(bytes)),
            bytes => {
                self.bytes_bound = Some(bytes);
                Ok(())
            }
        });
        if result.is_err() {
            self.now = before;
        }
        result
    }

    /// Writes `json` to the field `path`. `force` writes over everything that is there.
    fn write_at(&mut self, path: &Path, json: &Json, force: bool) -> Result<(), InvalidEdit> {
        if let Json::Object(members) = json
            && is_map(json)
        {
            return self.write_map(path, members, force);
        }
        let held = self.now.field(path).alternatives();
        if let [(FieldKind::Register, shown), others @ ..] = held.as_slice()
            && is_same(shown, json)
            && (others.is_empty() || planted!("winner-not-written-again"))
        {
            return Ok(());
        }
        if force {
            // Chosen from several values, a counter or a set stays what it is.
            let counts = |kind: FieldKind| matches!(kind, FieldKind::Counter | FieldKind::Set);
            let chosen = held.iter().find(|(is, shown)| counts(*is) && same_value(*is, shown, json));
            if let Some(&(chosen, _)) = chosen {
                self.clear_within(path, |slot| slot.path() != Some(path) || kind_of(slot) != Some(chosen));
                return Ok(());
            }
        } else if self.repeats_counter_or_set(path, json)? {
            return Ok(());
        }
        let value = Value::from_json(json)?;
        self.clear_within(path, |_| true);
        self.set_register(path.clone(), value);
        Ok(())
    }

    fn write_map(&mut self, path: &Path, members: &Map<String, Json>, force: bool) -> Result<(), InvalidEdit> {
        if force {
            let is_chosen = |other: &Path| {
                other.names().get(path.names().len()).is_none_or(|name| members.contains_key(name.as_str()))
            };
            self.clear_within(path, |slot| !slot.path().is_some_and(is_chosen));
        } else {
            self.require_no_counter_or_set(path)?;
        }
        self.clear_exactly(path);
        if members.is_empty() && !self.now.shows(path) {
            self.mark_map(path);
        }
        members.iter().try_for_each(|(name, json)| self.write_at(&Path::member(Some(path), name)?, json, force))
    }

    fn update_members(
        &mut self,
        parent: Option<&Path>,
        old: &Map<String, Json>,
        new: &Map<String, Json>,
    ) -> Result<(), InvalidEdit> {
        // What is new comes first, so that a map whose members are all exchanged is never empty on the way.
        for (name, to) in new {
            let path = Path::member(parent, name)?;
            match (old.get(name), to) {
                (Some(was), to) if is_same(was, to) => {}
                (Some(was @ Json::Object(from)), Json::Object(members))
                    if !from.is_empty() && !members.is_empty() && is_map(was) && is_map(to) =>
                {
                    // Otherwise a value beside the map could win when the map's newest member goes.
                    self.clear_exactly(&path);
                    self.update_members(Some(&path), from, members)?;
                }
                (Some(_), Json::Object(_)) if is_map(to) => {
                    // Written over a map, an empty map would leave the members; over a value, either way is right.
                    self.require_no_counter_or_set(&path)?;
                    self.clear_within(&path, |_| true);
                    self.write_at(&path, to, false)?;
                }
                _ => self.write_at(&path, to, false)?,
            }
        }
        let mut gone = old.keys().filter(|name| !new.contains_key(*name) && !planted!("update-keeps-the-rest"));
        gone.try_for_each(|name| self.unset(&Path::member(parent, name)?))
    }

    /// Removes what the field `path` holds besides members.
    fn clear_exactly(&mut self, path: &Path) {
        self.clear(self.now.exactly(path).map(|(name, _)| name.clone()).collect());
    }

    /// Removes what the field `path` and the fields in it hold, where `goes` agrees.
    fn clear_within(&mut self, path: &Path, goes: impl Fn(&Slot) -> bool) {
        self.clear(self.now.within(path).filter(|((slot, _), _)| goes(slot)).map(|(name, _)| name.clone()).collect());
    }

    /// Removes these entries; counters among them leave behind how far they were seen.
    fn clear(&mut self, names: Vec<Name>) {
        let mut bases = Vec::new();
        let mut settled = BTreeSet::new();
        let entries = names.iter().filter_map(|name| Some((name, self.now.entry_named(name)?)));
        for ((path, replica, run), tally) in tallies(entries) {
            let base = Slot::Base { path: path.clone(), replica, run };
            match self.taken_away(path, replica, run, &tally) {
                // A run that somebody has already taken away as a whole keeps the entry that says so.
                taken if taken == tally.base => drop(settled.insert(base)),
                taken => bases.extend(taken.map(|taken| (base, taken))),
            }
        }
        let gone = if planted!("write-replaces-one-value") { 1 } else { names.len() };
        for name in names.iter().take(gone).filter(|(slot, _)| !settled.contains(slot)) {
            self.now.remove(name);
        }
        for (base, (at, total)) in bases {
            self.replace(base, Content::Total { at, total });
        }
    }

    /// What a reset takes away from a run that stands at `tally` now.
    fn taken_away(&self, path: &Path, replica: ReplicaId, run: u64, tally: &Tally) -> Option<(u64, i64)> {
        let is_ours = replica == self.dot.replica && tally.entry.is_some_and(|(at, _)| at == self.dot.counter);
        if !is_ours {
            return tally.reset();
        }
        // Nobody has seen what this draft itself counted, so it goes without a trace. Taken away as well, it would
        // take along what the draft goes on to count, since that is of the same event.
        self.before.field(path).counter.get(&(replica, run)).and_then(Tally::reset)
    }

    fn set_register(&mut self, path: Path, value: Value) {
        self.replace(Slot::Register(path), Content::Value(value));
    }

    /// Says that there is a map, though it has no members.
    fn mark_map(&mut self, path: &Path) {
        self.set_register(path.clone(), Value::EmptyMap);
    }

    /// Says that there is a set, if nothing says so yet.
    fn mark_set(&mut self, path: &Path) {
        let mark = Slot::Set(path.clone());
        if self.now.of_slot(&mark).next().is_none() {
            self.replace(mark, Content::Mark);
        }
    }

    /// Writes one slot over everything that it holds.
    fn replace(&mut self, slot: Slot, content: Content) {
        self.empty(&slot);
        self.now.insert(slot, self.dot, Entry { depth: self.depth, content });
    }

    /// Removes everything that a slot holds.
    fn empty(&mut self, slot: &Slot) {
        let names: Vec<Name> = self.now.of_slot(slot).map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.now.remove(name));
    }
}

/// Whether a counter or a set shows what lies here.
fn counts(slot: &Slot) -> bool {
    matches!(slot, Slot::Counter { .. } | Slot::Set(_) | Slot::Element { .. })
}

fn kind_of(slot: &Slot) -> Option<FieldKind> {
    match slot {
        Slot::Life => None,
        Slot::Register(_) => Some(FieldKind::Register),
        Slot::Counter { .. } | Slot::Base { .. } => Some(FieldKind::Counter),
        Slot::Set(_) | Slot::Element { .. } => Some(FieldKind::Set),
    }
}

/// Whether `json` repeats what a field of this kind shows; the order of a set's elements says nothing.
fn same_value(kind: FieldKind, shown: &Json, json: &Json) -> bool {
    match (kind, shown, json) {
        (FieldKind::Set, Json::Array(shown), Json::Array(json)) => {
            // A set shows no element twice, so as many elements, none missing, are the same ones.
            let named: BTreeSet<String> = json.iter().map(Json::to_string).collect();
            shown.len() == json.len() && shown.iter().all(|element| named.contains(&element.to_string()))
        }
        _ => is_same(shown, json),
    }
}

/// Whether two values are the same, down to the sign of a zero, which JSON's own equality does not see.
fn is_same(a: &Json, b: &Json) -> bool {
    match (a, b) {
        (Json::Number(a), Json::Number(b)) => a.to_string() == b.to_string(),
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        (Json::Object(a), Json::Object(b)) => are_same(a, b),
        _ => a == b,
    }
}

fn are_same(a: &Map<String, Json>, b: &Map<String, Json>) -> bool {
    a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| is_same(a, b)))
}

fn wrong_kind(path: &Path, is: FieldKind) -> InvalidEdit {
    let (is, command) = match is {
        FieldKind::Counter => ("a counter", "`increment`"),
        FieldKind::Set => ("a set", "`add` and `remove`"),
        FieldKind::Register => ("a plain value", "`patch`, or `unset` it first"),
        FieldKind::Map => ("a map", "`patch`, or `unset` it first"),
    };
    InvalidEdit::WrongKind { field: path.to_string(), is, command }
}

fn element_of(json: &Json) -> Result<Value, InvalidEdit> {
    if is_map(json) { Err(InvalidEdit::MapInSet) } else { Ok(Value::from_json(json)?) }
}

/// Checks what shall become members of an object; returns how many bytes they have as JSON.
fn check_fields(fields: &Map<String, Json>) -> Result<usize, InvalidEdit> {
    let bytes = json_bytes(fields);
    if bytes > OBJECT_BYTES_MAX {
        return Err(InvalidEdit::TooLarge(bytes));
    }
    fields.values().try_for_each(|json| check_json(json, 1))?;
    match names_bytes(fields, 0) {
        names if names > EVENT_BYTES_MAX => Err(InvalidEdit::NamesTooLong(names)),
        _ => Ok(bytes),
    }
}

/// How many bytes the names of all fields have, each with the names of the maps around it, which have `above`. No event
/// could hold more than it may have itself, and nobody should have to spread it out to find that.
fn names_bytes(fields: &Map<String, Json>, above: usize) -> usize {
    fields.iter().fold(0, |sum, (name, json)| {
        let here = above.saturating_add(name.len());
        sum.saturating_add(match json {
            Json::Object(members) if !members.is_empty() => names_bytes(members, here),
            _ => here,
        })
    })
}

/// Checks that every map in `json`, written to `path`, can be spread out over paths.
fn check_names(path: &Path, json: &Json) -> Result<(), InvalidName> {
    match json {
        Json::Object(members) if is_map(json) => {
            members.iter().try_for_each(|(name, json)| check_names(&Path::member(Some(path), name)?, json))
        }
        _ => Ok(()),
    }
}

/// At most so many bytes does an object grow by as JSON when `path` gets or grows by `bytes`: names, their quotes,
/// escapes of up to six bytes each, and what stands between.
fn growth(path: &Path, bytes: usize) -> usize {
    path.names().iter().map(|name| 6 * name.len() + 6).sum::<usize>() + bytes + 2
}

/// How many bytes an object has as JSON, as it is shown.
pub(crate) fn shown_bytes(object: &Object) -> usize {
    object.shown().map_or(0, |shown| json_bytes(&shown))
}

fn json_bytes(json: &impl serde::Serialize) -> usize {
    /// Counts bytes without keeping them.
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Writing to a counter cannot fail, and every JSON value has a text form.
    let _ = serde_json::to_writer(&mut count, json);
    count.0
}

/// Spreads nested maps out over paths.
fn flatten<'j>(
    fields: &'j Map<String, Json>,
    parent: Option<&Path>,
    leaves: &mut Vec<(Path, &'j Json)>,
) -> Result<(), InvalidEdit> {
    for (name, json) in fields {
        let path = Path::member(parent, name)?;
        match json {
            Json::Object(members) if is_map(json) && !members.is_empty() => flatten(members, Some(&path), leaves)?,
            json => leaves.push((path, json)),
        }
    }
    Ok(())
}
