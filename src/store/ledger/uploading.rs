//! Writes for clients that have no version vector of their own: each says what it had seen of an object, and may give its
//! write an id, under which it takes effect once.
//!
//! **Invariant**: the row that remembers an id lies in the batch of the event that bears it, here and on every node that
//! takes the event in. An id that is known changes nothing any more, whatever comes with it.

use std::collections::{BTreeMap, BTreeSet};

use super::WriteError;
use super::key;
use super::record::{self, AskedRow};
use super::view::View;
use super::writing::{ObjectName, Part, Writing};
use crate::model::{ClientId, Context, Event, OBJECT_BYTES_MAX, Remark, Request, SpaceId};
use crate::store::StoreError;

/// What a client asks to be written to one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Upload {
    /// What to do.
    pub request: Request,
    /// What the client had seen of the object; none if it counts as having seen what is here.
    pub seen: Option<Context>,
    /// It is done only if the object stands exactly so.
    pub expected: Option<Context>,
    /// It is done only in this revision of the space.
    pub only: Option<u64>,
    /// What the client says of it: a write with an id takes effect once.
    pub remark: Remark,
    /// So many bytes the object may have as JSON after it. What leaves it no larger than it was is done all the same.
    pub bytes_max: usize,
}

impl Upload {
    /// What somebody asks who saw everything that is here.
    pub fn new(request: Request) -> Self {
        Self { request, seen: None, expected: None, only: None, remark: Remark::default(), bytes_max: OBJECT_BYTES_MAX }
    }
}

/// What became of an [`Upload`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// Whether its id was known, so that nothing was done.
    pub duplicate: bool,
    /// Where the object stood in the feed after the commit in which it took effect.
    pub version: u64,
    /// What the client has seen now.
    pub seen: Context,
    /// Whether the object is there after it, which need not be what the client meant: what it had not seen stays, and what
    /// is written beside a delete is kept, and not shown. None where nothing was done.
    pub visible: Option<bool>,
}

/// Where in the feed a commit left what somebody wants to know of.
#[derive(Default)]
pub(super) struct Places {
    pub(super) objects: BTreeMap<ObjectName, u64>,
    /// The objects that were written to under the ids that are new in it.
    pub(super) ids: BTreeMap<(SpaceId, ClientId), u64>,
}

/// Gives a version to everything that took effect in this commit.
pub(super) fn give_versions(space: SpaceId, uploads: &[Upload], rows: &mut [Uploaded], places: &Places) {
    for (Upload { request, remark, .. }, row) in uploads.iter().zip(rows).filter(|(_, row)| row.version == 0) {
        let name = (space, request.collection.clone(), request.key.clone());
        // What comes with a known id may be about another object than what took effect under it.
        let by_id = remark.id.as_ref().and_then(|id| places.ids.get(&(space, id.clone())));
        row.version = by_id.or_else(|| places.objects.get(&name)).copied().unwrap_or_default();
    }
}

impl View {
    /// Whether a write that bore this id has taken effect.
    pub fn knows_id(&self, id: &ClientId) -> Result<bool, StoreError> {
        Ok(self.snapshot().get(&key::asked(self.number(), id.as_str()))?.is_some())
    }
}

impl Writing<'_> {
    /// Writes uploads as one event: all of them or none.
    ///
    /// Versions are given out when all of the commit is known: they are 0 until then, unless the id was known before.
    pub(super) fn upload(
        &mut self,
        space: SpaceId,
        uploads: &[Upload],
    ) -> Result<Result<Vec<Uploaded>, WriteError>, StoreError> {
        if let Err(error) = self.check_writer(space, uploads.iter().map(|upload| &upload.request)) {
            return Ok(Err(error));
        }
        let Some(revision) = self.shelves.get(&space).map(|shelf| shelf.row.revision.number()) else {
            return Ok(Err(WriteError::UnknownSpace(space)));
        };
        let mut done: Vec<Option<Uploaded>> = Vec::new();
        for (index, upload) in uploads.iter().enumerate() {
            let known = match &upload.remark.id {
                Some(id) => self.asked_before(space, id)?,
                None => None,
            };
            let is_of_now =
                |seen: &Context| seen.is_empty() || seen.revision() == revision || planted!("context-outlives-a-wipe");
            let is_meant = upload.only.is_none_or(|only| only == revision);
            if !is_meant || known.is_none() && !upload.seen.iter().all(is_of_now) {
                return Ok(Err(WriteError::Wiped { index }));
            }
            if let (None, Some(expected)) = (&known, &upload.expected) {
                let Request { collection, key, .. } = &upload.request;
                let held = self.object(space, collection, key)?;
                let standing = Context::of(revision, &held.object, held.source_version);
                // What is left of edits that lost is no row.
                let is_absent = expected.is_empty() && !held.object.is_visible();
                if !standing.is_of_the_state_of(expected) && !is_absent {
                    return Ok(Err(WriteError::Changed { index }));
                }
            }
            done.push(known);
        }
        // Of several with one id in this very write, the first one takes effect.
        let mut ids = BTreeSet::new();
        let mut is_first = |upload: &Upload| upload.remark.id.as_ref().is_none_or(|id| ids.insert(id.clone()));
        let fresh: Vec<Part<'_>> = (uploads.iter().zip(&done).enumerate())
            .filter(|(_, (upload, known))| known.is_none() && is_first(upload))
            .map(|(index, (Upload { request, seen, remark, bytes_max, .. }, _))| Part {
                index,
                request,
                seen: seen.as_ref(),
                remark: Some(remark).filter(|remark| !remark.is_empty()),
                bytes_max: *bytes_max,
            })
            .collect();
        let (dot, _) = match self.write_event(space, &fresh)? {
            Ok(written) => written,
            Err(error) => return Ok(Err(error)),
        };
        for Part { index, request, seen, remark, .. } in fresh {
            let held = self.object(space, &request.collection, &request.key)?;
            let (object, source_version) = (&held.object, held.source_version);
            let visible = Some(object.is_visible());
            let seen = match seen {
                Some(seen) => seen.clone().after(revision, dot, &request.operation, object, source_version),
                None => Context::of(revision, object, source_version),
            };
            let name = (space, request.collection.clone(), request.key.clone());
            self.placed.insert(name.clone());
            if let Some(id) = remark.and_then(|remark| remark.id.as_ref()) {
                self.asked.insert((space, id.clone()), (name, seen.clone()));
            }
            done[index] = Some(Uploaded { duplicate: false, version: 0, seen, visible });
        }
        for (Upload { remark, .. }, done) in uploads.iter().zip(&mut done).filter(|(_, done)| done.is_none()) {
            *done = remark.id.as_ref().map(|id| self.asked_before(space, id)).transpose()?.flatten();
        }
        Ok(Ok(done.into_iter().flatten().collect()))
    }

    /// What became of a write that bore this id.
    fn asked_before(&self, space: SpaceId, id: &ClientId) -> Result<Option<Uploaded>, StoreError> {
        if let Some((_, seen)) = self.asked.get(&(space, id.clone())) {
            return Ok(Some(Uploaded { duplicate: true, version: 0, seen: seen.clone(), visible: None }));
        }
        let Some(shelf) = self.shelves.get(&space) else { return Ok(None) };
        let key = key::asked(shelf.row.number, id.as_str());
        let row: Option<AskedRow> = self.read.get(&key)?.map(|value| record::read(&key, &value)).transpose()?;
        Ok(row.map(|row| Uploaded { duplicate: true, version: row.position, seen: row.seen, visible: None }))
    }

    /// Remembers the ids that an event bears, of which this node may not have heard.
    pub(super) fn remember_asked(&mut self, space: SpaceId, event: &Event) -> Result<(), StoreError> {
        let Some(revision) = self.shelves.get(&space).map(|shelf| shelf.row.revision.number()) else { return Ok(()) };
        for (at, remark) in &event.remarks {
            let Some(id) = &remark.id else { continue };
            if event.dot.replica != self.me.replica() && planted!("id-stays-where-it-was-written") {
                continue;
            }
            let mutation = usize::try_from(*at).ok().and_then(|at| event.mutations.get(at));
            let Some(mutation) = mutation else { continue };
            if self.asked_before(space, id)?.is_none() {
                let name = (space, mutation.collection.clone(), mutation.key.clone());
                self.placed.insert(name.clone());
                self.asked.insert((space, id.clone()), (name, Context::of_author(revision, event.dot)));
            }
        }
        Ok(())
    }

    /// Writes the rows of the ids that are new in this commit.
    pub(super) fn settle_asked(&mut self, places: &mut Places) {
        let at_ms = self.chance.now_ms;
        for ((space, id), (name, seen)) in std::mem::take(&mut self.asked) {
            let Some(shelf) = self.shelves.get(&space) else { continue };
            let position = places.objects.get(&name).copied().unwrap_or_default();
            let key = key::asked(shelf.row.number, id.as_str());
            if !planted!("id-forgotten") {
                self.put(key, &AskedRow { position, seen, at_ms });
            }
            places.ids.insert((space, id), position);
        }
    }
}
