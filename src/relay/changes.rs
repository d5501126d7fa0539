//! What a client lacks: everything at first, then what changes, page by page.
//!
//! **Invariant (no misses)**: a sync point moves to the last place that was *looked at*, in one snapshot, and a round ends
//! where it was fixed to end when it began. What changes above that comes in the next round, and `more` says that there
//! is one: once writers are quiet, a client that is told `more: false` holds exactly the visible rows.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use super::clients::Led;
use super::page::{self, Gone, Page};
use super::problem::{Problem, ProblemCode};
use super::row;
use super::sync_point::{Phase, SyncPoint};
use super::tenant::node_problem;
use super::{Access, Relay};
use crate::model::CollectionName;
use crate::store::{PageLimits, StoreError, View};

/// Rows in a page if the client does not say, and at most.
pub(super) const ROWS_USUAL: usize = 100;
pub(super) const ROWS_MAX: usize = 1000;
/// About how many bytes of rows a page has at most.
const PAGE_BYTES: usize = 4 << 20;
/// So many rows are looked at for one page, whether the filter lets them through or not.
const LOOKED_AT_MAX: usize = 20_000;

/// How many rows a page has for a client that asks for so many at most, if it says.
pub(super) fn page_rows(limit: Option<u64>) -> Result<usize, Problem> {
    match limit {
        Some(0) => {
            let help = format!("ask for 1 to {ROWS_MAX} rows");
            Err(Problem::new(ProblemCode::Malformed, "a limit of 0 rows", help))
        }
        Some(limit) => Ok(usize::try_from(limit).unwrap_or(ROWS_MAX).min(ROWS_MAX)),
        None => Ok(ROWS_USUAL),
    }
}

/// What a client wants of what changed.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Of these tables; of all if none are named.
    pub tables: Option<BTreeSet<CollectionName>>,
    /// So many rows at most.
    pub limit: Option<u64>,
}

impl Wanted {
    /// From the words of a request.
    pub fn parse(tables: Option<&str>, limit: Option<u64>) -> Result<Self, Problem> {
        let names = tables.map(|names| names.split(',').map(row::table).collect::<Result<_, _>>()).transpose()?;
        page_rows(limit)?;
        Ok(Self { tables: names, limit })
    }

    /// How many rows it is of.
    fn rows(&self, view: &View) -> Result<u64, StoreError> {
        let Some(tables) = &self.tables else { return view.objects() };
        tables.iter().map(|table| Ok(view.table_count(table)?.map_or(0, |(rows, _)| rows))).sum()
    }

    fn filter(&self) -> u64 {
        let Some(tables) = &self.tables else { return 0 };
        let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
        let mut number = [0; 8];
        number.copy_from_slice(&blake3::hash(names.join(",").as_bytes()).as_bytes()[..8]);
        u64::from_le_bytes(number) | 1
    }

    fn limits(&self) -> PageLimits {
        PageLimits { rows: page_rows(self.limit).unwrap_or(ROWS_USUAL), bytes: PAGE_BYTES, looked_at: LOOKED_AT_MAX }
    }
}

/// A page for a client.
#[derive(Clone, Debug)]
pub struct Changes {
    /// The body, but for what `sync` adds to it.
    pub body: Map<String, Json>,
    /// The sync point that stands for having it.
    pub token: String,
    phase: Phase,
    /// How many rows there were that a client lacks to which all rows are still being told.
    rows_left: u64,
}

impl Changes {
    /// Whether there is more to be asked for at once.
    pub fn more(&self) -> bool {
        self.body.get("more").and_then(Json::as_bool).unwrap_or_default()
    }
}

impl Relay {
    /// Where the client of this token is; a refusal if it can no longer be used. None is at the beginning.
    pub fn position_of(
        &self,
        access: &Access,
        view: &View,
        token: Option<&str>,
        wanted: &Wanted,
    ) -> Result<SyncPoint, Problem> {
        let phase = page::beginning(view).map_err(|error| node_problem(error.into()))?;
        let beginning = self.point(access, view, wanted, phase)?;
        let point = self.usable(access, view, token, beginning)?;
        match point.phase {
            Phase::Deletions { .. } => Err(other_token()),
            _ => Ok(point),
        }
    }

    /// A place in a database as it is now.
    pub(super) fn point(
        &self,
        access: &Access,
        view: &View,
        wanted: &Wanted,
        phase: Phase,
    ) -> Result<SyncPoint, Problem> {
        let schema = self.schemas(&access.database, wanted.tables.as_ref())?;
        Ok(SyncPoint { epoch: self.epoch(), revision: view.revision(), schema, filter: wanted.filter(), phase })
    }

    /// What a token says, if one can go on from it to where `beginning` begins.
    pub(super) fn usable(
        &self,
        access: &Access,
        view: &View,
        token: Option<&str>,
        beginning: SyncPoint,
    ) -> Result<SyncPoint, Problem> {
        let Some(token) = token else { return Ok(beginning) };
        let point = self.open_token(access, token).ok_or_else(other_token)?;
        let gone = point.gone(view, &beginning).map_err(|error| node_problem(error.into()))?;
        let (reason, action, detail) = match gone {
            None => return Ok(point),
            Some(Gone::Revision) => ("revision", "wipe-local", "the database was wiped since"),
            Some(Gone::Epoch) => {
                ("epoch", "resync-keep-outbox", "this relay counts anew since then, as after a restore")
            }
            Some(Gone::Filter) => ("filter", "resync-keep-outbox", "the token was made for other tables"),
            Some(Gone::Schema) => ("schema", "upgrade", "the schema of a table has changed"),
            Some(Gone::Retention) => {
                let detail = "it is so old that rows were deleted since which are not told any more";
                ("retention", "resync-keep-outbox", detail)
            }
        };
        let fresh = self.seal(access, &beginning)?;
        // Clients that all meet this at the same moment must not all come back at the same moment.
        let after = 1 + self.node.surroundings().random() % 10;
        let help = "do what `action` says, and go on with the `token` that is in this answer; nothing unsent is lost";
        let problem = Problem::new(ProblemCode::Gone, detail, help).retry_after(after);
        Err(problem.with("reason", reason).with("action", action).with("token", fresh))
    }

    /// The keys of a table's rows that were deleted, of which the client may not know; `told` it knows by itself.
    pub fn deletions(
        &self,
        access: &Access,
        table: &CollectionName,
        token: Option<&str>,
        told: &BTreeSet<String>,
    ) -> Result<Changes, Problem> {
        let view = self.view(access)?;
        let failed = |error: StoreError| node_problem(error.into());
        let wanted = Wanted { tables: Some(BTreeSet::from([table.clone()])), limit: None };
        let horizon = view.horizon().map_err(failed)?;
        let beginning = self.point(access, &view, &wanted, Phase::Deletions { position: horizon })?;
        let point = self.usable(access, &view, token, beginning)?;
        let Phase::Deletions { position } = point.phase else { return Err(other_token()) };
        let limits = PageLimits { rows: ROWS_MAX, bytes: PAGE_BYTES, looked_at: LOOKED_AT_MAX };
        let top = view.position().map_err(failed)?;
        let page = view.rows_changed(position, top, wanted.tables.as_ref(), limits).map_err(failed)?;
        let gone = page.rows.iter().filter(|row| row.fields.is_none()).map(|row| row.key.as_str());
        let gone: Vec<&str> = gone.filter(|key| !told.contains(*key)).collect();
        let phase = Phase::Deletions { position: page.at };
        let token = self.seal(access, &SyncPoint { phase: phase.clone(), ..point })?;
        let body = json!({
            "deleted": gone,
            "more": !page.is_last,
            "epoch": self.epoch_text(),
            "revision": view.revision(),
            "token": token,
        });
        Ok(Changes { body: body.as_object().cloned().unwrap_or_default(), token, phase, rows_left: 0 })
    }

    /// The page that follows on a token, for a client that is remembered under this name. Whether the token can still be
    /// used is looked at in the snapshot that the page is read from: what is forgotten in between would be missed.
    pub(super) fn next_page(
        &self,
        access: &Access,
        client: Option<&str>,
        token: Option<&str>,
        wanted: &Wanted,
    ) -> Result<Changes, Problem> {
        let view = self.view(access)?;
        let point = self.position_of(access, &view, token, wanted)?;
        let from = point.phase.clone();
        let page = self.page(access, &view, point, wanted)?;
        self.note_client(
            access,
            client,
            Led { from: &from, to: &page.phase, more: page.more(), rows_left: page.rows_left },
        );
        Ok(page)
    }

    /// The page that follows on a sync point.
    pub fn page(&self, access: &Access, view: &View, point: SyncPoint, wanted: &Wanted) -> Result<Changes, Problem> {
        let failed = |error: StoreError| node_problem(error.into());
        let page = Page::read(view, point.phase.clone(), wanted.tables.as_ref(), wanted.limits()).map_err(failed)?;
        let Page { rows, phase, more, done } = page.ok_or_else(other_token)?;
        let mut body = Map::new();
        body.insert("phase".to_owned(), if done.is_some() { "initial" } else { "live" }.into());
        let mut rows_left = 0;
        if let Some((rows_done, bytes_done)) = done {
            let rows_total = wanted.rows(view).map_err(failed)?;
            rows_left = if matches!(phase, Phase::Initial { .. }) { rows_total.saturating_sub(rows_done) } else { 0 };
            let progress = json!({"rows_done": rows_done, "rows_total": rows_total, "bytes_done": bytes_done});
            body.insert("progress".to_owned(), progress);
        }
        let token = self.seal(access, &SyncPoint { phase: phase.clone(), ..point })?;
        body.insert("epoch".to_owned(), self.epoch_text().into());
        body.insert("revision".to_owned(), point.revision.into());
        body.insert("changes".to_owned(), rows.iter().map(row::changed).collect());
        body.insert("more".to_owned(), more.into());
        body.insert("token".to_owned(), token.clone().into());
        Ok(Changes { body, token, phase, rows_left })
    }
}

/// What is said of a token that was not made here, or for something else.
fn other_token() -> Problem {
    let help =
        "send the token exactly as it came, for the same database and call and with the same access token; or none";
    Problem::new(ProblemCode::BadToken, "this is no sync token for this request", help)
}
