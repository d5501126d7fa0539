//! Sync tokens that are of no use: made for something else, altered, or overtaken by events.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};
use thence::model::Role;

use crate::house::HttpAnswer;
use crate::world::{NOTES, OTHER, World, at, each, empty_rows, header, text, token_of};

/// Asserts that a genuine token cannot be used any more. Returns the one to go on with.
#[track_caller]
fn gone(answer: HttpAnswer, reason: &str, action: &str) -> String {
    let body = answer.problem(410, "gone").comes_again().json();
    assert_eq!((&body["reason"], &body["action"]), (&json!(reason), &json!(action)), "{body}");
    text(&body["token"])
}

#[test]
fn a_token_that_was_overtaken_says_why_what_to_do_and_how_to_go_on() {
    let world = World::new();
    let owner = &world.owner;
    owner.write("todo", &empty_rows("k", 3));
    owner.put("other", "o", &json!({}));
    let all = |query: &str| token_of(&owner.changes(query, None).expect(200));
    // Whoever goes on with the fresh one begins anew.
    let begins = |query: &str, fresh: &str, keys: &[&str]| {
        let page = owner.changes(query, Some(fresh)).expect(200).json();
        assert_eq!(
            (&page["phase"], each(&page["changes"], "key")),
            (&json!("initial"), keys.iter().map(|key| json!(key)).collect())
        );
    };

    let token = all("?tables=todo");
    let fresh = gone(owner.changes("?tables=other", Some(&token)), "filter", "resync-keep-outbox");
    begins("?tables=other", &fresh, &["o"]);
    gone(owner.changes("", Some(&token)), "filter", "resync-keep-outbox");
    gone(owner.changes("?tables=todo", Some(&all(""))), "filter", "resync-keep-outbox");
    owner.changes("?tables=todo,todo", Some(&token)).expect(200);
    let both = all("?tables=todo,other");
    owner.changes("?tables=other,todo", Some(&both)).expect(200);

    for schema in [json!(2), json!("two"), json!(3)] {
        let (token, other) = (all("?tables=todo"), all("?tables=other"));
        owner.send("PUT", "/tables/todo", &json!({"schema": schema})).expect(200);
        let fresh = gone(owner.changes("?tables=todo", Some(&token)), "schema", "upgrade");
        begins("?tables=todo", &fresh, &["k0000", "k0001", "k0002"]);
        owner.changes("?tables=other", Some(&other)).expect(200);
        // Said once more it has not changed.
        owner.send("PUT", "/tables/todo", &json!({"schema": schema, "retention_days": 30})).expect(200);
        owner.changes("?tables=todo", Some(&fresh)).expect(200);
    }

    let token = all("");
    owner.delete(&at("todo", "k0000")).expect(200);
    owner.send("PUT", "/tables/todo", &json!({"schema": 3, "retention_days": 0})).expect(200);
    world.forget_deletions();
    let fresh = gone(owner.changes("", Some(&token)), "retention", "resync-keep-outbox");
    begins("", &fresh, &["o", "k0001", "k0002"]);

    let (token, deletions) = (all(""), token_of(&owner.send("POST", "/tables/todo/deletions", &json!({"keys": []}))));
    owner.delete(NOTES).expect(202);
    let fresh = gone(owner.changes("", Some(&token)), "revision", "wipe-local");
    begins("", &fresh, &[]);
    let unsent = json!({"changes": [{"table": "todo", "key": "unsent", "fields": {}}]}).to_string();
    gone(owner.ask("POST", "/sync", &[("Sync-Token", &token)], Some(&unsent)), "revision", "wipe-local");
    let keys = json!({"keys": ["k0001"]}).to_string();
    let told = owner.ask("POST", "/tables/todo/deletions", &[("Sync-Token", &deletions)], Some(&keys));
    let fresh = gone(told, "revision", "wipe-local");
    owner.ask("POST", "/tables/todo/deletions", &[("Sync-Token", &fresh)], Some(&keys)).expect(200);

    // Clients that all meet this at the same moment are not all told to come back at the same moment.
    let after: BTreeSet<String> =
        (0..40).map(|_| header(&owner.changes("", Some(&token)).expect(410), "retry-after")).collect();
    assert!(after.len() > 1, "{after:?}");
}

#[test]
fn a_token_that_was_altered_or_is_somebody_elses_is_none() {
    let world = World::new();
    let (owner, other) = (&world.owner, world.client(Role::Owner));
    let stranger = world.client_of("stranger", None, Role::Owner);
    owner.ask("PUT", OTHER, &[], None).expect(201);
    let theirs = "/v1/customers/stranger/databases/notes";
    stranger.ask("PUT", theirs, &[], None).expect(201);
    owner.write("todo", &empty_rows("k", 3));
    let token = token_of(&owner.changes("?limit=1", None).expect(200));
    let refused = |token: &str| {
        owner.changes("?limit=1", Some(token)).problem(400, "bad-token");
    };
    for at in 0..token.len() {
        refused(&token[..at]);
        let letter = if &token[at..=at] == "A" { "B" } else { "A" };
        refused(&format!("{}{letter}{}", &token[..at], &token[at + 1..]));
    }
    for made_up in [format!("{token}A"), format!("{token}="), format!("A{token}"), "A".repeat(5000), "?".to_owned()] {
        refused(&made_up);
    }
    owner.changes("", Some("\u{e9}")).expect(400);

    other.changes("", Some(&token)).problem(400, "bad-token");
    let with = [("Sync-Token", token.as_str())];
    owner.ask("GET", &format!("{OTHER}/changes"), &with, None).problem(400, "bad-token");
    stranger.ask("GET", &format!("{theirs}/changes"), &with, None).problem(400, "bad-token");
    owner.send("PUT", NOTES, &json!({"visibility": "public-read"})).expect(200);
    world.anybody().changes("", Some(&token)).problem(400, "bad-token");
    // Theirs alone it is, and as good as before.
    assert_eq!(each(&owner.changes("?limit=1", Some(&token)).expect(200).json()["changes"], "key"), ["k0001"]);
    let public = token_of(&world.anybody().changes("", None).expect(200));
    owner.changes("", Some(&public)).problem(400, "bad-token");
}

#[test]
fn who_asks_comes_first_then_for_what_and_then_the_token() {
    let world = World::new();
    let owner = &world.owner;
    owner.put("todo", "a", &json!({}));
    let stale = token_of(&owner.changes("", None).expect(200));
    let stale_deletions = token_of(&owner.send("POST", "/tables/todo/deletions", &json!({"keys": []})).expect(200));
    owner.delete(NOTES).expect(202);
    let stranger = world.client_of("stranger", None, Role::Owner);
    for (method, path, body, stale) in [
        ("GET", "/changes", None, &stale),
        ("POST", "/sync", Some("{\"changes\":[]}"), &stale),
        ("POST", "/tables/todo/deletions", Some("{\"keys\":[]}"), &stale_deletions),
    ] {
        let unknown = format!("/v1/customers/acme/databases/none{path}");
        for token in ["nonsense", stale] {
            let with = [("Sync-Token", token)];
            world.anybody().ask(method, path, &with, body).problem(401, "unauthenticated");
            stranger.ask(method, path, &with, body).problem(404, "not-found");
            owner.ask(method, &unknown, &with, body).problem(404, "not-found");
        }
        owner.ask(method, path, &[("Sync-Token", "nonsense")], body).problem(400, "bad-token");
        gone(owner.ask(method, path, &[("Sync-Token", stale)], body), "revision", "wipe-local");
    }
}

#[test]
fn a_relay_that_was_away_goes_on_where_its_clients_are() {
    let mut world = World::new();
    world.owner.write("todo", &empty_rows("k", 3));
    let token = token_of(&world.owner.changes("?limit=2", None).expect(200));
    world.restart();
    let page = world.owner.changes("?limit=2", Some(&token)).expect(200).json();
    assert_eq!((each(&page["changes"], "key"), &page["more"]), (vec![json!("k0002")], &Json::Bool(false)));
}
