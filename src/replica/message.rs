//! What replicas say to one another.
//!
//! A connection has one control channel and one channel per space, in each direction. Channels are independent: what
//! is said on one may overtake what was said earlier on another. Every message travels as a frame with a type, a
//! critical bit and a body; unknown frames that are not critical are skipped, unknown critical ones end the session.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::causal::{Knowledge, ReplicaId, Witness};
use crate::codec::{self, DecodeError};
use crate::model::{Genesis, Revision, SpaceId};

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// The session itself.
    Control,
    /// One space.
    Space(SpaceId),
}

/// The version of the protocol that this release speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// A message, decoded.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// First on the control channel.
    Hello(Hello),
    /// How many spaces the sender opened when the session began, so that the receiver knows when it has seen all.
    Offered(u64),
    /// Asks for a grant.
    Redeem(ByteBuf),
    /// The answer to [`Message::Redeem`].
    Redeemed(Result<Introduction, TicketRefusal>),
    /// The sender counts the receiver as a cluster peer. It comes before [`Message::Offered`] or never.
    Cluster,
    /// A space that the receiver owns too, and may not hold yet. Only where both sides sent [`Message::Cluster`].
    Introduce(Introduction),
    /// Begins the exchange of a space, or begins it anew.
    Open(Open),
    /// Knowledge in full, where [`Open`] gave only its digest.
    Know(Knowledge),
    /// Segments in an order that follows causality, each the bytes that its author signed.
    Segments(Vec<ByteBuf>),
    /// These are durable here, and everything below them.
    Ack(Vec<Witness>),
    /// Asks for everything that the receiver has to say by now on this channel, and then for [`Message::Probed`].
    Probe(u64),
    /// The answer to [`Message::Probe`]: all that was known when it came has been said before this.
    Probed(Probed),
    /// The space will not be exchanged in this session as things are.
    Refuse(Refusal),
    /// What came of this replica goes on from another history than the one that is here under the same id: send all of
    /// it, from its first event.
    Diverged(ReplicaId),
    /// Shown to a peer that refuses to see the sender: a segment in which an owner grants the sender its role, and before
    /// it those in which that owner was made one, the first by whoever created the space.
    Show(Vec<ByteBuf>),
}

/// Who is speaking.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol version.
    pub version: u32,
    /// The program and its version, for people.
    pub agent: String,
    /// Under which replica id the sender writes: it tells copies of one device's store apart.
    pub replica: ReplicaId,
    /// Drawn by the sender when it started: it tells a second connection to one process from a copy of its store that
    /// has not written anything yet.
    pub process: u64,
}

/// What a newcomer must know of a space before it can ask for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// How it began.
    pub genesis: Genesis,
    /// Its revision.
    pub revision: Revision,
    /// What it is called, for people.
    pub name: String,
}

/// Why a ticket gives nothing. Variants are only ever appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum TicketRefusal {
    /// The device it was shown to does not have that space, or does not own it.
    #[error("the device that was asked cannot admit anyone to this space")]
    Unknown,
    /// Its time is over.
    #[error("the ticket has expired")]
    Expired,
    /// As many devices as it allows have redeemed it.
    #[error("the ticket has been used")]
    Used,
    /// Not signed by an owner, or altered.
    #[error("the ticket is not genuine")]
    Forged,
    /// The device that was asked cannot write now.
    #[error("the device that was asked cannot write at the moment")]
    Unavailable,
}

/// The beginning of the exchange of a space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The generation of the space that the sender holds. Whoever holds an earlier one goes over to it.
    pub revision: Revision,
    /// Names the sender's knowledge, chain hashes included: if it is the receiver's too, there is nothing to send.
    pub digest: [u8; 16],
    /// The knowledge itself, unless it is so large that it is worth a round trip to learn whether it is needed.
    pub knowledge: Option<Knowledge>,
    /// Whether the sender needs an [`Open`] in return: it has lost track of what the receiver knows.
    pub answer: bool,
}

/// The answer to [`Message::Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// The number that the probe bore.
    pub nonce: u64,
    /// How many spaces the sender has opened in this session by now.
    pub spaces: u64,
}

/// Why a space is not exchanged. Variants are only ever appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// It is not here, or the peer may not see it: which of the two is not told.
    #[error("the peer does not have this space, or does not let this device see it")]
    NotFound,
    /// The peer holds only a part of the space, which this release cannot exchange.
    #[error("the peer holds only a part of this space, which this release cannot exchange")]
    Partial,
}

/// A frame that is no message. The peer misbehaved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidMessage {
    /// Its body is malformed.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A kind that must be understood and is not.
    #[error("frame type {kind} is unknown and critical")]
    Unknown {
        /// The type.
        kind: u8,
    },
}

impl Message {
    /// The type of its frame.
    pub fn kind(&self) -> u8 {
        match self {
            Self::Hello(_) => 1,
            Self::Offered(_) => 2,
            Self::Redeem(_) => 3,
            Self::Redeemed(_) => 4,
            Self::Cluster => 5,
            Self::Introduce(_) => 6,
            Self::Open(_) => 16,
            Self::Know(_) => 17,
            Self::Segments(_) => 18,
            Self::Ack(_) => 19,
            Self::Refuse(_) => 20,
            Self::Probe(_) => 21,
            Self::Probed(_) => 22,
            Self::Diverged(_) => 23,
            Self::Show(_) => 24,
        }
    }

    /// The body of its frame. All frames of this version are critical.
    pub fn body(&self) -> Vec<u8> {
        match self {
            Self::Hello(hello) => codec::encode(hello),
            Self::Offered(count) => codec::encode(count),
            Self::Redeem(ticket) => codec::encode(ticket),
            Self::Redeemed(answer) => codec::encode(answer),
            Self::Cluster => Vec::new(),
            Self::Introduce(introduction) => codec::encode(introduction),
            Self::Open(open) => codec::encode(open),
            Self::Know(knowledge) => codec::encode(knowledge),
            Self::Segments(segments) => codec::encode(segments),
            Self::Ack(dots) => codec::encode(dots),
            Self::Refuse(refusal) => codec::encode(refusal),
            Self::Probe(nonce) => codec::encode(nonce),
            Self::Probed(probed) => codec::encode(probed),
            Self::Diverged(replica) => codec::encode(replica),
            Self::Show(segments) => codec::encode(segments),
        }
    }

    /// The message of a frame; none if it is to be skipped.
    pub fn decode(kind: u8, critical: bool, body: &[u8]) -> Result<Option<Self>, InvalidMessage> {
        fn of<T: DeserializeOwned + Serialize>(
            what: &'static str,
            body: &[u8],
            message: impl FnOnce(T) -> Message,
        ) -> Result<Option<Message>, InvalidMessage> {
            Ok(Some(message(codec::decode(what, body)?)))
        }
        match kind {
            1 => of("hello", body, Self::Hello),
            2 => of("offered", body, Self::Offered),
            3 => of("redeem", body, Self::Redeem),
            4 => of("redeemed", body, Self::Redeemed),
            5 => of("cluster", body, |()| Self::Cluster),
            6 => of("introduce", body, Self::Introduce),
            16 => of("open", body, Self::Open),
            17 => of("know", body, Self::Know),
            18 => of("segments", body, Self::Segments),
            19 => of("ack", body, Self::Ack),
            20 => of("refuse", body, Self::Refuse),
            21 => of("probe", body, Self::Probe),
            22 => of("probed", body, Self::Probed),
            23 => of("diverged", body, Self::Diverged),
            24 => of("show", body, Self::Show),
            _ if critical => Err(InvalidMessage::Unknown { kind }),
            _ => Ok(None),
        }
    }
}
