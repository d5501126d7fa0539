//! Sending what a peer lacks, as far as its windows allow; acknowledgements, of both sides; and when each of that is due.

use std::collections::BTreeSet;

use serde_bytes::ByteBuf;

use super::space::Space;
use super::{Channel, Lookup, Message, Millis, Output, PeerMisbehaved, Replica, SessionId, Stretch, Wanted};
use crate::causal::{Dot, Head, Witness};
use crate::model::SpaceId;

impl Replica {
    /// Sends stretches of the log that the peer lacks, in frames. Returns whether anything was sent.
    pub(super) fn push(&mut self, session: SessionId, space: SpaceId, stretches: Vec<Stretch>) -> bool {
        let limits = self.limits;
        let (Some(held), Some(state)) = (self.spaces.get(&space), self.sessions.get_mut(&session)) else {
            return false;
        };
        let Some(link) = state.links.get_mut(&space).filter(|link| link.opened) else { return false };
        let mut frames: Vec<Vec<ByteBuf>> = Vec::new();
        let mut room = 0;
        for Stretch { bytes, first, last } in stretches {
            if link.in_flight_bytes >= limits.window_bytes_max && !planted!("push-past-the-window") {
                // One commit may hold more than the window: the rest is read from the log as the peer acknowledges.
                break;
            }
            // A gap means that the peer's view was reset while the log was read: what it lacks is read anew. So is what is
            // not known here by this name, not yet or not any more.
            let follows = first.counter <= link.sent.counter(first.replica).saturating_add(1);
            let is_known = held.vector.contains(last.dot) || planted!("old-names-sent");
            if !is_known || link.sent.contains(last.dot) || !follows {
                continue;
            }
            link.send(last, bytes.len());
            if bytes.len() > room {
                frames.push(Vec::new());
                room = limits.frame_bytes_max;
            }
            room = room.saturating_sub(bytes.len());
            if let Some(frame) = frames.last_mut() {
                frame.push(ByteBuf::from(bytes.to_vec()));
            }
        }
        if frames.is_empty() {
            return false;
        }
        let stall_at = self.now + self.limits.stall_ms;
        if let Some(link) = self.link(session, space)
            && !planted!("stalled-for-ever")
        {
            link.stall_at.get_or_insert(stall_at);
        }
        for frame in frames {
            self.send(session, Channel::Space(space), Message::Segments(frame));
        }
        true
    }

    /// Whether the session's window is open.
    pub(super) fn has_room(&self, session: SessionId) -> bool {
        self.sessions.get(&session).is_some_and(|state| state.claimed < self.limits.session_window_bytes_max)
    }

    /// Lets the spaces that wait for the session's window go on, as far as it is open.
    pub(super) fn pump_waiting(&mut self, session: SessionId) {
        while self.has_room(session)
            && let Some(state) = self.sessions.get_mut(&session)
            && let Some(space) = state.waiting.pop_front()
        {
            if let Some(link) = state.links.get_mut(&space) {
                link.waiting = false;
            }
            self.pump(session, space);
        }
    }

    /// Reads on in the log if the peer lacks something and the windows are open.
    pub(super) fn pump(&mut self, session: SessionId, space: SpaceId) {
        let limits = self.limits;
        let (Some(held), Some(state)) = (self.spaces.get(&space), self.sessions.get_mut(&session)) else { return };
        let Some(link) = state.links.get_mut(&space) else { return };
        let open = link.theirs.is_some() && link.opened && link.refused.is_none();
        if open && !link.fetching && link.in_flight_bytes < limits.window_bytes_max && !link.sent.descends(&held.vector)
        {
            link.forward_at = None;
            if state.claimed < limits.session_window_bytes_max || planted!("session-window-ignored") {
                link.fetching = true;
                let wanted = Wanted::Log { after: link.sent.clone(), bytes_max: limits.frame_bytes_max };
                let revision = held.revision.number();
                self.outputs.push_back(Output::LookUp(Lookup { session, space, revision, wanted }));
            } else if !std::mem::replace(&mut link.waiting, true) && !planted!("waiting-space-forgotten") {
                state.waiting.push_back(space);
            }
        }
        self.keep_in_step(session, space);
    }

    /// Says what became durable here and was not said yet.
    pub(super) fn acknowledge(&mut self, session: SessionId, space: SpaceId) {
        let (Some(held), Some(state)) = (self.spaces.get(&space), self.sessions.get_mut(&session)) else { return };
        let Some(link) = state.links.get_mut(&space) else { return };
        let owed = std::mem::take(&mut link.owed);
        let vector = &held.vector;
        // Where the peer knows another history under the same id, only what it sent itself means the same to it.
        let is_certain = |dot: &Dot| {
            let root = held.known.root(dot.replica);
            !link.uncertain.contains(&root) && !link.asked.contains(&root) || planted!("other-history-acknowledged")
        };
        let known = &held.known;
        let all = owed.iter().filter(|owed| is_certain(&owed.dot)).filter_map(|owed| known.witness(owed.dot.replica));
        let again = all.chain(owed.iter().copied());
        let news = vector.missing_from(&link.announced).filter_map(|(replica, ..)| known.witness(replica));
        let acks: BTreeSet<Witness> = again.chain(news).collect();
        if !acks.is_empty() {
            link.announced = vector.clone();
            self.send(session, Channel::Space(space), Message::Ack(acks.into_iter().collect()));
        }
    }

    pub(super) fn on_timer(&mut self, session: SessionId, space: SpaceId) {
        let (now, limits) = (self.now, self.limits);
        let due = |at: &mut Option<Millis>| at.take_if(|at| *at <= now).is_some();
        let Some(link) = self.link(session, space) else { return };
        let (ack, forward) = (due(&mut link.ack_at), due(&mut link.forward_at));
        let (reopen, stalled) = (due(&mut link.reopen_at), due(&mut link.stall_at));
        if ack && link.opened {
            self.acknowledge(session, space);
        }
        if stalled && let Some(link) = self.link(session, space) {
            link.stalls += 1;
            if link.stalls > limits.stalls_max {
                self.close(session, PeerMisbehaved::NeverAcknowledges);
                return;
            }
            link.stall_at = Some(now + limits.stall_ms);
        }
        if reopen || stalled {
            // A digest alone says nothing to a peer that does not share it: then both sides must say theirs anew.
            let eager = |held: &Space| held.vector.len() <= limits.eager_vector_len_max;
            let answer = stalled || !self.spaces.get(&space).is_some_and(eager);
            self.open(session, space, answer);
        }
        if forward {
            self.pump(session, space);
        }
        self.keep_in_step(session, space);
    }

    /// Keeps the timers in step with a link's moments, and the session's sum with what it claims.
    pub(super) fn keep_in_step(&mut self, session: SessionId, space: SpaceId) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        let Some(link) = state.links.get_mut(&space) else { return };
        let claim = link.claim(self.limits.frame_bytes_max);
        let before = std::mem::replace(&mut link.claimed, claim);
        state.claimed = state.claimed + claim - if planted!("session-window-leaks") { 0 } else { before };
        let due = link.due();
        if due == link.scheduled {
            return;
        }
        if let Some(old) = std::mem::replace(&mut link.scheduled, due) {
            self.timers.remove(&(old, session, space));
        }
        if let Some(due) = due {
            self.timers.insert((due, session, space));
        }
    }

    pub(super) fn on_ack(
        &mut self,
        session: SessionId,
        space: SpaceId,
        acks: Vec<Witness>,
    ) -> Result<(), PeerMisbehaved> {
        let limit = self.limits.vector_len_max;
        let (now, stall_ms) = (self.now, self.limits.stall_ms);
        let (Some(held), Some(state)) = (self.spaces.get(&space), self.sessions.get_mut(&session)) else {
            return Ok(());
        };
        let Some(link) = state.links.get_mut(&space) else { return Ok(()) };
        for ack in acks {
            // The hash says which event is meant, even where the peer calls it otherwise.
            let is_certain = || !link.distrusted.contains_key(&held.known.root(ack.dot.replica));
            let head = held.known.head(ack.dot.replica);
            let is_other = |head: &Head| head.counter == ack.dot.counter && head.hash.prefix() != ack.hash;
            if head.is_some_and(is_other) && !planted!("one-ack-for-two") {
                // Under one name both hold another event, and each may take the other's for its own: neither would ever
                // send what it has. Both say anew what they know, with the hashes that tell.
                link.reopen_at = Some(now);
                continue;
            }
            let dots = match link.on_its_way(&ack).filter(|_| !planted!("ack-by-name")) {
                Some(dot) => vec![dot],
                None if is_certain() => held.translate_one(&ack),
                None => Vec::new(),
            };
            for dot in dots {
                link.acknowledged(dot);
                // A branch is nothing without all that it goes on from.
                let before = held.known.lineage(dot.replica).skip(1);
                before.for_each(|id| link.acknowledged(Dot::new(id, held.known.counter(id))));
            }
        }
        if link.theirs.as_ref().is_some_and(|theirs| theirs.len() > limit) {
            return Err(PeerMisbehaved::TooMany { what: "replicas", limit });
        }
        if link.settle() {
            link.stalls = 0;
            link.stall_at = (!link.is_idle()).then_some(now + stall_ms);
        }
        self.pump(session, space);
        Ok(())
    }

    pub(super) fn fetched(&mut self, session: SessionId, space: SpaceId, stretches: Option<Vec<Stretch>>) {
        let Some(link) = self.link(session, space) else { return };
        link.fetching = stretches.is_none() && planted!("read-error-is-final");
        match stretches {
            Some(stretches) if !stretches.is_empty() => {
                if self.push(session, space, stretches) {
                    self.pump(session, space);
                } else {
                    // Known by other names, or not known to this part of the program yet: it hears of that in a moment.
                    let at = self.now + self.limits.ack_ms;
                    if let Some(link) = self.link(session, space) {
                        link.forward_at.get_or_insert(at);
                    }
                    self.keep_in_step(session, space);
                }
            }
            // Nothing to read although something is missing, or a read error: try again later, not at once.
            _ => {
                let at = self.now + self.limits.stall_ms;
                if let Some(link) = self.link(session, space) {
                    link.forward_at = Some(at);
                }
                self.keep_in_step(session, space);
            }
        }
    }
}
