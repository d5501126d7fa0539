//! What a node says about itself: what is synced with whom, what is not yet, and why.

use crate::causal::ReplicaId;
use crate::model::DeviceId;
use crate::store::{Copied, Renewed, SpaceSummary};

/// A node, its spaces and its peers.
#[derive(Clone, Debug)]
pub struct Status {
    /// This device.
    pub device: DeviceId,
    /// The incarnation of its store.
    pub replica: ReplicaId,
    /// Every time that it began to write under a new replica id, and why; the first one first.
    pub renewals: Vec<Renewed>,
    /// Where it listens, if it does.
    pub listening: Option<std::net::SocketAddr>,
    /// Why nothing can be written or acknowledged at the moment, if so.
    pub storage_failure: Option<String>,
    /// Every device that this node counts as a cluster peer, or that counts this node as one.
    pub cluster: Vec<ClusterPeer>,
    /// Every space that is held here and can be read.
    pub spaces: Vec<SpaceStatus>,
    /// What was found damaged or cannot be read since the node started, in words. Everything else is served.
    pub damage: Vec<String>,
}

/// A cluster peer, or one that would be if both sides said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterPeer {
    /// The peer.
    pub device: DeviceId,
    /// Whether it is one.
    pub state: ClusterState,
    /// Why it is none at the moment, if so.
    pub reason: Option<String>,
}

/// Whether two nodes are cluster peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// Both count each other as one.
    Mutual,
    /// Only one of them does, which makes them ordinary peers.
    OneSided,
    /// It is not connected.
    Offline,
}

impl ClusterState {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mutual => "mutual",
            Self::OneSided => "one-sided",
            Self::Offline => "offline",
        }
    }
}

/// A space, and how it stands with every peer that may see it.
#[derive(Clone, Debug)]
pub struct SpaceStatus {
    /// The space in numbers.
    pub summary: SpaceSummary,
    /// The replica ids under which several copies of one store wrote.
    pub copied: Vec<Copied>,
    /// The peers that are known or connected, by device id.
    pub peers: Vec<PeerStatus>,
}

/// How far a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Both know the same, durably.
    Synced,
    /// Something is under way.
    Syncing,
    /// It is not connected.
    Offline,
    /// Connected, and one of the two will not exchange the space.
    Refused,
    /// A cluster peer that has no part in the space, since this device cannot grant it any.
    Unshared,
    /// It did what no honest peer does, and was turned away.
    Misbehaved,
}

impl PeerState {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Syncing => "syncing",
            Self::Offline => "offline",
            Self::Refused => "refused",
            Self::Unshared => "unshared",
            Self::Misbehaved => "misbehaved",
        }
    }
}

/// How a space stands with one peer.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// The peer.
    pub device: DeviceId,
    /// How far it is.
    pub state: PeerState,
    /// Events that it has and that are not here, as far as it said.
    pub behind_events: u64,
    /// Events that are here and that it has not acknowledged.
    pub ahead_events: u64,
    /// When both were last in step, in milliseconds since 1970.
    pub last_synced_ms: Option<u64>,
    /// Why it is not in step, if it is not.
    pub reason: Option<String>,
}

impl PeerStatus {
    /// Whether nothing is to be done: in step, or away with nothing to tell one another as far as is known.
    pub fn is_well(&self) -> bool {
        let nothing_waits = self.ahead_events == 0 && self.behind_events == 0 && self.last_synced_ms.is_some();
        self.state == PeerState::Synced || (self.state == PeerState::Offline && nothing_waits)
    }
}

impl Status {
    /// What is not as it should be, in whole sentences; empty when all is well.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints: Vec<String> = self.storage_failure.iter().cloned().collect();
        for peer in self.cluster.iter().filter(|peer| peer.state != ClusterState::Mutual) {
            let reason = peer.reason.as_deref().unwrap_or("not connected yet");
            complaints.push(format!("cluster peer {}: {}: {reason}", peer.device, peer.state.as_str()));
        }
        complaints.extend(self.damage.iter().cloned());
        for space in &self.spaces {
            for peer in space.peers.iter().filter(|peer| !peer.is_well()) {
                let reason = peer.reason.as_deref().unwrap_or("not in step yet");
                let name = &space.summary.name;
                complaints.push(format!("space {name}, peer {}: {}: {reason}", peer.device, peer.state.as_str()));
            }
        }
        complaints
    }
}
