//! The peers that a node knows, and when to dial which.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::DeviceId;
use crate::replica::SessionId;

/// The first wait after a failure; each further one doubles it.
const BACK_OFF_MIN: Duration = Duration::from_millis(200);
/// No wait is longer.
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not connected, and nobody is dialling.
    Idle,
    /// A dial is under way.
    Dialing,
    /// Connected.
    Connected(SessionId),
}

/// A peer, remembered or only connected.
#[derive(Debug)]
pub(super) struct Known {
    /// Where it is reached: `host:port`. None if it is only known because it dialled this node.
    pub(super) addresses: Vec<String>,
    /// Whether it is to be kept connected.
    pub(super) keep: bool,
    pub(super) stage: Stage,
    /// When to dial it next.
    pub(super) next: Option<Instant>,
    failures: u32,
    /// Why it is not connected.
    pub(super) reason: Option<String>,
    /// What it did that no honest peer does, if that ended the last session.
    pub(super) misbehaved: Option<String>,
}

impl Known {
    fn new() -> Self {
        Self {
            addresses: Vec::new(),
            keep: false,
            stage: Stage::Idle,
            next: None,
            failures: 0,
            reason: None,
            misbehaved: None,
        }
    }

    /// The way to it was lost, or could not be found: try again later, and later each time.
    ///
    /// `chance` decides how long the wait is within its bounds.
    pub(super) fn failed(&mut self, reason: String, now: Instant, chance: u64) {
        self.stage = Stage::Idle;
        self.reason = Some(reason);
        let doubled = BACK_OFF_MIN.saturating_mul(1 << self.failures.min(16)).min(BACK_OFF_MAX);
        self.failures = self.failures.saturating_add(1);
        // Peers that lost the same relay at the same moment must not all come back at the same moment.
        let half = doubled / 2;
        let jittered = half + half.mul_f64((chance >> 11) as f64 / (1_u64 << 53) as f64);
        self.next = (self.keep && !planted!("lost-peer-not-sought")).then_some(now + jittered);
    }

    /// It said hello: the next loss begins with a short wait again.
    pub(super) fn greeted(&mut self) {
        self.failures = 0;
        self.reason = None;
        self.misbehaved = None;
    }
}

/// All peers, by device.
#[derive(Debug, Default)]
pub(super) struct Peers(BTreeMap<DeviceId, Known>);

impl Peers {
    pub(super) fn entry(&mut self, device: DeviceId) -> &mut Known {
        self.0.entry(device).or_insert_with(Known::new)
    }

    pub(super) fn get(&self, device: DeviceId) -> Option<&Known> {
        self.0.get(&device)
    }

    pub(super) fn get_mut(&mut self, device: DeviceId) -> Option<&mut Known> {
        self.0.get_mut(&device)
    }

    pub(super) fn remove(&mut self, device: DeviceId) -> Option<Known> {
        self.0.remove(&device)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (DeviceId, &Known)> {
        self.0.iter().map(|(device, known)| (*device, known))
    }

    /// When the next dial is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().filter(|known| known.stage == Stage::Idle).filter_map(|known| known.next).min()
    }

    /// The peers whose dial is due, marked as being dialled.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(DeviceId, Vec<String>)> {
        let mut due = Vec::new();
        for (device, known) in &mut self.0 {
            if known.stage == Stage::Idle && known.next.is_some_and(|next| next <= now) {
                known.next = None;
                if !known.addresses.is_empty() {
                    known.stage = Stage::Dialing;
                    due.push((*device, known.addresses.clone()));
                }
            }
        }
        due
    }
}
