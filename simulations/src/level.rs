//! How much of the node is real: the same seeds, scenarios and outcomes at every level.

use std::fmt;
use std::str::FromStr;

use crate::core;
use crate::oracles::Violation;
use crate::world::{Millis, Scenario};

/// How much of the node is real.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Replica and ledger, over virtual network, disk and time.
    Core,
    /// The same over real redb on a medium that fails.
    Store,
}

impl Level {
    /// All of them, the cheapest first.
    pub const ALL: &[Self] = &[Self::Core, Self::Store];

    /// What commands call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Core => "core",
            Self::Store => "store",
        }
    }

    /// The scenario that `seed` stands for at this level.
    pub fn generate(self, seed: u64, shape: &Shape) -> Scenario {
        match self {
            Self::Core | Self::Store => core::generate(self, seed, shape),
        }
    }
}

/// What a caller wants of a generated scenario.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// How many nodes; drawn if none.
    pub nodes: Option<usize>,
    /// Which faults may be drawn; all if none.
    pub faults: Option<Vec<String>>,
}

/// How a world ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The hash of everything that happened.
    pub hash: [u8; 32],
    /// The first invariant that did not hold.
    pub violation: Option<Violation>,
    /// When it ended.
    pub ended_at: Millis,
    /// How many events were written.
    pub events: usize,
    /// How many messages were sent.
    pub messages: u64,
    /// How many things happened.
    pub steps: u64,
}

/// Runs a scenario at its level. If `told`, what happens is told on stderr.
pub fn run(scenario: &Scenario, told: bool) -> Outcome {
    match scenario.level {
        Level::Core | Level::Store => core::run(scenario, told),
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|level| level.name() == text);
        found.copied().ok_or_else(|| format!("{text:?} is no level"))
    }
}
