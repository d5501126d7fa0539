//! What a relay does by itself: rows expire, deletions and ids are forgotten in time.
//!
//! **Invariant**: nothing is deleted that was changed after it was looked at, and every step is a commit of its own: a
//! relay that stops in between goes on where it was when it looks again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::problem::Problem;
use super::settings::Days;
use super::tenant::node_problem;
use super::{Database, Relay};
use crate::model::{CollectionName, Operation, Request};
use crate::store::{PageLimits, Row, Trimming, Upload};

/// How often it is looked.
pub const KEPT_EVERY: Duration = Duration::from_secs(3600);
/// How long an id takes effect once, in days.
pub const ID_DAYS: u32 = 30;
/// How much is looked at and removed in one step.
const STEP: PageLimits = PageLimits { rows: 500, bytes: usize::MAX, looked_at: 10_000 };
const DAY_MS: u64 = 86_400_000;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Rows that expired.
    pub expired: u64,
    /// Deletions that are not told any more.
    pub forgotten: u64,
    /// Ids that may take effect again.
    pub ids: u64,
}

impl Relay {
    /// Looks after every database once.
    pub async fn keep(&self) -> Result<Kept, Problem> {
        let mut kept = Kept::default();
        for database in self.tenants.databases()? {
            let done = self.keep_database(&database).await?;
            kept.expired += done.expired;
            kept.forgotten += done.forgotten;
            kept.ids += done.ids;
        }
        Ok(kept)
    }

    async fn keep_database(&self, database: &Database) -> Result<Kept, Problem> {
        let (days, now_ms) = (self.days_of_tables(database)?, self.node.surroundings().wall_ms());
        let before = |days: u32| now_ms.saturating_sub(u64::from(days) * DAY_MS);
        let mut kept = Kept { expired: self.expire(database, &days, now_ms).await?, ..Kept::default() };
        // A table that came since is looked after the next time.
        let told_since = |table: &CollectionName| days.get(table).map_or(0, |days| before(days.retention));
        let mut after = Some(0);
        while let Some(from) = after {
            let view = self.node.view(database.space).map_err(node_problem)?;
            let old = view.old_deletions(from, &told_since, STEP);
            let (deletions, next) = old.map_err(|error| node_problem(error.into()))?;
            after = next;
            kept.forgotten += deletions.len() as u64;
            self.trim(database, Trimming { deletions, ids: Vec::new() }).await?;
        }
        let mut after = Some(None);
        while let Some(from) = after {
            let view = self.node.view(database.space).map_err(node_problem)?;
            let old = view.old_ids(from.as_ref(), before(ID_DAYS), STEP);
            let (ids, next) = old.map_err(|error| node_problem(error.into()))?;
            after = next.map(Some);
            kept.ids += ids.len() as u64;
            self.trim(database, Trimming { deletions: Vec::new(), ids }).await?;
        }
        Ok(kept)
    }

    async fn trim(&self, database: &Database, trimming: Trimming) -> Result<(), Problem> {
        if trimming == Trimming::default() {
            return Ok(());
        }
        self.node.trim(database.space, trimming).await.map_err(node_problem)
    }

    fn days_of_tables(&self, database: &Database) -> Result<BTreeMap<CollectionName, Days>, Problem> {
        let settings = self.settings(database)?;
        let tables = self.node.view(database.space).map_err(node_problem)?.collections();
        tables
            .into_iter()
            .map(|table| Ok((table.clone(), self.days(database, &settings.of(&table), &table)?)))
            .collect()
    }

    /// Deletes the rows that nobody has changed for as long as is set for their table.
    async fn expire(
        &self,
        database: &Database,
        days: &BTreeMap<CollectionName, Days>,
        now_ms: u64,
    ) -> Result<u64, Problem> {
        let before = |table: &CollectionName| {
            let days = days.get(table)?.expiry?;
            Some(now_ms.saturating_sub(u64::from(days) * DAY_MS))
        };
        if days.values().all(|days| days.expiry.is_none()) {
            return Ok(0);
        }
        let (mut expired, mut after) = (0, Some(0));
        while let Some(from) = after {
            let view = self.node.view(database.space).map_err(node_problem)?;
            let failed = |error: crate::store::StoreError| node_problem(error.into());
            let (places, next) = view.old_rows(from, &before, STEP).map_err(failed)?;
            after = next;
            let mut parts = Vec::new();
            for place in places {
                let page = view.rows_changed(place - 1, place, None, STEP).map_err(failed)?;
                parts.extend(page.rows.into_iter().map(expiry));
            }
            for outcome in self.node.upload(database.space, parts).await {
                // Who changed it meanwhile keeps it.
                expired += u64::from(outcome.map_err(node_problem)?.is_ok());
            }
        }
        Ok(expired)
    }
}

fn expiry(row: Row) -> Vec<Upload> {
    let request = Request { collection: row.collection, key: row.key, operation: Operation::Delete };
    vec![Upload { expected: Some(row.context), ..Upload::new(request) }]
}
