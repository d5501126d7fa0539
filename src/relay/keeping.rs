//! What a relay does by itself: rows expire, deletions and ids are forgotten in time.
//!
//! **Invariant**: nothing is deleted that was changed after it was looked at, and every step is a commit of its own: a
//! relay that stops in between goes on where it was when it looks again.

use std::collections::BTreeMap;
use std::time::Duration;

use super::audit::{BY_ITSELF, Deed, Which};
use super::problem::Problem;
use super::settings::{Days, RETENTION_DAYS};
use super::tenant::node_problem;
use super::{Database, Relay};
use crate::model::{CollectionName, Operation, Request, SpaceId};
use crate::store::{PageLimits, Row, Trimming, Upload};

/// How often it is looked.
pub const KEPT_EVERY: Duration = Duration::from_secs(3600);
/// How long an id takes effect once, in days.
pub const ID_DAYS: u32 = 30;
/// How much is looked at and removed in one step.
const STEP: PageLimits = PageLimits { rows: 500, bytes: usize::MAX, looked_at: 10_000 };
pub(super) const DAY_MS: u64 = 86_400_000;

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Rows that expired.
    pub expired: u64,
    /// Deletions that are not told any more.
    pub forgotten: u64,
    /// Ids that may take effect again.
    pub ids: u64,
    /// Entries of the audit that are too old.
    pub audit: u64,
}

impl Relay {
    /// Looks after every database once. What it reads it reads on the thread that it runs on, step by step: give it one of
    /// its own.
    pub async fn keep(&self) -> Result<Kept, Problem> {
        let mut kept = Kept::default();
        for database in self.tenants.databases()? {
            match self.keep_database(&database).await {
                Ok(done) => {
                    kept.expired += done.expired;
                    kept.forgotten += done.forgotten;
                    kept.ids += done.ids;
                }
                // The others can be looked after all the same.
                Err(problem) => {
                    tracing::warn!(space = %database.space, %problem, "cannot look after a database");
                }
            }
        }
        kept.audit = self.tenants.forget_audit().await?;
        let before = self.node.surroundings().wall_ms().saturating_sub(u64::from(RETENTION_DAYS) * DAY_MS);
        self.forget_deletions(self.tenants.system(), &|_| before).await?;
        Ok(kept)
    }

    async fn keep_database(&self, database: &Database) -> Result<Kept, Problem> {
        let (days, now_ms) = (self.days_of_tables(database)?, self.node.surroundings().wall_ms());
        let before = |days: u32| now_ms.saturating_sub(u64::from(days) * DAY_MS);
        let mut kept = Kept { expired: self.expire(database, &days, now_ms).await?, ..Kept::default() };
        // A table that came since is looked after the next time.
        let told_since = |table: &CollectionName| days.get(table).map_or(0, |days| before(days.retention));
        kept.forgotten = self.forget_deletions(database.space, &told_since).await?;
        let mut after = Some(None);
        while let Some(from) = after {
            let view = self.node.view(database.space).map_err(node_problem)?;
            let old = view.old_ids(from.as_ref(), before(ID_DAYS), STEP);
            let (ids, next) = old.map_err(|error| node_problem(error.into()))?;
            after = next.map(Some);
            kept.ids += ids.len() as u64;
            self.trim(database.space, Trimming { revision: view.revision(), deletions: Vec::new(), ids }).await?;
        }
        Ok(kept)
    }

    /// Forgets which rows were deleted before their table says.
    async fn forget_deletions(
        &self,
        space: SpaceId,
        told_since: &(dyn Fn(&CollectionName) -> u64 + Sync),
    ) -> Result<u64, Problem> {
        let (mut forgotten, mut after) = (0, Some(0));
        while let Some(from) = after {
            let view = self.node.view(space).map_err(node_problem)?;
            let old = view.old_deletions(from, told_since, STEP);
            let (deletions, next) = old.map_err(|error| node_problem(error.into()))?;
            after = next;
            forgotten += deletions.len() as u64;
            self.trim(space, Trimming { revision: view.revision(), deletions, ids: Vec::new() }).await?;
        }
        Ok(forgotten)
    }

    async fn trim(&self, space: SpaceId, trimming: Trimming) -> Result<(), Problem> {
        if trimming.deletions.is_empty() && trimming.ids.is_empty() {
            return Ok(());
        }
        self.node.trim(space, trimming).await.map_err(node_problem)
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
        let (mut expired, mut after): (BTreeMap<CollectionName, u64>, _) = (BTreeMap::new(), Some(0));
        while let Some(from) = after {
            let view = self.node.view(database.space).map_err(node_problem)?;
            let failed = |error: crate::store::StoreError| node_problem(error.into());
            let (places, next) = view.old_rows(from, &before, STEP).map_err(failed)?;
            after = next;
            let (mut parts, mut tables) = (Vec::new(), Vec::new());
            for place in places {
                let page = view.rows_changed(place - 1, place, None, STEP).map_err(failed)?;
                tables.extend(page.rows.iter().map(|row| row.collection.clone()));
                parts.extend(page.rows.into_iter().map(expiry));
            }
            for (table, outcome) in tables.into_iter().zip(self.node.upload(database.space, parts).await) {
                // Who changed it meanwhile keeps it.
                *expired.entry(table).or_default() += u64::from(outcome.map_err(node_problem)?.is_ok());
            }
        }
        let count = expired.values().sum();
        for (table, count) in expired.into_iter().filter(|(_, count)| *count > 0) {
            let (database_name, which, keys) = (database.name.clone(), Which::Expired, Vec::new());
            let deed = Deed::Delete { database: database_name, table, which, count, keys };
            self.note_of(&database.customer, BY_ITSELF, &deed).await;
        }
        Ok(count)
    }
}

fn expiry(row: Row) -> Vec<Upload> {
    let request = Request { collection: row.collection, key: row.key, operation: Operation::Delete };
    vec![Upload { expected: Some(row.context), ..Upload::new(request) }]
}
