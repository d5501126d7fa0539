//! One space in one session: what the peer has, what is on its way, and what is due.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Millis;
use super::message::Refusal;
use crate::causal::{Dot, HashPrefix, ReplicaId, VersionVector, Witness};

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
}

#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    /// Whether this device showed why it may see the space.
    pub(super) shown: bool,
    /// Whether the peer has not answered that yet.
    pub(super) showing: bool,
    /// Whether grants came since what to show was looked for: what was found then may not be all.
    pub(super) grants_came: bool,
    /// Whether this side's Open was sent and not refused.
    pub(super) opened: bool,
    /// Digest and vector of that Open, if it held only the digest, so that the peer may need the knowledge too.
    pub(super) opened_with: Option<([u8; 16], VersionVector)>,
    /// Whether the peer holds another revision of the space, as far as it said: what it says of that counts for nothing.
    pub(super) elsewhere: bool,
    /// Why the peer refused.
    pub(super) refused: Option<Refusal>,
    /// The replicas under whose ids the peer holds another history than this side, as it said itself.
    pub(super) uncertain: BTreeSet<ReplicaId>,
    /// The replicas of which the peer was asked for all, since what came does not fit.
    pub(super) asked: BTreeSet<ReplicaId>,
    /// The replicas of which the peer asked for all: of these, what it says that it has may be another history. When
    /// it asked last.
    pub(super) distrusted: BTreeMap<ReplicaId, Millis>,
    /// What is durable at the peer, as far as it said.
    pub(super) theirs: Option<VersionVector>,
    /// That, and what was sent since.
    pub(super) sent: VersionVector,
    /// What this side said is durable here.
    pub(super) announced: VersionVector,
    /// What must be acknowledged again, since the peer sent what was known already.
    pub(super) owed: BTreeSet<Witness>,
    /// What was sent and is not acknowledged, with its size.
    in_flight: VecDeque<(Witness, usize)>,
    /// The same by hash: what each is called here.
    by_hash: BTreeMap<HashPrefix, Dot>,
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
    /// Whether it waits for room in the session's window.
    pub(super) waiting: bool,
    /// What the replica's timers hold for this link.
    pub(super) scheduled: Option<Millis>,
    /// What the session's sum holds for this link; see [`Link::claim`].
    pub(super) claimed: usize,
}

impl Link {
    /// The peer said what it has: everything else counts as not sent. Of `uncertain` it has another history.
    pub(super) fn reset(&mut self, theirs: VersionVector, uncertain: BTreeSet<ReplicaId>) {
        if self.in_flight.is_empty() || self.theirs.as_ref() != Some(&theirs) {
            self.stalls = 0;
        }
        self.in_flight.clear();
        self.by_hash.clear();
        if !planted!("window-leaks-at-reopening") {
            self.in_flight_bytes = 0;
        }
        self.stall_at = None;
        self.uncertain = uncertain;
        self.sent = theirs.clone();
        self.theirs = Some(theirs);
    }

    /// The peer may lack anything of these replicas, and did not take what is on its way.
    pub(super) fn distrust(&mut self, replicas: impl Iterator<Item = ReplicaId>) {
        for replica in replicas {
            self.theirs.iter_mut().for_each(|theirs| theirs.forget(replica));
            self.sent.forget(replica);
            self.in_flight.retain(|(last, _)| last.dot.replica != replica);
            self.by_hash.retain(|_, dot| dot.replica != replica);
        }
        self.in_flight_bytes = self.in_flight.iter().map(|(_, bytes)| bytes).sum();
    }

    /// The peer has `dot`, and all below it.
    pub(super) fn acknowledged(&mut self, dot: Dot) {
        if let Some(theirs) = &mut self.theirs {
            if planted!("older-ack-counts") {
                theirs.forget(dot.replica);
            }
            theirs.advance(dot);
            self.sent.advance(dot);
        }
    }

    /// What the event of this hash is called here, if it is on its way.
    pub(super) fn on_its_way(&self, witness: &Witness) -> Option<Dot> {
        self.by_hash.get(&witness.hash).copied()
    }

    /// Forgets what the peer has acknowledged. Returns whether that was anything.
    pub(super) fn settle(&mut self) -> bool {
        let Some(theirs) = &self.theirs else { return false };
        let before = self.in_flight.len();
        while let Some((last, bytes)) = self.in_flight.front().copied()
            && theirs.contains(last.dot)
        {
            self.in_flight.pop_front();
            self.by_hash.remove(&last.hash);
            self.in_flight_bytes -= if planted!("window-leaks") { 0 } else { bytes.min(self.in_flight_bytes) };
        }
        before != self.in_flight.len()
    }

    /// The peer refused, so nothing of what was believed about it counts any more.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        let Self { shown, grants_came, elsewhere, waiting, scheduled, claimed, .. } = *self;
        *self = Self {
            refused: Some(refusal),
            shown,
            grants_came,
            elsewhere,
            waiting,
            scheduled,
            claimed,
            ..Self::default()
        };
    }

    /// Nothing that the peer said counts any more: it must say it anew.
    pub(super) fn unlearn(&mut self) {
        let Self { shown, elsewhere, waiting, scheduled, claimed, fetching, opened, awaiting, .. } = *self;
        *self = Self { shown, elsewhere, waiting, scheduled, claimed, fetching, opened, awaiting, ..Self::default() };
    }

    /// The peer's grant is gone: nothing is said to it any more, and what it still says counts for nothing.
    pub(super) fn close(&mut self) {
        let Self { elsewhere, waiting, scheduled, claimed, .. } = *self;
        *self = Self { elsewhere, waiting, scheduled, claimed, ..Self::default() };
    }

    /// Whether this side has stopped serving it, or never began to.
    pub(super) fn is_closed(&self) -> bool {
        !self.opened && self.refused.is_none()
    }

    /// Events up to `last` are on their way. That they are here need not be said any more.
    pub(super) fn send(&mut self, last: Witness, bytes: usize) {
        self.announced.advance(last.dot);
        self.sent.advance(last.dot);
        if planted!("sent-counts-as-received") {
            self.theirs.iter_mut().for_each(|theirs| theirs.advance(last.dot));
        }
        self.in_flight.push_back((last, bytes));
        self.by_hash.insert(last.hash, last.dot);
        self.in_flight_bytes += if planted!("window-uncounted") { 0 } else { bytes };
    }

    /// How much of the session's window it takes: what is on its way, and what is being read to be sent.
    pub(super) fn claim(&self, fetch_bytes_max: usize) -> usize {
        self.in_flight_bytes + if self.fetching { fetch_bytes_max } else { 0 }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Every moment that it remembers.
    pub(super) fn moments(&mut self) -> impl Iterator<Item = &mut Millis> {
        let Self { ack_at, forward_at, reopen_at, stall_at, scheduled, distrusted, .. } = self;
        [ack_at, forward_at, reopen_at, stall_at, scheduled].into_iter().flatten().chain(distrusted.values_mut())
    }

    /// The first moment at which something is to be done.
    pub(super) fn due(&self) -> Option<Millis> {
        [self.ack_at, self.forward_at, self.reopen_at, self.stall_at].into_iter().flatten().min()
    }

    pub(super) fn state(&self, ours: &VersionVector) -> LinkState {
        match (&self.theirs, self.refused) {
            (_, Some(refusal)) => LinkState::Refused(refusal),
            (None, None) => LinkState::Opening,
            (Some(theirs), None) if theirs == ours => LinkState::Synced,
            (Some(_), None) => LinkState::Syncing,
        }
    }
}
