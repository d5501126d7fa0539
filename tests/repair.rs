//! A damaged store: what is damaged is refused and named, everything else is served, and a repair brings it all back.

mod house;

use std::fs;
use std::path::Path;

use house::{DONE, Device, FAILED, bytes_of, rows, same, settle};
use serde_json::Value;

const SPACE: &str = "atlas";
/// Bytes of a block in the file.
const BLOCK: usize = 4104;

/// Flips a bit in every block of the store that holds `text` and is not needed to open it; how many there are.
fn damage(device: &Device, text: &str) -> usize {
    let mut bytes = bytes_of(&device.store());
    let holds = |block: &[u8]| block.windows(text.len()).any(|window| window == text.as_bytes());
    let blocks: Vec<usize> = (0..bytes.len() / BLOCK).filter(|n| holds(&bytes[n * BLOCK..(n + 1) * BLOCK])).collect();
    let mut damaged = 0;
    for block in blocks {
        let sound = bytes.clone();
        bytes[block * BLOCK + 100] ^= 16;
        fs::write(device.store(), &bytes).expect("a written file");
        if device.run(&["get", SPACE, "airports", "00M"]).code == Some(DONE) {
            damaged += 1;
        } else {
            bytes = sound;
        }
        fs::write(device.store(), &bytes).expect("a written file");
    }
    damaged
}

#[test]
fn what_is_damaged_is_named_and_a_repair_brings_it_back() {
    let (a, b) = (Device::new("A"), Device::new("B"));
    a.ok(&["space", "create", SPACE]);
    let node_b = {
        let node_a = a.start_node(&[]);
        a.share(SPACE, "owner", &b);
        a.import(SPACE, "airports", &rows("airports.jsonl"), "iata");
        a.ok(&["put", SPACE, "notes", "marked", r#"{"text":"a text that is found in the file"}"#]);
        // So that it stands neither first nor last in what the store needs to open.
        a.import(SPACE, "more", &rows("airports.jsonl"), "iata");
        b.ok(&["sync"]);
        node_a.terminate();
        b.start_node(&[])
    };
    let old_replica = a.json(&["status"])["replica"].clone();
    assert!(damage(&a, "a text that is found in the file") > 0, "it is there");

    let node = a.start_node(&["--peer", &node_b.peer()]);
    let error = a.run_json(&["get", SPACE, "notes", "marked"]).expect(FAILED).error();
    assert_eq!(error["code"], "storage");
    assert!(error["message"].as_str().expect("a text").contains("object marked in notes"), "{error}");
    assert!(error["help"].as_str().expect("a text").contains("thence repair"), "{error}");
    a.ok(&["get", SPACE, "airports", "00M"]);
    a.run(&["export", SPACE]).expect(FAILED);
    a.run(&["backup", a.beside("a.backup").to_str().expect("UTF-8")]).expect(FAILED);
    let status = a.json(&["status"]);
    assert!(!status["damage"].as_array().expect("a list").is_empty(), "{status}");
    a.run(&["status", "--check"]).expect(FAILED);
    a.run(&["repair"]).expect(FAILED).says("a node is running");
    node.terminate();

    let damaged = bytes_of(&a.store());
    let repaired = a.json(&["repair"]);
    assert_ne!(repaired["replica"], old_replica);
    assert_eq!(repaired["device"], a.id());
    let lost = repaired["spaces"][0]["lost"].as_u64().expect("a number");
    assert!(lost > 0 && repaired["spaces"][0]["kept"].as_u64() > Some(0), "{repaired}");
    assert!(!bytes_of(Path::new(repaired["moved_aside"].as_str().expect("a path"))).is_empty() && !damaged.is_empty());

    // It still knows its peer.
    let _node = a.start_node(&[]);
    a.ok(&["put", SPACE, "notes", "after", "{}"]);
    settle(&[&a]);
    same(&[&a, &b], &["export", SPACE]);
    assert_eq!(a.fields(SPACE, "notes", "marked")["text"], "a text that is found in the file");
    let status = a.json(&["status"]);
    assert_eq!((&status["damage"], &status["storage_failure"]), (&Value::Array(vec![]), &Value::Null));
    a.run(&["status", "--check"]).expect(DONE);
}

#[test]
fn a_store_of_which_nothing_can_be_read_is_refused_and_stays() {
    let a = Device::new("A");
    a.ok(&["space", "create", SPACE]);
    let mut bytes = bytes_of(&a.store());
    bytes[70] ^= 1;
    fs::write(a.store(), &bytes).expect("a written file");
    a.run(&["get", SPACE, "notes", "n"]).expect(FAILED).says("damaged");
    a.run(&["repair"]).expect(FAILED).says("thence restore");
    assert!(bytes_of(&a.store()) == bytes, "it was not touched");
}
