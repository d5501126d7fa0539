//! What the process tests share: devices with a folder of their own, nodes as child processes, watches, and (in
//! [`proxy`]) a network that misbehaves on demand.
//!
//! Every command has a bounded time: one that does not return is killed, and the test fails with what it had said.
//! Nothing here waits by sleeping: commands that block (`sync`, `watch`) do the waiting, and where the program
//! offers none, [`eventually`] asks again until a deadline that is only there to end a broken test.

#![allow(dead_code, unused_imports, reason = "each test file uses its own part of the house")]

mod command;
mod device;
mod http;
mod node;
pub mod proxy;
mod rows;

use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

pub use command::{Outcome, finish, thence};
pub use device::{Device, parse_export, position_of};
pub use http::{Http, HttpAnswer, request};
pub use node::{RunningNode, Watch, send_signal};
pub use rows::{Dice, bytes_of, made_up_rows, read_rows, rows, write_rows};

/// How long one command may take before the test gives up on it. No test measures time against this.
pub const COMMAND_TIME_MAX: Duration = Duration::from_secs(90);

/// How long [`eventually`] and [`Watch::next`] usually wait.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Exit codes of the contract.
pub const DONE: i32 = 0;
pub const FAILED: i32 = 1;
pub const USAGE: i32 = 2;
pub const TIMED_OUT: i32 = 3;
pub const NOT_FOUND: i32 = 4;

/// The space of most stories.
pub const ATLAS: &str = "atlas";

/// A device, no node, with the space [`ATLAS`].
#[track_caller]
pub fn alone() -> Device {
    let device = Device::new("A");
    device.ok(&["space", "create", ATLAS]);
    device
}

/// The same with one object, `places/fez`.
#[track_caller]
pub fn alone_with_fez() -> Device {
    let device = alone();
    device.ok(&["put", ATLAS, "places", "fez", r#"{"name":"Fez","people":1}"#]);
    device
}

/// Lets each guest sync until all of them, and whoever they know, know the same. Two rounds: in the first everything
/// reaches the middle, in the second it comes back.
#[track_caller]
pub fn settle(guests: &[&Device]) {
    for _ in 0..2 {
        for guest in guests {
            guest.ok(&["sync"]);
        }
    }
}

/// Asserts that a command prints the same bytes on all devices, and returns them.
#[track_caller]
pub fn same<A: AsRef<OsStr>>(devices: &[&Device], arguments: &[A]) -> String {
    let (first, others) = devices.split_first().expect("devices");
    let expected = first.ok(arguments);
    for other in others {
        let found = other.ok(arguments);
        if found != expected {
            let differing = expected.lines().zip(found.lines()).find(|(left, right)| left != right);
            panic!(
                "{} and {} differ ({} and {} lines); first difference: {differing:#?}",
                first.name(),
                other.name(),
                expected.lines().count(),
                found.lines().count()
            );
        }
    }
    expected
}

/// The same with `--json`, as one document.
#[track_caller]
pub fn same_json(devices: &[&Device], arguments: &[&str]) -> Value {
    let mut all = vec!["--json"];
    all.extend(arguments);
    let text = same(devices, &all);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// Asks again and again until `condition` holds. For what no command of the program waits for.
#[track_caller]
pub fn eventually(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "still not so after {patience:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a command that must not succeed, and asserts that it changed nothing in any space.
#[track_caller]
pub fn changes_nothing(device: &Device, arguments: &[&str]) -> Outcome {
    let state = || -> Vec<(Value, String)> {
        let status = device.json(&["status"]);
        let spaces = status["spaces"].as_array().unwrap_or_else(|| panic!("no spaces in {status}"));
        let id = |space: &Value| space["id"].as_str().expect("a space has an id").to_owned();
        spaces.iter().map(|space| (space["vector"].clone(), device.ok(&["export", &id(space)]))).collect()
    };
    let before = state();
    let outcome = device.run(arguments);
    assert_ne!(outcome.code, Some(DONE), "{arguments:?} should have been refused");
    assert!(state() == before, "{arguments:?} was refused, and yet it changed something");
    outcome
}

/// An address at which a node can be started again: outside of the ports that systems hand out by themselves, and kept
/// from other tests, while the node is down, by holding the TCP port of the same number for as long as this test runs.
pub fn lasting_address() -> SocketAddr {
    let start = std::process::id().wrapping_mul(17) % 10_000;
    for offset in 0..10_000 {
        let port = 18_000 + ((start + offset) % 10_000) as u16;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if let Ok(hold) = TcpListener::bind(address)
            && UdpSocket::bind(address).is_ok()
        {
            std::mem::forget(hold);
            return address;
        }
    }
    panic!("no port is free");
}

/// Three devices of one person in one space: A listens at a lasting address, B and C know it.
pub struct Trio {
    pub a: Device,
    pub b: Device,
    pub c: Device,
    address: SocketAddr,
    nodes: Vec<RunningNode>,
}

impl Trio {
    /// Three running nodes with the empty space `space`, which A created.
    #[track_caller]
    pub fn meet(space: &str) -> Self {
        let mut trio = Self::strangers();
        trio.a.ok(&["space", "create", space]);
        trio.start();
        trio.a.share(space, "owner", &trio.b);
        trio.a.share(space, "owner", &trio.c);
        trio.settle();
        trio
    }

    fn strangers() -> Self {
        let (a, b, c) = (Device::new("A"), Device::new("B"), Device::new("C"));
        Self { a, b, c, address: lasting_address(), nodes: Vec::new() }
    }

    /// All three.
    pub fn all(&self) -> [&Device; 3] {
        [&self.a, &self.b, &self.c]
    }

    #[track_caller]
    fn start(&mut self) {
        self.nodes.push(self.a.start_node_at(self.address, &[]));
        self.nodes.push(self.b.start_node(&[]));
        self.nodes.push(self.c.start_node(&[]));
    }

    /// Everything that anyone knows reaches everyone.
    #[track_caller]
    pub fn settle(&self) {
        settle(&[&self.b, &self.c]);
    }

    /// All nodes stop: what is written now is written offline.
    #[track_caller]
    pub fn part(&mut self) {
        for node in self.nodes.drain(..) {
            node.terminate();
        }
    }

    /// The nodes come back and everything reaches everyone.
    #[track_caller]
    pub fn meet_again(&mut self) {
        self.start();
        self.settle();
    }

    /// The export, byte-identical on all three.
    #[track_caller]
    pub fn export(&self, space: &str) -> String {
        same(&self.all(), &["export", space])
    }
}
