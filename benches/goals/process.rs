//! Errands that need a process of their own: what a fresh start takes, and how much memory one node uses.
//!
//! The bench starts itself with `errand NAME …`; what the errand found comes back as one line of JSON.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use thence::model::SignedTicket;

use crate::Outcome;
use crate::device;
use crate::floor::disk::Disk;
use crate::rounds::us;
use crate::rows::{self, COLLECTION};

/// Something to do in a process of its own.
pub struct Errand {
    name: String,
    arguments: Vec<String>,
}

impl Errand {
    /// An errand with what it needs.
    pub fn new(name: &str, arguments: &[&str]) -> Self {
        Self { name: name.to_owned(), arguments: arguments.iter().map(|&argument| argument.to_owned()).collect() }
    }

    /// The one that this process was started for, if it was.
    pub fn from_arguments() -> Option<Self> {
        let mut arguments = std::env::args().skip(1);
        (arguments.next()? == "errand").then_some(())?;
        Some(Self { name: arguments.next()?, arguments: arguments.collect() })
    }

    /// Lets another process do it, to its end.
    pub fn send(&self) -> Outcome<Value> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("errand").arg(&self.name).args(&self.arguments).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.output()?;
        let said = String::from_utf8(output.stdout)?;
        serde_json::from_str(&said).map_err(|_| format!("the errand {} failed: {said}", self.name).into())
    }

    fn argument(&self, at: usize) -> Outcome<&str> {
        Ok(self.arguments.get(at).ok_or("an errand without what it needs")?)
    }

    /// Does it here.
    pub async fn run(self) -> Outcome<()> {
        let path = Path::new(self.argument(0)?);
        let found = match self.name.as_str() {
            "open" => {
                let started = Instant::now();
                let node = device::open(path, false).await?;
                let space = node.space(node.find_space("notes")?)?;
                let found = space.get(COLLECTION, self.argument(1)?)?.ok_or("the row is not there")?;
                let taken = started.elapsed();
                let memory = memory_bytes("VmRSS")?;
                assert_eq!(found.fields.len(), 1, "a row has one field");
                // In good order, or the next one to open it would measure a repair.
                device::close(node, space).await;
                json!({ "us": us(taken), "memory_bytes": memory })
            }
            "open-floor" => {
                let started = Instant::now();
                let disk = Disk::open(path)?;
                disk.get(self.argument(1)?.as_bytes())?.ok_or("the row is not there")?;
                json!({ "us": us(started.elapsed()), "memory_bytes": memory_bytes("VmRSS")? })
            }
            "write" => {
                let node = device::open(path, false).await?;
                let space = node.space(node.find_space("notes")?)?;
                space.write(rows::put([0], 1)?).await?;
                println!("{}", json!({}));
                // As if it were killed: nothing is closed and nothing is dropped.
                std::process::exit(9);
            }
            "write-floor" => {
                let disk = Disk::open(path)?;
                disk.commit(&crate::floor::disk::rows_of([0], 1))?;
                println!("{}", json!({}));
                std::process::exit(9);
            }
            "receive" => {
                let ticket: SignedTicket = self.argument(1)?.parse()?;
                let count: u64 = self.argument(2)?.parse()?;
                let node = device::open(path, true).await?;
                let space = node.space(node.join(&ticket).await?)?;
                device::sync(&node).await?;
                let memory = memory_bytes("VmHWM")?;
                rows::verify(&space, count, |_| 0)?;
                json!({ "memory_bytes": memory })
            }
            other => return Err(format!("there is no errand {other}").into()),
        };
        println!("{found}");
        Ok(())
    }
}

/// A figure of `/proc/self/status`, such as the greatest memory so far (`VmHWM`).
fn memory_bytes(name: &str) -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()).ok_or("no such figure")?;
    Ok(kilobytes.parse::<u64>()? * 1024)
}

/// How many bytes this process has handed to the system for writing so far, files and pipes.
pub fn written_bytes() -> Outcome<u64> {
    let counted = std::fs::read_to_string("/proc/self/io")?;
    let line = counted.lines().find_map(|line| line.strip_prefix("wchar: "));
    Ok(line.ok_or("no such figure")?.trim().parse()?)
}
