//! Everything that is held about a customer, as JSON lines.
//!
//! **Invariant**: each database is told as it stood at one instant, page by page, so that a reader who is slow costs no
//! memory; the last line says that it was all, so that an export which broke off is not taken for a whole one.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use serde_json::json;

use super::api::{aside, principal};
use super::problem::Problem;
use super::tenant::node_problem;
use super::{Database, Relay, not_found, row};
use crate::store::{PageLimits, StoreError};

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
    let name = relay.owned_customer(&asker, &customer)?;
    let mut databases = relay.tenants().databases()?;
    databases.retain(|database| database.customer == name);
    if databases.is_empty() {
        return Err(not_found());
    }
    let (sender, body) = Channel::<Bytes, Infallible>::new(1);
    tokio::spawn(async move {
        // A client that reads no more ends it, as does a store that cannot be read: then the last line is missing.
        if let Err(problem) = tell(relay, databases, sender).await {
            tracing::warn!(%problem, "an export broke off");
        }
    });
    let headers = [(CONTENT_TYPE, "application/x-ndjson"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::new(body)).into_response())
}

async fn tell(
    relay: Arc<Relay>,
    databases: Vec<Database>,
    mut sender: Sender<Bytes, Infallible>,
) -> Result<(), Problem> {
    let mut rows = 0_u64;
    for database in databases {
        let mut view = relay.node().view(database.space).map_err(node_problem)?;
        let mut after = None;
        loop {
            let from = after.clone();
            let read = aside(move || {
                let page = view.rows_after(from.as_ref(), None, PAGE);
                page.map(|page| (view, page)).map_err(|error: StoreError| node_problem(error.into()))
            });
            let (same, page) = read.await?;
            view = same;
            rows += page.rows.len() as u64;
            let mut lines = String::new();
            for found in &page.rows {
                let mut line = row::shown(found);
                line.remove("context");
                line.insert("database".to_owned(), database.name.as_str().into());
                line.insert("epoch".to_owned(), relay.epoch_text().into());
                line.insert("table".to_owned(), found.collection.to_string().into());
                lines.push_str(&serde_json::Value::Object(line).to_string());
                lines.push('\n');
            }
            if !lines.is_empty() {
                match tokio::time::timeout(PAGE_TIME_MAX, sender.send_data(lines.into())).await {
                    Ok(Ok(())) => {}
                    // It reads no more.
                    Ok(Err(_)) => return Ok(()),
                    Err(_) => {
                        tracing::warn!("an export broke off, it was read too slowly");
                        return Ok(());
                    }
                }
            }
            if page.is_last {
                break;
            }
            after = page.at;
        }
    }
    let last = format!("{}\n", json!({"end": true, "rows": rows}));
    let _ = sender.send_data(last.into()).await;
    Ok(())
}
