//! What is not kept for ever: that rows were deleted, and the ids of clients' writes.
//!
//! Between nodes a deletion needs no record: it follows from the version vector. Only clients without one have to be told,
//! and those that stay away for longer than such records are kept begin anew.
//!
//! **Invariant**: the horizon rises in the transaction that removes a deletion from the feed, to that deletion's position
//! or beyond: whoever goes on from below it may miss one, and can be told so.

use std::ops::ControlFlow;

use super::key;
use super::record::{self, AskedRow, FeedRow, ObjectRow};
use super::rows::PageLimits;
use super::view::{View, damaged};
use super::writing::Writing;
use crate::model::{ClientId, CollectionName, SpaceId};
use crate::store::StoreError;

/// What can be trimmed of a space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trimming {
    /// In which revision it was found: in another one nothing of it means anything.
    pub revision: u64,
    /// Where deletions stand that nobody is told of any more.
    pub deletions: Vec<u64>,
    /// Ids that may take effect again.
    pub ids: Vec<ClientId>,
}

impl View {
    /// The last position at which a deletion was that is not told any more.
    pub fn horizon(&self) -> Result<u64, StoreError> {
        Ok(self.totals()?.horizon)
    }

    /// Where deletions stand after `after` that came before `before_ms` says for their table; and where to go on.
    pub fn old_deletions(
        &self,
        after: u64,
        before_ms: &dyn Fn(&CollectionName) -> u64,
        limits: PageLimits,
    ) -> Result<(Vec<u64>, Option<u64>), StoreError> {
        self.places(after, limits, &|collection, row| row.deleted && row.modified_ms < before_ms(collection))
    }

    /// Where rows stand after `after` that were changed last before `before_ms` says for their table, if it says so; and
    /// where to go on.
    pub fn old_rows(
        &self,
        after: u64,
        before_ms: &dyn Fn(&CollectionName) -> Option<u64>,
        limits: PageLimits,
    ) -> Result<(Vec<u64>, Option<u64>), StoreError> {
        let is_old =
            |collection: &CollectionName, at_ms: u64| before_ms(collection).is_some_and(|before| at_ms < before);
        self.places(after, limits, &|collection, row| !row.deleted && is_old(collection, row.modified_ms))
    }

    fn places(
        &self,
        after: u64,
        limits: PageLimits,
        wanted: &dyn Fn(&CollectionName, &FeedRow) -> bool,
    ) -> Result<(Vec<u64>, Option<u64>), StoreError> {
        let number = self.number();
        let (mut found, mut looked_at, mut next, mut last, mut result) = (Vec::new(), 0, None, after, Ok(()));
        let from = key::position(number, after.saturating_add(1));
        self.snapshot().scan(&from, &key::after_prefix(&key::feed(number)), &mut |stored, value| {
            if looked_at >= limits.looked_at || found.len() >= limits.rows {
                next = Some(last);
                return ControlFlow::Break(());
            }
            result = record::read(stored, value).and_then(|row: FeedRow| {
                let position = key::counter_at(stored, 5).ok_or_else(|| damaged("position"))?;
                (last, looked_at) = (position, looked_at + 1);
                if wanted(self.collection_name(row.collection)?, &row) {
                    found.push(position);
                }
                Ok(())
            });
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result.map(|()| (found, next))
    }

    /// Ids after `after` that were first heard of before `before_ms`; and where to go on.
    pub fn old_ids(
        &self,
        after: Option<&ClientId>,
        before_ms: u64,
        limits: PageLimits,
    ) -> Result<(Vec<ClientId>, Option<ClientId>), StoreError> {
        let prefix = key::all_asked(self.number());
        let mut from = after.map_or_else(|| prefix.clone(), |id| key::asked(self.number(), id.as_str()));
        from.extend(after.map(|_| 0));
        let (mut found, mut looked_at, mut last, mut is_full, mut result) = (Vec::new(), 0, None, false, Ok(()));
        self.snapshot().scan(&from, &key::after_prefix(&prefix), &mut |stored, value| {
            if looked_at >= limits.looked_at || found.len() >= limits.rows {
                is_full = true;
                return ControlFlow::Break(());
            }
            result = record::read(stored, value).and_then(|row: AskedRow| {
                let name = std::str::from_utf8(&stored[prefix.len()..]).map_err(damaged)?;
                let id = ClientId::try_from(name.to_owned()).map_err(damaged)?;
                looked_at += 1;
                if row.at_ms < before_ms {
                    found.push(id.clone());
                }
                last = Some(id);
                Ok(())
            });
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result.map(|()| (found, last.filter(|_| is_full)))
    }
}

impl Writing<'_> {
    /// Removes what was found, where it is still so.
    pub(super) fn trim(&mut self, space: SpaceId, trimming: &Trimming) -> Result<(), StoreError> {
        let (Some(shelf), Some(names)) = (self.shelves.get_mut(&space), self.names.get(&space)) else { return Ok(()) };
        if shelf.row.revision.number() != trimming.revision {
            return Ok(());
        }
        let number = shelf.row.number;
        let mut horizon = shelf.totals.horizon;
        for position in &trimming.deletions {
            let place = key::position(number, *position);
            let Some(value) = self.read.get(&place)? else { continue };
            let row: FeedRow = record::read(&place, &value)?;
            if !row.deleted || names.collection_name(row.collection).is_none() {
                continue;
            }
            let stored = key::object(number, row.collection, &row.key);
            let object = self.read.get(&stored)?;
            let object: Option<ObjectRow> = object.map(|value| record::read(&stored, &value)).transpose()?;
            let left = match object.filter(|object| object.position == *position) {
                Some(object) => Some(object.object.unpack(&names.replicas).map_err(damaged)?),
                None => None,
            };
            self.batch.insert(place, None);
            // What is left of edits that lost to the delete stays.
            if left.is_some_and(|object| object.is_empty()) {
                self.batch.insert(stored, None);
            }
            horizon = horizon.max(if planted!("horizon-stays") { 0 } else { *position });
        }
        if horizon != shelf.totals.horizon {
            shelf.totals.horizon = horizon;
            let totals = shelf.totals.clone();
            self.put(key::totals(number), &totals);
        }
        for id in &trimming.ids {
            self.batch.insert(key::asked(number, id.as_str()), None);
        }
        Ok(())
    }
}
