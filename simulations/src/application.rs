//! Worlds of one's own: what an application writes, and what it counts on.
//!
//! Nodes, network, disks and faults are those of the level `core`, and so are its oracles; users write what the
//! application says, and its own invariant is checked beside the others. A seed stands for one world, so a failure is
//! replayed, shrunk and drawn like any other: `examples/own_world.rs` shows all of it.

use std::marker::PhantomData;

use thence::model::Request;
use thence::store::View;

use crate::core;
use crate::level::{Level, Outcome, Shape, Worlds};
use crate::world::{Chance, Draws, Scenario, Trace, What};

/// What an application's invariant is called among others.
pub const APPLICATION: &str = "the application's own";

/// An application on top of thence: what its users write, and what must hold for them.
///
/// One value of it sees one world from its beginning to its end, so it may remember things.
pub trait Application {
    /// The transaction of one user at one moment. Take whatever is random from `draws`, and from nothing else.
    fn transaction(&mut self, draws: &mut Draws) -> Vec<Request>;

    /// What must hold at each node after each commit, as a user of that node would see it.
    ///
    /// Nodes know more or less than one another at that time: this is where one finds out what does not hold while
    /// they are apart.
    fn after_commit(&mut self, node: usize, view: &View) -> Result<(), String> {
        let (_, _) = (node, view);
        Ok(())
    }

    /// What must hold in the end, when all faults are over and every node has everything. Called once for each space
    /// with all its nodes.
    fn in_the_end(&mut self, views: &[(usize, View)]) -> Result<(), String> {
        let _ = views;
        Ok(())
    }

    /// The faults that its worlds may have. Unless told otherwise, those in which every store is honest and keeps what
    /// it wrote.
    fn faults() -> &'static [&'static str]
    where
        Self: Sized,
    {
        &["loss", "duplicate", "reorder", "delay", "cut", "one-way", "drop", "crash", "disk", "slow-disk"]
    }
}

/// The worlds of an application.
#[derive(Debug)]
pub struct WorldsOf<A>(PhantomData<fn() -> A>);

impl<A> Default for WorldsOf<A> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<A: Application + Default> Worlds for WorldsOf<A> {
    fn levels(&self) -> &'static [Level] {
        &[Level::Core]
    }

    fn faults(&self, _: Level) -> &'static [&'static str] {
        A::faults()
    }

    fn generate(&self, level: Level, seed: u64, shape: &Shape) -> Scenario {
        let allowed = A::faults().iter().map(|fault| (*fault).to_owned());
        let wanted = |fault: &String| shape.faults.as_ref().is_none_or(|faults| faults.contains(fault));
        let shape = Shape { faults: Some(allowed.filter(wanted).collect()), ..shape.clone() };
        let mut scenario = level.generate(seed, &shape);
        // What clients of the product's own worlds write is nothing that the application would.
        scenario.items.retain(|item| !matches!(item.what, What::Upload { .. }));
        // What an application counts on need not hold of what its users throw away.
        scenario.items.retain(|item| !matches!(item.what, What::Wipe { .. }));
        let (chance, mut application) = (Chance::new(seed), A::default());
        for (number, item) in (0..).zip(&mut scenario.items) {
            if let What::Write { requests, .. } = &mut item.what {
                *requests = application.transaction(&mut chance.draws("transaction of an application", number));
            }
        }
        scenario
    }

    fn run(&self, scenario: &Scenario, trace: &mut Trace) -> Outcome {
        core::run_with(scenario, trace, Some(&mut A::default()))
    }

    fn command(&self) -> String {
        std::env::args().next().unwrap_or_default()
    }
}
