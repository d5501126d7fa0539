//! Which path of the relay leads where.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::{get, post, put};
use axum::{Router, middleware};
use serde_json::json;

use super::http::{Metrics, Reply};
use super::{Problem, ProblemCode, Relay, api};

/// How long the node's loop may take to say how it is.
const HEALTH_TIME_MAX: Duration = Duration::from_secs(5);

/// Where everything of a database lies.
const BASE: &str = "/v1/customers/{customer}/databases/{database}";

/// Everything that a relay answers.
pub fn routes(relay: &Arc<Relay>, metrics: &Arc<Metrics>) -> Router {
    let of = |rest: &str| format!("{BASE}{rest}");
    let counted = Arc::clone(metrics);
    let of_databases = Router::new()
        .route(BASE, put(api::register).get(api::database))
        .route(&of("/tables/{table}"), get(api::table).post(api::upload).delete(api::delete_rows))
        .route(&of("/tables/{table}/delete"), post(api::delete_rows))
        .route(&of("/tables/{table}/manifest"), get(api::manifest))
        .route(
            &of("/tables/{table}/rows/{key}"),
            get(api::row).put(api::put_row).patch(api::patch_row).delete(api::delete_row),
        )
        .route(&of("/changes"), get(api::changes))
        .route(&of("/sync"), post(api::sync))
        .route(&of("/invites"), post(api::invite))
        // Before a body is read, or a query: who may not come in costs no more than being told so.
        .route_layer(middleware::from_fn_with_state(Arc::clone(relay), api::let_in));
    Router::new()
        .merge(of_databases)
        .route("/v1/limits", get(api::limits))
        .route("/health/live", get(|| async { Reply::ok(&json!({"status": "live"})) }))
        .route("/health/ready", get(ready))
        .route(
            "/metrics",
            get(move |State(relay): State<Arc<Relay>>, headers: HeaderMap| {
                let text = api::administrator(&relay, &headers)
                    .map(|()| ([("content-type", "text/plain; version=0.0.4")], counted.text()));
                std::future::ready(text)
            }),
        )
        .with_state(Arc::clone(relay))
}

/// Whether it can do its work. Anybody may ask, so it does not say more than that; `thence status` does, and the log.
async fn ready(State(relay): State<Arc<Relay>>) -> Result<Reply, Problem> {
    let detail = match tokio::time::timeout(HEALTH_TIME_MAX, relay.node().health()).await {
        Ok(Ok(())) => return Ok(Reply::ok(&json!({"status": "ready"}))),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            "nothing can be written at the moment"
        }
        Err(_) => {
            tracing::warn!("not ready: the node does not answer in time");
            "the node does not answer in time"
        }
    };
    let help = "ask again later; `thence status` on that machine says more";
    Err(Problem::new(ProblemCode::Unavailable, detail, help).retry_after(5))
}
