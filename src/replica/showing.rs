//! A peer that is refused a space shows why it may see it after all.
//!
//! An owner whose store was put back to an older state has forgotten whom it invited since: it would refuse them, and
//! so never learn of them again. So whoever is refused shows the grants, signed by owners, that led to its role.
//!
//! **Invariant**: whatever is shown in vain gets the same answer as before, so that nobody can tell a space that is not
//! here from one that they may not see; and what is known here already shows nothing.

use std::sync::Arc;

use serde_bytes::ByteBuf;

use super::{Channel, Lookup, Message, Output, PeerMisbehaved, Refusal, Replica, Session, SessionId, Wanted};
use crate::model::{CREDENTIALS_MAX, Role, Segment, SpaceId};

/// Of so many spaces at once a peer may show something that is looked at when they have gone over to a later revision.
const SHOWN_EARLY_MAX: usize = 8;

impl Replica {
    /// Has the grants looked for that led to this device's role.
    pub(super) fn look_for_grants(&mut self, session: SessionId, space: SpaceId) {
        let Some(revision) = self.revision(space) else { return };
        let Some(link) = self.link(session, space) else { return };
        (link.shown, link.showing, link.grants_came) = (true, true, false);
        self.outputs.push_back(Output::LookUp(Lookup { session, space, revision, wanted: Wanted::Credential }));
    }

    /// Shows a peer that refused why this device may see the space: the segments in which it was granted its role.
    pub(super) fn show(&mut self, session: SessionId, space: SpaceId, segments: &[Arc<[u8]>]) {
        let stall_at = self.now + self.limits.stall_ms;
        let Some(link) = self.link(session, space) else { return };
        if link.refused != Some(Refusal::NotFound) && !planted!("shown-too-late") {
            // Meanwhile the peer has opened it by itself, or its own grant is gone: nobody would answer what is shown now.
            // Should it refuse again, it is looked for again.
            link.shown = false;
            return;
        }
        link.showing = !segments.is_empty();
        if segments.is_empty() {
            // Its grant has not come yet: to be looked for again when it has. It may have come after the log was read
            // and before this is told: then nothing would ever say so again.
            link.shown = false;
            if link.grants_came && !planted!("grant-looked-for-too-early") {
                self.look_for_grants(session, space);
            }
        } else {
            link.stall_at.get_or_insert(stall_at);
            let segments = segments.iter().map(|segment| ByteBuf::from(segment.to_vec())).collect();
            self.send(session, Channel::Space(space), Message::Show(segments));
        }
        self.keep_in_step(session, space);
    }

    /// A peer that was refused shows why it may see the space after all. Whoever cannot show that is refused again.
    pub(super) fn on_show(
        &mut self,
        session: SessionId,
        space: SpaceId,
        segments: Vec<ByteBuf>,
    ) -> Result<(), PeerMisbehaved> {
        let Some(state) = self.sessions.get_mut(&session) else { return Ok(()) };
        let held = self.spaces.get(&space).filter(|held| !state.may_see(space, &held.access));
        let in_order = segments.len() <= CREDENTIALS_MAX && !state.judging.contains(&space);
        let has_room = state.shown_early.len() < SHOWN_EARLY_MAX;
        if in_order && has_room && held.is_some_and(|held| held.following.is_some()) {
            // It may be of the revision that the space is going over to, and will not be shown again.
            state.shown_early.insert(space, segments);
            return Ok(());
        }
        let verified = held.filter(|_| in_order).and_then(|held| {
            let revision = held.revision.number();
            let verify = |bytes: ByteBuf| Segment::verify(space, revision, bytes.into_vec().into());
            Some((revision, segments.into_iter().map(verify).collect::<Result<Vec<Segment>, _>>().ok()?))
        });
        match verified {
            Some((revision, segments)) => {
                state.judging.insert(space);
                let device = state.peer;
                let wanted = Wanted::Role { device, segments };
                self.outputs.push_back(Output::LookUp(Lookup { session, space, revision, wanted }));
            }
            // As before, one answer for all that is not good.
            None => self.judged(session, space, None),
        }
        Ok(())
    }

    pub(super) fn judged(&mut self, session: SessionId, space: SpaceId, role: Option<Role>) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        state.judging.remove(&space);
        if state.links.get(&space).is_some_and(|link| link.opened) {
            return;
        }
        match role {
            Some(role) => {
                state.shown.insert(space, role);
                self.open(session, space, true);
            }
            None => self.send(session, Channel::Space(space), Message::Refuse(Refusal::NotFound)),
        }
    }

    /// A space has gone over to the revision in which peers may have shown something before that.
    pub(super) fn judge_what_was_shown_early(&mut self, space: SpaceId) {
        let early = |(session, state): (&SessionId, &mut Session)| {
            state.shown_early.remove(&space).map(|segments| (*session, segments))
        };
        let early: Vec<_> = self.sessions.iter_mut().filter_map(early).collect();
        for (session, segments) in early {
            // Nothing that is shown is held against anybody: it is only answered as before.
            let _ = self.on_show(session, space, segments);
        }
    }

    /// Who may do what has changed: what a peer showed may be known here now, and this device may have something to show.
    pub(super) fn show_anew(&mut self, space: SpaceId) {
        let Some(access) = self.spaces.get(&space).map(|held| &held.access) else { return };
        let mut refused: Vec<SessionId> = Vec::new();
        for (session, state) in &mut self.sessions {
            if access.role(state.peer).is_some() {
                state.shown.remove(&space);
            }
            if let Some(link) = state.links.get_mut(&space)
                && link.refused == Some(Refusal::NotFound)
            {
                link.grants_came = true;
                refused.extend((!link.shown).then_some(*session));
            }
        }
        refused.into_iter().for_each(|session| self.look_for_grants(session, space));
    }
}
