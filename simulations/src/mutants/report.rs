//! All hunts, or a sample of them, and a row for each.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::{Catch, CaughtIn, Hunted, Mutant, all, find, hunt, is_possible};

/// How many hunts go on at once.
const THREADS: usize = 2;

/// `count` mutants spread over all of them. With every step of `from` they are others.
pub fn sample(count: usize, from: u64) -> Vec<&'static Mutant> {
    let all: Vec<_> = all().collect();
    let count = count.clamp(1, all.len());
    let first = usize::try_from(from % all.len() as u64).unwrap_or_default();
    (0..count).map(|at| all[(first + at * all.len() / count) % all.len()]).collect()
}

/// A number that the checked-out commit decides; 0 where there is none.
pub fn commit_number() -> u64 {
    let head = Command::new("git").args(["rev-parse", "HEAD"]).output();
    let head = head.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    head.get(..8).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default()
}

/// Hunts those of these names, or a sample, or all. Rows and the result go to stdout, the rest to stderr. Returns
/// whether all were caught.
pub fn run(sample_size: Option<usize>, from: Option<u64>, names: &[String]) -> Result<bool, String> {
    let mutants = match sample_size {
        Some(count) => sample(count, from.unwrap_or_else(commit_number)),
        None if names.is_empty() => all().collect(),
        None => names.iter().map(|name| find(name)).collect::<Result<_, _>>()?,
    };
    is_possible().map_err(|error| error.to_string())?;
    let hunted = hunt_all(&mutants);
    let width = mutants.iter().map(|mutant| mutant.name.len()).max().unwrap_or_default();
    for Hunted { mutant, catch, seeds, .. } in &hunted {
        let oracle = outcome(mutant, catch.as_ref());
        let place = match catch.as_ref().map(|catch| catch.world) {
            Some(CaughtIn::Regression(name)) => format!("regression {}", name.split('-').next().unwrap_or(name)),
            Some(CaughtIn::Seed(_)) | None => seeds.to_string(),
        };
        println!("{:width$}  {oracle:28} {place:>14}  {}", mutant.name, mutant.suffered);
    }
    for other in hunted.iter().filter(|hunted| hunted.catch.is_some() && !hunted.is_expected()) {
        eprintln!("{}: caught by another oracle than {:?}", other.mutant.name, other.mutant.oracles);
    }
    let caught = hunted.iter().filter_map(|hunted| hunted.catch.as_ref());
    let (mut needed, mut by_regressions): (Vec<u64>, usize) = (Vec::new(), 0);
    for catch in caught {
        match catch.world {
            CaughtIn::Seed(seed) => needed.push(seed),
            CaughtIn::Regression(_) => by_regressions += 1,
        }
    }
    needed.sort_unstable();
    let share =
        |of_hundred: usize| needed.get((needed.len().max(1) - 1) * of_hundred / 100).copied().unwrap_or_default();
    eprintln!("seeds needed: median {}, 95th percentile {}", share(50), share(95));
    let caught = needed.len() + by_regressions;
    eprintln!("caught by no seed, and by a regression: {by_regressions}");
    let unreachable: Vec<_> = mutants.iter().filter_map(|mutant| Some((mutant.name, mutant.out_of_reach?))).collect();
    unreachable.iter().for_each(|(name, why)| eprintln!("{name} is out of reach: {why}"));
    println!("{caught} of {} caught", mutants.len());
    Ok(caught + unreachable.len() == mutants.len())
}

/// The invariant that broke, or why there is none.
fn outcome(mutant: &Mutant, catch: Option<&Catch>) -> &'static str {
    let missed = if mutant.out_of_reach.is_some() { "out of reach" } else { "NOT CAUGHT" };
    catch.map_or(missed, |catch| catch.invariant)
}

/// The hunts' outcomes in the order of `mutants`.
fn hunt_all(mutants: &[&'static Mutant]) -> Vec<Hunted> {
    // Those that may take longest begin first, so that no thread is left with one of them at the end.
    let mut order: Vec<usize> = (0..mutants.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(mutants[*at].seeds));
    let next = AtomicUsize::new(0);
    let done: Mutex<BTreeMap<usize, Hunted>> = Mutex::default();
    // A mutant may well panic, which is one way of being caught: nobody needs to read of it.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Ok(hunted) = hunt(mutants[*at]) else { return };
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.insert(*at, hunted.clone());
                    let (done, all, Hunted { mutant, catch, seeds, took }) = (done.len(), mutants.len(), hunted);
                    let oracle = outcome(mutant, catch.as_ref());
                    eprintln!(
                        "{done}/{all} {}: {oracle} after {seeds} seeds, {:.1} s",
                        mutant.name,
                        took.as_secs_f64()
                    );
                }
            });
        }
    });
    std::panic::set_hook(hook);
    done.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}
