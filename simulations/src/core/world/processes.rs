//! Processes: how they end and begin.

use thence::replica::SessionId;

use super::{At, Failure, World};
use crate::oracles::check_reopened;
use crate::world::Side;

impl World<'_> {
    pub(super) fn crash(&mut self, node: usize) {
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

    pub(super) fn restart(&mut self, node: usize) -> Result<(), Failure> {
        if self.nodes[node].process.is_some() || self.is_cut_off(node) {
            return Ok(());
        }
        let limits = self.scenario.limits;
        self.nodes[node].start(self.now, limits).at(node)?;
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
        Ok(())
    }

    /// Reads a disk from its beginning, and compares it with what it held before.
    pub(super) fn read_again(&mut self, node: usize) -> Result<(), Failure> {
        let before = std::mem::take(&mut self.nodes[node].shelves);
        self.read_on(node, true)?;
        for (space, old) in &before {
            let now = self.nodes[node].shelves.get(space).cloned().unwrap_or_default();
            check_reopened(old, &now).at(node)?;
        }
        Ok(())
    }
}
