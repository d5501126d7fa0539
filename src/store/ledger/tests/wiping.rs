//! Stories about spaces that are begun anew.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::model::{ClientId, Context, ForgedRevision, Remark, Revision};
use crate::store::Snapshot;

fn wipe(ledger: &Ledger, space: SpaceId) -> Result<u64, WriteError> {
    match commit(ledger, Work::Wipe { space, only: None }).done.remove(0) {
        Done::Wiped(outcome) => outcome,
        other => panic!("a wipe is answered as one, not {other:?}"),
    }
}

fn revision(ledger: &Ledger, space: SpaceId) -> Revision {
    ledger.held().into_iter().find(|(id, ..)| *id == space).map(|(_, revision, ..)| revision).expect("held")
}

fn log(ledger: &Ledger, space: SpaceId) -> Vec<Segment> {
    let view = view(ledger, space);
    let stretches = view.log_after(&VersionVector::new(), usize::MAX).expect("readable").into_iter();
    stretches.map(|stretch| Segment::verify(space, view.revision(), stretch.bytes).expect("genuine")).collect()
}

/// Lets these in, each by a ticket of its own. They hold the space then, and nothing of it yet.
fn invite(owner: &Ledger, space: SpaceId, guests: &[(&Ledger, Role)]) {
    for (number, (guest, role)) in (1..).zip(guests) {
        let ticket = ticket(owner, space, *role, number);
        let introduction = admit(owner, guest.device(), &ticket, 1_000).expect("a good ticket");
        commit(guest, Work::Join { introduction, introducer: owner.device() });
    }
}

/// Removes all that was wiped. Returns in how many steps.
fn remove_all(ledger: &Ledger) -> usize {
    let removed = |_: &usize| {
        commit(ledger, Work::Remove { again: false, rows_max: 1000 }).done.remove(0) == Done::Removed { more: true }
    };
    1 + (0..).take_while(removed).count()
}

fn rows(store: &dyn Store, numbers: impl Fn(u32) -> bool) -> usize {
    let mut count = 0;
    let scanned = store.snapshot().expect("memory does not fail").scan(&[0], &[u8::MAX], &mut |key, _| {
        let of_space = !matches!(key.first(), Some(b'm' | b's' | b'p' | b'w'));
        count += usize::from(of_space && key::number_at(key, 1).is_some_and(&numbers));
        std::ops::ControlFlow::Continue(())
    });
    scanned.expect("memory does not fail");
    count
}

#[test]
fn what_was_wiped_is_gone_at_once_and_removed_behind() {
    let store = Arc::new(store(1));
    let ledger = Ledger::open(Arc::clone(&store) as Arc<dyn Store>, device(1)).expect("a fresh store");
    let space = create(&ledger, 1);
    admit(&ledger, device(2).device(), &ticket(&ledger, space, Role::Reader, 1), 1_000).expect("a good ticket");
    for n in 0..700 {
        write(&ledger, space, vec![put(&format!("n{n}"), json!({"n": n}))]).expect("it may write");
    }
    write(&ledger, space, vec![request("n0", Operation::Delete)]).expect("it may write");
    let (before, old_view) = (view(&ledger, space).position().expect("readable"), view(&ledger, space));
    assert_eq!(wipe(&ledger, space), Ok(2));
    let now = view(&ledger, space);
    assert_eq!((now.revision(), now.objects().expect("readable")), (2, 0));
    assert_eq!(now.name().expect("readable"), "home", "what it is called stays");
    assert!(shown(&ledger, space, "n1").is_none());
    assert_eq!(ledger.access(space).expect("held").role(device(2).device()), Some(Role::Reader), "who may what, too");
    assert!(now.position().expect("readable") > before, "and no version is given twice");
    assert_eq!(now.horizon().expect("readable"), now.position().expect("readable"));
    assert_eq!(old_view.objects().expect("readable"), 699, "whoever was reading goes on reading what there was");
    write(&ledger, space, vec![put("n1", json!({"n": "new"}))]).expect("it may write");

    // A crash in the middle of it: it goes on where it was.
    let backlog = rows(&*store, |number| number == 1);
    let removal = ledger.removals().expect("readable").remove(0);
    assert_eq!((removal.objects, removal.removed, removal.revision, removal.done_ms), (699, 0, 2, None));
    assert_eq!(commit(&ledger, Work::Remove { again: false, rows_max: 1000 }).done, [Done::Removed { more: true }]);
    let left = rows(&*store, |number| number == 1);
    assert!(left < backlog && left > 0, "{left} of {backlog}");
    drop(ledger);
    let ledger = Ledger::open(Arc::clone(&store) as Arc<dyn Store>, device(1)).expect("the same store");
    let mut backup = Vec::new();
    let take = &mut |piece: &[u8]| {
        backup.extend_from_slice(piece);
        std::ops::ControlFlow::Continue(())
    };
    ledger.back_up(1, take).expect("readable");
    let mut reader = BackupReader::begin(&*backup).expect("a backup");
    while let Some((key, _)) = reader.next_row().expect("whole") {
        assert_ne!(key::number_at(&key, 1).filter(|_| key[0] != b's'), Some(1), "what is wiped is in no backup");
    }
    assert!(remove_all(&ledger) > 1);
    assert_eq!(rows(&*store, |number| number == 1), 0);
    let removal = ledger.removals().expect("readable").remove(0);
    assert_eq!((removal.objects, removal.removed, removal.done_ms), (699, 699, Some(1_000)));
    assert_eq!(commit(&ledger, Work::Remove { again: false, rows_max: 1000 }).done, [Done::Removed { more: false }]);
    assert_eq!(shown(&ledger, space, "n1"), Some(json!({"n": "new"})));
    // After a month nobody is told of it any more.
    ledger
        .commit(&[Work::Remove { again: false, rows_max: 1000 }], 40 * 86_400_000, NONCE)
        .expect("memory does not fail");
    assert_eq!(ledger.removals().expect("readable"), []);
}

#[test]
fn nothing_of_an_old_revision_comes_into_a_new_one() {
    let (a, b, space) = pair();
    write(&a, space, vec![put("n1", json!({"title": "Milk"}))]).expect("it may write");
    let old = log(&a, space);
    let seen = {
        let request = put("n1", json!({}));
        view(&a, space).row(&request.collection, &request.key).expect("readable").expect("there").context
    };
    let upload = |seen: Option<&Context>, expected: Option<&Context>, id: &str| Upload {
        request: put("n1", json!({"title": "Tea"})),
        seen: seen.cloned(),
        expected: expected.cloned(),
        remark: Remark { id: ClientId::try_from(id.to_owned()).ok(), source_version: None, by: None },
        only: None,
        bytes_max: crate::model::OBJECT_BYTES_MAX,
    };
    let send = |upload: Upload| match commit(&a, Work::Upload { space, uploads: vec![upload] }).done.remove(0) {
        Done::Uploaded(outcome) => outcome.map(|mut rows| rows.remove(0)),
        other => panic!("an upload is answered as one, not {other:?}"),
    };
    assert!(!send(upload(None, None, "id")).expect("it can be written").duplicate);
    let other = commit(&a, Work::Wipe { space, only: Some(2) }).done.remove(0);
    assert_eq!(other, Done::Wiped(Err(WriteError::Changed { index: 0 })), "not the revision that was meant");
    assert_eq!(wipe(&b, space), Err(WriteError::NotGranted { role: "writer".to_owned() }));
    assert_eq!(wipe(&a, space), Ok(2));
    // In one commit with what came before it and what comes after it.
    let works = [
        Work::Receive { session: SESSION, space, segments: old.clone() },
        Work::Follow { space, revision: revision(&a, space) },
    ];
    b.commit(&works, 1_000, NONCE).expect("memory does not fail");
    for ledger in [&a, &b] {
        commit(ledger, Work::Receive { session: SESSION, space, segments: old.clone() });
        assert_eq!(shown(ledger, space, "n1"), None);
    }
    assert_eq!(send(upload(Some(&seen), None, "other")), Err(WriteError::Wiped { index: 0 }));
    assert_eq!(send(upload(None, Some(&seen), "other")), Err(WriteError::Changed { index: 0 }));
    assert!(!send(upload(None, None, "id")).expect("it can be written").duplicate, "ids begin anew too");
    assert_eq!(log(&b, space).len(), 0);
    let log = log(&a, space);
    assert!(log.iter().all(|segment| Segment::verify(space, 1, segment.bytes().clone()).is_err()));
    commit(&b, Work::Receive { session: SESSION, space, segments: log });
    assert_eq!(shown(&b, space, "n1"), Some(json!({"title": "Tea"})));
    assert_eq!(view(&a, space).vector().expect("readable"), view(&b, space).vector().expect("readable"));
    write(&b, space, vec![put("n2", json!({"title": "Rye"}))]).expect("it may still write");
}

#[test]
fn a_wipe_among_other_works_takes_away_what_was_there_and_leaves_what_is_written_then() {
    let (a, b, space) = pair();
    write(&b, space, vec![put("n2", json!({"title": "Rye"}))]).expect("it may write");
    let of_b = log(&b, space);
    let written = Work::Write { space, requests: vec![put("n1", json!({"title": "Milk"}))] };
    let works = [
        Work::Receive { session: SESSION, space, segments: of_b },
        written.clone(),
        Work::Wipe { space, only: None },
        Work::Wipe { space, only: None },
        Work::Write { space, requests: vec![put("n3", json!({"title": "Tea"}))] },
    ];
    let report = a.commit(&works, 1_000, NONCE).expect("memory does not fail");
    assert_eq!(report.done[2..4], [Done::Wiped(Ok(2)), Done::Wiped(Ok(3))]);
    assert_eq!(report.held.len(), 1, "it is told as one that is new");
    assert!(report.changed.is_empty());
    assert_eq!(shown(&a, space, "n2"), None);
    for key in ["n1", "n3"] {
        assert!(shown(&a, space, key).is_some(), "{key}");
    }
    remove_all(&a);
    let rest = Ledger::open(Arc::clone(&a.store), device(1)).expect("the same store");
    assert_eq!(view(&rest, space).summary().expect("readable"), view(&a, space).summary().expect("readable"));
    assert_eq!(rows(&*a.store, |number| number < 3), 0);
}

#[test]
fn owners_who_wipe_at_once_come_to_one_revision() {
    let (a, space) = (ledger(1), genesis(1).space());
    create(&a, 1);
    // The third is made an owner by the second, of which the first does not know.
    let [b, c] = [2, 3].map(ledger);
    let from_a = admit(&a, b.device(), &ticket(&a, space, Role::Owner, 1), 1_000).expect("a good ticket");
    commit(&b, Work::Join { introduction: from_a, introducer: a.device() });
    hand_over(&a, &b, space, 1);
    let from_b = admit(&b, c.device(), &ticket(&b, space, Role::Owner, 2), 1_000).expect("a good ticket");
    commit(&c, Work::Join { introduction: from_b, introducer: b.device() });
    assert!(wipe(&c, space).is_err(), "it has not heard yet that it is one");
    hand_over(&b, &c, space, 1);
    for (ledger, key) in [(&a, "of a"), (&c, "of c")] {
        assert_eq!(wipe(ledger, space), Ok(2));
        write(ledger, space, vec![put(key, json!({}))]).expect("it may write");
    }
    let of_a = revision(&a, space);
    for (from, to) in [(&c, &a), (&a, &c), (&c, &b), (&a, &b)] {
        commit(
            to,
            Work::Follow { space, revision: if std::ptr::eq(from, &a) { of_a.clone() } else { revision(from, space) } },
        );
        let report = commit(to, Work::Receive { session: SESSION, space, segments: log(from, space) });
        assert!(report.changed[&space].rejected.is_empty());
    }
    assert_eq!(revision(&a, space).owners().count(), 2);
    for ledger in [&a, &b, &c] {
        assert_eq!(revision(ledger, space), revision(&a, space));
        assert!(shown(ledger, space, "of a").is_some() && shown(ledger, space, "of c").is_some());
        assert_eq!(view(ledger, space).vector().expect("readable"), view(&a, space).vector().expect("readable"));
        assert_eq!(ledger.access(space).expect("held").role(c.device()), Some(Role::Owner));
    }
    // Also who was away for the whole of it, and whoever joins only now.
    assert_eq!(wipe(&b, space), Ok(3));
    let d = ledger(4);
    let introduction = admit(&b, d.device(), &ticket(&b, space, Role::Reader, 3), 1_000).expect("a good ticket");
    commit(&d, Work::Join { introduction, introducer: b.device() });
    assert_eq!(revision(&d, space), revision(&b, space));
}

#[test]
fn a_revision_that_no_owner_began_is_not_followed() {
    let (a, b, space) = pair();
    write(&a, space, vec![put("n1", json!({}))]).expect("it may write");
    let forged = Revision::first().next(space, Vec::new(), &device(2)).expect("the second");
    assert_eq!(forged.verify(space, a.device()), Err(ForgedRevision));
    commit(&a, Work::Follow { space, revision: forged.clone() });
    assert_eq!((revision(&a, space), shown(&a, space, "n1")), (Revision::first(), Some(json!({}))));
    let introduction = Introduction { genesis: genesis(1), revision: forged, name: "home".to_owned() };
    let stranger = ledger(3);
    commit(&stranger, Work::Join { introduction, introducer: b.device() });
    assert!(stranger.held().is_empty());
}

#[test]
fn whoever_wipes_before_the_grants_have_come_takes_no_ones_membership_away() {
    let (a, space) = (ledger(1), genesis(1).space());
    create(&a, 1);
    let b = ledger(2);
    let introduction = admit(&a, b.device(), &ticket(&a, space, Role::Owner, 1), 1_000).expect("a good ticket");
    commit(&b, Work::Join { introduction, introducer: a.device() });
    admit(&a, device(3).device(), &ticket(&a, space, Role::Reader, 2), 1_000).expect("a good ticket");
    hand_over(&a, &b, space, 1);
    assert_eq!(wipe(&b, space), Ok(2));
    // The creator hears of it, and wipes in the same commit; then another owner, who has not heard more either.
    let works = [Work::Wipe { space, only: None }, Work::Follow { space, revision: revision(&b, space) }];
    let report = a.commit(&works, 1_000, NONCE).expect("memory does not fail");
    assert_eq!(report.done[0], Done::Wiped(Ok(3)));
    for role in [(b.device(), Role::Owner), (device(3).device(), Role::Reader)] {
        assert_eq!(a.access(space).expect("held").role(role.0), Some(role.1));
    }
    assert_eq!(view(&a, space).name().expect("readable"), "home");
    commit(&b, Work::Follow { space, revision: revision(&a, space) });
    assert_eq!(write(&b, space, vec![put("n1", json!({}))]), Err(WriteError::Waiting));
    let access = b.access(space).expect("held");
    assert!(access.is_waiting() && access.may_see(device(3).device()) && access.role(device(3).device()).is_none());
    assert_eq!(view(&b, space).name().expect("readable"), "home");
    commit(&b, Work::Receive { session: SESSION, space, segments: log(&a, space) });
    assert!(!b.access(space).expect("held").is_waiting());
    write(&b, space, vec![put("n1", json!({}))]).expect("it may write");
    let again = Ledger::open(Arc::clone(&b.store), device(2)).expect("the same store");
    assert_eq!(*again.access(space).expect("held"), *b.access(space).expect("held"));
}

#[test]
fn what_is_lost_of_a_revision_with_the_disk_of_whoever_began_it_is_said_again() {
    let (a, space) = (ledger(1), genesis(1).space());
    create(&a, 1);
    let [b, c] = [2, 3].map(ledger);
    invite(&a, space, &[(&b, Role::Owner), (&c, Role::Owner)]);
    for ledger in [&b, &c] {
        assert_eq!(hand_over(&a, ledger, space, 1), []);
    }
    admit(&a, device(4).device(), &ticket(&a, space, Role::Reader, 3), 1_000).expect("a good ticket");
    // Its word gets out; what it wrote in that revision does not. Another owner can begin anew all the same.
    assert_eq!(wipe(&b, space), Ok(2));
    commit(&c, Work::Follow { space, revision: revision(&b, space) });
    assert_eq!(write(&c, space, vec![put("n1", json!({}))]), Err(WriteError::Waiting));
    assert_eq!(wipe(&c, space), Ok(3));
    // The creator says who may do what, also of whom nobody else knew.
    commit(&a, Work::Follow { space, revision: revision(&b, space) });
    for (n, role) in [(2, Role::Owner), (3, Role::Owner), (4, Role::Reader)] {
        assert_eq!(a.access(space).expect("held").role(device(n).device()), Some(role));
    }
    commit(&a, Work::Follow { space, revision: revision(&c, space) });
    let report = commit(&c, Work::Receive { session: SESSION, space, segments: log(&a, space) });
    assert!(report.changed[&space].rejected.is_empty());
    assert_eq!(c.access(space).expect("held").role(device(4).device()), Some(Role::Reader));
}

#[test]
fn who_began_a_revision_owns_it_whatever_others_have_heard_of() {
    let (a, space) = (ledger(1), genesis(1).space());
    create(&a, 1);
    let [b, c] = [2, 3].map(ledger);
    invite(&a, space, &[(&b, Role::Owner), (&c, Role::Writer)]);
    for ledger in [&b, &c] {
        assert_eq!(hand_over(&a, ledger, space, 1), []);
    }
    // Made an owner by the second, of which the first has not heard, a writer wipes; and so does the first.
    commit(&b, Work::Share { space, device: c.device() });
    hand_over(&b, &c, space, 1);
    for ledger in [&a, &c] {
        assert_eq!(wipe(ledger, space), Ok(2));
    }
    for (from, to) in [(&c, &a), (&a, &c), (&a, &b), (&c, &b)] {
        commit(to, Work::Follow { space, revision: revision(from, space) });
        let report = commit(to, Work::Receive { session: SESSION, space, segments: log(from, space) });
        let rejected = report.changed.get(&space).map_or(Vec::new(), |changed| changed.rejected.clone());
        assert_eq!(rejected, []);
    }
    for ledger in [&a, &b, &c] {
        assert_eq!(ledger.access(space).expect("held").role(c.device()), Some(Role::Owner));
        assert_eq!(view(ledger, space).vector().expect("readable"), view(&a, space).vector().expect("readable"));
    }
}

#[test]
fn whoever_wipes_in_a_loop_waits_for_the_removal() {
    let (ledger, space) = (ledger(1), genesis(1).space());
    create(&ledger, 1);
    let outcomes: Vec<_> = (0..20).map(|_| wipe(&ledger, space)).collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 16);
    assert_eq!(outcomes[16..], vec![Err(WriteError::Backlog); 4]);
    // Small ones are removed many at a time.
    assert!(remove_all(&ledger) < 4);
    for _ in 0..9 {
        wipe(&ledger, space).expect("there is room again");
    }
    remove_all(&ledger);
    remove_all(&ledger);
    assert_eq!(ledger.removals().expect("readable").len(), 16, "the latest ones are remembered");
}

/// A store whose disk is full at times.
struct Full {
    memory: MemoryStore,
    is_full: AtomicBool,
}

impl Store for Full {
    fn snapshot(&self) -> Result<Box<dyn Snapshot>, StoreError> {
        self.memory.snapshot()
    }

    fn commit(&self, compute: &mut dyn FnMut(&dyn Read) -> Result<Batch, StoreError>) -> Result<(), StoreError> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(StoreError::Io("no room".to_owned()));
        }
        self.memory.commit(compute)
    }

    fn reopen(&self) -> Result<(), StoreError> {
        self.memory.reopen()
    }
}

#[test]
fn steps_of_a_removal_that_failed_are_counted_and_remembered_once_one_does_not() {
    let store = Arc::new(Full { memory: store(1), is_full: AtomicBool::new(false) });
    let open = || Ledger::open(Arc::clone(&store) as Arc<dyn Store>, device(1)).expect("a store");
    let ledger = open();
    let space = create(&ledger, 1);
    write(&ledger, space, vec![put("n", json!({}))]).expect("it may write");
    wipe(&ledger, space).expect("it may");
    let errors = |ledger: &Ledger| ledger.removals().expect("readable")[0].errors;
    let remove = || Work::Remove { again: false, rows_max: 1 };
    store.is_full.store(true, Ordering::SeqCst);
    let another = Work::Write { space, requests: vec![put("n", json!({}))] };
    assert!(ledger.commit(&[another], 1, NONCE).is_err());
    assert_eq!(errors(&ledger), 0, "that was none");
    assert!(ledger.commit(&[remove()], 1, NONCE).is_err());
    assert!(ledger.commit(&[remove()], 1, NONCE).is_err());
    assert_eq!(errors(&ledger), 2);
    store.is_full.store(false, Ordering::SeqCst);
    remove_all(&ledger);
    assert_eq!(errors(&ledger), 2);
    drop(ledger);
    assert_eq!(errors(&open()), 2, "it is written down");
}
