//! What happens in words: the story of a world of this level.
//!
//! All of it is for people. Nothing here changes the world, and without a story to fill nothing here does anything.

use thence::causal::{Dot, Knowledge, VersionVector, Witness};
use thence::model::{Event, Segment, SpaceId};
use thence::replica::{Channel, Message, Refusal, SessionId};
use thence::store::{Done, Work};

use super::World;
use crate::core::node::Commit;
use crate::world::{Arrival, Fate, MarkKind, MessageKind, Millis, Place, SpanKind, Told, What};

/// So much of a long text is enough.
const DETAIL_CHARS_MAX: usize = 4_000;

/// Nobody wipes a space more often.
const REVISIONS_TOLD: u64 = 16;

/// Primes tell the names of one store apart: n0, n0′, n0″.
const PRIMES: &[&str] = &["", "′", "″", "‴"];

impl World<'_> {
    /// The nodes and spaces get names, and the story its lanes.
    pub(super) fn tell_beginning(&mut self) {
        if !self.trace.is_recording() {
            return;
        }
        for node in 0..self.nodes.len() {
            let device = self.nodes[node].device().to_string();
            self.trace.record(|story| {
                story.nodes.push(format!("node {node}"));
                story.call(&device[..8], format!("node {node}"));
            });
            self.tell_name(node);
        }
        for (number, (space, _)) in self.spaces.iter().enumerate() {
            let id = space.to_string();
            self.trace.record(|story| story.call(&id[..8], format!("space {number}")));
        }
    }

    /// What a node writes under gets a name.
    pub(super) fn tell_name(&mut self, node: usize) {
        if !self.trace.is_recording() {
            return;
        }
        let Some(process) = &self.nodes[node].process else { return };
        let renewals = process.ledger.renewals().map_or(0, |renewals| renewals.len());
        let primes = PRIMES.get(renewals).map_or_else(|| format!("({renewals})"), |primes| (*primes).to_owned());
        let bytes = format!("{:?}", process.ledger.replica());
        self.trace.record(|story| story.call(bytes, format!("n{node}{primes}")));
    }

    /// Something of the scenario is done, or goes wrong.
    pub(super) fn tell_item(&mut self, what: &What) {
        let now = self.now;
        let (scenario, nodes) = (self.scenario, &self.nodes);
        self.trace.record(|story| story.tell_item(now, what, scenario, &|node| nodes[node].process.is_none()));
    }

    /// A ticket is shown.
    pub(super) fn tell_ticket(&mut self, node: usize, space: usize, from: usize, role: &str) {
        let now = self.now;
        self.trace.record(|story| {
            let label = format!("ticket of node {from}: {role}, space {space}");
            story.mark(now, node, MarkKind::Ticket, label, "");
        });
    }

    /// A process began.
    pub(super) fn tell_start(&mut self, node: usize) {
        if !self.trace.is_recording() {
            return;
        }
        self.tell_name(node);
        let (now, known) = (self.now, self.known(node));
        self.trace.record(|story| {
            story.end(now, Place::Node(node), SpanKind::Down);
            story.mark(now, node, MarkKind::Restart, "starts again", format!("On its disk:\n{known}"));
        });
    }

    /// All faults end.
    pub(super) fn tell_quiet(&mut self) {
        let now = self.now;
        self.trace.record(|story| story.tell_quiet(now));
    }

    /// A commit reached the disk.
    pub(super) fn tell_landed(&mut self, node: usize) {
        if !self.trace.is_recording() {
            return;
        }
        let commit = self.nodes[node].process.as_ref().and_then(|process| process.commit.as_ref());
        let Some(Commit { jobs, outcome: Some(Ok(report)), .. }) = commit else { return };
        let written = report.changed.values().flat_map(|committed| &committed.written);
        let written = runs(written.map(|stretch| (stretch.first, stretch.last.dot)));
        let mut detail = String::new();
        for (space, committed) in &report.changed {
            for stretch in &committed.written {
                detail += &describe_segment(*space, &stretch.bytes);
            }
            for (_, rejection) in &committed.rejected {
                detail += &format!("not applied: {rejection:?}\n");
            }
        }
        for (job, done) in jobs.iter().zip(&report.done) {
            match (&job.work, done) {
                (Work::Write { .. }, Done::Written(Err(error))) => {
                    detail += &format!("a write is refused: {error}\n");
                }
                (Work::Wipe { .. }, Done::Wiped(Err(error))) => detail += &format!("a wipe is refused: {error}\n"),
                _ => {}
            }
        }
        let known = self.known(node);
        let has = |is: fn(&Work) -> bool| jobs.iter().any(|job| is(&job.work));
        let label = match written.is_empty() {
            false => format!("on disk: {written}"),
            true if has(|work| matches!(work, Work::Create { .. })) => "makes the space".to_owned(),
            true if has(|work| matches!(work, Work::Follow { .. })) => "goes over to a later revision".to_owned(),
            true if has(|work| matches!(work, Work::Remove { .. })) => "removes what was wiped".to_owned(),
            true if has(|work| matches!(work, Work::Join { .. })) => "joins the space".to_owned(),
            true => "commit, nothing new".to_owned(),
        };
        let split = report.changed.values().any(|committed| committed.split.is_some());
        let label = label + if split { " (one name, two histories: they are told apart)" } else { "" };
        let now = self.now;
        let detail = cut_short(detail + "Now on this disk:\n" + &known);
        self.trace.record(|story| story.mark(now, node, MarkKind::Landed, label, detail));
    }

    /// The node learned that a commit is on its disk, or that it failed.
    pub(super) fn tell_reported(&mut self, node: usize, failed: bool) {
        let now = self.now;
        self.trace.record(|story| match failed {
            false => story.mark(now, node, MarkKind::Reported, "learns that it is on disk", ""),
            true => story.mark(now, node, MarkKind::Failed, "the disk says that the commit failed", ""),
        });
    }

    /// A user was told that a write is durable.
    pub(super) fn tell_acknowledged(&mut self, node: usize, events: &[Dot]) {
        let now = self.now;
        self.trace.record(|story| {
            let last = events.last().map(|dot| format!(": {dot:?}")).unwrap_or_default();
            let detail = "From here on the user may rely on it.";
            story.mark(now, node, MarkKind::Acknowledged, format!("user is told: written{last}"), detail);
        });
    }

    /// A session began or ended at a node.
    pub(super) fn tell_session(&mut self, node: usize, peer: usize, begins: bool) {
        let now = self.now;
        let label = if begins { format!("connected with {peer}") } else { format!("connection with {peer} is gone") };
        self.trace.record(|story| story.mark(now, node, MarkKind::Session, label, ""));
    }

    /// A message leaves a node. Returns its number in the story.
    pub(super) fn tell_sent(&mut self, arrival: &Arrival, from: usize) -> Option<usize> {
        if !self.trace.is_recording() {
            return None;
        }
        let (kind, summary, detail) = describe(arrival.channel, arrival.kind, &arrival.body);
        let (sent_at, to, fate) = (self.now, arrival.to, Fate::UnderWay);
        let told = Told { sent_at, from, to, kind, summary, detail: cut_short(detail), fate };
        let mut number = None;
        self.trace.record(|story| number = Some(story.sent(told)));
        number
    }

    /// A node says what no node may: the world ends here.
    pub(super) fn tell_forbidden(&mut self, node: usize, session: SessionId, channel: Channel, message: &Message) {
        let Some(to) = self.peer_in(session, node).filter(|_| self.trace.is_recording()) else { return };
        let (kind, summary, detail) = describe(channel, message.kind(), &message.body());
        let (sent_at, from, fate) = (self.now, node, Fate::Forbidden);
        let told = Told { sent_at, from, to, kind, summary, detail: cut_short(detail), fate };
        self.trace.record(|story| _ = story.sent(told));
    }

    /// A message will not arrive.
    pub(super) fn tell_lost(&mut self, number: Option<usize>, why: &'static str) {
        if let Some(number) = number {
            self.trace.record(|story| story.lost(number, why));
        }
    }

    /// A message arrived.
    pub(super) fn tell_arrived(&mut self, number: Option<usize>, now: Millis) {
        if let Some(number) = number {
            self.trace.record(|story| story.arrived(number, now));
        }
    }

    /// What is on a node's disk, as vectors.
    fn known(&self, node: usize) -> String {
        let mut known = String::new();
        for (space, _) in &self.spaces {
            if let Some(shelf) = self.nodes[node].shelves.get(space) {
                known += &format!("{space:?} revision {} {}\n", shelf.revision, describe_vector(&shelf.vector));
            }
        }
        if known.is_empty() { "nothing\n".to_owned() } else { known }
    }

    /// For what is told of a session.
    pub(super) fn peer_in(&self, session: SessionId, node: usize) -> Option<usize> {
        self.network.lines.get(&session).map(|line| line.peer_of(node))
    }
}

fn cut_short(text: String) -> String {
    match text.char_indices().nth(DETAIL_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn describe_vector(vector: &VersionVector) -> String {
    let dots: Vec<String> = vector.iter().map(|dot| format!("{dot:?}")).collect();
    if dots.is_empty() { "{}".to_owned() } else { format!("{{{}}}", dots.join(", ")) }
}

/// Events that follow one another, as few words as it takes.
fn runs(stretches: impl Iterator<Item = (Dot, Dot)>) -> String {
    let mut runs: Vec<(Dot, Dot)> = Vec::new();
    for (first, last) in stretches {
        match runs.last_mut() {
            Some((_, end)) if end.replica == first.replica && end.counter + 1 == first.counter => *end = last,
            _ => runs.push((first, last)),
        }
    }
    let each = runs.iter().map(|(first, last)| match first == last {
        true => format!("{first:?}"),
        false => format!("{first:?}–{}", last.counter),
    });
    each.collect::<Vec<_>>().join(" ")
}

fn describe_event(event: &Event) -> String {
    let objects = event.mutations.iter().map(|mutation| {
        let edits = mutation.edits.iter().map(|edit| format!("{:?} = {:?}", edit.slot, edit.add));
        let whole = mutation.whole.as_ref().map(|dots| format!("replaces {dots:?} "));
        format!(
            "{}/{} {}{}",
            mutation.collection,
            mutation.key,
            whole.unwrap_or_default(),
            edits.collect::<Vec<_>>().join(", ")
        )
    });
    let knew: Vec<String> = event.dependencies.iter().map(|known| format!("{:?}", known.dot)).collect();
    let knew = if knew.is_empty() { String::new() } else { format!(", written knowing {}", knew.join(" ")) };
    format!("{:?}{knew}: {}\n", event.dot, objects.collect::<Vec<_>>().join("; "))
}

/// A segment of whatever revision.
fn read_segment(space: SpaceId, bytes: &[u8]) -> Option<Segment> {
    (1..=REVISIONS_TOLD).find_map(|revision| Segment::verify(space, revision, bytes.into()).ok())
}

fn describe_segment(space: SpaceId, bytes: &[u8]) -> String {
    match read_segment(space, bytes) {
        Some(segment) => segment.events().iter().map(describe_event).collect(),
        None => "a segment that does not verify\n".to_owned(),
    }
}

/// The first and the last event of a segment, if it is one.
fn ends(space: SpaceId, bytes: &[u8]) -> Option<(Dot, Dot)> {
    let segment = read_segment(space, bytes)?;
    let events = segment.events();
    events.first().zip(events.last()).map(|(first, last)| (first.dot, last.dot))
}

fn witnesses<'a>(of: impl IntoIterator<Item = &'a Witness>) -> String {
    let dots: Vec<String> = of.into_iter().map(|witness| format!("{:?}", witness.dot)).collect();
    if dots.is_empty() { "nothing".to_owned() } else { dots.join(" ") }
}

fn describe_knowledge(knowledge: &Knowledge) -> String {
    let claims: Vec<Witness> = knowledge.ranges().flat_map(|(_, claims)| claims.iter()).collect();
    witnesses(&claims)
}

/// What kind of message it is, what it says in short, and in full.
fn describe(channel: Channel, kind: u8, body: &[u8]) -> (MessageKind, String, String) {
    let message = match Message::decode(kind, true, body) {
        Ok(Some(message)) => message,
        Ok(None) => return (MessageKind::Courtesy, format!("frame {kind}"), String::new()),
        Err(error) => return (MessageKind::Refusal, "what cannot be understood".to_owned(), error.to_string()),
    };
    let space = match channel {
        Channel::Space(space) => Some(space),
        Channel::Control => None,
    };
    let about = space.map(|space| format!("about {space:?}\n")).unwrap_or_default();
    let (kind, summary, detail) = match &message {
        Message::Segments(segments) | Message::Show(segments) => {
            let space = space.unwrap_or_else(|| SpaceId::from_bytes([0; 16]));
            let names = runs(segments.iter().filter_map(|bytes| ends(space, bytes)));
            let names = if names.is_empty() { "segments that do not verify".to_owned() } else { names };
            let detail = segments.iter().map(|bytes| describe_segment(space, bytes)).collect();
            match &message {
                Message::Show(_) => (MessageKind::Access, "shows its grants".to_owned(), detail),
                _ => (MessageKind::Content, names, detail),
            }
        }
        Message::Ack(acks) => (MessageKind::Acknowledgement, format!("has {}", witnesses(acks)), String::new()),
        Message::Open(open) => {
            let ask = if open.answer { ", and you?" } else { "" };
            let knows = open.knowledge.as_ref().map(describe_knowledge);
            let knows = knows.unwrap_or_else(|| "as much as this digest names".to_owned());
            let revision = match open.revision.number() {
                1 => String::new(),
                revision => format!("of revision {revision} "),
            };
            (
                MessageKind::Knowledge,
                format!("{revision}knows {knows}{ask}"),
                format!("digest {:02x?}", &open.digest[..4]),
            )
        }
        Message::Know(knowledge) => {
            (MessageKind::Knowledge, format!("knows {}", describe_knowledge(knowledge)), String::new())
        }
        Message::Refuse(refusal) => {
            let label = match refusal {
                Refusal::NotFound => "refuses: no such space, or not for you",
                Refusal::Partial => "refuses: only a part",
            };
            (MessageKind::Refusal, label.to_owned(), String::new())
        }
        Message::Diverged(replica) => {
            let label = format!("has another history of {replica:?}: send all of it");
            (MessageKind::Refusal, label, String::new())
        }
        Message::Redeem(_) => (MessageKind::Access, "ticket".to_owned(), String::new()),
        Message::Redeemed(Ok(introduction)) => {
            (MessageKind::Access, format!("welcome to {}", introduction.name), String::new())
        }
        Message::Redeemed(Err(refusal)) => (MessageKind::Access, format!("no: {refusal}"), String::new()),
        Message::Hello(_) => (MessageKind::Courtesy, "hello".to_owned(), String::new()),
        Message::Offered(count) => (MessageKind::Courtesy, format!("offers {count} spaces"), String::new()),
        Message::Probe(nonce) => (MessageKind::Courtesy, format!("probe {nonce}"), String::new()),
        Message::Probed(probed) => (MessageKind::Courtesy, format!("probed {}", probed.nonce), String::new()),
        other => (MessageKind::Courtesy, format!("{other:?}"), String::new()),
    };
    (kind, summary, about + &detail)
}
