//! One space in one session: what the peer has, what is on its way, and what is due.

use std::collections::{BTreeSet, VecDeque};

use super::Millis;
use super::message::Refusal;
use crate::causal::{Dot, ReplicaId, VersionVector};

/// How far the exchange of a space with one peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Waiting for the peer to say what it knows.
    Opening,
    /// One side lacks something.
    Syncing,
    /// Both know the same, durably.
    Synced,
    /// The peer will not exchange it.
    Refused(Refusal),
    /// Both claim the same events but not the same history: a store was copied or rolled back.
    Forked,
}

#[derive(Debug, Default)]
pub(super) struct Link {
    /// Whether this side's Open was sent and not refused.
    pub(super) opened: bool,
    /// Digest and vector of that Open, if it held only the digest, so that the peer may need the knowledge too.
    pub(super) opened_with: Option<([u8; 16], VersionVector)>,
    /// Why the peer refused.
    pub(super) refused: Option<Refusal>,
    /// The peer knows the same events with other hashes.
    pub(super) forked: bool,
    /// What is durable at the peer, as far as it said.
    pub(super) theirs: Option<VersionVector>,
    /// That, and what was sent since.
    pub(super) sent: VersionVector,
    /// What this side said is durable here.
    pub(super) announced: VersionVector,
    /// Replicas that must be acknowledged again, since the peer sent what was known already.
    pub(super) owed: BTreeSet<ReplicaId>,
    /// What was sent and is not acknowledged, with its size.
    in_flight: VecDeque<(Dot, usize)>,
    pub(super) in_flight_bytes: usize,
    /// The probe that the peer has not answered yet.
    pub(super) awaiting: Option<u64>,
    /// Whether a read of the log is under way.
    pub(super) fetching: bool,
    /// When to acknowledge what came from others.
    pub(super) ack_at: Option<Millis>,
    /// When to forward what came from others, to a peer that still lacks it.
    pub(super) forward_at: Option<Millis>,
    /// When to say anew what is known here, because something came that does not fit.
    pub(super) reopen_at: Option<Millis>,
    /// When to ask anew what is known there, because nothing was acknowledged for long.
    pub(super) stall_at: Option<Millis>,
    /// How often it was opened anew without any progress.
    pub(super) stalls: u32,
    /// What the replica's timers hold for this link.
    pub(super) scheduled: Option<Millis>,
}

impl Link {
    /// The peer said what it has: everything else counts as not sent.
    pub(super) fn reset(&mut self, theirs: VersionVector) {
        if self.in_flight.is_empty() || self.theirs.as_ref() != Some(&theirs) {
            self.stalls = 0;
        }
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.stall_at = None;
        self.sent = theirs.clone();
        self.theirs = Some(theirs);
    }

    /// The peer has `dot`, and all below it.
    pub(super) fn acknowledged(&mut self, dot: Dot) {
        if let Some(theirs) = &mut self.theirs {
            theirs.advance(dot);
            self.sent.advance(dot);
        }
    }

    /// Forgets what the peer has acknowledged. Returns whether that was anything.
    pub(super) fn settle(&mut self) -> bool {
        let Some(theirs) = &self.theirs else { return false };
        let before = self.in_flight.len();
        while let Some((dot, bytes)) = self.in_flight.front().copied()
            && theirs.contains(dot)
        {
            self.in_flight.pop_front();
            self.in_flight_bytes -= bytes;
        }
        before != self.in_flight.len()
    }

    /// The peer refused, so nothing of what was believed about it counts any more.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        let scheduled = self.scheduled;
        *self = Self { refused: Some(refusal), scheduled, ..Self::default() };
    }

    /// The peer's grant is gone: nothing is said to it any more, and what it still says counts for nothing.
    pub(super) fn close(&mut self) {
        let scheduled = self.scheduled;
        *self = Self { scheduled, ..Self::default() };
    }

    /// Whether this side has stopped serving it, or never began to.
    pub(super) fn is_closed(&self) -> bool {
        !self.opened && self.refused.is_none()
    }

    /// Events up to `last` are on their way. That they are here need not be said any more.
    pub(super) fn send(&mut self, last: Dot, bytes: usize) {
        self.announced.advance(last);
        self.sent.advance(last);
        self.in_flight.push_back((last, bytes));
        self.in_flight_bytes += bytes;
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// The first moment at which something is to be done.
    pub(super) fn due(&self) -> Option<Millis> {
        [self.ack_at, self.forward_at, self.reopen_at, self.stall_at].into_iter().flatten().min()
    }

    pub(super) fn state(&self, ours: &VersionVector) -> LinkState {
        match (&self.theirs, self.refused) {
            (_, Some(refusal)) => LinkState::Refused(refusal),
            (None, None) => LinkState::Opening,
            (Some(_), None) if self.forked => LinkState::Forked,
            (Some(theirs), None) if theirs == ours => LinkState::Synced,
            (Some(_), None) => LinkState::Syncing,
        }
    }
}
