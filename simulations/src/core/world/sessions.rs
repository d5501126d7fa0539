//! Sessions between nodes: how they are made, how they end, and what arrives on them.

use thence::causal::Knowledge;
use thence::model::SpaceId;
use thence::replica::{Channel, Input, Message, Open, SessionId};

use super::{Happening, World};
use crate::core::node::Node;
use crate::oracles::{At, Failure};
use crate::oracles::{Shelf, Told, check_belief};
use crate::world::{Arrival, Millis, Side};

impl World<'_> {
    pub(super) fn dial_later(&mut self, edge: usize) {
        self.dials[edge] += 1;
        let delay = self.chance.draws("dial", (edge as u64) << 32 | self.dials[edge]).within((5, 60));
        self.schedule(self.now + delay, Happening::Dial { edge });
    }

    pub(super) fn dial(&mut self, edge: usize) {
        let (dialer, listener) = self.scenario.edges[edge];
        let connected = self.dialled[edge].is_some_and(|session| {
            self.network.lines.get(&session).is_some_and(|line| line.side_of(dialer) != Side::Down)
        });
        if connected || self.nodes[dialer].process.is_none() || self.is_cut_off(listener) {
            return;
        }
        let reachable = self.nodes[listener].process.is_some()
            && !self.network.is_cut(dialer, listener)
            && !self.network.is_cut(listener, dialer);
        if !reachable {
            self.dial_later(edge);
            return;
        }
        let session = self.network.connect(edge, dialer, listener);
        self.dialled[edge] = Some(session);
        let at = self.now + self.chance.draws("connect", session.0).within(self.scenario.weather.delay_ms);
        for node in [dialer, listener] {
            let life = self.nodes[node].life;
            self.schedule(at, Happening::Connected { session, node, life });
        }
    }

    pub(super) fn connected(&mut self, session: SessionId, node: usize, life: u64) -> Result<(), Failure> {
        let Some(line) = self.network.lines.get_mut(&session) else { return Ok(()) };
        let end = line.end_of(node);
        if line.sides[end] != Side::Pending {
            return Ok(());
        }
        line.sides[end] = Side::Up;
        let peer = line.peer_of(node);
        if !self.is_alive(node, life) {
            self.leave(session, node);
            return Ok(());
        }
        if self.members.iter().all(|(members, _)| !members.contains(&node)) {
            self.strike("outsider", peer, Some(node));
        }
        self.tell_session(node, peer, true);
        let peer = self.nodes[peer].device();
        self.trace.note(self.now, node, "connected", &session.0.to_le_bytes());
        self.handle(node, Input::Connected { session, peer, cluster: self.scenario.cluster })
    }

    /// One node is done with a session; the other will find out.
    pub(super) fn leave(&mut self, session: SessionId, node: usize) {
        let Some(line) = self.network.lines.get_mut(&session) else { return };
        let (end, peer, edge) = (line.end_of(node), line.peer_of(node), line.edge);
        line.sides[end] = Side::Down;
        if line.sides[1 - end] != Side::Down {
            let notice = self.chance.draws("notice", session.0).within((1, self.scenario.idle_ms));
            self.schedule(self.now + notice, Happening::Disconnected { session, node: peer });
        }
        if end == 0 && self.nodes[node].process.is_some() {
            self.dial_later(edge);
        }
    }

    pub(super) fn disconnected(&mut self, session: SessionId, node: usize) -> Result<(), Failure> {
        let Some(line) = self.network.lines.get_mut(&session) else { return Ok(()) };
        let was = line.side_of(node);
        let end = line.end_of(node);
        if was == Side::Down {
            return Ok(());
        }
        line.sides[end] = Side::Down;
        let (edge, dialer, peer) = (line.edge, line.ends[0], line.peer_of(node));
        for held in self.network.forget_held(session) {
            self.tell_lost(held.told_as, "the connection ended while it waited");
        }
        if was == Side::Up {
            self.tell_session(node, peer, false);
        }
        self.trace.note(self.now, node, "disconnected", &session.0.to_le_bytes());
        if was == Side::Up && self.nodes[node].process.is_some() {
            self.handle(node, Input::Disconnected { session })?;
        }
        if dialer == node {
            self.dial_later(edge);
        }
        Ok(())
    }

    /// Ends all sessions between two nodes; each finds out at a time of its own.
    pub(super) fn end_sessions(&mut self, a: usize, b: usize, notice_ms: (Millis, Millis)) {
        let sessions: Vec<SessionId> = (self.network.lines.iter())
            .filter(|(_, line)| line.ends == [a, b] || line.ends == [b, a])
            .map(|(session, _)| *session)
            .collect();
        for session in sessions {
            for node in [a, b] {
                let notice = self.chance.draws("ended", session.0 << 8 | node as u64).within(notice_ms);
                self.schedule(self.now + notice, Happening::Disconnected { session, node });
            }
        }
    }

    pub(super) fn arrive(&mut self, arrival: Arrival) -> Result<(), Failure> {
        let Arrival { session, to, channel, kind, body, said_in, told_as } = arrival;
        let Some(line) = self.network.lines.get(&session) else { return Ok(()) };
        if line.side_of(to) != Side::Up || self.nodes[to].process.is_none() {
            self.tell_lost(told_as, "the connection had ended");
            return Ok(());
        }
        let peer = line.peer_of(to);
        if let Channel::Space(space) = channel
            && !self.scenario.is_hostile(peer)
            && self.opened.get(&(session, space, to)).is_some_and(|opened| said_in < *opened)
        {
            // Nothing in a message says of which revision it is but the opening before it: so much order there is.
            self.tell_lost(told_as, "the space was opened in a later revision meanwhile");
            return Ok(());
        }
        self.tell_arrived(told_as, self.now);
        self.trace.note(self.now, to, "received", &[kind]);
        self.trace.note(self.now, to, "body", &body);
        self.trace.tell(self.now, || match Message::decode(kind, true, &body) {
            Ok(Some(Message::Segments(segments))) => {
                let found = |bytes: &[u8]| match channel {
                    Channel::Space(space) => self.history.find_anywhere(space, bytes),
                    Channel::Control => None,
                };
                let names = |bytes: &[u8]| match found(bytes) {
                    Some((era, events)) => events.iter().filter_map(|event| self.history.dot(era, *event)).collect(),
                    _ => Vec::new(),
                };
                let dots: Vec<_> = segments.iter().map(|bytes| names(bytes)).collect();
                format!("{peer} -> {to} ({}) segments {dots:?}", session.0)
            }
            Ok(Some(Message::Hello(_) | Message::Redeem(_))) => format!("{peer} -> {to} ({}) kind {kind}", session.0),
            other => format!("{peer} -> {to} ({}) {other:?}", session.0),
        });
        self.hear(session, to, channel, kind, &body);
        self.handle(to, Input::Received { session, channel, kind, critical: true, body })?;
        let Some(process) = &self.nodes[to].process else { return Ok(()) };
        let nothing = Shelf::default();
        for (space, believed) in process.replica.acknowledged(session) {
            let (era, shelf) = (self.nodes[to].era(space), self.nodes[peer].shelves.get(&space));
            let device = self.nodes[peer].key.device();
            match shelf.filter(|shelf| shelf.revision >= era.revision) {
                // It has gone over to a later revision, of which this node has not heard yet.
                Some(shelf) if shelf.revision > era.revision => {}
                shelf => check_belief(&self.history, era, device, shelf.unwrap_or(&nothing), &believed).at(to)?,
            }
        }
        Ok(())
    }

    /// A node may hear that a peer has more of its own replica than it has itself.
    fn tell_of_own_names(&mut self, node: usize, peer: usize, space: SpaceId, knowledge: &Knowledge) {
        let device = self.nodes[peer].device();
        let honest = (0..self.nodes.len()).all(|node| !self.scenario.is_hostile(node));
        let Node { process: Some(process), shelves, .. } = &mut self.nodes[node] else { return };
        let granted = process.ledger.access(space).is_some_and(|access| access.role(device).is_some());
        let (replica, Some(shelf)) = (process.ledger.replica(), shelves.get(&space)) else { return };
        let era = shelf.era(space);
        if process.replica.revision(space) != Some(era.revision) || process.is_behind_its_disk() {
            return;
        }
        // A liar may have used up the trust in such words, and of a split history others may know other parts.
        if !granted || !honest || shelf.is_split {
            return;
        }
        let claims = knowledge.as_full().into_iter().flat_map(|claims| claims.iter());
        let counter = claims.filter(|claim| claim.dot.replica == replica).map(|claim| claim.dot.counter).max();
        if let Some(counter) = counter.filter(|counter| *counter > shelf.vector.counter(replica)) {
            process.told = Some(Told { era, replica, counter });
        }
    }

    /// Oracles and hostile nodes listen.
    pub(super) fn hear(&mut self, session: SessionId, node: usize, channel: Channel, kind: u8, body: &[u8]) {
        let Ok(Some(message)) = Message::decode(kind, true, body) else { return };
        let Some(peer) = self.network.lines.get(&session).map(|line| line.peer_of(node)) else { return };
        if let Channel::Space(space) = channel {
            self.shown.hear(&self.history, (session, node, space), self.nodes[peer].key.device(), &message);
            if let Message::Open(open) = &message {
                let number = open.revision.number();
                self.opened.insert((session, space, node), number);
                // What a peer says counts from the moment on in which it has opened what is held here.
                let held = self.nodes[node].process.as_ref().and_then(|process| process.replica.revision(space));
                self.opened_alike.insert((session, space, node), held == Some(number));
            }
        }
        if let (
            Channel::Space(space),
            Message::Open(_) | Message::Know(_) | Message::Diverged(_) | Message::Refuse(_),
        ) = (channel, &message)
        {
            self.on_the_way.forget(session, node, self.nodes[node].era(space));
        }
        if let (Channel::Space(space), Some(knowledge)) = (channel, knowledge_of(&message))
            && self.opened.get(&(session, space, node)) == Some(&self.nodes[node].era(space).revision)
            && self.opened_alike.get(&(session, space, node)) == Some(&true)
        {
            self.tell_of_own_names(node, peer, space, knowledge);
        }
        if let Some(liar) = &mut self.nodes[node].liar {
            liar.hear(channel, message);
        }
    }
}

/// What a message says of the sender's knowledge.
fn knowledge_of(message: &Message) -> Option<&Knowledge> {
    match message {
        Message::Know(knowledge) | Message::Open(Open { knowledge: Some(knowledge), .. }) => Some(knowledge),
        _ => None,
    }
}
