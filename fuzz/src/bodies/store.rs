//! A store some of whose rows are not what was written, though their checks hold: refused or read, never a panic.

use std::ops::ControlFlow;
use std::sync::{Arc, LazyLock};

use thence::causal::{ReplicaId, VersionVector};
use thence::model::Segment;
use thence::replica::SessionId;
use thence::store::{Batch, Ledger, MemoryStore, Renewal, Store, StoreError, Work};

use super::world::{
    OBSERVER, OWNER, PEER, REVISION, STRANGER, commit_each, empty_store, key, ledger, log, old_store, operations,
    peer_store, space, ticket, write,
};

/// The check before a row, and the byte that says how it is sealed.
const CHECK_BYTES: usize = 9;

/// A row's key, and what is stored there without its check.
type Row = (Vec<u8>, Vec<u8>);

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

/// Opens and reads such a store, saves what can be saved if that is refused, and does everything to it that can be done.
pub fn store(data: &[u8]) {
    let store = Arc::new(old_store());
    let mut rows = ROWS.clone();
    let mut batch = Batch::new();
    for change in changes(data) {
        let at = usize::from(change.row) % rows.len();
        let (row_key, body) = &mut rows[at];
        change.apply(body);
        batch.insert(row_key.clone(), (change.kind % 4 != 3).then(|| wrap(row_key, body)));
    }
    store.commit(&mut |_| Ok(batch.clone())).expect("memory does not fail");
    let Ok(ledger) = Ledger::open(Arc::clone(&store) as Arc<dyn Store>, key(OWNER).clone()) else {
        return salvage(&store);
    };
    if read(&ledger).is_err() {
        salvage(&store);
    }
    for (nonce, work) in (8..).zip(works(ledger.replica())) {
        let _ = ledger.commit(&[work], 1, nonce);
    }
    let _ = read(&ledger);
}

fn salvage(store: &MemoryStore) {
    let saved = self::ledger(Arc::new(empty_store(OBSERVER)), OBSERVER);
    let _ = saved.salvage(store, 1, 7);
}

/// Something of every kind that is ever asked of a ledger.
fn works(before: ReplicaId) -> Vec<Work> {
    static SEGMENTS: LazyLock<Vec<Segment>> = LazyLock::new(|| {
        let peer = ledger(Arc::new(peer_store()), PEER);
        let before = peer.view(space()).expect("readable").expect("it is held").vector().expect("readable");
        commit_each(&peer, operations().into_iter().map(|operation| write(space(), "o", operation)));
        let verified = |bytes: Vec<u8>| Segment::verify(space(), REVISION, bytes.into()).expect("it is genuine");
        log(&peer, space(), &before).into_iter().map(verified).collect()
    });
    let device = key(STRANGER).device();
    vec![
        write(space(), "o", operations().swap_remove(3)),
        write(space(), "q", operations().swap_remove(0)),
        Work::Receive { session: SessionId(1), space: space(), segments: SEGMENTS.clone() },
        Work::Admit { device, ticket: ticket().to_bytes() },
        Work::Share { space: space(), device: key(PEER).device() },
        Work::Renew { before, reason: Renewal::Lease },
        Work::ForgetPeer { device },
        write(space(), "o", operations().swap_remove(4)),
    ]
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

/// What the store holds before it is changed.
static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let mut rows = Vec::new();
    let store: MemoryStore = old_store();
    let snapshot = store.snapshot().expect("memory does not fail");
    let scanned = snapshot.scan(&[], &[0xff; 64], &mut |key, value| {
        rows.push((key.to_vec(), value[CHECK_BYTES..].to_vec()));
        ControlFlow::Continue(())
    });
    scanned.expect("memory does not fail");
    assert!(rows.len() <= usize::from(u8::MAX), "a byte names any of {} rows", rows.len());
    rows
});

/// A row as the ledger stores it, with a check that holds.
fn wrap(key: &[u8], body: &[u8]) -> Vec<u8> {
    let sealed = [&[0][..], body].concat();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(&sealed);
    [&hasher.finalize().as_bytes()[..8], &sealed].concat()
}

/// Reads everything that anybody could ask for.
fn read(ledger: &Ledger) -> Result<(), StoreError> {
    let _ = (ledger.peers(), ledger.held(), ledger.renewals(), ledger.setting("listened"), ledger.find_space("garden"));
    let _ = ledger.back_up(0, &mut |_| ControlFlow::Continue(()));
    for space in ledger.spaces() {
        let Some(view) = ledger.view(space)? else { continue };
        let _ = (view.summary(), view.conflicts(), view.lost(), view.changes(0, 100), ledger.acknowledged(space));
        let _ = (view.copied(), view.credentials(), view.log_after(&VersionVector::new(), 1 << 20));
        view.visit(None, &mut |_, _, object| {
            let _ = (object.shown(), object.conflicts(), object.remains());
            ControlFlow::Continue(())
        })?;
    }
    Ok(())
}
