//! `cargo sim soak`: fresh seeds of all levels, for as long as one likes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;

use super::commit;
use super::crew::{Crew, Job, lock};
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

/// What it has come to so far.
struct Tally {
    /// By level: how long its worlds took, and how many were begun.
    spent: BTreeMap<Level, (Duration, u64)>,
    kinds: Kinds,
    replayed: u64,
}

impl Tally {
    /// Every level gets the same time, not the same number of seeds.
    fn next(&mut self, from: u64) -> Option<Job> {
        let (level, (_, count)) = self.spent.iter_mut().min_by_key(|(_, spent)| **spent)?;
        *count += 1;
        Some(Job { level: *level, seed: from.wrapping_add(*count - 1) })
    }

    fn spend(&mut self, level: Level, time: Duration, is_replayed: bool) {
        self.spent.entry(level).or_default().0 += time;
        self.replayed += u64::from(is_replayed);
    }

    /// Takes in a failure. Returns whether nothing like it was seen before.
    fn is_new(&mut self, kind: &Kind, seed: u64) -> bool {
        let is_new = !self.kinds.contains_key(kind) && self.kinds.len() < KINDS_MAX;
        self.kinds.entry(kind.clone()).or_default().push(seed);
        is_new
    }
}

impl Soak {
    pub(super) fn run(&self, worlds: &dyn Worlds) -> Result<bool, String> {
        let from = self.first_seed()?;
        std::fs::create_dir_all(&self.to).map_err(|error| format!("cannot make {}: {error}", self.to.display()))?;
        eprintln!("seeds from {from}, for {} min", self.minutes);
        let crew = Crew::new(None, Some(Instant::now() + Duration::from_secs(60 * self.minutes)))?;
        // A panic is a failure like others, and told as one.
        std::panic::set_hook(Box::new(|_| {}));
        let spent = worlds.levels().iter().map(|level| (*level, Default::default())).collect();
        let tally = Mutex::new(Tally { spent, kinds: Kinds::new(), replayed: 0 });
        let (mut passed, mut failed, mut found) = (0_u64, 0_u64, Vec::new());
        crew.run(
            || lock(&tally).next(from),
            |job| self.try_one(worlds, job, &tally),
            |Job { level, seed }, failure: Option<Option<Found>>, crew| {
                let Some(new) = failure else {
                    passed += 1;
                    return true;
                };
                failed += 1;
                if let Some(new) = new {
                    crew.say(&format!("{level}:{seed} {}", new.violation));
                    found.push(new);
                }
                false
            },
        );
        let Tally { spent, kinds, replayed } = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (level, (time, count)) in spent {
            eprintln!("{level}: {count} worlds in {:.0} s of one core", time.as_secs_f64());
        }
        eprintln!("{replayed} of them were run twice");
        tell(&kinds, &found);
        println!("{passed} passed, {failed} failed");
        Ok(failed == 0)
    }

    /// Runs one world. Returns whether it failed; and if it did in a new way, all of that.
    fn try_one(&self, worlds: &dyn Worlds, job: Job, tally: &Mutex<Tally>) -> Option<Option<Found>> {
        let Job { level, seed } = job;
        let begun = Instant::now();
        let scenario = worlds.generate(level, seed, &Shape::default());
        let mut outcome = worlds.run(&scenario, &mut Trace::default());
        let is_replayed = Chance::new(seed).draw("replay", 0, 0).is_multiple_of(REPLAYED);
        if is_replayed {
            check_same(worlds, &scenario, &mut outcome);
        }
        lock(tally).spend(level, begun.elapsed(), is_replayed);
        let violation = outcome.violation.clone()?;
        let kind = Kind::of(level, &violation);
        let is_new = lock(tally).is_new(&kind, seed);
        let found = is_new.then(|| {
            let files = self.keep(worlds, &scenario, &outcome, job);
            Found { kind, seed, violation, files }
        });
        Some(found)
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
    fn keep(&self, worlds: &dyn Worlds, scenario: &Scenario, outcome: &Outcome, job: Job) -> Result<Files, String> {
        let Job { level, seed } = job;
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
