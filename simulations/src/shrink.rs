//! A failing scenario with fewer items that still fails in the same way.
//!
//! Delta debugging (Zeller, Hildebrandt, *Simplifying and Isolating Failure-Inducing Input*, TSE 2002): larger pieces
//! are taken out first, then smaller ones, as long as the same invariant breaks.

use serde_json::Value as Json;

use crate::level::{Outcome, run};
use crate::world::{Scenario, What};

/// The smallest scenario that was found to break the same invariant as `outcome` did.
pub fn shrink(scenario: &Scenario, outcome: &Outcome) -> Scenario {
    let mut best = scenario.clone();
    let Some(invariant) = outcome.violation.as_ref().map(|violation| violation.invariant) else { return best };
    let still_fails = |candidate: &Scenario| run(candidate, false).violation.is_some_and(|v| v.invariant == invariant);
    let mut size = best.items.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut removed = false;
        while at < best.items.len() {
            let mut candidate = best.clone();
            candidate.items.drain(at..(at + size).min(best.items.len()));
            if still_fails(&candidate) {
                best = candidate;
                removed = true;
            } else {
                at += size;
            }
        }
        if size == 1 && !removed {
            break;
        }
        size = (size / 2).max(1);
    }
    simplify_writes(&mut best, &still_fails);
    // A shorter wait before the faults end.
    if let Some(last) = best.items.last().map(|item| item.at) {
        let mut candidate = best.clone();
        candidate.quiet_at = last + 1;
        if still_fails(&candidate) {
            best = candidate;
        }
    }
    best
}

/// Takes requests out of transactions that hold several.
fn simplify_writes(best: &mut Scenario, still_fails: &dyn Fn(&Scenario) -> bool) {
    for at in 0..best.items.len() {
        let mut index = 0;
        loop {
            let mut candidate = best.clone();
            let What::Write { requests, .. } = &mut candidate.items[at].what else { break };
            if requests.len() < 2 || index >= requests.len() {
                break;
            }
            requests.remove(index);
            if still_fails(&candidate) {
                *best = candidate;
            } else {
                index += 1;
            }
        }
        // The simplest write that there is, where it does not matter what is written.
        let mut candidate = best.clone();
        if let What::Write { requests, .. } = &mut candidate.items[at].what
            && let [request] = requests.as_mut_slice()
        {
            let fields = serde_json::Map::from_iter([("title".to_owned(), Json::from(at))]);
            request.operation = thence::model::Operation::Put(fields);
            if still_fails(&candidate) {
                *best = candidate;
            }
        }
    }
}
