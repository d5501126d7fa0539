//! Whatever byte of a store's file is flipped: it is refused, or what is read is right. Never another value, never a
//! missing one, never a panic that gets out, never a read that does not end.
//!
//! A few hundred flips, drawn from a seed, in the usual run. `THENCE_TEST_FLIPS=100000` makes as many, and prints what came
//! of them as a table.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::ops::ControlFlow;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use thence::causal::VersionVector;
use thence::model::{CollectionName, DeviceKey, Genesis, ObjectKey, Role, Segment, SignedTicket, SpaceId, Ticket};
use thence::node::Transaction;
use thence::replica::SessionId;
use thence::store::{Done, Ledger, RedbStore, StorageBackend, StoreError, Work};

/// As little as possible, so that reads reach the disk.
const CACHE_BYTES: usize = 1 << 16;
/// Flips per shape in the usual run.
const FLIPS: u64 = 30;
/// A flip that takes longer than this is taken for one that never ends.
const PATIENCE: Duration = Duration::from_secs(120);

/// A disk in memory. A clone is the same disk.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<Vec<u8>>>);

impl Disk {
    fn with(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(bytes)))
    }

    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().expect("nobody panics with it")
    }

    fn copy(&self) -> Vec<u8> {
        self.bytes().clone()
    }

    fn open(&self) -> Result<Ledger, String> {
        let disk = self.clone();
        let store = RedbStore::with_backend(move || Ok(disk.clone()), CACHE_BYTES, None);
        let store = store.map_err(|error| error.to_string())?;
        Ledger::open(Arc::new(store), key(1)).map_err(|error| error.to_string())
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes();
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let range = from..from.checked_add(out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes().resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let mut bytes = self.bytes();
        let part = bytes.get_mut(from..from + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        part.copy_from_slice(data);
        Ok(())
    }
}

fn key(n: u8) -> DeviceKey {
    DeviceKey::from_secret(&[n; 32])
}

fn ledger(disk: &Disk, n: u8) -> Ledger {
    let disk = disk.clone();
    let first = Ledger::first_batch(key(n).device(), u64::from(n));
    let store = RedbStore::with_backend(move || Ok(disk.clone()), CACHE_BYTES, Some(first));
    Ledger::open(Arc::new(store.expect("a new store")), key(n)).expect("a fresh store")
}

fn create(ledger: &Ledger, n: u8) -> SpaceId {
    let genesis = Genesis { creator: ledger.device(), nonce: [n; 16] };
    ledger.commit(&[Work::Create { genesis, name: format!("space{n}") }], 1, 7).expect("it works");
    genesis.space()
}

fn write(ledger: &Ledger, space: SpaceId, transaction: Result<Transaction, thence::node::InvalidRequest>) {
    let requests = transaction.expect("well formed").into();
    let report = ledger.commit(&[Work::Write { space, requests }], 1, 7).expect("it works");
    assert!(matches!(report.done[0], Done::Written(Ok(_))), "{:?}", report.done[0]);
}

fn hand_over(from: &Ledger, to: &Ledger, space: SpaceId) {
    let after = to.view(space).expect("readable").expect("held").vector().expect("readable");
    let view = from.view(space).expect("readable").expect("held");
    let stretches = view.log_after(&after, usize::MAX).expect("readable");
    let verified = stretches.iter().map(|stretch| Segment::verify(space, 1, stretch.bytes.clone()).expect("genuine"));
    let work = Work::Receive { session: SessionId(1), space, segments: verified.collect() };
    to.commit(&[work], 1, 7).expect("it works");
}

/// Conflicts, counters, sets, nested maps, deletes and an edit that lost to one, by two devices.
fn mixed(ledger: &Ledger) {
    let other = self::ledger(&Disk::default(), 2);
    let space = create(ledger, 1);
    let ticket = Ticket {
        id: [1; 16],
        genesis: ledger.genesis(space).expect("held"),
        role: Role::Writer,
        uses: 1,
        expires_ms: 2_000,
        inviter: ledger.device(),
        addresses: vec![],
        name: "space1".to_owned(),
    };
    let ticket = SignedTicket::sign(ticket, ledger.key()).to_bytes();
    let admitted = ledger.commit(&[Work::Admit { device: other.device(), ticket }], 1, 7).expect("it works");
    let Some(Done::Admitted(Ok(introduction))) = admitted.done.first().cloned() else { panic!("a good ticket") };
    other.commit(&[Work::Join { introduction, introducer: ledger.device() }], 1, 7).expect("it works");
    for n in 0..40 {
        let fields = json!({ "n": n, "map": { "in": { "it": n } }, "text": "t".repeat(n * 7) });
        write(ledger, space, Transaction::new().put("things", &format!("k{n}"), fields));
    }
    hand_over(ledger, &other, space);
    for (at, ledger) in [ledger, &other].into_iter().enumerate() {
        for n in 0..10 {
            let name = format!("k{n}");
            write(ledger, space, Transaction::new().patch("things", &name, json!({ "n": 100 * n + at })));
            write(ledger, space, Transaction::new().increment("things", &name, "count", 3));
            write(ledger, space, Transaction::new().add("things", &name, "tags", json!(format!("tag{at}"))));
        }
    }
    for n in 20..30 {
        write(ledger, space, Transaction::new().delete("things", &format!("k{n}")));
        if n % 2 == 0 {
            write(&other, space, Transaction::new().patch("things", &format!("k{n}"), json!({ "late": n })));
        }
    }
    hand_over(&other, ledger, space);
    let view = ledger.view(space).expect("readable").expect("held");
    assert!(!view.conflicts().expect("readable").is_empty() && !view.lost().expect("readable").is_empty());
}

fn rows(ledger: &Ledger, space: SpaceId, count: usize, text: usize) {
    for first in (0..count).step_by(100) {
        let mut transaction = Transaction::new();
        for n in first..(first + 100).min(count) {
            let fields = json!({ "n": n, "text": format!("{n} ").repeat(text) });
            transaction = transaction.put("rows", &format!("row{n:05}"), fields).expect("well formed");
        }
        write(ledger, space, Ok(transaction));
    }
}

/// The shapes: their names, and the bytes of a file of each.
fn shapes() -> Vec<(&'static str, Vec<u8>)> {
    let made = |fill: &dyn Fn(&Ledger)| {
        let disk = Disk::default();
        let ledger = ledger(&disk, 1);
        fill(&ledger);
        drop(ledger);
        disk.copy()
    };
    // As a kill leaves it: nothing closed it.
    let killed = {
        let disk = Disk::default();
        let ledger = ledger(&disk, 1);
        mixed(&ledger);
        disk.copy()
    };
    vec![
        ("empty", made(&|_| {})),
        ("few rows", made(&|ledger| rows(ledger, create(ledger, 1), 5, 3))),
        ("many rows", made(&|ledger| rows(ledger, create(ledger, 1), 1_500, 10))),
        ("large rows", made(&|ledger| rows(ledger, create(ledger, 1), 8, 20_000))),
        ("mixed", made(&mixed)),
        (
            "several spaces",
            made(&|ledger| {
                for n in 1..=6 {
                    rows(ledger, create(ledger, n), 30, 5);
                }
                let device = key(9).device();
                let peer = Work::RememberPeer { device, addresses: vec!["192.0.2.1:7117".to_owned()] };
                let setting = Work::Setting { name: "listened".to_owned(), value: "192.0.2.2:7117".to_owned() };
                ledger.commit(&[peer, setting], 1, 7).expect("it works");
            }),
        ),
        ("after a kill", killed),
    ]
}

/// Everything that can be read, by what was asked. What cannot be told apart from the truth is the truth.
type Readings = BTreeMap<String, Result<String, StoreError>>;

fn read_everything(ledger: &Ledger, objects: &[(SpaceId, CollectionName, ObjectKey)]) -> Readings {
    let mut readings = Readings::new();
    let spaces = ledger.spaces();
    readings.insert("spaces".to_owned(), Ok(format!("{spaces:?}")));
    readings.insert("peers".to_owned(), ledger.peers().map(|peers| format!("{peers:?}")));
    readings.insert("setting".to_owned(), ledger.setting("listened").map(|setting| format!("{setting:?}")));
    let mut rows = 0u64;
    let backup = ledger.back_up(1, &mut |piece| {
        rows += piece.len() as u64;
        ControlFlow::Continue(())
    });
    readings.insert("backup".to_owned(), backup.map(|()| rows.to_string()));
    for space in spaces {
        let mut note = |what: &str, read: Result<String, StoreError>| readings.insert(format!("{space} {what}"), read);
        note("acknowledged", ledger.acknowledged(space).map(|rows| format!("{rows:?}")));
        let view = match ledger.view(space) {
            Ok(Some(view)) => view,
            Ok(None) => {
                note("view", Ok("none".to_owned()));
                continue;
            }
            Err(error) => {
                note("view", Err(error));
                continue;
            }
        };
        let mut export = String::new();
        let visited = view.visit(None, &mut |collection, key, object| {
            let _ = writeln!(export, "{collection} {key} {:?}", object.shown());
            ControlFlow::Continue(())
        });
        note("export", visited.map(|()| export));
        note("status", view.summary().map(|summary| format!("{summary:?}")));
        note("conflicts", view.conflicts().map(|found| format!("{found:?}")));
        note("lost", view.lost().map(|found| format!("{found:?}")));
        note("changes", view.changes(0, usize::MAX).map(|changes| format!("{changes:?}")));
        let log = view.log_after(&VersionVector::new(), usize::MAX);
        note(
            "log",
            log.map(|log| log.iter().map(|stretch| format!("{:?} {:?}\n", stretch.first, stretch.bytes)).collect()),
        );
        for (_, collection, key) in objects.iter().filter(|(of, ..)| *of == space) {
            note(&format!("get {collection} {key}"), view.get(collection, key).map(|found| format!("{found:?}")));
        }
    }
    readings
}

/// The objects that are asked for one by one: those that are there, and one that never was.
fn objects(ledger: &Ledger) -> Vec<(SpaceId, CollectionName, ObjectKey)> {
    let mut objects = Vec::new();
    for space in ledger.spaces() {
        let view = ledger.view(space).expect("readable").expect("held");
        let (mut last, mut number) = (None, 0);
        view.visit(None, &mut |collection, key, _| {
            last = Some(collection.clone());
            number += 1;
            // Of many, every tenth: they are all in the export.
            if number < 50 || number % 10 == 0 {
                objects.push((space, collection.clone(), key));
            }
            ControlFlow::Continue(())
        })
        .expect("readable");
        objects.extend(last.map(|collection| (space, collection, "never was".parse().expect("a key"))));
    }
    objects
}

/// Writes one object into every space; whether all of it was acknowledged.
fn write_on(ledger: &Ledger) -> bool {
    ledger.spaces().into_iter().all(|space| {
        let fields = json!({ "written": "after the flip" });
        let requests = Transaction::new().put("rows", "row00003", fields).expect("well formed").into();
        let report = ledger.commit(&[Work::Write { space, requests }], 1, 7);
        report.is_ok_and(|report| matches!(report.done.first(), Some(Done::Written(Ok(_)))))
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    RefusedAtOpen,
    RefusedAtRead,
    NoEffect,
    WrongValue,
    Panic,
    Hang,
}

/// What is right, before and after the write.
struct Truth {
    objects: Vec<(SpaceId, CollectionName, ObjectKey)>,
    before: Readings,
    after: Readings,
}

impl Truth {
    fn of(bytes: &[u8]) -> Self {
        let ledger = Disk::with(bytes.to_vec()).open().expect("a sound store");
        let objects = objects(&ledger);
        let before = read_everything(&ledger, &objects);
        assert!(before.values().all(Result::is_ok), "a sound store is readable");
        assert!(write_on(&ledger), "a sound store takes writes");
        let after = read_everything(&ledger, &objects);
        Self { objects, before, after }
    }

    /// Reads a file of which something was flipped, writes, and reads again.
    fn judge(&self, bytes: Vec<u8>) -> Outcome {
        let disk = Disk::with(bytes);
        let Ok(ledger) = disk.open() else { return Outcome::RefusedAtOpen };
        let mut refused = false;
        let mut right = |found: &Readings, truth: &Readings| {
            refused |= found.values().any(Result::is_err);
            found.iter().all(|(what, read)| read.is_err() || truth.get(what) == Some(read))
        };
        if !right(&read_everything(&ledger, &self.objects), &self.before) {
            return Outcome::WrongValue;
        }
        // A write that is acknowledged is there, and leaves the rest as it was.
        if write_on(&ledger) {
            if !right(&read_everything(&ledger, &self.objects), &self.after) {
                return Outcome::WrongValue;
            }
        } else {
            refused = true;
        }
        if refused { Outcome::RefusedAtRead } else { Outcome::NoEffect }
    }
}

/// Numbers from a seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}

thread_local! {
    /// Panics of this thread are what is tried, and are not printed.
    static TRIED: Cell<bool> = const { Cell::new(false) };
}

/// Flips `count` single bits of `bytes`, each alone: a third in the header, a third in the first bytes of what is in use,
/// where the structure is, a third anywhere in what is in use.
fn flip(bytes: &Arc<Vec<u8>>, count: u64, seed: u64) -> BTreeMap<Outcome, u64> {
    const PIECE: usize = 4104;
    let (tell, told) = channel();
    let truth = Truth::of(bytes);
    let shared = Arc::clone(bytes);
    let worker = std::thread::spawn(move || {
        TRIED.set(true);
        let used: Vec<usize> = (0..shared.len() / PIECE)
            .filter(|piece| shared[piece * PIECE..(piece + 1) * PIECE].iter().any(|byte| *byte != 0))
            .collect();
        let mut dice = Dice(seed);
        for number in 0..count {
            let piece = used[dice.below(used.len())] * PIECE;
            let at = match number % 3 {
                0 => dice.below(512),
                1 => piece + dice.below(64),
                _ => piece + dice.below(PIECE),
            };
            let mut flipped = shared.to_vec();
            let bit = dice.below(8);
            flipped[at] ^= 1 << bit;
            let outcome = panic::catch_unwind(AssertUnwindSafe(|| truth.judge(flipped)));
            let outcome = outcome.unwrap_or(Outcome::Panic);
            if tell.send((outcome, at, bit)).is_err() {
                return;
            }
        }
    });
    let mut outcomes = BTreeMap::new();
    loop {
        match told.recv_timeout(PATIENCE) {
            Ok((outcome, at, bit)) => {
                if matches!(outcome, Outcome::WrongValue | Outcome::Panic) {
                    eprintln!("{outcome:?}: byte {at}, bit {bit}, seed {seed}");
                }
                *outcomes.entry(outcome).or_default() += 1;
            }
            Err(RecvTimeoutError::Timeout) => {
                *outcomes.entry(Outcome::Hang).or_default() += 1;
                return outcomes;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    worker.join().expect("every panic is caught");
    outcomes
}

#[test]
fn no_flipped_bit_makes_a_store_serve_a_wrong_value() {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !TRIED.get() {
            print(info);
        }
    }));
    let wanted = std::env::var("THENCE_TEST_FLIPS").map(|flips| flips.parse::<u64>().expect("a number of flips"));
    let shapes = shapes();
    let each = wanted.map_or(FLIPS, |flips| flips.div_ceil(shapes.len() as u64));
    let mut table = format!(
        "{:16}{:>10}{:>10}{:>10}{:>12}{:>12}{:>8}{:>8}{:>8}\n",
        "shape", "bytes", "flips", "refused", "refused at", "no effect", "wrong", "panic", "hang"
    );
    let mut wrong = 0;
    for (seed, (name, bytes)) in (1..).zip(shapes) {
        let bytes = Arc::new(bytes);
        let outcomes = flip(&bytes, each, seed);
        let count = |outcome| outcomes.get(&outcome).copied().unwrap_or(0);
        use Outcome::{Hang, NoEffect, Panic, RefusedAtOpen, RefusedAtRead, WrongValue};
        let [opened, read, none, value, panic, hang] =
            [RefusedAtOpen, RefusedAtRead, NoEffect, WrongValue, Panic, Hang].map(count);
        let _ = writeln!(
            table,
            "{name:16}{:>10}{each:>10}{opened:>10}{read:>12}{none:>12}{value:>8}{panic:>8}{hang:>8}",
            bytes.len()
        );
        wrong += value + panic + hang;
        assert!(opened > 0, "{name}: nothing was refused at all, so nothing was tried");
    }
    eprintln!("{table}");
    assert_eq!(wrong, 0, "\n{table}");
}
