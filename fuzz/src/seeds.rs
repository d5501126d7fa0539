//! What honest nodes say and store, as inputs to begin from.

use std::collections::BTreeMap;
use std::sync::Arc;

use thence::causal::{Dot, Knowledge, VersionVector};

use thence::replica::{
    Channel, Hello, Input, Introduction, Know, Limits, Message, Open, Output, PROTOCOL_VERSION, Probed, Refusal,
    Replica, SessionId, TicketRefusal,
};
use thence::store::{MemoryStore, Work};

use crate::bodies::world::{OWNER, PEER, begin, genesis, key, ledger, node_store, operations, space, ticket, write};

/// Target, number, and bytes.
pub fn seeds() -> Vec<(&'static str, usize, Vec<u8>)> {
    let mut seeds: BTreeMap<&str, Vec<Vec<u8>>> = BTreeMap::new();
    let mut add = |target, bytes| seeds.entry(target).or_default().push(bytes);
    let messages = messages();
    let mut stream = vec![5];
    for message in &messages {
        let body = message.body();
        add("message", [&[message.kind(), 1][..], &body].concat());
        stream.extend([message.kind(), 1]);
        stream.extend(u32::try_from(body.len()).unwrap_or_default().to_le_bytes());
        stream.extend(&body);
    }
    stream.truncate(2_000);
    add("frame", stream);
    add("frame", vec![1, 9, 0, 2, 0, 0, 0, 1, 2, 9, 2, 0, 0, 0, 0]);
    let own = own_segments();
    for segment in segments(OWNER).iter().chain(&own) {
        add("segment", segment.clone());
    }
    for text in [
        "null",
        "-7",
        "2.5e-7",
        "18446744073709551615",
        "\"te\\u0078t\"",
        "[1,{\"n\":[null,true]},\"\"]",
        "{}",
        "{\"$bytes\":\"AAE=\"}",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
    ] {
        add("value", text.as_bytes().to_vec());
    }
    for text in ["notes", "$grants", "a.b.c", "[\"a.b\",\"\"]", "東京", "x\u{0}y"] {
        add("name", text.as_bytes().to_vec());
    }
    add("ticket", ticket().to_bytes());
    add("ticket", ticket().to_string().into_bytes());
    for place in ["192.0.2.1:7117", "[2001:db8::1]:1", "relay.example.org:65535", "[::1]:0"] {
        add("address", format!("{}@{place}", key(OWNER).device()).into_bytes());
    }
    let peer = format!("{}@a:1", key(PEER).device());
    add(
        "config",
        format!("listen = \"127.0.0.1:1\"\nlog_format = \"json\"\npeers = [\"{peer}\"]\ncache_mib = 7\n").into(),
    );
    add("config", format!("THENCE_PEERS={peer}, {peer}").into());
    add("config", b"THENCE_JSON=yes".to_vec());
    add("store", vec![0, 0, 0, 0, 1, 1]);
    add("store", vec![9, 1, 3, 0, 2, 200, 7, 17, 2, 0, 0, 4, 0, 0, 0, 0, 23, 3, 0, 0, 0]);

    // A conversation in which everything is said, and one of a newcomer.
    let mut talk = Vec::new();
    for message in &messages {
        let channel = if message.kind() < 16 { 0 } else { 1 };
        say(&mut talk, 0, channel, message);
    }
    for segment in &own {
        talk.push(6);
        talk.extend(u16::try_from(segment.len()).unwrap_or_default().to_le_bytes());
        talk.extend(segment);
    }
    talk.extend([12, 11, 0, 12, 9, 0x10, 0x27, 15, 10, 14]);
    add("session", talk);
    let mut newcomer = Vec::new();
    say(&mut newcomer, 0x80, 0, &messages[0]);
    say(&mut newcomer, 0x80, 0, &Message::Redeem(ticket().to_bytes().into()));
    newcomer.push(12);
    say(&mut newcomer, 0x80, 1, &open());
    newcomer.extend([11, 3, 12, 0x8f]);
    add("session", newcomer);
    seeds
        .into_iter()
        .flat_map(|(target, all)| all.into_iter().enumerate().map(move |(at, one)| (target, at, one)))
        .collect()
}

/// Adds a step in which somebody says something.
fn say(steps: &mut Vec<u8>, who: u8, channel: u8, message: &Message) {
    let body = message.body();
    steps.extend([who, channel, message.kind(), 1]);
    steps.extend(u16::try_from(body.len()).unwrap_or_default().to_le_bytes());
    steps.extend(body);
}

fn open() -> Message {
    let knowledge = Some(Knowledge::full(VersionVector::new()));
    Message::Open(Open { revision: 1, digest: [0; 16], knowledge, answer: true })
}

/// One of every kind.
fn messages() -> Vec<Message> {
    let dot = Dot::new(ledger(Arc::new(node_store()), OWNER).replica(), 2);
    let vector: VersionVector = [dot].into_iter().collect();
    let digest = [4; 16];
    let introduction = Introduction { genesis: genesis(), revision: 1, name: "garden".to_owned() };
    vec![
        Message::Hello(Hello { version: PROTOCOL_VERSION, agent: "thence".to_owned() }),
        Message::Offered(1),
        Message::Redeem(ticket().to_bytes().into()),
        Message::Redeemed(Ok(introduction)),
        Message::Redeemed(Err(TicketRefusal::Used)),
        open(),
        Message::Open(Open { revision: 1, digest, knowledge: None, answer: false }),
        Message::Open(Open { revision: 1, digest, knowledge: Some(Knowledge::full(vector.clone())), answer: false }),
        Message::Know(Know { digest, knowledge: Knowledge::full(vector) }),
        Message::Segments(own_segments().into_iter().map(Into::into).collect()),
        Message::Ack(vec![dot]),
        Message::Probe(1),
        Message::Probed(Probed { nonce: 1, spaces: 1 }),
        Message::Refuse(Refusal::Partial),
    ]
}

/// What the node's log holds.
fn segments(device: u8) -> Vec<Vec<u8>> {
    let view = ledger(Arc::new(node_store()), device).view(space()).expect("memory does not fail").expect("it is held");
    let log = view.log_after(&VersionVector::new(), 1 << 20).expect("memory does not fail");
    log.into_iter().map(|stretch| stretch.bytes.to_vec()).collect()
}

/// What the peer wrote after it had seen all of that.
fn own_segments() -> Vec<Vec<u8>> {
    let store = Arc::new(MemoryStore::new());
    begin(&store, PEER);
    let ledger = ledger(store, PEER);
    let introduction = Introduction { genesis: genesis(), revision: 1, name: "garden".to_owned() };
    ledger.commit(&[Work::Join { introduction, introducer: key(OWNER).device() }], 0).expect("memory does not fail");
    // Through a replica, as it comes in truth.
    let mut replica = Replica::new("seeds", Limits::default());
    for (space, revision, known, access) in ledger.held() {
        replica.handle(0, Input::Held { space, revision, known, access });
    }
    let session = SessionId(1);
    replica.handle(0, Input::Connected { session, peer: key(OWNER).device() });
    let message = Message::Segments(segments(OWNER).into_iter().map(Into::into).collect());
    let (kind, body, channel) = (message.kind(), message.body(), Channel::Space(space()));
    replica.handle(0, Input::Received { session, channel, kind, critical: true, body });
    while let Some(output) = replica.poll_output() {
        if let Output::Store { session, space, segments } = output {
            ledger.commit(&[Work::Receive { session, space, segments }], 0).expect("memory does not fail");
        }
    }
    let before = ledger.view(space()).expect("memory does not fail").expect("it is held").vector().expect("likewise");
    let works: Vec<Work> = operations().into_iter().map(|operation| write("o", operation)).collect();
    ledger.commit(&works, 0).expect("memory does not fail");
    let view = ledger.view(space()).expect("memory does not fail").expect("it is held");
    let log = view.log_after(&before, 1 << 20).expect("memory does not fail");
    log.into_iter().map(|stretch| stretch.bytes.to_vec()).collect()
}
