//! Liveness: when faults stop, everyone converges within a time that depends on the backlog alone, and falls silent.

use thence::replica::Limits;

use crate::world::Millis;

/// When everything must be in step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(pub(crate) Millis);

impl Deadline {
    /// The moment for a world whose faults end at `quiet_at`, with `missing` events in all that somebody lacks.
    ///
    /// Finding out that a connection is gone, dialling, and joining cost a few idle times; what was lost inside a
    /// session costs a few stalls, since one may be waiting for another; the rest is in proportion to the backlog.
    pub(crate) fn after(quiet_at: Millis, idle_ms: Millis, limits: &Limits, nodes: usize, missing: u64) -> Self {
        let hops = nodes as u64;
        let stalls = limits.stall_ms * u64::from(limits.stalls_max + 2);
        Self(quiet_at + 6000 + 4 * idle_ms + hops * (stalls + 10 * limits.forward_ms) + missing * 100)
    }
}
