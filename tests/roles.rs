//! Roles hold at every node: what the core and the ledger do about events and requests of those who may not. Devices
//! here are the real protocol on real ledgers in memory, with nothing but a queue between them, so that a device can be
//! dishonest at will: it believes of itself what it likes, and says what it likes.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use serde_bytes::ByteBuf;
use serde_json::{Map, json};
use thence::causal::{Claims, Knowledge, VersionVector, Witness};
use thence::model::{
    Access, CollectionName, DeviceKey, Genesis, Operation, Request, Role, SignedTicket, SpaceId, Ticket,
};
use thence::replica::{
    Channel, Committed, Input, Introduction, Limits, Message, Open, Output, PeerMisbehaved, Refusal, Rejection,
    Relation, Replica, SessionId,
};
use thence::store::{Done, Ledger, MemoryStore, Store, Work, WriteError};

/// One device and all that it believes.
struct Device {
    key: DeviceKey,
    ledger: Ledger,
    replica: Replica,
}

/// Devices by number, and what is under way between them.
struct World {
    devices: Vec<Device>,
    now: u64,
    /// From, to, about what, what.
    queue: VecDeque<(usize, usize, Channel, Message)>,
    connected: BTreeSet<(usize, usize)>,
    /// One that only says what a test has it say.
    puppet: Option<usize>,
    /// One that is slow to go over to another revision, and what it is about to commit.
    slow: Option<usize>,
    waiting: Vec<Work>,
    /// Who turned whom away, and why.
    turned_away: Vec<(usize, usize, PeerMisbehaved)>,
}

/// Few, so that they are soon exceeded.
const SPACES_MAX: usize = 8;

const OWNER: usize = 0;
const THIRD: usize = 1;
const ROGUE: usize = 2;
const ACCOMPLICE: usize = 3;

fn genesis(n: u8) -> Genesis {
    Genesis { creator: DeviceKey::from_secret(&[1; 32]).device(), nonce: [n; 16] }
}

fn space() -> SpaceId {
    genesis(1).space()
}

fn introduction(n: u8) -> Introduction {
    Introduction { genesis: genesis(n), revision: thence::model::Revision::first(), name: "home".to_owned() }
}

fn session(one: usize, other: usize) -> SessionId {
    SessionId((10 * one.min(other) + one.max(other)) as u64)
}

impl World {
    /// The owner has a space; the others nothing.
    fn new() -> Self {
        let device = |n: u8| {
            let key = DeviceKey::from_secret(&[n; 32]);
            let store = MemoryStore::new();
            let batch = Ledger::first_batch(key.device(), u64::from(n));
            store.commit(&mut |_| Ok(batch.clone())).expect("memory does not fail");
            let ledger = Ledger::open(Arc::new(store), key.clone()).expect("a new store");
            Device {
                key,
                ledger,
                replica: Replica::new("test", 1, Limits { spaces_max: SPACES_MAX, ..Limits::default() }),
            }
        };
        let devices = (1..=4).map(device).collect();
        let (queue, connected, turned_away) = (VecDeque::new(), BTreeSet::new(), Vec::new());
        let mut world =
            Self { devices, now: 0, queue, connected, puppet: None, slow: None, waiting: Vec::new(), turned_away };
        world.commit(OWNER, Work::Create { genesis: genesis(1), name: "home".to_owned() });
        world
    }

    /// The owner lets a device in, which holds the space from then on.
    fn admit(&mut self, device: usize, role: Role) {
        let ticket = Ticket {
            id: [device as u8; 16],
            genesis: genesis(1),
            role,
            uses: 1,
            expires_ms: u64::MAX,
            inviter: self.devices[OWNER].key.device(),
            addresses: Vec::new(),
            name: "home".to_owned(),
        };
        let ticket = SignedTicket::sign(ticket, &self.devices[OWNER].key).to_bytes();
        let admitted = self.commit(OWNER, Work::Admit { device: self.devices[device].key.device(), ticket });
        assert_eq!(admitted, Done::Admitted(Ok(introduction(1))));
        let introducer = self.devices[OWNER].key.device();
        self.commit(device, Work::Join { introduction: introduction(1), introducer });
    }

    /// The device takes itself for an owner, as a changed program may.
    fn usurp(&mut self, device: usize) {
        let introducer = self.devices[device].key.device();
        self.commit(device, Work::Join { introduction: introduction(1), introducer });
    }

    fn write(&mut self, device: usize, key: &str) {
        let fields = Map::from_iter([("by".to_owned(), json!(device))]);
        let (collection, key) = (CollectionName::user("notes").expect("a name"), key.parse().expect("a key"));
        let requests = vec![Request { collection, key, operation: Operation::Put(fields) }];
        let written = self.commit(device, Work::Write { space: space(), requests });
        assert!(matches!(written, Done::Written(Ok(_))), "{written:?}");
    }

    fn commit(&mut self, device: usize, work: Work) -> Done {
        let mut report = self.devices[device].ledger.commit(&[work], 1, 7).expect("memory does not fail");
        for (space, revision, known, access) in report.held {
            self.handle(device, Input::Held { space, revision, known, access });
        }
        for (space, committed) in report.changed {
            self.handle(device, Input::Committed { space, committed });
        }
        report.done.remove(0)
    }

    fn connect(&mut self, one: usize, other: usize, cluster: [bool; 2]) {
        self.connected.extend([(one, other), (other, one)]);
        for (from, to, cluster) in [(one, other, cluster[0]), (other, one, cluster[1])] {
            let peer = self.devices[to].key.device();
            self.handle(from, Input::Connected { session: session(one, other), peer, cluster });
        }
        self.settle();
    }

    fn handle(&mut self, device: usize, input: Input) {
        if self.puppet == Some(device) {
            return;
        }
        self.devices[device].replica.handle(self.now, input);
        while let Some(output) = self.devices[device].replica.poll_output() {
            self.perform(device, output);
        }
    }

    fn perform(&mut self, device: usize, output: Output) {
        let peer_of = |session: SessionId| {
            let (low, high) = ((session.0 / 10) as usize, (session.0 % 10) as usize);
            if device == low { high } else { low }
        };
        match output {
            Output::Send { session, channel, message } => {
                self.queue.push_back((device, peer_of(session), channel, message));
            }
            Output::Store { session, space, segments } => {
                self.commit(device, Work::Receive { session, space, segments });
            }
            Output::Follow { space, revision } if self.slow == Some(device) => {
                self.waiting.push(Work::Follow { space, revision });
            }
            Output::Follow { space, revision } => {
                self.commit(device, Work::Follow { space, revision });
            }
            Output::LookUp(lookup) => {
                let found = self.devices[device].ledger.look_up(&lookup).expect("readable");
                self.handle(device, found);
            }
            Output::Share { session, space, device: peer } => {
                let Done::Shared(introduction) = self.commit(device, Work::Share { space, device: peer }) else {
                    panic!("sharing is answered by what was shared");
                };
                self.handle(device, Input::Shared { session, space, introduction });
            }
            Output::Join { introduction, introducer } => {
                self.commit(device, Work::Join { introduction, introducer });
            }
            Output::Close { session, reason } => {
                let peer = peer_of(session);
                self.turned_away.push((device, peer, reason));
                self.connected.remove(&(device, peer));
                self.connected.remove(&(peer, device));
                self.handle(peer, Input::Disconnected { session });
            }
            other => panic!("nobody asked for {other:?}"),
        }
    }

    /// Has a puppet meet an honest device and push events to it, after opening the space as is proper.
    fn push(&mut self, from: usize, to: usize, segments: Vec<ByteBuf>) {
        self.puppet = Some(from);
        self.connect(from, to, PEERS);
        self.say(from, to, about(), open_with_nothing());
        self.say(from, to, about(), Message::Segments(segments));
    }

    /// Says something in a device's name.
    fn say(&mut self, from: usize, to: usize, channel: Channel, message: Message) {
        self.queue.push_back((from, to, channel, message));
        self.settle();
    }

    /// Everything that is under way arrives, and what waits for a moment happens. Returns what was said.
    fn settle(&mut self) -> Vec<(usize, usize, Message)> {
        let mut said = Vec::new();
        for _ in 0..20 {
            while let Some((from, to, channel, message)) = self.queue.pop_front() {
                if !self.connected.contains(&(from, to)) {
                    continue;
                }
                let (session, kind, body) = (session(from, to), message.kind(), message.body());
                said.push((from, to, message));
                self.handle(to, Input::Received { session, channel, kind, critical: true, body });
            }
            self.now += 50;
            (0..self.devices.len()).for_each(|device| self.handle(device, Input::Tick));
        }
        assert!(self.queue.is_empty(), "it comes to an end");
        said
    }

    /// The events of a device, in its own words.
    fn segments_of(&self, device: usize) -> Vec<ByteBuf> {
        let view = self.devices[device].ledger.view(space()).expect("readable").expect("held");
        let log = view.log_after(&VersionVector::new(), usize::MAX).expect("readable");
        let own = self.devices[device].ledger.replica();
        log.into_iter()
            .filter(|stretch| stretch.first.replica == own)
            .map(|stretch| ByteBuf::from(stretch.bytes.to_vec()))
            .collect()
    }

    fn sees(&self, device: usize, key: &str) -> bool {
        let view = self.devices[device].ledger.view(space()).expect("readable").expect("held");
        let (collection, key) = (CollectionName::user("notes").expect("a name"), key.parse().expect("a key"));
        view.get(&collection, &key).expect("readable").is_some()
    }

    fn role_at(&self, at: usize, device: usize) -> Option<Role> {
        self.devices[at].ledger.access(space()).and_then(|access| access.role(self.devices[device].key.device()))
    }

    /// The last event that a device has of each replica.
    fn knows(&self, device: usize) -> Vec<Witness> {
        let held = self.devices[device].ledger.held();
        held.into_iter().flat_map(|(_, _, known, _)| known.claims().iter().collect::<Vec<_>>()).collect()
    }

    fn last_refusal(&mut self) -> (usize, usize, String) {
        let (by, whom, reason) = self.turned_away.pop().expect("somebody was turned away");
        (by, whom, reason.to_string())
    }
}

const PEERS: [bool; 2] = [false, false];
const MUTUAL: [bool; 2] = [true, true];

fn open_with_nothing() -> Message {
    let knowledge = Some(Knowledge::full(Claims::default()));
    Message::Open(Open { revision: thence::model::Revision::first(), digest: [0; 16], knowledge, answer: true })
}

fn about() -> Channel {
    Channel::Space(space())
}

// -------------------------------------------------------------------------------------------------------------- events

#[test]
fn a_readers_events_are_refused_and_reach_nobody_through_an_honest_third() {
    let mut world = World::new();
    world.admit(THIRD, Role::Writer);
    world.connect(OWNER, THIRD, PEERS);
    world.usurp(ROGUE);
    world.write(ROGUE, "forged");
    let forged = world.segments_of(ROGUE);
    world.admit(ROGUE, Role::Reader);
    world.settle();
    let before = world.knows(OWNER);
    for honest in [THIRD, OWNER] {
        world.push(ROGUE, honest, forged.clone());
        let (by, whom, why) = world.last_refusal();
        assert_eq!((by, whom), (honest, ROGUE));
        assert!(why.contains("may not write objects"), "{why}");
    }
    world.settle();
    assert!(!world.sees(OWNER, "forged") && !world.sees(THIRD, "forged"));
    assert_eq!((world.knows(OWNER), world.knows(THIRD)), (before.clone(), before));
    assert_eq!(world.turned_away, [], "and nobody else was turned away for it");
}

#[test]
fn what_a_writer_forwards_for_those_who_may_not_is_refused() {
    for role in [Some(Role::Reader), None] {
        let mut world = World::new();
        world.admit(ACCOMPLICE, Role::Writer);
        world.usurp(ROGUE);
        world.write(ROGUE, "forged");
        let forged = world.segments_of(ROGUE);
        if let Some(role) = role {
            world.admit(ROGUE, role);
        }
        world.connect(OWNER, ACCOMPLICE, PEERS);
        world.write(ACCOMPLICE, "honest");
        world.settle();
        assert!(world.sees(OWNER, "honest"));
        world.say(ACCOMPLICE, OWNER, about(), Message::Segments(forged));
        let (by, whom, why) = world.last_refusal();
        assert_eq!((by, whom), (OWNER, ACCOMPLICE), "whoever forwards it had to refuse it");
        assert!(why.contains("may not write objects"), "{role:?}: {why}");
        assert!(!world.sees(OWNER, "forged"));
    }
}

#[test]
fn only_owners_grant() {
    let mut world = World::new();
    world.admit(THIRD, Role::Writer);
    world.connect(OWNER, THIRD, PEERS);
    world.usurp(ROGUE);
    let accomplice = world.devices[ACCOMPLICE].key.device();
    let shared = world.commit(ROGUE, Work::Share { space: space(), device: accomplice });
    assert_eq!(shared, Done::Shared(Some(introduction(1))), "as far as it knows itself");
    world.admit(ROGUE, Role::Writer);
    world.settle();
    let forged = world.segments_of(ROGUE);
    world.push(ROGUE, THIRD, forged);
    let (by, whom, why) = world.last_refusal();
    assert_eq!((by, whom), (THIRD, ROGUE));
    assert!(why.contains("may not write grants"), "{why}");
    world.settle();
    assert_eq!((world.role_at(OWNER, ACCOMPLICE), world.role_at(THIRD, ACCOMPLICE)), (None, None));
}

#[test]
fn segments_of_a_space_that_was_never_opened_end_the_session() {
    let mut world = World::new();
    world.usurp(ROGUE);
    world.write(ROGUE, "forged");
    let forged = world.segments_of(ROGUE);
    world.connect(OWNER, ROGUE, PEERS);
    assert_eq!(world.turned_away, [], "to ask is no offence");
    world.say(ROGUE, OWNER, about(), Message::Segments(forged));
    assert!(world.last_refusal().2.contains("not open"));
    assert!(!world.sees(OWNER, "forged"));
}

// ------------------------------------------------------------------------------------------------------------- serving

/// The owner's node learns that this is who may do what now.
fn access_changes(world: &mut World, access: &Access) -> Vec<(usize, usize, Message)> {
    let committed = Committed { access: Some(access.clone()), ..Committed::default() };
    world.handle(OWNER, Input::Committed { space: space(), committed });
    world.settle()
}

#[test]
fn whose_grant_is_gone_is_served_no_longer_and_not_accused() {
    // A dishonest one may have made itself look as if it wanted nothing.
    for refuses_before in [false, true] {
        let mut world = World::new();
        world.admit(THIRD, Role::Writer);
        world.connect(OWNER, THIRD, PEERS);
        world.write(OWNER, "before");
        world.settle();
        assert!(world.sees(THIRD, "before"));

        let granted = (*world.devices[OWNER].ledger.access(space()).expect("held")).clone();
        let mut gone = granted.clone();
        gone.learn(&world.devices[THIRD].key.device().to_string(), None);
        if refuses_before {
            world.say(THIRD, OWNER, about(), Message::Refuse(Refusal::NotFound));
        }
        let said = access_changes(&mut world, &gone);
        assert!(said.contains(&(OWNER, THIRD, Message::Refuse(Refusal::NotFound))), "{said:?}");

        // It cannot have known when it sent what was under way.
        world.write(THIRD, "late");
        let late = world.segments_of(THIRD);
        world.say(THIRD, OWNER, about(), Message::Segments(late));
        // Whatever it says now, and whatever is written: it hears nothing of the space but that it may not see it.
        world.write(OWNER, "after");
        for message in [
            Message::Know(Knowledge::full(Claims::default())),
            Message::Ack(world.knows(THIRD)),
            Message::Probe(7),
            open_with_nothing(),
        ] {
            world.queue.push_back((THIRD, OWNER, about(), message));
            let mut said = world.settle();
            world.write(OWNER, "again");
            said.extend(world.settle());
            for (from, _, message) in said {
                assert!(from == THIRD || matches!(message, Message::Refuse(Refusal::NotFound)), "{message:?}");
            }
        }
        // Nor because something that came from it did not fit.
        let rejected = vec![(session(OWNER, THIRD), Rejection::Missing)];
        let committed = Committed { rejected, ..Committed::default() };
        world.handle(OWNER, Input::Committed { space: space(), committed });
        assert_eq!(world.settle(), []);
        assert_eq!(world.turned_away, []);
        assert!(!world.sees(OWNER, "late") && !world.sees(THIRD, "after"));

        // Granted again, it is as if nothing had been.
        access_changes(&mut world, &granted);
        assert!(world.sees(OWNER, "late") && world.sees(THIRD, "after"));
        assert_eq!(world.knows(OWNER), world.knows(THIRD));
    }
}

// ------------------------------------------------------------------------------------------------------------- cluster

#[test]
fn both_say_so_and_share_with_one_event() {
    let mut world = World::new();
    world.connect(OWNER, THIRD, MUTUAL);
    assert_eq!((world.role_at(OWNER, THIRD), world.role_at(THIRD, THIRD)), (Some(Role::Owner), Some(Role::Owner)));
    assert_eq!(world.devices[OWNER].replica.relation(session(OWNER, THIRD)), Some(Relation::Cluster));
    let known = world.knows(OWNER);
    assert_eq!(known, world.knows(THIRD));
    assert_eq!(known.iter().map(|known| known.dot.counter).sum::<u64>(), 2, "the space's first event, and one grant");

    // What comes later is shared as soon as it is held; and from the third on it goes on to the next.
    world.connect(THIRD, ACCOMPLICE, MUTUAL);
    world.commit(OWNER, Work::Create { genesis: genesis(2), name: "later".to_owned() });
    world.settle();
    for device in [THIRD, ACCOMPLICE] {
        let spaces = world.devices[device].ledger.spaces();
        assert_eq!(spaces.into_iter().collect::<BTreeSet<_>>(), [space(), genesis(2).space()].into());
        assert_eq!(world.role_at(OWNER, device), Some(Role::Owner));
    }
    world.write(ACCOMPLICE, "n1");
    world.settle();
    assert!(world.sees(OWNER, "n1"));

    // To meet again costs no event.
    let known = world.knows(OWNER);
    for device in [OWNER, THIRD] {
        world.handle(device, Input::Disconnected { session: session(OWNER, THIRD) });
    }
    world.connect(OWNER, THIRD, MUTUAL);
    assert_eq!((world.knows(OWNER), world.knows(THIRD)), (known.clone(), known));
}

#[test]
fn one_side_alone_shares_nothing_and_an_introduction_without_both_is_an_offence() {
    let mut world = World::new();
    world.connect(OWNER, THIRD, [true, false]);
    assert_eq!(world.devices[THIRD].ledger.spaces(), []);
    assert_eq!(world.devices[OWNER].replica.relation(session(OWNER, THIRD)), Some(Relation::OneSidedHere));
    assert_eq!(world.devices[THIRD].replica.relation(session(OWNER, THIRD)), Some(Relation::OneSidedThere));
    world.say(OWNER, THIRD, Channel::Control, Message::Introduce(introduction(1)));
    assert_eq!(world.last_refusal().0, THIRD);

    world.connect(OWNER, ROGUE, PEERS);
    world.say(ROGUE, OWNER, Channel::Control, Message::Cluster);
    world.say(ROGUE, OWNER, Channel::Control, Message::Introduce(introduction(5)));
    let (by, whom, why) = world.last_refusal();
    assert_eq!((by, whom), (OWNER, ROGUE));
    assert!(why.contains("introduction"), "{why}");
    assert_eq!(world.devices[OWNER].ledger.spaces(), [space()]);
    assert_eq!(world.role_at(OWNER, ROGUE), None);
}

#[test]
fn what_is_not_owned_is_not_shared() {
    let mut world = World::new();
    world.admit(THIRD, Role::Writer);
    world.connect(OWNER, THIRD, PEERS);
    world.connect(THIRD, ACCOMPLICE, MUTUAL);
    assert_eq!(world.devices[ACCOMPLICE].ledger.spaces(), []);
    assert_eq!(world.role_at(OWNER, ACCOMPLICE), None);
    // Made an owner while they are connected, it shares it.
    let third = world.devices[THIRD].key.device();
    world.commit(OWNER, Work::Share { space: space(), device: third });
    world.settle();
    assert_eq!(world.devices[ACCOMPLICE].ledger.spaces(), [space()]);
    assert_eq!(world.role_at(OWNER, ACCOMPLICE), Some(Role::Owner));
    assert_eq!(world.knows(OWNER), world.knows(ACCOMPLICE));
}

#[test]
fn a_cluster_peer_introduces_no_more_than_a_node_may_hold() {
    let mut world = World::new();
    world.connect(OWNER, ROGUE, MUTUAL);
    for n in 2..=20 {
        world.say(ROGUE, OWNER, Channel::Control, Message::Introduce(introduction(n)));
    }
    let (by, whom, why) = world.last_refusal();
    assert_eq!((by, whom), (OWNER, ROGUE));
    assert!(why.contains("spaces"), "{why}");
    assert_eq!(world.devices[OWNER].ledger.spaces().len(), SPACES_MAX);

    let mut world = World::new();
    world.connect(OWNER, ROGUE, MUTUAL);
    let name = "x".repeat(65);
    world.say(ROGUE, OWNER, Channel::Control, Message::Introduce(Introduction { name, ..introduction(2) }));
    assert!(world.last_refusal().2.contains("name of a space"));
    assert_eq!(world.devices[OWNER].ledger.spaces(), [space()]);
}

// --------------------------------------------------------------------------------------------------------------- wipes

impl World {
    fn disconnect(&mut self, one: usize, other: usize) {
        self.connected.remove(&(one, other));
        self.connected.remove(&(other, one));
        self.queue.retain(|(from, to, ..)| ![(one, other), (other, one)].contains(&(*from, *to)));
        for device in [one, other] {
            self.handle(device, Input::Disconnected { session: session(one, other) });
        }
    }

    fn revision_at(&self, device: usize) -> u64 {
        self.devices[device].ledger.view(space()).expect("readable").expect("held").revision()
    }

    fn wipe(&mut self, device: usize) -> u64 {
        match self.commit(device, Work::Wipe { space: space(), only: None }) {
            Done::Wiped(Ok(revision)) => revision,
            other => panic!("it may wipe, but {other:?}"),
        }
    }

    /// All of these hold the same, in this revision.
    fn agree(&self, devices: &[usize], revision: u64) {
        for &device in devices {
            assert_eq!(self.revision_at(device), revision, "at {device}");
            assert_eq!(self.knows(device), self.knows(devices[0]), "at {device}");
        }
        assert_eq!(self.turned_away, []);
    }
}

#[test]
fn a_wipe_reaches_all_who_are_there_and_all_who_come_later_whatever_is_under_way() {
    let mut world = World::new();
    for (device, role) in [(THIRD, Role::Writer), (ROGUE, Role::Writer), (ACCOMPLICE, Role::Reader)] {
        world.admit(device, role);
    }
    world.connect(OWNER, THIRD, PEERS);
    world.connect(THIRD, ROGUE, PEERS);
    world.connect(OWNER, ACCOMPLICE, PEERS);
    world.write(OWNER, "before");
    world.settle();
    world.agree(&[OWNER, THIRD, ROGUE, ACCOMPLICE], 1);
    world.disconnect(OWNER, ACCOMPLICE);
    // What was written at the same moment, and is on its way when the wipe comes, is gone: everywhere.
    world.write(THIRD, "meanwhile");
    world.write(ROGUE, "meanwhile too");
    assert_eq!(world.wipe(OWNER), 2);
    world.write(OWNER, "after");
    world.settle();
    world.agree(&[OWNER, THIRD, ROGUE], 2);
    world.write(ROGUE, "later");
    world.settle();
    world.connect(ACCOMPLICE, ROGUE, PEERS);
    world.settle();
    world.agree(&[OWNER, THIRD, ROGUE, ACCOMPLICE], 2);
    for device in 0..4 {
        for key in ["before", "meanwhile", "meanwhile too"] {
            assert!(!world.sees(device, key), "{key} at {device}");
        }
        assert!(world.sees(device, "after") && world.sees(device, "later"));
    }
    // And again, over two that nobody told of the first.
    world.disconnect(ROGUE, ACCOMPLICE);
    assert_eq!((world.wipe(OWNER), world.wipe(OWNER)), (3, 4));
    world.settle();
    world.connect(THIRD, ACCOMPLICE, PEERS);
    world.agree(&[OWNER, THIRD, ROGUE, ACCOMPLICE], 4);
    assert_eq!(world.role_at(ACCOMPLICE, ROGUE), Some(Role::Writer));
}

#[test]
fn owners_who_wipe_apart_come_together_and_lose_nothing_that_was_written_since() {
    let mut world = World::new();
    for (device, role) in [(THIRD, Role::Owner), (ROGUE, Role::Writer), (ACCOMPLICE, Role::Writer)] {
        world.admit(device, role);
        world.connect(OWNER, device, PEERS);
    }
    world.connect(THIRD, ACCOMPLICE, PEERS);
    world.disconnect(OWNER, THIRD);
    world.disconnect(OWNER, ACCOMPLICE);
    for (owner, member, key) in [(OWNER, ROGUE, "here"), (THIRD, ACCOMPLICE, "there")] {
        assert_eq!(world.wipe(owner), 2);
        world.settle();
        world.write(member, key);
        world.settle();
        world.agree(&[owner, member], 2);
    }
    world.connect(ROGUE, ACCOMPLICE, PEERS);
    world.settle();
    world.agree(&[OWNER, THIRD, ROGUE, ACCOMPLICE], 2);
    assert!((0..4).all(|device| world.sees(device, "here") && world.sees(device, "there")));
}

#[test]
fn a_wipe_by_whoever_may_not_is_an_offence_and_tells_strangers_nothing() {
    let mut world = World::new();
    world.admit(ROGUE, Role::Writer);
    world.connect(OWNER, ROGUE, PEERS);
    world.write(OWNER, "kept");
    world.settle();
    assert!(matches!(world.commit(ROGUE, Work::Wipe { space: space(), only: None }), Done::Wiped(Err(_))));
    let forged = |world: &World, by: usize| {
        let next = thence::model::Revision::first().next(space(), Vec::new(), &world.devices[by].key);
        let open = Open { revision: next.expect("the second"), digest: [0; 16], knowledge: None, answer: true };
        Message::Open(open)
    };
    world.puppet = Some(ROGUE);
    let open = forged(&world, ROGUE);
    world.say(ROGUE, OWNER, about(), open);
    let (by, whom, why) = world.last_refusal();
    assert_eq!((by, whom), (OWNER, ROGUE));
    assert!(why.contains("forged revision"), "{why}");
    // To a stranger a space that is here looks like one that is not.
    world.puppet = Some(ACCOMPLICE);
    world.connect(OWNER, ACCOMPLICE, PEERS);
    for channel in [about(), Channel::Space(genesis(9).space())] {
        let open = forged(&world, ACCOMPLICE);
        world.queue.push_back((ACCOMPLICE, OWNER, channel, open));
        let said = world.settle();
        let answers: Vec<&Message> =
            said.iter().filter(|(from, ..)| *from == OWNER).map(|(_, _, message)| message).collect();
        assert_eq!(answers, [&Message::Refuse(Refusal::NotFound)]);
    }
    assert_eq!(world.turned_away, []);
    assert_eq!(world.revision_at(OWNER), 1);
    assert!(world.sees(OWNER, "kept"));
}

#[test]
fn whoever_has_heard_of_a_wipe_and_of_nothing_else_since_tells_it_to_those_it_knew() {
    let mut world = World::new();
    for (device, role) in [(THIRD, Role::Writer), (ROGUE, Role::Writer)] {
        world.admit(device, role);
        world.connect(OWNER, device, PEERS);
    }
    world.connect(THIRD, ROGUE, PEERS);
    world.disconnect(OWNER, ROGUE);
    world.write(THIRD, "before");
    world.settle();
    assert_eq!(world.wipe(OWNER), 2);
    // Only the Open arrives; then the lid is closed.
    let at = world.queue.iter().position(|(from, to, ..)| (*from, *to) == (OWNER, THIRD)).expect("it is told");
    let (_, _, channel, message) = world.queue.remove(at).expect("it is there");
    assert!(matches!(message, Message::Open(_)), "{message:?}");
    let (kind, body) = (message.kind(), message.body());
    let session = session(OWNER, THIRD);
    world.handle(THIRD, Input::Received { session, channel, kind, critical: true, body });
    world.disconnect(OWNER, THIRD);
    world.settle();
    assert_eq!((world.revision_at(THIRD), world.revision_at(ROGUE)), (2, 2));
    assert!(!world.sees(ROGUE, "before"));
    // Nobody may write yet: who may is for the owner to say.
    let fields = Operation::Put(Map::new());
    let (collection, key) = (CollectionName::user("notes").expect("a name"), "early".parse().expect("a key"));
    let requests = vec![Request { collection, key, operation: fields }];
    let early = world.commit(THIRD, Work::Write { space: space(), requests });
    assert_eq!(early, Done::Written(Err(WriteError::Waiting)));
    world.connect(OWNER, ROGUE, PEERS);
    world.settle();
    world.write(THIRD, "after");
    world.settle();
    world.agree(&[OWNER, THIRD, ROGUE], 2);
}

#[test]
fn who_was_invited_since_is_let_in_by_those_who_hear_of_both_at_once() {
    let mut world = World::new();
    for (device, role) in [(THIRD, Role::Writer), (ROGUE, Role::Reader)] {
        world.admit(device, role);
        world.connect(OWNER, device, PEERS);
        if device == THIRD {
            world.disconnect(OWNER, THIRD);
        }
    }
    assert_eq!(world.wipe(OWNER), 2);
    world.write(OWNER, "after");
    world.settle();
    world.disconnect(OWNER, ROGUE);
    // The one who does not know the reader is told of the revision and shown the grant before it has gone over.
    world.slow = Some(THIRD);
    world.connect(THIRD, ROGUE, PEERS);
    assert_eq!((world.revision_at(THIRD), world.waiting.len()), (1, 1));
    world.slow = None;
    for work in std::mem::take(&mut world.waiting) {
        world.commit(THIRD, work);
    }
    world.settle();
    world.agree(&[ROGUE, THIRD, OWNER], 2);
    assert!(world.sees(THIRD, "after"));
}
