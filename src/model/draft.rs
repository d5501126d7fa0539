//! One object while a transaction writes to it: what users ask for, turned into the smallest mutation.
//!
//! Every call works on the state as it will be; [`Draft::finish`] compares that with the state as it was. So several
//! writes to one field become one, a write that is taken back leaves no trace, and what a mutation observes is exact.

use serde_json::{Map, Value as Json};

use super::mutation::{Edit, Mutation};
use super::object::{Content, Entry, Field, FieldKind, Object, Slot};
use super::value::{InvalidValue, NESTING_MAX, check_json, is_map};
use super::{InvalidName, ObjectKey, Path, Value};
use crate::causal::Dot;
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
    /// The event that the transaction will become.
    dot: Dot,
    depth: u64,
}

impl Draft {
    /// Begins to write to an object that stands at `before`, as part of the event `dot` of causal depth `depth`.
    pub fn new(collection: CollectionName, key: ObjectKey, before: Object, dot: Dot, depth: u64) -> Self {
        Self { collection, key, now: before.clone(), before, whole: false, dot, depth }
    }

    /// The state as it will be.
    pub fn object(&self) -> &Object {
        &self.now
    }

    /// Replaces the whole object. Counters and sets that `fields` repeats as shown are left alone.
    pub fn put(&mut self, fields: &Map<String, Json>) -> Result<(), InvalidEdit> {
        check_size(fields)?;
        check_json(&Json::Object(fields.clone()), 0)?;
        let mut next = Object::new();
        let entry = |content| Entry { depth: self.depth, content };
        let mut kept: Vec<(Path, FieldKind)> = Vec::new();
        if self.now.is_visible() {
            self.keep_counters_and_sets(&self.now.tree(), &mut Vec::new(), fields, &mut kept)?;
        }
        for (slot, _, held) in self.now.entries() {
            let keeps = |path: &Path| kept.iter().any(|(kept, kind)| kept == path && *kind == FieldKind::Set);
            if kind_of(slot) == Some(FieldKind::Set) && slot.path().is_some_and(keeps) {
                next.insert(slot.clone(), self.dot, entry(held.content.clone()));
            }
        }
        for (path, replica, run, tally) in tallies(&self.now) {
            let total = |(at, total)| entry(Content::Total { at, total });
            let keeps = kept.contains(&(path.clone(), FieldKind::Counter));
            let base = if keeps { tally.base } else { tally.reset() };
            if let Some(base) = base {
                next.insert(Slot::Base { path: path.clone(), replica, run }, self.dot, total(base));
            }
            if keeps && let Some(counted) = tally.entry {
                next.insert(Slot::Counter { path, replica, run }, self.dot, total(counted));
            }
        }
        next.insert(Slot::Life, self.dot, entry(Content::Mark));
        let mut leaves = Vec::new();
        flatten(fields, &mut Vec::new(), &mut leaves)?;
        for (path, value) in leaves {
            if !kept.iter().any(|(kept, _)| *kept == path) {
                next.insert(Slot::Register(path), self.dot, entry(Content::Value(value)));
            }
        }
        self.now = next;
        self.whole = true;
        Ok(())
    }

    /// Writes these fields and leaves the others. A map is merged member by member, and what a field shows already,
    /// without any other value beside it, is not written again.
    pub fn patch(&mut self, fields: &Map<String, Json>) -> Result<(), InvalidEdit> {
        self.require_visible()?;
        check_size(fields)?;
        check_json(&Json::Object(fields.clone()), 0)?;
        for (name, json) in fields {
            self.write_at(std::slice::from_ref(name), json, false)?;
        }
        Ok(())
    }

    /// Makes the object show exactly `fields`, writing only what differs; creates it if it is not there.
    pub fn update(&mut self, fields: &Map<String, Json>) -> Result<(), InvalidEdit> {
        check_size(fields)?;
        check_json(&Json::Object(fields.clone()), 0)?;
        match self.now.shown() {
            None => self.put(fields),
            Some(shown) => self.update_members(&mut Vec::new(), &shown, fields),
        }
    }

    /// Removes a field and everything under it.
    pub fn unset(&mut self, path: &Path) -> Result<(), InvalidEdit> {
        self.require_visible()?;
        self.clear(|within| within.is_within(path.names()));
        let parent = &path.names()[..path.names().len() - 1];
        if let Ok(parent) = Path::try_from(parent.to_vec())
            && self.now.tree().at(parent.names()).is_some_and(|field| field.winner().is_none())
        {
            self.set_register(parent, Value::EmptyMap);
        }
        Ok(())
    }

    /// Adds `by` to a counter, which begins at 0.
    pub fn increment(&mut self, path: &Path, by: i64) -> Result<(), InvalidEdit> {
        self.require_kind(path, FieldKind::Counter)?;
        self.make_room(path)?;
        let me = self.dot.replica;
        let own = self.now.tree().at(path.names()).and_then(|field| {
            field.counter.range((me, 0)..=(me, u64::MAX)).next_back().map(|(&(_, run), &tally)| (run, tally))
        });
        // A run goes on after a reset, from what was taken away: so a counter holds at most one run per replica,
        // unless a delete removed all trace of it.
        let (run, total) = match own {
            Some((run, tally)) => (run, tally.reset().map_or(0, |(_, total)| total)),
            None => (self.dot.counter, 0),
        };
        let overflow = || InvalidEdit::Overflow { field: path.to_string() };
        let total = total.checked_add(by).ok_or_else(overflow)?;
        let slot = Slot::Counter { path: path.clone(), replica: me, run };
        self.replace(slot, Content::Total { at: self.dot.counter, total });
        Ok(())
    }

    /// Adds an element to a set.
    pub fn add(&mut self, path: &Path, element: &Json) -> Result<(), InvalidEdit> {
        let value = element_of(element)?;
        self.require_kind(path, FieldKind::Set)?;
        self.make_room(path)?;
        if !self.now.entries().any(|(slot, ..)| *slot == Slot::Set(path.clone())) {
            self.replace(Slot::Set(path.clone()), Content::Mark);
        }
        self.replace(Slot::Element { path: path.clone(), value }, Content::Mark);
        Ok(())
    }

    /// Removes an element from a set.
    pub fn remove(&mut self, path: &Path, element: &Json) -> Result<(), InvalidEdit> {
        let value = element_of(element)?;
        self.require_kind(path, FieldKind::Set)?;
        let removed = Slot::Element { path: path.clone(), value };
        self.now.retain(|slot, _| *slot != removed);
        Ok(())
    }

    /// Decides a conflict: writes `json` over everything that the field holds now.
    pub fn resolve(&mut self, path: &Path, json: &Json) -> Result<(), InvalidEdit> {
        self.require_visible()?;
        check_json(json, path.names().len())?;
        let exists = self.now.tree().at(path.names()).is_some_and(|field| field.winner().is_some());
        if !exists {
            return Err(InvalidEdit::NoSuchField { field: path.to_string() });
        }
        if is_map(json) {
            // A map chosen from several values replaces them whole; merged into the loser it would keep both.
            self.clear(|within| within.is_within(path.names()));
        }
        self.write_at(path.names(), json, true)
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

    /// The mutation that leads from the state before to the state now; none if they are the same.
    pub fn finish(self) -> Option<Mutation> {
        let Self { collection, key, before, now, whole, dot, .. } = self;
        if before == now {
            return None;
        }
        let mut edits: Vec<Edit> = Vec::new();
        let mut edit = |slot: &Slot, observed: Option<Dot>, add: Option<&Content>| match edits
            .iter_mut()
            .rev()
            .find(|edit| edit.slot == *slot)
        {
            Some(edit) => {
                edit.observed.extend(observed);
                edit.add = edit.add.take().or_else(|| add.cloned());
            }
            None => edits.push(Edit { slot: slot.clone(), observed: Vec::from_iter(observed), add: add.cloned() }),
        };
        for (slot, own, entry) in now.entries() {
            if own == dot {
                edit(slot, None, Some(&entry.content));
            }
        }
        let observed = whole.then(|| {
            let mut dots: Vec<Dot> = before.entries().map(|(_, dot, _)| dot).collect();
            dots.sort_unstable();
            dots.dedup();
            dots
        });
        if !whole {
            for (slot, old, _) in before.entries() {
                if now.entry(slot, old).is_none() {
                    edit(slot, Some(old), None);
                }
            }
        }
        edits.sort_by(|a, b| a.slot.cmp(&b.slot));
        Some(Mutation { collection, key, whole: observed, edits })
    }

    fn require_visible(&self) -> Result<(), InvalidEdit> {
        let (collection, key) = (self.collection.to_string(), self.key.to_string());
        if self.now.is_visible() { Ok(()) } else { Err(InvalidEdit::NotFound { collection, key }) }
    }

    fn require_lost(&self) -> Result<(), InvalidEdit> {
        let (collection, key) = (self.collection.to_string(), self.key.to_string());
        if self.now.is_lost() { Ok(()) } else { Err(InvalidEdit::NotLost { collection, key }) }
    }

    /// Refuses a counter's or set's own operation on a field that is something else.
    fn require_kind(&self, path: &Path, kind: FieldKind) -> Result<(), InvalidEdit> {
        self.require_visible()?;
        match self.now.tree().at(path.names()).and_then(Field::winner) {
            Some((is, _)) if is != kind => Err(wrong_kind(path.names(), is)),
            _ => Ok(()),
        }
    }

    /// Refuses to write over a counter or a set.
    fn require_writable(&self, path: &Path) -> Result<(), InvalidEdit> {
        match self.now.tree().at(path.names()).and_then(Field::winner) {
            Some((is @ (FieldKind::Counter | FieldKind::Set), _)) => Err(wrong_kind(path.names(), is)),
            _ => Ok(()),
        }
    }

    /// Makes every ancestor of `path` a map.
    fn make_room(&mut self, path: &Path) -> Result<(), InvalidEdit> {
        (1..path.names().len()).try_for_each(|length| self.become_map(&path.names()[..length], false))
    }

    /// Removes from the field `names` whatever is no map.
    fn become_map(&mut self, names: &[String], force: bool) -> Result<(), InvalidEdit> {
        let path = Path::try_from(names.to_vec())?;
        if !force {
            self.require_writable(&path)?;
        }
        self.clear(|within| *within == path);
        Ok(())
    }

    /// Writes `json` to the field `names`. `force` writes over counters and sets too.
    fn write_at(&mut self, names: &[String], json: &Json, force: bool) -> Result<(), InvalidEdit> {
        let path = Path::try_from(names.to_vec())?;
        let held: Vec<_> = self.now.tree().at(names).map(Field::alternatives).unwrap_or_default();
        if let Json::Object(members) = json
            && is_map(json)
        {
            if let [(FieldKind::Map, ..)] = held.as_slice()
                && members.is_empty()
            {
                return Ok(());
            }
            self.become_map(names, force)?;
            if self.now.tree().at(names).is_none_or(|field| field.winner().is_none()) && members.is_empty() {
                self.set_register(path, Value::EmptyMap);
            }
            for (name, member) in members {
                let mut nested = names.to_vec();
                nested.push(name.clone());
                self.write_at(&nested, member, force)?;
            }
            return Ok(());
        }
        if let [(FieldKind::Register, _, shown)] = held.as_slice()
            && shown == json
        {
            return Ok(());
        }
        let counts = |kind: FieldKind| matches!(kind, FieldKind::Counter | FieldKind::Set);
        if force {
            // Chosen from several values, a counter or a set stays what it is.
            if let Some((chosen, ..)) = held.iter().find(|(is, _, shown)| counts(*is) && same_value(*is, shown, json)) {
                self.now.retain(|slot, _| match slot.path() {
                    Some(within) if *within == path => kind_of(slot) == Some(*chosen),
                    Some(within) => !within.is_within(path.names()),
                    None => true,
                });
                return Ok(());
            }
        } else if let Some((is, _, shown)) = held.first().filter(|(is, ..)| counts(*is)) {
            return if same_value(*is, shown, json) { Ok(()) } else { Err(wrong_kind(names, *is)) };
        }
        let value = Value::from_json(json)?;
        self.clear(|within| within.is_within(path.names()));
        self.set_register(path, value);
        Ok(())
    }

    fn update_members(
        &mut self,
        names: &mut Vec<String>,
        old: &Map<String, Json>,
        new: &Map<String, Json>,
    ) -> Result<(), InvalidEdit> {
        for (name, was) in old {
            names.push(name.clone());
            match (new.get(name), was) {
                (None, _) => self.unset(&Path::try_from(names.clone())?)?,
                (Some(Json::Object(to)), Json::Object(from))
                    if !to.is_empty() && !from.is_empty() && is_map(&new[name]) && is_map(was) =>
                {
                    self.update_members(names, from, to)?;
                }
                (Some(to), from) if to != from => {
                    if is_map(to) {
                        // Written over a map, an empty map would leave the members; over a value, either way is right.
                        let path = Path::try_from(names.clone())?;
                        self.require_writable(&path)?;
                        self.clear(|within| within.is_within(path.names()));
                    }
                    self.write_at(names, to, false)?;
                }
                _ => {}
            }
            names.pop();
        }
        for (name, json) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
            names.push(name.clone());
            self.write_at(names, json, false)?;
            names.pop();
        }
        Ok(())
    }

    /// Finds the counters and sets that a put keeps, and refuses a put that would change one.
    fn keep_counters_and_sets(
        &self,
        field: &Field<'_>,
        names: &mut Vec<String>,
        fields: &Map<String, Json>,
        kept: &mut Vec<(Path, FieldKind)>,
    ) -> Result<(), InvalidEdit> {
        for (name, member) in &field.members {
            names.push((*name).to_owned());
            if let Some((kind @ (FieldKind::Counter | FieldKind::Set), shown)) = member.winner()
                && let Some(json) = json_at(fields, names)
            {
                if !same_value(kind, &shown, json) {
                    return Err(wrong_kind(names, kind));
                }
                kept.push((Path::try_from(names.clone())?, kind));
            }
            self.keep_counters_and_sets(member, names, fields, kept)?;
            names.pop();
        }
        Ok(())
    }

    /// Removes the entries of the fields that `within` names; counters there leave behind how far they were seen.
    fn clear(&mut self, within: impl Fn(&Path) -> bool) {
        // A run that somebody has already taken away as a whole keeps the entry that says so.
        let (settled, open): (Vec<_>, Vec<_>) = tallies(&self.now)
            .into_iter()
            .filter(|(counter, ..)| within(counter))
            .partition(|(.., tally)| tally.base == tally.reset());
        let settled: Vec<Slot> =
            settled.into_iter().map(|(path, replica, run, _)| Slot::Base { path, replica, run }).collect();
        self.now.retain(|slot, _| slot.path().is_none_or(|path| !within(path)) || settled.contains(slot));
        for (path, replica, run, tally) in open {
            if let Some((at, total)) = tally.reset() {
                self.replace(Slot::Base { path, replica, run }, Content::Total { at, total });
            }
        }
    }

    fn set_register(&mut self, path: Path, value: Value) {
        self.replace(Slot::Register(path), Content::Value(value));
    }

    /// Writes one slot over everything that it holds.
    fn replace(&mut self, slot: Slot, content: Content) {
        self.now.retain(|other, _| *other != slot);
        self.now.insert(slot, self.dot, Entry { depth: self.depth, content });
    }
}

type Run = (Path, crate::causal::ReplicaId, u64, super::object::Tally);

/// Every run of every counter in `object`.
fn tallies(object: &Object) -> Vec<Run> {
    fn collect(field: &Field<'_>, names: &mut Vec<String>, runs: &mut Vec<Run>) {
        if let Ok(path) = Path::try_from(names.clone()) {
            runs.extend(field.counter.iter().map(|(&(replica, run), &tally)| (path.clone(), replica, run, tally)));
        }
        for (name, member) in &field.members {
            names.push((*name).to_owned());
            collect(member, names, runs);
            names.pop();
        }
    }
    let mut runs = Vec::new();
    // Most objects have no counter; reading them as a tree only to find that out would double the cost of a put.
    if object.entries().any(|(slot, ..)| matches!(slot, Slot::Counter { .. } | Slot::Base { .. })) {
        collect(&object.tree(), &mut Vec::new(), &mut runs);
    }
    runs
}

fn kind_of(slot: &Slot) -> Option<FieldKind> {
    match slot {
        Slot::Life => None,
        Slot::Register(_) => Some(FieldKind::Register),
        Slot::Counter { .. } | Slot::Base { .. } => Some(FieldKind::Counter),
        Slot::Set(_) | Slot::Element { .. } => Some(FieldKind::Set),
    }
}

/// Whether `json` repeats what a counter or set shows; the order of a set's elements says nothing.
fn same_value(kind: FieldKind, shown: &Json, json: &Json) -> bool {
    match (kind, shown, json) {
        (FieldKind::Set, Json::Array(shown), Json::Array(json)) => {
            shown.len() == json.len() && shown.iter().all(|element| json.contains(element))
        }
        _ => shown == json,
    }
}

fn wrong_kind(names: &[String], is: FieldKind) -> InvalidEdit {
    let field = Path::try_from(names.to_vec()).map_or_else(|_| names.join("/"), |path| path.to_string());
    let (is, command) = match is {
        FieldKind::Counter => ("a counter", "`increment`"),
        FieldKind::Set => ("a set", "`add` and `remove`"),
        FieldKind::Register => ("a plain value", "`patch`, or `unset` it first"),
        FieldKind::Map => ("a map", "`patch`, or `unset` it first"),
    };
    InvalidEdit::WrongKind { field, is, command }
}

fn element_of(json: &Json) -> Result<Value, InvalidEdit> {
    if is_map(json) { Err(InvalidEdit::MapInSet) } else { Ok(Value::from_json(json)?) }
}

fn json_at<'a>(fields: &'a Map<String, Json>, names: &[String]) -> Option<&'a Json> {
    let (first, rest) = names.split_first()?;
    rest.iter().try_fold(fields.get(first)?, |json, name| json.as_object()?.get(name))
}

fn check_size(fields: &Map<String, Json>) -> Result<(), InvalidEdit> {
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
    let _ = serde_json::to_writer(&mut count, fields);
    if count.0 <= OBJECT_BYTES_MAX { Ok(()) } else { Err(InvalidEdit::TooLarge(count.0)) }
}

/// Spreads nested maps out over paths.
fn flatten(
    fields: &Map<String, Json>,
    names: &mut Vec<String>,
    leaves: &mut Vec<(Path, Value)>,
) -> Result<(), InvalidEdit> {
    if names.len() >= NESTING_MAX {
        return Err(InvalidValue::TooDeep.into());
    }
    for (name, json) in fields {
        names.push(name.clone());
        match json {
            Json::Object(members) if is_map(json) && !members.is_empty() => flatten(members, names, leaves)?,
            json => leaves.push((Path::try_from(names.clone())?, Value::from_json(json)?)),
        }
        names.pop();
    }
    Ok(())
}
