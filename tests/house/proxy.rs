//! A network between two nodes that does what it is told: it drops, delays, can be cut and healed, and moves a client
//! to another source port, as a NAT does that has forgotten it. It counts what passes.
//!
//! Clients talk to the proxy's [`address`](Proxy::address); each gets a socket of its own towards the server.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::Dice;

/// How often a waiting thread looks whether the proxy is gone.
const LOOK_ABOUT: Duration = Duration::from_millis(20);

/// The proxy. Dropping it ends it.
pub struct Proxy {
    address: SocketAddr,
    network: Arc<Network>,
}

struct Network {
    front: Arc<UdpSocket>,
    target: Mutex<SocketAddr>,
    /// Client → its socket towards the server. A route that is not in here any more is dead in both directions.
    routes: Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>,
    cut: AtomicBool,
    loss_permille: AtomicU64,
    delay_us: AtomicU64,
    dice: Mutex<Dice>,
    bytes: AtomicU64,
    datagrams: AtomicU64,
    ended: AtomicBool,
    courier: Mutex<Sender<Parcel>>,
}

/// A datagram on its way.
struct Parcel {
    due: Instant,
    via: Arc<UdpSocket>,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Proxy {
    /// A faultless network before the node at `target`.
    pub fn before(target: SocketAddr) -> Self {
        let front = Arc::new(open_socket());
        let address = front.local_addr().expect("a bound socket has an address");
        let (courier, parcels) = mpsc::channel::<Parcel>();
        thread::spawn(move || {
            for parcel in parcels {
                thread::sleep(parcel.due.saturating_duration_since(Instant::now()));
                let _ = parcel.via.send_to(&parcel.bytes, parcel.to);
            }
        });
        let network = Arc::new(Network {
            front,
            target: Mutex::new(target),
            routes: Mutex::default(),
            cut: AtomicBool::new(false),
            loss_permille: AtomicU64::new(0),
            delay_us: AtomicU64::new(0),
            dice: Mutex::new(Dice::new(7)),
            bytes: AtomicU64::new(0),
            datagrams: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            courier: Mutex::new(courier),
        });
        let pump = Arc::clone(&network);
        thread::spawn(move || pump.clients_to_server());
        Self { address, network }
    }

    /// Where clients find the server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on every datagram is lost, in both directions.
    pub fn cut(&self) {
        self.network.cut.store(true, Ordering::SeqCst);
    }

    /// Ends what [`cut`](Self::cut) began.
    pub fn heal(&self) {
        self.network.cut.store(false, Ordering::SeqCst);
    }

    /// From now on so many of a thousand datagrams are lost, drawn by a fixed seed.
    pub fn lose_permille(&self, permille: u64) {
        self.network.loss_permille.store(permille, Ordering::SeqCst);
    }

    /// From now on every datagram takes this long in each direction.
    pub fn delay(&self, delay: Duration) {
        let delay_us = u64::try_from(delay.as_micros()).expect("a short delay");
        self.network.delay_us.store(delay_us, Ordering::SeqCst);
    }

    /// The NAT forgets its clients: their next datagram reaches the server from another port, and what the server
    /// sends to the old one is lost.
    pub fn rebind(&self) {
        self.network.routes.lock().expect("no pump panics").clear();
    }

    /// The server has moved.
    pub fn retarget(&self, target: SocketAddr) {
        *self.network.target.lock().expect("no pump panics") = target;
    }

    /// Bytes of all datagrams that were handed to the network so far, lost or not.
    pub fn bytes(&self) -> u64 {
        self.network.bytes.load(Ordering::SeqCst)
    }

    /// Their number.
    pub fn datagrams(&self) -> u64 {
        self.network.datagrams.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.network.ended.store(true, Ordering::SeqCst);
    }
}

impl Network {
    fn clients_to_server(self: Arc<Self>) {
        let mut datagram = vec![0; 65_535];
        while !self.ended.load(Ordering::SeqCst) {
            let Ok((count, client)) = self.front.recv_from(&mut datagram) else {
                continue;
            };
            let route = self.route_of(client);
            let target = *self.target.lock().expect("no pump panics");
            self.carry(&route, target, &datagram[..count]);
        }
    }

    fn route_of(self: &Arc<Self>, client: SocketAddr) -> Arc<UdpSocket> {
        let mut routes = self.routes.lock().expect("no pump panics");
        let route = routes.entry(client).or_insert_with(|| {
            let route = Arc::new(open_socket());
            let (network, back) = (Arc::clone(self), Arc::clone(&route));
            thread::spawn(move || network.server_to_client(&back, client));
            route
        });
        Arc::clone(route)
    }

    fn server_to_client(&self, route: &Arc<UdpSocket>, client: SocketAddr) {
        let mut datagram = vec![0; 65_535];
        while !self.ended.load(Ordering::SeqCst) {
            let received = route.recv_from(&mut datagram);
            let routes = self.routes.lock().expect("no pump panics");
            if !routes.get(&client).is_some_and(|current| Arc::ptr_eq(current, route)) {
                return;
            }
            drop(routes);
            if let Ok((count, _)) = received {
                self.carry(&self.front, client, &datagram[..count]);
            }
        }
    }

    fn carry(&self, via: &Arc<UdpSocket>, to: SocketAddr, bytes: &[u8]) {
        self.bytes.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        self.datagrams.fetch_add(1, Ordering::SeqCst);
        let lost = self.dice.lock().expect("no pump panics").below(1000) < self.loss_permille.load(Ordering::SeqCst);
        if lost || self.cut.load(Ordering::SeqCst) {
            return;
        }
        match self.delay_us.load(Ordering::SeqCst) {
            0 => drop(via.send_to(bytes, to)),
            delay_us => {
                let due = Instant::now() + Duration::from_micros(delay_us);
                let parcel = Parcel { due, via: Arc::clone(via), to, bytes: bytes.to_vec() };
                let _ = self.courier.lock().expect("no pump panics").send(parcel);
            }
        }
    }
}

/// An unconnected socket: one that is connected would report the refusals of a server that is down.
fn open_socket() -> UdpSocket {
    let open = || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(LOOK_ABOUT))?;
        Ok(socket)
    };
    open().expect("a local UDP socket")
}
