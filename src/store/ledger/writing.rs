//! One group commit while it is being computed.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::key::{self, Index};
use super::place::Admitted;
use super::record::{self, Author, FeedRow, HeadRow, Meta, ObjectRow, PeerRow, RenewalRow, SpaceRow, TableRow};
use super::shelf::{Names, Shelf};
use super::uploading::Places;
use super::{Done, Renewal, Renewed, Report, Work, WriteError, Written, first_grant};
use crate::causal::{Dot, EventHash, ReplicaId, Witness};
use crate::model::{
    ClientId, ClientName, CollectionName, Context, DeviceId, DeviceKey, Draft, EVENT_BYTES_MAX, Event, Grant,
    Incarnation, InvalidEdit, Mutation, OBJECT_BYTES_MAX, Object, ObjectKey, Operation, PackedEvent, PackedObject,
    Remark, Renaming, Request, Revision, Role, Segment, SignedTicket, SpaceId, TicketId, Voucher, about, shown_bytes,
};
use crate::replica::{Introduction, Rejection, SessionId, Stretch, Taken, TicketRefusal};
use crate::store::{Batch, Read, StoreError};

/// A segment of local events is closed at this size, so that no peer has to take more at once.
const SEGMENT_BYTES: usize = 256 << 10;

/// Nothing more is written beside what its author has not seen of an object that takes more than this: who always says
/// to have seen nothing would otherwise make one that costs everybody who reads it without bounds.
const BESIDE_BYTES_MAX: u64 = 4 * OBJECT_BYTES_MAX as u64;

/// What a commit cannot know by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chance {
    /// Wall time, for people.
    pub(super) now_ms: u64,
    /// Drawn at random: what a new incarnation is made of, should one have to begin.
    pub(super) nonce: u64,
}

/// An object that this commit read, and how it counted before.
pub(super) struct Held {
    before: Standing,
    pub(super) object: Object,
    /// The version that a client gave it.
    pub(super) source_version: Option<i64>,
    /// The number of the replica whose event changed it last; none if nothing did yet.
    pub(super) changed_by: Option<u32>,
    /// As whom a client did, if it was one.
    by: Option<ClientName>,
}

/// One request of a transaction.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    /// Its place in what was asked.
    pub(super) index: usize,
    pub(super) request: &'a Request,
    /// What its author had seen of the object; none if that is what is here.
    pub(super) seen: Option<&'a Context>,
    pub(super) remark: Option<&'a Remark>,
    /// So many bytes the object may have as JSON, unless it has more already.
    pub(super) bytes_max: usize,
}

/// How an object counts in totals, indexes and feed.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Standing {
    exists: bool,
    visible: bool,
    conflicted: bool,
    lost: bool,
    bytes: u64,
    position: u64,
    source_version: Option<i64>,
}

pub(super) type ObjectName = (SpaceId, CollectionName, ObjectKey);

pub(super) struct Writing<'a> {
    pub(super) read: &'a dyn Read,
    pub(super) key: &'a DeviceKey,
    pub(super) me: Incarnation,
    meta: &'a mut Meta,
    pub(super) shelves: &'a mut BTreeMap<SpaceId, Shelf>,
    pub(super) names: &'a mut BTreeMap<SpaceId, Names>,
    pub(super) chance: Chance,
    pub(super) batch: Batch,
    pub(super) objects: BTreeMap<ObjectName, Held>,
    /// The spaces whose objects are joined anew from the log: what is stored of them does not count any more.
    pub(super) rebuilt: BTreeSet<SpaceId>,
    /// Changed objects in the order of their latest change.
    order: BTreeMap<u64, ObjectName>,
    order_of: BTreeMap<ObjectName, u64>,
    next_order: u64,
    /// Replicas of which more is known than before.
    pub(super) advanced: BTreeMap<SpaceId, BTreeSet<ReplicaId>>,
    /// Local events that wait to be signed together.
    local: BTreeMap<SpaceId, Vec<(Event, PackedEvent)>>,
    pub(super) report: Report,
    pub(super) fresh: BTreeSet<SpaceId>,
    /// The spaces that went over to a revision that others began, and who was a member before.
    pub(super) followed: BTreeMap<SpaceId, Vec<Grant>>,
    pub(super) access_changed: BTreeSet<SpaceId>,
    /// The ids of clients that are new in this commit: which object each wrote to, and what the client has seen since.
    pub(super) asked: BTreeMap<(SpaceId, ClientId), (ObjectName, Context)>,
    /// The objects of which somebody wants to know where they stand after this commit.
    pub(super) placed: BTreeSet<ObjectName>,
    /// How often a removal of what was wiped failed that is not written down yet.
    pub(super) removal_errors: u64,
    /// What is counted per table that changed.
    tables: BTreeMap<(SpaceId, u32), TableRow>,
}

fn damaged(error: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged(error.to_string())
}

impl<'a> Writing<'a> {
    pub(super) fn new(
        read: &'a dyn Read,
        key: &'a DeviceKey,
        meta: &'a mut Meta,
        shelves: &'a mut BTreeMap<SpaceId, Shelf>,
        names: &'a mut BTreeMap<SpaceId, Names>,
        chance: Chance,
    ) -> Self {
        Self {
            read,
            key,
            me: meta.incarnation(),
            meta,
            shelves,
            names,
            chance,
            batch: Batch::new(),
            objects: BTreeMap::new(),
            rebuilt: BTreeSet::new(),
            order: BTreeMap::new(),
            order_of: BTreeMap::new(),
            next_order: 0,
            advanced: BTreeMap::new(),
            local: BTreeMap::new(),
            report: Report::default(),
            fresh: BTreeSet::new(),
            followed: BTreeMap::new(),
            access_changed: BTreeSet::new(),
            asked: BTreeMap::new(),
            placed: BTreeSet::new(),
            removal_errors: 0,
            tables: BTreeMap::new(),
        }
    }

    pub(super) fn perform(&mut self, work: &Work) -> Result<Done, StoreError> {
        match work {
            Work::Create { genesis, name } => {
                let space = genesis.space();
                self.hold(SpaceRow {
                    genesis: *genesis,
                    revision: Revision::first(),
                    number: 0,
                    introducer: None,
                    inherited: Vec::new(),
                    name: name.clone(),
                });
                let (collection, key) = about();
                let fields = serde_json::Map::from_iter([("name".to_owned(), name.as_str().into())]);
                let named = Request { collection, key, operation: Operation::Put(fields) };
                let _ = self.write(space, &[named, grant_request(&first_grant(self.me.device))])?;
                Ok(Done::Created(space))
            }
            Work::Join { introduction, introducer } => {
                let (begun, revision) = (introduction.genesis, &introduction.revision);
                let is_true = revision.verify(begun.space(), begun.creator).is_ok();
                if is_true && !self.shelves.contains_key(&begun.space()) {
                    self.hold(SpaceRow {
                        genesis: begun,
                        revision: revision.clone(),
                        number: 0,
                        introducer: Some(*introducer),
                        inherited: Vec::new(),
                        name: introduction.name.clone(),
                    });
                }
                Ok(Done::Done)
            }
            Work::Write { space, requests } => Ok(Done::Written(self.write_as_user(*space, requests)?)),
            Work::Upload { space, uploads } => Ok(Done::Uploaded(self.upload(*space, uploads)?)),
            Work::Trim { space, trimming } => {
                self.trim(*space, trimming)?;
                Ok(Done::Done)
            }
            Work::Wipe { space, only } => Ok(Done::Wiped(self.wipe(*space, *only)?)),
            Work::Follow { space, revision } => {
                self.follow(*space, revision)?;
                Ok(Done::Done)
            }
            Work::Remove { again, rows_max } => Ok(Done::Removed { more: self.remove_wiped(*again, *rows_max)? }),
            Work::Admit { device, ticket } => Ok(Done::Admitted(self.admit(*device, ticket)?)),
            Work::Share { space, device } => Ok(Done::Shared(self.share(*space, *device)?)),
            Work::Receive { session, space, segments } => {
                self.receive(*session, *space, segments)?;
                Ok(Done::Done)
            }
            Work::RememberPeer { device, addresses } => {
                self.put(key::peer(device.as_bytes()), addresses);
                Ok(Done::Done)
            }
            Work::ForgetPeer { device } => {
                self.batch.insert(key::peer(device.as_bytes()), None);
                Ok(Done::Done)
            }
            Work::Acknowledged(row) => {
                let held = self.shelves.get(&row.space);
                if held.is_some_and(|shelf| shelf.row.revision.number() == row.revision) {
                    let key = key::acknowledged(row.space.as_bytes(), row.device.as_bytes());
                    self.put(key, &PeerRow { vector: row.vector.clone(), synced_ms: row.synced_ms });
                }
                Ok(Done::Done)
            }
            Work::Setting { name, value } => {
                self.put(key::setting(name), value);
                Ok(Done::Done)
            }
            // Before everything that is written here: see `Writing::renew_if`.
            Work::Renew { .. } => Ok(Done::Done),
        }
    }

    /// Begins a new incarnation if `before` is still the present one, and `reason` holds.
    pub(super) fn renew_if(&mut self, before: ReplicaId, reason: Renewal) -> Result<(), StoreError> {
        let holds = |space: &SpaceId| self.shelves.get(space).map_or(0, |shelf| shelf.known.counter(before));
        // A peer may only have been quicker to tell of an event than the commit that holds it.
        let is_unfounded = matches!(&reason, Renewal::Behind { space, counter } if holds(space) >= *counter);
        if is_unfounded || self.me.replica() != before { Ok(()) } else { self.renew(reason) }
    }

    /// Begins a new incarnation: whatever was written under the old one, nothing is from now on.
    pub(super) fn renew(&mut self, reason: Renewal) -> Result<(), StoreError> {
        // Nothing was written as the new one yet, so one is enough.
        if self.report.renewed.is_some() {
            return Ok(());
        }
        // Renewals come before everything that is written here, so nothing waits to be signed as the old one.
        let before = self.me.replica();
        self.meta.nonce = self.chance.nonce;
        self.meta.renewals += 1;
        self.me = self.meta.incarnation();
        let (meta, at_ms) = (self.meta.clone(), self.chance.now_ms);
        if !planted!("restart-forgets-the-new-name") {
            self.put(key::meta(), &meta);
        }
        self.put(key::renewal(meta.renewals), &RenewalRow { before, reason, at_ms });
        self.report.renewed = Some(Renewed { before, now: self.me.replica(), reason, at_ms });
        Ok(())
    }

    pub(super) fn put<T: serde::Serialize>(&mut self, key: Vec<u8>, row: &T) {
        let value = record::write(&key, row);
        self.batch.insert(key, Some(value));
    }

    /// Begins to hold a space, which has nothing in it.
    pub(super) fn hold(&mut self, mut row: SpaceRow) {
        row.number = self.meta.next_number;
        self.meta.next_number += 1;
        let meta = self.meta.clone();
        self.put(key::meta(), &meta);
        let id = row.genesis.space();
        self.put(key::space(id.as_bytes()), &row);
        self.shelves.insert(id, Shelf::new(row));
        self.names.insert(id, Names::default());
        self.fresh.insert(id);
    }

    /// Nothing of what this commit did in a space so far counts any more: it was done in a revision that is over.
    pub(super) fn forget(&mut self, space: SpaceId) {
        self.objects.retain(|(of, ..), _| *of != space);
        self.order.retain(|_, (of, ..)| *of != space);
        self.order_of.retain(|(of, ..), _| *of != space);
        self.placed.retain(|(of, ..)| *of != space);
        self.asked.retain(|(of, _), _| *of != space);
        self.tables.retain(|(of, _), _| *of != space);
        self.rebuilt.remove(&space);
        self.advanced.remove(&space);
        self.access_changed.remove(&space);
        self.local.remove(&space);
        self.report.changed.remove(&space);
    }

    // Local writes.

    fn write_as_user(
        &mut self,
        space: SpaceId,
        requests: &[Request],
    ) -> Result<Result<Written, WriteError>, StoreError> {
        if let Err(error) = self.check_writer(space, requests.iter()) {
            return Ok(Err(error));
        }
        self.write(space, requests)
    }

    /// Whether this device may write this as a user.
    pub(super) fn check_writer<'r>(
        &self,
        space: SpaceId,
        mut requests: impl Iterator<Item = &'r Request>,
    ) -> Result<(), WriteError> {
        let Some(shelf) = self.shelves.get(&space) else { return Err(WriteError::UnknownSpace(space)) };
        let role = shelf.access.role(self.me.device);
        if role < Some(Role::Writer) && shelf.access.is_waiting() {
            return Err(WriteError::Waiting);
        }
        if role < Some(Role::Writer) && !planted!("reader-writes") {
            let role = role.map_or_else(|| "not a member yet".to_owned(), |role| role.to_string());
            return Err(WriteError::NotGranted { role });
        }
        match requests.by_ref().map(|request| &request.collection).enumerate().find(|(_, name)| name.is_reserved()) {
            Some((index, name)) => {
                let error = InvalidEdit::Name(crate::model::InvalidName::Collection(name.to_string()));
                Err(WriteError::Edit { index, error })
            }
            None => Ok(()),
        }
    }

    /// Writes one event, unless everything is so already.
    pub(super) fn write(
        &mut self,
        space: SpaceId,
        requests: &[Request],
    ) -> Result<Result<Written, WriteError>, StoreError> {
        let part = |(index, request)| Part { index, request, seen: None, remark: None, bytes_max: OBJECT_BYTES_MAX };
        let parts: Vec<Part<'_>> = requests.iter().enumerate().map(part).collect();
        Ok(self.write_event(space, &parts)?.map(|(_, written)| written))
    }

    /// Writes one event, unless everything is so already. Returns what the event is called, or would be.
    pub(super) fn write_event(
        &mut self,
        space: SpaceId,
        parts: &[Part<'_>],
    ) -> Result<Result<(Dot, Written), WriteError>, StoreError> {
        let Some(shelf) = self.shelves.get(&space) else { return Ok(Err(WriteError::UnknownSpace(space))) };
        let me = self.me.replica();
        let head = shelf.known.head(me).copied();
        let dot = Dot::new(me, head.map_or(0, |head| head.counter) + 1);
        let previous = head.map_or(EventHash::start(me), |head| head.hash);
        let own_depth = || head.map_or(0, |head| head.depth);
        let depth = 1 + if planted!("depth-of-own-events") { own_depth() } else { shelf.known.depth() };
        let mut drafts: BTreeMap<(CollectionName, ObjectKey), Draft> = BTreeMap::new();
        for Part { index, request: Request { collection, key, operation }, seen, bytes_max, .. } in parts {
            let name = (collection.clone(), key.clone());
            if !drafts.contains_key(&name) {
                let held = self.object(space, collection, key)?;
                let (before, bytes) = (&held.object, held.before.bytes);
                if bytes > BESIDE_BYTES_MAX && seen.is_some_and(|seen| !seen.covers(before)) {
                    let error = InvalidEdit::TooLarge(usize::try_from(bytes).unwrap_or(usize::MAX));
                    return Ok(Err(WriteError::Edit { index: *index, error }));
                }
                let (collection, key) = name.clone();
                let draft = match seen {
                    Some(seen) => Draft::beside(collection, key, before, seen, operation.is_blind(), dot, depth),
                    None => Draft::new(collection, key, before.clone(), dot, depth),
                };
                drafts.insert(name.clone(), draft);
            }
            let Some(draft) = drafts.get_mut(&name) else { continue };
            if let Err(error) = operation.apply(draft) {
                return Ok(Err(WriteError::Edit { index: *index, error }));
            }
            // No object has more than that anyway, so it is seldom looked at.
            if *bytes_max < OBJECT_BYTES_MAX {
                let bytes = shown_bytes(draft.object());
                if bytes > *bytes_max && bytes > shown_bytes(&self.object(space, collection, key)?.object) {
                    return Ok(Err(WriteError::RowTooLarge { index: *index, bytes, bytes_max: *bytes_max }));
                }
            }
        }
        for Part { request: Request { collection, key, .. }, remark, .. } in parts {
            let Some(version) = remark.and_then(|remark| remark.source_version) else { continue };
            let held = self.object(space, collection, key)?;
            if held.object.is_visible()
                && held.source_version != Some(version)
                && let Some(draft) = drafts.get_mut(&(collection.clone(), key.clone()))
            {
                draft.touch();
            }
        }
        let said: Vec<_> = (parts.iter())
            .filter_map(|Part { request, remark, .. }| Some((&request.collection, &request.key, (*remark)?)))
            .collect();
        let mutations: Vec<Mutation> = drafts.into_values().filter_map(Draft::finish).collect();
        let changed = mutations.len();
        if changed > 0 {
            let Some(shelf) = self.shelves.get(&space) else { return Ok(Err(WriteError::UnknownSpace(space))) };
            let (event, packed) = Event::write(dot, previous, depth, &shelf.known, mutations, &said);
            let (bytes, bytes_max) = (packed.bytes(), EVENT_BYTES_MAX);
            if bytes > bytes_max {
                return Ok(Err(WriteError::TooLarge { bytes, bytes_max }));
            }
            self.apply(space, Author { incarnation: self.me, branch: None }, &event)?;
            // Before the event is added: one of the greatest length must not come on top of others, or the segment is
            // longer than any peer takes.
            let waiting = self.local.get(&space).into_iter().flatten();
            if waiting.map(|(_, packed)| packed.bytes()).sum::<usize>() + bytes > SEGMENT_BYTES {
                self.sign(space)?;
            }
            self.local.entry(space).or_default().push((event, packed));
        }
        // Positions are given out when all of the commit is known.
        Ok(Ok((dot, Written { changed, position: 0 })))
    }

    /// Signs the local events that wait, as one segment at the end of the log.
    fn sign(&mut self, space: SpaceId) -> Result<(), StoreError> {
        let events = self.local.remove(&space).unwrap_or_default();
        let Some(shelf) = self.shelves.get(&space) else { return Ok(()) };
        if let Some(segment) = Segment::sign(space, shelf.row.revision.number(), self.me, self.key, events) {
            self.append(space, &segment, &Renaming::default(), 0);
            self.report.changed.entry(space).or_default().local = true;
        }
        Ok(())
    }

    fn admit(&mut self, device: DeviceId, ticket: &[u8]) -> Result<Result<Introduction, TicketRefusal>, StoreError> {
        let Ok(signed) = SignedTicket::from_bytes(ticket) else { return Ok(Err(TicketRefusal::Forged)) };
        let ticket = signed.ticket();
        let space = ticket.genesis.space();
        let Some(shelf) = self.shelves.get(&space) else { return Ok(Err(TicketRefusal::Unknown)) };
        if shelf.access.role(self.me.device) != Some(Role::Owner) {
            return Ok(Err(TicketRefusal::Unknown));
        }
        if shelf.access.is_waiting() {
            // Who else is let in, and how often a ticket was used, is said by grants that have not come.
            return Ok(Err(TicketRefusal::Unavailable));
        }
        if shelf.access.role(ticket.inviter) != Some(Role::Owner) && !planted!("anybodys-ticket") {
            // The same answer as for a space that is not here: who shows a ticket of their own making learns nothing.
            return Ok(Err(TicketRefusal::Unknown));
        }
        let introduction = introduce(shelf);
        // Who has redeemed it may ask again: the answer may have been lost.
        let redeemed = shelf.access.redeemers(ticket.id).any(|redeemer| redeemer == device);
        if redeemed || shelf.access.role(device) >= Some(ticket.role) {
            return Ok(Ok(introduction));
        }
        if ticket.expires_ms <= self.chance.now_ms {
            return Ok(Err(TicketRefusal::Expired));
        }
        if shelf.access.redeemers(ticket.id).count() >= usize::try_from(ticket.uses).unwrap_or(usize::MAX) {
            return Ok(Err(TicketRefusal::Used));
        }
        let grant = self.grant(space, device, ticket.role, Some(ticket.id));
        let written = self.write(space, &[grant_request(&grant)])?;
        Ok(written.map(|_| introduction).map_err(|_| TicketRefusal::Unavailable))
    }

    /// A grant, with this device's word for it where that makes an owner.
    fn grant(&self, space: SpaceId, device: DeviceId, role: Role, ticket: Option<TicketId>) -> Grant {
        let voucher = (role == Role::Owner).then(|| Voucher::sign(space, device, self.key));
        Grant { device, role, ticket, voucher }
    }

    fn share(&mut self, space: SpaceId, device: DeviceId) -> Result<Option<Introduction>, StoreError> {
        let owns =
            |shelf: &&Shelf| shelf.access.role(self.me.device) == Some(Role::Owner) && !shelf.access.is_waiting();
        let Some(shelf) = self.shelves.get(&space).filter(owns) else { return Ok(None) };
        let introduction = introduce(shelf);
        if shelf.access.role(device) == Some(Role::Owner) || planted!("cluster-peer-not-granted") {
            return Ok(Some(introduction));
        }
        let grant = self.grant(space, device, Role::Owner, None);
        let written = self.write(space, &[grant_request(&grant)])?;
        Ok(written.is_ok().then_some(introduction))
    }

    // Events of others.

    fn receive(&mut self, session: SessionId, space: SpaceId, segments: &[Segment]) -> Result<(), StoreError> {
        let mut refused: BTreeSet<ReplicaId> = BTreeSet::new();
        let Some(revision) = self.shelves.get(&space).map(|shelf| shelf.row.revision.number()) else { return Ok(()) };
        let is_of_now = |segment: &&Segment| segment.revision() == revision || planted!("old-revision-merged");
        // What was sent before the space began anew is gone like everything that was in it.
        for segment in segments.iter().filter(is_of_now) {
            // What follows a refused segment of its author cannot fit; what others wrote may.
            if refused.contains(&segment.first().replica) {
                continue;
            }
            match self.take_in(space, segment)? {
                Ok((last, known)) => {
                    let last = Witness { dot: last, hash: segment.hash().prefix() };
                    let changed = self.report.changed.entry(space).or_default();
                    changed.taken.push(Taken { session, last, known });
                }
                Err(rejection) => {
                    self.report.changed.entry(space).or_default().rejected.push((session, rejection));
                    refused.insert(segment.first().replica);
                }
            }
        }
        Ok(())
    }

    /// Applies what is new of a segment, if all of it can be. Returns what its last event is called here, and whether
    /// nothing was new.
    fn take_in(&mut self, space: SpaceId, segment: &Segment) -> Result<Result<(Dot, bool), Rejection>, StoreError> {
        let Some(histories) = self.histories(space) else { return Ok(Err(Rejection::Missing)) };
        let Admitted { placed, events, last, own } = match histories.admit(segment)? {
            Ok(admitted) => admitted,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let author = segment.author();
        if let Some(split) = &placed.split {
            self.split(space, author, split)?;
        }
        if events.is_empty() {
            return Ok(Ok((last, true)));
        }
        if author == self.me && !planted!("lost-names-used-again") {
            // An event of this very store that is not here: it was put back to what it had been before.
            self.renew(Renewal::Behind { space, counter: segment.last().counter })?;
        }
        for (event, renaming) in segment.events()[placed.known..].iter().zip(&events) {
            let event = self.read_event(space, renaming, event)?;
            let Some(shelf) = self.shelves.get(&space) else { return Ok(Err(Rejection::Missing)) };
            let author = Author::of(&shelf.known, author, event.dot.replica);
            self.apply(space, author, &event)?;
        }
        self.append(space, segment, &own, placed.known);
        Ok(Ok((last, false)))
    }

    // What both share.

    /// Joins an event to the objects that it touches, and knows it.
    fn apply(&mut self, space: SpaceId, author: Author, event: &Event) -> Result<(), StoreError> {
        self.join_objects(space, author, event)?;
        if let Some(shelf) = self.shelves.get_mut(&space) {
            let changed = shelf.known.advance(&event.proposal());
            let is_stored = |replica: &ReplicaId| *replica == event.dot.replica || !planted!("tips-not-stored");
            self.advanced.entry(space).or_default().extend(changed.into_iter().filter(is_stored));
        }
        Ok(())
    }

    /// Joins an event to the objects that it touches.
    pub(super) fn join_objects(&mut self, space: SpaceId, author: Author, event: &Event) -> Result<(), StoreError> {
        let replica = self.replica_number(space, author);
        for (at, mutation) in event.mutations.iter().enumerate() {
            if at > 0 && planted!("transaction-torn") {
                break;
            }
            let held = self.object(space, &mutation.collection, &mutation.key)?;
            mutation.apply_to(&mut held.object, event.dot, event.depth);
            held.changed_by = Some(replica);
            let said = event.remarks.iter().find(|(of, _)| usize::try_from(*of) == Ok(at));
            held.source_version = said.and_then(|(_, remark)| remark.source_version).or(held.source_version);
            held.by = said.and_then(|(_, remark)| remark.by.clone());
            let name = (space, mutation.collection.clone(), mutation.key.clone());
            if mutation.collection == CollectionName::grants() {
                let grant = Grant::from_object(mutation.key.as_str(), &held.object);
                if let Some(shelf) = self.shelves.get_mut(&space) {
                    shelf.access.learn(mutation.key.as_str(), grant);
                    self.access_changed.insert(space);
                }
            }
            if let Some(old) = self.order_of.insert(name.clone(), self.next_order) {
                self.order.remove(&old);
            }
            self.order.insert(self.next_order, name);
            self.next_order += 1;
        }
        self.remember_counts(space, event);
        self.remember_asked(space, event)
    }

    /// Puts a segment at the end of the log. `own` says what its author is called here; so many of its events were
    /// `known_before`.
    fn append(&mut self, space: SpaceId, segment: &Segment, own: &Renaming, known_before: usize) {
        let Some(shelf) = self.shelves.get_mut(&space) else { return };
        shelf.totals.arrival += 1;
        let (number, arrival) = (shelf.row.number, shelf.totals.arrival);
        let key = key::segment(number, arrival);
        let value = record::wrap(&key, segment.bytes());
        self.batch.insert(key, Some(value).filter(|_| !planted!("vector-without-events")));
        self.put_dots(space, (segment.events(), known_before), own, arrival);
        let last = own.dot(segment.last());
        let named = |event: &Event| own.dot(event.dot);
        let first = segment.events().iter().map(named).find(|dot| dot.replica == last.replica).unwrap_or(last);
        let last = Witness { dot: last, hash: segment.hash().prefix() };
        let stretch = Stretch { bytes: segment.bytes().clone(), first, last };
        self.report.changed.entry(space).or_default().written.push(stretch);
    }

    pub(super) fn replica_number(&mut self, space: SpaceId, author: Author) -> u32 {
        let names = self.names.entry(space).or_default();
        let known = names.authors.len();
        let replica = names.add_replica(author);
        if names.authors.len() > known
            && let Some(shelf) = self.shelves.get(&space)
        {
            let key = key::replica(shelf.row.number, replica);
            self.put(key, &author);
        }
        replica
    }

    /// The object as it stands in this commit.
    pub(super) fn object(
        &mut self,
        space: SpaceId,
        collection: &CollectionName,
        key: &ObjectKey,
    ) -> Result<&mut Held, StoreError> {
        let name = (space, collection.clone(), key.clone());
        if !self.objects.contains_key(&name) {
            let held = self.load(space, collection, key)?;
            self.objects.insert(name.clone(), held);
        }
        self.objects.get_mut(&name).ok_or_else(|| damaged("an object that was just read is gone"))
    }

    fn load(&self, space: SpaceId, collection: &CollectionName, key: &ObjectKey) -> Result<Held, StoreError> {
        let (before, object) = (Standing::default(), Object::new());
        let nothing = || Held { before, object: object.clone(), source_version: None, changed_by: None, by: None };
        let (Some(shelf), Some(names)) = (self.shelves.get(&space), self.names.get(&space)) else {
            return Ok(nothing());
        };
        let Some(collection) = names.collection(collection) else { return Ok(nothing()) };
        let key = key::object(shelf.row.number, collection, key.as_str());
        let Some(value) = self.read.get(&key)? else { return Ok(nothing()) };
        let row: ObjectRow = record::read(&key, &value)?;
        let source_version = row.source_version;
        let object = row.object.unpack(&names.replicas).map_err(damaged)?;
        let before = Standing {
            exists: true,
            visible: object.is_visible(),
            conflicted: object.is_conflicted(),
            lost: object.is_lost(),
            bytes: if object.is_empty() { 0 } else { value.len() as u64 },
            position: row.position,
            source_version: source_version.filter(|_| object.is_visible()),
        };
        let object = if self.rebuilt.contains(&space) { Object::new() } else { object };
        Ok(Held { before, object, source_version, changed_by: None, by: None })
    }

    /// The batch, what it will have done once it is committed, the last position of every space, and where the objects
    /// stand of which somebody wants to know it.
    pub(super) fn finish(mut self) -> Result<(Batch, Report, BTreeMap<SpaceId, u64>, Places), StoreError> {
        let unsigned: Vec<SpaceId> = self.local.keys().copied().collect();
        for space in unsigned {
            self.sign(space)?;
        }
        let mut places = Places::default();
        for name in std::mem::take(&mut self.order).into_values() {
            if let Some(held) = self.objects.remove(&name) {
                let wanted = self.placed.remove(&name).then(|| name.clone());
                let position = self.settle(name, &held, wanted.is_some())?;
                places.objects.extend(wanted.map(|name| (name, position)));
            }
        }
        for name in std::mem::take(&mut self.placed) {
            let position = self.objects.get(&name).map(|held| held.before.position);
            places.objects.insert(name, position.unwrap_or_default());
        }
        self.settle_asked(&mut places);
        for ((space, table), totals) in std::mem::take(&mut self.tables) {
            if let Some(number) = self.shelves.get(&space).map(|shelf| shelf.row.number) {
                self.put(key::table(number, table), &totals);
            }
        }
        for (space, replicas) in std::mem::take(&mut self.advanced) {
            let Some(shelf) = self.shelves.get(&space) else { continue };
            let number = shelf.row.number;
            let heads: Vec<_> = (replicas.into_iter())
                .filter_map(|replica| Some((replica, *shelf.known.head(replica)?, shelf.known.is_tip(replica))))
                .collect();
            let totals = shelf.totals.clone();
            for &(replica, head, tip) in &heads {
                let Some(at) = self.names.get(&space).and_then(|names| names.replicas.find(replica)) else { continue };
                self.put(key::head(number, at), &HeadRow { head, tip });
            }
            if !planted!("totals-not-stored") {
                self.put(key::totals(number), &totals);
            }
            let changed = self.report.changed.entry(space).or_default();
            changed.advanced = heads;
            if let (Some(split), Some(shelf)) = (&mut changed.split, self.shelves.get(&space)) {
                // More may have come in the same commit.
                split.clone_from(&shelf.known);
            }
        }
        for space in std::mem::take(&mut self.access_changed) {
            let access = self.shelves.get(&space).map(|shelf| shelf.access.clone());
            self.report.changed.entry(space).or_default().access = access;
        }
        // A space that is new in this commit is reported as a whole.
        for space in &self.fresh {
            self.report.changed.remove(space);
            if let Some(shelf) = self.shelves.get(space) {
                let held = (shelf.id, shelf.row.revision.clone(), shelf.known.clone(), shelf.access.clone());
                self.report.held.push(held);
            }
        }
        let positions = self.shelves.iter().map(|(space, shelf)| (*space, shelf.totals.position)).collect();
        Ok((self.batch, self.report, positions, places))
    }

    /// What is counted of a table, as it stands in this commit.
    pub(super) fn table_row(&mut self, space: SpaceId, number: u32, table: u32) -> Result<&mut TableRow, StoreError> {
        Ok(match self.tables.entry((space, table)) {
            Entry::Occupied(row) => row.into_mut(),
            Entry::Vacant(vacant) => {
                let key = key::table(number, table);
                let stored = self.read.get(&key)?.map(|value| record::read(&key, &value)).transpose()?;
                vacant.insert(stored.unwrap_or_default())
            }
        })
    }

    /// Counts a changed row in what is known of its table as a whole.
    fn count_in_table(
        &mut self,
        space: SpaceId,
        table: u32,
        name: &str,
        before: Standing,
        after: Standing,
    ) -> Result<(), StoreError> {
        let Some(number) = self.shelves.get(&space).map(|shelf| shelf.row.number) else { return Ok(()) };
        let totals = self.table_row(space, number, table)?;
        let digest = |standing: Standing| if standing.visible { row_digest(name, standing.position) } else { 0 };
        totals.objects = (totals.objects + u64::from(after.visible)).saturating_sub(u64::from(before.visible));
        totals.digest = totals.digest.wrapping_sub(digest(before)).wrapping_add(digest(after));
        totals.position = totals.position.max(after.position);
        if before.source_version != after.source_version {
            let sources = [(before.source_version, false), (after.source_version, true)];
            for (version, is) in sources.into_iter().filter_map(|(version, is)| Some((version?, is))) {
                let key = key::source(number, table, version, name);
                let value = is.then(|| record::wrap(&key, &[]));
                self.batch.insert(key, value);
            }
        }
        Ok(())
    }

    /// Writes one changed object, and all that counts it. Returns where it stands then: somewhere, if somebody is told.
    fn settle(&mut self, name: ObjectName, held: &Held, is_told: bool) -> Result<u64, StoreError> {
        let (space, collection, object_key) = name;
        let Some(changed_by) = held.changed_by else { return Ok(held.before.position) };
        let (Some(shelf), Some(names)) = (self.shelves.get_mut(&space), self.names.get_mut(&space)) else {
            return Ok(held.before.position);
        };
        let number = shelf.row.number;
        let at = match names.collection(&collection) {
            Some(at) => at,
            None => {
                let at = names.add_collection(collection.clone());
                let key = key::collection(number, at);
                let value = record::write(&key, &collection);
                self.batch.insert(key, Some(value).filter(|_| !planted!("collection-unnamed")));
                at
            }
        };
        let counts = !collection.is_reserved();
        let before = held.before;
        let object = &held.object;
        let mut after = Standing {
            exists: true,
            visible: object.is_visible(),
            conflicted: object.is_conflicted(),
            lost: object.is_lost(),
            bytes: 0,
            position: before.position,
            source_version: held.source_version.filter(|_| object.is_visible()),
        };
        if self.rebuilt.contains(&space) && before.exists {
            // Most objects have nothing to do with what was split, and stay as they are, where they are in the feed.
            let key = key::object(number, at, object_key.as_str());
            let packed = PackedObject::pack(object, &mut names.replicas);
            let (position, source_version) = (before.position, held.source_version);
            let row = record::write(&key, &ObjectRow { position, object: packed, source_version });
            if self.read.get(&key)? == Some(row) {
                return Ok(before.position);
            }
        }
        let batch = &mut self.batch;
        // A change that nobody can see, such as one more edit that lost to a delete, has no place in the feed; but for a
        // row that was put and deleted within this commit, if its version is told to whoever did that.
        let came_and_went = is_told && before.position == 0;
        if counts && (before.visible && !planted!("feed-forgets-deletes") || after.visible || came_and_went) {
            if before.position > 0 && !planted!("feed-keeps-old-places") {
                batch.insert(key::position(number, before.position), None);
            }
            shelf.totals.position += u64::from(!planted!("feed-gives-a-place-twice"));
            after.position = shelf.totals.position;
            let feed = FeedRow {
                collection: at,
                key: object_key.as_str().to_owned(),
                deleted: !after.visible,
                replica: changed_by,
                by: held.by.clone(),
                modified_ms: self.chance.now_ms,
            };
            let key = key::position(number, after.position);
            let value = record::write(&key, &feed);
            batch.insert(key, Some(value));
        }
        let key = key::object(number, at, object_key.as_str());
        if object.is_empty() && (after.position == 0 || planted!("feed-loses-the-deleted")) {
            batch.insert(key, None);
        } else {
            let packed = PackedObject::pack(object, &mut names.replicas);
            let (position, source_version) = (after.position, held.source_version);
            let value = record::write(&key, &ObjectRow { position, object: packed, source_version });
            after.bytes = if object.is_empty() { 0 } else { value.len() as u64 };
            batch.insert(key, Some(value));
        }
        if counts {
            let totals = &mut shelf.totals;
            // Saturating, since they are for people and may have been damaged.
            let step = |total: &mut u64, was: u64, is: u64| *total = (*total + is).saturating_sub(was);
            let count = |total: &mut u64, was: bool, is: bool| step(total, u64::from(was), u64::from(is));
            count(&mut totals.objects, before.visible && !planted!("total-counts-changes"), after.visible);
            count(&mut totals.conflicts, before.conflicted, after.conflicted);
            count(&mut totals.lost, before.lost, after.lost);
            step(&mut totals.bytes, before.bytes, after.bytes);
            self.count_in_table(space, at, object_key.as_str(), before, after)?;
            let batch = &mut self.batch;
            for (index, was, is) in
                [(Index::Conflicts, before.conflicted, after.conflicted), (Index::Lost, before.lost, after.lost)]
            {
                if was != is && (is || !planted!("index-keeps-what-was-solved")) {
                    let key = key::index(number, index, at, object_key.as_str());
                    let value = is.then(|| record::wrap(&key, &[]));
                    batch.insert(key, value);
                }
            }
        }
        Ok(after.position)
    }
}

/// What stands for a row at a version in the digest of its table: whoever knows keys and versions can add it up.
pub(super) fn row_digest(key: &str, version: u64) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.as_bytes());
    hasher.update(&[0]);
    hasher.update(&version.to_be_bytes());
    let mut digest = [0; 16];
    digest.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    u128::from_be_bytes(digest)
}

/// What a newcomer must know of a space.
fn introduce(shelf: &Shelf) -> Introduction {
    let SpaceRow { genesis, revision, name, .. } = &shelf.row;
    Introduction { genesis: *genesis, revision: revision.clone(), name: name.clone() }
}

pub(super) fn grant_request(grant: &Grant) -> Request {
    let operation = Operation::Put(grant.to_fields());
    Request { collection: CollectionName::grants(), key: Grant::key(grant.device), operation }
}
