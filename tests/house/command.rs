//! Commands that end: run in bounded time, and judged by what they said.

use std::fmt::Write as _;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{FAILED, USAGE};

/// The binary, with none of the settings of whoever runs the tests.
pub fn thence() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thence"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("THENCE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub(super) what: String,
}

impl Outcome {
    /// Asserts the exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "exit code of `{}`\n-- stdout\n{}\n-- stderr\n{}",
            self.what,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Asserts that the request was refused with an explanation, where the contract leaves open whether that is a
    /// failure (1) or wrong usage (2).
    #[track_caller]
    pub fn refused(self) -> Self {
        assert!(
            matches!(self.code, Some(FAILED | USAGE)),
            "`{}` should have been refused with 1 or 2, but ended with {:?}\n-- stdout\n{}\n-- stderr\n{}",
            self.what,
            self.code,
            self.stdout,
            self.stderr
        );
        assert!(!self.stderr.trim().is_empty(), "`{}` was refused without a word", self.what);
        self
    }

    /// Asserts that stderr holds `text`, whatever the case of its letters.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.to_lowercase().contains(&text.to_lowercase()),
            "`{}` should have said {text:?} on stderr, but said\n{}",
            self.what,
            self.stderr
        );
        self
    }

    /// The one JSON document on stdout.
    #[track_caller]
    pub fn document(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| {
            panic!("`{}` printed no single JSON document ({error}):\n{}", self.what, self.stdout)
        })
    }

    /// The members of `error` in the one JSON object on stderr, after checking that all of them are there.
    #[track_caller]
    pub fn error(&self) -> Value {
        let object: Value = serde_json::from_str(&self.stderr).unwrap_or_else(|error| {
            panic!("`{}`: stderr is not one JSON object ({error}):\n{}", self.what, self.stderr)
        });
        let error = object["error"].clone();
        assert!(!error["code"].is_null(), "`{}`: no error.code in {object}", self.what);
        for member in ["message", "help"] {
            let said = error[member].as_str().unwrap_or_default();
            assert!(!said.trim().is_empty(), "`{}`: no error.{member} in {object}", self.what);
        }
        error
    }
}

/// Runs `command` to its end, or kills it after `time_max` and fails the test.
#[track_caller]
pub fn finish(mut command: Command, time_max: Duration) -> Outcome {
    let what = describe(&command);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("`{what}` did not start: {error}"));
    let stderr = collect(child.stderr.take().expect("stderr is piped"));
    let stdout = collect(child.stdout.take().expect("stdout is piped"));

    let deadline = Instant::now() + time_max;
    let said = stdout.ended_before(deadline) && stderr.ended_before(deadline);
    if !said {
        let _ = child.kill();
        let _ = child.wait();
        panic!(
            "`{what}` did not return within {time_max:?}\n-- stdout\n{}\n-- stderr\n{}",
            stdout.text(),
            stderr.text()
        );
    }
    let status = child.wait().expect("a child can be waited for");
    Outcome { code: status.code(), stdout: stdout.text(), stderr: stderr.text(), what }
}

pub(super) fn describe(command: &Command) -> String {
    let mut text = String::from("thence");
    for argument in command.get_args() {
        let argument = argument.to_string_lossy();
        let shown: String = argument.chars().take(120).collect();
        let _ = write!(text, " {shown}{}", if shown.len() < argument.len() { "…" } else { "" });
    }
    text
}

/// What a pipe has said so far, gathered by a thread so that the child never blocks on it.
pub(super) struct Collected {
    text: Arc<Mutex<Vec<u8>>>,
    ended: Receiver<()>,
}

impl Collected {
    pub(super) fn ended_before(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        !matches!(self.ended.recv_timeout(left), Err(RecvTimeoutError::Timeout))
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().expect("no reader panics")).into_owned()
    }
}

pub(super) fn collect(mut pipe: impl Read + Send + 'static) -> Collected {
    let text = Arc::new(Mutex::new(Vec::new()));
    let (end, ended) = mpsc::channel();
    let gathered = Arc::clone(&text);
    thread::spawn(move || {
        let mut piece = [0; 16 * 1024];
        while let Ok(count @ 1..) = pipe.read(&mut piece) {
            gathered.lock().expect("no reader panics").extend_from_slice(&piece[..count]);
        }
        drop(end);
    });
    Collected { text, ended }
}
