//! Everything that is held about a customer, as JSON lines: each has a `record`, which says what it is.
//!
//! | `record` | |
//! |---|---|
//! | `policy` | what is set of a customer, a database or a table, for whom (`scope`) |
//! | `token` | an access token, without its secret |
//! | `database` | one, and who sees it without a token |
//! | `table` | what is set of a table |
//! | `member`, `ticket` | a device that takes part, and a ticket with which others may |
//! | `client` | a client that was heard of since the relay started |
//! | `job` | a wipe |
//! | `row` | a row, as it is shown |
//! | `lost` | what is left of edits that lost to a delete |
//! | `deletion` | that a row was deleted, as long as that is told |
//! | `audit` | an entry of the audit |
//! | `end` | the last line: that it was all, and how many rows |
//!
//! **Invariant**: each database is told as it stood at one instant, page by page, so that a reader who is slow costs no
//! memory; the last line says that it was all, so that an export which broke off is not taken for a whole one.
//!
//! **Absent here**: what rows held before. The log of a space keeps that for a while, signed and packed, for full nodes.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use serde_json::{Map, Value as Json, json};

use super::api::{aside, principal};
use super::audit::{AuditQuery, ENTRIES_MAX};
use super::problem::{Problem, ProblemCode};
use super::tenant::node_problem;
use super::{Access, Database, Principal, Relay, TenantName, row};
use crate::model::Role;
use crate::store::{Page, PageLimits, Row, StoreError, View};

const PAGE: PageLimits = PageLimits { rows: 500, bytes: 1 << 20, looked_at: 5_000 };

/// A page is to be read in so long: while a database is told as it stood, no room that it freed since is used again.
const PAGE_TIME_MAX: Duration = Duration::from_secs(60);

/// Streams everything that is held about a customer.
pub async fn export(
    State(relay): State<Arc<Relay>>,
    Path(customer): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let asker = principal(&relay, &headers)?;
    let customer = relay.owned_customer(&asker, &customer)?;
    let turn = Turn::take(&relay, &customer)?;
    let (sender, body) = Channel::<Bytes, Infallible>::new(1);
    tokio::spawn(async move {
        let mut telling = Telling { relay, asker, customer, sender, rows: 0 };
        // Given back before whoever reads has come to the end.
        let _turn = turn;
        // Then the last line is missing.
        match telling.all().await {
            Ok(()) | Err(Broken::Left) => {}
            Err(Broken::Slow) => tracing::warn!("an export broke off, it was read too slowly"),
            Err(Broken::Unreadable(problem)) => tracing::warn!(%problem, "an export broke off"),
        }
    });
    let headers = [(CONTENT_TYPE, "application/x-ndjson"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::new(body)).into_response())
}

/// A customer is told one export at a time: while it is read, no room that the store frees is used again.
struct Turn {
    relay: Arc<Relay>,
    customer: TenantName,
}

impl Turn {
    fn take(relay: &Arc<Relay>, customer: &TenantName) -> Result<Self, Problem> {
        if relay.exporting.lock().unwrap_or_else(PoisonError::into_inner).insert(customer.clone()) {
            return Ok(Self { relay: Arc::clone(relay), customer: customer.clone() });
        }
        let detail = "everything of this customer is being told to somebody already";
        let help = "read that to its end, or hang up and try again";
        Err(Problem::new(ProblemCode::TooManyRequests, detail, help).retry_after(PAGE_TIME_MAX.as_secs()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.relay.exporting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.customer);
    }
}

/// Why an export ended before it was whole.
enum Broken {
    /// The client reads no more.
    Left,
    /// It does, but too slowly.
    Slow,
    /// Something cannot be read here.
    Unreadable(Problem),
}

impl From<Problem> for Broken {
    fn from(problem: Problem) -> Self {
        Self::Unreadable(problem)
    }
}

/// A line.
type Record = Map<String, Json>;

/// Lines, and where to go on after them, if there are more.
type Told<At> = Result<(Vec<Record>, Option<At>), Problem>;

/// What somebody is being told of a customer.
struct Telling {
    relay: Arc<Relay>,
    asker: Principal,
    customer: TenantName,
    sender: Sender<Bytes, Infallible>,
    rows: u64,
}

/// A line that says this of something.
fn record(kind: &str, what: &Json) -> Record {
    let mut record = what.as_object().cloned().unwrap_or_default();
    record.insert("record".to_owned(), kind.into());
    record
}

impl Telling {
    async fn all(&mut self) -> Result<(), Broken> {
        let (relay, customer) = (Arc::clone(&self.relay), self.customer.clone());
        self.pages(move |_: Option<()>| Ok((set_for(&relay, &customer)?, None))).await?;
        let mut databases = self.relay.tenants().databases()?;
        databases.retain(|database| database.customer == self.customer);
        for database in databases {
            self.database(database).await?;
        }
        self.relay.tell_tallies().await;
        let (relay, customer) = (Arc::clone(&self.relay), self.customer.clone());
        self.pages(move |after| {
            let query = AuditQuery { limit: Some(ENTRIES_MAX as u64), after };
            let page = relay.tenants().audit(Some(&customer), &query)?;
            let last = page.entries.last().and_then(|entry| entry["id"].as_str().map(str::to_owned));
            let lines = page.entries.iter().map(|entry| record("audit", entry)).collect();
            Ok((lines, last.filter(|_| page.more)))
        })
        .await?;
        self.lines(vec![record("end", &json!({"end": true, "rows": self.rows}))]).await
    }

    async fn database(&mut self, database: Database) -> Result<(), Broken> {
        let access = Access { database, principal: self.asker.clone(), role: Role::Owner };
        let view = self.relay.view(&access)?;
        let (relay, known) = (Arc::clone(&self.relay), access.clone());
        let (view, about) = aside(move || {
            let about = about(&relay, &known, &view)?;
            Ok((view, about))
        })
        .await?;
        self.lines(about).await?;

        let top = view.position().map_err(|error| node_problem(error.into()))?;
        let view = Arc::new(Mutex::new(view));
        let (name, epoch) = (access.database.name.to_string(), self.relay.epoch_text());
        let line = move |kind: &str, found: &Row| {
            let mut line = row::shown(found);
            line.remove("context");
            line.insert("record".to_owned(), kind.into());
            line.insert("database".to_owned(), name.as_str().into());
            line.insert("epoch".to_owned(), epoch.as_str().into());
            line.insert("table".to_owned(), found.collection.to_string().into());
            line
        };
        self.rows(&view, "row", &line, |view, after| view.rows_after(after.as_ref(), None, PAGE)).await?;
        self.rows(&view, "lost", &line, |view, after| view.rows_lost(after.as_ref(), PAGE)).await?;
        let deletions = move |view: &View, after: Option<u64>| {
            let page = view.rows_deleted(after.unwrap_or_default(), top, None, PAGE)?;
            Ok(Page { rows: page.rows, at: Some(page.at), is_last: page.is_last })
        };
        self.rows(&view, "deletion", &line, deletions).await
    }

    /// Tells of rows, page by page.
    async fn rows<At: Send + 'static>(
        &mut self,
        view: &Arc<Mutex<View>>,
        kind: &'static str,
        line: &(impl Fn(&str, &Row) -> Record + Clone + Send + 'static),
        read: impl Fn(&View, Option<At>) -> Result<Page<Option<At>>, StoreError> + Clone + Send + 'static,
    ) -> Result<(), Broken> {
        let (view, line) = (Arc::clone(view), line.clone());
        let told = self.pages(move |after| {
            let view = view.lock().unwrap_or_else(PoisonError::into_inner);
            let page = read(&view, after).map_err(|error| node_problem(error.into()))?;
            let lines = page.rows.iter().map(|row| line(kind, row)).collect();
            Ok((lines, page.at.filter(|_| !page.is_last)))
        });
        let told = told.await?;
        self.rows += if kind == "row" { told } else { 0 };
        Ok(())
    }

    /// Reads pages, each after the one before was sent. Returns how many lines that were.
    async fn pages<At: Send + 'static>(
        &mut self,
        read: impl Fn(Option<At>) -> Told<At> + Clone + Send + 'static,
    ) -> Result<u64, Broken> {
        let (mut after, mut told) = (None, 0);
        loop {
            let read = read.clone();
            let (lines, next) = aside(move || read(after)).await?;
            told += lines.len() as u64;
            self.lines(lines).await?;
            match next {
                None => return Ok(told),
                next => after = next,
            }
        }
    }

    async fn lines(&mut self, lines: Vec<Record>) -> Result<(), Broken> {
        let mut text = String::new();
        for line in lines {
            text.push_str(&Json::Object(line).to_string());
            text.push('\n');
        }
        if text.is_empty() {
            return Ok(());
        }
        match tokio::time::timeout(PAGE_TIME_MAX, self.sender.send_data(text.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Broken::Left),
            Err(_) => Err(Broken::Slow),
        }
    }
}

/// What is set for a customer, and the tokens that reach no further.
fn set_for(relay: &Relay, customer: &TenantName) -> Result<Vec<Record>, Problem> {
    let mut records = Vec::new();
    for (scope, set) in relay.tenants().policies_set_for(customer)? {
        records.push(record("policy", &json!({"scope": scope, "set": set})));
    }
    let theirs = relay.tenants().tokens()?.into_iter().filter(|token| token.scope.customer.as_ref() == Some(customer));
    records.extend(theirs.map(|token| record("token", &json!(token))));
    Ok(records)
}

/// What is known of a database besides what it holds.
fn about(relay: &Relay, access: &Access, view: &View) -> Result<Vec<Record>, Problem> {
    let (database, tenants) = (&access.database, relay.tenants());
    let mut known = tenants.kept_of(database)?;
    known["revision"] = view.revision().into();
    known["epoch"] = relay.epoch_text().into();
    let mut records = vec![record("database", &known)];
    records.extend(tenants.tables(database)?.into_iter().map(|(table, settings)| {
        let mut line = record("table", &settings);
        line.insert("table".to_owned(), table.into());
        line
    }));
    for (device, role) in view.members() {
        records.push(record("member", &json!({"device": device.to_string(), "role": role.as_str()})));
    }
    records.extend(tenants.tickets_kept(database)?.iter().map(|ticket| record("ticket", ticket)));
    let clients = relay.clients(access)?;
    records.extend(clients["clients"].as_array().into_iter().flatten().map(|client| record("client", client)));
    records.extend(relay.jobs_of(database)?.iter().map(|job| record("job", job)));
    for record in &mut records {
        record.insert("database".to_owned(), database.name.as_str().into());
    }
    Ok(records)
}
