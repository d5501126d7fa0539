//! The one function behind all commands: it does what a [`Command`] says with a node, and answers piece by piece.
//!
//! It is the same whether the node lives in this process for a moment or has been running for a year; only how the
//! command and its answers travel differs.
//!
//! **Invariant**: memory stays bounded whatever a space holds. Answers go through a short queue, so whoever reads
//! slowly slows the reading of the store, and whoever stops listening ends it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data_encoding::BASE64;
use serde::Serialize;
use serde_json::{Map, Value as Json};
use tokio::sync::mpsc::Sender;

use super::answer::NamedPeer;
use super::answer::{
    Answer, ChangeRow, ConflictRow, Created, CustomerRow, DatabaseRow, JobRow, LostRow, ObjectRow, PeerRow, Place,
    PolicyRow, Progress, RevokedRow, SpaceRow, SyncRow, TicketRow, TokenRow, Unreached, WipedRow, WrittenRow,
};
use super::command::Command;
use super::failure::{Code, Failure};
use super::report::StatusReport;
use crate::model::{CollectionName, InvalidEdit, Object, ObjectKey, SpaceId, Ticket};
use crate::node::{Invitation, Node, NodeError, SyncReport};
use crate::relay::{
    AuditPage, AuditQuery, Database, Deed, OPERATOR, Policies, Policy, PolicyScope, SYSTEM_NAME, Scope, Tenants,
};
use crate::store::{Removal, View};

/// How many rows one answer holds at most.
const ROWS_MAX: usize = 256;
/// How many bytes one answer holds before it is sent. One object more may be in it.
const ANSWER_BYTES: usize = 64 << 10;
/// How many changes are read at once. Each may show an object of a MiB.
const CHANGES_MAX: usize = 64;
/// How often a sync says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

/// The databases of all customers.
async fn databases(node: &Node) -> Result<Vec<Database>, Failure> {
    match Tenants::of(node)? {
        Some(tenants) => blocking(move || Ok(tenants.databases()?)).await,
        None => Ok(Vec::new()),
    }
}

/// What was wiped and is removed behind.
async fn jobs(node: &Node) -> Result<Vec<Removal>, Failure> {
    let node = node.clone();
    blocking(move || Ok(node.removals()?)).await
}

/// Notes that a ticket was made, if it leads to a database of a customer.
async fn note_invite(node: &Node, ticket: &Ticket) -> Result<(), Failure> {
    let space = ticket.genesis.space();
    let database = databases(node).await?.into_iter().find(|database| database.space == space);
    if let (Some(tenants), Some(database)) = (Tenants::of(node)?, database) {
        tenants.note_ticket(&database, OPERATOR, ticket).await?;
    }
    Ok(())
}

/// Notes that a space was wiped, if it is a database of a customer.
async fn note_wipe(node: &Node, space: SpaceId, revision: u64, count: u64) -> Result<(), Failure> {
    let database = databases(node).await?.into_iter().find(|database| database.space == space);
    if let (Some(tenants), Some(database)) = (Tenants::of(node)?, database) {
        let deed = Deed::Wipe { database: database.name, revision, count };
        tenants.note(Some(&database.customer), OPERATOR, &deed).await?;
    }
    Ok(())
}

/// What holds in a scope.
async fn policies(node: &Node, scope: PolicyScope) -> Result<Policies, Failure> {
    match Tenants::of(node)? {
        Some(tenants) => blocking(move || Ok(tenants.policies(&scope)?)).await,
        None => Ok(Policies::default()),
    }
}

/// The space that a name, an id, or `CUSTOMER/DATABASE` means.
fn find_space(node: &Node, text: &str) -> Result<SpaceId, Failure> {
    if let Some((customer, database)) = text.split_once('/')
        && let (Ok(customer), Ok(database)) = (customer.parse(), database.parse())
        && let Some(tenants) = Tenants::of(node)?
        && let Some(database) = tenants.database(&customer, &database)?
    {
        return Ok(database.space);
    }
    Ok(node.find_space(text)?)
}

/// The same, of a space that commands may change. What a relay knows of its customers, and what a relay that is a cluster
/// peer knows of its own, is changed by the commands that are made for it: anything else could make it unreadable.
fn find_changeable(node: &Node, text: &str) -> Result<SpaceId, Failure> {
    let space = find_space(node, text)?;
    let tenants = Tenants::of(node)?;
    let is_own = tenants.as_ref().is_some_and(|tenants| tenants.is_system(space));
    let is_customers = || -> Result<bool, Failure> {
        Ok(match &tenants {
            Some(tenants) => tenants.databases()?.iter().any(|database| database.space == space),
            None => false,
        })
    };
    let is_named_so = || Ok::<bool, NodeError>(node.view(space)?.name()? == SYSTEM_NAME);
    if is_own || is_named_so()? && !is_customers()? {
        return Err(NodeError::SystemSpace.into());
    }
    Ok(space)
}

/// Which databases of customers the spaces are, as `CUSTOMER/DATABASE`; none where that cannot be read, which is no reason
/// to tell nothing.
async fn names_of_databases(node: &Node) -> BTreeMap<String, String> {
    let name = |database: Database| (database.space.to_string(), format!("{}/{}", database.customer, database.name));
    databases(node).await.unwrap_or_default().into_iter().map(name).collect()
}

/// Does what `command` says.
///
/// # Errors
/// What it says of the state of things is in the failure; [`Code::OutputClosed`] if `answers` has no reader any more.
pub async fn execute(node: &Node, command: Command, answers: &Sender<Answer>) -> Result<(), Failure> {
    match command {
        Command::CreateSpace { name } if name == SYSTEM_NAME => {
            let message = format!("{name} is what a relay calls the space of its own");
            Err(Failure::new(Code::Refused, message, "choose another name"))
        }
        Command::CreateSpace { name } => {
            let id = node.create_space(&name).await?.to_string();
            send(answers, Answer::Created(Created { id, name })).await
        }
        Command::ListSpaces => {
            let mut databases = names_of_databases(node).await;
            let node = node.clone();
            let spaces = blocking(move || Ok(node.spaces()?)).await?;
            let mut rows: Vec<SpaceRow> = spaces.iter().map(SpaceRow::new).collect();
            rows.iter_mut().for_each(|row| row.database = databases.remove(&row.id));
            rows.sort_by(|a, b| (&a.name, &a.database, &a.id).cmp(&(&b.name, &b.database, &b.id)));
            send(answers, Answer::Spaces(rows)).await
        }
        Command::Wipe { space, yes, revision } => {
            let (asked, named) = (node.clone(), space.clone());
            blocking(move || find_changeable(&asked, &named)).await?;
            let found = view(node, space.clone(), |view| Ok((view.id(), view.objects()?))).await?;
            let (id, objects) = found;
            if !yes {
                let message = format!("this takes all {objects} objects of {space} away, for everybody");
                return Err(Failure::new(Code::Refused, message, "repeat it with --yes; nothing was changed"));
            }
            let revision = node.wipe(id, revision).await?;
            if let Err(failure) = note_wipe(node, id, revision, objects).await {
                // It is done, so this is no failure of it.
                tracing::error!(%failure, space = %id, revision, "a wipe could not be noted");
            }
            send(answers, Answer::Wiped(WipedRow { job: Removal::id_of(id, revision), revision })).await
        }
        Command::ListJobs => {
            let jobs = jobs(node).await?;
            send(answers, Answer::Jobs(jobs.iter().map(JobRow::new).collect())).await
        }
        Command::ShowJob { id } => match jobs(node).await?.iter().find(|job| job.id() == id) {
            Some(job) => send(answers, Answer::Job(JobRow::new(job))).await,
            None => {
                let message = format!("there is no job {id}");
                Err(Failure::new(Code::NotFound, message, "`thence job list` shows the jobs"))
            }
        },
        Command::AddPeer { peer } => {
            let named = NamedPeer {
                device: peer.device().to_string(),
                address: Some(format!("{}:{}", peer.host(), peer.port())),
            };
            node.add_peer(peer).await?;
            send(answers, Answer::Peer(named)).await
        }
        Command::RemovePeer { device } => match node.remove_peer(device).await? {
            true => send(answers, Answer::Peer(NamedPeer { device: device.to_string(), address: None })).await,
            false => Err(Failure::new(
                Code::NotFound,
                format!("there is no peer {device}"),
                "`thence peer list` shows the peers",
            )),
        },
        Command::ListPeers => {
            let peers = node.peers().await?;
            let row = |peer: crate::node::Peer| PeerRow {
                device: peer.device.to_string(),
                address: peer.addresses.into_iter().next(),
                connected: peer.connected,
            };
            let mut rows: Vec<PeerRow> = peers.into_iter().map(row).collect();
            rows.sort_by(|a, b| a.device.cmp(&b.device));
            send(answers, Answer::Peers(rows)).await
        }
        Command::Invite { space, role, uses, expires_s } => {
            let invitation = Invitation { role, uses, expires: Duration::from_secs(expires_s) };
            let node = node.clone();
            let asked = node.clone();
            let ticket = blocking(move || Ok(asked.invite(find_changeable(&asked, &space)?, &invitation)?)).await?;
            note_invite(&node, ticket.ticket()).await?;
            send(answers, Answer::Ticket(TicketRow::new(&ticket))).await
        }
        Command::CreateToken { customer, database, role, expires_s } => {
            let scope = Scope { customer: Some(customer), database, role };
            let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
            let expires_ms = expires_s.map(|seconds| now_ms.saturating_add(seconds.saturating_mul(1000)));
            let (token, record) = Tenants::open(node).await?.create_token(scope, expires_ms).await?;
            send(answers, Answer::Token(TokenRow::new(record, Some(token)))).await
        }
        Command::ListTokens => {
            let tokens = match Tenants::of(node)? {
                Some(tenants) => blocking(move || Ok(tenants.tokens()?)).await?,
                None => Vec::new(),
            };
            send(answers, Answer::Tokens(tokens.into_iter().map(|token| TokenRow::new(token, None)).collect())).await
        }
        Command::RevokeToken { id } => {
            let is_known = match Tenants::of(node)? {
                Some(tenants) => tenants.revoke_token(&id).await?,
                None => false,
            };
            if is_known {
                return send(answers, Answer::Revoked(RevokedRow { id })).await;
            }
            let message = format!("there is no token {id}");
            Err(Failure::new(Code::NotFound, message, "`thence token list` shows the tokens"))
        }
        Command::ShowPolicies { scope, policy } => {
            let in_force = policies(node, scope).await?;
            let shown = Policy::ALL.into_iter().filter(|shown| policy.is_none_or(|policy| policy == *shown));
            let rows = shown.map(|policy| PolicyRow::new(policy, in_force.in_force(policy))).collect();
            send(answers, Answer::Policies(rows)).await
        }
        Command::SetPolicy { scope, policy, setting } => {
            Tenants::open(node).await?.set_policy(&scope, policy, setting).await?;
            let in_force = policies(node, scope).await?.in_force(policy);
            send(answers, Answer::Policy(PolicyRow::new(policy, in_force))).await
        }
        Command::ListCustomers => {
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            for database in databases(node).await? {
                *counts.entry(database.customer.into()).or_default() += 1;
            }
            let row = |(customer, databases)| CustomerRow { customer, databases };
            send(answers, Answer::Customers(counts.into_iter().map(row).collect())).await
        }
        Command::ShowCustomer { customer } => {
            let mut all = databases(node).await?;
            all.retain(|database| database.customer == customer);
            if all.is_empty() {
                let message = format!("there is no customer {customer}");
                return Err(Failure::new(Code::NotFound, message, "`thence customer list` shows the customers"));
            }
            let node = node.clone();
            let row = move |database: Database| {
                let summary = node.view(database.space)?.summary()?;
                let (rows, bytes) = (summary.objects, summary.bytes);
                Ok(DatabaseRow { database: database.name.into(), space: database.space.to_string(), rows, bytes })
            };
            let rows = blocking(move || all.into_iter().map(row).collect::<Result<_, Failure>>()).await?;
            send(answers, Answer::Databases(rows)).await
        }
        Command::Audit { customer, limit, after } => {
            let page = match Tenants::of(node)? {
                Some(tenants) => {
                    let query = AuditQuery { limit: Some(limit), after };
                    blocking(move || Ok(tenants.audit(Some(&customer), &query)?)).await?
                }
                None => AuditPage::default(),
            };
            send_rows(answers, page.entries, Answer::Audit).await
        }
        Command::Join { ticket, progress } => {
            let space = ticket.ticket().genesis.space();
            let concerns = move |other: SpaceId| other == space;
            let id = with_progress(node, progress, concerns, answers, node.join(&ticket)).await??.to_string();
            send(answers, Answer::Joined(Created { id, name: ticket.ticket().name.clone() })).await
        }
        Command::Write { space, requests } => {
            let found = {
                let node = node.clone();
                blocking(move || find_changeable(&node, &space)).await?
            };
            let written = node.write(found, requests).await?;
            let (changed, position) = (written.changed, written.position);
            send(answers, Answer::Written(WrittenRow { changed, position })).await
        }
        Command::Get { space, collection, key } => {
            let found = view(node, space, move |view| match view.get(&collection, &key)? {
                Some(found) => Ok(found),
                None => Err(not_visible(&collection, &key)),
            });
            send(answers, Answer::Object(ObjectRow::from(found.await?))).await
        }
        Command::List { space, collection } => {
            let answers = answers.clone();
            view(node, space, move |view| list(&view, collection.as_ref(), &answers)).await
        }
        Command::Export { space, collection } => {
            let answers = answers.clone();
            view(node, space, move |view| export(&view, collection.as_ref(), &answers)).await
        }
        Command::Conflicts { space } => {
            let rows: Vec<ConflictRow> =
                view(node, space, |view| Ok(view.conflicts()?.into_iter().flat_map(ConflictRow::of).collect())).await?;
            send_rows(answers, rows, Answer::Conflicts).await
        }
        Command::Lost { space } => {
            let rows: Vec<LostRow> =
                view(node, space, |view| Ok(view.lost()?.into_iter().map(LostRow::from).collect())).await?;
            send_rows(answers, rows, Answer::Lost).await
        }
        Command::Watch { space, after, follow } => watch(node, space, after, follow, answers).await,
        Command::Backup => {
            let (node, answers) = (node.clone(), answers.clone());
            blocking(move || {
                let mut told = Ok(());
                node.back_up(&mut |piece| {
                    let answer = Answer::Bytes(BASE64.encode(piece));
                    let sent = answers.blocking_send(answer).map_err(|_| Failure::nobody_listens());
                    stop_on_error(sent, &mut told)
                })?;
                told
            })
            .await
        }
        Command::Status { check } => {
            let mut report = StatusReport::from(&node.status().await?);
            let mut databases = names_of_databases(node).await;
            report.spaces.iter_mut().for_each(|space| space.database = databases.remove(&space.id));
            let complaints = report.complaints.len();
            send(answers, Answer::Status(report)).await?;
            match (check, complaints) {
                (false, _) | (true, 0) => Ok(()),
                (true, 1) => Err(not_as_it_should_be("one thing is")),
                (true, many) => Err(not_as_it_should_be(&format!("{many} things are"))),
            }
        }
        Command::Sync { timeout_ms, progress } => {
            sync(node, Duration::from_millis(timeout_ms), progress, answers).await
        }
    }
}

fn not_as_it_should_be(what: &str) -> Failure {
    let help = "the status names the reasons; `thence sync` dials every peer at once";
    Failure::new(Code::NotSynced, format!("{what} not as it should be"), help)
}

fn not_visible(collection: &CollectionName, key: &ObjectKey) -> Failure {
    InvalidEdit::NotFound { collection: collection.to_string(), key: key.to_string() }.into()
}

async fn send(answers: &Sender<Answer>, answer: Answer) -> Result<(), Failure> {
    answers.send(answer).await.map_err(|_| Failure::nobody_listens())
}

/// Sends rows of any size in answers of bounded size.
async fn send_rows<T: Serialize>(
    answers: &Sender<Answer>,
    rows: Vec<T>,
    answer: impl Fn(Vec<T>) -> Answer,
) -> Result<(), Failure> {
    let (mut some, mut bytes) = (Vec::new(), 0);
    for row in rows {
        bytes += serde_json::to_string(&row).map_or(0, |text| text.len());
        some.push(row);
        if some.len() == ROWS_MAX || bytes >= ANSWER_BYTES {
            send(answers, answer(std::mem::take(&mut some))).await?;
            bytes = 0;
        }
    }
    if some.is_empty() { Ok(()) } else { send(answers, answer(some)).await }
}

/// Reads the store where that holds up nobody else.
async fn blocking<T: Send + 'static>(read: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(Failure::bug(error)))
}

/// Reads a space at one instant.
async fn view<T: Send + 'static>(
    node: &Node,
    space: String,
    read: impl FnOnce(View) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let node = node.clone();
    blocking(move || read(node.view(find_space(&node, &space)?)?)).await
}

/// A visitor's way to stop, with a reason if there is one.
fn stop_on_error(result: Result<(), Failure>, outcome: &mut Result<(), Failure>) -> ControlFlow<()> {
    *outcome = result;
    if outcome.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

fn list(view: &View, only: Option<&CollectionName>, answers: &Sender<Answer>) -> Result<(), Failure> {
    let send = |rows: &mut Vec<Place>| {
        answers.blocking_send(Answer::Places(std::mem::take(rows))).map_err(|_| Failure::nobody_listens())
    };
    let mut rows = Vec::new();
    let mut outcome = Ok(());
    view.visit(only, &mut |collection, key, _| {
        rows.push(Place { collection: collection.to_string(), key: key.into() });
        let result = if rows.len() == ROWS_MAX { send(&mut rows) } else { Ok(()) };
        stop_on_error(result, &mut outcome)
    })?;
    outcome?;
    if rows.is_empty() { Ok(()) } else { send(&mut rows) }
}

fn export(view: &View, only: Option<&CollectionName>, answers: &Sender<Answer>) -> Result<(), Failure> {
    let send = |text: &mut String| {
        answers.blocking_send(Answer::Lines(std::mem::take(text))).map_err(|_| Failure::nobody_listens())
    };
    let mut text = String::new();
    let mut outcome = Ok(());
    view.visit(only, &mut |collection, key, object| {
        if let Some(line) = export_line(collection, &key, object) {
            text.push_str(&line);
        }
        let result = if text.len() >= ANSWER_BYTES { send(&mut text) } else { Ok(()) };
        stop_on_error(result, &mut outcome)
    })?;
    outcome?;
    if text.is_empty() { Ok(()) } else { send(&mut text) }
}

/// One line of `export`. Members are sorted since the map is.
fn export_line(collection: &CollectionName, key: &ObjectKey, object: &Object) -> Option<String> {
    #[derive(Serialize)]
    struct Line<'a> {
        collection: &'a str,
        key: &'a str,
        fields: Map<String, Json>,
    }
    let line = Line { collection: collection.as_str(), key: key.as_str(), fields: object.shown()? };
    // Maps with text keys and finite numbers always have a form in JSON.
    serde_json::to_string(&line).ok().map(|line| line + "\n")
}

async fn watch(
    node: &Node,
    space: String,
    after: Option<u64>,
    follow: bool,
    answers: &Sender<Answer>,
) -> Result<(), Failure> {
    let (space, position) = view(node, space, move |view| Ok((view.id(), view.position()?))).await?;
    let mut after = after.unwrap_or(position);
    send(answers, Answer::Watching { space, position: after }).await?;
    loop {
        let changes = if follow {
            node.changes(space, after, CHANGES_MAX).await?
        } else {
            view(node, space.to_string(), move |view| Ok(view.changes(after, CHANGES_MAX)?)).await?
        };
        let Some(last) = changes.last() else { return Ok(()) };
        let end = last.position;
        let mut lines = String::new();
        for change in changes {
            after = change.position;
            lines.push_str(&serde_json::to_string(&ChangeRow::new(change, node.device())).map_err(Failure::bug)?);
            lines.push('\n');
            if lines.len() >= ANSWER_BYTES || after == end {
                send(answers, Answer::Changes { position: after, lines: std::mem::take(&mut lines) }).await?;
            }
        }
    }
}

/// Waits for `work`, and says now and then how far the spaces are that it concerns.
async fn with_progress<T>(
    node: &Node,
    progress: bool,
    concerns: impl Fn(SpaceId) -> bool,
    answers: &Sender<Answer>,
    work: impl Future<Output = T>,
) -> Result<T, Failure> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            () = tokio::time::sleep(PROGRESS_EVERY), if progress => {
                let status = node.status().await?;
                let spaces = || status.spaces.iter().filter(|space| concerns(space.summary.id));
                let peers = || spaces().flat_map(|space| &space.peers);
                let behind_events = peers().map(|peer| peer.behind_events).sum();
                let ahead_events = peers().map(|peer| peer.ahead_events).sum();
                send(answers, Answer::Progress(Progress { behind_events, ahead_events })).await?;
            }
        }
    }
}

async fn sync(node: &Node, timeout: Duration, progress: bool, answers: &Sender<Answer>) -> Result<(), Failure> {
    let report = with_progress(node, progress, |_| true, answers, node.sync(timeout)).await??;
    let outcome = judge(&report);
    let SyncReport { synced, unfinished, unreached } = report;
    let texts = |devices: Vec<crate::model::DeviceId>| devices.iter().map(ToString::to_string).collect();
    let unreached = unreached.into_iter().map(|(device, reason)| Unreached { device: device.to_string(), reason });
    let row = SyncRow { synced: texts(synced), unfinished: texts(unfinished), unreached: unreached.collect() };
    send(answers, Answer::Synced(row)).await?;
    outcome
}

/// Whether a sync did what it was for.
fn judge(report: &SyncReport) -> Result<(), Failure> {
    let SyncReport { synced, unfinished, unreached } = report;
    if !unfinished.is_empty() {
        let message = format!("the time was over before everything was synced; not finished: {}", unfinished.len());
        let help =
            "repeat it, it goes on where it was; --timeout gives it more time; `thence status` says what is left";
        return Err(Failure::new(Code::TimedOut, message, help));
    }
    if synced.is_empty() && !unreached.is_empty() {
        let help =
            "see to it that a node runs there and that its address is right (`thence peer list`), then repeat it";
        return Err(Failure::new(Code::TimedOut, "no peer was reached", help));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DeviceId;

    #[test]
    fn a_sync_is_done_when_all_that_were_reached_are_in_step() {
        let device = DeviceId::from_bytes([1; 32]);
        let away = [(device, "nobody answers".to_owned())];
        let report = |synced: usize, unfinished: usize, unreached: usize| SyncReport {
            synced: vec![device; synced],
            unfinished: vec![device; unfinished],
            unreached: away[..unreached].to_vec(),
        };
        assert_eq!(judge(&report(0, 0, 0)), Ok(()), "nobody is known");
        assert_eq!(judge(&report(1, 0, 1)), Ok(()), "one of two was reached");
        for (synced, unfinished, unreached) in [(0, 0, 1), (1, 1, 0), (0, 1, 0)] {
            let failure = judge(&report(synced, unfinished, unreached)).expect_err("not done");
            assert_eq!(failure.code.exit_code(), 3);
        }
    }
}
