//! Whether a node can do its work: what whoever runs it, or a program that watches it, wants to know first.
//!
//! **Invariant**: no peer that is not of this node's cluster can make it look ill. Nothing is read from the disk for it:
//! where there are cluster peers it takes a look at what each of them said of each space, else next to nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::model::{DeviceId, SpaceId};
use crate::replica::{LinkStatus, SessionId};
use crate::store::StoreError;

/// A commit that takes longer hangs: the slowest disk that works is done sooner.
pub const COMMIT_TIME_MAX: Duration = Duration::from_secs(15);
/// Whoever lacks something that a cluster peer has, and got nothing for so long, does not get on.
pub const STANDSTILL_TIME_MAX: Duration = Duration::from_secs(60);

/// Why a node cannot do its work at the moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unwell {
    /// Nothing can be written.
    #[error("nothing can be written: {0}")]
    Storage(#[from] StoreError),
    /// The disk does not answer.
    #[error("the disk has not answered for {} s", .0.as_secs())]
    Disk(Duration),
    /// A cluster peer has what this node lacks, and nothing of it comes.
    #[error("{events} events that {peer} has of space {space} have not come for {} s", .time.as_secs())]
    Replication {
        /// The peer.
        peer: DeviceId,
        /// The space.
        space: SpaceId,
        /// How many.
        events: u64,
        /// For how long.
        time: Duration,
    },
}

/// What a node's disk has done since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Commits {
    /// How many commits there were.
    pub count: u64,
    /// How many of them failed.
    pub failed: u64,
    /// How long all of them took together.
    pub time: Duration,
}

/// When the commit that is under way began, if one is, and what came of those before.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulse(Arc<Mutex<(Option<Instant>, Commits)>>);

impl Pulse {
    fn beat(&self) -> MutexGuard<'_, (Option<Instant>, Commits)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(&self, now: Instant) {
        self.beat().0 = Some(now);
    }

    pub(super) fn end(&self, now: Instant, is_done: bool) {
        let (begun, commits) = &mut *self.beat();
        commits.count += 1;
        commits.failed += u64::from(!is_done);
        commits.time += begun.take().map_or(Duration::ZERO, |begun| now.saturating_duration_since(begun));
    }

    pub(super) fn commits(&self) -> Commits {
        self.beat().1
    }

    /// Refuses a commit that takes too long.
    pub(super) fn check(&self, now: Instant) -> Result<(), Unwell> {
        let begun = self.beat().0;
        let taken = begun.map(|begun| now.saturating_duration_since(begun)).filter(|taken| *taken > COMMIT_TIME_MAX);
        taken.map_or(Ok(()), |taken| Err(Unwell::Disk(taken)))
    }
}

/// How long each space has stood still with each cluster peer that has more of it.
#[derive(Debug, Default)]
pub(super) struct Standstills(BTreeMap<(SessionId, SpaceId), (u64, Instant)>);

impl Standstills {
    /// Takes in how all links with cluster peers stand now. Refuses one that does not get on.
    pub(super) fn check(&mut self, now: Instant, links: &[(SpaceId, LinkStatus)]) -> Result<(), Unwell> {
        let before = std::mem::take(&mut self.0);
        let mut result = Ok(());
        for (space, link) in links.iter().filter(|(_, link)| link.behind_events > 0) {
            let name = (link.session, *space);
            let known = before.get(&name).filter(|(known_events, _)| *known_events == link.known_events);
            let since = known.map_or(now, |(_, since)| *since);
            self.0.insert(name, (link.known_events, since));
            let time = now.saturating_duration_since(since);
            if time > STANDSTILL_TIME_MAX {
                let (peer, events) = (link.peer, link.behind_events);
                result = Err(Unwell::Replication { peer, space: *space, events, time });
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::LinkState;

    #[test]
    fn a_commit_that_takes_too_long_is_noticed_and_one_that_ended_is_not() {
        let (pulse, begun) = (Pulse::default(), Instant::now());
        assert_eq!(pulse.check(begun + 9 * COMMIT_TIME_MAX), Ok(()));
        pulse.begin(begun);
        assert_eq!(pulse.check(begun + COMMIT_TIME_MAX), Ok(()));
        assert_eq!(pulse.check(begun + 2 * COMMIT_TIME_MAX), Err(Unwell::Disk(2 * COMMIT_TIME_MAX)));
        pulse.end(begun + 2 * COMMIT_TIME_MAX, false);
        assert_eq!(pulse.check(begun + 2 * COMMIT_TIME_MAX), Ok(()));
        assert_eq!(pulse.commits(), Commits { count: 1, failed: 1, time: 2 * COMMIT_TIME_MAX });
    }

    #[test]
    fn only_what_is_lacked_and_does_not_come_is_a_standstill() {
        let (mut standstills, begun) = (Standstills::default(), Instant::now());
        let (peer, space) = (DeviceId::from_bytes([1; 32]), SpaceId::from_bytes([1; 16]));
        let mut check = |minutes: u32, known_events, behind_events| {
            let link = LinkStatus {
                session: SessionId(1),
                peer,
                state: LinkState::Syncing,
                behind_events,
                ahead_events: 9,
                known_events,
            };
            standstills.check(begun + minutes * STANDSTILL_TIME_MAX, &[(space, link)])
        };
        assert_eq!((check(0, 5, 0), check(5, 5, 0)), (Ok(()), Ok(())), "a peer that takes nothing harms itself");
        assert_eq!((check(6, 5, 3), check(7, 5, 3)), (Ok(()), Ok(())));
        // It writes on, and nothing comes.
        let time = 2 * STANDSTILL_TIME_MAX;
        assert_eq!(check(8, 5, 9), Err(Unwell::Replication { peer, space, events: 9, time }));
        assert_eq!((check(9, 6, 9), check(10, 6, 9)), (Ok(()), Ok(())), "something came");
        assert_eq!((check(11, 6, 0), check(12, 6, 1)), (Ok(()), Ok(())));
    }
}
