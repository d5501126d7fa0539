//! What a stranger may cost: everything about a request that somebody else decides has a limit here.
//!
//! **Invariant**: memory is bounded by `connections_max` times a connection's buffers (some 200 KiB at the worst, 3 MiB
//! where it speaks HTTP/2 and takes none of 32 answers), plus `bodies_bytes_max`, plus what `requests_max` answers weigh.

use std::time::Duration;

/// So many tokens and addresses are told apart.
pub(in crate::relay) const KEYS_MAX: usize = 65_536;

/// The limits that hold for every request. Tests make them small; a relay uses the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many bytes a request's line and headers may have.
    pub header_bytes_max: usize,
    /// How long they may take, from their first byte. A TLS handshake may take as long.
    pub header_time_max: Duration,
    /// How many bytes a body may have.
    pub body_bytes_max: usize,
    /// How long a body may take.
    pub body_time_max: Duration,
    /// How many bytes the bodies may have together that are read and not yet answered.
    pub bodies_bytes_max: usize,
    /// How many connections there may be.
    pub connections_max: usize,
    /// How many requests may be under way, and half as many for one address other than this machine's: being done,
    /// whether or not the client still waits, or being answered with something large whose length is known. A stream or a
    /// small answer counts until it begins; from then on it costs its connection.
    pub requests_max: usize,
    /// How many requests a second may come under one token, or without one from one address. One second's worth may
    /// come at once.
    pub requests_per_second_max: u32,
    /// How many tokens and addresses are told apart by that.
    pub keys_max: usize,
    /// How long a connection may be kept without a request.
    pub idle_time_max: Duration,
    /// How long a client may leave what was written to it unread.
    pub stall_time_max: Duration,
    /// How long a client may take to read an answer whose length is known.
    pub answer_time_max: Duration,
    /// How long what is under way may take to end when the server stops.
    pub drain_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes_max: 32 << 10,
            header_time_max: Duration::from_secs(10),
            body_bytes_max: 8 << 20,
            body_time_max: Duration::from_secs(30),
            bodies_bytes_max: 128 << 20,
            connections_max: 4096,
            requests_max: 512,
            requests_per_second_max: 1000,
            keys_max: KEYS_MAX,
            idle_time_max: Duration::from_secs(75),
            stall_time_max: Duration::from_secs(30),
            answer_time_max: Duration::from_secs(120),
            drain_time_max: Duration::from_secs(10),
        }
    }
}

/// A limit that was met, as it is counted in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// [`Limits::header_bytes_max`].
    HeaderBytes,
    /// [`Limits::header_time_max`].
    HeaderTime,
    /// [`Limits::body_bytes_max`].
    BodyBytes,
    /// [`Limits::body_time_max`].
    BodyTime,
    /// [`Limits::bodies_bytes_max`].
    BodiesBytes,
    /// [`Limits::connections_max`].
    Connections,
    /// [`Limits::requests_max`].
    Requests,
    /// [`Limits::requests_per_second_max`].
    Rate,
    /// [`Limits::stall_time_max`] or [`Limits::answer_time_max`].
    AnswerTime,
    /// The server stops.
    Stopping,
}

impl Limit {
    /// All of them, in order.
    pub const ALL: [Self; 10] = [
        Self::HeaderBytes,
        Self::HeaderTime,
        Self::BodyBytes,
        Self::BodyTime,
        Self::BodiesBytes,
        Self::Connections,
        Self::Requests,
        Self::Rate,
        Self::AnswerTime,
        Self::Stopping,
    ];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HeaderBytes => "header_bytes",
            Self::HeaderTime => "header_time",
            Self::BodyBytes => "body_bytes",
            Self::BodyTime => "body_time",
            Self::BodiesBytes => "bodies_bytes",
            Self::Connections => "connections",
            Self::Requests => "requests",
            Self::Rate => "rate",
            Self::AnswerTime => "answer_time",
            Self::Stopping => "stopping",
        }
    }
}
