//! G3: a new device takes a whole space.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Instant;

use thence::transport::PeerAddress;

use crate::Outcome;
use crate::device::{self, Source, Written};
use crate::floor::disk::Disk;
use crate::floor::together;
use crate::house::proxy::Proxy;
use crate::process::Errand;
use crate::rounds::{Pairs, rate};
use crate::rows::{self, ROW_BYTES};
use crate::table::{Table, Wanted};

/// What the receiver may use: the cache of a node, and a little more.
const MEMORY_BYTES_MAX: f64 = ((64 + 32) << 20) as f64;

/// Measures at all sizes.
pub async fn measure(table: &mut Table, rounds: u32, sizes: &[u64]) -> Outcome<()> {
    for &count in sizes {
        for written in [Written::Imported, Written::Singly] {
            let source = Source::with_rows(count, written).await?;
            let how = match written {
                Written::Imported => "256 rows to an event",
                Written::Singly => "one row to an event",
            };
            of_size(table, rounds, &source, &format!("{count} rows, {how}")).await?;
            if sizes.last() == Some(&count) {
                let found = Errand::new(
                    "receive",
                    &[
                        &*tempfile::tempdir()?.path().to_string_lossy(),
                        &source.ticket()?.to_string(),
                        &count.to_string(),
                    ],
                )
                .send()?;
                let memory = found["memory_bytes"].as_f64().ok_or("no figure")?;
                let workload = format!("{count} rows, {how}: memory of the receiver");
                table.bound("G3", &workload, "bytes", &[memory], Wanted::AtMost(MEMORY_BYTES_MAX));
            }
            source.close().await;
        }
    }
    Ok(())
}

async fn of_size(table: &mut Table, rounds: u32, source: &Source, workload: &str) -> Outcome<()> {
    let count = source.count;
    let folder = tempfile::tempdir()?;
    let full = Arc::new(Disk::create(&folder.path().join("full.redb"))?);
    full.fill(count)?;
    let mut speed = Pairs::default();
    let (mut wire, mut disk_bytes) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let empty = Arc::new(Disk::create(&folder.path().join(format!("{round}.redb")))?);
        let floor = together::catch_up(Arc::clone(&full), empty, count).await?;
        let receiver = tempfile::tempdir()?;
        let node = device::open(receiver.path(), true).await?;
        let ticket = source.ticket()?;
        let started = Instant::now();
        let space = node.join(&ticket).await?;
        device::sync(&node).await?;
        let ours = started.elapsed();
        speed.push(rate(count, ours), rate(count, floor));
        let space = node.space(space)?;
        rows::verify(&space, count, |_| 0)?;
        device::close(node, space).await;
        // What is allocated: the file is longer than that, with a hole at its end.
        let stored = std::fs::metadata(receiver.path().join("thence.redb"))?.blocks() * 512;
        disk_bytes.push(stored as f64 / (count * ROW_BYTES) as f64);
    }
    // Once more, through a network that counts; it costs time, so nothing is timed.
    let proxy = Proxy::before(source.address()?);
    let receiver = tempfile::tempdir()?;
    let node = device::open(receiver.path(), true).await?;
    node.add_peer(PeerAddress::new(source.node.device(), proxy.address())).await?;
    device::sync(&node).await?;
    let before = proxy.bytes();
    let space = node.space(node.join(&source.ticket()?).await?)?;
    device::sync(&node).await?;
    wire.push((proxy.bytes() - before) as f64 / count as f64);
    rows::verify(&space, count, |_| 0)?;
    device::close(node, space).await;
    table.ratio("G3", workload, "rows/s", &speed, Wanted::AtLeast(0.4));
    table.bound("G3", &format!("{workload}: on the wire"), "B/row", &wire, Wanted::AtMost(40.0));
    let workload = format!("{workload}: on the receiver's disk");
    table.bound("G10", &workload, "payload", &disk_bytes, Wanted::AtMost(2.2));
    Ok(())
}
