//! What the ledger reports: what it holds, what it committed, and what it could not.

use std::collections::BTreeSet;

use super::space::Space;
use super::{Channel, Committed, Message, Rejection, Replica, SessionId, Taken};
use crate::causal::{Dot, Head, Known, ReplicaId};
use crate::model::{Access, Revision, SpaceId};

impl Replica {
    pub(super) fn hold(&mut self, space: SpaceId, revision: Revision, known: Known, access: Access) {
        let vector = known.vector();
        let begun = |held: &&mut Space| held.revision.number() == revision.number();
        if let Some(held) = self.spaces.get_mut(&space).filter(begun) {
            if planted!("landed-commit-untold") {
                return;
            }
            // A commit that was believed to have failed may be there: its events are news like any others, or nobody
            // would ever be sent them.
            let news = |(replica, head, tip): &(ReplicaId, &Head, bool)| {
                held.known.head(*replica) != Some(*head) || held.known.is_tip(*replica) != *tip
            };
            let advanced = known.heads().filter(news).map(|(replica, head, tip)| (replica, *head, tip)).collect();
            held.incoming = vector;
            let local = true;
            let split = (!held.known.branches().eq(known.branches())).then_some(known);
            held.following = None;
            let is_another = std::mem::replace(&mut held.revision, revision) != held.revision;
            self.committed(space, Committed { advanced, local, access: Some(access), split, ..Committed::default() });
            if is_another {
                // More owners have begun it than was known: everybody is to know before what they wrote in it comes.
                self.open_anew(space);
            }
            self.judge_what_was_shown_early(space);
            return;
        }
        let incoming = vector.clone();
        let held = Space { revision, following: None, access, known, incoming, vector, digest: None };
        if self.spaces.insert(space, held).is_some() {
            self.begin_anew(space);
        }
        if !planted!("newcomer-asks-nobody") {
            self.open_where_granted(space);
        }
        self.gathered(space);
    }

    pub(super) fn committed(&mut self, space: SpaceId, committed: Committed) {
        let Committed { advanced, written, local, access, taken, rejected, split } = committed;
        let Some(held) = self.spaces.get_mut(&space) else { return };
        let before = held.vector.clone();
        if !advanced.is_empty() && !planted!("digest-grows-old") {
            held.digest = None;
        }
        let renamed = split.is_some();
        match split {
            Some(known) => held.rename(known),
            None => {
                for (replica, head, tip) in advanced {
                    let dot = Dot::new(replica, head.counter);
                    held.known.set(replica, head, tip);
                    held.vector.advance(dot);
                    held.incoming.advance(dot);
                }
            }
        }
        let access_changed = access.is_some();
        if let Some(access) = access {
            held.access = access;
        }
        if !rejected.is_empty() {
            held.incoming = held.vector.clone();
        }
        if access_changed {
            // First of all: nothing of what follows is for those whose grant is gone.
            self.close_where_not_granted(space);
        }
        for (session, rejection) in rejected {
            let is_by_peer = |author| self.sessions.get(&session).is_some_and(|state| state.peer == author);
            match rejection {
                Rejection::TooDeep { author, why } if is_by_peer(author) => self.close(session, why),
                Rejection::Misbehaved(reason) => self.close(session, reason),
                Rejection::Diverged(replica) => {
                    let reopen_at = self.now + self.limits.stall_ms;
                    if let Some(link) = self.link(session, space).filter(|link| link.opened) {
                        // Asked for once; should that not help, both say anew what they have.
                        link.reopen_at = Some(reopen_at);
                        if link.asked.insert(replica) {
                            self.send(session, Channel::Space(space), Message::Diverged(replica));
                        }
                    }
                    self.keep_in_step(session, space);
                    self.pump_waiting(session);
                }
                Rejection::Missing | Rejection::TooDeep { .. } => {
                    // What is too deep need not fit later either: whoever sends it again and again is not asked as often.
                    let is_missing = matches!(rejection, Rejection::Missing);
                    let at = self.now + if is_missing { self.limits.ack_ms } else { self.limits.stall_ms };
                    // What follows a history that was asked for whole comes again with that.
                    if let Some(link) = self.link(session, space).filter(|link| link.asked.is_empty()) {
                        link.reopen_at = Some(link.reopen_at.map_or(at, |due| due.min(at)));
                    }
                }
            }
            self.keep_in_step(session, space);
        }
        let (now, stall_ms) = (self.now, self.limits.stall_ms);
        for Taken { session, last, known } in &taken {
            if let Some(link) = self.link(*session, space) {
                link.acknowledged(last.dot);
                if *known {
                    link.owed.insert(*last);
                }
                if !link.asked.is_empty() {
                    // It sends all of the other history; that takes as long as it takes.
                    link.reopen_at = Some(now + stall_ms);
                }
            }
        }
        let from: BTreeSet<SessionId> = taken.iter().map(|taken| taken.session).collect();
        if renamed && !planted!("renamed-in-silence") {
            self.open_anew(space);
        }
        if access_changed {
            self.show_anew(space);
            self.open_where_granted(space);
            self.share_with_cluster(space);
        }
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in sessions {
            let (now, limits) = (self.now, self.limits);
            let Some(link) = self.link(session, space) else { continue };
            if link.theirs.is_none() || !link.opened {
                continue;
            }
            let ack_at = if from.contains(&session) { now } else { now + limits.ack_ms };
            link.ack_at = Some(link.ack_at.map_or(ack_at, |due| due.min(ack_at)));
            if !local {
                let forward_at = (!planted!("nothing-forwarded")).then_some(now + limits.forward_ms);
                link.forward_at = link.forward_at.or(forward_at);
                self.keep_in_step(session, space);
                continue;
            }
            // The usual case of live push: the peer had everything, so what was just written is all that it lacks,
            // and is still in memory.
            let caught_up = link.sent.descends(&before) && !link.fetching;
            let room = link.in_flight_bytes < limits.window_bytes_max;
            if caught_up && room && self.has_room(session) {
                let stretches = written.clone();
                self.push(session, space, stretches);
            }
            self.pump(session, space);
        }
    }

    pub(super) fn commit_failed(&mut self) {
        // A ticket that was to be looked at in that commit may go unanswered: it may be shown again.
        self.sessions.values_mut().for_each(|state| state.redeeming = false);
        // Asked for again, but not at once: a disk that goes on failing must not make peers send without end.
        let at = self.now + self.limits.stall_ms;
        let mut missing: BTreeSet<SpaceId> = BTreeSet::new();
        for (space, held) in &mut self.spaces {
            // Whoever holds a later revision is to say so again.
            if held.following.take().is_some() || held.incoming != held.vector {
                held.incoming = held.vector.clone();
                missing.insert(*space);
            }
        }
        missing.iter().for_each(|space| self.judge_what_was_shown_early(*space));
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        for (session, space) in sessions.iter().flat_map(|session| missing.iter().map(|space| (*session, *space))) {
            if let Some(link) = self.link(session, space) {
                link.reopen_at = Some(link.reopen_at.map_or(at, |due| due.min(at)));
            }
            self.keep_in_step(session, space);
        }
    }
}
