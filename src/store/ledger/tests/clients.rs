//! Stories about clients that have no version vector: what they had seen, ids that take effect once, and pages.

use super::*;
use crate::model::{ClientId, Context, Remark};

fn upload(request: Request, seen: Option<&Context>, id: Option<&str>) -> Upload {
    let id = id.map(|id| ClientId::try_from(id.to_owned()).expect("an id"));
    Upload { seen: seen.cloned(), remark: Remark { id, ..Remark::default() }, ..Upload::new(request) }
}

fn try_send(ledger: &Ledger, space: SpaceId, uploads: Vec<Upload>) -> Result<Vec<Uploaded>, WriteError> {
    match commit(ledger, Work::Upload { space, uploads }).done.remove(0) {
        Done::Uploaded(outcome) => outcome,
        other => panic!("an upload is answered as one, not {other:?}"),
    }
}

fn send(ledger: &Ledger, space: SpaceId, request: Request, seen: Option<&Context>, id: Option<&str>) -> Uploaded {
    try_send(ledger, space, vec![upload(request, seen, id)]).expect("it can be written").remove(0)
}

fn row(ledger: &Ledger, space: SpaceId, name: &str) -> Option<Row> {
    let request = put(name, json!({}));
    view(ledger, space).row(&request.collection, &request.key).expect("readable")
}

fn context(ledger: &Ledger, space: SpaceId, name: &str) -> Context {
    row(ledger, space, name).expect("it is there").context
}

#[test]
fn a_write_replaces_what_its_client_had_seen_and_nothing_else() {
    let (ledger, space) = (ledger(1), genesis(1).space());
    create(&ledger, 1);
    let first = send(&ledger, space, put("n1", json!({"title": "one", "done": false})), None, None);
    assert_eq!(context(&ledger, space, "n1"), first.seen);
    // Two phones saw the first state, and write without having heard of each other.
    send(&ledger, space, patch("n1", json!({"title": "two"})), Some(&first.seen), None);
    let third = send(&ledger, space, patch("n1", json!({"title": "three"})), Some(&first.seen), None);
    let both = row(&ledger, space, "n1").expect("it is there");
    assert_eq!(both.fields.as_ref().expect("visible")["title"], "three", "the later one shows");
    assert_eq!(both.conflicts.len(), 1, "and the other is kept");
    assert_eq!(both.version, third.version);
    // Whoever saw both decides.
    send(&ledger, space, patch("n1", json!({"title": "both"})), Some(&both.context), None);
    let decided = row(&ledger, space, "n1").expect("it is there");
    assert_eq!(decided.fields, Some(fields(json!({"title": "both", "done": false}))));
    assert_eq!(decided.conflicts, []);
    // A put of somebody who saw only the beginning does not take away what came since.
    send(&ledger, space, put("n1", json!({"title": "late"})), Some(&first.seen), None);
    let late = row(&ledger, space, "n1").expect("it is there");
    assert_eq!(late.conflicts.len(), 1, "{late:?}");
    // Without a context it counts as having seen what is here.
    send(&ledger, space, put("n1", json!({"title": "all"})), None, None);
    assert_eq!(row(&ledger, space, "n1").expect("it is there").fields, Some(fields(json!({"title": "all"}))));
}

#[test]
fn what_is_only_taken_away_is_a_change_too() {
    let (ledger, space) = (ledger(1), genesis(1).space());
    create(&ledger, 1);
    let first = send(&ledger, space, put("n1", json!({"title": "one", "done": false})), None, None).seen;
    let add = |tag: &str| Operation::Add("tags".parse().expect("a field"), json!(tag));
    send(&ledger, space, request("n1", add("a")), None, None);
    let second = send(&ledger, space, request("n1", add("b")), None, None).seen;
    let unset = Operation::Unset(vec!["done".parse().expect("a field")]);
    let third = send(&ledger, space, request("n1", unset), None, None).seen;
    let remove = Operation::Remove("tags".parse().expect("a field"), json!("a"));
    let fourth = send(&ledger, space, request("n1", remove), None, None).seen;
    let all = [&first, &second, &third, &fourth];
    for (at, one) in all.iter().enumerate() {
        assert!(all[..at].iter().all(|other| other != one), "{all:?}");
    }
    assert_eq!(context(&ledger, space, "n1"), fourth);
    // Whoever saw what has been taken away since is told so, and deletes nothing unseen.
    for stale in [first, second, third] {
        let delete = Upload { expected: Some(stale), ..Upload::new(request("n1", Operation::Delete)) };
        assert!(matches!(try_send(&ledger, space, vec![delete]), Err(WriteError::Changed { index: 0 })));
    }
    let delete = Upload { expected: Some(fourth), ..Upload::new(request("n1", Operation::Delete)) };
    try_send(&ledger, space, vec![delete]).expect("it stands so");
}

#[test]
fn what_is_written_beside_a_delete_is_kept_and_resurrects_nothing() {
    let (ledger, space) = (ledger(1), genesis(1).space());
    create(&ledger, 1);
    let seen = send(&ledger, space, put("n1", json!({"title": "one"})), None, None).seen;
    send(&ledger, space, request("n1", Operation::Delete), Some(&seen), None);
    let absent = || try_send(&ledger, space, vec![upload(patch("n1", json!({"a": 1})), None, None)]);
    assert!(matches!(absent(), Err(WriteError::Edit { index: 0, error: InvalidEdit::NotFound { .. } })));
    let offline = send(&ledger, space, patch("n1", json!({"title": "offline"})), Some(&seen), None);
    assert_eq!(offline.visible, Some(false), "its client is told");
    send(&ledger, space, request("n1", Operation::Increment("n".parse().expect("a field"), 2)), Some(&seen), None);
    assert_eq!(row(&ledger, space, "n1"), None, "the delete holds");
    let lost = view(&ledger, space).lost().expect("readable");
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].fields, fields(json!({"n": 2, "title": "offline"})), "and what was written is kept");
    // The second delete of the same client changes nothing.
    let again = send(&ledger, space, request("n1", Operation::Delete), Some(&seen), None);
    assert!(!again.duplicate);
    // A put beside the delete is a new beginning.
    send(&ledger, space, put("n1", json!({"title": "new"})), Some(&seen), None);
    assert!(row(&ledger, space, "n1").is_some());
}

#[test]
fn increments_count_whatever_their_client_had_seen() {
    let (ledger, space) = (ledger(1), genesis(1).space());
    create(&ledger, 1);
    let seen = send(&ledger, space, put("n1", json!({})), None, None).seen;
    let field = || "n".parse().expect("a field");
    for _ in 0..3 {
        send(&ledger, space, request("n1", Operation::Increment(field(), 5)), Some(&seen), None);
    }
    assert_eq!(row(&ledger, space, "n1").expect("it is there").fields, Some(fields(json!({"n": 15}))));
}

#[test]
fn an_id_takes_effect_once_here_after_a_restart_and_wherever_its_event_has_come() {
    let (store, space) = (Arc::new(store(1)), genesis(1).space());
    let open = || Ledger::open(Arc::clone(&store) as Arc<dyn Store>, device(1)).expect("a store");
    let here = open();
    create(&here, 1);
    let counter = || request("n1", Operation::Increment("n".parse().expect("a field"), 1));
    send(&here, space, put("n1", json!({})), None, Some("first"));
    let done = send(&here, space, counter(), None, Some("second"));
    send(&here, space, patch("n1", json!({"title": "since"})), None, None);
    let again = send(&here, space, counter(), None, Some("second"));
    assert_eq!(
        again,
        Uploaded { duplicate: true, visible: None, ..done.clone() },
        "with the version that it first got"
    );
    drop(here);
    let here = open();
    assert_eq!(send(&here, space, put("n9", json!({"other": 1})), None, Some("second")), again);
    assert_eq!(row(&here, space, "n9"), None, "whatever comes with a known id");
    // Twice in one commit, and in one batch with others.
    let works: Vec<Work> =
        (0..2).map(|_| Work::Upload { space, uploads: vec![upload(counter(), None, Some("third"))] }).collect();
    let done = here.commit(&works, 1_000, NONCE).expect("memory does not fail").done;
    let [Done::Uploaded(Ok(one)), Done::Uploaded(Ok(two))] = &done[..] else { panic!("{done:?}") };
    assert_eq!((one[0].duplicate, two[0].duplicate), (false, true));
    assert_eq!(one[0].version, two[0].version);
    let mixed = vec![upload(counter(), None, Some("third")), upload(put("n2", json!({})), None, Some("fourth"))];
    let mixed = try_send(&here, space, mixed).expect("it can be written");
    assert_eq!((mixed[0].duplicate, mixed[1].duplicate), (true, false));
    assert_eq!(row(&here, space, "n1").expect("it is there").fields.expect("visible")["n"], 2);
    // Deleted since, and another node that got the events.
    send(&here, space, request("n1", Operation::Delete), None, None);
    assert!(send(&here, space, put("n1", json!({})), None, Some("first")).duplicate);
    let there = ledger(2);
    let introduction = admit(&here, there.device(), &ticket(&here, space, Role::Writer, 1), 1).expect("it holds");
    commit(&there, Work::Join { introduction, introducer: here.device() });
    assert_eq!(hand_over(&here, &there, space, 100), []);
    assert!(send(&there, space, counter(), None, Some("second")).duplicate);
    assert!(send(&there, space, counter(), None, Some("fourth")).duplicate);
    assert!(!send(&there, space, put("n3", json!({})), None, Some("fifth")).duplicate);
}

#[test]
fn a_write_that_expects_another_state_is_not_done() {
    let (ledger, space) = (ledger(1), genesis(1).space());
    create(&ledger, 1);
    let expecting = |expected: Context, title: &str| {
        let upload = upload(put("n1", json!({"title": title})), None, None);
        try_send(&ledger, space, vec![Upload { expected: Some(expected), ..upload }])
    };
    let one = expecting(Context::default(), "one").expect("it is not there yet").remove(0);
    assert_eq!(expecting(Context::default(), "two"), Err(WriteError::Changed { index: 0 }));
    expecting(one.seen.clone(), "two").expect("nobody wrote meanwhile");
    assert_eq!(expecting(one.seen, "three"), Err(WriteError::Changed { index: 0 }));
}

/// Draws numbers: a linear congruential generator is enough for tests.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[test]
fn pages_miss_nothing_while_rows_change_between_them() {
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let (ledger, space) = (ledger(1), genesis(1).space());
        create(&ledger, 1);
        let write = |dice: &mut Dice| {
            let name = format!("n{}", dice.throw(12));
            let operation = match dice.throw(3) {
                0 => Operation::Delete,
                _ => Operation::Put(fields(json!({"n": dice.throw(1000)}))),
            };
            let collection = CollectionName::user(["a", "b", "c"][dice.throw(3) as usize]).expect("a name");
            let request = Request { collection, key: name.parse().expect("a key"), operation };
            let _ = try_send(&ledger, space, vec![upload(request, None, None)]);
        };
        (0..dice.throw(60)).for_each(|_| write(&mut dice));
        let only =
            [None, Some(BTreeSet::from([CollectionName::user("b").expect("a name")]))][seed as usize % 2].clone();
        let limits = PageLimits {
            rows: 1 + dice.throw(5) as usize,
            bytes: 1 + dice.throw(300) as usize,
            looked_at: 1 + dice.throw(5) as usize,
        };
        let mut held: BTreeMap<(CollectionName, ObjectKey), Map<String, Json>> = BTreeMap::new();
        let mut take = |rows: Vec<Row>| {
            assert!(rows.len() <= limits.rows);
            for Row { collection, key, fields, .. } in rows {
                match fields {
                    Some(fields) => _ = held.insert((collection, key), fields),
                    None => _ = held.remove(&(collection, key)),
                }
            }
        };
        let mut position = view(&ledger, space).position().expect("readable");
        let mut after = None;
        loop {
            let page = view(&ledger, space).rows_after(after.as_ref(), only.as_ref(), limits).expect("readable");
            take(page.rows);
            if page.is_last {
                break;
            }
            assert!(page.at > after, "it goes on");
            after = page.at;
            (0..dice.throw(3)).for_each(|_| write(&mut dice));
        }
        (0..dice.throw(9)).for_each(|_| write(&mut dice));
        loop {
            let view = view(&ledger, space);
            let until = view.position().expect("readable");
            let page = view.rows_changed(position, until, only.as_ref(), limits).expect("readable");
            take(page.rows);
            assert!(page.at > position || page.is_last);
            position = page.at;
            if page.is_last {
                break;
            }
            if dice.throw(4) == 0 {
                write(&mut dice);
            }
        }
        let mut visible = BTreeMap::new();
        view(&ledger, space)
            .visit(None, &mut |collection, key, object| {
                if only.as_ref().is_none_or(|only| only.contains(collection)) {
                    visible.insert((collection.clone(), key), object.shown().expect("visible"));
                }
                std::ops::ControlFlow::Continue(())
            })
            .expect("readable");
        assert_eq!(held, visible, "seed {seed}");
    }
}

#[test]
fn a_table_is_known_as_a_whole_and_by_versions() {
    let mut dice = Dice(3);
    let (store, space) = (Arc::new(store(1)), genesis(1).space());
    let ledger = Ledger::open(Arc::clone(&store) as Arc<dyn Store>, device(1)).expect("a store");
    create(&ledger, 1);
    let notes = CollectionName::user("notes").expect("a name");
    let mut held: BTreeMap<String, (bool, Option<i64>)> = BTreeMap::new();
    for _ in 0..300 {
        let name = format!("n{}", dice.throw(20));
        let source_version = [None, Some(dice.throw(50) as i64 - 25), Some(i64::MAX), Some(i64::MIN)]
            [(dice.throw(12) as usize).saturating_sub(8).min(3)];
        let is_delete = dice.throw(4) == 0;
        let operation =
            if is_delete { Operation::Delete } else { Operation::Put(fields(json!({"n": dice.throw(99)}))) };
        let mut upload = upload(request(&name, operation), None, None);
        upload.remark.source_version = source_version;
        let (was_visible, given) = held.get(&name).copied().unwrap_or_default();
        match try_send(&ledger, space, vec![upload]) {
            Ok(_) => _ = held.insert(name, (!is_delete, source_version.or(given))),
            Err(_) => assert!(is_delete && !was_visible),
        }
        if dice.throw(10) > 0 {
            continue;
        }
        let visible = held.iter().filter(|(_, (is_visible, _))| *is_visible);
        let visible: BTreeMap<String, Option<i64>> = visible.map(|(name, (_, given))| (name.clone(), *given)).collect();
        let view = view(&ledger, space);
        let Some(table) = view.table(&notes).expect("readable") else { continue };
        assert_eq!(table.rows, visible.len() as u64);
        assert_eq!(table.source_version, visible.values().filter_map(|version| *version).max());
        assert_eq!(table.version, view.position().expect("readable"));
        let all = |versions: Versions| {
            let (mut rows, mut next) = (Vec::new(), Some(versions));
            while let Some(versions) = next {
                let limits = PageLimits { rows: 3, bytes: usize::MAX, looked_at: 4 };
                let page = view.manifest(&notes, &versions, limits).expect("readable");
                rows.extend(page.rows);
                next = page.next;
            }
            rows
        };
        let rows = all(Versions::Own(0..=u64::MAX));
        assert_eq!(rows.iter().fold(0, |sum: u128, row| sum.wrapping_add(row.digest)), table.digest);
        let told: BTreeMap<String, Option<i64>> =
            rows.iter().map(|row| (row.key.as_str().to_owned(), row.source_version)).collect();
        assert_eq!(told, visible);
        let sum = view.manifest_sum(&notes, &Versions::Own(0..=u64::MAX)).expect("readable");
        assert_eq!(sum, (table.rows, table.digest));
        assert_eq!(view.table_count(&notes).expect("readable"), Some((table.rows, table.version)));
        let by_source = all(Versions::Source(i64::MIN..=i64::MAX));
        let sum = view.manifest_sum(&notes, &Versions::Source(i64::MIN..=i64::MAX)).expect("readable");
        assert_eq!(sum.0, by_source.len() as u64);
        assert!(by_source.is_sorted_by_key(|row| row.source_version));
        assert_eq!(by_source.len(), visible.values().filter(|version| version.is_some()).count());
        let some = all(Versions::Source(-5..=5));
        assert_eq!(
            some.len(),
            visible.values().filter(|version| version.is_some_and(|v| (-5..=5).contains(&v))).count()
        );
    }
}

#[test]
fn who_wrote_beside_somebody_has_not_seen_what_they_wrote() {
    let (ledger, space) = (ledger(1), genesis(1).space());
    create(&ledger, 1);
    let first = send(&ledger, space, put("n1", json!({"title": "first"})), None, None).seen;
    // Two phones saw the first state. One is quicker; the other never hears of what it wrote, and goes on from its own.
    send(&ledger, space, patch("n1", json!({"title": "quick"})), Some(&first), None);
    let slow = send(&ledger, space, patch("n1", json!({"title": "slow"})), Some(&first), None).seen;
    let slow = slow.to_string().parse().expect("as it came");
    let again = send(&ledger, space, patch("n1", json!({"title": "slow again"})), Some(&slow), None).seen;
    let both = row(&ledger, space, "n1").expect("it is there");
    assert_eq!(both.fields.expect("visible")["title"], "slow again");
    assert_eq!(both.conflicts.len(), 1, "what the quick one wrote is still there");
    assert_eq!(both.conflicts[0].values.len(), 2, "and only that: {:?}", both.conflicts);
    // What somebody decided since is not what the slow one wrote, either.
    send(&ledger, space, patch("n1", json!({"title": "decided"})), None, None);
    send(&ledger, space, patch("n1", json!({"title": "late"})), Some(&again), None);
    assert_eq!(row(&ledger, space, "n1").expect("it is there").conflicts[0].values.len(), 2);
}

#[test]
fn whoever_writes_over_everything_has_seen_the_row_as_it_stands_then() {
    let (here, there, space) = (ledger(1), ledger(2), genesis(1).space());
    create(&here, 1);
    let introduction = admit(&here, there.device(), &ticket(&here, space, Role::Writer, 1), 1).expect("it holds");
    commit(&there, Work::Join { introduction, introducer: here.device() });
    assert_eq!(hand_over(&here, &there, space, 100), []);
    send(&there, space, put("n1", json!({"title": "theirs"})), None, None);
    assert_eq!(hand_over(&there, &here, space, 100), []);
    for title in ["ours", "ours again"] {
        let seen = send(&here, space, put("n1", json!({"title": title})), None, None).seen;
        assert_eq!(context(&here, space, "n1"), seen);
    }
    let seen = context(&here, space, "n1");
    let seen = send(&here, space, patch("n1", json!({"title": "third"})), Some(&seen), None).seen;
    assert_eq!(context(&here, space, "n1"), seen, "nobody else wrote to it");
}

#[test]
fn an_id_that_stands_twice_in_one_write_takes_effect_once() {
    let (ledger, space) = (ledger(1), genesis(1).space());
    create(&ledger, 1);
    let twice = ["n1", "n2"].map(|name| upload(put(name, json!({})), None, Some("same"))).to_vec();
    let done = try_send(&ledger, space, twice).expect("it can be written");
    assert_eq!(done.iter().map(|row| row.duplicate).collect::<Vec<_>>(), [false, true]);
    assert_eq!(row(&ledger, space, "n2"), None);
    assert_eq!(done[0].version, done[1].version, "with the version that it first got");
    // In one commit, and for another row.
    let one = |name| Work::Upload { space, uploads: vec![upload(put(name, json!({})), None, Some("other"))] };
    let done = ledger.commit(&[one("n3"), one("n4")], 1_000, NONCE).expect("memory does not fail").done;
    let [Done::Uploaded(Ok(one)), Done::Uploaded(Ok(two))] = &done[..] else { panic!("{done:?}") };
    assert_eq!(two[0], Uploaded { duplicate: true, visible: None, ..one[0].clone() });
}

#[test]
fn a_put_of_somebody_who_saw_a_counter_earlier_leaves_it_alone() {
    let (ledger, space) = (ledger(1), genesis(1).space());
    create(&ledger, 1);
    send(&ledger, space, put("n1", json!({"title": "one"})), None, None);
    let count = |by| request("n1", Operation::Increment("n".parse().expect("a field"), by));
    send(&ledger, space, count(3), None, None);
    let seen = context(&ledger, space, "n1");
    send(&ledger, space, count(1), None, None);
    send(&ledger, space, put("n1", json!({"title": "two", "n": 3})), Some(&seen), None);
    let after = row(&ledger, space, "n1").expect("it is there");
    assert_eq!(after.fields, Some(fields(json!({"title": "two", "n": 4}))));
    assert_eq!(after.conflicts, []);
}

#[test]
fn who_never_saw_anything_cannot_pile_up_a_row_without_bounds() {
    let (ledger, space) = (ledger(1), genesis(1).space());
    create(&ledger, 1);
    let blind = |n: u32| {
        let text = n.to_string().repeat(500_000);
        try_send(&ledger, space, vec![upload(put("n1", json!({"text": text})), Some(&Context::default()), None)])
    };
    let refused = (0..40).find_map(|n| blind(10 + n).err()).expect("not for ever");
    assert!(matches!(refused, WriteError::Edit { index: 0, error: InvalidEdit::TooLarge(_) }), "{refused}");
    let seen = context(&ledger, space, "n1");
    send(&ledger, space, put("n1", json!({"text": "decided"})), Some(&seen), None);
    blind(90).expect("there is room again");
}

#[test]
fn a_row_that_comes_and_goes_within_one_commit_has_a_version() {
    let (ledger, space) = (ledger(1), genesis(1).space());
    create(&ledger, 1);
    let asked = |request, id| Work::Upload { space, uploads: vec![upload(request, None, Some(id))] };
    let works = [asked(put("n1", json!({})), "put"), asked(request("n1", Operation::Delete), "delete")];
    let done = ledger.commit(&works, 1_000, NONCE).expect("memory does not fail").done;
    let [Done::Uploaded(Ok(put_n1)), Done::Uploaded(Ok(deleted))] = &done[..] else { panic!("{done:?}") };
    let top = view(&ledger, space).position().expect("readable");
    assert_eq!((put_n1[0].version, deleted[0].version), (top, top));
    assert!(top > 0);
    let again = send(&ledger, space, put("n1", json!({})), None, Some("put"));
    assert_eq!((again.duplicate, again.version), (true, top));
    let limits = PageLimits { rows: 9, bytes: usize::MAX, looked_at: 9 };
    let notes = CollectionName::user("notes").expect("a name");
    let gone = view(&ledger, space).rows_deleted(0, top, Some(&notes), limits).expect("readable").rows;
    assert_eq!(gone.iter().map(|row| (row.key.as_str(), row.version)).collect::<Vec<_>>(), [("n1", top)]);
    // Nobody is told of what a device does so, and nobody is told of it twice.
    let works = [put("n2", json!({})), request("n2", Operation::Delete)];
    let works = works.map(|request| Work::Write { space, requests: vec![request] });
    ledger.commit(&works, 1_000, NONCE).expect("memory does not fail");
    assert_eq!(view(&ledger, space).position().expect("readable"), top);
    let table = view(&ledger, space).table(&notes).expect("readable").expect("it is there");
    assert_eq!((table.rows, table.digest), (0, 0));
}

#[test]
fn another_version_of_a_client_is_a_change_though_nothing_else_is() {
    let (here, there, space) = (ledger(1), ledger(2), genesis(1).space());
    create(&here, 1);
    let introduction = admit(&here, there.device(), &ticket(&here, space, Role::Writer, 1), 1).expect("it holds");
    commit(&there, Work::Join { introduction, introducer: here.device() });
    let send_at = |request: Request, source_version: i64| {
        let mut upload = upload(request, None, None);
        upload.remark.source_version = Some(source_version);
        try_send(&here, space, vec![upload]).expect("it can be written").remove(0).version
    };
    let first = send_at(put("n1", json!({"title": "one", "tags": {"a": 1}})), 7);
    let field = |name: &str| name.parse().expect("a field");
    let same = [
        patch("n1", json!({"title": "one"})),
        request("n1", Operation::Unset(vec![field("nothing")])),
        request("n1", Operation::Remove(field("set"), json!(1))),
    ];
    let mut last = first;
    for (source_version, request) in (8..).zip(same) {
        let version = send_at(request.clone(), source_version);
        assert!(version > last, "{request:?}");
        assert_eq!(send_at(request.clone(), source_version), version, "and no other one is none: {request:?}");
        last = version;
        assert_eq!(hand_over(&here, &there, space, 100), []);
        for ledger in [&here, &there] {
            let found = row(ledger, space, "n1").expect("it is there");
            assert_eq!(found.source_version, Some(source_version), "{request:?}");
            assert_eq!(found.fields, Some(fields(json!({"title": "one", "tags": {"a": 1}}))));
            let notes = CollectionName::user("notes").expect("a name");
            let table = view(ledger, space).table(&notes).expect("readable").expect("it is there");
            assert_eq!(table.source_version, Some(source_version));
        }
    }
}

#[test]
fn a_table_whose_deletions_are_soon_forgotten_does_not_shorten_what_is_told_of_another() {
    let (ledger, space) = (ledger(1), genesis(1).space());
    create(&ledger, 1);
    let table = |name: &str| CollectionName::user(name).expect("a name");
    let write = |name: &str, operation: Operation| {
        let request = Request { collection: table(name), key: "k".parse().expect("a key"), operation };
        send(&ledger, space, request, None, None).version
    };
    for name in ["notes", "log"] {
        write(name, Operation::Put(Map::new()));
    }
    let deleted = ["notes", "log"].map(|name| write(name, Operation::Delete));
    let horizons = || {
        let of = |names: &[&str]| {
            let only: BTreeSet<CollectionName> = names.iter().map(|name| table(name)).collect();
            view(&ledger, space).horizon_of(Some(&only)).expect("readable")
        };
        [of(&["notes"]), of(&["log"]), of(&["log", "notes"]), view(&ledger, space).horizon_of(None).expect("readable")]
    };
    assert_eq!(horizons(), [0; 4]);
    let trim = |deletions: &[u64]| {
        let trimming = Trimming { revision: 1, deletions: deletions.to_vec(), ids: Vec::new() };
        Work::Trim { space, trimming }
    };
    // In one commit with something else that is counted of the table.
    let put =
        Request { collection: table("log"), key: "j".parse().expect("a key"), operation: Operation::Put(Map::new()) };
    let uploads = vec![upload(put, None, None)];
    ledger.commit(&[trim(&deleted[1..]), Work::Upload { space, uploads }], 1, NONCE).expect("memory does not fail");
    assert_eq!(horizons(), [0, deleted[1], deleted[1], deleted[1]]);
    assert_eq!(view(&ledger, space).table_count(&table("log")).expect("readable").expect("it is there").0, 1);
    commit(&ledger, trim(&deleted[..1]));
    assert_eq!(horizons(), [deleted[0], deleted[1], deleted[1], deleted[1]]);
    // What was before a wipe is told of no table, whether it is there already or not.
    let wiped = commit(&ledger, Work::Wipe { space, only: None }).done;
    assert!(matches!(wiped[..], [Done::Wiped(Ok(2))]), "{wiped:?}");
    let begun = view(&ledger, space).position().expect("readable");
    write("log", Operation::Put(Map::new()));
    assert_eq!(horizons(), [begun; 4]);
}

#[test]
fn what_was_deleted_is_found_without_reading_what_is_there() {
    let (ledger, space) = (ledger(1), genesis(1).space());
    create(&ledger, 1);
    let names: Vec<String> = (0..40).map(|n| format!("n{n}")).collect();
    names.iter().for_each(|name| _ = send(&ledger, space, put(name, json!({})), None, None));
    for name in ["n3", "n5", "n7"] {
        send(&ledger, space, request(name, Operation::Delete), None, None);
    }
    let notes = CollectionName::user("notes").expect("a name");
    let view = view(&ledger, space);
    let (mut at, mut pages, mut found, top) = (0, 0, Vec::new(), view.position().expect("readable"));
    loop {
        let limits = PageLimits { rows: 2, bytes: usize::MAX, looked_at: 30 };
        let page = view.rows_deleted(at, top, Some(&notes), limits).expect("readable");
        found.extend(page.rows.iter().map(|row| row.key.as_str().to_owned()));
        (at, pages) = (page.at, pages + 1);
        if page.is_last {
            break;
        }
    }
    assert_eq!((found, pages), (["n3", "n5", "n7"].map(str::to_owned).to_vec(), 3), "after thirty rows, two, and one");
}

/// Pages of what lost, of so many bytes each: the keys, page by page.
fn lost_pages(ledger: &Ledger, space: SpaceId, bytes: usize) -> Vec<Vec<String>> {
    let (mut after, mut pages) = (None, Vec::new());
    loop {
        let limits = PageLimits { rows: 100, bytes, looked_at: usize::MAX };
        let page = view(ledger, space).rows_lost(after.as_ref(), limits).expect("readable");
        pages.push(page.rows.iter().map(|row| row.key.to_string()).collect());
        if page.is_last {
            return pages;
        }
        after = page.at;
    }
}

/// Has the edit of somebody who saw the row lose to a delete.
fn lose(ledger: &Ledger, space: SpaceId, key: &str, text: &str) {
    send(ledger, space, put(key, json!({"text": "seen"})), None, None);
    let seen = context(ledger, space, key);
    send(ledger, space, request(key, Operation::Delete), None, None);
    send(ledger, space, patch(key, json!({"text": text})), Some(&seen), None);
}

#[test]
fn a_page_of_lost_edits_is_no_larger_than_it_may_be() {
    let (ledger, space) = (ledger(1), genesis(1).space());
    create(&ledger, 1);
    ["n1", "n2", "n3"].iter().for_each(|key| lose(&ledger, space, key, &"x".repeat(1000)));
    assert_eq!(lost_pages(&ledger, space, 1 << 20), [["n1", "n2", "n3"]]);
    assert_eq!(lost_pages(&ledger, space, 1500), [vec!["n1", "n2"], vec!["n3"]]);
    assert_eq!(lost_pages(&ledger, space, 1), [["n1"], ["n2"], ["n3"]]);
}

#[test]
fn what_lost_is_told_though_its_delete_is_not() {
    // Here the delete is forgotten.
    let (here, there, space) = pair();
    lose(&here, space, "n1", "late");
    let told = view(&here, space).rows_lost(None, PageLimits { rows: 9, bytes: 9, looked_at: 9 });
    let deletions = vec![told.expect("readable").rows[0].version];
    commit(&here, Work::Trim { space, trimming: Trimming { revision: 1, deletions, ids: Vec::new() } });
    // There all of it comes at once, so that nobody ever saw the row.
    hand_over(&here, &there, space, 1 << 20);
    for ledger in [&here, &there] {
        assert_eq!(lost_pages(ledger, space, 1 << 20), [["n1"]]);
        let told = view(ledger, space).rows_lost(None, PageLimits { rows: 9, bytes: 9, looked_at: 9 });
        let lost = told.expect("readable").rows.remove(0);
        assert_eq!((lost.by, lost.fields), (here.device(), Some(fields(json!({"text": "late"})))));
        send(ledger, space, request("n1", Operation::Restore), Some(&lost.context), None);
        assert_eq!(shown(ledger, space, "n1"), Some(json!({"text": "late"})));
    }
}
