//! The one loop: it feeds the replica, does what the replica wants done, and answers those who wait.
//!
//! **Invariant**: the loop never waits for a commit or a peer. Commits and reads of the log run on the disk threads,
//! frames on their connections' tasks; everything comes back as an [`Event`]. Only a question for the status makes it
//! read the store, a few rows per space.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::dialing::{Known, Peers, Stage};
use super::disk::{Disk, DiskJob, Waiter, wall_ms};
use super::intake::{Intake, Room};
use super::status::{PeerState, PeerStatus, SpaceStatus, Status};
use super::wire::Wire;
use super::{JoinError, NodeError, Peer, SyncReport};
use crate::causal::Known as Knows;
use crate::model::{Access, DeviceId, SignedTicket, SpaceId};
use crate::replica::{
    Channel, Input, Introduction, LinkState, Millis, Output, PeerMisbehaved, Replica, SessionId, Stretch, TicketRefusal,
};
use crate::store::{Acknowledged, Ledger, Report, StoreError, Work};
use crate::transport::{CloseCause, CloseReason, Connection, Endpoint, Frame, FrameReceiver, PeerAddress};

/// A peer that has not answered a sync for so long is named as not reached.
const REACH_WITHIN: Duration = Duration::from_secs(5);
/// How long one address is tried. A way that answers at all answers much sooner, and a peer that starts meanwhile is
/// found by the next attempt.
const DIAL_WITHIN: Duration = Duration::from_secs(3);
/// How often a sync dials a peer that does not answer, ignoring back-off.
const REDIAL_EVERY: Duration = Duration::from_millis(250);
/// Two connections to one peer in opposite directions, made within this time, were dialled by both at once.
const DIALLED_AT_ONCE: Duration = Duration::from_secs(3);
/// How long a newly joined space may take until `join` returns all the same.
const JOIN_WITHIN: Duration = Duration::from_secs(20);
/// How many events are taken before a question is looked at, if both wait.
const EVENTS_PER_QUESTION: u32 = 4096;
/// A connection without a hello is closed after so long.
const GREET_WITHIN: Duration = Duration::from_secs(10);
/// How many strangers, who may see no space, can be connected at a time: to redeem a ticket takes them moments.
const STRANGERS_MAX: usize = 64;
/// How long goodbyes may take. They are sent at once; a peer that does not get one notices by itself.
const GOODBYE_WITHIN: Duration = Duration::from_millis(300);
/// How many addresses of one peer are kept.
const ADDRESSES_MAX: usize = 4;
/// How often what peers acknowledged is written down while they are connected.
const REMEMBER_EVERY: Duration = Duration::from_secs(10);

/// What happens to a node.
#[derive(Debug)]
pub(super) enum Event {
    /// A commit is durable.
    Committed { report: Report, admitted: Vec<(SessionId, Result<Introduction, TicketRefusal>)> },
    /// A commit failed; `stopped` if nothing can be written until the store is opened anew.
    StorageFailed { message: String, stopped: bool },
    /// The store works again, and holds this.
    StorageRecovered { held: Vec<(SpaceId, u64, Knows, Access)> },
    /// The log was read for a peer.
    Fetched { session: SessionId, space: SpaceId, stretches: Option<Vec<Stretch>> },
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
    Status(oneshot::Sender<Result<Status, StoreError>>),
    Peers(oneshot::Sender<Vec<Peer>>),
    AddPeer(PeerAddress, oneshot::Sender<Result<(), NodeError>>),
    RemovePeer(DeviceId, oneshot::Sender<Result<bool, NodeError>>),
    Join(Box<SignedTicket>, oneshot::Sender<Result<SpaceId, JoinError>>),
    Sync(Duration, oneshot::Sender<SyncReport>),
    Stop(oneshot::Sender<()>),
}

struct Session {
    device: DeviceId,
    wire: Wire,
    dialled: bool,
    since: Instant,
    greeted: bool,
}

struct Syncing {
    answer: oneshot::Sender<SyncReport>,
    peers: Vec<DeviceId>,
    /// The sessions that were asked for all that their peers know by now.
    probed: BTreeSet<SessionId>,
    reach_until: Instant,
    until: Instant,
    redial_at: Instant,
}

struct Joining {
    answer: oneshot::Sender<Result<SpaceId, JoinError>>,
    ticket: Box<SignedTicket>,
    until: Instant,
    redial_at: Instant,
    stage: JoinStage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum JoinStage {
    /// Waiting for a connection to the inviter.
    Reaching,
    /// Asked in this session.
    Asked(SessionId),
    /// Granted; waiting for the space to come.
    Granted,
}

/// The state of the loop.
pub(super) struct Driver {
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
    remember_at: Option<Instant>,
    syncs: Vec<Syncing>,
    joins: Vec<Joining>,
    storage_failure: Option<String>,
    stopping: Vec<oneshot::Sender<()>>,
}

impl Driver {
    pub(super) fn new(
        ledger: Arc<Ledger>,
        disk: Disk,
        endpoint: Option<Endpoint>,
        events: mpsc::UnboundedSender<Event>,
        keep_connected: bool,
    ) -> Self {
        let agent = format!("thence {}", env!("CARGO_PKG_VERSION"));
        Self {
            ledger,
            disk,
            endpoint,
            intake: Intake::new(),
            replica: Replica::new(agent, crate::replica::Limits::default()),
            started: Instant::now(),
            events,
            sessions: BTreeMap::new(),
            next_session: 1,
            peers: Peers::default(),
            keep_connected,
            synced_ms: BTreeMap::new(),
            remember_at: None,
            syncs: Vec::new(),
            joins: Vec::new(),
            storage_failure: None,
            stopping: Vec::new(),
        }
    }

    /// Runs until it is asked to stop or every handle is gone.
    pub(super) async fn run(
        mut self,
        mut received: mpsc::UnboundedReceiver<Event>,
        mut questions: mpsc::Receiver<Question>,
    ) {
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
                () = tokio::time::sleep_until(wake.into()) => {
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
        if let Event::Asked(Question::Stop(answer)) = event {
            self.stopping.push(answer);
            return true;
        }
        self.on_event(event);
        self.look_around();
        false
    }

    fn now_ms(&self) -> Millis {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn wake_at(&self) -> Instant {
        let replica = self.replica.poll_timeout().map(|ms| self.started + Duration::from_millis(ms));
        let syncs = self.syncs.iter().flat_map(|sync| [sync.reach_until.min(sync.redial_at), sync.until]);
        let joins = self.joins.iter().flat_map(|join| [join.until, join.redial_at]);
        let waiting = syncs.chain(joins).filter(|at| *at > Instant::now()).min();
        let greetings = self.sessions.values().filter(|session| !session.greeted);
        let waiting = greetings.map(|session| session.since + GREET_WITHIN).chain(waiting).min();
        let far = Instant::now() + Duration::from_secs(3600);
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
                Output::Fetch { session, space, after, bytes_max } => {
                    self.disk.send(DiskJob::Fetch { session, space, after, bytes_max });
                }
                Output::Admit { session, device, ticket } => {
                    self.disk.send(DiskJob::Commit(Work::Admit { device, ticket }, Waiter::Admission(session)));
                }
                Output::Redeemed { session, answer } => self.redeemed(session, answer),
                Output::Close { session, reason } => self.turn_away(session, &reason),
            }
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Committed { report, admitted } => {
                for (space, revision, known, access) in report.held {
                    self.handle(Input::Held { space, revision, known, access });
                }
                for (space, committed) in report.changed {
                    self.handle(Input::Committed { space, committed });
                }
                for (session, answer) in admitted {
                    if let (Some(session), Err(refusal)) = (self.sessions.get(&session), &answer) {
                        tracing::info!(peer = %session.device, %refusal, "refused a ticket");
                    }
                    self.handle(Input::Admitted { session, answer });
                }
                self.welcome();
            }
            Event::StorageFailed { message, stopped } => {
                tracing::error!(error = %message, "storage failed");
                if stopped {
                    self.storage_failure = Some(message);
                }
                self.handle(Input::CommitFailed);
            }
            Event::StorageRecovered { held } => {
                tracing::info!("storage works again");
                self.storage_failure = None;
                for (space, revision, known, access) in held {
                    self.handle(Input::Held { space, revision, known, access });
                }
            }
            Event::Fetched { session, space, stretches } => {
                self.handle(Input::Fetched { session, space, stretches });
            }
            Event::Frame { session, channel, frame, room, taken } => {
                let Frame { kind, critical, body } = frame;
                self.handle_in(Input::Received { session, channel, kind, critical, body }, Some(room));
                drop(taken);
                self.greet(session);
            }
            Event::Closed { session, cause } => self.closed(session, &cause.to_string()),
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
                        known.failed(reason, Instant::now());
                    }
                }
            },
            Event::Asked(question) => self.answer(question),
        }
    }

    // Peers and sessions.

    /// Knows a remembered peer.
    fn know(&mut self, device: DeviceId, addresses: Vec<String>) {
        let keep = self.keep_connected;
        let known = self.peers.entry(device);
        // The latest to be given is the likeliest, and stands first.
        for address in addresses.into_iter().rev() {
            known.addresses.retain(|other| *other != address);
            known.addresses.insert(0, address);
        }
        known.addresses.truncate(ADDRESSES_MAX);
        known.keep = keep;
        if keep && known.stage == Stage::Idle {
            known.next = Some(Instant::now());
        }
    }

    /// Dials whoever is due.
    fn dial(&mut self) {
        let Some(endpoint) = &self.endpoint else { return };
        for (device, addresses) in self.peers.due(Instant::now()) {
            self.spawn_dial(endpoint, device, addresses);
        }
    }

    fn spawn_dial(&self, endpoint: &Endpoint, device: DeviceId, addresses: Vec<String>) {
        let (endpoint, events) = (endpoint.clone(), self.events.clone());
        tokio::spawn(async move {
            let result = dial(&endpoint, device, &addresses).await;
            let _ = events.send(Event::Dialed { device, result });
        });
    }

    /// Takes a connection: one that was dialled here, or one whose dialer has opened the first stream.
    fn connected(&mut self, connection: Connection, first: Option<FrameReceiver>) {
        let device = connection.peer();
        let dialled = first.is_none();
        if connection.close_cause().is_some() {
            // Of several dials at once only one is kept; this one was given up before it got here.
            if let Some(known) = self.peers.get_mut(device)
                && known.stage == Stage::Dialing
            {
                known.failed("the connection was closed at once".to_owned(), Instant::now());
            }
            return;
        }
        if device == self.ledger.device() {
            connection.close(CloseReason::new(CloseReason::FIRST_OF_SESSIONS + 3, "this is the same device"));
            self.peers.entry(device).failed("this address is this device itself".to_owned(), Instant::now());
            return;
        }
        let old = self.sessions.iter().find(|(_, session)| session.device == device).map(|(id, session)| {
            let at_once = session.since.elapsed() < DIALLED_AT_ONCE;
            // Both sides must choose the same one. Of two in the same direction the dialer keeps the first, and then
            // opens no stream on the other; of two in opposite ones both keep the one that the smaller device dialled.
            let keep_old =
                if session.dialled == dialled { dialled } else { session.dialled == (self.ledger.device() < device) };
            (*id, at_once && keep_old)
        });
        let duplicate = || CloseReason::new(CloseReason::FIRST_OF_SESSIONS + 4, "another connection is in use");
        if let Some((old, keep_old)) = old {
            if keep_old {
                connection.close(duplicate());
                return;
            }
            if let Some(session) = self.sessions.get(&old) {
                session.wire.close(duplicate());
            }
            self.end(old, "replaced by a newer connection");
        }
        if !dialled && !self.is_member(device) {
            self.make_room_for_a_stranger();
        }
        let session = SessionId(self.next_session);
        self.next_session += 1;
        tracing::debug!(peer = %device, address = %connection.remote_address(), dialled, "connected");
        let wire = Wire::start(session, connection, first, &self.intake, &self.events);
        let since = Instant::now();
        self.sessions.insert(session, Session { device, wire, dialled, since, greeted: false });
        self.peers.entry(device).stage = Stage::Connected(session);
        self.handle(Input::Connected { session, peer: device });
    }

    /// Of too many strangers the one that has been here longest has to go, so that they never keep anybody out.
    fn make_room_for_a_stranger(&mut self) {
        let is_stranger = |session: &Session| !session.dialled && !self.is_member(session.device);
        let strangers = self.sessions.iter().filter(|(_, session)| is_stranger(session)).map(|(id, _)| *id);
        let strangers: Vec<SessionId> = strangers.collect();
        if strangers.len() < STRANGERS_MAX {
            return;
        }
        if let Some((session, state)) = strangers.first().and_then(|id| self.sessions.get_key_value(id)) {
            state
                .wire
                .close(CloseReason::new(CloseReason::FIRST_OF_SESSIONS + 7, "others wait, and you share no space"));
            self.end(*session, "others wait, and it shares no space");
        }
    }

    /// Takes note of a hello.
    fn greet(&mut self, id: SessionId) {
        let Some(hello) = self.replica.hello(id) else { return };
        if let Some(session) = self.sessions.get_mut(&id)
            && !session.greeted
        {
            session.greeted = true;
            let address = session.wire.connection().remote_address();
            tracing::info!(peer = %session.device, %address, agent = %hello.agent, "peer connected");
            let device = session.device;
            self.peers.entry(device).greeted();
            self.welcome();
        }
    }

    /// Whether a device has a role in any space that is held here.
    fn is_member(&self, device: DeviceId) -> bool {
        let access = |space| self.ledger.access(space);
        self.ledger.spaces().into_iter().filter_map(access).any(|access| access.role(device).is_some())
    }

    /// Lifts the transport's limits for strangers from every peer that may see a space. Anybody else can redeem a
    /// ticket and nothing more, for which those limits leave room.
    fn welcome(&self) {
        for session in self.sessions.values().filter(|session| session.greeted && !session.dialled) {
            if self.is_member(session.device) {
                session.wire.connection().admit();
            }
        }
    }

    fn closed(&mut self, session: SessionId, cause: &str) {
        if let Some(gone) = self.sessions.get(&session) {
            tracing::info!(peer = %gone.device, %cause, "peer disconnected");
            self.end(session, cause);
        }
    }

    /// Forgets a session, and plans to connect again.
    fn end(&mut self, session: SessionId, cause: &str) {
        self.remember(Some(session));
        let Some(gone) = self.sessions.remove(&session) else { return };
        self.handle(Input::Disconnected { session });
        let known = self.peers.entry(gone.device);
        if known.stage == Stage::Connected(session) {
            known.failed(cause.to_owned(), Instant::now());
            // Whoever came by itself, and cannot be dialled, is forgotten, so that strangers leave nothing behind;
            // unless it is a member that misbehaved, which people should see.
            if known.addresses.is_empty() && (known.misbehaved.is_none() || !self.is_member(gone.device)) {
                self.peers.remove(gone.device);
            }
        }
        for join in self.joins.iter_mut().filter(|join| join.stage == JoinStage::Asked(session)) {
            join.stage = JoinStage::Reaching;
        }
    }

    fn turn_away(&mut self, session: SessionId, reason: &PeerMisbehaved) {
        let Some(peer) = self.sessions.get(&session) else { return };
        tracing::warn!(peer = %peer.device, %reason, "turned a peer away");
        peer.wire.close(CloseReason::new(CloseReason::FIRST_OF_SESSIONS, &reason.to_string()));
        let device = peer.device;
        self.peers.entry(device).misbehaved = Some(reason.to_string());
        self.end(session, &format!("it {reason}"));
    }

    /// Writes down what peers acknowledged, of one session or of all.
    fn remember(&mut self, only: Option<SessionId>) {
        self.note_synced();
        for (id, session) in &self.sessions {
            if only.is_some_and(|only| only != *id) {
                continue;
            }
            for (space, vector) in self.replica.acknowledged(*id) {
                let synced_ms = self.synced_ms.get(&(space, session.device)).copied();
                let row = Acknowledged { space, device: session.device, vector, synced_ms };
                self.disk.send(DiskJob::Commit(Work::Acknowledged(row), Waiter::None));
            }
        }
    }

    /// Notes the moment for every link that is in step.
    fn note_synced(&mut self) {
        let now = wall_ms();
        for space in self.ledger.spaces() {
            for link in self.replica.links(space) {
                if link.state == LinkState::Synced {
                    self.synced_ms.insert((space, link.peer), now);
                }
            }
        }
    }

    /// What is to be done after anything happened.
    fn look_around(&mut self) {
        let now = Instant::now();
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

    /// Sees to it that a peer is dialled at once, whatever its back-off says.
    fn dial_now(&mut self, device: DeviceId) {
        let known = self.peers.entry(device);
        if known.stage == Stage::Idle {
            known.next = Some(Instant::now());
        }
    }

    // Those who wait.

    fn session_of(&self, device: DeviceId) -> Option<(SessionId, &Session)> {
        self.sessions.iter().find(|(_, session)| session.device == device).map(|(id, session)| (*id, session))
    }

    fn advance_syncs(&mut self, now: Instant) {
        for mut sync in std::mem::take(&mut self.syncs) {
            let mut report = SyncReport::default();
            let mut waiting = false;
            for &device in &sync.peers {
                match self.session_of(device) {
                    Some((session, state)) if state.greeted => {
                        if sync.probed.insert(session) {
                            self.handle(Input::Probe { session });
                        }
                        if self.replica.is_synced(session) {
                            report.synced.push(device);
                        } else {
                            report.unfinished.push(device);
                        }
                    }
                    _ => {
                        waiting |= now < sync.reach_until;
                        let reason = self.peers.get(device).and_then(|known| known.reason.clone());
                        report.unreached.push((device, reason.unwrap_or_else(|| "it did not answer".to_owned())));
                    }
                }
            }
            let done = report.unfinished.is_empty() && !waiting;
            if done || now >= sync.until || sync.answer.is_closed() {
                let _ = sync.answer.send(report);
                continue;
            }
            if now >= sync.redial_at {
                sync.redial_at = now + REDIAL_EVERY;
                let unreached: Vec<_> = report.unreached.iter().map(|(device, _)| *device).collect();
                unreached.into_iter().for_each(|device| self.dial_now(device));
            }
            self.syncs.push(sync);
        }
    }

    fn advance_joins(&mut self, now: Instant) {
        for mut join in std::mem::take(&mut self.joins) {
            let (inviter, space) = (join.ticket.ticket().inviter, join.ticket.ticket().genesis.space());
            let session = self.session_of(inviter).filter(|(_, state)| state.greeted).map(|(id, _)| id);
            match (join.stage, session) {
                (JoinStage::Reaching, Some(session)) => {
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
                        let error =
                            StoreError::Io(failure.unwrap_or_else(|| "the space could not be stored".to_owned()));
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

    fn redeemed(&mut self, session: SessionId, answer: Result<Introduction, TicketRefusal>) {
        let Some(at) = self.joins.iter().position(|join| join.stage == JoinStage::Asked(session)) else { return };
        let expected = self.joins[at].ticket.ticket().genesis;
        match answer {
            Ok(introduction) if introduction.genesis == expected => {
                let ticket = self.joins[at].ticket.ticket().clone();
                self.joins[at].stage = JoinStage::Granted;
                self.joins[at].until = Instant::now() + JOIN_WITHIN;
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

    fn remember_peer(&mut self, device: DeviceId, addresses: Vec<String>) {
        self.know(device, addresses);
        let addresses = self.peers.entry(device).addresses.clone();
        self.disk.send(DiskJob::Commit(Work::RememberPeer { device, addresses }, Waiter::None));
    }

    fn answer(&mut self, question: Question) {
        match question {
            Question::Status(answer) => {
                let _ = answer.send(self.status());
            }
            Question::Peers(answer) => {
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
                let _ = answer.send(self.peers.iter().map(peer).collect());
            }
            Question::AddPeer(peer, answer) => {
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
            Question::RemovePeer(device, answer) => {
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
            Question::Join(ticket, answer) => {
                let inviter = ticket.ticket().inviter;
                let known = self.peers.entry(inviter);
                for address in ticket.ticket().addresses.iter().rev() {
                    if !known.addresses.contains(address) {
                        known.addresses.insert(0, address.clone());
                    }
                }
                let (until, redial_at) = (Instant::now() + REACH_WITHIN, Instant::now());
                self.joins.push(Joining { answer, ticket, until, redial_at, stage: JoinStage::Reaching });
            }
            Question::Sync(timeout, answer) => {
                // A stranger that happens to be connected has nothing to be in step with.
                let matters =
                    |(device, known): &(DeviceId, &Known)| !known.addresses.is_empty() || self.is_member(*device);
                let peers: Vec<DeviceId> = self.peers.iter().filter(matters).map(|(device, _)| device).collect();
                let now = Instant::now();
                let (until, reach_until) = (now + timeout, now + REACH_WITHIN.min(timeout));
                let probed = BTreeSet::new();
                self.syncs.push(Syncing { answer, peers, probed, reach_until, until, redial_at: now });
            }
            // Taken by the loop itself.
            Question::Stop(answer) => self.stopping.push(answer),
        }
    }

    fn commit_for<T: Send + 'static>(
        &self,
        work: Work,
        answer: oneshot::Sender<Result<T, NodeError>>,
        value: impl FnOnce(()) -> T + Send + 'static,
    ) {
        let (caller, done) = oneshot::channel();
        self.disk.send(DiskJob::Commit(work, Waiter::Caller(caller)));
        tokio::spawn(async move {
            let result = match done.await {
                Ok(Ok(_)) => Ok(value(())),
                Ok(Err(error)) => Err(error.into()),
                Err(_) => Err(NodeError::Stopping),
            };
            let _ = answer.send(result);
        });
    }

    fn status(&mut self) -> Result<Status, StoreError> {
        self.note_synced();
        let listening = self.endpoint.as_ref().and_then(|endpoint| endpoint.local_address().ok());
        let mut spaces = Vec::new();
        for space in self.ledger.spaces() {
            let Some(view) = self.ledger.view(space)? else { continue };
            let summary = view.summary()?;
            let access = self.ledger.access(space);
            let links = self.replica.links(space);
            let mut rows: BTreeMap<DeviceId, Acknowledged> =
                self.ledger.acknowledged(space)?.into_iter().map(|row| (row.device, row)).collect();
            for (device, _) in self.peers.iter() {
                if access.as_ref().is_some_and(|access| access.role(device).is_some()) {
                    let vector = Default::default();
                    rows.entry(device).or_insert(Acknowledged { space, device, vector, synced_ms: None });
                }
            }
            let mut peers = Vec::new();
            for link in &links {
                rows.entry(link.peer).or_insert_with(|| Acknowledged {
                    space,
                    device: link.peer,
                    vector: Default::default(),
                    synced_ms: None,
                });
            }
            for (device, row) in rows {
                let last_synced_ms = self.synced_ms.get(&(space, device)).copied().or(row.synced_ms);
                let known = self.peers.get(device);
                let misbehaved = known.and_then(|known| known.misbehaved.clone());
                let link = links.iter().find(|link| link.peer == device);
                let (state, reason) = match link.map(|link| link.state) {
                    Some(LinkState::Synced) => (PeerState::Synced, None),
                    Some(LinkState::Syncing) => (PeerState::Syncing, Some("events are on their way".to_owned())),
                    Some(LinkState::Opening) => {
                        (PeerState::Syncing, Some("waiting for it to say what it has".to_owned()))
                    }
                    Some(LinkState::Refused(refusal)) => (PeerState::Refused, Some(refusal.to_string())),
                    Some(LinkState::Forked) => {
                        let reason = "it holds other events under the same names: a store was copied or rolled back";
                        (PeerState::Forked, Some(reason.to_owned()))
                    }
                    None if misbehaved.is_some() => {
                        (PeerState::Misbehaved, misbehaved.map(|text| format!("it {text}")))
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
            spaces.push(SpaceStatus { summary, peers });
        }
        Ok(Status {
            device: self.ledger.device(),
            replica: self.ledger.replica(),
            listening,
            storage_failure: self.storage_failure.clone(),
            spaces,
        })
    }

    /// Says goodbye, and lets the disk finish.
    async fn stop(mut self) {
        self.remember(None);
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

/// Dials a peer at all of its addresses at once; the first to answer is taken.
async fn dial(endpoint: &Endpoint, device: DeviceId, addresses: &[String]) -> Result<Connection, String> {
    let mut attempts = JoinSet::new();
    for address in addresses {
        let (endpoint, peer) = (endpoint.clone(), format!("{device}@{address}").parse::<PeerAddress>());
        attempts.spawn(async move {
            let peer = peer.map_err(|error| error.to_string())?;
            let mut reason = format!("{}:{} did not answer", peer.host(), peer.port());
            let resolved = peer.resolve().await.map_err(|error| error.to_string())?;
            for address in resolved {
                match tokio::time::timeout(DIAL_WITHIN, endpoint.connect(device, address)).await {
                    Ok(Ok(connection)) => return Ok(connection),
                    Ok(Err(error)) => reason = format!("{address}: {error}"),
                    Err(_) => reason = format!("{address} did not answer"),
                }
            }
            Err(reason)
        });
    }
    let mut reason = "no address is known".to_owned();
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => reason = error,
            Err(error) => reason = error.to_string(),
        }
    }
    Err(reason)
}
