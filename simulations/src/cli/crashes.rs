//! `crashes`: ends a process at every operation on its disk.

use std::time::Instant;

use clap::Args;

use crate::store::crash_points;

#[derive(Args)]
pub(super) struct Crashes {
    /// Decides what is torn how.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only every so many operations.
    #[arg(long, default_value_t = 1)]
    every: usize,
}

impl Crashes {
    pub(super) fn run(&self) -> bool {
        let started = Instant::now();
        let report = crash_points(self.seed, self.every);
        report.failures.iter().for_each(|failure| eprintln!("{failure}"));
        let (stories, operations) = (report.stories, report.operations);
        eprintln!("{:.1} s, {operations} operations in {stories} stories", started.elapsed().as_secs_f64());
        let (points, recovery_points) = (report.points, report.recovery_points);
        println!("{points} crashes and {recovery_points} more in recoveries, {} failed", report.failures.len());
        report.failures.is_empty()
    }
}
