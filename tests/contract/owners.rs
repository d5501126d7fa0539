//! What those who answer for a database ask: who is how far, what became of a wipe, and everything at once.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use thence::model::Role;

use crate::house::{PATIENCE, eventually};
use crate::world::{Client, NOTES, OTHER, World, at, empty_rows, list, number, text, token_of};

const EXPORT: &str = "/v1/customers/acme/export";

/// What is told of a client.
#[track_caller]
fn told_of(owner: &Client, name: &str) -> Json {
    let body = owner.get("/clients").expect(200).json();
    let found: Vec<Json> = list(&body["clients"]).into_iter().filter(|client| client["client"] == name).collect();
    assert_eq!(found.len(), 1, "{name} in {body}");
    found[0].clone()
}

#[test]
fn an_owner_sees_how_far_each_client_is() {
    let world = World::new();
    let (owner, reader) = (&world.owner, world.client(Role::Reader));
    owner.write("todo", &empty_rows("k", 5));
    let ask = |name: &str, token: Option<&str>| {
        let headers: Vec<_> =
            token.map(|token| ("Sync-Token", token)).into_iter().chain([("Client-Id", name)]).collect();
        token_of(&reader.ask("GET", "/changes?limit=2", &headers, None).expect(200))
    };
    let version = || number(&owner.get(NOTES).expect(200).json()["version"]);
    let first = ask("phone", None);
    let phone = told_of(owner, "phone");
    assert_eq!((&phone["phase"], &phone["position"]), (&json!("initial"), &json!(version())));
    let mut token = ask("phone", Some(&first));
    token = ask("phone", Some(&token));
    let phone = told_of(owner, "phone");
    assert_eq!(
        (&phone["phase"], &phone["position"], &phone["rows_behind"]),
        (&json!("live"), &json!(version()), &json!(0))
    );
    assert_eq!((&phone["reason"], number(&phone["last_seen_ms"]) > 0), (&Json::Null, true));

    let before = version();
    owner.write("todo", &empty_rows("new", 3));
    let phone = told_of(owner, "phone");
    assert_eq!((&phone["position"], &phone["rows_behind"]), (&json!(before), &json!(3)));
    ask("phone", Some(&token));
    assert_eq!(told_of(owner, "phone")["rows_behind"], 1);

    // One that does not go on although there is more is shown with the reason, and the others are not.
    for _ in 0..6 {
        ask("stuck", Some(&first));
    }
    let stuck = told_of(owner, "stuck");
    assert!(!text(&stuck["reason"]).is_empty() && stuck["phase"] == "initial", "{stuck}");
    assert_eq!(told_of(owner, "phone")["reason"], Json::Null);
    // Who does not say a name is called by the token.
    reader.changes("", None).expect(200);
    told_of(owner, &reader.id);
    let long = "x".repeat(129);
    owner.ask("GET", "/changes", &[("Client-Id", &long)], None).problem(400, "malformed");
    reader.get("/clients").problem(403, "forbidden");
}

#[test]
fn a_wipe_is_done_at_once_and_its_removal_can_be_followed() {
    let world = World::new();
    let owner = &world.owner;
    owner.write("todo", &empty_rows("k", 300));
    let answer = owner.delete(NOTES).expect(202).json();
    assert_eq!(answer["revision"], 2);
    let database = owner.get(NOTES).expect(200).json();
    assert_eq!((&database["revision"], &database["rows"]), (&json!(2), &json!(0)));
    owner.get("/tables/todo/rows/k0001").problem(404, "not-found");
    assert_eq!(owner.changes("", None).expect(200).json()["changes"], json!([]));
    owner.put("todo", "k0001", &json!({"of": "the new revision"}));

    let path = format!("/v1/jobs/{}", text(&answer["job"]));
    let job = || owner.get(&path).expect(200).json();
    eventually(PATIENCE, "it is done", || {
        let job = job();
        assert!(number(&job["rows_done"]) <= number(&job["rows_total"]), "{job}");
        assert!(["running", "done"].contains(&text(&job["state"]).as_str()), "{job}");
        job["state"] == "done"
    });
    let job = job();
    assert_eq!(
        (&job["rows_done"], &job["rows_total"], &job["retries"]),
        (&json!(300), &json!(300), &json!(0)),
        "{job}"
    );
    assert_eq!((&job["job"], &job["revision"]), (&answer["job"], &json!(2)));
    assert!(number(&job["done_ms"]) >= number(&job["begun_ms"]));
    assert_eq!(owner.fields("todo", "k0001"), json!({"of": "the new revision"}));

    owner.get("/v1/jobs/none").problem(404, "not-found");
    world.client_of("stranger", None, Role::Owner).get(&path).problem(404, "not-found");
    world.client(Role::Writer).get(&path).problem(403, "forbidden");
    world.anybody().get(&path).problem(401, "unauthenticated");
    world.client(Role::Writer).delete(NOTES).problem(403, "forbidden");
}

/// The lines of an export.
fn exported(by: &Client) -> Vec<Json> {
    let body = String::from_utf8(by.get(EXPORT).expect(200).body).expect("text");
    body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Those of them that tell of such a thing.
fn told_as<'l>(lines: &'l [Json], record: &str) -> Vec<&'l Json> {
    lines.iter().filter(|line| line["record"] == record).collect()
}

#[test]
fn an_export_has_everything_and_not_only_rows() {
    let world = World::new();
    let (owner, other) = (&world.owner, world.client_of("acme2", None, Role::Owner));
    other.ask("PUT", "/v1/customers/acme2/databases/notes", &[], None).expect(201);
    owner.send("PUT", NOTES, &json!({"visibility": "public-read"})).expect(200);
    owner.send("PUT", "/tables/todo", &json!({"schema": "2", "retention_days": 30})).expect(200);
    world.set_policy("acme", "rows", 500);
    world.set_policy("acme/notes/todo", "row_bytes", 5000);
    world.set_policy("acme2", "rows", 7);
    let ticket = owner.send("POST", "/invites", &json!({"role": "writer"})).expect(201).json()["ticket"].clone();
    // One edit wins, one loses to a delete that did not see it.
    owner.put("todo", "a", &json!({"title": "seen"}));
    let seen = owner.row("todo", "a")["context"].clone();
    owner.delete(&at("todo", "a")).expect(200);
    owner.change("todo", json!({"key": "a", "op": "patch", "fields": {"title": "late"}, "context": seen}));
    owner.put("todo", "b", &json!({}));
    owner.ask("GET", "/changes", &[("Client-Id", "phone")], None).expect(200);

    let lines = exported(owner);
    let only = |record: &str, expected: Json| {
        let found = told_as(&lines, record);
        assert_eq!(found.len(), 1, "{record}: {found:?}");
        for (name, value) in expected.as_object().expect("an object") {
            assert_eq!(&found[0][name], value, "{name} of {}", found[0]);
        }
        found[0].clone()
    };
    let policies: Vec<_> = told_as(&lines, "policy").iter().map(|line| (text(&line["scope"]), &line["set"])).collect();
    assert_eq!(
        policies,
        [("acme".to_owned(), &json!({"rows": 500})), ("acme/notes/todo".to_owned(), &json!({"row_bytes": 5000}))]
    );
    let token = only("token", json!({"id": owner.id, "role": "owner", "customer": "acme", "database": null}));
    assert_eq!(token.get("hash"), None);
    only("database", json!({"database": "notes", "visibility": "public-read", "revision": 1}));
    only("table", json!({"database": "notes", "table": "todo", "schema": "2", "retention_days": 30}));
    only("member", json!({"database": "notes", "role": "owner"}));
    only("ticket", json!({"database": "notes", "uses": 1}));
    only("client", json!({"database": "notes", "client": "phone", "by": owner.id}));
    only("row", json!({"database": "notes", "table": "todo", "key": "b", "fields": {}}));
    only("lost", json!({"database": "notes", "table": "todo", "key": "a", "fields": {"title": "late"}}));
    only("deletion", json!({"database": "notes", "table": "todo", "key": "a"}));
    let audit: Vec<_> = told_as(&lines, "audit").iter().map(|line| text(&line["action"])).collect();
    let told = ["grant", "visibility", "settings", "policy", "invite", "delete"];
    assert_eq!(told.iter().find(|action| !audit.contains(&(**action).to_owned())), None, "{audit:?}");
    // No secret is in it, and nothing of anybody else.
    let all = Json::from(lines.clone()).to_string();
    assert!(!all.contains(&text(&ticket)) && !all.contains("acme2") && !all.contains(owner.secret()), "{all}");

    // A wipe leaves its job, and nothing of what was.
    owner.delete(NOTES).expect(202);
    let lines = exported(owner);
    assert_eq!(told_as(&lines, "job")[0]["revision"], 2);
    for record in ["row", "lost", "deletion"] {
        assert_eq!(told_as(&lines, record), [] as [&Json; 0]);
    }
}

#[test]
fn a_customer_is_told_one_export_at_a_time() {
    let world = World::new();
    let owner = &world.owner;
    // More than lies on the way to somebody who does not read.
    let text = "x".repeat(1 << 19);
    for batch in 0..8 {
        let rows: Vec<Json> =
            (0..8).map(|row| json!({"key": format!("{batch}-{row}"), "fields": {"text": text}})).collect();
        owner.write("todo", &rows);
    }
    let mut slow = owner.begin(EXPORT, &[]);
    assert!(slow.head().starts_with("HTTP/1.1 200 "));
    owner.get(EXPORT).problem(429, "too-many-requests").comes_again();
    let other = world.client_of("other", None, Role::Owner);
    other.ask("PUT", "/v1/customers/other/databases/notes", &[], None).expect(201);
    other.get("/v1/customers/other/export").expect(200);
    // Who hangs up is told nothing more.
    drop(slow);
    eventually(PATIENCE, "it is somebody else's turn", || owner.get(EXPORT).status == 200);
    for _ in 0..3 {
        assert_eq!(exported(owner).last().map(|last| last["rows"].clone()), Some(json!(64)));
    }
}

#[test]
fn an_export_has_every_row_once_and_says_that_it_is_whole() {
    let world = World::new();
    let owner = &world.owner;
    owner.ask("PUT", OTHER, &[], None).expect(201);
    for prefix in ["a", "b"] {
        owner.write("todo", &empty_rows(prefix, 700));
    }
    owner.put("notes", "n", &json!({"title": "東京", "bytes": {"$bytes": "AAEC"}}));
    owner.send("POST", "/tables/todo/delete", &json!({"keys": ["a0001", "b0002"]})).expect(200);
    owner.send("PUT", &format!("{OTHER}/tables/todo/rows/a0001"), &json!({"other": true})).expect(200);
    let stranger = world.client_of("stranger", None, Role::Owner);
    let theirs = "/v1/customers/stranger/databases/notes";
    stranger.ask("PUT", theirs, &[], None).expect(201);
    stranger.send("PUT", &format!("{theirs}/tables/todo/rows/theirs"), &json!({})).expect(200);

    let answer = owner.get(EXPORT).expect(200);
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let body = String::from_utf8(answer.body).expect("text");
    let lines: Vec<Json> = body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let last = lines.last().expect("lines");
    assert_eq!((&last["record"], &last["end"], &last["rows"]), (&json!("end"), &json!(true), &json!(1400)));
    let mut found: BTreeMap<(String, String, String), &Json> = BTreeMap::new();
    for row in lines.iter().filter(|line| line["record"] == "row") {
        let name = (text(&row["database"]), text(&row["table"]), text(&row["key"]));
        assert!(found.insert(name, row).is_none(), "twice: {row}");
    }
    let mut expected: Vec<(String, String, String)> = ["a", "b"]
        .into_iter()
        .flat_map(|prefix| empty_rows(prefix, 700))
        .map(|row| ("notes".to_owned(), "todo".to_owned(), text(&row["key"])))
        .filter(|(.., key)| !["a0001", "b0002"].contains(&key.as_str()))
        .chain([("notes", "notes", "n"), ("other", "todo", "a0001")].map(|(a, b, c)| (a.into(), b.into(), c.into())))
        .collect();
    expected.sort();
    assert_eq!(found.keys().cloned().collect::<Vec<_>>(), expected);
    let (told, row) = (found[&("notes".into(), "notes".into(), "n".into())], owner.row("notes", "n"));
    for member in ["fields", "version", "modified_ms", "modified_by"] {
        assert_eq!(told[member], row[member], "{member}");
    }

    let deleted: Vec<_> = told_as(&lines, "deletion").iter().map(|line| text(&line["key"])).collect();
    assert_eq!(deleted, ["a0001", "b0002"]);

    for role in [Role::Reader, Role::Writer] {
        world.client(role).get(EXPORT).problem(403, "forbidden");
    }
    world.client_of("acme", Some("notes"), Role::Owner).get(EXPORT).problem(403, "forbidden");
    stranger.get(EXPORT).problem(404, "not-found");
    world.anybody().get(EXPORT).problem(401, "unauthenticated");
}
