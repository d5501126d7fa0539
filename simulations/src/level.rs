//! How much of the node is real: the same seeds, scenarios and outcomes at every level.

use std::fmt;
use std::str::FromStr;

use crate::core;
use crate::model;
use crate::node;
use crate::oracles::Violation;
use crate::world::{Millis, Scenario, Trace};

/// How much of the node is real.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Replica and ledger: every interleaving of few operations.
    Model,
    /// Replica and ledger, over virtual network, disk and time.
    Core,
    /// The same over real redb on a medium that fails.
    Store,
    /// The node's own loop, real QUIC and real TLS, over virtual datagrams, disk and time.
    Node,
}

impl Level {
    /// All of them, the cheapest first.
    pub const ALL: &[Self] = &[Self::Model, Self::Core, Self::Store, Self::Node];

    /// What commands call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Core => "core",
            Self::Store => "store",
            Self::Node => "node",
        }
    }

    /// The faults that its seeds draw from.
    pub fn faults(self) -> &'static [&'static str] {
        match self {
            Self::Model => model::FAULTS,
            Self::Core => core::FAULTS,
            Self::Store => core::FAULTS_OF_STORES,
            Self::Node => node::FAULTS,
        }
    }

    /// The scenario that `seed` stands for at this level.
    pub fn generate(self, seed: u64, shape: &Shape) -> Scenario {
        match self {
            Self::Model => model::generate(seed, shape),
            Self::Core | Self::Store => core::generate(self, seed, shape),
            Self::Node => node::generate(seed, shape),
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
    observe(scenario, &mut Trace::new(told))
}

/// Runs a scenario at its level. The trace says what is kept of it.
pub fn observe(scenario: &Scenario, trace: &mut Trace) -> Outcome {
    match scenario.level {
        Level::Model => model::run(scenario, trace),
        Level::Core | Level::Store => core::run(scenario, trace),
        Level::Node => node::run(scenario, trace),
    }
}

/// What there is to run: worlds by level and seed.
pub trait Worlds: Sync {
    /// The levels that there are, the cheapest first.
    fn levels(&self) -> &'static [Level];

    /// The faults that a level's seeds draw from.
    fn faults(&self, level: Level) -> &'static [&'static str];

    /// The scenario that a seed stands for.
    fn generate(&self, level: Level, seed: u64, shape: &Shape) -> Scenario;

    /// Runs a scenario. The trace says what is kept of it.
    fn run(&self, scenario: &Scenario, trace: &mut Trace) -> Outcome;

    /// What one types to run them.
    fn command(&self) -> String {
        "cargo sim".to_owned()
    }
}

/// The worlds that try thence itself.
#[derive(Clone, Copy, Debug)]
pub struct Product;

impl Worlds for Product {
    fn levels(&self) -> &'static [Level] {
        Level::ALL
    }

    fn faults(&self, level: Level) -> &'static [&'static str] {
        level.faults()
    }

    fn generate(&self, level: Level, seed: u64, shape: &Shape) -> Scenario {
        level.generate(seed, shape)
    }

    fn run(&self, scenario: &Scenario, trace: &mut Trace) -> Outcome {
        observe(scenario, trace)
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
