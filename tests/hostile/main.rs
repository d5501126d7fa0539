//! Peers that are no friends: whatever they send, they are refused with a reason, cost a bounded amount of memory, and
//! disturb nobody else.
//!
//! The node under attack is the real binary in a process of its own, so that its memory can be told from the test's.
//! The attacker speaks through the crate's own transport. During every attack an honest third device syncs.

#[path = "../house/mod.rs"]
mod house;

mod attacker;
mod memory;

use std::sync::Arc;

use attacker::{Attacker, Greeted, MOMENT, frame, long_vector, open_with_nothing, stream};
use house::{Device, PATIENCE, RunningNode, eventually, made_up_rows, write_rows};
use memory::Memory;
use serde_json::json;
use thence::causal::{ReplicaId, VersionVector};
use thence::model::{
    CollectionName, DeviceKey, Genesis, Operation, Request, Role, Segment, SignedTicket, SpaceId, Ticket,
};
use thence::replica::{
    Channel, Hello, Input, Introduction, Limits, Message, Millis, Open, Output, PROTOCOL_VERSION, PeerMisbehaved,
    Refusal, Replica, SessionId, TicketRefusal,
};
use thence::store::{Ledger, MemoryStore, Store, Work};
use thence::transport::Frame;

const SPACE: &str = "atlas";

/// A node with a space that it shares with an honest device.
struct Stage {
    a: Device,
    b: Device,
    node: RunningNode,
    _node_b: RunningNode,
    space: SpaceId,
}

impl Stage {
    fn new() -> Self {
        let (a, b) = (Device::new("A"), Device::new("B"));
        a.ok(&["space", "create", SPACE]);
        a.ok(&["put", SPACE, "places", "fez", r#"{"people":1}"#]);
        let node = a.start_node(&[]);
        a.share(SPACE, "writer", &b);
        let node_b = b.start_node(&[]);
        b.ok(&["sync"]);
        let space = a.space_id(SPACE).parse().expect("an id");
        Self { a, b, node, _node_b: node_b, space }
    }

    /// A device that may write in the space, and misuses that.
    fn member(&self) -> Attacker {
        let mallory = Device::new("Mallory");
        self.a.share(SPACE, "writer", &mallory);
        Attacker::as_device(&mallory, &self.node)
    }

    fn watch(&self, name: &'static str) -> Memory {
        Memory::watch(self.node.process(), name)
    }

    /// What one of the two honest devices writes, the other one has, in both directions.
    #[track_caller]
    fn assert_undisturbed(&self, when: &str) {
        let object = json!({ "when": when }).to_string();
        self.a.ok(&["put", SPACE, "notes", when, &object]);
        self.b.ok(&["put", SPACE, "notes_of_b", when, &object]);
        let both = |device: &Device| device.sees(SPACE, "notes", when) && device.sees(SPACE, "notes_of_b", when);
        eventually(PATIENCE, "the honest devices exchange what they write", || both(&self.a) && both(&self.b));
    }

    /// How a device is shown in A's status: its state, and why.
    fn shown(&self, device: &str) -> Option<(String, String)> {
        let status = self.a.status(SPACE);
        let peer = status["peers"].as_array()?.iter().find(|peer| peer["device"] == device)?.clone();
        let text = |member: &str| peer[member].as_str().unwrap_or_default().to_owned();
        Some((text("state"), text("reason")))
    }

    /// The node turned the member away, told it why, and tells the same in its status.
    #[track_caller]
    fn assert_turned_away(&self, attacker: &Attacker, peer: &Greeted, words: &str) {
        let farewell = attacker.run(peer.farewell());
        assert!(farewell.contains(words), "the node said {farewell:?}, not {words:?}");
        self.assert_shown_as_misbehaving(attacker, words);
    }

    #[track_caller]
    fn assert_shown_as_misbehaving(&self, attacker: &Attacker, words: &str) {
        let device = attacker.key.device().to_string();
        eventually(PATIENCE, "the status shows who misbehaved", || {
            let (state, reason) = self.shown(&device).unwrap_or_default();
            state == "misbehaved" && reason.contains(words)
        });
    }
}

/// A list that claims 2⁴⁰ elements, in nine bytes.
fn terabyte() -> Vec<u8> {
    let mut claim = vec![253];
    claim.extend_from_slice(&(1_u64 << 40).to_le_bytes());
    claim
}

fn critical(kind: u8, body: Vec<u8>) -> Frame {
    Frame { kind, critical: true, body }
}

#[test]
fn what_breaks_the_rules_is_refused_with_a_reason_that_all_can_see() {
    let stage = Stage::new();
    let mallory = stage.member();
    let memory = stage.watch("frames that break the rules");
    let about = Channel::Space(stage.space);

    // Bytes that are no frames.
    let bytes: [(&[u8], &str); 3] = [
        (&[0xff; 100], "unknown flags"),
        (&[1, 1, 100, 0, 0, 0, 1, 2, 3], "ended inside a frame"),
        (&[18, 1, 0, 0, 0, 0xf0], "more than the"),
    ];
    for (bytes, words) in bytes {
        let peer = mallory.greet();
        mallory.run(async {
            let mut stream = stream(&peer.connection, about).await;
            stream.send_bytes(bytes).await.expect("connected");
            // The node may have closed already.
            let _ = stream.finish().await;
        });
        stage.assert_turned_away(&mallory, &peer, words);
    }
    for (head, words) in [(critical(1, Vec::new()), "without a head"), (critical(0, vec![1; 7]), "impossible head")] {
        let peer = mallory.greet();
        mallory.run(async {
            let mut stream = peer.connection.open().await.expect("connected");
            stream.send(&head).await.expect("connected");
        });
        stage.assert_turned_away(&mallory, &peer, words);
    }

    let replica = ReplicaId::from_bytes([7; 16]);
    // Frames that are no messages, or not here.
    let mut cases = vec![
        (Channel::Control, critical(99, Vec::new()), "unknown and critical".to_owned()),
        (Channel::Control, critical(1, vec![0xff; 40]), "malformed hello".to_owned()),
        (
            Channel::Control,
            frame(&Message::Hello(Hello { version: 9, agent: String::new(), replica, process: 7 })),
            "protocol version 9".to_owned(),
        ),
        (
            Channel::Control,
            frame(&Message::Hello(Hello { version: 1, agent: "m".repeat(300), replica, process: 7 })),
            "256 bytes in its name".to_owned(),
        ),
        (Channel::Control, frame(&open_with_nothing()), "unexpected message for this channel".to_owned()),
        (about, frame(&Message::Offered(1)), "unexpected message for this channel".to_owned()),
        (
            Channel::Space(SpaceId::from_bytes([9; 16])),
            frame(&Message::Segments(Vec::new())),
            "segment of a space that is not open".to_owned(),
        ),
        (about, critical(18, vec![0; 1 << 20]), "bytes after the end of segments".to_owned()),
    ];
    // Nine bytes that claim a terabyte, wherever a list stands first; behind what else must come first.
    for (kind, before, name) in
        [(3, 0, "redeem"), (16, 18, "open"), (17, 16, "know"), (18, 0, "segments"), (19, 0, "ack"), (1, 1, "hello")]
    {
        let channel = if kind < 16 { Channel::Control } else { about };
        let mut body = vec![1; before];
        body.extend(terabyte());
        cases.push((channel, critical(kind, body), format!("malformed {name}")));
    }
    // A vector of more replicas than any space has.
    let full = |vector: Vec<u8>| [&[1, 0, 0][..], &vector].concat();
    let digest = vec![7; 16];
    let know = critical(17, full(long_vector(70_000)));
    let open = critical(16, [&[1, 0][..], &digest, &[1], &full(long_vector(70_000)), &[1]].concat());
    cases.push((about, know, "limit of 65536 replicas".to_owned()));
    cases.push((about, open, "limit of 65536 replicas".to_owned()));
    cases.push((about, critical(19, long_vector(70_000)), "limit of 65536 replicas".to_owned()));
    cases.push((about, critical(19, long_vector(1_000_000)), "more than the".to_owned()));
    for (channel, frame, words) in cases {
        let peer = mallory.greet();
        mallory.run(async {
            let mut stream = stream(&peer.connection, channel).await;
            if frame.kind == 19 {
                // Nothing is acknowledged before it was opened.
                stream.send(&attacker::frame(&open_with_nothing())).await.expect("connected");
            }
            // The node may close before it has all of it.
            let _ = stream.send(&frame).await;
        });
        stage.assert_turned_away(&mallory, &peer, &words);
    }
    stage.assert_undisturbed("after_the_rules_were_broken");
    memory.assert_bounded();
}

#[test]
fn what_decodes_to_much_more_than_it_is_costs_no_more_than_once() {
    let stage = Stage::new();
    let mallory = stage.member();
    let memory = stage.watch("frames that decode to many times their length");
    let about = Channel::Space(stage.space);
    let count = 4_u32 << 20;
    let list = |element: &[u8]| {
        let length = count / u32::try_from(element.len()).expect("a short one");
        [&[252][..], &length.to_le_bytes(), &element.repeat(length as usize)].concat()
    };
    // Nobody signs segments of nothing, or knows so many ranges.
    let empty = critical(18, list(&[0]));
    let ranges = critical(17, list(&[0, 0, 0]));
    for (frame, words) in [(empty, "malformed segment"), (ranges, "key ranges overlap")] {
        let peer = mallory.greet();
        mallory.run(async {
            let mut stream = stream(&peer.connection, about).await;
            let _ = stream.send(&frame).await;
        });
        stage.assert_turned_away(&mallory, &peer, words);
    }
    stage.assert_undisturbed("after_what_was_blown_up");
    memory.assert_bounded();
}

/// All segments of the space, as the node sends them to a member.
fn segments(attacker: &Attacker, peer: &mut Greeted, space: SpaceId) -> Vec<Vec<u8>> {
    attacker.run(async {
        let mut stream = stream(&peer.connection, Channel::Space(space)).await;
        stream.send(&frame(&open_with_nothing())).await.expect("connected");
        let heard = peer.hear(|_, message| match message {
            Message::Segments(segments) => Some(segments.into_iter().map(|bytes| bytes.into_vec()).collect()),
            _ => None,
        });
        heard.await.expect("a member is sent what there is")
    })
}

#[test]
fn events_that_nobody_may_write_are_refused_with_a_reason() {
    let stage = Stage::new();
    let mallory = stage.member();
    let memory = stage.watch("forged events");
    let about = Channel::Space(stage.space);
    let honest = segments(&mallory, &mut mallory.greet(), stage.space);

    let mut altered = honest[0].clone();
    *altered.last_mut().expect("a signature") ^= 1;
    let mut moved = honest[1].clone();
    moved.truncate(moved.len() - 1);
    // The first event of the space, which names it and makes its creator an owner, as if Mallory had written it.
    let usurped = Segment::resign(stage.space, 1, &mallory.key, &honest[0]).expect("it is a segment");
    let author = Segment::verify(stage.space, 1, honest[0].clone().into()).expect("it is genuine").author();
    // Author, first counter, previous hash, number of events; then the header's length, and its depth first.
    let depth_at = thence::codec::encode(&(author, 1_u64, [0_u8; 32], 1_u64)).len() + 1;
    let mut deep = honest[0].clone();
    assert_eq!(deep[depth_at], 1, "the first event of all has depth 1");
    deep[depth_at] = 200;
    let deep = Segment::resign(stage.space, 1, &mallory.key, &deep).expect("it is a segment");
    let elsewhere = Segment::resign(SpaceId::from_bytes([3; 16]), 1, &mallory.key, &honest[0]).expect("a segment");

    for (segment, words) in [
        (altered, "did not sign"),
        (moved, "malformed segment"),
        (elsewhere, "did not sign"),
        (usurped, "may not write grants"),
        (deep, "claims depth 200, at most"),
    ] {
        let peer = mallory.greet();
        mallory.run(async {
            let mut stream = stream(&peer.connection, about).await;
            let message = Message::Segments(vec![segment.into()]);
            stream.send(&frame(&message)).await.expect("connected");
        });
        stage.assert_turned_away(&mallory, &peer, words);
    }
    stage.assert_undisturbed("after_the_forgeries");
    let objects = stage.a.objects(SPACE);
    assert_eq!(objects, stage.b.objects(SPACE));
    assert_eq!(objects.len(), 3, "nothing of what was forged is there: {objects:?}");
    memory.assert_bounded();
}

#[test]
fn a_stranger_learns_nothing_and_changes_nothing() {
    let stage = Stage::new();
    let stranger = Attacker::stranger(9, &stage.node);
    let memory = stage.watch("a stranger");
    let unknown = SpaceId::from_bytes([5; 16]);

    // A space that it may not see is answered exactly as one that is not there.
    let mut peer = stranger.greet();
    for space in [stage.space, unknown] {
        stranger.run(async {
            let mut stream = stream(&peer.connection, Channel::Space(space)).await;
            stream.send(&frame(&open_with_nothing())).await.expect("connected");
        });
    }
    let mut heard = Vec::new();
    stranger.run(async {
        let both = peer.hear(|channel, message| {
            if let Channel::Space(space) = channel {
                heard.push((space, message));
            }
            (heard.len() == 2).then_some(())
        });
        both.await.expect("it is answered");
    });
    heard.sort_by_key(|(space, _)| *space != stage.space);
    let refused = |space| (space, Message::Refuse(Refusal::NotFound));
    assert_eq!(heard, [refused(stage.space), refused(unknown)]);

    // Tickets that no owner signed, one after the other.
    let ticket = Ticket {
        id: [1; 16],
        genesis: Genesis { creator: stranger.key.device(), nonce: [1; 16] },
        role: Role::Owner,
        uses: 1,
        expires_ms: u64::MAX,
        inviter: stranger.key.device(),
        addresses: Vec::new(),
        name: String::new(),
    };
    let own = SignedTicket::sign(ticket, &stranger.key).to_bytes();
    for (ticket, expected) in [(own, TicketRefusal::Unknown), (vec![1; 300], TicketRefusal::Forged)] {
        let mut peer = stranger.greet();
        let answer = stranger.run(async {
            peer.control.send(&frame(&Message::Redeem(ticket.into()))).await.expect("connected");
            let answer = |_, message| match message {
                Message::Redeemed(answer) => Some(answer),
                _ => None,
            };
            peer.hear(answer).await.expect("it is answered")
        });
        assert_eq!(answer, Err(expected));
    }

    // Events for a space that was not opened to it.
    let peer = stranger.greet();
    stranger.run(async {
        let mut stream = stream(&peer.connection, Channel::Space(stage.space)).await;
        stream.send(&frame(&Message::Segments(vec![vec![1; 100].into()]))).await.expect("connected");
    });
    let farewell = stranger.run(peer.farewell());
    assert!(farewell.contains("segment of a space that is not open"), "{farewell}");
    assert_eq!(stage.shown(&stranger.key.device().to_string()), None, "whoever may not see a space is not shown in it");
    stage.assert_undisturbed("after_the_stranger");
    memory.assert_bounded();
}

#[test]
fn a_flood_of_opens_ends() {
    let stage = Stage::new();
    let mallory = stage.member();
    let memory = stage.watch("a flood of opens");
    let peer = mallory.greet();
    mallory.run(async {
        let mut stream = peer.connection.open().await.expect("connected");
        'flood: for number in 0..10_000_u32 {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&number.to_le_bytes());
            for frame in [critical(0, id.to_vec()), frame(&open_with_nothing())] {
                if stream.send(&frame).await.is_err() {
                    break 'flood;
                }
            }
        }
    });
    // Whoever talks so much may miss what is said to it; people do not.
    stage.assert_shown_as_misbehaving(&mallory, "limit of 4096 spaces");
    stage.assert_undisturbed("after_the_opens");
    memory.assert_bounded();
}

#[test]
fn half_sent_frames_on_all_streams_cost_little() {
    let stage = Stage::new();
    let mallory = stage.member();
    let memory = stage.watch("half-sent frames on all streams");
    // Once a member is known as one, it has all the room that there is. Every stream claims the greatest frame, and
    // lacks a byte of it in the end, as if that were to come a second later.
    let peer = mallory.greet();
    let length = 4_u32 << 20;
    let mut sending = tokio::task::JoinSet::new();
    for number in 0..7 {
        let connection = peer.connection.clone();
        let space = stage.space;
        sending.spawn_on(
            async move {
                let mut stream = stream(&connection, Channel::Space(space)).await;
                let header = [&[18, 1][..], &length.to_le_bytes()].concat();
                stream.send_bytes(&header).await.expect("connected");
                for _ in 1..length / 1024 {
                    stream.send_bytes(&[number; 1024]).await.expect("connected");
                }
                std::future::pending::<()>().await;
            },
            mallory.handle(),
        );
    }
    // Until the node takes no more: for a moment not a byte leaves.
    mallory.run(async {
        let sent = || peer.connection.traffic().sent_bytes;
        let (mut before, mut still) = (0, 0);
        while still < 5 {
            tokio::time::sleep(MOMENT).await;
            // Acknowledgements and the like go on.
            still = if sent() < before + 4096 { still + 1 } else { 0 };
            before = sent();
        }
    });
    stage.assert_undisturbed("with_half-sent_frames");
    assert_eq!(peer.connection.close_cause(), None, "slowness alone is no offence");
    memory.assert_bounded();
    drop(sending);
}

#[test]
fn a_fast_sender_waits_for_the_disk() {
    let stage = Stage::new();
    let mallory = stage.member();
    // Mallory's own store believes that it owns the space, and has filled it with a great many small objects.
    let genesis = Genesis { creator: mallory.key.device(), nonce: [0; 16] };
    let ours = own_segments(&mallory.key, genesis);
    let bytes: usize = ours.iter().map(Vec::len).sum();
    assert!(bytes > 24 << 20, "{bytes} bytes are several times what a node takes in at a time");
    let memory = stage.watch("more segments than the disk can take");
    let peer = mallory.greet();
    mallory.run(async {
        let mut stream = stream(&peer.connection, Channel::Space(stage.space)).await;
        for segment in &ours {
            let moved = Segment::resign(stage.space, 1, &mallory.key, segment).expect("it is a segment");
            let message = Message::Segments(vec![moved.into()]);
            stream.send(&frame(&message)).await.expect("an honest pace is no condition");
        }
    });
    stage.assert_undisturbed("with_a_fast_sender");
    eventually(PATIENCE, "all of it is taken in the end", || stage.a.sees(SPACE, "small", "60399"));
    memory.assert_bounded();
}

/// What a device sends that wrote a great many small objects, and some large ones, in a space of its own.
fn own_segments(key: &DeviceKey, genesis: Genesis) -> Vec<Vec<u8>> {
    let store = Arc::new(MemoryStore::new());
    let batch = Ledger::first_batch(key.device(), 1);
    store.commit(&mut |_| Ok(batch.clone())).expect("memory does not fail");
    let ledger = Ledger::open(store, key.clone()).expect("a new store");
    let introduction = Introduction { genesis, revision: thence::model::Revision::first(), name: "trap".to_owned() };
    let space = genesis.space();
    let mut works = vec![Work::Join { introduction, introducer: key.device() }];
    works.extend((0..60_400).map(|number| {
        let text = if number % 150 == 0 { "x".repeat(64 << 10) } else { String::new() };
        let fields = serde_json::Map::from_iter([("n".to_owned(), number.into()), ("text".to_owned(), text.into())]);
        let key = format!("{number}").parse().expect("a key");
        let collection = CollectionName::user("small").expect("a name");
        Work::Write { space, requests: vec![Request { collection, key, operation: Operation::Put(fields) }] }
    }));
    for works in works.chunks(1024) {
        ledger.commit(works, 0, 7).expect("memory does not fail");
    }
    let view = ledger.view(space).expect("memory does not fail").expect("it is held");
    let log = view.log_after(&VersionVector::new(), usize::MAX).expect("memory does not fail");
    log.into_iter().map(|stretch| stretch.bytes.to_vec()).collect()
}

#[test]
fn a_peer_that_never_reads_is_turned_away_in_the_end() {
    let stage = Stage::new();
    let mallory = stage.member();
    let file = stage.a.beside("rows.jsonl");
    write_rows(&file, &made_up_rows("r", 20_000));
    stage.a.import(SPACE, "rows", &file, "id");
    let memory = stage.watch("a peer that never reads");
    let peer = mallory.greet();
    mallory.run(async {
        let mut stream = stream(&peer.connection, Channel::Space(stage.space)).await;
        let ask = frame(&open_with_nothing());
        // Each asks for everything from the start.
        while stream.send(&ask).await.is_ok() && peer.connection.close_cause().is_none() {}
    });
    stage.assert_turned_away(&mallory, &peer, "takes nothing of what it is sent");
    stage.assert_undisturbed("after_one_who_never_reads");
    memory.assert_bounded();
}

#[test]
fn a_peer_that_never_acknowledges_is_sent_no_more_than_a_window() {
    let stage = Stage::new();
    let mallory = stage.member();
    let file = stage.a.beside("rows.jsonl");
    write_rows(&file, &made_up_rows("r", 60_000));
    stage.a.import(SPACE, "rows", &file, "id");
    let memory = stage.watch("a peer that never acknowledges");
    let mut peer = mallory.greet();
    let limits = Limits::default();
    let mut received = 0;
    mallory.run(async {
        let mut stream = stream(&peer.connection, Channel::Space(stage.space)).await;
        stream.send(&frame(&open_with_nothing())).await.expect("connected");
        let full = peer.hear(|_, message| {
            if let Message::Segments(segments) = message {
                received += segments.iter().map(|bytes| bytes.len()).sum::<usize>();
            }
            (received >= limits.window_bytes_max).then_some(())
        });
        full.await.expect("a window's worth comes");
    });
    stage.assert_undisturbed("with_one_who_never_acknowledges");
    // What the node wrote meanwhile would be sent now, if anything were.
    let sent = peer.connection.traffic().received_bytes;
    assert!(sent < 3 * limits.window_bytes_max as u64, "{sent} bytes came");
    memory.assert_bounded();
}

/// The same to its end, in the core's own time.
#[test]
fn a_peer_that_never_acknowledges_is_turned_away_in_the_end() {
    let owner = DeviceKey::from_secret(&[1; 32]);
    let genesis = Genesis { creator: owner.device(), nonce: [0; 16] };
    let store = Arc::new(MemoryStore::new());
    let batch = Ledger::first_batch(owner.device(), 1);
    store.commit(&mut |_| Ok(batch.clone())).expect("memory does not fail");
    let ledger = Ledger::open(store, owner.clone()).expect("a new store");
    ledger.commit(&[Work::Create { genesis, name: SPACE.to_owned() }], 0, 7).expect("memory does not fail");
    let mut replica = Replica::new("test", 1, Limits::default());
    let mut now: Millis = 0;
    for (space, revision, known, access) in ledger.held() {
        replica.handle(now, Input::Held { space, revision, known, access });
    }
    let (session, space) = (SessionId(1), genesis.space());
    replica.handle(now, Input::Connected { session, peer: owner.device(), cluster: false });
    let Message::Open(open) = open_with_nothing() else { unreachable!("it is an open") };
    let opening = Message::Open(Open { answer: false, ..open });
    let (kind, body, channel) = (opening.kind(), opening.body(), Channel::Space(space));
    replica.handle(now, Input::Received { session, channel, kind, critical: true, body });
    let mut sent = 0;
    let closed = 'time: loop {
        while let Some(output) = replica.poll_output() {
            match output {
                Output::LookUp(lookup) => {
                    replica.handle(now, ledger.look_up(&lookup).expect("memory does not fail"));
                }
                Output::Send { message: Message::Segments(_), .. } => sent += 1,
                Output::Close { reason, .. } => break 'time reason,
                _ => {}
            }
        }
        now = replica.poll_timeout().expect("it waits for an acknowledgement");
        replica.handle(now, Input::Tick);
    };
    assert_eq!(closed, PeerMisbehaved::NeverAcknowledges);
    assert_eq!(sent, 1, "what was not acknowledged is not sent again unasked");
}

/// Whoever answers a ticket says what the space is called, and every device shows that to people.
#[test]
fn a_space_is_not_called_what_fills_a_screen() {
    let (owner, guest) = (DeviceKey::from_secret(&[1; 32]), DeviceKey::from_secret(&[2; 32]));
    let answer = |name: &str| {
        let mut replica = Replica::new("test", 1, Limits::default());
        let session = SessionId(1);
        replica.handle(0, Input::Connected { session, peer: owner.device(), cluster: false });
        let own = ReplicaId::from_bytes([9; 16]);
        let hello = Hello { version: PROTOCOL_VERSION, agent: "mallory".to_owned(), replica: own, process: 7 };
        replica.handle(0, Input::Redeem { session, ticket: vec![1] });
        let genesis = Genesis { creator: guest.device(), nonce: [0; 16] };
        let introduction = Introduction { genesis, revision: thence::model::Revision::first(), name: name.to_owned() };
        for message in [Message::Hello(hello), Message::Redeemed(Ok(introduction))] {
            let (kind, body) = (message.kind(), message.body());
            let received = Input::Received { session, channel: Channel::Control, kind, critical: true, body };
            replica.handle(0, received);
        }
        std::iter::from_fn(|| replica.poll_output()).find_map(|output| match output {
            Output::Redeemed { .. } => Some(Ok(())),
            Output::Close { reason, .. } => Some(Err(reason)),
            _ => None,
        })
    };
    assert_eq!(answer(&"n".repeat(64)), Some(Ok(())));
    let refused = answer(&"n".repeat(65)).expect("something comes of it").expect_err("nobody called it that");
    assert!(matches!(refused, PeerMisbehaved::TooMany { limit: 64, .. }), "{refused}");
}

/// Whoever dials a node at two addresses keeps one of the connections, and says nothing on the other.
#[test]
fn a_connection_that_its_dialer_does_not_use_takes_nobodys_place() {
    let stage = Stage::new();
    let mallory = stage.member();
    let mut peer = mallory.greet();
    for nonce in 1..10 {
        let _unused = mallory.run(mallory.connect());
        mallory.run(async {
            peer.control.send(&frame(&Message::Probe(nonce))).await.expect("connected");
            let answered = |_, message| match message {
                Message::Probed(probed) => (probed.nonce == nonce).then_some(()),
                _ => None,
            };
            peer.hear(answered).await.expect("the connection that is used is the one that stays");
        });
    }
    stage.assert_undisturbed("with_unused_connections");
}

#[test]
fn newcomers_and_strangers_keep_nobody_out() {
    let stage = Stage::new();
    let memory = stage.watch("a flood of connections");
    let silent = Attacker::stranger(20, &stage.node);
    // More than there may be newcomers at a time; not one of them says a word.
    let connections: Vec<_> = (0..400).map(|_| silent.run(silent.connect())).collect();
    stage.assert_undisturbed("with_silent_newcomers");
    let strangers: Vec<_> = (100..200).map(|number| Attacker::stranger(number, &stage.node)).collect();
    let greeted: Vec<_> = strangers.iter().map(Attacker::greet).collect();
    let first = strangers[0].run(greeted[0].farewell());
    assert!(first.contains("others wait"), "the stranger that was here longest has to go: {first}");
    stage.assert_undisturbed("with_strangers");

    // Somebody with a ticket gets in all the same.
    let guest = Device::new("guest");
    stage.a.share(SPACE, "reader", &guest);
    assert!(guest.sees(SPACE, "places", "fez"));
    let alive = connections.iter().filter(|connection| connection.close_cause().is_none()).count();
    assert!(alive <= 256, "{alive} newcomers may be silent");
    memory.assert_bounded();
}
