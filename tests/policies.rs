//! What clients of a relay may use, as they meet it: set on the command line while it runs, and in force from the next
//! request on.

mod house;

use house::{Device, Http, HttpAnswer, PATIENCE, RunningNode, USAGE, eventually, request};
use serde_json::{Value as Json, json};

/// A relay with one customer's databases, and the token of their owner.
struct Relay {
    device: Device,
    node: RunningNode,
    token: String,
}

impl Relay {
    #[track_caller]
    fn new() -> Self {
        let device = Device::blank("relay");
        let node = device.start_relay(&[]);
        let token = device.ok(&["token", "create", "--customer", "acme", "--role", "owner"]).trim().to_owned();
        let relay = Self { device, node, token };
        relay.ask("PUT", "", None).expect(201);
        relay
    }

    /// A request to the database.
    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: Option<Json>) -> HttpAnswer {
        self.ask_at(&format!("/v1/customers/acme/databases/notes{path}"), method, body)
    }

    #[track_caller]
    fn ask_at(&self, path: &str, method: &str, body: Option<Json>) -> HttpAnswer {
        let bearer = format!("Bearer {}", self.token);
        let mut headers = vec![("Authorization", bearer.as_str())];
        let body = body.map(|body| body.to_string());
        headers.extend(body.as_ref().map(|_| ("Content-Type", "application/json")));
        let mut http = Http::connect(self.node.http());
        http.send(request(method, path, &headers, body.as_deref())).answer()
    }

    #[track_caller]
    fn put(&self, key: &str) -> HttpAnswer {
        self.ask("PUT", &format!("/tables/todo/rows/{key}"), Some(json!({"text": "x"})))
    }

    #[track_caller]
    fn set(&self, scope: &[&str], name: &str, value: &str) {
        self.device.ok(&[&["policy", "set"], scope, &[name, value]].concat());
    }

    #[track_caller]
    fn limit(&self, name: &str) -> Json {
        self.ask("GET", "", None).expect(200).json()["limits"][name].clone()
    }
}

const CUSTOMER: [&str; 2] = ["--customer", "acme"];
const DATABASE: [&str; 4] = ["--customer", "acme", "--database", "notes"];
const TABLE: [&str; 6] = ["--customer", "acme", "--database", "notes", "--table", "todo"];

fn rows(from: usize, count: usize) -> Json {
    let row = |n| json!({"key": format!("k{n}"), "fields": {"text": "x"}});
    json!({"rows": (from..from + count).map(row).collect::<Vec<_>>()})
}

fn statuses(results: &Json) -> Vec<&str> {
    results["results"].as_array().expect("results").iter().map(|row| row["status"].as_str().expect("text")).collect()
}

#[test]
fn the_narrowest_scope_holds_is_published_and_needs_no_restart() {
    let relay = Relay::new();
    assert_eq!(relay.limit("batch_rows"), 1000);
    assert_eq!(relay.limit("rows"), Json::Null);
    relay.set(&[], "batch_rows", "5");
    assert_eq!(relay.limit("batch_rows"), 5);
    let all = Http::connect(relay.node.http()).ask("GET", "/v1/limits", &[]).expect(200).json();
    assert_eq!((&all["batch_rows"], &all["body_seconds"]), (&json!(5), &json!(30)));
    relay.set(&CUSTOMER, "batch_rows", "6");
    relay.set(&DATABASE, "batch_rows", "7");
    assert_eq!(relay.limit("batch_rows"), 7);
    let table = "/tables/todo";
    relay.ask("POST", table, Some(rows(0, 8))).problem(413, "too-large").comes_again();
    assert_eq!(relay.ask("GET", "", None).json()["rows"], 0, "nothing of it was written");
    relay.ask("POST", table, Some(rows(0, 7))).expect(200);
    relay.set(&TABLE, "batch_rows", "8");
    relay.ask("POST", table, Some(rows(0, 8))).expect(200);
    let other = relay.ask("POST", "/tables/other", Some(rows(0, 8)));
    other.problem(413, "too-large");
    let database = relay.ask("GET", "", None).json();
    assert_eq!(database["tables"]["todo"]["limits"], json!({"batch_rows": 8}));
    assert_eq!(database["limits"]["batch_rows"], 7);

    let show = |words: &[&str]| relay.device.json(&[&["policy", "show"], words].concat());
    let shown = show(&[&TABLE[..], &["batch_rows"]].concat());
    let about = "rows in one request";
    let expected =
        json!([{"name": "batch_rows", "value": 8, "scope": "acme/notes/todo", "default": 1000, "about": about}]);
    assert_eq!(shown, expected);
    let shown = show(&DATABASE);
    assert_eq!(shown.as_array().map(Vec::len), all.as_object().map(|all| all.len() - 7), "and seven that nobody sets");
    let of = |name: &str| shown.as_array().expect("rows").iter().find(|row| row["name"] == name).expect("it").clone();
    assert_eq!((&of("batch_rows")["scope"], &of("rows")["scope"]), (&json!("acme/notes"), &Json::Null));
    let text = relay.device.ok(&["policy", "show", "--customer", "acme"]);
    let line = text.lines().find(|line| line.starts_with("batch_rows")).expect("a line");
    assert!(line.contains(" 6 ") && line.contains("set for acme; else 1000"), "{line}");

    relay.set(&DATABASE, "batch_rows", "default");
    assert_eq!(relay.limit("batch_rows"), 6);

    // They are there after a restart, too, and can be set where no relay runs.
    let Relay { device, node, .. } = relay;
    node.terminate();
    device.ok(&["policy", "set", "--customer", "acme", "rows", "9"]);
    assert_eq!(device.json(&["policy", "show", "--customer", "acme", "batch_rows"])[0]["value"], 6);
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    let device = Device::new("A");
    let refused = |words: &[&str], says: &str| {
        let outcome = device.run(&[&["policy", "set"], words].concat()).expect(USAGE);
        assert!(outcome.stderr.contains(says), "{outcome:?}");
    };
    refused(&["row", "5"], "batch_rows, batch_bytes");
    refused(&["rows", "five"], "expected a number from 0");
    refused(&["batch_rows", "1001"], "from 1 to 1000");
    refused(&["batch_rows", "none"], "from 1 to 1000 or `default`");
    refused(&[&TABLE[..], &["rows", "5"]].concat(), "cannot be set for acme/notes/todo");
    refused(&["--customer", "acme", "--table", "todo", "row_bytes", "5"], "--database");
    refused(&["--customer", "a/b", "rows", "5"], "cannot name a customer");
    assert!(device.json(&["policy", "show"]).as_array().is_some_and(|rows| rows.len() == 12));
    assert_eq!(device.json(&["policy", "set", "rows", "5"])["value"], 5);
    device.run(&["policy", "show", "row"]).expect(USAGE);
}

#[test]
fn sizes_are_limited_before_anything_is_written() {
    let relay = Relay::new();
    let text = |bytes: usize| json!({"text": "x".repeat(bytes)});
    let row = "/tables/todo/rows/a";
    relay.ask("PUT", row, Some(text(500))).expect(200);
    relay.set(&TABLE, "row_bytes", "100");
    relay.ask("PUT", "/tables/todo/rows/b", Some(text(101))).problem(413, "too-large").comes_again();
    relay.ask("PUT", "/tables/other/rows/b", Some(text(101))).expect(200);
    // It is the row that is limited, not the request; and what was larger before may become smaller.
    relay.ask("PATCH", row, Some(json!({"more": 1}))).problem(413, "too-large");
    relay.ask("PATCH", row, Some(text(400))).expect(200);
    relay.ask("PATCH", row, Some(text(10))).expect(200);
    relay.ask("PATCH", row, Some(json!({"more": {"a": "x".repeat(50)}}))).expect(200);
    relay.ask("PATCH", row, Some(json!({"more": {"b": "x".repeat(50)}}))).problem(413, "too-large");
    let batch = json!({"rows": [{"key": "c", "fields": text(10)}, {"key": "d", "fields": text(101)}]});
    let results = relay.ask("POST", "/tables/todo", Some(batch.clone())).expect(200).json();
    assert_eq!(statuses(&results), ["accepted", "rejected"]);
    assert_eq!(results["results"][1]["problem"]["code"], "too-large");
    relay.ask("POST", "/tables/todo?atomic=true", Some(batch)).problem(422, "invalid");

    relay.set(&DATABASE, "batch_bytes", "2KiB");
    relay.ask("POST", "/tables/other", Some(rows(0, 100))).problem(413, "too-large").comes_again();
    relay.ask("POST", "/tables/other", Some(rows(0, 10))).expect(200);
}

#[test]
fn over_quota_reading_deleting_and_exporting_go_on() {
    let relay = Relay::new();
    relay.set(&DATABASE, "rows", "5");
    let results = relay.ask("POST", "/tables/todo", Some(rows(0, 7))).expect(200).json();
    assert_eq!(statuses(&results), [&["accepted"; 5][..], &["retry"; 2]].concat());
    let problem = &results["results"][6]["problem"];
    assert_eq!((&problem["code"], &problem["policy"]), (&json!("quota-exceeded"), &json!("rows")));
    relay.ask("POST", "/tables/todo", Some(rows(10, 2))).problem(507, "quota-exceeded").comes_again();
    relay.put("k9").problem(507, "quota-exceeded").comes_again();
    let whole = relay.ask("POST", "/tables/todo?atomic=true", Some(rows(4, 3))).problem(507, "quota-exceeded");
    let named: Vec<Json> =
        whole.json()["rows"].as_array().into_iter().flatten().map(|row| row["row"].clone()).collect();
    assert_eq!((named, &whole.json()["policy"]), (vec![json!(1), json!(2)], &json!("rows")));
    whole.comes_again();
    // What takes no room is done.
    relay.put("k1").expect(200);
    relay.ask("PATCH", "/tables/todo/rows/k1", Some(json!({"done": true}))).expect(200);
    relay.ask("GET", "/tables/todo/rows/k1", None).expect(200);
    // A phone still hears what is new, and keeps what it could not send.
    let sync = json!({"changes": [{"table": "todo", "key": "new", "fields": {}}]});
    let synced = relay.ask("POST", "/sync", Some(sync)).expect(200).json();
    assert_eq!((statuses(&synced), synced["changes"].as_array().map(Vec::len)), (vec!["retry"], Some(5)));
    let export = relay.ask_at("/v1/customers/acme/export", "GET", None).expect(200).body;
    let lines: Vec<Json> = String::from_utf8_lossy(&export).lines().map(|line| line.parse().expect("JSON")).collect();
    let (rows, epoch) = (lines.iter().filter(|line| line["record"] == "row"), &synced["epoch"]);
    assert_eq!(rows.clone().count(), 5);
    assert!(rows.clone().all(|line| line["epoch"] == *epoch && line["version"].is_u64()), "{lines:?}");
    relay.ask("DELETE", "/tables/todo/rows/k2", None).expect(200);
    relay.put("k9").expect(200);
    relay.put("k10").problem(507, "quota-exceeded");

    relay.set(&DATABASE, "rows", "none");
    relay.set(&TABLE, "table_rows", "6");
    relay.put("k11").expect(200);
    relay.put("k12").problem(507, "quota-exceeded");
    relay.ask("PUT", "/tables/other/rows/a", Some(json!({}))).expect(200);

    relay.set(&DATABASE, "tables", "2");
    relay.ask("PUT", "/tables/third/rows/a", Some(json!({}))).problem(507, "quota-exceeded");
    relay.ask("PUT", "/tables/other/rows/b", Some(json!({}))).expect(200);

    let bytes = relay.ask("GET", "", None).json()["bytes"].as_u64().expect("bytes");
    relay.set(&DATABASE, "bytes", &(bytes + 200).to_string());
    let long = json!({"text": "x".repeat(400)});
    relay.ask("PUT", "/tables/other/rows/c", Some(long.clone())).problem(507, "quota-exceeded");
    relay.ask("PATCH", "/tables/other/rows/b", Some(long)).problem(507, "quota-exceeded");
    relay.ask("PUT", "/tables/other/rows/c", Some(json!({"a": 1}))).expect(200);

    relay.set(&CUSTOMER, "databases", "1");
    relay.ask_at("/v1/customers/acme/databases/second", "PUT", None).problem(507, "quota-exceeded").comes_again();
    relay.ask("PUT", "", None).expect(200);
    relay.set(&DATABASE, "devices", "1");
    relay.ask("POST", "/invites", Some(json!({"role": "writer", "uses": 2}))).problem(507, "quota-exceeded");
    relay.ask("POST", "/invites", Some(json!({"role": "writer"}))).expect(201);
}

#[test]
fn a_database_has_its_own_rate() {
    let relay = Relay::new();
    relay.set(&DATABASE, "requests_per_second", "1");
    let mut refused = None;
    eventually(PATIENCE, "there were too many", || {
        let answer = relay.ask("GET", "", None);
        refused = Some(answer).filter(|answer| answer.status != 200);
        refused.is_some()
    });
    refused.expect("it").problem(429, "too-many-requests").comes_again();
    relay.ask_at("/v1/customers/acme/databases/second", "PUT", None).expect(201);
    relay.ask_at("/v1/customers/acme/databases/second", "GET", None).expect(200);
    relay.device.run(&["policy", "set", "requests_per_second", "0"]).expect(USAGE);
}

#[test]
fn how_far_each_client_is_is_told_with_whose_it_is_and_why_it_does_not_get_on() {
    let relay = Relay::new();
    relay.ask("POST", "/tables/todo", Some(rows(0, 9))).expect(200);
    relay.ask("POST", "/tables/other", Some(rows(0, 3))).expect(200);
    let words = ["token", "create", "--customer", "acme", "--role", "reader"];
    let reader = relay.device.ok(&words).trim().to_owned();
    let pull = |bearer: &str, client: &str, query: &str, token: &str| {
        let bearer = format!("Bearer {bearer}");
        let mut headers = vec![("Authorization", bearer.as_str()), ("Client-Id", client)];
        headers.extend(Some(("Sync-Token", token)).filter(|(_, token)| !token.is_empty()));
        let path = format!("/v1/customers/acme/databases/notes/changes?{query}");
        Http::connect(relay.node.http()).ask("GET", &path, &headers).expect(200).json()
    };
    let token = |page: Json| page["token"].as_str().expect("a token").to_owned();
    let first = token(pull(&relay.token, "phone", "limit=2&tables=todo", ""));
    let clients = || {
        let told = relay.ask("GET", "/clients", None).expect(200).json();
        (told["clients"].as_array().expect("a list").clone(), told["stuck"].clone())
    };
    let (told, _) = clients();
    assert_eq!((told.len(), &told[0]["rows_done"], &told[0]["rows_behind"]), (1, &json!(2), &json!(7)), "{told:?}");
    relay.put("new").expect(200);
    let last = pull(&relay.token, "phone", "limit=100&tables=todo", &first);
    assert_eq!(last["more"], true);
    assert_eq!(clients().0[0]["rows_behind"], 1, "what changed since it began");
    let last = pull(&relay.token, "phone", "limit=100&tables=todo", &token(last));
    assert_eq!(last["more"], false);
    assert_eq!((&clients().0[0]["reason"], clients().1), (&Json::Null, json!(0)));

    // Another one that calls itself the same, and never sends the token that it is given, whatever is written meanwhile.
    for number in 0..4 {
        relay.put(&format!("more{number}")).expect(200);
        pull(&reader, "phone", "limit=100", "");
    }
    let (told, stuck) = clients();
    assert_eq!((told.len(), stuck), (2, json!(1)), "{told:?}");
    let of = |by: &str| told.iter().find(|client| by.contains(client["by"].as_str().expect("an id"))).expect("it");
    assert_eq!(of(&relay.token)["reason"], Json::Null);
    assert_eq!((&of(&reader)["repeats"], &of(&reader)["requests"]), (&json!(3), &json!(4)));
    assert!(of(&reader)["reason"].is_string());
}

#[test]
fn a_fault_in_what_is_synchronised_is_told_with_its_place_there() {
    let relay = Relay::new();
    relay.ask("POST", "/tables/todo", Some(json!({"rows": [{"key": "k", "fields": {"set": {}}}]}))).expect(200);
    let add = json!({"key": "k", "op": "add", "field": "tags", "value": 1});
    relay.ask("POST", "/tables/todo", Some(json!({"rows": [add]}))).expect(200);
    let change = |fields: Json| json!({"table": "todo", "key": "k", "op": "patch", "fields": fields});
    let path = |answer: Json| answer["path"].as_str().map(str::to_owned);
    let unknown = json!({"changes": [{"table": "todo", "key": "a", "fields": {}}, {"key": "b", "unknown": 1}]});
    let alone = relay.ask("POST", "/sync", Some(unknown)).expect(200).json();
    assert_eq!(statuses(&alone), ["accepted", "rejected"]);
    assert_eq!(path(alone["results"][1]["problem"].clone()).as_deref(), Some("/changes/1/unknown"));
    let nameless = json!({"changes": [{"table": "todo", "unknown": 1}]});
    let refused = relay.ask("POST", "/sync", Some(nameless)).expect(422).json();
    assert_eq!(path(refused).as_deref(), Some("/changes/0/unknown"));
    let synced = relay.ask("POST", "/sync", Some(json!({"changes": [change(json!({"tags": 7}))]}))).expect(200).json();
    assert_eq!(path(synced["results"][0]["problem"].clone()).as_deref(), Some("/changes/0/fields/tags"));
    let single = relay.ask("PATCH", "/tables/todo/rows/k", Some(json!({"tags": 7}))).expect(422).json();
    assert_eq!(path(single).as_deref(), Some("/tags"));
    let keys = json!({"keys": ["k", ""]});
    let deleted = relay.ask("POST", "/tables/todo/delete", Some(keys)).expect(200).json();
    assert_eq!(statuses(&deleted), ["accepted", "rejected"]);
    assert_eq!(path(deleted["results"][1]["problem"].clone()).as_deref(), Some("/keys/1"));
}
