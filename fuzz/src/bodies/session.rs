//! A node that peers speak to, frame by frame, in any order: it keeps its limits and its promises whatever they say.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use thence::model::{Segment, SpaceId};
use thence::replica::{Channel, Input, Limits, Message, Millis, Output, Replica, SessionId};
use thence::store::{Done, Ledger, Renewal, Work};

use super::world::{OWNER, PEER, REVISION, STRANGER, key, ledger, node_store, operations, space, write};

/// Something that happens to the node.
#[derive(Clone, Debug)]
enum Step<'a> {
    /// A frame comes from one of the two peers.
    Frame { stranger: bool, channel: u8, kind: u8, critical: bool, body: &'a [u8] },
    /// The peer sends a segment, signed as its own whatever it holds.
    Signed { segment: &'a [u8] },
    /// Time passes.
    Wait { ms: u16 },
    /// A connection ends, and another one begins.
    Reconnect { stranger: bool },
    /// The node writes.
    Write { which: u8 },
    /// What waits for the disk becomes durable.
    Land,
    /// What waits for the disk does not.
    Fail,
    /// Somebody waits until the peers are in step.
    Probe { stranger: bool },
}

/// Reads steps: each is a byte that says which, and what belongs to it.
fn steps(mut data: &[u8]) -> Vec<Step<'_>> {
    const STEPS_MAX: usize = 64;
    fn take<'a>(data: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (taken, rest) = data.split_at(count.min(data.len()));
        *data = rest;
        taken
    }
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte));
    let mut steps = Vec::new();
    while let Some((&which, rest)) = data.split_first()
        && steps.len() < STEPS_MAX
    {
        data = rest;
        let stranger = which & 0x80 != 0;
        steps.push(match which & 0x0f {
            0..=5 => {
                let [channel, kind, critical] = [0, 1, 2].map(|_| number(take(&mut data, 1)) as u8);
                let length = number(take(&mut data, 2));
                let body = take(&mut data, length);
                Step::Frame { stranger, channel, kind, critical: critical & 1 == 1, body }
            }
            6..=8 => {
                let length = number(take(&mut data, 2));
                Step::Signed { segment: take(&mut data, length) }
            }
            9 => Step::Wait { ms: number(take(&mut data, 2)) as u16 },
            10 => Step::Reconnect { stranger },
            11 => Step::Write { which: number(take(&mut data, 1)) as u8 },
            12 | 13 => Step::Land,
            14 => Step::Fail,
            _ => Step::Probe { stranger },
        });
    }
    steps
}

struct Node {
    ledger: Ledger,
    replica: Replica,
    now: Millis,
    waiting: VecDeque<(Work, Option<SessionId>)>,
    sessions: BTreeMap<SessionId, u8>,
    next_session: u64,
    /// Drawn anew for every commit.
    nonce: u64,
    limits: Limits,
}

/// Lets it all happen.
pub fn session(data: &[u8]) {
    let limits = Limits {
        window_bytes_max: 2_000,
        session_window_bytes_max: 3_000,
        frame_bytes_max: 500,
        eager_vector_len_max: 3,
        vector_len_max: 64,
        spaces_max: 8,
        ..Limits::default()
    };
    let mut node = Node {
        ledger: ledger(Arc::new(node_store()), OWNER),
        replica: Replica::new("fuzz", 1, limits),
        now: 0,
        waiting: VecDeque::new(),
        sessions: BTreeMap::new(),
        next_session: 0,
        nonce: 0,
        limits,
    };
    node.handle(Input::Writes { replica: node.ledger.replica() });
    for (space, revision, known, access) in node.ledger.held() {
        node.handle(Input::Held { space, revision, known, access });
    }
    node.connect(PEER);
    node.connect(STRANGER);
    for step in steps(data) {
        node.step(step);
    }
    node.land();
}

impl Node {
    fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Frame { stranger, channel, kind, critical, body } => {
                let channel = match channel % 4 {
                    0 => Channel::Control,
                    3 => Channel::Space(SpaceId::from_bytes([channel; 16])),
                    _ => Channel::Space(space()),
                };
                self.receive(stranger, channel, kind, critical, body.to_vec());
            }
            Step::Signed { segment } => {
                if let Some(signed) = Segment::resign(space(), REVISION, &key(PEER), segment) {
                    let message = Message::Segments(vec![signed.into()]);
                    self.receive(false, Channel::Space(space()), message.kind(), true, message.body());
                }
            }
            Step::Wait { ms } => {
                self.now += Millis::from(ms);
                self.handle(Input::Tick);
            }
            Step::Reconnect { stranger } => {
                let device = if stranger { STRANGER } else { PEER };
                if let Some(session) = self.session_of(device) {
                    self.disconnect(session);
                }
                self.connect(device);
            }
            Step::Write { which } => {
                let mut operations = operations();
                let at = usize::from(which) % operations.len();
                self.waiting.push_back((write("o", operations.swap_remove(at)), None));
            }
            Step::Land => self.land(),
            Step::Fail => {
                self.waiting.clear();
                self.handle(Input::CommitFailed);
            }
            Step::Probe { stranger } => {
                if let Some(session) = self.session_of(if stranger { STRANGER } else { PEER }) {
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
        self.handle(Input::Connected { session, peer: key(device).device(), cluster: false });
    }

    fn disconnect(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.handle(Input::Disconnected { session });
    }

    fn receive(&mut self, stranger: bool, channel: Channel, kind: u8, critical: bool, body: Vec<u8>) {
        if let Some(session) = self.session_of(if stranger { STRANGER } else { PEER }) {
            self.handle(Input::Received { session, channel, kind, critical, body });
        }
    }

    fn handle(&mut self, input: Input) {
        self.replica.handle(self.now, input);
        while let Some(output) = self.replica.poll_output() {
            match output {
                Output::Send { session, channel, message } => self.check_sent(session, channel, &message),
                Output::Store { session, space, segments } => {
                    assert!(self.may_see(session), "a stranger's events are not even looked at");
                    self.waiting.push_back((Work::Receive { session, space, segments }, None));
                }
                Output::Admit { session, device, ticket } => {
                    assert_eq!(Some(&device), self.sessions.get(&session).map(|of| key(*of).device()).as_ref());
                    self.waiting.push_back((Work::Admit { device, ticket }, Some(session)));
                }
                Output::Fetch { session, space, after, bytes_max } => {
                    let view = self.ledger.view(space).expect("memory does not fail").expect("it is held");
                    let stretches = Some(view.log_after(&after, bytes_max).expect("memory does not fail"));
                    self.replica.handle(self.now, Input::Fetched { session, space, stretches });
                }
                Output::Close { session, .. } => {
                    self.sessions.remove(&session).expect("only a session that there is can be closed");
                    self.replica.handle(self.now, Input::Disconnected { session });
                }
                Output::Behind { space, counter } => {
                    self.waiting.push_back((Work::Renew(Renewal::Behind { space, counter }), None));
                }
                Output::Credential { session, space } => {
                    let view = self.ledger.view(space).expect("memory does not fail").expect("it is held");
                    let segments = view.credentials().expect("memory does not fail");
                    self.replica.handle(self.now, Input::Credential { session, space, segments });
                }
                Output::Judge { session, space, device, segments } => {
                    let view = self.ledger.view(space).expect("memory does not fail").expect("it is held");
                    let role = view.judge(device, &segments).expect("memory does not fail");
                    self.replica.handle(self.now, Input::Judged { session, space, role });
                }
                Output::Redeemed { .. } => {}
                // Later releases want other things too.
                #[allow(unreachable_patterns)]
                _ => {}
            }
        }
        for session in self.sessions.keys() {
            let in_flight = self.replica.in_flight_bytes(*session, space());
            assert!(in_flight < self.limits.window_bytes_max + self.limits.frame_bytes_max + 4096, "{in_flight}");
            let _ = self.replica.acknowledged(*session);
        }
        assert!(self.replica.poll_timeout().is_none_or(|at| at > self.now), "what was due is done");
        let _ = self.replica.links(space());
    }

    fn may_see(&self, session: SessionId) -> bool {
        let device = self.sessions.get(&session).map(|of| key(*of).device());
        let access = self.ledger.access(space()).expect("it is held");
        device.is_some_and(|device| access.role(device).is_some())
    }

    fn check_sent(&self, session: SessionId, channel: Channel, message: &Message) {
        assert!(self.sessions.contains_key(&session), "nothing is said to those who are gone");
        let read = Message::decode(message.kind(), true, &message.body());
        assert_eq!(read.as_ref(), Ok(&Some(message.clone())));
        if matches!(channel, Channel::Space(_)) && !matches!(message, Message::Refuse(_)) {
            assert!(self.may_see(session), "{message:?} to a stranger");
        }
    }

    fn land(&mut self) {
        for (work, asked) in std::mem::take(&mut self.waiting) {
            self.nonce += 1;
            let mut report = self.ledger.commit(&[work], self.now, self.nonce).expect("memory does not fail");
            if let Some(renewed) = report.renewed {
                self.handle(Input::Writes { replica: renewed.now });
            }
            for (space, revision, known, access) in report.held {
                self.handle(Input::Held { space, revision, known, access });
            }
            for (space, committed) in report.changed {
                self.handle(Input::Committed { space, committed });
            }
            if let (Some(session), Some(Done::Admitted(answer))) = (asked, report.done.pop()) {
                self.handle(Input::Admitted { session, answer });
            }
        }
    }
}
