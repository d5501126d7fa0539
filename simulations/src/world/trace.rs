//! What is kept of a run: one hash over everything that happened, and what else a caller wants of it.

use super::{Millis, Story};
use crate::reach::{Phase, Reach};

/// Takes in every delivered byte, every commit and every time. Two runs with equal traces were the same run.
///
/// It can also tell people what happens, record a [`Story`] to be drawn, and count which faults struck when. None of
/// that is part of the hash, and none of it costs anything unless it is wanted.
#[derive(Debug, Default)]
pub struct Trace {
    hasher: blake3::Hasher,
    told: bool,
    story: Option<Box<Story>>,
    reach: Option<Box<Reach>>,
}

impl Trace {
    /// A trace that tells on stderr what it takes in, if `told`.
    pub fn new(told: bool) -> Self {
        Self { told, ..Self::default() }
    }

    /// The same, and it records a story.
    #[must_use]
    pub fn recording(self) -> Self {
        Self { story: Some(Box::default()), ..self }
    }

    /// The same, and it counts which faults struck in which phases.
    #[must_use]
    pub fn counting(self) -> Self {
        Self { reach: Some(Box::default()), ..self }
    }

    /// Whether it tells on stderr what it takes in.
    pub fn is_told(&self) -> bool {
        self.told
    }

    /// Something happened at `now` to `node`: what it was, and its bytes.
    pub fn note(&mut self, now: Millis, node: usize, what: &str, bytes: &[u8]) {
        for number in [now, node as u64, what.len() as u64, bytes.len() as u64] {
            self.hasher.update(&number.to_le_bytes());
        }
        self.hasher.update(what.as_bytes());
        self.hasher.update(bytes);
    }

    /// Says something for people only.
    pub fn tell(&self, now: Millis, line: impl FnOnce() -> String) {
        if self.told {
            eprintln!("{now:>7}  {}", line());
        }
    }

    /// Adds something to the story, if one is recorded.
    pub fn record(&mut self, add: impl FnOnce(&mut Story)) {
        if let Some(story) = &mut self.story {
            add(story);
        }
    }

    /// Whether a story is recorded: worth asking before anything is put into words.
    pub fn is_recording(&self) -> bool {
        self.story.is_some()
    }

    /// A fault struck where these phases were under way.
    pub fn strike(&mut self, fault: &'static str, phases: &[Phase]) {
        if let Some(reach) = &mut self.reach {
            phases.iter().for_each(|phase| reach.strike(fault, *phase));
        }
    }

    /// Whether faults are counted: worth asking before phases are found out.
    pub fn is_counting(&self) -> bool {
        self.reach.is_some()
    }

    /// The hash of everything so far.
    pub fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }

    /// The story that was recorded.
    pub fn into_story(self) -> Option<Story> {
        self.story.map(|story| *story)
    }

    /// What was counted.
    pub fn into_reach(self) -> Option<Reach> {
        self.reach.map(|reach| *reach)
    }
}
