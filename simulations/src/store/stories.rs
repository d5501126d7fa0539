//! Small stories of one ledger, each a few commits of another kind, for [`super::crash_points`].

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use thence::causal::{ReplicaId, VersionVector};
use thence::model::{
    CollectionName, DeviceKey, Genesis, Operation, Request, Role, Segment, SignedTicket, SpaceId, Ticket,
};
use thence::replica::SessionId;
use thence::store::{Acknowledged, Batch, Ledger, LedgerError, MemoryStore, Renewal, Store, StoreError, Work};

use crate::world::{Chance, Medium, Step};

/// All rows of a store.
pub(super) type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// What happened, in order.
#[derive(Debug)]
pub(super) enum Entry {
    /// Something was done to the medium.
    Step(Step),
    /// Whoever waited was told that it is done, and this is what the store holds.
    Done(Arc<Rows>),
}

/// All rows of a store.
pub(super) fn rows(store: &dyn Store) -> Result<Rows, StoreError> {
    let mut rows = Rows::new();
    store.snapshot()?.scan(&[], &[u8::MAX], &mut |key, value| {
        rows.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

/// Somebody who tells a story.
pub(super) struct Teller {
    medium: Medium,
    key: DeviceKey,
    ledger: Option<Ledger>,
    entries: Vec<Entry>,
    commits: u64,
}

type Told = Result<(), LedgerError>;

fn key(number: u8) -> DeviceKey {
    DeviceKey::from_secret(&[number; 32])
}

/// What a new store of this device begins with.
pub(super) fn first_batch() -> Batch {
    Ledger::first_batch(key(1).device(), 7)
}

fn genesis() -> Genesis {
    Genesis { creator: key(1).device(), nonce: [1; 16] }
}

fn space() -> SpaceId {
    genesis().space()
}

fn request(name: &str, operation: Operation) -> Request {
    let collection = CollectionName::user("notes").unwrap_or_else(|_| CollectionName::about());
    let key = name.parse().unwrap_or_else(|_| thence::model::about().1);
    Request { collection, key, operation }
}

fn put(name: &str, value: Json) -> Request {
    request(name, Operation::Put(serde_json::Map::from_iter([("title".to_owned(), value)])))
}

fn write(requests: Vec<Request>) -> Work {
    Work::Write { space: space(), requests }
}

fn create() -> Work {
    Work::Create { genesis: genesis(), name: "home".to_owned() }
}

fn setting(name: &str, value: &str) -> Work {
    Work::Setting { name: name.to_owned(), value: value.to_owned() }
}

/// Text that does not compress to nothing.
fn text(bytes: u64) -> Json {
    let chance = Chance::new(bytes);
    json!((0..bytes / 16).map(|at| format!("{:016x}", chance.draw("text", at, 0))).collect::<String>())
}

/// Another ledger of this device or of another, in memory, that holds the space and wrote these transactions one by
/// one; and its log.
fn log_of(device: u8, transactions: Vec<Vec<Request>>) -> Result<Vec<Segment>, LedgerError> {
    let store = Arc::new(MemoryStore::new());
    let first = Ledger::first_batch(key(device).device(), 7);
    store.commit(&mut |_| Ok(first.clone()))?;
    let ledger = Ledger::open(store, key(device))?;
    ledger.commit(&[create()], 0, 3)?;
    for requests in transactions {
        ledger.commit(&[write(requests)], 0, 3)?;
    }
    let Some(view) = ledger.view(space())? else { return Ok(Vec::new()) };
    let log = view.log_after(&VersionVector::new(), usize::MAX)?;
    Ok(log.into_iter().filter_map(|stretch| Segment::verify(space(), 1, stretch.bytes).ok()).collect())
}

fn receive(segments: Vec<Segment>) -> Work {
    Work::Receive { session: SessionId(1), space: space(), segments }
}

impl Teller {
    /// Begins on an empty medium, and tells `story`.
    pub(super) fn tell(story: &Story) -> Result<Vec<Entry>, LedgerError> {
        let medium = Medium::recorded(Chance::new(story.0.len() as u64), None);
        let mut teller = Self { medium, key: key(1), ledger: None, entries: Vec::new(), commits: 0 };
        teller.open()?;
        story.1(&mut teller)?;
        Ok(teller.entries)
    }

    fn note(&mut self) -> Told {
        self.entries.extend(self.medium.take_steps().into_iter().map(Entry::Step));
        // Read from a copy, so that reading does nothing to the medium.
        let rows = rows(&*self.medium.fork().store(&Batch::new())?)?;
        self.entries.push(Entry::Done(Arc::new(rows)));
        Ok(())
    }

    fn open(&mut self) -> Told {
        self.ledger = Some(Ledger::open(self.medium.store(&first_batch())?, self.key.clone())?);
        self.note()
    }

    fn commit(&mut self, works: &[Work]) -> Told {
        self.commits += 1;
        if let Some(ledger) = &self.ledger {
            ledger.commit(works, self.commits, self.commits)?;
        }
        self.note()
    }

    /// Closes the store in good order, and opens it.
    fn reopen(&mut self) -> Told {
        self.ledger = None;
        self.open()
    }

    /// Opens it after its process was killed; what that had written is all there.
    fn restart(&mut self) -> Told {
        self.medium.cut();
        self.reopen()
    }
}

/// What it is called, and how it goes.
pub(super) type Story = (&'static str, fn(&mut Teller) -> Told);

/// All of them; each begins with a first creation.
pub(super) const STORIES: &[Story] = &[
    ("a first creation", |_| Ok(())),
    ("a space", |teller| teller.commit(&[create()])),
    ("a write", |teller| {
        teller.commit(&[create()])?;
        teller.commit(&[write(vec![put("a", json!(1))])])
    }),
    ("ten writes", |teller| {
        teller.commit(&[create()])?;
        (0..10).try_for_each(|n| teller.commit(&[write(vec![put(&format!("k{}", n % 3), json!(n))])]))
    }),
    ("a group of thirty", |teller| {
        let writes = (0..30).map(|n| write(vec![put(&format!("k{n}"), json!(n))]));
        teller.commit(&[create()].into_iter().chain(writes).collect::<Vec<_>>())
    }),
    ("a write that changes nothing", |teller| {
        teller.commit(&[create(), write(vec![request("a", Operation::Delete)])])?;
        teller.commit(&[write(vec![request("b", Operation::Delete)])])?;
        teller.commit(&[])
    }),
    ("a large value", |teller| {
        teller.commit(&[create()])?;
        teller.commit(&[write(vec![put("large", text(300_000))])])
    }),
    ("a large value that comes and goes", |teller| {
        teller.commit(&[create(), write(vec![put("large", text(100_000))])])?;
        teller.commit(&[write(vec![put("large", text(120_000))])])?;
        teller.commit(&[write(vec![request("large", Operation::Delete)])])?;
        teller.commit(&[write(vec![put("large", text(20_000))])])
    }),
    ("many rows", |teller| {
        teller.commit(&[create()])?;
        teller.commit(&[write((0..300).map(|n| put(&format!("k{n:03}"), json!(n))).collect())])
    }),
    ("many rows that are deleted", |teller| {
        let writes = (0..4).map(|group| write((0..50).map(|n| put(&format!("k{group}-{n:03}"), text(64))).collect()));
        teller.commit(&[create()].into_iter().chain(writes).collect::<Vec<_>>())?;
        (0..4).try_for_each(|group| {
            let delete = |n| request(&format!("k{group}-{n:03}"), Operation::Delete);
            teller.commit(&[write((0..50).map(delete).collect())])
        })
    }),
    ("counters and sets", |teller| {
        let path = |text: &str| text.parse().unwrap_or_else(|error| unreachable!("{text}: {error}"));
        teller.commit(&[create()])?;
        (0..6).try_for_each(|n| {
            let count = request("a", Operation::Increment(path("n"), n - 2));
            let add = request("a", Operation::Add(path("tags"), json!(n % 3)));
            teller.commit(&[write(vec![count]), write(vec![add])])
        })
    }),
    ("segments of a peer at once", |teller| {
        let segments = log_of(1, (0..20).map(|n| vec![put(&format!("k{n}"), json!(n))]).collect())?;
        teller.commit(&[create()])?;
        teller.commit(&[receive(segments)])
    }),
    ("segments of a peer one by one", |teller| {
        let segments = log_of(1, (0..8).map(|n| vec![put(&format!("k{}", n % 2), json!(n))]).collect())?;
        teller.commit(&[create()])?;
        segments.into_iter().try_for_each(|segment| teller.commit(&[receive(vec![segment])]))
    }),
    ("a history that is split", |teller| {
        // Written by a copy of this very store, under the same names.
        let twin = log_of(1, vec![vec![put("a", json!("there"))], vec![put("b", json!("there"))]])?;
        teller.commit(&[create()])?;
        teller.commit(&[write(vec![put("a", json!("here"))])])?;
        teller.commit(&[receive(twin)])?;
        teller.commit(&[write(vec![put("a", json!("again"))])])
    }),
    ("a new id", |teller| {
        teller.commit(&[create(), write(vec![put("a", json!(1))])])?;
        let before = teller.ledger.as_ref().map_or(ReplicaId::from_bytes([0; 16]), Ledger::replica);
        teller.commit(&[Work::Renew { before, reason: Renewal::Lease }])?;
        teller.commit(&[write(vec![put("a", json!(2))])])
    }),
    ("a ticket", |teller| {
        teller.commit(&[create()])?;
        let ticket = Ticket {
            id: [3; 16],
            genesis: genesis(),
            role: Role::Writer,
            uses: 1,
            expires_ms: u64::MAX,
            inviter: key(1).device(),
            addresses: Vec::new(),
            name: "home".to_owned(),
        };
        let ticket = SignedTicket::sign(ticket, &key(1)).to_bytes();
        teller.commit(&[Work::Admit { device: key(2).device(), ticket }])
    }),
    ("peers that come and go", |teller| {
        let device = |n| key(n).device();
        (2..6).try_for_each(|n| {
            teller.commit(&[Work::RememberPeer { device: device(n), addresses: vec![format!("host{n}:1")] }])
        })?;
        (2..6).try_for_each(|n| teller.commit(&[Work::ForgetPeer { device: device(n) }]))
    }),
    ("settings and what peers have", |teller| {
        teller.commit(&[create(), setting("a", "1")])?;
        (1..6).try_for_each(|n| {
            let vector = VersionVector::new();
            let peer =
                Acknowledged { space: space(), revision: 1, device: key(2).device(), vector, synced_ms: Some(n) };
            teller.commit(&[Work::Acknowledged(peer), setting("a", &n.to_string())])
        })
    }),
    ("a file that grows", |teller| {
        teller.commit(&[create()])?;
        (0..5).try_for_each(|n| teller.commit(&[write(vec![put(&format!("k{n}"), text(400_000 + n))])]))
    }),
    ("a file that shrinks", |teller| {
        teller.commit(&[create()])?;
        (0..3).try_for_each(|n| teller.commit(&[write(vec![put("large", text(700_000 + n))])]))?;
        teller.commit(&[write(vec![request("large", Operation::Delete)])])?;
        teller.reopen()?;
        teller.commit(&[write(vec![put("a", json!(1))])])
    }),
    ("closed and opened", |teller| {
        teller.commit(&[create()])?;
        (0..3).try_for_each(|n| {
            teller.reopen()?;
            teller.commit(&[write(vec![put("a", json!(n))])])
        })
    }),
    ("killed and started", |teller| {
        teller.commit(&[create()])?;
        (0..3).try_for_each(|n| {
            teller.restart()?;
            teller.commit(&[write(vec![put("a", json!(n))])])
        })
    }),
];
