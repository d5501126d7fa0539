//! What a node logs: enough to follow what it did, and nothing of what people keep in it.

mod house;

use std::fs;
use std::path::PathBuf;

use house::{Device, PATIENCE, eventually};

/// In everything that people name and write.
const CONTENT: &str = "sentinel7f3a";
const SPACE: &str = "sentinel7f3a-space";
const COLLECTION: &str = "sentinel7f3a-collection";
const KEY: &str = "sentinel7f3a-key";

/// A device whose commands and nodes log at `level`.
struct Logging {
    device: Device,
    settings: PathBuf,
}

impl Logging {
    fn at(name: &'static str, level: &str) -> Self {
        let device = Device::new(name);
        let settings = device.beside("settings.toml");
        fs::write(&settings, format!("log = \"{level}\"\n")).expect("a file beside the data folder");
        Self { device, settings }
    }

    fn node(&self) -> house::RunningNode {
        self.device.start_node(&["--config", self.settings.to_str().expect("temporary paths are UTF-8")])
    }

    /// Runs a command that must succeed; its stdout. What it logged is added to `logs`.
    #[track_caller]
    fn run(&self, arguments: &[&str], logs: &mut String) -> String {
        let mut all = vec!["--config", self.settings.to_str().expect("temporary paths are UTF-8")];
        all.extend(arguments);
        let outcome = self.device.run(&all).expect(house::DONE);
        logs.push_str(&outcome.stderr);
        outcome.stdout
    }
}

#[test]
fn nothing_that_people_write_is_ever_logged() {
    let (a, b) = (Logging::at("A", "trace"), Logging::at("B", "trace"));
    let mut logs = String::new();
    let field = format!("{CONTENT}-field");
    let fields = |value: &str| format!(r#"{{"{field}":"{CONTENT}-{value}"}}"#);
    let rows = a.device.beside("rows.jsonl");
    fs::write(&rows, format!("{{\"id\":\"{KEY}-row\",\"{field}\":\"{CONTENT}-value\"}}\n")).expect("a file");

    // Without a node the command does all of it itself.
    a.run(&["space", "create", SPACE], &mut logs);
    a.run(&["put", SPACE, COLLECTION, KEY, &fields("value")], &mut logs);
    a.run(&["import", SPACE, COLLECTION, rows.to_str().expect("UTF-8"), "--key", "id"], &mut logs);
    let (on_a, on_b) = (a.node(), b.node());
    let ticket = a.run(&["invite", SPACE], &mut logs);
    b.run(&["join", ticket.trim()], &mut logs);
    b.run(&["patch", SPACE, COLLECTION, KEY, &fields("other")], &mut logs);
    b.run(&["sync"], &mut logs);
    // Apart, for a conflict, a lost edit, and a ticket that is shown once more.
    let mut ended = on_b.terminate();
    a.run(&["patch", SPACE, COLLECTION, KEY, &fields("here")], &mut logs);
    b.run(&["patch", SPACE, COLLECTION, KEY, &fields("there")], &mut logs);
    a.run(&["delete", SPACE, COLLECTION, &format!("{KEY}-row")], &mut logs);
    b.run(&["patch", SPACE, COLLECTION, &format!("{KEY}-row"), &fields("lost")], &mut logs);
    let on_b = b.node();
    b.run(&["sync"], &mut logs);
    assert!(b.run(&["conflicts", SPACE], &mut logs).contains(CONTENT));
    assert!(b.run(&["lost", SPACE], &mut logs).contains(CONTENT));
    b.run(&["resolve", SPACE, COLLECTION, KEY, &field, &format!("\"{CONTENT}-decided\"")], &mut logs);
    b.run(&["lost", "discard", SPACE, COLLECTION, &format!("{KEY}-row")], &mut logs);
    b.run(&["sync"], &mut logs);
    assert!(a.run(&["export", SPACE], &mut logs).contains(&format!("{CONTENT}-decided")));
    a.run(&["status"], &mut logs);
    ended += &on_b.terminate();
    ended += &on_a.terminate();

    assert!(ended.contains("TRACE") && logs.contains("space created"), "the test would see nothing:\n{ended}{logs}");
    let secrets = [&a, &b].map(|device| {
        let key = fs::read_to_string(device.device.data().join("device.key")).expect("the key");
        key.trim().to_owned()
    });
    for forbidden in [CONTENT, ticket.trim(), &secrets[0], &secrets[1]] {
        let found = ended.lines().chain(logs.lines()).find(|line| line.contains(forbidden));
        assert_eq!(found, None, "{forbidden} was logged");
    }
}

#[test]
fn a_person_can_follow_what_a_node_did() {
    let (a, b) = (Logging::at("A", "thence=info"), Logging::at("B", "thence=info"));
    let mut logs = String::new();
    let (on_a, on_b) = (a.node(), b.node());
    a.run(&["space", "create", SPACE], &mut logs);
    a.run(&["put", SPACE, COLLECTION, KEY, "{}"], &mut logs);
    let space = a.device.space_id(SPACE);
    b.run(&["join", a.run(&["invite", SPACE], &mut logs).trim()], &mut logs);
    b.run(&["sync"], &mut logs);
    let (a_id, b_id) = (a.device.id(), b.device.id());
    let told = |log: &str, words: &[&str]| log.lines().any(|line| words.iter().all(|word| line.contains(word)));
    let story = |log: &str, lines: &[&[&str]]| {
        let missing = lines.iter().find(|words| !told(log, words));
        assert_eq!(missing, None, "not told in\n{log}");
    };
    // The peer's side of it may come a moment later.
    let caught_up: &[&str] = &["caught up", b_id, &space, "took_ms"];
    eventually(PATIENCE, "A tells that B has caught up", || told(&on_a.log(), caught_up));
    let b_told = on_b.terminate();
    eventually(PATIENCE, "A tells that B is gone", || told(&on_a.log(), &["peer disconnected", b_id]));
    let a_told = on_a.terminate();

    story(
        &a_told,
        &[
            &["listening", a_id],
            &["space created", &space],
            &["peer connected", b_id],
            &["ticket redeemed", b_id, &space],
            &["peer disconnected", b_id, "cause", "lasted_ms"],
            &["stopping"],
        ],
    );
    story(
        &b_told,
        &[
            &["listening", b_id],
            &["peer connected", a_id],
            &["space joined", &space],
            &["caught up", a_id, &space, "received_events", "took_ms"],
            &["peer disconnected", a_id, "lasted_ms"],
            &["stopping"],
        ],
    );
    assert_eq!(logs, "", "commands that a node answers have nothing to log");
    assert!(b_told.lines().count() < 12, "a story is short:\n{b_told}");
}

#[test]
fn nodes_are_silent_unless_told_otherwise() {
    let device = Device::new("A");
    let node = device.start_node(&[]);
    device.ok(&["space", "create", SPACE]);
    assert_eq!(node.terminate(), "");
}
