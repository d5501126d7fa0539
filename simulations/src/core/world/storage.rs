//! What a node, and whoever looks after it, does when its disk fails: the store is reopened, the process started again,
//! or the store repaired.
//!
//! A failure without a fault of the disk is a bug of the product. So is a wrong value, whatever the disk did: of a
//! damaged one only reads may fail.

use thence::replica::Input;
use thence::store::{LedgerError, StoreError};

use super::{Happening, World};
use crate::level::Level;
use crate::oracles::{Failure, unexpected};
use crate::world::{Medium, Millis};

/// How often a store that failed is reopened, until that succeeds.
const MEND_MS: Millis = 50;

impl World<'_> {
    /// What was read or committed; nothing if the disk is to blame for an error.
    pub(super) fn excused<T>(&mut self, node: usize, done: Result<T, StoreError>) -> Result<Option<T>, Failure> {
        let error = match done {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        if !self.nodes[node].disk.explains(&error) {
            return unexpected(node, error);
        }
        self.trace.tell(self.now, || format!("{node} {error}"));
        if !matches!(error, StoreError::Io(_)) {
            self.notice(node);
        }
        Ok(None)
    }

    /// Somebody notices that a store is damaged, and will repair it.
    fn notice(&mut self, node: usize) {
        if !std::mem::replace(&mut self.nodes[node].is_noticed, true) {
            let delay = self.disk_draw(node, "repair") % 600;
            self.schedule(self.now + delay, Happening::Repair { node });
        }
    }

    /// Not even the oracles can read the log of a node: it must not go on.
    pub(super) fn blinded<T>(&mut self, node: usize) -> Result<Option<T>, Failure> {
        self.notice(node);
        self.crash(node);
        Ok(None)
    }

    /// Notices who died at an operation on its disk, and whose store failed or found damage.
    pub(super) fn look_after_disks(&mut self) -> Result<(), Failure> {
        if self.scenario.level != Level::Store {
            return Ok(());
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].disk.medium().is_some_and(Medium::has_died) {
                self.trace.tell(self.now, || format!("{node} dies at an operation on its disk"));
                self.crash(node);
                self.restart_later(node);
            }
            let (life, Some(process)) = (self.nodes[node].life, &mut self.nodes[node].process) else { continue };
            let damage = process.ledger.damage();
            if process.ledger.failure().is_some() && !std::mem::replace(&mut process.is_mending, true) {
                self.schedule(self.now + MEND_MS, Happening::Mend { node, life });
            }
            if let Some(damage) = damage
                && !self.nodes[node].is_noticed
            {
                self.excused::<()>(node, Err(StoreError::Damaged(damage)))?;
            }
        }
        Ok(())
    }

    fn restart_later(&mut self, node: usize) {
        let delay = 1 + self.disk_draw(node, "restart") % 400;
        self.schedule(self.now + delay, Happening::Restart { node });
    }

    /// A process that was being started ends again.
    pub(super) fn cannot_start(&mut self, node: usize, error: LedgerError) -> Result<(), Failure> {
        self.trace.tell(self.now, || format!("{node} cannot start: {error}"));
        let of_disk = match error {
            LedgerError::Store(error) => self.excused::<()>(node, Err(error)).map(drop),
            // Rows that are not there any more.
            _ if self.nodes[node].disk.medium().is_some_and(Medium::is_harmed) => {
                self.notice(node);
                Ok(())
            }
            error => unexpected(node, error),
        };
        self.nodes[node].stop();
        // Who starts it finds that it must be repaired, or tries again.
        if !self.nodes[node].is_noticed {
            self.restart_later(node);
        }
        of_disk
    }

    /// Reopens a store that failed, and tells the protocol what it holds.
    pub(super) fn mend(&mut self, node: usize) -> Result<(), Failure> {
        let Some(process) = &self.nodes[node].process else { return Ok(()) };
        let reopened = process.ledger.reopen();
        let is_mended = self.excused(node, reopened)?.is_some();
        if is_mended && self.nodes[node].disk.medium().is_some_and(Medium::may_be_older) {
            // A header that was written elsewhere: what is reopened may be an older state, which the product does not
            // notice while its process lives. What it does about one is tried after a start.
            self.crash(node);
            self.restart_later(node);
            return Ok(());
        }
        if is_mended {
            self.read_on(node, false)?;
            if let Some(process) = &mut self.nodes[node].process {
                (process.removing, process.interrupted) = (true, true);
            }
            self.remove_later(node);
        }
        let Some(process) = self.nodes[node].process.as_ref().filter(|_| is_mended) else { return Ok(()) };
        let (replica, held) = (process.ledger.replica(), process.ledger.held());
        self.handle(node, Input::Writes { replica })?;
        for (space, revision, known, access) in held {
            self.handle(node, Input::Held { space, revision, known, access })?;
        }
        Ok(())
    }

    /// The same, after a time, for a store that may have been reopened meanwhile.
    pub(super) fn mend_at_last(&mut self, node: usize) -> Result<(), Failure> {
        let (life, Some(process)) = (self.nodes[node].life, &mut self.nodes[node].process) else { return Ok(()) };
        if process.commit.is_some() {
            // What became of that one is told first.
            self.schedule(self.now + MEND_MS, Happening::Mend { node, life });
            return Ok(());
        }
        process.is_mending = false;
        if process.ledger.failure().is_none() {
            return Ok(());
        }
        self.handle(node, Input::CommitFailed)?;
        self.mend(node)
    }

    /// Whoever looks after a node stops it, repairs its store, and starts it again.
    pub(super) fn repair(&mut self, node: usize) -> Result<(), Failure> {
        if std::mem::take(&mut self.nodes[node].is_noticed) {
            self.make_anew(node);
            self.restart_later(node);
        }
        Ok(())
    }

    fn make_anew(&mut self, node: usize) {
        self.trace.tell(self.now, || format!("{node} is repaired"));
        self.crash(node);
        let now = self.now;
        let before = std::mem::take(&mut self.nodes[node].shelves);
        for (number, (space, genesis)) in self.spaces.iter().enumerate() {
            if before.contains_key(space) {
                self.nodes[node].lost.insert(*space, (*genesis, format!("space {number}")));
            }
        }
        self.nodes[node].repair(now);
        self.history.salvaged.insert(self.nodes[node].device());
        self.set_back(node, before);
    }

    /// At the end of all faults: nothing goes wrong with a disk any more, and one that is damaged is repaired.
    pub(super) fn scrub(&mut self, node: usize) {
        let Some(medium) = self.nodes[node].disk.medium() else { return };
        medium.calm();
        if medium.is_harmed() && !medium.is_sound() {
            self.nodes[node].is_noticed = false;
            self.make_anew(node);
        }
    }
}
