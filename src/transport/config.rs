//! The numbers that an endpoint works with.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::error::TransportError;
use super::framing::{AHEAD_BYTES, FRAME_BYTES_MAX_DEFAULT};
use super::tls::CryptoProvider;

/// Where an endpoint listens and what it allows. Start from [`TransportConfig::new`] and change what you must.
#[derive(Clone)]
pub struct TransportConfig {
    /// The local UDP address. Port 0 lets the system choose; an unspecified address means all interfaces.
    pub listen: SocketAddr,
    /// Secret that lets this node, after a restart, tell peers at once that their old connections are gone. Keep it
    /// with the device key, private to this node: with another one after a restart, peers only find out by
    /// `idle_ms_max`. Who has it can end this node's connections.
    pub stateless_reset_key: [u8; 64],
    /// A connection ends after so long without a packet from the peer. The lower of both sides' values holds.
    pub idle_ms_max: u32,
    /// A packet is sent after so long a silence, so that connection and NAT stay alive. Below half of `idle_ms_max`.
    pub keep_alive_ms: u32,
    /// A handshake, dialled or taken, has so long.
    pub handshake_ms_max: u32,
    /// How many taken handshakes may be unfinished; more are refused as busy.
    pub handshakes_max: usize,
    /// From so many unfinished handshakes on, a newcomer must first prove that it receives at its address (one more
    /// round trip), so that forged addresses cannot fill the places.
    pub handshakes_unproven_max: usize,
    /// How many connections there may be, taken and dialled; beyond, none is taken.
    pub connections_max: usize,
    /// How many streams an admitted peer may have open at a time. Opening more waits.
    pub streams_max: u32,
    /// How much of one stream may be received and unread; rate of a stream ≤ this / round-trip time.
    pub stream_window_bytes: u32,
    /// How much of what was sent may be unacknowledged, per connection; sending more waits.
    pub send_window_bytes: u32,
    /// The largest body of a frame, sent or received.
    pub frame_bytes_max: usize,
    /// How much the large frames of one admitted connection that are being received, or are received and not dealt with,
    /// may have in sum; one that does not fit waits for others. At least `frame_bytes_max`.
    pub assembly_bytes_max: usize,
    /// For simulations: makes QUIC's own choices (times, connection ids, padding) a function of this seed. Another for
    /// every start of every node, or two will draw the same connection ids. `None` means the system's randomness.
    pub rng_seed: Option<[u8; 32]>,
    /// For simulations: the cryptography, with its randomness and key exchange. `None` means ring.
    pub crypto_provider: Option<Arc<CryptoProvider>>,
}

impl TransportConfig {
    /// The usual limits.
    pub fn new(listen: SocketAddr, stateless_reset_key: [u8; 64]) -> Self {
        Self {
            listen,
            stateless_reset_key,
            idle_ms_max: 15_000,
            keep_alive_ms: 4_000,
            handshake_ms_max: 10_000,
            handshakes_max: 256,
            handshakes_unproven_max: 16,
            connections_max: 4_096,
            streams_max: 128,
            stream_window_bytes: 1024 * 1024,
            send_window_bytes: 4 * 1024 * 1024,
            frame_bytes_max: FRAME_BYTES_MAX_DEFAULT,
            assembly_bytes_max: 4 * FRAME_BYTES_MAX_DEFAULT,
            rng_seed: None,
            crypto_provider: None,
        }
    }

    /// What a whole connection of an admitted peer may have received and unread.
    pub(super) fn receive_window_bytes(&self) -> u32 {
        self.stream_window_bytes.saturating_mul(self.streams_max)
    }

    /// Refuses what cannot work.
    pub(super) fn check(&self) -> Result<(), TransportError> {
        let wrong = |what: &str| Err(TransportError::Config { what: what.into() });
        if self.keep_alive_ms == 0 || self.keep_alive_ms >= self.idle_ms_max / 2 {
            return wrong("keep_alive_ms must be above 0 and below half of idle_ms_max");
        }
        if self.handshake_ms_max == 0 || self.connections_max == 0 {
            return wrong("handshake_ms_max and connections_max must be above 0");
        }
        if self.handshakes_max == 0 || self.handshakes_max > 1 << 20 {
            return wrong("handshakes_max must be from 1 to 1,048,576");
        }
        if self.streams_max == 0 || u64::from(self.streams_max) > 1 << 16 {
            return wrong("streams_max must be from 1 to 65,536");
        }
        if self.stream_window_bytes < 4 * AHEAD_BYTES as u32 || self.send_window_bytes < 64 * 1024 {
            return wrong("stream_window_bytes and send_window_bytes must be at least 65,536");
        }
        if self.stream_window_bytes.checked_mul(self.streams_max).is_none() {
            return wrong("stream_window_bytes × streams_max must be below 4 GiB");
        }
        if self.frame_bytes_max == 0 || self.frame_bytes_max > 1 << 30 {
            return wrong("frame_bytes_max must be from 1 byte to 1 GiB");
        }
        if self.assembly_bytes_max < self.frame_bytes_max || self.assembly_bytes_max > 1 << 30 {
            return wrong("assembly_bytes_max must be from frame_bytes_max to 1 GiB");
        }
        Ok(())
    }
}

impl fmt::Debug for TransportConfig {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportConfig")
            .field("listen", &self.listen)
            .field("idle_ms_max", &self.idle_ms_max)
            .field("keep_alive_ms", &self.keep_alive_ms)
            .field("handshake_ms_max", &self.handshake_ms_max)
            .field("handshakes_max", &self.handshakes_max)
            .field("handshakes_unproven_max", &self.handshakes_unproven_max)
            .field("connections_max", &self.connections_max)
            .field("streams_max", &self.streams_max)
            .field("stream_window_bytes", &self.stream_window_bytes)
            .field("send_window_bytes", &self.send_window_bytes)
            .field("frame_bytes_max", &self.frame_bytes_max)
            .field("assembly_bytes_max", &self.assembly_bytes_max)
            .field("seeded", &self.rng_seed.is_some())
            .finish_non_exhaustive()
    }
}

/// What a peer gets before [`Connection::admit`](super::Connection::admit).
pub(super) mod stranger {
    /// Streams at a time.
    pub const STREAMS: u32 = 8;
    /// Bytes received and unread, over all streams.
    pub const WINDOW_BYTES: u32 = 256 * 1024;
    /// The sum of its half-received large frames; a larger one waits for the admission.
    pub const ASSEMBLY_BYTES: usize = 256 * 1024;
}
