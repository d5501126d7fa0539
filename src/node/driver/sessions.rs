//! The connections of a node, one per store of a peer at most: how they begin, and what their end leaves behind.
//!
//! **Invariant**: of two connections to one peer both sides keep the same one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Driver;
use super::joins::JoinStage;
use super::meetings::{Meeting, ms};
use crate::model::{DeviceId, SpaceId};
use crate::node::dialing::Stage;
use crate::node::disk::{DiskJob, Waiter};
use crate::node::wire::Wire;
use crate::replica::{Input, LinkState, PeerMisbehaved, Relation, SessionId};
use crate::store::{Acknowledged, Work};
use crate::transport::{CloseReason, Connection, FrameReceiver};

/// Two connections to one peer in opposite directions, made within this time, were dialled by both at once.
const DIALLED_AT_ONCE: Duration = Duration::from_secs(3);
/// A connection without a hello is closed after so long.
pub(super) const GREET_WITHIN: Duration = Duration::from_secs(10);

/// How many strangers, who may see no space, can be connected at a time: to redeem a ticket takes them moments.
const STRANGERS_MAX: usize = 64;

fn duplicate() -> CloseReason {
    CloseReason::new(CloseReason::FIRST_OF_SESSIONS + 4, "another connection is in use")
}

/// So many copies of one device's store may be connected at a time.
const COPIES_MAX: usize = 4;

/// One connection.
pub(super) struct Session {
    pub(super) device: DeviceId,
    pub(super) wire: Wire,
    pub(super) dialled: bool,
    pub(super) since: Instant,
    pub(super) greeted: bool,
    /// What both are to each other, once the peer has said so.
    pub(super) relation: Option<Relation>,
    /// Whether a ticket was shown to the peer and its answer is still to come.
    pub(super) redeeming: bool,
    /// How each space stands with it, for people.
    pub(super) meetings: BTreeMap<SpaceId, Meeting>,
}

impl Session {
    /// Tells people that it is over. A connection that came to no hello is nobody's news.
    pub(super) fn tell_end(&self, now: Instant, cause: &str) {
        let (peer, lasted_ms) = (self.device, ms(now.saturating_duration_since(self.since)));
        if self.greeted {
            tracing::info!(%peer, %cause, lasted_ms, "peer disconnected");
        } else {
            tracing::debug!(%peer, %cause, lasted_ms, "disconnected before a hello");
        }
    }
}

impl Driver {
    /// The newest session with a device, of those that it greeted in if there is one.
    pub(super) fn session_of(&self, device: DeviceId) -> Option<(SessionId, &Session)> {
        let mut newest = self.sessions.iter().rev().filter(|(_, session)| session.device == device).peekable();
        let first = newest.peek().copied();
        newest.find(|(_, session)| session.greeted).or(first).map(|(id, session)| (*id, session))
    }

    /// Takes a connection: one that was dialled here, or one whose dialer has opened the first stream.
    pub(super) fn connected(&mut self, connection: Connection, first: Option<FrameReceiver>) {
        let device = connection.peer();
        let dialled = first.is_none();
        if connection.close_cause().is_some() {
            // Of several dials at once only one is kept; this one was given up before it got here.
            if let Some(known) = self.peers.get_mut(device)
                && known.stage == Stage::Dialing
            {
                let (now, chance) = (self.surroundings.now(), self.surroundings.random());
                known.failed("the connection was closed at once".to_owned(), now, chance);
            }
            return;
        }
        if device == self.ledger.device() {
            connection.close(CloseReason::new(CloseReason::FIRST_OF_SESSIONS + 3, "this is the same device"));
            let (now, chance) = (self.surroundings.now(), self.surroundings.random());
            self.peers.entry(device).failed("this address is this device itself".to_owned(), now, chance);
            return;
        }
        let since = self.surroundings.now();
        let old = self.sessions.iter().find(|(_, session)| session.device == device).map(|(id, session)| {
            let at_once = since.saturating_duration_since(session.since) < DIALLED_AT_ONCE;
            // Both sides must choose the same one. Of two in the same direction the dialer keeps the first, and then
            // opens no stream on the other; of two in opposite ones both keep the one that the smaller device dialled.
            let keep_old =
                if session.dialled == dialled { dialled } else { session.dialled == (self.ledger.device() < device) };
            (*id, at_once, at_once && keep_old)
        });
        if let Some((old, at_once, keep_old)) = old {
            if keep_old {
                connection.close(duplicate());
                return;
            }
            // Of two that came from there nothing tells which one is used, before one of them has said hello.
            let both_came = !dialled && !self.sessions.get(&old).is_some_and(|session| session.dialled);
            if dialled || (at_once && !both_came) {
                self.replace(old);
            }
            let of_device = self.sessions.values().filter(|session| session.device == device).count();
            if of_device >= COPIES_MAX
                && let Some((oldest, _)) = self.sessions.iter().find(|(_, session)| session.device == device)
            {
                self.replace(*oldest);
            }
            // A dialer that is connected already has lost that connection, or is another copy of the same store, which
            // has the same key: its hello tells.
        }
        if !dialled && !self.is_member(device) {
            self.make_room_for_a_stranger();
        }
        let session = SessionId(self.next_session);
        self.next_session += 1;
        tracing::debug!(peer = %device, address = %connection.remote_address(), dialled, "connected");
        let wire = Wire::start(session, connection, first, &self.intake, &self.surroundings, &self.events);
        let (greeted, relation, redeeming, meetings) = (false, None, false, BTreeMap::new());
        let state = Session { device, wire, dialled, since, greeted, relation, redeeming, meetings };
        self.sessions.insert(session, state);
        self.peers.entry(device).stage = Stage::Connected(session);
        let cluster = self.cluster.contains(&device);
        self.handle(Input::Connected { session, peer: device, cluster });
    }

    /// Ends a session whose place another one takes.
    fn replace(&mut self, old: SessionId) {
        if let Some(session) = self.sessions.get(&old) {
            session.wire.close(duplicate());
        }
        self.end(old, "replaced by a newer connection");
    }

    /// Of too many strangers the one that has been here longest has to go, so that they never keep anybody out.
    fn make_room_for_a_stranger(&mut self) {
        let is_stranger = |session: &Session| !session.dialled && !self.is_member(session.device);
        let strangers = self.sessions.iter().filter(|(_, session)| is_stranger(session)).map(|(id, _)| *id);
        let strangers: Vec<SessionId> = strangers.collect();
        if strangers.len() < STRANGERS_MAX {
            return;
        }
        if let Some((session, state)) = strangers.first().and_then(|id| self.sessions.get_key_value(id)) {
            let reason = CloseReason::new(CloseReason::FIRST_OF_SESSIONS + 7, "others wait, and you share no space");
            state.wire.close(reason);
            self.end(*session, "others wait, and it shares no space");
        }
    }

    /// Takes note of a hello.
    pub(super) fn greet(&mut self, id: SessionId) {
        let Some(hello) = self.replica.hello(id) else { return };
        let (agent, replica, process) = (hello.agent.clone(), hello.replica, hello.process);
        let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.greeted) else { return };
        session.greeted = true;
        let (device, dialled, address) = (session.device, session.dialled, session.wire.connection().remote_address());
        tracing::info!(peer = %device, %address, dialled, ?agent, "peer connected");
        // Two connections to one device may stand if these are two copies of its store: each has an id of its own, or
        // neither has written anything yet, and only that they are two processes tells them from one. An earlier process
        // that is gone looks the same until its connection is found dead; mostly it was at the same address.
        let is_older = |(other, session): (&SessionId, &Session)| {
            let is_same = self.replica.hello(*other).is_none_or(|hello| {
                let was_there = session.wire.connection().remote_address() == address;
                hello.process == process || (hello.replica == replica && was_there)
            });
            (*other != id && session.device == device && is_same).then_some(*other)
        };
        let older: Vec<SessionId> = self.sessions.iter().filter_map(is_older).collect();
        older.into_iter().for_each(|older| self.replace(older));
        self.peers.entry(device).greeted();
        self.welcome();
    }

    /// Whether a device has a role in any space that is held here.
    pub(super) fn is_member(&self, device: DeviceId) -> bool {
        let access = |space| self.ledger.access(space);
        self.ledger.spaces().into_iter().filter_map(access).any(|access| access.may_see(device))
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

    /// Forgets a session, and plans to connect again.
    pub(super) fn end(&mut self, session: SessionId, cause: &str) {
        if let Some(ended) = self.sessions.get(&session) {
            self.remembered.retain(|(_, device), _| *device != ended.device);
        }
        self.remember(Some(session));
        let Some(gone) = self.sessions.remove(&session) else { return };
        gone.tell_end(self.surroundings.now(), cause);
        self.handle(Input::Disconnected { session });
        let other = self.session_of(gone.device).map(|(id, _)| id);
        let known = self.peers.entry(gone.device);
        if let Some(other) = other {
            known.stage = Stage::Connected(other);
        } else if known.stage == Stage::Connected(session) {
            known.failed(cause.to_owned(), self.surroundings.now(), self.surroundings.random());
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
                let Some(revision) = self.replica.revision(space) else { continue };
                let link = (space, session.device);
                // A disk is not kept busy, and a full one not filled, by what it knows already.
                if self.remembered.get(&link) == Some(&vector) {
                    continue;
                }
                self.remembered.insert(link, vector.clone());
                let synced_ms = self.synced_ms.get(&link).copied();
                let row = Acknowledged { space, revision, device: session.device, vector, synced_ms };
                self.disk.send(DiskJob::Commit(Work::Acknowledged(row), Waiter::None));
            }
        }
    }

    /// Notes the moment for every link that is in step.
    pub(super) fn note_synced(&mut self) {
        let now = self.surroundings.wall_ms();
        for space in self.ledger.spaces() {
            for link in self.replica.links(space) {
                if link.state == LinkState::Synced {
                    self.synced_ms.insert((space, link.peer), now);
                }
            }
        }
    }
}
