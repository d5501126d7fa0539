//! Processes: how they end and begin.

use thence::replica::SessionId;

use super::World;
use crate::oracles::check_reopened;
use crate::oracles::{At, Failure};
use crate::world::{Medium, Side};

impl World<'_> {
    pub(super) fn crash(&mut self, node: usize) {
        if self.nodes[node].process.is_none() {
            return;
        }
        self.nodes[node].stop();
        let sessions: Vec<SessionId> = (self.network.lines.iter())
            .filter(|(_, line)| line.ends.contains(&node) && line.side_of(node) != Side::Down)
            .map(|(session, _)| *session)
            .collect();
        for session in sessions {
            self.leave(session, node);
        }
    }

    pub(super) fn restart(&mut self, node: usize) -> Result<(), Failure> {
        if self.nodes[node].process.is_some() || self.is_cut_off(node) {
            return Ok(());
        }
        let limits = self.scenario.limits;
        if let Err(error) = self.nodes[node].start(self.now, limits) {
            return self.cannot_start(node, error);
        }
        let read = self.read_again(node);
        self.tell_start(node);
        read?;
        for edge in 0..self.scenario.edges.len() {
            if self.scenario.edges[edge].0 == node {
                self.dialled[edge] = None;
                self.dial_later(edge);
            }
        }
        self.after_input(node);
        self.remove_later(node);
        Ok(())
    }

    /// Reads a disk from its beginning, and compares it with what it held before.
    pub(super) fn read_again(&mut self, node: usize) -> Result<(), Failure> {
        // What a disk that lied, or that wrote in the wrong place, comes back with may be older than what it synced.
        let may_be_older = self.nodes[node].disk.medium().is_some_and(Medium::take_older);
        if may_be_older {
            self.nodes[node].followers.clear();
        }
        let before = std::mem::take(&mut self.nodes[node].shelves);
        if self.read_on(node, true)?.is_none() {
            self.nodes[node].shelves = before;
            return Ok(());
        }
        // All that it lost may be that it had begun to write under another id.
        let replica = self.nodes[node].process.as_ref().map(|process| process.ledger.replica());
        let mut is_older = may_be_older && replica.is_some_and(|own| self.nodes[node].given_up.contains(&own));
        for (space, old) in &before {
            let now = self.nodes[node].shelves.get(space).cloned().unwrap_or_default();
            let is_gone = !self.nodes[node].shelves.contains_key(space);
            if may_be_older && now.is_earlier(old) {
                is_older |= is_gone || !old.is_earlier(&now);
            } else {
                check_reopened(old, &now).at(node)?;
            }
            if now.revision > old.revision {
                self.left_behind(node, *space, old);
            }
        }
        if is_older {
            self.trace.tell(self.now, || format!("{node} comes back older than it was"));
            self.set_back(node, before);
        }
        Ok(())
    }
}
