//! What those who answer for a database ask: who is how far, what became of a wipe, and everything at once.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use thence::model::Role;

use crate::house::{PATIENCE, eventually};
use crate::world::{Client, NOTES, OTHER, World, empty_rows, list, number, text, token_of};

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
    let (last, rows) = lines.split_last().expect("lines");
    assert_eq!((&last["end"], &last["rows"]), (&json!(true), &json!(1400)));
    let mut found: BTreeMap<(String, String, String), &Json> = BTreeMap::new();
    for row in rows {
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

    for role in [Role::Reader, Role::Writer] {
        world.client(role).get(EXPORT).problem(403, "forbidden");
    }
    world.client_of("acme", Some("notes"), Role::Owner).get(EXPORT).problem(403, "forbidden");
    stranger.get(EXPORT).problem(404, "not-found");
    world.anybody().get(EXPORT).problem(401, "unauthenticated");
}
