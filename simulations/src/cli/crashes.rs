//! `cargo sim crashes`: every crash point of small stories.

use std::time::Instant;

use clap::Args;

use crate::store::crash_points;

/// Crashes at every operation on a disk, in every way that what was not synced can be torn, and again while that is
/// recovered from; what is left must be the last acknowledged state, or the one that was being written.
#[derive(Args)]
pub(super) struct Crashes {
    /// Decides how what was not synced is torn.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only every so many operations.
    #[arg(long, default_value_t = 1)]
    every: usize,
}

impl Crashes {
    pub(super) fn run(&self) -> Result<bool, String> {
        let started = Instant::now();
        let report = crash_points(self.seed, self.every);
        report.failures.iter().for_each(|failure| eprintln!("{failure}"));
        let (stories, operations) = (report.stories, report.operations);
        eprintln!("{:.1} s, {operations} operations in {stories} stories", started.elapsed().as_secs_f64());
        let (points, recovery_points) = (report.points, report.recovery_points);
        println!("{points} crashes and {recovery_points} more in recoveries, {} failed", report.failures.len());
        Ok(report.failures.is_empty())
    }
}
