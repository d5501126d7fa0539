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

mod cluster;
mod effects;
mod link;
mod message;
mod sending;
mod showing;
mod space;
mod wiping;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_bytes::ByteBuf;

use self::cluster::Cluster;
pub use self::cluster::Relation;
pub use self::effects::{
    Committed, Input, Limits, Lookup, Millis, Output, PeerMisbehaved, Rejection, SessionId, Stretch, Taken, Wanted,
};
use self::link::Link;
pub use self::link::LinkState;
pub use self::message::{
    Channel, Hello, Introduction, InvalidMessage, Message, Open, PROTOCOL_VERSION, Probed, Refusal, TicketRefusal,
};
use self::space::Space;
use crate::causal::{Dot, Head, Knowledge, Known, ReplicaId, VersionVector, Witness};
use crate::model::{Access, DeviceId, Revision, Role, Segment, SpaceId};

#[derive(Clone, Debug)]
struct Session {
    peer: DeviceId,
    hello: Option<Hello>,
    /// How many spaces the peer opened at the start, once it said so.
    offered: Option<u64>,
    /// The spaces that it did open.
    opened: BTreeSet<SpaceId>,
    /// The number of the last probe, and whether its answer on the control channel is still to come.
    probe: u64,
    awaiting: bool,
    /// Whether a ticket that the peer showed is being looked at.
    redeeming: bool,
    /// The spaces in which the peer showed to have a role that nothing here says yet.
    shown: BTreeMap<SpaceId, Role>,
    /// The spaces for which what it showed is being looked at.
    judging: BTreeSet<SpaceId>,
    /// What it showed while those spaces were going over to a later revision: looked at once they have.
    shown_early: BTreeMap<SpaceId, Vec<ByteBuf>>,
    links: BTreeMap<SpaceId, Link>,
    cluster: Cluster,
    /// The sum of what the links claim of the session's window.
    claimed: usize,
    /// The spaces that wait for room in it, each once, in the order in which they asked.
    waiting: VecDeque<SpaceId>,
}

impl Session {
    /// Whether the peer may see a space with this access.
    fn may_see(&self, space: SpaceId, access: &Access) -> bool {
        access.may_see(self.peer) || self.shown.contains_key(&space) || planted!("anybody-may-see")
    }
}

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

    /// Whether everything that both sides of `session` may share is known to both, durably.
    pub fn is_synced(&self, session: SessionId) -> bool {
        let Some(session) = self.sessions.get(&session) else { return false };
        let all_opened = session.offered.is_some_and(|offered| session.opened.len() as u64 >= offered);
        session.hello.is_some()
            && all_opened
            && !session.awaiting
            && session.has_gathered()
            && session.links.iter().filter(|(_, link)| !link.is_closed()).all(|(space, link)| {
                match self.spaces.get(space) {
                    Some(space) => {
                        let state = link.state(&space.vector);
                        let settled = link.awaiting.is_none() && !link.showing;
                        settled && matches!(state, LinkState::Synced | LinkState::Refused(_))
                    }
                    None => true,
                }
            })
    }

    // What happens in a session.

    fn hold(&mut self, space: SpaceId, revision: Revision, known: Known, access: Access) {
        let vector = known.vector();
        let begun = |held: &&mut Space| held.revision.number() == revision.number();
        if let Some(held) = self.spaces.get_mut(&space).filter(begun) {
            if planted!("landed-commit-untold") {
                return;
            }
            // A commit that was believed to have failed may be there: its events are news like any others, or nobody
            // would ever be sent them.
            let news = |(replica, head, tip): &(ReplicaId, &Head, bool)| {
                held.known.head(*replica) != Some(*head) || held.known.is_tip(*replica) != *tip
            };
            let advanced = known.heads().filter(news).map(|(replica, head, tip)| (replica, *head, tip)).collect();
            held.incoming = vector;
            let local = true;
            let split = (!held.known.branches().eq(known.branches())).then_some(known);
            held.following = None;
            let is_another = std::mem::replace(&mut held.revision, revision) != held.revision;
            self.committed(space, Committed { advanced, local, access: Some(access), split, ..Committed::default() });
            if is_another {
                // More owners have begun it than was known: everybody is to know before what they wrote in it comes.
                self.open_anew(space);
            }
            self.judge_what_was_shown_early(space);
            return;
        }
        let incoming = vector.clone();
        let held = Space { revision, following: None, access, known, incoming, vector, digest: None };
        if self.spaces.insert(space, held).is_some() {
            self.begin_anew(space);
        }
        if !planted!("newcomer-asks-nobody") {
            self.open_where_granted(space);
        }
        self.gathered(space);
    }

    fn connect(&mut self, session: SessionId, peer: DeviceId, cluster: bool) {
        let fresh = Session {
            peer,
            hello: None,
            offered: None,
            opened: BTreeSet::new(),
            probe: 0,
            awaiting: false,
            redeeming: false,
            shown: BTreeMap::new(),
            judging: BTreeSet::new(),
            shown_early: BTreeMap::new(),
            links: BTreeMap::new(),
            cluster: Cluster::new(cluster),
            claimed: 0,
            waiting: VecDeque::new(),
        };
        self.sessions.insert(session, fresh);
        let hello = {
            let replica = self.own.unwrap_or(ReplicaId::from_bytes([0; 16]));
            Hello { version: PROTOCOL_VERSION, agent: self.agent.clone(), replica, process: self.process }
        };
        self.send(session, Channel::Control, Message::Hello(hello));
        if cluster {
            self.send(session, Channel::Control, Message::Cluster);
        }
        let granted: Vec<SpaceId> =
            self.spaces.iter().filter(|(_, space)| space.access.may_see(peer)).map(|(id, _)| *id).collect();
        self.send(session, Channel::Control, Message::Offered(granted.len() as u64));
        for space in granted {
            self.open(session, space, false);
        }
    }

    fn forget(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.timers.retain(|(_, of, _)| *of != session);
    }

    fn close(&mut self, session: SessionId, reason: PeerMisbehaved) {
        if self.sessions.contains_key(&session) {
            self.forget(session);
            self.outputs.push_back(Output::Close { session, reason });
        }
    }

    fn send(&mut self, session: SessionId, channel: Channel, message: Message) {
        self.outputs.push_back(Output::Send { session, channel, message });
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

    /// The peer has admitted this device to a space. If that is here already, as after a wipe that left this device out, no
    /// commit will tell of it; and where each has refused the other, each waits for the other to open.
    fn ask_again(&mut self, session: SessionId, space: SpaceId) {
        let is_refused = self.link(session, space).is_some_and(|link| link.refused.is_some());
        if is_refused && !planted!("admitted-in-silence") {
            self.open(session, space, true);
        }
    }

    fn on_hello(&mut self, session: SessionId, hello: Hello) -> Result<(), PeerMisbehaved> {
        if hello.version != PROTOCOL_VERSION {
            return Err(PeerMisbehaved::Version(hello.version));
        }
        if hello.agent.len() > 256 {
            return Err(PeerMisbehaved::TooMany { what: "bytes in its name", limit: 256 });
        }
        if let Some(session) = self.sessions.get_mut(&session) {
            session.hello = Some(hello);
        }
        Ok(())
    }

    fn link(&mut self, session: SessionId, space: SpaceId) -> Option<&mut Link> {
        self.sessions.get_mut(&session)?.links.get_mut(&space)
    }

    /// Says what is known here, and so asks for everything else.
    fn open(&mut self, session: SessionId, space: SpaceId, answer: bool) {
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
    fn open_where_granted(&mut self, space: SpaceId) {
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
    fn close_where_not_granted(&mut self, space: SpaceId) {
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

    fn on_open(&mut self, session: SessionId, space: SpaceId, open: Open) -> Result<(), PeerMisbehaved> {
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
    fn vector_of(
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

    fn on_know(&mut self, session: SessionId, space: SpaceId, knowledge: Knowledge) -> Result<(), PeerMisbehaved> {
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

    fn on_segments(
        &mut self,
        session: SessionId,
        space: SpaceId,
        segments: Vec<ByteBuf>,
    ) -> Result<(), PeerMisbehaved> {
        let Some(link) = self.sessions.get_mut(&session).and_then(|session| session.links.get_mut(&space)) else {
            // A peer that was never answered cannot know that we want anything.
            return Err(PeerMisbehaved::Unexpected("segment of a space that is not open"));
        };
        let Some(held) = self.spaces.get_mut(&space).filter(|_| link.opened) else { return Ok(()) };
        let mut accepted: Vec<Segment> = Vec::new();
        let mut complete = true;
        for bytes in segments {
            let segment = Segment::verify(space, held.revision.number(), bytes.into_vec().into())?;
            let (first, last) = (segment.first(), segment.last());
            let known = &held.known;
            if let Some(head) = known.head(last.replica)
                && (head.counter, head.hash) == (last.counter, segment.hash())
            {
                // Somebody else was quicker, or the acknowledgement was lost.
                link.acknowledged(last);
                link.owed.insert(Witness { dot: last, hash: head.hash.prefix() });
                continue;
            }
            if known.is_split(last.replica) || held.incoming.contains(last) {
                // Only whoever has the log can tell what it is, and whether it is here.
                accepted.push(segment);
                continue;
            }
            let follows = first.counter <= held.incoming.counter(first.replica) + 1;
            let is_here = |dot: Dot| held.incoming.contains(dot) || known.is_split(dot.replica);
            let depends_on = |dot: Dot| dot.replica == first.replica || is_here(dot);
            let grounded = (segment.events().iter())
                .all(|event| event.dependencies.iter().all(|dependency| depends_on(dependency.dot)));
            if !follows || !grounded {
                complete = false;
                break;
            }
            if planted!("ack-before-durable") {
                link.owed.insert(Witness { dot: last, hash: segment.hash().prefix() });
            }
            held.incoming.advance(last);
            link.acknowledged(last);
            accepted.push(segment);
        }
        if !link.owed.is_empty() {
            link.ack_at = Some(self.now);
        }
        if !complete && link.reopen_at.is_none_or(|at| at > self.now + self.limits.ack_ms) {
            // What is on its way to the disk may be what is missing here: let it land before asking.
            link.reopen_at = Some(self.now + self.limits.ack_ms);
        }
        if !accepted.is_empty() {
            link.stalls = 0;
            self.outputs.push_back(Output::Store { session, space, segments: accepted });
        }
        self.keep_in_step(session, space);
        Ok(())
    }

    fn probe(&mut self, session: SessionId) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        state.awaiting = true;
        if self.defers_probe(session) {
            return;
        }
        let Some(state) = self.sessions.get_mut(&session) else { return };
        state.probe += 1;
        let nonce = state.probe;
        let open = |(_, link): &(&SpaceId, &mut Link)| link.opened && link.refused.is_none();
        let spaces = state.links.iter_mut().filter(open).map(|(space, link)| {
            link.awaiting = Some(nonce);
            Channel::Space(*space)
        });
        let channels: Vec<Channel> = std::iter::once(Channel::Control).chain(spaces).collect();
        for channel in channels {
            self.send(session, channel, Message::Probe(nonce));
        }
    }

    /// Says everything that could have waited a little longer, and then that this was all.
    fn on_probe(&mut self, session: SessionId, channel: Channel, nonce: u64) {
        if let Channel::Space(space) = channel {
            // Of a space that was never opened to it a peer gets no answer: not its existence, and no channel either.
            if self.link(session, space).is_none_or(|link| !link.opened) && !planted!("probe-tells") {
                return;
            }
            self.acknowledge(session, space);
            self.pump(session, space);
        } else if self.defers_answer(session, nonce) {
            return;
        }
        let spaces = self.sessions.get(&session).map_or(0, |state| state.links.len() as u64);
        self.send(session, channel, Message::Probed(Probed { nonce, spaces }));
    }

    fn on_probed(&mut self, session: SessionId, channel: Channel, probed: Probed) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        match channel {
            Channel::Control if state.probe == probed.nonce => {
                state.awaiting = false;
                state.offered = state.offered.max(Some(probed.spaces));
            }
            Channel::Control => {}
            Channel::Space(space) => {
                if let Some(link) = state.links.get_mut(&space) {
                    link.awaiting.take_if(|nonce| *nonce == probed.nonce);
                }
            }
        }
    }

    /// The peer holds another history under this id, or it did until it was told of both: it may lack anything of it.
    fn on_diverged(&mut self, session: SessionId, space: SpaceId, root: ReplicaId) {
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

    fn on_ack(&mut self, session: SessionId, space: SpaceId, acks: Vec<Witness>) -> Result<(), PeerMisbehaved> {
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

    // What the ledger reports.

    fn committed(&mut self, space: SpaceId, committed: Committed) {
        let Committed { advanced, written, local, access, taken, rejected, split } = committed;
        let Some(held) = self.spaces.get_mut(&space) else { return };
        let before = held.vector.clone();
        if !advanced.is_empty() && !planted!("digest-grows-old") {
            held.digest = None;
        }
        let renamed = split.is_some();
        match split {
            Some(known) => held.rename(known),
            None => {
                for (replica, head, tip) in advanced {
                    let dot = Dot::new(replica, head.counter);
                    held.known.set(replica, head, tip);
                    held.vector.advance(dot);
                    held.incoming.advance(dot);
                }
            }
        }
        let access_changed = access.is_some();
        if let Some(access) = access {
            held.access = access;
        }
        if !rejected.is_empty() {
            held.incoming = held.vector.clone();
        }
        if access_changed {
            // First of all: nothing of what follows is for those whose grant is gone.
            self.close_where_not_granted(space);
        }
        for (session, rejection) in rejected {
            let is_by_peer = |author| self.sessions.get(&session).is_some_and(|state| state.peer == author);
            match rejection {
                Rejection::TooDeep { author, why } if is_by_peer(author) => self.close(session, why),
                Rejection::Misbehaved(reason) => self.close(session, reason),
                Rejection::Diverged(replica) => {
                    let reopen_at = self.now + self.limits.stall_ms;
                    if let Some(link) = self.link(session, space).filter(|link| link.opened) {
                        // Asked for once; should that not help, both say anew what they have.
                        link.reopen_at = Some(reopen_at);
                        if link.asked.insert(replica) {
                            self.send(session, Channel::Space(space), Message::Diverged(replica));
                        }
                    }
                    self.keep_in_step(session, space);
                    self.pump_waiting(session);
                }
                Rejection::Missing | Rejection::TooDeep { .. } => {
                    // What is too deep need not fit later either: whoever sends it again and again is not asked as often.
                    let is_missing = matches!(rejection, Rejection::Missing);
                    let at = self.now + if is_missing { self.limits.ack_ms } else { self.limits.stall_ms };
                    // What follows a history that was asked for whole comes again with that.
                    if let Some(link) = self.link(session, space).filter(|link| link.asked.is_empty()) {
                        link.reopen_at = Some(link.reopen_at.map_or(at, |due| due.min(at)));
                    }
                }
            }
            self.keep_in_step(session, space);
        }
        let (now, stall_ms) = (self.now, self.limits.stall_ms);
        for Taken { session, last, known } in &taken {
            if let Some(link) = self.link(*session, space) {
                link.acknowledged(last.dot);
                if *known {
                    link.owed.insert(*last);
                }
                if !link.asked.is_empty() {
                    // It sends all of the other history; that takes as long as it takes.
                    link.reopen_at = Some(now + stall_ms);
                }
            }
        }
        let from: BTreeSet<SessionId> = taken.iter().map(|taken| taken.session).collect();
        if renamed && !planted!("renamed-in-silence") {
            self.open_anew(space);
        }
        if access_changed {
            self.show_anew(space);
            self.open_where_granted(space);
            self.share_with_cluster(space);
        }
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in sessions {
            let (now, limits) = (self.now, self.limits);
            let Some(link) = self.link(session, space) else { continue };
            if link.theirs.is_none() || !link.opened {
                continue;
            }
            let ack_at = if from.contains(&session) { now } else { now + limits.ack_ms };
            link.ack_at = Some(link.ack_at.map_or(ack_at, |due| due.min(ack_at)));
            if !local {
                let forward_at = (!planted!("nothing-forwarded")).then_some(now + limits.forward_ms);
                link.forward_at = link.forward_at.or(forward_at);
                self.keep_in_step(session, space);
                continue;
            }
            // The usual case of live push: the peer had everything, so what was just written is all that it lacks,
            // and is still in memory.
            let caught_up = link.sent.descends(&before) && !link.fetching;
            let room = link.in_flight_bytes < limits.window_bytes_max;
            if caught_up && room && self.has_room(session) {
                let stretches = written.clone();
                self.push(session, space, stretches);
            }
            self.pump(session, space);
        }
    }

    /// Says anew what is known here to everybody, and asks the same of them: what was said before names some events as
    /// they are not called any more.
    fn open_anew(&mut self, space: SpaceId) {
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in sessions {
            if let Some(link) = self.link(session, space).filter(|link| link.opened && link.refused.is_none()) {
                link.unlearn();
                self.open(session, space, true);
            }
        }
    }

    fn commit_failed(&mut self) {
        // A ticket that was to be looked at in that commit may go unanswered: it may be shown again.
        self.sessions.values_mut().for_each(|state| state.redeeming = false);
        // Asked for again, but not at once: a disk that goes on failing must not make peers send without end.
        let at = self.now + self.limits.stall_ms;
        let mut missing: BTreeSet<SpaceId> = BTreeSet::new();
        for (space, held) in &mut self.spaces {
            // Whoever holds a later revision is to say so again.
            if held.following.take().is_some() || held.incoming != held.vector {
                held.incoming = held.vector.clone();
                missing.insert(*space);
            }
        }
        missing.iter().for_each(|space| self.judge_what_was_shown_early(*space));
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        for (session, space) in sessions.iter().flat_map(|session| missing.iter().map(|space| (*session, *space))) {
            if let Some(link) = self.link(session, space) {
                link.reopen_at = Some(link.reopen_at.map_or(at, |due| due.min(at)));
            }
            self.keep_in_step(session, space);
        }
    }

    fn fetched(&mut self, session: SessionId, space: SpaceId, stretches: Option<Vec<Stretch>>) {
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
