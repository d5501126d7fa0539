//! The connections of a node, one per peer at most: how they begin, and what their end leaves behind.
//!
//! **Invariant**: of two connections to one peer both sides keep the same one.

use std::time::{Duration, Instant};

use super::Driver;
use super::joins::JoinStage;
use crate::model::DeviceId;
use crate::node::dialing::Stage;
use crate::node::disk::{DiskJob, Waiter, wall_ms};
use crate::node::wire::Wire;
use crate::replica::{Input, LinkState, PeerMisbehaved, SessionId};
use crate::store::{Acknowledged, Work};
use crate::transport::{CloseReason, Connection};

/// Two connections to one peer in opposite directions, made within this time, were dialled by both at once.
const DIALLED_AT_ONCE: Duration = Duration::from_secs(3);
/// A connection without a hello is closed after so long.
pub(super) const GREET_WITHIN: Duration = Duration::from_secs(10);

/// One connection.
pub(super) struct Session {
    pub(super) device: DeviceId,
    pub(super) wire: Wire,
    pub(super) dialled: bool,
    pub(super) since: Instant,
    pub(super) greeted: bool,
}

impl Driver {
    pub(super) fn session_of(&self, device: DeviceId) -> Option<(SessionId, &Session)> {
        self.sessions.iter().find(|(_, session)| session.device == device).map(|(id, session)| (*id, session))
    }

    pub(super) fn connected(&mut self, connection: Connection, dialled: bool) {
        let device = connection.peer();
        if connection.close_cause().is_some() {
            // Of several dials at once only one is kept; this one was given up before it got here.
            if let Some(known) = self.peers.get_mut(device)
                && known.stage == Stage::Dialing
            {
                known.failed("the connection was closed at once".to_owned(), Instant::now());
            }
            return;
        }
        if device == self.ledger.device() {
            connection.close(CloseReason::new(CloseReason::FIRST_OF_SESSIONS + 3, "this is the same device"));
            self.peers.entry(device).failed("this address is this device itself".to_owned(), Instant::now());
            return;
        }
        let old = self.sessions.iter().find(|(_, session)| session.device == device).map(|(id, session)| {
            let at_once = session.dialled != dialled && session.since.elapsed() < DIALLED_AT_ONCE;
            // Both sides must choose the same one: the one that the smaller device dialled.
            (*id, at_once && session.dialled == (self.ledger.device() < device))
        });
        let duplicate = || CloseReason::new(CloseReason::FIRST_OF_SESSIONS + 4, "another connection is in use");
        if let Some((old, keep_old)) = old {
            if keep_old {
                connection.close(duplicate());
                return;
            }
            if let Some(session) = self.sessions.get(&old) {
                session.wire.close(duplicate());
            }
            self.end(old, "replaced by a newer connection");
        }
        let session = SessionId(self.next_session);
        self.next_session += 1;
        tracing::debug!(peer = %device, address = %connection.remote_address(), dialled, "connected");
        let wire = Wire::start(session, connection, &self.events);
        let since = Instant::now();
        self.sessions.insert(session, Session { device, wire, dialled, since, greeted: false });
        self.peers.entry(device).stage = Stage::Connected(session);
        self.handle(Input::Connected { session, peer: device });
    }

    /// Takes note of a hello.
    pub(super) fn greet(&mut self, id: SessionId) {
        let Some(hello) = self.replica.hello(id) else { return };
        if let Some(session) = self.sessions.get_mut(&id)
            && !session.greeted
        {
            session.greeted = true;
            let address = session.wire.connection().remote_address();
            tracing::info!(peer = %session.device, %address, agent = %hello.agent, "peer connected");
            let device = session.device;
            self.peers.entry(device).greeted();
            self.welcome();
        }
    }

    /// Whether a device has a role in any space that is held here.
    pub(super) fn is_member(&self, device: DeviceId) -> bool {
        let access = |space| self.ledger.access(space);
        self.ledger.spaces().into_iter().filter_map(access).any(|access| access.role(device).is_some())
    }

    /// Lifts the transport's limits for strangers from every peer that may see a space. Anybody else can redeem a
    /// ticket and nothing more, for which those limits leave room.
    pub(super) fn welcome(&self) {
        for session in self.sessions.values().filter(|session| session.greeted && !session.dialled) {
            if self.is_member(session.device) {
                session.wire.connection().admit();
            }
        }
    }

    pub(super) fn closed(&mut self, session: SessionId, cause: &str) {
        if let Some(gone) = self.sessions.get(&session) {
            tracing::info!(peer = %gone.device, %cause, "peer disconnected");
            self.end(session, cause);
        }
    }

    /// Forgets a session, and plans to connect again.
    pub(super) fn end(&mut self, session: SessionId, cause: &str) {
        if let Some(ended) = self.sessions.get(&session) {
            self.remembered.retain(|(_, device), _| *device != ended.device);
        }
        self.remember(Some(session));
        let Some(gone) = self.sessions.remove(&session) else { return };
        self.handle(Input::Disconnected { session });
        let known = self.peers.entry(gone.device);
        if known.stage == Stage::Connected(session) {
            known.failed(cause.to_owned(), Instant::now());
            // Whoever came by itself, and cannot be dialled, is forgotten, so that strangers leave nothing behind;
            // unless it is a member that misbehaved, which people should see.
            if known.addresses.is_empty() && (known.misbehaved.is_none() || !self.is_member(gone.device)) {
                self.peers.remove(gone.device);
            }
        }
        for join in self.joins.iter_mut().filter(|join| join.stage == JoinStage::Asked(session)) {
            join.stage = JoinStage::Reaching;
        }
    }

    pub(super) fn turn_away(&mut self, session: SessionId, reason: &PeerMisbehaved) {
        let Some(peer) = self.sessions.get(&session) else { return };
        tracing::warn!(peer = %peer.device, %reason, "turned a peer away");
        peer.wire.close(CloseReason::new(CloseReason::FIRST_OF_SESSIONS, &reason.to_string()));
        let device = peer.device;
        self.peers.entry(device).misbehaved = Some(reason.to_string());
        self.end(session, &format!("it {reason}"));
    }

    /// Writes down what peers acknowledged, of one session or of all.
    pub(super) fn remember(&mut self, only: Option<SessionId>) {
        self.note_synced();
        for (id, session) in &self.sessions {
            if only.is_some_and(|only| only != *id) {
                continue;
            }
            for (space, vector) in self.replica.acknowledged(*id) {
                let link = (space, session.device);
                // A disk is not kept busy, and a full one not filled, by what it knows already.
                if self.remembered.get(&link) == Some(&vector) {
                    continue;
                }
                self.remembered.insert(link, vector.clone());
                let synced_ms = self.synced_ms.get(&link).copied();
                let row = Acknowledged { space, device: session.device, vector, synced_ms };
                self.disk.send(DiskJob::Commit(Work::Acknowledged(row), Waiter::None));
            }
        }
    }

    /// Notes the moment for every link that is in step.
    pub(super) fn note_synced(&mut self) {
        let now = wall_ms();
        for space in self.ledger.spaces() {
            for link in self.replica.links(space) {
                if link.state == LinkState::Synced {
                    self.synced_ms.insert((space, link.peer), now);
                }
            }
        }
    }
}
