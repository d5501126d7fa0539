//! Why a connection ended, or shall end.

use std::fmt;

/// What this side tells the peer when it closes a connection: a code for programs, a short text for people.
#[derive(Clone, PartialEq, Eq)]
pub struct CloseReason {
    code: u32,
    /// At most [`CloseReason::TEXT_BYTES_MAX`] bytes without control characters, so that it can go into a log.
    text: String,
}

impl CloseReason {
    /// The text is cut after so many bytes.
    pub const TEXT_BYTES_MAX: usize = 200;

    /// The code of a connection whose last handle was dropped without a word.
    pub const DROPPED: u32 = 0;
    /// The code with which [`Endpoint::drain`](super::Endpoint::drain) closes: the node is going away.
    pub const GOING_AWAY: u32 = 1;
    /// The code for a peer that showed no usable device key.
    pub const NO_IDENTITY: u32 = 2;
    /// Codes below this one belong to the transport; sessions use this one and those above.
    pub const FIRST_OF_SESSIONS: u32 = 16;

    /// A reason. The text is cut to [`TEXT_BYTES_MAX`](Self::TEXT_BYTES_MAX) and its control characters are replaced.
    pub fn new(code: u32, text: &str) -> Self {
        Self { code, text: tame(text) }
    }

    /// The code.
    pub fn code(&self) -> u32 {
        self.code
    }

    /// The text, harmless to print: it has no control characters. It is the peer's claim, no more.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "code {}", self.code)?;
        if !self.text.is_empty() {
            write!(f, ", {:?}", self.text)?;
        }
        Ok(())
    }
}

impl fmt::Debug for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseReason({self})")
    }
}

/// Why a connection is no more. State that was durable before is untouched by any of these.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseCause {
    /// The peer closed it and said why.
    #[error("closed by the peer: {0}")]
    ByPeer(CloseReason),
    /// This side closed it, or dropped its last handle.
    #[error("closed by this node")]
    Local,
    /// Nothing was heard for `idle_ms_max`: the peer, or the way to it, is gone.
    #[error("nothing was heard from the peer for too long")]
    IdleTimeout,
    /// The peer answered that it knows nothing of this connection: it was restarted. Dial again.
    #[error("the peer has lost this connection, probably by a restart")]
    Reset,
    /// The peer's TLS refused this side; on the dialer's side this can come after `connect` succeeded.
    #[error("the peer refused the handshake with alert {alert}: {text}")]
    Refused {
        /// The TLS alert (RFC 8446 §6; 120 means no common protocol).
        alert: u8,
        /// What the peer said of it; may be empty.
        text: String,
    },
    /// The peer broke the rules of QUIC or TLS.
    #[error("the peer misbehaved: {text}")]
    PeerMisbehaved {
        /// Which rule.
        text: String,
    },
    /// The peer's QUIC gave the connection up: it says that this side broke a rule, or that it failed itself.
    #[error("the peer gave the connection up with QUIC error {code:#x}: {text}")]
    GivenUp {
        /// The QUIC transport error code (RFC 9000 §20.1).
        code: u64,
        /// What the peer said of it; may be empty.
        text: String,
    },
    /// The peer speaks no version of QUIC that is known here.
    #[error("the peer speaks another version of QUIC")]
    VersionMismatch,
    /// This node has no connection id left to give: it has too many connections.
    #[error("this node has too many connections")]
    Exhausted,
}

/// Text from anywhere, cut and without control characters.
pub(super) fn tame(text: &str) -> String {
    let mut tamed = String::new();
    for c in text.chars() {
        let c = if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        if tamed.len() + c.len_utf8() > CloseReason::TEXT_BYTES_MAX {
            break;
        }
        tamed.push(c);
    }
    tamed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_and_tamed() {
        assert_eq!(CloseReason::new(20, "a\u{1b}[2Jb").text(), "a\u{fffd}[2Jb");
        let long = CloseReason::new(20, &"é".repeat(500));
        assert_eq!(long.text().len(), CloseReason::TEXT_BYTES_MAX);
        assert_eq!(CloseReason::new(20, "bye").to_string(), "code 20, \"bye\"");
        assert_eq!(CloseReason::new(0, "").to_string(), "code 0");
    }
}
