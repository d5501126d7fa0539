//! What was acknowledged is there, whatever was killed and when.

mod house;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use house::{
    DONE, Device, Dice, PATIENCE, RunningNode, eventually, lasting_address, made_up_rows, parse_export, same,
    write_rows,
};
use serde_json::{Value, json};

const SPACE: &str = "ledger";

/// Two sides write so many rows and single edits each: 2 × 20 × (480 + 20) = 20,000 writes.
const CHUNKS: usize = 20;
const ROWS_PER_CHUNK: usize = 480;
const SINGLES_PER_CHUNK: usize = 20;
const KILLS_PER_SIDE: usize = 8;

/// How long a writer repeats one write that fails because its node was killed.
const RETRY_TIME_MAX: Duration = Duration::from_secs(60);

/// What one writer begins next, so that the one with the knife can choose its moment.
enum Begun {
    Import,
    Single,
}

/// What one writer was promised.
struct Acknowledged {
    objects: BTreeMap<(String, String), Value>,
    increments: i64,
    increments_tried: i64,
}

/// One device, its writer's side.
struct Side<'a> {
    letter: &'static str,
    device: &'a Device,
    begun: Sender<Begun>,
}

impl Side<'_> {
    /// Repeats a command until it is acknowledged; how often it was tried.
    fn until_acknowledged(&self, arguments: &[&str]) -> i64 {
        let deadline = Instant::now() + RETRY_TIME_MAX;
        let mut tries = 1;
        loop {
            let outcome = self.device.run(arguments);
            if outcome.code == Some(DONE) {
                return tries;
            }
            assert!(Instant::now() < deadline, "{}: never acknowledged: {outcome:?}", self.letter);
            tries += 1;
        }
    }

    /// Writes everything of this side.
    fn write_all(self) -> Acknowledged {
        let letter = self.letter;
        let file = self.device.beside("chunk.jsonl");
        let path = file.to_str().expect("temporary paths are UTF-8").to_owned();
        let mut acknowledged = Acknowledged { objects: BTreeMap::new(), increments: 0, increments_tried: 0 };
        for chunk in 0..CHUNKS {
            let rows = made_up_rows(&format!("{letter}{chunk:02}-"), ROWS_PER_CHUNK);
            write_rows(&file, &rows);
            let _ = self.begun.send(Begun::Import);
            self.until_acknowledged(&["import", SPACE, "rows", &path, "--key", "id"]);
            for row in rows {
                let key = row["id"].as_str().expect("made up with an id").to_owned();
                acknowledged.objects.insert(("rows".to_owned(), key), row);
            }

            for single in 0..SINGLES_PER_CHUNK {
                let _ = self.begun.send(Begun::Single);
                let stamp = format!("{letter}{chunk:02}.{single:02}");
                match single % 4 {
                    0 | 1 => {
                        let fields = json!({ "put": stamp });
                        self.until_acknowledged(&["put", SPACE, "singles", &stamp, &fields.to_string()]);
                        acknowledged.objects.insert(("singles".to_owned(), stamp), fields);
                    }
                    2 => {
                        // Both sides patch this object, each a field of its own.
                        let fields = json!({ letter: stamp });
                        self.until_acknowledged(&["patch", SPACE, "shared", "object", &fields.to_string()]);
                        acknowledged.objects.insert((letter.to_owned(), "last".to_owned()), json!(stamp));
                    }
                    _ => {
                        acknowledged.increments_tried +=
                            self.until_acknowledged(&["increment", SPACE, "shared", "object", "count", "1"]);
                        acknowledged.increments += 1;
                    }
                }
            }
        }
        acknowledged
    }
}

/// Kills the node at random moments while its writer writes, and starts it again at its address.
fn kill_now_and_then(
    device: &Device,
    address: SocketAddr,
    mut node: RunningNode,
    begun: Receiver<Begun>,
    mut dice: Dice,
) -> RunningNode {
    let mut kills = 0;
    for next in begun {
        // Of the imports about every fourth, of the many single writes about every hundredth.
        let odds = match next {
            Begun::Import => 4,
            Begun::Single => 100,
        };
        if kills < KILLS_PER_SIDE && dice.below(odds) == 0 {
            // Not for anything to have happened: this is what makes the moment random.
            thread::sleep(Duration::from_micros(dice.below(40_000)));
            node.kill();
            node = device.start_node_at(address, &[]);
            kills += 1;
        }
    }
    // Once more, with everything written.
    node.kill();
    device.start_node_at(address, &[])
}

#[test]
fn twenty_thousand_writes_on_two_devices_survive_kills_at_random_moments() {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    eprintln!("the kills were drawn with the seed {seed}");

    let (a, b) = (Device::new("A"), Device::new("B"));
    let (address_a, address_b) = (lasting_address(), lasting_address());
    a.ok(&["space", "create", SPACE]);
    a.ok(&["put", SPACE, "shared", "object", "{}"]);
    a.ok(&["increment", SPACE, "shared", "object", "count", "0"]);
    let node_a = a.start_node_at(address_a, &[]);
    let node_b = b.start_node_at(address_b, &[]);
    a.share(SPACE, "owner", &b);
    b.ok(&["sync"]);

    let (begun_a, knife_a) = mpsc::channel();
    let (begun_b, knife_b) = mpsc::channel();
    let (mut promised_a, mut promised_b, mut nodes) = (None, None, Vec::new());
    thread::scope(|scope| {
        let writer_a = scope.spawn(|| Side { letter: "a", device: &a, begun: begun_a }.write_all());
        let writer_b = scope.spawn(|| Side { letter: "b", device: &b, begun: begun_b }.write_all());
        let killer_a = scope.spawn(|| kill_now_and_then(&a, address_a, node_a, knife_a, Dice::new(seed)));
        let killer_b = scope.spawn(|| kill_now_and_then(&b, address_b, node_b, knife_b, Dice::new(!seed)));
        promised_a = Some(writer_a.join().expect("A wrote everything"));
        promised_b = Some(writer_b.join().expect("B wrote everything"));
        nodes.push(killer_a.join().expect("A's node runs"));
        nodes.push(killer_b.join().expect("B's node runs"));
    });

    b.ok(&["sync"]);
    let export = same(&[&a, &b], &["export", SPACE]);
    let objects = parse_export(&export);
    let shared = &objects[&("shared".to_owned(), "object".to_owned())];
    let (mut least, mut most, mut written) = (0, 0, 1);
    for (letter, promised) in [("a", promised_a), ("b", promised_b)] {
        let promised = promised.expect("set in the scope");
        for ((collection, key), fields) in &promised.objects {
            if key == "last" {
                assert_eq!(&shared[letter], fields, "the last acknowledged patch of {letter}");
            } else {
                assert_eq!(objects.get(&(collection.clone(), key.clone())), Some(fields), "{collection} {key}");
                written += 1;
            }
        }
        least += promised.increments;
        most += promised.increments_tried;
    }
    assert_eq!(objects.len(), written, "and nothing else is there");
    let count = shared["count"].as_i64().expect("a counter shows as a number");
    assert!((least..=most).contains(&count), "{least} increments were acknowledged, {most} tried, {count} counted");
    assert_eq!(same(&[&a, &b], &["--json", "conflicts", SPACE]).trim(), "[]");

    for node in nodes {
        node.terminate();
    }
    assert_eq!(same(&[&a, &b], &["export", SPACE]), export, "and so it is on the disks");
}

#[test]
fn what_a_sync_promised_survives_the_crash_of_both() {
    let (a, b) = (Device::new("A"), Device::new("B"));
    let address = lasting_address();
    a.ok(&["space", "create", SPACE]);
    let mut node_a = a.start_node_at(address, &[]);
    let mut node_b = b.start_node(&[]);
    a.share(SPACE, "owner", &b);
    for round in 0..5 {
        let key = format!("round-{round}");
        a.ok(&["put", SPACE, "rounds", &key, r#"{"by":"A"}"#]);
        b.ok(&["put", SPACE, "rounds-of-b", &key, r#"{"by":"B"}"#]);
        b.ok(&["sync"]);
        node_a.kill();
        node_b.kill();
        let objects = parse_export(&same(&[&a, &b], &["export", SPACE]));
        assert_eq!(objects.len(), 2 * (round + 1));
        node_a = a.start_node_at(address, &[]);
        node_b = b.start_node(&[]);
    }
}

/// How many objects the space has, as the running node says.
fn objects_now(device: &Device) -> u64 {
    device.status(SPACE)["objects"].as_u64().expect("a number")
}

#[test]
fn an_import_that_was_killed_is_resumed_by_repeating_it() {
    const ROWS: usize = 20_000;
    let device = Device::new("A");
    device.ok(&["space", "create", SPACE]);
    let file = device.beside("rows.jsonl");
    let rows = made_up_rows("r", ROWS);
    write_rows(&file, &rows);
    let path = file.to_str().expect("temporary paths are UTF-8");
    let import = || {
        let mut command = device.command(&["import", SPACE, "rows", path, "--key", "id"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().expect("the binary starts")
    };

    // The importing process is killed as soon as something of it is seen.
    let node = device.start_node(&[]);
    let mut child = import();
    eventually(PATIENCE, "rows arrive", || objects_now(&device) > 0);
    child.kill().expect("a child can be killed");
    child.wait().expect("it ends");

    // The node is killed under the next one, once that has come further.
    let before = objects_now(&device);
    let mut child = import();
    eventually(PATIENCE, "more rows arrive", || objects_now(&device) > before || before == ROWS as u64);
    node.kill();
    child.wait().expect("it ends");

    // Without a node, at its very beginning.
    let mut child = import();
    child.kill().expect("a child can be killed");
    child.wait().expect("it ends");

    device.import(SPACE, "rows", &file, "id");
    let objects = device.objects(SPACE);
    assert_eq!(objects.len(), ROWS);
    for row in &rows {
        let key = row["id"].as_str().expect("made up with an id").to_owned();
        assert_eq!(objects.get(&("rows".to_owned(), key)), Some(row));
    }
    let known = device.vector(SPACE);
    device.import(SPACE, "rows", &file, "id");
    assert_eq!(device.vector(SPACE), known, "the rows that were there cost no event");
}

#[test]
fn a_device_that_is_killed_while_it_catches_up_goes_on_from_there() {
    let (a, b) = (Device::new("A"), Device::new("B"));
    a.ok(&["space", "create", SPACE]);
    let file = a.beside("rows.jsonl");
    write_rows(&file, &made_up_rows("r", 10_000));
    a.import(SPACE, "rows", &file, "id");
    let _node_a = a.start_node(&[]);
    a.share(SPACE, "owner", &b);

    for _ in 0..5 {
        let node = b.start_node(&[]);
        let before = objects_now(&b);
        eventually(PATIENCE, "rows arrive", || {
            let now = objects_now(&b);
            now > before || now == 10_000
        });
        node.kill();
    }
    let _node = b.start_node(&[]);
    b.ok(&["sync"]);
    same(&[&a, &b], &["export", SPACE]);
    assert_eq!(objects_now(&b), 10_000);
    assert_eq!(a.vector(SPACE), b.vector(SPACE));
}
