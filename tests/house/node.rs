//! Processes that go on: nodes and watches.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::command::{Collected, collect, describe};
use super::{COMMAND_TIME_MAX, DONE};

/// A node as a child process. Dropping it kills it.
pub struct RunningNode {
    name: &'static str,
    child: Child,
    device: String,
    address: SocketAddr,
    /// Where it serves HTTP, if it is a relay.
    url: Option<String>,
    stdout: Option<thread::JoinHandle<()>>,
    stderr: Collected,
}

impl RunningNode {
    #[track_caller]
    pub(super) fn start(name: &'static str, mut command: Command) -> Self {
        let what = describe(&command);
        let is_relay = command.get_args().any(|argument| argument == "relay");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("`{what}` did not start: {error}"));
        let stderr = collect(child.stderr.take().expect("stderr is piped"));
        let (lines, stdout) = read_lines(child.stdout.take().expect("stdout is piped"));

        let ready = lines.recv_timeout(COMMAND_TIME_MAX);
        let parsed = ready.as_deref().ok().and_then(|line| {
            let mut words = line.split(' ');
            let (word, device, address) = (words.next()?, words.next()?, words.next()?);
            let url = words.next().map(str::to_owned);
            (word == "ready" && words.next().is_none() && url.is_some() == is_relay).then_some(())?;
            Some((device.to_owned(), address.parse().ok()?, url))
        });
        let Some((device, address, url)) = parsed else {
            let _ = child.kill();
            let _ = child.wait();
            panic!(
                "{name}: `{what}` said {ready:?} first, not `ready DEVICE_ID ADDR:PORT` and a relay's URL\n{}",
                stderr.text()
            );
        };
        Self { name, child, device, address, url, stdout: Some(stdout), stderr }
    }

    /// The number of its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where a relay serves HTTP: `http://ADDR:PORT`.
    #[track_caller]
    pub fn url(&self) -> &str {
        self.url.as_deref().expect("a relay")
    }

    /// The address in that.
    #[track_caller]
    pub fn http(&self) -> SocketAddr {
        let address = self.url().split_once("://").and_then(|(_, address)| address.parse().ok());
        address.unwrap_or_else(|| panic!("no address in {}", self.url()))
    }

    /// The device id that it printed.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// `DEVICE_ID@ADDR:PORT`, as peers are given.
    pub fn peer(&self) -> String {
        self.peer_at(self.address)
    }

    /// The same device at another address, say of a proxy.
    pub fn peer_at(&self, address: SocketAddr) -> String {
        format!("{}@{address}", self.device)
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.stderr.text()
    }

    /// Lifts the limit of [`super::Device::start_cramped_node`]: there is room again.
    #[cfg(target_os = "linux")]
    #[track_caller]
    pub fn make_room(&self) {
        let pid = self.child.id().to_string();
        let status = Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).status();
        assert!(status.is_ok_and(|status| status.success()), "prlimit of util-linux is needed");
    }

    /// Asks it to drain and expects exit 0. Returns what it has logged.
    #[track_caller]
    pub fn terminate(self) -> String {
        self.stop_with("TERM")
    }

    /// Sends the signal and expects the node to drain and exit 0. Returns what it has logged.
    #[track_caller]
    pub fn stop_with(mut self, signal: &str) -> String {
        send_signal(self.child.id(), signal);
        let ended = self.stderr.ended_before(Instant::now() + COMMAND_TIME_MAX);
        assert!(
            ended,
            "{}: the node did not drain within {COMMAND_TIME_MAX:?} of SIG{signal}\n{}",
            self.name,
            self.log()
        );
        let status = self.wait();
        assert_eq!(status.code(), Some(DONE), "{}: SIG{signal} should drain and exit 0\n{}", self.name, self.log());
        self.log()
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        self.wait();
    }

    fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().expect("a child can be waited for");
        if let Some(stdout) = self.stdout.take() {
            let _ = stdout.join();
        }
        status
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        if thread::panicking() && !log.trim().is_empty() {
            eprintln!("-- the node of {} had logged\n{log}", self.name);
        }
    }
}

/// Sends a signal by name.
#[track_caller]
pub fn send_signal(process: u32, signal: &str) {
    let status = Command::new("sh").arg("-c").arg(format!("kill -{signal} {process}")).status();
    assert!(status.is_ok_and(|status| status.success()), "SIG{signal} could not be sent to {process}");
}

/// Lines of a pipe as they come. The thread goes on reading when nobody listens any more.
fn read_lines(pipe: impl Read + Send + 'static) -> (Receiver<String>, thread::JoinHandle<()>) {
    let (send, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    (lines, reader)
}

/// A running `thence watch`. Dropping it kills it.
pub struct Watch {
    child: Child,
    lines: Receiver<String>,
    stderr: Collected,
}

impl Watch {
    #[track_caller]
    pub(super) fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let stderr = collect(child.stderr.take().expect("stderr is piped"));
        let (lines, _) = read_lines(child.stdout.take().expect("stdout is piped"));
        Self { child, lines, stderr }
    }

    /// The next change; the test fails when there is none.
    #[track_caller]
    pub fn next(&mut self, patience: Duration) -> Value {
        let change = self.next_within(patience);
        change.unwrap_or_else(|| panic!("no further change was watched\n{}", self.stderr.text()))
    }

    /// The next change, if one comes in time.
    #[track_caller]
    pub fn next_within(&mut self, patience: Duration) -> Option<Value> {
        let line = self.lines.recv_timeout(patience).ok()?;
        Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in watched line {line}")))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
