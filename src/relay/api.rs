//! From a request to a function of the [`Relay`] and back: paths, queries, headers and bodies.
//!
//! **Invariant**: the order of checks is the same everywhere: who asks (401), whether there is such a database as far as
//! they may know (404), what they may do (403), and only then what the request says.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, RawPathParams, Request as HttpRequest, State};
use axum::http::header::{AUTHORIZATION, HeaderName, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use tokio::sync::Semaphore;

use super::audit::AuditQuery;
use super::clients::CLIENT_NAME_BYTES_MAX;
use super::http::{BodyBytesMax, Exchange, JsonBody, Limit, Reply, SYNC_TOKEN, in_words};
use super::lost::LostQuery;
use super::policy::{Policy, PolicyScope};
use super::problem::{Problem, ProblemCode};
use super::row;
use super::settings::TableSettings;
use super::table::{FromSource, Range};
use super::tenant::{Principal, Visibility};
use super::upload::KEYS;
use super::{Access, Changes, Deleting, Relay, Wanted, unauthenticated};
use crate::model::{CollectionName, Context, ObjectKey, Operation, Request, Role};
use crate::node::Invitation;
use crate::store::{Upload, Versions, WriteError};

const CLIENT_ID: HeaderName = HeaderName::from_static("client-id");

type Answer = Result<Reply, Problem>;
type Shared = State<Arc<Relay>>;

fn malformed(detail: impl Into<String>, help: &str) -> Problem {
    Problem::new(ProblemCode::Malformed, detail, help)
}

/// The text of a header, if it is there.
pub(super) fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    let text = value.to_str().map_err(|_| malformed(format!("the header {name} is no text"), "send plain ASCII"))?;
    Ok(Some(text))
}

/// Whether `If-None-Match` says that the client has this already. What is no tag is none that it has (RFC 9110, 13.1.2).
fn has(headers: &HeaderMap, etag: &str) -> bool {
    let said = headers.get_all(IF_NONE_MATCH).into_iter().filter_map(|value| value.to_str().ok());
    let mut tags = said.flat_map(|said| said.split(',')).map(str::trim);
    let inner = |tag: &str| {
        let tag = tag.strip_prefix("W/").unwrap_or(tag);
        tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')) == Some(etag)
    };
    tags.any(|tag| tag == "*" || inner(tag))
}

/// What stands between the quotes of an `If-Match` with one tag. A weak tag never matches (RFC 9110, 13.1.1): it does not
/// say that what it was given with is the same byte for byte. Several tags are refused, since what is done to a thing is
/// done to the one state that its sender has seen.
fn tag(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(text) = header(headers, &IF_MATCH)?.map(str::trim) else { return Ok(None) };
    let is_tag = |text: &str| text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).is_some_and(is_opaque);
    let help = "send one ETag as it came, in its quotes";
    if headers.get_all(IF_MATCH).iter().count() > 1 {
        return Err(malformed("there are several If-Match headers", help));
    }
    match text.strip_prefix("W/") {
        Some(weak) if is_tag(weak) => {
            let help =
                "send the ETag as the relay gave it; what compresses answers on the way may have put the W/ there";
            Err(Problem::new(ProblemCode::Changed, "a weak tag, with W/ before it, matches nothing in If-Match", help))
        }
        None if is_tag(text) => Ok(Some(&text[1..text.len() - 1])),
        _ if text == "*" => Err(malformed("`*` in If-Match does not say what was seen", help)),
        _ if text.contains(',') => Err(malformed("If-Match has several tags, and takes one", help)),
        _ => Err(malformed("what is in If-Match is no tag", help)),
    }
}

/// Whether this may stand between the quotes of a tag.
fn is_opaque(inner: &str) -> bool {
    !inner.contains('"')
}

/// Who asks.
pub(super) fn principal(relay: &Relay, headers: &HeaderMap) -> Result<Principal, Problem> {
    let Some(text) = header(headers, &AUTHORIZATION)? else { return Ok(Principal::Anybody) };
    let token = text.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    relay.tenants().authenticate(token.ok_or_else(unauthenticated)?.1.trim())
}

/// Only an administrator passes.
pub(super) fn administrator(relay: &Relay, headers: &HeaderMap) -> Result<(), Problem> {
    match principal(relay, headers)? {
        Principal::Token(token) if token.scope.customer.is_none() => Ok(()),
        Principal::Anybody => Err(unauthenticated()),
        Principal::Token(_) => {
            let help = "use the administrator's token";
            Err(Problem::new(ProblemCode::Forbidden, "this is for the administrator", help))
        }
    }
}

/// Reads in the store where nobody waits for the thread.
pub(super) async fn aside<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    /// So many at a time: others wait for their turn, and whoever asks for much does not keep everybody else out.
    static PLACES: Semaphore = Semaphore::const_new(8);
    let place = PLACES.acquire().await;
    // Held until it has been read, also when nobody waits for that any more.
    let read = move || {
        let _place = place;
        read()
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a read broke off");
        Err(Problem::new(ProblemCode::Internal, "the read broke off", "tell the operator its Request-Id"))
    })
}

/// `/v1/customers/{customer}/databases/{database}`
#[derive(Clone, Debug, Deserialize)]
pub struct BasePath {
    customer: String,
    database: String,
}

/// A table in it.
#[derive(Clone, Debug, Deserialize)]
pub struct TablePath {
    #[serde(flatten)]
    base: BasePath,
    table: String,
}

/// A row in it.
#[derive(Clone, Debug, Deserialize)]
pub struct RowPath {
    #[serde(flatten)]
    base: BasePath,
    table: String,
    key: String,
}

/// Lets whoever sends these headers in to a database.
pub(super) fn enter(relay: &Relay, headers: &HeaderMap, path: &BasePath, need: Role) -> Result<Access, Problem> {
    relay.enter(principal(relay, headers)?, &path.customer, &path.database, need)
}

/// Whether every `%` in a path stands for a byte. Read as it stands it would name something else than its sender means.
fn check_percent(path: &str) -> Result<(), Problem> {
    let is_byte = |after: &str| after.len() >= 2 && after.bytes().take(2).all(|digit| digit.is_ascii_hexdigit());
    if path.split('%').skip(1).all(is_byte) {
        return Ok(());
    }
    Err(malformed("the path has a % without two hexadecimal digits", "write a % as %25"))
}

/// How large a body may be of somebody who has nothing to write.
const READER_BYTES_MAX: usize = 1 << 20;

/// Lets a request pass to a database that its sender may know of, or to where one is to be registered by somebody. What
/// else it takes each handler says itself.
pub async fn let_in(
    State(relay): Shared,
    path: RawPathParams,
    exchange: Exchange,
    mut request: HttpRequest,
    next: Next,
) -> Result<Response, Problem> {
    let asker = principal(&relay, request.headers())?;
    check_percent(request.uri().path())?;
    let named = |name: &str| path.iter().find(|(other, _)| *other == name).map_or("", |(_, value)| value);
    let registers = request.method() == Method::PUT && path.iter().count() == 2;
    if registers {
        let names = (named("customer").parse(), named("database").parse());
        match names {
            _ if asker == Principal::Anybody => return Err(unauthenticated()),
            (Ok(customer), Ok(database)) if asker.role(&customer, &database).is_none() => {
                return Err(super::not_found());
            }
            // A name that is none is told so by the handler.
            _ => {}
        }
    } else {
        // Who may not write is told so before a body is read. Two calls write only if there is something in them.
        let reads = request.method() == Method::GET || request.method() == Method::HEAD;
        let may_read = reads || ["/sync", "/deletions"].iter().any(|call| request.uri().path().ends_with(call));
        let need = if may_read { Role::Reader } else { Role::Writer };
        let access = relay.enter(asker, named("customer"), named("database"), need)?;
        // A name that is none is told so by the handler.
        let table = CollectionName::user(named("table")).ok();
        let policies = relay.pace(&access, table.as_ref(), exchange.client().ip());
        let policies = policies.inspect_err(|problem| {
            if problem.code == ProblemCode::TooManyRequests {
                exchange.refused(Limit::Rate);
            }
        })?;
        let bytes_max = usize::try_from(policies.limit(Policy::BatchBytes)).unwrap_or(usize::MAX);
        let bytes_max = if access.role < Role::Writer { READER_BYTES_MAX } else { bytes_max };
        request.extensions_mut().insert(BodyBytesMax(bytes_max));
    }
    Ok(next.run(request).await)
}

/// What is said of a database when it is registered.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registration {
    visibility: Option<Visibility>,
}

/// Registers a database.
pub async fn register(
    State(relay): Shared,
    Path(path): Path<BasePath>,
    headers: HeaderMap,
    body: Option<JsonBody<Registration>>,
) -> Answer {
    let asker = principal(&relay, &headers)?;
    let invalid = |error: super::InvalidTenantName| Problem::new(ProblemCode::Invalid, error.to_string(), "name it so");
    if asker == Principal::Anybody {
        return Err(unauthenticated());
    }
    let (customer, database) = (path.customer.parse().map_err(invalid)?, path.database.parse().map_err(invalid)?);
    match asker.role(&customer, &database) {
        Some(Role::Owner) => {}
        Some(role) => {
            let detail = format!("this token is one of a {role}; a database is registered by owners");
            return Err(Problem::new(ProblemCode::Forbidden, detail, "use another token"));
        }
        None => return Err(super::not_found()),
    }
    let visibility = body.unwrap_or(JsonBody(Registration::default())).0.visibility;
    let (database, is_new) = relay.tenants().register_by(asker.name(), &customer, &database, visibility).await?;
    let access = Access { database, principal: asker, role: Role::Owner };
    let body = describe(&relay, &access)?;
    Ok(if is_new { Reply::created(&body) } else { Reply::ok(&body) })
}

/// Which revision of a database is meant.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WipeQuery {
    revision: Option<u64>,
}

/// Begins a database anew.
pub async fn wipe(
    State(relay): Shared,
    Path(path): Path<BasePath>,
    Query(query): Query<WipeQuery>,
    headers: HeaderMap,
) -> Answer {
    let access = enter(&relay, &headers, &path, Role::Owner)?;
    Ok(Reply::accepted(&relay.wipe(&access, query.revision).await?))
}

/// Tells how far a job is.
pub async fn job(State(relay): Shared, Path(job): Path<String>, headers: HeaderMap) -> Answer {
    let asker = principal(&relay, &headers)?;
    Ok(Reply::ok(&aside(move || relay.job(&asker, &job)).await?))
}

/// Tells of a database.
pub async fn database(State(relay): Shared, Path(path): Path<BasePath>, headers: HeaderMap) -> Answer {
    let access = enter(&relay, &headers, &path, Role::Reader)?;
    Ok(Reply::ok(&aside(move || describe(&relay, &access)).await?))
}

fn describe(relay: &Relay, access: &Access) -> Result<Json, Problem> {
    let view = relay.view(access)?;
    let summary = view.summary().map_err(|error| super::tenant::node_problem(error.into()))?;
    let mut tables = Map::new();
    for table in view.collections() {
        let counted = view.table_count(&table).map_err(|error| super::tenant::node_problem(error.into()))?;
        if let Some((count, version)) = counted {
            let mut told = json!({"count": count, "max_version": version});
            let limits = relay.policies(access, Some(&table))?.set_in(&PolicyScope::of(&access.database, Some(&table)));
            if !limits.is_empty() {
                told["limits"] = limits.into();
            }
            tables.insert(table.to_string(), told);
        }
    }
    for table in relay.tables_without_rows(&access.database, &view)? {
        tables.insert(table.to_string(), json!({"count": 0, "max_version": 0}));
    }
    Ok(json!({
        "customer": access.database.customer,
        "database": access.database.name,
        "space": access.database.space.to_string(),
        "visibility": access.database.visibility,
        "revision": view.revision(),
        "epoch": relay.epoch_text(),
        "version": summary.position,
        "rows": summary.objects,
        "bytes": summary.bytes,
        "conflicts": summary.conflicts,
        "lost": summary.lost,
        "horizon": view.horizon().map_err(|error| super::tenant::node_problem(error.into()))?,
        "tables": tables,
        "limits": relay.policies(access, None)?.limits(),
    }))
}

/// Tells what is left of edits that lost to a delete.
pub async fn lost(
    State(relay): Shared,
    Path(path): Path<BasePath>,
    Query(query): Query<LostQuery>,
    headers: HeaderMap,
) -> Answer {
    let access = enter(&relay, &headers, &path, Role::Writer)?;
    Ok(Reply::ok(&aside(move || relay.lost(&access, &query)).await?))
}

/// Tells what holds where nothing else is set.
pub async fn limits(State(relay): Shared) -> Answer {
    Ok(Reply::ok(&relay.tenants().policies(&PolicyScope::Relay)?.limits()))
}

/// Tells who deleted, granted, restored or set what of a customer, and when.
pub async fn audit(
    State(relay): Shared,
    Path(customer): Path<String>,
    query: Result<Query<AuditQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Answer {
    let customer = relay.owned_customer(&principal(&relay, &headers)?, &customer)?;
    let Query(query) = query.map_err(|error| malformed(in_words(&error.body_text()), "correct the query"))?;
    let page = relay.audit(&customer, &query).await?;
    Ok(Reply::ok(&json!({"entries": page.entries, "more": page.more})))
}

// Tables.

/// Tells of a table as a whole.
pub async fn table(State(relay): Shared, Path(path): Path<TablePath>, headers: HeaderMap) -> Answer {
    let access = enter(&relay, &headers, &path.base, Role::Reader)?;
    let (body, etag) = relay.table(&access, &row::table(&path.table)?)?;
    Ok(if has(&headers, &etag) { Reply::not_modified(&etag) } else { Reply::ok(&body).etag(&etag) })
}

/// Sets what is set of a table.
pub async fn set_table(
    State(relay): Shared,
    Path(path): Path<TablePath>,
    headers: HeaderMap,
    JsonBody(settings): JsonBody<TableSettings>,
) -> Answer {
    let access = enter(&relay, &headers, &path.base, Role::Owner)?;
    Ok(Reply::ok(&relay.set_table(&access, &row::table(&path.table)?, &settings).await?))
}

/// Which rows a manifest is of.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestQuery {
    min_version: Option<u64>,
    max_version: Option<u64>,
    min_source_version: Option<FromSource>,
    max_source_version: Option<i64>,
    limit: Option<u64>,
    #[serde(default)]
    summary: bool,
}

/// Tells keys and versions.
pub async fn manifest(
    State(relay): Shared,
    Path(path): Path<TablePath>,
    Query(query): Query<ManifestQuery>,
    headers: HeaderMap,
) -> Answer {
    let access = enter(&relay, &headers, &path.base, Role::Reader)?;
    let by_source = query.min_source_version.is_some() || query.max_source_version.is_some();
    if by_source && (query.min_version.is_some() || query.max_version.is_some()) {
        return Err(malformed("a manifest is by `version` or by `source_version`", "leave one of them out"));
    }
    let versions = if by_source {
        let until = query.max_source_version.unwrap_or(i64::MAX);
        query.min_source_version.unwrap_or(FromSource::Version(i64::MIN)).until(until)
    } else {
        Versions::Own(query.min_version.unwrap_or(0)..=query.max_version.unwrap_or(u64::MAX))
    };
    let table = row::table(&path.table)?;
    let body = aside(move || relay.manifest(&access, &table, &versions, query.limit, query.summary)).await?;
    Ok(Reply::ok(&body))
}

/// Rows to write.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    rows: Vec<Json>,
}

/// How to write them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UploadQuery {
    #[serde(default)]
    atomic: bool,
}

/// Writes rows of a table.
pub async fn upload(
    State(relay): Shared,
    Path(path): Path<TablePath>,
    Query(query): Query<UploadQuery>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Rows>,
) -> Answer {
    let access = enter(&relay, &headers, &path.base, Role::Writer)?;
    no_precondition(&headers)?;
    let results = relay.upload(&access, Some(&row::table(&path.table)?), body.rows, query.atomic).await?;
    Ok(Reply::ok(&json!({"results": results, "epoch": relay.epoch_text()})))
}

/// Rows to delete: by key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    keys: Vec<String>,
}

/// Rows to delete: a range.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteQuery {
    after: Option<u64>,
    after_source: Option<i64>,
    #[serde(default)]
    all: bool,
}

/// Deletes rows of a table.
pub async fn delete_rows(
    State(relay): Shared,
    Path(path): Path<TablePath>,
    Query(query): Query<DeleteQuery>,
    headers: HeaderMap,
    body: Option<JsonBody<Keys>>,
) -> Answer {
    let access = enter(&relay, &headers, &path.base, Role::Writer)?;
    let table = row::table(&path.table)?;
    let range = match (query.after, query.after_source, query.all) {
        (None, None, false) => None,
        (Some(after), None, false) => Some(Range::After(after)),
        (None, Some(after), false) => Some(Range::AfterSource(after)),
        (None, None, true) => Some(Range::All),
        _ => return Err(malformed("several ranges", "send one of `after`, `after_source` and `all`")),
    };
    match (range, body) {
        (Some(range), None) => {
            let body = relay.delete_range(&access, &table, range, tag(&headers)?).await?;
            Ok(Reply::ok(&body))
        }
        (None, Some(JsonBody(Keys { keys }))) => {
            let results = relay.delete_keys(&access, &table, &keys).await?;
            Ok(Reply::ok(&json!({"results": results, "epoch": relay.epoch_text()})))
        }
        _ => {
            Err(malformed("it is not said what to delete", "send either `keys` in the body, or one range in the query"))
        }
    }
}

/// Deletes rows, and tells which others were deleted that the client may not know of.
pub async fn deletions(
    State(relay): Shared,
    Path(path): Path<TablePath>,
    headers: HeaderMap,
    JsonBody(Keys { keys }): JsonBody<Keys>,
) -> Answer {
    let need = if keys.is_empty() { Role::Reader } else { Role::Writer };
    let access = enter(&relay, &headers, &path.base, need)?;
    let (table, token) = (row::table(&path.table)?, header(&headers, &SYNC_TOKEN)?.map(str::to_owned));
    // A token that cannot be used is said so before anything is deleted, and what it is for must be there still then.
    let before = relay.no_deletions_yet(&access, &table, token.as_deref())?;
    let rows = keys.iter().map(|key| json!({"key": key, "op": "delete"})).collect();
    let results = relay.upload_in(&access, Some(&table), before.revision(), (KEYS, rows)).await?;
    let deleting = Deleting::of(keys, &results);
    let page = aside(move || relay.deletions(&access, &table, token.as_deref(), &deleting)).await;
    let page = Changes::with_results(page, before, results)?;
    Ok(Reply::ok(&page.body).sync_token(&page.token))
}

// Rows.

/// Tells a row.
pub async fn row(State(relay): Shared, Path(path): Path<RowPath>, headers: HeaderMap) -> Answer {
    let access = enter(&relay, &headers, &path.base, Role::Reader)?;
    let (table, key) = (row::table(&path.table)?, row::row_key(&path.key)?);
    let found = relay.view(&access)?.row(&table, &key).map_err(|error| super::tenant::node_problem(error.into()))?;
    let found = found.ok_or_else(no_row)?;
    let etag = found.context.to_string();
    if has(&headers, &etag) {
        return Ok(Reply::not_modified(&etag));
    }
    let mut body = row::shown(&found);
    body.insert("epoch".to_owned(), relay.epoch_text().into());
    Ok(Reply::ok(&body).etag(&etag))
}

fn no_row() -> Problem {
    Problem::new(ProblemCode::NotFound, "there is no such row", "`PUT` makes one")
}

async fn write_row(relay: &Relay, path: RowPath, headers: &HeaderMap, operation: Operation) -> Answer {
    let access = enter(relay, headers, &path.base, Role::Writer)?;
    let (collection, key): (CollectionName, _) = (row::table(&path.table)?, row::row_key(&path.key)?);
    // What cannot be written at all is told so whatever the row's tag is (RFC 9110, 13.2.1).
    row::check(&operation, "")?;
    let expected = precondition(relay, &access, (&collection, &key), headers)?;
    let request = Request { collection, key, operation };
    let done = relay.write_row(&access, Upload { expected, ..Upload::new(request) }).await?;
    let etag = done.seen.to_string();
    let body = json!({"key": path.key, "version": done.version, "context": etag, "epoch": relay.epoch_text()});
    Ok(Reply::ok(&body).etag(&etag))
}

/// How a row is to stand for a write to be done, if that is said: as one that the client has seen, or not at all
/// (`If-None-Match: *`), or at all (`If-Match: *`).
fn precondition(
    relay: &Relay,
    access: &Access,
    (table, key): (&CollectionName, &ObjectKey),
    headers: &HeaderMap,
) -> Result<Option<Context>, Problem> {
    let said = |name| header(headers, name).map(|text| text.map(str::trim));
    match (said(&IF_MATCH)?, said(&IF_NONE_MATCH)?) {
        (None, Some("*")) => Ok(Some(Context::default())),
        (_, Some(_)) => {
            Err(malformed("a write takes `If-None-Match: *` and no tags", "use If-Match for what you have seen"))
        }
        (Some("*"), None) => {
            let found =
                relay.view(access)?.row(table, key).map_err(|error| super::tenant::node_problem(error.into()))?;
            let gone = || Problem::new(ProblemCode::Changed, "there is no such row", "leave If-Match out to make one");
            Ok(Some(found.ok_or_else(gone)?.context))
        }
        // What is no context of a row is the tag of none that there is, and nor is that of a row that is not there.
        _ => match tag(headers)?.map(str::parse::<Context>) {
            None => Ok(None),
            Some(Ok(expected)) if !expected.is_empty() => Ok(Some(expected)),
            Some(_) => Err(row::write_problem(&WriteError::Changed { index: 0 })),
        },
    }
}

/// Of many rows at once each says itself what was seen of it.
fn no_precondition(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.contains_key(IF_MATCH) || headers.contains_key(IF_NONE_MATCH) {
        true => {
            Err(malformed("there is no one tag of many rows", "send `context` with each row, or write them one by one"))
        }
        false => Ok(()),
    }
}

/// Replaces a row.
pub async fn put_row(
    State(relay): Shared,
    Path(path): Path<RowPath>,
    headers: HeaderMap,
    JsonBody(fields): JsonBody<Map<String, Json>>,
) -> Answer {
    write_row(&relay, path, &headers, Operation::Put(fields)).await
}

/// Writes some fields of a row.
pub async fn patch_row(
    State(relay): Shared,
    Path(path): Path<RowPath>,
    headers: HeaderMap,
    JsonBody(fields): JsonBody<Map<String, Json>>,
) -> Answer {
    write_row(&relay, path, &headers, Operation::Patch(fields)).await
}

/// Deletes a row.
pub async fn delete_row(State(relay): Shared, Path(path): Path<RowPath>, headers: HeaderMap) -> Answer {
    write_row(&relay, path, &headers, Operation::Delete).await
}

// Synchronisation.

/// What is wanted of what changed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangesQuery {
    limit: Option<u64>,
    tables: Option<String>,
}

/// Tells what changed.
pub async fn changes(
    State(relay): Shared,
    Path(path): Path<BasePath>,
    Query(query): Query<ChangesQuery>,
    headers: HeaderMap,
) -> Answer {
    let access = enter(&relay, &headers, &path, Role::Reader)?;
    let wanted = Wanted::parse(query.tables.as_deref(), query.limit)?;
    let token = header(&headers, &SYNC_TOKEN)?.map(str::to_owned);
    let client = client(&headers)?.map(str::to_owned);
    let page = aside(move || relay.next_page(&access, client.as_deref(), token.as_deref(), &wanted)).await?;
    Ok(Reply::ok(&page.body).sync_token(&page.token))
}

/// Up and down in one call.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncBody {
    #[serde(default)]
    changes: Vec<Json>,
    limit: Option<u64>,
    tables: Option<Vec<String>>,
}

/// Takes what a client wrote, and tells what changed.
pub async fn sync(
    State(relay): Shared,
    Path(path): Path<BasePath>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<SyncBody>,
) -> Answer {
    let need = if body.changes.is_empty() { Role::Reader } else { Role::Writer };
    let access = enter(&relay, &headers, &path, need)?;
    no_precondition(&headers)?;
    // Each is one name here, also where it has a comma in it.
    body.tables.iter().flatten().try_for_each(|name| row::table(name).map(drop))?;
    let wanted = Wanted::parse(body.tables.map(|tables| tables.join(",")).as_deref(), body.limit)?;
    // A token that cannot be used is said so before anything is written: the client sends it all again then.
    let token = header(&headers, &SYNC_TOKEN)?.map(str::to_owned);
    let before = relay.nothing_yet(&access, token.as_deref(), &wanted)?;
    let client = client(&headers)?.map(str::to_owned);
    // Nor should it come to be of no use in between.
    let results = relay.upload_in(&access, None, before.revision(), ("changes", body.changes)).await?;
    let page = aside(move || relay.next_page(&access, client.as_deref(), token.as_deref(), &wanted)).await;
    let page = Changes::with_results(page, before, results)?;
    Ok(Reply::ok(&page.body).sync_token(&page.token))
}

/// Which device it is, if it says so.
fn client(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    match header(headers, &CLIENT_ID)? {
        Some(name) if !(1..=CLIENT_NAME_BYTES_MAX).contains(&name.len()) => {
            let detail = format!("a Client-Id has 1 to {CLIENT_NAME_BYTES_MAX} bytes");
            Err(malformed(detail, "shorten it"))
        }
        name => Ok(name),
    }
}

/// Tells of the clients of a database.
pub async fn clients(State(relay): Shared, Path(path): Path<BasePath>, headers: HeaderMap) -> Answer {
    let access = enter(&relay, &headers, &path, Role::Owner)?;
    Ok(Reply::ok(&relay.clients(&access)?))
}

/// Whom to let in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteBody {
    role: String,
    uses: Option<u32>,
    expires: Option<String>,
}

/// Makes a ticket, with which a full node joins the database over QUIC.
pub async fn invite(
    State(relay): Shared,
    Path(path): Path<BasePath>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<InviteBody>,
) -> Answer {
    let access = enter(&relay, &headers, &path, Role::Owner)?;
    let invalid = |path: &'static str| {
        move |detail: String| {
            Problem::new(ProblemCode::Invalid, detail, "correct it and send it again").with("path", path)
        }
    };
    let role = body.role.parse::<Role>().map_err(invalid("/role"))?;
    let expires = crate::duration::parse(body.expires.as_deref().unwrap_or("7d")).map_err(invalid("/expires"))?;
    let uses = body.uses.unwrap_or(1);
    if uses == 0 {
        return Err(invalid("/uses")("a ticket that is used no times opens nothing".to_owned()));
    }
    let invitation = Invitation { role, uses, expires };
    let ticket = relay.invite(&access, &invitation).await?;
    Ok(Reply::created(&json!({"ticket": ticket.to_string()})))
}
