//! What happens to the node, read from arbitrary bytes.

use super::super::world::{CLUSTER, OWNER, PEER, READER, STRANGER};

/// The most that happens in one run.
const STEPS_MAX: usize = 64;

/// Something that happens to the node.
#[derive(Clone, Debug)]
pub(super) enum Step<'a> {
    /// A frame comes.
    Frame { from: u8, channel: u8, kind: u8, critical: bool, body: &'a [u8] },
    /// A segment comes, signed as its author's own whatever it holds.
    Signed { from: u8, author: u8, channel: u8, segment: &'a [u8] },
    /// Time passes, and it is a while until anybody notices.
    Wait { ms: u16, unnoticed: bool },
    /// A connection ends, and another one begins.
    Reconnect { who: u8 },
    /// The node writes.
    Write { which: u8 },
    /// The node redeems a ticket.
    Redeem { at: u8 },
    /// What is to be read is read.
    Read,
    /// What waits for the disk becomes durable, one by one or all at once, and what is to be read is read.
    Land { together: bool },
    /// The disk fails. What waited for it may be there all the same, and the store may be opened anew.
    Fail { landed: bool, reopened: bool },
    /// Somebody waits until a peer is in step.
    Probe { who: u8 },
}

/// Reads steps: each is a byte that says which, by whom (the two highest bits) and how (the two below), and what belongs
/// to it.
pub(super) fn steps(data: &[u8]) -> Vec<Step<'_>> {
    let mut rest = Rest(data);
    let mut steps = Vec::new();
    while !rest.0.is_empty() && steps.len() < STEPS_MAX {
        let which = rest.byte();
        let who = [PEER, READER, STRANGER, CLUSTER][usize::from(which >> 6)];
        let (first, second) = (which & 0x10 != 0, which & 0x20 != 0);
        steps.push(match which & 0x0f {
            0..=4 => {
                let (channel, kind, critical) = (rest.byte(), rest.byte(), rest.byte() & 1 == 1);
                Step::Frame { from: who, channel, kind, critical, body: rest.counted() }
            }
            5 => Step::Redeem { at: who },
            6..=8 => {
                let author = [PEER, OWNER, READER, STRANGER, CLUSTER][usize::from(rest.byte()) % 5];
                Step::Signed { from: who, author, channel: 1 + u8::from(first), segment: rest.counted() }
            }
            9 => Step::Wait { ms: rest.number(), unnoticed: first },
            10 => Step::Reconnect { who },
            11 => Step::Write { which: rest.byte() },
            12 => Step::Land { together: first },
            13 => Step::Read,
            14 => Step::Fail { landed: first, reopened: first || second },
            _ => Step::Probe { who },
        });
    }
    steps
}

/// What has not been read yet. What is missing at the end counts as zeros.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    fn number(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    fn counted(&mut self) -> &'a [u8] {
        let count = self.number();
        self.take(usize::from(count))
    }
}
