//! The world of the node level, run to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use thence::causal::VersionVector;
use thence::model::{DeviceId, DeviceKey, Genesis, Request, SpaceId};
use thence::node::{Invitation, JoinError, Node, NodeError, OpenError, Parts, Status};
use thence::store::{Ledger, LedgerError, StoreError, View, Work, Written};
use thence::transport::{Endpoint, PeerAddress};

use super::air::{self, Air, Datagram, Skies};
use super::around::Around;
use super::cryptography;
use super::executor::{Executor, Nanos, Owner};
use crate::level::{Level, Outcome};
use crate::oracles::{
    At, Broken, Export, Failure, History, Shelf, Watched, broken, check_alike, check_disk, unexpected,
};
use crate::world::{
    Chance, Disk, Fate, Image, MarkKind, MessageKind, Millis, Place, Scenario, SpanKind, Told, Trace, What, decide,
    membership, resave,
};

const NANOS_PER_MS: Nanos = 1_000_000;
/// Room for what peers send, of which a node has 8 MiB: so little that worlds this small come to its end.
const INTAKE_BYTES_MAX: u32 = 64 << 10;

/// How often a user tries again what did not work.
const AGAIN_MS: Millis = 1_000;
/// How often it is asked, once all faults have ended, whether everything is in step.
const LOOK_EVERY_MS: Millis = 500;
/// After so long without faults everything must be in step: a connection that is dead without anybody knowing takes
/// fifteen seconds to be found out, a dial that is put off up to thirty, and either may happen at each of several hops.
const IN_STEP_WITHIN_MS: Millis = 120_000;
/// For so long nothing but signs of life may be sent when all is in step, and how many datagrams that is at most for a
/// connection.
const SILENCE_MS: Millis = 30_000;
const SILENCE_DATAGRAMS: u64 = 120;
/// A datagram that is no longer carries no message.
const SIGN_OF_LIFE_BYTES: usize = 60;
/// More steps than any honest world of this size takes.
const STEPS_MAX: u64 = 3_000_000;

/// What came of something that was asked of a node.
enum Answer {
    Started(Box<Result<Node, OpenError>>),
    Written { space: SpaceId, result: Result<Written, NodeError> },
    Joined { item: usize, result: Result<SpaceId, JoinError> },
    Status(Box<Result<Status, NodeError>>),
}

/// Something that is going to happen.
enum Happening {
    Item(usize),
    Quiet,
    Look,
    Silence {
        sent: u64,
    },
    Restart {
        node: usize,
    },
    /// A datagram comes, which has that number in the story.
    Arrival(Datagram, Option<usize>),
}

/// A node: its disk, its process while there is one, and what the oracles know of it.
struct Machine {
    key: DeviceKey,
    disk: Disk,
    /// Which process it is, counted from 1.
    life: u64,
    /// Whether there is a process.
    is_up: bool,
    /// Its store, while it is up.
    ledger: Option<Arc<Ledger>>,
    /// The process, once it has started.
    node: Option<Node>,
    /// What it said last about itself, if it was asked since anything happened.
    status: Option<Status>,
    skew_ms: Arc<AtomicI64>,
    /// In which of its lives its disk was read from the beginning.
    read_in: u64,
    /// The last image of its disk, and what the oracles knew of it.
    image: Option<(Image, BTreeMap<SpaceId, Shelf>)>,
    /// How many writes its users were told of since its disk was put back.
    told: u64,
    watched: Watched,
}

/// Where answers gather until the world looks at them: whose they are, and of which of its lives.
type Answers = Arc<Mutex<Vec<(Owner, Answer)>>>;

struct World<'a> {
    scenario: &'a Scenario,
    chance: Chance,
    executor: Executor,
    air: Air,
    skies: Skies,
    queue: BTreeMap<(Nanos, u64), Happening>,
    queued: u64,
    steps: u64,
    machines: Vec<Machine>,
    spaces: Vec<(SpaceId, Genesis)>,
    members: Vec<membership::Membership>,
    /// Redemptions that were answered well.
    redeemed: BTreeSet<usize>,
    answers: Answers,
    history: History,
    is_quiet: bool,
    is_over: bool,
    trace: &'a mut Trace,
}

/// Runs a scenario. The trace says what is kept of it.
pub fn run(scenario: &Scenario, trace: &mut Trace) -> Outcome {
    let chance = Chance::new(scenario.seed);
    cryptography::begin(chance);
    let mut world = World {
        scenario,
        chance,
        executor: Executor::new(chance),
        air: Air::new(&scenario.edges),
        skies: Skies::new(chance, scenario.weather),
        queue: BTreeMap::new(),
        queued: 0,
        steps: 0,
        machines: Vec::new(),
        spaces: Vec::new(),
        members: membership::drawn_up(scenario),
        redeemed: BTreeSet::new(),
        answers: Answers::default(),
        history: History::default(),
        is_quiet: false,
        is_over: false,
        trace,
    };
    let failure = Failure::of(|| world.run());
    let at = world.now_ms();
    let violation = failure.map(|failure| failure.at_time(at));
    let hash = world.trace.hash();
    // Tasks hold what runs them, so none of it would ever be given back.
    world.executor.end();
    world.trace.record(|story| {
        story.ended_at = at;
        story.violation.clone_from(&violation);
    });
    Outcome {
        hash,
        violation,
        ended_at: at,
        events: world.history.event_count(),
        messages: world.skies.sent,
        steps: world.steps,
    }
}

impl World<'_> {
    fn now_ms(&self) -> Millis {
        self.executor.now() / NANOS_PER_MS
    }

    fn schedule(&mut self, at_ms: Millis, happening: Happening) {
        self.schedule_at(at_ms * NANOS_PER_MS, happening);
    }

    fn schedule_at(&mut self, at: Nanos, happening: Happening) {
        self.queued += 1;
        self.queue.insert((at, self.queued), happening);
    }

    fn run(&mut self) -> Result<(), Failure> {
        self.begin()?;
        while !self.is_over {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Err(Broken { invariant: "no storms", detail: format!("{STEPS_MAX} steps") }.into());
            }
            if let Some(((node, life), uses_disk)) = self.executor.step() {
                self.send();
                // What a disk task did is looked at before anybody else can see it.
                self.look_after_disk(node);
                if uses_disk && self.is_alive((node, life)) {
                    self.read_on(node)?;
                }
                self.take_answers()?;
                continue;
            }
            let next = self.queue.keys().next().copied();
            let at = next.map(|(at, _)| at).into_iter().chain(self.executor.next_at()).min();
            let Some(at) = at else {
                return broken("liveness", "nothing will ever happen again").map_err(Failure::from);
            };
            self.executor.advance(at);
            if let Some(next) = next.filter(|next| next.0 <= at)
                && let Some(happening) = self.queue.remove(&next)
            {
                self.happen(happening)?;
            }
        }
        self.end()
    }

    fn begin(&mut self) -> Result<(), Failure> {
        let scenario = self.scenario;
        for number in 0..scenario.nodes {
            let key = DeviceKey::from_secret(&self.chance.bytes("device key", number as u64));
            let disk = Disk::new(Level::Node, self.chance, number);
            let (low, high) = scenario.disk_ms;
            self.executor.set_disk(number, (low * NANOS_PER_MS, high * NANOS_PER_MS));
            let (skew_ms, watched) = (Arc::default(), Watched::default());
            let (life, is_up, ledger, node, status, told, read_in, image) = (0, false, None, None, None, 0, 0, None);
            self.machines.push(Machine {
                key,
                disk,
                life,
                is_up,
                ledger,
                node,
                status,
                skew_ms,
                read_in,
                image,
                told,
                watched,
            });
        }
        for number in 0..scenario.spaces {
            let mut nonce = [0; 16];
            nonce.copy_from_slice(&self.chance.bytes("genesis", number as u64)[..16]);
            let genesis = Genesis { creator: self.machines[0].key.device(), nonce };
            self.spaces.push((genesis.space(), genesis));
            self.history.creators.insert(genesis.space(), genesis.creator);
            let work = Work::Create { genesis, name: format!("space {number}") };
            let Some(ledger) = self.open_ledger(0)? else { continue };
            ledger.commit(&[work], 0, number as u64).or_else(|error| unexpected(0, error))?;
        }
        for (space, node, role) in membership::invitations(scenario) {
            self.history.invited.insert((self.spaces[space].0, self.machines[node].key.device(), role));
        }
        for number in 0..scenario.nodes {
            self.start(number)?;
        }
        self.tell_beginning();
        for (at, item) in scenario.items.iter().enumerate() {
            self.schedule(item.at, Happening::Item(at));
        }
        self.schedule(scenario.quiet_at, Happening::Quiet);
        Ok(())
    }

    /// Opens the store of a node, or makes it; none if the disk fails at it.
    fn open_ledger(&self, number: usize) -> Result<Option<Ledger>, Failure> {
        let Machine { key, disk, .. } = &self.machines[number];
        let first = Ledger::first_batch(key.device(), self.chance.draw("incarnation", number as u64, 0));
        let opened = disk.store(&first).map_err(LedgerError::from).and_then(|store| Ledger::open(store, key.clone()));
        match opened {
            Ok(ledger) => Ok(Some(ledger)),
            Err(LedgerError::Store(error)) if disk.explains(&error) || disk.has_died() => Ok(None),
            Err(error) => unexpected(number, error),
        }
    }

    fn is_alive(&self, (node, life): Owner) -> bool {
        self.machines[node].life == life && self.machines[node].is_up
    }

    // Processes.

    fn start(&mut self, number: usize) -> Result<(), Failure> {
        if self.machines[number].is_up {
            return Ok(());
        }
        let Some(ledger) = self.open_ledger(number)?.map(Arc::new) else {
            self.machines[number].disk.cut();
            self.machines[number].disk.crash();
            self.restart_later(number);
            return Ok(());
        };
        let machine = &mut self.machines[number];
        machine.life += 1;
        machine.is_up = true;
        machine.ledger = Some(Arc::clone(&ledger));
        let owner = (number, machine.life);
        let (low, high) = self.scenario.disk_ms;
        let disk = (low * NANOS_PER_MS, high * NANOS_PER_MS);
        let surroundings = Arc::new(Around::new(&self.executor, self.chance, owner, disk, &machine.skew_ms));
        let seed = self.chance.bytes("connections", (number as u64) << 32 | machine.life);
        let mut reset_key = [0; 64];
        reset_key[..32].copy_from_slice(&self.chance.bytes("reset key", number as u64));
        let mut config = Node::transport_config(air::address(number), reset_key);
        config.rng_seed = Some(seed);
        config.crypto_provider = Some(cryptography::provider());
        let socket = self.air.open(number);
        let runtime = Arc::clone(&surroundings) as Arc<dyn quinn::Runtime>;
        let endpoint = Endpoint::bind_with(socket, runtime, &self.machines[number].key, config)
            .or_else(|error| unexpected(number, error))?;
        let listeners = self.scenario.edges.iter().filter(|(dialer, _)| *dialer == number).map(|(_, other)| *other);
        let dialers = self.scenario.edges.iter().filter(|(_, other)| *other == number).map(|(dialer, _)| *dialer);
        let address = |node: usize| self.peer_address(node).or_else(|error| unexpected(number, error));
        let (peers, cluster_peers) = match self.scenario.cluster {
            false => (listeners.map(address).collect::<Result<_, _>>()?, Vec::new()),
            true => (Vec::new(), listeners.chain(dialers).map(address).collect::<Result<_, _>>()?),
        };
        let endpoint = Some(endpoint);
        let (keep_connected, intake_bytes_max) = (true, INTAKE_BYTES_MAX);
        let parts = Parts { surroundings, ledger, endpoint, peers, cluster_peers, keep_connected, intake_bytes_max };
        self.ask(owner, async move { Answer::Started(Box::new(Node::assemble(parts).await)) });
        Ok(())
    }

    fn peer_address(&self, node: usize) -> Result<PeerAddress, thence::transport::PeerAddressError> {
        let (device, address): (_, SocketAddr) = (self.machines[node].key.device(), air::address(node));
        format!("{device}@{address}").parse()
    }

    /// Asks something of a node's process; the answer goes with the process.
    fn ask(&self, owner: Owner, question: impl Future<Output = Answer> + Send + 'static) {
        let answers = Arc::clone(&self.answers);
        let task = async move {
            let answer = question.await;
            answers.lock().unwrap_or_else(PoisonError::into_inner).push((owner, answer));
        };
        self.executor.spawn(owner, Box::pin(task), None);
    }

    fn crash(&mut self, number: usize) {
        let machine = &mut self.machines[number];
        if !machine.is_up {
            return;
        }
        machine.is_up = false;
        machine.status = None;
        // First the socket: a process that is killed says no goodbye.
        self.air.close(number);
        let (node, ledger) = (machine.node.take(), machine.ledger.take());
        self.executor.kill((number, machine.life));
        machine.disk.cut();
        drop((node, ledger));
        machine.disk.crash();
    }

    fn restart_later(&mut self, node: usize) {
        let after = 1 + self.chance.draw("restart", node as u64, self.steps) % 2_000;
        self.schedule(self.now_ms() + after, Happening::Restart { node });
    }

    /// A process that died at an operation on its disk.
    fn look_after_disk(&mut self, number: usize) {
        if self.machines[number].disk.has_died() {
            self.trace.tell(self.now_ms(), || format!("{number} dies at an operation on its disk"));
            self.crash(number);
            self.restart_later(number);
        }
    }

    fn take_answers(&mut self) -> Result<(), Failure> {
        let answers = std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner));
        for (owner, answer) in answers {
            if self.is_alive(owner) {
                self.answered(owner.0, answer)?;
            }
        }
        Ok(())
    }

    fn answered(&mut self, number: usize, answer: Answer) -> Result<(), Failure> {
        let now = self.now_ms();
        match answer {
            Answer::Started(started) => {
                let node = (*started).or_else(|error| unexpected(number, error))?;
                self.trace.tell(now, || format!("{number} has started"));
                self.trace.note(self.executor.now(), number, "started", &[]);
                self.trace.record(|story| {
                    story.end(now, Place::Node(number), SpanKind::Down);
                    story.mark(now, number, MarkKind::Restart, "has started", "");
                });
                self.machines[number].node = Some(node);
                Ok(())
            }
            Answer::Written { space, result } => {
                self.trace.tell(now, || format!("{number} was told {result:?}"));
                let what = if result.is_ok() { "written" } else { "not written" };
                self.trace.note(self.executor.now(), number, what, space.as_bytes());
                match result {
                    Ok(written) if written.changed > 0 => {
                        let Machine { watched, key, .. } = &mut self.machines[number];
                        watched.acknowledge(&self.history, space, key.device());
                        self.trace.record(|story| {
                            story.mark(now, number, MarkKind::Acknowledged, "user is told: written", "");
                        });
                        self.machines[number].told += 1;
                        let Machine { watched, told, .. } = &self.machines[number];
                        if (watched.acknowledged.len() as u64) < *told {
                            let detail = format!("{told} writes were acknowledged, fewer are on the disk");
                            return broken("durability", detail).at(number);
                        }
                    }
                    _ => {}
                }
                Ok(())
            }
            Answer::Joined { item, result } => {
                self.trace.tell(now, || format!("{number} joined: {result:?}"));
                self.trace.note(self.executor.now(), number, "joined", &[u8::from(result.is_ok())]);
                if result.is_ok() {
                    self.redeemed.insert(item);
                }
                Ok(())
            }
            Answer::Status(status) => {
                self.machines[number].status = (*status).ok();
                Ok(())
            }
        }
    }

    /// What a node holds, if it can be read: it is up, and its disk did not fail.
    fn views(&self, number: usize) -> Result<Option<Vec<View>>, Failure> {
        let Some(ledger) = &self.machines[number].ledger else { return Ok(None) };
        let view = |space| ledger.view(space).transpose();
        match ledger.spaces().into_iter().filter_map(view).collect() {
            Ok(views) => Ok(Some(views)),
            Err(StoreError::Io(_)) => Ok(None),
            Err(error) => unexpected(number, error),
        }
    }

    /// Oracles read without any fault of the disk.
    fn read_on(&mut self, number: usize) -> Result<(), Failure> {
        self.machines[number].disk.look_at(true);
        let read = self.read_on_in_peace(number);
        self.machines[number].disk.look_at(false);
        if read.is_err() && self.machines[number].disk.has_died() {
            // Opening the engine anew, it died: of that process nothing more can be read.
            self.look_after_disk(number);
            return Ok(());
        }
        read
    }

    fn read_on_in_peace(&mut self, number: usize) -> Result<(), Failure> {
        let Some(views) = self.views(number)? else { return Ok(()) };
        let page = 1 + usize::try_from(self.chance.draw("follower", number as u64, 0) % 5).unwrap_or_default();
        let Machine { watched, key, life, read_in, .. } = &mut self.machines[number];
        if *read_in != *life {
            let read = watched.read_again(&mut self.history, key.device(), &views);
            read.or_else(|error| unexpected(number, error))?.at(number)?;
            *read_in = *life;
        }
        let before: u64 = watched.shelves.values().map(|shelf| shelf.log.len() as u64).sum();
        let read = watched.read_on(&mut self.history, key.device(), &views, false, page);
        read.or_else(|error| unexpected(number, error))?.at(number)?;
        let after: u64 = watched.shelves.values().map(|shelf| shelf.log.len() as u64).sum();
        if after != before {
            let known: Vec<String> =
                watched.shelves.iter().map(|(s, shelf)| format!("{s:?} {:?}", shelf.vector)).collect();
            let now = self.executor.now() / NANOS_PER_MS;
            self.trace.record(|story| {
                let label = format!("on disk: {} more", after - before);
                story.mark(now, number, MarkKind::Landed, label, known.join("\n"));
            });
            for (space, shelf) in &watched.shelves {
                let log: Vec<u8> = shelf.log.iter().flat_map(|event| *event.as_bytes()).collect();
                self.trace.note(self.executor.now(), number, "holds", &[&space.as_bytes()[..], &log].concat());
                self.trace.tell(self.executor.now() / NANOS_PER_MS, || format!("{number} holds {:?}", shelf.vector));
            }
        }
        Ok(())
    }

    // The network.

    fn send(&mut self) {
        for datagram in self.air.take_sent() {
            let number = self.tell_sent(&datagram);
            let arrivals = self.skies.send(self.executor.now(), datagram);
            if let (Some(number), true) = (number, arrivals.is_empty()) {
                self.trace.record(|story| story.lost(number, "lost on the way"));
            }
            for (at, datagram) in arrivals {
                self.schedule_at(at, Happening::Arrival(datagram, number));
            }
        }
    }

    /// A datagram leaves a node: told if there is more in it than a sign of life. What it says is sealed.
    fn tell_sent(&mut self, datagram: &Datagram) -> Option<usize> {
        let Datagram { from, to, bytes, .. } = datagram;
        let (sent_at, from, to, len) = (self.now_ms(), *from, *to, bytes.len());
        let kind = if len > 400 { MessageKind::Content } else { MessageKind::Courtesy };
        let (summary, detail, fate) = (format!("{len} bytes"), String::new(), Fate::UnderWay);
        let mut number = None;
        if len > SIGN_OF_LIFE_BYTES {
            self.trace.record(|story| {
                number = Some(story.sent(Told { sent_at, from, to, kind, summary, detail, fate }));
            });
        }
        number
    }

    /// The nodes and spaces get names, and the story its lanes.
    fn tell_beginning(&mut self) {
        for (number, machine) in self.machines.iter().enumerate() {
            let (device, ledger) = (machine.key.device().to_string(), &machine.ledger);
            let replica = ledger.as_ref().map(|ledger| format!("{:?}", ledger.replica())).unwrap_or_default();
            self.trace.record(|story| {
                story.nodes.push(format!("node {number}"));
                story.call(&device[..8], format!("node {number}"));
                story.call(replica, format!("n{number}"));
            });
        }
        for (number, (space, _)) in self.spaces.iter().enumerate() {
            let id = space.to_string();
            self.trace.record(|story| story.call(&id[..8], format!("space {number}")));
        }
    }

    // What is done to the world.

    fn happen(&mut self, happening: Happening) -> Result<(), Failure> {
        match happening {
            Happening::Item(at) => self.item(at),
            Happening::Quiet => self.quiet(),
            Happening::Look => self.look(),
            Happening::Restart { node } => self.start(node),
            Happening::Silence { sent } => {
                let connections = self.scenario.edges.len() as u64;
                let (sent, most) = (self.skies.sent - sent, SILENCE_DATAGRAMS * connections);
                self.is_over = true;
                if sent > most {
                    let detail = format!("{sent} datagrams in {SILENCE_MS} ms in which nothing was to be said");
                    return Err(Broken { invariant: "no storms", detail }.into());
                }
                Ok(())
            }
            Happening::Arrival(datagram, told) => {
                let now = self.now_ms();
                if let Some(told) = told {
                    self.trace.record(|story| story.arrived(told, now));
                }
                self.trace.note(self.executor.now(), datagram.to, "datagram", &datagram.bytes);
                let (from, to, len) = (datagram.from, datagram.to, datagram.bytes.len());
                let came = self.air.deliver(datagram);
                self.trace
                    .tell(self.now_ms(), || format!("{from} -> {to} {len} bytes{}", if came { "" } else { " lost" }));
                Ok(())
            }
        }
    }

    fn item(&mut self, at: usize) -> Result<(), Failure> {
        let what = &self.scenario.items[at].what;
        let now = self.executor.now();
        self.trace.tell(now / NANOS_PER_MS, || what.to_string());
        let (scenario, machines) = (self.scenario, &self.machines);
        self.trace.record(|story| story.tell_item(now / NANOS_PER_MS, what, scenario, &|node| !machines[node].is_up));
        match what {
            What::Write { node, space, requests } => {
                let (space, requests) = (self.spaces[*space].0, requests.clone());
                if let Some(node_handle) = self.machines[*node].node.clone() {
                    self.ask((*node, self.machines[*node].life), async move {
                        Answer::Written { space, result: node_handle.write(space, requests).await }
                    });
                }
            }
            What::Resave { node, space, collection, key } => {
                self.edit(*node, *space, |view| resave(view, collection, key, at));
            }
            What::Decide { node, space } => self.edit(*node, *space, decide),
            // There are no thin clients here, and nobody wipes anything.
            What::Wipe { .. } | What::Upload { .. } | What::Fetch { .. } | What::Forget { .. } => {}
            What::Redeem { node, space, from, role } => self.redeem(at, *node, *space, *from, *role),
            What::Crash { node } => self.crash(*node),
            What::Restart { node } => return self.start(*node),
            What::Cut { from, to } => self.skies.cut(*from, *to),
            What::Heal { from, to } => self.skies.heal(*from, *to),
            What::Weather { from, to, weather } => self.skies.set_weather(*from, *to, *weather),
            What::Damage { from, to, per_mille } => self.skies.set_damage(*from, *to, *per_mille),
            What::Narrow { from, to, bytes } => self.skies.set_width(*from, *to, *bytes),
            What::Move { node } => self.air.move_away(*node),
            What::Pause { node, ms } => self.executor.pause(*node, now + ms * NANOS_PER_MS),
            What::Clock { node, ms } => self.machines[*node].skew_ms.store(*ms, Ordering::Relaxed),
            What::DiskFails { node, fault } => self.machines[*node].disk.fail_next(*fault),
            What::DiskSpeed { node, ms: (low, high) } => {
                self.executor.set_disk(*node, (low * NANOS_PER_MS, high * NANOS_PER_MS));
            }
            // Their peers are told, as by a user who removes and adds them.
            What::Drop { a, b } => self.part(*a, *b),
            What::Save { node } => {
                let machine = &mut self.machines[*node];
                machine.image = Some((machine.disk.image(), machine.watched.shelves.clone()));
            }
            What::PutBack { node } => self.put_back(*node),
            What::Copy { node, onto } => self.copy(*node, *onto),
            What::Medium { node, fault } => {
                if let Some(medium) = self.machines[*node].disk.medium() {
                    medium.suffer(fault);
                }
            }
            // What hostile peers say does not depend on how bytes travel.
            What::Hostile { .. } => {}
        }
        Ok(())
    }

    /// A backup is put back. What no other disk holds of what came after it is gone, and nobody can be blamed.
    fn put_back(&mut self, number: usize) {
        let Some((image, shelves)) = &self.machines[number].image else { return };
        let (image, shelves) = (image.fork(), shelves.clone());
        self.crash(number);
        let machine = &mut self.machines[number];
        machine.disk.put_back(&image);
        machine.watched.forget_feed();
        let before = std::mem::replace(&mut machine.watched.shelves, shelves);
        self.machines.iter_mut().for_each(|machine| machine.told = 0);
        self.history.copied.insert(self.machines[number].key.device());
        // Grants are among what was forgotten: whoever joined there, or was admitted there, asks again.
        for (at, item) in self.scenario.items.iter().enumerate() {
            if let What::Redeem { node, from, .. } = item.what
                && (node == number || from == number)
                && item.at <= self.now_ms()
                && self.redeemed.remove(&at)
            {
                self.schedule(self.now_ms() + AGAIN_MS, Happening::Item(at));
            }
        }
        for (at, (space, _)) in self.spaces.iter().enumerate() {
            let members = membership::expected(self.scenario, &self.members[at]);
            let Some(lost) = before.get(space) else { continue };
            let era = lost.era(*space);
            for event in &lost.events {
                let has = |node: &usize| {
                    let shelf = self.machines[*node].watched.shelves.get(space);
                    shelf.is_some_and(|shelf| shelf.events.contains(event))
                };
                if !members.iter().any(has) {
                    let excuse = |machine: &mut Machine| _ = machine.watched.acknowledged.remove(&(era, *event));
                    self.machines.iter_mut().for_each(excuse);
                }
            }
        }
    }

    /// A disk and its key are copied onto another node.
    fn copy(&mut self, from: usize, onto: usize) {
        self.crash(onto);
        let Machine { key, disk, watched, .. } = &self.machines[from];
        let (key, image, shelves) = (key.clone(), disk.image(), watched.shelves.clone());
        self.history.copied.insert(key.device());
        let machine = &mut self.machines[onto];
        machine.disk.put_back(&image);
        machine.watched.forget_feed();
        machine.watched.shelves = shelves;
        machine.key = key;
        for (number, (space, _)) in self.spaces.iter().enumerate() {
            if machine.watched.shelves.contains_key(space) {
                let (members, owners) = &mut self.members[number];
                members.insert(onto);
                if owners.contains(&from) {
                    owners.insert(onto);
                }
            }
        }
    }

    /// A user removes a peer and adds it again, which ends the connection in between.
    fn part(&self, a: usize, b: usize) {
        let dials =
            |(dialer, listener): &&(usize, usize)| (*dialer, *listener) == (a, b) || (*dialer, *listener) == (b, a);
        let Some(&(dialer, listener)) = self.scenario.edges.iter().find(dials) else { return };
        let (Some(node), Ok(peer)) = (self.machines[dialer].node.clone(), self.peer_address(listener)) else { return };
        let owner = (dialer, self.machines[dialer].life);
        let task = async move {
            // A store that fails meanwhile keeps neither from happening.
            let _ = node.remove_peer(peer.device()).await;
            let _ = node.add_peer(peer).await;
        };
        self.executor.spawn(owner, Box::pin(task), None);
    }

    /// A user writes what follows from what is shown.
    fn edit(&mut self, number: usize, space: usize, edit: impl FnOnce(&View) -> Option<Vec<Request>>) {
        let (owner, space) = ((number, self.machines[number].life), self.spaces[space].0);
        let Some(node) = self.machines[number].node.clone() else { return };
        let requests = node.view(space).ok().and_then(|view| edit(&view));
        let Some(requests) = requests else { return };
        self.ask(owner, async move { Answer::Written { space, result: node.write(space, requests).await } });
    }

    fn redeem(&mut self, item: usize, number: usize, space: usize, from: usize, role: thence::model::Role) {
        let (id, _) = self.spaces[space];
        // A ticket that can never be good: in a shrunk scenario its inviter may not be an owner any more.
        if self.redeemed.contains(&item) || !self.members[space].1.contains(&from) {
            return;
        }
        let again = self.now_ms() + AGAIN_MS;
        self.schedule(again, Happening::Item(item));
        let (Some(inviter), Some(node)) = (&self.machines[from].node, self.machines[number].node.clone()) else {
            return;
        };
        // Longer than any clock is wrong here: that tickets expire by the clock of whoever looks is as it should be.
        let invitation = Invitation { role, uses: 1, expires: Duration::from_secs(1 << 30) };
        // It may not be an owner yet.
        let Ok(ticket) = inviter.invite(id, &invitation) else { return };
        let owner = (number, self.machines[number].life);
        self.ask(owner, async move { Answer::Joined { item, result: node.join(&ticket).await } });
    }

    /// All faults end.
    fn quiet(&mut self) -> Result<(), Failure> {
        self.trace.tell(self.now_ms(), || "quiet".to_owned());
        let now = self.now_ms();
        self.trace.record(|story| story.tell_quiet(now));
        self.is_quiet = true;
        self.skies.calm();
        let (low, high) = self.scenario.disk_ms;
        for number in 0..self.machines.len() {
            self.executor.set_disk(number, (low * NANOS_PER_MS, high * NANOS_PER_MS));
            self.executor.pause(number, 0);
            self.machines[number].disk.recover();
            self.start(number)?;
        }
        self.schedule(self.now_ms() + LOOK_EVERY_MS, Happening::Look);
        Ok(())
    }

    // The end.

    /// Why it is not over yet, if it is not.
    fn is_unfinished(&self) -> Option<String> {
        let redemptions = self.scenario.items.iter().enumerate().filter_map(|(at, item)| match item.what {
            What::Redeem { space, from, .. } if self.members[space].1.contains(&from) => Some(at),
            _ => None,
        });
        for at in redemptions {
            if !self.redeemed.contains(&at) {
                return Some(format!("nobody answered: {}", self.scenario.items[at].what));
            }
        }
        for (number, machine) in self.machines.iter().enumerate() {
            let Some(mut status) = machine.status.clone() else {
                return Some(format!("node {number} does not answer"));
            };
            // Of others it can only say that they are not there; and of two stores under one id, what one of them is.
            let meets = |device: DeviceId| {
                let others = self.scenario.edges.iter().filter(|(a, b)| *a == number || *b == number);
                let mut others = others.map(|(a, b)| if *a == number { *b } else { *a });
                let stores = self.machines.iter().filter(|machine| machine.key.device() == device).count();
                stores == 1 && others.any(|other| self.machines[other].key.device() == device)
            };
            status.spaces.iter_mut().for_each(|space| space.peers.retain(|peer| meets(peer.device)));
            if let Some(complaint) = status.complaints().first() {
                return Some(format!("node {number} says: {complaint}"));
            }
        }
        for (at, (space, _)) in self.spaces.iter().enumerate() {
            let members = membership::expected(self.scenario, &self.members[at]);
            let vector =
                |node: &usize| self.machines[*node].watched.shelves.get(space).map(|shelf| shelf.vector.clone());
            let vectors: Vec<Option<VersionVector>> = members.iter().map(vector).collect();
            if vectors.iter().any(Option::is_none) || vectors.windows(2).any(|pair| pair[0] != pair[1]) {
                return Some(format!("they have not the same of {space:?}, and none of them says so: {vectors:?}"));
            }
        }
        None
    }

    /// Looks whether everything is in step.
    fn look(&mut self) -> Result<(), Failure> {
        let now = self.now_ms();
        match self.is_unfinished() {
            None => {
                let sent = self.skies.sent;
                self.schedule(now + SILENCE_MS, Happening::Silence { sent });
                return Ok(());
            }
            Some(detail) if now > self.scenario.quiet_at + IN_STEP_WITHIN_MS => {
                let detail = format!("not in step {IN_STEP_WITHIN_MS} ms after the last fault: {detail}");
                return Err(Broken { invariant: "liveness", detail }.into());
            }
            Some(_) => {}
        }
        for (number, machine) in self.machines.iter().enumerate() {
            if let Some(node) = machine.node.clone() {
                self.ask((number, machine.life), async move { Answer::Status(Box::new(node.status().await)) });
            }
        }
        self.schedule(now + LOOK_EVERY_MS, Happening::Look);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Failure> {
        for (at, (space, _)) in self.spaces.clone().into_iter().enumerate() {
            let members = membership::expected(self.scenario, &self.members[at]);
            let acknowledged = members.iter().flat_map(|node| &self.machines[*node].watched.acknowledged);
            let acknowledged: BTreeSet<_> = acknowledged.filter(|(of, _)| of.space == space).copied().collect();
            let mut exports: Vec<(usize, Export)> = Vec::new();
            for node in members {
                let views = self.views(node)?;
                let Some(view) = views.iter().flatten().find(|view| view.id() == space) else {
                    return broken("liveness", "it never got the space").at(node);
                };
                let watched = &mut self.machines[node].watched;
                let export = watched.check_whole(&self.history, view, &acknowledged);
                exports.push((node, export.or_else(|error| unexpected(node, error))?.at(node)?));
            }
            for pair in exports.windows(2) {
                check_alike((pair[0].0, &pair[0].1), (pair[1].0, &pair[1].1))?;
            }
        }
        for (number, machine) in self.machines.iter().enumerate() {
            for (space, shelf) in &machine.watched.shelves {
                check_disk(&self.history, *space, machine.key.device(), shelf).at(number)?;
            }
        }
        Ok(())
    }
}
