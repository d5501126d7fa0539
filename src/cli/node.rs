//! `thence node` and `thence relay`: a node that runs until it is told to stop, alone or with HTTP beside it.

use std::io::Write as _;
use std::net::SocketAddr;

use serde_json::json;

use super::failure::{Code, Failure};
use super::interrupt::Interrupt;
use super::reach::PATIENCE;
use super::relay;
use super::serve::serve;
use super::socket::Listener;
use crate::config::Settings;
use crate::node::{DataFolder, Node, NodeConfig};
use crate::relay::http::HttpServer;

/// Runs a node on the data folder, which is initialised if it is absent or empty; a relay if there is a server for it.
pub async fn run(settings: &Settings, interrupt: &Interrupt, http: Option<HttpServer>) -> Result<(), Failure> {
    let folder = DataFolder::new(&settings.data);
    let claim = {
        let folder = folder.clone();
        let claiming = tokio::task::spawn_blocking(move || {
            folder.init()?;
            folder.claim_for_node(PATIENCE)
        });
        claiming.await.map_err(Failure::bug)??
    };
    let mut config = NodeConfig::new(claim);
    config.listen = Some(settings.listen);
    config.cache_bytes = settings.cache_bytes;
    config.peers.clone_from(&settings.peers);
    config.cluster_peers.clone_from(&settings.cluster_peers);
    let node = Node::open(config).await?;
    let served = serve_until(&folder, &node, interrupt, http, settings.json).await;
    tracing::info!("stopping");
    node.close().await;
    served
}

/// What is printed once it can be reached.
fn ready(device: &str, address: SocketAddr, url: Option<String>, json: bool) -> String {
    match (json, url) {
        (false, None) => format!("ready {device} {address}"),
        (false, Some(url)) => format!("ready {device} {address} {url}"),
        (true, None) => json!({"ready": {"device": device, "address": address}}).to_string(),
        (true, Some(url)) => json!({"ready": {"device": device, "address": address, "url": url}}).to_string(),
    }
}

async fn serve_until(
    folder: &DataFolder,
    node: &Node,
    interrupt: &Interrupt,
    http: Option<HttpServer>,
    json: bool,
) -> Result<(), Failure> {
    let path = folder.socket();
    let listener = Listener::bind(&path).map_err(|error| {
        let help = "a data folder must lie on a local disk, where sockets can be made: name another with --data DIR";
        Failure::new(Code::Folder, format!("{}: {error}", path.display()), help)
    })?;
    let relay = match http {
        Some(http) => Some((relay::open(folder, node).await?, http)),
        None => None,
    };
    let address = node.local_address().ok_or_else(|| Failure::bug("a node without an address"))?;
    let line = ready(&node.device().to_string(), address, relay.as_ref().map(|(_, http)| http.url().to_string()), json);
    // Whoever started the node may have lost interest in this line; that is no reason to stop.
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    drop(stdout);
    let stop = async || {
        tokio::select! {
            () = interrupt.wanted() => Ok(()),
            () = node.broken() => Err(Failure::bug("a part of the node ended unexpectedly, so it stops")),
        }
    };
    let mut outcome = Ok(());
    let commands = serve(node, listener, async { outcome = stop().await });
    let requests = async {
        if let Some((relay, http)) = relay {
            relay::serve(relay, http, async { drop(stop().await) }).await;
        }
    };
    tokio::join!(commands, requests);
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_are_told_where_it_is_as_json() {
        let address = SocketAddr::from(([127, 0, 0, 1], 7));
        let url = || Some("http://127.0.0.1:8".to_owned());
        assert_eq!(ready("d1", address, None, false), "ready d1 127.0.0.1:7");
        assert_eq!(ready("d1", address, url(), false), "ready d1 127.0.0.1:7 http://127.0.0.1:8");
        let document = |url| serde_json::from_str::<serde_json::Value>(&ready("d1", address, url, true)).expect("JSON");
        assert_eq!(document(None), json!({"ready": {"device": "d1", "address": "127.0.0.1:7"}}));
        let relay = json!({"ready": {"device": "d1", "address": "127.0.0.1:7", "url": "http://127.0.0.1:8"}});
        assert_eq!(document(url()), relay);
    }
}
