//! A store that was copied, put back, or runs twice: it is found out, nothing that anybody acknowledged is lost, every
//! node ends equal, and `status` tells the story.

mod house;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use house::{DONE, Device, PATIENCE, eventually, lasting_address, same, settle};
use serde_json::{Value, json};
use thence::model::{DeviceKey, SpaceId};
use thence::node::Transaction;
use thence::store::{Done, Ledger, RedbStore, Work};

const SPACE: &str = "atlas";

/// Copies the files of a folder, as a person does who makes a backup with the tools at hand.
fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a data folder") {
        let path = entry.expect("an entry").path();
        // Not the socket of a node that is not running any more.
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("copied");
        }
    }
}

fn replica(device: &Device) -> String {
    device.json(&["status"])["replica"].as_str().expect("a replica id").to_owned()
}

/// Why the device writes under another replica id than it once did, each time.
fn reasons(device: &Device) -> Vec<String> {
    let status = device.json(&["status"]);
    let renewals = status["renewals"].as_array().expect("a list").clone();
    renewals.iter().map(|renewal| renewal["reason"].as_str().expect("a text").to_owned()).collect()
}

fn put(device: &Device, key: &str, json: Value) {
    device.ok(&["put", SPACE, "notes", key, &json.to_string()]);
}

/// Writes into a store that nothing guards, as one does whose disk was cloned below the file system: whoever opens it
/// cannot tell that another copy writes under the same id.
fn write_unguarded(device: &Device, key: &str, json: Value) {
    let secret = fs::read_to_string(device.data().join("device.key")).expect("a key");
    let secret = data_encoding::HEXLOWER.decode(secret.trim().as_bytes()).expect("hexadecimal");
    let key_pair = DeviceKey::from_secret(&secret.try_into().expect("32 bytes"));
    let store = RedbStore::open(&device.store(), 1 << 20).expect("a store");
    let ledger = Ledger::open(Arc::new(store), key_pair).expect("a ledger");
    let space: SpaceId = ledger.spaces()[0];
    let requests = Transaction::new().put("notes", key, json).expect("in form").into();
    let done = ledger.commit(&[Work::Write { space, requests }], 1, 7).expect("the disk works").done;
    assert!(matches!(done[..], [Done::Written(Ok(written))] if written.changed == 1), "{done:?}");
}

/// A and B with a space of A's in which both have what A wrote; no node runs.
fn two_in_step() -> (Device, Device) {
    let (a, b) = (Device::new("A"), Device::new("B"));
    a.ok(&["space", "create", SPACE]);
    put(&a, "n1", json!({"text": "first"}));
    let node = a.start_node(&[]);
    a.share(SPACE, "owner", &b);
    node.terminate();
    (a, b)
}

/// Lets these devices, whose nodes do not run, exchange everything through `middle`.
fn meet_through(middle: &Device, others: &[&Device]) {
    let address = lasting_address();
    let node = middle.start_node_at(address, &[]);
    for other in others {
        other.ok(&["peer", "add", &node.peer()]);
    }
    // A split is said anew after it was found out, so what came before it may take a round more.
    for _ in 0..2 {
        settle(others);
    }
    node.terminate();
}

#[test]
fn restarts_kills_and_short_commands_are_no_reason_for_another_id() {
    let a = Device::new("A");
    a.ok(&["space", "create", SPACE]);
    let before = replica(&a);
    for n in 0..3 {
        put(&a, "n1", json!({ "n": n }));
        let node = a.start_node(&[]);
        put(&a, "n2", json!({ "n": n }));
        if n == 1 {
            node.kill()
        } else {
            drop(node.terminate())
        }
        // Containers set owners and permissions anew at every start.
        for file in ["thence.redb", "store.lease"] {
            let path = a.data().join(file);
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).expect("set");
        }
    }
    put(&a, "n1", json!({"n": "last"}));
    assert_eq!(replica(&a), before);
    assert_eq!(reasons(&a), [""; 0]);
    assert_eq!(a.vector(SPACE).as_object().map(|vector| vector.len()), Some(1));
}

#[test]
fn a_copied_folder_is_found_out_before_it_writes() {
    let (a, b) = two_in_step();
    let copy = Device::blank("A's copy");
    copy_folder(&a.data(), &copy.data());
    assert_eq!(copy.id(), a.id());
    put(&a, "n1", json!({"text": "the original"}));
    put(&copy, "n1", json!({"text": "the copy"}));
    put(&copy, "n2", json!({"by": "the copy"}));
    assert_eq!(reasons(&a), [""; 0], "the original goes on as it was");
    assert_eq!(reasons(&copy), ["this store was copied, moved or replaced"]);
    assert_ne!(replica(&copy), replica(&a));

    meet_through(&b, &[&a, &copy]);
    let export = same(&[&a, &b, &copy], &["export", SPACE]);
    assert_eq!(export.lines().count(), 2);
    let conflicts = same(&[&a, &b, &copy], &["conflicts", SPACE]);
    assert!(conflicts.contains("the original") && conflicts.contains("the copy"), "{conflicts}");
    assert_eq!(b.status(SPACE)["copied"], json!([]), "no id was used twice");
}

#[test]
fn two_copies_that_run_at_once_both_stay_connected() {
    let (a, b) = two_in_step();
    let copy = Device::blank("A's copy");
    copy_folder(&a.data(), &copy.data());
    let b_node = b.start_node(&[]);
    let (peer, _a_node) = (b_node.peer(), a.start_node(&["--peer", &b_node.peer()]));
    let _copy_node = copy.start_node(&["--peer", &peer]);
    for n in 0..10 {
        put(&a, &format!("a{n}"), json!({ "n": n }));
        put(&copy, &format!("c{n}"), json!({ "n": n }));
    }
    a.ok(&["sync"]);
    copy.ok(&["sync"]);
    a.ok(&["sync"]);
    let export = same(&[&a, &b, &copy], &["export", SPACE]);
    assert_eq!(export.lines().count(), 21);
    // Live: what one writes comes to the other through B without anybody asking.
    put(&a, "live", json!({"by": "a"}));
    eventually(PATIENCE, "the copy sees what the original writes", || copy.sees(SPACE, "notes", "live"));
    let log = b_node.terminate();
    let replaced = log.matches("replaced by a newer connection").count();
    assert_eq!(replaced, 0, "neither pushes the other out: {log}");
}

#[test]
fn what_two_copies_wrote_under_one_id_is_all_there_and_told() {
    let (a, b) = two_in_step();
    let copy = Device::blank("A's copy");
    copy_folder(&a.data(), &copy.data());
    let before = replica(&a);
    put(&a, "n1", json!({"text": "the original"}));
    put(&a, "n2", json!({"by": "the original"}));
    write_unguarded(&copy, "n1", json!({"text": "the copy"}));
    write_unguarded(&copy, "n3", json!({"by": "the copy"}));

    meet_through(&b, &[&a, &copy]);
    let all = [&a, &b, &copy];
    let export = same(&all, &["export", SPACE]);
    assert_eq!(export.lines().count(), 3);
    let conflicts = same(&all, &["conflicts", SPACE]);
    assert!(conflicts.contains("the original") && conflicts.contains("the copy"), "{conflicts}");
    let told = json!([{"device": a.id(), "replica": before, "copies": 2}]);
    for device in all {
        assert_eq!(device.status(SPACE)["copied"], told, "{}", device.name());
    }
    assert_eq!(reasons(&a), ["two copies of this store wrote under one id; what both wrote is kept"]);
    let ids = [replica(&a), replica(&copy), before];
    assert!(ids[0] != ids[1] && ids[0] != ids[2] && ids[1] != ids[2], "{ids:?}");
    // They go on as two.
    put(&a, "n1", json!({"text": "decided"}));
    put(&copy, "n4", json!({}));
    meet_through(&b, &[&a, &copy]);
    assert_eq!(same(&all, &["export", SPACE]).lines().count(), 4);
    assert_eq!(same(&all, &["conflicts", SPACE]), "");
}

#[test]
fn a_folder_that_was_put_back_gets_what_it_lost_from_its_peers() {
    let (a, b) = two_in_step();
    let week_old = a.beside("week-old");
    copy_folder(&a.data(), &week_old);
    put(&a, "n2", json!({"in": "the lost week"}));
    put(&a, "n1", json!({"text": "changed in the lost week"}));
    meet_through(&b, &[&a]);
    let before = replica(&a);

    fs::remove_dir_all(a.data()).expect("removed");
    copy_folder(&week_old, &a.data());
    // Offline, before it can know of anything.
    put(&a, "n1", json!({"text": "after the disaster"}));
    assert_ne!(replica(&a), before, "no dot is given out twice");
    meet_through(&b, &[&a]);
    let export = same(&[&a, &b], &["export", SPACE]);
    assert!(export.contains("the lost week"), "{export}");
    let conflicts = same(&[&a, &b], &["conflicts", SPACE]);
    assert!(conflicts.contains("changed in the lost week") && conflicts.contains("after the disaster"), "{conflicts}");
    assert_eq!(b.status(SPACE)["copied"], json!([]));
    assert_eq!(reasons(&a), ["this store was copied, moved or replaced"]);
}

#[test]
fn a_store_that_was_overwritten_in_place_is_found_out() {
    let (a, _) = two_in_step();
    let old = fs::read(a.store()).expect("a store");
    put(&a, "n2", json!({}));
    let before = replica(&a);
    // The same file, with what it held before: only its times and its contents change.
    fs::write(a.store(), old).expect("written");
    put(&a, "n3", json!({}));
    assert_ne!(replica(&a), before);
    assert_eq!(a.objects(SPACE).len(), 2);
}

#[test]
fn an_owner_that_forgot_whom_it_invited_is_reminded() {
    let (a, b) = (Device::new("A"), Device::new("B"));
    a.ok(&["space", "create", SPACE]);
    let early = a.beside("early");
    copy_folder(&a.data(), &early);
    let node = a.start_node(&[]);
    a.share(SPACE, "writer", &b);
    put(&a, "n1", json!({"by": "a"}));
    b.ok(&["sync"]);
    node.terminate();
    put(&b, "n2", json!({"by": "b"}));

    fs::remove_dir_all(a.data()).expect("removed");
    copy_folder(&early, &a.data());
    assert_eq!(a.objects(SPACE).len(), 0, "it knows nothing of B");
    let node = a.start_node(&[]);
    b.ok(&["peer", "add", &node.peer()]);
    b.ok(&["sync"]);
    let export = same(&[&a, &b], &["export", SPACE]);
    assert_eq!(export.lines().count(), 2, "{export}");
    a.run(&["put", SPACE, "notes", "n3", "{}"]).expect(DONE);
    b.ok(&["sync"]);
    same(&[&a, &b], &["export", SPACE]);
}
