//! What every store must do, run over each of them.

use std::ops::ControlFlow;

use proptest::prelude::*;

use super::*;

/// Each kind of store, empty, and what must live as long as it does.
fn stores() -> Vec<(&'static str, Box<dyn Store>, Option<tempfile::TempDir>)> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let redb = RedbStore::create(&directory.path().join("store"), 1 << 20, Batch::new()).expect("a new store");
    vec![("memory", Box::new(MemoryStore::new()), None), ("redb", Box::new(redb), Some(directory))]
}

fn batch<const N: usize>(changes: [(&str, Option<&str>); N]) -> Batch {
    changes.into_iter().map(|(key, value)| (key.into(), value.map(Into::into))).collect()
}

fn write<const N: usize>(store: &dyn Store, changes: [(&str, Option<&str>); N]) {
    let mut batch = Some(batch(changes));
    store.commit(&mut |_| Ok(batch.take().expect("computed once"))).expect("the commit succeeds");
}

fn all(read: &dyn Read) -> Vec<(String, String)> {
    scanned(read, b"", b"\xff", usize::MAX)
}

fn scanned(read: &dyn Read, from: &[u8], to: &[u8], at_most: usize) -> Vec<(String, String)> {
    let mut seen = Vec::new();
    read.scan(from, to, &mut |key, value| {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("the tests write text");
        seen.push((text(key), text(value)));
        if seen.len() == at_most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .expect("the scan succeeds");
    seen
}

fn keys(entries: &[(String, String)]) -> Vec<&str> {
    entries.iter().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn a_batch_is_seen_whole_and_by_later_snapshots_only() {
    for (name, store, _directory) in stores() {
        write(&*store, [("a", Some("1")), ("b", Some("2"))]);
        let before = store.snapshot().expect("a snapshot");
        write(&*store, [("a", None), ("b", Some("3")), ("c", Some("4")), ("never there", None)]);
        let after = store.snapshot().expect("a snapshot");
        assert_eq!(all(&*before), [("a".into(), "1".into()), ("b".into(), "2".into())], "{name}");
        assert_eq!(all(&*after), [("b".into(), "3".into()), ("c".into(), "4".into())], "{name}");
        let values = after.get_many(&[b"c".to_vec(), b"a".to_vec(), b"b".to_vec()]).expect("reads");
        assert_eq!(values, [Some(b"4".to_vec()), None, Some(b"3".to_vec())], "{name}");
    }
}

#[test]
fn a_scan_has_its_first_key_not_its_last_and_ends_when_told() {
    for (name, store, _directory) in stores() {
        write(&*store, [("a", Some("1")), ("ab", Some("2")), ("b", Some("3")), ("c", Some(""))]);
        let snapshot = store.snapshot().expect("a snapshot");
        assert_eq!(keys(&scanned(&*snapshot, b"a", b"b", 9)), ["a", "ab"], "{name}");
        assert_eq!(keys(&scanned(&*snapshot, b"aa", b"bb", 9)), ["ab", "b"], "{name}");
        assert_eq!(keys(&scanned(&*snapshot, b"a", b"z", 2)), ["a", "ab"], "{name}");
        assert_eq!(keys(&scanned(&*snapshot, b"b", b"b", 9)), [""; 0], "{name}");
        assert_eq!(keys(&scanned(&*snapshot, b"c", b"a", 9)), [""; 0], "{name}: a range that ends before it begins");
        assert_eq!(snapshot.get(b"c").expect("a read"), Some(Vec::new()), "{name}: an empty value is a value");
    }
}

#[test]
fn a_commit_reads_what_it_writes_over_and_may_take_snapshots() {
    for (name, store, _directory) in stores() {
        for _ in 0..3 {
            let compute = &mut |read: &dyn Read| {
                let old = read.get(b"count")?.map_or(0, |count| count[0]);
                let beside = store.snapshot()?.get(b"count")?.map_or(0, |count| count[0]);
                assert_eq!(old, beside, "{name}");
                Ok(Batch::from([(b"count".to_vec(), Some(vec![old + 1]))]))
            };
            store.commit(compute).expect("the commit succeeds");
        }
        let snapshot = store.snapshot().expect("a snapshot");
        assert_eq!(snapshot.get(b"count").expect("a read"), Some(vec![3]), "{name}");
    }
}

#[test]
fn an_error_or_a_panic_of_compute_changes_nothing_and_an_empty_batch_is_fine() {
    for (name, store, _directory) in stores() {
        write(&*store, [("a", Some("1"))]);
        let refused = store.commit(&mut |_| Err(StoreError::Damaged("as computed".into())));
        assert!(matches!(refused, Err(StoreError::Damaged(_))), "{name}: {refused:?}");
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = store.commit(&mut |_| panic!("a bug of the caller, on purpose"));
        }));
        assert!(panicked.is_err(), "{name}: the panic of a caller is passed on");
        write(&*store, []);
        write(&*store, [("b", Some("2"))]);
        let snapshot = store.snapshot().expect("a snapshot");
        assert_eq!(keys(&all(&*snapshot)), ["a", "b"], "{name}");
    }
}

#[test]
fn commits_of_many_threads_run_one_after_the_other() {
    for (name, store, _directory) in stores() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let compute = &mut |read: &dyn Read| {
                            let old = read.get(b"count")?.map_or(0, |count| count[0]);
                            Ok(Batch::from([(b"count".to_vec(), Some(vec![old + 1]))]))
                        };
                        store.commit(compute).expect("the commit succeeds");
                    }
                });
            }
        });
        let snapshot = store.snapshot().expect("a snapshot");
        assert_eq!(snapshot.get(b"count").expect("a read"), Some(vec![100]), "{name}");
    }
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Commit(Batch),
    /// A commit whose computation fails.
    Refuse,
    Snapshot,
    Scan(Vec<u8>, Vec<u8>, usize),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0u8..3, 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    // Values reach beyond a page of the engine.
    let value = prop_oneof![
        Just(None),
        (any::<u8>(), prop_oneof![0usize..20, 3_000usize..9_000]).prop_map(|(byte, len)| Some(vec![byte; len])),
    ];
    prop_oneof![
        4 => prop::collection::btree_map(key(), value, 0..12).prop_map(Step::Commit),
        1 => Just(Step::Refuse),
        1 => Just(Step::Snapshot),
        3 => (key(), key(), 1usize..10).prop_map(|(from, to, at_most)| Step::Scan(from, to, at_most)),
    ]
}

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

fn entries(read: &dyn Read, from: &[u8], to: &[u8], at_most: usize) -> Entries {
    let mut seen = Vec::new();
    read.scan(from, to, &mut |key, value| {
        seen.push((key.to_vec(), value.to_vec()));
        if seen.len() == at_most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .expect("the scan succeeds");
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_store_behaves_like_a_map(steps in prop::collection::vec(step(), 1..24)) {
        let memory = MemoryStore::new();
        let disk = super::redb::tests::Disk::default();
        let redb = RedbStore::with_backend(move || Ok(disk.clone()), 1 << 16, Some(Batch::new()))
            .expect("a new store");
        for store in [&memory as &dyn Store, &redb] {
            let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            let mut snapshots: Vec<(Box<dyn Snapshot>, Entries)> = Vec::new();
            for step in &steps {
                match step {
                    Step::Commit(batch) => {
                        store.commit(&mut |_| Ok(batch.clone())).expect("the commit succeeds");
                        for (key, value) in batch {
                            match value {
                                Some(value) => model.insert(key.clone(), value.clone()),
                                None => model.remove(key),
                            };
                        }
                    }
                    Step::Refuse => {
                        let refused = store.commit(&mut |_| Err(StoreError::Io("as computed".into())));
                        prop_assert!(refused.is_err());
                    }
                    Step::Snapshot => {
                        let state = model.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
                        snapshots.push((store.snapshot().expect("a snapshot"), state));
                    }
                    Step::Scan(from, to, at_most) => {
                        let snapshot = store.snapshot().expect("a snapshot");
                        let expected: Entries = model
                            .iter()
                            .filter(|(key, _)| *key >= from && *key < to)
                            .take(*at_most)
                            .map(|(key, value)| (key.clone(), value.clone()))
                            .collect();
                        prop_assert_eq!(entries(&*snapshot, from, to, *at_most), expected);
                        prop_assert_eq!(snapshot.get(from).expect("a read"), model.get(from).cloned());
                    }
                }
            }
            for (snapshot, state) in snapshots {
                prop_assert_eq!(entries(&*snapshot, b"", b"\xff", usize::MAX), state);
            }
        }
    }
}
