//! Splitting a history in two, and reading all that was ever written in the names that hold from then on.
//!
//! It happens when a store was copied or put back and then wrote twice under one id: rarely, and never for nothing. All
//! objects of the space are joined anew from its log, in the one commit that also takes in the proof; that takes time
//! and memory in proportion to the space.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::Renewal;
use super::key;
use super::place::dot_rows;
use super::record::{self, Author, EndedRow};
use super::shelf::Shelf;
use super::writing::Writing;
use crate::causal::{Branch, Dot, EventHash, Head, Known, ReplicaId, Witness};
use crate::codec;
use crate::model::{Content, EndedRun, Event, Incarnation, Lineage, Object, Renaming, Segment, Slot, SpaceId};
use crate::store::StoreError;

/// One more history is known to go on from somewhere.
pub(super) struct Split {
    /// If that is not where the old one ends: the last event before it, and what is called otherwise from then on.
    pub(super) rest: Option<(Option<Head>, (ReplicaId, Branch))>,
    /// The new one.
    pub(super) added: (ReplicaId, Branch),
}

impl Split {
    pub(super) fn perform(&self, known: &mut Known) {
        if let Some((last, rest)) = self.rest {
            known.split(rest.1.parent, last, rest);
        }
        let (id, branch) = self.added;
        known.set_branch(id, branch);
    }

    /// The history that an event lies in once this was performed.
    pub(super) fn rename(&self, dot: Dot) -> ReplicaId {
        match self.rest {
            Some((last, (id, branch)))
                if branch.parent == dot.replica
                    && dot.counter > last.map_or(0, |last| last.counter)
                    && !planted!("dependency-keeps-its-name") =>
            {
                id
            }
            _ => dot.replica,
        }
    }
}

/// What reading the log anew remembers on its way.
#[derive(Default)]
struct Replay {
    /// The events of split histories that were read, and which history each lies in.
    lies_in: BTreeMap<EventHash, ReplicaId>,
    /// How far the histories were read that are whole.
    read: BTreeMap<ReplicaId, u64>,
}

impl Replay {
    /// The history in which a witness is true.
    ///
    /// The index of dots cannot tell while it is being written anew: what it says of a history whose events stand further
    /// on in the log was removed.
    fn find(&self, witness: Witness) -> Option<ReplicaId> {
        let mut least = [0; 32];
        least[..16].copy_from_slice(&witness.hash);
        let next = self.lies_in.range(EventHash::from_bytes(least)..).next();
        next.filter(|(hash, _)| hash.prefix() == witness.hash).map(|(_, id)| *id)
    }
}

impl Writing<'_> {
    /// Knows a history more, and names everything accordingly.
    pub(super) fn split(&mut self, space: SpaceId, author: Incarnation, split: &Split) -> Result<(), StoreError> {
        let Some(shelf) = self.shelves.get_mut(&space) else { return Ok(()) };
        split.perform(&mut shelf.known);
        let (number, known) = (shelf.row.number, shelf.known.clone());
        for id in split.rest.iter().map(|(_, (id, _))| *id).chain([split.added.0]) {
            self.replica_number(space, Author::of(&known, author, id));
        }
        let Some(names) = self.names.get(&space) else { return Ok(()) };
        let numbers: Vec<(u32, u32)> = (known.branches())
            .filter_map(|(id, branch)| Some((names.replicas.find(id)?, names.replicas.find(branch.parent)?)))
            .collect();
        for (branch, parent) in numbers {
            self.put(key::branch(number, branch), &parent);
        }
        self.advanced.entry(space).or_default().extend(known.heads().map(|(id, ..)| id));
        if let Some((last, (_, branch))) = split.rest {
            if last.is_none()
                && let Some(emptied) = self.names.get(&space).and_then(|names| names.replicas.find(branch.parent))
            {
                self.batch.insert(key::head(number, emptied), None);
                self.advanced.entry(space).or_default().remove(&branch.parent);
            }
            self.read_anew(space, &known, branch.parent, last.map_or(0, |last| last.counter))?;
        }
        let changed = self.report.changed.entry(space).or_default();
        changed.split = Some(known);
        // Told in names that do not hold any more. Whoever hears of the split asks anew.
        changed.written.clear();
        changed.taken.clear();
        if author.replica() == self.me.replica() {
            self.renew(Renewal::Split { space })?;
        }
        Ok(())
    }

    /// Joins all objects of a space anew from its log. Of `ended` only `last` events are left.
    fn read_anew(&mut self, space: SpaceId, known: &Known, ended: ReplicaId, last: u64) -> Result<(), StoreError> {
        let (Some(shelf), Some(names)) = (self.shelves.get_mut(&space), self.names.get(&space)) else { return Ok(()) };
        let number = shelf.row.number;
        shelf.access = Shelf::new(shelf.row.clone()).access;
        self.access_changed.insert(space);
        if let Some(replica) = names.replicas.find(ended) {
            let (from, to) = (key::dot(number, replica, last + 1), key::after_prefix(&key::dots(number, replica)));
            let mut gone: Vec<Vec<u8>> =
                self.batch.range(from.clone()..to.clone()).map(|(key, _)| key.clone()).collect();
            self.read.scan(&from, &to, &mut |key, _| {
                gone.push(key.to_vec());
                ControlFlow::Continue(())
            })?;
            self.batch.extend(gone.into_iter().map(|key| (key, None)));
        }
        self.rebuilt.insert(space);
        for (_, held) in self.objects.iter_mut().filter(|((of, ..), _)| *of == space) {
            held.object = Object::new();
            held.changed_by = None;
        }
        let mut replay = Replay::default();
        let (from, to) = (key::log(number), key::after_prefix(&key::log(number)));
        let waiting: Vec<(Vec<u8>, Vec<u8>)> = (self.batch.range(from.clone()..to.clone()))
            .filter_map(|(key, value)| Some((key.clone(), value.clone()?)))
            .collect();
        let mut result = Ok(());
        self.read.scan(&from, &to, &mut |key, value| {
            result = self.replay(space, known, &mut replay, key, value);
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result?;
        waiting.iter().try_for_each(|(key, value)| self.replay(space, known, &mut replay, key, value))
    }

    fn replay(
        &mut self,
        space: SpaceId,
        known: &Known,
        replay: &mut Replay,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), StoreError> {
        let damaged = |what: &dyn std::fmt::Display| StoreError::Damaged(what.to_string());
        let arrival = key::counter_at(key, 5).ok_or_else(|| damaged(&"log"))?;
        let revision = self.shelves.get(&space).map_or(0, |shelf| shelf.row.revision.number());
        let segment =
            Segment::read_stored(revision, record::unwrap(key, value)?.into()).map_err(|error| damaged(&error))?;
        let (author, root) = (segment.author(), segment.author().replica());
        let is_split = known.family(root).nth(1).is_some();
        let mut id = root;
        let mut known_before = 0;
        for event in segment.events() {
            if is_split {
                let begins = author.branch(event.hash);
                id = match (known.branch(begins), replay.lies_in.get(&event.previous)) {
                    (Some(_), _) => begins,
                    (None, Some(before)) => *before,
                    (None, None) => root,
                };
                if replay.lies_in.insert(event.hash, id).is_some() {
                    known_before += 1;
                    continue;
                }
            } else {
                let read = replay.read.entry(root).or_default();
                if event.dot.counter <= *read {
                    continue;
                }
                *read = event.dot.counter;
            }
            let mut renaming = Renaming::default();
            if id != root {
                renaming.add(root, Lineage::new(known, root, id));
            }
            for witness in event.dependencies.iter().chain(&event.witnesses) {
                let named = witness.dot.replica;
                if known.family(known.root(named)).nth(1).is_none() {
                    continue;
                }
                let found = replay.find(*witness).ok_or_else(|| damaged(&"a dependency is not in the log"))?;
                if found != named {
                    renaming.add(named, Lineage::new(known, named, found));
                }
            }
            let event = self.read_event(space, &renaming, event)?;
            self.join_objects(space, Author::of(known, author, id), &event)?;
        }
        if is_split && !planted!("split-loses-places") {
            let own = Lineage::new(known, root, id);
            let mut renaming = Renaming::default();
            renaming.add(root, own);
            self.put_dots(space, (segment.events(), known_before), &renaming, arrival);
        }
        Ok(())
    }

    /// An event in the names that hold here.
    pub(super) fn read_event(&self, space: SpaceId, renaming: &Renaming, event: &Event) -> Result<Event, StoreError> {
        if renaming.is_empty() {
            return Ok(event.clone());
        }
        renaming.read(event, &mut |run: &EndedRun<'_>| {
            let Some(histories) = self.histories(space) else { return Ok(None) };
            let Some(replica) = histories.names.replicas.find(run.run.replica) else { return Ok(None) };
            let key = key::ended(histories.shelf.row.number, replica, &name_of(run));
            let row: Option<EndedRow> =
                histories.seen.get(&key)?.map(|value| record::read(&key, &value)).transpose()?;
            Ok(row.map(|row| (row.at, row.total)))
        })
    }

    /// Remembers how far an event of a history that ended had counted: what goes on from there counts on.
    pub(super) fn remember_counts(&mut self, space: SpaceId, event: &Event) {
        let Some(histories) = self.histories(space) else { return };
        let number = histories.shelf.row.number;
        let Some(replica) = histories.names.replicas.find(event.dot.replica) else { return };
        if !histories.shelf.known.is_split(event.dot.replica) || planted!("counts-not-remembered") {
            return;
        }
        for mutation in &event.mutations {
            for edit in &mutation.edits {
                if let (Slot::Counter { path, replica: by, run }, Some(Content::Total { at, total })) =
                    (&edit.slot, &edit.add)
                    && Dot::new(*by, *at) == event.dot
                {
                    let run = EndedRun { mutation, path, run: Dot::new(*by, *run) };
                    self.put(key::ended(number, replica, &name_of(&run)), &EndedRow { at: *at, total: *total });
                }
            }
        }
    }

    /// Where the events of a segment lie. So many of them were `known_before`: those stay where they came first, or the log
    /// would tell of them after what builds on them.
    pub(super) fn put_dots(
        &mut self,
        space: SpaceId,
        (events, known_before): (&[Event], usize),
        renaming: &Renaming,
        arrival: u64,
    ) {
        let known_before = if planted!("known-again-in-the-log") { 0 } else { known_before };
        let events = events.get(known_before..).unwrap_or_default();
        for (dot, row) in dot_rows(events, |dot| renaming.dot(dot), arrival) {
            let Some(histories) = self.histories(space) else { return };
            let Some(replica) = histories.names.replicas.find(dot.replica) else { return };
            self.put(key::dot(histories.shelf.row.number, replica, dot.counter), &row);
        }
    }
}

/// Sixteen bytes that stand for a run of a counter.
fn name_of(run: &EndedRun<'_>) -> [u8; 16] {
    let EndedRun { mutation, path, run } = run;
    let bytes = codec::encode(&(&mutation.collection, &mutation.key, path, run.counter));
    let mut name = [0; 16];
    name.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..16]);
    name
}
