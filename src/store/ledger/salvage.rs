//! What can be saved of a damaged store: its spaces and peers, and every segment of the log that is whole.
//!
//! A segment is signed by its author and checked like one that a peer sent, so nothing that the damage made up gets in.
//! Which space is the system's is kept, too. Objects, feed and indexes are not read at all: they follow from the events. What is not whole is left out, and so is
//! what depends on it; peers that have it send it again, since it is not known here any more.
//!
//! **Invariant**: reads only what it salvages from; the new ledger is under a replica id of its own.

use std::ops::ControlFlow;

use super::record::SpaceRow;
use super::{Ledger, SYSTEM_SPACE, Work, key, record, shelf};
use crate::model::{DeviceId, Segment, SpaceId};
use crate::replica::{Introduction, SessionId};
use crate::store::{Store, StoreError};

/// About how many bytes of segments are committed at once.
const GROUP_BYTES: usize = 1 << 20;
/// So many arrivals in a row that are not there are the end of a log whose length cannot be read.
const GAP_MAX: u64 = 4096;

/// What was saved of a space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvaged {
    /// The space.
    pub space: SpaceId,
    /// How many segments of its log are in the new store.
    pub kept: u64,
    /// How many are not, because they, or what they depend on, could not be read.
    pub lost: u64,
}

impl Ledger {
    /// Takes into this ledger, which is new, what can be saved of the damaged store `from`. Errors are those of this
    /// ledger, and of a list of spaces that cannot be read: then nothing can be saved.
    pub fn salvage(&self, from: &dyn Store, now_ms: u64, nonce: u64) -> Result<Vec<Salvaged>, StoreError> {
        let read = from.snapshot()?;
        let mut spaces: Vec<SpaceRow> = Vec::new();
        shelf::rows(&*read, &key::spaces(), |_, row| {
            spaces.push(row);
            Ok(())
        })?;
        let mut kept = Vec::new();
        let prefix = key::peers();
        let all = shelf::rows(&*read, &prefix, |key, addresses: Vec<String>| {
            if let Ok(device) = key[prefix.len()..].try_into() {
                kept.push(Work::RememberPeer { device: DeviceId::from_bytes(device), addresses });
            }
            Ok(())
        });
        if let Err(error) = all {
            // They can be added again.
            tracing::warn!(%error, "not all peers could be read");
        }
        let system = key::setting(SYSTEM_SPACE);
        let value = read.get(&system).and_then(|value| value.map(|value| record::read(&system, &value)).transpose());
        match value {
            Ok(value) => kept.extend(value.map(|value| Work::Setting { name: SYSTEM_SPACE.to_owned(), value })),
            Err(error) => tracing::warn!(%error, "it could not be read which space is the system's"),
        }
        self.commit(&kept, now_ms, nonce)?;
        spaces.into_iter().map(|row| self.salvage_space(from, row, now_ms, nonce)).collect()
    }

    fn salvage_space(&self, from: &dyn Store, row: SpaceRow, now_ms: u64, nonce: u64) -> Result<Salvaged, StoreError> {
        let SpaceRow { genesis, revision, number, introducer, name, .. } = row;
        let space = genesis.space();
        let (number_of_revision, introduction) = (revision.number(), Introduction { genesis, revision, name });
        self.commit(&[Work::Join { introduction, introducer: introducer.unwrap_or(genesis.creator) }], now_ms, nonce)?;
        let totals = key::totals(number);
        let length = (from.snapshot()?.get(&totals)).and_then(|value| {
            let Some(value) = value else { return Ok(0) };
            let record::Totals { arrival, .. } = record::read(&totals, &value)?;
            record::check_counts(&[arrival]).map(|()| arrival)
        });
        let mut salvaged = Salvaged { space, kept: 0, lost: 0 };
        let (mut group, mut bytes) = (Vec::new(), 0);
        // How many arrivals were not found, and how many of them cannot be read, since the last that could.
        let (mut gap, mut unread) = (0, 0);
        let mut arrival = 0;
        loop {
            arrival += 1;
            if gap > GAP_MAX
                && let Ok(length) = &length
                && let Ok(next) = next_arrival(from, number, arrival)
            {
                // However long the log is said to be: what is not there is not looked for one by one.
                let next = next.filter(|next| next <= length).unwrap_or(length + 1).max(arrival);
                unread += next - arrival;
                (arrival, gap) = (next, 0);
            }
            let ended = length.as_ref().map_or(gap > GAP_MAX, |length| arrival > *length);
            if ended || bytes > GROUP_BYTES {
                self.receive_salvaged(&mut salvaged, std::mem::take(&mut group), now_ms, nonce)?;
                bytes = 0;
            }
            if ended {
                break;
            }
            let key = key::segment(number, arrival);
            // A snapshot of its own: should the medium fail at one segment, the others may still be read.
            let value = from.snapshot().and_then(|read| read.get(&key));
            let found = value.and_then(|value| {
                let body = value.as_deref().map(|value| record::unwrap(&key, value)).transpose()?;
                Ok(body.map(|body| Segment::verify(space, number_of_revision, body.into())))
            });
            match found {
                Ok(Some(Ok(segment))) => {
                    bytes += segment.bytes().len();
                    group.push(segment);
                    salvaged.lost += unread;
                    (gap, unread) = (0, 0);
                }
                Ok(None) if length.is_err() => gap += 1,
                Ok(_) | Err(_) => (gap, unread) = (gap + 1, unread + 1),
            }
        }
        // Where the length of the log is not known, what cannot be read at its end may never have been there.
        salvaged.lost += if length.is_ok() { unread } else { 0 };
        Ok(salvaged)
    }

    fn receive_salvaged(
        &self,
        of: &mut Salvaged,
        segments: Vec<Segment>,
        now_ms: u64,
        nonce: u64,
    ) -> Result<(), StoreError> {
        let arrival = |ledger: &Self| ledger.lock().shelves.get(&of.space).map_or(0, |shelf| shelf.totals.arrival);
        let (before, count) = (arrival(self), segments.len() as u64);
        self.commit(&[Work::Receive { session: SessionId(0), space: of.space, segments }], now_ms, nonce)?;
        let kept = arrival(self) - before;
        of.kept += kept;
        of.lost += count - kept;
        Ok(())
    }
}

/// The first arrival from `arrival` on that is in the log.
fn next_arrival(from: &dyn Store, number: u32, arrival: u64) -> Result<Option<u64>, StoreError> {
    let (start, end) = (key::segment(number, arrival), key::after_prefix(&key::log(number)));
    let mut next = None;
    from.snapshot()?.scan(&start, &end, &mut |key, _| {
        next = key::counter_at(key, 5);
        ControlFlow::Break(())
    })?;
    Ok(next)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::causal::VersionVector;
    use crate::model::{CollectionName, DeviceKey, Genesis, Operation, Request};
    use crate::store::{Batch, MemoryStore};

    fn ledger(nonce: u64) -> (Arc<MemoryStore>, Ledger) {
        let device = DeviceKey::from_secret(&[1; 32]);
        let store = Arc::new(MemoryStore::new());
        let first = Ledger::first_batch(device.device(), nonce);
        store.commit(&mut |_| Ok(first.clone())).expect("memory does not fail");
        let ledger = Ledger::open(store.clone(), device).expect("a fresh store");
        (store, ledger)
    }

    #[test]
    fn what_is_whole_is_kept_and_what_is_not_comes_from_whoever_has_it() {
        let (store, old) = ledger(1);
        let genesis = Genesis { creator: old.device(), nonce: [1; 16] };
        let space = genesis.space();
        old.commit(&[Work::Create { genesis, name: "home".to_owned() }], 1, 7).expect("memory does not fail");
        for n in 0..30 {
            let requests = vec![Request {
                collection: CollectionName::user("notes").expect("a name"),
                key: format!("key{n}").parse().expect("a key"),
                operation: Operation::Put(json!({ "n": n }).as_object().expect("an object").clone()),
            }];
            old.commit(&[Work::Write { space, requests }], 1, 7).expect("memory does not fail");
        }
        let system = Work::Setting { name: SYSTEM_SPACE.to_owned(), value: space.to_string() };
        old.commit(&[system], 1, 7).expect("memory does not fail");
        let peer = fork(&store);
        // Everything but the log may be gone; of the log one segment is.
        let number = old.lock().shelves[&space].row.number;
        let damage = |key: Vec<u8>| store.commit(&mut |_| Ok(Batch::from([(key.clone(), Some(vec![9; 30]))])));
        damage(key::totals(number)).expect("memory does not fail");
        damage(key::segment(number, 21)).expect("memory does not fail");

        let (_, new) = ledger(2);
        let salvaged = new.salvage(&*store, 2, 7).expect("memory does not fail");
        assert_eq!(salvaged, [Salvaged { space, kept: 20, lost: 11 }]);
        let view = |ledger: &Ledger| ledger.view(space).expect("readable").expect("held");
        assert_eq!(view(&new).summary().expect("readable").objects, 19);
        assert_eq!(view(&new).name().expect("readable"), "home");
        assert_eq!(new.setting(SYSTEM_SPACE).expect("readable"), Some(space.to_string()));

        let missing = view(&peer).log_after(&view(&new).vector().expect("readable"), usize::MAX).expect("readable");
        let verify = |bytes: &Arc<[u8]>| Segment::verify(space, 1, bytes.clone()).expect("genuine");
        let segments = missing.iter().map(|stretch| verify(&stretch.bytes)).collect();
        new.commit(&[Work::Receive { session: SessionId(0), space, segments }], 2, 7).expect("memory does not fail");
        assert_eq!(view(&new).vector().expect("readable"), view(&peer).vector().expect("readable"));
        assert!(!view(&new).vector().expect("readable").is_empty() && VersionVector::new().is_empty());
        assert_ne!(new.replica(), peer.replica());
    }

    #[test]
    fn a_log_that_is_said_to_have_no_end_has_one() {
        let (store, old) = ledger(1);
        let genesis = Genesis { creator: old.device(), nonce: [1; 16] };
        let space = genesis.space();
        old.commit(&[Work::Create { genesis, name: "home".to_owned() }], 1, 7).expect("memory does not fail");
        let number = old.lock().shelves[&space].row.number;
        let totals = key::totals(number);
        let endless = record::Totals { arrival: 1 << 50, ..record::Totals::default() };
        let far = store.snapshot().and_then(|read| read.get(&key::segment(number, 1))).expect("memory does not fail");
        let body = record::unwrap(&key::segment(number, 1), &far.expect("the first segment")).expect("whole").to_vec();
        // And another one far behind the end of what is there.
        let far = key::segment(number, 1 << 40);
        let rows = [(totals.clone(), record::write(&totals, &endless)), (far.clone(), record::wrap(&far, &body))];
        let rows: Batch = rows.into_iter().map(|(key, value)| (key, Some(value))).collect();
        store.commit(&mut |_| Ok(rows.clone())).expect("memory does not fail");
        let (_, new) = ledger(2);
        let salvaged = new.salvage(&*store, 2, 7).expect("memory does not fail");
        assert_eq!(salvaged, [Salvaged { space, kept: 1, lost: (1 << 50) - 1 }]);
    }

    /// Another ledger with what `store` holds now.
    fn fork(store: &MemoryStore) -> Ledger {
        Ledger::open(Arc::new(store.fork()), DeviceKey::from_secret(&[1; 32])).expect("a store")
    }
}
