//! `watch` wherever it finds the store: held by a node, by nobody, by one and then the other.

mod house;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use house::{DONE, Device, NOT_FOUND, PATIENCE, Watch, eventually, send_signal};
use serde_json::{Value, json};

const SPACE: &str = "atlas";

fn alone() -> Device {
    let device = Device::new("A");
    device.ok(&["space", "create", SPACE]);
    device
}

fn put(device: &Device, n: u64) {
    device.ok(&["put", SPACE, "numbers", &n.to_string(), &json!({ "n": n }).to_string()]);
}

/// The next change is the put of `n`.
#[track_caller]
fn shows(watch: &mut Watch, n: u64) -> Value {
    let change = watch.next(PATIENCE);
    assert_eq!((&change["op"], &change["fields"]), (&json!("put"), &json!({ "n": n })), "{change}");
    assert_eq!((&change["by"], &change["collection"]), (&json!("local"), &json!("numbers")));
    change
}

#[test]
fn it_follows_the_store_from_hand_to_hand_and_misses_nothing() {
    let device = alone();
    put(&device, 0);
    let mut watch = device.watch(SPACE, &["--from", "0"]);
    shows(&mut watch, 0);

    // Nobody holds the store but short commands.
    put(&device, 1);
    put(&device, 2);
    shows(&mut watch, 1);
    shows(&mut watch, 2);

    let mut n = 3;
    for gently in [true, false] {
        let node = device.start_node(&[]);
        put(&device, n);
        shows(&mut watch, n);
        if gently {
            node.terminate();
        } else {
            node.kill();
        }
        put(&device, n + 1);
        shows(&mut watch, n + 1);
        n += 2;
    }
    assert!(watch.next_within(std::time::Duration::ZERO).is_none(), "and nothing twice");
}

#[test]
fn without_a_position_it_begins_now() {
    let device = alone();
    put(&device, 0);
    for with_node in [false, true] {
        let node = with_node.then(|| device.start_node(&[]));
        let mut watch = device.watch(SPACE, &[]);
        let mut n = 0;
        let mut first = None;
        // When it begins is up to it; what it shows first was written after that.
        eventually(PATIENCE, "it has begun", || {
            n += 1;
            put(&device, n);
            first = watch.next_within(std::time::Duration::from_millis(500));
            first.is_some()
        });
        assert!(first.expect("just seen")["fields"]["n"].as_u64() >= Some(1));
        drop(node);
    }
}

#[test]
fn a_space_that_is_not_there_cannot_be_watched() {
    let device = alone();
    device.run(&["watch", "nowhere"]).expect(NOT_FOUND);
    let _node = device.start_node(&[]);
    device.run(&["watch", "nowhere"]).expect(NOT_FOUND);
}

#[cfg(unix)]
#[test]
fn it_ends_quietly_when_nobody_reads_it_any_more_and_when_told_to() {
    let device = alone();
    put(&device, 0);
    for with_node in [false, true] {
        let node = with_node.then(|| device.start_node(&[]));
        for by_signal in [false, true] {
            let mut command = device.command(&["watch", SPACE, "--from", "0"]);
            let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
            let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
            let mut line = String::new();
            stdout.read_line(&mut line).expect("a line");
            assert!(line.contains("numbers"), "{line}");
            if by_signal {
                send_signal(child.id(), "INT");
            } else {
                drop(stdout);
            }
            let output = child.wait_with_output().expect("it ends");
            assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(DONE), &b""[..]));
        }
        drop(node);
    }
}
