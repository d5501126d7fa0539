//! `cargo sim draw`: one world as a page to look at.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;

use super::shrink::{shrunk, write_scenario};
use super::which::Which;
use crate::draw::page;
use crate::level::Worlds;
use crate::shrink::PATIENCE;
use crate::world::{Scenario, Trace};

#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo sim draw core:42                    shrinks it if it fails, and writes core-42.html and core-42.scenario
  cargo sim draw core:42 --whole            all of it
  cargo sim draw x.scenario --to x.html

The page is one file and needs no network: open it in a browser, or mail it.")]
pub(super) struct Draw {
    #[command(flatten)]
    which: Which,
    /// Do not shrink it first.
    #[arg(long)]
    whole: bool,
    /// Where to write the page.
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
    /// How long to shrink.
    #[arg(long, value_name = "S", default_value_t = PATIENCE.as_secs())]
    seconds: u64,
}

impl Draw {
    pub(super) fn run(&self, worlds: &dyn Worlds) -> Result<bool, String> {
        let begun = Instant::now();
        let to = self.to.clone().unwrap_or_else(|| self.which.beside("html"));
        let mut scenario = self.which.scenario(worlds)?;
        // A file is drawn as it is: somebody wrote it, or it was shrunk before.
        if !self.whole && !self.which.is_file() {
            let outcome = worlds.run(&scenario, &mut Trace::default());
            if outcome.violation.is_some() {
                let of = scenario.items.len();
                scenario = shrunk(worlds, &scenario, &outcome, Duration::from_secs(self.seconds));
                let file = to.with_extension("scenario");
                write_scenario(worlds, &scenario, &file)?;
                println!("{} items of {of} are left in {}", scenario.items.len(), file.display());
            }
        }
        let name = Path::new(&self.which.what).file_name().map(|name| name.to_string_lossy().into_owned());
        let fails = draw_to(worlds, &scenario, name.as_deref().unwrap_or(&self.which.what), &to)?;
        match &fails {
            Some(violation) => println!("failed: {violation}"),
            None => println!("everything holds in it"),
        }
        println!("drawn in {}, after {:.1} s", to.display(), begun.elapsed().as_secs_f64());
        Ok(true)
    }
}

/// Draws a scenario. Returns what is broken in it.
pub(super) fn draw_to(
    worlds: &dyn Worlds,
    scenario: &Scenario,
    name: &str,
    to: &Path,
) -> Result<Option<String>, String> {
    let mut trace = Trace::default().recording();
    let outcome = worlds.run(scenario, &mut trace);
    let Some(mut story) = trace.into_story() else { return Err("nothing was recorded".to_owned()) };
    // A level that records nothing leaves what is known without it.
    story.violation.clone_from(&outcome.violation);
    story.ended_at = outcome.ended_at;
    std::fs::write(to, page(name, scenario, &story))
        .map_err(|error| format!("cannot write {}: {error}", to.display()))?;
    Ok(outcome.violation.map(|violation| story.in_names(&violation.to_string())))
}
