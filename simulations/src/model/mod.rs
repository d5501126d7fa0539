//! The level `model`: every interleaving of a small scenario, with the product's replica and ledger as they are.
mod choice;
mod explorer;
mod failure;
mod generate;
mod line;
mod local;
mod platter;
mod pool;
mod turn;
mod words;
mod world;

pub use self::explorer::Extent;
use self::explorer::{Explorer, NODES_MAX};
use self::failure::Failure;
pub use self::generate::{FAULTS, generate};
use crate::level::Outcome;
use crate::oracles::{Broken, Violation};
use crate::world::{Scenario, Trace, What};

/// How many states a seed is explored to.
const STATES_MAX: usize = 100_000;

/// How many items a scenario may have: a bit each.
const ITEMS_MAX: usize = 32;

/// Explores a scenario. If the trace tells, what goes wrong is told on stderr, choice by choice.
pub fn run(scenario: &Scenario, trace: &mut Trace) -> Outcome {
    explore(scenario, STATES_MAX, trace.is_told()).0
}

/// Explores a scenario up to a number of states.
pub fn explore(scenario: &Scenario, states_max: usize, told: bool) -> (Outcome, Extent) {
    if let Some(detail) = unfit(scenario) {
        let violation = Some(Violation { invariant: "a scenario of this level", at: 0, node: None, detail });
        let outcome = Outcome { hash: [0; 32], violation, ended_at: 0, events: 0, messages: 0, steps: 0 };
        return (outcome, Extent::default());
    }
    let mut explorer = Explorer::new(scenario);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| explorer.explore(states_max)));
    let failure = match ended {
        Ok(ended) => ended.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Some(Broken { invariant: "no panic", detail: text.unwrap_or_default() }.into())
        }
    };
    let violation = failure.map(|Failure { node, broken: Broken { invariant, detail } }| {
        let way = explorer.way();
        if told {
            way.iter().zip(1..).for_each(|(choice, number): (_, u32)| eprintln!("{number:>3}  {choice}"));
        }
        Violation { invariant, at: 0, node, detail: format!("{detail} (after {} choices)", way.len()) }
    });
    let extent = explorer.extent.clone();
    if told {
        eprintln!("{extent:?}");
    }
    let outcome = Outcome {
        hash: *explorer.world.seen.finalize().as_bytes(),
        violation,
        ended_at: 0,
        events: explorer.world.history.event_count(),
        messages: explorer.world.frames.len() as u64,
        steps: extent.transitions,
    };
    (outcome, extent)
}

/// Why a scenario cannot be explored.
fn unfit(scenario: &Scenario) -> Option<String> {
    let Scenario { nodes, edges, items, .. } = scenario;
    if *nodes > NODES_MAX || edges.len() > NODES_MAX || items.len() > ITEMS_MAX {
        return Some(format!("at most {NODES_MAX} nodes, {NODES_MAX} edges and {ITEMS_MAX} items can be explored"));
    }
    let fits = |what: &What| {
        matches!(
            what,
            What::Write { .. }
                | What::Redeem { .. }
                | What::Crash { .. }
                | What::Drop { .. }
                | What::Save { .. }
                | What::PutBack { .. }
                | What::DiskFails { .. }
        )
    };
    let unfit = items.iter().find(|item| !fits(&item.what))?;
    Some(format!("{:?} says nothing where all delays and orders are explored; take it out", unfit.what.to_string()))
}
