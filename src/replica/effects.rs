//! What happens to a replica, and what it wants done: everything that crosses its border, as data.
//!
//! Also the limits that hold whatever peers do, and what ends a session.

use std::sync::Arc;

use super::message::{Channel, Introduction, InvalidMessage, Message, TicketRefusal};
use crate::causal::{Dot, Head, Known, ReplicaId, VersionVector, Witness};
use crate::model::{Access, DeviceId, ForgedRevision, InvalidSegment, NotGranted, Revision, Role, Segment, SpaceId};

/// A moment: milliseconds since any fixed start. It never runs backwards.
pub type Millis = u64;

/// Names one connection to one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// Bounds that hold whatever peers do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes sent to one peer in one space and not yet acknowledged.
    pub window_bytes_max: usize,
    /// The same in one session, over all spaces. What does not fit waits in the log, each space for its turn.
    pub session_window_bytes_max: usize,
    /// Bytes of segments in one frame; at least one segment always fits.
    pub frame_bytes_max: usize,
    /// Entries of a vector up to which it is sent at once instead of its digest.
    pub eager_vector_len_max: usize,
    /// Entries of a vector that a peer may claim.
    pub vector_len_max: usize,
    /// Spaces in one session.
    pub spaces_max: usize,
    /// How long acknowledgements to those who did not send an event may wait, to be sent together.
    pub ack_ms: Millis,
    /// How long an event of another replica waits for the peer to get it from someone else.
    pub forward_ms: Millis,
    /// How long nothing may be acknowledged before the exchange is opened anew.
    pub stall_ms: Millis,
    /// How often it is opened anew before the session is ended.
    pub stalls_max: u32,
    /// How often this store begins to write under another id because a peer merely says that it should. Each time costs
    /// an entry in every vector for ever, so a liar must not have many.
    pub renewals_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            window_bytes_max: 4 << 20,
            session_window_bytes_max: 16 << 20,
            frame_bytes_max: 1 << 20,
            eager_vector_len_max: 64,
            vector_len_max: 1 << 16,
            spaces_max: 4096,
            ack_ms: 20,
            forward_ms: 60,
            stall_ms: 10_000,
            stalls_max: 6,
            renewals_max: 4,
        }
    }
}

/// A stretch of the log: one segment's bytes, and which events it holds.
#[derive(Clone, Debug)]
pub struct Stretch {
    /// What its author signed.
    pub bytes: Arc<[u8]>,
    /// The first event.
    pub first: Dot,
    /// The last event.
    pub last: Witness,
}

/// What one commit made durable in one space.
#[derive(Clone, Debug, Default)]
pub struct Committed {
    /// The replicas of which more is known now: head, and whether it is a tip.
    pub advanced: Vec<(ReplicaId, Head, bool)>,
    /// What the log gained, in log order.
    pub written: Vec<Stretch>,
    /// Whether any of that was written here.
    pub local: bool,
    /// Who may do what from now on, if that changed.
    pub access: Option<Access>,
    /// Whose segments are among these, or were known already.
    pub taken: Vec<Taken>,
    /// The sessions whose segments could not be applied.
    pub rejected: Vec<(SessionId, Rejection)>,
    /// All that is known now, if a history turned out to be two: then some events have other names than before.
    pub split: Option<Known>,
}

/// A segment that a peer sent and that is durable now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Who sent it.
    pub session: SessionId,
    /// Its last event.
    pub last: Witness,
    /// Whether it was here already.
    pub known: bool,
}

/// Why the ledger did not apply a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Something that it builds on is not here: open anew.
    Missing,
    /// It goes on from another history than the one that is here under the same id: ask for all of that.
    Diverged(ReplicaId),
    /// It claims to lie deeper than anything that is here allows. If its author sends it, that is a lie; whoever forwards
    /// it may hold more than what is here, and so have had reason to take it.
    TooDeep {
        /// Who wrote it.
        author: DeviceId,
        /// What is wrong with it.
        why: PeerMisbehaved,
    },
    /// The author or the content is not acceptable, whoever forwards it.
    Misbehaved(PeerMisbehaved),
}

/// What a peer did that no honest peer does. The session is ended; no state was changed by it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// Bytes that are no frames, or frames that belong to no channel.
    #[error("sent what cannot be understood: {0}")]
    Frames(String),
    /// A frame that is malformed or unknown and critical.
    #[error("sent an invalid message: {0}")]
    Message(#[from] InvalidMessage),
    /// A segment that is malformed or that its author did not sign.
    #[error("sent an invalid segment: {0}")]
    Segment(#[from] InvalidSegment),
    /// An event by somebody who may not write it.
    #[error("sent an event that is not granted: {0}")]
    NotGranted(#[from] NotGranted),
    /// A revision of a space that none of its owners began.
    #[error("sent a forged revision: {0}")]
    Revision(#[from] ForgedRevision),
    /// A message on a channel, or at a time, where it makes no sense.
    #[error("sent an unexpected {0}")]
    Unexpected(&'static str),
    /// An event that claims an impossible place in causality.
    #[error("sent an impossible event: {0}")]
    Impossible(String),
    /// More replicas or spaces than allowed.
    #[error("exceeded the limit of {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// It makes this side answer and does not take the answers.
    #[error("takes nothing of what it is sent")]
    NeverReads,
    /// It takes what is sent and never says that it has it.
    #[error("does not acknowledge what it is sent")]
    NeverAcknowledges,
    /// It speaks no version that this release does.
    #[error("speaks protocol version {0}")]
    Version(u32),
}

/// What happens to a replica.
#[derive(Clone, Debug)]
pub enum Input {
    /// A space that the ledger holds: at the start, created, or joined; and again after a failed commit.
    Held {
        /// The space.
        space: SpaceId,
        /// Its generation.
        revision: Revision,
        /// What is known of it, durably.
        known: Known,
        /// Who may do what.
        access: Access,
    },
    /// Under which id this store writes from now on. Comes first of all.
    Writes {
        /// The id.
        replica: ReplicaId,
    },
    /// A connection to a peer, whose identity the transport has proved.
    Connected {
        /// The new session.
        session: SessionId,
        /// Who it is.
        peer: DeviceId,
        /// Whether this node counts it as a cluster peer.
        cluster: bool,
    },
    /// A connection is gone.
    Disconnected {
        /// The session.
        session: SessionId,
    },
    /// A frame came.
    Received {
        /// From whom.
        session: SessionId,
        /// About what.
        channel: Channel,
        /// Its type.
        kind: u8,
        /// Whether it must be understood.
        critical: bool,
        /// Its body.
        body: Vec<u8>,
    },
    /// Something became durable.
    Committed {
        /// In which space.
        space: SpaceId,
        /// What.
        committed: Committed,
    },
    /// A commit failed. What peers sent since the last successful one must come again. Or it is there although the
    /// store said that it failed: once the store is open again, [`Input::Held`] must follow for every space.
    CommitFailed,
    /// The answer to a [`Lookup`] of the log.
    Fetched {
        /// For whom.
        session: SessionId,
        /// Of which space.
        space: SpaceId,
        /// In which revision.
        revision: u64,
        /// What lies next in the log; none if the read failed.
        stretches: Option<Vec<Stretch>>,
    },
    /// The answer to a [`Lookup`] of what led to this device's role.
    Credential {
        /// For whom.
        session: SessionId,
        /// Of which space.
        space: SpaceId,
        /// In which revision.
        revision: u64,
        /// The segments, each by an owner that the one before it made one; none if there are none.
        segments: Vec<Arc<[u8]>>,
    },
    /// The answer to a [`Lookup`] of the role that a peer showed to have.
    Judged {
        /// For whom.
        session: SessionId,
        /// Of which space.
        space: SpaceId,
        /// In which revision.
        revision: u64,
        /// The role that it has, if that was shown.
        role: Option<Role>,
    },
    /// Ask a peer for all that it knows by now; [`Replica::is_synced`](super::Replica::is_synced) waits for the answer.
    ///
    /// What a peer said last may be some time ago: it takes its time to say what it got from others.
    Probe {
        /// The session.
        session: SessionId,
    },
    /// Redeem a ticket at a peer.
    Redeem {
        /// The session with its inviter.
        session: SessionId,
        /// The ticket's bytes.
        ticket: Vec<u8>,
    },
    /// The answer to [`Output::Admit`].
    Admitted {
        /// Who asked.
        session: SessionId,
        /// What to tell it.
        answer: Result<Introduction, TicketRefusal>,
    },
    /// The answer to [`Output::Share`].
    Shared {
        /// With whom.
        session: SessionId,
        /// Which space.
        space: SpaceId,
        /// What to tell the peer of it; none if this device does not own it, or nothing can be written.
        introduction: Option<Introduction>,
    },
    /// Time passed.
    Tick,
}

/// What is to be read of a space for one peer.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// For whom.
    pub session: SessionId,
    /// Of which space.
    pub space: SpaceId,
    /// In which revision: of another one there is nothing to tell.
    pub revision: u64,
    /// What.
    pub wanted: Wanted,
}

/// What a [`Lookup`] is for.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// What lies next in the log: [`Input::Fetched`].
    Log {
        /// What need not be read.
        after: VersionVector,
        /// About how much to read; at least one segment.
        bytes_max: usize,
    },
    /// The segments in which this device was granted its role: [`Input::Credential`].
    Credential,
    /// The role that a peer has which was refused and shows these segments: [`Input::Judged`].
    Role {
        /// The peer's device.
        device: DeviceId,
        /// What it shows.
        segments: Vec<Segment>,
    },
}

impl Lookup {
    /// What to report if it cannot be read.
    pub fn failed(&self) -> Input {
        let Self { session, space, revision, .. } = *self;
        match self.wanted {
            Wanted::Log { .. } => Input::Fetched { session, space, revision, stretches: None },
            Wanted::Credential => Input::Credential { session, space, revision, segments: Vec::new() },
            Wanted::Role { .. } => Input::Judged { session, space, revision, role: None },
        }
    }
}

/// What a replica wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send a message. Messages on one channel arrive in order or the session is lost.
    Send {
        /// To whom.
        session: SessionId,
        /// On which channel.
        channel: Channel,
        /// What.
        message: Message,
    },
    /// Commit what a peer sent, then report [`Input::Committed`].
    Store {
        /// Who sent it.
        session: SessionId,
        /// Into which space.
        space: SpaceId,
        /// What, in order.
        segments: Vec<Segment>,
    },
    /// Read something ([`crate::store::Ledger::look_up`]), then report what it is, or [`Lookup::failed`].
    LookUp(Lookup),
    /// A peer shows a ticket: grant what it says if it is good, then report [`Input::Admitted`].
    Admit {
        /// Who shows it.
        session: SessionId,
        /// Its device.
        device: DeviceId,
        /// The ticket's bytes.
        ticket: Vec<u8>,
    },
    /// The answer to [`Input::Redeem`].
    Redeemed {
        /// Who answered.
        session: SessionId,
        /// What it said.
        answer: Result<Introduction, TicketRefusal>,
    },
    /// A peer says that it has events of this very store that are not here, which then was put back to an older state:
    /// begin to write under another id, and report [`Input::Writes`].
    Behind {
        /// The id under which this store writes.
        before: ReplicaId,
        /// In which space.
        space: SpaceId,
        /// The last of them.
        counter: u64,
    },
    /// Make a cluster peer an owner of a space, if this device is one, then report [`Input::Shared`].
    Share {
        /// In which session it was agreed.
        session: SessionId,
        /// The space.
        space: SpaceId,
        /// The cluster peer.
        device: DeviceId,
    },
    /// Hold a space that a cluster peer introduced, then report [`Input::Held`].
    Join {
        /// What it said of the space.
        introduction: Introduction,
        /// The cluster peer.
        introducer: DeviceId,
    },
    /// A peer holds a space in a revision that is not known here: go over to it, then report [`Input::Held`].
    Follow {
        /// The space.
        space: SpaceId,
        /// The revision.
        revision: Revision,
    },
    /// End a session, because of what the peer did.
    Close {
        /// The session.
        session: SessionId,
        /// Why.
        reason: PeerMisbehaved,
    },
}
