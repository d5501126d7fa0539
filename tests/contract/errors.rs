//! What goes wrong is told as a problem, with the place of the fault, and leaves nothing behind.

use serde_json::{Value as Json, json};
use thence::model::Role;

use crate::world::{Client, NOTES, ORIGIN, World, header, list, text};

#[test]
fn a_problem_does_not_tell_all_of_a_body_again() {
    let world = World::new();
    let owner = &world.owner;
    let long = "\u{7f}".repeat(1 << 20);
    for (path, body) in [
        ("/sync", json!({"changes": long})),
        ("/sync", json!({"changes": [{"table": long, "key": "k", "fields": {}}]})),
        ("/tables/todo?atomic=true", json!({"rows": [{"key": "k", "op": "increment", "field": "n", "by": long}]})),
        (
            "/tables/todo?atomic=true",
            json!({"rows": [{"key": "k", "op": "increment", "field": format!("/~{long}"), "by": 1}]}),
        ),
    ] {
        let answer = owner.send("POST", path, &body);
        // What a row is called comes back once.
        assert!(answer.body.len() < (1 << 20) + 10_000, "{path}: {} bytes", answer.body.len());
    }
}

#[test]
fn every_error_is_a_problem_that_nobody_keeps() {
    let world = World::new();
    let owner = &world.owner;
    owner.put("todo", "a", &json!({}));
    let reader = world.client(Role::Reader);
    let (row, batch) = ("/tables/todo/rows/a", "/tables/todo");
    let many = json!({"rows": vec![json!({"key": "a", "fields": {}}); 1001]}).to_string();
    let anybody = world.anybody();
    type Case<'a> = (&'a Client, &'a str, &'a str, &'a [(&'a str, &'a str)], Option<&'a str>, u16, &'a str);
    let cases: &[Case<'_>] = &[
        (owner, "GET", "/changes?limit=x", &[], None, 400, "malformed"),
        (owner, "GET", "/changes?where=a=1", &[], None, 400, "malformed"),
        (owner, "GET", "/changes", &[("Sync-Token", "x")], None, 400, "bad-token"),
        (owner, "PUT", row, &[("If-Match", "x")], Some("{}"), 400, "malformed"),
        (owner, "POST", batch, &[], Some("{"), 400, "malformed"),
        (owner, "POST", "/tables/todo?atomic=perhaps", &[], Some("{\"rows\":[]}"), 400, "malformed"),
        (&anybody, "GET", row, &[], None, 401, "unauthenticated"),
        (&reader, "PUT", row, &[], Some("{}"), 403, "forbidden"),
        (&reader, "PUT", batch, &[], Some("{}"), 403, "forbidden"),
        (owner, "GET", "/tables/none", &[], None, 404, "not-found"),
        (owner, "GET", "/nothing", &[], None, 404, "not-found"),
        (owner, "GET", "/v1/customers/acme/databases/none", &[], None, 404, "not-found"),
        (owner, "POST", row, &[], Some("{}"), 405, "method"),
        (owner, "DELETE", "/tables/todo?all=true", &[], None, 412, "changed"),
        (owner, "POST", batch, &[], Some(&many), 413, "too-large"),
        (owner, "PUT", row, &[("Content-Type", "text/plain"), ("Content-Length", "0")], None, 415, "media-type"),
        (owner, "PUT", "/tables/no%2Ftable/rows/a", &[], Some("{}"), 422, "invalid"),
        (owner, "PUT", "/v1/customers/acme/databases/no%2Fname", &[], None, 422, "invalid"),
        (owner, "PUT", NOTES, &[], Some("{\"visibility\":\"perhaps\"}"), 422, "invalid"),
        (owner, "PUT", batch, &[], Some("{\"schema\":[]}"), 422, "invalid"),
        (owner, "PUT", batch, &[], Some("{\"expire_days\":0}"), 422, "invalid"),
        (owner, "POST", "/tables/none/deletions", &[], Some("{\"keys\":[\"a\"]}"), 404, "not-found"),
        (&reader, "POST", "/tables/none/deletions", &[], Some("{\"keys\":[]}"), 404, "not-found"),
    ];
    for (client, method, path, headers, body, status, code) in cases {
        let answer = client.ask(method, path, headers, *body).problem(*status, code);
        assert_eq!(answer.json()["type"], format!("urn:thence:problem:{code}"), "{method} {path}");
        if *status == 413 {
            answer.comes_again();
        }
    }
    assert_eq!(owner.get(NOTES).expect(200).json()["version"], 1, "and nothing of it did anything");
}

#[test]
fn a_fault_in_a_body_is_named_with_its_place() {
    let world = World::new();
    let owner = &world.owner;
    let (row, batch, sync) = (("PUT", "/tables/todo/rows/a"), ("POST", "/tables/todo"), ("POST", "/sync"));
    let (deletions, table, invites) =
        (("POST", "/tables/todo/deletions"), ("PUT", "/tables/todo"), ("POST", "/invites"));
    let patch = ("PATCH", row.1);
    let deep_maps = "{\"m\":".repeat(33) + "1" + &"}".repeat(33);
    let deep_arrays = format!("{{\"a\":{}{}}}", "[".repeat(35), "]".repeat(35));
    for ((method, path), body, status, place) in [
        (row, r#"{"a":NaN}"#, 400, "/a"),
        (row, r#"{"a":Infinity}"#, 400, "/a"),
        (row, r#"{"a":1e400}"#, 400, "/a"),
        (row, r#"{"a":{"b":[0,{"c~d/e":1,"c~d/e":2}]}}"#, 400, "/a/b/1/c~0d~1e"),
        (row, r#"{"a":"\ud800"}"#, 400, "/a"),
        (row, r#"{"a":1"#, 400, ""),
        (row, "", 400, ""),
        (row, "[]", 422, ""),
        (row, "null", 422, ""),
        (row, "7", 422, ""),
        (batch, r#"{"rows":[{"key":"a","fields":{"x":NaN}}]}"#, 400, "/rows/0/fields/x"),
        (batch, r#"{"rows":[{"key":"a","key":"b","fields":{}}]}"#, 400, "/rows/0/key"),
        (batch, r#"{"rows":{}}"#, 422, "/rows"),
        (batch, r#"{"rows":[],"more":1}"#, 422, "/more"),
        (batch, r#"{"row":[]}"#, 422, "/row"),
        (batch, "[]", 422, ""),
        (batch, "[[{\"key\":\"arr\",\"fields\":{}}]]", 422, ""),
        (sync, r#"{"changes":7}"#, 422, "/changes"),
        (sync, r#"{"changes":[],"limit":"7"}"#, 422, "/limit"),
        (sync, r#"{"changes":[],"limit":-7}"#, 422, "/limit"),
        (deletions, r#"{"keys":["a",7]}"#, 422, "/keys/1"),
        (batch, r#"{"rows":[{"key":"a","fields":{"x":1}}]"#, 400, ""),
        // What no field can hold.
        (row, r#"{"a/b":[0,{"$bytes":"no base64"}]}"#, 422, "/a~1b/1"),
        (row, r#"{"a":{"b":{"$bytes":"AA==","more":1}}}"#, 422, "/a/b"),
        (row, r#"{"$bytes":"AA=="}"#, 422, "/$bytes"),
        (row, &deep_maps, 422, &"/m".repeat(33)),
        (row, &deep_arrays, 422, &format!("/a{}", "/0".repeat(32))),
        (patch, r#"{"a":{"$bytes":7}}"#, 422, "/a"),
        (table, r#"{"schema":""}"#, 422, "/schema"),
        (table, r#"{"expire_days":0}"#, 422, "/expire_days"),
        (invites, r#"{"role":"king"}"#, 422, "/role"),
    ] {
        let code = if status == 400 { "malformed" } else { "invalid" };
        let told = owner.ask(method, path, &[], Some(body)).problem(status, code).json();
        assert_eq!(told["path"], place, "{body} {told}");
    }
    // Numbers that would come back different.
    for huge in [
        "18446744073709551617",
        "-9223372036854775809",
        "1e-400",
        "0.1000000000000000055",
        "123456789012345678901234567890",
    ] {
        for ((method, path), body, place) in [
            (row, format!("{{\"b\": [1, \"2\"],\n\"a\": [3, {huge}]}}"), "/a/1"),
            (batch, format!("{{\"rows\":[\n{{\"key\":\"a\",\"fields\":{{\"a\":{huge}}}}}]}}"), "/rows/0/fields/a"),
        ] {
            let told = owner.ask(method, path, &[], Some(&body)).problem(422, "invalid").json();
            assert_eq!((&told["line"], &told["path"]), (&json!(2), &json!(place)), "{body} {told}");
            assert!(text(&told["detail"]).contains(huge), "{told}");
        }
    }
    // What is no JSON says where that begins.
    let told = owner.ask("PUT", row.1, &[], Some("{\n\"a\":1,}")).problem(400, "malformed").json();
    assert_eq!((&told["line"], &told["column"]), (&json!(2), &json!(7)), "{told}");
    // Rows of which nobody could say afterwards what became of them: none of the batch is written.
    let good = json!({"key": "good", "fields": {}});
    for bad in [json!(7), json!([]), json!({}), json!({"key": 7, "fields": {}}), good.clone()] {
        for atomic in ["", "?atomic=true"] {
            let body = json!({"rows": [good, bad]});
            let told = owner.send("POST", &format!("/tables/todo{atomic}"), &body).problem(422, "invalid").json();
            assert_eq!(told["row"], 1, "{bad} {told}");
        }
    }
    // Those that have a name stand alone.
    let long_name = format!("/rows/1/fields/v/{}", "x".repeat(1025));
    let noted = json!({"key": "good", "op": "delete"});
    for (bad, path) in [
        (json!({"key": "a", "op": "nonsense"}), "/rows/1/op"),
        (json!({"key": "a", "fields": []}), "/rows/1/fields"),
        (json!({"key": "a", "fields": {}, "source_version": 1.5}), "/rows/1/source_version"),
        (json!({"key": "a", "fields": {}, "id": 7}), "/rows/1/id"),
        (json!({"key": "a", "op": "increment", "field": "n", "by": "1"}), "/rows/1/by"),
        (json!({"key": "a", "fields": {}, "unknown": 1}), "/rows/1/unknown"),
        (json!({"key": "a", "fields": {"v": {"w": [{"$bytes": 1}]}}}), "/rows/1/fields/v/w/0"),
        (json!({"key": "a", "op": "patch", "fields": {"v": {"x".repeat(1025): 1}}}), long_name.as_str()),
        (json!({"key": "a", "op": "add", "field": "s", "value": {"a": 1}}), "/rows/1/value"),
        (json!({"key": "a", "op": "add", "field": "s", "value": [0, {"$bytes": "*"}]}), "/rows/1/value/1"),
        (json!({"key": "a", "op": "remove", "field": "s", "value": {}}), "/rows/1/value"),
    ] {
        let body = json!({"rows": [noted, bad]});
        let told = owner.send("POST", "/tables/todo?atomic=true", &body).problem(422, "invalid").json();
        assert_eq!(told["rows"][0]["row"], 1, "{bad} {told}");
        let results = owner.send("POST", "/tables/todo", &body).expect(200).json()["results"].clone();
        assert_eq!((&results[1]["key"], &results[1]["status"]), (&json!("a"), &json!("rejected")), "{results}");
        assert_eq!(results[1]["problem"]["path"], path, "{results}");
    }
    assert_eq!(owner.get(NOTES).expect(200).json()["version"], 0, "and nothing of it did anything");
}

#[test]
fn what_is_wrong_is_said_in_words_of_json() {
    let world = World::new();
    let owner = &world.owner;
    let deep = "{\"m\":".repeat(33) + "1" + &"}".repeat(33);
    let number_or_name = "a name or a whole number from 0 to 4294967295";
    for (method, path, body, said) in [
        ("PUT", "/tables/todo", r#"{"schema":[]}"#, number_or_name),
        ("PUT", "/tables/todo", r#"{"schema":1.5}"#, number_or_name),
        ("PUT", "/tables/todo", r#"{"schema":-1}"#, number_or_name),
        ("PUT", "/tables/todo", r#"{"schema":4294967296}"#, number_or_name),
        ("PUT", "/tables/todo", r#"{"retention_days":"x"}"#, "a whole number from 0 to 4294967295, not the text"),
        ("PUT", NOTES, r#"{"visibility":7}"#, "expected a text"),
        ("PUT", NOTES, r#"{"visibility":"perhaps"}"#, "expected `private` or `public-read`"),
        ("POST", "/invites", r#"{"role":true}"#, "expected a text, not true"),
        ("POST", "/tables/todo", r#"{"rows":{}}"#, "expected an array, not an object"),
        ("POST", "/tables/todo", "{}", "missing member `rows`"),
        ("POST", "/tables/todo", r#"{"rows":[],"more":1}"#, "unknown member `more`, expected `rows`"),
        ("POST", "/tables/todo", r#"{"rows":[7]}"#, "expected an object, not the number 7"),
        ("POST", "/sync", r#"{"limit":-1}"#, "from 0 on, not the number -1"),
        ("PUT", "/tables/todo/rows/a", &deep, "nested more than 32 levels deep"),
        ("PUT", "/tables/todo/rows/a", r#"{"$bytes":""}"#, "no field is called $bytes"),
    ] {
        let told = owner.ask(method, path, &[], Some(body)).problem(422, "invalid").json();
        assert!(text(&told["detail"]).contains(said), "{body} {told}");
        for word in ["enum", "variant", "struct", "map,", "sequence", "u32", "u64", "integer `"] {
            assert!(!text(&told["detail"]).contains(word), "{word}: {told}");
        }
    }
    let told = owner.get("/changes?limit=-1").problem(400, "malformed").json();
    assert!(text(&told["detail"]).ends_with("limit: a whole number is expected, within what is documented"), "{told}");
}

#[test]
fn an_atomic_batch_names_the_rows_at_fault_and_writes_none() {
    let world = World::new();
    let owner = &world.owner;
    let seen = owner.put("todo", "a", &json!({}))["context"].clone();
    owner.delete(NOTES).expect(202);
    let version = owner.get(NOTES).expect(200).json()["version"].clone();
    let good = json!({"key": "good", "fields": {}});
    for (bad, status, code, why) in [
        (json!({"key": "a", "op": "patch", "fields": {}}), 422, "invalid", "not-found"),
        (json!({"key": "", "fields": {}}), 422, "invalid", "invalid"),
        (json!({"key": "a", "fields": {"v": {"$bytes": 1}}}), 422, "invalid", "invalid"),
        (json!({"key": "a", "fields": {}, "context": seen}), 409, "conflict", "changed"),
    ] {
        let body = json!({"rows": [good, bad]});
        let told = owner.send("POST", "/tables/todo?atomic=true", &body).problem(status, code).json();
        let row = &told["rows"][0];
        assert_eq!(
            (&row["row"], &row["key"], &row["problem"]["code"]),
            (&json!(1), &bad["key"], &json!(why)),
            "{told}"
        );
    }
    // All of them that can be told without writing, and also those that nothing could name otherwise.
    let large = "x".repeat(1 << 20);
    let rows = json!({"rows": [
        {"key": "a", "fields": {"v": {"$bytes": 1}}},
        good,
        {"key": "b", "op": "nonsense"},
        {"key": "large", "fields": {"v": large}},
        {"fields": {}},
        good,
        {"key": "c", "fields": {}, "context": "nonsense"},
    ]});
    let told = owner.send("POST", "/tables/todo?atomic=true", &rows).problem(422, "invalid").json();
    let named: Vec<Json> = (list(&told["rows"]).iter())
        .map(|row| json!([row["row"], row["key"], row["problem"]["code"], row["problem"]["path"]]))
        .collect();
    assert_eq!(
        named,
        [
            json!([0, "a", "invalid", "/rows/0/fields/v"]),
            json!([2, "b", "invalid", "/rows/2/op"]),
            json!([3, "large", "too-large", "/rows/3"]),
            json!([4, null, "invalid", "/rows/4"]),
            json!([5, "good", "invalid", "/rows/5"]),
            json!([6, "c", "invalid", "/rows/6/context"]),
        ]
    );
    assert_eq!((&told["path"], &told["row"]), (&json!("/rows/0/fields/v"), &json!(0)));
    assert_eq!(owner.get(NOTES).expect(200).json()["version"], version);
}

#[test]
fn pages_of_a_known_origin_see_what_they_need() {
    let world = World::new();
    let owner = &world.owner;
    owner.put("todo", "a", &json!({}));
    let token = header(&owner.changes("", None).expect(200), "sync-token");
    let from = ("Origin", ORIGIN);
    let filtered = owner.ask("GET", "/changes?tables=todo", &[from, ("Sync-Token", &token)], None).expect(410);
    for (answer, said) in [
        (owner.ask("GET", "/changes", &[from], None).expect(200), "sync-token"),
        (owner.ask("GET", "/tables/todo", &[from], None).expect(200), "etag"),
        (filtered, "retry-after"),
    ] {
        header(&answer, said);
        assert_eq!(header(&answer, "access-control-allow-origin"), ORIGIN);
        let exposed = header(&answer, "access-control-expose-headers").to_lowercase();
        for name in ["sync-token", "etag", "retry-after"] {
            assert!(exposed.split(", ").any(|found| found == name), "{name} is not in {exposed}");
        }
    }
    let other = owner.ask("GET", "/changes", &[("Origin", "https://other.example")], None).expect(200);
    assert_eq!(other.header("access-control-allow-origin"), None);
    let preflight = [from, ("Access-Control-Request-Method", "GET"), ("Access-Control-Request-Headers", "sync-token")];
    let told = world.anybody().ask("OPTIONS", "/changes", &preflight, None).expect(204);
    assert!(header(&told, "access-control-allow-headers").to_lowercase().contains("sync-token"));
}
