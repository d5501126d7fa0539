//! The status: what the protocol, the store and the peers say of every space, put together.

use std::collections::BTreeMap;

use super::Driver;
use crate::causal::VersionVector;
use crate::model::{DeviceId, Role, SpaceId};
use crate::node::dialing::Stage;
use crate::node::status::{PeerState, PeerStatus, SpaceStatus, Status};
use crate::replica::{LinkState, Relation};
use crate::store::{Acknowledged, StoreError};

impl Driver {
    /// What is synced with whom, what is not yet, and why.
    pub(super) fn status(&mut self) -> Status {
        self.note_synced();
        let (mut spaces, mut unreadable) = (Vec::new(), Vec::new());
        for space in self.ledger.spaces() {
            match self.space_status(space) {
                Ok(status) => spaces.extend(status),
                Err(error) => unreadable.push((space, error)),
            }
        }
        let renewals = self.ledger.renewals().unwrap_or_else(|error| {
            self.note_damage(error);
            Vec::new()
        });
        Status {
            device: self.ledger.device(),
            replica: self.ledger.replica(),
            renewals,
            listening: self.endpoint.as_ref().and_then(|endpoint| endpoint.local_address().ok()),
            storage_failure: self.storage_failure.as_ref().map(ToString::to_string),
            cluster: self.cluster_peers(),
            spaces,
            damage: (self.ledger.damage().into_iter())
                .chain(self.damage.iter().map(ToString::to_string))
                .chain(unreadable.iter().map(|(space, error)| format!("space {space} cannot be read: {error}")))
                .collect(),
        }
    }

    fn space_status(&self, space: SpaceId) -> Result<Option<SpaceStatus>, StoreError> {
        let relation = |device| self.session_of(device).and_then(|(_, session)| session.relation);
        let Some(view) = self.ledger.view(space)? else { return Ok(None) };
        let summary = view.summary()?;
        let access = self.ledger.access(space);
        let links = self.replica.links(space);
        let revision = view.revision();
        let nothing = |device| Acknowledged { space, revision, device, vector: VersionVector::new(), synced_ms: None };
        let mut rows: BTreeMap<DeviceId, Acknowledged> =
            self.ledger.acknowledged(space)?.into_iter().map(|row| (row.device, row)).collect();
        for (device, _) in self.peers.iter() {
            if access.as_ref().is_some_and(|access| access.may_see(device)) {
                rows.entry(device).or_insert_with(|| nothing(device));
            }
        }
        let may_share = access.as_ref().is_some_and(|access| access.role(self.ledger.device()) == Some(Role::Owner));
        let unshared = |device: DeviceId| {
            let member = access.as_ref().is_some_and(|access| access.may_see(device));
            self.cluster.contains(&device) && !member && !may_share
        };
        for &device in &self.cluster {
            rows.entry(device).or_insert_with(|| nothing(device));
        }
        let mut peers = Vec::new();
        for link in &links {
            rows.entry(link.peer).or_insert_with(|| nothing(link.peer));
        }
        for (device, row) in rows {
            let last_synced_ms = self.synced_ms.get(&(space, device)).copied().or(row.synced_ms);
            let known = self.peers.get(device);
            let misbehaved = known.and_then(|known| known.misbehaved.clone());
            // Of several connections to one device the newest counts.
            let link = links.iter().rfind(|link| link.peer == device);
            let (state, reason) = match link.map(|link| link.state) {
                Some(LinkState::Synced) => (PeerState::Synced, None),
                Some(LinkState::Syncing) => (PeerState::Syncing, Some("events are on their way".to_owned())),
                Some(LinkState::Opening) => (PeerState::Syncing, Some("waiting for it to say what it has".to_owned())),
                Some(LinkState::Refused(refusal)) => (PeerState::Refused, Some(refusal.to_string())),
                None if unshared(device) => {
                    let reason = "only an owner can share this space with a cluster peer: ask one to invite this \
                                  device as an owner";
                    (PeerState::Unshared, Some(reason.to_owned()))
                }
                None if misbehaved.is_some() => (PeerState::Misbehaved, misbehaved.map(|text| format!("it {text}"))),
                None if relation(device) == Some(Relation::Cluster) => {
                    (PeerState::Syncing, Some("it is being shared".to_owned()))
                }
                None if relation(device) == Some(Relation::OneSidedHere) => {
                    (PeerState::Refused, Some("it does not count this device as a cluster peer".to_owned()))
                }
                None if known.is_some_and(|known| matches!(known.stage, Stage::Connected(_))) => {
                    (PeerState::Refused, Some("it may not see this space".to_owned()))
                }
                None => {
                    let reason = match known {
                        _ if self.endpoint.is_none() => "no node is running here".to_owned(),
                        Some(known) => known.reason.clone().unwrap_or_else(|| "not connected yet".to_owned()),
                        None => "it is not connected, and where to reach it is not known".to_owned(),
                    };
                    (PeerState::Offline, Some(reason))
                }
            };
            let ahead_events =
                link.map_or_else(|| summary.vector.count_missing_from(&row.vector), |link| link.ahead_events);
            let behind_events =
                link.map_or_else(|| row.vector.count_missing_from(&summary.vector), |link| link.behind_events);
            peers.push(PeerStatus { device, state, behind_events, ahead_events, last_synced_ms, reason });
        }
        Ok(Some(SpaceStatus { summary, copied: view.copied(), peers }))
    }
}
