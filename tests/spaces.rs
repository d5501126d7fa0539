//! Many spaces between two nodes, and a peer that is slow: each space gets its turn, and none costs the sender memory.

mod house;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use house::PATIENCE;
use house::proxy::Proxy;
use house::{Device, eventually};
use serde_json::json;
use thence::causal::{Claims, Knowledge, Witness};
use thence::model::{CollectionName, DeviceKey, Genesis, Operation, Request, Role, Segment, SpaceId};
use thence::node::{DataFolder, Invitation, Node, NodeConfig, Transaction};
use thence::replica::{Channel, Input, Limits, Message, Millis, Open, Output, Replica, SessionId};
use thence::store::{Ledger, MemoryStore, Store, Work};

async fn open(folder: &std::path::Path) -> Node {
    let folder = DataFolder::new(folder.join("data"));
    folder.init().expect("a new folder");
    let mut config = NodeConfig::new(folder.claim_for_node(PATIENCE).expect("nobody else has it"));
    config.listen = Some(([127, 0, 0, 1], 0).into());
    Node::open(config).await.expect("a new node starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_share_more_spaces_than_there_are_streams() {
    let folders = [tempfile::tempdir(), tempfile::tempdir()].map(|folder| folder.expect("a temporary folder"));
    let (a, b) = (open(folders[0].path()).await, open(folders[1].path()).await);
    let mut spaces = Vec::new();
    for number in 0..150 {
        let space = a.create_space(&format!("space-{number}")).await.expect("a valid name");
        let write = Transaction::new().put("notes", "n", json!({ "number": number })).expect("a valid write");
        a.space(space).expect("it is there").write(write).await.expect("it is written");
        let invitation = Invitation { role: Role::Writer, uses: 1, expires: Duration::from_secs(3600) };
        let ticket = a.invite(space, &invitation).expect("its owner may");
        assert_eq!(b.join(&ticket).await.expect("the ticket is good"), space);
        spaces.push(space);
    }
    // And once more from nothing, so that all of them are opened at the same time.
    b.close().await;
    let b = open(folders[1].path()).await;
    for (number, space) in spaces.iter().enumerate() {
        let write = Transaction::new().put("notes", "m", json!({ "number": number })).expect("a valid write");
        b.space(*space).expect("it is there").write(write).await.expect("it is written");
    }
    let report = b.sync(PATIENCE).await.expect("the node runs");
    assert_eq!(report.synced, [a.device()], "{report:?}");
    for (number, space) in spaces.iter().enumerate() {
        let found = a.space(*space).expect("it is there").get("notes", "m").expect("it can be read");
        assert_eq!(found.expect("B wrote it").fields["number"], number);
    }
    a.close().await;
    b.close().await;
}

#[test]
fn a_node_with_two_addresses_is_connected_once() {
    let (a, b) = (Device::new("A"), Device::new("B"));
    a.ok(&["space", "create", "atlas"]);
    let node_a = a.start_node(&[]);
    a.share("atlas", "writer", &b);
    // Two ways of the same length, and no other: both dials succeed at the same moment.
    b.ok(&["peer", "remove", a.id()]);
    let ways = [(); 2].map(|()| Proxy::before(node_a.address()));
    ways.iter().for_each(|way| way.delay(Duration::from_millis(20)));
    let peers = ways.each_ref().map(|way| node_a.peer_at(way.address()));
    for round in 0..10 {
        let node_b = b.start_node(&["--peer", &peers[0], "--peer", &peers[1]]);
        b.ok(&["put", "atlas", "rounds", &round.to_string(), "{}"]);
        b.ok(&["sync"]);
        let log = node_b.log();
        assert!(!log.contains("another connection is in use"), "one of two dials knocked the other out:\n{log}");
        node_b.terminate();
    }
    let log = node_a.log();
    assert!(!log.contains("another connection is in use"), "one of two dials knocked the other out:\n{log}");
    eventually(PATIENCE, "all that B wrote is here", || {
        (0..10).all(|round| a.sees("atlas", "rounds", &round.to_string()))
    });
}

/// An owner's node in the core's own time, and a peer that opens everything and takes its time.
struct Slow {
    ledger: Ledger,
    replica: Replica,
    now: Millis,
    /// Per space: segments that were sent and are not acknowledged.
    waiting: BTreeMap<SpaceId, Vec<Segment>>,
    in_flight: usize,
    in_flight_max: usize,
    spaces: Vec<SpaceId>,
}

const SESSION: SessionId = SessionId(1);

impl Slow {
    fn new(spaces: u8, limits: Limits) -> Self {
        let owner = DeviceKey::from_secret(&[1; 32]);
        let store = Arc::new(MemoryStore::new());
        let batch = Ledger::first_batch(owner.device(), 1);
        store.commit(&mut |_| Ok(batch.clone())).expect("memory does not fail");
        let ledger = Ledger::open(store, owner.clone()).expect("a new store");
        let mut ids = Vec::new();
        for number in 0..spaces {
            let genesis = Genesis { creator: owner.device(), nonce: [number; 16] };
            ids.push(genesis.space());
            let text = serde_json::Value::from("x".repeat(1_000));
            let write = |at: u32| {
                let operation = Operation::Put(serde_json::Map::from_iter([("text".to_owned(), text.clone())]));
                let (collection, key) = (CollectionName::user("rows").expect("a name"), at.to_string());
                let requests = vec![Request { collection, key: key.parse().expect("a key"), operation }];
                Work::Write { space: genesis.space(), requests }
            };
            let create = Work::Create { genesis, name: "many".to_owned() };
            for work in std::iter::once(create).chain((0..20).map(write)) {
                ledger.commit(&[work], 0, 7).expect("memory does not fail");
            }
        }
        let replica = Replica::new("test", 1, limits);
        let waiting = BTreeMap::new();
        let mut slow = Self { ledger, replica, now: 0, waiting, in_flight: 0, in_flight_max: 0, spaces: ids };
        for (space, revision, known, access) in slow.ledger.held() {
            slow.handle(Input::Held { space, revision, known, access });
        }
        slow.handle(Input::Connected { session: SESSION, peer: owner.device(), cluster: false });
        for space in slow.spaces.clone() {
            let knowledge = Some(Knowledge::full(Claims::default()));
            slow.say(
                space,
                &Message::Open(Open {
                    revision: thence::model::Revision::first(),
                    digest: [0; 16],
                    knowledge,
                    answer: false,
                }),
            );
        }
        slow
    }

    fn say(&mut self, space: SpaceId, message: &Message) {
        let (kind, body, channel) = (message.kind(), message.body(), Channel::Space(space));
        self.handle(Input::Received { session: SESSION, channel, kind, critical: true, body });
    }

    fn handle(&mut self, input: Input) {
        self.replica.handle(self.now, input);
        let mut lookups = Vec::new();
        loop {
            while let Some(output) = self.replica.poll_output() {
                match output {
                    Output::LookUp(lookup) => lookups.push(lookup),
                    Output::Send { channel: Channel::Space(space), message: Message::Segments(segments), .. } => {
                        for bytes in segments {
                            self.in_flight += bytes.len();
                            let segment = Segment::verify(space, 1, bytes.into_vec().into()).expect("it is genuine");
                            self.waiting.entry(space).or_default().push(segment);
                        }
                        self.in_flight_max = self.in_flight_max.max(self.in_flight);
                    }
                    Output::Close { reason, .. } => panic!("a slow peer is no hostile one: {reason}"),
                    _ => {}
                }
            }
            // As a disk does: what was asked first is answered when more was asked already.
            let Some(lookup) = lookups.pop() else { break };
            self.replica.handle(self.now, self.ledger.look_up(&lookup).expect("memory does not fail"));
        }
    }

    /// The peer says that it has everything that came of one space.
    fn acknowledge(&mut self, space: SpaceId) {
        let segments = self.waiting.remove(&space).unwrap_or_default();
        self.in_flight -= segments.iter().map(|segment| segment.bytes().len()).sum::<usize>();
        let last = |segment: &Segment| Witness { dot: segment.last(), hash: segment.hash().prefix() };
        let last: Claims = segments.iter().map(last).collect();
        self.say(space, &Message::Ack(last.into()));
    }
}

#[test]
fn what_a_session_has_not_acknowledged_is_bounded_over_all_spaces() {
    let limits = Limits {
        window_bytes_max: 8_000,
        session_window_bytes_max: 20_000,
        frame_bytes_max: 2_000,
        ..Limits::default()
    };
    let mut slow = Slow::new(40, limits);
    // Each read of the log may bring one segment, of one object here, more than was asked for.
    let reads = limits.session_window_bytes_max / limits.frame_bytes_max + 1;
    let window = limits.session_window_bytes_max + reads * 1_300;
    assert!(slow.in_flight >= limits.session_window_bytes_max, "the window is used: {}", slow.in_flight);
    // It acknowledges one space at a time, whichever has something; every one gets its turn.
    let mut rounds = 0;
    while let Some((&space, _)) = slow.waiting.iter().next() {
        slow.acknowledge(space);
        rounds += 1;
        assert!(rounds < 10_000, "it comes to an end");
    }
    assert!(slow.in_flight_max <= window, "{} bytes were on their way at once", slow.in_flight_max);
    assert_eq!(slow.in_flight, 0);
    for space in slow.spaces.clone() {
        let links = slow.replica.links(space);
        assert_eq!(links[0].ahead_events, 0, "{space} was sent whole");
    }
}

#[test]
fn a_space_that_waits_for_the_window_is_sent_what_was_written_meanwhile() {
    let limits = Limits {
        window_bytes_max: 4_000,
        session_window_bytes_max: 4_000,
        frame_bytes_max: 2_000,
        ..Limits::default()
    };
    let mut slow = Slow::new(3, limits);
    let starved = *slow.spaces.iter().find(|space| !slow.waiting.contains_key(space)).expect("one waits");
    let operation = Operation::Put(serde_json::Map::from_iter([("late".to_owned(), true.into())]));
    let (collection, key) = (CollectionName::user("rows").expect("a name"), "late".parse().expect("a key"));
    let work = Work::Write { space: starved, requests: vec![Request { collection, key, operation }] };
    let report = slow.ledger.commit(&[work], 0, 7).expect("memory does not fail");
    for (space, committed) in report.changed {
        slow.handle(Input::Committed { space, committed });
    }
    assert!(!slow.waiting.contains_key(&starved), "it still waits");
    while let Some((&space, _)) = slow.waiting.iter().next() {
        slow.acknowledge(space);
    }
    assert_eq!(slow.replica.links(starved)[0].ahead_events, 0, "late or not, all of it was sent");
}
