//! What can go wrong, and who is to blame.

use std::net::SocketAddr;
use std::sync::Arc;

use super::close::CloseCause;
use super::framing::FrameError;
use crate::model::DeviceId;

/// Why there is no endpoint, or no connection. Nothing has changed: no connection was made, an old socket is kept.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// This machine: the UDP socket could not be had.
    #[error("cannot use UDP address {address}: {source}")]
    Socket {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: Arc<std::io::Error>,
    },
    /// The caller: the configuration contradicts itself.
    #[error("transport configuration: {what}")]
    Config {
        /// What is wrong and what to do.
        what: String,
    },
    /// The caller: no packet can be sent there from this socket (port 0, or IPv6 from an IPv4 socket).
    #[error("cannot dial {address} from this socket")]
    Address {
        /// The address asked for.
        address: SocketAddr,
    },
    /// The caller: the endpoint was drained.
    #[error("the endpoint is closed")]
    Stopped,
    /// The address: another device answers there, and it proved that it is that one. It was not told who we are.
    #[error("expected device {expected}, but {found} answers")]
    WrongDevice {
        /// Whom the caller wanted.
        expected: DeviceId,
        /// Who is there.
        found: DeviceId,
    },
    /// Nobody finished the handshake in time: nobody there, a lossy way, or a peer that is slow on purpose.
    #[error("no handshake within {ms} ms")]
    HandshakeTimeout {
        /// The limit, in milliseconds.
        ms: u64,
    },
    /// The peer takes no new connections at the moment; try later.
    #[error("the peer is busy and refuses new connections")]
    Busy,
    /// The peer's TLS refused this side: another protocol version, or it takes no raw public keys.
    #[error("the peer refused the handshake with alert {alert}: {text}")]
    Refused {
        /// The TLS alert (RFC 8446 §6; 120 means no common protocol).
        alert: u8,
        /// What the peer said of it; may be empty.
        text: String,
    },
    /// The peer did not prove a device key, or speaks another protocol.
    #[error("the peer did not authenticate as a device: {text}")]
    Unauthenticated {
        /// What it did wrong.
        text: String,
    },
    /// The connection broke during the handshake in another way.
    #[error("the handshake failed: {0}")]
    Lost(CloseCause),
}

/// Why frames could not be sent. What was sent before may or may not have arrived: only the peer's answer tells.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The caller: a frame is too large. No frame of this call was sent, and the stream can go on.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer wants no more of this stream. The connection goes on.
    #[error("the peer stopped the stream with code {code}")]
    Stopped {
        /// The peer's code.
        code: u64,
    },
    /// The caller: the stream was finished or reset before.
    #[error("the stream is already finished")]
    Finished,
    /// The connection is gone.
    #[error("the connection is gone: {0}")]
    Lost(CloseCause),
}

/// Why no more frames come from a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The peer misbehaved: what it sent is no frame. Give the stream up, and rather the session.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer gave the stream up. The connection goes on.
    #[error("the peer reset the stream with code {code}")]
    Reset {
        /// The peer's code.
        code: u64,
    },
    /// The connection is gone.
    #[error("the connection is gone: {0}")]
    Lost(CloseCause),
}
