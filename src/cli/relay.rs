//! `thence relay`: a node that also serves HTTP.

use std::path::Path;
use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::failure::{Code, Failure};
use super::interrupt::Interrupt;
use super::node;
use crate::config::{HttpSettings, Settings};
use crate::node::{DataFolder, Node};
use crate::relay::http::{HttpConfig, HttpServer};
use crate::relay::{KEPT_EVERY, Kept, Keys, Relay, TOLD_EVERY, routes};

/// Runs a relay. Where it cannot serve HTTP is found before the data folder is touched.
pub async fn run(settings: &Settings, interrupt: &Interrupt) -> Result<(), Failure> {
    let HttpSettings { listen, tls, insecure, cors } = settings.http.clone();
    let http = HttpServer::bind(HttpConfig { tls, insecure, cors, ..HttpConfig::new(listen) }).await?;
    node::run(settings, interrupt, Some(http)).await
}

/// Makes the node of a folder a relay. The first time it makes a token for its administrator, too.
pub async fn open(folder: &DataFolder, node: &Node) -> Result<Arc<Relay>, Failure> {
    let keys = Keys::load(&folder.path().join("sync-points.keys")).map_err(|error| {
        let help = "without its keys a relay has every client begin anew; none of them loses what it has not sent";
        Failure::new(Code::Folder, error.to_string(), help)
    })?;
    let relay = Relay::open(node, keys).await?;
    let token = folder.path().join("administrator.token");
    relay.make_administrator(&token).await.map_err(|error| unwritable(&token, &error))?;
    Ok(Arc::new(relay))
}

fn unwritable(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    let help = "see to it that the data folder can be written to, and start it again";
    Failure::new(Code::Folder, format!("{}: {error}", path.display()), help)
}

/// Looks after the databases from time to time.
async fn keep(relay: &Relay) {
    loop {
        match relay.keep().await {
            Ok(kept) if kept == Kept::default() => {}
            Ok(Kept { expired, forgotten, ids, audit }) => {
                tracing::info!(expired, forgotten, ids, audit, "looked after the databases")
            }
            Err(problem) => tracing::warn!(%problem, "cannot look after the databases"),
        }
        tokio::time::sleep(KEPT_EVERY).await;
    }
}

/// Notes from time to time what was deleted one by one.
async fn tell(relay: &Relay) {
    loop {
        tokio::time::sleep(TOLD_EVERY).await;
        relay.tell_tallies().await;
    }
}

/// Serves a relay's requests until `stop` is done, and those that are under way then to their end.
pub async fn serve(relay: Arc<Relay>, http: HttpServer, stop: impl Future<Output = ()>) {
    tracing::info!(url = http.url(), "serving HTTP");
    let router = routes(&relay, &http.metrics());
    let (running, stopped) = oneshot::channel::<()>();
    let (kept, runtime) = (Arc::clone(&relay), Handle::current());
    // On a thread of its own: with millions of rows it reads for seconds.
    let mut keeping = tokio::task::spawn_blocking(move || {
        runtime.block_on(async {
            tokio::select! {
                () = keep(&kept) => {}
                _ = stopped => {}
            }
        });
    });
    tokio::select! {
        () = http.serve(router, stop) => {}
        () = tell(&relay) => {}
        // Whoever runs it starts it again: without this, nothing would be forgotten in time any more.
        ended = &mut keeping => tracing::error!(?ended, "looking after the databases broke off, so it stops"),
    }
    drop(running);
    if !keeping.is_finished() {
        let _ = keeping.await;
    }
    relay.tell_tallies().await;
}
