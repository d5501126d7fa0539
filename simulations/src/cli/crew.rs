//! Worlds on all cores, with progress, until there are no more, the time is over, or the user wants an end.

use std::io::IsTerminal;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::interrupt::Interrupt;
use super::panics;
use crate::level::Level;

/// How often progress is said where there is no terminal.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// One world to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub(super) level: Level,
    pub(super) seed: u64,
}

/// Whoever runs them.
pub(super) struct Crew {
    until: Option<Instant>,
    interrupt: Interrupt,
    progress: Progress,
}

impl Crew {
    /// A crew for so many worlds, if it is known how many, that works until then at the longest.
    pub(super) fn new(worlds: Option<u64>, until: Option<Instant>) -> Result<Self, String> {
        Ok(Self { until, interrupt: Interrupt::listen()?, progress: Progress::new(worlds) })
    }

    fn is_over(&self) -> bool {
        self.interrupt.is_wanted() || self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Runs `work` for each job, on all cores, and hands what came of it to `take`, one at a time. `take` returns
    /// whether the world passed.
    ///
    /// Returns how many jobs panicked: they failed, and `take` never saw them.
    pub(super) fn run<T: Send>(
        &self,
        next: impl FnMut() -> Option<Job> + Send,
        work: impl Fn(Job) -> T + Sync,
        take: impl FnMut(Job, T, &Self) -> bool + Send,
    ) -> u64 {
        let (next, take, panicked) = (Mutex::new(next), Mutex::new(take), Mutex::new(0));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while !self.is_over() {
                        let Some(job) = lock(&next)() else { break };
                        panics::enter(job);
                        let passed = match catch_unwind(AssertUnwindSafe(|| work(job))) {
                            Ok(done) => lock(&take)(job, done, self),
                            Err(_) => {
                                self.say(&format!("{}:{} {}", job.level, job.seed, panics::last()));
                                *lock(&panicked) += 1;
                                false
                            }
                        };
                        self.progress.count(passed);
                    }
                });
            }
        });
        self.progress.end();
        *lock(&panicked)
    }

    /// Says something beside the progress.
    pub(super) fn say(&self, line: &str) {
        self.progress.say(line);
    }
}

/// What is held while a job is handed out or taken in cannot be left half done by it.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far it is, on stderr.
struct Progress {
    bar: Option<ProgressBar>,
    counts: Mutex<(u64, u64, Instant)>,
}

impl Progress {
    fn new(worlds: Option<u64>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = worlds.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            let form =
                if worlds.is_some() { "{bar:30} {pos}/{len} {msg} {eta}" } else { "{spinner} {pos} {msg} {elapsed}" };
            // The form is one of the two above, and good.
            bar.set_style(ProgressStyle::with_template(form).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar, counts: Mutex::new((0, 0, Instant::now())) }
    }

    fn count(&self, passed: bool) {
        let mut counts = lock(&self.counts);
        counts.0 += u64::from(passed);
        counts.1 += u64::from(!passed);
        if let Some(bar) = &self.bar {
            bar.inc(1);
            bar.set_message(if counts.1 == 0 { String::new() } else { format!("{} failed", counts.1) });
        } else if counts.2.elapsed() >= TOLD_EVERY {
            counts.2 = Instant::now();
            eprintln!("{} passed, {} failed so far", counts.0, counts.1);
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    fn end(&self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_panics_counts_and_the_others_go_on() {
        let crew = Crew::new(Some(4), None).expect("it listens for Ctrl-C");
        let mut seeds = 0..4;
        let mut seen = Vec::new();
        let panicked = crew.run(
            || Some(Job { level: Level::Core, seed: seeds.next()? }),
            |job| assert_ne!(job.seed, 2),
            |job, (), _| {
                seen.push(job.seed);
                true
            },
        );
        seen.sort_unstable();
        assert_eq!((panicked, seen), (1, vec![0, 1, 3]));
    }
}
