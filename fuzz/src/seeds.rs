//! What honest nodes say and store, as inputs to begin from.

use std::collections::BTreeMap;
use std::sync::Arc;

use thence::causal::{Claims, Dot, KeyRange, Knowledge, VersionVector, Witness};
use thence::model::Role;
use thence::replica::{Hello, Message, Open, PROTOCOL_VERSION, Probed, Refusal, TicketRefusal};
use thence::store::{Ledger, Work};

use crate::bodies::world::{
    CLUSTER, OWNER, PEER, commit_each, copied_store, empty_store, hand_over, introduction, invitation, invite, key,
    ledger, log, node_store, old_store, operations, peer_store, second, space, ticket, write,
};

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
    for segment in [owners_segments(), peers_segments(), copied_segments(), clusters_segments()].concat() {
        add("segment", segment);
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
        format!(
            "data = \"d\"\njson = true\nlog = \"info\"\nlisten = \"127.0.0.1:1\"\nlog_format = \"json\"\n\
             peers = [\"{peer}\"]\ncluster_peers = [\"{peer}\"]\ncache_mib = 7\n"
        )
        .into(),
    );
    add("config", format!("THENCE_PEERS={peer}, {peer}").into());
    add("config", b"THENCE_JSON=yes".to_vec());
    let mut backup = Vec::new();
    let made = ledger(Arc::new(old_store()), OWNER).back_up(1, &mut |piece| {
        backup.extend_from_slice(piece);
        std::ops::ControlFlow::Continue(())
    });
    made.expect("memory does not fail");
    add("backup", backup);
    add("store", vec![0, 0, 0, 0, 1, 1]);
    add("store", vec![9, 1, 3, 0, 2, 200, 7, 17, 2, 0, 0, 4, 0, 0, 0, 0, 23, 3, 0, 0, 0]);
    conversations(&messages).into_iter().for_each(|steps| add("session", steps));
    seeds
        .into_iter()
        .flat_map(|(target, all)| all.into_iter().enumerate().map(move |(at, one)| (target, at, one)))
        .collect()
}

/// The bits of a step that say who it is about.
const BY_PEER: u8 = 0x00;
const BY_READER: u8 = 0x40;
const BY_STRANGER: u8 = 0x80;
const BY_CLUSTER: u8 = 0xc0;
const IN_SECOND: u8 = 0x10;
const LAND: u8 = 12;
const READ: u8 = 13;

fn conversations(messages: &[Message]) -> Vec<Vec<u8>> {
    let hello = &messages[0];
    // One in which everything is said.
    let mut talk = Vec::new();
    for message in messages {
        say(&mut talk, BY_PEER, if message.kind() < 16 { 0 } else { 1 }, message);
    }
    peers_segments().iter().for_each(|segment| sign(&mut talk, BY_PEER, 0, segment));
    talk.extend([LAND, 11, 0, LAND, 9, 0x10, 0x27, 15, 10, 14]);

    // A newcomer with a ticket.
    let mut newcomer = Vec::new();
    say(&mut newcomer, BY_STRANGER, 0, hello);
    say(&mut newcomer, BY_STRANGER, 0, &Message::Redeem(ticket().to_bytes().into()));
    newcomer.push(LAND);
    say(&mut newcomer, BY_STRANGER, 1, &open(true));
    newcomer.extend([READ, 11, 3, LAND, BY_STRANGER | 15]);

    // A peer brings what a copy of the node's store wrote, after the node itself went on.
    let mut copied = vec![11, 1, LAND];
    say(&mut copied, BY_PEER, 1, &open(false));
    copied_segments().iter().for_each(|segment| sign(&mut copied, BY_PEER, 1, segment));
    copied.push(LAND);
    say(&mut copied, BY_PEER, 1, &Message::Diverged(ledger(Arc::new(node_store()), OWNER).replica()));
    peers_segments().iter().for_each(|segment| sign(&mut copied, BY_PEER, 0, segment));
    copied.extend([LAND | 0x10, 11, 4, LAND, 14 | 0x10, READ]);

    // A cluster peer takes the node's space and brings its own; a reader tries to write.
    let mut cluster = Vec::new();
    say(&mut cluster, BY_CLUSTER, 0, hello);
    say(&mut cluster, BY_CLUSTER, 0, &Message::Cluster);
    say(&mut cluster, BY_CLUSTER, 0, &Message::Introduce(second()));
    say(&mut cluster, BY_CLUSTER, 0, &Message::Offered(1));
    cluster.push(LAND);
    say(&mut cluster, BY_CLUSTER, 2, &open(true));
    clusters_segments().iter().for_each(|segment| sign(&mut cluster, BY_CLUSTER | IN_SECOND, 4, segment));
    cluster.push(LAND);
    say(&mut cluster, BY_CLUSTER, 1, &open(true));
    cluster.extend([READ, 11, 0x80, LAND]);
    say(&mut cluster, BY_READER, 1, &open(true));
    peers_segments().iter().take(1).for_each(|segment| sign(&mut cluster, BY_READER, 2, segment));
    cluster.push(LAND);

    // The node redeems a ticket of the cluster peer's, who then refuses it until it shows its grant.
    let mut invited = vec![BY_CLUSTER | 5];
    say(&mut invited, BY_CLUSTER, 0, &Message::Redeemed(Ok(second())));
    invited.push(LAND);
    clusters_segments().iter().for_each(|segment| {
        say(&mut invited, BY_CLUSTER, 2, &open(true));
        sign(&mut invited, BY_CLUSTER | IN_SECOND, 4, segment);
    });
    invited.push(LAND);
    say(&mut invited, BY_CLUSTER, 2, &Message::Refuse(Refusal::NotFound));
    invited.extend([READ, 11, 0x80, LAND]);
    say(&mut invited, BY_CLUSTER, 2, &open(true));
    invited.push(READ);

    // The cluster peer, an owner by now, takes the writer's grant away while that one speaks.
    let mut revoked = Vec::new();
    say(&mut revoked, BY_CLUSTER, 0, &Message::Cluster);
    revoked.push(LAND);
    say(&mut revoked, BY_CLUSTER, 1, &open(true));
    say(&mut revoked, BY_PEER, 1, &open(true));
    revoked.extend([READ, BY_PEER | 15]);
    peers_segments().iter().for_each(|segment| sign(&mut revoked, BY_PEER, 0, segment));
    sign(&mut revoked, BY_CLUSTER, 4, &revocation());
    revoked.extend([LAND | 0x10, 11, 0, LAND, 9, 0x64, 0]);
    say(&mut revoked, BY_PEER, 1, &open(true));
    say(&mut revoked, BY_PEER, 1, &Message::Show(vec![owners_segments().swap_remove(1).into()]));
    revoked.extend([READ, 11, 1, LAND, 9 | 0x10, 0x10, 0x27, 9, 0x10, 0x27]);
    vec![talk, newcomer, copied, cluster, invited, revoked]
}

/// Adds a step in which somebody says something.
fn say(steps: &mut Vec<u8>, by: u8, channel: u8, message: &Message) {
    steps.extend([by, channel, message.kind(), 1]);
    count(steps, &message.body());
}

/// Adds a step in which somebody sends a segment; `author` is a place in the list that steps choose authors from.
fn sign(steps: &mut Vec<u8>, by: u8, author: u8, segment: &[u8]) {
    steps.extend([by | 6, author]);
    count(steps, segment);
}

fn count(steps: &mut Vec<u8>, bytes: &[u8]) {
    steps.extend(u16::try_from(bytes.len()).unwrap_or_default().to_le_bytes());
    steps.extend(bytes);
}

/// Somebody who knows nothing opens a space.
fn open(answer: bool) -> Message {
    Message::Open(Open {
        revision: thence::model::Revision::first(),
        digest: [0; 16],
        knowledge: Some(Knowledge::full(Claims::default())),
        answer,
    })
}

/// Some of every kind.
fn messages() -> Vec<Message> {
    let replica = ledger(Arc::new(node_store()), OWNER).replica();
    let (digest, hash) = ([4; 16], [5; 16]);
    let witness = Witness { dot: Dot::new(replica, 2), hash };
    let claims = || [witness].into_iter().collect();
    let owned = |segments: Vec<Vec<u8>>| segments.into_iter().map(Into::into).collect();
    let range = KeyRange::new(b"a".to_vec(), Some(b"b".to_vec())).expect("a < b");
    let partial = Knowledge::new(vec![(range, claims())]).expect("in order");
    vec![
        Message::Hello(Hello { version: PROTOCOL_VERSION, agent: "thence".to_owned(), replica, process: 5 }),
        Message::Cluster,
        Message::Offered(1),
        Message::Introduce(second()),
        Message::Redeem(ticket().to_bytes().into()),
        Message::Redeemed(Ok(introduction())),
        Message::Redeemed(Err(TicketRefusal::Used)),
        open(true),
        Message::Open(Open {
            revision: thence::model::Revision::first(),
            digest,
            knowledge: Some(Knowledge::full(claims())),
            answer: false,
        }),
        Message::Open(Open { revision: thence::model::Revision::first(), digest, knowledge: None, answer: false }),
        Message::Know(Knowledge::full(claims())),
        Message::Know(partial),
        Message::Segments(owned(peers_segments())),
        Message::Ack(vec![witness]),
        Message::Probe(1),
        Message::Probed(Probed { nonce: 1, spaces: 1 }),
        Message::Refuse(Refusal::Partial),
        Message::Diverged(replica),
        Message::Show(owned(clusters_segments())),
    ]
}

/// What the node's log holds.
fn owners_segments() -> Vec<Vec<u8>> {
    log(&ledger(Arc::new(node_store()), OWNER), space(), &VersionVector::new())
}

/// What the peer wrote after it had seen all of that.
fn peers_segments() -> Vec<Vec<u8>> {
    let ledger = ledger(Arc::new(peer_store()), PEER);
    let before = vector(&ledger);
    commit_each(&ledger, operations().into_iter().map(|operation| write(space(), "o", operation)));
    log(&ledger, space(), &before)
}

/// What a copy of the node's store wrote.
fn copied_segments() -> Vec<Vec<u8>> {
    let before = vector(&ledger(Arc::new(node_store()), OWNER));
    log(&ledger(Arc::new(copied_store()), OWNER), space(), &before)
}

/// What the cluster peer wrote into its own space: that the node owns it too, and some objects.
fn clusters_segments() -> Vec<Vec<u8>> {
    let ledger = ledger(Arc::new(empty_store(CLUSTER)), CLUSTER);
    let (genesis, space) = (second().genesis, second().genesis.space());
    let create = Work::Create { genesis, name: second().name };
    let admit = Work::Admit { device: key(PEER).device(), ticket: invitation().to_bytes() };
    commit_each(&ledger, [create, Work::Share { space, device: key(OWNER).device() }, admit]);
    commit_each(&ledger, operations().into_iter().map(|operation| write(space, "o", operation)));
    log(&ledger, space, &VersionVector::new())
}

/// What a cluster peer that the node made an owner wrote to make another one of the writer, but for the role's name,
/// which is no role's, so that nothing is left of the grant.
fn revocation() -> Vec<u8> {
    let (owners, clusters) = (ledger(Arc::new(node_store()), OWNER), ledger(Arc::new(empty_store(CLUSTER)), CLUSTER));
    commit_each(&owners, [Work::Share { space: space(), device: key(CLUSTER).device() }]);
    commit_each(&clusters, [Work::Join { introduction: introduction(), introducer: key(OWNER).device() }]);
    hand_over(&owners, &clusters, space());
    let before = vector(&clusters);
    let ticket = invite(OWNER, introduction(), 11, Role::Owner).to_bytes();
    commit_each(&clusters, [Work::Admit { device: key(PEER).device(), ticket }]);
    let mut segment = log(&clusters, space(), &before).swap_remove(0);
    let role = segment.windows(5).position(|text| text == b"owner").expect("it says which role");
    segment[role] = b'0';
    segment
}

fn vector(ledger: &Ledger) -> VersionVector {
    ledger.view(space()).expect("readable").expect("it is held").vector().expect("readable")
}
