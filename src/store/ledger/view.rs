//! Reading a space at one instant.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::ControlFlow;
use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::key::{self, Index};
use super::record::{self, DotRow, FeedRow, HeadRow, ObjectRow, Totals};
use super::{Ledger, Published, shelf};
use crate::causal::{Dot, HashPrefix, ReplicaId, VersionVector, Witness};
use crate::model::{
    CREDENTIALS_MAX, CollectionName, Conflict, DeviceId, Genesis, Grant, Object, ObjectKey, Revision, Role, Segment,
    SpaceId, TicketId, about,
};
use crate::replica::Stretch;
use crate::store::{Snapshot, StoreError};

/// One space at one instant. Later commits do not change it.
pub struct View {
    snapshot: Box<dyn Snapshot>,
    published: Published,
    device: DeviceId,
}

/// An object that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its collection.
    pub collection: CollectionName,
    /// Its key.
    pub key: ObjectKey,
    /// Its fields, each with the winner.
    pub fields: Map<String, Json>,
    /// The fields that hold several values.
    pub conflicts: Vec<Conflict>,
}

/// What happened to an object.
#[derive(Clone, Debug, PartialEq)]
pub enum ChangeKind {
    /// It is there, with these fields.
    Put(Map<String, Json>),
    /// It is not there any more.
    Delete,
}

/// The latest change of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Where it stands in this node's feed of the space. Each change gets a greater one.
    pub position: u64,
    /// Its collection.
    pub collection: CollectionName,
    /// Its key.
    pub key: ObjectKey,
    /// What happened.
    pub kind: ChangeKind,
    /// Whose event it was.
    pub by: DeviceId,
}

/// A space in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceSummary {
    /// The space.
    pub id: SpaceId,
    /// What it is called.
    pub name: String,
    /// What this device may do in it, if anything is known of that yet.
    pub role: Option<Role>,
    /// How many objects are visible.
    pub objects: u64,
    /// How many bytes they take on disk, without the log.
    pub bytes: u64,
    /// How many objects have a field with several values.
    pub conflicts: u64,
    /// How many objects are what is left of edits that lost to a delete.
    pub lost: u64,
    /// The last position in the feed.
    pub position: u64,
    /// What is known here.
    pub vector: VersionVector,
}

/// A segment with a grant, and whose it is.
type Credential = (Arc<[u8]>, DeviceId);

/// A replica id under which several copies of one store wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Whose store it was.
    pub device: DeviceId,
    /// The id. What each copy wrote has an id of its own.
    pub replica: ReplicaId,
    /// How many copies wrote, as far as is known here.
    pub copies: usize,
}

pub(super) fn damaged(error: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(error.to_string())
}

/// The key that a visitor is called with, cut to the object's own.
pub(super) fn object_key(key: &[u8], prefix: &[u8]) -> Result<ObjectKey, StoreError> {
    let name = key.get(prefix.len()..).and_then(|name| std::str::from_utf8(name).ok());
    name.and_then(|name| name.parse().ok()).ok_or_else(|| damaged("object key"))
}

impl View {
    pub(super) fn new(snapshot: Box<dyn Snapshot>, published: Published, device: DeviceId) -> Self {
        Self { snapshot, published, device }
    }

    pub(super) fn number(&self) -> u32 {
        self.published.row.number
    }

    pub(super) fn snapshot(&self) -> &dyn Snapshot {
        &*self.snapshot
    }

    pub(super) fn collection_number(&self, name: &CollectionName) -> Option<u32> {
        self.published.names.collection(name)
    }

    pub(super) fn collection_name(&self, number: u32) -> Result<&CollectionName, StoreError> {
        self.published.names.collection_name(number).ok_or_else(|| damaged("collection"))
    }

    /// The collections that users may see, by name.
    pub(super) fn user_collections(&self) -> impl Iterator<Item = (&CollectionName, u32)> + '_ {
        self.published.names.user_collections()
    }

    /// The number that stands for a replica here.
    pub(super) fn replica_number(&self, replica: ReplicaId) -> Option<u32> {
        self.published.names.replicas.find(replica)
    }

    /// Whose events those of a replica are.
    pub(super) fn author(&self, replica: u32) -> Result<DeviceId, StoreError> {
        let incarnation = self.published.names.incarnation(replica).ok_or_else(|| damaged("replica"))?;
        Ok(incarnation.device)
    }

    /// The generation of the space.
    pub fn revision(&self) -> u64 {
        self.published.row.revision.number()
    }

    /// The same, and whose word it is that there is such a one.
    pub fn begun(&self) -> &Revision {
        &self.published.row.revision
    }

    /// The space.
    pub fn id(&self) -> SpaceId {
        self.published.row.genesis.space()
    }

    /// How it began.
    pub fn genesis(&self) -> Genesis {
        self.published.row.genesis
    }

    pub(super) fn totals(&self) -> Result<Totals, StoreError> {
        let key = key::totals(self.number());
        let value = self.snapshot.get(&key)?;
        value.map_or_else(|| Ok(Totals::default()), |value| record::read(&key, &value))
    }

    /// What is known of the space.
    pub fn vector(&self) -> Result<VersionVector, StoreError> {
        let mut vector = VersionVector::new();
        shelf::rows(&*self.snapshot, &key::heads(self.number()), |key, row: HeadRow| {
            let replica = key::number_at(key, 7).and_then(|at| self.published.names.replicas.replica(at));
            vector.advance(Dot::new(replica.ok_or_else(|| damaged("head"))?, row.head.counter));
            Ok(())
        })?;
        Ok(vector)
    }

    /// The replica ids under which several copies of one store wrote.
    pub fn copied(&self) -> Vec<Copied> {
        let mut copied: BTreeMap<ReplicaId, Copied> = BTreeMap::new();
        for author in self.published.names.authors.iter().filter(|author| author.branch.is_some()) {
            let (replica, device) = (author.incarnation.replica(), author.incarnation.device);
            // Where a history is split in two, one copy more wrote than before; a copy that was itself copied again
            // shows as two branches where there was one.
            copied.entry(replica).or_insert(Copied { device, replica, copies: 0 }).copies += 1;
        }
        for replica in &self.published.inner_branches {
            copied.entry(*replica).and_modify(|copied| copied.copies = copied.copies.saturating_sub(1));
        }
        copied.into_values().collect()
    }

    /// How many objects are visible.
    pub fn objects(&self) -> Result<u64, StoreError> {
        Ok(self.totals()?.objects)
    }

    /// The last position in the feed.
    pub fn position(&self) -> Result<u64, StoreError> {
        Ok(self.totals()?.position)
    }

    /// The space in numbers.
    pub fn summary(&self) -> Result<SpaceSummary, StoreError> {
        let Totals { objects, bytes, conflicts, lost, position, .. } = self.totals()?;
        Ok(SpaceSummary {
            id: self.id(),
            name: self.name()?,
            role: self.published.access.role(self.device),
            objects,
            bytes,
            conflicts,
            lost,
            position,
            vector: self.vector()?,
        })
    }

    /// What the space is called.
    pub fn name(&self) -> Result<String, StoreError> {
        let (collection, key) = about();
        let shown = self.object(&collection, &key)?.and_then(|object| object.shown());
        let name = shown.as_ref().and_then(|fields| fields.get("name")?.as_str());
        Ok(name.map_or_else(|| self.published.row.name.clone(), str::to_owned))
    }

    fn object(&self, collection: &CollectionName, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
        let Some(number) = self.published.names.collection(collection) else { return Ok(None) };
        let stored = key::object(self.number(), number, key.as_str());
        let found = self
            .snapshot
            .get(&stored)
            .and_then(|value| value.map(|value| self.unpack(record::read(&stored, &value)?)).transpose());
        found.map_err(|error| match error {
            StoreError::Damaged(detail) => damaged(format_args!("object {key} in {collection}: {detail}")),
            other => other,
        })
    }

    pub(super) fn unpack(&self, row: ObjectRow) -> Result<Object, StoreError> {
        row.object.unpack(&self.published.names.replicas).map_err(damaged)
    }

    /// The state of an object, whatever is left of it; none if there is nothing. For the simulator's oracles.
    pub fn state(&self, collection: &CollectionName, key: &ObjectKey) -> Result<Option<Object>, StoreError> {
        Ok(self.object(collection, key)?.filter(|object| !object.is_empty()))
    }

    /// The object, if it is visible.
    pub fn get(&self, collection: &CollectionName, key: &ObjectKey) -> Result<Option<Found>, StoreError> {
        let Some(object) = self.object(collection, key)? else { return Ok(None) };
        let (collection, key) = (collection.clone(), key.clone());
        let conflicts = object.conflicts();
        Ok(object.shown().map(|fields| Found { collection, key, fields, conflicts }))
    }

    /// How many objects are visible, and how many bytes all of them take.
    pub fn size(&self) -> Result<(u64, u64), StoreError> {
        let Totals { objects, bytes, .. } = self.totals()?;
        Ok((objects, bytes))
    }

    /// The devices that may take part in the space.
    pub fn devices(&self) -> BTreeSet<DeviceId> {
        self.published.access.devices()
    }

    /// The devices that were granted something, and what.
    pub fn members(&self) -> Vec<(DeviceId, Role)> {
        self.published.access.members().map(|grant| (grant.device, grant.role)).collect()
    }

    /// How many devices were let in with this ticket.
    pub fn redeemed(&self, ticket: TicketId) -> u64 {
        self.published.access.redeemers(ticket).count() as u64
    }

    /// Whether the collection holds or held objects.
    pub fn has_collection(&self, name: &CollectionName) -> bool {
        self.collection_number(name).is_some()
    }

    /// How many collections hold or held objects.
    pub fn collections_count(&self) -> u64 {
        self.user_collections().count() as u64
    }

    /// The collections that hold or held objects, in name order.
    pub fn collections(&self) -> Vec<CollectionName> {
        self.published.names.user_collections().map(|(name, _)| name.clone()).collect()
    }

    /// Visits the visible objects, sorted by collection and key, until `visit` breaks.
    pub fn visit(
        &self,
        only: Option<&CollectionName>,
        visit: &mut dyn FnMut(&CollectionName, ObjectKey, &Object) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        for (collection, _) in self.published.names.user_collections() {
            if only.is_some_and(|only| only != collection) {
                continue;
            }
            let mut flow = ControlFlow::Continue(());
            self.visit_under(collection, "", &mut |key, object| {
                flow = visit(collection, key, object);
                flow
            })?;
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Visits the visible objects of a collection whose keys begin with `beginning`, sorted by key, until `visit` breaks;
    /// reads no others.
    pub fn visit_under(
        &self,
        collection: &CollectionName,
        beginning: &str,
        visit: &mut dyn FnMut(ObjectKey, &Object) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let Some(number) = self.collection_number(collection) else { return Ok(()) };
        let prefix = key::objects(self.number(), number);
        let from = key::object(self.number(), number, beginning);
        let mut result = Ok(ControlFlow::Continue(()));
        self.snapshot.scan(&from, &key::after_prefix(&from), &mut |key, value| {
            result = record::read(key, value).and_then(|row| {
                let object = self.unpack(row)?;
                let key = object_key(key, &prefix)?;
                Ok(if object.is_visible() { visit(key, &object) } else { ControlFlow::Continue(()) })
            });
            if matches!(result, Ok(ControlFlow::Continue(()))) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        result.map(drop)
    }

    /// The objects with a field that holds several values, sorted by collection and key.
    pub fn conflicts(&self) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::new();
        self.indexed(Index::Conflicts, |collection, key, object| {
            let conflicts = object.conflicts();
            let fields = object.remains();
            found.push(Found { collection: collection.clone(), key, fields, conflicts });
        })?;
        Ok(found)
    }

    /// What is left of edits that lost to a delete, sorted by collection and key.
    pub fn lost(&self) -> Result<Vec<Found>, StoreError> {
        let mut found = Vec::new();
        self.indexed(Index::Lost, |collection, key, object| {
            let fields = object.remains();
            found.push(Found { collection: collection.clone(), key, fields, conflicts: Vec::new() });
        })?;
        Ok(found)
    }

    fn indexed(
        &self,
        index: Index,
        mut each: impl FnMut(&CollectionName, ObjectKey, Object),
    ) -> Result<(), StoreError> {
        let prefix = key::indexed(self.number(), index);
        let mut names: BTreeMap<CollectionName, Vec<ObjectKey>> = BTreeMap::new();
        let mut result = Ok(());
        self.snapshot.scan(&prefix, &key::after_prefix(&prefix), &mut |key, _| {
            result = (|| {
                let number = key::number_at(key, prefix.len()).ok_or_else(|| damaged("index"))?;
                let name = self.published.names.collection_name(number).ok_or_else(|| damaged("index"))?;
                let key = object_key(key, &key[..prefix.len() + 4])?;
                names.entry(name.clone()).or_default().push(key);
                Ok(())
            })();
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result?;
        for (collection, keys) in names {
            for key in keys {
                if let Some(object) = self.object(&collection, &key)? {
                    each(&collection, key, object);
                }
            }
        }
        Ok(())
    }

    /// The objects whose latest change comes after `after`, each once, in the order of those changes: at most `limit`.
    pub fn changes(&self, after: u64, limit: usize) -> Result<Vec<Change>, StoreError> {
        let number = self.number();
        let skipped = u64::from(planted!("feed-page-skips-one"));
        let from = key::position(number, after.saturating_add(1 + skipped));
        let mut rows: Vec<(u64, FeedRow)> = Vec::new();
        let mut result = Ok(());
        self.snapshot.scan(&from, &key::after_prefix(&key::feed(number)), &mut |key, value| {
            if rows.len() >= limit {
                return ControlFlow::Break(());
            }
            result = record::read(key, value).and_then(|row| {
                let position = key::counter_at(key, 5).ok_or_else(|| damaged("position"))?;
                rows.push((position, row));
                Ok(())
            });
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result?;
        let names = &self.published.names;
        (rows.into_iter())
            .map(|(position, row)| {
                let collection = names.collection_name(row.collection).ok_or_else(|| damaged("feed"))?.clone();
                let key: ObjectKey = row.key.parse().map_err(damaged)?;
                let by = names.incarnation(row.replica).ok_or_else(|| damaged("feed"))?.device;
                let shown = self.object(&collection, &key)?.and_then(|object| object.shown());
                let kind = shown.map_or(ChangeKind::Delete, ChangeKind::Put);
                Ok(Change { position, collection, key, kind, by })
            })
            .collect()
    }

    /// The segments that show how this device got its role, as far as the log has them: the last one grants it, and each
    /// is of an owner that the one before it made one. Who created the space needs none.
    pub fn credentials(&self) -> Result<Vec<Arc<[u8]>>, StoreError> {
        /// More than that fits into no frame with the rest of it; grants are small, and mostly stand alone.
        const BYTES_MAX: usize = 1 << 20;
        let (mut segments, mut bytes) = (Vec::new(), 0);
        let (mut device, mut seen) = (self.device, BTreeSet::new());
        while device != self.genesis().creator && segments.len() < CREDENTIALS_MAX && seen.insert(device) {
            let Some((segment, owner)) = self.grant_of(device)? else { break };
            bytes += segment.len();
            if bytes > BYTES_MAX {
                break;
            }
            segments.push(segment);
            device = owner;
        }
        segments.reverse();
        Ok(segments)
    }

    /// The role that `segments` show `device` to have: see [`crate::model::Access::shown`]. What is known here shows
    /// nothing, since then it is the grants themselves that say who may do what.
    pub fn judge(&self, device: DeviceId, segments: &[Segment]) -> Result<Option<Role>, StoreError> {
        let Some(last) = segments.last() else { return Ok(None) };
        if self.knows(last)? { Ok(None) } else { Ok(self.published.access.shown(device, segments)) }
    }

    /// Whether the last event of a segment is known here, whatever it is called.
    fn knows(&self, segment: &Segment) -> Result<bool, StoreError> {
        let (number, names) = (self.number(), &self.published.names);
        let author = segment.author();
        for (replica, _) in (0..).zip(&names.authors).filter(|(_, other)| other.incarnation == author) {
            let Some(counter) = segment.last().counter.checked_sub(names.offset(replica)) else { continue };
            let (from, to) = (key::dot(number, replica, counter), key::after_prefix(&key::dots(number, replica)));
            let mut found = Ok(false);
            self.snapshot.scan(&from, &to, &mut |key, value| {
                found = record::read(key, value).and_then(|row: DotRow| {
                    let last = key::counter_at(key, 9).ok_or_else(|| damaged("dot"))?;
                    Ok(row.hash(counter, last) == Some(segment.hash().prefix()))
                });
                ControlFlow::Break(())
            })?;
            if found? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The segment in which `device` was granted its role last, and who did.
    fn grant_of(&self, device: DeviceId) -> Result<Option<Credential>, StoreError> {
        let Some(object) = self.object(&CollectionName::grants(), &Grant::key(device))? else { return Ok(None) };
        let Some((_, last)) = object.entries().map(|(_, dot, entry)| (entry.depth, dot)).max() else { return Ok(None) };
        let (number, names) = (self.number(), &self.published.names);
        let replica = names.replicas.find(last.replica).ok_or_else(|| damaged("replica"))?;
        let (from, to) = (key::dot(number, replica, last.counter), key::after_prefix(&key::dots(number, replica)));
        let mut row = Ok(None);
        self.snapshot.scan(&from, &to, &mut |key, value| {
            row = record::read(key, value).map(|row: DotRow| Some(row.arrival));
            ControlFlow::Break(())
        })?;
        let key = key::segment(number, row?.ok_or_else(|| damaged("dot"))?);
        let value = self.snapshot.get(&key)?.ok_or_else(|| damaged("segment"))?;
        let owner = names.incarnation(replica).ok_or_else(|| damaged("replica"))?.device;
        Ok(Some((record::unwrap(&key, &value)?.into(), owner)))
    }

    /// What lies in the log and `after` does not cover, in log order: about `bytes_max`, at least one segment.
    pub fn log_after(&self, after: &VersionVector, bytes_max: usize) -> Result<Vec<Stretch>, StoreError> {
        /// How many arrivals of one replica are looked up at once.
        const AHEAD: usize = 64;
        let number = self.number();
        let names = &self.published.names;
        let vector = self.vector()?;
        // For each replica that `after` lacks something of, its next segments by arrival, the earliest first: the
        // merge of them all is the log without what is known already, read without touching that.
        let next = |replica: u32, from: u64| -> Result<Vec<(u64, u64, HashPrefix)>, StoreError> {
            let mut arrivals = Vec::new();
            let mut result = Ok(());
            let (start, end) = (key::dot(number, replica, from), key::after_prefix(&key::dots(number, replica)));
            self.snapshot.scan(&start, &end, &mut |key, value| {
                result = record::read(key, value).and_then(|row: DotRow| {
                    let hash = row.hashes.last().copied().ok_or_else(|| damaged("dot"))?;
                    arrivals.push((row.arrival, key::counter_at(key, 9).ok_or_else(|| damaged("dot"))?, hash));
                    Ok(())
                });
                let full = arrivals.len() == AHEAD || result.is_err();
                if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            result?;
            if !planted!("catch-up-backwards") {
                arrivals.reverse();
            }
            Ok(arrivals)
        };
        let mut queues: BTreeMap<u32, Vec<(u64, u64, HashPrefix)>> = BTreeMap::new();
        let mut heap = BinaryHeap::new();
        for (replica, first, _) in vector.missing_from(after) {
            let replica = names.replicas.find(replica).ok_or_else(|| damaged("replica"))?;
            let mut arrivals = next(replica, first + u64::from(planted!("catch-up-skips-one")))?;
            if let Some((arrival, last, hash)) = arrivals.pop() {
                heap.push(std::cmp::Reverse((arrival, replica, last, hash)));
            }
            queues.insert(replica, arrivals);
        }
        let mut stretches = Vec::new();
        let mut bytes = 0;
        while let Some(std::cmp::Reverse((arrival, replica, last, hash))) = heap.pop() {
            let key = key::segment(number, arrival);
            let value = self.snapshot.get(&key)?.ok_or_else(|| damaged("segment"))?;
            let body = record::unwrap(&key, &value)?;
            let name = names.replicas.replica(replica).ok_or_else(|| damaged("replica"))?;
            // A segment that was signed before its author's history was split there begins in what it goes on from.
            let first = Segment::first_counter(body).ok_or_else(|| damaged("segment"))?;
            let first = first.saturating_sub(names.offset(replica)).max(1);
            bytes += body.len();
            let (first, end) = (Dot::new(name, first), Witness { dot: Dot::new(name, last), hash });
            stretches.push(Stretch { bytes: body.into(), first, last: end });
            if bytes >= bytes_max {
                break;
            }
            let queue = queues.entry(replica).or_default();
            if queue.is_empty() {
                *queue = next(replica, last + 1)?;
            }
            if let Some((arrival, last, hash)) = queue.pop() {
                heap.push(std::cmp::Reverse((arrival, replica, last, hash)));
            }
        }
        Ok(stretches)
    }
}

impl Ledger {
    /// A name or id as a space: none, one, or several that bear the name.
    pub fn find_space(&self, text: &str) -> Result<Vec<SpaceSummary>, StoreError> {
        let mut found = Vec::new();
        for id in self.spaces() {
            if let Some(view) = self.view(id)?
                && (id.to_string() == text || view.name()? == text)
            {
                found.push(view.summary()?);
            }
        }
        Ok(found)
    }
}
