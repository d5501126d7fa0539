//! A node that peers speak to, frame by frame, in any order: it keeps its limits and its promises whatever they say.
//!
//! What is asserted: nothing of a space is said to those who may not see it, and nothing at all to those who are gone;
//! what is on its way stays within its window; what was due is done; whatever is known stays known; and in the end the
//! ledger is one that every other node would agree with (`observer`).

mod observer;
mod steps;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use thence::causal::VersionVector;
use thence::model::{Access, Role, Segment, SignedTicket, SpaceId};
use thence::replica::{
    Channel, Input, Introduction, Limits, Lookup, Message, Millis, Output, Relation, Replica, SessionId, TicketRefusal,
};
use thence::store::{Done, Ledger, MemoryStore, Renewal, Report, Work};

use self::observer::Origins;
use self::steps::{Step, steps};
use super::world::{
    CLUSTER, OWNER, PEER, READER, STRANGER, introduction, invitation, key, ledger, node_store, operations, second,
    space, write,
};

/// The outputs that one input may lead to at most.
const OUTPUTS_MAX: usize = 1_000;
/// How often the node may go on from what it did itself once nobody speaks to it any more.
const ROUNDS_MAX: usize = 16;

const LIMITS: Limits = Limits {
    window_bytes_max: 2_000,
    session_window_bytes_max: 3_000,
    frame_bytes_max: 500,
    eager_vector_len_max: 3,
    vector_len_max: 64,
    spaces_max: 8,
    ack_ms: 20,
    forward_ms: 60,
    stall_ms: 10_000,
    stalls_max: 6,
    renewals_max: 2,
};

/// Who waits for a commit.
#[derive(Clone, Copy)]
enum Asker {
    Nobody,
    Admission(SessionId),
    Sharing(SessionId, SpaceId),
}

/// A space as the replica was told of it.
struct Told {
    revision: u64,
    access: Access,
}

struct Node {
    store: Arc<MemoryStore>,
    ledger: Ledger,
    replica: Replica,
    now: Millis,
    commits: VecDeque<(Work, Asker)>,
    lookups: VecDeque<Lookup>,
    sessions: BTreeMap<SessionId, u8>,
    next_session: u64,
    /// Drawn anew for every commit.
    nonce: u64,
    told: BTreeMap<SpaceId, Told>,
    /// Who showed to have a role in which space.
    shown: BTreeSet<(SessionId, SpaceId)>,
    /// The peers whose answer to a ticket is waited for.
    redeeming: BTreeSet<SessionId>,
    origins: Origins,
    /// How many events are known of each space.
    events: BTreeMap<SpaceId, u64>,
    /// How often it was asked to write under another id because a peer said so.
    renewals: u32,
}

/// Lets it all happen.
pub fn session(data: &[u8]) {
    let store = Arc::new(node_store());
    let mut node = Node {
        ledger: ledger(Arc::clone(&store), OWNER),
        store,
        replica: Replica::new("fuzz", 1, LIMITS),
        now: 0,
        commits: VecDeque::new(),
        lookups: VecDeque::new(),
        sessions: BTreeMap::new(),
        next_session: 0,
        nonce: 1_000,
        told: BTreeMap::new(),
        shown: BTreeSet::new(),
        redeeming: BTreeSet::new(),
        origins: Origins::from([(space(), (introduction(), key(OWNER).device()))]),
        events: BTreeMap::new(),
        renewals: 0,
    };
    node.tell_all();
    for device in [PEER, READER, STRANGER, CLUSTER] {
        node.connect(device);
    }
    for step in steps(data) {
        node.step(step);
    }
    for _ in 0..ROUNDS_MAX {
        if node.commits.is_empty() && node.lookups.is_empty() {
            break;
        }
        node.land(false);
    }
    observer::check(&node.store, &node.ledger, &node.origins);
}

/// The space that a channel of a step is about; none for the control channel.
fn named(channel: u8) -> Option<SpaceId> {
    match channel % 4 {
        0 => None,
        1 => Some(space()),
        2 => Some(second().genesis.space()),
        _ => Some(SpaceId::from_bytes([channel; 16])),
    }
}

impl Node {
    fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Frame { from, channel, kind, critical, body } => {
                let channel = named(channel).map_or(Channel::Control, Channel::Space);
                self.receive(from, channel, kind, critical, body.to_vec());
            }
            Step::Signed { from, author, channel, segment } => {
                let Some(space) = named(channel) else { return };
                let revision = self.told.get(&space).map_or(1, |told| told.revision);
                if let Some(signed) = Segment::resign(space, revision, key(author), segment) {
                    let message = Message::Segments(vec![signed.into()]);
                    self.receive(from, Channel::Space(space), message.kind(), true, message.body());
                }
            }
            Step::Wait { ms, unnoticed } => {
                self.now += Millis::from(ms);
                if !unnoticed {
                    self.handle(Input::Tick);
                }
            }
            Step::Reconnect { who } => {
                if let Some(session) = self.session_of(who) {
                    self.sessions.remove(&session);
                    self.handle(Input::Disconnected { session });
                }
                self.connect(who);
            }
            Step::Write { which } => {
                let mut operations = operations();
                let at = usize::from(which) % operations.len();
                let space = if which & 0x80 == 0 { space() } else { second().genesis.space() };
                let write = write(space, "o", operations.swap_remove(at));
                self.commits.push_back((write, Asker::Nobody));
            }
            Step::Redeem { at } => {
                if let Some(session) = self.session_of(at)
                    && self.redeeming.insert(session)
                {
                    self.handle(Input::Redeem { session, ticket: invitation().to_bytes() });
                }
            }
            Step::Read => self.read(),
            Step::Land { together } => self.land(together),
            Step::Fail { landed, reopened } => self.fail(landed, reopened),
            Step::Probe { who } => {
                if let Some(session) = self.session_of(who) {
                    self.handle(Input::Probe { session });
                    let _ = self.replica.is_synced(session);
                }
            }
        }
    }

    fn session_of(&self, device: u8) -> Option<SessionId> {
        self.sessions.iter().find(|(_, of)| **of == device).map(|(session, _)| *session)
    }

    fn connect(&mut self, device: u8) {
        self.next_session += 1;
        let session = SessionId(self.next_session);
        self.sessions.insert(session, device);
        self.handle(Input::Connected { session, peer: key(device).device(), cluster: device == CLUSTER });
    }

    fn receive(&mut self, from: u8, channel: Channel, kind: u8, critical: bool, body: Vec<u8>) {
        if let Some(session) = self.session_of(from) {
            self.handle(Input::Received { session, channel, kind, critical, body });
        }
    }

    fn handle(&mut self, input: Input) {
        match &input {
            Input::Held { space, revision, access, .. } => {
                self.told.insert(*space, Told { revision: revision.number(), access: access.clone() });
            }
            Input::Committed { space, committed } => {
                if let (Some(told), Some(access)) = (self.told.get_mut(space), &committed.access) {
                    told.access = access.clone();
                }
            }
            _ => {}
        }
        self.replica.handle(self.now, input);
        for count in 0.. {
            let Some(output) = self.replica.poll_output() else { break };
            assert!(count < OUTPUTS_MAX, "one input has no end of outputs");
            self.perform(output);
        }
        for session in self.sessions.keys() {
            for space in self.told.keys() {
                let in_flight = self.replica.in_flight_bytes(*session, *space);
                assert!(in_flight < LIMITS.window_bytes_max + LIMITS.frame_bytes_max + 4096, "{in_flight}");
            }
            let _ = self.replica.acknowledged(*session);
        }
        assert!(self.replica.poll_timeout().is_none_or(|at| at > self.now), "what was due is done");
        self.told.keys().for_each(|space| drop(self.replica.links(*space)));
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send { session, channel, message } => self.check_sent(session, channel, &message),
            Output::Store { session, space, segments } => {
                assert!(self.may_see(session, space), "a stranger's events are not even looked at");
                self.commits.push_back((Work::Receive { session, space, segments }, Asker::Nobody));
            }
            Output::LookUp(lookup) => self.lookups.push_back(lookup),
            Output::Admit { session, device, ticket } => {
                assert_eq!(Some(device), self.sessions.get(&session).map(|of| key(*of).device()));
                self.commits.push_back((Work::Admit { device, ticket }, Asker::Admission(session)));
            }
            Output::Share { session, space, device } => {
                assert_eq!(self.replica.relation(session), Some(Relation::Cluster), "only cluster peers share");
                assert_eq!(device, key(CLUSTER).device());
                self.commits.push_back((Work::Share { space, device }, Asker::Sharing(session, space)));
            }
            Output::Follow { space, revision } => {
                self.commits.push_back((Work::Follow { space, revision }, Asker::Nobody));
            }
            Output::Join { introduction, introducer } => {
                assert_eq!(introducer, key(CLUSTER).device(), "only cluster peers bring spaces");
                self.commits.push_back((Work::Join { introduction, introducer }, Asker::Nobody));
            }
            Output::Redeemed { session, answer } => {
                assert!(self.sessions.contains_key(&session), "it is told while the session lasts");
                let invitation: SignedTicket = invitation();
                let ticket = invitation.ticket();
                if let (true, Ok(introduction)) = (self.redeeming.remove(&session), answer)
                    && introduction.genesis == ticket.genesis
                {
                    let introducer = ticket.inviter;
                    self.commits.push_back((Work::Join { introduction, introducer }, Asker::Nobody));
                }
            }
            Output::Behind { before, space, counter } => {
                self.renewals += 1;
                assert!(self.renewals <= LIMITS.renewals_max, "a liar does not get one id after another");
                let reason = Renewal::Behind { space, counter };
                self.commits.push_back((Work::Renew { before, reason }, Asker::Nobody));
            }
            Output::Close { session, .. } => {
                self.sessions.remove(&session).expect("only a session that there is can be closed");
                self.replica.handle(self.now, Input::Disconnected { session });
            }
        }
    }

    fn may_see(&self, session: SessionId, space: SpaceId) -> bool {
        self.role(session, space).is_some() || self.shown.contains(&(session, space))
    }

    fn role(&self, session: SessionId, space: SpaceId) -> Option<Role> {
        let device = self.sessions.get(&session).map(|of| key(*of).device())?;
        self.told.get(&space)?.access.role(device)
    }

    fn check_sent(&self, session: SessionId, channel: Channel, message: &Message) {
        assert!(self.sessions.contains_key(&session), "nothing is said to those who are gone");
        let read = Message::decode(message.kind(), true, &message.body());
        assert_eq!(read.as_ref(), Ok(&Some(message.clone())));
        if let Channel::Space(space) = channel
            && !matches!(message, Message::Refuse(_))
        {
            assert!(self.may_see(session, space), "{message:?} to a stranger");
        }
        match message {
            Message::Introduce(Introduction { genesis, .. }) => {
                assert_eq!(self.role(session, genesis.space()), Some(Role::Owner), "a space is shared with its owners");
            }
            Message::Segments(segments) => {
                let bytes: usize = segments.iter().map(|segment| segment.len()).sum();
                assert!(segments.len() == 1 || bytes <= LIMITS.frame_bytes_max, "{bytes} in one frame");
            }
            _ => {}
        }
    }

    /// Reads what is to be read.
    fn read(&mut self) {
        for lookup in std::mem::take(&mut self.lookups) {
            let found = self.ledger.look_up(&lookup).expect("readable");
            if let Input::Judged { session, space, role: Some(_), .. } = found
                && self.sessions.contains_key(&session)
            {
                self.shown.insert((session, space));
            }
            self.handle(found);
        }
    }

    /// Makes what waits durable, and tells the replica.
    fn land(&mut self, together: bool) {
        let mut waiting: Vec<(Work, Asker)> = std::mem::take(&mut self.commits).into();
        while !waiting.is_empty() {
            let rest = if together { Vec::new() } else { waiting.split_off(1) };
            let (works, askers): (Vec<Work>, Vec<Asker>) = std::mem::replace(&mut waiting, rest).into_iter().unzip();
            let report = self.commit(&works);
            self.tell(report, &askers);
        }
        self.read();
    }

    fn commit(&mut self, works: &[Work]) -> Report {
        self.nonce += 1;
        for work in works {
            if let Work::Join { introduction, introducer } = work {
                let space = introduction.genesis.space();
                self.origins.entry(space).or_insert_with(|| (introduction.clone(), *introducer));
            }
        }
        let report = self.ledger.commit(works, self.now, self.nonce).expect("memory does not fail");
        for space in self.origins.keys() {
            let view = self.ledger.view(*space).expect("readable").expect("it is held");
            let now = view.vector().expect("readable").count_missing_from(&VersionVector::new());
            let before = self.events.insert(*space, now).unwrap_or_default();
            assert!(now >= before, "what is known stays known");
        }
        report
    }

    fn tell(&mut self, report: Report, askers: &[Asker]) {
        if let Some(renewed) = report.renewed {
            self.handle(Input::Writes { replica: renewed.now });
        }
        for (space, revision, known, access) in report.held {
            self.handle(Input::Held { space, revision, known, access });
        }
        for (space, committed) in report.changed {
            self.handle(Input::Committed { space, committed });
        }
        for (asker, done) in askers.iter().zip(report.done) {
            match (*asker, done) {
                (Asker::Admission(session), Done::Admitted(answer)) => self.handle(Input::Admitted { session, answer }),
                (Asker::Sharing(session, space), Done::Shared(introduction)) => {
                    self.handle(Input::Shared { session, space, introduction });
                }
                _ => {}
            }
        }
    }

    fn fail(&mut self, landed: bool, reopened: bool) {
        let waiting = std::mem::take(&mut self.commits);
        // What a cluster peer introduced is kept until it is held: it does not say it again.
        self.commits = waiting.iter().filter(|(work, _)| matches!(work, Work::Join { .. })).cloned().collect();
        let (works, askers): (Vec<Work>, Vec<Asker>) = waiting.into_iter().unzip();
        if landed {
            self.commit(&works);
        }
        self.handle(Input::CommitFailed);
        for asker in askers {
            match asker {
                Asker::Admission(session) => {
                    self.handle(Input::Admitted { session, answer: Err(TicketRefusal::Unavailable) });
                }
                Asker::Sharing(session, space) => {
                    self.handle(Input::Shared { session, space, introduction: None });
                }
                Asker::Nobody => {}
            }
        }
        if reopened {
            self.ledger.reopen().expect("memory does not fail");
            self.tell_all();
        }
    }

    /// Tells the replica all that the ledger holds.
    fn tell_all(&mut self) {
        self.handle(Input::Writes { replica: self.ledger.replica() });
        for (space, revision, known, access) in self.ledger.held() {
            self.handle(Input::Held { space, revision, known, access });
        }
    }
}
