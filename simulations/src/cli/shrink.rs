//! `cargo sim shrink`: the smallest scenario that still fails in the same way.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::which::Which;
use crate::level::{Outcome, Worlds};
use crate::shrink::{PATIENCE, shrink_in};
use crate::world::{Scenario, Trace};

#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo sim shrink core:42                  writes core-42.scenario
  cargo sim shrink core:42 --seconds 300 --to small.scenario")]
pub(super) struct Shrink {
    #[command(flatten)]
    which: Which,
    /// Where to write it.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// How long to try.
    #[arg(long, value_name = "S", default_value_t = PATIENCE.as_secs())]
    seconds: u64,
}

impl Shrink {
    pub(super) fn run(&self, worlds: &dyn Worlds) -> Result<bool, String> {
        let scenario = self.which.scenario(worlds)?;
        let outcome = worlds.run(&scenario, &mut Trace::default());
        if outcome.violation.is_none() {
            println!("{} does not fail", self.which.what);
            return Ok(false);
        }
        let to = self.to.clone().unwrap_or_else(|| self.which.beside("scenario"));
        let begun = Instant::now();
        let small = shrunk(worlds, &scenario, &outcome, Duration::from_secs(self.seconds));
        write_scenario(worlds, &small, &to)?;
        let (left, of, seconds) = (small.items.len(), scenario.items.len(), begun.elapsed().as_secs_f64());
        println!("{left} items of {of} are left in {}, after {seconds:.1} s", to.display());
        Ok(true)
    }
}

/// Shrinks without a word: of the many worlds that it takes, those that end in a panic would each say so.
pub(super) fn shrunk(worlds: &dyn Worlds, scenario: &Scenario, outcome: &Outcome, patience: Duration) -> Scenario {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let small = shrink_in(worlds, scenario, outcome, patience);
    std::panic::set_hook(hook);
    small
}

/// Writes a scenario, with what is broken in it above.
pub(super) fn write_scenario(worlds: &dyn Worlds, scenario: &Scenario, to: &Path) -> Result<(), String> {
    let broken = worlds.run(scenario, &mut Trace::default()).violation;
    let broken = broken.map(|violation| violation.to_string());
    let head = broken.iter().flat_map(|said| said.lines().take(1)).map(|line| format!("# {line}\n"));
    let text = head.collect::<String>() + &scenario.to_string();
    std::fs::write(to, text).map_err(|error| format!("cannot write {}: {error}", to.display()))
}
