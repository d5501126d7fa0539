//! `thence relay`: a node that also serves HTTP.

use std::sync::Arc;

use super::failure::Failure;
use super::interrupt::Interrupt;
use super::node;
use crate::config::{HttpSettings, Settings};
use crate::node::Node;
use crate::relay::http::{HttpConfig, HttpServer};
use crate::relay::{MetricsGate, Problem, ProblemCode, routes};

/// Runs a relay. Where it cannot serve HTTP is found before the data folder is touched.
pub async fn run(settings: &Settings, interrupt: &Interrupt) -> Result<(), Failure> {
    let HttpSettings { listen, tls, insecure, cors } = settings.http.clone();
    let http = HttpServer::bind(HttpConfig { tls, insecure, cors, ..HttpConfig::new(listen) }).await?;
    node::run(settings, interrupt, Some(http)).await
}

/// Serves a node's requests until `stop` is done, and those that are under way then to their end.
pub async fn serve(node: &Node, http: HttpServer, stop: impl Future<Output = ()>) {
    tracing::info!(url = http.url(), "serving HTTP");
    // Closed until there are tokens to open it with.
    let gate: MetricsGate = Arc::new(|_| {
        let help = "show the administrator's token: Authorization: Bearer TOKEN";
        Err(Problem::new(ProblemCode::Unauthenticated, "metrics are for the administrator", help))
    });
    let router = routes(node, &http.metrics(), &gate);
    http.serve(router, stop).await;
}
