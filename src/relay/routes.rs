//! Which path of the relay leads where.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::extract::State;
use axum::handler::Handler;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{MethodFilter, MethodRouter};
use axum::{Extension, Router, middleware};
use serde_json::{Value as Json, json};

use super::http::{Metrics, Reply, figure};
use super::operation::Asker::{Administrator, Anybody, Member};
use super::operation::Operation;
use super::{Problem, ProblemCode, Relay, api, events, export, openapi};
use crate::model::Role;
use crate::node::{Commits, NodeError, Unwell};

/// How long the node's loop may take to say how it is.
const HEALTH_TIME_MAX: Duration = Duration::from_secs(5);

/// Where everything of a database lies.
const BASE: &str = "/v1/customers/{customer}/databases/{database}";

/// A path, what can be asked there, and what answers.
pub(super) struct Route {
    pub(super) path: String,
    pub(super) operations: Vec<(&'static str, Operation)>,
    handlers: MethodRouter<Arc<Relay>>,
}

impl Route {
    fn at(path: impl Into<String>) -> Self {
        Self { path: path.into(), operations: Vec::new(), handlers: MethodRouter::new() }
    }

    /// Something in a database.
    fn of(rest: &str) -> Self {
        Self::at(format!("{BASE}{rest}"))
    }

    fn on<H, T>(mut self, method: (&'static str, MethodFilter), handler: H, operation: Operation) -> Self
    where
        H: Handler<T, Arc<Relay>>,
        T: 'static,
    {
        self.handlers = self.handlers.on(method.1, handler);
        self.operations.push((method.0, operation));
        self
    }
}

const GET: (&str, MethodFilter) = ("get", MethodFilter::GET);
const PUT: (&str, MethodFilter) = ("put", MethodFilter::PUT);
const POST: (&str, MethodFilter) = ("post", MethodFilter::POST);
const PATCH: (&str, MethodFilter) = ("patch", MethodFilter::PATCH);
const DELETE: (&str, MethodFilter) = ("delete", MethodFilter::DELETE);

/// Everything that a relay answers: the router and the document for machines are both made of this.
pub(super) fn table() -> Vec<Route> {
    let (reader, writer, owner) = (Member(Role::Reader), Member(Role::Writer), Member(Role::Owner));
    let delete_rows = |name, summary| {
        let operation = Operation::new(name, summary, writer).query("DeleteQuery").may_take("Keys");
        operation.heeds("If-Match").gives(200, "Deletion")
    };
    let write_row = |name, summary| Operation::new(name, summary, writer).tagged().heeds("If-Match");
    vec![
        Route::at(BASE)
            .on(
                PUT,
                api::register,
                Operation::new("register", "Registers a database.", owner)
                    .may_take("Registration")
                    .may_fail(ProblemCode::QuotaExceeded)
                    .gives(200, "Database")
                    .gives(201, "Database"),
            )
            .on(GET, api::database, Operation::new("database", "Tells of a database.", reader).gives(200, "Database"))
            .on(
                DELETE,
                api::wipe,
                Operation::new("wipe", "Begins a database anew, with nothing in it.", owner)
                    .query("WipeQuery")
                    .may_fail(ProblemCode::Conflict)
                    .gives(202, "Wiped"),
            ),
        Route::of("/tables/{table}")
            .on(
                GET,
                api::table,
                Operation::new("table", "Tells of a table as a whole.", reader)
                    .heeds("If-None-Match")
                    .tagged()
                    .gives(200, "Table"),
            )
            .on(
                PUT,
                api::set_table,
                Operation::new("set_table", "Sets a table's schema, retention and expiry.", owner)
                    .takes("TableSettings")
                    .gives(200, "TableSet"),
            )
            .on(
                POST,
                api::upload,
                Operation::new("upload", "Writes rows: each by itself, or all as one.", writer)
                    .query("UploadQuery")
                    .takes("Rows")
                    .may_fail(ProblemCode::QuotaExceeded)
                    .gives(200, "Results"),
            )
            .on(DELETE, api::delete_rows, delete_rows("delete_rows", "Deletes rows, by their keys or by a range.")),
        Route::of("/tables/{table}/delete").on(
            POST,
            api::delete_rows,
            delete_rows("post_delete_rows", "The same for clients that cannot send DELETE with a body."),
        ),
        Route::of("/tables/{table}/deletions").on(
            POST,
            api::deletions,
            Operation::new("deletions", "Deletes rows, and tells which others were deleted.", reader)
                .notes(
                    "Without a token all deletions are told that are still known. What a client deletes in this call is \
                     not told to it, also not on a later page, unless it lies in more than 32 stretches of versions with \
                     other changes between them; being told of a deletion twice does no harm. Should nothing be readable \
                     after the rows were deleted, the answer has the results, no `deleted`, `more: true` and a token to \
                     ask again with.",
                )
                .takes("Keys")
                .heeds("Sync-Token")
                // Who deletes has to be a writer.
                .may_fail(ProblemCode::Forbidden)
                .gives(200, "Deletions"),
        ),
        Route::of("/tables/{table}/manifest").on(
            GET,
            api::manifest,
            Operation::new("manifest", "Lists keys and versions.", reader)
                .query("ManifestQuery")
                .gives(200, "Manifest"),
        ),
        Route::of("/tables/{table}/rows/{key}")
            .on(
                GET,
                api::row,
                Operation::new("row", "Tells a row.", reader).heeds("If-None-Match").tagged().gives(200, "Row"),
            )
            .on(
                PUT,
                api::put_row,
                write_row("put_row", "Replaces a row, or makes it.")
                    .takes("Fields")
                    .may_fail(ProblemCode::QuotaExceeded)
                    .gives(200, "Written"),
            )
            .on(
                PATCH,
                api::patch_row,
                write_row("patch_row", "Writes some fields of a row.")
                    .takes("Fields")
                    .may_fail(ProblemCode::QuotaExceeded)
                    .gives(200, "Written"),
            )
            .on(DELETE, api::delete_row, write_row("delete_row", "Deletes a row.").gives(200, "Written")),
        Route::of("/changes").on(
            GET,
            api::changes,
            Operation::new("changes", "Tells what changed since the sync token, or everything.", reader)
                .notes(
                    "Everything is told in the phase `initial`, by table and key, and then what changed meanwhile. Among \
                     that may be deletions of rows that the client was never given, since they came and went during the \
                     initial phase or were deleted before it came to them: it has nothing to delete then, and that does \
                     no harm.",
                )
                .query("ChangesQuery")
                .heeds("Sync-Token")
                .heeds("Client-Id")
                .may_fail(ProblemCode::Invalid)
                .gives(200, "Changes"),
        ),
        Route::of("/sync").on(
            POST,
            api::sync,
            Operation::new("sync", "Takes what a client wrote, and tells what changed.", reader)
                .notes(
                    "What was written is always answered for: should no page be readable after it, as when the database \
                     is wiped in between, the answer has the results, no `changes`, `more: true` and a token to ask again \
                     with.",
                )
                .takes("Sync")
                .heeds("Sync-Token")
                .heeds("Client-Id")
                // Who sends changes has to be a writer.
                .may_fail(ProblemCode::Forbidden)
                .gives(200, "Synchronised"),
        ),
        Route::of("/lost").on(
            GET,
            api::lost,
            Operation::new("lost", "Tells what is left of edits that lost to a delete.", writer)
                .notes("A row of a batch whose `op` is `restore` or `discard` decides what becomes of it.")
                .query("LostQuery")
                .gives(200, "Lost"),
        ),
        Route::of("/events").on(
            GET,
            events::events,
            Operation::new("events", "Hints, as server-sent events, that there is something new.", reader)
                .heeds("Last-Event-ID")
                .gives_as(200, "text/event-stream", "Events"),
        ),
        Route::of("/clients").on(
            GET,
            api::clients,
            Operation::new("clients", "Tells how far each client is.", owner).gives(200, "Clients"),
        ),
        Route::of("/invites").on(
            POST,
            api::invite,
            Operation::new("invite", "Makes a ticket, with which a full node joins.", owner)
                .takes("Invitation")
                .may_fail(ProblemCode::QuotaExceeded)
                .gives(201, "Ticket"),
        ),
        Route::at("/v1/customers/{customer}/export").on(
            GET,
            export::export,
            Operation::new("export", "Tells everything of a customer, as JSON lines.", owner)
                .notes(
                    "Each line is an object whose `record` says what it is: policy, token (without its secret), database, \
                     table, member, ticket, client, job, row, lost, deletion, audit. The last one is `end`: without it, the \
                     export broke off.",
                )
                .gives_as(200, "application/x-ndjson", "Export"),
        ),
        Route::at("/v1/jobs/{job}").on(
            GET,
            api::job,
            Operation::new("job", "Tells how far the removal is of what was wiped.", owner).gives(200, "Job"),
        ),
        Route::at("/v1/customers/{customer}/audit").on(
            GET,
            api::audit,
            Operation::new("audit", "Tells who deleted, granted, restored or set what, and when.", owner)
                .query("AuditQuery")
                .gives(200, "Audit"),
        ),
        Route::at("/v1/limits").on(
            GET,
            api::limits,
            Operation::new("limits", "Tells what holds where nothing else is set.", Anybody).gives(200, "Limits"),
        ),
        Route::at("/health/live").on(
            GET,
            live,
            Operation::new("live", "Tells that it runs.", Anybody).gives(200, "Health"),
        ),
        Route::at("/health/ready").on(
            GET,
            ready,
            Operation::new("ready", "Tells whether it can do its work.", Anybody).gives(200, "Health"),
        ),
        Route::at("/metrics").on(
            GET,
            counts,
            Operation::new("metrics", "Tells counts, for Prometheus.", Administrator).gives_as(
                200,
                "text/plain",
                "Metrics",
            ),
        ),
        Route::at("/openapi.json").on(
            GET,
            openapi,
            Operation::new("openapi", "Tells this document.", Anybody).gives(200, "OpenApi"),
        ),
    ]
}

/// Leads requests to where they are answered.
pub fn routes(relay: &Arc<Relay>, metrics: &Arc<Metrics>) -> Router {
    // Before a body is read, or a query: who may not come in costs no more than being told so.
    let let_in = middleware::from_fn_with_state(Arc::clone(relay), api::let_in);
    let add = |router: Router<Arc<Relay>>, Route { path, handlers, .. }: Route| {
        let handlers = if path.starts_with(BASE) { handlers.route_layer(let_in.clone()) } else { handlers };
        router.route(&path, handlers)
    };
    let router = table().into_iter().fold(Router::new(), add);
    router.layer(Extension(Arc::clone(metrics))).with_state(Arc::clone(relay))
}

/// Whether it runs.
async fn live() -> Reply {
    Reply::ok(&json!({"status": "live"}))
}

/// What was counted since it began.
async fn counts(
    State(relay): State<Arc<Relay>>,
    Extension(metrics): Extension<Arc<Metrics>>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    api::administrator(&relay, &headers)?;
    let node = relay.node();
    let Commits { count, failed, time } = node.commits();
    // A node whose loop does not answer still has something to tell.
    let peers = tokio::time::timeout(HEALTH_TIME_MAX, node.peers()).await;
    let connected = peers.ok().and_then(Result::ok).map(|peers| peers.iter().filter(|peer| peer.connected).count());
    let is_ready = matches!(tokio::time::timeout(HEALTH_TIME_MAX, node.health()).await, Ok(Ok(())));
    let mut text = metrics.text();
    for (name, kind, help, value) in [
        ("thence_commits_total", "counter", "Commits to the disk.", count as f64),
        ("thence_commits_failed_total", "counter", "Commits that failed.", failed as f64),
        ("thence_commit_seconds_total", "counter", "How long commits took, together.", time.as_secs_f64()),
        (
            "thence_peers_connected",
            "gauge",
            "Peers that are connected.",
            connected.map_or(f64::NAN, |count| count as f64),
        ),
        ("thence_ready", "gauge", "Whether it can do its work.", f64::from(u8::from(is_ready))),
    ] {
        figure(&mut text, name, kind, help, value);
    }
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}

/// All of this, for machines.
async fn openapi() -> Reply {
    static DOCUMENT: LazyLock<Json> = LazyLock::new(|| openapi::document(&table()));
    Reply::ok(&*DOCUMENT)
}

/// Whether it can do its work. Anybody may ask, so it does not say more than that; `thence status` does, and the log.
async fn ready(State(relay): State<Arc<Relay>>) -> Result<Reply, Problem> {
    let detail = match tokio::time::timeout(HEALTH_TIME_MAX, relay.node().health()).await {
        Ok(Ok(())) => return Ok(Reply::ok(&json!({"status": "ready"}))),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            match error {
                NodeError::Unwell(Unwell::Replication { .. }) => "it does not get on with its cluster",
                _ => "nothing can be written at the moment",
            }
        }
        Err(_) => {
            tracing::warn!("not ready: the node does not answer in time");
            "the node does not answer in time"
        }
    };
    let help = "ask again later; `thence status` on that machine says more";
    Err(Problem::new(ProblemCode::Unavailable, detail, help).retry_after(5))
}
