//! A relay in this process, and those who ask it.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use tempfile::TempDir;
use thence::model::{CollectionName, Role};
use thence::node::{DataFolder, Node, NodeConfig};
use thence::relay::http::{HttpConfig, HttpServer};
use thence::relay::{Keys, PolicyScope, Relay, Scope, Setting, routes};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::house::{Http, HttpAnswer, PATIENCE, request};

/// The database of most stories.
pub const NOTES: &str = "/v1/customers/acme/databases/notes";
/// Another one of the same customer.
pub const OTHER: &str = "/v1/customers/acme/databases/other";
/// Whose pages may speak to the relay.
pub const ORIGIN: &str = "https://app.example";

/// A relay with the customer `acme`, its database [`NOTES`], and its owner.
pub struct World {
    pub owner: Client,
    serving: Option<Serving>,
    runtime: Runtime,
    folder: TempDir,
}

struct Serving {
    relay: Arc<Relay>,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<()>,
}

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        DataFolder::new(folder.path().join("data")).init().expect("a fresh folder");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let serving = runtime.block_on(Serving::start(&folder));
        let owner = Client { address: serving.address, bearer: None, id: String::new() };
        let mut world = Self { owner, serving: Some(serving), runtime, folder };
        world.owner = world.client(Role::Owner);
        world.owner.ask("PUT", NOTES, &[], None).expect(201);
        world
    }

    /// Somebody with a token for all of acme's databases.
    pub fn client(&self, role: Role) -> Client {
        self.client_of("acme", None, role)
    }

    /// The same with a token for one customer, and perhaps for one database only.
    pub fn client_of(&self, customer: &str, database: Option<&str>, role: Role) -> Client {
        let name = |name: &str| name.parse().expect("a name");
        let scope = Scope { customer: Some(name(customer)), database: database.map(name), role };
        let made = self.runtime.block_on(self.relay().tenants().create_token(scope, None));
        let (token, record) = made.expect("a token");
        Client { address: self.serving().address, bearer: Some(format!("Bearer {token}")), id: record.id }
    }

    /// Somebody without a token.
    pub fn anybody(&self) -> Client {
        Client { address: self.serving().address, bearer: None, id: String::new() }
    }

    /// Ends the token of somebody.
    #[track_caller]
    pub fn revoke(&self, client: &Client) {
        let revoked = self.runtime.block_on(self.relay().tenants().revoke_token(&client.id));
        assert!(revoked.expect("it works"), "there is such a token");
    }

    /// Sets a policy, as the operator does.
    #[track_caller]
    pub fn set_policy(&self, scope: &str, policy: &str, value: u64) {
        let name = |name: &str| name.parse().expect("a name");
        let scope = match scope.split('/').collect::<Vec<_>>()[..] {
            [customer] => PolicyScope::Customer(name(customer)),
            [customer, database, table] => {
                let table = CollectionName::user(table).expect("a name");
                PolicyScope::Table(name(customer), name(database), table)
            }
            _ => panic!("{scope}"),
        };
        let policy = policy.parse().expect("a policy");
        let set = self.relay().tenants().set_policy(&scope, policy, Setting::Value(value));
        self.runtime.block_on(set).expect("it can be set");
    }

    /// Does what the relay does by itself every hour, until deletions are forgotten that may be.
    pub fn forget_deletions(&self) {
        // The clock of the relay must have gone on since the deletions.
        while self.runtime.block_on(self.relay().keep()).expect("it looks").forgotten == 0 {}
    }

    /// Stops it and starts it again. Whoever goes on has to be [told](Client::moved) where.
    pub fn restart(&mut self) {
        let serving = self.serving.take().expect("it serves");
        self.runtime.block_on(async {
            serving.stop.send(()).expect("it serves");
            serving.ended.await.expect("no panic");
            let node = serving.relay.node().clone();
            drop(serving.relay);
            node.close().await;
        });
        self.serving = Some(self.runtime.block_on(Serving::start(&self.folder)));
        self.owner = self.moved(&self.owner);
    }

    /// The same client, where the relay is now.
    pub fn moved(&self, client: &Client) -> Client {
        Client { address: self.serving().address, ..client.clone() }
    }

    fn serving(&self) -> &Serving {
        self.serving.as_ref().expect("it serves")
    }

    fn relay(&self) -> &Relay {
        &self.serving().relay
    }
}

impl Serving {
    async fn start(folder: &TempDir) -> Self {
        let data = DataFolder::new(folder.path().join("data"));
        let node = NodeConfig::new(data.claim_for_node(PATIENCE).expect("it is free"));
        let node = Node::open(node).await.expect("it opens");
        let keys = Keys::load(&folder.path().join("keys")).expect("keys");
        let relay = Arc::new(Relay::open(&node, keys).await.expect("it opens"));
        let cors = vec![ORIGIN.parse().expect("an origin")];
        let config = HttpConfig { cors, ..HttpConfig::new("127.0.0.1:0".parse().expect("an address")) };
        let server = HttpServer::bind(config).await.expect("a free port");
        let (address, router) = (server.local_address(), routes(&relay, &server.metrics()));
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(server.serve(router, async { drop(stopped.await) }));
        Self { relay, address, stop, ended }
    }
}

/// Somebody who asks, each time on a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    address: SocketAddr,
    bearer: Option<String>,
    /// What it is called where it is shown who wrote something.
    pub id: String,
}

impl Client {
    /// A connection on which a request was sent that has no body.
    #[track_caller]
    pub fn begin(&self, path: &str, headers: &[(&str, &str)]) -> Http {
        let mut http = Http::connect(self.address);
        let headers = [self.shown().as_slice(), headers].concat();
        http.send(request("GET", &full(path), &headers, None));
        http
    }

    /// The part of its token that nobody keeps.
    pub fn secret(&self) -> &str {
        self.bearer.as_deref().and_then(|bearer| bearer.rsplit('_').next()).expect("a token")
    }

    /// A request with these headers, and a body of JSON if there is one. A path that does not begin with `/v1` is one
    /// in [`NOTES`].
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> HttpAnswer {
        let mut headers = [self.shown().as_slice(), headers].concat();
        headers.extend(body.map(|_| ("Content-Type", "application/json")));
        let mut http = Http::connect(self.address);
        match body {
            None => http.ask(method, &full(path), &headers),
            Some(body) => http.send(request(method, &full(path), &headers, Some(body))).answer(),
        }
    }

    /// How it shows who it is.
    fn shown(&self) -> Vec<(&str, &str)> {
        self.bearer.iter().map(|bearer| ("Authorization", bearer.as_str())).collect()
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> HttpAnswer {
        self.ask("GET", path, &[], None)
    }

    #[track_caller]
    pub fn delete(&self, path: &str) -> HttpAnswer {
        self.ask("DELETE", path, &[], None)
    }

    #[track_caller]
    pub fn send(&self, method: &str, path: &str, body: &Json) -> HttpAnswer {
        self.ask(method, path, &[], Some(&body.to_string()))
    }

    /// Puts a row, and returns what is answered.
    #[track_caller]
    pub fn put(&self, table: &str, key: &str, fields: &Json) -> Json {
        self.send("PUT", &at(table, key), fields).expect(200).json()
    }

    /// Sends rows of a table; what became of each.
    #[track_caller]
    pub fn upload(&self, table: &str, rows: &[Json]) -> Vec<Json> {
        let answer = self.send("POST", &format!("/tables/{table}"), &json!({"rows": rows})).expect(200);
        list(&answer.json()["results"])
    }

    /// Sends rows of a table, all of which are accepted.
    #[track_caller]
    pub fn write(&self, table: &str, rows: &[Json]) -> Vec<Json> {
        let results = self.upload(table, rows);
        assert_eq!(results.len(), rows.len());
        for result in &results {
            assert_eq!(result["status"], "accepted", "{result}");
        }
        results
    }

    /// Does one thing to one row, and is accepted.
    #[track_caller]
    pub fn change(&self, table: &str, row: Json) -> Json {
        self.write(table, &[row]).remove(0)
    }

    #[track_caller]
    pub fn row(&self, table: &str, key: &str) -> Json {
        self.get(&at(table, key)).expect(200).json()
    }

    #[track_caller]
    pub fn fields(&self, table: &str, key: &str) -> Json {
        self.row(table, key)["fields"].clone()
    }

    /// A page of the changes since a sync token.
    #[track_caller]
    pub fn changes(&self, query: &str, token: Option<&str>) -> HttpAnswer {
        let headers: Vec<_> = token.map(|token| ("Sync-Token", token)).into_iter().collect();
        self.ask("GET", &format!("/changes{query}"), &headers, None)
    }
}

fn full(path: &str) -> String {
    if path.starts_with("/v1") { path.to_owned() } else { format!("{NOTES}{path}") }
}

/// The path of a row.
pub fn at(table: &str, key: &str) -> String {
    use std::fmt::Write as _;
    let mut path = format!("/tables/{table}/rows/");
    for byte in key.bytes() {
        let plain = byte.is_ascii_alphanumeric();
        let _ = if plain { write!(path, "{}", char::from(byte)) } else { write!(path, "%{byte:02X}") };
    }
    path
}

#[track_caller]
pub fn list(json: &Json) -> Vec<Json> {
    json.as_array().unwrap_or_else(|| panic!("no list: {json}")).clone()
}

#[track_caller]
pub fn number(json: &Json) -> u64 {
    json.as_u64().unwrap_or_else(|| panic!("no number: {json}"))
}

#[track_caller]
pub fn text(json: &Json) -> String {
    json.as_str().unwrap_or_else(|| panic!("no text: {json}")).to_owned()
}

/// These members of each.
#[track_caller]
pub fn each(rows: &Json, member: &str) -> Vec<Json> {
    list(rows).into_iter().map(|row| row[member].clone()).collect()
}

/// The token that an answer carries, the same in its header and in its body.
#[track_caller]
pub fn token_of(answer: &HttpAnswer) -> String {
    let token = text(&answer.json()["token"]);
    assert_eq!(answer.header("sync-token"), Some(token.as_str()));
    token
}

/// A header that has to be there.
#[track_caller]
pub fn header(answer: &HttpAnswer, name: &str) -> String {
    answer.header(name).unwrap_or_else(|| panic!("no {name} in {answer:?}")).to_owned()
}

/// Rows with these keys, and nothing in them.
pub fn empty_rows(prefix: &str, count: usize) -> Vec<Json> {
    (0..count).map(|n| json!({"key": format!("{prefix}{n:04}"), "fields": {}})).collect()
}
