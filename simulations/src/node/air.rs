//! What is between the nodes: datagrams, and what happens to them.
//!
//! Every node has one address at which it is dialled. Towards those that it dials itself it is seen at another one, that
//! of the box in between that translates addresses; that address can change, and what is sent to the old one is lost.
//!
//! Weather loses, repeats, reorders, delays and damages datagrams; a cut drops them; a narrow way drops those that are
//! too long. QUIC has to cope with all of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use super::executor::Nanos;
use crate::world::{Chance, Weather};

const NANOS_PER_MS: Nanos = 1_000_000;

/// A datagram on its way.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    pub(super) from: usize,
    pub(super) to: usize,
    source: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

#[derive(Default)]
struct Port {
    /// Counts the sockets that were opened here: what is left of an earlier one is deaf and dumb.
    opened: u64,
    is_open: bool,
    inbox: VecDeque<Datagram>,
    reader: Option<Waker>,
}

#[derive(Default)]
struct State {
    ports: BTreeMap<usize, Port>,
    sent: Vec<Datagram>,
    /// Who dials whom.
    dials: BTreeSet<(usize, usize)>,
    /// How often the address that others see of a node has changed.
    moves: BTreeMap<usize, u8>,
}

/// The air. Clones are handles to the same.
#[derive(Clone)]
pub(super) struct Air(Arc<Mutex<State>>);

impl fmt::Debug for Air {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Air")
    }
}

/// Where a node is dialled.
pub(super) fn address(node: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 0, 0, u8::try_from(node + 1).unwrap_or(u8::MAX)), 7117))
}

/// Where a node is seen by those that it dials.
fn outside(node: usize, moves: u8) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 1, moves, u8::try_from(node + 1).unwrap_or(u8::MAX)), 40_000))
}

impl Air {
    pub(super) fn new(dials: &[(usize, usize)]) -> Self {
        Self(Arc::new(Mutex::new(State { dials: dials.iter().copied().collect(), ..State::default() })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the socket of a node.
    pub(super) fn open(&self, node: usize) -> Arc<dyn AsyncUdpSocket> {
        let mut state = self.lock();
        let port = state.ports.entry(node).or_default();
        *port = Port { opened: port.opened + 1, is_open: true, ..Port::default() };
        Arc::new(Socket { air: self.clone(), node, opened: port.opened })
    }

    /// Closes it, so that whatever its owner still says at its end is not heard.
    pub(super) fn close(&self, node: usize) {
        if let Some(port) = self.lock().ports.get_mut(&node) {
            port.is_open = false;
            port.inbox.clear();
        }
    }

    /// Those that a node dials see it somewhere else from now on.
    pub(super) fn move_away(&self, node: usize) {
        let mut state = self.lock();
        let moves = state.moves.entry(node).or_default();
        *moves = moves.wrapping_add(1);
    }

    /// Takes what was sent since the last time.
    pub(super) fn take_sent(&self) -> Vec<Datagram> {
        std::mem::take(&mut self.lock().sent)
    }

    /// Hands a datagram to its receiver, if anybody is there. Returns whether it was.
    pub(super) fn deliver(&self, datagram: Datagram) -> bool {
        let reader = {
            let mut state = self.lock();
            let Some(port) = state.ports.get_mut(&datagram.to).filter(|port| port.is_open) else { return false };
            port.inbox.push_back(datagram);
            port.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
        true
    }
}

impl State {
    /// As whom `from` is seen by `to`.
    fn source(&self, from: usize, to: usize) -> SocketAddr {
        match self.dials.contains(&(from, to)) {
            true => outside(from, self.moves.get(&from).copied().unwrap_or_default()),
            false => address(from),
        }
    }

    /// Whose address that is now, as `from` knows it.
    fn receiver(&self, from: usize, destination: SocketAddr) -> Option<usize> {
        let is_there = |node: &usize| address(*node) == destination || self.source(*node, from) == destination;
        self.ports.keys().copied().find(is_there)
    }
}

/// One node's socket.
struct Socket {
    air: Air,
    node: usize,
    opened: u64,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket of {}", self.node)
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut state = self.air.lock();
        let Some(port) = state.ports.get(&self.node) else { return Ok(()) };
        if !port.is_open || port.opened != self.opened {
            return Ok(());
        }
        // Nobody is there: the datagram is lost, as in life.
        let Some(to) = state.receiver(self.node, transmit.destination) else { return Ok(()) };
        let source = state.source(self.node, to);
        state.sent.push(Datagram { from: self.node, to, source, bytes: transmit.contents.to_vec() });
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.air.lock();
        let Some(port) = state.ports.get_mut(&self.node).filter(|port| port.opened == self.opened) else {
            return Poll::Pending;
        };
        let mut received = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas.iter_mut()) {
            let Some(datagram) = port.inbox.pop_front() else { break };
            let len = datagram.bytes.len().min(buffer.len());
            buffer[..len].copy_from_slice(&datagram.bytes[..len]);
            *meta = RecvMeta { addr: datagram.source, len, stride: len, ecn: None, dst_ip: None };
            received += 1;
        }
        if received > 0 {
            return Poll::Ready(Ok(received));
        }
        port.reader = Some(context.waker().clone());
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(address(self.node))
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What becomes of datagrams, by direction.
#[derive(Debug)]
pub(super) struct Skies {
    chance: Chance,
    calm: Weather,
    weather: BTreeMap<(usize, usize), Weather>,
    cuts: BTreeSet<(usize, usize)>,
    damage: BTreeMap<(usize, usize), u64>,
    narrow: BTreeMap<(usize, usize), usize>,
    counts: BTreeMap<(usize, usize), (u64, Nanos)>,
    pub(super) sent: u64,
}

impl Skies {
    pub(super) fn new(chance: Chance, calm: Weather) -> Self {
        Self {
            chance,
            calm,
            weather: BTreeMap::new(),
            cuts: BTreeSet::new(),
            damage: BTreeMap::new(),
            narrow: BTreeMap::new(),
            counts: BTreeMap::new(),
            sent: 0,
        }
    }

    pub(super) fn set_weather(&mut self, from: usize, to: usize, weather: Weather) {
        self.weather.insert((from, to), weather);
    }

    pub(super) fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    pub(super) fn heal(&mut self, from: usize, to: usize) {
        self.cuts.remove(&(from, to));
    }

    /// Of a thousand datagrams so many come with a flipped bit.
    pub(super) fn set_damage(&mut self, from: usize, to: usize, per_mille: u64) {
        self.damage.insert((from, to), per_mille);
    }

    /// No datagram longer than this gets through.
    pub(super) fn set_width(&mut self, from: usize, to: usize, bytes: usize) {
        self.narrow.insert((from, to), bytes);
    }

    /// Calm weather everywhere, and no cuts.
    pub(super) fn calm(&mut self) {
        self.weather.clear();
        self.cuts.clear();
        self.damage.clear();
        self.narrow.clear();
    }

    /// When a datagram arrives: not at all, once, or twice.
    pub(super) fn send(&mut self, now: Nanos, mut datagram: Datagram) -> Vec<(Nanos, Datagram)> {
        self.sent += 1;
        let way = (datagram.from, datagram.to);
        let (count, last) = self.counts.entry(way).or_default();
        *count += 1;
        let mut draws = self.chance.draws("datagram", ((way.0 as u64) << 8 | way.1 as u64) << 40 | *count);
        let weather = self.weather.get(&way).copied().unwrap_or(self.calm);
        let too_long = self.narrow.get(&way).is_some_and(|width| datagram.bytes.len() > *width);
        if self.cuts.contains(&way) || too_long || draws.yes(weather.loss) {
            return Vec::new();
        }
        if draws.yes(self.damage.get(&way).copied().unwrap_or_default()) {
            let at = usize::try_from(draws.below(datagram.bytes.len() as u64)).unwrap_or_default();
            datagram.bytes[at] ^= 1 << draws.below(8);
        }
        let (low, high) = weather.delay_ms;
        let mut at = now + draws.within((low * NANOS_PER_MS, high * NANOS_PER_MS));
        if !draws.yes(weather.reorder) {
            at = at.max(*last + 1);
            *last = at;
        }
        let mut arrivals = vec![(at, datagram)];
        if draws.yes(weather.duplicate) {
            let again = at + draws.within((low * NANOS_PER_MS, high * NANOS_PER_MS));
            arrivals.push((again, arrivals[0].1.clone()));
        }
        arrivals
    }
}
