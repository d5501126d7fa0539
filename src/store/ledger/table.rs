//! What is known of a table as a whole, and its rows by version: what a client compares with what it has.
//!
//! **Invariant**: the digest of a table, or of a stretch of versions, is the sum of what stands for each of its rows, so
//! whoever knows keys and versions can add it up. What it does not do: bound the sum of a long stretch, which reads all of
//! the feed in it.

use std::ops::{ControlFlow, RangeInclusive};

use super::key;
use super::record::{self, FeedRow, TableRow};
use super::rows::{PageLimits, Standing};
use super::view::{View, damaged, object_key};
use super::writing::row_digest;
use crate::model::{CollectionName, Context, ObjectKey};
use crate::store::StoreError;

/// So many rows are read at once to be summed up.
const SUMMED_AT_ONCE: usize = 1000;

/// A table as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableSummary {
    /// How many rows are visible.
    pub rows: u64,
    /// The last version of any of its rows, deleted ones included; 0 if there was none.
    pub version: u64,
    /// When that came, in milliseconds since 1970; for people.
    pub modified_ms: Option<u64>,
    /// The highest version that a client gave one of its visible rows.
    pub source_version: Option<i64>,
    /// The sum of what stands for each visible row.
    pub digest: u128,
}

/// Which rows of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Versions {
    /// With these versions.
    Own(RangeInclusive<u64>),
    /// With these versions of clients.
    Source(RangeInclusive<i64>),
    /// With versions of clients from one to another, where of the first one only those after a key.
    SourceAfter {
        /// The first one.
        version: i64,
        /// The key.
        key: ObjectKey,
        /// The last one.
        until: i64,
    },
}

/// So many rows that clients gave the same version are told together, if there is no page limit that is higher.
const TOGETHER_MAX: usize = 1000;

/// A row in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: ObjectKey,
    /// Its version.
    pub version: u64,
    /// The version that a client gave it.
    pub source_version: Option<i64>,
    /// What stands for it in digests.
    pub digest: u128,
    /// What whoever sees it now has seen of it.
    pub context: Context,
}

/// A page of a manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The rows, by version.
    pub rows: Vec<Listed>,
    /// The sum of what stands for them.
    pub digest: u128,
    /// Where to go on: the first version that was not looked at.
    pub next: Option<Versions>,
}

impl View {
    /// A table as a whole; none if nothing was ever written to it.
    pub fn table(&self, collection: &CollectionName) -> Result<Option<TableSummary>, StoreError> {
        let Some(table) = self.collection_number(collection) else { return Ok(None) };
        let key = key::table(self.number(), table);
        let Some(value) = self.snapshot().get(&key)? else { return Ok(None) };
        let TableRow { objects, digest, position, .. } = record::read(&key, &value)?;
        let place = key::position(self.number(), position);
        let feed: Option<FeedRow> =
            self.snapshot().get(&place)?.map(|value| record::read(&place, &value)).transpose()?;
        let source_version = self.last_source(table)?;
        let modified_ms = feed.map(|feed| feed.modified_ms);
        Ok(Some(TableSummary { rows: objects, version: position, modified_ms, source_version, digest }))
    }

    /// How many rows of a table are visible, and the last version of any.
    pub fn table_count(&self, collection: &CollectionName) -> Result<Option<(u64, u64)>, StoreError> {
        let Some(table) = self.collection_number(collection) else { return Ok(None) };
        let key = key::table(self.number(), table);
        let row: Option<TableRow> = self.snapshot().get(&key)?.map(|value| record::read(&key, &value)).transpose()?;
        Ok(row.map(|row| (row.objects, row.position)))
    }

    /// How many rows of a table have these versions, and their sum; looks at no row itself.
    pub fn manifest_sum(&self, collection: &CollectionName, versions: &Versions) -> Result<(u64, u128), StoreError> {
        let Some(table) = self.collection_number(collection) else { return Ok((0, 0)) };
        let versions = match versions {
            Versions::Own(versions) => versions,
            Versions::Source(_) | Versions::SourceAfter { .. } => {
                let limits = PageLimits { rows: SUMMED_AT_ONCE, bytes: usize::MAX, looked_at: usize::MAX };
                let (mut count, mut sum, mut next) = (0, 0_u128, Some(versions.clone()));
                while let Some(versions) = next {
                    let page = self.manifest(collection, &versions, limits)?;
                    (count, sum) = (count + page.rows.len() as u64, sum.wrapping_add(page.digest));
                    next = page.next;
                }
                return Ok((count, sum));
            }
        };
        let (number, mut count, mut sum, mut result) = (self.number(), 0, 0_u128, Ok(()));
        let end = key::position(number, versions.end().saturating_add(1));
        self.snapshot().scan(&key::position(number, *versions.start()), &end, &mut |stored, value| {
            result = record::read(stored, value).and_then(|row: FeedRow| {
                let position = key::counter_at(stored, 5).ok_or_else(|| damaged("position"))?;
                if row.collection == table && !row.deleted {
                    (count, sum) = (count + 1, sum.wrapping_add(row_digest(&row.key, position)));
                }
                Ok(())
            });
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result.map(|()| (count, sum))
    }

    /// The rows of a table with these versions, by version.
    pub fn manifest(
        &self,
        collection: &CollectionName,
        versions: &Versions,
        limits: PageLimits,
    ) -> Result<Manifest, StoreError> {
        let Some(table) = self.collection_number(collection) else { return Ok(Manifest::default()) };
        let mut manifest = match versions {
            Versions::Own(versions) => self.by_version(table, versions, limits)?,
            Versions::Source(versions) => {
                let from = key::sources_from(self.number(), table, *versions.start());
                self.by_source(collection, table, &from, *versions.end(), limits)?
            }
            Versions::SourceAfter { version, key, until } => {
                // What follows on a key in the order of bytes.
                let from = [key::source(self.number(), table, *version, key.as_str()).as_slice(), &[0]].concat();
                self.by_source(collection, table, &from, *until, limits)?
            }
        };
        manifest.digest = manifest.rows.iter().fold(0, |sum: u128, row| sum.wrapping_add(row.digest));
        Ok(manifest)
    }

    fn by_version(
        &self,
        table: u32,
        versions: &RangeInclusive<u64>,
        limits: PageLimits,
    ) -> Result<Manifest, StoreError> {
        let number = self.number();
        let (from, until) = (*versions.start(), *versions.end());
        let mut found: Vec<(u64, FeedRow)> = Vec::new();
        let (mut next, mut looked_at, mut result) = (None, 0, Ok(()));
        let end = key::position(number, until.saturating_add(1));
        self.snapshot().scan(&key::position(number, from), &end, &mut |stored, value| {
            result = record::read(stored, value).and_then(|row: FeedRow| {
                let position = key::counter_at(stored, 5).ok_or_else(|| damaged("position"))?;
                if looked_at >= limits.looked_at || found.len() >= limits.rows {
                    next = Some(Versions::Own(position..=until));
                } else if row.collection == table && !row.deleted {
                    found.push((position, row));
                }
                looked_at += 1;
                Ok(())
            });
            if result.is_ok() && next.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result?;
        let list = |(version, row): (u64, FeedRow)| {
            let key: ObjectKey = row.key.parse().map_err(damaged)?;
            let collection = self.collection_name(table)?;
            let standing = self.standing(collection, &key)?.ok_or_else(|| damaged("a row that is not there"))?;
            Ok(listed(self.revision(), key, version, &standing))
        };
        Ok(Manifest { rows: found.into_iter().map(list).collect::<Result<_, _>>()?, digest: 0, next })
    }

    fn by_source(
        &self,
        collection: &CollectionName,
        table: u32,
        from: &[u8],
        until: i64,
        limits: PageLimits,
    ) -> Result<Manifest, StoreError> {
        let number = self.number();
        let prefix = key::sources(number, table);
        let end = match until.checked_add(1) {
            Some(next) => key::sources_from(number, table, next),
            None => key::after_prefix(&prefix),
        };
        let mut found: Vec<(i64, ObjectKey)> = Vec::new();
        let (mut next, mut result) = (None, Ok(()));
        self.snapshot().scan(from, &end, &mut |stored, _| {
            result = (|| {
                let version = key::source_version_at(stored, prefix.len()).ok_or_else(|| damaged("source version"))?;
                match found.last() {
                    Some((last, _)) if found.len() >= limits.rows && *last != version => {
                        next = Some(Versions::Source(version..=until));
                    }
                    // Rows of one version are told together, so that a version is enough to go on from, unless they are
                    // so many that no page can hold them.
                    Some((last, key)) if found.len() >= limits.rows.max(TOGETHER_MAX) => {
                        let last = *last;
                        next = Some(match found.iter().position(|(version, _)| *version == last) {
                            // They may fit on a page that begins with them.
                            Some(before @ 1..) => {
                                found.truncate(before);
                                Versions::Source(last..=until)
                            }
                            _ => Versions::SourceAfter { version: last, key: key.clone(), until },
                        });
                    }
                    _ => found.push((version, object_key(stored, &stored[..prefix.len() + 8])?)),
                }
                Ok(())
            })();
            if result.is_ok() && next.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result?;
        let list = |(_, key): (i64, ObjectKey)| {
            let standing = self.standing(collection, &key)?.ok_or_else(|| damaged("a row that is not there"))?;
            Ok(listed(self.revision(), key, standing.position, &standing))
        };
        Ok(Manifest { rows: found.into_iter().map(list).collect::<Result<_, _>>()?, digest: 0, next })
    }

    /// The highest version that a client gave a visible row: looked for by halves, since maps are read forwards only.
    fn last_source(&self, table: u32) -> Result<Option<i64>, StoreError> {
        let prefix = key::sources(self.number(), table);
        let end = key::after_prefix(&prefix);
        let from = |version: i64| -> Result<Option<i64>, StoreError> {
            let mut found = None;
            self.snapshot().scan(&key::sources_from(self.number(), table, version), &end, &mut |stored, _| {
                found = key::source_version_at(stored, prefix.len());
                ControlFlow::Break(())
            })?;
            Ok(found)
        };
        let Some(mut last) = from(i64::MIN)? else { return Ok(None) };
        let mut over = i64::MAX;
        while last < over {
            let half = over.wrapping_sub(last).cast_unsigned().div_ceil(2);
            let middle = last.wrapping_add_unsigned(half);
            match from(middle)? {
                Some(found) => last = found,
                None => over = middle - 1,
            }
        }
        Ok(Some(last))
    }
}

fn listed(revision: u64, key: ObjectKey, version: u64, standing: &Standing) -> Listed {
    let (digest, source_version) = (row_digest(key.as_str(), version), standing.source_version);
    Listed { key, version, source_version, digest, context: Context::of(revision, &standing.object, source_version) }
}
