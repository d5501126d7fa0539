//! Those who redeem a ticket, and how far each is.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Driver, REACH_WITHIN, REDIAL_EVERY};
use crate::model::{SignedTicket, SpaceId};
use crate::node::JoinError;
use crate::node::disk::{DiskJob, Waiter};
use crate::replica::{Input, Introduction, LinkState, SessionId, TicketRefusal};
use crate::store::{StoreError, Work};

/// How long a newly joined space may take until `join` returns all the same.
const JOIN_WITHIN: Duration = Duration::from_secs(20);

/// One who waits for a space.
pub(super) struct Joining {
    pub(super) answer: oneshot::Sender<Result<SpaceId, JoinError>>,
    pub(super) ticket: Box<SignedTicket>,
    pub(super) until: Instant,
    pub(super) redial_at: Instant,
    pub(super) stage: JoinStage,
}

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum JoinStage {
    /// Waiting for a connection to the inviter.
    Reaching,
    /// Asked in this session.
    Asked(SessionId),
    /// Granted; waiting for the space to come.
    Granted,
}

impl Driver {
    /// Begins to redeem a ticket.
    pub(super) fn begin_join(
        &mut self,
        ticket: Box<SignedTicket>,
        answer: oneshot::Sender<Result<SpaceId, JoinError>>,
    ) {
        let inviter = ticket.ticket().inviter;
        let known = self.peers.entry(inviter);
        for address in ticket.ticket().addresses.iter().rev() {
            if !known.addresses.contains(address) {
                known.addresses.insert(0, address.clone());
            }
        }
        let now = self.surroundings.now();
        let (until, redial_at) = (now + REACH_WITHIN, now);
        self.joins.push(Joining { answer, ticket, until, redial_at, stage: JoinStage::Reaching });
    }

    pub(super) fn advance_joins(&mut self, now: Instant) {
        for mut join in std::mem::take(&mut self.joins) {
            let (inviter, space) = (join.ticket.ticket().inviter, join.ticket.ticket().genesis.space());
            let session = self.session_of(inviter).filter(|(_, state)| state.greeted).map(|(id, _)| id);
            // An answer does not say to which ticket it belongs: one at a time.
            let redeeming = session.is_some_and(|id| self.sessions.get(&id).is_some_and(|state| state.redeeming));
            match (join.stage, session) {
                (JoinStage::Reaching, Some(session)) if !redeeming => {
                    if let Some(state) = self.sessions.get_mut(&session) {
                        state.redeeming = true;
                    }
                    join.stage = JoinStage::Asked(session);
                    join.until = now + REACH_WITHIN;
                    let ticket = join.ticket.to_bytes();
                    self.handle(Input::Redeem { session, ticket });
                }
                (JoinStage::Reaching, None) if now >= join.until => {
                    let reason = self.peers.get(inviter).and_then(|known| known.reason.clone());
                    let reason = reason.unwrap_or_else(|| "it did not answer".to_owned());
                    let _ = join.answer.send(Err(JoinError::Unreachable { device: inviter, reason }));
                    continue;
                }
                (JoinStage::Reaching, None) if now >= join.redial_at => {
                    join.redial_at = now + REDIAL_EVERY;
                    self.dial_now(inviter);
                }
                (JoinStage::Granted, session) => {
                    let synced = session.is_some_and(|session| {
                        self.replica.links(space).iter().any(|link| {
                            link.session == session && link.state == LinkState::Synced && link.ahead_events == 0
                        })
                    });
                    let member = self.ledger.access(space).is_some_and(|a| a.role(self.ledger.device()).is_some());
                    let held = self.ledger.genesis(space).is_some();
                    if held && ((synced && member) || now >= join.until) {
                        let _ = join.answer.send(Ok(space));
                        continue;
                    }
                    if now >= join.until {
                        let failure = self.storage_failure.clone();
                        let unknown = || StoreError::Io("the space could not be stored".to_owned());
                        let error = failure.unwrap_or_else(unknown);
                        let _ = join.answer.send(Err(JoinError::Node(error.into())));
                        continue;
                    }
                }
                _ if now >= join.until => {
                    let reason = "it did not answer".to_owned();
                    let _ = join.answer.send(Err(JoinError::Unreachable { device: inviter, reason }));
                    continue;
                }
                _ => {}
            }
            self.joins.push(join);
        }
    }

    pub(super) fn redeemed(&mut self, session: SessionId, answer: Result<Introduction, TicketRefusal>) {
        if let Some(state) = self.sessions.get_mut(&session) {
            state.redeeming = false;
        }
        // Whoever asked may have stopped waiting.
        let Some(at) = self.joins.iter().position(|join| join.stage == JoinStage::Asked(session)) else { return };
        let expected = self.joins[at].ticket.ticket().genesis;
        match answer {
            Ok(introduction) if introduction.genesis == expected => {
                let ticket = self.joins[at].ticket.ticket().clone();
                self.joins[at].stage = JoinStage::Granted;
                self.joins[at].until = self.surroundings.now() + JOIN_WITHIN;
                let introducer = ticket.inviter;
                self.disk.send(DiskJob::Commit(Work::Join { introduction, introducer }, Waiter::None));
                self.remember_peer(introducer, ticket.addresses);
            }
            Ok(_) => {
                let join = self.joins.remove(at);
                let _ = join.answer.send(Err(JoinError::Refused(TicketRefusal::Unknown)));
            }
            Err(refusal) => {
                let join = self.joins.remove(at);
                let _ = join.answer.send(Err(JoinError::Refused(refusal)));
            }
        }
    }
}
