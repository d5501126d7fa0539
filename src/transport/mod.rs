//! How two devices reach each other: QUIC, mutual proof of device keys, and frames.
//!
//! An [`Endpoint`] is one UDP socket that dials and is dialled. A [`Connection`] that it hands out has a peer whose
//! device key was proved in the handshake (TLS 1.3, Ed25519 raw public keys after RFC 7250, both directions). On a
//! connection each side opens its own *unidirectional* streams and sends [`Frame`]s on them, so both may begin at once
//! and no tie has to be broken; there are no bidirectional streams and no datagrams.
//!
//! **Invariant**: [`Connection::peer`] is a device that proved possession of its key *on this very connection*.
//! Sessions are never resumed and there is no 0-RTT data, so there is no path around that proof.
//!
//! **Absent here on purpose**: what a frame means, who may do what (any device can connect; what it may do is the
//! session's judgement), retries and reconnecting, discovery, and any thought of a connection's success before the
//! peer's first frame: a dialer's handshake ends *before* the other side has judged it, so [`Endpoint::connect`]
//! returning a connection does not mean that the peer took it. Nothing counts until the peer's hello was received.
//!
//! # What a hostile peer can make this node hold
//!
//! Per connection, with the limits of [`TransportConfig`]:
//!
//! | who | received and unread | frames being put together | read buffers |
//! |---|---|---|---|
//! | a stranger, until [`Connection::admit`] | 256 KiB | 256 KiB | 4 streams × 16 KiB |
//! | an admitted peer | `streams_max` × `stream_window_bytes` = 128 MiB | `assembly_bytes_max` = 32 MiB, and 32 KiB a stream | 16 KiB a stream |
//!
//! and `send_window_bytes` (4 MiB) of what this node sent and the peer has not acknowledged. (QUIC may keep received
//! data in pieces that are up to half as large again.) The receive window of a connection is always the sum of its
//! streams' windows: were it smaller, streams that wait for leave to assemble a large frame could use up the window
//! that the holder of that leave needs, and all would wait for ever.
//! Per endpoint: `handshakes_max` unfinished handshakes, `connections_max` connections.
//!
//! # Files
//!
//! [`framing`] is pure; `quic` is the only file that names quinn, `tls` the only one that names rustls.

mod close;
mod config;
mod error;
mod frame_stream;
pub mod framing;
mod peer_address;
mod quic;
#[cfg(test)]
mod tests;
mod tls;

pub use close::{CloseCause, CloseReason};
pub use config::TransportConfig;
pub use error::{ReceiveError, SendError, TransportError};
pub use frame_stream::{FrameReceiver, FrameSender};
pub use framing::{Frame, FrameError};
pub use peer_address::{PeerAddress, PeerAddressError, ResolveError};
pub use quic::{Connection, Endpoint, Incoming, Traffic};
pub use tls::{ALPN, CryptoProvider};
