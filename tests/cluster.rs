//! Nodes in a cluster: every space of one is everyone's, whoever comes, goes, dies or cannot be reached.

mod house;

use std::net::SocketAddr;

use house::{Device, PATIENCE, RunningNode, eventually, lasting_address, same, settle};
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
        let flags = self.flags(peers);
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
