//! What is not kept for ever: that rows were deleted, and the ids of clients' writes.
//!
//! Between nodes a deletion needs no record: it follows from the version vector. Only clients without one have to be told,
//! and those that stay away for longer than such records are kept begin anew.
//!
//! **Invariant**: a table's horizon rises in the transaction that removes a deletion of its rows from the feed, to that
//! deletion's position or beyond: whoever follows the table and goes on from below may miss one, and can be told so. A
//! table that is kept for long is not cut short by one that is not.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::key;
use super::record::{self, AskedRow, FeedRow, ObjectRow, TableRow};
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
    /// The last position at which a deletion was that is not told any more, of whatever table.
    pub fn horizon(&self) -> Result<u64, StoreError> {
        Ok(self.totals()?.horizon)
    }

    /// The same for whoever follows these tables only, or all of them if none are named.
    pub fn horizon_of(&self, only: Option<&BTreeSet<CollectionName>>) -> Result<u64, StoreError> {
        let Some(only) = only else { return self.horizon() };
        // What was before the revision began nobody is told of, table by table or otherwise.
        let mut horizon = self.totals()?.begun;
        for table in only.iter().filter_map(|name| self.collection_number(name)) {
            let key = key::table(self.number(), table);
            let row: Option<TableRow> =
                self.snapshot().get(&key)?.map(|value| record::read(&key, &value)).transpose()?;
            horizon = horizon.max(row.map_or(0, |row| row.horizon));
        }
        Ok(horizon)
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
        let Some(shelf) = self.shelves.get(&space) else { return Ok(()) };
        if shelf.row.revision.number() != trimming.revision {
            return Ok(());
        }
        let number = shelf.row.number;
        for position in &trimming.deletions {
            self.forget_deletion(space, number, *position)?;
        }
        if let Some(shelf) = self.shelves.get(&space).filter(|_| !trimming.deletions.is_empty()) {
            let totals = shelf.totals.clone();
            self.put(key::totals(number), &totals);
        }
        for id in &trimming.ids {
            self.batch.insert(key::asked(number, id.as_str()), None);
        }
        Ok(())
    }

    fn forget_deletion(&mut self, space: SpaceId, number: u32, position: u64) -> Result<(), StoreError> {
        let place = key::position(number, position);
        let Some(value) = self.read.get(&place)? else { return Ok(()) };
        let row: FeedRow = record::read(&place, &value)?;
        let Some(names) = self.names.get(&space).filter(|names| names.collection_name(row.collection).is_some()) else {
            return Ok(());
        };
        if !row.deleted {
            return Ok(());
        }
        let stored = key::object(number, row.collection, &row.key);
        let object = self.read.get(&stored)?;
        let object: Option<ObjectRow> = object.map(|value| record::read(&stored, &value)).transpose()?;
        let left = match object.filter(|object| object.position == position) {
            Some(object) => Some(object.object.unpack(&names.replicas).map_err(damaged)?),
            None => None,
        };
        self.batch.insert(place, None);
        // What is left of edits that lost to the delete stays.
        if left.is_some_and(|object| object.is_empty()) {
            self.batch.insert(stored, None);
        }
        if planted!("horizon-stays") {
            return Ok(());
        }
        let table = self.table_row(space, number, row.collection)?;
        table.horizon = table.horizon.max(position);
        if let Some(shelf) = self.shelves.get_mut(&space) {
            shelf.totals.horizon = shelf.totals.horizon.max(position);
        }
        Ok(())
    }
}
