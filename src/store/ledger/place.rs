//! Which history a received segment goes on with, and whether it may.
//!
//! A replica id stands for one history as long as nothing else was ever seen under it. Where a segment that the author
//! signed does not fit onto what is here, two events bear one name: a store was copied, or put back, and wrote twice.
//! Then the history is split there ([`super::split`]), and each of the two goes on under an id of its own.
//!
//! **Invariant**: a segment is taken in whole or not at all, and a history is split only together with taking in the
//! segment that proves it; so what a node calls an event depends only on which events it has.

use std::ops::ControlFlow;

use super::key;
use super::misbehaved;
use super::record::{self, DotRow};
use super::shelf::{Names, Shelf};
use super::split::Split;
use super::writing::Writing;
use crate::causal::{
    Admission, Branch, Dot, EventHash, HashPrefix, Head, Inadmissible, Known, Proposal, ReplicaId, Witness,
};
use crate::model::{Event, Lineage, Renaming, Segment, SpaceId};
use crate::replica::{PeerMisbehaved, Rejection};
use crate::store::{Batch, Read, StoreError};

/// Where a segment belongs.
pub(super) struct Placed {
    /// The history that its last event lies in.
    last: ReplicaId,
    /// How many of its events are here already.
    pub(super) known: usize,
    /// What must be split first.
    pub(super) split: Option<Split>,
}

/// A segment that may be taken in.
pub(super) struct Admitted {
    pub(super) placed: Placed,
    /// How to read each event that is not here yet.
    pub(super) events: Vec<Renaming>,
    /// What the last event is called.
    pub(super) last: Dot,
    /// What all of its events are called.
    pub(super) own: Renaming,
}

/// A key and its value.
type Entry = (Vec<u8>, Vec<u8>);

/// Reads what the commit sees: what it changed so far, and below that what was there before.
pub(super) struct Seen<'a> {
    pub(super) read: &'a dyn Read,
    pub(super) batch: &'a Batch,
}

impl Seen<'_> {
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.batch.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.read.get(key),
        }
    }

    /// The first entry with `from <= key < to`.
    pub(super) fn first(&self, from: &[u8], to: &[u8]) -> Result<Option<Entry>, StoreError> {
        let mut before = None;
        self.read.scan(from, to, &mut |key, value| {
            if self.batch.contains_key(key) {
                return ControlFlow::Continue(());
            }
            before = Some((key.to_vec(), value.to_vec()));
            ControlFlow::Break(())
        })?;
        let mut changed = self.batch.range(from.to_vec()..to.to_vec());
        let changed = changed.find_map(|(key, value)| Some((key.clone(), value.clone()?)));
        Ok(match (before, changed) {
            (Some(before), Some(changed)) => Some(before.min(changed)),
            (before, changed) => before.or(changed),
        })
    }
}

/// One space as this commit sees it.
pub(super) struct Histories<'a> {
    pub(super) seen: Seen<'a>,
    pub(super) shelf: &'a Shelf,
    pub(super) names: &'a Names,
}

fn damaged(what: &str) -> StoreError {
    StoreError::Damaged(what.to_owned())
}

impl Histories<'_> {
    /// The segment that the event lies in: its row, and the counter of the last of that replica's events in it.
    pub(super) fn dot_row(&self, dot: Dot) -> Result<Option<(DotRow, u64)>, StoreError> {
        let number = self.shelf.row.number;
        let Some(replica) = self.names.replicas.find(dot.replica) else { return Ok(None) };
        let (from, to) = (key::dot(number, replica, dot.counter), key::after_prefix(&key::dots(number, replica)));
        let Some((key, value)) = self.seen.first(&from, &to)? else { return Ok(None) };
        let last = key::counter_at(&key, 9).ok_or_else(|| damaged("dot"))?;
        Ok(Some((record::read(&key, &value)?, last)))
    }

    /// The beginning of the hash of the event that bears this name here.
    pub(super) fn hash_at(&self, dot: Dot) -> Result<Option<HashPrefix>, StoreError> {
        match self.shelf.known.head(dot.replica) {
            Some(head) if head.counter == dot.counter => return Ok(Some(head.hash.prefix())),
            Some(head) if dot.counter < head.counter => {}
            _ => return Ok(None),
        }
        let Some((row, last)) = self.dot_row(dot)? else { return Err(damaged("an event that is known is not found")) };
        row.hash(dot.counter, last).map(Some).ok_or_else(|| damaged("an event that is known is not found"))
    }

    /// What the event that was witnessed is called if it lies in the history `id`; counter 0 if it lies before that.
    fn name_in(&self, id: ReplicaId, witness: Witness) -> Dot {
        let known = &self.shelf.known;
        let place = known.offset(witness.dot.replica).saturating_add(witness.dot.counter);
        Dot::new(id, place.saturating_sub(known.offset(id)))
    }

    /// The history, among those that were written as one with the named, in which this witness is true.
    pub(super) fn find(&self, witness: Witness) -> Result<Option<ReplicaId>, StoreError> {
        let known = &self.shelf.known;
        let named = witness.dot.replica;
        for id in known.family(known.root(named)) {
            let at = self.name_in(id, witness);
            let is_part_of_it = known.lineage(id).any(|other| other == named);
            if at.counter > 0 && is_part_of_it && self.hash_at(at)? == Some(witness.hash) {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// The hash of an event, and the one before it in the same history, if that is not its first.
    fn event_and_the_one_before(&self, dot: Dot) -> Result<(EventHash, Option<Head>), StoreError> {
        let event = self.event(dot)?;
        let before = match dot.counter {
            1 => None,
            counter => {
                let before = self.event(Dot::new(dot.replica, counter - 1))?;
                Some(Head { counter: counter - 1, depth: before.depth, hash: before.hash })
            }
        };
        Ok((event.hash, before))
    }

    /// An event as its author wrote it, read from the log.
    fn event(&self, dot: Dot) -> Result<Event, StoreError> {
        let gone = || damaged("an event that is known is not found");
        let (row, _) = self.dot_row(dot)?.ok_or_else(gone)?;
        let key = key::segment(self.shelf.row.number, row.arrival);
        let value = self.seen.get(&key)?.ok_or_else(gone)?;
        let segment = Segment::read_stored(self.shelf.row.revision.number(), record::unwrap(&key, &value)?.into());
        let segment = segment.map_err(|error| StoreError::Damaged(error.to_string()))?;
        let counter = self.shelf.known.offset(dot.replica) + dot.counter;
        segment.events().iter().find(|event| event.dot.counter == counter).cloned().ok_or_else(gone)
    }

    /// Whether anything at all is known of the place that the witness names, in whatever history.
    fn reaches(&self, witness: Witness) -> bool {
        let known = &self.shelf.known;
        let place = known.offset(witness.dot.replica).saturating_add(witness.dot.counter);
        let root = known.root(witness.dot.replica);
        known.family(root).any(|id| known.offset(id).saturating_add(known.counter(id)) >= place)
    }

    /// Why a witness is not true here.
    fn lacking(&self, witness: Witness) -> Rejection {
        match self.reaches(witness) {
            true => Rejection::Diverged(self.shelf.known.root(witness.dot.replica)),
            false => Rejection::Missing,
        }
    }

    /// Finds out where a segment belongs.
    fn place(&self, segment: &Segment) -> Result<Result<Placed, Rejection>, StoreError> {
        let known = &self.shelf.known;
        let author = segment.author();
        let (root, first) = (author.replica(), &segment.events()[0]);
        // What it goes on from. Usually that is the last event of its author.
        let head = known.head(root);
        let is_next = !known.is_split(root)
            && head.map_or((0, EventHash::start(root)), |head| (head.counter, head.hash))
                == (first.dot.counter - 1, first.previous);
        if is_next {
            return Ok(Ok(Placed { last: root, known: 0, split: None }));
        }
        // Or it is here already: hashes are chained, so its last event tells of all of it.
        let last = Witness { dot: segment.last(), hash: segment.hash().prefix() };
        if let Some(last) = self.find(last)? {
            return Ok(Ok(Placed { last, known: segment.events().len(), split: None }));
        }
        let (mut id, mut counter) = (root, 0);
        if first.dot.counter > 1 {
            let previous = Witness { dot: Dot::new(root, first.dot.counter - 1), hash: first.previous.prefix() };
            match self.find(previous)? {
                Some(found) => (id, counter) = (found, previous.dot.counter - known.offset(found)),
                None => return Ok(Err(self.lacking(previous))),
            }
        }
        let branch = |parent, after, first| Branch { root, parent, after, first };
        for (at, event) in segment.events().iter().enumerate() {
            // Where a history ends, the event may be the first of one that goes on from there.
            if counter == known.counter(id) && known.is_split(id) {
                let child = known.branches().find(|(_, child)| child.parent == id && child.first == event.hash);
                match child {
                    Some((child, _)) => (id, counter) = (child, 0),
                    None => {
                        let added = (author.branch(event.hash), branch(id, event.dot.counter - 1, event.hash));
                        let split = Split { rest: None, added };
                        return Ok(Ok(Placed { last: added.0, known: at, split: Some(split) }));
                    }
                }
            }
            if counter == known.counter(id) {
                return Ok(Ok(Placed { last: id, known: at, split: None }));
            }
            counter += 1;
            if self.hash_at(Dot::new(id, counter))? == Some(event.hash.prefix()) {
                continue;
            }
            let after = event.dot.counter - 1;
            let (here, before) = self.event_and_the_one_before(Dot::new(id, counter))?;
            let rest = (author.branch(here), branch(id, after, here));
            let added = (author.branch(event.hash), branch(id, after, event.hash));
            let split = Split { rest: Some((before, rest)), added };
            return Ok(Ok(Placed { last: added.0, known: at, split: Some(split) }));
        }
        Ok(Ok(Placed { last: id, known: segment.events().len(), split: None }))
    }

    /// Whether all of a segment that is not here yet may be taken in now, and how to read it.
    pub(super) fn admit(&self, segment: &Segment) -> Result<Result<Admitted, Rejection>, StoreError> {
        let placed = match self.place(segment)? {
            Ok(placed) => placed,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let author = segment.author();
        let root = author.replica();
        let mut trial: Option<Known> = None;
        if let Some(split) = &placed.split {
            split.perform(trial.insert(self.shelf.known.clone()));
        }
        let mut own = Renaming::default();
        if placed.last != root {
            let known = trial.as_ref().unwrap_or(&self.shelf.known);
            own.add(root, Lineage::new(known, root, placed.last));
        }
        let mut events = Vec::new();
        let mut last = Dot::new(root, 0);
        let count = segment.events().len();
        for (at, event) in segment.events().iter().enumerate() {
            let mut renaming = own.clone();
            last = renaming.dot(event.dot);
            if at < placed.known {
                continue;
            }
            // What it builds on must be here, and be what its author had; so must all that it says that it observed,
            // which it never exceeds. Only a forged event claims more than its dependencies bring with them.
            for (at, witness) in event.dependencies.iter().chain(&event.witnesses).enumerate() {
                let Some(id) = self.find(*witness)? else {
                    let brought = at >= event.dependencies.len();
                    if brought && planted!("witness-unchecked") {
                        continue;
                    }
                    return Ok(Err(match self.lacking(*witness) {
                        Rejection::Missing if brought => Rejection::Misbehaved(PeerMisbehaved::Impossible(format!(
                            "event {:?} knew {:?}, which it does not depend on",
                            event.dot, witness.dot
                        ))),
                        rejection => rejection,
                    }));
                };
                let at = self.name_in(id, *witness);
                let id = placed.split.as_ref().map_or(id, |split| split.rename(at));
                if id != witness.dot.replica && !planted!("event-read-in-old-names") {
                    let known = trial.as_ref().unwrap_or(&self.shelf.known);
                    renaming.add(witness.dot.replica, Lineage::new(known, witness.dot.replica, id));
                }
            }
            let proposal = event.proposal();
            let dependencies = (event.dependencies.iter())
                .map(|witness| Witness { dot: renaming.dot(witness.dot), hash: witness.hash })
                .collect::<Vec<_>>();
            let proposal = Proposal { dot: last, dependencies: &dependencies, ..proposal };
            let known = trial.as_ref().unwrap_or(&self.shelf.known);
            match known.admit(&proposal) {
                Ok(Admission::Next) => {}
                Ok(Admission::Known) => return Err(damaged("an event that is known and is not")),
                Err(Inadmissible::Gap { .. } | Inadmissible::Dependency { .. }) => return Ok(Err(Rejection::Missing)),
                Err(error) => {
                    let why = PeerMisbehaved::Impossible(error.to_string());
                    let is_too_deep =
                        matches!(error, Inadmissible::Depth { depth, depth_max, .. } if depth > depth_max);
                    return Ok(Err(match is_too_deep && !planted!("forwarder-accused") {
                        true => Rejection::TooDeep { author: author.device, why },
                        false => Rejection::Misbehaved(why),
                    }));
                }
            }
            // Only now: what it builds on may be what grants it.
            if let Err(error) = self.shelf.access.permits(author.device, event) {
                return Ok(Err(misbehaved(error)));
            }
            if at + 1 < count {
                trial.get_or_insert_with(|| self.shelf.known.clone()).advance(&proposal);
            }
            events.push(renaming);
        }
        Ok(Ok(Admitted { placed, events, last, own }))
    }
}

impl Writing<'_> {
    /// What this commit sees of a space that is held.
    pub(super) fn histories(&self, space: SpaceId) -> Option<Histories<'_>> {
        let seen = Seen { read: self.read, batch: &self.batch };
        Some(Histories { seen, shelf: self.shelves.get(&space)?, names: self.names.get(&space)? })
    }
}

/// What `events`, named by `name`, add to the index of dots: for each replica a row, and the last event that it tells of.
pub(super) fn dot_rows(events: &[Event], name: impl Fn(Dot) -> Dot, arrival: u64) -> Vec<(Dot, DotRow)> {
    let mut rows: Vec<(Dot, DotRow)> = Vec::new();
    for event in events {
        let dot = name(event.dot);
        match rows.last_mut() {
            Some((last, row)) if last.replica == dot.replica => {
                *last = dot;
                row.hashes.push(event.hash.prefix());
            }
            _ => rows.push((dot, DotRow { arrival, hashes: vec![event.hash.prefix()] })),
        }
    }
    rows
}
