//! The protocol as a state machine without I/O.
//!
//! ```text
//! replica.handle(now, input);
//! while let Some(output) = replica.poll_output() { /* do it, and report back with an input */ }
//! /* call handle(now, Input::Tick) at replica.poll_timeout() */
//! ```
//!
//! **The rule of order: commit before send.** Nothing is sent to a peer, and nothing is acknowledged, that
//! [`Input::Committed`] did not report as durable; otherwise a crash could give one dot to two events.
//!
//! How peers catch up: each says what it knows, and the other computes what is missing; there is no set
//! reconciliation. If the digests are equal that was all. Live push is the same thing once the peer has caught up: the
//! log is sent in arrival order, which follows causality, as far as a window of unacknowledged bytes allows; a slow
//! receiver costs the sender no memory, since what does not fit into the window stays in the log.
//!
//! What it does not do: keep objects (the ledger joins them), decide who may write what (the ledger does, inside the
//! transaction), dial peers, or read a clock. No `HashMap`, no randomness: the same inputs give the same outputs.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod arriving;
mod cluster;
mod committing;
mod effects;
mod link;
mod message;
mod opening;
mod sending;
mod session;
mod showing;
mod space;
mod wiping;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_bytes::ByteBuf;

pub use self::cluster::Relation;
pub use self::effects::{
    Committed, Input, Limits, Lookup, Millis, Output, PeerMisbehaved, Rejection, SessionId, Stretch, Taken, Wanted,
};
use self::link::Link;
pub use self::link::LinkState;
pub use self::message::{
    Channel, Hello, Introduction, InvalidMessage, Message, Open, PROTOCOL_VERSION, Probed, Refusal, TicketRefusal,
};
use self::session::Session;
use self::space::Space;
use crate::causal::{ReplicaId, VersionVector};
use crate::model::{DeviceId, SpaceId};

/// How a space stands with one peer, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// The session.
    pub session: SessionId,
    /// The peer.
    pub peer: DeviceId,
    /// How far it is.
    pub state: LinkState,
    /// Events that the peer said it has and that are not here.
    pub behind_events: u64,
    /// Events that are here and that the peer has not acknowledged.
    pub ahead_events: u64,
    /// Events that are here.
    pub known_events: u64,
}

/// The protocol of one node: all its spaces, all its sessions.
#[derive(Clone, Debug)]
pub struct Replica {
    agent: String,
    process: u64,
    /// Under which id this store writes.
    own: Option<ReplicaId>,
    /// How often it was to change because a peer said that it should, and how often it did.
    renewals: u32,
    renewed: u32,
    limits: Limits,
    now: Millis,
    spaces: BTreeMap<SpaceId, Space>,
    sessions: BTreeMap<SessionId, Session>,
    outputs: VecDeque<Output>,
    /// When links have something to do.
    timers: BTreeSet<(Millis, SessionId, SpaceId)>,
}

impl Replica {
    /// A replica that holds no space and knows no peer. `agent` names the program to peers, for people; `process` is a
    /// number that no other process has.
    pub fn new(agent: impl Into<String>, process: u64, limits: Limits) -> Self {
        Self {
            agent: agent.into(),
            process,
            own: None,
            renewals: 0,
            renewed: 0,
            limits,
            now: 0,
            spaces: BTreeMap::new(),
            sessions: BTreeMap::new(),
            outputs: VecDeque::new(),
            timers: BTreeSet::new(),
        }
    }

    /// Takes in what happened at `now`, and everything that was due by then.
    pub fn handle(&mut self, now: Millis, input: Input) {
        self.now = now.max(self.now);
        match input {
            Input::Held { space, revision, known, access } => self.hold(space, revision, known, access),
            Input::Writes { replica } => {
                let before = self.own.replace(replica);
                self.renewed += u32::from(before.is_some_and(|before| before != replica));
            }
            Input::Connected { session, peer, cluster } => self.connect(session, peer, cluster),
            Input::Disconnected { session } => self.forget(session),
            Input::Received { session, channel, kind, critical, body } => {
                if self.sessions.contains_key(&session)
                    && let Err(reason) = self.receive(session, channel, kind, critical, &body)
                {
                    self.close(session, reason);
                }
                self.pump_waiting(session);
            }
            Input::Committed { space, committed } => self.committed(space, committed),
            Input::CommitFailed => {
                // What the disk did not do was not done: nobody uses up what this node may be told by filling its disk.
                self.renewals = self.renewals.min(self.renewed);
                self.commit_failed();
            }
            Input::Credential { space, revision, .. }
            | Input::Judged { space, revision, .. }
            | Input::Fetched { space, revision, .. }
                if self.spaces.get(&space).is_none_or(|held| held.revision.number() != revision) => {}
            Input::Credential { session, space, segments, .. } => self.show(session, space, &segments),
            Input::Judged { session, space, role, .. } => self.judged(session, space, role),
            Input::Fetched { session, space, stretches, .. } => {
                self.fetched(session, space, stretches);
                self.pump_waiting(session);
            }
            Input::Redeem { session, ticket } => {
                self.send(session, Channel::Control, Message::Redeem(ByteBuf::from(ticket)));
            }
            Input::Probe { session } => self.probe(session),
            Input::Shared { session, space, introduction } => self.shared(session, space, introduction),
            Input::Admitted { session, answer } => {
                if let Some(state) = self.sessions.get_mut(&session) {
                    state.redeeming = false;
                    self.send(session, Channel::Control, Message::Redeemed(answer));
                }
            }
            Input::Tick => {}
        }
        while let Some(&(due, session, space)) = self.timers.first()
            && due <= self.now
        {
            self.timers.pop_first();
            if let Some(link) = self.link(session, space) {
                link.scheduled = None;
            }
            self.on_timer(session, space);
        }
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Replica::handle`] with [`Input::Tick`], if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Millis> {
        self.timers.first().map(|(due, ..)| *due)
    }

    /// Calls this moment `now`, and moves every other one along. What a replica does depends on how far moments lie
    /// apart and on nothing else, so two that stand alike can be made equal. What lies further back than `now` counts
    /// as its beginning; give at least the longest of the limits. For the simulator, which compares states.
    #[doc(hidden)]
    pub fn rebase(&mut self, now: Millis) {
        let before = std::mem::replace(&mut self.now, now);
        let moved = |at: Millis| (at + now).saturating_sub(before);
        let timers = std::mem::take(&mut self.timers);
        self.timers = timers.into_iter().map(|(at, session, space)| (moved(at), session, space)).collect();
        let links = self.sessions.values_mut().flat_map(|session| session.links.values_mut());
        links.flat_map(Link::moments).for_each(|at| *at = moved(*at));
    }

    /// How `space` stands with every connected peer that may see it.
    pub fn links(&self, space: SpaceId) -> Vec<LinkStatus> {
        let Some(ours) = self.spaces.get(&space).map(|space| &space.vector) else { return Vec::new() };
        let status = |(&session, state): (&SessionId, &Session)| {
            let link = state.links.get(&space).filter(|link| !link.is_closed())?;
            let theirs = link.theirs.clone().unwrap_or_default();
            Some(LinkStatus {
                session,
                peer: state.peer,
                state: link.state(ours),
                behind_events: theirs.count_missing_from(ours),
                ahead_events: ours.count_missing_from(&theirs),
                known_events: ours.count_missing_from(&VersionVector::new()),
            })
        };
        self.sessions.iter().filter_map(status).collect()
    }

    /// In which revision a space is held, if it is.
    pub fn revision(&self, space: SpaceId) -> Option<u64> {
        self.spaces.get(&space).map(|held| held.revision.number())
    }

    /// What `session`'s peer acknowledged as durable in each space, in the revision that is held here.
    pub fn acknowledged(&self, session: SessionId) -> Vec<(SpaceId, VersionVector)> {
        let links = self.sessions.get(&session).map(|session| &session.links);
        let known = |(space, link): (&SpaceId, &Link)| Some((*space, link.theirs.clone()?));
        links.into_iter().flatten().filter_map(known).collect()
    }

    /// Bytes that were sent in `session` about `space` and are not acknowledged yet. For the simulator's oracles.
    #[doc(hidden)]
    pub fn in_flight_bytes(&self, session: SessionId, space: SpaceId) -> usize {
        let link = self.sessions.get(&session).and_then(|session| session.links.get(&space));
        link.map_or(0, |link| link.in_flight_bytes)
    }

    /// What the peer of `session` says it is; none before its hello.
    pub fn hello(&self, session: SessionId) -> Option<&Hello> {
        self.sessions.get(&session)?.hello.as_ref()
    }

    fn receive(
        &mut self,
        session: SessionId,
        channel: Channel,
        kind: u8,
        critical: bool,
        body: &[u8],
    ) -> Result<(), PeerMisbehaved> {
        let Some(message) = Message::decode(kind, critical, body)? else { return Ok(()) };
        match (channel, message) {
            (Channel::Control, Message::Hello(hello)) => self.on_hello(session, hello),
            (Channel::Control, Message::Offered(count)) => {
                if let Some(state) = self.sessions.get_mut(&session) {
                    state.offered = Some(count);
                    self.probe_if_gathered(session);
                }
                Ok(())
            }
            (Channel::Control, Message::Cluster) => {
                self.on_cluster(session);
                Ok(())
            }
            (Channel::Control, Message::Introduce(introduction)) => self.on_introduce(session, introduction),
            (Channel::Control, Message::Redeem(ticket)) => {
                let Some(state) = self.sessions.get_mut(&session) else { return Ok(()) };
                // One at a time: whoever does not wait for the answer must not fill the queue to the disk.
                if std::mem::replace(&mut state.redeeming, true) {
                    return Ok(());
                }
                let device = state.peer;
                self.outputs.push_back(Output::Admit { session, device, ticket: ticket.into_vec() });
                Ok(())
            }
            (Channel::Control, Message::Redeemed(answer)) => {
                if let Ok(introduction) = &answer {
                    cluster::check(introduction)?;
                    self.ask_again(session, introduction.genesis.space());
                }
                self.outputs.push_back(Output::Redeemed { session, answer });
                Ok(())
            }
            (channel, Message::Probe(nonce)) => {
                self.on_probe(session, channel, nonce);
                Ok(())
            }
            (channel, Message::Probed(probed)) => {
                self.on_probed(session, channel, probed);
                Ok(())
            }
            (Channel::Space(space), Message::Open(open)) => self.on_open(session, space, open),
            (
                Channel::Space(space),
                Message::Know(_) | Message::Segments(_) | Message::Ack(_) | Message::Diverged(_),
            ) if self.link(session, space).is_some_and(|link| link.elsewhere) => Ok(()),
            (Channel::Space(space), Message::Know(knowledge)) => self.on_know(session, space, knowledge),
            (Channel::Space(space), Message::Segments(segments)) => self.on_segments(session, space, segments),
            (Channel::Space(space), Message::Ack(dots)) => self.on_ack(session, space, dots),
            (Channel::Space(space), Message::Diverged(replica)) => {
                self.on_diverged(session, space, replica);
                Ok(())
            }
            (Channel::Space(space), Message::Refuse(refusal)) => {
                if let Some(link) = self.link(session, space) {
                    link.refuse(refusal);
                    let shown = std::mem::replace(&mut link.shown, true) && !link.grants_came;
                    if refusal == Refusal::NotFound && !shown && !planted!("grant-not-shown") {
                        self.look_for_grants(session, space);
                    }
                    self.keep_in_step(session, space);
                }
                Ok(())
            }
            (Channel::Space(space), Message::Show(segments)) => self.on_show(session, space, segments),
            _ => Err(PeerMisbehaved::Unexpected("message for this channel")),
        }
    }

    fn link(&mut self, session: SessionId, space: SpaceId) -> Option<&mut Link> {
        self.sessions.get_mut(&session)?.links.get_mut(&space)
    }
}
