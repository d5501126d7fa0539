//! What is done to the world: by users, and by faults.

use std::collections::{BTreeMap, BTreeSet};

use thence::causal::{EventHash, VersionVector};
use thence::model::{Request, Role, SignedTicket, SpaceId, Ticket};
use thence::replica::Input;
use thence::store::{View, Work};

use super::{Happening, REDEEM_AGAIN_MS, World};
use crate::core::liar::Liar;
use crate::core::node::{Asked, Job};
use crate::oracles::Failure;
use crate::oracles::{Deadline, Shelf, has_wiped};
use crate::world::{Line, Scenario, Side, What, decide, membership, resave};

impl World<'_> {
    pub(super) fn item(&mut self, at: usize) -> Result<(), Failure> {
        let scenario = self.scenario;
        let what = &scenario.items[at].what;
        self.trace.tell(self.now, || what.to_string());
        self.tell_item(what);
        self.strike_by(what);
        match what {
            What::Write { node, space, requests } => {
                let work = Work::Write { space: self.spaces[*space].0, requests: requests.clone() };
                self.ask(*node, Job { work, asked: Asked::User });
                self.start_commit(*node);
            }
            What::Resave { node, space, collection, key } => {
                self.edit(*node, *space, |view| resave(view, collection, key, at));
            }
            What::Decide { node, space } => self.edit(*node, *space, decide),
            What::Wipe { node, space } => {
                let work = Work::Wipe { space: self.spaces[*space].0, only: None };
                self.ask(*node, Job { work, asked: Asked::User });
                self.start_commit(*node);
            }
            What::Upload { .. } | What::Fetch { .. } => self.by_client(at),
            What::Forget { node, space, older_ms } => return self.forget(*node, *space, *older_ms),
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
            What::Medium { node, fault } => {
                if let Some(medium) = self.nodes[*node].disk.medium() {
                    medium.suffer(fault);
                }
            }
            // There are no datagrams, addresses, tasks or clocks here.
            What::Damage { .. } | What::Narrow { .. } | What::Move { .. } | What::Pause { .. } | What::Clock { .. } => {
            }
        }
        Ok(())
    }

    /// A user writes what follows from what is shown.
    fn edit(&mut self, node: usize, space: usize, edit: impl FnOnce(&View) -> Option<Vec<Request>>) {
        let space = self.spaces[space].0;
        let view = self.nodes[node].process.as_ref().and_then(|process| process.ledger.view(space).ok()?);
        let Some(requests) = view.and_then(|view| edit(&view)) else { return };
        self.ask(node, Job { work: Work::Write { space, requests }, asked: Asked::User });
        self.start_commit(node);
    }

    /// A backup is put back.
    pub(super) fn put_back(&mut self, number: usize) {
        let Some((image, shelves)) = &self.nodes[number].image else { return };
        let (image, shelves) = (image.fork(), shelves.clone());
        self.crash(number);
        let before = std::mem::replace(&mut self.nodes[number].shelves, shelves);
        self.nodes[number].disk.put_back(&image);
        self.set_back(number, before);
    }

    /// A disk holds less than `before`. What no other disk holds of the rest is gone, and nobody can be blamed.
    pub(super) fn set_back(&mut self, number: usize, before: BTreeMap<SpaceId, Shelf>) {
        let node = &mut self.nodes[number];
        node.generation += 1;
        node.given_up.clear();
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
        before.iter().for_each(|(space, shelf)| self.excuse(*space, shelf));
    }

    /// A disk does not hold `lost` any more, rightly: of that only what others hold is still expected.
    pub(super) fn excuse(&mut self, space: SpaceId, lost: &Shelf) {
        let era = lost.era(space);
        // A copy that nobody meets keeps what it has to itself.
        let members = self.members().into_iter().filter(|(of, _)| *of == space).flat_map(|(_, members)| members);
        let nodes = &self.nodes;
        let held: Vec<&Shelf> = members.filter_map(|node| nodes[node].shelves.get(&space)).collect();
        let is_held = |event: &EventHash| {
            held.iter().any(|shelf| shelf.revision == lost.revision && shelf.events.contains(event))
        };
        let gone: Vec<EventHash> = lost.events.iter().copied().filter(|event| !is_held(event)).collect();
        let wiped = nodes.iter().flat_map(|node| &node.wiped).filter(|(era, _)| era.space == space);
        let undone: Vec<_> = wiped.filter(|wiped| !held.iter().any(|shelf| has_wiped(shelf, wiped))).copied().collect();
        for node in &mut self.nodes {
            gone.iter().for_each(|event| _ = node.acknowledged.remove(&(era, *event)));
            undone.iter().for_each(|wiped| _ = node.wiped.remove(wiped));
        }
    }

    /// A disk and its key are copied onto another node.
    pub(super) fn copy(&mut self, from: usize, onto: usize) {
        self.crash(onto);
        let (key, image) = (self.nodes[from].key.clone(), self.nodes[from].disk.image());
        let (shelves, lost) = (self.nodes[from].shelves.clone(), self.nodes[from].lost.clone());
        let node = &mut self.nodes[onto];
        node.lost = lost;
        node.disk.put_back(&image);
        let before = std::mem::replace(&mut node.shelves, shelves);
        // It is another device's.
        node.image = None;
        self.nodes[onto].key = key;
        // What only that disk held is gone with it: nobody but whoever overwrote it can be blamed.
        self.set_back(onto, before);
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
    pub(super) fn turn_hostile(&mut self, node: usize) {
        let geneses = self.spaces.iter().map(|(_, genesis)| *genesis).collect();
        self.nodes[node].liar = Some(Liar::new(self.chance, node, self.nodes[node].key.clone(), geneses));
    }

    /// The nodes of which something is expected.
    pub(super) fn honest(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.nodes.len()).filter(|node| !self.scenario.is_hostile(*node))
    }

    /// Whether a hostile node has been cut off for good.
    pub(super) fn is_cut_off(&self, node: usize) -> bool {
        self.scenario.is_hostile(node) && self.now >= self.scenario.quiet_at
    }

    pub(super) fn heal(&mut self, from: usize, to: usize) {
        for sent in self.network.heal(self.now, from, to) {
            self.carry(sent, from, to, None);
        }
    }

    /// All faults end.
    pub(super) fn quiet(&mut self) -> Result<(), Failure> {
        self.trace.tell(self.now, || "quiet".to_owned());
        self.tell_quiet();
        self.network.calm();
        for (from, to) in self.network.cut_directions() {
            self.heal(from, to);
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].disk_ms = self.scenario.disk_ms;
            if self.is_cut_off(node) {
                self.crash(node);
                continue;
            }
            self.scrub(node);
            if self.nodes[node].process.is_none() {
                self.restart(node)?;
            }
            if self.nodes[node].process.as_ref().is_some_and(|process| process.commit.is_none()) {
                self.nodes[node].disk.recover();
            }
        }
        let mut missing = 0;
        for (space, members) in self.members() {
            let mut all = VersionVector::new();
            let shelf = |node: usize| self.nodes[node].shelves.get(&space);
            // What is in another revision than the latest is worth nothing.
            let latest = members.iter().filter_map(|node| Some(shelf(*node)?.revision)).max();
            let shelf = |node: usize| {
                let shelf = shelf(node).filter(|shelf| Some(shelf.revision) == latest);
                shelf.map(|shelf| shelf.vector.clone())
            };
            members.iter().filter_map(|node| shelf(*node)).for_each(|vector| all.join(&vector));
            let lacks = |node: &usize| all.count_missing_from(&shelf(*node).unwrap_or_default());
            missing += members.iter().map(lacks).sum::<u64>();
        }
        // What users asked for last is not on any disk yet.
        missing += 20;
        missing += 20 * self.scenario.items.iter().filter(|item| matches!(item.what, What::Wipe { .. })).count() as u64;
        let Scenario { quiet_at, idle_ms, limits, nodes, .. } = self.scenario;
        self.quiet = (self.network.sent, missing);
        self.deadline = Some(Deadline::after(*quiet_at, *idle_ms, limits, *nodes, missing));
        let late = self.clients_finish() as u64 * *nodes as u64;
        self.quiet.1 += late;
        self.deadline = Some(Deadline::after(*quiet_at, *idle_ms, limits, *nodes, missing + late));
        Ok(())
    }

    /// Who must have everything of each space in the end.
    pub(super) fn members(&self) -> Vec<(SpaceId, BTreeSet<usize>)> {
        let members = self.members.iter().map(|members| membership::expected(self.scenario, members));
        self.spaces.iter().map(|(id, _)| *id).zip(members).collect()
    }

    pub(super) fn redeem(
        &mut self,
        item: usize,
        node: usize,
        space: usize,
        from: usize,
        role: Role,
    ) -> Result<(), Failure> {
        let (id, genesis) = self.spaces[space];
        // An answer may be older than the backup that its inviter was put back to.
        let inviter = self.nodes[from].process.as_ref().and_then(|process| process.ledger.access(id));
        let granted = inviter.is_some_and(|access| access.role(self.nodes[node].device()) >= Some(role));
        let done = self.answered.contains(&item) && self.nodes[node].holds(id) && granted;
        if done || self.is_cut_off(node) {
            return Ok(());
        }
        // A ticket that can never be good: in a shrunk scenario its inviter may not be an owner any more.
        if !self.members[space].1.contains(&from) {
            return Ok(());
        }
        self.schedule(self.now + REDEEM_AGAIN_MS, Happening::Item(item));
        let up = |line: &&Line| line.side_of(node) == Side::Up;
        let session = (self.network.lines.iter())
            .filter(|(_, line)| line.ends == [node, from] || line.ends == [from, node])
            .find(|(_, line)| up(line))
            .map(|(session, _)| *session);
        if let Some(session) = session
            && self.nodes[node].process.is_some()
        {
            self.tell_ticket(node, space, from, &role.to_string());
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
}
