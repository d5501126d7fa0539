//! What people are told of the exchange with a peer: that both caught up, with how much, and how long it took.
//!
//! **Invariant**: it is told once per space and connection. What is written live from then on is not news.

use std::time::{Duration, Instant};

use super::Driver;
use crate::model::SpaceId;
use crate::replica::{LinkState, SessionId};

/// How a space stands between two devices that have met.
#[derive(Clone, Copy, Debug)]
pub(super) enum Meeting {
    /// One side lacked something when it was first known what both have.
    Apart { since: Instant, received_events: u64, sent_events: u64 },
    /// Both have been in step since they met.
    InStep,
}

/// Milliseconds, for people.
pub(super) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Driver {
    /// Looks whether a peer and this node are in step now, and tells it if they were not before.
    pub(super) fn follow(&mut self, id: SessionId, space: SpaceId) {
        let now = self.surroundings.now();
        let Some(session) = self.sessions.get_mut(&id) else { return };
        // Looked at first, because it is nearly always so and costs nothing.
        if matches!(session.meetings.get(&space), Some(Meeting::InStep)) {
            return;
        }
        let Some(link) = self.replica.links(space).into_iter().find(|link| link.session == id) else { return };
        let (received_events, sent_events) = (link.behind_events, link.ahead_events);
        match link.state {
            LinkState::Syncing => {
                let apart = Meeting::Apart { since: now, received_events, sent_events };
                session.meetings.entry(space).or_insert(apart);
            }
            LinkState::Synced => {
                let (peer, before) = (session.device, session.meetings.insert(space, Meeting::InStep));
                if let Some(Meeting::Apart { since, received_events, sent_events }) = before {
                    let took_ms = ms(now.saturating_duration_since(since));
                    tracing::info!(%peer, %space, received_events, sent_events, took_ms, "caught up");
                } else {
                    tracing::debug!(%peer, %space, "in step from the beginning");
                }
            }
            LinkState::Opening | LinkState::Refused(_) => {}
        }
    }
}
