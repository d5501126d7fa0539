//! A relay without a socket, and who may come in.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value as Json};
use tempfile::TempDir;
use thence::model::{CollectionName, Role};
use thence::node::{DataFolder, Node, NodeConfig};
use thence::relay::{Access, Keys, Policy, PolicyScope, Principal, Relay, Scope, Setting, Wanted};

/// A node on a folder of its own, on the loopback.
pub async fn node(folder: &TempDir) -> Node {
    let folder = DataFolder::new(folder.path().join("data"));
    folder.init().expect("a fresh folder");
    let mut config = NodeConfig::new(folder.claim_for_node(Duration::from_secs(10)).expect("it is free"));
    config.listen = Some("127.0.0.1:0".parse().expect("an address"));
    Node::open(config).await.expect("it opens")
}

pub fn keys(folder: &TempDir) -> Keys {
    Keys::load(&folder.path().join("keys")).expect("keys")
}

pub async fn relay(folder: &TempDir) -> Relay {
    Relay::open(&node(folder).await, keys(folder)).await.expect("it opens")
}

/// Closes it whole: its folder is free then.
pub async fn close(relay: Relay) {
    let node = relay.node().clone();
    drop(relay);
    node.close().await;
}

pub async fn register(relay: &Relay, customer: &str, database: &str) {
    let (customer, database) = (customer.parse().expect("a name"), database.parse().expect("a name"));
    relay.tenants().register(&customer, &database, None).await.expect("it can be registered");
}

/// A new token for one customer, or for the administrator.
pub async fn bearer(relay: &Relay, customer: Option<&str>, role: Role) -> Principal {
    let customer = customer.map(|customer| customer.parse().expect("a name"));
    let scope = Scope { customer, database: None, role };
    let (text, _) = relay.tenants().create_token(scope, None).await.expect("a token");
    relay.tenants().authenticate(&text).expect("it is known")
}

pub async fn writer(relay: &Relay, customer: &str, database: &str) -> Access {
    let principal = bearer(relay, Some(customer), Role::Writer).await;
    relay.enter(principal, customer, database, Role::Writer).expect("it may")
}

pub async fn sent(relay: &Relay, access: &Access, rows: Vec<Json>) -> Vec<Json> {
    let results = relay.upload(access, None, rows, false).await.expect("it is taken");
    results.as_array().expect("a list").clone()
}

pub fn wanted(limit: u64) -> Wanted {
    Wanted::parse(None, Some(limit)).expect("a limit")
}

/// What everybody can see of a database.
pub fn visible(relay: &Relay, access: &Access) -> BTreeMap<(String, String), Map<String, Json>> {
    let mut rows = BTreeMap::new();
    let mut note = |collection: &CollectionName, key: thence::model::ObjectKey, object: &thence::model::Object| {
        rows.insert((collection.to_string(), key.as_str().to_owned()), object.shown().expect("visible"));
        std::ops::ControlFlow::Continue(())
    };
    relay.view(access).expect("readable").visit(None, &mut note).expect("readable");
    rows
}

pub fn table(name: &str) -> CollectionName {
    CollectionName::user(name).expect("a name")
}

pub fn database_scope() -> PolicyScope {
    PolicyScope::Database("acme".parse().expect("a name"), "notes".parse().expect("a name"))
}

pub async fn set_policy(relay: &Relay, policy: Policy, value: u64) {
    relay.tenants().set_policy(&database_scope(), policy, Setting::Value(value)).await.expect("it is set");
}

pub fn statuses(results: &[Json]) -> Vec<&str> {
    results.iter().map(|result| result["status"].as_str().expect("a status")).collect()
}
