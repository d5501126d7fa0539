//! How both sides of a link say what they have of a space, and what follows from that.
//!
//! **Invariant**: nobody hears of a space without a grant, and what it says of one counts for nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::link::Link;
use super::session::Session;
use super::space::Space;
use super::{Channel, Message, Open, Output, PeerMisbehaved, Refusal, Replica, SessionId};
use crate::causal::{Knowledge, ReplicaId, VersionVector};
use crate::model::SpaceId;

impl Replica {
    /// The peer has admitted this device to a space. If that is here already, as after a wipe that left this device out, no
    /// commit will tell of it; and where each has refused the other, each waits for the other to open.
    pub(super) fn ask_again(&mut self, session: SessionId, space: SpaceId) {
        let is_refused = self.link(session, space).is_some_and(|link| link.refused.is_some());
        if is_refused && !planted!("admitted-in-silence") {
            self.open(session, space, true);
        }
    }

    /// Says what is known here, and so asks for everything else.
    pub(super) fn open(&mut self, session: SessionId, space: SpaceId, answer: bool) {
        // Whatever asks for it, and however long ago: nobody hears of a space without a grant.
        let state = self.sessions.get(&session);
        let granted = |held: &&mut Space| state.is_some_and(|state| state.may_see(space, &held.access));
        let Some(held) = self.spaces.get_mut(&space).filter(granted) else { return };
        let digest = held.digest();
        let eager = held.vector.len() <= self.limits.eager_vector_len_max;
        let knowledge = eager.then(|| Knowledge::full(held.known.claims()));
        let (revision, announced) = (held.revision.clone(), held.vector.clone());
        let stall_at = self.now + self.limits.stall_ms;
        let Some(state) = self.sessions.get_mut(&session) else { return };
        let link = state.links.entry(space).or_default();
        link.opened = true;
        link.showing = false;
        link.refused = None;
        link.opened_with = (!eager).then(|| (digest, announced.clone()));
        link.announced = announced;
        link.owed.clear();
        link.asked.clear();
        link.reopen_at = None;
        if link.theirs.is_none() {
            // The answer may get lost where the transport does, and nothing else would ever ask for it again.
            link.stall_at.get_or_insert(stall_at);
        }
        let open = Open { revision, digest, knowledge, answer };
        self.send(session, Channel::Space(space), Message::Open(open));
        self.keep_in_step(session, space);
    }

    /// Opens `space` with every connected peer that may see it and with which it is not open.
    pub(super) fn open_where_granted(&mut self, space: SpaceId) {
        let Some(access) = self.spaces.get(&space).map(|space| &space.access) else { return };
        // Where the peer refused, it is for the peer to open once it knows of the grant.
        let closed = |session: &Session| session.links.get(&space).is_none_or(Link::is_closed);
        let wanting: Vec<SessionId> = (self.sessions.iter())
            .filter(|(_, session)| session.may_see(space, access) && closed(session))
            .map(|(id, _)| *id)
            .collect();
        for session in wanting {
            self.open(session, space, false);
        }
    }

    /// Stops serving `space` to every peer whose grant is gone.
    pub(super) fn close_where_not_granted(&mut self, space: SpaceId) {
        let Some(access) = self.spaces.get(&space).map(|space| &space.access) else { return };
        let served = |session: &Session| {
            !session.may_see(space, access) && session.links.get(&space).is_some_and(|link| !link.is_closed())
        };
        let unwelcome: Vec<SessionId> =
            (self.sessions.iter()).filter(|(_, session)| served(session)).map(|(id, _)| *id).collect();
        for session in unwelcome {
            if let Some(link) = self.link(session, space) {
                link.close();
            }
            self.keep_in_step(session, space);
            self.send(session, Channel::Space(space), Message::Refuse(Refusal::NotFound));
        }
    }

    pub(super) fn on_open(&mut self, session: SessionId, space: SpaceId, open: Open) -> Result<(), PeerMisbehaved> {
        let spaces_max = self.limits.spaces_max;
        let Some(state) = self.sessions.get_mut(&session) else { return Ok(()) };
        state.opened.insert(space);
        if state.opened.len() > spaces_max {
            return Err(PeerMisbehaved::TooMany { what: "spaces", limit: spaces_max });
        }
        self.follow(session, space, &open)?;
        let Some(state) = self.sessions.get(&session) else { return Ok(()) };
        if self.spaces.get(&space).is_none_or(|held| !state.may_see(space, &held.access)) {
            // One answer for both: whether a space exists is not told to those who may not see it.
            let exists = planted!("refusal-tells") && self.spaces.contains_key(&space);
            let refusal = if exists { Refusal::Partial } else { Refusal::NotFound };
            self.send(session, Channel::Space(space), Message::Refuse(refusal));
            return Ok(());
        }
        if !self.same_revision(session, space, &open) {
            return Ok(());
        }
        let Some(held) = self.spaces.get_mut(&space) else { return Ok(()) };
        let (digest, vector) = (held.digest(), held.vector.clone());
        let same = digest == open.digest;
        let answer = open.answer && !planted!("question-unanswered");
        if answer || self.link(session, space).is_none_or(|link| !link.opened) {
            self.open(session, space, false);
        }
        // Both sides opened without waiting, so each compares with what it knows now and with what it said then. What
        // neither matches is told in full by whoever said only a digest: the rule is the same on both sides, so nobody
        // waits for a message that the other does not send.
        let said = self.link(session, space).and_then(|link| link.opened_with.clone());
        let said_same = said.as_ref().is_some_and(|(digest, _)| *digest == open.digest);
        let theirs = match (same, said, open.knowledge) {
            (true, ..) => Some((vector.clone(), BTreeSet::new())),
            (false, Some(_), _) if said_same && planted!("old-answer-counts-as-new") => Some((vector, BTreeSet::new())),
            (false, Some((_, said)), _) if said_same => Some((said, BTreeSet::new())),
            (false, _, None) => None,
            (false, _, Some(knowledge)) => match self.vector_of(session, space, knowledge)? {
                Some(theirs) => Some(theirs),
                None => return Ok(()),
            },
        };
        let stall_at = self.now + self.limits.stall_ms;
        let Some(link) = self.link(session, space) else { return Ok(()) };
        let tell = link.opened_with.is_some() && !said_same && !planted!("knowledge-untold");
        match theirs {
            Some((theirs, uncertain)) => link.reset(theirs, uncertain),
            None => {
                link.theirs = None;
                link.stall_at.get_or_insert(stall_at);
            }
        }
        if tell && let Some(held) = self.spaces.get(&space) {
            let knowledge = Knowledge::full(held.known.claims());
            self.send(session, Channel::Space(space), Message::Know(knowledge));
        }
        self.pump(session, space);
        Ok(())
    }

    /// What a peer has that holds a whole space; none after refusing one that holds a part.
    pub(super) fn vector_of(
        &mut self,
        session: SessionId,
        space: SpaceId,
        knowledge: Knowledge,
    ) -> Result<Option<(VersionVector, BTreeSet<ReplicaId>)>, PeerMisbehaved> {
        let limit = self.limits.vector_len_max;
        if knowledge.ranges().any(|(_, claims)| claims.len() > limit) {
            return Err(PeerMisbehaved::TooMany { what: "replicas", limit });
        }
        let (Some(claims), Some(held)) = (knowledge.as_full(), self.spaces.get(&space)) else {
            self.send(session, Channel::Space(space), Message::Refuse(Refusal::Partial));
            return Ok(None);
        };
        if let Some(own) = self.own
            && let Some(claim) = claims.iter().find(|claim| claim.dot.replica == own)
            && claim.dot.counter > held.known.counter(own)
            && !held.known.is_split(own)
            && self.renewals < self.limits.renewals_max
            && !planted!("rollback-unheeded")
        {
            self.renewals += 1;
            self.outputs.push_back(Output::Behind { before: own, space, counter: claim.dot.counter });
        }
        let link = self.sessions.get(&session).and_then(|state| state.links.get(&space));
        let nobody = BTreeMap::new();
        Ok(Some(held.translate(claims, link.map_or(&nobody, |link| &link.distrusted))))
    }

    pub(super) fn on_know(
        &mut self,
        session: SessionId,
        space: SpaceId,
        knowledge: Knowledge,
    ) -> Result<(), PeerMisbehaved> {
        // Of a space that was never opened to it a peer learns nothing, and what it says of it counts for nothing.
        if self.link(session, space).is_none_or(|link| !link.opened) {
            return Ok(());
        }
        let Some((theirs, uncertain)) = self.vector_of(session, space, knowledge)? else { return Ok(()) };
        let Some(state) = self.sessions.get_mut(&session) else { return Ok(()) };
        if let Some(link) = state.links.get_mut(&space) {
            // Whoever tells what it knows has opened the space, even if its Open got lost.
            state.opened.insert(space);
            if link.theirs.is_none() {
                link.reset(theirs, uncertain);
            }
            self.pump(session, space);
        }
        Ok(())
    }

    /// The peer holds another history under this id, or it did until it was told of both: it may lack anything of it.
    pub(super) fn on_diverged(&mut self, session: SessionId, space: SpaceId, root: ReplicaId) {
        let (Some(held), Some(state)) = (self.spaces.get(&space), self.sessions.get_mut(&session)) else { return };
        let Some(link) = state.links.get_mut(&space).filter(|link| link.opened) else { return };
        let (root, known) = (held.known.root(root), &held.known);
        if known.family(root).all(|id| known.head(id).is_none()) || planted!("other-history-unsent") {
            return;
        }
        // Whoever asks again and again does not get it again and again.
        let again_at = link.distrusted.get(&root).map(|asked_at| asked_at + self.limits.stall_ms);
        if again_at.is_some_and(|at| at > self.now) {
            return;
        }
        link.distrusted.insert(root, self.now);
        link.distrust(held.known.family(root));
        self.pump(session, space);
    }

    /// Says anew what is known here to everybody, and asks the same of them: what was said before names some events as
    /// they are not called any more.
    pub(super) fn open_anew(&mut self, space: SpaceId) {
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in sessions {
            if let Some(link) = self.link(session, space).filter(|link| link.opened && link.refused.is_none()) {
                link.unlearn();
                self.open(session, space, true);
            }
        }
    }
}
