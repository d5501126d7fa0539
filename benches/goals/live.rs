//! G6: what is written on one device appears on another.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::Outcome;
use crate::device::{self, Companion, Source, Written, write_singly};
use crate::floor::disk::{Disk, rows_of};
use crate::floor::together::Live;
use crate::rounds::{Pairs, quantile, rate, us};
use crate::rows;
use crate::table::{Table, Wanted};

/// How many rows are there before.
const BEFORE: u64 = 10_000;
/// How many rows are pushed in a round, one after the other.
const PUSHED: u64 = 300;
/// How many are written in a round by many writers, and by how many.
const PIPELINED: u64 = 20_000;
const WRITERS: usize = 512;

fn quantile_us(times: &[Duration], part: f64) -> f64 {
    quantile(&times.iter().map(|time| us(*time)).collect::<Vec<_>>(), part)
}

/// Measures everything.
pub async fn measure(table: &mut Table, rounds: u32) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let (here, there) =
        (Disk::create(&folder.path().join("here.redb"))?, Disk::create(&folder.path().join("there.redb"))?);
    here.fill(BEFORE)?;
    there.fill(BEFORE)?;
    let mut floor = Live::between(here, there).await?;
    let source = Source::with_rows(BEFORE, Written::Imported).await?;
    let companion = Companion::of(&source).await?;
    let (node, space) = companion.open().await?;
    device::sync(&node).await?;
    let (mut middle, mut slow, mut durable) = (Pairs::default(), Pairs::default(), Pairs::default());
    let (mut pipelined, mut caught_up) = (Vec::new(), Vec::new());
    let mut next = BEFORE;
    for _ in 0..rounds {
        let rows = rows_of(next..next + PUSHED, 0);
        let seen = floor.push(&rows, false).await?;
        let both = floor.push(&rows, true).await?;

        let (arrivals, mut arrived) = mpsc::channel::<(u64, Instant)>(64);
        let receiver = space.clone();
        let first = receiver.view()?.summary()?.position;
        let watch = tokio::spawn(async move {
            let mut position = first;
            while position < first + PUSHED {
                let changes = receiver.changes(position, 64).await?;
                let at = Instant::now();
                position = changes.last().map_or(position, |change| change.position);
                arrivals.send((changes.len() as u64, at)).await?;
            }
            Outcome::Ok(())
        });
        let mut times = Vec::new();
        for at in next..next + PUSHED {
            let transaction = rows::put([at], 0)?;
            let started = Instant::now();
            source.space.write(transaction).await?;
            let (count, at) = arrived.recv().await.ok_or("the watch failed")?;
            if count != 1 {
                return Err(format!("{count} changes appeared after one write").into());
            }
            times.push(at.duration_since(started));
        }
        watch.await??;
        next += PUSHED;
        middle.push(quantile_us(&times, 0.5), quantile_us(&seen, 0.5));
        slow.push(quantile_us(&times, 0.99), quantile_us(&seen, 0.99));
        durable.push(quantile_us(&times, 0.5), quantile_us(&both, 0.5));

        let rows: Vec<u64> = (next..next + PIPELINED).collect();
        let started = Instant::now();
        write_singly(&source.space, rows, 0, WRITERS).await?;
        pipelined.push(rate(PIPELINED, started.elapsed()));
        device::sync(&node).await?;
        caught_up.push(rate(PIPELINED, started.elapsed()));
        next += PIPELINED;
    }
    rows::verify(&space, next, |_| 0)?;
    table.ratio("G6", "seen there, p50, against A commits then B sees", "us", &middle, Wanted::AtMost(1.5));
    table.ratio("G6", "seen there, p99, against A commits then B sees", "us", &slow, Wanted::AtMost(3.0));
    table.ratio("G6", "durable there, p50, against both commit", "us", &durable, Wanted::AtMost(1.5));
    table.bound("G6", "pipelined durable writes, a peer connected", "rows/s", &pipelined, Wanted::AtLeast(50_000.0));
    table.bound("G6", "the same, until the peer has them too", "rows/s", &caught_up, Wanted::Known);
    device::close(node, space).await;
    source.close().await;
    Ok(())
}
