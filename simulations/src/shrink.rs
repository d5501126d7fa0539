//! A failing scenario with fewer items that still fails in the same way.
//!
//! Delta debugging (Zeller, Hildebrandt, *Simplifying and Isolating Failure-Inducing Input*, TSE 2002): larger pieces
//! are taken out first, then smaller ones, as long as the same invariant breaks. Then nodes, spaces and connections go,
//! or become one; then what is left is made plain. What a scenario leaves open (the fate of single messages) is drawn
//! anew a few times where it stands in the way: a scenario that fails under one seed is as good as under another.
//!
//! **Invariant**: what is returned was run, and broke the invariant that it was to break.
//!
//! What it does not do: find the least scenario that there is. It ends when nothing that it tries helps, or in time.

use std::time::{Duration, Instant};

use serde_json::Value as Json;
use thence::replica::Limits;

use crate::level::{Outcome, Product, Worlds};
use crate::world::{Item, Scenario, Trace, Weather, What};

/// As long as a person waits.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// So many other seeds are tried where one does not fail.
const OTHER_SEEDS: u64 = 6;

/// The smallest scenario that was found to break the same invariant as `outcome` did.
pub fn shrink(scenario: &Scenario, outcome: &Outcome) -> Scenario {
    shrink_in(&Product, scenario, outcome, PATIENCE)
}

/// The same, in worlds of another kind and within some time.
pub fn shrink_in(worlds: &dyn Worlds, scenario: &Scenario, outcome: &Outcome, patience: Duration) -> Scenario {
    let Some(violation) = &outcome.violation else { return scenario.clone() };
    let until = Instant::now() + patience;
    let mut hunt = Hunt { worlds, invariant: violation.invariant, until, best: scenario.clone(), other_seeds: 0 };
    hunt.end_at(violation.at);
    for other_seeds in [0, OTHER_SEEDS] {
        hunt.other_seeds = other_seeds;
        loop {
            let before = hunt.weight();
            hunt.remove_items();
            hunt.join_nodes();
            hunt.join_spaces();
            hunt.remove_edges();
            hunt.remove_pairs();
            hunt.make_writes_plain();
            if hunt.weight() >= before {
                break;
            }
        }
        hunt.make_weather_plain();
        hunt.make_times_plain();
    }
    hunt.remove_items();
    hunt.best
}

struct Hunt<'a> {
    worlds: &'a dyn Worlds,
    invariant: &'static str,
    until: Instant,
    best: Scenario,
    /// How many other seeds are tried where that of the scenario does not fail.
    other_seeds: u64,
}

impl Hunt<'_> {
    /// Takes `candidate` if it fails in the same way. Returns whether it does.
    fn take(&mut self, mut candidate: Scenario) -> bool {
        // Nodes that cannot meet are never in step: that fails, and says nothing.
        if candidate.parts() > self.best.parts() {
            return false;
        }
        let original = candidate.seed;
        for seed in std::iter::once(original).chain(1..=self.other_seeds) {
            if Instant::now() >= self.until {
                return false;
            }
            candidate.seed = seed;
            let outcome = self.worlds.run(&candidate, &mut Trace::default());
            if outcome.violation.is_some_and(|violation| violation.invariant == self.invariant) {
                self.best = candidate;
                return true;
            }
        }
        false
    }

    /// Tries a change. Returns whether it was taken.
    fn try_to(&mut self, change: impl FnOnce(&mut Scenario)) -> bool {
        let mut candidate = self.best.clone();
        change(&mut candidate);
        self.take(candidate)
    }

    /// What gets less while there is progress.
    fn weight(&self) -> usize {
        let Scenario { items, nodes, spaces, edges, .. } = &self.best;
        let requests: usize = items.iter().map(|item| item.what.requests()).sum();
        items.len() + nodes + spaces + edges.len() + requests
    }

    /// What comes after the failure is not its cause. An end before it may be.
    fn end_at(&mut self, failed_at: u64) {
        self.try_to(|scenario| scenario.items.retain(|item| item.at <= failed_at));
    }

    fn remove_items(&mut self) {
        let mut size = self.best.items.len().div_ceil(2).max(1);
        loop {
            let (mut at, mut removed) = (0, false);
            while at < self.best.items.len() {
                let end = (at + size).min(self.best.items.len());
                if self.try_to(|scenario| drop(scenario.items.drain(at..end))) {
                    removed = true;
                } else {
                    at += size;
                }
            }
            if size == 1 && !removed || Instant::now() >= self.until {
                break;
            }
            size = (size / 2).max(1);
        }
    }

    /// A node that nobody needs goes. One that only stands between others becomes one with one of them.
    fn join_nodes(&mut self) {
        let mut node = self.best.nodes.saturating_sub(1);
        while node > 0 {
            let gone = self.try_to(|scenario| {
                scenario.items.retain(|item| !item.what.nodes().contains(&node));
                scenario.edges.retain(|(a, b)| *a != node && *b != node);
                scenario.rename_nodes(|other| if other >= node { other - 1 } else { other });
            });
            if !gone {
                for into in 0..node {
                    let joined = self.try_to(|scenario| {
                        scenario.rename_nodes(|other| match other {
                            other if other == node => into,
                            other if other > node => other - 1,
                            other => other,
                        });
                        scenario.drop_nonsense();
                    });
                    if joined {
                        break;
                    }
                }
            }
            node -= 1;
        }
    }

    fn join_spaces(&mut self) {
        for gone in (1..self.best.spaces).rev() {
            let rename = |space: &mut usize| {
                *space = if *space == gone { 0 } else { *space - usize::from(*space > gone) };
            };
            self.try_to(|scenario| {
                scenario.items.iter_mut().filter_map(|item| item.what.space_mut()).for_each(rename);
                scenario.spaces -= 1;
                scenario.drop_nonsense();
            });
        }
    }

    fn remove_edges(&mut self) {
        let mut at = 0;
        while at < self.best.edges.len() {
            if !self.try_to(|scenario| _ = scenario.edges.remove(at)) {
                at += 1;
            }
        }
    }

    /// Two items that only make sense together, such as a cut and its healing.
    fn remove_pairs(&mut self) {
        let mut first = 0;
        while first < self.best.items.len() {
            let nodes = self.best.items[first].what.nodes();
            let partner = (first + 1..self.best.items.len()).find(|second| {
                let second = &self.best.items[*second].what;
                second.requests() == 0 && second.nodes() == nodes
            });
            let removed = partner.is_some_and(|second| {
                self.try_to(|scenario| {
                    scenario.items.remove(second);
                    scenario.items.remove(first);
                })
            });
            if !removed {
                first += 1;
            }
        }
    }

    /// Takes requests out of transactions that hold several, and makes the last one as plain as it can be.
    fn make_writes_plain(&mut self) {
        for at in 0..self.best.items.len() {
            let mut index = 0;
            while self.best.items[at].what.requests() > 1 && index < self.best.items[at].what.requests() {
                let removed = self.try_to(|scenario| {
                    if let Some(requests) = scenario.items[at].what.requests_mut() {
                        requests.remove(index);
                    }
                });
                index += usize::from(!removed);
            }
            let plain = serde_json::Map::from_iter([("title".to_owned(), Json::from(at))]);
            let plain = thence::model::Operation::Put(plain);
            if let What::Write { requests, .. } = &self.best.items[at].what
                && let [request] = requests.as_slice()
                && request.operation != plain
            {
                self.try_to(|scenario| {
                    if let What::Write { requests, .. } = &mut scenario.items[at].what {
                        requests[0].operation = plain;
                    }
                });
            }
        }
    }

    /// What the world is like, as plain as it can be.
    fn make_weather_plain(&mut self) {
        self.try_to(|scenario| scenario.weather = Weather { delay_ms: (5, 5), loss: 0, duplicate: 0, reorder: 0 });
        self.try_to(|scenario| scenario.disk_ms = (2, 2));
        let Limits { window_bytes_max, frame_bytes_max, eager_vector_len_max, .. } = Limits::default();
        self.try_to(|scenario| {
            let limits = &mut scenario.limits;
            limits.window_bytes_max = window_bytes_max;
            limits.frame_bytes_max = frame_bytes_max;
        });
        self.try_to(|scenario| scenario.limits.eager_vector_len_max = eager_vector_len_max);
        self.try_to(|scenario| scenario.idle_ms = 1000);
        for at in 0..self.best.items.len() {
            for plainer in 0..3 {
                let What::Weather { weather, .. } = &self.best.items[at].what else { break };
                let mut plain = *weather;
                *[&mut plain.loss, &mut plain.duplicate, &mut plain.reorder][plainer] = 0;
                if plain != *weather {
                    self.try_to(|scenario| {
                        if let What::Weather { weather, .. } = &mut scenario.items[at].what {
                            *weather = plain;
                        }
                    });
                }
            }
        }
    }

    /// Round times, no longer pauses than it takes.
    fn make_times_plain(&mut self) {
        if let Some(last) = self.best.items.last().map(|item| item.at)
            && self.best.quiet_at > last + 1
        {
            let tidy = [last + 1, (last / 100 + 1) * 100, last + 500];
            let earlier: Vec<u64> = tidy.into_iter().filter(|at| *at < self.best.quiet_at).collect();
            for quiet_at in earlier {
                if self.try_to(|scenario| scenario.quiet_at = quiet_at) {
                    break;
                }
            }
        }
        let rest = |scenario: &mut Scenario, from: usize, earlier: u64| {
            // A level without time has a quiet from the beginning.
            scenario.items[from..].iter_mut().for_each(|item: &mut Item| item.at = item.at.saturating_sub(earlier));
            scenario.quiet_at = scenario.quiet_at.saturating_sub(earlier);
        };
        for at in 0..self.best.items.len() {
            let before = if at == 0 { 0 } else { self.best.items[at - 1].at };
            let pause = self.best.items[at].at.saturating_sub(before);
            for shorter in [0, 10, 50, 100, 200, 500, 1000, pause / 100 * 100, pause / 10 * 10] {
                if shorter < pause && self.try_to(|scenario| rest(scenario, at, pause - shorter)) {
                    break;
                }
            }
        }
    }
}
