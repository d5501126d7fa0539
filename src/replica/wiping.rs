//! A space that begins anew while peers still exchange what was in it.
//!
//! Every Open says in which revision the sender holds the space, and whose word it is that there is such a one. Whoever
//! holds an earlier one goes over to it: the ledger leaves all behind ([`Output::Follow`]), and the space is opened to
//! everybody again, empty.
//!
//! **Invariant (a wipe is clean)**: nothing that belongs to another revision is taken in, sent or believed. What a peer
//! says of its own counts from the moment on in which it has opened the same revision; what was read or sent to the disk
//! before names the revision that it was read or sent in.

use super::{Channel, Message, Open, Output, PeerMisbehaved, Refusal, Replica, SessionId};
use crate::model::SpaceId;

impl Replica {
    /// Whether `open` is of the revision that is held here. If it is not, whoever is behind is told.
    pub(super) fn same_revision(&mut self, session: SessionId, space: SpaceId, open: &Open) -> bool {
        let Some(held) = self.spaces.get(&space) else { return false };
        let (ours, theirs) = (held.revision.number(), open.revision.number());
        let is_same = ours == theirs;
        let mut untold = true;
        if let Some(link) = self.link(session, space) {
            untold = !link.opened;
            link.elsewhere = !is_same;
            link.theirs.take_if(|_| !is_same);
        }
        if !is_same && (ours > theirs || untold) {
            self.open(session, space, false);
            self.link(session, space).into_iter().for_each(|link| link.elsewhere = true);
        }
        is_same
    }

    /// Goes over to the revision that a peer holds, if an owner has begun it and it is not held here. It need not be one
    /// that may see the space: the owner's word is worth the same whoever brings it.
    ///
    /// A forged word is held against those only who know already that the space is here.
    pub(super) fn follow(&mut self, session: SessionId, space: SpaceId, open: &Open) -> Result<(), PeerMisbehaved> {
        let (Some(state), Some(held)) = (self.sessions.get(&session), self.spaces.get_mut(&space)) else {
            return Ok(());
        };
        if !open.revision.adds_to(held.following.as_ref().unwrap_or(&held.revision)) || planted!("wipe-not-followed") {
            return Ok(());
        }
        if let Err(forged) = open.revision.verify(space, held.access.creator()) {
            return if state.may_see(space, &held.access) { Err(forged.into()) } else { Ok(()) };
        }
        let mut following = held.following.clone().unwrap_or_else(|| held.revision.clone());
        following.join(&open.revision);
        held.following = Some(following);
        self.outputs.push_back(Output::Follow { space, revision: open.revision.clone() });
        Ok(())
    }

    /// A space has begun anew: what was said about it in any session was about what is gone.
    pub(super) fn begin_anew(&mut self, space: SpaceId) {
        let Some(access) = self.spaces.get(&space).map(|held| held.access.clone()) else { return };
        let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in sessions {
            let Some(state) = self.sessions.get_mut(&session) else { continue };
            state.shown.remove(&space);
            let was_judged = state.judging.remove(&space);
            let may_see = state.may_see(space, &access);
            let mut was_served = was_judged;
            if let Some(link) = state.links.get_mut(&space) {
                was_served |= link.opened;
                link.close();
                link.elsewhere = !planted!("old-revision-taken-in");
            }
            self.keep_in_step(session, space);
            if may_see {
                // Its own Open may have come before, and have been about another revision then.
                self.open(session, space, true);
            } else if was_served {
                // Its grant has not come yet: it may show it.
                self.send(session, Channel::Space(space), Message::Refuse(Refusal::NotFound));
            }
        }
        self.judge_what_was_shown_early(space);
    }
}
