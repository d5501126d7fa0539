//! The peers that a node knows: how they are remembered, dialled and asked for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::sessions::Session;
use super::{Driver, Event};
use crate::model::DeviceId;
use crate::node::dialing::{Known, Stage};
use crate::node::disk::{DiskJob, Waiter};
use crate::node::surroundings::{Surroundings, Tasks};
use crate::node::{NodeError, Peer};
use crate::store::Work;
use crate::transport::{CloseReason, Connection, Endpoint, PeerAddress};

/// How long one address is tried. A way that answers at all answers much sooner, and a peer that starts meanwhile is
/// found by the next attempt.
const DIAL_WITHIN: Duration = Duration::from_secs(3);
/// How many addresses of one peer are kept.
const ADDRESSES_MAX: usize = 4;

impl Driver {
    /// Knows a remembered peer.
    pub(super) fn know(&mut self, device: DeviceId, addresses: Vec<String>) {
        let (keep, now) = (self.keep_connected, self.surroundings.now());
        let known = self.peers.entry(device);
        // The latest to be given is the likeliest, and stands first.
        for address in addresses.into_iter().rev() {
            known.addresses.retain(|other| *other != address);
            known.addresses.insert(0, address);
        }
        known.addresses.truncate(ADDRESSES_MAX);
        known.keep = keep;
        if keep && known.stage == Stage::Idle {
            known.next = Some(now);
        }
    }

    /// Dials whoever is due.
    pub(super) fn dial(&mut self) {
        let Some(endpoint) = &self.endpoint else { return };
        for (device, addresses) in self.peers.due(self.surroundings.now()) {
            self.spawn_dial(endpoint, device, addresses);
        }
    }

    pub(super) fn spawn_dial(&self, endpoint: &Endpoint, device: DeviceId, addresses: Vec<String>) {
        let (endpoint, events) = (endpoint.clone(), self.events.clone());
        let surroundings = Arc::clone(&self.surroundings);
        self.surroundings.spawn(Box::pin(async move {
            let result = dial(&surroundings, &endpoint, device, &addresses).await;
            let _ = events.send(Event::Dialed { device, result });
        }));
    }

    /// Sees to it that a peer is dialled at once, whatever its back-off says.
    pub(super) fn dial_now(&mut self, device: DeviceId) {
        let now = self.surroundings.now();
        let known = self.peers.entry(device);
        if known.stage == Stage::Idle {
            known.next = Some(now);
        }
    }

    pub(super) fn remember_peer(&mut self, device: DeviceId, addresses: Vec<String>) {
        self.know(device, addresses);
        let addresses = self.peers.entry(device).addresses.clone();
        self.disk.send(DiskJob::Commit(Work::RememberPeer { device, addresses }, Waiter::None));
    }

    /// The remembered and the connected peers.
    pub(super) fn list_peers(&self) -> Vec<Peer> {
        let connected = |known: &Known| matches!(known.stage, Stage::Connected(_));
        let peer = |(device, known): (DeviceId, &Known)| Peer {
            device,
            addresses: match (known.addresses.as_slice(), known.stage) {
                ([], Stage::Connected(session)) => {
                    let remote = |session: &Session| session.wire.connection().remote_address().to_string();
                    self.sessions.get(&session).map(remote).into_iter().collect()
                }
                (addresses, _) => addresses.to_vec(),
            },
            connected: connected(known),
        };
        self.peers.iter().map(peer).collect()
    }

    /// Remembers a peer and dials it.
    pub(super) fn add_peer(&mut self, peer: &PeerAddress, answer: oneshot::Sender<Result<(), NodeError>>) {
        let address = format!("{}:{}", peer.host(), peer.port());
        // A dial that is under way knows nothing of this address, and may take its time with others.
        let dialing = self
            .peers
            .get(peer.device())
            .is_some_and(|known| known.stage == Stage::Dialing && !known.addresses.contains(&address));
        if let Some(endpoint) = self.endpoint.as_ref().filter(|_| dialing) {
            self.spawn_dial(endpoint, peer.device(), vec![address.clone()]);
        }
        self.know(peer.device(), vec![address]);
        let (device, addresses) = (peer.device(), self.peers.entry(peer.device()).addresses.clone());
        self.commit_for(Work::RememberPeer { device, addresses }, answer, |_| ());
    }

    /// Forgets a peer, and whether it was one.
    pub(super) fn remove_peer(&mut self, device: DeviceId, answer: oneshot::Sender<Result<bool, NodeError>>) {
        let session = self.session_of(device).map(|(id, _)| id);
        if let Some(session) = session {
            let reason = CloseReason::new(CloseReason::FIRST_OF_SESSIONS + 5, "removed as a peer");
            if let Some(state) = self.sessions.get(&session) {
                state.wire.close(reason);
            }
            self.end(session, "removed as a peer");
        }
        let known = self.peers.remove(device).is_some_and(|known| !known.addresses.is_empty());
        self.commit_for(Work::ForgetPeer { device }, answer, move |_| known);
    }
}

/// Dials a peer at all of its addresses at once; the first to answer is taken.
async fn dial(
    surroundings: &Arc<dyn Surroundings>,
    endpoint: &Endpoint,
    device: DeviceId,
    addresses: &[String],
) -> Result<Connection, String> {
    let mut attempts = Tasks::new(Arc::clone(surroundings));
    for address in addresses {
        let surroundings = Arc::clone(surroundings);
        let (endpoint, peer) = (endpoint.clone(), format!("{device}@{address}").parse::<PeerAddress>());
        attempts.spawn(async move {
            let peer = peer.map_err(|error| error.to_string())?;
            let mut reason = format!("{}:{} did not answer", peer.host(), peer.port());
            let resolved = peer.resolve().await.map_err(|error| error.to_string())?;
            for address in resolved {
                match surroundings.within(DIAL_WITHIN, endpoint.connect(device, address)).await {
                    Some(Ok(connection)) => return Ok(connection),
                    Some(Err(error)) => reason = format!("{address}: {error}"),
                    None => reason = format!("{address} did not answer"),
                }
            }
            Err(reason)
        });
    }
    let mut reason = "no address is known".to_owned();
    while let Some(attempt) = attempts.next().await {
        match attempt {
            Some(Ok(connection)) => return Ok(connection),
            Some(Err(error)) => reason = error,
            None => "the dial broke off".clone_into(&mut reason),
        }
    }
    Err(reason)
}
