//! Ids, under which a write takes effect once however often it is sent.

use serde_json::{Value as Json, json};
use thence::model::Role;

use crate::world::{Client, NOTES, OTHER, World, at, number};

/// Sends one row, and returns what became of it, and at which version.
#[track_caller]
fn send(client: &Client, table: &str, row: &Json) -> (String, u64) {
    let result = client.upload(table, std::slice::from_ref(row)).remove(0);
    assert_eq!(result["id"], row["id"]);
    (result["status"].as_str().expect("a status").to_owned(), number(&result["version"]))
}

#[test]
fn an_id_takes_effect_once_whatever_comes_with_it() {
    let world = World::new();
    let (phone, tablet) = (world.client(Role::Writer), world.client(Role::Writer));
    let first = json!({"key": "a", "fields": {"n": 1}, "id": "once"});
    let (status, version) = send(&phone, "todo", &first);
    assert_eq!(status, "accepted");
    let known = ("duplicate".to_owned(), version);
    assert_eq!(send(&phone, "todo", &first), known);
    // The row goes on, and the version is still the one that the id first got.
    phone.put("todo", "a", &json!({"n": 2}));
    for client in [&phone, &tablet] {
        for (table, row) in [
            ("todo", first.clone()),
            ("todo", json!({"key": "a", "fields": {"n": 3}, "id": "once"})),
            ("todo", json!({"key": "a", "op": "delete", "id": "once"})),
            ("todo", json!({"key": "b", "fields": {}, "id": "once"})),
            ("todo", json!({"key": "never", "op": "increment", "field": "n", "by": 1, "id": "once"})),
            ("elsewhere", json!({"key": "a", "fields": {}, "id": "once"})),
            // Nor does it matter that no row can hold it.
            ("todo", json!({"key": "a", "fields": {"n": {"$bytes": "*"}}, "id": "once"})),
            ("todo", json!({"key": "a", "op": "add", "field": "s", "value": {}, "id": "once"})),
            ("todo", json!({"key": "a", "fields": {}, "context": "?", "id": "once"})),
            ("todo", json!({"key": "a", "op": "increment", "field": "n", "id": "once"})),
            ("todo", json!({"key": "a", "op": "nonsense", "by": "x", "id": "once"})),
            ("todo", json!({"key": "", "fields": {}, "id": "once"})),
        ] {
            assert_eq!(send(client, table, &row), known, "{row}");
        }
    }
    let sync = json!({"changes": [{"table": "todo", "key": "c", "fields": {}, "id": "once"}]});
    let result = tablet.send("POST", "/sync", &sync).expect(200).json()["results"][0].clone();
    assert_eq!((&result["status"], &result["version"]), (&json!("duplicate"), &json!(version)));
    let atomic = json!({"rows": [{"key": "d", "fields": {}}, {"key": "e", "fields": {}, "id": "once"}]});
    let results = tablet.send("POST", "/tables/todo?atomic=true", &atomic).expect(200).json()["results"].clone();
    assert_eq!((&results[0]["status"], &results[1]["status"]), (&json!("accepted"), &json!("duplicate")));

    assert_eq!(phone.fields("todo", "a"), json!({"n": 2}));
    for key in ["b", "c", "e", "never"] {
        phone.get(&at("todo", key)).problem(404, "not-found");
    }
    phone.get("/tables/elsewhere").problem(404, "not-found");
    // Of two in one batch the first takes effect.
    let twice = ["f", "g"].map(|key| json!({"key": key, "fields": {}, "id": "twice"}));
    let results = phone.upload("todo", &twice);
    assert_eq!((&results[0]["status"], &results[1]["status"]), (&json!("accepted"), &json!("duplicate")));
    assert_eq!(results[0]["version"], results[1]["version"]);
    phone.get(&at("todo", "g")).problem(404, "not-found");
    // What was refused has taken no effect, so its id is free.
    let refused = phone.upload("todo", &[json!({"key": "h", "op": "patch", "fields": {}, "id": "free"})]);
    assert_eq!(refused[0]["status"], "rejected");
    assert_eq!(send(&phone, "todo", &json!({"key": "h", "fields": {}, "id": "free"})).0, "accepted");
}

#[test]
fn an_id_is_known_after_a_restart_and_after_its_row_is_gone() {
    let mut world = World::new();
    let row = json!({"key": "a", "op": "increment", "field": "n", "by": 1, "id": "once"});
    world.owner.put("todo", "a", &json!({}));
    let (_, version) = send(&world.owner, "todo", &row);
    let known = ("duplicate".to_owned(), version);
    world.restart();
    assert_eq!(send(&world.owner, "todo", &row), known);
    assert_eq!(world.owner.fields("todo", "a"), json!({"n": 1}));
    world.owner.delete(&at("todo", "a")).expect(200);
    assert_eq!(send(&world.owner, "todo", &row), known);
    world.owner.put("todo", "a", &json!({"anew": true}));
    world.restart();
    assert_eq!(send(&world.owner, "todo", &row), known);
    assert_eq!(world.owner.fields("todo", "a"), json!({"anew": true}));
    // Nor does it help that nobody is told of the delete any more.
    world.owner.delete(&at("todo", "a")).expect(200);
    world.owner.send("PUT", "/tables/todo", &json!({"retention_days": 0})).expect(200);
    world.forget_deletions();
    assert_eq!(send(&world.owner, "todo", &row), known);
}

#[test]
fn an_id_is_one_databases_until_that_is_wiped() {
    let world = World::new();
    let owner = &world.owner;
    owner.ask("PUT", OTHER, &[], None).expect(201);
    let row = json!({"key": "a", "fields": {}, "id": "once"});
    assert_eq!(send(owner, "todo", &row).0, "accepted");
    let elsewhere = || {
        let answer = owner.send("POST", &format!("{OTHER}/tables/todo"), &json!({"rows": [row]})).expect(200).json();
        answer["results"][0]["status"].clone()
    };
    assert_eq!(elsewhere(), "accepted");
    owner.delete(NOTES).expect(202);
    let (status, version) = send(owner, "todo", &row);
    assert_eq!((status.as_str(), elsewhere()), ("accepted", json!("duplicate")));
    assert_eq!(send(owner, "todo", &row), ("duplicate".to_owned(), version));
}

#[test]
fn an_id_has_up_to_128_bytes() {
    let world = World::new();
    let owner = &world.owner;
    for (n, (id, fits)) in [
        ("i".repeat(128), true),
        ("é".repeat(64), true),
        ("i".repeat(129), false),
        ("é".repeat(65), false),
        (String::new(), false),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("k{n}");
        let results = owner
            .upload("todo", &[json!({"key": key, "fields": {}, "id": id}), json!({"key": "beside", "fields": {}})]);
        let expected = if fits { "accepted" } else { "rejected" };
        assert_eq!((&results[0]["status"], &results[1]["status"]), (&json!(expected), &json!("accepted")), "{id}");
        assert_eq!(results[0]["id"], json!(id));
        assert_eq!(owner.get(&at("todo", &key)).status, if fits { 200 } else { 404 });
    }
}
