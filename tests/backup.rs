//! A backup holds everything at one instant and nothing of who made it; what was lost since comes back from peers.

mod house;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use house::{Device, FAILED, PATIENCE, bytes_of, eventually, lasting_address, rows, same, settle};
use serde_json::{Value, json};

const SPACE: &str = "atlas";

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are UTF-8")
}

fn replica(device: &Device) -> String {
    device.json(&["status"])["replica"].as_str().expect("a replica id").to_owned()
}

/// Every file of the data folder with its bytes, except for locks, which are taken and let go.
fn contents(device: &Device) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(device.data()).expect("a data folder");
    let entries = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
    let named = entries.map(|path| (path.file_name().expect("a name").to_string_lossy().into_owned(), path));
    let mut contents: Vec<_> = named
        .filter(|(name, _)| !name.ends_with(".lock") && !name.ends_with(".sock"))
        .map(|(name, path)| (name, bytes_of(&path)))
        .collect();
    contents.sort();
    contents
}

#[test]
fn a_backup_under_load_is_one_instant_of_a_node_that_goes_on() {
    let a = Device::new("A");
    a.ok(&["space", "create", SPACE]);
    a.import(SPACE, "airports", &rows("airports.jsonl"), "iata");
    let airports = a.ok(&["export", SPACE, "airports"]);
    let _node = a.start_node(&[]);
    let (written, enough) = (AtomicU64::new(0), AtomicBool::new(false));
    let backups: Vec<_> = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !enough.load(Ordering::SeqCst) {
                let n = written.load(Ordering::SeqCst);
                a.ok(&["put", SPACE, "steps", &format!("{n:06}"), &json!({ "n": n }).to_string()]);
                written.store(n + 1, Ordering::SeqCst);
            }
        });
        let backups = (0..3).map(|n| {
            let more = written.load(Ordering::SeqCst) + 5;
            eventually(PATIENCE, "the writer writes", || written.load(Ordering::SeqCst) >= more);
            let file = a.beside(&format!("{n}.backup"));
            let before = written.load(Ordering::SeqCst);
            let made = a.json(&["backup", text(&file)]);
            assert_eq!(made["bytes"], bytes_of(&file).len(), "{made}");
            (file, before, written.load(Ordering::SeqCst))
        });
        let backups = backups.collect();
        enough.store(true, Ordering::SeqCst);
        backups
    });

    for (file, before, after) in backups {
        let b = Device::blank("B");
        let restored = b.json(&["restore", text(&file)]);
        assert_eq!(restored["moved_aside"], Value::Null);
        assert_eq!(restored["spaces"][0]["role"], Value::Null, "a new device was granted nothing: {restored}");
        assert_eq!(b.ok(&["export", SPACE, "airports"]), airports);
        let steps: Vec<u64> =
            b.objects(SPACE).values().filter_map(|fields| fields.get("n").and_then(Value::as_u64)).collect();
        let count = steps.len() as u64;
        // One write may be acknowledged and not yet be counted by its writer.
        assert!((before..=after + 1).contains(&count), "{count} steps, not {before} to {after}");
        assert_eq!(steps, (0..count).collect::<Vec<u64>>(), "an instant has no gaps");
    }
}

#[test]
fn a_week_old_backup_under_a_node_whose_peers_know_better() {
    let address = lasting_address();
    let (a, b) = (Device::new("A"), Device::new("B"));
    a.ok(&["space", "create", SPACE]);
    let node_a = a.start_node_at(address, &[]);
    a.share(SPACE, "owner", &b);
    b.import(SPACE, "airports", &rows("airports.jsonl"), "iata");
    b.ok(&["put", SPACE, "stats", "trips", "{}"]);
    b.ok(&["increment", SPACE, "stats", "trips", "count", "1"]);
    b.ok(&["sync"]);
    let backup = b.beside("week-old.backup");
    b.ok(&["backup", text(&backup)]);
    let old_replica = replica(&b);

    // The week: B writes, deletes and counts, A knows of it, and writes itself.
    b.ok(&["delete", SPACE, "airports", "00M"]);
    b.ok(&["patch", SPACE, "airports", "04Y", r#"{"name":"of the week"}"#]);
    b.ok(&["increment", SPACE, "stats", "trips", "count", "10"]);
    b.ok(&["sync"]);
    a.ok(&["put", SPACE, "notes", "from-a", r#"{"n":1}"#]);
    let counter = |device: &Device| device.vector(SPACE)[&old_replica].as_u64().expect("events of B");
    let before = counter(&b);

    let restored = b.json(&["restore", text(&backup)]);
    assert_eq!(restored["device"], b.id());
    assert_eq!(restored["spaces"][0]["role"], "owner");
    assert!(Path::new(restored["moved_aside"].as_str().expect("the old store is kept")).exists());
    assert_ne!(replica(&b), old_replica);
    assert!(b.sees(SPACE, "airports", "00M"), "the backup is older than the delete");
    // Written before it has met anyone: nothing that was given out is given out again.
    b.ok(&["increment", SPACE, "stats", "trips", "count", "100"]);
    b.ok(&["put", SPACE, "notes", "from-b", r#"{"n":2}"#]);

    b.ok(&["peer", "add", &node_a.peer()]);
    settle(&[&b]);
    same(&[&a, &b], &["export", SPACE]);
    assert!(!b.sees(SPACE, "airports", "00M"), "what was deleted does not come back");
    assert_eq!(b.fields(SPACE, "airports", "04Y")["name"], "of the week");
    assert_eq!(b.fields(SPACE, "stats", "trips")["count"], 111);
    assert_eq!(a.fields(SPACE, "notes", "from-b")["n"], 2);
    assert_eq!(b.fields(SPACE, "notes", "from-a")["n"], 1);
    assert_eq!(counter(&a), before, "nobody wrote as the old replica any more");
    assert!(a.vector(SPACE)[replica(&b)].as_u64() > Some(0));
}

#[test]
fn a_new_device_takes_part_with_what_it_restored() {
    let (a, c) = (Device::new("A"), Device::blank("C"));
    a.ok(&["space", "create", SPACE]);
    a.import(SPACE, "airports", &rows("airports.jsonl"), "iata");
    let backup = a.beside("a.backup");
    a.ok(&["backup", text(&backup)]);
    let node = a.start_node(&[]);
    let said = c.ok(&["restore", text(&backup)]);
    assert!(said.contains("ask an owner for a ticket"), "{said}");
    assert_ne!(c.id(), a.id());
    c.run(&["put", SPACE, "notes", "mine", "{}"]).expect(FAILED).says("not a member");
    a.share(SPACE, "writer", &c);
    c.ok(&["put", SPACE, "notes", "mine", "{}"]);
    c.ok(&["peer", "add", &node.peer()]);
    settle(&[&c]);
    same(&[&a, &c], &["export", SPACE]);
}

#[test]
fn a_backup_overwrites_nothing_and_names_nobody() {
    let (a, b) = (Device::new("A"), Device::new("B"));
    a.ok(&["space", "create", SPACE]);
    let peer = format!("{}@192.0.2.77:7117", b.id());
    a.ok(&["peer", "add", &peer]);
    let node = a.start_node(&[]);
    let file = a.beside("a.backup");
    a.ok(&["backup", text(&file)]);
    let bytes = bytes_of(&file);
    let id: Vec<u8> = (0..64).step_by(2).map(|at| u8::from_str_radix(&b.id()[at..at + 2], 16).expect("hex")).collect();
    for secret in [b"192.0.2.77".as_slice(), b"127.0.0.1", &id, &bytes_of(&a.data().join("device.key"))[..64]] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{secret:?} is in it");
    }

    let error = a.run_json(&["backup", text(&file)]).expect(FAILED).error();
    assert_eq!(error["code"], "file");
    node.terminate();
    a.run(&["backup", text(&file)]).expect(FAILED).says("overwrites nothing");
    a.run(&["backup", text(&a.beside("absent").join("a.backup"))]).expect(FAILED).says("a folder that exists");
    assert!(bytes_of(&file) == bytes);
    let again = a.beside("again.backup");
    a.ok(&["backup", text(&again)]);
    let names: BTreeSet<_> = fs::read_dir(file.parent().expect("a folder"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    assert_eq!(names, ["a.backup", "again.backup", "data"].map(str::to_owned).into(), "and leaves nothing beside");
}

#[test]
fn what_cannot_be_restored_is_refused_and_nothing_is_touched() {
    let a = Device::new("A");
    a.ok(&["space", "create", SPACE]);
    a.import(SPACE, "airports", &rows("airports.jsonl"), "iata");
    let good = a.beside("good.backup");
    a.ok(&["backup", text(&good)]);
    let node = a.start_node(&[]);
    a.run(&["restore", text(&good)]).expect(FAILED).says("a node is running");
    node.terminate();

    let whole = bytes_of(&good);
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 4;
    let mut newer = whole.clone();
    newer[8] = 9;
    let before = contents(&a);
    let bad = a.beside("bad.backup");
    for (bytes, says) in [
        (&flipped[..], "damaged"),
        (&whole[..whole.len() - 1], "damaged"),
        (&[][..], "not a backup"),
        (&bytes_of(&a.store())[..], "not a backup"),
        (&newer[..], "version 9"),
    ] {
        fs::write(&bad, bytes).expect("a file");
        a.run(&["restore", text(&bad)]).expect(FAILED).says(says);
        assert!(contents(&a) == before, "{says}: something was touched");
        let blank = Device::blank("blank");
        blank.run(&["restore", text(&bad)]).expect(FAILED).says(says);
        assert!(!blank.data().exists(), "{says}: a folder was made");
    }
    a.run(&["restore", text(&a.beside("absent"))]).expect(FAILED).says("name a file");

    // The good one replaces the store, which is kept as it was; a damaged one too.
    let store = bytes_of(&a.store());
    let restored = a.json(&["restore", text(&good)]);
    let aside = restored["moved_aside"].as_str().expect("the old store is kept").to_owned();
    assert!(bytes_of(Path::new(&aside)) == store);
    fs::write(a.store(), &store[..store.len() / 2]).expect("a damaged store");
    a.run(&["status"]).expect(FAILED);
    let restored = a.json(&["restore", text(&good)]);
    assert_ne!(restored["moved_aside"], aside.as_str());
    assert_eq!(a.objects(SPACE).len(), 307);
}
