//! In which phases of the protocol a fault strikes.

use thence::replica::LinkState;

use super::World;
use crate::reach::Phase;
use crate::world::{MediumFault, Side, What};

impl World<'_> {
    /// A fault strikes a node, or what it has with one peer. Counted before its effect.
    pub(super) fn strike(&mut self, fault: &'static str, node: usize, peer: Option<usize>) {
        if self.trace.is_counting() {
            let phases = self.phases(node, peer);
            self.trace.strike(fault, &phases);
        }
    }

    /// What a fault of the scenario strikes.
    pub(super) fn strike_by(&mut self, what: &What) {
        match *what {
            What::Cut { from, to } => {
                // The other direction is cut in the same moment, or it is a fault of one way.
                let both = self
                    .scenario
                    .items
                    .iter()
                    .any(|item| item.at == self.now && item.what == What::Cut { from: to, to: from });
                self.strike(if both { "cut" } else { "one-way" }, to, Some(from));
            }
            What::Drop { a, b } => {
                self.strike("drop", a, Some(b));
                self.strike("drop", b, Some(a));
            }
            What::Crash { node } => self.strike("crash", node, None),
            What::PutBack { node } => self.strike("put-back", node, None),
            What::Copy { node, .. } => self.strike("copy", node, None),
            What::DiskSpeed { node, .. } => self.strike("slow-disk", node, None),
            // These are counted where they take effect.
            What::Weather { .. } | What::DiskFails { .. } | What::Hostile { .. } => {}
            What::Medium { node, ref fault } => match fault {
                MediumFault::CrashAt(_) => self.strike("crash-at", node, None),
                MediumFault::Fails { .. } => self.strike("io-error", node, None),
                MediumFault::Full(true) => self.strike("full", node, None),
                MediumFault::Rot(_) => self.strike("rot", node, None),
                MediumFault::Misdirects { .. } => self.strike("misdirect", node, None),
                MediumFault::Lies(true) => self.strike("lying-sync", node, None),
                MediumFault::Full(false) | MediumFault::Lies(false) => {}
            },
            // There are none here.
            What::Damage { .. } | What::Narrow { .. } | What::Move { .. } | What::Pause { .. } | What::Clock { .. } => {
            }
            What::Write { .. }
            | What::Upload { .. }
            | What::Fetch { .. }
            | What::Forget { .. }
            | What::Wipe { .. }
            | What::Resave { .. }
            | What::Decide { .. }
            | What::Redeem { .. }
            | What::Restart { .. }
            | What::Heal { .. }
            | What::Save { .. } => {}
        }
    }

    /// What a node is about, with one peer or with all.
    fn phases(&self, node: usize, peer: Option<usize>) -> Vec<Phase> {
        let mut phases = Vec::new();
        let lines = || {
            self.network
                .lines
                .iter()
                .filter(move |(_, line)| line.ends.contains(&node) && peer.is_none_or(|peer| line.ends.contains(&peer)))
        };
        if lines().any(|(_, line)| line.side_of(node) == Side::Pending) {
            phases.push(Phase::Connecting);
        }
        let Some(process) = &self.nodes[node].process else { return phases };
        if self.nodes[node].life > 1 && !lines().any(|(_, line)| line.side_of(node) == Side::Up) {
            phases.push(Phase::Restarting);
        }
        let redeems = |(at, item): (usize, &crate::world::Item)| match item.what {
            What::Redeem { node: who, from, .. } => {
                who == node
                    && peer.is_none_or(|peer| peer == from)
                    && item.at <= self.now
                    && !self.answered.contains(&at)
            }
            _ => false,
        };
        if self.scenario.items.iter().enumerate().any(redeems) {
            phases.push(Phase::Redeeming);
        }
        if process.commit.is_some() {
            phases.push(Phase::CommitInFlight);
        }
        if process.reads > 0 {
            phases.push(Phase::ReadInFlight);
        }
        if self.nodes[node].shelves.values().any(|shelf| shelf.is_split) {
            phases.push(Phase::Splitting);
        }
        let peer = peer.map(|peer| self.nodes[peer].device());
        for (space, _) in &self.spaces {
            for link in process.replica.links(*space) {
                if peer.is_some_and(|peer| peer != link.peer) {
                    continue;
                }
                phases.push(match link.state {
                    LinkState::Opening => Phase::Opening,
                    LinkState::Synced => Phase::Live,
                    LinkState::Refused(_) => Phase::Refused,
                    LinkState::Syncing if link.behind_events > 0 => Phase::CatchingUp,
                    LinkState::Syncing => Phase::AwaitingAck,
                });
                let in_flight = process.replica.in_flight_bytes(link.session, *space);
                if in_flight > 0 {
                    phases.push(Phase::AwaitingAck);
                }
                if in_flight >= self.scenario.limits.window_bytes_max {
                    phases.push(Phase::WindowFull);
                }
            }
        }
        phases.sort_unstable();
        phases.dedup();
        phases
    }
}
