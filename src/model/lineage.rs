//! How an event reads once one of the replicas that it names is known to have branches.
//!
//! Its author wrote `replica:counter` and knew one history under that id. From where the history is split each branch
//! has an id of its own ([`crate::causal::Branch`]), so every name in the event is replaced by the one that its author
//! would have used, had it known: in its own dot, in dependencies, in what it observed, and in counters.
//!
//! **Invariant**: the result depends only on the event and on where replicas are split, never on the order in which
//! anything was learnt; so nodes of equal knowledge read an event alike. The bytes that were hashed and signed stay as
//! they are.

use std::collections::{BTreeMap, BTreeSet};

use super::object::{Content, Slot};
use super::{Edit, Event, Incarnation, Mutation};
use crate::causal::{Dot, EventHash, Known, ReplicaId, Witness};

impl Incarnation {
    /// The id of the branch of this replica that begins with the event of this hash.
    pub fn branch(&self, first: EventHash) -> ReplicaId {
        let mut hasher = blake3::Hasher::new_derive_key("thence 1 branch");
        hasher.update(self.replica().as_bytes());
        hasher.update(if planted!("branches-share-a-name") { &[0; 32] } else { first.as_bytes() });
        let mut id = [0; 16];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        ReplicaId::from_bytes(id)
    }
}

/// What a name stood for to somebody who knew one history under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lineage {
    /// The parts of that history, each with the counter, as it was named, of its first event.
    parts: Vec<(ReplicaId, u64)>,
}

impl Lineage {
    /// The history that is named `named` and reaches into `last`, a branch of it or itself.
    pub(crate) fn new(known: &Known, named: ReplicaId, last: ReplicaId) -> Self {
        let mut ids: Vec<ReplicaId> = Vec::new();
        for id in known.lineage(last) {
            ids.push(id);
            if id == named {
                break;
            }
        }
        let before = known.offset(named);
        let parts = ids.into_iter().rev().map(|id| (id, known.offset(id).saturating_sub(before) + 1)).collect();
        Self { parts }
    }

    /// Which part the `counter`-th event lies in. A part may be empty; then what begins with it lies in the next.
    fn part(&self, counter: u64) -> usize {
        self.parts.iter().rposition(|(_, first)| *first <= counter).unwrap_or_default()
    }

    fn name(&self, counter: u64) -> Dot {
        let (replica, first) = self.parts[self.part(counter)];
        Dot::new(replica, counter.saturating_sub(first - 1))
    }
}

/// The names in one event that mean something else now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Renaming(BTreeMap<ReplicaId, Lineage>);

/// A counter's run in an ended history: which object and field, and the event that began it.
pub(crate) struct EndedRun<'a> {
    pub(crate) mutation: &'a Mutation,
    pub(crate) path: &'a super::Path,
    pub(crate) run: Dot,
}

/// Looks up how far a run had counted when its history ended: the event, and the total.
pub(crate) type Ended<'a, E> = dyn FnMut(&EndedRun<'_>) -> Result<Option<(u64, i64)>, E> + 'a;

impl Renaming {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, named: ReplicaId, lineage: Lineage) {
        self.0.insert(named, lineage);
    }

    /// What `dot` is called now.
    pub(crate) fn dot(&self, dot: Dot) -> Dot {
        self.0.get(&dot.replica).map_or(dot, |lineage| lineage.name(dot.counter))
    }

    fn dots(&self, dots: &[Dot]) -> Vec<Dot> {
        let mut dots: Vec<Dot> = dots.iter().map(|dot| self.dot(*dot)).collect();
        dots.sort_unstable();
        dots
    }

    /// The event in today's names.
    pub(crate) fn read<E>(&self, event: &Event, ended: &mut Ended<'_, E>) -> Result<Event, E> {
        let witness = |witness: &Witness| Witness { dot: self.dot(witness.dot), hash: witness.hash };
        let mutations = event.mutations.iter().map(|mutation| self.mutation(mutation, ended));
        Ok(Event {
            dot: self.dot(event.dot),
            previous: event.previous,
            hash: event.hash,
            depth: event.depth,
            dependencies: event.dependencies.iter().map(witness).collect(),
            witnesses: event.witnesses.iter().map(witness).collect(),
            mutations: mutations.collect::<Result<_, E>>()?,
            remarks: event.remarks.clone(),
        })
    }

    fn mutation<E>(&self, mutation: &Mutation, ended: &mut Ended<'_, E>) -> Result<Mutation, E> {
        let mut edits: BTreeMap<Slot, (BTreeSet<Dot>, Option<Content>)> = BTreeMap::new();
        for edit in &mutation.edits {
            let observed = self.dots(&edit.observed);
            let mut write = |slot: Slot, add: Option<Content>| {
                let entry = edits.entry(slot).or_default();
                entry.0.extend(observed.iter().copied());
                entry.1 = entry.1.take().max(add);
            };
            let counted = match &edit.slot {
                Slot::Counter { path, replica, run } => Some((path, *replica, *run, false)),
                Slot::Base { path, replica, run } => Some((path, *replica, *run, true)),
                _ => None,
            };
            let Some((path, lineage, run, is_base)) =
                counted.and_then(|(path, replica, run, is_base)| Some((path, self.0.get(&replica)?, run, is_base)))
            else {
                write(edit.slot.clone(), edit.add.clone());
                continue;
            };
            // A run that was counted on in a branch is two runs from now on: what had been counted before, which all
            // branches share, and what was counted since. Together they come to the same.
            let slot = |replica, run| match is_base {
                true => Slot::Base { path: path.clone(), replica, run },
                false => Slot::Counter { path: path.clone(), replica, run },
            };
            let begun = lineage.part(run);
            let reached = match &edit.add {
                Some(Content::Total { at, total }) => Some((lineage.part(*at).max(begun), *at, *total)),
                _ => None,
            };
            let mut counted_before: i64 = 0;
            for (number, &(replica, first)) in lineage.parts.iter().enumerate().skip(begun) {
                let run = if number == begun { run.saturating_sub(first - 1) } else { 1 };
                let add = match reached {
                    Some((part, at, total)) if number == part => {
                        let (at, total) = (at.saturating_sub(first - 1), total.saturating_sub(counted_before));
                        Some(Content::Total { at, total })
                    }
                    Some((part, ..)) if number < part => {
                        let run = Dot::new(replica, run);
                        ended(&EndedRun { mutation, path, run })?.map(|(at, total)| {
                            if !planted!("branch-counts-twice") {
                                counted_before = counted_before.saturating_add(total);
                            }
                            Content::Total { at, total }
                        })
                    }
                    _ => None,
                };
                write(slot(replica, run), add);
            }
        }
        let edits = edits.into_iter().map(|(slot, (observed, add))| Edit {
            slot,
            observed: observed.into_iter().collect(),
            add,
        });
        Ok(Mutation {
            collection: mutation.collection.clone(),
            key: mutation.key.clone(),
            whole: mutation.whole.as_ref().map(|dots| self.dots(dots)),
            edits: edits.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::causal::Branch;

    const A: ReplicaId = ReplicaId::from_bytes([1; 16]);
    const B: ReplicaId = ReplicaId::from_bytes([2; 16]);
    const C: ReplicaId = ReplicaId::from_bytes([3; 16]);

    /// A's history ends after four events; C, which goes on from B, from A, after seven.
    fn known() -> Known {
        let branch = |parent, after| Branch { root: A, parent, after, first: EventHash::start(A) };
        Known::of_branches([(B, branch(A, 4)), (C, branch(B, 7))]).expect("it leads to its root")
    }

    #[test]
    fn a_name_becomes_the_part_of_the_history_that_its_author_knew() {
        let mut names = Renaming::default();
        names.add(A, Lineage::new(&known(), A, C));
        let named = |counter| names.dot(Dot::new(A, counter));
        assert_eq!([named(1), named(4)], [Dot::new(A, 1), Dot::new(A, 4)]);
        assert_eq!([named(5), named(7)], [Dot::new(B, 1), Dot::new(B, 3)]);
        assert_eq!([named(8), named(9)], [Dot::new(C, 1), Dot::new(C, 2)]);
        let mut later = Renaming::default();
        later.add(B, Lineage::new(&known(), B, C));
        assert_eq!(later.dot(Dot::new(B, 3)), Dot::new(B, 3));
        assert_eq!(later.dot(Dot::new(B, 4)), Dot::new(C, 1));
        assert_eq!(later.dot(Dot::new(A, 9)), Dot::new(A, 9), "no other name changes");
    }

    /// A run that began with A's third event and stood at 10 when A was split; its author had counted on to 17.
    #[test]
    fn a_counter_is_told_in_parts_that_come_to_the_same() {
        let mut names = Renaming::default();
        names.add(A, Lineage::new(&known(), A, B));
        let path: super::super::Path = "n".parse().expect("a path");
        let slot = |replica, run| Slot::Counter { path: path.clone(), replica, run };
        let add = Some(Content::Total { at: 6, total: 17 });
        let mutation = Mutation {
            collection: super::super::CollectionName::user("c").expect("a name"),
            key: "k".parse().expect("a key"),
            whole: None,
            edits: vec![Edit { slot: slot(A, 3), observed: vec![Dot::new(A, 5)], add }],
        };
        let mut ended = |run: &EndedRun<'_>| {
            assert_eq!(run.run, Dot::new(A, 3));
            Ok::<_, ()>(Some((4, 10)))
        };
        let told = names.mutation(&mutation, &mut ended).expect("known");
        let edits: Vec<_> = told.edits.iter().map(|edit| (edit.slot.clone(), edit.add.clone())).collect();
        let before = (slot(A, 3), Some(Content::Total { at: 4, total: 10 }));
        let since = (slot(B, 1), Some(Content::Total { at: 2, total: 7 }));
        assert_eq!(edits, [before, since]);
        assert!(told.edits.iter().all(|edit| edit.observed == [Dot::new(B, 1)]));
    }
}
