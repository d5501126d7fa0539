//! Stories about one ledger, and about two that hand each other their logs.

mod clients;
mod copies;
mod wiping;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

use super::*;
use crate::causal::Dot;
use crate::model::{CollectionName, Incarnation, ObjectKey, Operation, Role, SignedTicket, Ticket};
use crate::replica::{PeerMisbehaved, Rejection};
use crate::store::MemoryStore;

const SESSION: SessionId = SessionId(7);
const NONCE: u64 = 99;

fn device(n: u8) -> DeviceKey {
    DeviceKey::from_secret(&[n; 32])
}

fn store(n: u8) -> MemoryStore {
    let store = MemoryStore::new();
    let batch = Ledger::first_batch(device(n).device(), u64::from(n));
    store.commit(&mut |_| Ok(batch.clone())).expect("memory does not fail");
    store
}

fn ledger(n: u8) -> Ledger {
    Ledger::open(Arc::new(store(n)), device(n)).expect("a fresh store")
}

fn genesis(n: u8) -> Genesis {
    Genesis { creator: device(n).device(), nonce: [n; 16] }
}

fn fields(json: Json) -> Map<String, Json> {
    json.as_object().expect("an object").clone()
}

fn request(key: &str, operation: Operation) -> Request {
    let collection = CollectionName::user("notes").expect("a name");
    Request { collection, key: key.parse().expect("a key"), operation }
}

fn put(key: &str, json: Json) -> Request {
    request(key, Operation::Put(fields(json)))
}

fn patch(key: &str, json: Json) -> Request {
    request(key, Operation::Patch(fields(json)))
}

fn write(ledger: &Ledger, space: SpaceId, requests: Vec<Request>) -> Result<Written, WriteError> {
    match commit(ledger, Work::Write { space, requests }).done.remove(0) {
        Done::Written(result) => result,
        other => panic!("a write is answered as one, not {other:?}"),
    }
}

fn commit(ledger: &Ledger, work: Work) -> Report {
    ledger.commit(&[work], 1_000, NONCE).expect("memory does not fail")
}

fn create(ledger: &Ledger, n: u8) -> SpaceId {
    let space = genesis(n).space();
    assert_eq!(commit(ledger, Work::Create { genesis: genesis(n), name: "home".into() }).done, [Done::Created(space)]);
    space
}

fn view(ledger: &Ledger, space: SpaceId) -> View {
    ledger.view(space).expect("readable").expect("held")
}

fn shown(ledger: &Ledger, space: SpaceId, key: &str) -> Option<Json> {
    let (collection, key): (_, ObjectKey) =
        (CollectionName::user("notes").expect("a name"), key.parse().expect("a key"));
    let found = view(ledger, space).get(&collection, &key).expect("readable");
    found.map(|found| Json::Object(found.fields))
}

/// Hands `to` all that it lacks of what `from` has, in pieces of `bytes`.
fn hand_over(from: &Ledger, to: &Ledger, space: SpaceId, bytes: usize) -> Vec<(SessionId, Rejection)> {
    let mut rejected = Vec::new();
    loop {
        let after = view(to, space).vector().expect("readable");
        let stretches = view(from, space).log_after(&after, bytes).expect("readable");
        if stretches.is_empty() || !rejected.is_empty() {
            return rejected;
        }
        let verify = |stretch: &crate::replica::Stretch| Segment::verify(space, 1, stretch.bytes.clone());
        let segments: Vec<Segment> = stretches.iter().map(|s| verify(s).expect("genuine")).collect();
        let mut report = commit(to, Work::Receive { session: SESSION, space, segments });
        rejected.append(&mut report.changed.entry(space).or_default().rejected);
    }
}

fn ticket(ledger: &Ledger, space: SpaceId, role: Role, uses: u32) -> SignedTicket {
    let genesis = ledger.genesis(space).expect("held");
    let (id, expires_ms, addresses) = ([uses as u8; 16], 2_000, vec![]);
    let inviter = ledger.device();
    let ticket = Ticket { id, genesis, role, uses, expires_ms, inviter, addresses, name: "home".into() };
    SignedTicket::sign(ticket, ledger.key())
}

fn admit(ledger: &Ledger, device: DeviceId, ticket: &SignedTicket, now_ms: u64) -> Result<Introduction, TicketRefusal> {
    let work = Work::Admit { device, ticket: ticket.to_bytes() };
    match ledger.commit(&[work], now_ms, NONCE).expect("memory does not fail").done.remove(0) {
        Done::Admitted(answer) => answer,
        other => panic!("an admission is answered as one, not {other:?}"),
    }
}

/// Two devices that hold the space of the first.
fn pair() -> (Ledger, Ledger, SpaceId) {
    let (a, b) = (ledger(1), ledger(2));
    let space = create(&a, 1);
    let introduction = admit(&a, b.device(), &ticket(&a, space, Role::Writer, 1), 1_000).expect("a good ticket");
    commit(&b, Work::Join { introduction, introducer: a.device() });
    assert_eq!(hand_over(&a, &b, space, 1), []);
    (a, b, space)
}

#[test]
fn what_was_committed_is_there_when_it_is_opened_anew() {
    let store = store(1);
    let ledger = Ledger::open(Arc::new(store.fork()), device(1)).expect("a fresh store");
    drop(ledger);
    let store = Arc::new(store);
    let ledger = Ledger::open(Arc::clone(&store) as Arc<dyn Store>, device(1)).expect("a fresh store");
    let space = create(&ledger, 1);
    write(&ledger, space, vec![put("n1", json!({"title": "Milk"}))]).expect("it may write");
    let before = view(&ledger, space).summary().expect("readable");
    drop(ledger);
    let ledger = Ledger::open(store, device(1)).expect("its own store");
    assert_eq!(view(&ledger, space).summary().expect("readable"), before);
    assert_eq!((before.name.as_str(), before.role, before.objects), ("home", Some(Role::Owner), 1));
    write(&ledger, space, vec![patch("n1", json!({"title": "Oat milk"}))]).expect("it goes on");
    assert_eq!(view(&ledger, space).vector().expect("readable").counter(ledger.replica()), 3);
}

#[test]
fn a_store_of_another_device_or_format_is_refused() {
    let wrong = Ledger::open(Arc::new(store(1)), device(2));
    assert!(matches!(wrong, Err(LedgerError::OtherDevice { .. })));
    let store = MemoryStore::new();
    assert!(matches!(Ledger::open(Arc::new(store.fork()), device(1)), Err(LedgerError::NotOurs)));
    let key = key::meta();
    let value = record::wrap(&key, &[2, 9, 9]);
    store.commit(&mut |_| Ok(Batch::from([(key.clone(), Some(value.clone()))]))).expect("memory does not fail");
    assert!(matches!(Ledger::open(Arc::new(store), device(1)), Err(LedgerError::UnknownFormat { found: 2 })));
}

#[test]
fn a_transaction_is_all_or_nothing_and_says_which_part_is_wrong() {
    let ledger = ledger(1);
    let space = create(&ledger, 1);
    let requests = vec![put("n1", json!({"a": 1})), patch("n2", json!({"a": 1}))];
    assert!(matches!(write(&ledger, space, requests), Err(WriteError::Edit { index: 1, .. })));
    assert_eq!(shown(&ledger, space, "n1"), None);
    let requests = vec![put("n1", json!({"a": 1})), patch("n1", json!({"b": 2})), put("n2", json!({}))];
    assert_eq!(write(&ledger, space, requests).map(|written| written.changed), Ok(2));
    assert_eq!(shown(&ledger, space, "n1"), Some(json!({"a": 1, "b": 2})));
    let again = vec![request("n1", Operation::Update(fields(json!({"a": 1, "b": 2}))))];
    let before = view(&ledger, space).vector();
    assert_eq!(write(&ledger, space, again).map(|written| written.changed), Ok(0));
    assert_eq!(view(&ledger, space).vector().ok(), before.ok());
}

#[test]
fn writes_of_one_commit_share_a_segment_and_keep_their_order() {
    let ledger = ledger(1);
    let space = create(&ledger, 1);
    let work: Vec<Work> = (0..10).map(|n| Work::Write { space, requests: vec![put("n1", json!({"n": n}))] }).collect();
    let report = ledger.commit(&work, 1_000, NONCE).expect("memory does not fail");
    let committed = &report.changed[&space];
    assert!(committed.local);
    assert_eq!(committed.written.len(), 1);
    let (me, written) = (ledger.replica(), &committed.written[0]);
    assert_eq!((written.first, written.last.dot), (Dot::new(me, 2), Dot::new(me, 11)));
    assert_eq!(shown(&ledger, space, "n1"), Some(json!({"n": 9})));
}

#[test]
fn two_devices_that_know_the_same_show_the_same() {
    let (a, b, space) = pair();
    write(&a, space, vec![put("n1", json!({"title": "Milk", "n": 1}))]).expect("an owner writes");
    hand_over(&a, &b, space, 1 << 20);
    write(&a, space, vec![patch("n1", json!({"title": "Oat milk"}))]).expect("an owner writes");
    write(&b, space, vec![patch("n1", json!({"title": "Soy milk"}))]).expect("a writer writes");
    write(&b, space, vec![put("n2", json!({}))]).expect("a writer writes");
    assert_eq!(hand_over(&a, &b, space, 1), []);
    assert_eq!(hand_over(&b, &a, space, 1), []);
    assert_eq!(view(&a, space).vector().ok(), view(&b, space).vector().ok());
    assert_eq!(shown(&a, space, "n1"), shown(&b, space, "n1"));
    let conflicts = view(&a, space).conflicts().expect("readable");
    assert_eq!(conflicts, view(&b, space).conflicts().expect("readable"));
    let values: BTreeSet<String> = conflicts[0].conflicts[0].values.iter().map(Json::to_string).collect();
    assert_eq!(values, BTreeSet::from(["\"Oat milk\"".to_owned(), "\"Soy milk\"".to_owned()]));
    let summary = view(&b, space).summary().expect("readable");
    assert_eq!((summary.objects, summary.conflicts, summary.lost), (2, 1, 0));
    // Resolved on one, gone on both, and counted so.
    let resolve = Operation::Resolve("title".parse().expect("a field"), json!("Oat milk"));
    write(&b, space, vec![request("n1", resolve)]).expect("a writer writes");
    hand_over(&b, &a, space, 1);
    for ledger in [&a, &b] {
        assert_eq!(view(ledger, space).conflicts().expect("readable"), []);
        assert_eq!(view(ledger, space).summary().expect("readable").conflicts, 0);
    }
}

#[test]
fn an_edit_that_lost_to_a_delete_is_listed_alike_and_can_be_restored() {
    let (a, b, space) = pair();
    write(&a, space, vec![put("n1", json!({"title": "Milk", "n": 1}))]).expect("an owner writes");
    hand_over(&a, &b, space, 1);
    write(&a, space, vec![request("n1", Operation::Delete)]).expect("it is there");
    write(&b, space, vec![patch("n1", json!({"n": 2}))]).expect("it is there");
    hand_over(&a, &b, space, 1);
    hand_over(&b, &a, space, 1);
    for ledger in [&a, &b] {
        assert_eq!(shown(ledger, space, "n1"), None);
        let lost = view(ledger, space).lost().expect("readable");
        assert_eq!(lost.len(), 1);
        assert_eq!(Json::Object(lost[0].fields.clone()), json!({"n": 2}));
        assert_eq!(view(ledger, space).summary().expect("readable").lost, 1);
    }
    write(&a, space, vec![request("n1", Operation::Restore)]).expect("it was lost");
    hand_over(&a, &b, space, 1);
    assert_eq!(shown(&b, space, "n1"), Some(json!({"n": 2})));
    assert_eq!(view(&b, space).lost().expect("readable"), []);
}

#[test]
fn the_feed_names_each_object_once_at_its_latest_change() {
    let ledger = ledger(1);
    let space = create(&ledger, 1);
    write(&ledger, space, vec![put("n1", json!({"n": 1}))]).expect("an owner writes");
    write(&ledger, space, vec![put("n2", json!({"n": 2}))]).expect("an owner writes");
    write(&ledger, space, vec![patch("n1", json!({"n": 3}))]).expect("an owner writes");
    write(&ledger, space, vec![request("n2", Operation::Delete)]).expect("it is there");
    let feed = |after, limit| {
        let changes = view(&ledger, space).changes(after, limit).expect("readable");
        let entry = |change: Change| (change.position, change.key.to_string(), change.kind == ChangeKind::Delete);
        changes.into_iter().map(entry).collect::<Vec<_>>()
    };
    assert_eq!(feed(0, 10), [(3, "n1".into(), false), (4, "n2".into(), true)]);
    assert_eq!(feed(0, 1), [(3, "n1".into(), false)]);
    assert_eq!(feed(3, 10), [(4, "n2".into(), true)]);
    assert_eq!(feed(4, 10), []);
}

#[test]
fn who_may_not_write_is_refused_here_and_there() {
    let (a, b, space) = pair();
    let stranger = ledger(3);
    let introduction =
        Introduction { genesis: genesis(1), revision: crate::model::Revision::first(), name: "home".into() };
    commit(&stranger, Work::Join { introduction, introducer: a.device() });
    let refused = write(&stranger, space, vec![put("n1", json!({}))]);
    assert!(matches!(refused, Err(WriteError::NotGranted { .. })));
    let grants = Request { collection: CollectionName::grants(), ..put("n1", json!({})) };
    assert!(matches!(write(&b, space, vec![grants.clone()]), Err(WriteError::Edit { .. })));
    // A writer whose program lets it write grants all the same convinces nobody.
    let before = view(&a, space).vector().expect("readable");
    let (key, me) = (device(2), Incarnation { device: b.device(), nonce: 2 });
    let mine = Known::from_heads([]);
    let dot = Dot::new(me.replica(), 1);
    let owner = Grant { device: b.device(), role: Role::Owner, ticket: None, voucher: None };
    let mut draft =
        crate::model::Draft::new(CollectionName::grants(), Grant::key(b.device()), Default::default(), dot, 1);
    draft.put(&owner.to_fields()).expect("well formed");
    let mutation = draft.finish().expect("something");
    let event =
        crate::model::Event::write(dot, crate::causal::EventHash::start(dot.replica), 1, &mine, vec![mutation], &[]);
    let forged = Segment::sign(space, 1, me, &key, vec![event]).expect("not empty");
    let mut report = commit(&a, Work::Receive { session: SESSION, space, segments: vec![forged] });
    let rejected = report.changed.remove(&space).expect("told").rejected;
    assert!(matches!(rejected[..], [(SESSION, Rejection::Misbehaved(PeerMisbehaved::NotGranted(_)))]));
    assert_eq!(view(&a, space).vector().expect("readable"), before);
    assert_eq!(a.access(space).expect("held").role(b.device()), Some(Role::Writer));
}

#[test]
fn a_ticket_is_good_for_so_many_devices_and_so_long() {
    let a = ledger(1);
    let space = create(&a, 1);
    let once = ticket(&a, space, Role::Reader, 1);
    let (b, c) = (device(2).device(), device(3).device());
    assert_eq!(admit(&a, b, &once, 2_000), Err(TicketRefusal::Expired));
    assert!(admit(&a, b, &once, 1_999).is_ok());
    assert!(admit(&a, b, &once, 9_999).is_ok(), "asked again, since the answer may have been lost");
    assert_eq!(admit(&a, c, &once, 1_999), Err(TicketRefusal::Used));
    assert_eq!(a.access(space).expect("held").role(b), Some(Role::Reader));
    let other = ledger(4);
    create(&other, 4);
    assert_eq!(admit(&other, b, &once, 1_000), Err(TicketRefusal::Unknown));
    let mut bytes = once.to_bytes();
    bytes[3] ^= 1;
    let work = Work::Admit { device: c, ticket: bytes };
    assert_eq!(commit(&a, work).done, [Done::Admitted(Err(TicketRefusal::Forged))]);
    // Somebody who owns nothing here can sign what they like.
    let mut forged = ticket(&a, space, Role::Owner, 9).ticket().clone();
    forged.inviter = c;
    let forged = SignedTicket::sign(forged, &device(3));
    assert_eq!(admit(&a, c, &forged, 1_000), Err(TicketRefusal::Unknown));
}

#[test]
fn what_does_not_fit_is_not_applied() {
    let (a, b, space) = pair();
    for n in 0..3 {
        write(&a, space, vec![put("n1", json!({"n": n}))]).expect("an owner writes");
    }
    let after = view(&b, space).vector().expect("readable");
    let stretches = view(&a, space).log_after(&after, 1 << 20).expect("readable");
    let verify = |at: usize| Segment::verify(space, 1, stretches[at].bytes.clone()).expect("genuine");
    let receive = |segments| commit(&b, Work::Receive { session: SESSION, space, segments }).changed.remove(&space);
    let gap = receive(vec![verify(1)]).expect("told");
    assert_eq!(gap.rejected, [(SESSION, Rejection::Missing)]);
    assert!(gap.advanced.is_empty());
    let twice = receive(vec![verify(0), verify(0)]).expect("told");
    assert_eq!((twice.written.len(), twice.rejected.len()), (1, 0));
    assert_eq!(shown(&b, space, "n1"), Some(json!({"n": 0})));
}

#[test]
fn the_log_is_read_in_an_order_that_follows_causality_however_small_the_pieces() {
    let (a, b, space) = pair();
    for n in 0..40 {
        let (writer, reader) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        write(writer, space, vec![put("n1", json!({"n": n}))]).expect("both write");
        hand_over(writer, reader, space, 1);
    }
    let c = ledger(3);
    let introduction = admit(&a, c.device(), &ticket(&a, space, Role::Reader, 2), 1_000).expect("a good ticket");
    commit(&c, Work::Join { introduction, introducer: a.device() });
    assert_eq!(hand_over(&b, &c, space, 1), []);
    assert_eq!(hand_over(&a, &c, space, 700), []);
    assert_eq!(shown(&c, space, "n1"), Some(json!({"n": 39})));
    assert_eq!(view(&c, space).vector().ok(), view(&a, space).vector().ok());
}

#[test]
fn no_segment_is_longer_than_peers_take() {
    let (a, b, space) = pair();
    let text = |n: usize| put("big", json!({"text": "x".repeat(n)}));
    // Just below the size at which a segment is closed, and then an event of nearly the greatest length.
    let large = (0..4).map(|n| put(&format!("n{n}"), json!({"text": "x".repeat(1_000_000)}))).collect();
    let work = [
        Work::Write { space, requests: vec![text(250_000)] },
        Work::Write { space, requests: large },
        Work::Write { space, requests: vec![text(1)] },
    ];
    let report = a.commit(&work, 1_000, NONCE).expect("memory does not fail");
    assert!(report.done.iter().all(|done| matches!(done, Done::Written(Ok(_)))));
    assert_eq!(hand_over(&a, &b, space, 1 << 20), []);
    assert_eq!(shown(&b, space, "big"), Some(json!({"text": "x"})));
}

#[test]
fn a_write_says_at_which_position_it_stands() {
    let ledger = ledger(1);
    let space = create(&ledger, 1);
    let written = write(&ledger, space, vec![put("n1", json!({}))]).expect("an owner writes");
    assert_eq!((written.changed, written.position), (1, 1));
    assert_eq!(view(&ledger, space).changes(written.position, 9).expect("readable"), []);
}

#[test]
fn what_follows_a_refused_segment_of_another_author_is_taken() {
    let (a, b, space) = pair();
    let start = view(&a, space).vector().expect("readable");
    write(&a, space, vec![put("n1", json!({"by": "a"}))]).expect("an owner writes");
    write(&a, space, vec![put("n2", json!({"by": "a"}))]).expect("an owner writes");
    let from_a = view(&a, space).log_after(&start, 1 << 20).expect("readable");
    write(&b, space, vec![put("n3", json!({"by": "b"}))]).expect("a writer writes");
    let from_b = view(&b, space).log_after(&start, 1 << 20).expect("readable");
    let c = ledger(3);
    let introduction =
        Introduction { genesis: genesis(1), revision: crate::model::Revision::first(), name: "home".into() };
    commit(&c, Work::Join { introduction, introducer: a.device() });
    hand_over(&b, &c, space, 1);
    let c_lacks =
        |stretch: &crate::replica::Stretch| Segment::verify(space, 1, stretch.bytes.clone()).expect("genuine");
    // The second of A without the first does not fit; the one of B is known, and the first of A fits after all.
    let segments = vec![c_lacks(&from_a[1]), c_lacks(&from_b[0])];
    let told = commit(&c, Work::Receive { session: SESSION, space, segments }).changed.remove(&space).expect("told");
    assert_eq!(told.rejected, [(SESSION, Rejection::Missing)]);
    assert!(told.taken.iter().any(|taken| taken.session == SESSION), "what came after it was looked at");
}
