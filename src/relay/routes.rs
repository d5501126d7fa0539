//! Which path of the relay leads where.
//!
//! So far only what machines that run it ask: whether it lives, whether it can do its work, and what it counts.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use serde_json::json;

use super::http::{Metrics, Reply};
use super::{Problem, ProblemCode};
use crate::node::Node;

/// How long the node's loop may take to say how it is.
const HEALTH_TIME_MAX: Duration = Duration::from_secs(5);

/// Whether whoever sends these headers may read the metrics.
pub type MetricsGate = Arc<dyn Fn(&HeaderMap) -> Result<(), Problem> + Send + Sync>;

/// Everything that a relay answers for `node`.
pub fn routes(node: &Node, metrics: &Arc<Metrics>, gate: &MetricsGate) -> Router {
    let (node, metrics, gate) = (node.clone(), Arc::clone(metrics), Arc::clone(gate));
    Router::new()
        .route("/health/live", get(|| async { Reply::ok(&json!({"status": "live"})) }))
        .route("/health/ready", get(move || ready(node.clone())))
        .route(
            "/metrics",
            get(move |headers: HeaderMap| {
                let text = gate(&headers).map(|()| ([("content-type", "text/plain; version=0.0.4")], metrics.text()));
                std::future::ready(text)
            }),
        )
}

/// Whether it can do its work. Anybody may ask, so it does not say more than that; `thence status` does, and the log.
async fn ready(node: Node) -> Result<Reply, Problem> {
    let detail = match tokio::time::timeout(HEALTH_TIME_MAX, node.health()).await {
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
