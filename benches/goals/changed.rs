//! G4: a few rows changed while the devices were apart.

use std::sync::Arc;
use std::time::Instant;

use crate::Outcome;
use crate::device::{self, Companion, Source, write_singly};
use crate::floor::disk::{Disk, rows_of};
use crate::floor::together;
use crate::house::proxy::Proxy;
use crate::rounds::{Pairs, median, us};
use crate::rows::{self, ROW_BYTES};
use crate::table::{Table, Wanted};

/// What is compared between sizes: of [`COMPARED`] rows changed in one transaction.
pub struct Found {
    us: f64,
    bytes: f64,
}

const COMPARED: u64 = 100;

/// How the changes were written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Changes {
    InOneTransaction,
    EachByItself,
}

/// Which rows change: some all over the space.
fn rows_to_change(count: u64, changed: u64) -> impl Iterator<Item = u64> {
    (0..changed).map(move |at| at * (count / changed))
}

struct Apart<'a> {
    source: &'a Source,
    companion: &'a Companion,
    revision: u64,
    /// The revision of every row.
    revisions: Vec<u64>,
}

impl Apart<'_> {
    async fn change(&mut self, changed: u64, how: Changes) -> Outcome<()> {
        self.revision += 1;
        let rows: Vec<u64> = rows_to_change(self.source.count, changed).collect();
        for &row in &rows {
            self.revisions[usize::try_from(row)?] = self.revision;
        }
        match how {
            Changes::InOneTransaction => {
                self.source.space.write(rows::put(rows, self.revision)?).await?;
            }
            Changes::EachByItself => write_singly(&self.source.space, rows, self.revision, 1).await?,
        }
        Ok(())
    }

    /// The devices meet; how many microseconds that takes.
    async fn meet(&self) -> Outcome<f64> {
        let (node, space) = self.companion.open().await?;
        let started = Instant::now();
        device::sync(&node).await?;
        let taken = us(started.elapsed());
        rows::verify(&space, self.source.count, |at| self.revisions[usize::try_from(at).unwrap_or(usize::MAX)])?;
        device::close(node, space).await;
        Ok(taken)
    }
}

/// Measures with one space.
pub async fn of_size(table: &mut Table, rounds: u32, source: &Source, companion: &Companion) -> Outcome<Found> {
    let count = source.count;
    let folder = tempfile::tempdir()?;
    let disk = Arc::new(Disk::create(&folder.path().join("floor.redb"))?);
    disk.fill(count)?;
    let mut apart = Apart { source, companion, revision: 0, revisions: vec![0; usize::try_from(count)?] };
    let workloads = [
        (1, Changes::InOneTransaction),
        (100, Changes::InOneTransaction),
        (1_000, Changes::InOneTransaction),
        (1_000, Changes::EachByItself),
    ];
    let mut times = vec![Pairs::default(); workloads.len()];
    for round in 0..rounds {
        for (&(changed, how), times) in workloads.iter().zip(&mut times) {
            let rows = rows_of(rows_to_change(count, changed), u64::from(round) + 1);
            let floor = us(together::bring(&rows, &disk).await?);
            apart.change(changed, how).await?;
            times.push(apart.meet().await?, floor);
        }
    }
    // Once more, through a network that counts.
    let proxy = Proxy::before(source.address()?);
    companion.retarget(source, proxy.address()).await?;
    let mut empty = Vec::new();
    for _ in 0..rounds {
        let before = proxy.bytes();
        apart.meet().await?;
        empty.push((proxy.bytes() - before) as f64);
    }
    let fixed = median(&empty);
    let mut found = Found { us: f64::NAN, bytes: f64::NAN };
    for (&(changed, how), times) in workloads.iter().zip(&times) {
        let mut bytes = Vec::new();
        for _ in 0..rounds {
            apart.change(changed, how).await?;
            let before = proxy.bytes();
            apart.meet().await?;
            bytes.push((proxy.bytes() - before) as f64 - fixed);
        }
        let how_said = if how == Changes::EachByItself { ", each by itself" } else { "" };
        let workload = format!("{changed} of {count} changed{how_said}");
        table.ratio("G4", &workload, "us", times, Wanted::Known);
        let each: Vec<f64> = bytes.iter().map(|bytes| bytes / changed as f64).collect();
        // What one change may cost, and once per meeting what is not of any change.
        let most = 1.25 * ROW_BYTES as f64 + 16.0 + if changed == 1 { 1000.0 } else { 1000.0 / changed as f64 };
        table.bound("G4", &format!("{workload}: on the wire"), "B/row", &each, Wanted::AtMost(most.round()));
        if changed == COMPARED {
            found = Found { us: times.ours(), bytes: median(&bytes) };
        }
    }
    companion.retarget(source, source.address()?).await?;
    Ok(found)
}

/// Compares a larger space with a smaller one.
pub fn compare(table: &mut Table, count: u64, found: &Found, before: &Found) {
    let mut pair = Pairs::default();
    pair.push(found.us, before.us);
    table.ratio("G4", &format!("{COMPARED} changed: {count} rows against fewest"), "us", &pair, Wanted::AtMost(1.3));
    let mut pair = Pairs::default();
    pair.push(found.bytes, before.bytes);
    let workload = format!("{COMPARED} changed: {count} rows against fewest, wire");
    table.ratio("G4", &workload, "bytes", &pair, Wanted::AtMost(1.02));
}
