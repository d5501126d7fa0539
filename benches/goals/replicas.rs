//! G5 again: a space that ever so many replicas have written in.

use std::sync::Arc;

use thence::causal::VersionVector;
use thence::model::{DeviceKey, Segment};
use thence::replica::{Introduction, SessionId};
use thence::store::{Ledger, MemoryStore, RedbStore, Store, Work};

use crate::Outcome;
use crate::device::{Companion, Source, Written};
use crate::quiet;
use crate::rounds::Pairs;
use crate::rows;
use crate::table::{Table, Wanted};

/// Compares ten thousand replicas with ten.
pub async fn measure(table: &mut Table, rounds: u32) -> Outcome<()> {
    let mut found = Vec::new();
    for replicas in [10, 10_000] {
        let source = written_by(replicas).await?;
        let companion = Companion::of(&source).await?;
        let name = format!("nothing changed, {replicas} replicas");
        found.push(quiet::timed(table, rounds, &companion, &name).await?);
        source.close().await;
    }
    let [few, many] = found.as_slice() else { return Err("two were measured".into()) };
    for (how, many, few) in [("open", many.open_us, few.open_us), ("new", many.new_us, few.new_us)] {
        let mut pair = Pairs::default();
        pair.push(many, few);
        let workload = format!("nothing changed: 10,000 replicas against 10, {how} connection");
        table.ratio("G5", &workload, "us", &pair, Wanted::AtMost(1.2));
    }
    Ok(())
}

/// A source whose space has one row of each of so many replicas, all of one device that lost its store ever again.
async fn written_by(replicas: u64) -> Outcome<Source> {
    let source = Source::with_rows(0, Written::Imported).await?;
    let writer = DeviceKey::from_secret(&[9; 32]);
    let ticket = source.ticket()?.to_bytes();
    let (genesis, space) = (source.space.view()?.genesis(), source.space.id());
    let mut segments = Vec::new();
    for nonce in 0..replicas {
        let store = MemoryStore::default();
        let first = Ledger::first_batch(writer.device(), nonce);
        store.commit(&mut |_| Ok(first.clone()))?;
        let ledger = Ledger::open(Arc::new(store), writer.clone())?;
        let introduction =
            Introduction { genesis, revision: thence::model::Revision::first(), name: "notes".to_owned() };
        // Introduced by itself, it may write before it has heard of anything.
        let introducer = writer.device();
        ledger.commit(&[Work::Join { introduction, introducer }], 0, 7)?;
        ledger.commit(&[Work::Write { space, requests: rows::put([nonce], 0)?.into() }], 0, 7)?;
        let view = ledger.view(space)?.ok_or("the space is held")?;
        for stretch in view.log_after(&VersionVector::new(), usize::MAX)? {
            segments.push(Segment::verify(space, 1, stretch.bytes)?);
        }
    }
    // Into its store while its node does not run: no peer could bring them without having them first.
    let folder = source.close().await;
    let secret = std::fs::read_to_string(folder.path().join("device.key"))?;
    let secret = data_encoding::HEXLOWER.decode(secret.trim().as_bytes())?;
    let key = DeviceKey::from_secret(secret.as_slice().try_into()?);
    let store = RedbStore::open(&folder.path().join("thence.redb"), 64 << 20)?;
    let ledger = Ledger::open(Arc::new(store), key)?;
    ledger.commit(&[Work::Admit { device: writer.device(), ticket }], 0, 7)?;
    for segments in segments.chunks(1000) {
        let receive = Work::Receive { session: SessionId(1), space, segments: segments.to_vec() };
        let report = ledger.commit(&[receive], 0, 7)?;
        if let Some((_, rejection)) = report.changed.values().flat_map(|changed| &changed.rejected).next() {
            return Err(format!("an event was refused: {rejection:?}").into());
        }
    }
    drop(ledger);
    let source = Source::of(folder, replicas).await?;
    rows::verify(&source.space, replicas, |_| 0)?;
    Ok(source)
}
