//! The one loop: it feeds the replica, does what the replica wants done, and answers those who wait.
//!
//! **Invariant**: the loop never waits for a commit or a peer. Commits and reads of the log run on the disk threads,
//! frames on their connections' tasks; everything comes back as an [`Event`]. Only a question for the status makes it
//! read the store, a few rows per space.

mod cluster;
mod joins;
mod meetings;
mod peers;
mod report;
mod sessions;
mod syncs;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use self::joins::Joining;
use self::sessions::{GREET_WITHIN, Session};
use self::syncs::Syncing;
use super::dialing::{Peers, Stage};
use super::disk::{Disk, DiskJob, Waiter};
use super::health::{Standstills, Unwell};
use super::intake::{INTAKE_BYTES_MAX, Intake, Room};
use super::status::Status;
use super::surroundings::Surroundings;
use super::{JoinError, NodeError, Peer, SyncReport};
use crate::causal::{Known as Knows, VersionVector};
use crate::model::{Access, DeviceId, Revision, SignedTicket, SpaceId};
use crate::replica::{
    Channel, Input, Introduction, Millis, Output, PeerMisbehaved, Relation, Replica, SessionId, TicketRefusal,
};
use crate::store::{Ledger, Renewal, Renewed, Report, StoreError, Work};
use crate::transport::{CloseCause, CloseReason, Connection, Endpoint, Frame, FrameReceiver, PeerAddress};

/// A peer that has not answered a sync for so long is named as not reached.
const REACH_WITHIN: Duration = Duration::from_secs(5);
/// How often a sync dials a peer that does not answer, ignoring back-off.
const REDIAL_EVERY: Duration = Duration::from_millis(250);
/// How many events are taken before a question is looked at, if both wait.
const EVENTS_PER_QUESTION: u32 = 4096;
/// How long goodbyes may take. They are sent at once; a peer that does not get one notices by itself.
const GOODBYE_WITHIN: Duration = Duration::from_millis(300);
/// How often what peers acknowledged is written down while they are connected.
const REMEMBER_EVERY: Duration = Duration::from_secs(10);

/// How many damaged records the status names.
const DAMAGE_MAX: usize = 16;

/// What happens to a node.
#[derive(Debug)]
pub(super) enum Event {
    /// A commit is durable.
    Committed {
        report: Report,
        admitted: Vec<(SessionId, Result<Introduction, TicketRefusal>)>,
        shared: Vec<(SessionId, SpaceId, Option<Introduction>)>,
    },
    /// A commit failed; `stopped` if nothing can be written until the store is opened anew.
    StorageFailed { error: StoreError, stopped: bool },
    /// The store works again, and holds this.
    StorageRecovered { held: Vec<(SpaceId, Revision, Knows, Access)> },
    /// What a peer asked for cannot be read.
    Damaged(StoreError),
    /// A disk thread panicked. What the node knows of its store is in doubt, so it ends.
    DiskThreadDied { thread: &'static str },
    /// What was looked up for a peer was found, or not.
    LookedUp(Input),
    /// A frame came. The next one of this connection comes when `taken` is answered or dropped; `room` goes back when
    /// what it asks for is committed.
    Frame { session: SessionId, channel: Channel, frame: Frame, room: Room, taken: oneshot::Sender<()> },
    /// A peer did something that the replica does not see.
    Misbehaved { session: SessionId, reason: PeerMisbehaved },
    /// A connection ended.
    Closed { session: SessionId, cause: CloseCause },
    /// A peer dialled this node, and has opened a stream.
    Accepted(Connection, FrameReceiver),
    /// A dial ended.
    Dialed { device: DeviceId, result: Result<Connection, String> },
    /// A handle asks for something.
    Asked(Question),
}

/// What the handles ask the loop.
#[derive(Debug)]
pub(super) enum Question {
    Status(oneshot::Sender<Status>),
    Health(oneshot::Sender<Result<(), Unwell>>),
    Peers(oneshot::Sender<Vec<Peer>>),
    AddPeer(PeerAddress, oneshot::Sender<Result<(), NodeError>>),
    RemovePeer(DeviceId, oneshot::Sender<Result<bool, NodeError>>),
    Join(Box<SignedTicket>, oneshot::Sender<Result<SpaceId, JoinError>>),
    Sync(Duration, oneshot::Sender<SyncReport>),
    Stop(oneshot::Sender<()>),
}

/// The state of the loop.
pub(super) struct Driver {
    surroundings: Arc<dyn Surroundings>,
    ledger: Arc<Ledger>,
    disk: Disk,
    endpoint: Option<Endpoint>,
    intake: Intake,
    replica: Replica,
    started: Instant,
    events: mpsc::UnboundedSender<Event>,
    sessions: BTreeMap<SessionId, Session>,
    next_session: u64,
    peers: Peers,
    keep_connected: bool,
    synced_ms: BTreeMap<(SpaceId, DeviceId), u64>,
    /// What was written down last of what peers acknowledged.
    remembered: BTreeMap<(SpaceId, DeviceId), VersionVector>,
    remember_at: Option<Instant>,
    syncs: Vec<Syncing>,
    joins: Vec<Joining>,
    /// The devices that this node counts as cluster peers.
    cluster: BTreeSet<DeviceId>,
    /// The spaces that cluster peers introduced and that are not held yet, and by whom.
    introduced: BTreeMap<SpaceId, (Introduction, DeviceId)>,
    storage_failure: Option<StoreError>,
    /// Damaged records that were met so far, each once, up to [`DAMAGE_MAX`].
    damage: Vec<StoreError>,
    standstills: Standstills,
    stopping: Vec<oneshot::Sender<()>>,
}

impl Driver {
    pub(super) fn new(
        surroundings: Arc<dyn Surroundings>,
        ledger: Arc<Ledger>,
        disk: Disk,
        endpoint: Option<Endpoint>,
        events: mpsc::UnboundedSender<Event>,
        keep_connected: bool,
        cluster: BTreeSet<DeviceId>,
    ) -> Self {
        let (agent, process) = (format!("thence {}", env!("CARGO_PKG_VERSION")), surroundings.random());
        Self {
            started: surroundings.now(),
            surroundings,
            ledger,
            disk,
            endpoint,
            intake: Intake::new(INTAKE_BYTES_MAX),
            replica: Replica::new(agent, process, crate::replica::Limits::default()),
            events,
            sessions: BTreeMap::new(),
            next_session: 1,
            peers: Peers::default(),
            keep_connected,
            synced_ms: BTreeMap::new(),
            remembered: BTreeMap::new(),
            remember_at: None,
            syncs: Vec::new(),
            joins: Vec::new(),
            cluster,
            introduced: BTreeMap::new(),
            storage_failure: None,
            damage: Vec::new(),
            standstills: Standstills::default(),
            stopping: Vec::new(),
        }
    }

    /// The same with room for so many bytes of what peers send.
    pub(super) fn with_intake(self, bytes_max: u32) -> Self {
        Self { intake: Intake::new(bytes_max), ..self }
    }

    /// Runs until it is asked to stop or every handle is gone.
    pub(super) async fn run(
        mut self,
        mut received: mpsc::UnboundedReceiver<Event>,
        mut questions: mpsc::Receiver<Question>,
    ) {
        self.handle(Input::Writes { replica: self.ledger.replica() });
        for (space, revision, known, access) in self.ledger.held() {
            self.handle(Input::Held { space, revision, known, access });
        }
        match self.ledger.peers() {
            Ok(peers) => peers.into_iter().for_each(|(device, addresses)| self.know(device, addresses)),
            Err(error) => tracing::error!(%error, "cannot read the remembered peers"),
        }
        let mut patience = EVENTS_PER_QUESTION;
        loop {
            // A question comes after a commit that its asker has seen succeed, and the event of that commit was sent
            // before; so what waits is taken first, but only so much of it that nobody is kept waiting for ever.
            patience = if received.is_empty() { EVENTS_PER_QUESTION } else { patience - 1 };
            if patience == 0 {
                patience = EVENTS_PER_QUESTION;
                if let Ok(question) = questions.try_recv() {
                    let stop = self.take(Event::Asked(question));
                    if stop {
                        break;
                    }
                }
            }
            let wake = self.wake_at();
            let event = tokio::select! {
                biased;
                event = received.recv() => event,
                question = questions.recv() => question.map(Event::Asked),
                () = self.surroundings.sleep_until(wake) => {
                    self.handle(Input::Tick);
                    self.look_around();
                    continue;
                }
            };
            let Some(event) = event else { break };
            if self.take(event) {
                break;
            }
        }
        self.stop().await;
    }

    /// Takes in one event. Returns whether it was the wish to stop.
    fn take(&mut self, event: Event) -> bool {
        match event {
            Event::Asked(Question::Stop(answer)) => {
                self.stopping.push(answer);
                return true;
            }
            Event::DiskThreadDied { thread } => {
                tracing::error!(thread, "a disk thread ended unexpectedly: the node stops");
                return true;
            }
            _ => {}
        }
        self.on_event(event);
        self.look_around();
        false
    }

    fn now_ms(&self) -> Millis {
        let elapsed = self.surroundings.now().saturating_duration_since(self.started);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    fn wake_at(&self) -> Instant {
        let now = self.surroundings.now();
        let replica = self.replica.poll_timeout().map(|ms| self.started + Duration::from_millis(ms));
        let syncs = self.syncs.iter().flat_map(|sync| [sync.reach_until.min(sync.redial_at), sync.until]);
        let joins = self.joins.iter().flat_map(|join| [join.until, join.redial_at]);
        let waiting = syncs.chain(joins).filter(|at| *at > now).min();
        let greetings = self.sessions.values().filter(|session| !session.greeted);
        let waiting = greetings.map(|session| session.since + GREET_WITHIN).chain(waiting).min();
        let far = now + Duration::from_secs(3600);
        let dial = self.peers.next().filter(|_| self.endpoint.is_some());
        [replica, dial, waiting, self.remember_at].into_iter().flatten().min().unwrap_or(far)
    }

    /// Gives the replica an input and does all that it wants done.
    fn handle(&mut self, input: Input) {
        self.handle_in(input, None);
    }

    /// The same for a frame, for which there is room until what it brings is committed.
    fn handle_in(&mut self, input: Input, mut room: Option<Room>) {
        self.replica.handle(self.now_ms(), input);
        while let Some(output) = self.replica.poll_output() {
            match output {
                Output::Send { session, channel, message } => {
                    if let Some(session) = self.sessions.get_mut(&session) {
                        session.wire.send(channel, &message);
                    }
                }
                Output::Store { session, space, segments } => {
                    let waiter = room.take().map_or(Waiter::None, Waiter::Room);
                    self.disk.send(DiskJob::Commit(Work::Receive { session, space, segments }, waiter));
                }
                Output::LookUp(lookup) => self.disk.send(DiskJob::Read(lookup)),
                Output::Behind { before, space, counter } => {
                    let reason = Renewal::Behind { space, counter };
                    self.disk.send(DiskJob::Commit(Work::Renew { before, reason }, Waiter::None));
                }
                Output::Admit { session, device, ticket } => {
                    self.disk.send(DiskJob::Commit(Work::Admit { device, ticket }, Waiter::Admission(session)));
                }
                Output::Share { session, space, device } => {
                    self.disk.send(DiskJob::Commit(Work::Share { space, device }, Waiter::Sharing(session, space)));
                }
                Output::Follow { space, revision } => {
                    self.disk.send(DiskJob::Commit(Work::Follow { space, revision }, Waiter::None));
                }
                Output::Join { introduction, introducer } => self.join_introduced(introduction, introducer),
                Output::Redeemed { session, answer } => self.redeemed(session, answer),
                Output::Close { session, reason } => self.turn_away(session, &reason),
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Committed { report, admitted, shared } => {
                if let Some(Renewed { before, now, reason, .. }) = report.renewed {
                    tracing::warn!(%before, %now, "writes under a new replica id: {reason}");
                    self.handle(Input::Writes { replica: now });
                }
                for (space, revision, known, access) in report.held {
                    self.introduced.remove(&space);
                    let own = self.ledger.genesis(space).is_some_and(|begun| begun.creator == self.ledger.device());
                    let revision_number = revision.number();
                    match (revision_number, own) {
                        (1, true) => tracing::info!(%space, "space created"),
                        (1, false) => tracing::info!(%space, "space joined"),
                        _ => tracing::info!(%space, revision = revision_number, "space begun anew"),
                    }
                    // What peers acknowledged, and when they were in step, was in the revision before.
                    self.remembered.retain(|(of, _), _| *of != space);
                    self.synced_ms.retain(|(of, _), _| *of != space);
                    self.handle(Input::Held { space, revision, known, access });
                }
                for (space, committed) in report.changed {
                    self.handle(Input::Committed { space, committed });
                    let sessions: Vec<SessionId> = self.sessions.keys().copied().collect();
                    sessions.into_iter().for_each(|session| self.follow(session, space));
                }
                for (session, answer) in admitted {
                    if let Some(peer) = self.sessions.get(&session).map(|session| session.device) {
                        match &answer {
                            Ok(joined) => {
                                tracing::info!(%peer, space = %joined.genesis.space(), "ticket redeemed");
                            }
                            Err(refusal) => tracing::info!(%peer, %refusal, "ticket refused"),
                        }
                    }
                    self.handle(Input::Admitted { session, answer });
                }
                for (session, space, introduction) in shared {
                    self.handle(Input::Shared { session, space, introduction });
                }
                self.welcome();
            }
            Event::StorageFailed { error, stopped } => {
                // Said once, however many wait for it.
                if !stopped || self.storage_failure.as_ref() != Some(&error) {
                    tracing::error!(%error, stopped, "storage failed");
                }
                if stopped {
                    self.storage_failure = Some(error);
                } else {
                    self.note_damage(error);
                }
                self.remembered.clear();
                self.handle(Input::CommitFailed);
            }
            Event::Damaged(error) => {
                tracing::error!(%error, "cannot read the log for a peer");
                self.note_damage(error);
            }
            // Taken by the loop itself.
            Event::DiskThreadDied { .. } => {}
            Event::StorageRecovered { held } => {
                tracing::info!("storage recovered");
                self.storage_failure = None;
                self.handle(Input::Writes { replica: self.ledger.replica() });
                for (space, revision, known, access) in held {
                    self.introduced.remove(&space);
                    self.handle(Input::Held { space, revision, known, access });
                }
                for (introduction, introducer) in std::mem::take(&mut self.introduced).into_values() {
                    self.join_introduced(introduction, introducer);
                }
            }
            Event::LookedUp(found) => self.handle(found),
            Event::Frame { session, channel, frame, room, taken } => {
                let Frame { kind, critical, body } = frame;
                self.handle_in(Input::Received { session, channel, kind, critical, body }, Some(room));
                drop(taken);
                self.greet(session);
                self.relate(session);
                if let Channel::Space(space) = channel {
                    self.follow(session, space);
                }
            }
            Event::Closed { session, cause } => self.end(session, &cause.to_string()),
            Event::Misbehaved { session, reason } => self.turn_away(session, &reason),
            Event::Accepted(connection, first) => self.connected(connection, Some(first)),
            Event::Dialed { device, result } => match result {
                Ok(connection) => self.connected(connection, None),
                Err(reason) => {
                    tracing::debug!(peer = %device, %reason, "cannot reach a peer");
                    // It may have been removed meanwhile.
                    if let Some(known) = self.peers.get_mut(device)
                        && known.stage == Stage::Dialing
                    {
                        known.failed(reason, self.surroundings.now(), self.surroundings.random());
                    }
                }
            },
            Event::Asked(question) => self.answer(question),
        }
    }

    fn note_damage(&mut self, error: StoreError) {
        if self.damage.len() < DAMAGE_MAX && matches!(error, StoreError::Damaged(_)) && !self.damage.contains(&error) {
            self.damage.push(error);
        }
    }

    /// What is to be done after anything happened.
    fn look_around(&mut self) {
        let now = self.surroundings.now();
        let silent: Vec<SessionId> = (self.sessions.iter())
            .filter(|(_, session)| !session.greeted && now >= session.since + GREET_WITHIN)
            .map(|(id, _)| *id)
            .collect();
        for session in silent {
            if let Some(state) = self.sessions.get(&session) {
                state.wire.close(CloseReason::new(CloseReason::FIRST_OF_SESSIONS + 6, "no hello"));
            }
            self.end(session, "it never said hello");
        }
        self.advance_joins(now);
        self.advance_syncs(now);
        self.dial();
        if self.remember_at.is_some_and(|at| at <= now) {
            self.remember_at = None;
            self.remember(None);
        }
        if self.remember_at.is_none() && !self.sessions.is_empty() {
            self.remember_at = Some(now + REMEMBER_EVERY);
        }
    }

    fn answer(&mut self, question: Question) {
        match question {
            Question::Status(answer) => {
                let _ = answer.send(self.status());
            }
            Question::Health(answer) => {
                let _ = answer.send(self.check_health());
            }
            Question::Peers(answer) => {
                let _ = answer.send(self.list_peers());
            }
            Question::AddPeer(peer, answer) => self.add_peer(&peer, answer),
            Question::RemovePeer(device, answer) => self.remove_peer(device, answer),
            Question::Join(ticket, answer) => self.begin_join(ticket, answer),
            Question::Sync(timeout, answer) => self.begin_sync(timeout, answer),
            // Taken by the loop itself.
            Question::Stop(answer) => self.stopping.push(answer),
        }
    }

    /// Whether this node can do its work.
    fn check_health(&mut self) -> Result<(), Unwell> {
        let now = self.surroundings.now();
        if let Some(failure) = &self.storage_failure {
            return Err(failure.clone().into());
        }
        self.disk.pulse.check(now)?;
        let in_cluster = |session: SessionId| {
            self.sessions.get(&session).is_some_and(|session| session.relation == Some(Relation::Cluster))
        };
        let of_space = |space: SpaceId| self.replica.links(space).into_iter().map(move |link| (space, link));
        if !self.sessions.keys().any(|session| in_cluster(*session)) {
            return self.standstills.check(now, &[]);
        }
        let links: Vec<_> =
            self.ledger.spaces().into_iter().flat_map(of_space).filter(|(_, link)| in_cluster(link.session)).collect();
        self.standstills.check(now, &links)
    }

    fn commit_for<T: Send + 'static>(
        &self,
        work: Work,
        answer: oneshot::Sender<Result<T, NodeError>>,
        value: impl FnOnce(()) -> T + Send + 'static,
    ) {
        let (caller, done) = oneshot::channel();
        self.disk.send(DiskJob::Commit(work, Waiter::Caller(caller)));
        self.surroundings.spawn(Box::pin(async move {
            let result = match done.await {
                Ok(Ok(_)) => Ok(value(())),
                Ok(Err(error)) => Err(error.into()),
                Err(_) => Err(NodeError::Stopping),
            };
            let _ = answer.send(result);
        }));
    }

    /// Says goodbye, and lets the disk finish.
    async fn stop(mut self) {
        // With the latest moment in step, which alone is no reason to write.
        self.remembered.clear();
        self.remember(None);
        let now = self.surroundings.now();
        self.sessions.values().for_each(|session| session.tell_end(now, "this node stops"));
        if let Some(endpoint) = self.endpoint.take() {
            endpoint.drain(GOODBYE_WITHIN).await;
        }
        let answers = std::mem::take(&mut self.stopping);
        drop(self);
        for answer in answers {
            let _ = answer.send(());
        }
    }
}
