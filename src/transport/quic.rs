//! QUIC, by quinn: the only file that names it.
//!
//! It turns the numbers of [`TransportConfig`] into quinn's, quinn's errors into ours, and reads the peer's device from
//! every single connection. All time comes from the runtime handed in, so that it can be virtual.
//!
//! **Decision, 2026-11**: connection ids are drawn here, without quinn's hash in them. quinn's default generator has a
//! random key per process, drops packets whose id it does not recognise, and so would never answer a connection of
//! before a restart with a stateless reset, whatever key that is made with. The price is that any stray packet may be
//! answered with a reset, smaller than itself and one per 20 ms at most.

use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ConnectionError, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::close::{CloseCause, CloseReason, tame};
use super::config::{TransportConfig, stranger};
use super::error::{ReceiveError, SendError, TransportError};
use super::frame_stream::{FrameReceiver, FrameSender};
use super::tls::{ClientTls, Identity, device_of};
use crate::model::{DeviceId, DeviceKey};

/// One UDP socket, from which this device dials and on which it is dialled. Clones are handles to the same.
///
/// When the last handle and the last connection are dropped the socket is closed, without waiting for goodbyes:
/// call [`drain`](Self::drain) first.
#[derive(Clone)]
pub struct Endpoint {
    inner: quinn::Endpoint,
    runtime: Arc<dyn quinn::Runtime>,
    identity: Identity,
    config: Arc<TransportConfig>,
    dialling: Arc<quinn::TransportConfig>,
    ids: Arc<ConnectionIds>,
    handshakes: Arc<Semaphore>,
    draining: Arc<AtomicBool>,
}

impl Endpoint {
    /// Opens the socket `config.listen` as the device with `key`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`TransportError::Socket`] and [`TransportError::Config`].
    pub fn bind(key: &DeviceKey, config: TransportConfig) -> Result<Self, TransportError> {
        let runtime = quinn::default_runtime().ok_or_else(|| TransportError::Config {
            what: "an endpoint must be bound inside a tokio runtime".into(),
        })?;
        let socket = open_socket(&*runtime, config.listen)?;
        Self::bind_with(socket, runtime, key, config)
    }

    /// The same on a socket and a runtime of the caller's, which may be virtual; `config.listen` is ignored.
    ///
    /// # Errors
    /// [`TransportError::Socket`] and [`TransportError::Config`].
    pub fn bind_with(
        socket: Arc<dyn quinn::AsyncUdpSocket>,
        runtime: Arc<dyn quinn::Runtime>,
        key: &DeviceKey,
        config: TransportConfig,
    ) -> Result<Self, TransportError> {
        config.check()?;
        let identity = Identity::new(key, config.crypto_provider.clone());
        let ids = Arc::new(ConnectionIds::new(config.rng_seed));
        let server = server_config(&identity, &config, &runtime)?;
        let address = config.listen;
        let inner = quinn::Endpoint::new_with_abstract_socket(
            endpoint_config(&config, &ids),
            Some(server),
            socket,
            runtime.clone(),
        )
        .map_err(|source| socket_error(address, source))?;
        let mut dialling = quic_limits(&config);
        dialling
            .max_concurrent_uni_streams(config.streams_max.into())
            .receive_window(config.receive_window_bytes().into());
        Ok(Self {
            inner,
            runtime,
            identity,
            dialling: Arc::new(dialling),
            ids,
            handshakes: Arc::new(Semaphore::new(config.handshakes_max)),
            draining: Arc::new(AtomicBool::new(false)),
            config: Arc::new(config),
        })
    }

    /// The local address, with the port that the system chose. After a [`rebind`](Self::rebind), the new one.
    ///
    /// # Errors
    /// [`TransportError::Socket`].
    pub fn local_address(&self) -> Result<SocketAddr, TransportError> {
        self.inner.local_addr().map_err(|source| socket_error(self.config.listen, source))
    }

    /// The next one who dials, or `None` once the endpoint is drained.
    ///
    /// Nothing of the handshake is done yet: call [`Incoming::establish`] in a task of its own, so that a slow
    /// dialer holds up nobody. Beyond the limits newcomers are asked to prove their address, or refused as busy.
    pub async fn accept(&self) -> Option<Incoming> {
        loop {
            let incoming = self.inner.accept().await?;
            if self.draining.load(Ordering::Relaxed) || self.inner.open_connections() >= self.config.connections_max {
                incoming.refuse();
                continue;
            }
            let unfinished = self.config.handshakes_max - self.handshakes.available_permits();
            if unfinished >= self.config.handshakes_unproven_max && !incoming.remote_address_validated() {
                // quinn guarantees that one whose address is not validated may be asked; otherwise silence is safe.
                if let Err(error) = incoming.retry() {
                    error.into_incoming().ignore();
                }
                continue;
            }
            match self.handshakes.clone().try_acquire_owned() {
                Ok(place) => {
                    return Some(Incoming { inner: incoming, place, endpoint: self.clone() });
                }
                Err(_) => incoming.refuse(),
            }
        }
    }

    /// Dials `device` at `address`.
    ///
    /// Returning a connection means that `device` is there. It does *not* mean that it takes this side: its refusal
    /// can come later, as [`CloseCause::Refused`]; nothing counts until its first frame. The connection is admitted
    /// from the start, since the caller named the device.
    ///
    /// # Errors
    /// [`TransportError::WrongDevice`] and the others; in particular [`TransportError::HandshakeTimeout`] when nobody
    /// answers.
    pub async fn connect(&self, device: DeviceId, address: SocketAddr) -> Result<Connection, TransportError> {
        let (tls, verifier) = self.identity.client(device).map_err(tls_error)?;
        let connection = self.dial(tls, address).await.map_err(|error| match verifier.other() {
            Some(found) => TransportError::WrongDevice { expected: device, found },
            None => error,
        })?;
        // The verifier has compared already; this holds even if it was not called.
        if connection.peer() != device {
            connection.close(CloseReason::new(CloseReason::NO_IDENTITY, "wrong device"));
            return Err(TransportError::WrongDevice { expected: device, found: connection.peer() });
        }
        connection.admit();
        Ok(connection)
    }

    /// Moves to a new local address when the network has changed; connections that this side dialled move along.
    ///
    /// The new port must be free, so not the one in use unless the IP address differs; 0 lets the system choose.
    /// Peers that dialled this side may not find it again: their connections end by idle timeout.
    ///
    /// # Errors
    /// [`TransportError::Socket`]; the old socket is kept then.
    pub fn rebind(&self, listen: SocketAddr) -> Result<(), TransportError> {
        let socket = open_socket(&*self.runtime, listen)?;
        self.rebind_with(socket)
    }

    /// The same with a socket of the caller's.
    ///
    /// # Errors
    /// [`TransportError::Socket`]; the old socket is kept then.
    pub fn rebind_with(&self, socket: Arc<dyn quinn::AsyncUdpSocket>) -> Result<(), TransportError> {
        self.inner.rebind_abstract(socket).map_err(|source| socket_error(self.config.listen, source))
    }

    /// Refuses newcomers, closes every connection with [`CloseReason::GOING_AWAY`], and waits, at most for
    /// `deadline`, until the goodbyes are out. Returns whether they are.
    ///
    /// What peers had not acknowledged is not sent any more: use [`FrameSender::finish_delivered`] before, where it
    /// matters. The endpoint stays drained.
    pub async fn drain(&self, deadline: Duration) -> bool {
        self.draining.store(true, Ordering::Relaxed);
        let goodbye = CloseReason::new(CloseReason::GOING_AWAY, "the node is going away");
        self.inner.close(goodbye.code().into(), goodbye.text().as_bytes());
        within(&*self.runtime, deadline, self.inner.wait_idle()).await.is_some()
    }

    pub(super) async fn dial(&self, tls: ClientTls, address: SocketAddr) -> Result<Connection, TransportError> {
        let tls = QuicClientConfig::try_from(tls).map_err(tls_error)?;
        let mut config = quinn::ClientConfig::new(Arc::new(tls));
        let ids = self.ids.clone();
        config
            .transport_config(self.dialling.clone())
            .token_store(Arc::new(quinn::NoneTokenStore))
            .initial_dst_cid_provider(Arc::new(move || ids.first()));
        let connecting = self.inner.connect_with(config, address, SERVER_NAME).map_err(|error| match error {
            quinn::ConnectError::EndpointStopping => TransportError::Stopped,
            quinn::ConnectError::CidsExhausted => TransportError::Lost(CloseCause::Exhausted),
            quinn::ConnectError::InvalidRemoteAddress(_) => TransportError::Address { address },
            other => tls_error(other),
        })?;
        self.shake_hands(connecting).await
    }

    async fn shake_hands(&self, connecting: quinn::Connecting) -> Result<Connection, TransportError> {
        let ms = u64::from(self.config.handshake_ms_max);
        let timeout = TransportError::HandshakeTimeout { ms };
        let limit = Duration::from_millis(ms);
        match within(&*self.runtime, limit, connecting).await {
            None | Some(Err(ConnectionError::TimedOut)) => Err(timeout),
            Some(Err(error)) => Err(handshake_error(error)),
            Some(Ok(inner)) => Connection::new(inner, self.config.clone()),
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Somebody who dials and has proved nothing yet. Dropping it refuses them.
#[must_use = "dropping it refuses the dialer"]
pub struct Incoming {
    inner: quinn::Incoming,
    place: OwnedSemaphorePermit,
    endpoint: Endpoint,
}

impl Incoming {
    /// Where they claim to be.
    pub fn remote_address(&self) -> SocketAddr {
        canonical(self.inner.remote_address())
    }

    /// Shakes hands, within `handshake_ms_max`. The connection is a stranger's until [`Connection::admit`].
    ///
    /// # Errors
    /// [`TransportError::Unauthenticated`] when they have no device key or speak another protocol,
    /// [`TransportError::Refused`] when they expected another device, and the others.
    pub async fn establish(self) -> Result<Connection, TransportError> {
        let connecting = self.inner.accept().map_err(handshake_error)?;
        let connection = self.endpoint.shake_hands(connecting).await;
        drop(self.place);
        connection
    }

    /// Refuses them as busy.
    pub fn refuse(self) {
        self.inner.refuse();
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incoming from {}", self.remote_address())
    }
}

/// A connection with a device that proved its key on it. Clones are handles to the same.
///
/// When the last handle and the last stream are dropped it closes, with [`CloseReason::DROPPED`].
#[derive(Clone)]
pub struct Connection {
    inner: quinn::Connection,
    peer: DeviceId,
    config: Arc<TransportConfig>,
    share: Arc<ConnectionShare>,
}

impl Connection {
    fn new(inner: quinn::Connection, config: Arc<TransportConfig>) -> Result<Self, TransportError> {
        let Some(peer) = inner.peer_identity().and_then(device_of) else {
            let text = "the handshake left no device key";
            inner.close(CloseReason::NO_IDENTITY.into(), text.as_bytes());
            return Err(TransportError::Unauthenticated { text: text.into() });
        };
        let at_first = stranger::ASSEMBLY_BYTES.min(config.assembly_bytes_max);
        let share = Arc::new(ConnectionShare {
            assembly: Arc::new(Semaphore::new(at_first)),
            admitted: AtomicBool::new(false),
        });
        Ok(Self { inner, peer, config, share })
    }

    /// The device at the other end, proved on this connection.
    pub fn peer(&self) -> DeviceId {
        self.peer
    }

    /// Where the peer's packets come from now; it may move.
    pub fn remote_address(&self) -> SocketAddr {
        canonical(self.inner.remote_address())
    }

    /// Gives the peer the full limits of the configuration. Until then it has a stranger's: four streams, 256 KiB
    /// unread, and larger frames wait. Call it when the peer's hello was judged; again is harmless.
    pub fn admit(&self) {
        if self.share.admitted.swap(true, Ordering::Relaxed) {
            return;
        }
        let more = self.config.assembly_bytes_max.saturating_sub(stranger::ASSEMBLY_BYTES);
        self.share.assembly.add_permits(more);
        let window = self.config.receive_window_bytes();
        if window > stranger_window(&self.config) {
            self.inner.set_receive_window(window.into());
        }
        if self.config.streams_max > stranger_streams(&self.config) {
            self.inner.set_max_concurrent_uni_streams(self.config.streams_max.into());
        }
    }

    /// Lets the peer have this many streams open at a time, where that is more than the configuration gives to all. For
    /// peers that are trusted: each stream may hold some memory.
    pub fn allow_streams(&self, streams: u32) {
        if streams > self.config.streams_max {
            self.inner.set_max_concurrent_uni_streams(streams.into());
        }
    }

    /// Opens a stream to the peer, which learns of it with the first frame on it, or on one that was opened later.
    /// Waits while as many are open as the peer allows.
    ///
    /// # Errors
    /// [`SendError::Lost`].
    pub async fn open(&self) -> Result<FrameSender, SendError> {
        let stream = self.inner.open_uni().await;
        let stream = ByteSender(stream.map_err(|error| SendError::Lost(cause(error)))?);
        Ok(FrameSender::new(stream, self.config.frame_bytes_max))
    }

    /// The next stream that the peer has opened, in the order in which it did. It may be silent yet. The future may be dropped at any time.
    ///
    /// # Errors
    /// [`ReceiveError::Lost`].
    pub async fn accept(&self) -> Result<FrameReceiver, ReceiveError> {
        let stream = self.inner.accept_uni().await;
        let stream = ByteReceiver(stream.map_err(|error| ReceiveError::Lost(cause(error)))?);
        Ok(FrameReceiver::new(stream, self.share.clone(), self.config.frame_bytes_max))
    }

    /// A stream on which a test can write what is no frame.
    #[cfg(test)]
    pub(super) async fn open_bytes(&self) -> ByteSender {
        ByteSender(self.inner.open_uni().await.expect("connected"))
    }

    /// Ends the connection at once and tells the peer why. What was not acknowledged is not sent any more. Only the
    /// first close counts.
    pub fn close(&self, reason: CloseReason) {
        self.inner.close(reason.code().into(), reason.text().as_bytes());
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) -> CloseCause {
        cause(self.inner.closed().await)
    }

    /// Why the connection ended, if it has.
    pub fn close_cause(&self) -> Option<CloseCause> {
        self.inner.close_reason().map(cause)
    }

    /// What has gone over the wire so far.
    pub fn traffic(&self) -> Traffic {
        let stats = self.inner.stats();
        Traffic {
            sent_bytes: stats.udp_tx.bytes,
            sent_datagrams: stats.udp_tx.datagrams,
            received_bytes: stats.udp_rx.bytes,
            received_datagrams: stats.udp_rx.datagrams,
            lost_packets: stats.path.lost_packets,
        }
    }

    /// The current estimate of the time to the peer and back.
    pub fn round_trip(&self) -> Duration {
        self.inner.rtt()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection with {:?} at {}", self.peer, self.remote_address())
    }
}

/// What a connection has sent and received: UDP payloads, with the handshake, encryption and repetitions in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Datagrams sent.
    pub sent_datagrams: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Datagrams received.
    pub received_datagrams: u64,
    /// Packets sent that count as lost.
    pub lost_packets: u64,
}

/// What the streams of one connection share.
#[derive(Debug)]
pub(super) struct ConnectionShare {
    /// One permit per byte of a large frame that is being received.
    assembly: Arc<Semaphore>,
    admitted: AtomicBool,
}

impl ConnectionShare {
    /// Waits until a frame of `bytes` may be put together.
    ///
    /// All of a frame is reserved at once, so that two half-received frames cannot wait for each other.
    pub(super) async fn leave_to_assemble(&self, bytes: usize) -> OwnedSemaphorePermit {
        // `frame_bytes_max` is at most 1 GiB, and no larger frame gets here.
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        let leave = self.assembly.clone().acquire_many_owned(permits).await;
        leave.expect("no code closes this semaphore, so waiting for it cannot fail")
    }
}

/// The sending end of a stream of bytes.
#[derive(Debug)]
pub(super) struct ByteSender(quinn::SendStream);

impl ByteSender {
    /// Writes some of `bytes` and returns how many. Dropped early, it wrote nothing.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<usize, SendError> {
        self.0.write(bytes).await.map_err(|error| match error {
            quinn::WriteError::Stopped(code) => SendError::Stopped { code: code.into() },
            quinn::WriteError::ConnectionLost(error) => SendError::Lost(cause(error)),
            // There is no 0-RTT, so what remains is a stream that was ended here.
            quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => SendError::Finished,
        })
    }

    pub(super) fn finish(&mut self) -> Result<(), SendError> {
        self.0.finish().map_err(|_| SendError::Finished)
    }

    /// Waits until the peer has acknowledged all of a finished stream.
    pub(super) async fn delivered(&self) -> Result<(), SendError> {
        match self.0.stopped().await {
            Ok(None) => Ok(()),
            other => Err(stop_error(other)),
        }
    }

    pub(super) async fn stopped(&self) -> SendError {
        stop_error(self.0.stopped().await)
    }

    /// Of no effect on a stream that has ended.
    pub(super) fn reset(&mut self, code: u32) {
        let _ = self.0.reset(code.into());
    }

    /// Of no effect on a stream that has ended.
    pub(super) fn set_priority(&self, priority: i32) {
        let _ = self.0.set_priority(priority);
    }
}

/// The receiving end of a stream of bytes.
#[derive(Debug)]
pub(super) struct ByteReceiver(quinn::RecvStream);

impl ByteReceiver {
    /// Reads into `space`, `None` at the end. Dropped early, it read nothing.
    pub(super) async fn read(&mut self, space: &mut [u8]) -> Result<Option<usize>, ReceiveError> {
        self.0.read(space).await.map_err(|error| match error {
            quinn::ReadError::Reset(code) => ReceiveError::Reset { code: code.into() },
            quinn::ReadError::ConnectionLost(error) => ReceiveError::Lost(cause(error)),
            // Streams are read in order, stopping consumes the receiver, and there is no 0-RTT.
            quinn::ReadError::ClosedStream
            | quinn::ReadError::IllegalOrderedRead
            | quinn::ReadError::ZeroRttRejected => ReceiveError::Lost(CloseCause::Local),
        })
    }

    /// Waits until the peer gives the stream up, or the connection ends; for ever if the stream ends well.
    pub(super) async fn lost(&mut self) -> ReceiveError {
        match self.0.received_reset().await {
            Ok(Some(code)) => ReceiveError::Reset { code: code.into() },
            Err(quinn::ResetError::ConnectionLost(error)) => ReceiveError::Lost(cause(error)),
            Ok(None) | Err(quinn::ResetError::ZeroRttRejected) => std::future::pending().await,
        }
    }

    /// Of no effect on a stream that has ended.
    pub(super) fn stop(&mut self, code: u32) {
        let _ = self.0.stop(code.into());
    }
}

/// quinn wants a server name. It is not sent, and no key is looked up by it.
const SERVER_NAME: &str = "thence.invalid";

/// Draws connection ids that tell an observer nothing: a keyed hash of a counter.
struct ConnectionIds {
    seed: [u8; 32],
    drawn: AtomicU64,
}

impl ConnectionIds {
    /// Long enough that ids of before a restart are not drawn again.
    const BYTES: usize = 8;
    /// The dialer's first id for the other side, which keys the first packets, is longer.
    const FIRST_BYTES: usize = 20;

    fn new(rng_seed: Option<[u8; 32]>) -> Self {
        let seed = rng_seed.unwrap_or_else(rand::random);
        Self { seed: blake3::derive_key("thence 2026-11 QUIC connection ids", &seed), drawn: AtomicU64::new(0) }
    }

    fn first(&self) -> quinn::ConnectionId {
        quinn::ConnectionId::new(&self.draw()[..Self::FIRST_BYTES])
    }

    fn draw(&self) -> [u8; 32] {
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        *blake3::keyed_hash(&self.seed, &number.to_le_bytes()).as_bytes()
    }
}

/// The endpoint's handle to its [`ConnectionIds`].
struct OwnIds(Arc<ConnectionIds>);

impl quinn::ConnectionIdGenerator for OwnIds {
    fn generate_cid(&mut self) -> quinn::ConnectionId {
        quinn::ConnectionId::new(&self.0.draw()[..ConnectionIds::BYTES])
    }

    fn cid_len(&self) -> usize {
        ConnectionIds::BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The runtime's time as time of day, for the age of address proofs in a simulation.
struct RuntimeClock {
    runtime: Arc<dyn quinn::Runtime>,
    start: Instant,
}

impl quinn::TimeSource for RuntimeClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.runtime.now().saturating_duration_since(self.start)
    }
}

/// `future`, unless `limit` passes first in the runtime's time.
async fn within<F: Future>(runtime: &dyn quinn::Runtime, limit: Duration, future: F) -> Option<F::Output> {
    let mut timer = runtime.new_timer(runtime.now() + limit);
    let mut future = pin!(future);
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => timer.as_mut().poll(context).map(|()| None),
    })
    .await
}

fn open_socket(
    runtime: &dyn quinn::Runtime,
    address: SocketAddr,
) -> Result<Arc<dyn quinn::AsyncUdpSocket>, TransportError> {
    std::net::UdpSocket::bind(address)
        .and_then(|socket| runtime.wrap_udp_socket(socket))
        .map_err(|source| socket_error(address, source))
}

fn endpoint_config(config: &TransportConfig, ids: &Arc<ConnectionIds>) -> quinn::EndpointConfig {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &config.stateless_reset_key);
    let mut endpoint = quinn::EndpointConfig::new(Arc::new(key));
    let ids = ids.clone();
    endpoint.cid_generator(move || Box::new(OwnIds(ids.clone()))).rng_seed(config.rng_seed);
    endpoint
}

fn server_config(
    identity: &Identity,
    config: &TransportConfig,
    runtime: &Arc<dyn quinn::Runtime>,
) -> Result<quinn::ServerConfig, TransportError> {
    let tls = identity.server().map_err(tls_error)?;
    let tls = QuicServerConfig::try_from(tls).map_err(tls_error)?;
    // Proofs of address live for seconds and need not outlive the process.
    let secret = config.rng_seed.unwrap_or_else(rand::random);
    let salt = ring::hkdf::Salt::new(ring::hkdf::HKDF_SHA256, b"thence address proofs");
    let mut server = quinn::ServerConfig::new(Arc::new(tls), Arc::new(salt.extract(&secret)));
    let mut limits = quic_limits(config);
    limits.max_concurrent_uni_streams(stranger_streams(config).into()).receive_window(stranger_window(config).into());
    server
        .transport_config(Arc::new(limits))
        // Beyond this quinn answers nothing at all, and those taken in count too: the politer limit comes first.
        .max_incoming(2 * config.handshakes_max)
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(2 * INCOMING_BUFFER_BYTES * config.handshakes_max as u64);
    if config.rng_seed.is_some() {
        let start = runtime.now();
        let runtime = runtime.clone();
        server.time_source(Arc::new(RuntimeClock { runtime, start }));
    }
    Ok(server)
}

/// What a dialer sends before its [`Incoming`] is looked at; without 0-RTT that is its first flight, repeated.
const INCOMING_BUFFER_BYTES: u64 = 16 * 1024;

fn stranger_streams(config: &TransportConfig) -> u32 {
    stranger::STREAMS.min(config.streams_max)
}

fn stranger_window(config: &TransportConfig) -> u32 {
    stranger::WINDOW_BYTES.min(config.receive_window_bytes())
}

/// What holds for every connection.
fn quic_limits(config: &TransportConfig) -> quinn::TransportConfig {
    let mut limits = quinn::TransportConfig::default();
    limits
        .max_concurrent_bidi_streams(0_u32.into())
        .stream_receive_window(config.stream_window_bytes.into())
        .send_window(config.send_window_bytes.into())
        .max_idle_timeout(Some(VarInt::from(config.idle_ms_max).into()))
        .keep_alive_interval(Some(Duration::from_millis(config.keep_alive_ms.into())))
        .datagram_receive_buffer_size(None);
    limits
}

fn socket_error(address: SocketAddr, source: std::io::Error) -> TransportError {
    let source = Arc::new(source);
    TransportError::Socket { address, source }
}

/// The TLS configuration is fixed but for the caller's cryptography, so that is where the fault lies.
fn tls_error(error: impl fmt::Display) -> TransportError {
    TransportError::Config { what: format!("the cryptography does not do what QUIC needs: {error}") }
}

fn handshake_error(error: ConnectionError) -> TransportError {
    if let ConnectionError::TransportError(error) = &error
        && alert(error.code.into()).is_some()
    {
        let text = tame(&error.reason);
        return TransportError::Unauthenticated { text };
    }
    match cause(error) {
        CloseCause::Refused { alert, text } => TransportError::Refused { alert, text },
        CloseCause::GivenUp { code: 2, .. } => TransportError::Busy,
        cause => TransportError::Lost(cause),
    }
}

fn stop_error(stopped: Result<Option<VarInt>, quinn::StoppedError>) -> SendError {
    match stopped {
        Ok(Some(code)) => SendError::Stopped { code: code.into() },
        Err(quinn::StoppedError::ConnectionLost(error)) => SendError::Lost(cause(error)),
        Ok(None) | Err(quinn::StoppedError::ZeroRttRejected) => SendError::Finished,
    }
}

fn cause(error: ConnectionError) -> CloseCause {
    match error {
        ConnectionError::VersionMismatch => CloseCause::VersionMismatch,
        ConnectionError::TransportError(error) => CloseCause::PeerMisbehaved { text: tame(&error.to_string()) },
        ConnectionError::ConnectionClosed(close) => {
            let code = u64::from(close.error_code);
            let text = tame(&String::from_utf8_lossy(&close.reason));
            match alert(code) {
                Some(alert) => CloseCause::Refused { alert, text },
                None => CloseCause::GivenUp { code, text },
            }
        }
        ConnectionError::ApplicationClosed(close) => {
            // Ours are 32 bits; what is more comes from a peer that is no thence, and loses nothing by saturating.
            let code = u32::try_from(close.error_code.into_inner()).unwrap_or(u32::MAX);
            let text = String::from_utf8_lossy(&close.reason);
            CloseCause::ByPeer(CloseReason::new(code, &text))
        }
        ConnectionError::Reset => CloseCause::Reset,
        ConnectionError::TimedOut => CloseCause::IdleTimeout,
        ConnectionError::LocallyClosed => CloseCause::Local,
        ConnectionError::CidsExhausted => CloseCause::Exhausted,
    }
}

/// The TLS alert in a QUIC error code (RFC 9001 §4.8).
fn alert(code: u64) -> Option<u8> {
    (code >> 8 == 1).then_some((code & 0xff) as u8)
}

/// IPv4 as such, also on a socket that speaks both.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_ids_follow_from_the_seed_and_differ() {
        let (a, b) = (ConnectionIds::new(Some([1; 32])), ConnectionIds::new(Some([1; 32])));
        let drawn = [a.draw(), a.draw()];
        assert_eq!(drawn, [b.draw(), b.draw()]);
        assert_ne!(drawn[0], drawn[1]);
        assert_ne!(ConnectionIds::new(Some([2; 32])).draw(), drawn[0]);
        assert_ne!(ConnectionIds::new(None).draw(), ConnectionIds::new(None).draw());
    }

    #[test]
    fn quic_codes_are_told_apart() {
        assert_eq!(alert(0x178), Some(120));
        assert_eq!(alert(0x100), Some(0));
        assert_eq!(alert(0x2), None);
        assert_eq!(alert(0x278), None);
    }
}
