//! The little world that bytes are let loose on: an owner's node that holds a space, and a peer who may write in it.

use std::sync::{Arc, OnceLock};

use thence::model::{CollectionName, DeviceKey, Genesis, Operation, Request, Role, SignedTicket, SpaceId, Ticket};
use thence::store::{Batch, Ledger, MemoryStore, Store, Work};

/// Who owns the space: the node.
pub const OWNER: u8 = 1;
/// Who may write in it.
pub const PEER: u8 = 2;
/// Who may do nothing.
pub const STRANGER: u8 = 3;
/// The revision of the space.
pub const REVISION: u64 = 1;

/// A device's key.
pub fn key(device: u8) -> DeviceKey {
    DeviceKey::from_secret(&[device; 32])
}

/// How the space began.
pub fn genesis() -> Genesis {
    Genesis { creator: key(OWNER).device(), nonce: [7; 16] }
}

/// The space.
pub fn space() -> SpaceId {
    genesis().space()
}

/// A ticket to the space, for one more device.
pub fn ticket() -> SignedTicket {
    let ticket = Ticket {
        id: [9; 16],
        genesis: genesis(),
        role: Role::Writer,
        uses: 1,
        expires_ms: u64::MAX,
        inviter: key(OWNER).device(),
        addresses: vec!["192.0.2.1:7117".to_owned()],
        name: "garden".to_owned(),
    };
    SignedTicket::sign(ticket, &key(OWNER))
}

/// A write by whoever holds the ledger.
pub fn write(object: &str, operation: Operation) -> Work {
    let collection = CollectionName::user("notes").expect("a name");
    let key = object.parse().expect("a key");
    Work::Write { space: space(), requests: vec![Request { collection, key, operation }] }
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
    static STORE: OnceLock<MemoryStore> = OnceLock::new();
    STORE
        .get_or_init(|| {
            let store = Arc::new(MemoryStore::new());
            begin(&store, OWNER);
            let ledger = ledger(Arc::clone(&store), OWNER);
            let mut works = vec![Work::Create { genesis: genesis(), name: "garden".to_owned() }];
            let invited = Ticket { id: [8; 16], ..ticket().ticket().clone() };
            let ticket = SignedTicket::sign(invited, &key(OWNER)).to_bytes();
            works.push(Work::Admit { device: key(PEER).device(), ticket });
            works.extend(operations().into_iter().map(|operation| write("o", operation)));
            works.push(write("p", operations().swap_remove(0)));
            works.push(Work::RememberPeer { device: key(PEER).device(), addresses: vec!["192.0.2.2:7117".to_owned()] });
            for work in works {
                ledger.commit(&[work], 0, 7).expect("memory does not fail");
            }
            store.fork()
        })
        .fork()
}

/// Writes what every new store begins with.
pub fn begin(store: &MemoryStore, device: u8) {
    let batch: Batch = Ledger::first_batch(key(device).device(), u64::from(device));
    store.commit(&mut |_| Ok(batch.clone())).expect("memory does not fail");
}

/// The ledger of a store that is as it should be.
pub fn ledger(store: Arc<MemoryStore>, device: u8) -> Ledger {
    Ledger::open(store, key(device)).expect("the store is as it should be")
}
