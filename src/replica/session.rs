//! What is known of a peer while it is connected, and the words of a session that are about no space: hello, and probes,
//! which tell when everything was said.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_bytes::ByteBuf;

use super::cluster::Cluster;
use super::link::Link;
use super::{Channel, Hello, LinkState, Message, Output, PROTOCOL_VERSION, PeerMisbehaved, Probed, Replica, SessionId};
use crate::causal::ReplicaId;
use crate::model::{Access, DeviceId, Role, SpaceId};

#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) peer: DeviceId,
    pub(super) hello: Option<Hello>,
    /// How many spaces the peer opened at the start, once it said so.
    pub(super) offered: Option<u64>,
    /// The spaces that it did open.
    pub(super) opened: BTreeSet<SpaceId>,
    /// The number of the last probe, and whether its answer on the control channel is still to come.
    pub(super) probe: u64,
    pub(super) awaiting: bool,
    /// Whether a ticket that the peer showed is being looked at.
    pub(super) redeeming: bool,
    /// The spaces in which the peer showed to have a role that nothing here says yet.
    pub(super) shown: BTreeMap<SpaceId, Role>,
    /// The spaces for which what it showed is being looked at.
    pub(super) judging: BTreeSet<SpaceId>,
    /// What it showed while those spaces were going over to a later revision: looked at once they have.
    pub(super) shown_early: BTreeMap<SpaceId, Vec<ByteBuf>>,
    pub(super) links: BTreeMap<SpaceId, Link>,
    pub(super) cluster: Cluster,
    /// The sum of what the links claim of the session's window.
    pub(super) claimed: usize,
    /// The spaces that wait for room in it, each once, in the order in which they asked.
    pub(super) waiting: VecDeque<SpaceId>,
}

impl Session {
    /// Whether the peer may see a space with this access.
    pub(super) fn may_see(&self, space: SpaceId, access: &Access) -> bool {
        access.may_see(self.peer) || self.shown.contains_key(&space) || planted!("anybody-may-see")
    }
}

impl Replica {
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

    pub(super) fn connect(&mut self, session: SessionId, peer: DeviceId, cluster: bool) {
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

    pub(super) fn forget(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.timers.retain(|(_, of, _)| *of != session);
    }

    pub(super) fn close(&mut self, session: SessionId, reason: PeerMisbehaved) {
        if self.sessions.contains_key(&session) {
            self.forget(session);
            self.outputs.push_back(Output::Close { session, reason });
        }
    }

    pub(super) fn send(&mut self, session: SessionId, channel: Channel, message: Message) {
        self.outputs.push_back(Output::Send { session, channel, message });
    }

    pub(super) fn on_hello(&mut self, session: SessionId, hello: Hello) -> Result<(), PeerMisbehaved> {
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

    pub(super) fn probe(&mut self, session: SessionId) {
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
    pub(super) fn on_probe(&mut self, session: SessionId, channel: Channel, nonce: u64) {
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

    pub(super) fn on_probed(&mut self, session: SessionId, channel: Channel, probed: Probed) {
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
}
