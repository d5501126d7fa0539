//! The world of the core level, run to its end.

mod clients;
mod disk;
mod end;
mod items;
mod looping;
mod phases;
mod processes;
mod sessions;
mod storage;
mod telling;

use std::collections::{BTreeMap, BTreeSet};

use thence::model::{Genesis, SpaceId};
use thence::replica::{Input, Lookup, SessionId};
use thence::store::Work;

use self::clients::ClientName;
use crate::application::Application;
use crate::core::client::{Answer, Ask, Client};
use crate::core::node::{Asked, Job, Node};
use crate::level::Outcome;
use crate::oracles::{At, Broken, Deadline, Era, Failure, History, OnTheWay, Shown};
use crate::world::{Arrival, Chance, Millis, Network, Scenario, Trace, membership};

/// How often a user tries again to redeem a ticket.
const REDEEM_AGAIN_MS: Millis = 300;

/// How long a disk rests between two steps of the removal of what was wiped, if nothing else is to be written.
const REMOVE_MS: Millis = 20;

/// Longer than any message is on its way: what was sent before the faults ended has come by then.
const DELAY_MS_MAX: Millis = 4_000;

/// More steps than any honest world of this size takes.
const STEPS_MAX: u64 = 400_000;

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
    LookUp { node: usize, life: u64, lookup: Lookup },
    HaveFound { node: usize, life: u64, found: Box<Input> },
    Restart { node: usize },
    Mend { node: usize, life: u64 },
    Remove { node: usize, life: u64 },
    Repair { node: usize },
    Asked { name: ClientName, number: u64, node: usize, ask: Box<Ask> },
    Answered { name: ClientName, number: u64, answer: Box<Answer> },
    Impatient { name: ClientName, number: u64 },
}

struct World<'a> {
    scenario: &'a Scenario,
    chance: Chance,
    now: Millis,
    queue: BTreeMap<(Millis, u64), Happening>,
    queued: u64,
    steps: u64,
    nodes: Vec<Node>,
    clients: BTreeMap<ClientName, Client>,
    network: Network,
    /// The session of each edge, as its dialer sees it.
    dialled: Vec<Option<SessionId>>,
    /// How often each edge was dialled, to number its draws.
    dials: Vec<u64>,
    /// Space ids and how they began.
    spaces: Vec<(SpaceId, Genesis)>,
    /// By space: who will hold it, and who will own it.
    members: Vec<membership::Membership>,
    /// By item: whether the ticket was answered.
    answered: BTreeSet<usize>,
    /// How often each node opened each space in each session.
    openings: BTreeMap<(SessionId, Era, usize), u64>,
    /// In which revision of a space each node's peer is, as the node was told in a session last, if it was the node's own.
    opened: BTreeMap<(SessionId, SpaceId, usize), u64>,
    /// Whether that was the one that was held there just then.
    opened_alike: BTreeMap<(SessionId, SpaceId, usize), bool>,
    /// So many rows of what was wiped are removed in one step.
    removed_at_once: usize,
    history: History,
    shown: Shown,
    on_the_way: OnTheWay,
    deadline: Option<Deadline>,
    /// At the end of all faults: how many messages had been sent, and how many events somebody lacked.
    quiet: (u64, u64),
    trace: &'a mut Trace,
    /// What somebody else wants to hold, too.
    application: Option<&'a mut (dyn Application + 'a)>,
}

/// Runs a scenario. The trace says what is kept of it.
pub fn run(scenario: &Scenario, trace: &mut Trace) -> Outcome {
    run_with(scenario, trace, None)
}

/// Runs a scenario under an invariant of an application.
pub fn run_with<'a>(
    scenario: &'a Scenario,
    trace: &'a mut Trace,
    application: Option<&'a mut (dyn Application + 'a)>,
) -> Outcome {
    let chance = Chance::new(scenario.seed);
    let mut world = World {
        scenario,
        chance,
        now: 0,
        queue: BTreeMap::new(),
        queued: 0,
        steps: 0,
        nodes: Vec::new(),
        clients: BTreeMap::new(),
        network: Network::new(chance, scenario.weather),
        dialled: vec![None; scenario.edges.len()],
        dials: vec![0; scenario.edges.len()],
        spaces: Vec::new(),
        members: Vec::new(),
        answered: BTreeSet::new(),
        openings: BTreeMap::new(),
        opened: BTreeMap::new(),
        opened_alike: BTreeMap::new(),
        removed_at_once: *chance.draws("removed at once", 0).pick(&[20, 100, 1000]),
        history: History::default(),
        shown: Shown::default(),
        on_the_way: OnTheWay::default(),
        deadline: None,
        quiet: (0, 0),
        trace,
        application,
    };
    let failure = Failure::of(|| world.run());
    for (number, node) in world.nodes.iter().enumerate() {
        if let Some(medium) = node.disk.medium() {
            world.trace.note(world.now, number, "medium", &medium.hash());
        }
    }
    let violation = failure.map(|failure| failure.at_time(world.now));
    let (now, hash) = (world.now, world.trace.hash());
    world.trace.record(|story| {
        story.ended_at = now;
        story.violation.clone_from(&violation);
    });
    Outcome {
        hash,
        violation,
        ended_at: world.now,
        events: world.history.event_count(),
        messages: world.network.sent,
        steps: world.steps,
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
            self.look_after_disks()?;
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
            let mut node = Node::new(scenario.level, self.chance, number, scenario.disk_ms);
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
        for (space, node, role) in membership::invitations(scenario) {
            self.history.invited.insert((self.spaces[space].0, self.nodes[node].device(), role));
        }
        self.members = membership::drawn_up(self.scenario);
        self.tell_beginning();
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
            Happening::LookUp { node, life, lookup } if self.is_alive(node, life) => {
                let Some(process) = &self.nodes[node].process else { return Ok(()) };
                let read = process.ledger.look_up(&lookup);
                let found = self.excused(node, read)?.unwrap_or_else(|| lookup.failed());
                let found = Box::new(found);
                let delay = self.disk_delay(node);
                self.schedule(self.now + delay, Happening::HaveFound { node, life, found });
                Ok(())
            }
            Happening::HaveFound { node, life, found } if self.is_alive(node, life) => {
                self.nodes[node].process.iter_mut().for_each(|process| process.reads -= 1);
                self.handle(node, *found)
            }
            Happening::Restart { node } => self.restart(node),
            Happening::Remove { node, life } if self.is_alive(node, life) => {
                self.start_removal(node);
                Ok(())
            }
            Happening::Mend { node, life } if self.is_alive(node, life) => self.mend_at_last(node),
            Happening::Repair { node } => self.repair(node),
            Happening::Asked { name, number, node, ask } => self.asked(name, number, node, *ask),
            Happening::Answered { name, number, answer } => self.answered(name, number, *answer),
            Happening::Impatient { name, number } => {
                self.impatient(name, number);
                Ok(())
            }
            // Meant for a process that is gone.
            _ => Ok(()),
        }
    }
}
