//! Edits that lost to a delete: what is left of them, until somebody restores or discards it.
//!
//! **Invariant**: a page is as large as a page of changes at most, and what comes with a row is a context, so that whoever
//! restores or discards it does so with what they were shown.

use serde::Deserialize;
use serde_json::{Value as Json, json};

use super::changes::{PAGE_BYTES, page_rows};
use super::problem::{Problem, ProblemCode};
use super::tenant::node_problem;
use super::{Access, Relay, row};
use crate::model::{CollectionName, ObjectKey};
use crate::store::PageLimits;

/// Which of them somebody wants to see.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LostQuery {
    /// So many rows at most.
    limit: Option<u64>,
    /// After this one: the `next` of the page before.
    after: Option<String>,
}

/// The table and the key of a row, as `next` names them: no table has a slash in its name.
fn named(text: &str) -> Result<(CollectionName, ObjectKey), Problem> {
    let named =
        text.split_once('/').and_then(|(table, key)| Some((CollectionName::user(table).ok()?, key.parse().ok()?)));
    named.ok_or_else(|| {
        let help = "send the `next` of the page before, percent-encoded, or nothing to begin with the first";
        Problem::new(ProblemCode::Malformed, "`after` names no row", help)
    })
}

impl Relay {
    /// What is left of edits that lost to a delete, page by page.
    pub fn lost(&self, access: &Access, query: &LostQuery) -> Result<Json, Problem> {
        let after = query.after.as_deref().map(named).transpose()?;
        let rows = page_rows(query.limit)?;
        let view = self.view(access)?;
        let limits = PageLimits { rows, bytes: PAGE_BYTES, looked_at: usize::MAX };
        let page = view.rows_lost(after.as_ref(), limits).map_err(|error| node_problem(error.into()))?;
        let lost = page.rows.iter().map(|found| {
            let mut lost = row::shown(found);
            lost.insert("table".to_owned(), found.collection.to_string().into());
            Json::Object(lost)
        });
        let next = page.at.filter(|_| !page.is_last).map(|(table, key)| format!("{table}/{key}"));
        Ok(json!({
            "lost": lost.collect::<Json>(),
            "next": next,
            "epoch": self.epoch_text(),
            "revision": view.revision(),
        }))
    }
}
