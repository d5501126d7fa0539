//! The cluster peers of a node: what each of them is to it, and the spaces that they bring.
//!
//! **Invariant**: a device is a cluster peer for as long as the node runs with it in its settings, and only in sessions
//! in which it says the same of this node. Nothing of that is kept in the store except the grants that it led to.

use super::{Driver, Session};
use crate::model::DeviceId;
use crate::node::dialing::Stage;
use crate::node::disk::{DiskJob, Waiter};
use crate::node::status::{ClusterPeer, ClusterState};
use crate::replica::{Introduction, Relation, SessionId};
use crate::store::Work;

const ONE_SIDED_HERE: &str =
    "it does not count this device as a cluster peer; start that node with --cluster-peer for this one too";
const ONE_SIDED_THERE: &str = "it counts this device as a cluster peer, and this one does not; start this node with \
                               --cluster-peer for that one too, or that one without it";

impl Driver {
    /// Holds a space that a cluster peer introduced.
    pub(super) fn join_introduced(&mut self, introduction: Introduction, introducer: DeviceId) {
        let space = introduction.genesis.space();
        tracing::info!(peer = %introducer, %space, "a cluster peer shares a space");
        // Kept until it is held: should the store fail meanwhile, the peer does not say it again.
        self.introduced.insert(space, (introduction.clone(), introducer));
        self.disk.send(DiskJob::Commit(Work::Join { introduction, introducer }, Waiter::None));
    }

    /// Takes note of what the peer of a session and this node are to each other.
    pub(super) fn relate(&mut self, id: SessionId) {
        let relation = self.replica.relation(id);
        let Some(session) = self.sessions.get_mut(&id).filter(|session| session.relation != relation) else { return };
        session.relation = relation;
        let peer = session.device;
        match relation {
            Some(Relation::Cluster) => {
                tracing::info!(%peer, "cluster peer connected");
                // It may see whatever this node owns, and shares whatever it owns itself.
                session.wire.connection().admit();
            }
            Some(Relation::OneSidedHere) => tracing::warn!(%peer, "an ordinary peer only: {ONE_SIDED_HERE}"),
            Some(Relation::OneSidedThere) => tracing::warn!(%peer, "an ordinary peer only: {ONE_SIDED_THERE}"),
            Some(Relation::Peers) | None => {}
        }
    }

    /// Every device that this node counts as a cluster peer, or that counts this node as one.
    pub(super) fn cluster_peers(&self) -> Vec<ClusterPeer> {
        let one_sided = |(_, session): (&SessionId, &Session)| {
            let relation = session.relation == Some(Relation::OneSidedThere);
            let (device, state) = (session.device, ClusterState::OneSided);
            relation.then(|| ClusterPeer { device, state, reason: Some(ONE_SIDED_THERE.to_owned()) })
        };
        let counted = self.cluster.iter().map(|device| self.cluster_peer(*device));
        let mut peers: Vec<ClusterPeer> = counted.chain(self.sessions.iter().filter_map(one_sided)).collect();
        peers.sort_by_key(|peer| peer.device);
        peers
    }

    fn cluster_peer(&self, device: DeviceId) -> ClusterPeer {
        let session = self.session_of(device).map(|(_, session)| session);
        let (state, reason) = match session.and_then(|session| session.relation) {
            Some(Relation::Cluster) => (ClusterState::Mutual, None),
            Some(_) => (ClusterState::OneSided, Some(ONE_SIDED_HERE.to_owned())),
            None => {
                let known = self.peers.get(device);
                let reason = known.and_then(|known| match known.stage {
                    Stage::Connected(_) => Some("waiting for its hello".to_owned()),
                    _ => known.misbehaved.as_ref().map(|text| format!("it {text}")).or(known.reason.clone()),
                });
                (ClusterState::Offline, Some(reason.unwrap_or_else(|| "not connected yet".to_owned())))
            }
        };
        ClusterPeer { device, state, reason }
    }
}
