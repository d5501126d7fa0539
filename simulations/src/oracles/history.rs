//! Every event that was ever committed anywhere, and which of them lie on which disk.
//!
//! Events are known here by their hashes: a name may come to mean two of them, when a store is copied or put back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use thence::causal::{Dot, EventHash, VersionVector, Witness};
use thence::model::{ClientId, CollectionName, DeviceId, Event, Incarnation, ObjectKey, Segment, SpaceId};
use thence::replica::Stretch;
use thence::store::{StoreError, View};

use super::trespass::{Creators, Invited};
use super::wiping::{AskedToWipe, Begun};
use super::{Broken, Era, broken, causal_order, names, one_event, thin};

/// An object of one space.
pub(crate) type ObjectName = (CollectionName, ObjectKey);

/// An event as its author wrote it.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) event: Event,
    pub(super) author: Incarnation,
    /// What its author knew when it wrote it.
    pub(super) past: BTreeSet<EventHash>,
}

/// What all nodes together have written.
#[derive(Debug, Default)]
pub(crate) struct History {
    segments: BTreeMap<Era, BTreeMap<Arc<[u8]>, Vec<EventHash>>>,
    pub(super) events: BTreeMap<(Era, EventHash), Told>,
    /// The events that bear a name, as their author wrote it.
    pub(super) named: BTreeMap<(Era, Dot), BTreeSet<EventHash>>,
    pub(super) touching: BTreeMap<(Era, ObjectName), BTreeSet<EventHash>>,
    /// The devices whose stores were copied or put back: only they may use a name twice.
    pub(crate) copied: BTreeSet<DeviceId>,
    /// The devices whose peers may see what no disk of theirs ever held, and which say of its past what they like.
    pub(crate) hostile: BTreeSet<DeviceId>,
    /// The devices whose stores were repaired: what is saved there may be something that no oracle saw before it was
    /// damaged, and then its author's past is what it says.
    pub(crate) salvaged: BTreeSet<DeviceId>,
    /// The events that bear an id of a thin client's.
    pub(super) asked: BTreeMap<(Era, ClientId), BTreeSet<EventHash>>,
    /// The ids that a device has forgotten, as it may after a time.
    pub(crate) forgotten: BTreeSet<(DeviceId, Era, ClientId)>,
    pub(crate) creators: Creators,
    pub(crate) invited: Invited,
    pub(crate) begun: Begun,
    pub(crate) asked_to_wipe: AskedToWipe,
    /// Whether this is of many worlds at once, as when all that can become of one is explored: then a name stands for
    /// other events in other worlds, and disks of one world are compared by [`super::check_disks`].
    pub(crate) of_many_worlds: bool,
    pub(crate) segment_bytes_max: usize,
}

/// What lies on one disk of one space, as the oracles have read it so far. All of it is of one era.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf {
    /// The revision of the space there; 0 as long as nothing was read.
    pub(crate) revision: u64,
    /// Who began it, as far as that disk says.
    pub(crate) began: BTreeSet<DeviceId>,
    /// The log's events in its order.
    pub(crate) log: Vec<EventHash>,
    /// The same as a set.
    pub(crate) events: BTreeSet<EventHash>,
    /// What they are called there.
    pub(crate) names: BTreeMap<EventHash, Dot>,
    /// The same as a vector.
    pub(crate) vector: VersionVector,
    /// The greatest depth of any of them.
    pub(super) depth: u64,
    /// Whether a name that an author used means several of them.
    pub(crate) is_split: bool,
}

impl Shelf {
    /// The era of the space that it is of.
    pub(crate) fn era(&self, space: SpaceId) -> Era {
        Era { space, revision: self.revision }
    }

    /// Whether `later` may have been like this at some time.
    pub(crate) fn is_earlier(&self, later: &Self) -> bool {
        let goes_on = || later.began.is_superset(&self.began) && later.log.starts_with(&self.log);
        self.revision < later.revision || self.revision == later.revision && goes_on()
    }

    /// The event that a witness tells of.
    pub(super) fn find(&self, witness: &Witness) -> Option<EventHash> {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&witness.hash);
        let least = EventHash::from_bytes(bytes);
        self.events.range(least..).next().filter(|hash| hash.prefix() == witness.hash).copied()
    }

    fn push(&mut self, hash: EventHash, name: Dot, depth: u64) {
        self.depth = self.depth.max(depth);
        self.log.push(hash);
        self.events.insert(hash);
        self.names.insert(hash, name);
        self.vector.advance(name);
    }
}

/// What was read on a disk.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// The objects that new events touch.
    pub(crate) touched: BTreeSet<ObjectName>,
    /// How many of these events the disk's own device wrote.
    pub(crate) own: usize,
    /// Whether events got other names.
    pub(crate) renamed: bool,
    /// What the disk held before the space was begun anew, if it was.
    pub(crate) left: Option<Shelf>,
}

impl History {
    /// The events of a segment; none if it was never on any disk.
    pub(crate) fn find(&self, era: Era, bytes: &[u8]) -> Option<&[EventHash]> {
        self.segments.get(&era)?.get(bytes).map(Vec::as_slice)
    }

    /// What an event was called by its author.
    pub(crate) fn dot(&self, era: Era, hash: EventHash) -> Option<Dot> {
        self.events.get(&(era, hash)).map(|told| told.event.dot)
    }

    pub(super) fn depth(&self, era: Era, hash: EventHash) -> Option<u64> {
        self.events.get(&(era, hash)).map(|told| told.event.depth)
    }

    /// Whether `device` wrote an event.
    pub(crate) fn is_by(&self, era: Era, hash: EventHash, device: DeviceId) -> bool {
        self.events.get(&(era, hash)).is_some_and(|told| told.author.device == device)
    }

    pub(crate) fn event_count(&self) -> usize {
        self.events.len()
    }

    /// The events that bear an id of a thin client's, wherever they are.
    pub(crate) fn bearing(&self, era: Era, id: &ClientId) -> impl Iterator<Item = EventHash> + '_ {
        self.asked.get(&(era, id.clone())).into_iter().flatten().copied()
    }

    /// All objects of a space that any event touched, in whatever era: of another one than the disk's nothing may be
    /// seen there.
    pub(crate) fn objects(&self, space: SpaceId) -> BTreeSet<ObjectName> {
        self.touching.keys().filter(|(of, _)| of.space == space).map(|(_, name)| name.clone()).collect()
    }

    /// The events of a segment, and their era; none if it was never on any disk.
    pub(crate) fn find_anywhere(&self, space: SpaceId, bytes: &[u8]) -> Option<(Era, &[EventHash])> {
        let of_space = self.segments.iter().filter(|(era, _)| era.space == space);
        of_space.filter_map(|(era, segments)| Some((*era, segments.get(bytes)?.as_slice()))).next()
    }

    /// Reads what `view`, on the disk of `owner`, has beyond what `shelf` holds, and checks it on the way.
    pub(crate) fn read_on(
        &mut self,
        owner: DeviceId,
        shelf: &mut Shelf,
        view: &View,
    ) -> Result<Result<Read, Broken>, StoreError> {
        let vector = view.vector()?;
        let left = match self.go_over(owner, shelf, Era::of(view), view.begun()) {
            Ok(left) => left,
            Err(wrong) => return Ok(Err(wrong)),
        };
        // Where names have changed, what was read before is not found by them.
        let known = if vector.descends(&shelf.vector) { shelf.vector.clone() } else { VersionVector::new() };
        let stretches = view.log_after(&known, usize::MAX)?;
        Ok(self.take_in(owner, shelf, Era::of(view), &vector, stretches).map(|read| Read { left, ..read }))
    }

    fn take_in(
        &mut self,
        owner: DeviceId,
        shelf: &mut Shelf,
        era: Era,
        vector: &VersionVector,
        stretches: Vec<Stretch>,
    ) -> Result<Read, Broken> {
        let mut read = Read::default();
        for stretch in stretches {
            let is_new = self.find(era, &stretch.bytes).is_none();
            if is_new {
                self.learn(era, owner, shelf, &stretch.bytes)?;
            }
            for hash in self.find(era, &stretch.bytes).unwrap_or_default().to_vec() {
                let Some(told) = self.events.get(&(era, hash)) else { continue };
                if shelf.events.contains(&hash) {
                    continue;
                }
                causal_order::check_next(shelf, &told.event)?;
                if self.of_many_worlds && !is_new && told.author.device == owner && !self.copied.contains(&owner) {
                    // In another world its author may have known something else.
                    causal_order::check_past(self, era, shelf, &shelf.events, &told.event)?;
                }
                read.own += usize::from(told.author.device == owner);
                let touched = told.event.mutations.iter().map(|m| (m.collection.clone(), m.key.clone()));
                read.touched.extend(touched);
                let name = told.event.dot;
                shelf.push(hash, name, told.event.depth);
                let twins = self.named.get(&(era, name)).into_iter().flatten();
                shelf.is_split |= twins.filter(|twin| shelf.events.contains(*twin)).count() > 1;
            }
        }
        if shelf.is_split {
            let names = names::names(self, era, &shelf.events);
            read.renamed = names != shelf.names;
            shelf.vector = names.values().copied().collect();
            shelf.names = names;
        }
        if *vector != shelf.vector {
            let detail = format!("the vector is {vector:?}, the log holds {:?}", shelf.vector);
            return broken("vector and log in one batch", detail);
        }
        Ok(read)
    }

    /// Takes in a segment that was not on any disk before, and now is on that of `owner` after what `shelf` holds.
    fn learn(&mut self, era: Era, owner: DeviceId, shelf: &Shelf, bytes: &Arc<[u8]>) -> Result<(), Broken> {
        self.segment_bytes_max = self.segment_bytes_max.max(bytes.len());
        let segment = match Segment::verify(era.space, era.revision, Arc::clone(bytes)) {
            Ok(segment) => segment,
            Err(error) => return broken("readable log", format!("a stored segment does not verify: {error}")),
        };
        let author = segment.author();
        let hostile = self.hostile.contains(&author.device);
        if author.device != owner && !hostile {
            return broken("commit before send", format!("{:?} is new, and not on its author's disk", segment.first()));
        }
        // What its author knew is what its disk held; where that cannot be said, it is what the event says.
        let is_told = hostile || self.salvaged.contains(&author.device);
        let mut past = shelf.events.clone();
        past.retain(|_| !is_told);
        for event in segment.events() {
            one_event::check(self, era, author.device, event)?;
            if !hostile && !self.events.contains_key(&(era, event.hash)) {
                thin::check_once(self, era, author.device, &shelf.events, event)?;
            }
            for id in event.remarks.iter().filter_map(|(_, remark)| remark.id.clone()) {
                self.asked.entry((era, id)).or_default().insert(event.hash);
            }
            if !self.events.contains_key(&(era, event.hash)) {
                if is_told {
                    self.follow(era, shelf, event, &mut past);
                } else {
                    causal_order::check_past(self, era, shelf, &past, event)?;
                }
                let told = Told { event: event.clone(), author, past: past.clone() };
                self.events.insert((era, event.hash), told);
            }
            self.named.entry((era, event.dot)).or_default().insert(event.hash);
            past.insert(event.hash);
            for mutation in &event.mutations {
                let name = (era, (mutation.collection.clone(), mutation.key.clone()));
                self.touching.entry(name).or_default().insert(event.hash);
            }
        }
        let hashes = segment.events().iter().map(|event| event.hash).collect();
        self.segments.entry(era).or_default().insert(Arc::clone(bytes), hashes);
        Ok(())
    }

    /// Adds to `past` all that an event says that its author knew, and all before that.
    fn follow(&self, era: Era, shelf: &Shelf, event: &Event, past: &mut BTreeSet<EventHash>) {
        let said = event.dependencies.iter().chain(&event.witnesses).filter_map(|witness| shelf.find(witness));
        for known in said.chain([event.previous]) {
            if let Some(told) = self.events.get(&(era, known)) {
                past.extend(told.past.iter().copied());
                past.insert(known);
            }
        }
    }
}
