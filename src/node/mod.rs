//! A running node: the one place where the pure core meets the store, the network and the clock.
//!
//! # A cluster
//!
//! Nodes that have each other among their [`NodeConfig::cluster_peers`] replicate every space of theirs to each other,
//! whoever created it. Each makes the others owners of the spaces that it owns, by a signed grant in the space itself,
//! and tells them of the space; a node that comes later, or with its key and an empty store, catches up by itself. Where
//! only one side counts the other as a cluster peer they are ordinary peers, and [`Node::status`] of both says so. A
//! space in which this device is no owner cannot be shared, which it says too.

mod dialing;
mod disk;
mod driver;
mod folder;
mod health;
mod intake;
mod lease;
mod restore;
mod space;
mod status;
mod surroundings;
mod wire;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot, watch};

use self::disk::{Disk, DiskJob, Waiter};
use self::driver::{Driver, Question};
pub use self::health::{COMMIT_TIME_MAX, Commits, STANDSTILL_TIME_MAX, Unwell};
use self::intake::INTAKE_BYTES_MAX;
use self::lease::Lease;
use self::surroundings::System;

pub use self::folder::{Claim, DataFolder, FolderError};
pub use self::restore::{BackupSummary, Repaired, RestoreError, Restored, check_backup};
pub use self::space::{InvalidRequest, Space, Transaction};
pub use self::status::{ClusterPeer, ClusterState, PeerState, PeerStatus, SpaceStatus, Status};
#[doc(hidden)]
pub use self::surroundings::{Surroundings, Task};
use crate::causal::ReplicaId;
use crate::model::{DeviceId, Genesis, InvalidTicket, Request, Role, SignedTicket, SpaceId, Ticket};
use crate::replica::TicketRefusal;
use crate::store::{
    Change, Done, Ledger, Removal, SYSTEM_SPACE, SpaceSummary, StoreError, Trimming, Upload, Uploaded, View, Work,
    WriteError, Written,
};
use crate::transport::{CloseReason, Endpoint, Incoming, PeerAddress, TransportConfig};

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
    /// Nodes that hold every space that this one owns, and the other way round, if they say the same of this one; see
    /// the [module](self). They are remembered as ordinary peers, and cluster peers for as long as this node runs. This
    /// device itself may be among them, so that all nodes can have the same list.
    pub cluster_peers: Vec<PeerAddress>,
    /// Whether to dial the remembered peers at once and whenever a connection is lost; otherwise only
    /// [`Node::sync`] and [`Node::join`] dial.
    pub keep_connected: bool,
}

impl NodeConfig {
    /// The usual settings for a folder: no network, 64 MiB of cache.
    pub fn new(claim: Claim) -> Self {
        Self {
            claim,
            listen: None,
            cache_bytes: 64 << 20,
            peers: Vec::new(),
            cluster_peers: Vec::new(),
            keep_connected: true,
        }
    }
}

/// What a node is made of, for those who bring a world of their own.
#[doc(hidden)]
#[derive(Debug)]
pub struct Parts {
    /// Time, chance and tasks.
    pub surroundings: Arc<dyn Surroundings>,
    /// Its store, opened.
    pub ledger: Arc<Ledger>,
    /// Its network, if it has one.
    pub endpoint: Option<Endpoint>,
    /// See [`NodeConfig::peers`].
    pub peers: Vec<PeerAddress>,
    /// See [`NodeConfig::cluster_peers`].
    pub cluster_peers: Vec<PeerAddress>,
    /// See [`NodeConfig::keep_connected`].
    pub keep_connected: bool,
    /// How many bytes of what peers sent may wait for the disk.
    pub intake_bytes_max: u32,
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
    /// It is the space that says who the customers of this relay are.
    #[error("this space says who the customers of a relay are; only the commands that are made for that change it")]
    SystemSpace,
    /// It cannot do its work at the moment.
    #[error(transparent)]
    Unwell(#[from] Unwell),
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
    /// A device is no peer of its own.
    #[error("that is the id of this device itself")]
    OwnDevice,
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

/// What the handles of one node share. The folder is free when the store is closed: [`Node::close`] waits for that, and
/// a node that is only dropped closes it when its threads have ended.
#[derive(Debug)]
struct Shared {
    surroundings: Arc<dyn Surroundings>,
    disk: Disk,
    ledger: Arc<Ledger>,
    questions: mpsc::Sender<Question>,
    landed: watch::Receiver<u64>,
    local_address: Option<SocketAddr>,
    /// Each tells when a disk thread has let the store go.
    ended: Mutex<Vec<oneshot::Receiver<()>>>,
}

/// A handle to a running node. Clones are handles to the same node, which stops when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Node {
    shared: Arc<Shared>,
}

impl Node {
    /// Starts a node. Call it inside a tokio runtime.
    pub async fn open(config: NodeConfig) -> Result<Self, OpenError> {
        let NodeConfig { claim, listen, cache_bytes, peers, cluster_peers, keep_connected } = config;
        let folder = claim.folder().clone();
        let ledger = Arc::new(claim.open_ledger(cache_bytes)?);
        let endpoint = match listen {
            Some(listen) => Some(Endpoint::bind(ledger.key(), Self::transport_config(listen, folder.reset_key()?))?),
            None => None,
        };
        let (surroundings, lease) = (Arc::new(System), Some(folder.lease()));
        let intake_bytes_max = INTAKE_BYTES_MAX;
        Self::start(
            Parts { surroundings, ledger, endpoint, peers, cluster_peers, keep_connected, intake_bytes_max },
            lease,
        )
        .await
    }

    /// The transport's limits as a node uses them.
    #[doc(hidden)]
    pub fn transport_config(listen: SocketAddr, reset_key: [u8; 64]) -> TransportConfig {
        wire::transport_config(listen, reset_key)
    }

    /// Starts a node in a world of the caller's: for simulations.
    #[doc(hidden)]
    pub async fn assemble(parts: Parts) -> Result<Self, OpenError> {
        Self::start(parts, None).await
    }

    async fn start(parts: Parts, lease: Option<Lease>) -> Result<Self, OpenError> {
        let Parts { surroundings, ledger, endpoint, peers, mut cluster_peers, keep_connected, intake_bytes_max } =
            parts;
        let local_address = endpoint.as_ref().map(Endpoint::local_address).transpose()?;
        let (events, received) = mpsc::unbounded_channel();
        let (questions, asked) = mpsc::channel(64);
        let (landing, landed) = watch::channel(0);
        let (disk, ended) = Disk::start(&surroundings, &ledger, &events, landing, lease)
            .map_err(|error| OpenError::System { what: "cannot start a thread", error })?;
        if let Some(endpoint) = endpoint.clone() {
            surroundings.spawn(Box::pin(accept(Arc::clone(&surroundings), endpoint, events.clone())));
        }
        cluster_peers.retain(|peer| peer.device() != ledger.device());
        let cluster = cluster_peers.iter().map(PeerAddress::device).collect();
        let (around, held) = (Arc::clone(&surroundings), Arc::clone(&ledger));
        let driver = Driver::new(around, held, disk.clone(), endpoint, events, keep_connected, cluster);
        let driver = driver.with_intake(intake_bytes_max);
        surroundings.spawn(Box::pin(driver.run(received, asked)));
        let ended = Mutex::new(ended);
        let shared = Shared { surroundings, disk, ledger, questions, landed, local_address, ended };
        let node = Self { shared: Arc::new(shared) };
        if let Some(address) = local_address {
            tracing::info!(device = %node.device(), replica = ?node.replica(), %address, "listening");
        }
        for peer in peers.into_iter().chain(cluster_peers) {
            // Only a store that fails can keep a peer from being remembered; it is dialled all the same.
            if let Err(error) = node.add_peer(peer).await {
                tracing::warn!(%error, "cannot remember a peer");
            }
        }
        if let Some(address) = local_address.filter(|_| keep_connected) {
            let setting = Work::Setting { name: LISTENED.to_owned(), value: address.to_string() };
            if let Err(error) = node.commit(setting).await {
                tracing::warn!(%error, "cannot remember where this node listens");
            }
        }
        Ok(node)
    }

    /// This device.
    pub fn device(&self) -> DeviceId {
        self.shared.ledger.device()
    }

    /// The replica id under which this node writes.
    pub fn replica(&self) -> ReplicaId {
        self.shared.ledger.replica()
    }

    /// Where it listens, if it does.
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.shared.local_address
    }

    async fn commit(&self, work: Work) -> Result<Done, NodeError> {
        let (caller, done) = oneshot::channel();
        self.shared.disk.send(DiskJob::Commit(work, Waiter::Caller(caller)));
        Ok(done.await.map_err(|_| NodeError::Stopping)??)
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Result<T, NodeError> {
        let (answer, answered) = oneshot::channel();
        self.shared.questions.send(question(answer)).await.map_err(|_| NodeError::Stopping)?;
        answered.await.map_err(|_| NodeError::Stopping)
    }

    /// Creates a space that this device owns. Durable when it returns.
    pub async fn create_space(&self, name: &str) -> Result<SpaceId, NodeError> {
        let valid = (1..=64).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if !valid {
            return Err(NodeError::InvalidSpaceName(name.to_owned()));
        }
        let genesis = Genesis { creator: self.device(), nonce: self.shared.surroundings.random_id() };
        self.commit(Work::Create { genesis, name: name.to_owned() }).await?;
        Ok(genesis.space())
    }

    /// The spaces that are held here, by name and id.
    pub fn spaces(&self) -> Result<Vec<SpaceSummary>, NodeError> {
        let mut spaces = Vec::new();
        for space in self.shared.ledger.spaces() {
            spaces.push(self.view(space)?.summary()?);
        }
        spaces.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        Ok(spaces)
    }

    /// The space that a name or id means.
    pub fn find_space(&self, text: &str) -> Result<SpaceId, NodeError> {
        let mut found = self.shared.ledger.find_space(text)?;
        match found.as_slice() {
            [] => Err(NodeError::UnknownSpace(text.to_owned())),
            [one] => Ok(one.id),
            _ => {
                // An id is never ambiguous, even if somebody gave another space that id as its name.
                if let Some(by_id) = found.iter().find(|space| space.id.to_string() == text) {
                    return Ok(by_id.id);
                }
                found.sort_by_key(|space| space.id);
                Err(NodeError::AmbiguousSpace { name: text.to_owned(), spaces: found })
            }
        }
    }

    /// A view of a space at this instant.
    pub fn view(&self, space: SpaceId) -> Result<View, NodeError> {
        self.shared.ledger.view(space)?.ok_or_else(|| NodeError::UnknownSpace(space.to_string()))
    }

    /// A space that is held here, as something to read and write.
    pub fn space(&self, space: SpaceId) -> Result<Space, NodeError> {
        self.view(space)?;
        Ok(Space::new(self.clone(), space))
    }

    /// Writes a transaction: all of it or nothing. Durable when it returns.
    pub async fn write(&self, space: SpaceId, requests: Vec<Request>) -> Result<Written, NodeError> {
        match self.commit(Work::Write { space, requests }).await? {
            Done::Written(result) => Ok(result?),
            _ => Err(NodeError::Stopping),
        }
    }

    /// Writes for clients that have no version vector of their own: each part is one event, all of it or nothing. All
    /// are asked for at once, and take effect in order.
    pub async fn upload(
        &self,
        space: SpaceId,
        parts: impl IntoIterator<Item = Vec<Upload>>,
    ) -> Vec<Result<Result<Vec<Uploaded>, WriteError>, NodeError>> {
        let ask = |uploads| {
            let (caller, done) = oneshot::channel();
            self.shared.disk.send(DiskJob::Commit(Work::Upload { space, uploads }, Waiter::Caller(caller)));
            done
        };
        let waiting: Vec<_> = parts.into_iter().map(ask).collect();
        let mut outcomes = Vec::with_capacity(waiting.len());
        for done in waiting {
            outcomes.push(match done.await {
                Ok(Ok(Done::Uploaded(outcome))) => Ok(outcome),
                Ok(Err(error)) => Err(error.into()),
                Ok(Ok(_)) | Err(_) => Err(NodeError::Stopping),
            });
        }
        outcomes
    }

    /// Begins a space anew: nothing of what is in it counts any more, here at once and on every other node as soon as it
    /// hears of it. Who may do what stays as it is. Returns the number of the new revision. Nothing happens if the space is
    /// not at the revision `only`, where that is given: whoever does not know whether a wipe was done can ask again so.
    ///
    /// What others write meanwhile in the old one is gone with it. [`Node::removals`] tells how far the old rows are
    /// removed from the disk.
    pub async fn wipe(&self, space: SpaceId, only: Option<u64>) -> Result<u64, NodeError> {
        if self.setting(SYSTEM_SPACE)?.is_some_and(|system| system == space.to_string()) {
            return Err(NodeError::SystemSpace);
        }
        match self.commit(Work::Wipe { space, only }).await? {
            Done::Wiped(outcome) => Ok(outcome?),
            _ => Err(NodeError::Stopping),
        }
    }

    /// What was wiped here and is being removed, or was not long ago; the earliest first.
    pub fn removals(&self) -> Result<Vec<Removal>, NodeError> {
        Ok(self.shared.ledger.removals()?)
    }

    /// Removes what is not told or remembered any more.
    pub(crate) async fn trim(&self, space: SpaceId, trimming: Trimming) -> Result<(), NodeError> {
        self.commit(Work::Trim { space, trimming }).await.map(drop)
    }

    /// A setting of this node, that [`Node::remember_setting`] remembered.
    pub(crate) fn setting(&self, name: &str) -> Result<Option<String>, NodeError> {
        Ok(self.shared.ledger.setting(name)?)
    }

    /// Remembers a setting of this node. Durable when it returns.
    pub(crate) async fn remember_setting(&self, name: &str, value: String) -> Result<(), NodeError> {
        self.commit(Work::Setting { name: name.to_owned(), value }).await.map(drop)
    }

    /// Waits until anything has landed in any space after the moment `seen` was marked.
    pub(crate) fn landed(&self) -> watch::Receiver<u64> {
        self.shared.landed.clone()
    }

    /// Time and chance, as this node has them.
    pub(crate) fn surroundings(&self) -> &Arc<dyn Surroundings> {
        &self.shared.surroundings
    }

    /// Waits until the feed of `space` has something after `after`, and returns it: at most `limit` changes.
    pub async fn changes(&self, space: SpaceId, after: u64, limit: usize) -> Result<Vec<Change>, NodeError> {
        let mut landed = self.shared.landed.clone();
        loop {
            // Marked as seen before looking, so that what lands meanwhile is not slept over.
            landed.mark_unchanged();
            let seen = *landed.borrow_and_update();
            let changes = self.view(space)?.changes(after, limit)?;
            if !changes.is_empty() {
                return Ok(changes);
            }
            landed.wait_for(|landed| *landed != seen).await.map_err(|_| NodeError::Stopping)?;
        }
    }

    /// Signs a ticket to a space. Only owners can.
    pub fn invite(&self, space: SpaceId, invitation: &Invitation) -> Result<SignedTicket, NodeError> {
        let summary = self.view(space)?.summary()?;
        if summary.role != Some(Role::Owner) {
            let role = summary.role.map_or_else(|| "not a member yet".to_owned(), |role| role.to_string());
            return Err(NodeError::NotOwner { role });
        }
        let genesis = self.shared.ledger.genesis(space).ok_or_else(|| NodeError::UnknownSpace(space.to_string()))?;
        let lasts_ms = u64::try_from(invitation.expires.as_millis()).unwrap_or(u64::MAX);
        let listened = match self.local_address() {
            Some(address) => Some(address),
            None => self.shared.ledger.setting(LISTENED)?.and_then(|address| address.parse().ok()),
        };
        let ticket = Ticket {
            id: self.shared.surroundings.random_id(),
            genesis,
            role: invitation.role,
            uses: invitation.uses,
            expires_ms: self.shared.surroundings.wall_ms().saturating_add(lasts_ms),
            inviter: self.device(),
            addresses: listened.map(reachable).unwrap_or_default(),
            name: summary.name,
        };
        Ok(SignedTicket::sign(ticket, self.shared.ledger.key()))
    }

    /// Redeems a ticket at its inviter, and holds the space from then on.
    ///
    /// Returns once the space has come, or after twenty seconds if it is so large that it takes longer; a running node
    /// goes on with it.
    pub async fn join(&self, ticket: &SignedTicket) -> Result<SpaceId, JoinError> {
        let space = ticket.ticket().genesis.space();
        let inviter = ticket.ticket().inviter;
        if inviter == self.device() {
            return if self.view(space).is_ok() { Ok(space) } else { Err(TicketRefusal::Unknown.into()) };
        }
        if ticket.ticket().expires_ms <= self.shared.surroundings.wall_ms() {
            return Err(JoinError::Expired);
        }
        let ticket = Box::new(ticket.clone());
        self.ask(|answer| Question::Join(ticket, answer)).await?
    }

    /// Hands a backup of this instant to `to`, piece by piece, until that breaks; see [`Ledger::back_up`]. It reads the
    /// whole store, and keeps nobody from writing meanwhile.
    pub fn back_up(&self, to: &mut dyn FnMut(&[u8]) -> ControlFlow<()>) -> Result<(), NodeError> {
        Ok(self.shared.ledger.back_up(self.shared.surroundings.wall_ms(), to)?)
    }

    /// Dials every known peer now and waits until both sides know the same, durably, or `timeout` is over.
    pub async fn sync(&self, timeout: Duration) -> Result<SyncReport, NodeError> {
        self.ask(|answer| Question::Sync(timeout, answer)).await
    }

    /// What is synced with whom, what is not yet, and why.
    pub async fn status(&self) -> Result<Status, NodeError> {
        self.ask(Question::Status).await
    }

    /// Whether it takes writes, its disk answers, and it gets on with its cluster peers. It reads nothing from the
    /// disk, unlike [`Node::status`], which says more. It waits for the loop: whoever asks says how long that may take.
    pub async fn health(&self) -> Result<(), NodeError> {
        Ok(self.ask(Question::Health).await??)
    }

    /// What its disk has done since it was opened.
    pub fn commits(&self) -> Commits {
        self.shared.disk.pulse.commits()
    }

    /// Waits until the node has ended without having been asked to, because one of its threads panicked. There is
    /// nothing to be done with it then but to close it.
    pub async fn broken(&self) {
        self.shared.questions.closed().await;
    }

    /// Remembers a peer and dials it.
    pub async fn add_peer(&self, peer: PeerAddress) -> Result<(), NodeError> {
        if peer.device() == self.device() {
            return Err(NodeError::OwnDevice);
        }
        self.ask(|answer| Question::AddPeer(peer, answer)).await?
    }

    /// Forgets a peer and closes the connection to it. Returns whether it was known.
    pub async fn remove_peer(&self, device: DeviceId) -> Result<bool, NodeError> {
        self.ask(|answer| Question::RemovePeer(device, answer)).await?
    }

    /// The remembered and the connected peers.
    pub async fn peers(&self) -> Result<Vec<Peer>, NodeError> {
        self.ask(Question::Peers).await
    }

    /// Stops: says goodbye to peers, finishes what is being committed, and closes the store unless other handles are
    /// still in use.
    pub async fn close(self) {
        // A loop that is gone already has stopped.
        let _ = self.ask(Question::Stop).await;
        if let Some(shared) = Arc::into_inner(self.shared) {
            let Shared { disk, ended, ledger, .. } = shared;
            drop((disk, ledger));
            // They end by themselves once nobody can ask them anything.
            for ended in ended.into_inner() {
                let _ = ended.await;
            }
        }
    }
}

/// Under this name a node remembers where it listened last, for invitations that are made while it is not running.
const LISTENED: &str = "listened";

/// Where others can reach a node that listens at `address`.
fn reachable(address: SocketAddr) -> Vec<String> {
    if !address.ip().is_unspecified() {
        return vec![address.to_string()];
    }
    // The address that the system would use towards the world: nothing is sent to find that out.
    let outward = std::net::UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    let outward = outward.ok().filter(|local| !local.ip().is_unspecified());
    let local = SocketAddr::from(([127, 0, 0, 1], address.port()));
    let outward = outward.map(|outward| SocketAddr::new(outward.ip(), address.port()));
    outward.into_iter().chain([local]).map(|address| address.to_string()).collect()
}

/// How many newcomers may be connecting at a time.
const NEWCOMERS_MAX: usize = 256;
/// How long a newcomer may take until it opens its first stream.
const NEWCOMER_WITHIN: Duration = Duration::from_secs(10);

/// Takes connections as they come.
///
/// Of too many newcomers the oldest have to go: an honest one opens a stream within a round trip, so that however many
/// open none, they keep nobody out.
async fn accept(surroundings: Arc<dyn Surroundings>, endpoint: Endpoint, events: mpsc::UnboundedSender<driver::Event>) {
    let mut newcomers: VecDeque<oneshot::Sender<()>> = VecDeque::new();
    while let Some(incoming) = endpoint.accept().await {
        if newcomers.len() >= NEWCOMERS_MAX {
            newcomers.pop_front();
        }
        let (place, lost_its_place) = oneshot::channel();
        newcomers.push_back(place);
        let welcomed = welcome(Arc::clone(&surroundings), incoming, events.clone());
        surroundings.spawn(Box::pin(async move {
            tokio::select! {
                biased;
                () = welcomed => {}
                _ = lost_its_place => {}
            }
        }));
    }
}

/// Waits until the dialer has opened a stream. Whoever dials a node at all of its addresses keeps one of the
/// connections, and opens streams on no other: those must not take the place of the one that is used.
async fn welcome(
    surroundings: Arc<dyn Surroundings>,
    incoming: Incoming,
    events: mpsc::UnboundedSender<driver::Event>,
) {
    let address = incoming.remote_address();
    let connection = match incoming.establish().await {
        Ok(connection) => connection,
        Err(error) => return tracing::debug!(%address, %error, "a connection did not come about"),
    };
    match surroundings.within(NEWCOMER_WITHIN, connection.accept()).await {
        Some(Ok(stream)) => drop(events.send(driver::Event::Accepted(connection, stream))),
        Some(Err(error)) => tracing::debug!(%address, %error, "a connection was given up"),
        None => {
            tracing::debug!(%address, peer = %connection.peer(), "a connection without a word");
            connection.close(CloseReason::new(CloseReason::FIRST_OF_SESSIONS + 6, "no hello"));
        }
    }
}
