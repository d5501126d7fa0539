//! Mutants: bugs that are planted in the product, one at a time, to see whether the oracles catch them.
//!
//! A simulation that finds nothing proves nothing, unless one knows what it would have found. Each mutant is a place in
//! the product where `planted!("name")` stands beside the right code; a run plants one of them on its thread and tries
//! seeds until an oracle objects. What then counts as caught is a world that fails with the bug and holds without it.
//!
//! Some need so much to come together that hardly any seed shows them. Where a failure of the kind has been found, its
//! regression is named, and is run where seeds have shown nothing: it runs with the tests at every commit. And a few are
//! out of reach of all that these worlds can do; the table says why.
//!
//! **Invariant**: a mutant that nothing catches leads to a better workload or a better oracle, not to its removal.
//!
//! What it does not do: mutate code by rule. Each of these is a mistake that somebody might have made, and has a
//! sentence that says what a user would have suffered from it.

mod hunt;
mod report;
mod table;

pub use self::hunt::{Catch, CaughtIn, Hunted, NoPlanting, Planting, hunt, is_possible, show};
pub use self::report::{commit_number, run, sample};
pub use self::table::AREAS;
use crate::level::Level;

/// A bug that is planted in the product.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// What `planted!` calls it.
    pub name: &'static str,
    /// What a user would have suffered.
    pub suffered: &'static str,
    /// The invariants that are expected to break.
    pub oracles: &'static [&'static str],
    /// At which level it is hunted.
    pub level: Level,
    /// Which faults may be drawn in the hunt.
    pub faults: &'static [&'static str],
    /// After so many seeds the hunt is given up.
    pub seeds: u64,
    /// A world that shows it, where those that are drawn seldom do.
    pub regression: Option<Regression>,
    /// Why no world can show it, where that is known: then it is not hunted, and not counted as caught either.
    pub out_of_reach: Option<&'static str>,
}

/// A world that failed once, as a mistake that somebody did make.
#[derive(Clone, Copy, Debug)]
pub struct Regression {
    /// The file in `regressions`, without its ending.
    pub name: &'static str,
    /// The scenario.
    pub text: &'static str,
}

/// Bugs that break the same thing.
#[derive(Clone, Copy, Debug)]
pub struct Area {
    /// What they break.
    pub name: &'static str,
    /// The bugs.
    pub mutants: &'static [Mutant],
}

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Mutant> {
    AREAS.iter().flat_map(|area| area.mutants)
}

/// The one of this name.
pub fn find(name: &str) -> Result<&'static Mutant, String> {
    all()
        .find(|mutant| mutant.name == name)
        .ok_or_else(|| format!("{name:?} is no mutant: `cargo sim mutants` lists them"))
}

/// Plants the bug of this name on this thread.
pub fn plant(name: &str) -> Result<Planting, String> {
    find(name).and_then(|mutant| Planting::of(mutant).map_err(|error| error.to_string()))
}
