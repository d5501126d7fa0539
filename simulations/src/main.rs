//! `cargo sim`: runs, replays and shrinks simulations.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use simulations::core::FAULTS;
use simulations::level::{Level, Outcome, Shape, run};
use simulations::shrink::shrink;
use simulations::store::crash_points;
use simulations::world::Scenario;

/// Deterministic simulation of thence.
#[derive(Parser)]
#[command(name = "cargo sim", bin_name = "cargo sim")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs worlds by seed.
    Run(RunArgs),
    /// Runs one world twice, or against a hash, and says whether they agree.
    Replay {
        /// LEVEL:SEED, or a scenario file.
        what: String,
        /// The hash that it must have.
        #[arg(long, value_name = "HASH")]
        expect: Option<String>,
        /// Tell what happens.
        #[arg(long)]
        tell: bool,
        #[command(flatten)]
        shape: ShapeArgs,
    },
    /// Ends the process at every operation on the disk in small stories, and looks at what is left.
    Crashes {
        /// Decides what is torn how.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Only every so many operations.
        #[arg(long, default_value_t = 1)]
        every: usize,
    },
    /// Writes the smallest scenario that still fails in the same way.
    Shrink {
        /// LEVEL:SEED, or a scenario file.
        what: String,
        /// Where to write it.
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
        #[command(flatten)]
        shape: ShapeArgs,
    },
}

#[derive(Args)]
struct RunArgs {
    /// How much of the node is real.
    #[arg(long, default_value = "core")]
    level: Level,
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Only this seed.
    #[arg(long, conflicts_with_all = ["seeds", "from"])]
    seed: Option<u64>,
    /// Stop after so many minutes, even if seeds are left.
    #[arg(long)]
    minutes: Option<u64>,
    #[command(flatten)]
    shape: ShapeArgs,
}

/// What is not left to the seed.
#[derive(Args)]
struct ShapeArgs {
    /// How many nodes; drawn by the seed if not given.
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=16))]
    nodes: Option<u8>,
    /// Only these faults.
    #[arg(long, value_delimiter = ',', value_parser = FAULTS.to_vec())]
    faults: Option<Vec<String>>,
}

impl ShapeArgs {
    fn shape(&self) -> Shape {
        Shape { nodes: self.nodes.map(usize::from), faults: self.faults.clone() }
    }

    /// The same as arguments.
    fn repeat(&self) -> String {
        let nodes = self.nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
        let faults = self.faults.as_ref().map(|faults| format!(" --faults {}", faults.join(","))).unwrap_or_default();
        nodes + &faults
    }
}

fn main() -> ExitCode {
    hush_the_engine();
    let result = match Cli::parse().command {
        Command::Run(args) => Ok(run_seeds(&args)),
        Command::Replay { what, expect, tell, shape } => replay(&what, &shape, expect.as_deref(), tell),
        Command::Crashes { seed, every } => Ok(crashes(seed, every)),
        Command::Shrink { what, to, shape } => shrink_to(&what, &shape, to),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

/// The storage engine panics on damaged files, and the store takes that for an answer: nobody need hear of it.
fn hush_the_engine() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|at| at.file().contains("/redb-")) {
            tell(panic);
        }
    }));
}

fn crashes(seed: u64, every: usize) -> bool {
    let started = Instant::now();
    let report = crash_points(seed, every);
    report.failures.iter().for_each(|failure| eprintln!("{failure}"));
    let (stories, operations) = (report.stories, report.operations);
    eprintln!("{:.1} s, {operations} operations in {stories} stories", started.elapsed().as_secs_f64());
    let (points, recovery_points) = (report.points, report.recovery_points);
    println!("{points} crashes and {recovery_points} more in recoveries, {} failed", report.failures.len());
    report.failures.is_empty()
}

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The commit that this was run on, if the repository can be asked.
fn commit() -> String {
    let asked = std::process::Command::new("git").args(["rev-parse", "--short", "HEAD"]).output();
    let said = asked.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    said.and_then(|said| String::from_utf8(said).ok()).map_or_else(|| "unknown".to_owned(), |s| s.trim().to_owned())
}

fn run_seeds(args: &RunArgs) -> bool {
    let level = args.level;
    let shape = args.shape.shape();
    let (from, count) = args.seed.map_or((args.from, args.seeds), |seed| (seed, 1));
    let until = args.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let started = Instant::now();
    let (next, passed) = (AtomicU64::new(0), AtomicU64::new(0));
    let (simulated_ms, messages, events) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failed: Mutex<BTreeMap<u64, Outcome>> = Mutex::new(BTreeMap::new());
    let finished = AtomicBool::new(false);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failures = || failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count || until.is_some_and(|until| started.elapsed() >= until) {
                            break;
                        }
                        let seed = from.wrapping_add(number);
                        let outcome = run(&level.generate(seed, &shape), false);
                        simulated_ms.fetch_add(outcome.ended_at, Ordering::Relaxed);
                        messages.fetch_add(outcome.messages, Ordering::Relaxed);
                        events.fetch_add(outcome.events as u64, Ordering::Relaxed);
                        if args.seed.is_some() {
                            println!("trace {level}:{seed} {}", hex(&outcome.hash));
                        }
                        match &outcome.violation {
                            None => {
                                passed.fetch_add(1, Ordering::Relaxed);
                            }
                            Some(violation) => {
                                eprintln!("seed {seed}: {violation}");
                                failures().insert(seed, outcome);
                            }
                        }
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let mut told = Instant::now();
            while !finished.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(100));
                if told.elapsed() >= Duration::from_secs(5) {
                    told = Instant::now();
                    eprintln!("{} passed, {} failed", passed.load(Ordering::Relaxed), failures().len());
                }
            }
        });
        for worker in workers {
            // A panic in a worker is a bug of the simulator or of the product; it is passed on.
            if let Err(panic) = worker.join() {
                finished.store(true, Ordering::Relaxed);
                std::panic::resume_unwind(panic);
            }
        }
        finished.store(true, Ordering::Relaxed);
    });
    let failed = failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let passed = passed.into_inner();
    report(level, &failed, &args.shape);
    let seconds = started.elapsed().as_secs_f64();
    let simulated = simulated_ms.into_inner() / 1000;
    #[expect(clippy::cast_precision_loss)] // Shown to people, rounded.
    let rate = simulated as f64 / seconds;
    eprintln!(
        "{seconds:.1} s, {simulated} simulated s ({rate:.0} per s), {} events, {} messages",
        events.into_inner(),
        messages.into_inner()
    );
    println!("{passed} passed, {} failed", failed.len());
    failed.is_empty()
}

fn report(level: Level, failed: &BTreeMap<u64, Outcome>, shape: &ShapeArgs) {
    let mut kinds: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for (seed, outcome) in failed {
        if let Some(violation) = &outcome.violation {
            kinds.entry(violation.invariant).or_default().push(*seed);
        }
    }
    if kinds.is_empty() {
        return;
    }
    eprintln!("commit {}", commit());
    for (invariant, seeds) in kinds {
        let some: Vec<String> = seeds.iter().take(8).map(u64::to_string).collect();
        eprintln!("{invariant}: {} seeds, among them {}", seeds.len(), some.join(" "));
        let first = format!("{level}:{}{}", seeds[0], shape.repeat());
        eprintln!("  run next: cargo sim replay {first} --tell, cargo sim shrink {first}");
    }
}

/// The scenario that `what` names.
fn find(what: &str, shape: &ShapeArgs) -> Result<Scenario, String> {
    if let Some((level, seed)) = what.split_once(':')
        && let Ok(level) = level.parse::<Level>()
    {
        let seed = seed.parse().map_err(|_| format!("{seed:?} is no seed"))?;
        return Ok(level.generate(seed, &shape.shape()));
    }
    if !Path::new(what).exists() {
        return Err(format!("{what:?} is neither LEVEL:SEED nor a scenario file"));
    }
    let text = std::fs::read_to_string(what).map_err(|error| format!("{what}: {error}"))?;
    text.parse().map_err(|error| format!("{what}: {error}"))
}

fn replay(what: &str, shape: &ShapeArgs, expect: Option<&str>, tell: bool) -> Result<bool, String> {
    let scenario = find(what, shape)?;
    let first = run(&scenario, tell);
    println!("trace {what} {}", hex(&first.hash));
    let holds = match &first.violation {
        None => true,
        Some(violation) => {
            println!("failed: {violation}");
            false
        }
    };
    let (against, other) = match expect {
        Some(hash) => ("the hash that was expected", hash.to_lowercase()),
        None => ("a second run", hex(&run(&scenario, false).hash)),
    };
    let agrees = hex(&first.hash) == other;
    println!("{} with {against}", if agrees { "agrees" } else { "does not agree" });
    Ok(agrees && holds)
}

fn shrink_to(what: &str, shape: &ShapeArgs, to: Option<PathBuf>) -> Result<bool, String> {
    let scenario = find(what, shape)?;
    let outcome = run(&scenario, false);
    let Some(violation) = &outcome.violation else {
        println!("{what} does not fail");
        return Ok(false);
    };
    let small = shrink(&scenario, &outcome);
    let to = to.unwrap_or_else(|| PathBuf::from(format!("{}.scenario", what.replace(':', "-"))));
    let broken = run(&small, false).violation.unwrap_or_else(|| violation.clone());
    let head: String = broken.to_string().lines().take(1).map(|line| format!("# {line}\n")).collect();
    std::fs::write(&to, format!("{head}{small}")).map_err(|error| format!("{}: {error}", to.display()))?;
    println!("{} items of {} are left in {}", small.items.len(), scenario.items.len(), to.display());
    Ok(true)
}
