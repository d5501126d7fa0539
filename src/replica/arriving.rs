//! Segments that a peer sent: what is new of them goes to the ledger, and what is missing is asked for.

use serde_bytes::ByteBuf;

use super::{Output, PeerMisbehaved, Replica, SessionId};
use crate::causal::{Dot, Witness};
use crate::model::{Segment, SpaceId};

impl Replica {
    pub(super) fn on_segments(
        &mut self,
        session: SessionId,
        space: SpaceId,
        segments: Vec<ByteBuf>,
    ) -> Result<(), PeerMisbehaved> {
        let Some(link) = self.sessions.get_mut(&session).and_then(|session| session.links.get_mut(&space)) else {
            // A peer that was never answered cannot know that we want anything.
            return Err(PeerMisbehaved::Unexpected("segment of a space that is not open"));
        };
        let Some(held) = self.spaces.get_mut(&space).filter(|_| link.opened) else { return Ok(()) };
        let mut accepted: Vec<Segment> = Vec::new();
        let mut complete = true;
        for bytes in segments {
            let segment = Segment::verify(space, held.revision.number(), bytes.into_vec().into())?;
            let (first, last) = (segment.first(), segment.last());
            let known = &held.known;
            if let Some(head) = known.head(last.replica)
                && (head.counter, head.hash) == (last.counter, segment.hash())
            {
                // Somebody else was quicker, or the acknowledgement was lost.
                link.acknowledged(last);
                link.owed.insert(Witness { dot: last, hash: head.hash.prefix() });
                continue;
            }
            if known.is_split(last.replica) || held.incoming.contains(last) {
                // Only whoever has the log can tell what it is, and whether it is here.
                accepted.push(segment);
                continue;
            }
            let follows = first.counter <= held.incoming.counter(first.replica) + 1;
            let is_here = |dot: Dot| held.incoming.contains(dot) || known.is_split(dot.replica);
            let depends_on = |dot: Dot| dot.replica == first.replica || is_here(dot);
            let grounded = (segment.events().iter())
                .all(|event| event.dependencies.iter().all(|dependency| depends_on(dependency.dot)));
            if !follows || !grounded {
                complete = false;
                break;
            }
            if planted!("ack-before-durable") {
                link.owed.insert(Witness { dot: last, hash: segment.hash().prefix() });
            }
            held.incoming.advance(last);
            link.acknowledged(last);
            accepted.push(segment);
        }
        if !link.owed.is_empty() {
            link.ack_at = Some(self.now);
        }
        if !complete && link.reopen_at.is_none_or(|at| at > self.now + self.limits.ack_ms) {
            // What is on its way to the disk may be what is missing here: let it land before asking.
            link.reopen_at = Some(self.now + self.limits.ack_ms);
        }
        if !accepted.is_empty() {
            link.stalls = 0;
            self.outputs.push_back(Output::Store { session, space, segments: accepted });
        }
        self.keep_in_step(session, space);
        Ok(())
    }
}
