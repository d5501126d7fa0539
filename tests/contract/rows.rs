//! Rows: what can be said of one, and what comes back.

use serde_json::{Value as Json, json};
use thence::model::Role;

use crate::world::{Client, NOTES, World, at, header, list, number, text};

#[test]
fn a_stale_tag_changes_nothing_and_the_current_one_does() {
    let world = World::new();
    let owner = &world.owner;
    let path = at("todo", "a");
    for (method, body) in [("PUT", Some("{\"n\":3}")), ("PATCH", Some("{\"n\":3}")), ("DELETE", None)] {
        owner.put("todo", "a", &json!({"n": 1}));
        let stale = header(&owner.get(&path).expect(200), "etag");
        // What a write answers is the tag of what it left.
        let current = header(&owner.send("PUT", &path, &json!({"n": 2})).expect(200), "etag");
        assert_eq!(header(&owner.get(&path).expect(200), "etag"), current);
        let before = owner.row("todo", "a");
        owner.ask(method, &path, &[("If-Match", &stale)], body).problem(412, "changed");
        assert_eq!(owner.row("todo", "a"), before, "{method}");
        owner.ask(method, &path, &[("If-Match", &current)], body).expect(200);
        owner.ask(method, &path, &[("If-Match", &current)], body).problem(412, "changed");
    }
    owner.get(&path).problem(404, "not-found");
    owner.delete(&path).problem(404, "not-found");
    owner.send("PATCH", &path, &json!({})).problem(404, "not-found");
    for nonsense in ["a", "\"a\", \"b\"", "\"a", "W/a", ""] {
        owner.ask("PUT", &path, &[("If-Match", nonsense)], Some("{}")).problem(400, "malformed");
    }
    let current = header(&owner.send("PUT", &path, &json!({"n": 1})).expect(200), "etag");
    let two = [("If-Match", current.as_str()), ("If-Match", "\"b\"")];
    owner.ask("PUT", &path, &two, Some("{}")).problem(400, "malformed");
    // A tag that is of nothing matches nothing, and nor does one that is weak (RFC 9110, 13.1.1).
    let weak = format!("W/{current}");
    for of_nothing in ["\"x\"", "\"\"", "\"AQA\"", "\"AQEAAAA\"", &weak] {
        for (method, body) in [("PUT", Some("{}")), ("PATCH", Some("{}")), ("DELETE", None)] {
            owner.ask(method, &path, &[("If-Match", of_nothing)], body).problem(412, "changed");
        }
        owner.ask("PUT", &at("todo", "none"), &[("If-Match", of_nothing)], Some("{}")).problem(412, "changed");
    }
    assert_eq!(owner.fields("todo", "a"), json!({"n": 1}));
    // What could not be written anyway is told first.
    owner.ask("PUT", &path, &[("If-Match", "\"x\"")], Some("{\"$bytes\":1}")).problem(422, "invalid");
}

#[test]
fn what_was_only_taken_away_is_a_change_for_caches_and_for_whoever_writes() {
    let world = World::new();
    let (owner, path) = (&world.owner, at("todo", "a"));
    owner.put("todo", "a", &json!({"x": 1, "y": 2}));
    for value in ["a", "b"] {
        owner.change("todo", json!({"key": "a", "op": "add", "field": "s", "value": value}));
    }
    for taken in [
        json!({"key": "a", "op": "unset", "names": ["x"]}),
        json!({"key": "a", "op": "remove", "field": "s", "value": "a"}),
        // Or only called otherwise by its client.
        json!({"key": "a", "op": "patch", "fields": {}, "source_version": 7}),
    ] {
        let stale = header(&owner.get(&path).expect(200), "etag");
        owner.ask("GET", &path, &[("If-None-Match", &stale)], None).expect(304);
        owner.change("todo", taken);
        owner.ask("GET", &path, &[("If-None-Match", &stale)], None).expect(200);
        owner.ask("PATCH", &path, &[("If-Match", &stale)], Some("{\"z\":1}")).problem(412, "changed");
        owner.ask("DELETE", &path, &[("If-Match", &stale)], None).problem(412, "changed");
    }
}

#[test]
fn a_write_may_ask_for_a_row_that_is_there_or_for_none() {
    let world = World::new();
    let (owner, path) = (&world.owner, at("todo", "a"));
    let create = [("If-None-Match", "*")];
    let replace = [("If-Match", "*")];
    owner.ask("PUT", &path, &replace, Some("{\"n\":0}")).problem(412, "changed");
    owner.get(&path).problem(404, "not-found");
    for n in [1, 2] {
        owner.ask("PUT", &path, &create, Some(&json!({"n": n}).to_string())).expect(200);
        owner.ask("PUT", &path, &create, Some("{\"n\":9}")).problem(412, "changed");
        assert_eq!(owner.fields("todo", "a"), json!({"n": n}));
        owner.ask("PATCH", &path, &replace, Some("{\"m\":1}")).expect(200);
        owner.ask("DELETE", &path, &replace, None).expect(200);
    }
    // Edits that lost to a delete are kept, and are no row.
    let seen = owner.put("todo", "b", &json!({"n": 1}));
    owner.delete(&at("todo", "b")).expect(200);
    let late = json!({"key": "b", "op": "patch", "fields": {"n": 2}, "context": seen["context"]});
    assert_eq!(owner.change("todo", late)["visible"], false);
    owner.ask("PUT", &at("todo", "b"), &create, Some("{\"n\":3}")).expect(200);
    // What is not understood is not ignored.
    owner.ask("PUT", &path, &[("If-None-Match", "\"AQA\"")], Some("{}")).problem(400, "malformed");
    let tables = format!("{NOTES}/tables/todo");
    owner.ask("POST", &tables, &replace, Some("{\"rows\":[]}")).problem(400, "malformed");
    owner.ask("POST", &format!("{NOTES}/sync"), &create, Some("{\"changes\":[]}")).problem(400, "malformed");
}

#[test]
fn a_result_says_whether_the_row_is_there() {
    let world = World::new();
    let owner = &world.owner;
    let seen = owner.put("todo", "a", &json!({"n": 1}));
    let newer = owner.change("todo", json!({"key": "a", "fields": {"n": 2}}));
    assert_eq!(newer["visible"], true);
    let delete = json!({"key": "a", "op": "delete", "context": seen["context"]});
    assert_eq!(owner.change("todo", delete)["visible"], true, "it leaves what it had not seen");
    assert_eq!(owner.change("todo", json!({"key": "a", "op": "delete"}))["visible"], false);
    let late = json!({"key": "a", "op": "patch", "fields": {"n": 3}, "context": newer["context"]});
    assert_eq!(owner.change("todo", late)["visible"], false, "it is kept beside the delete, and not shown");
}

#[test]
fn a_row_tells_who_wrote_it_when_and_as_which_version_of_theirs() {
    let world = World::new();
    let (phone, tablet) = (world.client(Role::Writer), world.client(Role::Writer));
    let mut last_version = 0;
    for (client, source) in [(&phone, 77), (&tablet, 5), (&phone, i64::MAX), (&tablet, i64::MIN), (&phone, 0)] {
        let sent = json!({"key": "a", "fields": {"by": client.id}, "source_version": source});
        let result = client.change("todo", sent);
        let row = tablet.row("todo", "a");
        let version = number(&row["version"]);
        assert!(version > last_version && version < 1 << 53, "whatever the client's own version is");
        last_version = version;
        assert_eq!(
            (&row["key"], &row["fields"], &row["version"]),
            (&json!("a"), &json!({"by": client.id}), &result["version"])
        );
        assert_eq!((&row["modified_by"], &row["source_version"]), (&json!(client.id), &json!(source)));
        assert_eq!(row["context"], result["context"], "who has seen all has seen what whoever wrote it has");
        assert!(number(&row["modified_ms"]) > 0);
        assert_eq!(row["epoch"], phone.get(NOTES).expect(200).json()["epoch"]);
        let page = phone.changes("", None).expect(200).json();
        let change = &page["changes"][0];
        for member in ["key", "version", "source_version", "modified_ms", "modified_by", "context", "fields"] {
            assert_eq!(change[member], row[member], "{member}");
        }
        assert_eq!((&change["table"], &change["op"]), (&json!("todo"), &json!("put")));
    }
    phone.put("todo", "b", &json!({}));
    assert_eq!(phone.row("todo", "b").get("source_version"), None);
}

#[test]
fn each_operation_does_what_its_name_says() {
    let world = World::new();
    let owner = &world.owner;
    let does = |mut row: Json| {
        row["key"] = "a".into();
        owner.change("todo", row);
        owner.fields("todo", "a")
    };
    assert_eq!(does(json!({"fields": {"x": 1, "y": 2}})), json!({"x": 1, "y": 2}), "a put, if nothing else is said");
    assert_eq!(does(json!({"op": "put", "fields": {"x": 3}})), json!({"x": 3}), "it replaces the row");
    assert_eq!(does(json!({"op": "patch", "fields": {"z": {"p": 1, "q": 2}}})), json!({"x": 3, "z": {"p": 1, "q": 2}}));
    assert_eq!(does(json!({"op": "patch", "fields": {"z": {"p": 4}}})), json!({"x": 3, "z": {"p": 4, "q": 2}}));

    // No value is not the value `null`.
    assert_eq!(does(json!({"op": "patch", "fields": {"x": null}})), json!({"x": null, "z": {"p": 4, "q": 2}}));
    assert_eq!(does(json!({"op": "unset", "names": ["/z/p", "never"]})), json!({"x": null, "z": {"q": 2}}));
    assert_eq!(does(json!({"op": "unset", "names": ["z", "x"]})), json!({}));

    assert_eq!(does(json!({"op": "increment", "field": "n", "by": 5})), json!({"n": 5}), "it begins at 0");
    assert_eq!(does(json!({"op": "increment", "field": "n", "by": -7})), json!({"n": -2}));
    for value in [json!("b"), json!(10), json!("a"), json!(9), json!("b"), json!(null)] {
        does(json!({"op": "add", "field": "s", "value": value}));
    }
    assert_eq!(owner.fields("todo", "a"), json!({"n": -2, "s": [null, 9, 10, "a", "b"]}), "sorted, each once");
    assert_eq!(does(json!({"op": "remove", "field": "s", "value": 9}))["s"], json!([null, 10, "a", "b"]));
    assert_eq!(does(json!({"op": "remove", "field": "s", "value": "never"}))["s"], json!([null, 10, "a", "b"]));
    owner.change("todo", json!({"key": "a", "op": "delete"}));
    owner.get(&at("todo", "a")).problem(404, "not-found");

    // What an operation needs and is not there is told for that row alone.
    owner.put("todo", "a", &json!({"plain": 1}));
    owner.change("todo", json!({"key": "a", "op": "add", "field": "s", "value": 1}));
    let before = owner.row("todo", "a");
    for (mut row, code) in [
        (json!({"op": "put"}), "invalid"),
        (json!({"op": "patch"}), "invalid"),
        (json!({"op": "unset"}), "invalid"),
        (json!({"op": "increment", "field": "n"}), "invalid"),
        (json!({"op": "increment", "by": 1}), "invalid"),
        (json!({"op": "add", "field": "s"}), "invalid"),
        (json!({"op": "add", "field": "s", "value": {"a": 1}}), "invalid"),
        (json!({"op": "increment", "field": "s", "by": 1}), "invalid"),
        (json!({"op": "increment", "field": "plain", "by": 1}), "invalid"),
        (json!({"op": "add", "field": "plain", "value": 1}), "invalid"),
        (json!({"op": "patch", "fields": {"a": 1}, "context": "nonsense"}), "invalid"),
        (json!({"key": "never", "op": "patch", "fields": {}}), "not-found"),
        (json!({"key": "never", "op": "increment", "field": "n", "by": 1}), "not-found"),
        (json!({"key": "never", "op": "delete"}), "not-found"),
    ] {
        if row.get("key").is_none() {
            row["key"] = "a".into();
        }
        let results = owner.upload("todo", &[row.clone(), json!({"key": "beside", "fields": {}})]);
        assert_eq!(
            (&results[0]["status"], &results[0]["problem"]["code"]),
            (&json!("rejected"), &json!(code)),
            "{row}"
        );
        assert_eq!(results[1]["status"], "accepted");
    }
    assert_eq!(owner.row("todo", "a"), before);
}

#[test]
fn an_edit_that_lost_to_a_delete_is_listed_until_somebody_decides() {
    let world = World::new();
    let owner = &world.owner;
    let lost = |query: &str| owner.get(&format!("/lost{query}")).expect(200).json();
    assert_eq!((lost("")["lost"].clone(), &lost("")["next"]), (json!([]), &Json::Null));
    // The keys take some care in a query.
    let keys = ["a/b", "a&b", "c", "d"];
    for key in keys {
        owner.put("todo", key, &json!({"title": "seen"}));
        let seen = owner.row("todo", key)["context"].clone();
        owner.delete(&at("todo", key)).expect(200);
        let late = json!({"key": key, "op": "patch", "fields": {"title": key}, "context": seen});
        assert_eq!(owner.change("todo", late)["visible"], false);
    }
    let (mut found, mut query) = (Vec::new(), "?limit=1".to_owned());
    loop {
        let page = lost(&query);
        assert!(list(&page["lost"]).len() <= 1);
        found.extend(list(&page["lost"]));
        let Some(next) = page["next"].as_str() else { break };
        let next = next.replace('%', "%25").replace('&', "%26").replace('/', "%2F");
        query = format!("?limit=1&after={next}");
    }
    let told: Vec<_> = found.iter().map(|row| (text(&row["key"]), text(&row["fields"]["title"]))).collect();
    let mut expected = keys.map(|key| (key.to_owned(), key.to_owned()));
    expected.sort();
    assert_eq!(told, expected);
    for nonsense in ["?after=", "?after=todo", "?after=todo/", "?after=+%2Fa", "?limit=0", "?limit=-1", "?x=1"] {
        owner.get(&format!("/lost{nonsense}")).problem(400, "malformed");
    }
    assert_eq!(lost("?after=never%2Fa")["lost"], json!([]), "nothing comes after a table that nobody wrote to");

    // Decided with what was shown, and for all.
    let decide = |op: &str, key: &str| {
        let context = found.iter().find(|row| row["key"] == key).expect("lost")["context"].clone();
        owner.upload("todo", &[json!({"key": key, "op": op, "context": context})]).remove(0)
    };
    assert_eq!(decide("restore", "c")["visible"], true);
    assert_eq!(owner.fields("todo", "c"), json!({"title": "c"}));
    assert_eq!(decide("discard", "d")["visible"], false);
    owner.get(&at("todo", "d")).problem(404, "not-found");
    let left: Vec<_> = list(&lost("")["lost"]).iter().map(|row| text(&row["key"])).collect();
    assert_eq!(left, ["a&b", "a/b"]);
    for (op, key) in [("restore", "c"), ("discard", "d"), ("restore", "d")] {
        let result = owner.upload("todo", &[json!({"key": key, "op": op})]).remove(0);
        assert_eq!((&result["status"], &result["problem"]["status"]), (&json!("rejected"), &json!(404)), "{op} {key}");
    }
    assert_eq!(owner.fields("todo", "c"), json!({"title": "c"}));
}

#[test]
fn a_counter_stays_within_64_bits() {
    let world = World::new();
    let owner = &world.owner;
    owner.put("todo", "a", &json!({}));
    let by =
        |by: i64| owner.upload("todo", &[json!({"key": "a", "op": "increment", "field": "n", "by": by})]).remove(0);
    assert_eq!(by(i64::MAX)["status"], "accepted");
    assert_eq!(by(1)["problem"]["code"], "invalid");
    assert_eq!(owner.fields("todo", "a"), json!({"n": i64::MAX}));
    assert_eq!(by(-1)["status"], "accepted");
}

#[test]
fn values_come_back_as_they_were() {
    let world = World::new();
    let owner = &world.owner;
    let fields = json!({
        "bytes": {"$bytes": "AAEC/w=="}, "none": {"$bytes": ""}, "in a list": [{"$bytes": "AAEC"}, [], {}, null],
        "text": "東京 \u{0} \u{1F680} \"", "": "a name may be empty", "a/b": 1, "~": {"": {}},
        "integers": [i64::MIN, i64::MAX], "floats": [0.1, -0.0, 1e300, 5e-324], "truth": [true, false],
    });
    owner.put("todo", "a", &fields);
    let row = owner.get(&at("todo", "a")).expect(200);
    assert_eq!(row.json()["fields"].to_string(), fields.to_string());
    let page = owner.changes("", None).expect(200).json();
    assert_eq!(page["changes"][0]["fields"], fields);
    owner.change("todo", json!({"key": "a", "op": "add", "field": "set", "value": {"$bytes": "AA=="}}));
    assert_eq!(owner.fields("todo", "a")["set"], json!([{"$bytes": "AA=="}]));
    // What looks like bytes and is none is refused, wherever it stands.
    for no_bytes in
        [json!({"$bytes": "*"}), json!({"$bytes": 1}), json!({"$bytes": "AA"}), json!({"$bytes": "AA==", "x": 1})]
    {
        for value in [no_bytes.clone(), json!([no_bytes]), json!({"deeper": no_bytes})] {
            owner.send("PATCH", &at("todo", "a"), &json!({"b": value})).problem(422, "invalid");
        }
    }
    owner.send("PUT", &at("todo", "a"), &json!({"$bytes": "AA=="})).problem(422, "invalid");
}

#[test]
fn a_counter_or_a_set_that_is_repeated_as_shown_is_left_alone() {
    let world = World::new();
    let (owner, other) = (&world.owner, world.client(Role::Writer));
    owner.put("todo", "a", &json!({"title": "one"}));
    for value in ["x", "y"] {
        owner.change("todo", json!({"key": "a", "op": "add", "field": "tags", "value": value}));
    }
    let increment = |client: &Client, by: i64| {
        client.change("todo", json!({"key": "a", "op": "increment", "field": "n", "by": by}))
    };
    increment(owner, 3);
    for changed in [
        json!({"n": 4}),
        json!({"n": "3"}),
        json!({"n": null}),
        json!({"tags": ["x"]}),
        json!({"tags": []}),
        json!({"tags": "x"}),
    ] {
        for method in ["PUT", "PATCH"] {
            let told = owner.send(method, &at("todo", "a"), &changed).problem(422, "invalid").json();
            let name = changed.as_object().and_then(|fields| fields.keys().next()).expect("one");
            assert!(text(&told["detail"]).contains(name.as_str()), "{told}");
        }
    }
    let seen = owner.row("todo", "a");
    assert_eq!(seen["fields"], json!({"title": "one", "n": 3, "tags": ["x", "y"]}));

    // What others add meanwhile to what is only repeated is not lost.
    increment(&other, 2);
    other.change("todo", json!({"key": "a", "op": "add", "field": "tags", "value": "z"}));
    let fields = json!({"title": "two", "n": 3, "tags": ["y", "x"]});
    owner.change("todo", json!({"key": "a", "fields": fields, "context": seen["context"]}));
    assert_eq!(owner.fields("todo", "a"), json!({"title": "two", "n": 5, "tags": ["x", "y", "z"]}));
    owner.send("PATCH", &at("todo", "a"), &json!({"n": 5, "title": "three"})).expect(200);
    increment(owner, 1);
    owner.change("todo", json!({"key": "a", "op": "remove", "field": "tags", "value": "x"}));
    assert_eq!(
        owner.fields("todo", "a"),
        json!({"title": "three", "n": 6, "tags": ["y", "z"]}),
        "they still are what they were"
    );
    // A put that does not name them takes them away, as it does with every field.
    owner.put("todo", "a", &json!({"title": "four"}));
    assert_eq!(owner.fields("todo", "a"), json!({"title": "four"}));
}

#[test]
fn what_a_counter_or_a_set_showed_is_told_from_what_it_never_did() {
    let world = World::new();
    let (owner, other) = (&world.owner, world.client(Role::Writer));
    let write = |client: &Client, field: &str, op: &str, what: Json| {
        let mut change = json!({"key": "a", "op": op, "field": field});
        change[if op == "increment" { "by" } else { "value" }] = what;
        client.change("todo", change);
    };
    owner.put("todo", "a", &json!({"title": "one", "in": {}}));
    // Both count, so part of what is seen changes, and part does not.
    for client in [owner, &other] {
        write(client, "n", "increment", json!(2));
        write(client, "/in/n", "increment", json!(1));
    }
    for value in ["x", "y"] {
        write(owner, "tags", "add", json!(value));
    }
    let seen = owner.row("todo", "a");
    let shown = json!({"title": "one", "in": {"n": 2}, "n": 4, "tags": ["x", "y"]});
    assert_eq!(seen["fields"], shown);
    write(&other, "n", "increment", json!(3));
    write(&other, "/in/n", "increment", json!(3));
    write(&other, "tags", "remove", json!("x"));
    write(&other, "tags", "add", json!("z"));

    let with = |name: &str, value: Json| {
        let mut fields = shown.clone();
        fields[name] = value;
        fields
    };
    let send = |op: &str, fields: &Json| {
        let change = json!({"key": "a", "op": op, "fields": fields, "context": seen["context"]});
        owner.upload("todo", &[change]).remove(0)
    };
    let now = owner.row("todo", "a");
    for fields in [
        with("n", json!(5)),
        with("n", json!(2)),
        with("n", json!("4")),
        with("n", json!({"deeper": 1})),
        with("n", json!({})),
        with("in", json!({"n": 3})),
        with("tags", json!(["y"])),
        with("tags", json!(["x", "y", "w"])),
    ] {
        for op in ["put", "patch"] {
            let result = send(op, &fields);
            assert_eq!(
                (&result["status"], &result["problem"]["status"]),
                (&json!("rejected"), &json!(422)),
                "{fields}"
            );
        }
    }
    assert_eq!(owner.row("todo", "a"), now, "nothing was changed");
    // What was shown then, or is now, is left alone.
    for fields in [&shown, &with("tags", json!(["y", "x"])), &with("tags", json!(["z", "y"])), &with("n", json!(7))] {
        for op in ["patch", "put"] {
            let result = send(op, fields);
            assert_eq!(result["status"], "accepted", "{result}");
            let expected = json!({"title": "one", "in": {"n": 5}, "n": 7, "tags": ["y", "z"]});
            assert_eq!(owner.fields("todo", "a"), expected);
        }
    }
    // Kept beside a delete, they are what they were.
    other.delete(&at("todo", "a")).expect(200);
    assert_eq!(send("put", &shown)["status"], "accepted");
    write(owner, "n", "increment", json!(1));
    write(owner, "tags", "add", json!("w"));
    let expected = json!({"title": "one", "in": {"n": 2}, "n": 5, "tags": ["w", "x", "y"]});
    assert_eq!(owner.fields("todo", "a"), expected);
}

#[test]
fn a_key_is_whatever_text_of_up_to_512_bytes() {
    let world = World::new();
    let owner = &world.owner;
    let (longest, umlauts) = ("k".repeat(512), "é".repeat(256));
    let keys = [
        "a b",
        "a/b",
        "/",
        "a%2Fb",
        "%",
        "..",
        ".",
        "?a=b#c",
        "+",
        "東京",
        "\u{1F680}",
        "\0",
        "\n",
        "\"",
        &longest,
        &umlauts,
    ];
    for (n, key) in keys.iter().enumerate() {
        assert_eq!(owner.put("todo", key, &json!({"n": n}))["key"], **key);
    }
    for (n, key) in keys.iter().enumerate() {
        let row = owner.row("todo", key);
        assert_eq!((&row["key"], &row["fields"]["n"]), (&json!(key), &json!(n)));
    }
    let page = owner.changes("", None).expect(200).json();
    let mut sorted: Vec<&str> = keys.to_vec();
    sorted.sort_unstable();
    let told: Vec<String> = list(&page["changes"]).iter().map(|row| text(&row["key"])).collect();
    assert_eq!(told, sorted, "in the order of their bytes");
    for (n, key) in keys.iter().enumerate() {
        owner.send("PATCH", &at("todo", key), &json!({"n": n + 1})).expect(200);
        owner.delete(&at("todo", key)).expect(200);
    }

    for key in ["k".repeat(513), "é".repeat(257)] {
        owner.get(&at("todo", &key)).problem(422, "invalid");
        owner.send("PUT", &at("todo", &key), &json!({})).problem(422, "invalid");
        owner.delete(&at("todo", &key)).problem(422, "invalid");
        let results = owner.upload("todo", &[json!({"key": key, "fields": {}}), json!({"key": "", "fields": {}})]);
        for result in results {
            assert_eq!((&result["status"], &result["problem"]["code"]), (&json!("rejected"), &json!("invalid")));
        }
    }
    owner.get("/tables/todo/rows/%ff").problem(400, "malformed");
    assert_eq!(owner.get("/tables/todo").expect(200).json()["count"], 0);
}

#[test]
fn values_nest_32_levels_deep() {
    let world = World::new();
    let owner = &world.owner;
    let lists = |levels: usize| (0..levels).fold(json!(1), |value, _| json!([value]));
    let maps = |levels: usize| (1..levels).fold(json!({}), |value, _| json!({"m": value}));
    for nested in [lists as fn(usize) -> Json, maps] {
        let (fits, deep) = (json!({"v": nested(32)}), json!({"v": nested(33)}));
        owner.put("todo", "a", &fits);
        assert_eq!(owner.fields("todo", "a"), fits);
        owner.send("PUT", &at("todo", "a"), &deep).problem(422, "invalid");
        owner.send("PATCH", &at("todo", "a"), &deep).problem(422, "invalid");
        let results = owner.upload("todo", &[json!({"key": "b", "fields": deep}), json!({"key": "c", "fields": fits})]);
        assert_eq!((&results[0]["status"], &results[1]["status"]), (&json!("rejected"), &json!("accepted")));
        // So deep that nobody looks what it is about.
        owner.send("PUT", &at("todo", "a"), &json!({"v": nested(100)})).problem(400, "malformed");
    }
    owner.get(&at("todo", "b")).problem(404, "not-found");
}

/// The title of the row, and which others there are beside it.
#[track_caller]
fn titles(client: &Client) -> (Json, Vec<String>) {
    let row = client.row("todo", "a");
    let Some(conflicts) = row.get("conflicts") else { return (row["fields"]["title"].clone(), Vec::new()) };
    let mut values = list(&conflicts["title"]);
    assert_eq!(row["fields"]["title"], values[0], "what is shown is the first of them");
    let shown = values[0].clone();
    values.sort_by_key(Json::to_string);
    (shown, values.iter().map(text).collect())
}

#[test]
fn a_context_replaces_what_it_saw_and_nothing_else() {
    let world = World::new();
    let (phone, tablet) = (world.client(Role::Writer), world.client(Role::Writer));
    let seen = phone.put("todo", "a", &json!({"title": "one"}))["context"].clone();
    let write = |client: &Client, title: &str, context: &Json| {
        client.change("todo", json!({"key": "a", "fields": {"title": title}, "context": context}))["context"].clone()
    };
    let of_phone = write(&phone, "phone", &seen);
    let of_tablet = write(&tablet, "tablet", &seen);
    assert_eq!(titles(&phone).1, ["phone", "tablet"], "neither had seen the other's");
    let page = phone.changes("", None).expect(200).json();
    assert_eq!(page["changes"][0]["conflicts"], phone.row("todo", "a")["conflicts"]);
    assert_eq!(phone.get(NOTES).expect(200).json()["conflicts"], 1);

    // Who has seen only their own replaces only that.
    let of_phone = write(&phone, "phone again", &of_phone);
    assert_eq!(titles(&phone).1, ["phone again", "tablet"]);
    write(&tablet, "tablet again", &of_tablet);
    assert_eq!(titles(&phone).1, ["phone again", "tablet again"]);
    let all = phone.row("todo", "a")["context"].clone();
    write(&phone, "both", &all);
    assert_eq!(titles(&phone), (json!("both"), Vec::new()), "who has seen all replaces all");
    assert_eq!(phone.get(NOTES).expect(200).json()["conflicts"], 0);

    // A write that says nothing counts as having seen what there is.
    write(&tablet, "late", &of_phone);
    assert_eq!(titles(&phone).1, ["both", "late"]);
    phone.send("PATCH", &at("todo", "a"), &json!({"title": "without"})).expect(200);
    assert_eq!(titles(&phone), (json!("without"), Vec::new()));

    // A delete takes away what was seen, and what was put meanwhile stays.
    let seen = phone.row("todo", "a")["context"].clone();
    tablet.put("todo", "a", &json!({"title": "unseen"}));
    phone.change("todo", json!({"key": "a", "op": "delete", "context": seen}));
    assert_eq!(titles(&phone), (json!("unseen"), Vec::new()));
    let seen = phone.row("todo", "a")["context"].clone();
    phone.change("todo", json!({"key": "a", "op": "delete", "context": seen}));
    phone.get(&at("todo", "a")).problem(404, "not-found");
    // What is put beside a delete is there.
    write(&tablet, "beside", &seen);
    assert_eq!(titles(&phone), (json!("beside"), Vec::new()));
}
