//! What happened in a world, kept so that it can be drawn.
//!
//! Any level can fill one, by way of [`Trace::record`](super::Trace::record). Times are those of the world; words are
//! for people.
//!
//! **Invariant**: nothing in a world depends on its story, and no story is part of a hash.

use std::collections::BTreeMap;

use super::Millis;
use crate::oracles::Violation;

/// What happened in a world.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// What each node is called, in order.
    pub nodes: Vec<String>,
    /// What was said.
    pub messages: Vec<Told>,
    /// What happened at a node, or everywhere.
    pub marks: Vec<Mark>,
    /// What lasted.
    pub spans: Vec<Span>,
    /// The first invariant that did not hold, and when that was noticed.
    pub violation: Option<Violation>,
    /// When it ended.
    pub ended_at: Millis,
    /// Names of bytes, and what people call what they name.
    names: BTreeMap<String, String>,
}

/// A message, from its sending to its fate.
#[derive(Clone, Debug)]
pub struct Told {
    /// When it was sent.
    pub sent_at: Millis,
    /// From which node.
    pub from: usize,
    /// To which node.
    pub to: usize,
    /// What kind of message it is.
    pub kind: MessageKind,
    /// What it says, in a few words.
    pub summary: String,
    /// What it says, in full.
    pub detail: String,
    /// What became of it.
    pub fate: Fate,
}

/// What kind of message it is: what a person may want to see or to hide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageKind {
    /// It carries what users wrote.
    Content,
    /// It says what is known.
    Knowledge,
    /// It says what arrived.
    Acknowledgement,
    /// It asks for access, or gives it.
    Access,
    /// It refuses, or says that something does not fit.
    Refusal,
    /// It greets, counts or probes.
    Courtesy,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never arrived, as far as was seen.
    UnderWay,
    /// It arrived.
    Arrived(Millis),
    /// It never will.
    Lost(&'static str),
    /// It is what broke an invariant: the world ends with it.
    Forbidden,
}

/// Something at a moment.
#[derive(Clone, Debug)]
pub struct Mark {
    /// When.
    pub at: Millis,
    /// At which node; everywhere if at none.
    pub node: Option<usize>,
    /// What kind of thing it is.
    pub kind: MarkKind,
    /// What it is, in a few words.
    pub label: String,
    /// All there is to say of it.
    pub detail: String,
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MarkKind {
    /// A user asked for a write.
    Write,
    /// A commit reached the disk.
    Landed,
    /// The node learned that a commit is on the disk.
    Reported,
    /// A user was told that a write is durable.
    Acknowledged,
    /// A commit failed.
    Failed,
    /// A ticket was shown, or answered.
    Ticket,
    /// A process ended.
    Crash,
    /// A process began.
    Restart,
    /// A disk was saved, put back, copied or hurt.
    Disk,
    /// A node turned hostile.
    Hostile,
    /// A session began or ended.
    Session,
    /// The scenario said so.
    World,
}

/// Something that lasted.
#[derive(Clone, Debug)]
pub struct Span {
    /// From when.
    pub from_ms: Millis,
    /// Until when; to the end if never ended.
    pub to_ms: Option<Millis>,
    /// Where.
    pub place: Place,
    /// What.
    pub kind: SpanKind,
    /// What it is, in a few words.
    pub label: String,
}

/// Where something lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At a node.
    Node(usize),
    /// From one node to another.
    Between(usize, usize),
}

/// What lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Nothing gets through.
    Cut,
    /// A node has no process.
    Down,
    /// Messages fare worse than usually.
    Weather,
    /// A disk is slow.
    Slow,
    /// A node is hostile.
    Hostile,
}

impl Story {
    /// From now on, `bytes` (as texts show them) are called `name`. The first name stays.
    pub fn call(&mut self, bytes: impl Into<String>, name: impl Into<String>) {
        self.names.entry(bytes.into()).or_insert_with(|| name.into());
    }

    /// A text in which people can tell who is meant.
    pub fn in_names(&self, text: &str) -> String {
        let mut named = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(|c: char| c.is_ascii_alphanumeric()) {
            let (between, from) = rest.split_at(start);
            let end = from.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(from.len());
            let (word, after) = from.split_at(end);
            named += between;
            named += self.names.get(word).map_or(word, String::as_str);
            rest = after;
        }
        without_types(&(named + rest))
    }

    /// A message was sent. Returns its number.
    pub fn sent(&mut self, message: Told) -> usize {
        self.messages.push(message);
        self.messages.len() - 1
    }

    /// A message arrived; if it did so before, it came twice.
    pub fn arrived(&mut self, number: usize, at: Millis) {
        let Some(message) = self.messages.get_mut(number) else { return };
        if let Fate::Arrived(_) = message.fate {
            let again =
                Told { fate: Fate::Arrived(at), summary: format!("{} (again)", message.summary), ..message.clone() };
            self.messages.push(again);
        } else {
            message.fate = Fate::Arrived(at);
        }
    }

    /// A message will never arrive, unless it did.
    pub fn lost(&mut self, number: usize, why: &'static str) {
        if let Some(message) = self.messages.get_mut(number)
            && message.fate == Fate::UnderWay
        {
            message.fate = Fate::Lost(why);
        }
    }

    /// Something happened at a node.
    pub fn mark(
        &mut self,
        at: Millis,
        node: usize,
        kind: MarkKind,
        label: impl Into<String>,
        detail: impl Into<String>,
    ) {
        self.marks.push(Mark { at, node: Some(node), kind, label: label.into(), detail: detail.into() });
    }

    /// Something happened everywhere.
    pub fn mark_all(&mut self, at: Millis, label: impl Into<String>) {
        let (label, detail) = (label.into(), String::new());
        self.marks.push(Mark { at, node: None, kind: MarkKind::World, label, detail });
    }

    /// Something begins to last. What lasted there of the same kind ends.
    pub fn begin(&mut self, at: Millis, place: Place, kind: SpanKind, label: impl Into<String>) {
        self.end(at, place, kind);
        self.spans.push(Span { from_ms: at, to_ms: None, place, kind, label: label.into() });
    }

    /// Something ends, if it lasts.
    pub fn end(&mut self, at: Millis, place: Place, kind: SpanKind) {
        let lasts = |span: &&mut Span| span.place == place && span.kind == kind && span.to_ms.is_none();
        self.spans.iter_mut().filter(lasts).for_each(|span| span.to_ms = Some(at));
    }

    /// Everything ends that one of these kinds lasts.
    pub fn end_all(&mut self, at: Millis, kinds: &[SpanKind]) {
        let lasts = |span: &&mut Span| kinds.contains(&span.kind) && span.to_ms.is_none();
        self.spans.iter_mut().filter(lasts).for_each(|span| span.to_ms = Some(at));
    }
}

/// Takes away the names of types, which only say what everybody sees.
fn without_types(text: &str) -> String {
    let mut text = text.to_owned();
    for name in ["VersionVector(", "SpaceId(", "DeviceId(", "Some("] {
        while let Some(at) = text.find(name) {
            let mut depth = 0;
            let close = text[at..].char_indices().find(|(_, c)| {
                depth += i32::from(*c == '(') - i32::from(*c == ')');
                *c == ')' && depth == 0
            });
            // Without its end it stays as it is, and so does all after it.
            let Some((length, _)) = close else { return text };
            text.replace_range(at + length..=at + length, "");
            text.replace_range(at..at + name.len(), "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_where_bytes_stood() {
        let mut story = Story::default();
        story.call("a1b2c3d4", "n0");
        assert_eq!(story.in_names("{a1b2c3d4:3} lacks xa1b2c3d4, a1b2c3d4"), "{n0:3} lacks xa1b2c3d4, n0");
        assert_eq!(story.in_names("Some(VersionVector({a1b2c3d4: 3})) (so)"), "{n0: 3} (so)");
        assert_eq!(story.in_names("Some(a1b2c3d4"), "Some(n0");
    }

    #[test]
    fn a_message_that_comes_twice_is_two_arrows() {
        let mut story = Story::default();
        let message = Told {
            sent_at: 1,
            from: 0,
            to: 1,
            kind: MessageKind::Content,
            summary: "one".to_owned(),
            detail: String::new(),
            fate: Fate::UnderWay,
        };
        let number = story.sent(message);
        story.arrived(number, 5);
        story.arrived(number, 9);
        story.lost(number, "too late to be lost");
        let fates: Vec<Fate> = story.messages.iter().map(|message| message.fate).collect();
        assert_eq!(fates, [Fate::Arrived(5), Fate::Arrived(9)]);
    }
}
