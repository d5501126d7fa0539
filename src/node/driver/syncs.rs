//! Those who wait until this node is in step with its peers.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Driver, REACH_WITHIN, REDIAL_EVERY};
use crate::model::DeviceId;
use crate::node::SyncReport;
use crate::node::dialing::Known;
use crate::replica::{Input, SessionId};

/// One who waits.
pub(super) struct Syncing {
    pub(super) answer: oneshot::Sender<SyncReport>,
    pub(super) peers: Vec<DeviceId>,
    /// The sessions that were asked for all that their peers know by now.
    pub(super) probed: BTreeSet<SessionId>,
    pub(super) reach_until: Instant,
    pub(super) until: Instant,
    pub(super) redial_at: Instant,
}

impl Driver {
    /// Begins to wait for all peers that matter.
    pub(super) fn begin_sync(&mut self, timeout: Duration, answer: oneshot::Sender<SyncReport>) {
        // A stranger that happens to be connected has nothing to be in step with.
        let matters = |(device, known): &(DeviceId, &Known)| !known.addresses.is_empty() || self.is_member(*device);
        let peers: Vec<DeviceId> = self.peers.iter().filter(matters).map(|(device, _)| device).collect();
        let now = self.surroundings.now();
        let (until, reach_until) = (now + timeout, now + REACH_WITHIN.min(timeout));
        let probed = BTreeSet::new();
        self.syncs.push(Syncing { answer, peers, probed, reach_until, until, redial_at: now });
    }

    pub(super) fn advance_syncs(&mut self, now: Instant) {
        for mut sync in std::mem::take(&mut self.syncs) {
            let mut report = SyncReport::default();
            let mut waiting = false;
            for &device in &sync.peers {
                match self.session_of(device) {
                    Some((session, state)) if state.greeted => {
                        if sync.probed.insert(session) {
                            self.handle(Input::Probe { session });
                        }
                        if self.replica.is_synced(session) {
                            report.synced.push(device);
                        } else {
                            report.unfinished.push(device);
                        }
                    }
                    _ => {
                        waiting |= now < sync.reach_until;
                        let reason = self.peers.get(device).and_then(|known| known.reason.clone());
                        report.unreached.push((device, reason.unwrap_or_else(|| "it did not answer".to_owned())));
                    }
                }
            }
            let done = report.unfinished.is_empty() && !waiting;
            if done || now >= sync.until || sync.answer.is_closed() {
                let _ = sync.answer.send(report);
                continue;
            }
            if now >= sync.redial_at {
                sync.redial_at = now + REDIAL_EVERY;
                let unreached: Vec<_> = report.unreached.iter().map(|(device, _)| *device).collect();
                unreached.into_iter().for_each(|device| self.dial_now(device));
            }
            self.syncs.push(sync);
        }
    }
}
