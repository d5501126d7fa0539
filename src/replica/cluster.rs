//! Cluster peers: two nodes that replicate every space of theirs to each other.
//!
//! Each side says at the beginning of a session whether it counts the other as a cluster peer. Only if both do, each
//! shares its spaces: it has the ledger grant the other ownership of every space that it owns itself
//! ([`Output::Share`]), and introduces the space, so that the other can hold it ([`Output::Join`]). From there on it is
//! a space like any other.
//!
//! **Invariant**: a space is shared only in a session in which both sides said so, and an introduction is taken only
//! in such a session. What one side says alone changes nothing.
//!
//! What it does not do: decide who is a cluster peer (the node's settings do), or whether this device owns a space (the
//! ledger does, inside the transaction).

use std::collections::BTreeSet;

use super::{Channel, Introduction, Message, Output, PeerMisbehaved, Replica, Session, SessionId};
use crate::model::SpaceId;

/// The longest name that a peer may introduce a space with, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What the two sides of a session are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Neither counts the other as a cluster peer.
    Peers,
    /// Both do: every space that one of them owns is the other's too.
    Cluster,
    /// Only this node does, which makes them peers.
    OneSidedHere,
    /// Only the peer does, which makes them peers.
    OneSidedThere,
}

/// A session, as far as it is about a cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    /// Whether this node counts the peer as a cluster peer.
    ours: bool,
    /// Whether the peer said that it counts this node as one.
    theirs: bool,
    /// The spaces that the ledger was asked to share.
    sharing: BTreeSet<SpaceId>,
    /// The spaces that were introduced to the peer.
    introduced: BTreeSet<SpaceId>,
    /// The spaces that the peer introduced and that are not held yet.
    joining: BTreeSet<SpaceId>,
    /// A probe that waits until the peer has heard of every space.
    probe_waits: bool,
    /// The number of a probe of the peer's that is answered once every space that it introduced is held.
    probe_owed: Option<u64>,
}

impl Cluster {
    /// Of a new session.
    pub(super) fn new(ours: bool) -> Self {
        Self { ours, ..Self::default() }
    }
}

impl Session {
    /// Whether this node has told the peer of every space that there is.
    fn has_shared(&self) -> bool {
        // Until the peer has counted its spaces it may still say that it counts this node as a cluster peer.
        (!self.cluster.ours || self.offered.is_some()) && self.cluster.sharing.is_empty()
    }

    /// Whether neither side waits to hold what the other has introduced or is about to.
    pub(super) fn has_gathered(&self) -> bool {
        self.has_shared() && self.cluster.joining.is_empty()
    }
}

/// Refuses what nobody can call a space, and what no owner of it said.
pub(super) fn check(introduction: &Introduction) -> Result<(), PeerMisbehaved> {
    let Introduction { genesis, revision, name } = introduction;
    if name.len() > NAME_BYTES_MAX {
        return Err(PeerMisbehaved::TooMany { what: "bytes in the name of a space", limit: NAME_BYTES_MAX });
    }
    Ok(revision.verify(genesis.space(), genesis.creator)?)
}

impl Replica {
    /// What the two sides of `session` are to each other; none before the peer has said so.
    pub fn relation(&self, session: SessionId) -> Option<Relation> {
        let state = self.sessions.get(&session)?;
        match (state.cluster.ours, state.cluster.theirs) {
            (true, true) => Some(Relation::Cluster),
            (false, true) => Some(Relation::OneSidedThere),
            // A peer that counts this node as a cluster peer says so before it counts its spaces.
            (true, false) => state.offered.map(|_| Relation::OneSidedHere),
            (false, false) => state.offered.map(|_| Relation::Peers),
        }
    }

    pub(super) fn on_cluster(&mut self, session: SessionId) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        state.cluster.theirs = true;
        let spaces: Vec<SpaceId> = self.spaces.keys().copied().collect();
        for space in spaces {
            self.share(session, space);
        }
    }

    /// Shares `space` with every cluster peer that does not have it all yet.
    pub(super) fn share_with_cluster(&mut self, space: SpaceId) {
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.share(session, space);
        }
    }

    fn share(&mut self, session: SessionId, space: SpaceId) {
        let (Some(held), Some(state)) = (self.spaces.get(&space), self.sessions.get_mut(&session)) else { return };
        if !state.cluster.ours || !state.cluster.theirs {
            return;
        }
        let is_owner = held.access.role(state.peer) == Some(crate::model::Role::Owner);
        let knows_of_it = state.opened.contains(&space) || state.cluster.introduced.contains(&space);
        if !(is_owner && knows_of_it) && state.cluster.sharing.insert(space) {
            let device = state.peer;
            self.outputs.push_back(Output::Share { session, space, device });
        }
    }

    /// The ledger has shared `space`, or could not.
    pub(super) fn shared(&mut self, session: SessionId, space: SpaceId, introduction: Option<Introduction>) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        state.cluster.sharing.remove(&space);
        if let Some(introduction) = introduction
            && !state.opened.contains(&space)
            && state.cluster.introduced.insert(space)
            && !planted!("space-not-introduced")
        {
            self.send(session, Channel::Control, Message::Introduce(introduction));
        }
        self.probe_if_gathered(session);
    }

    pub(super) fn on_introduce(
        &mut self,
        session: SessionId,
        introduction: Introduction,
    ) -> Result<(), PeerMisbehaved> {
        if self.relation(session) != Some(Relation::Cluster) {
            return Err(PeerMisbehaved::Unexpected("introduction to a space"));
        }
        check(&introduction)?;
        let space = introduction.genesis.space();
        let (held, limit) = (&self.spaces, self.limits.spaces_max);
        let Some(state) = self.sessions.get_mut(&session).filter(|_| !held.contains_key(&space)) else { return Ok(()) };
        if held.len() + state.cluster.joining.len() >= limit {
            return Err(PeerMisbehaved::TooMany { what: "spaces", limit });
        }
        if state.cluster.joining.insert(space) {
            let introducer = state.peer;
            self.outputs.push_back(Output::Join { introduction, introducer });
        }
        Ok(())
    }

    /// `space` is held from now on: nobody waits for it any more, and cluster peers are to have it too.
    pub(super) fn gathered(&mut self, space: SpaceId) {
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in sessions {
            if let Some(state) = self.sessions.get_mut(&session) {
                state.cluster.joining.remove(&space);
            }
            self.share(session, space);
            self.probe_if_gathered(session);
        }
    }

    /// Whether a probe has to wait, since the peer is to hear of further spaces before it.
    pub(super) fn defers_probe(&mut self, session: SessionId) -> bool {
        let Some(state) = self.sessions.get_mut(&session) else { return false };
        state.cluster.probe_waits = !state.has_shared();
        state.cluster.probe_waits
    }

    /// Whether the answer to a probe has to wait, since spaces that the peer introduced are not held yet.
    pub(super) fn defers_answer(&mut self, session: SessionId, nonce: u64) -> bool {
        let Some(state) = self.sessions.get_mut(&session).filter(|state| !state.has_gathered()) else { return false };
        state.cluster.probe_owed = Some(nonce);
        true
    }

    /// Sends the probe that waited, and the answer that was owed, if nothing stands in their way any more.
    pub(super) fn probe_if_gathered(&mut self, session: SessionId) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        let probe = state.has_shared() && std::mem::take(&mut state.cluster.probe_waits);
        let owed = if state.has_gathered() { state.cluster.probe_owed.take() } else { None };
        if probe {
            self.probe(session);
        }
        if let Some(nonce) = owed {
            self.on_probe(session, Channel::Control, nonce);
        }
    }
}
