//! The equation: an object's entries are those that known events added and that no known event observed.
//!
//! It is convergence, no loss, no resurrection and true knowledge at once. The right side is computed here in the
//! slow and obvious way, from the definition.
//!
//! Where a name means several events, an author meant the one that it knew. Its words are read so: first which event
//! each name stood for when it was written, from what the author knew; then what that event is called on this disk.

use std::collections::{BTreeMap, BTreeSet};

use thence::causal::{Dot, EventHash, ReplicaId};
use thence::model::{Content, Entry, Object, Path, Slot};

use super::counters::check_counters;
use super::history::Told;
use super::{Era, History, ObjectName, Shelf, Verdict, broken, names};

type Entries = BTreeMap<(Slot, Dot), Entry>;

/// Whether `object`, as it stands on a disk that holds `shelf`, is what the events say.
pub(crate) fn check_object(
    history: &History,
    era: Era,
    name: &ObjectName,
    shelf: &Shelf,
    object: Option<&Object>,
) -> Verdict {
    let expected = expected(history, era, name, shelf);
    let held: Entries = (object.iter())
        .flat_map(|object| object.entries().map(|(slot, dot, entry)| ((slot.clone(), dot), entry.clone())))
        .collect();
    if held == expected {
        return object.map_or(Ok(()), |object| check_counters(name, object));
    }
    let extra = in_words(held.keys().filter(|entry| !expected.contains_key(entry)));
    let missing = in_words(expected.keys().filter(|entry| !held.contains_key(entry)));
    let altered = held.iter().filter(|(at, entry)| expected.get(at).is_some_and(|expected| expected != *entry));
    let altered = in_words(altered.map(|(at, _)| at));
    let (collection, key) = name;
    broken("the equation", format!("{collection}/{key}: too much [{extra}], missing [{missing}], altered [{altered}]"))
}

fn in_words<'a>(entries: impl Iterator<Item = &'a (Slot, Dot)>) -> String {
    let each = entries.map(|(slot, dot)| match slot {
        Slot::Life => format!("life by {dot:?}"),
        Slot::Register(path) => format!("{path} by {dot:?}"),
        Slot::Counter { path, .. } => format!("counter {path} by {dot:?}"),
        Slot::Base { path, .. } => format!("base of counter {path} by {dot:?}"),
        Slot::Set(path) => format!("set {path} by {dot:?}"),
        Slot::Element { path, value } => format!("{value:?} in {path} by {dot:?}"),
    });
    each.collect::<Vec<_>>().join(", ")
}

fn expected(history: &History, era: Era, name: &ObjectName, shelf: &Shelf) -> Entries {
    let touching = history.touching.get(&(era, name.clone()));
    let known = touching.into_iter().flatten().filter(|hash| shelf.events.contains(*hash));
    let mut added = BTreeMap::new();
    let mut observed_whole: BTreeSet<Dot> = BTreeSet::new();
    let mut observed: BTreeSet<(Slot, Dot)> = BTreeSet::new();
    for hash in known {
        let (Some(told), Some(dot)) = (history.events.get(&(era, *hash)), shelf.names.get(hash)) else { continue };
        let reading = Reading::new(history, era, name, shelf, told);
        for mutation in told.event.mutations.iter().filter(|m| (&m.collection, &m.key) == (&name.0, &name.1)) {
            observed_whole.extend(mutation.whole.iter().flatten().map(|dot| reading.dot(*dot)));
            for edit in &mutation.edits {
                let dots: Vec<Dot> = edit.observed.iter().map(|dot| reading.dot(*dot)).collect();
                for (slot, content) in reading.slots(&edit.slot, edit.add.as_ref()) {
                    observed.extend(dots.iter().map(|dot| (slot.clone(), *dot)));
                    if let Some(content) = content {
                        // Two runs that were begun before a history was split count on as one in the branch.
                        let entry = Entry { depth: told.event.depth, content };
                        let held = added.entry((slot, *dot)).or_insert_with(|| entry.clone());
                        held.content = held.content.clone().max(entry.content);
                    }
                }
            }
        }
    }
    added.retain(|(slot, dot), _| !observed_whole.contains(dot) && !observed.contains(&(slot.clone(), *dot)));
    added
}

/// How the words of one event are to be read on one disk.
struct Reading<'a> {
    history: &'a History,
    era: Era,
    object: &'a ObjectName,
    shelf: &'a Shelf,
    /// Which event each name stood for; none where every name means one event.
    meant: Option<BTreeMap<Dot, EventHash>>,
}

impl<'a> Reading<'a> {
    fn new(history: &'a History, era: Era, object: &'a ObjectName, shelf: &'a Shelf, told: &'a Told) -> Self {
        let meant = shelf.is_split.then(|| {
            let names = names::names(history, era, &told.past).into_iter().map(|(hash, dot)| (dot, hash));
            names.chain([(told.event.dot, told.event.hash)]).collect()
        });
        Self { history, era, object, shelf, meant }
    }

    fn dot(&self, dot: Dot) -> Dot {
        let Some(meant) = &self.meant else { return dot };
        meant.get(&dot).and_then(|hash| self.shelf.names.get(hash)).copied().unwrap_or(dot)
    }

    /// The slots that a slot is, and what is added to each.
    fn slots(&self, slot: &Slot, add: Option<&Content>) -> Vec<(Slot, Option<Content>)> {
        let as_it_is = || vec![(slot.clone(), add.cloned())];
        let (path, replica, run, is_base) = match slot {
            Slot::Counter { path, replica, run } => (path, *replica, *run, false),
            Slot::Base { path, replica, run } => (path, *replica, *run, true),
            _ => return as_it_is(),
        };
        let Some(meant) = &self.meant else { return as_it_is() };
        let Some(begun) = meant.get(&Dot::new(replica, run)) else { return as_it_is() };
        // All that the author knew of that replica, up to the last event.
        let last = meant.range(Dot::new(replica, run)..=Dot::new(replica, u64::MAX)).next_back();
        let Some(last) = last.map(|(_, hash)| *hash) else { return as_it_is() };
        let chain = self.chain(*begun, last);
        let counted = match add {
            Some(Content::Total { at, total }) => meant.get(&Dot::new(replica, *at)).map(|at| (*at, *total)),
            _ => None,
        };
        let mut slots = Vec::new();
        let mut histories: Vec<ReplicaId> =
            chain.iter().filter_map(|hash| self.name(*hash)).map(|d| d.replica).collect();
        histories.dedup();
        let mut before = 0;
        let mut reached = false;
        for (number, history) in histories.into_iter().enumerate() {
            let run = if number == 0 { self.name(*begun).map_or(run, |name| name.counter) } else { 1 };
            let slot = match is_base {
                true => Slot::Base { path: path.clone(), replica: history, run },
                false => Slot::Counter { path: path.clone(), replica: history, run },
            };
            let lies_here = |hash: EventHash| self.name(hash).filter(|name| name.replica == history);
            let content = match counted {
                Some((at, total)) if lies_here(at).is_some() => {
                    reached = true;
                    lies_here(at).map(|at| Content::Total { at: at.counter, total: total - before })
                }
                Some(_) if !reached => {
                    let here = |hash: &&EventHash| lies_here(**hash).is_some();
                    let counts = chain.iter().rev().filter(here).find_map(|hash| self.counted_by(*hash, path, *begun));
                    counts.map(|(hash, total)| {
                        let at = self.name(hash).map_or(0, |name| name.counter);
                        let content = Content::Total { at, total: total - before };
                        before = total;
                        content
                    })
                }
                _ => None,
            };
            slots.push((slot, content));
        }
        slots
    }

    fn name(&self, hash: EventHash) -> Option<Dot> {
        self.shelf.names.get(&hash).copied()
    }

    /// The events of one author from `first` to `last`.
    fn chain(&self, first: EventHash, last: EventHash) -> Vec<EventHash> {
        let mut chain = vec![last];
        while let Some(hash) = chain.last().copied().filter(|hash| *hash != first) {
            match self.history.events.get(&(self.era, hash)) {
                Some(told) if told.event.previous != EventHash::start(told.event.dot.replica) => {
                    chain.push(told.event.previous)
                }
                _ => break,
            }
        }
        chain.reverse();
        chain
    }

    /// How far an event counted in the run that `begun` began: itself, and the total.
    fn counted_by(&self, hash: EventHash, field: &Path, begun: EventHash) -> Option<(EventHash, i64)> {
        let told = self.history.events.get(&(self.era, hash))?;
        let run_began = |run: u64| {
            let chain = self.chain(begun, hash);
            let dot = self.history.dot(self.era, *chain.first()?)?;
            Some(chain.first() == Some(&begun) && dot.counter == run)
        };
        let mutations =
            told.event.mutations.iter().filter(|m| (&m.collection, &m.key) == (&self.object.0, &self.object.1));
        mutations.flat_map(|mutation| &mutation.edits).find_map(|edit| match (&edit.slot, &edit.add) {
            (Slot::Counter { path, replica, run }, Some(Content::Total { at, total }))
                if path == field && Dot::new(*replica, *at) == told.event.dot && run_began(*run) == Some(true) =>
            {
                Some((hash, *total))
            }
            _ => None,
        })
    }
}
