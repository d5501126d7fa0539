//! A disk that is full: nothing more is acknowledged, `status` says why, reading goes on, and when there is room again
//! the same process acknowledges again.

#![cfg(target_os = "linux")]

mod house;

use std::collections::BTreeMap;

use house::{DONE, Device, FAILED, PATIENCE, bytes_of, eventually};
use serde_json::{Value, json};

const SPACE: &str = "atlas";

#[test]
fn a_full_disk_loses_nothing_and_ends_by_itself() {
    let device = Device::new("A");
    device.ok(&["space", "create", SPACE]);
    device.ok(&["put", SPACE, "rows", "first", r#"{"n":-1}"#]);
    let room = bytes_of(&device.store()).len() as u64 + (256 << 10);
    let node = device.start_cramped_node(room);
    let mut watch = device.watch(SPACE, &["--from", "0"]);
    assert_eq!(watch.next(PATIENCE)["key"], "first");

    let mut acknowledged: BTreeMap<String, Value> = BTreeMap::new();
    let refused = loop {
        let n = acknowledged.len();
        let (key, fields) = (format!("row{n:04}"), json!({ "n": n, "text": "x".repeat(20_000) }));
        let outcome = device.run_json(&["put", SPACE, "rows", &key, &fields.to_string()]);
        if outcome.code != Some(DONE) {
            break outcome.expect(FAILED);
        }
        acknowledged.insert(key, fields);
        assert!(n < 10_000, "the limit is not one");
    };
    assert!(!acknowledged.is_empty());
    let error = refused.error();
    assert_eq!(error["code"], "storage");
    assert!(error["message"].as_str().expect("a text").to_lowercase().contains("too large"), "{error}");

    // While it lasts: said, not acknowledged, and readable.
    let there = |key: &str| {
        let mut found = None;
        eventually(PATIENCE, "reading goes on", || {
            let outcome = device.run_json(&["get", SPACE, "rows", key]);
            let read = outcome.code == Some(DONE);
            found = read.then(|| outcome.document()["fields"].clone());
            read
        });
        found.expect("it was read")
    };
    for (key, fields) in &acknowledged {
        assert_eq!(there(key), *fields);
    }
    let status = device.json(&["status"]);
    assert!(status["storage_failure"].as_str().is_some_and(|why| why.contains("too large")), "{status}");
    device.run(&["status", "--check"]).expect(FAILED);
    let small = device.run(&["put", SPACE, "rows", "small", "{}"]).expect(FAILED);
    assert!(small.stderr.contains("disk"), "{}", small.stderr);

    node.make_room();
    eventually(PATIENCE, "it acknowledges again", || {
        device.run(&["put", SPACE, "rows", "after", r#"{"n":-2}"#]).code == Some(DONE)
    });
    assert_eq!(device.json(&["status"])["storage_failure"], Value::Null);
    device.run(&["status", "--check"]).expect(DONE);
    let objects = device.objects(SPACE);
    for (key, fields) in &acknowledged {
        assert_eq!(objects.get(&("rows".to_owned(), key.clone())), Some(fields), "{key} was acknowledged");
    }
    assert!(!objects.contains_key(&("rows".to_owned(), "small".to_owned())), "refused means not written");
    // Who watched through all of it sees what came after.
    while watch.next(PATIENCE)["key"] != "after" {}
    node.terminate();
    assert_eq!(device.objects(SPACE), objects);
}
