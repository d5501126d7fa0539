//! What is stored and what travels keeps its form: the bytes of format 1, as this release must go on reading them.
//!
//! `tests/golden/v1` was written by the first release that had this format. A change that alters these bytes needs a new
//! format version, and then a folder of its own beside this one. `THENCE_WRITE_GOLDEN=1` writes the files anew, which
//! is right only for as long as no release has the format.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data_encoding::HEXLOWER;
use serde_bytes::ByteBuf;
use serde_json::{Value, json};
use thence::causal::{Dot, Knowledge, ReplicaId, VersionVector, Witness};
use thence::model::{DeviceKey, Genesis, Request, Role, Segment, SignedTicket, SpaceId, Ticket};
use thence::node::Transaction;
use thence::replica::{Hello, Introduction, Message, Open, Probed, Refusal, TicketRefusal};
use thence::store::{Batch, Ledger, MemoryStore, Store, Work};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(name)
}

/// Compares with the golden file, or writes it when asked to.
fn hold_against(name: &str, text: &str) {
    if std::env::var_os("THENCE_WRITE_GOLDEN").is_some() {
        std::fs::create_dir_all(golden("")).expect("a folder for golden files");
        std::fs::write(golden(name), text).expect("a golden file");
    }
    let expected = std::fs::read_to_string(golden(name)).expect("the golden file");
    for (line, (found, expected)) in text.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "{name}, line {}", line + 1);
    }
    assert_eq!(text.lines().count(), expected.lines().count(), "{name} has another number of lines");
}

fn key(n: u8) -> DeviceKey {
    DeviceKey::from_secret(&[n; 32])
}

fn genesis() -> Genesis {
    Genesis { creator: key(1).device(), nonce: [7; 16] }
}

fn fresh_store() -> MemoryStore {
    let store = MemoryStore::new();
    store.commit(&mut |_| Ok(Ledger::first_batch(key(1).device(), 9))).expect("memory does not fail");
    store
}

/// A little of everything that is ever stored, committed at fixed moments.
fn history() -> Vec<Vec<Request>> {
    let everything = json!({
        "null": null, "yes": true, "small": 1, "least": i64::MIN, "float": 0.1, "text": "東京 🗼", "bytes": {"$bytes": "AAEC"},
        "array": [1, {"deep": [null]}, "x"], "map": {"in": {"it": 1}, "none": {}},
    });
    let transactions = [
        Transaction::new().put("things", "all", everything).expect("well formed"),
        Transaction::new().increment("things", "all", "count", 3).expect("well formed"),
        Transaction::new().add("things", "all", "tags", json!("red")).expect("well formed"),
        Transaction::new().put("things", "é/ /🗝", json!({"n": 1})).expect("well formed"),
        Transaction::new()
            .patch("things", "all", json!({"map": {"in": {"it": 2}}}))
            .and_then(|all| all.put("other", "k", json!({})))
            .expect("well formed"),
        Transaction::new().unset("things", "all", "count").expect("well formed"),
        Transaction::new().delete("things", "é/ /🗝").expect("well formed"),
    ];
    transactions.into_iter().map(Into::into).collect()
}

fn write_history(store: Arc<dyn Store>) -> (Ledger, SpaceId) {
    let ledger = Ledger::open(store, key(1)).expect("a fresh store");
    let space = genesis().space();
    ledger.commit(&[Work::Create { genesis: genesis(), name: "home".into() }], 1_000, 5).expect("memory does not fail");
    for (at, requests) in (2_000..).zip(history()) {
        ledger.commit(&[Work::Write { space, requests }], at, 5).expect("memory does not fail");
    }
    (ledger, space)
}

fn rows(store: &dyn Store) -> String {
    let mut text = String::new();
    let snapshot = store.snapshot().expect("memory does not fail");
    let each = &mut |key: &[u8], value: &[u8]| {
        let _ = writeln!(text, "{} {}", HEXLOWER.encode(key), HEXLOWER.encode(value));
        ControlFlow::Continue(())
    };
    snapshot.scan(&[], &[u8::MAX], each).expect("memory does not fail");
    text
}

fn shown(ledger: &Ledger, space: SpaceId) -> Vec<(String, Value)> {
    let view = ledger.view(space).expect("readable").expect("held");
    let mut shown = Vec::new();
    view.visit(None, &mut |collection, key, object| {
        shown.push((format!("{collection} {key}"), Value::Object(object.remains())));
        ControlFlow::Continue(())
    })
    .expect("readable");
    shown
}

#[test]
fn a_store_keeps_its_form_and_an_old_one_is_read() {
    let store = Arc::new(fresh_store());
    let (ledger, space) = write_history(Arc::clone(&store) as Arc<dyn Store>);
    hold_against("store.rows", &rows(&*store));

    let old = MemoryStore::new();
    let unhex = |text: &str| HEXLOWER.decode(text.as_bytes()).expect("hexadecimal");
    let text = std::fs::read_to_string(golden("store.rows")).expect("the golden file");
    let row = |line: &str| line.split_once(' ').map(|(key, value)| (unhex(key), Some(unhex(value)))).expect("a row");
    let batch: Batch = text.lines().map(row).collect();
    old.commit(&mut |_| Ok(batch.clone())).expect("memory does not fail");
    let reopened = Ledger::open(Arc::new(old), key(1)).expect("a store of format 1");
    assert_eq!(shown(&reopened, space), shown(&ledger, space));
    assert_eq!(shown(&reopened, space).len(), 2);
}

#[test]
fn segments_keep_their_form_and_old_ones_verify() {
    let (ledger, space) = write_history(Arc::new(fresh_store()));
    let view = ledger.view(space).expect("readable").expect("held");
    let log = view.log_after(&VersionVector::new(), usize::MAX).expect("readable");
    let text: String = log.iter().map(|stretch| HEXLOWER.encode(&stretch.bytes) + "\n").collect();
    hold_against("segments", &text);
    let text = std::fs::read_to_string(golden("segments")).expect("the golden file");
    for (line, stretch) in text.lines().zip(&log) {
        let bytes = HEXLOWER.decode(line.as_bytes()).expect("hexadecimal");
        let segment = Segment::verify(space, 1, bytes.into()).expect("a segment of format 1");
        assert_eq!((segment.first(), segment.last()), (stretch.first, stretch.last.dot));
    }
}

#[test]
fn messages_keep_their_form() {
    let dot = Dot::new(ReplicaId::from_bytes([5; 16]), 300);
    let witness = Witness { dot, hash: [6; 16] };
    let knowledge = Knowledge::full([witness].into_iter().collect());
    let introduction =
        Introduction { genesis: genesis(), revision: thence::model::Revision::first(), name: "home".into() };
    let open = Open {
        revision: thence::model::Revision::first(),
        digest: [3; 16],
        knowledge: Some(knowledge.clone()),
        answer: true,
    };
    let messages = [
        Message::Hello(Hello { version: 1, agent: "thence 0.1.0".into(), replica: dot.replica, process: 5 }),
        Message::Offered(2),
        Message::Redeem(ByteBuf::from(vec![1, 2, 3])),
        Message::Redeemed(Ok(introduction.clone())),
        Message::Redeemed(Err(TicketRefusal::Used)),
        Message::Cluster,
        Message::Introduce(introduction),
        Message::Open(open),
        Message::Know(knowledge),
        Message::Segments(vec![ByteBuf::from(vec![9; 3])]),
        Message::Ack(vec![witness]),
        Message::Refuse(Refusal::NotFound),
        Message::Probe(4),
        Message::Probed(Probed { nonce: 4, spaces: 1 }),
        Message::Diverged(dot.replica),
        Message::Show(vec![ByteBuf::from(vec![8; 3])]),
    ];
    let line = |message: &Message| format!("{} {}\n", message.kind(), HEXLOWER.encode(&message.body()));
    hold_against("messages", &messages.iter().map(line).collect::<String>());
    for message in messages {
        assert_eq!(Message::decode(message.kind(), true, &message.body()), Ok(Some(message)));
    }
}

#[test]
fn a_ticket_keeps_its_form() {
    let (inviter, addresses) = (key(1).device(), vec!["192.0.2.1:7117".into()]);
    let (role, uses, expires_ms, name) = (Role::Writer, 1, 2_000, "home".into());
    let ticket = Ticket { id: [1; 16], genesis: genesis(), role, uses, expires_ms, inviter, addresses, name };
    let text = SignedTicket::sign(ticket.clone(), &key(1)).to_string();
    hold_against("ticket", &text);
    let old = std::fs::read_to_string(golden("ticket")).expect("the golden file");
    assert_eq!(old.parse::<SignedTicket>().expect("a ticket of format 1").ticket(), &ticket);
}
