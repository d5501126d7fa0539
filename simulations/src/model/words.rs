//! Choices in words.

use thence::replica::{Channel, Message};

use super::choice::Choice;
use super::explorer::{Explorer, State};
use super::local::Act;
use crate::oracles::Era;
use crate::world::{Weather, What};

impl Explorer<'_> {
    /// What a choice is in a state.
    pub(super) fn describe(&self, state: &State, choice: Choice) -> String {
        match choice {
            Choice::Begin => "begin".to_owned(),
            Choice::Act { node, act } => {
                let done = match act {
                    Act::Start => "starts".to_owned(),
                    Act::Land => "commits what waits".to_owned(),
                    Act::Report => "hears of its commit".to_owned(),
                    Act::Read(_) => "reads its log".to_owned(),
                    Act::Answer(_) => "hears what was read".to_owned(),
                    Act::Wake => "has a timer due".to_owned(),
                    other => format!("{other:?}"),
                };
                format!("node {node} {done}")
            }
            Choice::Deliver { edge, session, end, lane } => {
                let (to, from) = (self.ends(edge)[end], self.ends(edge)[1 - end]);
                let message = self.line(state, edge).session(session).and_then(|session| session.next(end, lane));
                let said = message.map_or_else(String::new, |message| self.say(message, lane));
                format!("node {to} hears from {from}: {said}")
            }
            Choice::Notice { edge, end, .. } => {
                let (node, peer) = (self.ends(edge)[end], self.ends(edge)[1 - end]);
                format!("node {node} finds out that its session with {peer} is gone")
            }
            Choice::Dial { edge } => {
                let [dialer, listener] = self.ends(edge);
                format!("node {dialer} connects to {listener}")
            }
            Choice::Befall { item, edge, session, end, lane } => {
                let (to, from) = (self.ends(edge)[end], self.ends(edge)[1 - end]);
                let message = self.line(state, edge).session(session).and_then(|session| session.next(end, lane));
                let said = message.map_or_else(String::new, |message| self.say(message, lane));
                let fate = match self.world.scenario.items[item].what {
                    What::Weather { weather: Weather { loss: 1.., .. }, .. } => "is lost",
                    What::Weather { weather: Weather { duplicate: 1.., .. }, .. } => "will come twice",
                    _ => "is overtaken",
                };
                format!("what {from} said to {to} {fate}: {said}")
            }
            Choice::Item(item) | Choice::Redeem { item, .. } => self.world.scenario.items[item].what.to_string(),
        }
    }

    fn say(&self, message: u32, lane: u8) -> String {
        let frame = &self.world.frames[message];
        let channel = self.world.space(lane).map_or(Channel::Control, Channel::Space);
        match (Message::decode(frame.kind, true, &frame.body), channel) {
            (Ok(Some(Message::Segments(segments))), Channel::Space(space)) => {
                let history = &self.world.history;
                let era = Era::first(space);
                let events = segments.iter().flat_map(|bytes| history.find(era, bytes).unwrap_or_default());
                let dots: Vec<_> = events.filter_map(|event| history.dot(era, *event)).collect();
                format!("segments {dots:?}")
            }
            (Ok(Some(Message::Redeem(_))), _) => "a ticket".to_owned(),
            (Ok(Some(message)), _) => format!("{message:?}"),
            _ => format!("kind {}", frame.kind),
        }
    }
}
