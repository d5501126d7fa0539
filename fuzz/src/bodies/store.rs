//! A store some of whose rows are not what was written, though their checks hold: refused or read, never a panic.

use std::ops::ControlFlow;
use std::sync::Arc;

use thence::causal::VersionVector;
use thence::store::{Batch, Ledger, MemoryStore, Store, StoreError};

use super::world::{OWNER, key, node_store, operations, write};

/// The check before a row, and the byte that says how it is sealed.
const CHECK_BYTES: usize = 9;

/// One change of a row.
#[derive(Clone, Debug)]
struct Change<'a> {
    row: u8,
    kind: u8,
    at: u16,
    bytes: &'a [u8],
}

/// Reads changes: row, kind, place, length, and so many bytes each.
fn changes(mut data: &[u8]) -> Vec<Change<'_>> {
    let mut changes = Vec::new();
    while let [row, kind, low, high, length, rest @ ..] = data {
        let (bytes, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        changes.push(Change { row: *row, kind: *kind, at: u16::from_le_bytes([*low, *high]), bytes });
        data = rest;
    }
    changes
}

/// Opens and reads such a store, and writes to it.
pub fn store(data: &[u8]) {
    let store = Arc::new(node_store());
    let mut rows = rows(&store);
    let mut batch = Batch::new();
    for change in changes(data) {
        let at = usize::from(change.row) % rows.len();
        let (row_key, body) = &mut rows[at];
        change.apply(body);
        batch.insert(row_key.clone(), (change.kind % 4 != 3).then(|| wrap(row_key, body)));
    }
    store.commit(&mut |_| Ok(batch.clone())).expect("memory does not fail");
    let Ok(ledger) = Ledger::open(Arc::clone(&store) as Arc<dyn Store>, key(OWNER)) else { return };
    let _ = read(&ledger);
    let _ = ledger.commit(&[write("o", operations().swap_remove(3)), write("q", operations().swap_remove(0))], 1, 7);
    let _ = read(&ledger);
}

impl Change<'_> {
    fn apply(&self, body: &mut Vec<u8>) {
        let at = usize::from(self.at).min(body.len());
        match self.kind % 4 {
            0 => body.iter_mut().skip(at).zip(self.bytes).for_each(|(byte, change)| *byte ^= change),
            1 => drop(body.splice(at..at, self.bytes.iter().copied())),
            2 => drop(body.splice(at..(at + self.bytes.len()).min(body.len()), [])),
            // The row is gone.
            _ => {}
        }
    }
}

fn rows(store: &MemoryStore) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let snapshot = store.snapshot().expect("memory does not fail");
    let scanned = snapshot.scan(&[], &[0xff; 64], &mut |key, value| {
        rows.push((key.to_vec(), value[CHECK_BYTES..].to_vec()));
        ControlFlow::Continue(())
    });
    scanned.expect("memory does not fail");
    rows
}

/// A row as the ledger stores it, with a check that holds.
fn wrap(key: &[u8], body: &[u8]) -> Vec<u8> {
    let sealed = [&[0][..], body].concat();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(&sealed);
    [&hasher.finalize().as_bytes()[..8], &sealed].concat()
}

/// Reads everything that anybody could ask for.
fn read(ledger: &Ledger) -> Result<(), StoreError> {
    let _ = (ledger.peers(), ledger.held());
    for space in ledger.spaces() {
        let Some(view) = ledger.view(space)? else { continue };
        let _ = (view.summary(), view.conflicts(), view.lost(), view.changes(0, 100), ledger.acknowledged(space));
        let _ = view.log_after(&VersionVector::new(), 1 << 20);
        view.visit(None, &mut |_, _, object| {
            let _ = (object.shown(), object.conflicts(), object.remains());
            ControlFlow::Continue(())
        })?;
    }
    Ok(())
}
