//! G1 and G2: local writes, alone, many at a time, and many to a transaction.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use thence::model::{DeviceKey, Genesis};
use thence::store::{Ledger, RedbStore, Work};

use crate::Outcome;
use crate::device::{Source, Written, write_singly};
use crate::floor::disk::{Disk, rows_of};
use crate::process::written_bytes;
use crate::rounds::{Pairs, rate};
use crate::rows;
use crate::table::{Table, Wanted};

/// How many rows are there before.
const BEFORE: u64 = 10_000;
const LONE_WRITES: u64 = 300;
const WRITERS: usize = 64;
const WRITES_AT_A_TIME: u64 = 6_400;

/// Rows that were not written yet.
struct Fresh(u64);

impl Fresh {
    fn take(&mut self, count: u64) -> std::ops::Range<u64> {
        let first = self.0;
        self.0 += count;
        first..self.0
    }
}

/// Measures both goals.
pub async fn measure(table: &mut Table, rounds: u32, alone: bool, together: bool) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let disk = Disk::create(&folder.path().join("floor.redb"))?;
    disk.fill(BEFORE)?;
    let source = Source::with_rows(BEFORE, Written::Imported).await?;
    let (mut here, mut there) = (Fresh(BEFORE), Fresh(BEFORE));
    let (mut lone, mut bytes, mut many) = (Pairs::default(), Pairs::default(), Pairs::default());
    let batches = [(100, 60), (1_000, 20)];
    let mut batched = [Pairs::default(), Pairs::default()];
    for _ in 0..rounds {
        if alone {
            let rows = rows_of(there.take(LONE_WRITES), 0);
            let (before, started) = (written_bytes()?, Instant::now());
            for row in &rows {
                tokio::task::block_in_place(|| disk.commit(std::slice::from_ref(row)))?;
            }
            let floor = rate(LONE_WRITES, started.elapsed());
            let floor_bytes = written_bytes()? - before;
            let transactions = here.take(LONE_WRITES).map(|at| rows::put([at], 0)).collect::<Outcome<Vec<_>>>()?;
            let (before, started) = (written_bytes()?, Instant::now());
            for transaction in transactions {
                source.space.write(transaction).await?;
            }
            let ours = rate(LONE_WRITES, started.elapsed());
            bytes
                .push((written_bytes()? - before) as f64 / LONE_WRITES as f64, floor_bytes as f64 / LONE_WRITES as f64);
            lone.push(ours, floor);
            let rows = here.take(WRITES_AT_A_TIME).collect();
            let started = Instant::now();
            write_singly(&source.space, rows, 0, WRITERS).await?;
            many.push(rate(WRITES_AT_A_TIME, started.elapsed()), ours);
        }
        for ((size, count), pairs) in batches.into_iter().zip(&mut batched).filter(|_| together) {
            let groups: Vec<_> = (0..count).map(|_| rows_of(there.take(size), 0)).collect();
            let started = Instant::now();
            for rows in &groups {
                tokio::task::block_in_place(|| disk.commit(rows))?;
            }
            let floor = rate(size * count, started.elapsed());
            let transactions = (0..count).map(|_| rows::put(here.take(size), 0)).collect::<Outcome<Vec<_>>>()?;
            let started = Instant::now();
            for transaction in transactions {
                source.space.write(transaction).await?;
            }
            pairs.push(rate(size * count, started.elapsed()), floor);
        }
    }
    rows::verify(&source.space, here.0, |_| 0)?;
    if alone {
        table.ratio("G1", "lone durable writes", "rows/s", &lone, Wanted::AtLeast(0.6));
        let (ours, floor) = syncs_of_a_write()?;
        let mut syncs = Pairs::default();
        syncs.push(ours as f64, floor as f64);
        table.ratio("G1", "syncs of a lone write", "syncs", &syncs, Wanted::AtMost(1.0));
        table.ratio("G1", "bytes written for a lone write", "bytes", &bytes, Wanted::Known);
        table.ratio("G1", "64 writers at a time, against lone writes", "rows/s", &many, Wanted::AtLeast(8.0));
    }
    if together {
        table.ratio("G2", "100 rows to a transaction", "rows/s", &batched[0], Wanted::AtLeast(0.35));
        table.ratio("G2", "1,000 rows to a transaction", "rows/s", &batched[1], Wanted::AtLeast(0.4));
    }
    source.close().await;
    Ok(())
}

/// How often one lone write makes the medium sync: of thence, and of plain redb in the same commit mode.
fn syncs_of_a_write() -> Outcome<(u64, u64)> {
    let syncs = Arc::new(AtomicU64::new(0));
    let counting = |syncs: &Arc<AtomicU64>| Counting { inner: InMemoryBackend::new(), syncs: Arc::clone(syncs) };
    let key = DeviceKey::from_secret(&[7; 32]);
    let first = Ledger::first_batch(key.device(), 1);
    let medium = {
        let syncs = Arc::clone(&syncs);
        move || Ok(counting(&syncs))
    };
    let store = RedbStore::with_backend(medium, 1 << 20, Some(first))?;
    let genesis = Genesis { creator: key.device(), nonce: [1; 16] };
    let ledger = Ledger::open(Arc::new(store), key)?;
    ledger.commit(&[Work::Create { genesis, name: "notes".to_owned() }], 0, 7)?;
    let before = syncs.load(Ordering::SeqCst);
    ledger.commit(&[Work::Write { space: genesis.space(), requests: rows::put([0], 0)?.into() }], 0, 7)?;
    let ours = syncs.load(Ordering::SeqCst) - before;
    let disk = Disk::on(counting(&syncs))?;
    disk.commit(&rows_of([0], 0))?;
    let before = syncs.load(Ordering::SeqCst);
    disk.commit(&rows_of([1], 0))?;
    Ok((ours, syncs.load(Ordering::SeqCst) - before))
}

/// A medium in memory that counts how often it is asked to make sure.
#[derive(Debug)]
struct Counting {
    inner: InMemoryBackend,
    syncs: Arc<AtomicU64>,
}

impl StorageBackend for Counting {
    fn len(&self) -> std::io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.inner.write(offset, data)
    }
}
