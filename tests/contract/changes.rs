//! What changed since a client last asked: rounds, pages and filters.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use thence::model::Role;

use crate::house::Dice;
use crate::world::{Client, NOTES, World, at, each, empty_rows, list, number, text, token_of};

/// A client's own table, and how far it is.
#[derive(Default)]
struct Mirror {
    token: Option<String>,
    rows: BTreeMap<(String, String), (Json, Json)>,
}

impl Mirror {
    /// Takes one page. Returns its body.
    #[track_caller]
    fn pull(&mut self, client: &Client, query: &str) -> Json {
        let answer = client.changes(query, self.token.as_deref()).expect(200);
        let page = answer.json();
        for change in list(&page["changes"]) {
            let name = (text(&change["table"]), text(&change["key"]));
            match change["op"].as_str() {
                Some("put") => _ = self.rows.insert(name, (change["version"].clone(), change["fields"].clone())),
                Some("delete") => {
                    assert_eq!(change.get("fields"), None, "{change}");
                    self.rows.remove(&name);
                }
                _ => panic!("neither put nor delete: {change}"),
            }
        }
        self.token = Some(token_of(&answer));
        page
    }

    #[track_caller]
    fn pull_all(&mut self, client: &Client, query: &str) {
        while self.pull(client, query)["more"] == true {}
    }
}

/// What there is, as it is told by other means than changes.
#[track_caller]
fn visible(client: &Client) -> BTreeMap<(String, String), (Json, Json)> {
    let database = client.get(NOTES).expect(200).json();
    let mut rows = BTreeMap::new();
    for table in database["tables"].as_object().expect("tables").keys() {
        let manifest = client.get(&format!("/tables/{table}/manifest?limit=1000")).expect(200).json();
        for key in each(&manifest["rows"], "key").iter().map(text) {
            let row = client.row(table, &key);
            rows.insert((table.clone(), key), (row["version"].clone(), row["fields"].clone()));
        }
    }
    rows
}

#[test]
fn a_first_round_gives_rows_in_key_order_and_then_what_changed_meanwhile() {
    let world = World::new();
    let owner = &world.owner;
    for table in ["c", "a", "b"] {
        owner.write(table, &[json!({"key": "2", "fields": {"n": 2}}), json!({"key": "1", "fields": {"n": 1}})]);
    }
    owner.put("b", "never seen", &json!({}));
    owner.delete(&at("b", "never seen")).expect(200);

    let mut mirror = Mirror::default();
    let (mut told, mut bytes) = (Vec::new(), 0);
    for round in 1..=3 {
        let rows = &owner.get(NOTES).expect(200).json()["rows"];
        let page = mirror.pull(owner, "?limit=2");
        assert_eq!((&page["phase"], &page["revision"]), (&json!("initial"), &json!(1)));
        let progress = &page["progress"];
        assert_eq!((&progress["rows_done"], &progress["rows_total"]), (&json!(round * 2), rows));
        assert!(number(&progress["bytes_done"]) > bytes, "{progress}");
        bytes = number(&progress["bytes_done"]);
        told.extend(list(&page["changes"]));
        // While this goes on, one that was told is changed, and one that was not is deleted.
        if round == 1 {
            assert_eq!(page["more"], true);
            owner.put("a", "1", &json!({"n": 3}));
            owner.put("a", "0", &json!({}));
            owner.delete(&at("c", "2")).expect(200);
            owner.put("c", "3", &json!({}));
        }
    }
    let names: Vec<_> = told.iter().map(|change| text(&change["table"]) + &text(&change["key"])).collect();
    assert_eq!(names, ["a1", "a2", "b1", "b2", "c1", "c3"]);
    let versions: Vec<u64> = loop {
        let page = mirror.pull(owner, "?limit=10");
        assert_eq!((&page["phase"], page.get("progress")), (&json!("live"), None));
        if page["more"] == false {
            break list(&page["changes"]).iter().map(|change| number(&change["version"])).collect();
        }
    };
    assert!(versions.is_sorted());
    assert_eq!(mirror.rows, visible(owner));
    // A client that has all is told nothing, and nothing of what a newcomer never had.
    let page = mirror.pull(owner, "");
    assert_eq!((&page["phase"], &page["changes"], &page["more"]), (&json!("live"), &json!([]), &json!(false)));
    let mut newcomer = Mirror::default();
    let page = newcomer.pull(owner, "");
    assert_eq!(each(&page["changes"], "op"), vec!["put"; 7]);
    assert_eq!(newcomer.rows, mirror.rows);
}

#[test]
fn a_page_has_100_rows_and_never_more_than_1000() {
    let world = World::new();
    let owner = &world.owner;
    let mut mirror = Mirror::default();
    mirror.pull_all(owner, "");
    for prefix in ["a", "b"] {
        owner.write("todo", &empty_rows(prefix, 600));
    }
    let count = |page: Json| (list(&page["changes"]).len(), page["more"].clone());
    for mut client in [Mirror::default(), mirror] {
        let token = client.token.clone();
        let mut from_there = |query: &str| {
            client.token.clone_from(&token);
            count(client.pull(owner, query))
        };
        assert_eq!(from_there(""), (100, json!(true)));
        assert_eq!(from_there("?limit=7"), (7, json!(true)));
        for much in ["?limit=1000", "?limit=1001", "?limit=18446744073709551615"] {
            assert_eq!(from_there(much), (1000, json!(true)), "{much}");
        }
        client.pull_all(owner, "?limit=5000");
        assert_eq!(client.rows.len(), 1200);
    }
    for no_limit in ["0", "-1", "x", "1.5", ""] {
        owner.changes(&format!("?limit={no_limit}"), None).problem(400, "malformed");
    }
}

#[test]
fn pages_of_one_row_miss_nothing_whatever_happens_between_them() {
    let world = World::new();
    let owner = &world.owner;
    for seed in 0..3 {
        let mut dice = Dice::new(seed);
        let mut mirrors: Vec<Mirror> = (0..3).map(|_| Mirror::default()).collect();
        owner.write("todo", &empty_rows("k", 12));
        for step in 0..120_u32 {
            let key = format!("k{:04}", dice.below(14));
            match dice.below(6) {
                0 => _ = owner.put(["todo", "other"][dice.below(2) as usize], &key, &json!({"step": step})),
                1 => _ = owner.delete(&at("todo", &key)),
                2 => _ = owner.delete(&at("other", &key)),
                _ => {
                    let at = dice.below(3) as usize;
                    mirrors[at].pull(owner, "?limit=1");
                }
            }
        }
        let visible = visible(owner);
        for mirror in &mut mirrors {
            mirror.pull_all(owner, "?limit=1");
            assert_eq!(mirror.rows, visible, "seed {seed}");
        }
    }
}

#[test]
fn a_round_ends_though_writers_do_not_and_says_that_there_is_more() {
    let world = World::new();
    let owner = &world.owner;
    let mut mirror = Mirror::default();
    mirror.pull_all(owner, "");
    owner.write("todo", &empty_rows("k", 3));
    // Each page is followed by another write of what was told: whoever ran after that would never come to `k0002`.
    for n in 0..3 {
        let page = mirror.pull(owner, "?limit=1");
        let key = format!("k{n:04}");
        assert_eq!((each(&page["changes"], "key"), &page["more"]), (vec![json!(key)], &json!(true)));
        owner.put("todo", &key, &json!({"again": true}));
    }
    for more in [true, true, false] {
        assert_eq!(mirror.pull(owner, "?limit=1")["more"], more);
    }
    assert_eq!(mirror.rows, visible(owner));
}

#[test]
fn a_filter_that_lets_nothing_through_still_moves_the_token() {
    let world = World::new();
    let owner = &world.owner;
    let tablet = [("Client-Id", "tablet")];
    let ask = |token: Option<&str>| {
        let headers: Vec<_> = token.map(|token| ("Sync-Token", token)).into_iter().chain(tablet).collect();
        owner.ask("GET", "/changes?tables=quiet,silent&limit=1", &headers, None).expect(200)
    };
    let position = || {
        let clients = owner.get("/clients").expect(200).json();
        let tablet = list(&clients["clients"]).into_iter().find(|client| client["client"] == "tablet");
        number(&tablet.expect("it asked")["position"])
    };
    owner.put("quiet", "a", &json!({}));
    owner.write("noise", &empty_rows("k", 20));
    let mut answer = ask(None);
    assert_eq!(each(&answer.json()["changes"], "table"), ["quiet"]);
    while answer.json()["more"] == true {
        answer = ask(Some(&token_of(&answer)));
    }
    for _ in 0..3 {
        owner.write("noise", &empty_rows("k", 20));
        let version = number(&owner.get(NOTES).expect(200).json()["version"]);
        assert!(position() < version);
        answer = ask(Some(&token_of(&answer)));
        assert_eq!((&answer.json()["changes"], &answer.json()["more"]), (&json!([]), &json!(false)));
        assert_eq!(position(), version, "it need not look through all of that again");
    }
    // What was deleted and is not told any more is no matter to those who looked past it.
    let before = token_of(&answer);
    owner.delete(&at("noise", "k0000")).expect(200);
    let past = token_of(&ask(Some(&before)));
    owner.send("PUT", "/tables/noise", &json!({"retention_days": 0})).expect(200);
    world.forget_deletions();
    owner.put("silent", "b", &json!({}));
    assert_eq!(each(&ask(Some(&past)).json()["changes"], "key"), ["b"]);
    for nonsense in ["", "a,,b", "no/table", "%24grants"] {
        owner.changes(&format!("?tables={nonsense}"), None).problem(422, "invalid");
    }
}

#[test]
fn one_call_goes_up_and_down() {
    let world = World::new();
    let (phone, tablet) = (world.client(Role::Writer), world.client(Role::Writer));
    tablet.put("todo", "a", &json!({"by": "tablet"}));
    let changes = json!([
        {"table": "todo", "key": "b", "fields": {"by": "phone"}, "id": "1"},
        {"table": "other", "key": "c", "op": "delete", "id": "2"},
        {"table": "other", "key": "d", "fields": {}},
    ]);
    let sync = |token: Option<&str>, body: &Json| {
        let headers: Vec<_> = token.map(|token| ("Sync-Token", token)).into_iter().collect();
        phone.ask("POST", "/sync", &headers, Some(&body.to_string()))
    };
    let answer = sync(None, &json!({"changes": changes, "limit": 2})).expect(200);
    let body = answer.json();
    assert_eq!(each(&body["results"], "key"), ["b", "c", "d"]);
    assert_eq!(each(&body["results"], "id"), [json!("1"), json!("2"), Json::Null]);
    assert_eq!(each(&body["results"], "status"), ["accepted", "rejected", "accepted"]);
    assert_eq!((each(&body["changes"], "key"), &body["more"]), (vec![json!("d"), json!("a")], &json!(true)));
    // The same again, as whoever got no answer sends it: what it asks for goes on, what it wrote is known.
    let again = sync(Some(&token_of(&answer)), &json!({"changes": changes, "limit": 2})).expect(200);
    assert_eq!(each(&again.json()["results"], "status"), ["duplicate", "rejected", "accepted"]);
    assert_eq!(each(&again.json()["changes"], "key"), ["b"]);

    // Where the token is of no use nothing is written.
    let unsent = json!({"changes": [{"table": "todo", "key": "unsent", "fields": {}}]});
    sync(Some("AAAA"), &unsent).problem(400, "bad-token");
    let elsewhere = json!({"changes": unsent["changes"], "tables": ["todo"]});
    sync(Some(&token_of(&again)), &elsewhere).problem(410, "gone");
    phone.get(&at("todo", "unsent")).problem(404, "not-found");
    assert_eq!(each(&sync(None, &elsewhere).expect(200).json()["results"], "status"), ["accepted"]);
    // Who only reads sends nothing, and may ask.
    let reader = world.client(Role::Reader);
    reader.send("POST", "/sync", &json!({"changes": []})).expect(200);
    reader.send("POST", "/sync", &unsent).problem(403, "forbidden");
}
