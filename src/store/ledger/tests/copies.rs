//! Stories about stores that were copied or put back, and wrote twice under one id.

use std::ops::ControlFlow;

use super::*;
use crate::causal::Dot;

/// A device whose store can be copied.
struct Copied {
    store: Arc<MemoryStore>,
    ledger: Ledger,
    /// Drawn anew for every commit, as the node does.
    nonce: std::cell::Cell<u64>,
}

impl Copied {
    fn new(store: MemoryStore, nonce: u64) -> Self {
        let store = Arc::new(store);
        let ledger = Ledger::open(Arc::clone(&store) as Arc<dyn Store>, device(1)).expect("a store of device 1");
        Self { store, ledger, nonce: nonce.into() }
    }

    fn copy(&self, nonce: u64) -> Self {
        Self::new(self.store.fork(), nonce)
    }

    fn commit(&self, work: Work) -> Report {
        self.nonce.set(self.nonce.get() + 1);
        self.ledger.commit(&[work], 1_000, self.nonce.get()).expect("memory does not fail")
    }

    fn write(&self, space: SpaceId, requests: Vec<Request>) {
        match self.commit(Work::Write { space, requests }).done.remove(0) {
            Done::Written(Ok(written)) => assert!(written.changed > 0),
            other => panic!("an owner writes: {other:?}"),
        }
    }

    /// Takes all that `from` has, as a peer sends it that was told that the histories differ. What was taken in?
    fn hear(&self, from: &Self, space: SpaceId) -> Report {
        let stretches = view(&from.ledger, space).log_after(&VersionVector::new(), usize::MAX).expect("readable");
        let verify = |stretch: &crate::replica::Stretch| Segment::verify(space, 1, stretch.bytes.clone());
        let segments = stretches.iter().map(|stretch| verify(stretch).expect("genuine")).collect();
        let report = self.commit(Work::Receive { session: SESSION, space, segments });
        let rejected = report.changed.get(&space).map(|changed| changed.rejected.clone()).unwrap_or_default();
        assert_eq!(rejected, [], "what is whole is taken");
        report
    }
}

/// Everything that a node shows, and how it is stored.
fn everything(ledger: &Ledger, space: SpaceId) -> (VersionVector, Vec<String>, Vec<String>, Vec<String>) {
    let view = view(ledger, space);
    let mut objects = Vec::new();
    view.visit(None, &mut |collection, key, object| {
        objects.push(format!("{collection}/{key} {object:?}"));
        ControlFlow::Continue(())
    })
    .expect("readable");
    let told = |found: Vec<Found>| found.iter().map(|found| format!("{found:?}")).collect();
    let (conflicts, lost) = (told(view.conflicts().expect("readable")), told(view.lost().expect("readable")));
    (view.vector().expect("readable"), objects, conflicts, lost)
}

/// One device with a few objects, and its copy.
fn original_and_copy() -> (Copied, Copied, SpaceId) {
    let original = Copied::new(store(1), 1_000);
    let space = genesis(1).space();
    original.commit(Work::Create { genesis: genesis(1), name: "home".into() });
    original.write(space, vec![put("n1", json!({"text": "both know this"})), put("n2", json!({}))]);
    let count = request("n1", Operation::Increment("count".parse().expect("a path"), 10));
    original.write(space, vec![count]);
    let copy = original.copy(2_000);
    (original, copy, space)
}

fn increment(key: &str, by: i64) -> Request {
    request(key, Operation::Increment("count".parse().expect("a path"), by))
}

#[test]
fn what_two_copies_of_a_store_wrote_is_all_there_and_told_apart() {
    let (original, copy, space) = original_and_copy();
    original.write(space, vec![put("n3", json!({"by": "the original"}))]);
    original.write(space, vec![patch("n1", json!({"text": "the original"}))]);
    copy.write(space, vec![patch("n1", json!({"text": "the copy"}))]);
    copy.write(space, vec![put("n4", json!({"by": "the copy"}))]);
    let before = original.ledger.replica();

    let report = original.hear(&copy, space);
    assert_eq!(report.renewed.map(|renewed| renewed.before), Some(before), "it writes as somebody else from now on");
    assert_ne!(original.ledger.replica(), before);
    copy.hear(&original, space);
    assert_ne!(copy.ledger.replica(), before);
    assert_ne!(copy.ledger.replica(), original.ledger.replica());

    assert_eq!(everything(&original.ledger, space), everything(&copy.ledger, space));
    assert_eq!(shown(&copy.ledger, space, "n3"), Some(json!({"by": "the original"})));
    assert_eq!(shown(&original.ledger, space, "n4"), Some(json!({"by": "the copy"})));
    let conflicts = view(&original.ledger, space).conflicts().expect("readable");
    assert_eq!(conflicts.len(), 1, "both wrote the same field, so both values are there: {conflicts:?}");
    assert_eq!(conflicts[0].conflicts[0].values.len(), 2);

    // Both go on, and understand one another.
    original.write(space, vec![patch("n1", json!({"text": "decided"}))]);
    copy.hear(&original, space);
    copy.write(space, vec![put("n5", json!({}))]);
    original.hear(&copy, space);
    assert_eq!(everything(&original.ledger, space), everything(&copy.ledger, space));
    assert_eq!(view(&copy.ledger, space).conflicts().expect("readable"), []);
    let reasons: Vec<Renewal> = original.ledger.renewals().expect("readable").iter().map(|r| r.reason).collect();
    assert_eq!(reasons, [Renewal::Split { space }]);
}

#[test]
fn no_increment_of_two_copies_is_lost_or_counted_twice() {
    let (original, copy, space) = original_and_copy();
    original.write(space, vec![increment("n1", 1)]);
    original.write(space, vec![increment("n1", 2)]);
    copy.write(space, vec![increment("n1", 100)]);
    // A put that keeps the counter repeats it.
    copy.write(space, vec![put("n1", json!({"text": "put", "count": 110}))]);
    copy.write(space, vec![increment("n1", 200)]);
    original.hear(&copy, space);
    copy.hear(&original, space);
    assert_eq!(everything(&original.ledger, space), everything(&copy.ledger, space));
    let count = |of: &Copied| shown(&of.ledger, space, "n1").expect("visible")["count"].clone();
    assert_eq!(count(&original), json!(10 + 1 + 2 + 100 + 200));
    original.write(space, vec![increment("n1", 1_000)]);
    copy.hear(&original, space);
    assert_eq!(count(&copy), json!(1_313));
    // A reset takes away what it had seen, and nothing else.
    original.write(space, vec![request("n1", Operation::Unset(vec!["count".parse().expect("a path")]))]);
    copy.write(space, vec![increment("n1", 7)]);
    original.hear(&copy, space);
    copy.hear(&original, space);
    assert_eq!((count(&original), count(&copy)), (json!(7), json!(7)));
}

#[test]
fn who_had_seen_only_one_of_two_copies_is_understood() {
    let (original, copy, space) = original_and_copy();
    let reader = ledger(2);
    let introduction =
        admit(&original.ledger, reader.device(), &ticket(&original.ledger, space, Role::Writer, 1), 1_000);
    commit(&reader, Work::Join { introduction: introduction.expect("a good ticket"), introducer: device(1).device() });
    original.write(space, vec![patch("n1", json!({"text": "the original"})), increment("n2", 5)]);
    hand_over(&original.ledger, &reader, space, 1 << 20);
    // It replaces what the original wrote, and resets the counter; it has seen nothing of the copy.
    write(&reader, space, vec![put("n1", json!({"text": "the reader"})), put("n2", json!({}))]).expect("granted");
    copy.write(space, vec![patch("n1", json!({"text": "the copy"})), increment("n2", 70)]);

    let all = |to: &Ledger| {
        let mut learn = |from: &Ledger| {
            let stretches = view(from, space).log_after(&VersionVector::new(), usize::MAX).expect("readable");
            let verify = |stretch: &crate::replica::Stretch| Segment::verify(space, 1, stretch.bytes.clone());
            let segments = stretches.iter().map(|stretch| verify(stretch).expect("genuine")).collect();
            commit(to, Work::Receive { session: SESSION, space, segments });
        };
        // The copy knows nothing of the grant that the original wrote, so its log alone comes first where it must.
        [&original.ledger, &copy.ledger, &reader].into_iter().for_each(&mut learn);
    };
    for ledger in [&reader, &copy.ledger, &original.ledger] {
        all(ledger);
    }
    all(&reader);
    assert_eq!(everything(&original.ledger, space), everything(&copy.ledger, space));
    assert_eq!(everything(&original.ledger, space), everything(&reader, space));
    let conflicts = view(&reader, space).conflicts().expect("readable");
    let values: Vec<Json> = conflicts.iter().flat_map(|found| found.conflicts[0].values.clone()).collect();
    assert_eq!(values.len(), 2, "the reader's and the copy's; the original's was seen and replaced: {values:?}");
    assert!(!values.contains(&json!("the original")));
    assert_eq!(shown(&reader, space, "n2"), Some(json!({"count": 70})), "what was seen was reset, the rest was not");
}

#[test]
fn three_copies_may_part_at_different_places_and_meet_in_any_order() {
    let (first, second, space) = original_and_copy();
    first.write(space, vec![put("n3", json!({"by": 1}))]);
    second.write(space, vec![put("n3", json!({"by": 2})), increment("n1", 1)]);
    let third = second.copy(3_000);
    second.write(space, vec![patch("n3", json!({"also": 2})), increment("n1", 10)]);
    third.write(space, vec![patch("n3", json!({"also": 3})), increment("n1", 100)]);
    let fourth = third.copy(4_000);
    fourth.write(space, vec![put("n4", json!({})), increment("n1", 1_000)]);

    let orders: [[&Copied; 4]; 4] = [
        [&first, &second, &third, &fourth],
        [&fourth, &third, &second, &first],
        [&second, &third, &first, &fourth],
        [&third, &first, &fourth, &second],
    ];
    let mut seen = BTreeSet::new();
    for order in orders {
        // Somebody who was never there hears of it in this order.
        let listener = Copied::new(store(1), 5_000);
        let introduction =
            Introduction { genesis: genesis(1), revision: crate::model::Revision::first(), name: "home".into() };
        listener.commit(Work::Join { introduction, introducer: device(1).device() });
        for from in order {
            listener.hear(from, space);
        }
        let heard = everything(&listener.ledger, space);
        assert_eq!(shown(&listener.ledger, space, "n1").expect("visible")["count"], json!(10 + 1_111));
        seen.insert(format!("{heard:?}"));
        // And what is stored is what is read again.
        let reopened = listener.copy(6_000);
        assert_eq!(everything(&reopened.ledger, space), heard);
        reopened.write(space, vec![put("n5", json!({}))]);
    }
    assert_eq!(seen.len(), 1, "in whatever order it was heard, it is the same");
}

#[test]
fn a_store_that_was_put_back_gets_its_own_events_back_and_writes_as_another() {
    let (original, old, space) = original_and_copy();
    original.write(space, vec![put("n3", json!({"by": "the lost days"}))]);
    let before = old.ledger.replica();
    let report = old.hear(&original, space);
    assert!(matches!(report.renewed, Some(Renewed { reason: Renewal::Behind { .. }, .. })), "{report:?}");
    assert_ne!(old.ledger.replica(), before);
    old.write(space, vec![put("n4", json!({}))]);
    assert_eq!(shown(&old.ledger, space, "n3"), Some(json!({"by": "the lost days"})));
    let dots: Vec<Dot> = view(&old.ledger, space).vector().expect("readable").iter().collect();
    assert_eq!(dots.len(), 2, "nothing was split");
    // Whoever says that it is behind is believed only if that is so.
    let counter = view(&old.ledger, space).vector().expect("readable").counter(old.ledger.replica());
    let replica = old.ledger.replica();
    old.commit(Work::Renew { before: replica, reason: Renewal::Behind { space, counter } });
    assert_eq!(old.ledger.replica(), replica);
}

#[test]
fn an_end_without_its_beginning_is_asked_for_whole() {
    let (original, copy, space) = original_and_copy();
    for n in 0..3 {
        original.write(space, vec![put("n3", json!({"n": n}))]);
    }
    copy.write(space, vec![put("n4", json!({}))]);
    let stretches = view(&original.ledger, space).log_after(&VersionVector::new(), usize::MAX).expect("readable");
    let last = Segment::verify(space, 1, stretches.last().expect("some").bytes.clone()).expect("genuine");
    let root = copy.ledger.replica();
    let report = copy.commit(Work::Receive { session: SESSION, space, segments: vec![last.clone()] });
    assert_eq!(report.changed[&space].rejected, [(SESSION, Rejection::Missing)], "there is a gap");
    copy.write(space, vec![put("n4", json!({"n": 1}))]);
    copy.write(space, vec![put("n4", json!({"n": 2}))]);
    let report = copy.commit(Work::Receive { session: SESSION, space, segments: vec![last] });
    assert_eq!(report.changed[&space].rejected, [(SESSION, Rejection::Diverged(root))]);
    copy.hear(&original, space);
}
