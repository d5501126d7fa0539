//! What was deleted, told to those who keep a table of their own and ask for nothing else.

use serde_json::{Value as Json, json};
use thence::model::Role;

use crate::house::HttpAnswer;
use crate::world::{Client, NOTES, World, each, empty_rows, list, token_of};

#[track_caller]
fn tell(client: &Client, token: Option<&str>, keys: &[&str]) -> HttpAnswer {
    let headers: Vec<_> = token.map(|token| ("Sync-Token", token)).into_iter().collect();
    client.ask("POST", "/tables/todo/deletions", &headers, Some(&json!({"keys": keys}).to_string()))
}

/// What is told to somebody who deletes these: the deletions, and the token that stands for knowing them.
#[track_caller]
fn told(client: &Client, token: Option<&str>, keys: &[&str]) -> (Vec<Json>, String) {
    let answer = tell(client, token, keys).expect(200);
    let body = answer.json();
    assert_eq!(each(&body["results"], "status"), vec!["accepted"; keys.len()], "{body}");
    assert_eq!(body["more"], false);
    (list(&body["deleted"]), token_of(&answer))
}

#[test]
fn deletions_are_told_to_others_and_never_echoed() {
    let world = World::new();
    let (phone, tablet, nobody) = (world.client(Role::Writer), world.client(Role::Writer), [] as [Json; 0]);
    phone.write("todo", &empty_rows("k", 6));
    phone.put("other", "k0005", &json!({}));
    let (deleted, of_phone) = told(&phone, None, &["k0000"]);
    assert_eq!(deleted, nobody, "its own");
    assert_eq!(told(&tablet, None, &[]).0, ["k0000"], "all that is kept, for those who say nothing");
    let (deleted, of_tablet) = told(&tablet, None, &["k0001"]);
    assert_eq!(deleted, ["k0000"]);
    assert_eq!(told(&phone, Some(&of_phone), &[]).0, ["k0001"]);
    let (deleted, of_phone) = told(&phone, Some(&of_phone), &["k0002"]);
    assert_eq!(deleted, ["k0001"]);
    assert_eq!(told(&phone, Some(&of_phone), &[]).0, nobody, "nor are its own told later");

    // However a row was deleted, and only if it still is.
    tablet.delete("/tables/todo/rows/k0003").expect(200);
    tablet.delete("/tables/todo/rows/k0004").expect(200);
    tablet.put("todo", "k0004", &json!({"anew": true}));
    tablet.delete("/tables/other/rows/k0005").expect(200);
    assert_eq!(told(&phone, Some(&of_phone), &[]).0, ["k0003"]);
    assert_eq!(told(&tablet, Some(&of_tablet), &[]).0, ["k0002", "k0003"]);
    // What is not there cannot be deleted, and what is, is all the same.
    let answer = tell(&phone, Some(&of_phone), &["never", "k0005"]).expect(200).json();
    assert_eq!(each(&answer["results"], "status"), ["rejected", "accepted"]);
    // Who may only read may ask.
    assert_eq!(told(&world.client(Role::Reader), None, &[]).0.len(), 5);
}

#[test]
fn however_many_deletions_there_are_each_is_told_once() {
    let world = World::new();
    let owner = &world.owner;
    for prefix in ["a", "b"] {
        owner.write("todo", &empty_rows(prefix, 600));
    }
    let tag = owner.get("/tables/todo").expect(200);
    let tag = [("If-Match", tag.header("etag").expect("one"))];
    owner.ask("DELETE", "/tables/todo?all=true", &tag, None).expect(200);
    let (mut found, mut token): (Vec<Json>, Option<String>) = (Vec::new(), None);
    let mut pages = 0;
    loop {
        let answer = tell(owner, token.as_deref(), &[]).expect(200);
        let body = answer.json();
        found.extend(list(&body["deleted"]));
        (token, pages) = (Some(token_of(&answer)), pages + 1);
        if body["more"] == false {
            break;
        }
    }
    let keys = ["a", "b"].into_iter().flat_map(|prefix| empty_rows(prefix, 600)).map(|row| row["key"].clone());
    assert_eq!((found, pages), (keys.collect::<Vec<_>>(), 2));
}

#[test]
fn only_a_table_that_is_there_tells_deletions_and_a_wipe_is_told_all_the_same() {
    let world = World::new();
    let owner = &world.owner;
    for keys in [&[][..], &["a"]] {
        tell(owner, None, keys).problem(404, "not-found");
    }
    assert_eq!(owner.get(NOTES).expect(200).json()["tables"], json!({}), "asking makes none");
    owner.put("todo", "a", &json!({}));
    let (_, token) = told(owner, None, &[]);
    // After a wipe the table is gone. Whoever knew it is told why.
    owner.delete(NOTES).expect(202);
    assert_eq!(tell(owner, Some(&token), &[]).problem(410, "gone").json()["reason"], "revision");
    tell(owner, None, &[]).problem(404, "not-found");
    // Something set of it is enough.
    owner.send("PUT", "/tables/todo", &json!({"retention_days": 7})).expect(200);
    told(owner, None, &[]);
}

#[test]
fn a_token_of_deletions_is_of_a_kind_of_its_own() {
    let world = World::new();
    let owner = &world.owner;
    owner.write("todo", &empty_rows("k", 3));
    owner.write("other", &empty_rows("k", 3));
    let of_changes = token_of(&owner.changes("?tables=todo", None).expect(200));
    let (_, of_deletions) = told(owner, None, &[]);
    owner.changes("?tables=todo", Some(&of_deletions)).problem(400, "bad-token");
    let sync = json!({"changes": [{"table": "todo", "key": "k0000", "op": "delete"}], "tables": ["todo"]}).to_string();
    owner.ask("POST", "/sync", &[("Sync-Token", &of_deletions)], Some(&sync)).problem(400, "bad-token");
    for token in [of_changes.as_str(), "AAAA", "nonsense!", ""] {
        tell(owner, Some(token), &["k0000"]).problem(400, "bad-token");
    }
    owner.row("todo", "k0000");
}
