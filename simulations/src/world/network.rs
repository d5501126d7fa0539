//! Connections between nodes, and what happens to messages on them.
//!
//! In calm weather a channel is what QUIC makes of it: in order and complete, or the session ends; channels overtake
//! one another. Weather may also lose, repeat and reorder messages on a space's channel *inside* a living session,
//! which is harsher than life. Two things are spared. The control channel: what is said there is said once, and a
//! transport that lost it would have ended the session. And the place of a refusal among openings: it holds until the
//! next opening, so which of the two was said last is the one thing for which the protocol relies on order.
//!
//! A cut holds messages back. If it outlasts the idle time, the session ends and they are gone.

use std::collections::BTreeMap;

use thence::replica::{Channel, SessionId};

use super::{Chance, Millis, Weather};

/// The frame types of [`thence::replica::Message::Open`] and [`thence::replica::Message::Refuse`].
const OPEN: u8 = 16;
const REFUSE: u8 = 20;

/// How one end of a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The connection is being made.
    Pending,
    /// The node uses it.
    Up,
    /// The node knows that it is gone.
    Down,
}

/// A message that is to arrive.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) session: SessionId,
    pub(crate) to: usize,
    pub(crate) channel: Channel,
    pub(crate) kind: u8,
    pub(crate) body: Vec<u8>,
    /// In which revision of the space its sender was.
    pub(crate) said_in: u64,
    /// Its number in the story, if one is recorded.
    pub(crate) told_as: Option<usize>,
}

/// What the network makes of a message.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// When it arrives: not at all, once, or twice.
    pub(crate) arrivals: Vec<(Millis, Arrival)>,
    /// The faults that struck it.
    pub(crate) struck: Vec<&'static str>,
}

/// One session.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) edge: usize,
    /// Dialer and listener.
    pub(crate) ends: [usize; 2],
    pub(crate) sides: [Side; 2],
    /// By receiving end and channel: how many messages there were, and when the last one arrives.
    channels: BTreeMap<(usize, Channel), (u64, Millis)>,
    /// Messages that a cut holds back, in order.
    held: Vec<Arrival>,
}

impl Line {
    pub(crate) fn end_of(&self, node: usize) -> usize {
        usize::from(self.ends[1] == node)
    }

    pub(crate) fn peer_of(&self, node: usize) -> usize {
        self.ends[1 - self.end_of(node)]
    }

    pub(crate) fn side_of(&self, node: usize) -> Side {
        self.sides[self.end_of(node)]
    }
}

#[derive(Debug)]
pub(crate) struct Network {
    chance: Chance,
    calm: Weather,
    weather: BTreeMap<(usize, usize), Weather>,
    /// Cut directions, with a number that tells one cut from the next.
    cuts: BTreeMap<(usize, usize), u64>,
    cut_count: u64,
    pub(crate) lines: BTreeMap<SessionId, Line>,
    next_session: u64,
    pub(crate) sent: u64,
}

impl Network {
    pub(crate) fn new(chance: Chance, calm: Weather) -> Self {
        Self {
            chance,
            calm,
            weather: BTreeMap::new(),
            cuts: BTreeMap::new(),
            cut_count: 0,
            lines: BTreeMap::new(),
            next_session: 1,
            sent: 0,
        }
    }

    pub(crate) fn set_weather(&mut self, from: usize, to: usize, weather: Weather) {
        self.weather.insert((from, to), weather);
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains_key(&(from, to))
    }

    /// Cuts one direction. Returns the number of this cut.
    pub(crate) fn cut(&mut self, from: usize, to: usize) -> u64 {
        self.cut_count += 1;
        *self.cuts.entry((from, to)).or_insert(self.cut_count)
    }

    pub(crate) fn is_same_cut(&self, from: usize, to: usize, number: u64) -> bool {
        self.cuts.get(&(from, to)) == Some(&number)
    }

    /// Lets through what waited. Returns it with the times of arrival.
    pub(crate) fn heal(&mut self, now: Millis, from: usize, to: usize) -> Vec<Sent> {
        self.cuts.remove(&(from, to));
        let mut waited = Vec::new();
        for line in self.lines.values_mut().filter(|line| line.ends == [from, to] || line.ends == [to, from]) {
            let (through, held) = std::mem::take(&mut line.held).into_iter().partition(|arrival| arrival.to == to);
            line.held = held;
            waited.extend::<Vec<Arrival>>(through);
        }
        waited.into_iter().map(|arrival| self.send(now, arrival)).collect()
    }

    /// All directions that are cut.
    pub(crate) fn cut_directions(&self) -> Vec<(usize, usize)> {
        self.cuts.keys().copied().collect()
    }

    /// Calm weather everywhere.
    pub(crate) fn calm(&mut self) {
        self.weather.clear();
    }

    pub(crate) fn connect(&mut self, edge: usize, dialer: usize, listener: usize) -> SessionId {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        let (ends, sides) = ([dialer, listener], [Side::Pending; 2]);
        self.lines.insert(session, Line { edge, ends, sides, channels: BTreeMap::new(), held: Vec::new() });
        session
    }

    /// Nothing more gets through on this session. Returns what waited for that.
    pub(crate) fn forget_held(&mut self, session: SessionId) -> Vec<Arrival> {
        self.lines.get_mut(&session).map(|line| std::mem::take(&mut line.held)).unwrap_or_default()
    }

    /// Sends a message.
    pub(crate) fn send(&mut self, now: Millis, arrival: Arrival) -> Sent {
        let mut sent = Sent::default();
        let to = arrival.to;
        let Some(line) = self.lines.get_mut(&arrival.session) else { return sent };
        let from = line.peer_of(to);
        if self.cuts.contains_key(&(from, to)) {
            line.held.push(arrival);
            return sent;
        }
        let weather = self.weather.get(&(from, to)).copied().unwrap_or(self.calm);
        let (count, last) = line.channels.entry((to, arrival.channel)).or_default();
        *count += 1;
        // Which session it is does not matter for a message's fate, so that a session more or less changes little.
        let lane = match arrival.channel {
            Channel::Control => 0,
            Channel::Space(space) => u64::from_le_bytes(space.as_bytes()[..8].try_into().unwrap_or_default()),
        };
        let entity = lane ^ ((from as u64) << 8 | to as u64) ^ (arrival.session.0 << 16);
        let mut draws = self.chance.draws("message", entity.wrapping_add(*count << 40));
        let harsh = arrival.channel != Channel::Control;
        self.sent += 1;
        if harsh && draws.yes(weather.loss) {
            sent.struck.push("loss");
            return sent;
        }
        let delay = draws.within(weather.delay_ms);
        if delay > self.calm.delay_ms.1 {
            sent.struck.push("delay");
        }
        let mut at = now + delay;
        let in_place = !harsh || arrival.kind == OPEN || arrival.kind == REFUSE;
        if in_place || !draws.yes(weather.reorder) {
            at = at.max(*last);
            *last = at;
        } else if at < *last {
            sent.struck.push("reorder");
        }
        let again = (harsh && arrival.kind != REFUSE && draws.yes(weather.duplicate)).then(|| arrival.clone());
        sent.arrivals.push((at, arrival));
        if let Some(again) = again {
            sent.struck.push("duplicate");
            sent.arrivals.push((at + draws.within(weather.delay_ms), again));
        }
        sent
    }
}
