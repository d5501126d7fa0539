//! Everything that can become of a scenario, breadth first, so that what is found first is found in the fewest steps.
//!
//! **Invariant**: two states with equal numbers are equal in everything on which the future depends, so each is gone on
//! from once. Numbers are given in the order of discovery, which depends on the scenario and on nothing else.
//!
//! What it does not do: leave out interleavings that come to the same (sleep sets, persistent sets: Godefroid, *Partial-
//! Order Methods for the Verification of Concurrent Systems*, LNCS 1032, 1996). Sleep sets spare transitions, which cost
//! next to nothing here since steps are computed once ([`super::world`]); persistent sets spare states, but almost every
//! step of a node depends on a message that the other node may yet send, so that they would hardly ever be small.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use thence::replica::SessionId;

use super::choice::{Choice, Kind};
use super::line::{Lane, Line};
use super::local::{Act, Process};
use super::pool::Pool;
use super::turn::now;
use super::world::World;
use crate::oracles::{At, Failure, fail};
use crate::oracles::{Broken, Era, Shelf, check_acknowledged, check_alike, check_belief, check_disk, check_disks};
use crate::world::{Scenario, Weather, What};

/// The frame types of [`thence::replica::Message::Open`] and [`thence::replica::Message::Refuse`].
const OPEN: u8 = 16;
const REFUSE: u8 = 20;

/// As many nodes, and as many edges, as a scenario of this level may have.
pub const NODES_MAX: usize = 4;

/// A world at one moment: the numbers of its nodes and edges, and the items that were done, bit by bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct State {
    pub(super) nodes: [u32; NODES_MAX],
    pub(super) lines: [u32; NODES_MAX],
    done: u32,
}

impl State {
    fn is_done(&self, item: usize) -> bool {
        self.done >> item & 1 == 1
    }
}

/// How much was explored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// How many states were seen.
    pub states: usize,
    /// How many ways led from one to a next.
    pub transitions: u64,
    /// How many of the states are ends, in which nothing can happen any more.
    pub ends: usize,
    /// How many choices it takes to get to the last of them.
    pub depth: usize,
    /// How many steps of a single node there were.
    pub steps: usize,
    /// Whether that is all that there is.
    pub exhausted: bool,
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, transitions, ends, depth, steps, exhausted } = self;
        write!(f, "{states} states, {transitions} transitions, {ends} ends, depth {depth}, {steps} steps of nodes")?;
        f.write_str(if *exhausted { ", exhausted" } else { ", not exhausted" })
    }
}

pub(super) struct Explorer<'a> {
    pub(super) world: World<'a>,
    lines: Pool<Line, Line>,
    states: Vec<State>,
    numbers: BTreeMap<State, u32>,
    /// What was done before the first state, in words.
    begun: Vec<String>,
    /// By state: from which it was reached first, and how.
    parents: Vec<(u32, Choice)>,
    /// How states follow one another without a fault.
    onward: Vec<(u32, u32)>,
    /// Where it is, and what it tries there: what goes wrong goes wrong there.
    pub(super) at: (u32, Option<Choice>),
    /// What was compared already: what a node believes in a session with its peer's disk, and disks with one another.
    believed: BTreeSet<(u32, SessionId, u32)>,
    compared: BTreeSet<Vec<u32>>,
    ended: BTreeSet<Vec<u32>>,
    pub(super) extent: Extent,
}

impl<'a> Explorer<'a> {
    pub(super) fn new(scenario: &'a Scenario) -> Self {
        Self {
            world: World::new(scenario),
            lines: Pool::new(),
            states: Vec::new(),
            numbers: BTreeMap::new(),
            begun: Vec::new(),
            parents: Vec::new(),
            onward: Vec::new(),
            at: (0, None),
            believed: BTreeSet::new(),
            compared: BTreeSet::new(),
            ended: BTreeSet::new(),
            extent: Extent::default(),
        }
    }

    /// Explores until there is nothing new, or there are `states_max` states.
    pub(super) fn explore(&mut self, states_max: usize) -> Result<(), Failure> {
        let first = self.set_up()?;
        self.discover(first, (0, Choice::Begin))?;
        let (mut number, mut end_of_depth) = (0, 1);
        while number < self.states.len() && self.states.len() < states_max {
            self.expand(number)?;
            number += 1;
            if number == end_of_depth && number < self.states.len() {
                self.extent.depth += 1;
                end_of_depth = self.states.len();
            }
            self.extent.steps = self.world.steps();
        }
        self.extent.exhausted = number == self.states.len();
        if self.extent.exhausted { self.check_that_it_ends() } else { Ok(()) }
    }

    /// The number of a state. One that was not seen before is checked.
    fn discover(&mut self, state: State, from: (u32, Choice)) -> Result<u32, Failure> {
        if let Some(number) = self.numbers.get(&state) {
            return Ok(*number);
        }
        self.check(&state)?;
        let number = u32::try_from(self.states.len()).unwrap_or(u32::MAX);
        self.numbers.insert(state, number);
        self.states.push(state);
        self.parents.push(from);
        self.extent.states += 1;
        for part in state.nodes.iter().chain(&state.lines).chain([&state.done]) {
            self.world.seen.update(&part.to_le_bytes());
        }
        Ok(number)
    }

    fn expand(&mut self, number: usize) -> Result<(), Failure> {
        let state = self.states[number];
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let choices = self.choices(&state);
        self.at = (number, None);
        if choices.iter().all(|(kind, _)| *kind == Kind::Fault) {
            self.extent.ends += 1;
            self.check_end(&state)?;
        }
        if let Some((Kind::Late, _)) = choices.last()
            && self.world.scenario.items.iter().all(|item| item.at == 0 || !is_fault(&item.what))
        {
            return Err(Broken {
                invariant: "no stalls without a fault",
                detail: "nothing happens any more before a timer is due that only faults should need".to_owned(),
            }
            .into());
        }
        for (kind, choice) in choices {
            self.at = (number, Some(choice));
            let next = self.follow(state, choice)?;
            let next = self.discover(next, (number, choice))?;
            self.extent.transitions += 1;
            if kind != Kind::Fault {
                self.onward.push((number, next));
            }
        }
        Ok(())
    }

    // The beginning.

    /// Everything that the items at 0 say, each in one way to its end, and then what goes wrong at 0.
    fn set_up(&mut self) -> Result<State, Failure> {
        let scenario = self.world.scenario;
        let line = self.lines.add(Line::default(), Line::default());
        let mut state = State { nodes: [0; NODES_MAX], lines: [line; NODES_MAX], done: u32::MAX };
        for node in 0..scenario.nodes {
            let first = self.world.first(node)?;
            state.nodes[node] = self.world.step(first, Act::Start)?.after;
        }
        state = self.settle(state)?;
        for (item, _) in scenario.items.iter().enumerate().filter(|(_, item)| item.at == 0) {
            state.done = !(1 << item);
            if is_fault(&scenario.items[item].what) {
                state = self.begin(state, Choice::Item(item))?;
                while let Some(notice) = self.notices(&state).first().copied() {
                    state = self.begin(state, notice)?;
                }
            } else {
                state = self.settle(state)?;
            }
        }
        state.done = (scenario.items.iter().enumerate())
            .filter(|(_, item)| item.at == 0)
            .fold(0, |done, (item, _)| done | 1 << item);
        Ok(state)
    }

    /// Goes on in one way until nothing happens any more.
    fn settle(&mut self, mut state: State) -> Result<State, Failure> {
        while let Some((_, choice)) = self.choices(&state).into_iter().find(|(kind, _)| *kind != Kind::Fault) {
            state = self.begin(state, choice)?;
        }
        Ok(state)
    }

    /// Follows a choice before the first state.
    fn begin(&mut self, state: State, choice: Choice) -> Result<State, Failure> {
        self.begun.push(self.describe(&state, choice));
        self.follow(state, choice)
    }

    // What can happen.

    pub(super) fn line(&self, state: &State, edge: usize) -> &Line {
        &self.lines[state.lines[edge]]
    }

    fn process(&self, state: &State, node: usize) -> Option<&Process> {
        self.world.locals[state.nodes[node]].process.as_ref()
    }

    /// The nodes at the two ends of an edge: dialer and listener.
    pub(super) fn ends(&self, edge: usize) -> [usize; 2] {
        let (dialer, listener) = self.world.scenario.edges[edge];
        [dialer, listener]
    }

    fn end_of(&self, edge: usize, node: usize) -> usize {
        usize::from(self.ends(edge)[1] == node)
    }

    /// All that can happen next.
    fn choices(&self, state: &State) -> Vec<(Kind, Choice)> {
        let scenario = self.world.scenario;
        let mut choices = Vec::new();
        let mut late = Vec::new();
        for node in 0..scenario.nodes {
            let Some(process) = self.process(state, node) else {
                choices.push((Kind::User, Choice::Act { node, act: Act::Start }));
                continue;
            };
            let mut act = |act: Act| choices.push((Kind::Program, Choice::Act { node, act }));
            if !process.waiting.is_empty() && !process.in_doubt {
                act(Act::Land);
            }
            if !process.landed.is_empty() {
                act(Act::Report);
            }
            for (at, read) in process.reads.iter().enumerate() {
                act(if read.found.is_none() { Act::Read(at) } else { Act::Answer(at) });
            }
            if let Some(due) = process.replica.poll_timeout() {
                if due < now(&self.world) + scenario.limits.stall_ms / 2 {
                    act(Act::Wake);
                } else {
                    late.push((Kind::Late, Choice::Act { node, act: Act::Wake }));
                }
            }
        }
        for edge in 0..scenario.edges.len() {
            let line = self.line(state, edge);
            for session in &line.sessions {
                for end in [0, 1].into_iter().filter(|end| session.up[*end]) {
                    let deliver = |lane| Choice::Deliver { edge, session: session.id, end, lane };
                    choices.extend(session.lanes(end).into_iter().map(|lane| (Kind::Program, deliver(lane))));
                }
            }
            let alive = self.ends(edge).iter().all(|node| self.process(state, *node).is_some());
            if alive && line.sessions.iter().all(|session| !session.up[0]) {
                choices.push((Kind::Program, Choice::Dial { edge }));
            }
        }
        choices.extend(self.notices(state).into_iter().map(|notice| (Kind::Program, notice)));
        let is_quiet = choices.iter().all(|(kind, _)| *kind != Kind::Program);
        choices.extend(self.items(state));
        // Last, so that it is easily seen.
        choices.extend(late.into_iter().filter(|_| is_quiet));
        choices
    }

    fn notices(&self, state: &State) -> Vec<Choice> {
        let edges = 0..self.world.scenario.edges.len();
        let of_edge = |edge| {
            let gone = self.line(state, edge).sessions.iter().filter(|session| !session.whole);
            gone.flat_map(move |session| {
                let ends = [0, 1].into_iter().filter(|end| session.up[*end]);
                ends.map(move |end| Choice::Notice { edge, session: session.id, end })
            })
        };
        edges.flat_map(of_edge).collect()
    }

    /// The items that can be done next.
    fn items(&self, state: &State) -> Vec<(Kind, Choice)> {
        let items = &self.world.scenario.items;
        let open = |item: &usize| !state.is_done(*item);
        let mut choices = Vec::new();
        for item in (0..items.len()).filter(open) {
            let what = &items[item].what;
            // Users of one node do one thing after the other; and of equal faults it does not matter which it is.
            let earlier = |earlier: usize| match (&items[earlier].what, what) {
                (What::Write { node: a, .. }, What::Write { node: b, .. }) => a == b,
                (a, b) => a == b,
            };
            if (0..item).filter(open).any(earlier) {
                continue;
            }
            let process = |node: usize| self.process(state, node);
            let can_be = match *what {
                What::Write { node, .. } | What::Crash { node } => process(node).is_some(),
                What::DiskFails { node, .. } => {
                    process(node).is_some_and(|process| !process.waiting.is_empty() && !process.in_doubt)
                }
                What::Drop { a, b } => (0..self.world.scenario.edges.len())
                    .filter(|edge| self.ends(*edge) == [a, b] || self.ends(*edge) == [b, a])
                    .any(|edge| self.line(state, edge).sessions.iter().any(|session| session.whole)),
                What::Redeem { node, space, from, .. } => {
                    choices.extend(
                        self.redeem(state, item, node, space, from)
                            .map(|session| (Kind::User, Choice::Redeem { item, session })),
                    );
                    false
                }
                What::Weather { from, to, weather } => {
                    choices.extend(self.befall(state, item, from, to, weather).map(|choice| (Kind::Fault, choice)));
                    false
                }
                What::Save { .. } => true,
                What::PutBack { node } => self.world.locals[state.nodes[node]].image.is_some(),
                _ => false,
            };
            if can_be {
                let kind = if is_fault(what) { Kind::Fault } else { Kind::User };
                choices.push((kind, Choice::Item(item)));
            }
        }
        choices
    }

    /// The messages from one node to another that weather can befall. As at the level `core`, what is said on the control
    /// channel, and the order of a refusal among openings, is spared.
    fn befall<'s>(
        &'s self,
        state: &'s State,
        item: usize,
        from: usize,
        to: usize,
        weather: Weather,
    ) -> impl Iterator<Item = Choice> + 's {
        let is_between = move |edge: &usize| self.ends(*edge) == [from, to] || self.ends(*edge) == [to, from];
        (0..self.world.scenario.edges.len()).filter(is_between).flat_map(move |edge| {
            let end = self.end_of(edge, to);
            let up = self.line(state, edge).sessions.iter().filter(move |session| session.up[end]);
            up.flat_map(move |session| {
                let can = move |lane: &Lane| {
                    let kinds: Vec<u8> = session.on(end, *lane).map(|frame| self.world.frames[frame].kind).collect();
                    let in_place = |kind: Option<&u8>| kind.is_none_or(|kind| *kind == OPEN || *kind == REFUSE);
                    *lane > 0
                        && (weather.loss > 0
                            || weather.duplicate > 0 && kinds[0] != REFUSE
                            || weather.reorder > 0 && !in_place(kinds.first()) && !in_place(kinds.get(1)))
                };
                let befall = move |lane| Choice::Befall { item, edge, session: session.id, end, lane };
                session.lanes(end).into_iter().filter(can).map(befall)
            })
        })
    }

    /// The session in which a ticket can be shown, if that is to be done.
    fn redeem(&self, state: &State, item: usize, node: usize, space: usize, from: usize) -> Option<SessionId> {
        let local = &self.world.locals[state.nodes[node]];
        let process = local.process.as_ref()?;
        // An inviter that was put back to before it granted anything is asked again.
        let access = |node: usize| {
            let platter = self.world.locals[state.nodes[node]].platter;
            self.world.platters[platter].ledger.access(self.world.spaces[space].0)
        };
        let granted = access(from).is_some_and(|access| access.role(self.world.keys[node].device()).is_some());
        if granted && access(node).is_some() {
            return None;
        }
        let edges = 0..self.world.scenario.edges.len();
        let mut between = edges.filter(|edge| self.ends(*edge) == [node, from] || self.ends(*edge) == [from, node]);
        between.find_map(|edge| {
            let end = self.end_of(edge, node);
            let session = self.line(state, edge).sessions.iter().rev().find(|session| session.up[end])?;
            (process.tickets.get(&item) != Some(&session.id)).then_some(session.id)
        })
    }

    // What comes of it.

    /// The state that a choice leads to.
    fn follow(&mut self, mut state: State, choice: Choice) -> Result<State, Failure> {
        match choice {
            Choice::Begin => {}
            Choice::Act { node, act } => self.act(&mut state, node, act)?,
            Choice::Deliver { edge, session, end, lane } => {
                let message = self.line(&state, edge).session(session).and_then(|session| session.next(end, lane));
                self.change(&mut state, edge, |line| line.take(session, end, lane));
                if let Some(message) = message {
                    let node = self.ends(edge)[end];
                    self.act(&mut state, node, Act::Receive(session, lane, message))?;
                }
            }
            Choice::Notice { edge, session, end } => {
                self.change(&mut state, edge, |line| line.leave(session, end));
                let node = self.ends(edge)[end];
                self.act(&mut state, node, Act::Notice(session))?;
            }
            Choice::Dial { edge } => {
                let mut line = self.line(&state, edge).clone();
                let session = line.connect(edge);
                state.lines[edge] = self.lines.add(line.clone(), line);
                for node in self.ends(edge) {
                    self.act(&mut state, node, Act::Connect(session))?;
                }
            }
            Choice::Befall { item, edge, session, end, lane } => {
                state.done |= 1 << item;
                if let What::Weather { weather, .. } = self.world.scenario.items[item].what {
                    self.change(&mut state, edge, |line| match weather {
                        Weather { loss: 1.., .. } => line.take(session, end, lane),
                        Weather { duplicate: 1.., .. } => line.repeat(session, end, lane),
                        _ => line.overtake(session, end, lane),
                    });
                }
            }
            Choice::Redeem { item, session } => {
                if let What::Redeem { node, .. } = self.world.scenario.items[item].what {
                    self.act(&mut state, node, Act::Redeem(item, session))?;
                }
            }
            Choice::Item(item) => {
                state.done |= 1 << item;
                match self.world.scenario.items[item].what {
                    What::Write { node, .. } => self.act(&mut state, node, Act::Write(item))?,
                    What::Save { node } => self.act(&mut state, node, Act::Save)?,
                    What::DiskFails { node, fault } => self.act(&mut state, node, Act::fail(fault))?,
                    What::Crash { node } => self.end_process(&mut state, node, Act::Crash)?,
                    What::PutBack { node } => {
                        let before = self.world.locals[state.nodes[node]].platter;
                        self.end_process(&mut state, node, Act::PutBack)?;
                        self.forgive(&mut state, before);
                    }
                    What::Drop { a, b } => {
                        for edge in 0..self.world.scenario.edges.len() {
                            if self.ends(edge) == [a, b] || self.ends(edge) == [b, a] {
                                self.change(&mut state, edge, Line::break_all);
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(state)
    }

    fn change(&mut self, state: &mut State, edge: usize, change: impl FnOnce(&mut Line)) {
        let mut line = self.line(state, edge).clone();
        change(&mut line);
        state.lines[edge] = self.lines.add(line.clone(), line);
    }

    fn act(&mut self, state: &mut State, node: usize, act: Act) -> Result<(), Failure> {
        let step = self.world.step(state.nodes[node], act)?;
        state.nodes[node] = step.after;
        for (session, lane, message) in &step.sent {
            let edge = World::edge_of(*session);
            let to = 1 - self.end_of(edge, node);
            self.change(state, edge, |line| line.send(*session, to, *lane, *message));
        }
        Ok(())
    }

    fn end_process(&mut self, state: &mut State, node: usize, act: Act) -> Result<(), Failure> {
        self.act(state, node, act)?;
        for edge in 0..self.world.scenario.edges.len() {
            if self.ends(edge).contains(&node) {
                let end = self.end_of(edge, node);
                self.change(state, edge, |line| line.leave_all(end));
            }
        }
        Ok(())
    }

    /// What no disk holds any more since one was put back is gone, and nobody can be blamed.
    fn forgive(&mut self, state: &mut State, before: u32) {
        let nodes = 0..self.world.scenario.nodes;
        let holds = |platter: u32, (era, event): &(Era, _)| {
            self.world.platters[platter]
                .shelves
                .get(&era.space)
                .is_some_and(|shelf: &Shelf| shelf.events.contains(event))
        };
        let is_gone = |event: &(Era, _)| {
            holds(before, event) && !nodes.clone().any(|n| holds(self.world.locals[state.nodes[n]].platter, event))
        };
        let mut changed = Vec::new();
        for node in nodes.clone() {
            let mut local = self.world.locals[state.nodes[node]].clone();
            local.acknowledged.retain(|event| !is_gone(event));
            changed.push((node, local));
        }
        for (node, local) in changed {
            state.nodes[node] = self.world.add(local);
        }
    }

    // What must hold.

    fn platters(&self, state: &State) -> Vec<u32> {
        (0..self.world.scenario.nodes).map(|node| self.world.locals[state.nodes[node]].platter).collect()
    }

    /// What must hold between nodes at every moment. What must hold within one was checked at its step.
    fn check(&mut self, state: &State) -> Result<(), Failure> {
        let nothing = Shelf::default();
        let platters = self.platters(state);
        if !self.compared.contains(&platters) {
            for (space, _) in &self.world.spaces {
                let shelves: Vec<&Shelf> =
                    platters.iter().filter_map(|platter| self.world.platters[*platter].shelves.get(space)).collect();
                check_disks(&self.world.history, Era::first(*space), &shelves)?;
            }
            self.compared.insert(platters.clone());
        }
        for edge in 0..self.world.scenario.edges.len() {
            let line = &self.lines[state.lines[edge]];
            for session in &line.sessions {
                for end in [0, 1].into_iter().filter(|end| session.up[*end]) {
                    let (node, peer) = (self.ends(edge)[end], self.ends(edge)[1 - end]);
                    let pair = (state.nodes[node], session.id, platters[peer]);
                    if self.believed.contains(&pair) {
                        continue;
                    }
                    let Some(process) = self.process(state, node) else { continue };
                    let (history, device) = (&self.world.history, self.world.keys[peer].device());
                    for (space, believed) in process.replica.acknowledged(session.id) {
                        let shelf = self.world.platters[platters[peer]].shelves.get(&space).unwrap_or(&nothing);
                        check_belief(history, Era::first(space), device, shelf, &believed).at(node)?;
                    }
                    self.believed.insert(pair);
                }
            }
        }
        Ok(())
    }

    /// What must hold when nothing can happen any more.
    fn check_end(&mut self, state: &State) -> Result<(), Failure> {
        for edge in 0..self.world.scenario.edges.len() {
            let line = self.line(state, edge);
            let [session] = line.sessions.as_slice() else {
                return fail(self.ends(edge)[0], "liveness", format!("{} sessions", line.sessions.len()));
            };
            for node in self.ends(edge) {
                let process = self.process(state, node);
                if !process.is_some_and(|process| process.replica.is_synced(session.id)) {
                    let links = |space| process.map(|process| process.replica.links(space));
                    let links: Vec<_> = self.world.spaces.iter().filter_map(|(space, _)| links(*space)).collect();
                    return fail(node, "liveness", format!("session {:x} is not in step: {links:?}", session.id.0));
                }
            }
        }
        let platters = self.platters(state);
        let nodes: Vec<u32> = state.nodes.to_vec();
        if !self.ended.insert(nodes) {
            return Ok(());
        }
        let history = &self.world.history;
        for (number, (space, _)) in self.world.spaces.iter().enumerate() {
            let members = self.world.members(number);
            let acknowledged = members.iter().flat_map(|node| &self.world.locals[state.nodes[*node]].acknowledged);
            let acknowledged: BTreeSet<_> = acknowledged.filter(|(of, _)| of.space == *space).copied().collect();
            let mut exports = Vec::new();
            for node in members {
                let platter = &self.world.platters[platters[node]];
                let (Some(export), Some(shelf)) = (platter.exports.get(space), platter.shelves.get(space)) else {
                    return fail(node, "liveness", "it never got the space");
                };
                exports.push((node, export));
                for (era, event) in &acknowledged {
                    check_acknowledged(history, *era, shelf, *event).at(node)?;
                }
            }
            for pair in exports.windows(2) {
                check_alike(pair[0], pair[1])?;
            }
            for (node, platter) in platters.iter().enumerate() {
                if let Some(shelf) = self.world.platters[*platter].shelves.get(space) {
                    check_disk(history, *space, self.world.keys[node].device(), shelf).at(node)?;
                }
            }
        }
        Ok(())
    }

    /// Whether every way without a fault comes to an end: no state can be reached from itself.
    fn check_that_it_ends(&mut self) -> Result<(), Failure> {
        let mut before = vec![0_u32; self.states.len()];
        let mut onward: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (from, to) in &self.onward {
            before[*to as usize] += 1;
            onward.entry(*from).or_default().push(*to);
        }
        let mut free: Vec<u32> =
            (0..).zip(&before).filter(|(_, before)| **before == 0).map(|(state, _)| state).collect();
        while let Some(state) = free.pop() {
            for next in onward.get(&state).into_iter().flatten() {
                before[*next as usize] -= 1;
                if before[*next as usize] == 0 {
                    free.push(*next);
                }
            }
        }
        let round = (0..).zip(&before).find(|(_, before)| **before > 0);
        let Some((state, _)) = round else { return Ok(()) };
        self.at = (state, None);
        let detail = "from here it can go on for ever, round and round".to_owned();
        Err(Broken { invariant: "liveness", detail }.into())
    }

    // For people.

    /// The choices that lead to where it is now, in order, in words; what the items at 0 come to is one of them only if it
    /// is there that something goes wrong.
    pub(super) fn way(&self) -> Vec<String> {
        if self.states.is_empty() {
            return self.begun.clone();
        }
        let mut way = Vec::new();
        let (mut number, choice) = self.at;
        way.extend(choice.zip(self.states.get(number as usize)).map(|(choice, state)| self.describe(state, choice)));
        while number > 0 {
            let (before, choice) = self.parents[number as usize];
            way.push(self.describe(&self.states[before as usize], choice));
            number = before;
        }
        way.reverse();
        way
    }
}

/// Whether an item may happen or not.
fn is_fault(what: &What) -> bool {
    !matches!(what, What::Write { .. } | What::Redeem { .. })
}
