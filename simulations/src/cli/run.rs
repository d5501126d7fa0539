//! `cargo sim run`: worlds by seed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::crew::{Crew, Job};
use super::kinds::{Kind, Kinds};
use super::shape::ShapeArgs;
use super::{commit, hex};
use crate::level::{Level, Outcome, Worlds};
use crate::reach::Reach;
use crate::world::Trace;

/// The seeds of a level that are run if nobody says how many.
const SEEDS: u64 = 1000;

#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo sim run                                     1000 worlds of the level core
  cargo sim run --seed 42                           one world, and the hash of all that happened in it
  cargo sim run --seeds 5000 --faults crash,disk    only worlds whose only faults are these
  cargo sim run --level all --minutes 2 --reach     which faults struck in which phases of the protocol")]
pub(super) struct Run {
    /// How much of the node is real.
    #[arg(long, value_name = "LEVEL|all", default_value = "core")]
    level: String,
    /// How many seeds of each level; 1000 unless there is a time limit.
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, value_name = "S", default_value_t = 1)]
    from: u64,
    /// Only this seed.
    #[arg(long, value_name = "S", conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Stop after so many minutes, even if seeds are left.
    #[arg(long, value_name = "M")]
    minutes: Option<u64>,
    /// Count which faults struck in which phases of the protocol.
    #[arg(long)]
    reach: bool,
    /// One JSON object a world on stdout, before the last line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    shape: ShapeArgs,
}

/// What all worlds of one level came to.
#[derive(Default)]
struct Sum {
    worlds: u64,
    simulated_ms: u64,
    busy: Duration,
    messages: u64,
    events: u64,
    reach: Reach,
}

impl Run {
    pub(super) fn run(&self, worlds: &dyn Worlds) -> Result<bool, String> {
        let levels = levels(worlds, &self.level)?;
        let shape = self.shape.shape(worlds, &levels)?;
        let until = self.minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
        let seeds = self.seeds.or((self.minutes.is_none()).then_some(SEEDS));
        let (from, seeds) = self.seed.map_or((self.from, seeds), |seed| (seed, Some(1)));
        let crew = Crew::new(seeds.map(|seeds| seeds * levels.len() as u64), until)?;
        let mut numbers = 0..seeds.unwrap_or(u64::MAX);
        let mut turn = Vec::new();
        let next = || {
            if turn.is_empty() {
                let seed = from.wrapping_add(numbers.next()?);
                turn = levels.iter().rev().map(|level| Job { level: *level, seed }).collect();
            }
            turn.pop()
        };
        let work = |Job { level, seed }| {
            let begun = Instant::now();
            let mut trace = if self.reach { Trace::default().counting() } else { Trace::default() };
            let outcome = worlds.run(&worlds.generate(level, seed, &shape), &mut trace);
            (outcome, trace.into_reach(), begun.elapsed())
        };
        let mut sums: BTreeMap<Level, Sum> = BTreeMap::new();
        let mut kinds = Kinds::new();
        let take = |Job { level, seed }, (outcome, reach, busy): (Outcome, Option<Reach>, Duration), crew: &Crew| {
            let sum = sums.entry(level).or_default();
            sum.worlds += 1;
            sum.simulated_ms += outcome.ended_at;
            sum.busy += busy;
            sum.messages += outcome.messages;
            sum.events += outcome.events as u64;
            reach.iter().for_each(|reach| sum.reach.add(reach));
            if self.json {
                println!("{}", as_json(level, seed, &outcome));
            }
            if self.seed.is_some() {
                println!("trace {level}:{seed} {}", hex(&outcome.hash));
            }
            if let Some(violation) = &outcome.violation {
                crew.say(&format!("{level}:{seed} {violation}"));
                kinds.entry(Kind::of(level, violation)).or_default().push(seed);
            }
            outcome.violation.is_none()
        };
        crew.run(next, work, take);
        self.tell(worlds, &sums, &kinds);
        let failed = kinds.values().map(Vec::len).sum::<usize>() as u64;
        println!("{} passed, {failed} failed", sums.values().map(|sum| sum.worlds).sum::<u64>() - failed);
        Ok(failed == 0)
    }

    /// What people want to know besides: how fast, what failed, what to do next.
    fn tell(&self, worlds: &dyn Worlds, sums: &BTreeMap<Level, Sum>, kinds: &Kinds) {
        for (level, sum) in sums {
            let simulated = sum.simulated_ms / 1000;
            let per_second = u128::from(sum.simulated_ms) / sum.busy.as_millis().max(1);
            let (messages, events) = (sum.messages, sum.events);
            eprintln!(
                "{level}: {} worlds, {simulated} simulated s ({per_second} per s and core), {events} events, \
                 {messages} messages",
                sum.worlds
            );
            if self.reach {
                let faults: Vec<&str> = worlds.faults(*level).to_vec();
                println!("{level}: how often which fault struck in which phase\n{}", sum.reach.table(&faults));
            }
        }
        if kinds.is_empty() {
            return;
        }
        eprintln!("commit {}", commit().unwrap_or_else(|| "unknown".to_owned()));
        for (Kind { level, invariant, .. }, seeds) in kinds {
            let some: Vec<String> = seeds.iter().take(8).map(u64::to_string).collect();
            eprintln!("{level}, {invariant}: {} seeds, among them {}", seeds.len(), some.join(" "));
            let first = seeds.iter().min().copied().unwrap_or_default();
            eprintln!("  run next: {} draw {level}:{first}{}", worlds.command(), self.shape.repeat());
        }
    }
}

/// The levels that are meant.
fn levels(worlds: &dyn Worlds, named: &str) -> Result<Vec<Level>, String> {
    let all = worlds.levels();
    if named == "all" {
        return Ok(all.to_vec());
    }
    let found = all.iter().copied().find(|level| level.name() == named);
    let names: Vec<&str> = all.iter().map(|level| level.name()).collect();
    let missing = || format!("there is no level {named:?} here; there are {}, and all", names.join(", "));
    found.map(|level| vec![level]).ok_or_else(missing)
}

fn as_json(level: Level, seed: u64, outcome: &Outcome) -> serde_json::Value {
    let violation = outcome.violation.as_ref().map(|violation| {
        json!({
            "invariant": violation.invariant,
            "at_ms": violation.at,
            "node": violation.node,
            "detail": violation.detail,
        })
    });
    json!({
        "level": level.name(),
        "seed": seed,
        "hash": hex(&outcome.hash),
        "violation": violation,
        "ended_at_ms": outcome.ended_at,
        "events": outcome.events,
        "messages": outcome.messages,
    })
}
