//! The world of the core level, run to its end.

use std::collections::{BTreeMap, BTreeSet};

use thence::causal::VersionVector;
use thence::model::{Genesis, Role, SignedTicket, SpaceId, Ticket};
use thence::replica::{Channel, Input, Message, Output, PeerMisbehaved, SessionId, Stretch};
use thence::store::{Done, Ledger, LedgerError, Renewal, Report, StoreError, View, Work};

use super::liar::Liar;
use super::node::{Asked, Commit, Job, Node};
use crate::oracles::{
    Broken, Deadline, Export, History, ObjectName, Shelf, Shown, Violation, check_acknowledged, check_alike,
    check_belief, check_claims, check_disk, check_in_flight, check_object, check_openings, check_reopened, check_sent,
    check_silence,
};
use crate::world::{Arrival, Chance, Millis, Network, Scenario, Side, Trace, What};

/// How often a user tries again to redeem a ticket.
const REDEEM_AGAIN_MS: Millis = 300;

/// Longer than any message is on its way: what was sent before the faults ended has come by then.
const DELAY_MS_MAX: Millis = 4_000;

/// More steps than any honest world of this size takes.
const STEPS_MAX: u64 = 400_000;

/// How a world ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The hash of everything that happened.
    pub hash: [u8; 32],
    /// The first invariant that did not hold.
    pub violation: Option<Violation>,
    /// When it ended.
    pub ended_at: Millis,
    /// How many events were written.
    pub events: usize,
    /// How many messages were sent.
    pub messages: u64,
    /// How many things happened.
    pub steps: u64,
}

/// Something that is going to happen.
#[derive(Debug)]
enum Happening {
    Item(usize),
    Quiet,
    Dial { edge: usize },
    Connected { session: SessionId, node: usize, life: u64 },
    Disconnected { session: SessionId, node: usize },
    Idle { from: usize, to: usize, cut: u64 },
    Arrival(Arrival),
    Wake { node: usize, life: u64 },
    Land { node: usize, life: u64 },
    Report { node: usize, life: u64 },
    Read { node: usize, life: u64, session: SessionId, space: SpaceId, after: VersionVector, bytes_max: usize },
    HaveRead { node: usize, life: u64, session: SessionId, space: SpaceId, stretches: Option<Vec<Stretch>> },
}

struct World<'a> {
    scenario: &'a Scenario,
    chance: Chance,
    now: Millis,
    queue: BTreeMap<(Millis, u64), Happening>,
    queued: u64,
    steps: u64,
    nodes: Vec<Node>,
    network: Network,
    /// The session of each edge, as its dialer sees it.
    dialled: Vec<Option<SessionId>>,
    /// How often each edge was dialled, to number its draws.
    dials: Vec<u64>,
    /// Space ids and how they began.
    spaces: Vec<(SpaceId, Genesis)>,
    /// By space: who will hold it, and who will own it.
    members: Vec<(BTreeSet<usize>, BTreeSet<usize>)>,
    /// By item: whether the ticket was answered.
    answered: BTreeSet<usize>,
    /// How often each node opened each space in each session.
    openings: BTreeMap<(SessionId, SpaceId, usize), u64>,
    history: History,
    shown: Shown,
    deadline: Option<Deadline>,
    /// At the end of all faults: how many messages had been sent, and how many events somebody lacked.
    quiet: (u64, u64),
    trace: Trace,
}

/// Runs a scenario. If `told`, what happens is told on stderr.
pub fn run(scenario: &Scenario, told: bool) -> Outcome {
    let chance = Chance::new(scenario.seed);
    let mut world = World {
        scenario,
        chance,
        now: 0,
        queue: BTreeMap::new(),
        queued: 0,
        steps: 0,
        nodes: Vec::new(),
        network: Network::new(chance, scenario.weather),
        dialled: vec![None; scenario.edges.len()],
        dials: vec![0; scenario.edges.len()],
        spaces: Vec::new(),
        members: Vec::new(),
        answered: BTreeSet::new(),
        openings: BTreeMap::new(),
        history: History::default(),
        shown: Shown::default(),
        deadline: None,
        quiet: (0, 0),
        trace: Trace::new(told),
    };
    // A panic is a failure like any other: to be replayed and shrunk.
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.run()));
    let failure = match ended {
        Ok(ended) => ended.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(Broken { invariant: "no panic", detail: text.unwrap_or_default() }.into())
        }
    };
    let violation = failure.map(|Failure { node, broken: Broken { invariant, detail } }| Violation {
        invariant,
        at: world.now,
        node,
        detail,
    });
    Outcome {
        hash: world.trace.hash(),
        violation,
        ended_at: world.now,
        events: world.history.event_count(),
        messages: world.network.sent,
        steps: world.steps,
    }
}

/// A broken invariant, and where.
struct Failure {
    node: Option<usize>,
    broken: Broken,
}

impl From<Broken> for Failure {
    fn from(broken: Broken) -> Self {
        Self { node: None, broken }
    }
}

fn fail<T>(node: usize, invariant: &'static str, detail: impl Into<String>) -> Result<T, Failure> {
    Err(Failure { node: Some(node), broken: Broken { invariant, detail: detail.into() } })
}

/// The product reported a failure that the world did not cause.
fn unexpected<T>(node: usize, error: impl std::fmt::Display) -> Result<T, Failure> {
    fail(node, "no failure without a fault", error.to_string())
}

trait At<T> {
    fn at(self, node: usize) -> Result<T, Failure>;
}

impl<T> At<T> for Result<T, Broken> {
    fn at(self, node: usize) -> Result<T, Failure> {
        self.map_err(|broken| Failure { node: Some(node), broken })
    }
}

impl<T> At<T> for Result<T, StoreError> {
    fn at(self, node: usize) -> Result<T, Failure> {
        self.or_else(|error| unexpected(node, error))
    }
}

impl<T> At<T> for Result<T, LedgerError> {
    fn at(self, node: usize) -> Result<T, Failure> {
        self.or_else(|error| unexpected(node, error))
    }
}

impl World<'_> {
    fn run(&mut self) -> Result<(), Failure> {
        self.begin()?;
        while let Some(((at, _), happening)) = self.queue.pop_first() {
            self.now = at;
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Err(Broken { invariant: "no storms", detail: format!("{STEPS_MAX} steps") }.into());
            }
            if let Some(Deadline(deadline)) = self.deadline
                && at > deadline
            {
                let detail = format!("not in step and silent by {deadline} ms: {}", self.describe());
                return Err(Broken { invariant: "liveness", detail }.into());
            }
            self.happen(happening)?;
        }
        self.end()
    }

    fn schedule(&mut self, at: Millis, happening: Happening) {
        self.queued += 1;
        self.queue.insert((at, self.queued), happening);
    }

    fn begin(&mut self) -> Result<(), Failure> {
        let scenario = self.scenario;
        for number in 0..scenario.nodes {
            let mut node = Node::new(self.chance, number, scenario.disk_ms).at(number)?;
            node.start(0, scenario.limits).at(number)?;
            if scenario.is_hostile(number) {
                self.history.hostile.insert(node.device());
                self.history.copied.insert(node.device());
            }
            self.nodes.push(node);
        }
        for number in 0..scenario.spaces {
            let mut nonce = [0; 16];
            nonce.copy_from_slice(&self.chance.bytes("genesis", number as u64)[..16]);
            let genesis = Genesis { creator: self.nodes[0].device(), nonce };
            self.spaces.push((genesis.space(), genesis));
            self.history.creators.insert(genesis.space(), genesis.creator);
            let job = Job { work: Work::Create { genesis, name: format!("space {number}") }, asked: Asked::Nobody };
            self.ask(0, job);
        }
        self.members = self.members_and_owners();
        // The first spaces are there before anything can go wrong.
        self.land(0)?;
        self.report(0)?;
        for edge in 0..scenario.edges.len() {
            self.schedule(0, Happening::Dial { edge });
        }
        for (at, item) in scenario.items.iter().enumerate() {
            self.schedule(item.at, Happening::Item(at));
        }
        self.schedule(scenario.quiet_at, Happening::Quiet);
        Ok(())
    }

    fn is_alive(&self, node: usize, life: u64) -> bool {
        self.nodes[node].life == life && self.nodes[node].process.is_some()
    }

    fn happen(&mut self, happening: Happening) -> Result<(), Failure> {
        match happening {
            Happening::Item(at) => self.item(at),
            Happening::Quiet => self.quiet(),
            Happening::Dial { edge } => {
                self.dial(edge);
                Ok(())
            }
            Happening::Connected { session, node, life } => self.connected(session, node, life),
            Happening::Disconnected { session, node } => self.disconnected(session, node),
            Happening::Idle { from, to, cut } => {
                if self.network.is_same_cut(from, to, cut) {
                    self.end_sessions(from, to, (0, 0));
                }
                Ok(())
            }
            Happening::Arrival(arrival) => self.arrive(arrival),
            Happening::Wake { node, life } if self.is_alive(node, life) => {
                if let Some(process) = &mut self.nodes[node].process {
                    process.wake_at = None;
                }
                self.handle(node, Input::Tick)
            }
            Happening::Land { node, life } if self.is_alive(node, life) => {
                self.land(node)?;
                let after = self.disk_delay(node);
                self.schedule(self.now + after, Happening::Report { node, life });
                Ok(())
            }
            Happening::Report { node, life } if self.is_alive(node, life) => self.report(node),
            Happening::Read { node, life, session, space, after, bytes_max } if self.is_alive(node, life) => {
                let Some(process) = &self.nodes[node].process else { return Ok(()) };
                let view = process.ledger.view(space);
                // The disk may have failed; that it is damaged is never right.
                let stretches = match view.and_then(|view| view.map(|v| v.log_after(&after, bytes_max)).transpose()) {
                    Ok(stretches) => stretches,
                    Err(StoreError::Io(_)) => None,
                    Err(error) => return unexpected(node, error),
                };
                let delay = self.disk_delay(node);
                self.schedule(self.now + delay, Happening::HaveRead { node, life, session, space, stretches });
                Ok(())
            }
            Happening::HaveRead { node, life, session, space, stretches } if self.is_alive(node, life) => {
                self.handle(node, Input::Fetched { session, space, stretches })
            }
            // Meant for a process that is gone.
            _ => Ok(()),
        }
    }

    // What is done to the world.

    fn item(&mut self, at: usize) -> Result<(), Failure> {
        let what = &self.scenario.items[at].what;
        self.trace.tell(self.now, || what.to_string());
        match what {
            What::Write { node, space, requests } => {
                let work = Work::Write { space: self.spaces[*space].0, requests: requests.clone() };
                self.ask(*node, Job { work, asked: Asked::User });
                self.start_commit(*node);
            }
            What::Redeem { node, space, from, role } => return self.redeem(at, *node, *space, *from, *role),
            What::Crash { node } => self.crash(*node),
            What::Restart { node } => return self.restart(*node),
            What::Cut { from, to } => {
                let cut = self.network.cut(*from, *to);
                let (from, to) = (*from, *to);
                self.schedule(self.now + self.scenario.idle_ms, Happening::Idle { from, to, cut });
            }
            What::Heal { from, to } => self.heal(*from, *to),
            What::Weather { from, to, weather } => self.network.set_weather(*from, *to, *weather),
            What::Drop { a, b } => self.end_sessions(*a, *b, (0, self.scenario.idle_ms)),
            What::Save { node } => {
                let node = &mut self.nodes[*node];
                node.image = Some((node.disk.image(), node.shelves.clone()));
            }
            What::PutBack { node } => self.put_back(*node),
            What::Copy { node, onto } => self.copy(*node, *onto),
            What::Hostile { node } => self.turn_hostile(*node),
            What::DiskFails { node, fault } => self.nodes[*node].disk.fail_next(*fault),
            What::DiskSpeed { node, ms } => self.nodes[*node].disk_ms = *ms,
        }
        Ok(())
    }

    /// A backup is put back. What no other disk holds of what came after it is gone, and nobody can be blamed.
    fn put_back(&mut self, number: usize) {
        let Some((image, shelves)) = &self.nodes[number].image else { return };
        let (image, shelves) = (image.fork(), shelves.clone());
        self.crash(number);
        let before = std::mem::replace(&mut self.nodes[number].shelves, shelves);
        let node = &mut self.nodes[number];
        node.disk.put_back(&image);
        node.followers.clear();
        self.history.copied.insert(node.key.device());
        // Grants are among what was forgotten: whoever joined there, or was admitted there, asks again.
        for (at, item) in self.scenario.items.iter().enumerate() {
            if let What::Redeem { node, from, .. } = item.what
                && (node == number || from == number)
                && item.at <= self.now
            {
                self.answered.remove(&at);
                self.schedule(self.now + REDEEM_AGAIN_MS, Happening::Item(at));
            }
        }
        let members = self.members();
        for (space, shelf) in before {
            // A copy that nobody meets keeps what it has to itself.
            let of_space = members.iter().filter(|(of, _)| *of == space).flat_map(|(_, members)| members);
            let members: BTreeSet<usize> = of_space.copied().collect();
            for event in shelf.events {
                let has = |node: usize| {
                    let shelf = self.nodes[node].shelves.get(&space);
                    members.contains(&node) && shelf.is_some_and(|shelf| shelf.events.contains(&event))
                };
                if !self.honest().any(has) {
                    self.nodes.iter_mut().for_each(|node| _ = node.acknowledged.remove(&(space, event)));
                }
            }
        }
    }

    /// A disk and its key are copied onto another node.
    fn copy(&mut self, from: usize, onto: usize) {
        self.crash(onto);
        let (key, image) = (self.nodes[from].key.clone(), self.nodes[from].disk.image());
        let shelves = self.nodes[from].shelves.clone();
        let node = &mut self.nodes[onto];
        node.disk.put_back(&image);
        node.followers.clear();
        node.shelves = shelves;
        self.history.copied.insert(key.device());
        self.nodes[onto].key = key;
        for (number, (space, _)) in self.spaces.iter().enumerate() {
            if self.nodes[onto].shelves.contains_key(space) {
                let (members, owners) = &mut self.members[number];
                members.insert(onto);
                if owners.contains(&from) {
                    owners.insert(onto);
                }
            }
        }
    }

    /// From now on a node says what it likes.
    fn turn_hostile(&mut self, node: usize) {
        let geneses = self.spaces.iter().map(|(_, genesis)| *genesis).collect();
        self.nodes[node].liar = Some(Liar::new(self.chance, node, self.nodes[node].key.clone(), geneses));
    }

    /// The nodes of which something is expected.
    fn honest(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|node| !self.scenario.is_hostile(*node))
    }

    /// Whether a hostile node has been cut off for good.
    fn is_cut_off(&self, node: usize) -> bool {
        self.scenario.is_hostile(node) && self.now >= self.scenario.quiet_at
    }

    fn heal(&mut self, from: usize, to: usize) {
        for (at, arrival) in self.network.heal(self.now, from, to) {
            self.schedule(at, Happening::Arrival(arrival));
        }
    }

    /// All faults end.
    fn quiet(&mut self) -> Result<(), Failure> {
        self.trace.tell(self.now, || "quiet".to_owned());
        self.network.calm();
        for (from, to) in self.network.cut_directions() {
            self.heal(from, to);
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].disk_ms = self.scenario.disk_ms;
            if self.is_cut_off(node) {
                self.crash(node);
            } else if self.nodes[node].process.is_none() {
                self.restart(node)?;
            }
            if self.nodes[node].process.as_ref().is_some_and(|process| process.commit.is_none()) {
                self.nodes[node].disk.recover();
            }
        }
        let mut missing = 0;
        for (space, members) in self.members() {
            let mut all = VersionVector::new();
            let shelf = |node: usize| self.nodes[node].shelves.get(&space).map(|shelf| shelf.vector.clone());
            members.iter().filter_map(|node| shelf(*node)).for_each(|vector| all.join(&vector));
            let lacks = |node: &usize| all.count_missing_from(&shelf(*node).unwrap_or_default());
            missing += members.iter().map(lacks).sum::<u64>();
        }
        // What users asked for last is not on any disk yet.
        missing += 20;
        let Scenario { quiet_at, idle_ms, limits, nodes, .. } = self.scenario;
        self.quiet = (self.network.sent, missing);
        self.deadline = Some(Deadline::after(*quiet_at, *idle_ms, limits, *nodes, missing));
        Ok(())
    }

    /// Who will hold each space, and who will own it: node 0, and whoever redeems a ticket of an owner that it is
    /// connected to.
    fn members_and_owners(&self) -> Vec<(BTreeSet<usize>, BTreeSet<usize>)> {
        let edges = &self.scenario.edges;
        let connected = |a, b| edges.contains(&(a, b)) || edges.contains(&(b, a));
        let members = |number: usize| {
            let (mut members, mut owners) = (BTreeSet::from([0]), BTreeSet::from([0]));
            loop {
                let before = (members.len(), owners.len());
                for item in &self.scenario.items {
                    if let What::Redeem { node, space, from, role } = item.what
                        && space == number
                        && owners.contains(&from)
                        && !self.scenario.is_hostile(from)
                        && connected(node, from)
                    {
                        members.insert(node);
                        if role == Role::Owner {
                            owners.insert(node);
                        }
                    }
                }
                if before == (members.len(), owners.len()) {
                    return (members, owners);
                }
            }
        };
        (0..self.scenario.spaces).map(members).collect()
    }

    /// Who must have everything of each space in the end. A copy that nobody of them is connected to need not,
    /// nor need a hostile node.
    fn members(&self) -> Vec<(SpaceId, BTreeSet<usize>)> {
        let is_copy = |node: &usize| {
            self.scenario.items.iter().any(|item| matches!(item.what, What::Copy { onto, .. } if onto == *node))
        };
        let members = self.members.iter().map(|(members, _)| {
            let meets = |node: usize| {
                self.scenario.edges.iter().any(|(a, b)| {
                    let other = if *a == node { b } else { a };
                    (*a == node || *b == node)
                        && members.contains(other)
                        && !is_copy(other)
                        && !self.scenario.is_hostile(*other)
                })
            };
            let members = members.iter().copied().filter(|node| !is_copy(node) || meets(*node));
            members.filter(|node| !self.scenario.is_hostile(*node)).collect()
        });
        self.spaces.iter().map(|(id, _)| *id).zip(members).collect()
    }

    fn redeem(&mut self, item: usize, node: usize, space: usize, from: usize, role: Role) -> Result<(), Failure> {
        let (id, genesis) = self.spaces[space];
        // An answer may be older than the backup that its inviter was put back to.
        let inviter = self.nodes[from].process.as_ref().and_then(|process| process.ledger.access(id));
        let granted = inviter.is_some_and(|access| access.role(self.nodes[node].device()).is_some());
        let done = self.answered.contains(&item) && self.nodes[node].holds(id) && granted;
        if done || self.is_cut_off(node) {
            return Ok(());
        }
        // A ticket that can never be good: in a shrunk scenario its inviter may not be an owner any more.
        if !self.members[space].1.contains(&from) {
            return Ok(());
        }
        self.schedule(self.now + REDEEM_AGAIN_MS, Happening::Item(item));
        let up = |line: &&crate::world::Line| line.side_of(node) == Side::Up;
        let session = (self.network.lines.iter())
            .filter(|(_, line)| line.ends == [node, from] || line.ends == [from, node])
            .find(|(_, line)| up(line))
            .map(|(session, _)| *session);
        if let Some(session) = session
            && self.nodes[node].process.is_some()
        {
            let mut ticket_id = [0; 16];
            ticket_id.copy_from_slice(&self.chance.bytes("ticket", item as u64)[..16]);
            let ticket = Ticket {
                id: ticket_id,
                genesis,
                role,
                uses: 1,
                expires_ms: u64::MAX,
                inviter: self.nodes[from].device(),
                addresses: Vec::new(),
                name: format!("space {space}"),
            };
            let ticket = SignedTicket::sign(ticket, &self.nodes[from].key).to_bytes();
            self.handle(node, Input::Redeem { session, ticket })?;
        }
        Ok(())
    }

    // Processes.

    fn crash(&mut self, node: usize) {
        if self.nodes[node].process.take().is_none() {
            return;
        }
        self.nodes[node].disk.recover();
        let sessions: Vec<SessionId> = (self.network.lines.iter())
            .filter(|(_, line)| line.ends.contains(&node) && line.side_of(node) != Side::Down)
            .map(|(session, _)| *session)
            .collect();
        for session in sessions {
            self.leave(session, node);
        }
    }

    fn restart(&mut self, node: usize) -> Result<(), Failure> {
        if self.nodes[node].process.is_some() || self.is_cut_off(node) {
            return Ok(());
        }
        let limits = self.scenario.limits;
        self.nodes[node].start(self.now, limits).at(node)?;
        self.read_again(node)?;
        for edge in 0..self.scenario.edges.len() {
            if self.scenario.edges[edge].0 == node {
                self.dialled[edge] = None;
                self.dial_later(edge);
            }
        }
        self.after_input(node);
        Ok(())
    }

    /// Reads a disk from its beginning, and compares it with what it held before.
    fn read_again(&mut self, node: usize) -> Result<(), Failure> {
        let before = std::mem::take(&mut self.nodes[node].shelves);
        self.read_on(node, true)?;
        for (space, old) in &before {
            let now = self.nodes[node].shelves.get(space).cloned().unwrap_or_default();
            check_reopened(old, &now).at(node)?;
        }
        Ok(())
    }

    // The network.

    fn dial_later(&mut self, edge: usize) {
        self.dials[edge] += 1;
        let delay = self.chance.draws("dial", (edge as u64) << 32 | self.dials[edge]).within((5, 60));
        self.schedule(self.now + delay, Happening::Dial { edge });
    }

    fn dial(&mut self, edge: usize) {
        let (dialer, listener) = self.scenario.edges[edge];
        let connected = self.dialled[edge].is_some_and(|session| {
            self.network.lines.get(&session).is_some_and(|line| line.side_of(dialer) != Side::Down)
        });
        if connected || self.nodes[dialer].process.is_none() || self.is_cut_off(listener) {
            return;
        }
        let reachable = self.nodes[listener].process.is_some()
            && !self.network.is_cut(dialer, listener)
            && !self.network.is_cut(listener, dialer);
        if !reachable {
            self.dial_later(edge);
            return;
        }
        let session = self.network.connect(edge, dialer, listener);
        self.dialled[edge] = Some(session);
        let at = self.now + self.chance.draws("connect", session.0).within(self.scenario.weather.delay_ms);
        for node in [dialer, listener] {
            let life = self.nodes[node].life;
            self.schedule(at, Happening::Connected { session, node, life });
        }
    }

    fn connected(&mut self, session: SessionId, node: usize, life: u64) -> Result<(), Failure> {
        let Some(line) = self.network.lines.get_mut(&session) else { return Ok(()) };
        let end = line.end_of(node);
        if line.sides[end] != Side::Pending {
            return Ok(());
        }
        line.sides[end] = Side::Up;
        let peer = line.peer_of(node);
        if !self.is_alive(node, life) {
            self.leave(session, node);
            return Ok(());
        }
        let peer = self.nodes[peer].device();
        self.trace.note(self.now, node, "connected", &session.0.to_le_bytes());
        self.handle(node, Input::Connected { session, peer, cluster: false })
    }

    /// One node is done with a session; the other will find out.
    fn leave(&mut self, session: SessionId, node: usize) {
        let Some(line) = self.network.lines.get_mut(&session) else { return };
        let (end, peer, edge) = (line.end_of(node), line.peer_of(node), line.edge);
        line.sides[end] = Side::Down;
        if line.sides[1 - end] != Side::Down {
            let notice = self.chance.draws("notice", session.0).within((1, self.scenario.idle_ms));
            self.schedule(self.now + notice, Happening::Disconnected { session, node: peer });
        }
        if end == 0 && self.nodes[node].process.is_some() {
            self.dial_later(edge);
        }
    }

    fn disconnected(&mut self, session: SessionId, node: usize) -> Result<(), Failure> {
        let Some(line) = self.network.lines.get_mut(&session) else { return Ok(()) };
        let was = line.side_of(node);
        let end = line.end_of(node);
        if was == Side::Down {
            return Ok(());
        }
        line.sides[end] = Side::Down;
        let (edge, dialer) = (line.edge, line.ends[0]);
        self.network.forget_held(session);
        self.trace.note(self.now, node, "disconnected", &session.0.to_le_bytes());
        if was == Side::Up && self.nodes[node].process.is_some() {
            self.handle(node, Input::Disconnected { session })?;
        }
        if dialer == node {
            self.dial_later(edge);
        }
        Ok(())
    }

    /// Ends all sessions between two nodes; each finds out at a time of its own.
    fn end_sessions(&mut self, a: usize, b: usize, notice_ms: (Millis, Millis)) {
        let sessions: Vec<SessionId> = (self.network.lines.iter())
            .filter(|(_, line)| line.ends == [a, b] || line.ends == [b, a])
            .map(|(session, _)| *session)
            .collect();
        for session in sessions {
            for node in [a, b] {
                let notice = self.chance.draws("ended", session.0 << 8 | node as u64).within(notice_ms);
                self.schedule(self.now + notice, Happening::Disconnected { session, node });
            }
        }
    }

    fn arrive(&mut self, arrival: Arrival) -> Result<(), Failure> {
        let Arrival { session, to, channel, kind, body } = arrival;
        let Some(line) = self.network.lines.get(&session) else { return Ok(()) };
        if line.side_of(to) != Side::Up || self.nodes[to].process.is_none() {
            return Ok(());
        }
        let peer = line.peer_of(to);
        self.trace.note(self.now, to, "received", &[kind]);
        self.trace.note(self.now, to, "body", &body);
        self.trace.tell(self.now, || match Message::decode(kind, true, &body) {
            Ok(Some(Message::Segments(segments))) => {
                let found = |bytes: &[u8]| match channel {
                    Channel::Space(space) => self.history.find(space, bytes),
                    Channel::Control => None,
                };
                let names = |bytes: &[u8]| match (channel, found(bytes)) {
                    (Channel::Space(space), Some(events)) => {
                        events.iter().filter_map(|event| self.history.dot(space, *event)).collect()
                    }
                    _ => Vec::new(),
                };
                let dots: Vec<_> = segments.iter().map(|bytes| names(bytes)).collect();
                format!("{peer} -> {to} ({}) segments {dots:?}", session.0)
            }
            Ok(Some(Message::Hello(_) | Message::Redeem(_))) => format!("{peer} -> {to} ({}) kind {kind}", session.0),
            other => format!("{peer} -> {to} ({}) {other:?}", session.0),
        });
        self.hear(session, to, channel, kind, &body);
        self.handle(to, Input::Received { session, channel, kind, critical: true, body })?;
        let Some(process) = &self.nodes[to].process else { return Ok(()) };
        let nothing = Shelf::default();
        for (space, believed) in process.replica.acknowledged(session) {
            let shelf = self.nodes[peer].shelves.get(&space).unwrap_or(&nothing);
            check_belief(&self.history, space, self.nodes[peer].key.device(), shelf, &believed).at(to)?;
        }
        Ok(())
    }

    /// Oracles and hostile nodes listen.
    fn hear(&mut self, session: SessionId, node: usize, channel: Channel, kind: u8, body: &[u8]) {
        let Ok(Some(message)) = Message::decode(kind, true, body) else { return };
        let Some(peer) = self.network.lines.get(&session).map(|line| line.peer_of(node)) else { return };
        if let Channel::Space(space) = channel {
            self.shown.hear(&self.history, (session, node, space), self.nodes[peer].key.device(), &message);
        }
        if let Some(liar) = &mut self.nodes[node].liar {
            liar.hear(channel, message);
        }
    }

    // A node's loop: from the outputs of one half to the inputs of the other.

    fn handle(&mut self, node: usize, input: Input) -> Result<(), Failure> {
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        for output in process.handle(self.now, input) {
            self.perform(node, output)?;
        }
        self.after_input(node);
        Ok(())
    }

    fn after_input(&mut self, node: usize) {
        self.start_commit(node);
        let now = self.now;
        let (life, Some(process)) = (self.nodes[node].life, &mut self.nodes[node].process) else { return };
        if let Some(due) = process.replica.poll_timeout()
            && process.wake_at.is_none_or(|at| due < at)
        {
            process.wake_at = Some(due);
            self.schedule(due.max(now), Happening::Wake { node, life });
        }
    }

    fn perform(&mut self, node: usize, output: Output) -> Result<(), Failure> {
        match output {
            Output::Send { session, channel, message } => self.send(node, session, channel, &message),
            Output::Store { session, space, segments } => {
                self.ask(node, Job { work: Work::Receive { session, space, segments }, asked: Asked::Nobody });
                Ok(())
            }
            Output::Fetch { session, space, after, bytes_max } => {
                let (delay, life) = (self.disk_delay(node), self.nodes[node].life);
                self.schedule(self.now + delay, Happening::Read { node, life, session, space, after, bytes_max });
                Ok(())
            }
            Output::Credential { session, space } => {
                let Some(process) = &self.nodes[node].process else { return Ok(()) };
                let view = process.ledger.view(space);
                let segments = match view.and_then(|view| view.map_or(Ok(Vec::new()), |view| view.credentials())) {
                    Ok(segments) => segments,
                    Err(StoreError::Io(_)) => Vec::new(),
                    Err(error) => return unexpected(node, error),
                };
                self.handle(node, Input::Credential { session, space, segments })
            }
            Output::Judge { session, space, device, segments } => {
                let Some(process) = &self.nodes[node].process else { return Ok(()) };
                let view = process.ledger.view(space);
                let role = match view.and_then(|view| view.map_or(Ok(None), |view| view.judge(device, &segments))) {
                    Ok(role) => role,
                    Err(StoreError::Io(_)) => None,
                    Err(error) => return unexpected(node, error),
                };
                self.handle(node, Input::Judged { session, space, role })
            }
            Output::Admit { session, device, ticket } => {
                self.ask(node, Job { work: Work::Admit { device, ticket }, asked: Asked::Session(session) });
                Ok(())
            }
            Output::Behind { space, counter } => {
                let work = Work::Renew(Renewal::Behind { space, counter });
                self.ask(node, Job { work, asked: Asked::Nobody });
                Ok(())
            }
            // No scenario has cluster peers yet.
            Output::Share { .. } | Output::Join { .. } => fail(node, "nobody shares unasked", String::new()),
            Output::Redeemed { session, answer } => {
                let Ok(introduction) = answer else { return Ok(()) };
                let mut asked = false;
                let Some(peer) = self.network.lines.get(&session).map(|line| line.peer_of(node)) else { return Ok(()) };
                for (at, item) in self.scenario.items.iter().enumerate() {
                    if let What::Redeem { node: who, space, from, .. } = item.what
                        && (who, from, self.spaces[space].1) == (node, peer, introduction.genesis)
                    {
                        asked = true;
                        self.answered.insert(at);
                    }
                }
                // A hostile peer may answer what nobody asked.
                if !asked {
                    return Ok(());
                }
                let introducer = self.nodes[peer].device();
                self.ask(node, Job { work: Work::Join { introduction, introducer }, asked: Asked::Nobody });
                Ok(())
            }
            Output::Close { session, reason } => {
                self.trace.tell(self.now, || format!("{node} closes {}: {reason}", session.0));
                let line = self.network.lines.get(&session);
                let among_honest = line.is_none_or(|line| line.ends.iter().all(|end| !self.scenario.is_hostile(*end)));
                self.leave(session, node);
                if !among_honest {
                    return Ok(());
                }
                // Both are honest; the world may only keep them from answering.
                let Scenario { quiet_at, limits, .. } = self.scenario;
                let stalls_end = quiet_at + DELAY_MS_MAX + limits.stall_ms * u64::from(limits.stalls_max + 2);
                if reason == PeerMisbehaved::NeverAcknowledges && self.now < stalls_end {
                    return Ok(());
                }
                fail(node, "no honest peer is accused", reason.to_string())
            }
        }
    }

    fn send(&mut self, node: usize, session: SessionId, channel: Channel, message: &Message) -> Result<(), Failure> {
        if let Some(liar) = &mut self.nodes[node].liar {
            let open = |line: &crate::world::Line| line.ends.contains(&node) && line.side_of(node) == Side::Up;
            let sessions: Vec<SessionId> =
                self.network.lines.iter().filter(|(_, line)| open(line)).map(|(session, _)| *session).collect();
            let said = liar.say(&sessions, session, channel, message);
            said.into_iter().for_each(|said| self.deliver(node, said.session, said.channel, said.kind, said.body));
            return Ok(());
        }
        if let Channel::Space(space) = channel
            && !self.scenario.is_hostile(node)
        {
            self.check_said(node, session, space, message)?;
            if matches!(message, Message::Open(_)) {
                let openings = self.openings.entry((session, space, node)).or_default();
                *openings += 1;
                if self.scenario.is_faultless() {
                    check_openings(*openings).at(node)?;
                }
            }
        }
        self.deliver(node, session, channel, message.kind(), message.body());
        Ok(())
    }

    fn deliver(&mut self, node: usize, session: SessionId, channel: Channel, kind: u8, body: Vec<u8>) {
        let Some(to) = self.network.lines.get(&session).map(|line| line.peer_of(node)) else { return };
        for (at, arrival) in self.network.send(self.now, Arrival { session, to, channel, kind, body }) {
            self.schedule(at, Happening::Arrival(arrival));
        }
    }

    fn check_said(&self, node: usize, session: SessionId, space: SpaceId, message: &Message) -> Result<(), Failure> {
        let nothing = Shelf::default();
        let shelf = self.nodes[node].shelves.get(&space).unwrap_or(&nothing);
        if let (Some(process), Some(line)) = (&self.nodes[node].process, self.network.lines.get(&session)) {
            let (access, peer) = (process.ledger.access(space), self.nodes[line.peer_of(node)].device());
            self.shown.check_said((session, node, space), access.as_deref(), peer, message).at(node)?;
        }
        match message {
            Message::Segments(segments) => {
                for bytes in segments {
                    check_sent(&self.history, space, shelf, bytes).at(node)?;
                }
                let process = self.nodes[node].process.as_ref();
                let in_flight = process.map_or(0, |process| process.replica.in_flight_bytes(session, space));
                check_in_flight(&self.scenario.limits, self.history.segment_bytes_max, in_flight).at(node)
            }
            Message::Ack(acks) => check_claims(shelf, &acks.iter().copied().collect(), "an acknowledgement").at(node),
            Message::Open(open) => (open.knowledge.iter().flat_map(|knowledge| knowledge.ranges()))
                .try_for_each(|(_, claims)| check_claims(shelf, claims, "an opening").at(node)),
            Message::Know(knowledge) => (knowledge.ranges())
                .try_for_each(|(_, claims)| check_claims(shelf, claims, "knowledge told in full").at(node)),
            _ => Ok(()),
        }
    }

    // The disk.

    fn disk_draw(&mut self, node: usize, purpose: &'static str) -> u64 {
        let Node { disk_uses, .. } = &mut self.nodes[node];
        *disk_uses += 1;
        self.chance.draw(purpose, (node as u64) << 32 | *disk_uses, 0)
    }

    fn disk_delay(&mut self, node: usize) -> Millis {
        let Node { disk_ms, disk_uses, .. } = &mut self.nodes[node];
        *disk_uses += 1;
        self.chance.draws("disk", (node as u64) << 32 | *disk_uses).within(*disk_ms)
    }

    fn ask(&mut self, node: usize, job: Job) {
        if let Some(process) = &mut self.nodes[node].process {
            process.waiting.push(job);
        }
    }

    fn start_commit(&mut self, node: usize) {
        let (life, Some(process)) = (self.nodes[node].life, &mut self.nodes[node].process) else { return };
        if process.commit.is_some() || process.waiting.is_empty() {
            return;
        }
        process.commit = Some(Commit { jobs: std::mem::take(&mut process.waiting), outcome: None });
        let delay = self.disk_delay(node);
        self.schedule(self.now + delay, Happening::Land { node, life });
    }

    /// A commit reaches the disk. Nobody knows yet.
    fn land(&mut self, node: usize) -> Result<(), Failure> {
        let now = self.now;
        let nonce = self.disk_draw(node, "nonce");
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let commit =
            process.commit.get_or_insert_with(|| Commit { jobs: std::mem::take(&mut process.waiting), outcome: None });
        let work: Vec<Work> = commit.jobs.iter().map(|job| job.work.clone()).collect();
        let outcome = process.ledger.commit(&work, now, nonce);
        let landed = outcome.is_ok();
        let effective = outcome.as_ref().map_or(0, |report| writes(report).count());
        match &outcome {
            Err(StoreError::Io(_)) => {}
            Err(error) => return unexpected(node, error),
            Ok(report) => {
                for (space, committed) in &report.changed {
                    self.trace.note(now, node, "committed in", space.as_bytes());
                    for stretch in &committed.written {
                        self.trace.note(now, node, "segment", &stretch.bytes);
                    }
                }
                self.trace.tell(now, || describe_report(node, report));
            }
        }
        commit.outcome = Some(outcome);
        if landed {
            let written = self.read_on(node, false)?;
            if written < effective {
                return fail(node, "durability", format!("{effective} writes, {written} events on the disk"));
            }
        }
        Ok(())
    }

    /// The node learns what became of a commit.
    fn report(&mut self, node: usize) -> Result<(), Failure> {
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let Some(Commit { jobs, outcome: Some(outcome) }) = process.commit.take() else { return Ok(()) };
        match outcome {
            Ok(report) => self.reported(node, &jobs, report),
            Err(_) => {
                self.trace.tell(self.now, || format!("{node} commit failed"));
                self.trace.note(self.now, node, "commit failed", &[]);
                process.ledger.reopen().at(node)?;
                let held = process.ledger.held();
                self.read_on(node, false)?;
                self.handle(node, Input::CommitFailed)?;
                for (space, revision, known, access) in held {
                    self.handle(node, Input::Held { space, revision, known, access })?;
                }
                Ok(())
            }
        }
    }

    fn reported(&mut self, node: usize, jobs: &[Job], report: Report) -> Result<(), Failure> {
        let Report { done, held, changed, renewed } = report;
        if let Some(renewed) = renewed {
            self.trace.tell(self.now, || format!("{node} {renewed:?}"));
            self.handle(node, Input::Writes { replica: renewed.now })?;
        }
        for (job, done) in jobs.iter().zip(&done) {
            if let (Work::Write { space, .. }, Done::Written(Ok(written))) = (&job.work, done)
                && job.asked == Asked::User
                && written.changed > 0
            {
                // All that this device has written here up to now; another copy of it may have written some of it.
                let device = self.nodes[node].key.device();
                let log = self.nodes[node].shelves.get(space).map(|shelf| shelf.log.clone()).unwrap_or_default();
                let own = log.into_iter().filter(|event| self.history.is_by(*space, *event, device));
                let own: Vec<_> = own.map(|event| (*space, event)).collect();
                self.nodes[node].acknowledged.extend(own);
            }
        }
        for (space, revision, known, access) in held {
            self.handle(node, Input::Held { space, revision, known, access })?;
        }
        for (space, committed) in changed {
            self.handle(node, Input::Committed { space, committed })?;
        }
        for (job, done) in jobs.iter().zip(done) {
            if let (Asked::Session(session), Done::Admitted(answer)) = (job.asked, done) {
                self.handle(node, Input::Admitted { session, answer })?;
            }
        }
        self.after_input(node);
        Ok(())
    }

    /// Reads what a disk has beyond what the oracles have seen of it, and checks it: new events, the objects that they
    /// touch (or all), the feed.
    ///
    /// Returns how many of the new events the node's own device wrote.
    fn read_on(&mut self, node: usize, all: bool) -> Result<usize, Failure> {
        let Some(process) = &self.nodes[node].process else { return Ok(0) };
        let (owner, views) = (process.ledger.device(), views(&process.ledger).at(node)?);
        let mut own = 0;
        for view in views {
            let space = view.id();
            let Node { shelves, followers, .. } = &mut self.nodes[node];
            let shelf = shelves.entry(space).or_default();
            let mut read = self.history.read_on(owner, shelf, &view).at(node)?;
            own += read.own;
            if all || read.renamed {
                read.touched = self.history.objects(space).cloned().collect();
            }
            for name in &read.touched {
                let object = view.state(&name.0, &name.1).at(node)?;
                check_object(&self.history, space, name, shelf, object.as_ref()).at(node)?;
            }
            let limit = 1 + usize::try_from(self.chance.draw("follower", node as u64, 0) % 5).unwrap_or_default();
            followers.entry(space).or_default().follow(&view, limit).at(node)?.at(node)?;
        }
        Ok(own)
    }

    // The end.

    fn end(&mut self) -> Result<(), Failure> {
        for (space, members) in self.members() {
            let mut exports: Vec<(usize, Export)> = Vec::new();
            let objects: Vec<ObjectName> = self.history.objects(space).cloned().collect();
            let acknowledged = members.iter().flat_map(|node| &self.nodes[*node].acknowledged);
            let acknowledged: BTreeSet<_> =
                acknowledged.filter(|(of, _)| *of == space).map(|(_, event)| *event).collect();
            for node in members {
                let Some(process) = &self.nodes[node].process else { return fail(node, "liveness", "it is down") };
                let Some(view) = process.ledger.view(space).at(node)? else {
                    return fail(node, "liveness", "it never got the space");
                };
                exports.push((node, Export::read(&view).at(node)?.at(node)?));
                let shelf = self.nodes[node].shelves.get(&space).cloned().unwrap_or_default();
                for name in &objects {
                    let object = view.state(&name.0, &name.1).at(node)?;
                    check_object(&self.history, space, name, &shelf, object.as_ref()).at(node)?;
                }
                for event in &acknowledged {
                    check_acknowledged(&self.history, space, &shelf, *event).at(node)?;
                }
                let follower = self.nodes[node].followers.entry(space).or_default();
                while follower.follow(&view, 3).at(node)?.at(node)? {}
                follower.check(&view).at(node)?.at(node)?;
            }
            for pair in exports.windows(2) {
                check_alike((pair[0].0, &pair[0].1), (pair[1].0, &pair[1].1))?;
            }
        }
        for node in self.honest() {
            for (space, shelf) in &self.nodes[node].shelves {
                check_disk(&self.history, *space, self.nodes[node].device(), shelf).at(node)?;
            }
        }
        for (edge, (dialer, listener)) in self.scenario.edges.iter().enumerate() {
            if self.scenario.is_hostile(*dialer) || self.scenario.is_hostile(*listener) {
                continue;
            }
            let Some(session) = self.dialled[edge] else { return fail(*dialer, "liveness", "no session") };
            for node in [*dialer, *listener] {
                let process = self.nodes[node].process.as_ref();
                if !process.is_some_and(|process| process.replica.is_synced(session)) {
                    return fail(
                        node,
                        "liveness",
                        format!("session {} is not in step: {}", session.0, self.describe()),
                    );
                }
            }
        }
        let (sent, missing) = self.quiet;
        let sessions = (self.scenario.edges.len() * self.scenario.spaces) as u64;
        check_silence(self.network.sent - sent, sessions, missing)?;
        Ok(())
    }

    /// How everything stands, for people.
    fn describe(&self) -> String {
        let mut text = String::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(process) = &node.process else { continue };
            for (space, _) in &self.spaces {
                let vector = node.shelves.get(space).map(|shelf| &shelf.vector);
                let links: Vec<String> = (process.replica.links(*space).iter())
                    .map(|link| {
                        let (behind, ahead) = (link.behind_events, link.ahead_events);
                        format!("session {} {:?} -{behind} +{ahead}", link.session.0, link.state)
                    })
                    .collect();
                text += &format!("\n  node {number} {space:?} {vector:?} {links:?}");
            }
            text += &format!("\n  node {number} next timer {:?}", process.replica.poll_timeout());
        }
        text
    }
}

/// The writes that became events.
fn writes(report: &Report) -> impl Iterator<Item = &Done> + '_ {
    report.done.iter().filter(|done| matches!(done, Done::Written(Ok(written)) if written.changed > 0))
}

fn describe_report(node: usize, report: &Report) -> String {
    let changed = (report.changed.iter()).map(|(space, committed)| {
        let written: Vec<_> = committed.written.iter().map(|stretch| (stretch.first, stretch.last.dot)).collect();
        let split = if committed.split.is_some() { " split" } else { "" };
        format!("{space:?} {written:?} rejected {:?}{split}", committed.rejected)
    });
    format!("{node} commits {:?} {:?}", changed.collect::<Vec<_>>(), report.done)
}

fn views(ledger: &Ledger) -> Result<Vec<View>, StoreError> {
    let view = |space| ledger.view(space).transpose();
    ledger.spaces().into_iter().filter_map(view).collect()
}
