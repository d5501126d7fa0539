//! A running node: the one place where the pure core meets the store, the network and the clock.

mod folder;
mod status;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use self::folder::{Claim, DataFolder, FolderError};
pub use self::status::{PeerState, PeerStatus, SpaceStatus, Status};
use crate::causal::ReplicaId;
use crate::model::{DeviceId, InvalidTicket, Request, Role, SignedTicket, SpaceId};
use crate::replica::TicketRefusal;
use crate::store::{Change, SpaceSummary, StoreError, View, WriteError, Written};
use crate::transport::PeerAddress;

/// How a node is to run.
#[derive(Debug)]
pub struct NodeConfig {
    /// The data folder, claimed.
    pub claim: Claim,
    /// Where to listen and dial from; none for a node that only reads and writes its own store.
    pub listen: Option<SocketAddr>,
    /// How much memory the store may use to keep pages, in bytes.
    pub cache_bytes: usize,
    /// Peers to dial besides those that are remembered. They are remembered from then on.
    pub peers: Vec<PeerAddress>,
    /// Whether to dial the remembered peers at once and whenever a connection is lost; otherwise only
    /// [`Node::sync`] and [`Node::join`] dial.
    pub keep_connected: bool,
}

impl NodeConfig {
    /// The usual settings for a folder: no network, 64 MiB of cache.
    pub fn new(claim: Claim) -> Self {
        Self { claim, listen: None, cache_bytes: 64 << 20, peers: Vec::new(), keep_connected: true }
    }
}

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The data folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The network cannot be used.
    #[error(transparent)]
    Transport(#[from] crate::transport::TransportError),
    /// The operating system refused something.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What it said.
        error: std::io::Error,
    },
}

/// Why something that needs the store did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The request cannot be done; nothing was changed.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Storage failed. What was asked may or may not have happened; nothing was acknowledged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such space here.
    #[error("there is no space {0} here")]
    UnknownSpace(String),
    /// The name means several spaces.
    #[error("{name} names {} spaces", spaces.len())]
    AmbiguousSpace {
        /// The name.
        name: String,
        /// What it could mean.
        spaces: Vec<SpaceSummary>,
    },
    /// Only owners invite.
    #[error("only an owner of the space can invite; this device is {role}")]
    NotOwner {
        /// What it is.
        role: String,
    },
    /// The name cannot be used for a space.
    #[error("{0:?} cannot name a space: use 1 to 64 of the characters A-Z a-z 0-9 _ . -")]
    InvalidSpaceName(String),
    /// The node is stopping.
    #[error("the node is stopping")]
    Stopping,
}

/// Why a ticket could not be redeemed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// It is no genuine ticket.
    #[error(transparent)]
    Invalid(#[from] InvalidTicket),
    /// The inviter refused it.
    #[error(transparent)]
    Refused(#[from] TicketRefusal),
    /// Its time is over.
    #[error("the ticket has expired")]
    Expired,
    /// The inviter cannot be reached.
    #[error("the inviter {device} cannot be reached: {reason}")]
    Unreachable {
        /// The inviter.
        device: DeviceId,
        /// What went wrong.
        reason: String,
    },
    /// This node has no network.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// An invitation to make.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// What the redeemer may do.
    pub role: Role,
    /// How many devices may redeem it.
    pub uses: u32,
    /// For how long.
    pub expires: Duration,
}

/// What [`Node::sync`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// The peers that are in step now.
    pub synced: Vec<DeviceId>,
    /// The peers that were reached and are not in step when the time was over.
    pub unfinished: Vec<DeviceId>,
    /// The peers that were not reached, and why.
    pub unreached: Vec<(DeviceId, String)>,
}

/// A remembered or connected peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The peer.
    pub device: DeviceId,
    /// Where it is or was reached: `host:port`.
    pub addresses: Vec<String>,
    /// Whether there is a connection now.
    pub connected: bool,
}

/// A handle to a running node. Clones are handles to the same node.
#[derive(Clone, Debug)]
pub struct Node {}

#[expect(unused_variables, clippy::unused_async)]
impl Node {
    /// Starts a node. Call it inside a tokio runtime.
    pub async fn open(config: NodeConfig) -> Result<Self, OpenError> {
        todo!()
    }
    /// This device.
    pub fn device(&self) -> DeviceId {
        todo!()
    }
    /// The replica id under which this node writes.
    pub fn replica(&self) -> ReplicaId {
        todo!()
    }
    /// Where it listens, if it does.
    pub fn local_address(&self) -> Option<SocketAddr> {
        todo!()
    }
    /// Creates a space that this device owns. Durable when it returns.
    pub async fn create_space(&self, name: &str) -> Result<SpaceId, NodeError> {
        todo!()
    }
    /// The spaces that are held here, by name and id.
    pub fn spaces(&self) -> Result<Vec<SpaceSummary>, NodeError> {
        todo!()
    }
    /// The space that a name or id means.
    pub fn find_space(&self, text: &str) -> Result<SpaceId, NodeError> {
        todo!()
    }
    /// A view of a space at this instant.
    pub fn view(&self, space: SpaceId) -> Result<View, NodeError> {
        todo!()
    }
    /// Writes a transaction: all of it or nothing. Durable when it returns.
    pub async fn write(&self, space: SpaceId, requests: Vec<Request>) -> Result<Written, NodeError> {
        todo!()
    }
    /// Waits until the feed of `space` has something after `after`, and returns it: at most `limit` changes.
    pub async fn changes(&self, space: SpaceId, after: u64, limit: usize) -> Result<Vec<Change>, NodeError> {
        todo!()
    }
    /// Signs a ticket to a space. Only owners can.
    pub fn invite(&self, space: SpaceId, invitation: &Invitation) -> Result<SignedTicket, NodeError> {
        todo!()
    }
    /// Redeems a ticket at its inviter, and holds the space from then on.
    pub async fn join(&self, ticket: &SignedTicket) -> Result<SpaceId, JoinError> {
        todo!()
    }
    /// Dials every known peer now and waits until both sides know the same, durably, or `timeout` is over.
    pub async fn sync(&self, timeout: Duration) -> Result<SyncReport, NodeError> {
        todo!()
    }
    /// What is synced with whom, what is not yet, and why.
    pub async fn status(&self) -> Result<Status, NodeError> {
        todo!()
    }
    /// Remembers a peer and dials it.
    pub async fn add_peer(&self, peer: PeerAddress) -> Result<(), NodeError> {
        todo!()
    }
    /// Forgets a peer and closes the connection to it. Returns whether it was known.
    pub async fn remove_peer(&self, device: DeviceId) -> Result<bool, NodeError> {
        todo!()
    }
    /// The remembered and the connected peers.
    pub async fn peers(&self) -> Result<Vec<Peer>, NodeError> {
        todo!()
    }
    /// Stops: finishes what is being committed, says goodbye to peers, closes the store.
    pub async fn close(self) {
        todo!()
    }
}
