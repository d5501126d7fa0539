//! `cargo sim soak`: fresh seeds of all levels, for as long as one likes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;

use super::commit;
use super::crew::{Crew, Job};
use super::draw::draw_to;
use super::kinds::{Kind, Kinds};
use super::shrink::write_scenario;
use crate::level::{Level, Outcome, Shape, Worlds};
use crate::oracles::Violation;
use crate::shrink::{PATIENCE, shrink_in};
use crate::world::{Chance, Scenario, Trace};

/// One world of so many is run twice.
const REPLAYED: u64 = 100;

/// So many kinds of failures are shrunk and drawn; more than that is one bug with many faces.
const KINDS_MAX: usize = 20;

/// What a world is called that was not the same twice.
const NOT_THE_SAME: &str = "the same twice";

#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo sim soak --minutes 480              a night
  cargo sim soak --minutes 5 --from-commit  what CI does: other seeds at each commit, and the same again")]
pub(super) struct Soak {
    /// How long.
    #[arg(long, value_name = "M")]
    minutes: u64,
    /// The first seed; taken from the clock if not given, and told.
    #[arg(long, value_name = "S")]
    from: Option<u64>,
    /// Take the first seed from the commit that is checked out.
    #[arg(long, conflicts_with = "from")]
    from_commit: bool,
    /// Where failures are written.
    #[arg(long, value_name = "FOLDER", default_value = "target/soak")]
    to: PathBuf,
}

/// A failure of a new kind.
struct Found {
    kind: Kind,
    seed: u64,
    violation: Violation,
    files: Result<Files, String>,
}

/// Where one finds it.
struct Files {
    items: usize,
    scenario: PathBuf,
    drawing: PathBuf,
}

impl Soak {
    pub(super) fn run(&self, worlds: &dyn Worlds) -> Result<bool, String> {
        let from = self.first_seed()?;
        std::fs::create_dir_all(&self.to).map_err(|error| format!("cannot make {}: {error}", self.to.display()))?;
        let until = Instant::now() + Duration::from_secs(60 * self.minutes);
        eprintln!("seeds from {from}, for {} min", self.minutes);
        // A panic is a failure like others, and told as one.
        std::panic::set_hook(Box::new(|_| {}));
        let crew = Crew::new(None, Some(until))?;
        // Every level gets the same time, not the same number of seeds.
        let spent: Mutex<BTreeMap<Level, (Duration, u64)>> =
            Mutex::new(worlds.levels().iter().map(|level| (*level, (Duration::ZERO, 0))).collect());
        let (kinds, replayed) = (Mutex::new(Kinds::new()), Mutex::new(0));
        let next = || {
            let mut spent = spent.lock().unwrap_or_else(PoisonError::into_inner);
            let (level, (_, count)) = spent.iter_mut().min_by_key(|(_, spent)| **spent)?;
            *count += 1;
            Some(Job { level: *level, seed: from.wrapping_add(*count - 1) })
        };
        let work = |Job { level, seed }| {
            let begun = Instant::now();
            let scenario = worlds.generate(level, seed, &Shape::default());
            let mut outcome = worlds.run(&scenario, &mut Trace::default());
            if Chance::new(seed).draw("replay", 0, 0).is_multiple_of(REPLAYED) {
                *replayed.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                check_same(worlds, &scenario, &mut outcome);
            }
            if let Some((time, _)) = spent.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&level) {
                *time += begun.elapsed();
            }
            let violation = outcome.violation.clone()?;
            let kind = Kind::of(level, &violation);
            let is_new = {
                let mut kinds = kinds.lock().unwrap_or_else(PoisonError::into_inner);
                let is_new = !kinds.contains_key(&kind) && kinds.len() < KINDS_MAX;
                kinds.entry(kind.clone()).or_default().push(seed);
                is_new
            };
            let files = is_new.then(|| self.keep(worlds, &scenario, &outcome, level, seed));
            Some((kind, violation, files))
        };
        let (mut passed, mut failed, mut found) = (0_u64, 0_u64, Vec::new());
        let take = |Job { level, seed }, failure, crew: &Crew| {
            let Some((kind, violation, files)) = failure else {
                passed += 1;
                return true;
            };
            failed += 1;
            if let Some(files) = files {
                crew.say(&format!("{level}:{seed} {violation}"));
                found.push(Found { kind, seed, violation, files });
            }
            false
        };
        crew.run(next, work, take);
        let kinds = kinds.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (level, (time, count)) in spent.into_inner().unwrap_or_else(PoisonError::into_inner) {
            eprintln!("{level}: {count} worlds in {:.0} s of one core", time.as_secs_f64());
        }
        eprintln!("{} of them were run twice", replayed.into_inner().unwrap_or_else(PoisonError::into_inner));
        tell(&kinds, &found);
        println!("{passed} passed, {failed} failed");
        Ok(failed == 0)
    }

    fn first_seed(&self) -> Result<u64, String> {
        if self.from_commit {
            let commit = commit().ok_or("git does not say which commit is checked out; give --from instead")?;
            let digits = commit.get(..12).ok_or("git names a commit in a way that is not understood")?;
            return u64::from_str_radix(digits, 16).map_err(|error| format!("{commit}: {error}"));
        }
        let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_secs());
        // So far apart that two soaks that are begun in two seconds have no seed in common.
        Ok(self.from.unwrap_or_else(|| now() << 24))
    }

    /// Shrinks and draws a failure.
    fn keep(
        &self,
        worlds: &dyn Worlds,
        scenario: &Scenario,
        outcome: &Outcome,
        level: Level,
        seed: u64,
    ) -> Result<Files, String> {
        let invariant = outcome.violation.as_ref().map_or("unknown", |violation| violation.invariant);
        let words: String = invariant.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        let name = format!("{level}-{words}-{seed}");
        // What was not the same twice need not fail again.
        let small = match invariant == NOT_THE_SAME {
            true => scenario.clone(),
            false => shrink_in(worlds, scenario, outcome, PATIENCE),
        };
        let (file, drawing) = (self.to.join(format!("{name}.scenario")), self.to.join(format!("{name}.html")));
        write_scenario(worlds, &small, &file)?;
        draw_to(worlds, &small, &format!("{level}:{seed}"), &drawing)?;
        Ok(Files { items: small.items.len(), scenario: file, drawing })
    }
}

/// Runs a world again, and compares.
fn check_same(worlds: &dyn Worlds, scenario: &Scenario, outcome: &mut Outcome) {
    let again = worlds.run(scenario, &mut Trace::default());
    if again.hash != outcome.hash && outcome.violation.is_none() {
        let (at, node) = (outcome.ended_at, None);
        let detail = "two runs of one scenario have other hashes".to_owned();
        outcome.violation = Some(Violation { invariant: NOT_THE_SAME, at, node, detail });
    }
}

fn tell(kinds: &Kinds, found: &[Found]) {
    if kinds.is_empty() {
        return;
    }
    println!("commit {}", commit().unwrap_or_else(|| "unknown".to_owned()));
    for (kind, seeds) in kinds {
        let Kind { level, invariant, .. } = kind;
        let some: Vec<String> = seeds.iter().take(8).map(|seed| format!("{level}:{seed}")).collect();
        println!("{level}, {invariant}: {} seeds, among them {}", seeds.len(), some.join(" "));
        for Found { seed, violation, files, .. } in found.iter().filter(|found| found.kind == *kind) {
            println!("  {level}:{seed} {}", violation.to_string().lines().next().unwrap_or_default());
            match files {
                Ok(Files { items, scenario, drawing }) => {
                    println!("  shrunk to {items} items: {}\n  drawn: {}", scenario.display(), drawing.display());
                }
                Err(message) => println!("  {message}"),
            }
        }
    }
}
