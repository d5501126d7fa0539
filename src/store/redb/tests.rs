use std::sync::atomic::AtomicU32;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

const CACHE: usize = 1 << 20;

/// A disk in memory that can be told to fail. A clone is the same disk.
#[derive(Debug, Clone, Default)]
pub(in crate::store) struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    failing: Arc<AtomicBool>,
    /// Counts down with every write and sync; at 1 the disk begins to fail. 0 is off.
    fuse: Arc<AtomicU32>,
    writes: Arc<AtomicU32>,
    syncs: Arc<AtomicU32>,
}

impl Disk {
    fn store(&self, first: Option<Batch>) -> Result<RedbStore, StoreError> {
        let disk = self.clone();
        RedbStore::with_backend(move || Ok(disk.clone()), CACHE, first)
    }

    fn check(&self) -> io::Result<()> {
        if self.failing.load(Ordering::SeqCst) { Err(io::Error::other("EIO, on purpose")) } else { Ok(()) }
    }

    fn change(&self) -> io::Result<()> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        let before = self.fuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(1)));
        if before == Ok(1) {
            self.failing.store(true, Ordering::SeqCst);
        }
        self.check()
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.check()?;
        Ok(locked(&self.bytes).len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check()?;
        let bytes = locked(&self.bytes);
        let range = offset as usize..offset as usize + out.len();
        out.copy_from_slice(bytes.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change()?;
        locked(&self.bytes).resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        self.change()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change()?;
        locked(&self.bytes)[offset as usize..offset as usize + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn one(key: &str, value: &str) -> Batch {
    Batch::from([(key.into(), Some(value.into()))])
}

fn put(store: &RedbStore, key: &str, value: &str) -> Result<(), StoreError> {
    store.commit(&mut |_| Ok(one(key, value)))
}

fn value(store: &RedbStore, key: &str) -> Result<Option<String>, StoreError> {
    let value = store.snapshot()?.get(key.as_bytes())?;
    Ok(value.map(|value| String::from_utf8(value).expect("the tests write text")))
}

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("store");
    (directory, path)
}

/// Some hundred entries, so that the tree has several levels of pages and the file some free ones.
fn filled(path: &Path) -> RedbStore {
    let store = RedbStore::create(path, CACHE, one("format", "1")).expect("a new store");
    for round in 0u32..4 {
        let batch: Batch = (0u32..300)
            .map(|n| (format!("{n:06}").into_bytes(), (n % 7 != round).then(|| vec![round as u8; 40 + n as usize])))
            .collect();
        store.commit(&mut |_| Ok(batch.clone())).expect("a commit");
    }
    store
}

/// The file as a kill would leave it: nothing closed it.
fn killed(store: &RedbStore, path: &Path) -> Vec<u8> {
    put(store, "last", "acknowledged").expect("a commit");
    fs::read(path).expect("a readable file")
}

/// As if the medium had failed.
fn fail(store: &RedbStore) {
    let failed = store.with_open(|open| Ok(open.health.fail(Trouble::Io("on purpose".into()))));
    assert!(matches!(failed, Ok(StoreError::Io(_))));
}

fn read_everything(store: &RedbStore) -> Result<usize, StoreError> {
    let snapshot = store.snapshot()?;
    let mut entries = 0;
    snapshot.scan(b"", b"\xff", &mut |_, _| {
        entries += 1;
        ControlFlow::Continue(())
    })?;
    Ok(entries)
}

#[test]
fn what_was_committed_is_there_after_closing_and_opening() {
    let (_directory, path) = place();
    let store = RedbStore::create(&path, CACHE, one("format", "1")).expect("a new store");
    put(&store, "a", "1").expect("a commit");
    drop(store);
    let store = RedbStore::open(&path, CACHE).expect("the store opens");
    assert_eq!(value(&store, "format").expect("a read").as_deref(), Some("1"));
    assert_eq!(value(&store, "a").expect("a read").as_deref(), Some("1"));
}

#[test]
fn a_killed_store_opens_with_all_that_was_acknowledged() {
    let (_directory, path) = place();
    let left = killed(&filled(&path), &path);
    fs::write(&path, &left).expect("a written file");
    let store = RedbStore::open(&path, CACHE).expect("the store opens");
    assert_eq!(value(&store, "last").expect("a read").as_deref(), Some("acknowledged"));
    assert_eq!(read_everything(&store).expect("reads"), 302 - 43);
}

#[test]
fn an_open_store_is_in_use_even_for_peek() {
    let (_directory, path) = place();
    let store = RedbStore::create(&path, CACHE, one("format", "1")).expect("a new store");
    assert!(matches!(RedbStore::open(&path, CACHE), Err(StoreError::InUse { .. })));
    assert!(matches!(RedbStore::peek(&path, b"format"), Err(StoreError::InUse { .. })));
    put(&store, "a", "1").expect("the refusals harmed nothing");
    drop(store);
    RedbStore::open(&path, CACHE).expect("it is free again");
}

#[test]
fn peek_reads_clean_and_killed_files_and_changes_neither() {
    let (_directory, path) = place();
    let store = filled(&path);
    let left = killed(&store, &path);
    drop(store);
    for (what, bytes) in [("clean", fs::read(&path).expect("a readable file")), ("killed", left)] {
        fs::write(&path, &bytes).expect("a written file");
        assert_eq!(RedbStore::peek(&path, b"format").expect(what), Some(b"1".to_vec()), "{what}");
        assert_eq!(RedbStore::peek(&path, b"last").expect(what), Some(b"acknowledged".to_vec()), "{what}");
        assert_eq!(RedbStore::peek(&path, b"no such key").expect(what), None, "{what}");
        assert!(fs::read(&path).expect("a readable file") == bytes, "{what}: peek changed the file");
        RedbStore::open(&path, CACHE).expect(what);
    }
}

#[test]
fn what_is_not_a_store_is_refused_and_left_as_it_was() {
    let (directory, path) = place();
    let store = filled(&path);
    let unclean = killed(&store, &path);
    drop(store);
    let clean = fs::read(&path).expect("a readable file");
    let mut future = clean.clone();
    // The versions of both commit slots.
    (future[64], future[192]) = (9, 9);
    let mut longer = clean.clone();
    longer.extend([0; 100]);
    let foreign = {
        let path = directory.path().join("foreign");
        let database = Database::create(&path).expect("a database");
        let transaction = database.begin_write().expect("a transaction");
        let table = TableDefinition::<u64, u64>::new("someone else's");
        transaction.open_table(table).and_then(|mut table| Ok(table.insert(1, 1).map(drop)?)).expect("an insert");
        transaction.commit().expect("a commit");
        drop(database);
        fs::read(path).expect("a readable file")
    };

    let mut files: Vec<(String, Vec<u8>)> = vec![
        ("empty".into(), Vec::new()),
        ("one byte".into(), vec![b'r']),
        ("garbage".into(), (0..20_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()),
        ("zeros".into(), vec![0; 1 << 20]),
        ("a future format".into(), future),
        ("longer than it was written".into(), longer),
        ("another program's".into(), foreign),
    ];
    for (what, whole) in [("clean", &clean), ("killed", &unclean)] {
        for len in [9, 100, 320, 4_096, 8_192, 12_288, 65_536, 100_000, whole.len() / 8192 * 4096, whole.len() - 1] {
            files.push((format!("{what}, cut to {len}"), whole[..len].to_vec()));
        }
    }
    for (what, bytes) in files {
        fs::write(&path, &bytes).expect("a written file");
        let peeked = RedbStore::peek(&path, b"no such key");
        assert!(matches!(peeked, Ok(_) | Err(StoreError::Unreadable { .. })), "{what}: {peeked:?}");
        let refused = RedbStore::open(&path, CACHE).map(drop);
        assert!(matches!(refused, Err(StoreError::Unreadable { .. })), "{what}: {refused:?}");
        let created = RedbStore::create(&path, CACHE, Batch::new()).map(drop);
        assert!(matches!(created, Err(StoreError::Unreadable { .. })), "{what}: {created:?}");
        assert!(fs::read(&path).expect("a readable file") == bytes, "{what}: the file was touched");
    }
    for missing in [directory.path().join("missing"), directory.path().to_path_buf()] {
        assert!(matches!(RedbStore::open(&missing, CACHE), Err(StoreError::Unreadable { .. })));
        assert!(matches!(RedbStore::peek(&missing, b"a"), Err(StoreError::Unreadable { .. })));
    }
    assert!(!directory.path().join("missing").exists(), "opening makes no file");
}

/// Whatever the damage, there is an answer: no panic comes out, and a refused file is as it was.
#[test]
fn no_flipped_bits_make_it_panic_or_touch_what_it_refuses() {
    let (_directory, path) = place();
    let store = filled(&path);
    let unclean = killed(&store, &path);
    drop(store);
    let clean = fs::read(&path).expect("a readable file");
    let (mut refused, mut served) = (0, 0);
    let mut random = 1u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for round in 0..tries() {
        let mut bytes = if round % 2 == 0 { clean.clone() } else { unclean.clone() };
        // The header; the heads of pages, where the structure is; anywhere.
        let at = match round % 3 {
            0 => next(320),
            1 => next(bytes.len() / 4096) * 4096 + next(64),
            _ => next(bytes.len()),
        };
        for offset in at..(at + 1 + next(3)).min(bytes.len()) {
            bytes[offset] ^= 1 << next(8);
        }
        fs::write(&path, &bytes).expect("a written file");
        let _ = RedbStore::peek(&path, b"000100");
        assert!(fs::read(&path).expect("a readable file") == bytes, "byte {at}: peek touched the file");
        match RedbStore::open(&path, CACHE) {
            Ok(store) => {
                served += 1;
                let _ = read_everything(&store);
                let _ = put(&store, "000100", "over");
                let _ = store.commit(&mut |_| Ok((0..300).map(|n| (format!("{n:06}").into_bytes(), None)).collect()));
                let _ = store.reopen();
                let _ = read_everything(&store);
            }
            Err(StoreError::Unreadable { .. }) => {
                refused += 1;
                assert!(fs::read(&path).expect("a readable file") == bytes, "byte {at}: a refused file was touched");
            }
            Err(other) => panic!("byte {at}: {other:?}"),
        }
    }
    assert!(refused > 0 && served > 0, "{refused} refused, {served} served: the damage is not varied enough");
}

/// How many damaged files to try: few in the usual run, as many as wanted by hand.
fn tries() -> u32 {
    std::env::var("THENCE_DAMAGED_FILES").map_or(200, |tries| tries.parse().expect("a number of files"))
}

#[test]
fn what_a_crash_left_of_a_creation_is_replaced() {
    let (directory, path) = place();
    let beside = directory.path().join("store.new");
    for (what, leftover) in [("empty", Vec::new()), ("half", b"redb\x1a\x0a".to_vec()), ("long", vec![7; 3 << 20])] {
        fs::write(&beside, leftover).expect("a written file");
        drop(RedbStore::create(&path, CACHE, one("format", "1")).expect(what));
        assert!(!beside.exists(), "{what}: nothing is left beside");
        let store = RedbStore::open(&path, CACHE).expect(what);
        assert_eq!(value(&store, "format").expect("a read").as_deref(), Some("1"), "{what}");
        drop(store);
        fs::remove_file(&path).expect("a removed file");
    }
}

#[test]
fn of_two_who_create_at_once_one_succeeds_and_the_other_harms_nothing() {
    for _ in 0..20 {
        let (_directory, path) = place();
        let made: Vec<bool> = std::thread::scope(|scope| {
            let creators = ["1", "2", "3"].map(|n| {
                let path = &path;
                scope.spawn(move || RedbStore::create(path, CACHE, one("creator", n)).map(drop).is_ok())
            });
            creators.into_iter().map(|creator| creator.join().expect("no panic")).collect()
        });
        assert_eq!(made.iter().filter(|made| **made).count(), 1, "{made:?}");
        let winner = made.iter().position(|made| *made).expect("one succeeded") + 1;
        let store = RedbStore::open(&path, CACHE).expect("the store opens");
        assert_eq!(value(&store, "creator").expect("a read"), Some(winner.to_string()));
    }
}

#[test]
fn every_commit_is_two_phase() {
    let disk = Disk::default();
    let store = disk.store(Some(Batch::new())).expect("a new store");
    for round in 1..4 {
        let before = disk.syncs.load(Ordering::SeqCst);
        put(&store, "a", &round.to_string()).expect("a commit");
        assert_eq!(disk.syncs.load(Ordering::SeqCst) - before, 2, "one sync for the pages, one for the header");
    }
}

#[test]
fn an_empty_batch_and_a_failed_computation_write_nothing() {
    let disk = Disk::default();
    let store = disk.store(Some(Batch::new())).expect("a new store");
    let before = disk.writes.load(Ordering::SeqCst);
    store.commit(&mut |_| Ok(Batch::new())).expect("an empty commit");
    store.commit(&mut |_| Err(StoreError::Damaged("as computed".into()))).expect_err("the error of the computation");
    assert_eq!(disk.writes.load(Ordering::SeqCst), before);
}

#[test]
fn after_a_failed_disk_nothing_works_until_reopened_and_nothing_acknowledged_is_lost() {
    // The disk dies at the n-th write or sync of a commit.
    for fuse in 1..12 {
        let disk = Disk::default();
        let store = disk.store(Some(one("format", "1"))).expect("a new store");
        put(&store, "a", "acknowledged").expect("a commit");
        let old = store.snapshot().expect("a snapshot");
        disk.fuse.store(fuse, Ordering::SeqCst);
        let committed = put(&store, "b", "in doubt");
        if !disk.failing.load(Ordering::SeqCst) {
            committed.expect("the commit was done before the fuse burnt down");
            assert!(fuse > 4, "a two-phase commit writes pages and header and syncs, twice");
            break;
        }
        assert!(matches!(committed, Err(StoreError::Io(_))), "{committed:?}");
        for _ in 0..2 {
            assert!(matches!(put(&store, "c", "3"), Err(StoreError::Io(_))));
            assert!(matches!(store.snapshot().map(drop), Err(StoreError::Io(_))));
            assert!(matches!(old.get(b"a"), Err(StoreError::Io(_))));
            store.reopen().expect_err("the disk still fails");
        }
        disk.fuse.store(0, Ordering::SeqCst);
        disk.failing.store(false, Ordering::SeqCst);
        assert!(matches!(put(&store, "c", "3"), Err(StoreError::Io(_))), "not before it is reopened");
        store.reopen().expect("the disk works again");
        assert!(matches!(old.get(b"a"), Err(StoreError::Io(_))), "an old snapshot stays dead");
        assert_eq!(value(&store, "a").expect("a read").as_deref(), Some("acknowledged"));
        put(&store, "c", "3").expect("a commit");
        assert_eq!(value(&store, "c").expect("a read").as_deref(), Some("3"));
        drop(old);
        put(&store, "d", "4").expect("the end of an old snapshot harms nothing");
    }
}

#[test]
fn a_read_that_fails_stops_the_store_too() {
    let disk = Disk::default();
    let first = (0..500u32).map(|n| (n.to_be_bytes().to_vec(), Some(vec![1; 1000]))).collect();
    // Without a cache, so that reads reach the disk.
    let source = disk.clone();
    let store = RedbStore::with_backend(move || Ok(source.clone()), 0, Some(first)).expect("a new store");
    let snapshot = store.snapshot().expect("a snapshot");
    disk.failing.store(true, Ordering::SeqCst);
    assert!(matches!(snapshot.get(&3u32.to_be_bytes()), Err(StoreError::Io(_))));
    disk.failing.store(false, Ordering::SeqCst);
    assert!(matches!(put(&store, "a", "1"), Err(StoreError::Io(_))));
    store.reopen().expect("the disk works again");
    put(&store, "a", "1").expect("a commit");
}

/// The same with a real file, whose lock the old engine holds until it is closed.
#[test]
fn a_file_is_reopened_while_old_snapshots_live() {
    let (_directory, path) = place();
    let store = filled(&path);
    let old = store.snapshot().expect("a snapshot");
    for round in 0..3 {
        fail(&store);
        assert!(matches!(put(&store, "a", "1"), Err(StoreError::Io(_))));
        // Behind a channel, so that a block would be a failure and not a test that never ends.
        let (told, done) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| told.send(store.reopen()).expect("somebody listens"));
            let reopened = done.recv_timeout(Duration::from_secs(60)).expect("reopening does not block");
            reopened.expect("the file opens again");
        });
        put(&store, "round", &round.to_string()).expect("a commit");
        assert!(matches!(old.get(b"000001"), Err(StoreError::Io(_))));
    }
    drop(store);
    RedbStore::open(&path, CACHE).expect("an old snapshot does not keep the file locked");
    drop(old);
}

#[test]
fn a_store_that_failed_is_free_for_others_and_did_not_write_that_all_is_well() {
    let (_directory, path) = place();
    let store = filled(&path);
    fail(&store);
    let before = fs::read(&path).expect("a readable file");
    drop(store);
    assert!(fs::read(&path).expect("a readable file") == before, "a failed engine writes nothing any more");
    assert_eq!(RedbStore::peek(&path, b"format").expect("a read"), Some(b"1".to_vec()));
    RedbStore::open(&path, CACHE).expect("the store opens");
}

/// A crash in the middle of letting an open's changes through is a crash of the engine's own opening.
#[test]
fn a_disk_that_dies_while_opening_leaves_a_file_that_opens() {
    let disk = Disk::default();
    drop(disk.store(Some(one("a", "1"))).expect("a new store"));
    let clean = locked(&disk.bytes).clone();
    for fuse in 1.. {
        *locked(&disk.bytes) = clean.clone();
        disk.fuse.store(fuse, Ordering::SeqCst);
        let opened = disk.store(None).map(drop);
        let died = disk.failing.swap(false, Ordering::SeqCst);
        disk.fuse.store(0, Ordering::SeqCst);
        let store = disk.store(None).expect("the store opens");
        assert_eq!(value(&store, "a").expect("a read").as_deref(), Some("1"));
        if !died {
            opened.expect("nothing failed");
            break;
        }
    }
}
