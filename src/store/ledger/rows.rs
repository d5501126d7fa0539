//! What a client is shown of a space, page by page: rows in key order, and what changed since a position.
//!
//! **Invariant**: a page tells up to where it looked, not only what it found: whoever goes on from there misses nothing,
//! however little a filter lets through, and however often rows change between two pages. Each row stands in the feed
//! once, at its latest change; positions are counted in the transaction that changes it, so a page never ends between
//! two rows of one position.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use serde_json::{Map, Value as Json};

use super::key::{self, Index};
use super::record::{self, FeedRow, ObjectRow};
use super::view::{View, damaged, object_key};
use crate::model::{ClientName, CollectionName, Conflict, Context, DeviceId, Object, ObjectKey};
use crate::store::StoreError;

/// A row, or that it was deleted.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its table.
    pub collection: CollectionName,
    /// Its key.
    pub key: ObjectKey,
    /// Where it stands in this node's feed of the space.
    pub version: u64,
    /// When it was changed last, in milliseconds since 1970; for people. 0 if nobody knows that any more.
    pub modified_ms: u64,
    /// Whose event that was.
    pub by: DeviceId,
    /// As whom a client wrote it by way of that device.
    pub client: Option<ClientName>,
    /// What whoever sees this has seen of it.
    pub context: Context,
    /// Its fields, each with the winner; none if it was deleted.
    pub fields: Option<Map<String, Json>>,
    /// The fields that hold several values.
    pub conflicts: Vec<Conflict>,
    /// The version that a client gave it.
    pub source_version: Option<i64>,
}

/// How much a page holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageLimits {
    /// Rows in it.
    pub rows: usize,
    /// Bytes that these take in the store, about. One row always fits.
    pub bytes: usize,
    /// Rows that are looked at, whether they are let through or not.
    pub looked_at: usize,
}

/// Rows, and up to where they were looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<At> {
    /// What was found.
    pub rows: Vec<Row>,
    /// The last place that was looked at: to go on after it.
    pub at: At,
    /// Whether nothing is left after it.
    pub is_last: bool,
}

/// An object as it is stored.
pub(super) struct Standing {
    pub(super) position: u64,
    pub(super) source_version: Option<i64>,
    pub(super) object: Object,
}

impl View {
    /// The row, if it is visible.
    pub fn row(&self, collection: &CollectionName, key: &ObjectKey) -> Result<Option<Row>, StoreError> {
        let Some(standing) = self.standing(collection, key)?.filter(|standing| standing.object.is_visible()) else {
            return Ok(None);
        };
        let feed = self.feed_row(standing.position)?;
        self.shown_row(collection.clone(), key.clone(), &feed, &standing).map(Some)
    }

    pub(super) fn standing(
        &self,
        collection: &CollectionName,
        key: &ObjectKey,
    ) -> Result<Option<Standing>, StoreError> {
        let Some(number) = self.collection_number(collection) else { return Ok(None) };
        let stored = key::object(self.number(), number, key.as_str());
        let Some(value) = self.snapshot().get(&stored)? else { return Ok(None) };
        self.read_standing(record::read(&stored, &value)?).map(Some)
    }

    fn read_standing(&self, row: ObjectRow) -> Result<Standing, StoreError> {
        let (position, source_version) = (row.position, row.source_version);
        Ok(Standing { position, source_version, object: self.unpack(row)? })
    }

    /// The visible rows after `after`, by table and key; of these tables only, if any are named.
    pub fn rows_after(
        &self,
        after: Option<&(CollectionName, ObjectKey)>,
        only: Option<&BTreeSet<CollectionName>>,
        limits: PageLimits,
    ) -> Result<Page<Option<(CollectionName, ObjectKey)>>, StoreError> {
        let mut found: Vec<(CollectionName, ObjectKey, Standing)> = Vec::new();
        let (mut at, mut looked_at, mut bytes, mut is_full) = (after.cloned(), 0, 0, false);
        for (collection, number) in self.user_collections() {
            if only.is_some_and(|only| !only.contains(collection)) || after.is_some_and(|(last, _)| collection < last) {
                continue;
            }
            let prefix = key::objects(self.number(), number);
            let mut from = match after.filter(|(last, _)| last == collection) {
                Some((_, key)) => key::object(self.number(), number, key.as_str()),
                None => prefix.clone(),
            };
            // The key that follows next on one that was told already.
            from.extend((from.len() > prefix.len()).then_some(0));
            let mut result = Ok(());
            self.snapshot().scan(&from, &key::after_prefix(&prefix), &mut |stored, value| {
                if looked_at >= limits.looked_at || found.len() >= limits.rows || bytes >= limits.bytes {
                    is_full = true;
                    return ControlFlow::Break(());
                }
                result = record::read(stored, value).and_then(|row: ObjectRow| {
                    let (key, standing) = (object_key(stored, &prefix)?, self.read_standing(row)?);
                    looked_at += 1;
                    at = Some((collection.clone(), key.clone()));
                    if standing.object.is_visible() {
                        bytes += value.len();
                        found.push((collection.clone(), key, standing));
                    }
                    Ok(())
                });
                if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            result?;
            if is_full {
                break;
            }
        }
        let rows = found.into_iter().map(|(collection, key, standing)| {
            let feed = self.feed_row(standing.position)?;
            self.shown_row(collection, key, &feed, &standing)
        });
        Ok(Page { rows: rows.collect::<Result<_, _>>()?, at, is_last: !is_full })
    }

    /// What changed after position `after` and up to `until`, each row once, as it stands now; of these tables only, if
    /// any are named.
    pub fn rows_changed(
        &self,
        after: u64,
        until: u64,
        only: Option<&BTreeSet<CollectionName>>,
        limits: PageLimits,
    ) -> Result<Page<u64>, StoreError> {
        let numbers: Option<BTreeSet<u32>> =
            only.map(|only| only.iter().filter_map(|name| self.collection_number(name)).collect());
        let is_wanted = |row: &FeedRow| numbers.as_ref().is_none_or(|numbers| numbers.contains(&row.collection));
        self.changed_where(after, until, &is_wanted, limits)
    }

    /// What was deleted after position `after` and up to `until`, and is not there again; of this table only, if one is
    /// named. However many rows are there, none of them is read.
    pub fn rows_deleted(
        &self,
        after: u64,
        until: u64,
        only: Option<&CollectionName>,
        limits: PageLimits,
    ) -> Result<Page<u64>, StoreError> {
        let number = only.map(|only| self.collection_number(only));
        let is_wanted = |row: &FeedRow| row.deleted && number.is_none_or(|number| Some(row.collection) == number);
        self.changed_where(after, until, &is_wanted, limits)
    }

    /// The rows with what is left of edits that lost to a delete, each with that as its fields, after `after`: by table,
    /// in the order in which those were made, and key.
    pub fn rows_lost(
        &self,
        after: Option<&(CollectionName, ObjectKey)>,
        limits: PageLimits,
    ) -> Result<Page<Option<(CollectionName, ObjectKey)>>, StoreError> {
        let prefix = key::indexed(self.number(), Index::Lost);
        let mut from = prefix.clone();
        if let Some((collection, key)) = after {
            let Some(number) = self.collection_number(collection) else {
                return Ok(Page { rows: Vec::new(), at: None, is_last: true });
            };
            // The key that follows next on one that was told already.
            from = key::index(self.number(), Index::Lost, number, key.as_str());
            from.push(0);
        }
        let mut names: Vec<(CollectionName, ObjectKey)> = Vec::new();
        let (mut is_last, mut result) = (true, Ok(()));
        self.snapshot().scan(&from, &key::after_prefix(&prefix), &mut |stored, _| {
            if names.len() >= limits.rows.min(limits.looked_at) {
                is_last = false;
                return ControlFlow::Break(());
            }
            result = (|| {
                let number = key::number_at(stored, prefix.len()).ok_or_else(|| damaged("index"))?;
                let key = object_key(stored, &stored[..prefix.len() + 4])?;
                names.push((self.collection_name(number)?.clone(), key));
                Ok(())
            })();
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result?;
        let (mut rows, mut at, mut bytes) = (Vec::new(), after.cloned(), 0);
        for (collection, key) in names {
            if bytes >= limits.bytes {
                is_last = false;
                break;
            }
            at = Some((collection.clone(), key.clone()));
            let Some(standing) = self.standing(&collection, &key)? else { continue };
            let feed = self.feed_row_of_lost(&key, &standing)?;
            let fields = standing.object.remains();
            bytes += serde_json::to_string(&fields).map_or(0, |text| text.len());
            rows.push(Row { fields: Some(fields), ..self.shown_row(collection, key, &feed, &standing)? });
        }
        Ok(Page { rows, at, is_last })
    }

    fn changed_where(
        &self,
        after: u64,
        until: u64,
        is_wanted: &dyn Fn(&FeedRow) -> bool,
        limits: PageLimits,
    ) -> Result<Page<u64>, StoreError> {
        let number = self.number();
        let mut found: Vec<(u64, FeedRow)> = Vec::new();
        let (mut at, mut looked_at, mut is_full) = (after, 0, false);
        let mut result = Ok(());
        let (from, end) =
            (key::position(number, after.saturating_add(1)), key::position(number, until.saturating_add(1)));
        self.snapshot().scan(&from, &end, &mut |stored, value| {
            if looked_at >= limits.looked_at || found.len() >= limits.rows {
                is_full = true;
                return ControlFlow::Break(());
            }
            result = record::read(stored, value).and_then(|row: FeedRow| {
                let position = key::counter_at(stored, 5).ok_or_else(|| damaged("position"))?;
                (at, looked_at) = (position, looked_at + 1);
                if is_wanted(&row) {
                    found.push((position, row));
                }
                Ok(())
            });
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result?;
        let (mut rows, mut bytes) = (Vec::new(), 0);
        for (position, feed) in found {
            if bytes >= limits.bytes && !rows.is_empty() {
                // What was found and does not fit is looked for again.
                let before = rows.last().map_or(after, |row: &Row| row.version);
                let at = if planted!("page-skips-what-does-not-fit") { at } else { before };
                return Ok(Page { rows, at, is_last: false });
            }
            let collection = self.collection_name(feed.collection)?.clone();
            let key: ObjectKey = feed.key.parse().map_err(damaged)?;
            let standing = self.standing(&collection, &key)?;
            let standing = standing.unwrap_or(Standing { position, source_version: None, object: Object::new() });
            let row = self.shown_row(collection, key, &feed, &standing)?;
            bytes += row.fields.as_ref().map_or(0, |fields| serde_json::to_string(fields).map_or(0, |text| text.len()));
            rows.push(row);
        }
        Ok(Page { rows, at: if is_full { at } else { until.max(after) }, is_last: !is_full })
    }

    /// Where an object stands in the feed of which only lost edits are left. If its delete is not told any more, or never
    /// was since all of it came at once, it is only known whose the latest of those edits is.
    fn feed_row_of_lost(&self, key: &ObjectKey, standing: &Standing) -> Result<FeedRow, StoreError> {
        if self.snapshot().get(&key::position(self.number(), standing.position))?.is_some() {
            return self.feed_row(standing.position);
        }
        let last = standing.object.entries().max_by_key(|(_, dot, entry)| (entry.depth, *dot));
        let replica = last.and_then(|(_, dot, _)| self.replica_number(dot.replica));
        Ok(FeedRow {
            collection: 0,
            key: key.as_str().to_owned(),
            deleted: true,
            replica: replica.ok_or_else(|| damaged("whose a lost edit is"))?,
            by: None,
            modified_ms: 0,
        })
    }

    fn feed_row(&self, position: u64) -> Result<FeedRow, StoreError> {
        let key = key::position(self.number(), position);
        let value = self.snapshot().get(&key)?.ok_or_else(|| damaged("a row that has no place in the feed"))?;
        record::read(&key, &value)
    }

    fn shown_row(
        &self,
        collection: CollectionName,
        key: ObjectKey,
        feed: &FeedRow,
        standing: &Standing,
    ) -> Result<Row, StoreError> {
        let Standing { position, source_version, object } = standing;
        Ok(Row {
            collection,
            key,
            version: *position,
            modified_ms: feed.modified_ms,
            by: self.author(feed.replica)?,
            client: feed.by.clone(),
            context: Context::of(self.revision(), object, *source_version),
            fields: object.shown(),
            conflicts: object.conflicts(),
            source_version: *source_version,
        })
    }
}
