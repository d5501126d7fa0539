//! Nodes in a cluster: every space of one is everyone's, whoever comes, goes, dies or cannot be reached.

mod house;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use house::proxy::Proxy;
use house::{
    DONE, Device, Dice, PATIENCE, RunningNode, eventually, lasting_address, made_up_rows, parse_export, same, settle,
    write_rows,
};
use serde_json::{Value, json};

const SPACE: &str = "ledger";

/// Devices and where their nodes listen. All are started with the same list of cluster peers, themselves among it.
struct Cluster {
    devices: Vec<Device>,
    addresses: Vec<SocketAddr>,
}

impl Cluster {
    fn of(names: &[&'static str]) -> Self {
        let devices: Vec<Device> = names.iter().map(|name| Device::new(name)).collect();
        let addresses = names.iter().map(|_| lasting_address()).collect();
        Self { devices, addresses }
    }

    /// The flags that name these as cluster peers.
    fn flags(&self, which: &[usize]) -> Vec<String> {
        let peer = |at: &usize| format!("{}@{}", self.devices[*at].id(), self.addresses[*at]);
        which.iter().flat_map(|at| ["--cluster-peer".to_owned(), peer(at)]).collect()
    }

    /// Starts one with these cluster peers.
    #[track_caller]
    fn start_with(&self, at: usize, peers: &[usize]) -> RunningNode {
        self.start_flags(at, &self.flags(peers))
    }

    #[track_caller]
    fn start_flags(&self, at: usize, flags: &[String]) -> RunningNode {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        self.devices[at].start_node_at(self.addresses[at], &flags)
    }

    /// Starts one with all of them.
    #[track_caller]
    fn start(&self, at: usize) -> RunningNode {
        let all: Vec<usize> = (0..self.devices.len()).collect();
        self.start_with(at, &all)
    }

    fn all(&self) -> Vec<&Device> {
        self.devices.iter().collect()
    }
}

/// How this device stands with another, as far as it is about the cluster.
fn relation(device: &Device, other: &Device) -> Option<Value> {
    let status = device.json(&["status"]);
    let peers = status["cluster"].as_array().expect("status lists the cluster");
    peers.iter().find(|peer| peer["device"] == other.id()).cloned()
}

fn names_of_spaces(device: &Device) -> Vec<String> {
    let spaces = device.json(&["space", "list"]);
    let spaces = spaces.as_array().expect("a list").iter();
    spaces.map(|space| space["name"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn a_space_of_one_is_everyones_and_anyone_writes() {
    let cluster = Cluster::of(&["A", "B", "C"]);
    let [a, b, c] = [0, 1, 2].map(|at| &cluster.devices[at]);
    // A has one from before there was a cluster.
    a.ok(&["space", "create", "old"]);
    a.ok(&["put", "old", "notes", "n1", r#"{"by":"A"}"#]);
    let nodes: Vec<RunningNode> = (0..3).map(|at| cluster.start(at)).collect();
    a.ok(&["space", "create", SPACE]);
    b.ok(&["space", "create", "of-b"]);

    // A sync waits until the lists of spaces are equal, too.
    settle(&[a, b, c]);
    for device in [a, b, c] {
        assert_eq!(names_of_spaces(device), [SPACE, "of-b", "old"], "{}", device.name());
    }
    for device in [a, b, c] {
        for space in [SPACE, "of-b", "old"] {
            device.ok(&["put", space, "notes", device.name(), &json!({"by": device.name()}).to_string()]);
            assert_eq!(device.status(space)["role"], "owner", "{} in {space}", device.name());
        }
    }
    settle(&[a, b, c]);
    for space in [SPACE, "of-b", "old"] {
        same(&[a, b, c], &["export", space]);
        assert_eq!(a.objects(space).len(), if space == "old" { 4 } else { 3 });
        assert_eq!(a.vector(space), b.vector(space));
    }
    for (device, other) in [(a, b), (b, c), (c, a)] {
        assert_eq!(relation(device, other).expect("it is listed")["state"], "mutual");
        assert_eq!(device.json(&["status", "--check"])["complaints"], json!([]));
    }

    // Nothing is granted twice: meeting again costs no event.
    let known: Vec<Value> = [SPACE, "of-b", "old"].map(|space| a.vector(space)).into();
    for node in nodes {
        node.terminate();
    }
    let _nodes: Vec<RunningNode> = (0..3).map(|at| cluster.start(at)).collect();
    settle(&[a, b, c]);
    assert_eq!([SPACE, "of-b", "old"].map(|space| a.vector(space)).to_vec(), known);
}

#[test]
fn one_that_counts_another_alone_is_an_ordinary_peer_and_both_say_so() {
    let cluster = Cluster::of(&["A", "B"]);
    let (a, b) = (&cluster.devices[0], &cluster.devices[1]);
    a.ok(&["space", "create", SPACE]);
    b.ok(&["space", "create", "of-b"]);
    let node_a = cluster.start(0);
    let node_b = cluster.start_with(1, &[]);
    a.ok(&["sync"]);
    b.ok(&["sync"]);
    assert_eq!(names_of_spaces(a), [SPACE]);
    assert_eq!(names_of_spaces(b), ["of-b"]);
    for (device, other) in [(a, b), (b, a)] {
        let relation = relation(device, other).expect("both list it");
        assert_eq!(relation["state"], "one-sided", "{relation}");
        assert!(relation["reason"].as_str().is_some_and(|reason| reason.contains("--cluster-peer")), "{relation}");
    }
    assert!(node_a.log().contains("ordinary peer"), "{}", node_a.log());
    assert!(node_b.log().contains("ordinary peer"), "{}", node_b.log());
    a.run(&["status", "--check"]).expect(house::FAILED);

    // The other side is restarted with the flag: that is all it takes.
    node_b.terminate();
    let _node_b = cluster.start(1);
    b.ok(&["sync"]);
    assert_eq!(names_of_spaces(a), [SPACE, "of-b"]);
    assert_eq!(names_of_spaces(b), [SPACE, "of-b"]);
    assert_eq!(relation(a, b).expect("it is listed")["state"], "mutual");

    // And it holds for as long as both have the flag, while what was granted stays.
    drop(_node_b);
    let _node_b = cluster.start_with(1, &[]);
    b.ok(&["space", "create", "later"]);
    b.ok(&["put", SPACE, "notes", "n1", "{}"]);
    b.ok(&["sync"]);
    assert_eq!(names_of_spaces(a), [SPACE, "of-b"]);
    assert!(a.sees(SPACE, "notes", "n1"));
}

#[test]
fn those_that_cannot_reach_each_other_exchange_through_a_third() {
    let cluster = Cluster::of(&["A", "B", "C"]);
    let [a, b, c] = [0, 1, 2].map(|at| &cluster.devices[at]);
    // A and C do not even know of each other.
    let _nodes = [cluster.start_with(0, &[1]), cluster.start_with(1, &[0, 2]), cluster.start_with(2, &[1])];
    a.ok(&["space", "create", "of-a"]);
    c.ok(&["space", "create", "of-c"]);
    settle(&[a, c, b]);
    for device in [a, b, c] {
        assert_eq!(names_of_spaces(device), ["of-a", "of-c"], "{}", device.name());
        for space in ["of-a", "of-c"] {
            device.ok(&["put", space, "notes", device.name(), "{}"]);
        }
    }
    settle(&[a, c]);
    for space in ["of-a", "of-c"] {
        same(&[a, b, c], &["export", space]);
        assert_eq!(b.objects(space).len(), 3);
    }
}

#[test]
fn one_that_lost_its_disk_or_is_new_catches_up_and_serves_on() {
    let cluster = Cluster::of(&["A", "B", "C", "D"]);
    let [a, b, c, d] = [0, 1, 2, 3].map(|at| &cluster.devices[at]);
    let node_a = cluster.start(0);
    let node_b = cluster.start(1);
    a.ok(&["space", "create", SPACE]);
    a.ok(&["put", SPACE, "notes", "a1", "{}"]);
    b.ok(&["sync"]);
    b.ok(&["put", SPACE, "notes", "b1", "{}"]);
    b.ok(&["sync"]);

    // B comes back with its key and nothing else.
    node_b.kill();
    std::fs::remove_file(b.store()).expect("the store can be removed");
    let _node_b = cluster.start(1);
    b.ok(&["sync"]);
    same(&[a, b], &["export", SPACE]);
    b.ok(&["put", SPACE, "notes", "b2", "{}"]);
    b.ok(&["sync"]);
    assert!(a.sees(SPACE, "notes", "b2"));

    // C is new, and meets only B: the creator is down.
    node_a.terminate();
    let _node_c = cluster.start(2);
    eventually(PATIENCE, "C catches up by itself", || {
        names_of_spaces(c) == [SPACE] && c.ok(&["export", SPACE]) == b.ok(&["export", SPACE])
    });
    c.ok(&["put", SPACE, "notes", "c1", "{}"]);
    // And so is D, which meets only C.
    b.ok(&["sync"]);
    drop(_node_b);
    let _node_d = cluster.start(3);
    eventually(PATIENCE, "D catches up by itself", || {
        names_of_spaces(d) == [SPACE] && d.ok(&["export", SPACE]) == c.ok(&["export", SPACE])
    });
    let _nodes = [cluster.start(0), cluster.start(1)];
    settle(&cluster.all());
    same(&cluster.all(), &["export", SPACE]);
    assert_eq!(a.objects(SPACE).len(), 4);
}

#[test]
fn a_space_of_others_is_not_this_nodes_to_share_and_status_says_so() {
    let cluster = Cluster::of(&["A", "B"]);
    let (a, b, owner) = (&cluster.devices[0], &cluster.devices[1], Device::new("owner"));
    owner.ok(&["space", "create", "foreign"]);
    let _node_owner = owner.start_node(&[]);
    let _nodes = [cluster.start(0), cluster.start(1)];
    owner.share("foreign", "writer", a);
    a.ok(&["sync"]);
    b.ok(&["sync"]);
    assert_eq!(names_of_spaces(b), Vec::<String>::new());
    let status = a.status("foreign");
    let of_b = status["peers"].as_array().expect("peers").iter().find(|peer| peer["device"] == b.id());
    let of_b = of_b.expect("B is listed");
    assert_eq!(of_b["state"], "unshared", "{status}");
    assert!(of_b["reason"].as_str().is_some_and(|reason| reason.contains("owner")), "{of_b}");

    // Made an owner, it shares it.
    owner.share("foreign", "owner", a);
    a.ok(&["sync"]);
    b.ok(&["sync"]);
    assert_eq!(names_of_spaces(b), ["foreign"]);
    assert_eq!(b.status("foreign")["role"], "owner");
}

#[test]
fn a_cluster_has_more_spaces_than_an_ordinary_peer_gets_streams() {
    let cluster = Cluster::of(&["A", "B"]);
    let (a, b) = (&cluster.devices[0], &cluster.devices[1]);
    let _nodes = [cluster.start(0), cluster.start(1)];
    for number in 0..200 {
        a.ok(&["space", "create", &format!("s{number:03}")]);
    }
    b.ok(&["sync"]);
    assert_eq!(names_of_spaces(b).len(), 200);
    b.ok(&["put", "s199", "notes", "n1", "{}"]);
    b.ok(&["sync"]);
    assert!(a.sees("s199", "notes", "n1"));
}

// ------------------------------------------------------------------------------------------------- under kills and cuts

/// Three nodes write so much each: 3 × 14 × (470 + 10) = 20,160 writes.
const CHUNKS: usize = 14;
const ROWS_PER_CHUNK: usize = 470;
const SINGLES_PER_CHUNK: usize = 10;
const KILLS: usize = 5;

/// How long a writer repeats one write that fails because its node was killed.
const RETRY_TIME_MAX: Duration = Duration::from_secs(60);

/// One who writes at one node, and says which chunk it begins.
struct Writer<'a> {
    letter: &'static str,
    device: &'a Device,
    begun: Sender<usize>,
}

/// What a writer was promised.
#[derive(Default)]
struct Promised {
    objects: BTreeMap<(String, String), Value>,
    increments: i64,
    increments_tried: i64,
}

impl Writer<'_> {
    /// Repeats a command until it is acknowledged; how often it was tried.
    fn until_acknowledged(&self, arguments: &[&str]) -> i64 {
        let deadline = Instant::now() + RETRY_TIME_MAX;
        for tries in 1.. {
            let outcome = self.device.run(arguments);
            if outcome.code == Some(DONE) {
                return tries;
            }
            assert!(Instant::now() < deadline, "{}: never acknowledged: {outcome:?}", self.letter);
        }
        unreachable!("the deadline comes first")
    }

    fn write_all(self) -> Promised {
        let letter = self.letter;
        let file = self.device.beside("chunk.jsonl");
        let path = file.to_str().expect("temporary paths are UTF-8").to_owned();
        let mut promised = Promised::default();
        for chunk in 0..CHUNKS {
            let _ = self.begun.send(chunk);
            let rows = made_up_rows(&format!("{letter}{chunk:02}-"), ROWS_PER_CHUNK);
            write_rows(&file, &rows);
            self.until_acknowledged(&["import", SPACE, "rows", &path, "--key", "id"]);
            for row in rows {
                let key = row["id"].as_str().expect("made up with an id").to_owned();
                promised.objects.insert(("rows".to_owned(), key), row);
            }
            for single in 0..SINGLES_PER_CHUNK {
                if single % 2 == 0 {
                    let stamp = format!("{letter}{chunk:02}.{single:02}");
                    let fields = json!({ "put": stamp });
                    self.until_acknowledged(&["put", SPACE, "singles", &stamp, &fields.to_string()]);
                    promised.objects.insert(("singles".to_owned(), stamp), fields);
                } else {
                    promised.increments_tried +=
                        self.until_acknowledged(&["increment", SPACE, "shared", "object", "count", "1"]);
                    promised.increments += 1;
                }
            }
        }
        promised
    }
}

/// Kills the node at random moments while its writer writes, and starts it again.
fn kill_now_and_then(
    cluster: &Cluster,
    at: usize,
    peers: &[String],
    node: RunningNode,
    begun: &Receiver<usize>,
    seed: u64,
) -> RunningNode {
    let (mut dice, mut node, mut left) = (Dice::new(seed), node, KILLS);
    for chunk in begun {
        // Every chunk may be the one; as many are left as must be.
        if left > 0 && (dice.below(2) == 0 || CHUNKS - chunk <= left) {
            // Not for anything to have happened: this is what makes the moment random.
            thread::sleep(Duration::from_micros(dice.below(200_000)));
            node.kill();
            node = cluster.start_flags(at, peers);
            left -= 1;
        }
    }
    assert_eq!(left, 0, "all the kills happened");
    node
}

/// Cuts everything between one node and the others twice, each time for some chunks of its writer's.
fn cut_twice(lines: &[&Proxy], begun: &Receiver<usize>) {
    let mut cuts = 0;
    for chunk in begun {
        match chunk {
            2 | 8 => lines.iter().for_each(|line| line.cut()),
            5 | 11 => {
                lines.iter().for_each(|line| line.heal());
                cuts += 1;
            }
            _ => {}
        }
    }
    assert_eq!(cuts, 2, "both cuts happened and ended");
}

/// Twenty thousand writes on A, B and C, while B is killed and C is cut off; perhaps a D comes in the middle.
fn twenty_thousand_writes(names: &[&'static str]) {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64;
    eprintln!("the kills were drawn with the seed {seed}");

    let cluster = Cluster::of(names);
    let [a, b, c] = [0, 1, 2].map(|at| &cluster.devices[at]);
    // All that passes between C and the others passes through these: one before each node.
    let before: Vec<Proxy> = cluster.addresses.iter().map(|address| Proxy::before(*address)).collect();
    let peer = |at: usize, address: SocketAddr| {
        ["--cluster-peer".to_owned(), format!("{}@{address}", cluster.devices[at].id())]
    };
    let peers_of = |at: usize| -> Vec<String> {
        let others = (0..names.len()).filter(|other| *other != at);
        let far = |other: usize| at == 2 || other == 2;
        others
            .flat_map(|other| peer(other, if far(other) { before[other].address() } else { cluster.addresses[other] }))
            .collect()
    };
    let start = |at: usize| cluster.start_flags(at, &peers_of(at));

    a.ok(&["space", "create", SPACE]);
    a.ok(&["put", SPACE, "shared", "object", "{}"]);
    a.ok(&["increment", SPACE, "shared", "object", "count", "0"]);
    let (node_a, node_b, node_c) = (start(0), start(1), start(2));
    settle(&[b, c]);

    let (half_way, newcomer_waits) = mpsc::channel();
    let (begun_b, knife) = mpsc::channel();
    let (begun_c, scissors) = mpsc::channel();
    let mut all_promised = Vec::new();
    let mut nodes = vec![node_a, node_c];
    thread::scope(|scope| {
        let writers = [("a", a, half_way), ("b", b, begun_b), ("c", c, begun_c)]
            .map(|(letter, device, begun)| scope.spawn(move || Writer { letter, device, begun }.write_all()));
        let peers_b = peers_of(1);
        let cluster = &cluster;
        let killer = scope.spawn(move || kill_now_and_then(cluster, 1, &peers_b, node_b, &knife, seed));
        let lines: Vec<&Proxy> = before.iter().collect();
        let cutter = scope.spawn(move || cut_twice(&lines, &scissors));
        for chunk in newcomer_waits {
            if chunk == CHUNKS / 2 && names.len() == 4 {
                nodes.push(start(3));
            }
        }
        all_promised.extend(writers.map(|writer| writer.join().expect("everything was written")));
        nodes.push(killer.join().expect("B's node runs"));
        cutter.join().expect("C is back");
    });

    settle(&cluster.all());
    let export = same(&cluster.all(), &["export", SPACE]);
    let objects = parse_export(&export);
    let mut expected: BTreeMap<(String, String), Value> = BTreeMap::new();
    let (mut least, mut most) = (0, 0);
    for promised in all_promised {
        expected.extend(promised.objects);
        least += promised.increments;
        most += promised.increments_tried;
    }
    for (name, fields) in &expected {
        assert_eq!(objects.get(name), Some(fields), "{name:?} was acknowledged");
    }
    assert_eq!(objects.len(), expected.len() + 1, "and nothing else is there");
    let count = &objects[&("shared".to_owned(), "object".to_owned())]["count"];
    let count = count.as_i64().expect("a counter shows as a number");
    assert!((least..=most).contains(&count), "{least} increments were acknowledged, {most} tried, {count} counted");
    assert_eq!(same(&cluster.all(), &["--json", "conflicts", SPACE]).trim(), "[]");

    for node in nodes {
        node.terminate();
    }
    assert_eq!(same(&cluster.all(), &["export", SPACE]), export, "and so it is on the disks");
}

#[test]
fn twenty_thousand_writes_survive_five_kills_and_two_cuts() {
    twenty_thousand_writes(&["A", "B", "C"]);
}

#[test]
fn so_they_do_while_a_fourth_joins_on_an_empty_disk() {
    twenty_thousand_writes(&["A", "B", "C", "D"]);
}
