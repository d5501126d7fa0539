//! `cargo sim replay`: one world twice.

use clap::Args;

use super::hex;
use super::which::Which;
use crate::level::Worlds;
use crate::world::Trace;

#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo sim replay core:42
  cargo sim replay core:42 --tell 2>&1 | less
  cargo sim replay simulations/regressions/001-landed-commit.scenario")]
pub(super) struct Replay {
    #[command(flatten)]
    which: Which,
    /// The hash that it must have, instead of running it twice.
    #[arg(long, value_name = "HASH")]
    expect: Option<String>,
    /// Tell what happens, on stderr.
    #[arg(long)]
    tell: bool,
}

impl Replay {
    pub(super) fn run(&self, worlds: &dyn Worlds) -> Result<bool, String> {
        let scenario = self.which.scenario(worlds)?;
        let first = worlds.run(&scenario, &mut Trace::new(self.tell));
        println!("trace {} {}", self.which.what, hex(&first.hash));
        let (against, other) = match &self.expect {
            Some(hash) => ("the hash that was expected", hash.to_lowercase()),
            None => ("a second run", hex(&worlds.run(&scenario, &mut Trace::default()).hash)),
        };
        let agrees = hex(&first.hash) == other;
        if let Some(violation) = &first.violation {
            println!("failed: {violation}");
        }
        println!("{} with {against}", if agrees { "agrees" } else { "does not agree" });
        Ok(agrees && first.violation.is_none())
    }
}
