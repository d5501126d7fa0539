//! The level `model`: everything that can become of a few operations on two or three nodes, each order of each
//! delivery, commit, read, timer and fault, with the product's replica and ledger as they are.
//!
//! # What a scenario says here
//!
//! The items at 0 are the set-up: each is done in one way to its end before anything is explored; what is dropped or
//! crashed at 0 begins so. All other items happen at any moment, whatever their time: those of users in their order at each
//! node, and each in the end; faults at any moment, or never. Delays and speeds mean nothing, since every one of them is
//! among what is explored.
//!
//! | choice | what it is |
//! |---|---|
//! | a message comes | the next one of one channel of one session |
//! | a commit lands | all that waits for the disk until then; nobody knows yet |
//! | a commit is reported | the replica hears of the oldest that it does not know of |
//! | a read sees the disk, a read is answered | two moments, as for the threads of a node |
//! | a timer is due | time passes for one node, until its next timer |
//! | a session is made, a session is noticed to be gone | the latter by each side for itself |
//! | a process starts | whenever there is none |
//! | a user acts | a write, a ticket |
//! | a fault | a crash, a session that breaks, a commit that fails, a disk that is put back, a message that weather befalls |
//!
//! # Time
//!
//! A node's clock stands still but for its own timers: when one is due, that much time has passed there. Clocks of
//! different nodes say nothing of one another. So every order of a timer and of anything else is explored, but for
//! two timers of one node, which keep theirs. Timers longer than half of `stall` are held to be longer than everything
//! else takes: they are due only when nodes and network have nothing left to do. Where no fault is among the items,
//! that must never come to pass.
//!
//! After each step a replica is rebased ([`thence::replica::Replica::rebase`]), so that what is explored is how far off
//! timers are and not when: that makes the space finite.
//!
//! # What is checked
//!
//! At every step of a node, what must hold within a node: the equation, causal order, durability, true claims, commit
//! before send, trespass, the window, the feed, totals and indexes, and that a ledger remembers what it would find if it
//! were opened anew. In every state, what must hold between nodes: one dot is one event, and what is believed of peers.
//! At every end, in which nothing can happen any more: convergence, liveness, that what was acknowledged is everywhere.
//! And of the whole, if there is no more of it: that there is no way without a fault that goes on for ever.
//!
//! What it does not do: no QUIC, no redb, no loop of the product's own; no hostile nodes; nothing that needs more than a
//! few operations to go wrong. That is what the other levels are for.

mod choice;
mod explorer;
mod failure;
mod generate;
mod line;
mod local;
mod platter;
mod pool;
mod scope;
mod turn;
mod words;
mod world;

use self::explorer::Explorer;
pub use self::explorer::{Extent, NODES_MAX};
use self::failure::Failure;
pub use self::generate::{FAULTS, generate};
pub use self::scope::{SCOPES, Scope};
use crate::level::Outcome;
use crate::oracles::{Broken, Violation};
use crate::world::{Scenario, Trace, What};

/// How many states are explored of a scenario of which nothing else is said.
pub const STATES_MAX: usize = 30_000;

/// How many items a scenario may have: a bit each.
const ITEMS_MAX: usize = 32;

/// Explores a scenario. If the trace tells, what goes wrong is told on stderr, choice by choice.
pub fn run(scenario: &Scenario, trace: &mut Trace) -> Outcome {
    explore(scenario, STATES_MAX, trace.is_told()).0
}

/// Explores a scenario up to a number of states. The first violation that is found takes the fewest choices.
pub fn explore(scenario: &Scenario, states_max: usize, told: bool) -> (Outcome, Extent) {
    if let Some(detail) = unfit(scenario) {
        let violation = Some(Violation { invariant: "a scenario of this level", at: 0, node: None, detail });
        let outcome = Outcome { hash: [0; 32], violation, ended_at: 0, events: 0, messages: 0, steps: 0 };
        return (outcome, Extent::default());
    }
    let mut explorer = Explorer::new(scenario);
    // A panic is a failure like any other: to be replayed and shrunk.
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
        eprintln!("{extent}");
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
                | What::Weather { .. }
                | What::Drop { .. }
                | What::Save { .. }
                | What::PutBack { .. }
                | What::DiskFails { .. }
        )
    };
    let unfit = items.iter().find(|item| !fits(&item.what))?;
    Some(format!("{:?} says nothing where all delays and orders are explored; take it out", unfit.what.to_string()))
}
