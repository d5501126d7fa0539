//! A device: its data folder, and everything that is asked of it through the binary.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::{COMMAND_TIME_MAX, DONE, NOT_FOUND, Outcome, PATIENCE, RunningNode, Watch, eventually, finish, thence};

/// A device: a data folder that is gone when the test is.
pub struct Device {
    name: &'static str,
    folder: TempDir,
    id: OnceLock<String>,
}

impl Device {
    /// A device whose folder is initialised. `name` is for the messages of failing tests.
    #[track_caller]
    pub fn new(name: &'static str) -> Self {
        let device = Self::blank(name);
        device.ok(&["init"]);
        device
    }

    /// A device whose data folder does not exist yet.
    pub fn blank(name: &'static str) -> Self {
        let folder = tempfile::Builder::new().prefix("thence-").tempdir().expect("a temporary folder");
        Self { name, folder, id: OnceLock::new() }
    }

    /// Its name in the messages of failing tests.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The store in it.
    pub fn store(&self) -> PathBuf {
        self.data().join("thence.redb")
    }

    /// A place for files of the test, beside the data folder.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The device id.
    #[track_caller]
    pub fn id(&self) -> &str {
        self.id.get_or_init(|| self.ok(&["id"]).trim().to_owned())
    }

    /// A command of this device, not yet started.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Command {
        let mut command = thence();
        command.arg("--data").arg(self.data()).args(arguments);
        command
    }

    /// Runs a command, whatever comes of it.
    #[track_caller]
    pub fn run<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Outcome {
        let mut outcome = finish(self.command(arguments), COMMAND_TIME_MAX);
        outcome.what = format!("{}: {}", self.name, outcome.what);
        outcome
    }

    /// Runs a command with `--json`, whatever comes of it.
    #[track_caller]
    pub fn run_json<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Outcome {
        let mut all: Vec<&OsStr> = vec![OsStr::new("--json")];
        all.extend(arguments.iter().map(AsRef::as_ref));
        self.run(&all)
    }

    /// Runs a command that must succeed; its stdout.
    #[track_caller]
    pub fn ok<A: AsRef<OsStr>>(&self, arguments: &[A]) -> String {
        self.run(arguments).expect(DONE).stdout
    }

    /// Runs a command that must succeed, with `--json`; its document.
    #[track_caller]
    pub fn json<A: AsRef<OsStr>>(&self, arguments: &[A]) -> Value {
        self.run_json(arguments).expect(DONE).document()
    }

    /// Imports the rows of `file`.
    #[track_caller]
    pub fn import(&self, space: &str, collection: &str, file: &Path, key: &str) {
        let file = file.to_str().expect("temporary paths are UTF-8");
        self.ok(&["import", space, collection, file, "--key", key]);
    }

    /// The fields of a visible object.
    #[track_caller]
    pub fn fields(&self, space: &str, collection: &str, key: &str) -> Value {
        self.json(&["get", space, collection, key])["fields"].clone()
    }

    /// Whether the object is visible.
    #[track_caller]
    pub fn sees(&self, space: &str, collection: &str, key: &str) -> bool {
        let outcome = self.run(&["get", space, collection, key]);
        match outcome.code {
            Some(DONE) => true,
            Some(NOT_FOUND) => false,
            _ => panic!("`get` should end with 0 or 4: {outcome:?}"),
        }
    }

    /// The export, as objects by collection and key.
    #[track_caller]
    pub fn objects(&self, space: &str) -> BTreeMap<(String, String), Value> {
        parse_export(&self.ok(&["export", space]))
    }

    /// The entry of `space` (a name) in `status --json`.
    #[track_caller]
    pub fn status(&self, space: &str) -> Value {
        let status = self.json(&["status"]);
        let spaces = status["spaces"].as_array().unwrap_or_else(|| panic!("no spaces in {status}"));
        let found = spaces.iter().find(|entry| entry["name"] == space || entry["id"] == space);
        found.unwrap_or_else(|| panic!("{} has no space {space}: {status}", self.name)).clone()
    }

    /// What this device knows of `space`: a new event, of anyone, changes it.
    #[track_caller]
    pub fn vector(&self, space: &str) -> Value {
        let vector = self.status(space)["vector"].clone();
        assert!(!vector.is_null(), "status of {space} has no vector");
        vector
    }

    /// The id of the space with this name.
    #[track_caller]
    pub fn space_id(&self, name: &str) -> String {
        let spaces = self.json(&["space", "list"]);
        let found = spaces.as_array().and_then(|all| all.iter().find(|space| space["name"] == name));
        let id = found.and_then(|space| space["id"].as_str());
        id.unwrap_or_else(|| panic!("no space {name} in {spaces}")).to_owned()
    }

    /// Lets `guest` into `space`. This device's node is running; the guest's may be.
    #[track_caller]
    pub fn share(&self, space: &str, role: &str, guest: &Device) {
        let ticket = self.ok(&["invite", space, "--role", role]);
        guest.ok(&["join", ticket.trim()]);
    }

    /// Starts a node on a port that the system picks.
    #[track_caller]
    pub fn start_node(&self, extra: &[&str]) -> RunningNode {
        self.start_node_at("127.0.0.1:0".parse().expect("an address"), extra)
    }

    /// Starts a node at `address`.
    #[track_caller]
    pub fn start_node_at(&self, address: SocketAddr, extra: &[&str]) -> RunningNode {
        let mut command = self.command(&["node", "--listen", &address.to_string()]);
        command.args(extra);
        RunningNode::start(self.name, command)
    }

    /// Starts a relay on ports that the system picks.
    #[track_caller]
    pub fn start_relay(&self, extra: &[&str]) -> RunningNode {
        self.start_relay_at("127.0.0.1:0", extra)
    }

    /// Starts a relay that serves HTTP at `http`.
    #[track_caller]
    pub fn start_relay_at(&self, http: &str, extra: &[&str]) -> RunningNode {
        let mut command = self.command(&["relay", "--listen", "127.0.0.1:0", "--http", http]);
        command.args(extra);
        RunningNode::start(self.name, command)
    }

    /// Starts a node that cannot make a file larger than `bytes`, as on a disk that is full then.
    #[cfg(target_os = "linux")]
    #[track_caller]
    pub fn start_cramped_node(&self, bytes: u64) -> RunningNode {
        self.start_cramped(bytes, &["node", "--listen", "127.0.0.1:0"])
    }

    /// The same, as a relay.
    #[cfg(target_os = "linux")]
    #[track_caller]
    pub fn start_cramped_relay(&self, bytes: u64) -> RunningNode {
        self.start_cramped(bytes, &["relay", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"])
    }

    #[cfg(target_os = "linux")]
    #[track_caller]
    fn start_cramped(&self, bytes: u64, arguments: &[&str]) -> RunningNode {
        // Ignored, the signal of that limit becomes an error, as a full disk is one.
        let mut command = Command::new("sh");
        command.args(["-c", r#"trap "" XFSZ; exec prlimit --fsize="$0": -- "$@""#, &bytes.to_string()]);
        command.arg(env!("CARGO_BIN_EXE_thence")).arg("--data").arg(self.data());
        command.args(arguments);
        RunningNode::start(self.name, command)
    }

    /// Starts `thence watch`.
    #[track_caller]
    pub fn watch(&self, space: &str, extra: &[&str]) -> Watch {
        let mut command = self.command(&["watch", space]);
        command.args(extra);
        Watch::start(command)
    }

    /// The position of the newest change of `space`. Needs a running node, and writes a marker to find out.
    #[track_caller]
    pub fn position(&self, space: &str) -> String {
        let mut watch = self.watch(space, &[]);
        let mut attempt = 0;
        let mut position = None;
        // Whether a watch without `--from` starts at the beginning or with the next change: a marker that is
        // written often enough comes after its start.
        eventually(PATIENCE, "the watch shows a marker", || {
            attempt += 1;
            let marker = format!(r#"{{"attempt":{attempt}}}"#);
            self.ok(&["put", space, "markers", "position", &marker]);
            while let Some(change) = watch.next_within(Duration::from_millis(500)) {
                if change["key"] == "position" && change["fields"]["attempt"] == attempt {
                    position = Some(position_of(&change));
                    return true;
                }
            }
            false
        });
        position.expect("set before eventually returns")
    }

    /// The changes of `space` after `position`, in order. Needs a running node, and writes a marker as the last.
    #[track_caller]
    pub fn changes_since(&self, space: &str, position: &str) -> Vec<Value> {
        self.ok(&["put", space, "markers", "end", &format!(r#"{{"after":{position:?}}}"#)]);
        let mut watch = self.watch(space, &["--from", position]);
        let mut changes = Vec::new();
        loop {
            let change = watch.next(PATIENCE);
            if change["collection"] == "markers" && change["key"] == "end" {
                return changes;
            }
            changes.push(change);
        }
    }
}

/// The position of a line of `watch`, as it is given back with `--from`.
pub fn position_of(change: &Value) -> String {
    match &change["position"] {
        Value::String(text) => text.clone(),
        Value::Null => panic!("a change without a position: {change}"),
        number => number.to_string(),
    }
}

/// The lines of an export, as objects by collection and key.
#[track_caller]
pub fn parse_export(export: &str) -> BTreeMap<(String, String), Value> {
    let mut objects = BTreeMap::new();
    for line in export.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in line {line}"));
        let text = |member: &str| line[member].as_str().unwrap_or_else(|| panic!("no {member} in {line}")).to_owned();
        let before = objects.insert((text("collection"), text("key")), line["fields"].clone());
        assert!(before.is_none(), "exported twice: {line}");
    }
    objects
}
