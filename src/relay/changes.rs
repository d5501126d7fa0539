//! What a client lacks: everything at first, then what changes, page by page.
//!
//! **Invariant (no misses)**: a sync point moves to the last place that was *looked at*, in one snapshot, and a round ends
//! where it was fixed to end when it began. What changes above that comes in the next round, and `more` says that there
//! is one: once writers are quiet, a client that is told `more: false` holds exactly the visible rows.
//!
//! A token can be of no use any more for every `reason` of the contract but `grant` (`reauthenticate`): what an access
//! token may do is never changed, it is revoked at most, and whoever shows it then is told so (401) before anybody looks
//! at the sync token.

use std::collections::BTreeSet;

use serde_json::{Map, Value as Json, json};

use super::clients::Led;
use super::page::{self, Gone, Page};
use super::problem::{Problem, ProblemCode};
use super::row;
use super::sync_point::{Phase, SyncPoint, Unreadable};
use super::tenant::node_problem;
use super::{Access, Relay};
use crate::model::CollectionName;
use crate::store::{PageLimits, StoreError, View};

/// Rows in a page if the client does not say, and at most.
pub(super) const ROWS_USUAL: usize = 100;
pub(super) const ROWS_MAX: usize = 1000;
/// About how many bytes of rows a page has at most.
pub(super) const PAGE_BYTES: usize = 4 << 20;
/// So many rows are looked at for one page, whether the filter lets them through or not.
pub(super) const LOOKED_AT_MAX: usize = 20_000;

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
    pub(super) point: SyncPoint,
    /// How many rows there were that a client lacks to which all rows are still being told.
    pub(super) rows_left: u64,
}

impl Changes {
    /// Whether there is more to be asked for at once.
    pub fn more(&self) -> bool {
        self.body.get("more").and_then(Json::as_bool).unwrap_or_default()
    }

    /// Of which revision of the database it is.
    pub fn revision(&self) -> u64 {
        self.point.revision
    }

    /// What a client is answered that has also sent something, with these results. They are told whatever became of the
    /// page: it gets the one that was made `before` instead, and asks again.
    pub fn with_results(page: Result<Self, Problem>, before: Self, results: Json) -> Result<Self, Problem> {
        let is_nothing = results.as_array().is_none_or(Vec::is_empty);
        let mut page = if is_nothing { page? } else { page.unwrap_or(before) };
        page.body.insert("results".to_owned(), results);
        Ok(page)
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
        self.usable(access, view, token, wanted, beginning)
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
        wanted: &Wanted,
        beginning: SyncPoint,
    ) -> Result<SyncPoint, Problem> {
        let Some(token) = token else { return Ok(beginning) };
        let gone = match self.open_token(access, token) {
            // One of another call is no token for this one, whatever else there is to be said of it.
            Ok(point) if point.phase.is_of_deletions() == beginning.phase.is_of_deletions() => {
                let gone = point.gone(view, wanted.tables.as_ref(), &beginning);
                match gone.map_err(|error| node_problem(error.into()))? {
                    None => return Ok(point),
                    Some(gone) => gone,
                }
            }
            Ok(_) | Err(Unreadable::Foreign) => return Err(other_token()),
            // All that it shows is the number of a key that there was once. Anybody can write that; whoever does is given
            // what is given to those who have no token at all.
            Err(Unreadable::Forgotten) => Gone::Retention,
        };
        Err(self.begin_anew(access, gone, &beginning)?)
    }

    /// What a client is told that has to begin anew.
    fn begin_anew(&self, access: &Access, gone: Gone, beginning: &SyncPoint) -> Result<Problem, Problem> {
        let (reason, action, detail) = match gone {
            Gone::Revision => ("revision", "wipe-local", "the database was wiped since"),
            Gone::Epoch => ("epoch", "resync-keep-outbox", "this relay counts anew since then, as after a restore"),
            Gone::Filter => ("filter", "resync-keep-outbox", "the token was made for other tables"),
            Gone::Schema => ("schema", "upgrade", "the schema of a table has changed"),
            Gone::Retention => {
                let detail = "it is so old that rows may have been deleted since which are not told any more";
                ("retention", "resync-keep-outbox", detail)
            }
        };
        let fresh = self.seal(access, beginning)?;
        // Clients that all meet this at the same moment must not all come back at the same moment.
        let after = 1 + self.node.surroundings().random() % 10;
        let help = "do what `action` says, and go on with the `token` that is in this answer; nothing unsent is lost";
        let problem = Problem::new(ProblemCode::Gone, detail, help).retry_after(after);
        Ok(problem.with("reason", reason).with("action", action).with("token", fresh))
    }

    /// A page with nothing in it, from which the client of this token goes on where it is, and a refusal if it cannot.
    ///
    /// It is made before anything is written: what a client sent is answered for also where no page can be made after it.
    pub fn nothing_yet(&self, access: &Access, token: Option<&str>, wanted: &Wanted) -> Result<Changes, Problem> {
        let point = self.position_of(access, &self.view(access)?, token, wanted)?;
        let token = token.map_or_else(|| self.seal(access, &point), |token| Ok(token.to_owned()))?;
        let phase = if matches!(point.phase, Phase::Initial { .. }) { "initial" } else { "live" };
        Ok(self.changes(point, token, phase, Json::Array(Vec::new()), true))
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
        let led = Led { from: &from, to: &page.point.phase, more: page.more(), rows_left: page.rows_left };
        self.note_client(access, client, led);
        Ok(page)
    }

    /// The page that follows on a sync point.
    pub fn page(&self, access: &Access, view: &View, point: SyncPoint, wanted: &Wanted) -> Result<Changes, Problem> {
        let failed = |error: StoreError| node_problem(error.into());
        let page = Page::read(view, point.phase.clone(), wanted.tables.as_ref(), wanted.limits()).map_err(failed)?;
        let Page { rows, phase, more, done } = page.ok_or_else(other_token)?;
        let point = SyncPoint { phase, ..point };
        let token = self.seal(access, &point)?;
        let phase = if done.is_some() { "initial" } else { "live" };
        let mut page = self.changes(point, token, phase, rows.iter().map(row::changed).collect(), more);
        if let Some((rows_done, bytes_done)) = done {
            let rows_total = wanted.rows(view).map_err(failed)?;
            let is_initial = matches!(page.point.phase, Phase::Initial { .. });
            page.rows_left = if is_initial { rows_total.saturating_sub(rows_done) } else { 0 };
            let progress = json!({"rows_done": rows_done, "rows_total": rows_total, "bytes_done": bytes_done});
            page.body.insert("progress".to_owned(), progress);
        }
        Ok(page)
    }

    fn changes(&self, point: SyncPoint, token: String, phase: &str, changes: Json, more: bool) -> Changes {
        let mut body = Map::new();
        body.insert("phase".to_owned(), phase.into());
        body.insert("epoch".to_owned(), self.epoch_text().into());
        body.insert("revision".to_owned(), point.revision.into());
        body.insert("changes".to_owned(), changes);
        body.insert("more".to_owned(), more.into());
        body.insert("token".to_owned(), token.clone().into());
        Changes { body, token, point, rows_left: 0 }
    }
}

/// What is said of a token that was not made here, or for something else.
pub(super) fn other_token() -> Problem {
    let help =
        "send the token exactly as it came, for the same database and call and with the same access token; or none";
    Problem::new(ProblemCode::BadToken, "this is no sync token for this request", help)
}
