//! Hints that a database has changed, as server-sent events: whoever gets one asks for the changes.
//!
//! **Invariant**: a hint never tells more than that there is something new, and where the feed stands; and it is told only
//! for as long as the asker may see the database.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use tokio::time::Instant;

use super::api::{BasePath, enter, header};
use super::http::Stopping;
use super::problem::Problem;
use super::tenant::node_problem;
use super::{Access, Relay, http::Exchange};
use crate::model::Role;

/// Something is said at least so often, so that whatever stands in between does not take the connection for dead.
const ALIVE_EVERY: Duration = Duration::from_secs(20);
/// It is looked at most once in so long, whoever wrote: many commits at once are one reason to ask.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Where nothing changes it is asked so often whether the asker may still be told.
const LET_IN_EVERY: Duration = Duration::from_secs(5);
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Tells of every commit that there was one.
pub async fn events(
    State(relay): State<Arc<Relay>>,
    Path(path): Path<BasePath>,
    exchange: Exchange,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let access = enter(&relay, &headers, &path, Role::Reader)?;
    let seen = header(&headers, &LAST_EVENT_ID)?.and_then(|seen| seen.parse().ok());
    let (sender, body) = Channel::<Bytes, Infallible>::new(1);
    tokio::spawn(tell(relay, access, headers, path, seen, sender, exchange.stopping()));
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::new(body)).into_response())
}

async fn tell(
    relay: Arc<Relay>,
    access: Access,
    headers: HeaderMap,
    path: BasePath,
    mut seen: Option<u64>,
    mut sender: Sender<Bytes, Infallible>,
    mut stopping: Stopping,
) {
    let mut landed = relay.node().landed();
    let (mut said_at, mut let_in_at) = (Instant::now(), Instant::now());
    loop {
        // Marked as seen before looking, so that what lands meanwhile is not slept over.
        landed.mark_unchanged();
        let Ok(version) = position(&relay, &access) else { return };
        let is_new = seen != Some(version);
        if is_new || let_in_at.elapsed() >= LET_IN_EVERY {
            // A token may have ended, or the database may not be theirs any more.
            if enter(&relay, &headers, &path, Role::Reader).is_err() {
                return;
            }
            let_in_at = Instant::now();
        }
        let said = if is_new {
            seen = Some(version);
            let epoch = relay.epoch_text();
            Some(format!("id: {version}\nevent: commit\ndata: {{\"version\":{version},\"epoch\":\"{epoch}\"}}\n\n"))
        } else {
            (said_at.elapsed() >= ALIVE_EVERY).then(|| ": alive\n\n".to_owned())
        };
        if let Some(said) = said {
            if sender.send_data(said.into()).await.is_err() {
                return;
            }
            said_at = Instant::now();
        }
        tokio::select! {
            () = stopping.wanted() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let due = (said_at + ALIVE_EVERY).min(let_in_at + LET_IN_EVERY);
        tokio::select! {
            () = stopping.wanted() => return,
            // The node may be gone. When it is time to look, nothing need have changed.
            changed = tokio::time::timeout_at(due, landed.changed()) => if let Ok(Err(_)) = changed { return },
        }
    }
}

fn position(relay: &Relay, access: &Access) -> Result<u64, Problem> {
    relay.view(access)?.position().map_err(|error| node_problem(error.into()))
}
