//! What is between two nodes: their sessions, and the messages on their way.
//!
//! A channel is what QUIC makes of it: in order and complete, or the session ends. Channels of one session overtake one
//! another. What weather does to a message is done here too: it is lost, comes twice, or is overtaken by the next one.
//! A session that breaks takes nothing more; what was sent before may still come, all of it or some, until
//! the receiver finds out.

use thence::replica::SessionId;

/// A channel of a session: 0 is the control channel, 1 that of the first space, and so on.
pub(super) type Lane = u8;

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// Whether the dialer uses it, and whether the listener does.
    pub(super) up: [bool; 2],
    /// Whether it still takes what is sent.
    pub(super) whole: bool,
    /// By receiving end: messages by lane, and in each lane in the order in which they were sent.
    pub(super) queues: [Vec<(Lane, u32)>; 2],
}

impl Session {
    /// The lanes on which something is on its way to one end.
    pub(super) fn lanes(&self, end: usize) -> Vec<Lane> {
        let mut lanes: Vec<Lane> = self.queues[end].iter().map(|(lane, _)| *lane).collect();
        lanes.dedup();
        lanes
    }

    /// The next message of a lane.
    pub(super) fn next(&self, end: usize, lane: Lane) -> Option<u32> {
        self.on(end, lane).next()
    }

    /// The messages of a lane.
    pub(super) fn on(&self, end: usize, lane: Lane) -> impl Iterator<Item = u32> + '_ {
        self.queues[end].iter().filter(move |(of, _)| *of == lane).map(|(_, message)| *message)
    }
}

/// One edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    /// How many sessions there ever were.
    pub(super) dialled: u64,
    /// Those that somebody uses, the oldest first.
    pub(super) sessions: Vec<Session>,
}

impl Line {
    pub(super) fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.iter().find(|session| session.id == id)
    }

    fn session_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|session| session.id == id)
    }

    /// A new session, which both ends use.
    pub(super) fn connect(&mut self, edge: usize) -> SessionId {
        self.dialled += 1;
        let id = SessionId((edge as u64) << 32 | self.dialled);
        self.sessions.push(Session { id, up: [true; 2], whole: true, queues: [Vec::new(), Vec::new()] });
        id
    }

    /// A message is sent to one end.
    pub(super) fn send(&mut self, id: SessionId, to: usize, lane: Lane, message: u32) {
        if let Some(session) = self.session_mut(id).filter(|session| session.whole) {
            let queue = &mut session.queues[to];
            queue.insert(queue.partition_point(|(of, _)| *of <= lane), (lane, message));
        }
    }

    /// The next message of a lane has come.
    pub(super) fn take(&mut self, id: SessionId, to: usize, lane: Lane) {
        if let Some(session) = self.session_mut(id)
            && let Some(at) = session.queues[to].iter().position(|(of, _)| *of == lane)
        {
            session.queues[to].remove(at);
        }
    }

    /// The next message of a lane will come twice.
    pub(super) fn repeat(&mut self, id: SessionId, to: usize, lane: Lane) {
        if let Some(session) = self.session_mut(id)
            && let Some(at) = session.queues[to].iter().position(|(of, _)| *of == lane)
        {
            let message = session.queues[to][at];
            session.queues[to].insert(at, message);
        }
    }

    /// The next message of a lane is overtaken by the one after it.
    pub(super) fn overtake(&mut self, id: SessionId, to: usize, lane: Lane) {
        if let Some(session) = self.session_mut(id)
            && let Some(at) = session.queues[to].iter().position(|(of, _)| *of == lane)
            && session.queues[to].get(at + 1).is_some_and(|(of, _)| *of == lane)
        {
            session.queues[to].swap(at, at + 1);
        }
    }

    /// Nothing more is taken by the sessions that are whole.
    pub(super) fn break_all(&mut self) {
        self.sessions.iter_mut().for_each(|session| session.whole = false);
    }

    /// One end is done with a session.
    pub(super) fn leave(&mut self, id: SessionId, end: usize) {
        if let Some(session) = self.session_mut(id) {
            session.up[end] = false;
            session.whole = false;
            session.queues[end].clear();
        }
        self.sessions.retain(|session| session.up != [false; 2]);
    }

    /// One end's process has ended.
    pub(super) fn leave_all(&mut self, end: usize) {
        let ids: Vec<SessionId> = self.sessions.iter().map(|session| session.id).collect();
        ids.into_iter().for_each(|id| self.leave(id, end));
    }
}
