//! Every event that was ever committed anywhere, and which of them lie on which disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use thence::causal::{Dot, EventHash, ReplicaId, VersionVector};
use thence::model::{CollectionName, Event, Mutation, ObjectKey, Segment, SpaceId};
use thence::replica::Stretch;
use thence::store::View;

use super::{Broken, broken, causal_order, one_event};

/// An object of one space.
pub(crate) type ObjectName = (CollectionName, ObjectKey);

/// A mutation with the name and the depth of its event.
pub(super) type Placed = (Dot, u64, Mutation);

/// What all nodes together have written.
#[derive(Debug, Default)]
pub(crate) struct History {
    segments: BTreeMap<SpaceId, BTreeMap<Arc<[u8]>, Stretch>>,
    pub(super) hashes: BTreeMap<(SpaceId, Dot), EventHash>,
    events: BTreeMap<(SpaceId, Dot), Event>,
    pub(super) mutations: BTreeMap<(SpaceId, ObjectName), Vec<Placed>>,
    /// What the author of each event knew when it wrote it.
    pub(super) pasts: BTreeMap<(SpaceId, Dot), VersionVector>,
    pub(crate) segment_bytes_max: usize,
}

/// What lies on one disk of one space, as the oracles have read it so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf {
    /// The log's events in its order.
    pub(crate) log: Vec<Dot>,
    /// The same as a vector.
    pub(crate) vector: VersionVector,
}

impl History {
    /// The first and last event of a segment; none if it was never on any disk.
    pub(crate) fn find(&self, space: SpaceId, bytes: &[u8]) -> Option<(Dot, Dot)> {
        let stretch = self.segments.get(&space)?.get(bytes)?;
        Some((stretch.first, stretch.last))
    }

    pub(super) fn depth(&self, space: SpaceId, dot: Dot) -> Option<u64> {
        self.events.get(&(space, dot)).map(|event| event.depth)
    }

    pub(crate) fn event_count(&self) -> usize {
        self.events.len()
    }

    /// All objects of a space that any event touched.
    pub(crate) fn objects(&self, space: SpaceId) -> impl Iterator<Item = &ObjectName> + '_ {
        self.mutations.keys().filter(move |(of, _)| *of == space).map(|(_, name)| name)
    }

    /// Reads what `view`, on the disk of `owner`, has beyond what `shelf` holds, and checks it on the way.
    ///
    /// Returns the objects that these events touch.
    pub(crate) fn read_on(
        &mut self,
        owner: ReplicaId,
        shelf: &mut Shelf,
        view: &View,
    ) -> Result<Vec<ObjectName>, Broken> {
        let space = view.id();
        let stretches = match view.log_after(&shelf.vector, usize::MAX) {
            Ok(stretches) => stretches,
            Err(error) => return broken("readable log", error.to_string()),
        };
        let mut touched = Vec::new();
        for stretch in stretches {
            if self.find(space, &stretch.bytes).is_none() {
                self.learn(space, &stretch.bytes)?;
                self.segments.entry(space).or_default().insert(Arc::clone(&stretch.bytes), stretch.clone());
            }
            for counter in stretch.first.counter..=stretch.last.counter {
                let dot = Dot::new(stretch.last.replica, counter);
                let Some(event) = self.events.get(&(space, dot)) else {
                    return broken("readable log", format!("the log says it has {dot:?}, but not where"));
                };
                causal_order::check_next(shelf, event)?;
                if dot.replica == owner && !self.pasts.contains_key(&(space, dot)) {
                    let past = causal_order::check_past(self, space, shelf, event)?;
                    self.pasts.insert((space, dot), past);
                }
                shelf.log.push(dot);
                shelf.vector.advance(dot);
                let names = event.mutations.iter().map(|mutation| (mutation.collection.clone(), mutation.key.clone()));
                touched.extend(names);
            }
        }
        let vector = view.vector().map_err(|error| Broken { invariant: "readable log", detail: error.to_string() })?;
        if vector != shelf.vector {
            let detail = format!("the vector is {vector:?}, the log holds {:?}", shelf.vector);
            return broken("vector and log in one batch", detail);
        }
        touched.sort();
        touched.dedup();
        Ok(touched)
    }

    /// Takes in a segment that was not on any disk before.
    fn learn(&mut self, space: SpaceId, bytes: &Arc<[u8]>) -> Result<(), Broken> {
        self.segment_bytes_max = self.segment_bytes_max.max(bytes.len());
        let segment = match Segment::verify(space, 1, Arc::clone(bytes)) {
            Ok(segment) => segment,
            Err(error) => return broken("readable log", format!("a stored segment does not verify: {error}")),
        };
        for event in segment.events() {
            one_event::check(self, space, event)?;
            self.hashes.insert((space, event.dot), event.hash);
            for mutation in &event.mutations {
                let name = (space, (mutation.collection.clone(), mutation.key.clone()));
                self.mutations.entry(name).or_default().push((event.dot, event.depth, mutation.clone()));
            }
            self.events.insert((space, event.dot), event.clone());
        }
        Ok(())
    }
}
