//! Who did what to a customer of a relay, as its owner is told, and as whoever runs the relay sees it.

mod house;

use house::{Device, Http, HttpAnswer, RunningNode, request};
use serde_json::{Value as Json, json};

const BASE: &str = "/v1/customers/acme/databases/notes";

#[track_caller]
fn ask(node: &RunningNode, token: &str, method: &str, path: &str, body: Option<Json>) -> HttpAnswer {
    let bearer = format!("Bearer {token}");
    let mut headers = vec![("Authorization", bearer.as_str())];
    let body = body.map(|body| body.to_string());
    headers.extend(body.as_ref().map(|_| ("Content-Type", "application/json")));
    Http::connect(node.http()).send(request(method, path, &headers, body.as_deref())).answer()
}

#[track_caller]
fn token(device: &Device, words: &[&str]) -> (String, String) {
    let row = device.json(&[&["token", "create", "--role"], words].concat());
    (row["id"].as_str().expect("an id").to_owned(), row["token"].as_str().expect("a token").to_owned())
}

#[track_caller]
fn entries(node: &RunningNode, token: &str, query: &str) -> Vec<Json> {
    let page = ask(node, token, "GET", &format!("/v1/customers/acme/audit{query}"), None).expect(200).json();
    page["entries"].as_array().expect("a list").clone()
}

/// The members of an entry that are the same at every run.
fn lasting(entry: &Json) -> Json {
    let passing = ["id", "at_ms", "token", "ticket", "expires_ms", "epoch"];
    let members = entry.as_object().expect("an object").iter();
    members
        .filter(|(name, _)| !passing.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[test]
fn an_owner_is_told_who_deleted_granted_and_set_what() {
    let device = Device::blank("relay");
    let node = device.start_relay(&[]);
    let (owner_id, owner) = token(&device, &["owner", "--customer", "acme"]);
    let (writer_id, writer) = token(&device, &["writer", "--customer", "acme", "--database", "notes"]);
    let (other_id, other) = token(&device, &["owner", "--customer", "other"]);
    ask(&node, &owner, "PUT", BASE, Some(json!({"visibility": "public-read"}))).expect(201);
    let rows: Vec<Json> =
        (0..60).map(|n| json!({"key": format!("k{n:02}"), "fields": {"text": "sentinel7f3a"}})).collect();
    let table = format!("{BASE}/tables/todo");
    ask(&node, &writer, "POST", &table, Some(json!({"rows": rows}))).expect(200);

    // One by one, in a batch and with a sync: they are put together.
    ask(&node, &writer, "DELETE", &format!("{table}/rows/k00"), None).expect(200);
    ask(&node, &writer, "DELETE", &format!("{table}/rows/k00"), None).expect(404);
    ask(
        &node,
        &writer,
        "POST",
        &table,
        Some(json!({"rows": [{"key": "k01", "op": "delete"}, {"key": "new", "fields": {}}]})),
    )
    .expect(200);
    let synced = json!({"changes": [{"table": "todo", "key": "k02", "op": "delete", "id": "once"}]});
    ask(&node, &writer, "POST", &format!("{BASE}/sync"), Some(synced.clone())).expect(200);
    ask(&node, &writer, "POST", &format!("{BASE}/sync"), Some(synced)).expect(200);
    let told = entries(&node, &owner, "");
    let by_rows = json!({
        "action": "delete", "by": writer_id, "database": "notes", "table": "todo", "which": "rows", "count": 3,
        "keys": ["k00", "k01", "k02"],
    });
    assert_eq!(lasting(told.last().expect("some")), by_rows);

    // Many at once: one entry a call.
    let keys: Vec<String> = (3..33).map(|n| format!("k{n:02}")).chain(["never".to_owned()]).collect();
    ask(&node, &owner, "POST", &format!("{table}/delete"), Some(json!({"keys": keys}))).expect(200);
    for (query, which) in [("after=58", "range"), ("all=true", "all")] {
        let etag = ask(&node, &owner, "GET", &table, None).expect(200).header("etag").expect("one").to_owned();
        let bearer = format!("Bearer {owner}");
        let headers = [("Authorization", bearer.as_str()), ("If-Match", etag.as_str())];
        let mut http = Http::connect(node.http());
        http.ask("DELETE", &format!("{table}?{query}"), &headers).expect(200);
        assert_eq!(entries(&node, &owner, "").last().expect("it")["which"], which);
    }
    ask(&node, &owner, "PUT", &table, Some(json!({"retention_days": 30}))).expect(200);
    ask(&node, &owner, "POST", &format!("{BASE}/invites"), Some(json!({"role": "writer", "uses": 3}))).expect(201);
    device.ok(&["invite", "acme/notes", "--role", "reader"]);
    device.ok(&["policy", "set", "--customer", "acme", "rows", "9"]);
    device.ok(&["policy", "set", "batch_rows", "500"]);
    device.ok(&["policy", "set", "--customer", "acme", "rows", "default"]);
    device.ok(&["token", "revoke", &writer_id]);

    let told = entries(&node, &owner, "");
    let actions: Vec<&str> = told.iter().map(|entry| entry["action"].as_str().expect("text")).collect();
    // Whoever runs the relay has a token, too, that reaches this customer.
    let expected = [
        "grant",
        "grant",
        "grant",
        "visibility",
        "delete",
        "delete",
        "delete",
        "delete",
        "settings",
        "invite",
        "invite",
        "policy",
        "policy",
        "policy",
        "revoke",
    ];
    assert_eq!(actions, expected);
    assert_eq!(told[1]["token"], owner_id);
    let by_keys = lasting(&told[5]);
    assert_eq!((&by_keys["which"], &by_keys["count"], &by_keys["by"]), (&json!("keys"), &json!(30), &json!(owner_id)));
    assert_eq!(by_keys["keys"].as_array().map(Vec::len), Some(20), "some of them");
    assert_eq!(lasting(&told[9])["uses"], 3);
    let policy = |at: usize| (told[at]["scope"].clone(), told[at]["value"].clone(), told[at]["by"].clone());
    assert_eq!(policy(11), (json!("acme"), json!(9), json!("operator")));
    assert_eq!(policy(12), (json!("relay"), json!(500), json!("operator")), "what is about all is told to each");
    assert_eq!(policy(13), (json!("acme"), json!("default"), json!("operator")));
    assert_eq!(told[14]["token"], writer_id);
    let text = serde_json::to_string(&told).expect("JSON");
    for secret in ["sentinel7f3a", &other_id, owner.rsplit('_').next().expect("a secret")] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }

    // Page by page.
    let mut paged: Vec<Json> = Vec::new();
    loop {
        let after = paged.last().map(|entry| format!("&after={}", entry["id"].as_str().expect("an id")));
        let path = format!("/v1/customers/acme/audit?limit=4{}", after.unwrap_or_default());
        let page = ask(&node, &owner, "GET", &path, None).expect(200).json();
        paged.extend(page["entries"].as_array().expect("a list").iter().cloned());
        if page["more"] == false {
            break;
        }
        assert_eq!(paged.len() % 4, 0);
    }
    assert_eq!(paged, told);
    for query in ["?limit=0", "?after=XYZ", "?after=0123456789abcdef0123456789", "?befor=1"] {
        ask(&node, &owner, "GET", &format!("/v1/customers/acme/audit{query}"), None).problem(400, "malformed");
    }

    // For nobody else.
    ask(&node, &writer, "GET", "/v1/customers/acme/audit", None).problem(401, "unauthenticated");
    let (_, one) = token(&device, &["owner", "--customer", "acme", "--database", "notes"]);
    ask(&node, &one, "GET", "/v1/customers/acme/audit", None).problem(403, "forbidden");
    let foreign = ask(&node, &other, "GET", "/v1/customers/acme/audit", None).problem(404, "not-found").json();
    assert_eq!(ask(&node, &other, "GET", "/v1/customers/nobody/audit", None).problem(404, "not-found").json(), foreign);

    // On the machine, and after a restart.
    node.terminate();
    let shown = device.json(&["customer", "audit", "acme", "--limit", "1000"]);
    assert_eq!(shown.as_array().expect("a list")[..told.len()], told[..]);
    assert!(device.ok(&["customer", "audit", "acme"]).contains("delete"));
}

#[test]
fn what_was_deleted_just_before_it_stops_is_noted_and_so_is_a_restore() {
    let device = Device::blank("relay");
    let node = device.start_relay(&[]);
    let (_, owner) = token(&device, &["owner", "--customer", "acme"]);
    ask(&node, &owner, "PUT", BASE, None).expect(201);
    let row = format!("{BASE}/tables/todo/rows/a");
    ask(&node, &owner, "PUT", &row, Some(json!({}))).expect(200);
    let backup = device.beside("monday.backup");
    let backup = backup.to_str().expect("temporary paths are UTF-8");
    device.ok(&["backup", backup]);
    ask(&node, &owner, "DELETE", &row, None).expect(200);
    node.terminate();
    let last = |action: &str| {
        let told = device.json(&["customer", "audit", "acme"]);
        assert_eq!(told.as_array().and_then(|told| told.last()).expect("some")["action"], action, "{told}");
    };
    last("delete");
    device.ok(&["restore", backup]);
    last("grant");
    let node = device.start_relay(&[]);
    assert_eq!(entries(&node, &owner, "").last().expect("it")["action"], "restore");
    node.terminate();
    device.start_relay(&[]).terminate();
    last("restore");
}
