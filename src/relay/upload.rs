//! What clients write: rows that each stand alone, or all of them as one.
//!
//! **Invariant**: every row of a request is answered for, in order. What was not acknowledged may be sent again with the
//! same id, in any batch, and takes effect once.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;

use serde_json::{Value as Json, json};

use super::audit::{Deed, Which, some_of};
use super::policy::Policy;
use super::problem::{Problem, ProblemCode};
use super::quota::ByTable;
use super::row::{self, RowChange};
use super::tenant::node_problem;
use super::{Access, Relay};
use crate::model::{CollectionName, ObjectKey, Operation, Request};
use crate::store::{Upload, Uploaded, WriteError};

/// So many rows at most in one request.
pub const BATCH_ROWS_MAX: usize = 1000;

/// A table and a key.
type RowName = (CollectionName, ObjectKey);

/// What became of a row.
type Outcome = Result<Uploaded, Problem>;

/// Rows of a request: what was said of each, and what it asks for.
struct Batch {
    said: Vec<(Option<String>, String, Option<String>)>,
    asked: Vec<Result<Upload, Problem>>,
}

impl Batch {
    fn parse(rows: Vec<Json>, table: Option<&CollectionName>, rows_max: u64) -> Result<Self, Problem> {
        if rows.len() as u64 > rows_max {
            let detail = format!("{} rows in one request; at most {rows_max} are taken", rows.len());
            return Err(Problem::new(ProblemCode::TooLarge, detail, "send them in several requests"));
        }
        let (mut said, mut asked, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
        for (at, row) in rows.into_iter().enumerate() {
            let change: RowChange = serde_json::from_value(row).map_err(|error| {
                let help = "each row is an object with a `key`, an `op`, and what that needs";
                Problem::new(ProblemCode::Invalid, format!("rows[{at}]: {error}"), help).with("row", at)
            })?;
            said.push((change.table.clone(), change.key.clone(), change.id.clone()));
            let upload = change.parse(table);
            if let Ok(Upload { request, .. }) = &upload
                && !names.insert((request.collection.clone(), request.key.clone()))
            {
                let detail = format!("rows[{at}]: the row {} is there twice", request.key);
                let help = "make one change of both, or send them in two requests";
                return Err(Problem::new(ProblemCode::Invalid, detail, help).with("row", at));
            }
            asked.push(upload);
        }
        Ok(Self { said, asked })
    }

    fn results(&self, outcomes: &[Outcome]) -> Json {
        let result = |((table, key, id), outcome): (&(Option<String>, String, Option<String>), &Outcome)| {
            row::result(table.as_deref(), key, id.as_deref(), outcome)
        };
        self.said.iter().zip(outcomes).map(result).collect()
    }
}

impl Relay {
    /// Writes rows: each by itself, or, if it is to be `atomic`, all or none. Returns what became of each.
    pub async fn upload(
        &self,
        access: &Access,
        table: Option<&CollectionName>,
        rows: Vec<Json>,
        atomic: bool,
    ) -> Result<Json, Problem> {
        let (results, deleted) = self.upload_batch(access, table, rows, atomic, None).await?;
        self.tally_deletes(access, &deleted).await;
        Ok(results)
    }

    /// Writes rows, each by itself, in one revision of the database only.
    pub(super) async fn upload_in(
        &self,
        access: &Access,
        table: Option<&CollectionName>,
        revision: u64,
        rows: Vec<Json>,
    ) -> Result<Json, Problem> {
        let (results, deleted) = self.upload_batch(access, table, rows, false, Some(revision)).await?;
        self.tally_deletes(access, &deleted).await;
        Ok(results)
    }

    /// Deletes the rows of these keys. Returns what became of each.
    pub async fn delete_keys(&self, access: &Access, table: &CollectionName, keys: &[String]) -> Result<Json, Problem> {
        let rows = keys.iter().map(|key| json!({"key": key, "op": "delete"})).collect();
        let (results, deleted) = self.upload_batch(access, Some(table), rows, false, None).await?;
        if !deleted.is_empty() {
            let (database, table, count) = (access.database.name.clone(), table.clone(), deleted.len() as u64);
            let keys = some_of(deleted.iter().map(|(_, key)| key.as_str()));
            self.note(access, &Deed::Delete { database, table, which: Which::Keys, count, keys }).await;
        }
        Ok(results)
    }

    /// Writes rows. Returns what became of each, and which were deleted.
    async fn upload_batch(
        &self,
        access: &Access,
        table: Option<&CollectionName>,
        rows: Vec<Json>,
        atomic: bool,
        only: Option<u64>,
    ) -> Result<(Json, Vec<RowName>), Problem> {
        let policies = self.policies(access, table)?;
        let mut batch = Batch::parse(rows, table, policies.limit(Policy::BatchRows))?;
        let mut asked = std::mem::take(&mut batch.asked);
        asked.iter_mut().flatten().for_each(|upload| upload.only = only);
        let by_table = self.prepare(access, &mut asked)?;
        let fits: Vec<(usize, &Upload)> =
            asked.iter().enumerate().filter_map(|(at, asked)| Some((at, asked.as_ref().ok()?))).collect();
        let mut admission = self.admit(access, &policies, &by_table, &fits).await?;
        for (at, problem) in std::mem::take(&mut admission.refused) {
            if atomic {
                return Err(problem.with("row", at));
            }
            asked[at] = Err(problem);
        }
        let deletes: Vec<Option<RowName>> = asked.iter().map(|asked| deleted_by(asked.as_ref().ok()?)).collect();
        let outcomes =
            if atomic { self.write_all(access, asked, &batch).await? } else { self.write_each(access, asked).await? };
        let is_full = |outcome: &Outcome| matches!(outcome, Err(problem) if problem.code == ProblemCode::QuotaExceeded);
        if table.is_some() && !outcomes.is_empty() && outcomes.iter().all(is_full) {
            // Who only writes is told so at once; who syncs still reads what is new.
            return Err(outcomes.into_iter().find_map(Result::err).unwrap_or_else(lost));
        }
        let is_done = |outcome: &Outcome| matches!(outcome, Ok(Uploaded { duplicate: false, .. }));
        let deleted = deletes.into_iter().zip(&outcomes).filter(|(_, outcome)| is_done(outcome));
        Ok((batch.results(&outcomes), deleted.filter_map(|(name, _)| name).collect()))
    }

    /// Has each row be no larger than its table allows, and say who wrote it. Returns what holds for each table.
    fn prepare(&self, access: &Access, asked: &mut [Result<Upload, Problem>]) -> Result<ByTable, Problem> {
        let mut by_table = ByTable::new();
        for upload in asked.iter_mut().flatten() {
            let policies = match by_table.entry(upload.request.collection.clone()) {
                Entry::Occupied(policies) => policies.into_mut(),
                Entry::Vacant(vacant) => {
                    let policies = self.policies(access, Some(vacant.key()))?;
                    vacant.insert(policies)
                }
            };
            upload.bytes_max = usize::try_from(policies.limit(Policy::RowBytes)).unwrap_or(usize::MAX);
            upload.remark.by = access.principal.client_name();
        }
        Ok(by_table)
    }

    async fn write_each(&self, access: &Access, asked: Vec<Result<Upload, Problem>>) -> Result<Vec<Outcome>, Problem> {
        let sent: Vec<Vec<Upload>> =
            asked.iter().filter_map(|asked| asked.as_ref().ok()).map(|one| vec![one.clone()]).collect();
        let (mut done, is_any) = (self.node.upload(access.database.space, sent).await.into_iter(), !asked.is_empty());
        let outcomes: Vec<Outcome> = (asked.into_iter())
            .map(|asked| {
                asked?;
                match done.next() {
                    Some(Ok(Ok(rows))) => rows.into_iter().next().ok_or_else(lost),
                    Some(Ok(Err(error))) => Err(row::write_problem(&error)),
                    Some(Err(error)) => Err(node_problem(error)),
                    None => Err(lost()),
                }
            })
            .collect();
        let fails = |outcome: &Outcome| matches!(outcome, Err(problem) if problem.code == ProblemCode::Unavailable);
        if is_any && outcomes.iter().all(fails) {
            // Nothing at all can be written: that is no matter of rows.
            return Err(outcomes.into_iter().find_map(Result::err).unwrap_or_else(lost));
        }
        Ok(outcomes)
    }

    async fn write_all(
        &self,
        access: &Access,
        asked: Vec<Result<Upload, Problem>>,
        batch: &Batch,
    ) -> Result<Vec<Outcome>, Problem> {
        let at_fault = |at: usize, problem: &Problem| {
            let key = batch.said.get(at).map(|(_, key, _)| key.as_str());
            let rows = json!([{"row": at, "key": key, "problem": problem.body()}]);
            let code = if problem.code == ProblemCode::Changed { ProblemCode::Conflict } else { ProblemCode::Invalid };
            let detail = format!("rows[{at}]: {}; nothing was written", problem.detail);
            Problem::new(code, detail, problem.help.clone()).with("rows", rows)
        };
        if let Some((at, problem)) = asked.iter().enumerate().find_map(|(at, asked)| Some((at, asked.as_ref().err()?)))
        {
            return Err(at_fault(at, problem));
        }
        let uploads: Vec<Upload> = asked.into_iter().flatten().collect();
        if uploads.is_empty() {
            return Ok(Vec::new());
        }
        match self.node.upload(access.database.space, [uploads]).await.into_iter().next() {
            Some(Ok(Ok(rows))) => Ok(rows.into_iter().map(Ok).collect()),
            Some(Ok(Err(error))) => match error {
                WriteError::Edit { index, .. }
                | WriteError::Changed { index }
                | WriteError::Wiped { index }
                | WriteError::RowTooLarge { index, .. } => Err(at_fault(index, &row::write_problem(&error))),
                error => Err(row::write_problem(&error)),
            },
            Some(Err(error)) => Err(node_problem(error)),
            None => Err(lost()),
        }
    }

    /// Writes one row.
    pub async fn write_row(&self, access: &Access, mut upload: Upload) -> Result<Uploaded, Problem> {
        let table = upload.request.collection.clone();
        let policies = self.policies(access, Some(&table))?;
        upload.bytes_max = usize::try_from(policies.limit(Policy::RowBytes)).unwrap_or(usize::MAX);
        upload.remark.by = access.principal.client_name();
        let by_table = ByTable::from([(table, policies.clone())]);
        let mut admission = self.admit(access, &policies, &by_table, &[(0, &upload)]).await?;
        if let Some(problem) = admission.refused.remove(&0) {
            return Err(problem);
        }
        let deleted = deleted_by(&upload);
        match self.node.upload(access.database.space, [vec![upload]]).await.into_iter().next() {
            Some(Ok(Ok(rows))) => {
                self.tally_deletes(access, &deleted).await;
                rows.into_iter().next().ok_or_else(lost)
            }
            Some(Ok(Err(error))) => Err(row::write_problem(&error)),
            Some(Err(error)) => Err(node_problem(error)),
            None => Err(lost()),
        }
    }
}

/// The row that a write deletes, if it is a delete.
fn deleted_by(Upload { request, .. }: &Upload) -> Option<RowName> {
    let Request { collection, key, operation } = request;
    matches!(operation, Operation::Delete).then(|| (collection.clone(), key.clone()))
}

fn lost() -> Problem {
    let help = "send it again with the same id";
    Problem::new(ProblemCode::Unavailable, "it is not known what became of it", help).retry_after(1)
}
