//! The little world that bytes are let loose on: an owner's node that holds a space, and those who speak to it.

use std::sync::{Arc, LazyLock};

use thence::causal::VersionVector;
use thence::model::{
    CollectionName, DeviceKey, Genesis, Operation, Request, Role, Segment, SignedTicket, SpaceId, Ticket,
};
use thence::replica::{Introduction, SessionId};
use thence::store::{Acknowledged, Batch, Ledger, MemoryStore, Store, Work};

/// Who owns the space: the node.
pub const OWNER: u8 = 1;
/// Who may write in it.
pub const PEER: u8 = 2;
/// Who may do nothing.
pub const STRANGER: u8 = 3;
/// Who may read in it.
pub const READER: u8 = 4;
/// Whom the node counts as a cluster peer.
pub const CLUSTER: u8 = 5;
/// Who is told in the end what the node knows.
pub const OBSERVER: u8 = 6;
/// The revision of the space.
pub const REVISION: u64 = 1;

/// A device's key.
pub fn key(device: u8) -> &'static DeviceKey {
    static KEYS: LazyLock<Vec<DeviceKey>> =
        LazyLock::new(|| (0..=OBSERVER).map(|device| DeviceKey::from_secret(&[device; 32])).collect());
    &KEYS[usize::from(device)]
}

/// What must be known of the space before one can ask for it.
pub fn introduction() -> Introduction {
    let genesis = Genesis { creator: key(OWNER).device(), nonce: [7; 16] };
    Introduction { genesis, revision: thence::model::Revision::first(), name: "garden".to_owned() }
}

/// The same of a space of the cluster peer's, which the node does not hold yet.
pub fn second() -> Introduction {
    let genesis = Genesis { creator: key(CLUSTER).device(), nonce: [8; 16] };
    Introduction { genesis, revision: thence::model::Revision::first(), name: "orchard".to_owned() }
}

/// The space.
pub fn space() -> SpaceId {
    introduction().genesis.space()
}

/// A ticket to a space, signed by one of its owners.
pub fn invite(owner: u8, to: Introduction, id: u8, role: Role) -> SignedTicket {
    let ticket = Ticket {
        id: [id; 16],
        genesis: to.genesis,
        role,
        uses: 1,
        expires_ms: u64::MAX,
        inviter: key(owner).device(),
        addresses: vec!["192.0.2.1:7117".to_owned()],
        name: to.name,
    };
    SignedTicket::sign(ticket, key(owner))
}

/// A ticket to the space, for one more device.
pub fn ticket() -> SignedTicket {
    invite(OWNER, introduction(), 9, Role::Writer)
}

/// A ticket to the cluster peer's space.
pub fn invitation() -> SignedTicket {
    static INVITATION: LazyLock<SignedTicket> = LazyLock::new(|| invite(CLUSTER, second(), 10, Role::Writer));
    INVITATION.clone()
}

/// A write by whoever holds the ledger.
pub fn write(space: SpaceId, object: &str, operation: Operation) -> Work {
    let collection = CollectionName::user("notes").expect("a name");
    let key = object.parse().expect("a key");
    Work::Write { space, requests: vec![Request { collection, key, operation }] }
}

/// The operations that the space began with: every kind of field, a conflict of none, a deletion.
pub fn operations() -> Vec<Operation> {
    let map = |text: &str| match serde_json::from_str(text) {
        Ok(serde_json::Value::Object(members)) => members,
        _ => unreachable!("it is a map"),
    };
    let path = |text: &str| text.parse().expect("a path");
    vec![
        Operation::Put(map(r#"{"a":1,"m":{"x":"text","f":2.5,"b":{"$bytes":"AAE="},"e":{}},"l":[1,{"n":null}]}"#)),
        Operation::Increment(path("n"), 3),
        Operation::Add(path("s"), serde_json::Value::from("one")),
        Operation::Patch(map(r#"{"a":null,"m":{"x":7}}"#)),
        Operation::Delete,
        Operation::Put(map(r#"{"again":true}"#)),
    ]
}

/// The node's store.
pub fn node_store() -> MemoryStore {
    static STORE: LazyLock<MemoryStore> = LazyLock::new(|| {
        let store = Arc::new(empty_store(OWNER));
        let Introduction { genesis, name, .. } = introduction();
        let admit = |device, id, role| {
            let ticket = invite(OWNER, introduction(), id, role).to_bytes();
            Work::Admit { device: key(device).device(), ticket }
        };
        let mut works = vec![Work::Create { genesis, name }];
        works.push(admit(PEER, 8, Role::Writer));
        works.push(admit(READER, 6, Role::Reader));
        works.extend(operations().into_iter().map(|operation| write(space(), "o", operation)));
        works.push(write(space(), "p", operations().swap_remove(0)));
        works.push(Work::RememberPeer { device: key(PEER).device(), addresses: vec!["192.0.2.2:7117".to_owned()] });
        commit_each(&ledger(Arc::clone(&store), OWNER), works);
        store.fork()
    });
    STORE.fork()
}

/// The same after a long life: it was copied, and both copies were written on, which the peer told it; edits were lost to
/// a deletion.
pub fn old_store() -> MemoryStore {
    static STORE: LazyLock<MemoryStore> = LazyLock::new(|| {
        let (store, peers) = (Arc::new(node_store()), ledger(Arc::new(peer_store()), PEER));
        let owners = ledger(Arc::clone(&store), OWNER);
        hand_over(&ledger(Arc::new(copied_store()), OWNER), &peers, space());
        commit_each(&peers, [write(space(), "p", operations().swap_remove(3))]);
        commit_each(
            &owners,
            [write(space(), "p", Operation::Delete), write(space(), "q", operations().swap_remove(2))],
        );
        hand_over(&peers, &owners, space());
        let view = owners.view(space()).expect("readable").expect("it is held");
        assert!(!view.copied().is_empty() && !view.lost().expect("readable").is_empty());
        let (device, vector) = (key(PEER).device(), view.vector().expect("readable"));
        let row = Acknowledged { space: space(), revision: REVISION, device, vector, synced_ms: Some(1) };
        let setting = Work::Setting { name: "listened".to_owned(), value: "192.0.2.1:7117".to_owned() };
        commit_each(&owners, [Work::Acknowledged(row), setting]);
        store.fork()
    });
    STORE.fork()
}

/// The peer's store: it knows all of the space.
pub fn peer_store() -> MemoryStore {
    let store = Arc::new(empty_store(PEER));
    let ledger = ledger(Arc::clone(&store), PEER);
    commit_each(&ledger, [Work::Join { introduction: introduction(), introducer: key(OWNER).device() }]);
    hand_over(&self::ledger(Arc::new(node_store()), OWNER), &ledger, space());
    store.fork()
}

/// A copy of the node's store that was written on.
pub fn copied_store() -> MemoryStore {
    let store = Arc::new(node_store());
    commit_each(&ledger(Arc::clone(&store), OWNER), [write(space(), "copy", operations().swap_remove(0))]);
    store.fork()
}

/// Commits one after the other.
pub fn commit_each(ledger: &Ledger, works: impl IntoIterator<Item = Work>) {
    for work in works {
        ledger.commit(&[work], 0, 7).expect("memory does not fail");
    }
}

/// Sends all that one has. By its name alone the other could not tell what it lacks: a copy uses names twice.
pub fn hand_over(from: &Ledger, to: &Ledger, space: SpaceId) {
    let verified = |bytes: Vec<u8>| Segment::verify(space, REVISION, bytes.into()).expect("it is genuine");
    let segments = log(from, space, &VersionVector::new()).into_iter().map(verified).collect();
    commit_each(to, [Work::Receive { session: SessionId(0), space, segments }]);
}

/// What lies in the log and `after` does not cover.
pub fn log(ledger: &Ledger, space: SpaceId, after: &VersionVector) -> Vec<Vec<u8>> {
    let view = ledger.view(space).expect("readable").expect("it is held");
    let log = view.log_after(after, usize::MAX).expect("readable");
    log.into_iter().map(|stretch| stretch.bytes.to_vec()).collect()
}

/// A store in which there is nothing yet.
pub fn empty_store(device: u8) -> MemoryStore {
    let store = MemoryStore::new();
    let batch: Batch = Ledger::first_batch(key(device).device(), u64::from(device));
    store.commit(&mut |_| Ok(batch.clone())).expect("memory does not fail");
    store
}

/// The ledger of a store that is as it should be.
pub fn ledger(store: Arc<MemoryStore>, device: u8) -> Ledger {
    Ledger::open(store, key(device).clone()).expect("the store is as it should be")
}
