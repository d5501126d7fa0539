//! What clients write: rows that each stand alone, or all of them as one.
//!
//! **Invariant**: every row of a request is answered for, in order. What was not acknowledged may be sent again with the
//! same id, in any batch, and takes effect once.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;

use serde_json::{Value as Json, json};

use super::audit::{Deed, Which, some_of};
use super::http::read_as;
use super::policy::Policy;
use super::problem::{Problem, ProblemCode};
use super::quota::{ByTable, bytes_of};
use super::row::{self, RowChange};
use super::tenant::node_problem;
use super::{Access, Relay};
use crate::model::{ClientId, CollectionName, ObjectKey, Operation, Remark, Request};
use crate::store::{StoreError, Upload, Uploaded, View, WriteError};

/// So many rows at most in one request.
pub const BATCH_ROWS_MAX: usize = 1000;

/// The member of a body that is a list of keys.
pub(super) const KEYS: &str = "keys";

/// A table and a key.
type RowName = (CollectionName, ObjectKey);

/// What became of a row.
type Outcome = Result<Uploaded, Problem>;

/// What a row says that it is: its table, key and id.
type Said = (Option<String>, Option<String>, Option<String>);

/// Rows of a request: what was said of each, and what it asks for.
struct Batch {
    /// Which member of the body they are.
    member: &'static str,
    said: Vec<Said>,
    asked: Vec<Result<Upload, Problem>>,
}

impl Batch {
    fn parse(
        member: &'static str,
        rows: Vec<Json>,
        table: Option<&CollectionName>,
        rows_max: u64,
        atomic: bool,
    ) -> Result<Self, Problem> {
        if rows.len() as u64 > rows_max {
            let detail = format!("{} rows in one request; at most {rows_max} are taken", rows.len());
            return Err(Problem::new(ProblemCode::TooLarge, detail, "send them in several requests"));
        }
        let mut batch = Self { member, said: Vec::new(), asked: Vec::new() };
        let mut names = BTreeSet::new();
        for (at, row) in rows.into_iter().enumerate() {
            let said = |name: &str| row.get(name).and_then(Json::as_str).map(str::to_owned);
            let named: Said = (said("table"), said("key"), said("id"));
            let upload = read_as::<RowChange>(row).map_err(|(path, what)| {
                let help = "each row is an object with a `key`, an `op`, and what that needs";
                Problem::new(ProblemCode::Invalid, what, help).with("path", path)
            });
            // A row that makes no sense by itself says so in its result.
            let upload = upload.and_then(|change| change.parse(table)).map_err(|problem| batch.within(at, problem));
            let upload = match upload {
                Err(problem) if named.1.is_none() && !atomic => return Err(batch.alone(at, problem)),
                Ok(Upload { request, .. }) if !names.insert((request.collection.clone(), request.key.clone())) => {
                    let detail = format!("the row {} is there twice", request.key);
                    let help = "make one change of both, or send them in two requests";
                    let problem = Problem::new(ProblemCode::Invalid, detail, help).with("path", batch.path(at, ""));
                    if !atomic {
                        return Err(batch.alone(at, problem));
                    }
                    Err(problem)
                }
                upload => upload,
            };
            batch.said.push(named);
            batch.asked.push(upload);
        }
        Ok(batch)
    }

    /// A place in one of its rows.
    fn path(&self, at: usize, within: &str) -> String {
        format!("/{}/{at}{within}", self.member)
    }

    /// The problem of a row, with its place in the batch.
    fn within(&self, at: usize, problem: Problem) -> Problem {
        let within = problem.members.get("path").and_then(Json::as_str).unwrap_or_default();
        // A key in a list of keys has nothing within.
        let path = self.path(at, if self.member == KEYS { "" } else { within });
        problem.with("path", path)
    }

    /// The problem of one row as that of the whole request. A row without a name could not be found in the results, and
    /// of two with the same name nobody could tell which is which; so nothing of such a batch is done.
    fn alone(&self, at: usize, problem: Problem) -> Problem {
        let path = problem.members.get("path").and_then(Json::as_str).unwrap_or_default();
        Problem { detail: format!("{path}: {}", problem.detail), ..problem }.with("row", at)
    }

    /// What is said of a batch of which nothing is written, since these rows of it cannot be.
    fn refused(&self, faults: &[(usize, Problem)]) -> Problem {
        let Some((at, first)) = faults.first() else { return lost() };
        let row = |(at, problem): &(usize, Problem)| {
            let key = self.said.get(*at).and_then(|(_, key, _)| key.as_deref());
            json!({"row": at, "key": key, "problem": problem.body()})
        };
        let rows: Vec<Json> = faults.iter().map(row).collect();
        let all = |code: ProblemCode| faults.iter().all(|(_, problem)| problem.code == code);
        let code = if all(ProblemCode::Changed) {
            ProblemCode::Conflict
        } else if all(ProblemCode::QuotaExceeded) {
            ProblemCode::QuotaExceeded
        } else {
            ProblemCode::Invalid
        };
        let path = first.members.get("path").and_then(Json::as_str).unwrap_or_default();
        let detail = format!("{path}: {}; nothing was written", first.detail);
        let mut problem = Problem::new(code, detail, first.help.clone());
        problem.members = first.members.clone();
        problem.with("row", *at).with("rows", rows)
    }

    /// What is said of a row that cannot be written.
    fn fault(&self, at: usize, operation: &Operation, error: &WriteError) -> Problem {
        row::write_problem(error).with("path", self.path(at, &row::fault(operation, error)))
    }

    fn results(&self, outcomes: &[Outcome]) -> Json {
        let result = |((table, key, id), outcome): (&Said, &Outcome)| {
            row::result(table.as_deref(), key.as_deref().unwrap_or_default(), id.as_deref(), outcome)
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
        let (results, deleted) = self.upload_batch(access, table, ("rows", rows), atomic, None).await?;
        self.tally_deletes(access, &deleted).await;
        Ok(results)
    }

    /// Writes rows, each by itself, in one revision of the database only. `rows` are the member of this name of a body.
    pub(super) async fn upload_in(
        &self,
        access: &Access,
        table: Option<&CollectionName>,
        revision: u64,
        rows: (&'static str, Vec<Json>),
    ) -> Result<Json, Problem> {
        let (results, deleted) = self.upload_batch(access, table, rows, false, Some(revision)).await?;
        self.tally_deletes(access, &deleted).await;
        Ok(results)
    }

    /// Deletes the rows of these keys. Returns what became of each.
    pub async fn delete_keys(&self, access: &Access, table: &CollectionName, keys: &[String]) -> Result<Json, Problem> {
        let rows = keys.iter().map(|key| json!({"key": key, "op": "delete"})).collect();
        let (results, deleted) = self.upload_batch(access, Some(table), (KEYS, rows), false, None).await?;
        if !deleted.is_empty() {
            let (database, table, count) = (access.database.name.clone(), table.clone(), deleted.len() as u64);
            let keys = some_of(deleted.iter().map(|(_, key)| key.as_str()));
            self.note(access, &Deed::Delete { database, table, which: Which::Keys, count, keys }).await;
        }
        Ok(results)
    }

    /// Writes the rows of a member of the body. Returns what became of each, and which were deleted.
    async fn upload_batch(
        &self,
        access: &Access,
        table: Option<&CollectionName>,
        (member, rows): (&'static str, Vec<Json>),
        atomic: bool,
        only: Option<u64>,
    ) -> Result<(Json, Vec<RowName>), Problem> {
        let policies = self.policies(access, table)?;
        let mut batch = Batch::parse(member, rows, table, policies.limit(Policy::BatchRows), atomic)?;
        let mut asked = std::mem::take(&mut batch.asked);
        self.refuse_faults(access, table, &mut asked, &batch)?;
        asked.iter_mut().flatten().for_each(|upload| upload.only = only);
        let by_table = self.prepare(access, &mut asked)?;
        if atomic {
            self.refuse_too_large(access, &mut asked, &batch)?;
        }
        let fits: Vec<(usize, &Upload)> =
            asked.iter().enumerate().filter_map(|(at, asked)| Some((at, asked.as_ref().ok()?))).collect();
        let mut admission = self.admit(access, &policies, &by_table, &fits).await?;
        for (at, problem) in std::mem::take(&mut admission.refused) {
            asked[at] = Err(problem.with("path", batch.path(at, "")));
        }
        let deletes: Vec<Option<RowName>> = asked.iter().map(|asked| deleted_by(asked.as_ref().ok()?)).collect();
        let outcomes = if atomic {
            self.write_all(access, asked, &batch).await?
        } else {
            self.write_each(access, asked, &batch).await?
        };
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

    /// Refuses each row that says what no row can hold, unless it was done before: an id is known whatever comes with it.
    fn refuse_faults(
        &self,
        access: &Access,
        table: Option<&CollectionName>,
        asked: &mut [Result<Upload, Problem>],
        batch: &Batch,
    ) -> Result<(), Problem> {
        let mut view = None;
        for ((at, asked), said) in asked.iter_mut().enumerate().zip(&batch.said) {
            let problem = match asked {
                Ok(upload) => match row::check_in_batch(&upload.request.operation) {
                    Ok(()) => continue,
                    Err(problem) => batch.within(at, problem),
                },
                Err(problem) => problem.clone(),
            };
            let Some(Ok(id)) = said.2.clone().map(ClientId::try_from) else {
                *asked = Err(problem);
                continue;
            };
            let view = match &view {
                Some(view) => view,
                None => view.insert(self.view(access)?),
            };
            let is_known = view.knows_id(&id).map_err(|error| node_problem(error.into()))?;
            *asked = if is_known { done_before(table, said, id) } else { Err(problem) };
        }
        Ok(())
    }

    /// Refuses each row whose fields alone are more than it may have. Where only the store could tell, since it knows what
    /// is there, it names the first one that it meets.
    fn refuse_too_large(
        &self,
        access: &Access,
        asked: &mut [Result<Upload, Problem>],
        batch: &Batch,
    ) -> Result<(), Problem> {
        let failed = |error: StoreError| node_problem(error.into());
        let view = self.view(access)?;
        for (index, asked) in asked.iter_mut().enumerate() {
            let Ok(upload) = asked else { continue };
            let Upload { request, bytes_max, .. } = &*upload;
            let (Operation::Put(fields) | Operation::Patch(fields)) = &request.operation else { continue };
            let (bytes, bytes_max) = (bytes_of(fields), *bytes_max);
            if bytes <= bytes_max {
                continue;
            }
            // What leaves a row no larger than it is, or was done before, is not refused.
            let is_known = is_known(&view, upload)?;
            let found = view.get(&request.collection, &request.key).map_err(failed)?;
            if !is_known && found.is_none_or(|found| bytes > bytes_of(&found.fields)) {
                let error = WriteError::RowTooLarge { index, bytes, bytes_max };
                *asked = Err(batch.fault(index, &request.operation, &error));
            }
        }
        Ok(())
    }

    async fn write_each(
        &self,
        access: &Access,
        asked: Vec<Result<Upload, Problem>>,
        batch: &Batch,
    ) -> Result<Vec<Outcome>, Problem> {
        let sent: Vec<Vec<Upload>> =
            asked.iter().filter_map(|asked| asked.as_ref().ok()).map(|one| vec![one.clone()]).collect();
        let (mut done, is_any) = (self.node.upload(access.database.space, sent).await.into_iter(), !asked.is_empty());
        let outcomes: Vec<Outcome> = (asked.into_iter().enumerate())
            .map(|(at, asked)| {
                let asked = asked?;
                match done.next() {
                    Some(Ok(Ok(rows))) => rows.into_iter().next().ok_or_else(lost),
                    Some(Ok(Err(error))) => Err(batch.fault(at, &asked.request.operation, &error)),
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
        let faults = |(at, asked): (usize, &Result<Upload, Problem>)| Some((at, asked.as_ref().err()?.clone()));
        let faults: Vec<(usize, Problem)> = asked.iter().enumerate().filter_map(faults).collect();
        if !faults.is_empty() {
            return Err(batch.refused(&faults));
        }
        let uploads: Vec<Upload> = asked.into_iter().flatten().collect();
        if uploads.is_empty() {
            return Ok(Vec::new());
        }
        match self.node.upload(access.database.space, [uploads.clone()]).await.into_iter().next() {
            Some(Ok(Ok(rows))) => Ok(rows.into_iter().map(Ok).collect()),
            Some(Ok(Err(error))) => {
                let index = match error {
                    WriteError::Edit { index, .. }
                    | WriteError::Changed { index }
                    | WriteError::Wiped { index }
                    | WriteError::RowTooLarge { index, .. } => index,
                    error => return Err(row::write_problem(&error)),
                };
                let operation = uploads.get(index).map(|upload| &upload.request.operation).ok_or_else(lost)?;
                // The store writes them in order and stops where it cannot: what comes after that it has not looked at.
                Err(batch.refused(&[(index, batch.fault(index, operation, &error))]))
            }
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
            Some(Ok(Err(error))) => {
                let problem = row::write_problem(&error);
                // The body is the fields themselves.
                Err(match row::field_at_fault(&error) {
                    Some(path) => problem.with("path", path),
                    None => problem,
                })
            }
            Some(Err(error)) => Err(node_problem(error)),
            None => Err(lost()),
        }
    }
}

/// What is asked in place of a row that cannot be read and was done before: nothing, under its id, which is answered for
/// by what was done then.
fn done_before(table: Option<&CollectionName>, said: &Said, id: ClientId) -> Result<Upload, Problem> {
    let named = |name: &str| CollectionName::user(name).ok();
    let collection = table.cloned().or_else(|| named(said.0.as_deref()?)).or_else(|| named("-"));
    let key = said.1.as_deref().and_then(|key| key.parse().ok()).or_else(|| "-".parse::<ObjectKey>().ok());
    let (collection, key) = (collection.ok_or_else(lost)?, key.ok_or_else(lost)?);
    let remark = Remark { id: Some(id), ..Remark::default() };
    Ok(Upload { remark, ..Upload::new(Request { collection, key, operation: Operation::Unset(Vec::new()) }) })
}

/// Whether a write was done before.
pub(super) fn is_known(view: &View, Upload { remark, .. }: &Upload) -> Result<bool, Problem> {
    let Some(id) = &remark.id else { return Ok(false) };
    view.knows_id(id).map_err(|error| node_problem(error.into()))
}

/// The row that a write deletes, if it is a delete, or of which it gives up what is left.
fn deleted_by(Upload { request, .. }: &Upload) -> Option<RowName> {
    let Request { collection, key, operation } = request;
    matches!(operation, Operation::Delete | Operation::Discard).then(|| (collection.clone(), key.clone()))
}

fn lost() -> Problem {
    let help = "send it again with the same id";
    Problem::new(ProblemCode::Unavailable, "it is not known what became of it", help).retry_after(1)
}
