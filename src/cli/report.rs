//! How everything stands, as `status` tells it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::node::{ClusterPeer, PeerStatus, Status};
use crate::store::{Copied, Renewed};

/// How everything stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// This device.
    pub device: String,
    /// The incarnation of its store.
    pub replica: String,
    /// Every time that the store began to write under a new replica id; the first one first.
    pub renewals: Vec<RenewalReport>,
    /// Where it listens, if it does.
    pub listening: Option<String>,
    /// Why nothing can be written at the moment, if so.
    pub storage_failure: Option<String>,
    /// Every cluster peer, and every device that would be one if this node agreed.
    pub cluster: Vec<ClusterReport>,
    /// Every space that can be read.
    pub spaces: Vec<SpaceReport>,
    /// What was found damaged or cannot be read.
    pub damage: Vec<String>,
    /// What is not as it should be, in whole sentences.
    pub complaints: Vec<String>,
}

/// A cluster peer, or one that would be if both sides said so.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClusterReport {
    /// The device.
    pub device: String,
    /// Whether both count each other as one.
    pub state: String,
    /// Why not, if not.
    pub reason: Option<String>,
}

/// How a space stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpaceReport {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// On a relay the customer's database that it is, as `CUSTOMER/DATABASE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// What this device may do there, if that is known yet.
    pub role: Option<String>,
    /// How many objects are visible.
    pub objects: u64,
    /// How many bytes they take on disk.
    pub bytes: u64,
    /// The last event that is known of each replica.
    pub vector: BTreeMap<String, u64>,
    /// How many objects have a field with several values.
    pub conflicts: u64,
    /// How many edits lost to a delete.
    pub lost: u64,
    /// Stores that were copied, or put back, and wrote twice under one replica id.
    pub copied: Vec<CopiedReport>,
    /// How it stands with every peer.
    pub peers: Vec<PeerReport>,
}

/// A store that wrote more than once under one replica id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopiedReport {
    /// Whose store it was.
    pub device: String,
    /// The id.
    pub replica: String,
    /// How many copies of it wrote. What each wrote is there.
    pub copies: usize,
}

/// That this store began to write under another replica id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RenewalReport {
    /// The id before.
    pub before: String,
    /// The id since.
    pub now: String,
    /// Why.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// How a space stands with a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerReport {
    /// The peer.
    pub device: String,
    /// How far it is.
    pub state: String,
    /// Events that it has and that are not here.
    pub behind_events: u64,
    /// Events that are here and that it has not acknowledged.
    pub ahead_events: u64,
    /// When both were last in step, in milliseconds since 1970.
    pub last_synced_ms: Option<u64>,
    /// Why it is not in step, if it is not.
    pub reason: Option<String>,
}

impl PeerReport {
    /// Whether nothing is to be done; see [`PeerStatus::is_well`].
    pub fn is_well(&self) -> bool {
        let nothing_waits = self.ahead_events == 0 && self.behind_events == 0 && self.last_synced_ms.is_some();
        self.state == "synced" || (self.state == "offline" && nothing_waits)
    }
}

impl From<&Status> for StatusReport {
    fn from(status: &Status) -> Self {
        let peer = |peer: &PeerStatus| PeerReport {
            device: peer.device.to_string(),
            state: peer.state.as_str().to_owned(),
            behind_events: peer.behind_events,
            ahead_events: peer.ahead_events,
            last_synced_ms: peer.last_synced_ms,
            reason: peer.reason.clone(),
        };
        let cluster = |peer: &ClusterPeer| ClusterReport {
            device: peer.device.to_string(),
            state: peer.state.as_str().to_owned(),
            reason: peer.reason.clone(),
        };
        let copied = |copied: &Copied| CopiedReport {
            device: copied.device.to_string(),
            replica: copied.replica.to_string(),
            copies: copied.copies,
        };
        let renewal = |renewed: &Renewed| RenewalReport {
            before: renewed.before.to_string(),
            now: renewed.now.to_string(),
            reason: renewed.reason.to_string(),
            at_ms: renewed.at_ms,
        };
        let spaces = status.spaces.iter().map(|space| {
            let summary = &space.summary;
            SpaceReport {
                id: summary.id.to_string(),
                name: summary.name.clone(),
                database: None,
                role: summary.role.map(|role| role.to_string()),
                objects: summary.objects,
                bytes: summary.bytes,
                vector: summary.vector.iter().map(|dot| (dot.replica.to_string(), dot.counter)).collect(),
                conflicts: summary.conflicts,
                lost: summary.lost,
                copied: space.copied.iter().map(copied).collect(),
                peers: space.peers.iter().map(peer).collect(),
            }
        });
        Self {
            device: status.device.to_string(),
            replica: status.replica.to_string(),
            renewals: status.renewals.iter().map(renewal).collect(),
            listening: status.listening.map(|address| address.to_string()),
            storage_failure: status.storage_failure.clone(),
            cluster: status.cluster.iter().map(cluster).collect(),
            spaces: spaces.collect(),
            damage: status.damage.clone(),
            complaints: status.complaints(),
        }
    }
}
