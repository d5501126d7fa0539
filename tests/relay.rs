//! The relay without a socket: phones with sync points, an outbox and a local table, and devices beside them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value as Json, json};
use tempfile::TempDir;
use thence::model::{CollectionName, Role};
use thence::node::{DataFolder, Invitation, Node, NodeConfig};
use thence::relay::http::{HttpConfig, HttpServer};
use thence::relay::{
    Access, Deleting, Keys, Policy, PolicyScope, Principal, ProblemCode, Range, Relay, Schema, Scope, Setting,
    TableSettings, Visibility, Wanted, routes,
};
use thence::store::Versions;

/// A node on a folder of its own, on the loopback.
async fn node(folder: &TempDir) -> Node {
    let folder = DataFolder::new(folder.path().join("data"));
    folder.init().expect("a fresh folder");
    let mut config = NodeConfig::new(folder.claim_for_node(Duration::from_secs(10)).expect("it is free"));
    config.listen = Some("127.0.0.1:0".parse().expect("an address"));
    Node::open(config).await.expect("it opens")
}

fn keys(folder: &TempDir) -> Keys {
    Keys::load(&folder.path().join("keys")).expect("keys")
}

async fn relay(folder: &TempDir) -> Relay {
    Relay::open(&node(folder).await, keys(folder)).await.expect("it opens")
}

/// Closes it whole: its folder is free then.
async fn close(relay: Relay) {
    let node = relay.node().clone();
    drop(relay);
    node.close().await;
}

async fn register(relay: &Relay, customer: &str, database: &str) {
    let (customer, database) = (customer.parse().expect("a name"), database.parse().expect("a name"));
    relay.tenants().register(&customer, &database, None).await.expect("it can be registered");
}

/// A new token for one customer, or for the administrator.
async fn bearer(relay: &Relay, customer: Option<&str>, role: Role) -> Principal {
    let customer = customer.map(|customer| customer.parse().expect("a name"));
    let scope = Scope { customer, database: None, role };
    let (text, _) = relay.tenants().create_token(scope, None).await.expect("a token");
    relay.tenants().authenticate(&text).expect("it is known")
}

async fn writer(relay: &Relay, customer: &str, database: &str) -> Access {
    let principal = bearer(relay, Some(customer), Role::Writer).await;
    relay.enter(principal, customer, database, Role::Writer).expect("it may")
}

async fn sent(relay: &Relay, access: &Access, rows: Vec<Json>) -> Vec<Json> {
    let results = relay.upload(access, None, rows, false).await.expect("it is taken");
    results.as_array().expect("a list").clone()
}

fn wanted(limit: u64) -> Wanted {
    Wanted::parse(None, Some(limit)).expect("a limit")
}

/// Draws numbers: a linear congruential generator is enough for tests.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A phone app: what it shows, what it has not sent yet, and how far it is.
struct Phone {
    name: usize,
    token: Option<String>,
    table: BTreeMap<(String, String), Map<String, Json>>,
    contexts: BTreeMap<(String, String), String>,
    outbox: Vec<Json>,
    written: u64,
}

impl Phone {
    fn new(name: usize) -> Self {
        let (table, contexts) = (BTreeMap::new(), BTreeMap::new());
        Self { name, token: None, table, contexts, outbox: Vec::new(), written: 0 }
    }

    /// Its user writes something; it is sent later.
    fn write(&mut self, dice: &mut Dice) {
        let (table, key) = (["notes", "tasks"][dice.throw(2) as usize], format!("n{}", dice.throw(9)));
        let at = (table.to_owned(), key.clone());
        self.written += 1;
        let (id, value) = (format!("{}-{}", self.name, self.written), dice.throw(100));
        let mut row = match (dice.throw(5), self.table.contains_key(&at)) {
            (0, true) => json!({"op": "delete"}),
            (1, true) => json!({"op": "increment", "field": "count", "by": 1}),
            (2, true) => json!({"op": "patch", "fields": {"title": value}}),
            _ => json!({"op": "put", "fields": {"title": value, "of": self.name}}),
        };
        (row["table"], row["key"], row["id"]) = (table.into(), key.into(), id.into());
        if let Some(context) = self.contexts.get(&at) {
            row["context"] = context.clone().into();
        }
        self.outbox.push(row);
    }

    /// Sends what it has to send. An answer that is lost on the way makes it send the same again.
    async fn send(&mut self, relay: &Relay, access: &Access, dice: &mut Dice, increments: &mut BTreeSet<String>) {
        // One row can be there only once in a batch.
        let mut names = BTreeSet::new();
        let fits = |row: &&Json| names.insert((row["table"].to_string(), row["key"].to_string()));
        let batch: Vec<Json> = self.outbox.iter().take_while(fits).cloned().collect();
        let results = sent(relay, access, batch.clone()).await;
        assert_eq!(results.len(), batch.len(), "each row is answered for");
        for (row, result) in batch.iter().zip(&results) {
            let status = result["status"].as_str().expect("a status");
            assert!(matches!(status, "accepted" | "duplicate" | "rejected"), "{result}");
            if row["op"] == "increment" && status == "accepted" {
                let id = row["id"].as_str().expect("an id").to_owned();
                assert!(increments.insert(id), "an id takes effect once: {row}");
            }
        }
        if dice.throw(3) > 0 {
            self.outbox.drain(..batch.len());
        }
    }

    /// Takes one page. Returns whether there is more.
    async fn pull(&mut self, relay: &Relay, access: &Access, limit: u64) -> bool {
        let (view, wanted) = (relay.view(access).expect("readable"), wanted(limit));
        let point = relay.position_of(access, &view, self.token.as_deref(), &wanted).expect("the token holds");
        let page = relay.page(access, &view, point, &wanted).expect("readable");
        let changes = page.body["changes"].as_array().expect("a list");
        assert!(changes.len() as u64 <= limit);
        for change in changes {
            let text = |name: &str| change[name].as_str().expect("text").to_owned();
            let at = (text("table"), text("key"));
            if change["op"] == "put" {
                self.table.insert(at.clone(), change["fields"].as_object().expect("fields").clone());
                self.contexts.insert(at, text("context"));
            } else {
                self.table.remove(&at);
                self.contexts.remove(&at);
            }
        }
        self.token = Some(page.token);
        page.body["more"].as_bool().expect("more or not")
    }
}

/// What everybody can see of a database.
fn visible(relay: &Relay, access: &Access) -> BTreeMap<(String, String), Map<String, Json>> {
    let mut rows = BTreeMap::new();
    let mut note = |collection: &CollectionName, key: thence::model::ObjectKey, object: &thence::model::Object| {
        rows.insert((collection.to_string(), key.as_str().to_owned()), object.shown().expect("visible"));
        std::ops::ControlFlow::Continue(())
    };
    relay.view(access).expect("readable").visit(None, &mut note).expect("readable");
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn phones_that_lose_answers_hold_the_same_in_the_end_and_nothing_counts_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut here = relay(&folder).await;
    register(&here, "acme", "notes").await;
    for seed in 0..4 {
        let mut dice = Dice(seed);
        let mut access = writer(&here, "acme", "notes").await;
        let mut phones: Vec<Phone> = (0..8).map(Phone::new).collect();
        let mut increments = BTreeSet::new();
        for step in 0..200 {
            let at = dice.throw(8) as usize;
            match dice.throw(4) {
                0 | 1 => phones[at].write(&mut dice),
                2 => phones[at].send(&here, &access, &mut dice, &mut increments).await,
                _ => _ = phones[at].pull(&here, &access, 1 + dice.throw(4)).await,
            }
            if step == 120 && seed == 1 {
                // The relay stops and comes back between two pages.
                close(here).await;
                here = relay(&folder).await;
                access = here.enter(access.principal, "acme", "notes", Role::Writer).expect("the token holds");
            }
        }
        for phone in &mut phones {
            while !phone.outbox.is_empty() {
                phone.send(&here, &access, &mut dice, &mut increments).await;
            }
        }
        for phone in &mut phones {
            while phone.pull(&here, &access, 3).await {}
            assert_eq!(phone.table, visible(&here, &access), "phone {} of seed {seed}", phone.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_and_thin_clients_see_one_state() {
    let (one, two) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (relay, laptop) = (relay(&one).await, node(&two).await);
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let space = access.database.space;
    let invitation = Invitation { role: Role::Writer, uses: 1, expires: Duration::from_secs(600) };
    laptop.join(&relay.node().invite(space, &invitation).expect("its owner")).await.expect("it joins");

    let seen = sent(&relay, &access, vec![json!({"table": "notes", "key": "n1", "fields": {"title": "one"}})]).await;
    laptop.sync(Duration::from_secs(60)).await.expect("it runs");
    let on_laptop = laptop.space(space).expect("it holds it");
    assert_eq!(on_laptop.get("notes", "n1").expect("readable").expect("it came").fields["title"], "one");
    assert_eq!(on_laptop.changes(0, 10).await.expect("readable")[0].by, relay.node().device());

    // Both change it without having heard of each other.
    let patch = thence::node::Transaction::new().patch("notes", "n1", json!({"title": "laptop"})).expect("a patch");
    on_laptop.write(patch).await.expect("a writer");
    laptop.sync(Duration::from_secs(60)).await.expect("it runs");
    let mut mine = json!({"table": "notes", "key": "n1", "op": "patch", "fields": {"title": "phone"}});
    mine["context"] = seen[0]["context"].clone();
    assert_eq!(sent(&relay, &access, vec![mine]).await[0]["status"], "accepted");
    let mut phone = Phone::new(1);
    while phone.pull(&relay, &access, 1).await {}
    let view = relay.view(&access).expect("readable");
    let page = relay.position_of(&access, &view, None, &wanted(10)).expect("the beginning");
    let page = relay.page(&access, &view, page, &wanted(10)).expect("readable");
    assert_eq!(page.body["changes"][0]["conflicts"]["title"], json!(["phone", "laptop"]));
    laptop.sync(Duration::from_secs(60)).await.expect("it runs");
    assert_eq!(on_laptop.conflicts().expect("readable").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_what_it_is_for_and_everything_else_is_not_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    register(&relay, "other", "notes").await;
    let code = |principal: &Principal, customer: &str, database: &str, need: Role| {
        relay.enter(principal.clone(), customer, database, need).map(drop).map_err(|problem| problem.code)
    };
    let reader = bearer(&relay, Some("acme"), Role::Reader).await;
    assert_eq!(code(&reader, "acme", "notes", Role::Reader), Ok(()));
    assert_eq!(code(&reader, "acme", "notes", Role::Writer), Err(ProblemCode::Forbidden));
    for (customer, database) in [("other", "notes"), ("acme", "none"), ("nobody", "notes"), ("a/b", ""), ("", "..")] {
        assert_eq!(
            code(&reader, customer, database, Role::Reader),
            Err(ProblemCode::NotFound),
            "{customer}/{database}"
        );
    }
    let anybody = Principal::Anybody;
    assert_eq!(code(&anybody, "acme", "notes", Role::Reader), Err(ProblemCode::Unauthenticated));
    assert_eq!(
        code(&anybody, "acme", "none", Role::Reader),
        Err(ProblemCode::Unauthenticated),
        "as where there is none"
    );
    let names = ("acme".parse().expect("a name"), "notes".parse().expect("a name"));
    relay.tenants().register(&names.0, &names.1, Some(Visibility::PublicRead)).await.expect("it is known");
    assert_eq!(code(&anybody, "acme", "notes", Role::Reader), Ok(()));
    assert_eq!(code(&anybody, "acme", "notes", Role::Writer), Err(ProblemCode::Unauthenticated));
    assert_eq!(code(&bearer(&relay, Some("other"), Role::Owner).await, "acme", "notes", Role::Reader), Ok(()));
    assert_eq!(code(&bearer(&relay, None, Role::Owner).await, "other", "notes", Role::Owner), Ok(()));

    // Tokens that are forged, ended, or over.
    let scope = Scope { customer: None, database: None, role: Role::Owner };
    let (text, token) = relay.tenants().create_token(scope.clone(), None).await.expect("a token");
    assert!(relay.tenants().authenticate(&text).is_ok());
    let forged = format!("{}0", &text[..text.len() - 1]);
    for text in [forged.as_str(), "", "thence_", "thence__", &text[1..]].into_iter().filter(|forged| *forged != text) {
        assert_eq!(
            relay.tenants().authenticate(text).map_err(|problem| problem.code),
            Err(ProblemCode::Unauthenticated)
        );
    }
    assert!(relay.tenants().revoke_token(&token.id).await.expect("it works"));
    assert!(relay.tenants().authenticate(&text).is_err());
    let (over, _) = relay.tenants().create_token(scope, Some(1)).await.expect("a token");
    assert!(relay.tenants().authenticate(&over).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_token_of_another_serves_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    register(&relay, "acme", "more").await;
    register(&relay, "other", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let mut phone = Phone::new(1);
    phone.pull(&relay, &access, 1).await;
    let token = phone.token.expect("a token");
    let code = |access: &Access, token: &str, wanted: &Wanted| {
        let view = relay.view(access).expect("readable");
        relay
            .position_of(access, &view, Some(token), wanted)
            .map(drop)
            .map_err(|problem| (problem.code, problem.members.get("reason").and_then(Json::as_str).map(str::to_owned)))
    };
    assert_eq!(code(&access, &token, &wanted(1)), Ok(()));
    let bad = Err((ProblemCode::BadToken, None));
    assert_eq!(code(&writer(&relay, "acme", "notes").await, &token, &wanted(1)), bad, "another principal");
    assert_eq!(code(&writer(&relay, "acme", "more").await, &token, &wanted(1)), bad, "another database");
    assert_eq!(code(&writer(&relay, "other", "notes").await, &token, &wanted(1)), bad, "another customer");
    assert_eq!(code(&access, "nonsense", &wanted(1)), bad);
    let filtered = Wanted::parse(Some("notes,tasks"), None).expect("names");
    assert_eq!(code(&access, &token, &filtered), Err((ProblemCode::Gone, Some("filter".to_owned()))));
    let view = relay.view(&access).expect("readable");
    let gone = relay.position_of(&access, &view, Some(&token), &filtered).expect_err("another filter");
    assert_eq!(gone.members["action"], "resync-keep-outbox");
    let fresh = gone.members["token"].as_str().expect("a fresh token");
    assert_eq!(code(&access, fresh, &filtered), Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_answered_row_by_row_or_done_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let rows = || {
        vec![
            json!({"table": "notes", "key": "n1", "fields": {"a": 1}, "id": "one"}),
            json!({"table": "notes", "key": "none", "op": "patch", "fields": {"a": 1}}),
            json!({"table": "no/table", "key": "n2", "fields": {}}),
            json!({"table": "notes", "key": "n3", "op": "increment", "field": "a"}),
            json!({"table": "notes", "key": "", "fields": {}}),
            json!({"table": "notes", "key": "n4", "fields": {}, "context": "?"}),
        ]
    };
    let whole = relay.upload(&access, None, rows(), true).await.expect_err("not all of it can be done");
    assert_eq!(whole.code, ProblemCode::Invalid);
    assert!(visible(&relay, &access).is_empty(), "so nothing was");
    let each = sent(&relay, &access, rows()).await;
    let statuses: Vec<&str> = each.iter().map(|result| result["status"].as_str().expect("a status")).collect();
    assert_eq!(statuses, ["accepted", "rejected", "rejected", "rejected", "rejected", "rejected"]);
    assert_eq!(each[1]["problem"]["code"], "not-found");
    assert_eq!(visible(&relay, &access).len(), 1);
    let atomic = relay.upload(&access, None, rows().drain(..1).collect(), true).await.expect("it is known");
    assert_eq!(atomic[0]["status"], "duplicate");
    for twice in [true, false] {
        let rows = vec![json!({"table": "t", "key": "k", "fields": {}}); 2];
        let problem = relay.upload(&access, None, rows, twice).await.expect_err("which of the two?");
        assert_eq!((problem.code, &problem.members["row"]), (ProblemCode::Invalid, &json!(1)));
    }
    for malformed in [json!(1), json!({"key": 1}), json!({})] {
        let problem = relay.upload(&access, None, vec![malformed], false).await.expect_err("it makes no sense");
        assert_eq!(problem.code, ProblemCode::Invalid);
    }
    let unknown = sent(&relay, &access, vec![json!({"key": "k", "table": "t", "unknown": 1})]).await;
    assert_eq!(unknown[0]["status"], "rejected", "it has a name, and stands alone");
    let many = vec![json!({"table": "t", "key": "k", "fields": {}}); 1001];
    assert_eq!(relay.upload(&access, None, many, false).await.expect_err("too many").code, ProblemCode::TooLarge);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_is_deleted_leaves_what_is_written_meanwhile() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let key = |n: usize| format!("n{n:04}");
    for part in 0..3 {
        let row = |n: usize| json!({"table": "notes", "key": key(part * 1000 + n), "fields": {"n": 1}});
        sent(&relay, &access, (0..1000).map(row).collect()).await;
    }
    let notes = CollectionName::user("notes").expect("a name");
    let (_, tag) = relay.table(&access, &notes).expect("it is there");
    let deleting = relay.delete_range(&access, &notes, Range::All, Some(&tag));
    let rows = async {
        // Some are there still when this is asked for, and some may be gone.
        let row = |n: usize| json!({"table": "notes", "key": key(n), "op": "patch", "fields": {"n": 2}});
        sent(&relay, &access, (2000..3000).map(row).collect()).await
    };
    let (deleted, results) = tokio::join!(deleting, rows);
    let written = results.iter().filter(|result| result["status"] == "accepted").count();
    let left = visible(&relay, &access);
    assert_eq!(left.len(), written, "whatever was accepted is there");
    assert!(written > 0, "the second step comes after what was asked for before it");
    assert_eq!(deleted.expect("it is done")["deleted_rows"], 3000 - written);
    // Of a table that stands otherwise than expected, nothing is.
    let stale = relay.delete_range(&access, &notes, Range::All, Some(&tag)).await;
    assert_eq!(stale.expect_err("written since").code, ProblemCode::Changed);
}

/// Customers and tokens are in a space of their own, and with them all that is reached through them.
#[tokio::test(flavor = "multi_thread")]
async fn customers_and_tokens_are_there_after_a_restore() {
    let folder = tempfile::tempdir().expect("a folder");
    let here = relay(&folder).await;
    register(&here, "acme", "notes").await;
    let access = writer(&here, "acme", "notes").await;
    sent(&here, &access, vec![json!({"table": "notes", "key": "n1", "fields": {}})]).await;
    let mut phone = Phone::new(1);
    while phone.pull(&here, &access, 1).await {}
    let mut backup = Vec::new();
    let mut keep = |piece: &[u8]| {
        backup.extend_from_slice(piece);
        std::ops::ControlFlow::Continue(())
    };
    here.node().back_up(&mut keep).expect("readable");
    close(here).await;
    let file = folder.path().join("backup");
    std::fs::write(&file, backup).expect("a file");
    let data = DataFolder::new(folder.path().join("data"));
    let wait = Duration::from_secs(10);
    for is_repair in [false, true] {
        if is_repair {
            data.repair(wait, 1 << 20).expect("it can be repaired");
        } else {
            data.restore(&file, wait, 1 << 20, &mut |_| ()).expect("it can be restored");
        }
        let here = relay(&folder).await;
        let access = here.enter(access.principal.clone(), "acme", "notes", Role::Writer).expect("it is known");
        assert_eq!(visible(&here, &access).len(), 1);
        assert_eq!(gone(&here, &access, &phone), "epoch");
        close(here).await;
    }
}

/// Why a relay does not take a phone's token any more.
fn gone(relay: &Relay, access: &Access, phone: &Phone) -> String {
    let view = relay.view(access).expect("readable");
    let problem = relay.position_of(access, &view, phone.token.as_deref(), &wanted(1)).expect_err("not any more");
    assert_eq!(problem.code, ProblemCode::Gone);
    problem.members["reason"].as_str().expect("text").to_owned()
}

/// Nobody but the client can tell: the lease holds, and there is no peer.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn who_is_further_than_a_folder_that_was_put_back_with_all_its_times_begins_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let here = relay(&folder).await;
    register(&here, "acme", "notes").await;
    let access = writer(&here, "acme", "notes").await;
    close(here).await;
    let files =
        || std::fs::read_dir(folder.path().join("data")).expect("a folder").map(|file| file.expect("a file").path());
    // A second name for each file, so that it is the same file that comes back, and not a copy.
    let aside = folder.path().join("aside");
    std::fs::create_dir(&aside).expect("a folder");
    let before: Vec<_> = (files().filter(|path| path.is_file()))
        .map(|path| {
            let modified = std::fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("a time");
            let same = aside.join(path.file_name().expect("a name"));
            std::fs::hard_link(&path, &same).expect("a second name");
            (std::fs::read(&path).expect("readable"), modified, path, same)
        })
        .collect();
    let here = relay(&folder).await;
    sent(&here, &access, vec![json!({"table": "notes", "key": "n1", "fields": {}})]).await;
    let (mut phone, epoch) = (Phone::new(1), here.epoch());
    while phone.pull(&here, &access, 1).await {}
    close(here).await;
    for (content, modified, path, same) in before {
        std::fs::rename(same, &path).expect("it was there");
        std::fs::write(&path, content).expect("writable");
        let file = std::fs::File::options().append(true).open(&path).expect("a file");
        file.set_modified(modified).expect("a time");
    }
    let here = relay(&folder).await;
    assert_eq!(here.epoch(), epoch, "it cannot be seen from here");
    assert_eq!(gone(&here, &access, &phone), "epoch");
    close(here).await;
}

/// The status of the answer to a request that is sent as it stands.
async fn status(address: std::net::SocketAddr, request: &str) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("it answers");
    std::str::from_utf8(&answer[9..]).expect("digits").parse().expect("a status")
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_matters_before_what_is_asked() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = std::sync::Arc::new(relay(&folder).await);
    register(&relay, "acme", "notes").await;
    let scope = |customer: &str| Scope { customer: customer.parse().ok(), database: None, role: Role::Writer };
    let (own, _) = relay.tenants().create_token(scope("acme"), None).await.expect("a token");
    let (other, _) = relay.tenants().create_token(scope("other"), None).await.expect("a token");
    let http = HttpServer::bind(HttpConfig::new("127.0.0.1:0".parse().expect("an address"))).await.expect("it is free");
    let (address, router) = (http.local_address(), routes(&relay, &http.metrics()));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(http.serve(router, async move { _ = stopped.await }));
    let base = "/v1/customers/acme/databases/notes";
    let body = "Content-Type: application/json\r\nContent-Length: 1\r\n\r\n{";
    let unread = "Content-Type: application/json\r\nContent-Length: 8000000\r\n\r\n";
    for (rest, own_status) in [
        (format!("POST {base}/sync HTTP/1.1\r\n<>{body}"), 400),
        (format!("PUT {base}/tables/t/rows/k HTTP/1.1\r\n<>{body}"), 400),
        (format!("PUT {base} HTTP/1.1\r\n<>{body}"), 400),
        (format!("GET {base}/changes?limit=x HTTP/1.1\r\n<>\r\n"), 400),
        (format!("POST {base}/tables/t HTTP/1.1\r\n<>{unread}"), 0),
    ] {
        let with = |token: Option<&str>| {
            let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
            rest.replace("<>", &format!("Host: relay\r\n{token}"))
        };
        assert_eq!(status(address, &with(None)).await, 401, "{rest}");
        assert_eq!(status(address, &with(Some("thence_none_none"))).await, 401, "{rest}");
        assert_eq!(status(address, &with(Some(&other))).await, 404, "{rest}");
        if own_status > 0 {
            assert_eq!(status(address, &with(Some(&own))).await, own_status, "{rest}");
        }
    }
    let _ = stop.send(());
    serving.await.expect("it ends");
    relay.node().clone().close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_was_away_for_longer_than_deletions_are_told_begins_anew_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let owner = bearer(&relay, Some("acme"), Role::Owner).await;
    let access = relay.enter(owner, "acme", "notes", Role::Owner).expect("it may");
    let put = |key: &str| json!({"table": "notes", "key": key, "fields": {"title": key}, "id": format!("id of {key}")});
    let rows: Vec<Json> = (0..20).map(|n| put(&format!("n{n}"))).collect();
    sent(&relay, &access, rows).await;
    let mut away = Phone::new(1);
    while away.pull(&relay, &access, 7).await {}
    // It writes fifty times without being able to send any of it.
    let mut dice = Dice(1);
    (0..50).for_each(|_| away.write(&mut dice));
    let unsent = away.outbox.clone();
    let deleted = |n: usize| json!({"table": "notes", "key": format!("n{n}"), "op": "delete"});
    sent(&relay, &access, (0..15).map(deleted).collect()).await;
    // While deletions are told, it would be told of these.
    assert_eq!(relay.keep().await.expect("it looks"), Default::default());
    let notes = CollectionName::user("notes").expect("a name");
    let settings = TableSettings { retention_days: Some(0), ..TableSettings::default() };
    relay.set_table(&access, &notes, &settings).await.expect("an owner");
    // The clock of the relay must have gone on since the deletions.
    let kept = loop {
        let kept = relay.keep().await.expect("it looks");
        if kept.forgotten > 0 {
            break kept;
        }
    };
    assert_eq!((kept.forgotten, kept.expired, kept.ids), (15, 0, 0));

    let view = relay.view(&access).expect("readable");
    let gone = relay.position_of(&access, &view, away.token.as_deref(), &wanted(7)).expect_err("it is too old");
    assert_eq!((gone.code, &gone.members["reason"]), (ProblemCode::Gone, &json!("retention")));
    assert_eq!(gone.members["action"], "resync-keep-outbox");
    away.token = gone.members["token"].as_str().map(str::to_owned);
    away.table.clear();
    assert_eq!(away.outbox, unsent);
    let mut increments = BTreeSet::new();
    while !away.outbox.is_empty() {
        away.send(&relay, &access, &mut dice, &mut increments).await;
    }
    while away.pull(&relay, &access, 7).await {}
    assert_eq!(away.table, visible(&relay, &access));
    // Nothing that was deleted came back unless it was put anew, and what was patched beside the delete is kept.
    let puts = |key: &str| unsent.iter().any(|row| row["key"] == key && row["table"] == "notes" && row["op"] == "put");
    for n in 0..15 {
        let (key, at) = (format!("n{n}"), ("notes".to_owned(), format!("n{n}")));
        assert!(!away.table.contains_key(&at) || puts(&key), "{key}");
    }
    // Whoever begins now is told of no deletion.
    let mut fresh = Phone::new(2);
    while fresh.pull(&relay, &access, 3).await {}
    assert_eq!(fresh.table, away.table);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_expire_and_a_changed_schema_has_clients_begin_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let rows = ["old", "kept"].map(|table| json!({"table": table, "key": "k", "fields": {}}));
    sent(&relay, &access, rows.to_vec()).await;
    let mut phone = Phone::new(1);
    while phone.pull(&relay, &access, 1).await {}
    let table = |name: &str| CollectionName::user(name).expect("a name");
    let at_once = TableSettings { expire_days: Some(0), ..TableSettings::default() };
    let refused = relay.set_table(&access, &table("old"), &at_once).await.expect_err("at once is no expiry");
    assert_eq!(refused.code, ProblemCode::Invalid);
    let settings = TableSettings { expire_days: Some(1), ..TableSettings::default() };
    relay.set_table(&access, &table("old"), &settings).await.expect("it is set");
    assert_eq!(relay.keep().await.expect("it looks").expired, 0, "it is not a day old");

    let settings = TableSettings { schema: Some(Schema::Number(2)), ..TableSettings::default() };
    relay.set_table(&access, &table("kept"), &settings).await.expect("it is set");
    let view = relay.view(&access).expect("readable");
    let gone = relay.position_of(&access, &view, phone.token.as_deref(), &wanted(1)).expect_err("another schema");
    assert_eq!((&gone.members["reason"], &gone.members["action"]), (&json!("schema"), &json!("upgrade")));
    // Those who never asked for that table go on.
    let others = Wanted::parse(Some("old"), None).expect("a name");
    let point = relay.position_of(&access, &view, None, &others).expect("the beginning");
    let token = relay.page(&access, &view, point, &others).expect("readable").token;
    let settings = TableSettings { schema: Some(Schema::Name("third".to_owned())), ..TableSettings::default() };
    relay.set_table(&access, &table("kept"), &settings).await.expect("it is set");
    assert!(relay.position_of(&access, &view, Some(&token), &others).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_administrators_token_is_made_once_and_anew_where_it_is_not_known() {
    let folder = tempfile::tempdir().expect("a folder");
    let (relay, file) = (relay(&folder).await, folder.path().join("administrator.token"));
    let text = || std::fs::read_to_string(&file).expect("a token");
    relay.make_administrator(&file).await.expect("it can be written");
    let first = text();
    relay.make_administrator(&file).await.expect("it is there");
    assert_eq!(text(), first);
    let Principal::Token(token) = relay.tenants().authenticate(first.trim()).expect("known") else {
        panic!("a token is somebody's")
    };
    relay.tenants().revoke_token(&token.id).await.expect("it works");
    relay.make_administrator(&file).await.expect("it can be written");
    assert_ne!(text(), first);
    assert!(relay.tenants().authenticate(text().trim()).is_ok());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    }
}

/// How a phone does what it is told when its sync point is of no use any more: what is not sent stays, and was written by
/// somebody who had seen nothing of what there is now.
async fn pull_or_begin_anew(phone: &mut Phone, relay: &Relay, access: &Access, limit: u64) -> bool {
    let (view, wanted) = (relay.view(access).expect("readable"), wanted(limit));
    if let Err(problem) = relay.position_of(access, &view, phone.token.as_deref(), &wanted) {
        assert_eq!(
            (problem.members["reason"].as_str(), problem.members["action"].as_str()),
            (Some("revision"), Some("wipe-local"))
        );
        phone.table.clear();
        phone.contexts.clear();
        phone.outbox.iter_mut().for_each(|row| _ = row.as_object_mut().expect("a row").remove("context"));
        phone.token = Some(problem.members["token"].as_str().expect("a fresh token").to_owned());
    }
    let more = phone.pull(relay, access, limit).await;
    let ages: BTreeSet<String> = phone.table.values().map(|row| row["age"].to_string()).collect();
    assert!(ages.len() <= 1, "phone {} shows a mixture of {ages:?}", phone.name);
    more
}

fn job(relay: &Relay, owner: &Principal, id: &Json) -> Result<Json, ProblemCode> {
    relay.job(owner, id.as_str().expect("an id")).map_err(|problem| problem.code)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_in_the_middle_of_everything_leaves_nobody_with_a_mixture() {
    let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (mut here, laptop) = (relay(&folder).await, node(&other).await);
    register(&here, "acme", "notes").await;
    register(&here, "other", "notes").await;
    let mut access = writer(&here, "acme", "notes").await;
    let owner = bearer(&here, Some("acme"), Role::Owner).await;
    let space = access.database.space;
    let invitation = Invitation { role: Role::Writer, uses: 1, expires: Duration::from_secs(600) };
    laptop.join(&here.node().invite(space, &invitation).expect("its owner")).await.expect("it joins");
    let batch = |age: u32, from: usize| -> Vec<Json> {
        let row =
            |n: usize| json!({"table": "notes", "key": format!("n{n}"), "id": format!("{n}"), "fields": {"age": age}});
        (from..from + 500).map(row).collect()
    };
    for from in (0..3000).step_by(500) {
        sent(&here, &access, batch(1, from)).await;
    }
    laptop.sync(Duration::from_secs(60)).await.expect("it runs");
    let on_laptop = laptop.space(space).expect("it holds it");
    assert!(on_laptop.get("notes", "n1").expect("readable").is_some());
    // One phone in the middle of its first round, one that has it all, and one with something to send.
    let mut phones: Vec<Phone> = (0..3).map(Phone::new).collect();
    phones[0].pull(&here, &access, 700).await;
    for phone in &mut phones[1..] {
        while phone.pull(&here, &access, 1000).await {}
    }
    let context = phones[2].contexts[&("notes".to_owned(), "n7".to_owned())].clone();
    let late = json!({"table": "notes", "key": "n7", "id": "late", "fields": {"age": 2}, "context": context});
    phones[2].outbox.push(late.clone());

    let may = here.enter(owner.clone(), "acme", "notes", Role::Owner).expect("its owner");
    assert_eq!(here.wipe(&may, Some(7)).await.map_err(|problem| problem.code), Err(ProblemCode::Conflict));
    let version = here.view(&access).expect("readable").position().expect("readable");
    let wiped = here.wipe(&may, Some(1)).await.expect("its owner");
    assert_eq!(wiped["revision"], 2);
    assert!(visible(&here, &access).is_empty());
    assert!(here.view(&access).expect("readable").position().expect("readable") > version);
    assert_eq!(sent(&here, &access, vec![late]).await[0]["problem"]["code"], "changed", "what it saw is gone");
    // The id of a row of before is free again.
    assert_eq!(sent(&here, &access, batch(2, 0)).await[0]["status"], "accepted");
    pull_or_begin_anew(&mut phones[0], &here, &access, 10).await;

    // The removal goes on where it was when the relay stops and comes back.
    let stranger = bearer(&here, Some("other"), Role::Owner).await;
    assert_eq!(job(&here, &stranger, &wiped["job"]), Err(ProblemCode::NotFound));
    assert_eq!(job(&here, &access.principal, &wiped["job"]), Err(ProblemCode::Forbidden));
    close(here).await;
    here = relay(&folder).await;
    access = here.enter(access.principal, "acme", "notes", Role::Writer).expect("the token holds");
    assert_eq!(job(&here, &stranger, &wiped["job"]), Err(ProblemCode::NotFound));
    let done = loop {
        let state = job(&here, &owner, &wiped["job"]).expect("it is known");
        assert!(state["rows_done"].as_u64() <= state["rows_total"].as_u64());
        if state["state"] == "done" {
            break state;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((&done["rows_done"], &done["rows_total"]), (&json!(3000), &json!(3000)));

    let (mut dice, mut increments) = (Dice(7), BTreeSet::new());
    for phone in &mut phones {
        while pull_or_begin_anew(phone, &here, &access, 100).await {}
        while !phone.outbox.is_empty() {
            phone.send(&here, &access, &mut dice, &mut increments).await;
        }
    }
    for phone in &mut phones {
        while pull_or_begin_anew(phone, &here, &access, 100).await {}
        assert_eq!(phone.table, visible(&here, &access), "phone {}", phone.name);
        assert_eq!(phone.table.len(), 500);
    }
    // A full node goes over to the new revision too, and removes the old one from its own disk.
    let listening = here.node().status().await.expect("it answers").listening.expect("it listens");
    laptop
        .add_peer(format!("{}@{listening}", here.node().device()).parse().expect("an address"))
        .await
        .expect("it is remembered");
    laptop.sync(Duration::from_secs(60)).await.expect("it runs");
    assert!(on_laptop.get("notes", "n600").expect("readable").is_none());
    assert_eq!(on_laptop.get("notes", "n1").expect("readable").expect("there").fields["age"], 2);
    while laptop.removals().expect("readable").iter().any(|removal| removal.done_ms.is_none()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    on_laptop
        .write(thence::node::Transaction::new().put("notes", "mine", json!({})).expect("a put"))
        .await
        .expect("it may still write");
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_write_at_once_the_quota_is_not_exceeded_and_all_of_it_can_be_used() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = Arc::new(relay(&folder).await);
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let scope = PolicyScope::Database("acme".parse().expect("a name"), "notes".parse().expect("a name"));
    relay.tenants().set_policy(&scope, Policy::Rows, Setting::Value(55)).await.expect("it is set");
    let rows = |of: usize| -> Vec<Json> {
        (0..10).map(|n| json!({"table": "t", "key": format!("{of}-{n}"), "fields": {}})).collect()
    };
    let writers: Vec<_> = (0..16)
        .map(|of| {
            let (relay, access, rows) = (Arc::clone(&relay), access.clone(), rows(of));
            tokio::spawn(async move { sent(&relay, &access, rows).await })
        })
        .collect();
    let mut accepted = 0;
    for writer in writers {
        for result in writer.await.expect("no panic") {
            accepted += usize::from(result["status"] == "accepted");
            assert!(result["status"] == "accepted" || result["problem"]["code"] == "quota-exceeded", "{result}");
        }
    }
    assert_eq!(visible(&relay, &access).len(), accepted);
    assert!(accepted <= 55, "{accepted}");
    for of in 0..16 {
        sent(&relay, &access, rows(of)).await;
    }
    assert_eq!(visible(&relay, &access).len(), 55);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_things_are_kept_is_as_the_policies_say_where_a_table_says_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let row = |table: &str, op: &str| json!({"table": table, "key": "k", "op": op, "fields": {}});
    sent(&relay, &access, ["a", "b"].map(|table| row(table, "put")).to_vec()).await;
    let deleted = ["a", "b"].map(|table| json!({"table": table, "key": "k", "op": "delete"}));
    sent(&relay, &access, deleted.to_vec()).await;
    let table = CollectionName::user("a").expect("a name");
    let settings = TableSettings { retention_days: Some(1), ..TableSettings::default() };
    relay.set_table(&access, &table, &settings).await.expect("it is set");
    relay.tenants().set_policy(&PolicyScope::Relay, Policy::RetentionDays, Setting::Value(0)).await.expect("it is set");
    let set = relay.set_table(&access, &CollectionName::user("b").expect("a name"), &TableSettings::default()).await;
    assert_eq!(set.expect("it is set")["retention_days"], 0);
    // The clock of the relay must have gone on since the deletions.
    let kept = loop {
        let kept = relay.keep().await.expect("it looks");
        if kept.forgotten > 0 {
            break kept;
        }
    };
    assert_eq!(kept.forgotten, 1, "of the table that says nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_forgets_soon_sends_nobody_away_who_follows_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let row = |table: &str, op: &str| json!({"table": table, "key": "k", "op": op, "fields": {}});
    sent(&relay, &access, ["notes", "log"].map(|table| row(table, "put")).to_vec()).await;
    let asked = ["notes", "log", "log,notes"].map(Some).into_iter().chain([None]);
    let token = |tables: Option<&str>| {
        let (view, wanted) = (relay.view(&access).expect("readable"), Wanted::parse(tables, None).expect("names"));
        let point = relay.position_of(&access, &view, None, &wanted).expect("the beginning");
        (relay.page(&access, &view, point, &wanted).expect("readable").token, wanted)
    };
    let phones: Vec<_> = asked.map(token).collect();
    let deleted = ["notes", "log"].map(|table| json!({"table": table, "key": "k", "op": "delete"}));
    let deleted = sent(&relay, &access, deleted.to_vec()).await;
    let table = |name: &str| CollectionName::user(name).expect("a name");
    let settings = TableSettings { retention_days: Some(0), ..TableSettings::default() };
    relay.set_table(&access, &table("log"), &settings).await.expect("it is set");
    // The clock of the relay must have gone on since the deletions.
    while relay.keep().await.expect("it looks").forgotten == 0 {}
    let view = relay.view(&access).expect("readable");
    let is_gone = |(token, wanted): &(String, Wanted)| {
        let problem = relay.position_of(&access, &view, Some(token), wanted).err();
        problem.is_some_and(|problem| problem.members["reason"] == "retention")
    };
    assert_eq!(phones.iter().map(is_gone).collect::<Vec<_>>(), [false, true, true, true]);
    let retained =
        |name: &str| relay.table(&access, &table(name)).expect("it is there").0["min_retained_version"].clone();
    assert_eq!((retained("notes"), retained("log")), (json!(0), deleted[1]["version"].clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_not_told_of_its_own_deletes_however_far_it_is_behind_and_of_all_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let notes = CollectionName::user("notes").expect("a name");
    let row = |n: usize, op: &str| json!({"table": "notes", "key": format!("n{n:04}"), "op": op});
    let puts = |from: usize, to: usize| {
        (from..to)
            .map(|n| {
                let mut put = row(n, "put");
                put["fields"] = json!({});
                put
            })
            .collect::<Vec<_>>()
    };
    for from in [0, 1000] {
        sent(&relay, &access, puts(from, from + 1000)).await;
    }
    let ask = |token: Option<&str>, deleting: &Deleting| {
        relay.deletions(&access, &notes, token, deleting).expect("the token holds")
    };
    let begun = ask(None, &Deleting::default());
    assert_eq!((&begun.body["deleted"], begun.more()), (&json!([]), false), "two thousand rows that are there");
    // Others delete more than there is room for on a page, before it deletes some itself and after.
    let delete = |keys: std::ops::Range<usize>| keys.map(|n| row(n, "delete")).collect::<Vec<_>>();
    for from in [0, 750] {
        sent(&relay, &access, delete(from..from + 750)).await;
    }
    let own = delete(1600..1603);
    let results = relay.upload(&access, None, own.clone(), false).await.expect("it is taken");
    sent(&relay, &access, delete(1700..1710)).await;
    let keys = own.iter().map(|row| row["key"].as_str().expect("text").to_owned()).collect();
    let mut page = ask(Some(&begun.token), &Deleting::of(keys, &results));
    let (mut told, mut pages) = (Vec::new(), 1);
    loop {
        told.extend(page.body["deleted"].as_array().expect("a list").iter().cloned());
        if !page.more() {
            break;
        }
        page = ask(Some(&page.token), &Deleting::default());
        pages += 1;
    }
    let others: Vec<Json> = (0..1500).chain(1700..1710).map(|n| row(n, "delete")["key"].clone()).collect();
    assert_eq!((told, pages), (others, 2));
    // The same access token in the hands of another phone, and a row that others delete again.
    let mut other = ask(Some(&begun.token), &Deleting::default());
    other = ask(Some(&other.token), &Deleting::default());
    assert_eq!(other.body["deleted"].as_array().expect("a list").len(), 513);
    sent(&relay, &access, puts(1600, 1601)).await;
    sent(&relay, &access, delete(1600..1601)).await;
    assert_eq!(ask(Some(&page.token), &Deleting::default()).body["deleted"], json!(["n1600"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_call_is_none_whatever_else_is_wrong_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    sent(&relay, &access, vec![json!({"table": "notes", "key": "n1", "fields": {}})]).await;
    let notes = CollectionName::user("notes").expect("a name");
    let of_deletions = relay.deletions(&access, &notes, None, &Deleting::default()).expect("readable").token;
    let mut phone = Phone::new(1);
    phone.pull(&relay, &access, 1).await;
    for is_wiped in [false, true] {
        if is_wiped {
            let owner = bearer(&relay, Some("acme"), Role::Owner).await;
            let owner = relay.enter(owner, "acme", "notes", Role::Owner).expect("its owner");
            relay.wipe(&owner, None).await.expect("its owner");
        }
        let view = relay.view(&access).expect("readable");
        for tables in [None, Some("notes"), Some("tasks")] {
            let wanted = Wanted::parse(tables, None).expect("names");
            let problem = relay.position_of(&access, &view, Some(&of_deletions), &wanted).expect_err("another call's");
            assert_eq!(problem.code, ProblemCode::BadToken, "{tables:?} {is_wiped}");
        }
        let problem = relay.deletions(&access, &notes, phone.token.as_deref(), &Deleting::default());
        assert_eq!(problem.expect_err("another call's").code, ProblemCode::BadToken, "{is_wiped}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_token_is_older_than_the_keys_begins_anew_and_keeps_what_is_unsent() {
    use data_encoding::BASE64URL_NOPAD;
    let folder = tempfile::tempdir().expect("a folder");
    // What was numbered before has done its time.
    let now_ms = std::time::UNIX_EPOCH.elapsed().expect("a clock").as_millis();
    std::fs::write(folder.path().join("keys"), format!("7 {now_ms} {}\n", "5a".repeat(32))).expect("a file");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let notes = CollectionName::user("notes").expect("a name");
    let mut phone = Phone::new(1);
    phone.pull(&relay, &access, 1).await;
    let token = phone.token.expect("a token");
    let of_key = |number: u32| {
        let mut bytes = BASE64URL_NOPAD.decode(token.as_bytes()).expect("base64");
        bytes[1..5].copy_from_slice(&number.to_be_bytes());
        BASE64URL_NOPAD.encode(&bytes)
    };
    assert_eq!(of_key(7), token);
    let view = relay.view(&access).expect("readable");
    for (number, code) in
        [(0, ProblemCode::BadToken), (1, ProblemCode::Gone), (6, ProblemCode::Gone), (8, ProblemCode::BadToken)]
    {
        let (text, wanted) = (of_key(number), wanted(1));
        let changes = relay.position_of(&access, &view, Some(&text), &wanted).expect_err("it cannot be read");
        let deletions = relay.deletions(&access, &notes, Some(&text), &Deleting::default()).expect_err("nor here");
        assert_eq!((changes.code, deletions.code), (code, code), "{number}");
        if code == ProblemCode::Gone {
            assert_eq!(
                (&changes.members["reason"], &changes.members["action"]),
                (&json!("retention"), &json!("resync-keep-outbox"))
            );
            let fresh = changes.members["token"].as_str().expect("a fresh token");
            assert!(relay.position_of(&access, &view, Some(fresh), &wanted).is_ok());
            let fresh = deletions.members["token"].as_str().expect("a fresh token");
            assert!(relay.deletions(&access, &notes, Some(fresh), &Deleting::default()).is_ok());
        }
    }
}

fn table(name: &str) -> CollectionName {
    CollectionName::user(name).expect("a name")
}

fn database_scope() -> PolicyScope {
    PolicyScope::Database("acme".parse().expect("a name"), "notes".parse().expect("a name"))
}

async fn set_policy(relay: &Relay, policy: Policy, value: u64) {
    relay.tenants().set_policy(&database_scope(), policy, Setting::Value(value)).await.expect("it is set");
}

fn statuses(results: &[Json]) -> Vec<&str> {
    results.iter().map(|result| result["status"].as_str().expect("a status")).collect()
}

/// One record held what was set of all tables, and each of two who set something wrote what it had read before.
#[tokio::test(flavor = "multi_thread")]
async fn of_what_is_set_at_once_nothing_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let settings = |number| TableSettings { schema: Some(Schema::Number(number)), ..TableSettings::default() };
    let names: Vec<CollectionName> = (0..8).map(|number| table(&format!("t{number}"))).collect();
    let (first, second) = (settings(1), settings(2));
    let (a, b) =
        tokio::join!(relay.set_table(&access, &names[0], &first), relay.set_table(&access, &names[1], &second),);
    a.and(b).expect("both are set");
    let set = relay.settings(&access.database).expect("readable");
    assert_eq!((set.of(&names[0]), set.of(&names[1])), (first.clone(), second));
    relay.set_table(&access, &names[0], &TableSettings::default()).await.expect("it is set");
    let set = relay.settings(&access.database).expect("readable");
    assert_eq!(set.of(&names[0]), TableSettings::default(), "nothing is left of what was");

    let tenants = relay.tenants();
    let scope = database_scope();
    let (a, b) = tokio::join!(
        tenants.set_policy(&scope, Policy::Rows, Setting::Value(5)),
        tenants.set_policy(&scope, Policy::Bytes, Setting::NoLimit),
    );
    a.and(b).expect("both are set");
    let policies = tenants.policies(&scope).expect("readable");
    let in_force = |policy| policies.in_force(policy);
    assert_eq!((in_force(Policy::Rows).value, in_force(Policy::Bytes).value), (Some(5), None));
    assert_eq!([in_force(Policy::Rows).set, in_force(Policy::Bytes).set], [Some(scope.clone()), Some(scope)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_only_has_settings_is_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    set_policy(&relay, Policy::Tables, 2).await;
    let row = |table: &str| vec![json!({"table": table, "key": "k", "fields": {}})];
    assert_eq!(statuses(&sent(&relay, &access, row("rows")).await), ["accepted"]);
    assert!(relay.table(&access, &table("set")).is_err());
    let named = TableSettings { schema: Some(Schema::Name("first".to_owned())), ..TableSettings::default() };
    relay.set_table(&access, &table("set"), &named).await.expect("there is room for it");
    let refused = relay.set_table(&access, &table("third"), &named).await.expect_err("that is one too many");
    assert_eq!((refused.code, &refused.members["policy"]), (ProblemCode::QuotaExceeded, &json!("tables")));
    assert_eq!(statuses(&sent(&relay, &access, row("third")).await), ["retry"], "also by a row");

    let (body, tag) = relay.table(&access, &table("set")).expect("it is there");
    assert_eq!((&body["count"], &body["max_version"], &body["schema"]), (&json!(0), &json!(0), &json!("first")));
    let deleted = relay.delete_range(&access, &table("set"), Range::All, Some(&tag)).await.expect("there is nothing");
    assert_eq!(deleted["deleted_rows"], 0);
    let manifest = relay.manifest(&access, &table("set"), &Versions::Own(0..=u64::MAX), None, false);
    assert_eq!(manifest.expect("it is there")["rows"], json!([]));
    assert_eq!(statuses(&sent(&relay, &access, row("set")).await), ["accepted"], "it has its place already");
    relay.set_table(&access, &table("rows"), &named).await.expect("and this one, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tag_of_a_table_changes_with_all_that_is_told_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let rows = ["k", "gone"].map(|key| json!({"table": "t", "key": key, "fields": {}}));
    sent(&relay, &access, rows.to_vec()).await;
    sent(&relay, &access, vec![json!({"table": "t", "key": "gone", "op": "delete"})]).await;
    let told = || relay.table(&access, &table("t")).expect("it is there");
    let before = told();
    let settings = |schema| TableSettings { schema, retention_days: Some(0), ..TableSettings::default() };
    relay.set_table(&access, &table("t"), &settings(Some(Schema::Number(3)))).await.expect("it is set");
    let with_schema = told();
    assert_eq!((&before.0["schema"], &with_schema.0["schema"]), (&Json::Null, &json!(3)));
    assert_ne!(before.1, with_schema.1);
    let stale = relay.delete_range(&access, &table("t"), Range::All, Some(&before.1)).await;
    assert_eq!(stale.expect_err("another tag").code, ProblemCode::Changed);

    // The clock of the relay must have gone on since the deletion.
    while relay.keep().await.expect("it looks").forgotten == 0 {}
    let trimmed = told();
    assert_ne!(trimmed.0["min_retained_version"], with_schema.0["min_retained_version"]);
    assert_eq!(trimmed.0["max_version"], with_schema.0["max_version"]);
    assert_ne!(trimmed.1, with_schema.1);
    let deleted = relay.delete_range(&access, &table("t"), Range::All, Some(&trimmed.1)).await.expect("it is the one");
    assert_eq!(deleted["deleted_rows"], 1);
    assert_ne!(told().1, trimmed.1);
}

/// A client that had no answer sends the same again; that the quota was filled meanwhile is no matter of what was done.
#[tokio::test(flavor = "multi_thread")]
async fn a_known_id_is_a_duplicate_however_full_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let row = |key: &str, id: &str, text: &str| json!({"table": "t", "key": key, "id": id, "fields": {"text": text}});
    let first = sent(&relay, &access, vec![row("a", "one", "x")]).await.remove(0);
    sent(&relay, &access, vec![json!({"table": "t", "key": "a", "op": "delete"})]).await;
    sent(&relay, &access, vec![row("b", "two", "x")]).await;
    set_policy(&relay, Policy::Rows, 1).await;
    set_policy(&relay, Policy::Bytes, 0).await;
    set_policy(&relay, Policy::Tables, 1).await;
    let again = vec![row("a", "one", "x"), row("b", "two", "longer than it was"), row("c", "three", "x")];
    let results = sent(&relay, &access, again.clone()).await;
    assert_eq!(statuses(&results), ["duplicate", "duplicate", "retry"]);
    assert_eq!(results[0]["version"], first["version"]);
    let elsewhere = json!({"table": "new", "key": "a", "id": "one", "fields": {}});
    assert_eq!(statuses(&sent(&relay, &access, vec![elsewhere]).await), ["duplicate"]);
    let whole = relay.upload(&access, None, again[..2].to_vec(), true).await.expect("all of it is known");
    assert_eq!(statuses(whole.as_array().expect("a list")), ["duplicate", "duplicate"]);
    assert_eq!(visible(&relay, &access).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_quota_nothing_grows_that_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let change = |op: &str, more: Json| {
        let mut row = json!({"table": "t", "key": "k", "op": op});
        more.as_object().expect("members").iter().for_each(|(name, value)| row[name] = value.clone());
        row
    };
    let old = sent(&relay, &access, vec![change("put", json!({"fields": {"text": "x".repeat(100)}}))]).await.remove(0);
    sent(&relay, &access, vec![change("increment", json!({"field": "count", "by": 1}))]).await;
    sent(&relay, &access, vec![change("patch", json!({"fields": {"text": "y".repeat(100)}}))]).await;
    let bytes = || relay.view(&access).expect("readable").size().expect("readable").1;
    let before = bytes();
    set_policy(&relay, Policy::Bytes, before).await;
    let refused = |row: Json| {
        let (relay, access) = (&relay, &access);
        async move { assert_eq!(statuses(&sent(relay, access, vec![row.clone()]).await), ["retry"], "{row}") }
    };
    refused(change("increment", json!({"field": "n".repeat(1000), "by": 1}))).await;
    refused(change("add", json!({"field": "set", "value": 1}))).await;
    // It stands beside what its writer had not seen, however often that comes.
    let beside = json!({"fields": {"text": "z".repeat(100)}, "context": old["context"]});
    refused(change("put", beside.clone())).await;
    refused(change("patch", beside)).await;
    assert_eq!(bytes(), before);
    // What takes no room is done.
    for row in [
        change("increment", json!({"field": "count", "by": 1})),
        change("patch", json!({"fields": {"text": "z".repeat(100)}})),
        change("unset", json!({"names": ["text"]})),
        change("delete", json!({})),
    ] {
        assert_eq!(statuses(&sent(&relay, &access, vec![row.clone()]).await), ["accepted"], "{row}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_of_the_tables_that_are_wanted() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let rows = |table: &'static str, count: usize| {
        (0..count).map(move |n| json!({"table": table, "key": format!("k{n}"), "fields": {}}))
    };
    sent(&relay, &access, rows("a", 2).chain(rows("b", 3)).chain(rows("c", 5)).collect()).await;
    let total = |tables: Option<&str>| {
        let (view, wanted) = (relay.view(&access).expect("readable"), Wanted::parse(tables, Some(1)).expect("names"));
        let point = relay.position_of(&access, &view, None, &wanted).expect("the beginning");
        relay.page(&access, &view, point, &wanted).expect("readable").body["progress"]["rows_total"].clone()
    };
    let totals = [total(None), total(Some("a,c")), total(Some("b")), total(Some("none"))];
    assert_eq!(totals.map(|total| total.as_u64()), [10, 7, 3, 0].map(Some));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_is_cut_like_other_pages() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    sent(&relay, &access, (0..150).map(|n| json!({"table": "t", "key": format!("k{n}"), "fields": {}})).collect())
        .await;
    let rows = |limit| {
        let manifest = relay.manifest(&access, &table("t"), &Versions::Own(0..=u64::MAX), limit, false);
        manifest.map(|manifest| manifest["rows"].as_array().map(Vec::len)).map_err(|problem| problem.code)
    };
    assert_eq!(rows(None), Ok(Some(100)));
    assert_eq!(rows(Some(u64::MAX)), Ok(Some(150)));
    assert_eq!(rows(Some(0)), Err(ProblemCode::Malformed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_in_a_batch_is_told_with_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    let put = json!({"table": "t", "key": "k", "fields": {"title": {"a/b": 1}}});
    sent(&relay, &access, vec![put]).await;
    let counted = json!({"table": "t", "key": "k", "op": "increment", "field": "/title/count", "by": 1});
    sent(&relay, &access, vec![counted]).await;
    let good = json!({"table": "t", "key": "good", "fields": {}});
    let whole = |row: Json| {
        let (relay, access, rows) = (&relay, &access, vec![good.clone(), row]);
        async move {
            let problem = relay.upload(access, None, rows, true).await.expect_err("it cannot be done");
            problem.members["path"].as_str().expect("a path").to_owned()
        }
    };
    let each = |row: Json| {
        let (relay, access, rows) = (&relay, &access, vec![good.clone(), row]);
        async move { sent(relay, access, rows).await.remove(1)["problem"]["path"].clone() }
    };
    // What is no row at all is a fault of the whole request.
    for (row, path) in [
        (json!(1), "/rows/1"),
        (json!({"table": "t", "key": 1}), "/rows/1/key"),
        (json!({"table": "t", "key": "k", "names": ["a", 1]}), "/rows/1/names/1"),
        (json!({"table": "t", "key": "good", "fields": {}}), "/rows/1"),
    ] {
        assert_eq!(whole(row).await, path);
    }
    for (row, path) in [
        (json!({"table": "no/table", "key": "k", "fields": {}}), "/rows/1/table"),
        (json!({"table": "t", "key": "", "fields": {}}), "/rows/1/key"),
        (json!({"table": "t", "key": "k"}), "/rows/1"),
        (json!({"table": "t", "key": "k", "fields": {}, "context": "?"}), "/rows/1/context"),
        (json!({"table": "t", "key": "k", "op": "unset", "names": ["a", "/~"]}), "/rows/1/names/1"),
        (
            json!({"table": "t", "key": "k", "op": "patch", "fields": {"title": {"count": 7}}}),
            "/rows/1/fields/title/count",
        ),
        (json!({"table": "t", "key": "k", "op": "increment", "field": "/title/a~1b", "by": 1}), "/rows/1/field"),
        (json!({"table": "t", "key": "none", "op": "patch", "fields": {}}), "/rows/1"),
    ] {
        assert_eq!((whole(row.clone()).await.as_str(), each(row).await.as_str()), (path, Some(path)));
    }
}

/// Who waited for the other one was refused for the quota that the other one had just used up for both.
#[tokio::test(flavor = "multi_thread")]
async fn who_registers_a_database_at_the_same_time_gets_the_same_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let relay = relay(&folder).await;
    let (customer, database) = ("acme".parse().expect("a name"), "notes".parse().expect("a name"));
    let (tenants, scope) = (relay.tenants(), PolicyScope::Relay);
    tenants.set_policy(&scope, Policy::Databases, Setting::Value(1)).await.expect("it is set");
    let (first, second) = tokio::join!(
        tenants.register(&customer, &database, None),
        tenants.register(&customer, &database, Some(Visibility::PublicRead)),
    );
    let ((first, is_new), (second, is_new_again)) = (first.expect("there is room"), second.expect("for that one"));
    assert_eq!((first.space, is_new, is_new_again), (second.space, true, false));
    assert_eq!(second.visibility, Visibility::PublicRead);
    let known = tenants.database(&customer, &database).expect("readable").expect("it is there");
    assert_eq!(known.visibility, Visibility::PublicRead);
    let other = "other".parse().expect("a name");
    let full = tenants.register(&customer, &other, None).await.expect_err("that is one too many");
    assert_eq!(full.code, ProblemCode::QuotaExceeded);
}

/// Any number of tickets was handed out as long as each by itself was within the quota.
#[tokio::test(flavor = "multi_thread")]
async fn open_tickets_count_as_the_devices_that_they_let_in() {
    let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (relay, laptop) = (relay(&folder).await, node(&other).await);
    register(&relay, "acme", "notes").await;
    let access = writer(&relay, "acme", "notes").await;
    set_policy(&relay, Policy::Devices, 10).await;
    let invite = |uses: u32, seconds: u64| {
        let (relay, access, expires) = (&relay, &access, Duration::from_secs(seconds));
        async move {
            let invitation = Invitation { role: Role::Writer, uses, expires };
            relay.invite(access, &invitation).await.map_err(|problem| problem.code)
        }
    };
    assert!(invite(9, 0).await.is_ok(), "its time is over at once");
    let ticket = invite(9, 3600).await.expect("there is room");
    assert_eq!(invite(2, 3600).await, Err(ProblemCode::QuotaExceeded));
    laptop.join(&ticket).await.expect("it is let in");
    assert_eq!(invite(2, 3600).await, Err(ProblemCode::QuotaExceeded), "whoever came used up one of nine");
    invite(1, 3600).await.expect("ten in all");
    assert_eq!(invite(1, 3600).await, Err(ProblemCode::QuotaExceeded));
    laptop.close().await;
}
