//! G7: open a store and read one row, in a process of its own: after a clean end and after a kill.

use crate::Outcome;
use crate::device::{Source, Written};
use crate::floor::disk::Disk;
use crate::process::Errand;
use crate::rounds::{Pairs, median};
use crate::rows;
use crate::table::{Table, Wanted};

const MEMORY_BYTES_MAX: f64 = (16 << 20) as f64;

/// Measures at all sizes.
pub async fn measure(table: &mut Table, rounds: u32, sizes: &[u64]) -> Outcome<()> {
    let mut smallest: Option<f64> = None;
    for &count in sizes {
        let folder = tempfile::tempdir()?;
        let floor_path = folder.path().join("floor.redb");
        Disk::create(&floor_path)?.fill(count)?;
        let store = Source::with_rows(count, Written::Imported).await?.close().await;
        let (ours, floor) = (store.path().to_string_lossy(), floor_path.to_string_lossy());
        let key = rows::key(count / 2);
        let send = |name: &str, path: &str| Errand::new(name, &[path, &key]).send();
        let (mut clean, mut killed, mut memory) = (Pairs::default(), Pairs::default(), Vec::new());
        for _ in 0..rounds {
            let microseconds = |found: &serde_json::Value| found["us"].as_f64().ok_or("no figure");
            let floor_found = send("open-floor", &floor)?;
            let found = send("open", &ours)?;
            clean.push(microseconds(&found)?, microseconds(&floor_found)?);
            memory.push(found["memory_bytes"].as_f64().ok_or("no figure")?);
            send("write-floor", &floor)?;
            send("write", &ours)?;
            let floor_found = send("open-floor", &floor)?;
            killed.push(microseconds(&send("open", &ours)?)?, microseconds(&floor_found)?);
        }
        table.ratio("G7", &format!("{count} rows: open and first read"), "us", &clean, Wanted::AtMost(8.0));
        table.ratio("G7", &format!("{count} rows: the same after a kill"), "us", &killed, Wanted::Known);
        let workload = format!("{count} rows: memory then");
        table.bound("G7", &workload, "bytes", &[median(&memory)], Wanted::AtMost(MEMORY_BYTES_MAX));
        match smallest {
            None => smallest = Some(clean.ours()),
            Some(before) => {
                let mut pair = Pairs::default();
                pair.push(clean.ours(), before);
                let workload = format!("{count} rows against fewest: open and first read");
                table.ratio("G7", &workload, "us", &pair, Wanted::AtMost(2.0));
            }
        }
    }
    Ok(())
}
