//! Tables as a whole, and manifests: what a client compares with its own before it sends or fetches anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::audit::{Deed, Which};
use super::changes::{ROWS_MAX, page_rows};
use super::problem::{Problem, ProblemCode};
use super::row;
use super::settings::{Days, Schema, number_of};
use super::tenant::node_problem;
use super::{Access, Relay};
use crate::model::{CollectionName, ObjectKey, Operation, Remark, Request};
use crate::store::{Listed, PageLimits, StoreError, TableSummary, Upload, Versions, View, WriteError};

/// So many rows are looked at for one page of a manifest.
const LOOKED_AT_MAX: usize = 20_000;

/// Which rows of a table are to be deleted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Range {
    /// All that are visible.
    All,
    /// Those with a higher version.
    After(u64),
    /// Those with a higher version of the client's.
    AfterSource(i64),
}

/// Where a manifest by the client's own versions begins.
///
/// As text it is the version alone, or, within the rows of one version, that and the key of the last row that was listed,
/// so that a client which sends back what it was given gets on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum FromSource {
    /// With the rows of this version.
    Version(i64),
    /// With those of this version that come after that one.
    After(i64, ObjectKey),
}

impl FromSource {
    /// The rows from here to that version.
    pub fn until(self, until: i64) -> Versions {
        match self {
            Self::Version(version) => Versions::Source(version..=until),
            Self::After(version, key) => Versions::SourceAfter { version, key, until },
        }
    }
}

impl fmt::Display for FromSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => version.fmt(f),
            // Nothing in it has to be escaped in a query, whatever the key is.
            Self::After(version, key) => write!(f, "{version}.{}", BASE64URL_NOPAD.encode(key.as_str().as_bytes())),
        }
    }
}

impl TryFrom<String> for FromSource {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let parsed = match text.split_once('.') {
            None => text.parse().ok().map(Self::Version),
            Some((version, key)) => (|| {
                let key = String::from_utf8(BASE64URL_NOPAD.decode(key.as_bytes()).ok()?).ok()?;
                Some(Self::After(version.parse().ok()?, key.parse().ok()?))
            })(),
        };
        parsed.ok_or("it is neither a whole number of 64 bits nor a `next` that was given")
    }
}

fn no_table() -> Problem {
    let help = "write a row to it, or set something of it: that makes it";
    Problem::new(ProblemCode::NotFound, "there is no such table", help)
}

/// What is known of a table, and the tag that changes whenever that does.
pub(super) struct Known {
    summary: TableSummary,
    horizon: u64,
    schema: Option<Schema>,
    days: Days,
    tag: String,
}

/// Sums as they are shown.
pub fn digest_text(digest: u128) -> String {
    HEXLOWER.encode(&digest.to_be_bytes())
}

impl Relay {
    /// A table as a whole, and the tag that changes whenever it does.
    pub fn table(&self, access: &Access, table: &CollectionName) -> Result<(Json, String), Problem> {
        let view = self.view(access)?;
        let Known { summary, horizon, schema, days, tag } = self.known_table(access, &view, table)?;
        let TableSummary { rows, version, modified_ms, source_version, digest } = summary;
        let body = json!({
            "table": table.to_string(),
            "count": rows,
            "max_version": version,
            "max_source_version": source_version,
            "max_modified_ms": modified_ms,
            "digest": digest_text(digest),
            "schema": schema,
            "retention_days": days.retention,
            "expire_days": days.expiry,
            "min_retained_version": horizon,
            "revision": view.revision(),
            "epoch": self.epoch_text(),
        });
        Ok((body, tag))
    }

    /// A table that has rows, or had some, or of which something is set.
    pub(super) fn known_table(&self, access: &Access, view: &View, table: &CollectionName) -> Result<Known, Problem> {
        let failed = |error: StoreError| node_problem(error.into());
        let (summary, settings) = (view.table(table).map_err(failed)?, self.settings_of(&access.database, table)?);
        if summary.is_none() && settings.is_none() {
            return Err(no_table());
        }
        let only = BTreeSet::from([table.clone()]);
        let (summary, horizon) = (summary.unwrap_or_default(), view.horizon_of(Some(&only)).map_err(failed)?);
        let settings = settings.unwrap_or_default();
        let days = self.days(&access.database, &settings, table)?;
        let schema = settings.schema;
        let number = schema.as_ref().map_or(0, |schema| number_of(&BTreeMap::from([(table.as_str(), schema)])));
        // Versions only ever rise within an epoch, so the last one says whether any row has changed.
        let (epoch, revision, version) = (self.epoch_text(), view.revision(), summary.version);
        let (retention, expiry) = (days.retention, days.expiry.unwrap_or_default());
        let tag = format!("{epoch}-{revision}-{version}-{horizon}-{number:x}-{retention}-{expiry}");
        Ok(Known { summary, horizon, schema, days, tag })
    }

    /// The keys and versions of a table's rows; without the rows, if only the sum is wanted.
    pub fn manifest(
        &self,
        access: &Access,
        table: &CollectionName,
        versions: &Versions,
        limit: Option<u64>,
        summary_only: bool,
    ) -> Result<Json, Problem> {
        let view = self.view(access)?;
        let failed = |error: StoreError| node_problem(error.into());
        self.known_table(access, &view, table)?;
        let rows = page_rows(limit)?;
        let limits = PageLimits { rows, bytes: usize::MAX, looked_at: LOOKED_AT_MAX };
        let (count, digest, listed, next) = if summary_only {
            let (count, digest) = view.manifest_sum(table, versions).map_err(failed)?;
            (count, digest, Vec::new(), None)
        } else {
            let page = view.manifest(table, versions, limits).map_err(failed)?;
            (page.rows.len() as u64, page.digest, page.rows, page.next)
        };
        let mut body = json!({
            "count": count,
            "digest": digest_text(digest),
            "epoch": self.epoch_text(),
            "revision": view.revision(),
        });
        if !summary_only {
            let list = |Listed { key, version, source_version, digest, .. }: &Listed| {
                json!({
                    "key": key.as_str(),
                    "version": version,
                    "source_version": source_version,
                    "digest": digest_text(*digest),
                })
            };
            body["rows"] = listed.iter().map(list).collect();
            body["next"] = match next {
                Some(Versions::Own(versions)) => json!(versions.start()),
                Some(Versions::Source(versions)) => json!(versions.start()),
                Some(Versions::SourceAfter { version, key, .. }) => json!(FromSource::After(version, key).to_string()),
                None => Json::Null,
            };
        }
        Ok(body)
    }

    /// Deletes a range of rows, if the table stands as `expected`. Returns how many.
    ///
    /// What is written to the table meanwhile is not in the range. A range that is long is deleted in several steps; should
    /// the relay stop between two of them, the rest is still there and the request can be sent again.
    pub async fn delete_range(
        &self,
        access: &Access,
        table: &CollectionName,
        range: Range,
        expected: Option<&str>,
    ) -> Result<Json, Problem> {
        let view = self.view(access)?;
        let Known { summary, tag, .. } = self.known_table(access, &view, table)?;
        match expected {
            None => {
                let help =
                    "send `If-Match` with the ETag of the table, so that nothing is deleted which you have not seen";
                return Err(Problem::new(ProblemCode::Changed, "a range is deleted only with `If-Match`", help));
            }
            Some(expected) if expected != tag => {
                let help = "read the table again, and look at what is new before you delete";
                return Err(Problem::new(ProblemCode::Changed, "the table has changed", help).with("etag", tag));
            }
            Some(_) => {}
        }
        let versions = match range {
            Range::All => Some(Versions::Own(0..=summary.version)),
            Range::After(after) => after.checked_add(1).map(|from| Versions::Own(from..=summary.version)),
            Range::AfterSource(after) => after.checked_add(1).map(|from| Versions::Source(from..=i64::MAX)),
        };
        let mut count = 0;
        let removed = self.remove(access, view, table, versions, &mut count).await;
        if count > 0 {
            let which = if range == Range::All { Which::All } else { Which::Range };
            let (database, table, keys) = (access.database.name.clone(), table.clone(), Vec::new());
            self.note(access, &Deed::Delete { database, table, which, count, keys }).await;
        }
        removed.map(|()| json!({"deleted_rows": count, "epoch": self.epoch_text()}))
    }

    /// Removes the rows of these versions as they stand in `view`, and counts them.
    async fn remove(
        &self,
        access: &Access,
        view: View,
        table: &CollectionName,
        versions: Option<Versions>,
        deleted: &mut u64,
    ) -> Result<(), Problem> {
        let failed = |error: StoreError| node_problem(error.into());
        let limits = PageLimits { rows: ROWS_MAX, bytes: usize::MAX, looked_at: LOOKED_AT_MAX };
        let mut next = versions.filter(|versions| !is_empty(versions));
        while let Some(versions) = next {
            let page = view.manifest(table, &versions, limits).map_err(failed)?;
            next = page.next;
            let remove = |row: Listed| {
                let request = Request { collection: table.clone(), key: row.key, operation: Operation::Delete };
                // Only as it stood when the tag was compared: what was written to it since has been seen by nobody here.
                let remark = Remark { by: access.principal.client_name(), ..Remark::default() };
                vec![Upload { expected: Some(row.context), remark, ..Upload::new(request) }]
            };
            let parts: Vec<Vec<Upload>> = page.rows.into_iter().map(remove).collect();
            for outcome in self.node.upload(access.database.space, parts).await {
                match outcome.map_err(node_problem)? {
                    Ok(_) => *deleted += 1,
                    // Written to meanwhile, and so not in the range any more; or gone, which is what was asked for.
                    Err(WriteError::Changed { .. }) => {}
                    Err(error) => return Err(row::write_problem(&error)),
                }
            }
        }
        Ok(())
    }
}

fn is_empty(versions: &Versions) -> bool {
    match versions {
        Versions::Own(versions) => RangeInclusive::is_empty(versions),
        Versions::Source(versions) => RangeInclusive::is_empty(versions),
        Versions::SourceAfter { version, until, .. } => version > until,
    }
}
