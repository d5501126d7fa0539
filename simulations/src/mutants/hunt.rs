//! The hunt for one mutant: seed by seed, until an oracle objects; and at last in the regression that is named for it.

use std::time::{Duration, Instant};

use super::Mutant;
use crate::level::{Shape, run};
use crate::world::Scenario;

/// A world that shows a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaughtIn {
    /// That of a seed.
    Seed(u64),
    /// A regression, by its name.
    Regression(&'static str),
}

/// A mutant that was caught.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catch {
    /// The world that shows it.
    pub world: CaughtIn,
    /// The invariant that broke.
    pub invariant: &'static str,
}

/// What came of a hunt.
#[derive(Clone, Debug)]
pub struct Hunted {
    /// For whom.
    pub mutant: &'static Mutant,
    /// Whether it was caught.
    pub catch: Option<Catch>,
    /// How many seeds were tried.
    pub seeds: u64,
    /// How long it took.
    pub took: Duration,
}

impl Hunted {
    /// Whether it was caught by an oracle that was expected to.
    pub fn is_expected(&self) -> bool {
        self.catch.as_ref().is_some_and(|catch| self.mutant.oracles.contains(&catch.invariant))
    }
}

/// This build has no planted bugs in it: it was made without debug assertions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPlanting;

impl std::fmt::Display for NoPlanting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("this build has no planted bugs in it: run it as `cargo sim`, or with --profile simulation")
    }
}

impl std::error::Error for NoPlanting {}

/// Whether this build has planted bugs in it.
pub fn is_possible() -> Result<(), NoPlanting> {
    if cfg!(debug_assertions) { Ok(()) } else { Err(NoPlanting) }
}

/// A bug of the product that is planted on this thread for as long as this lives.
#[derive(Debug)]
pub struct Planting(());

impl Planting {
    /// Plants the bug of this name.
    pub fn of(mutant: &Mutant) -> Result<Self, NoPlanting> {
        is_possible()?;
        plant(Some(mutant.name));
        Ok(Self(()))
    }
}

impl Drop for Planting {
    fn drop(&mut self) {
        plant(None);
    }
}

#[cfg(debug_assertions)]
fn plant(name: Option<&'static str>) {
    thence::planted::plant(name);
}

#[cfg(not(debug_assertions))]
fn plant(_: Option<&'static str>) {}

/// The invariant that breaks in a world with the mutant and holds without it, if one does.
fn breaks(mutant: &Mutant, scenario: &Scenario) -> Result<Option<&'static str>, NoPlanting> {
    let violation = {
        let _planting = Planting::of(mutant)?;
        run(scenario, false).violation
    };
    // A world that fails anyhow shows nothing.
    Ok(violation.filter(|_| run(scenario, false).violation.is_none()).map(|violation| violation.invariant))
}

/// Whether the regression that is named for a mutant shows it.
pub fn show(mutant: &'static Mutant) -> Result<Option<Catch>, NoPlanting> {
    let Some(regression) = mutant.regression else { return Ok(None) };
    // What cannot be read shows nothing; the tests say so.
    let Ok(scenario) = regression.text.parse::<Scenario>() else { return Ok(None) };
    let invariant = breaks(mutant, &scenario)?;
    Ok(invariant.map(|invariant| Catch { world: CaughtIn::Regression(regression.name), invariant }))
}

/// Tries seeds from 1 on until one shows the mutant, unless none can.
pub fn hunt(mutant: &'static Mutant) -> Result<Hunted, NoPlanting> {
    let started = Instant::now();
    if mutant.out_of_reach.is_some() {
        return Ok(Hunted { mutant, catch: None, seeds: 0, took: started.elapsed() });
    }
    let faults = mutant.faults.iter().chain([&crate::core::WIPE]).map(|fault| (*fault).to_owned()).collect();
    let shape = Shape { faults: Some(faults), ..Shape::default() };
    for seed in 1..=mutant.seeds {
        if let Some(invariant) = breaks(mutant, &mutant.level.generate(seed, &shape))? {
            let catch = Some(Catch { world: CaughtIn::Seed(seed), invariant });
            return Ok(Hunted { mutant, catch, seeds: seed, took: started.elapsed() });
        }
    }
    Ok(Hunted { mutant, catch: show(mutant)?, seeds: mutant.seeds, took: started.elapsed() })
}
