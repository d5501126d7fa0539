//! A node's loop: from the outputs of one half to the inputs of the other.

use thence::causal::Claims;
use thence::model::SpaceId;
use thence::replica::{Channel, Input, Message, Output, PeerMisbehaved, SessionId};
use thence::store::{Renewal, Work};

use super::{DELAY_MS_MAX, Happening, World};
use crate::core::node::{Asked, Job};
use crate::oracles::{At, Era, Failure, fail};
use crate::oracles::{Shelf, check_claims, check_in_flight, check_opened, check_openings, check_sent, check_session};
use crate::world::{Arrival, Line, Scenario, Sent, Side, What};

impl World<'_> {
    pub(super) fn handle(&mut self, node: usize, input: Input) -> Result<(), Failure> {
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        for output in process.handle(self.now, input) {
            self.perform(node, output)?;
        }
        self.after_input(node);
        Ok(())
    }

    pub(super) fn after_input(&mut self, node: usize) {
        self.start_commit(node);
        let now = self.now;
        let (life, Some(process)) = (self.nodes[node].life, &mut self.nodes[node].process) else { return };
        if let Some(due) = process.replica.poll_timeout()
            && process.wake_at.is_none_or(|at| due < at)
        {
            process.wake_at = Some(due);
            self.schedule(due.max(now), Happening::Wake { node, life });
        }
    }

    pub(super) fn perform(&mut self, node: usize, output: Output) -> Result<(), Failure> {
        match output {
            Output::Send { session, channel, message } => self.send(node, session, channel, &message),
            Output::Store { session, space, segments } => {
                self.ask(node, Job { work: Work::Receive { session, space, segments }, asked: Asked::Nobody });
                Ok(())
            }
            Output::LookUp(lookup) => {
                let (delay, life) = (self.disk_delay(node), self.nodes[node].life);
                self.nodes[node].process.iter_mut().for_each(|process| process.reads += 1);
                self.schedule(self.now + delay, Happening::LookUp { node, life, lookup });
                Ok(())
            }
            Output::Admit { session, device, ticket } => {
                self.ask(node, Job { work: Work::Admit { device, ticket }, asked: Asked::Session(session) });
                Ok(())
            }
            Output::Behind { before, space, counter } => {
                let work = Work::Renew { before, reason: Renewal::Behind { space, counter } };
                self.ask(node, Job { work, asked: Asked::Nobody });
                Ok(())
            }
            Output::Share { session, space, device } => {
                self.ask(node, Job { work: Work::Share { space, device }, asked: Asked::Sharing(session, space) });
                Ok(())
            }
            Output::Follow { space, revision } => {
                self.ask(node, Job { work: Work::Follow { space, revision }, asked: Asked::Nobody });
                Ok(())
            }
            Output::Join { introduction, introducer } => {
                self.ask(node, Job { work: Work::Join { introduction, introducer }, asked: Asked::Nobody });
                Ok(())
            }
            Output::Redeemed { session, answer } => {
                let Ok(introduction) = answer else { return Ok(()) };
                let mut asked = false;
                let Some(peer) = self.network.lines.get(&session).map(|line| line.peer_of(node)) else { return Ok(()) };
                for (at, item) in self.scenario.items.iter().enumerate() {
                    if let What::Redeem { node: who, space, from, .. } = item.what
                        && (who, from, self.spaces[space].1) == (node, peer, introduction.genesis)
                    {
                        asked = true;
                        self.answered.insert(at);
                    }
                }
                // A hostile peer may answer what nobody asked.
                if !asked {
                    return Ok(());
                }
                let introducer = self.nodes[peer].device();
                self.ask(node, Job { work: Work::Join { introduction, introducer }, asked: Asked::Nobody });
                Ok(())
            }
            Output::Close { session, reason } => {
                self.trace.tell(self.now, || format!("{node} closes {}: {reason}", session.0));
                let line = self.network.lines.get(&session);
                let among_honest = line.is_none_or(|line| line.ends.iter().all(|end| !self.scenario.is_hostile(*end)));
                self.leave(session, node);
                if !among_honest {
                    return Ok(());
                }
                // Both are honest; the world may only keep them from answering.
                let Scenario { quiet_at, limits, .. } = self.scenario;
                let stalls_end = quiet_at + DELAY_MS_MAX + limits.stall_ms * u64::from(limits.stalls_max + 2);
                if reason == PeerMisbehaved::NeverAcknowledges && self.now < stalls_end {
                    return Ok(());
                }
                fail(node, "no honest peer is accused", reason.to_string())
            }
        }
    }

    pub(super) fn send(
        &mut self,
        node: usize,
        session: SessionId,
        channel: Channel,
        message: &Message,
    ) -> Result<(), Failure> {
        if let Some(liar) = &mut self.nodes[node].liar {
            let open = |line: &Line| line.ends.contains(&node) && line.side_of(node) == Side::Up;
            let sessions: Vec<SessionId> =
                self.network.lines.iter().filter(|(_, line)| open(line)).map(|(session, _)| *session).collect();
            let lies = liar.lies();
            let said = liar.say(&sessions, session, channel, message);
            let lied = liar.lies() > lies;
            if lied && let Some(peer) = self.peer_in(session, node) {
                self.strike("hostile", peer, Some(node));
            }
            said.into_iter().for_each(|said| self.deliver(node, said.session, said.channel, said.kind, said.body));
            return Ok(());
        }
        if let Channel::Space(space) = channel
            && !self.scenario.is_hostile(node)
        {
            let said = self.check_said(node, session, space, message);
            if said.is_err() {
                self.tell_forbidden(node, session, channel, message);
            }
            said?;
            if matches!(message, Message::Open(_)) {
                let era = self.nodes[node].era(space);
                let openings = self.openings.entry((session, era, node)).or_default();
                *openings += 1;
                if self.scenario.is_faultless() {
                    let until = |of: &Era| of.space == space && of.revision <= era.revision;
                    let words = self.history.begun.iter().filter(|(era, _)| until(era));
                    let words: usize = words.map(|(_, began)| began.len()).sum();
                    check_openings(*openings, words as u64).at(node)?;
                }
            }
        }
        self.deliver(node, session, channel, message.kind(), message.body());
        Ok(())
    }

    pub(super) fn deliver(&mut self, node: usize, session: SessionId, channel: Channel, kind: u8, body: Vec<u8>) {
        let Some(to) = self.network.lines.get(&session).map(|line| line.peer_of(node)) else { return };
        let said_in = match channel {
            Channel::Space(space) => self.nodes[node].era(space).revision,
            Channel::Control => 0,
        };
        let mut arrival = Arrival { session, to, channel, kind, body, said_in, told_as: None };
        arrival.told_as = self.tell_sent(&arrival, node);
        let told_as = arrival.told_as;
        let sent = self.network.send(self.now, arrival);
        self.carry(sent, node, to, told_as);
    }

    /// What the network made of a message takes its course.
    pub(super) fn carry(&mut self, sent: Sent, from: usize, to: usize, told_as: Option<usize>) {
        let Sent { arrivals, struck } = sent;
        for fault in struck {
            self.strike(fault, to, Some(from));
            if fault == "loss" {
                self.tell_lost(told_as, "lost on the way");
            }
        }
        for (at, arrival) in arrivals {
            self.schedule(at, Happening::Arrival(arrival));
        }
    }

    pub(super) fn check_said(
        &mut self,
        node: usize,
        session: SessionId,
        space: SpaceId,
        message: &Message,
    ) -> Result<(), Failure> {
        let (nothing, era) = (Shelf::default(), self.nodes[node].era(space));
        let shelf = self.nodes[node].shelves.get(&space).unwrap_or(&nothing);
        // The disk may have gone over to a later one, of which the protocol has not heard yet.
        let is_of_now = shelf.revision <= era.revision;
        if let (Some(process), Some(line)) = (&self.nodes[node].process, self.network.lines.get(&session)) {
            let (access, peer) = (process.ledger.access(space), self.nodes[line.peer_of(node)].device());
            // Where grants have just come nothing is inherited any more.
            let access = if is_of_now && !process.is_behind_its_disk() { Some(access.as_deref()) } else { None };
            self.shown.check_said(&self.history, (session, node, era), access, peer, message).at(node)?;
        }
        let check_claims = |claims: &Claims, where_said: &str| match is_of_now {
            true => check_claims(shelf, claims, where_said),
            false => Ok(()),
        };
        match message {
            Message::Segments(segments) => {
                for bytes in segments {
                    check_sent(&self.history, era, shelf, bytes).at(node)?;
                }
                // Where one name means two events, that one of them was acknowledged says nothing of the other.
                if self.history.has_twins(era) {
                    return Ok(());
                }
                for bytes in segments {
                    let last = self.history.find(era, bytes).and_then(|events| self.history.dot(era, *events.last()?));
                    let Some(last) = last else { continue };
                    self.on_the_way.send(session, node, era, last, bytes.len());
                }
                let process = self.nodes[node].process.as_ref();
                let acknowledged = process.map(|process| process.replica.acknowledged(session)).unwrap_or_default();
                let acknowledged = acknowledged.into_iter().map(|(space, known)| (self.nodes[node].era(space), known));
                let acknowledged: Vec<_> = acknowledged.collect();
                let (bytes, all) = self.on_the_way.bytes(session, node, era, &acknowledged);
                let (limits, segment_bytes_max) = (&self.scenario.limits, self.history.segment_bytes_max);
                check_in_flight(limits, segment_bytes_max, bytes).at(node)?;
                check_session(limits, segment_bytes_max, all).at(node)
            }
            Message::Ack(acks) => check_claims(&acks.iter().copied().collect(), "an acknowledgement").at(node),
            Message::Open(open) => {
                check_opened(shelf, &open.revision).at(node)?;
                (open.knowledge.iter().flat_map(|knowledge| knowledge.ranges()))
                    .try_for_each(|(_, claims)| check_claims(claims, "an opening").at(node))
            }
            Message::Know(knowledge) => {
                (knowledge.ranges()).try_for_each(|(_, claims)| check_claims(claims, "knowledge told in full").at(node))
            }
            _ => Ok(()),
        }
    }
}
