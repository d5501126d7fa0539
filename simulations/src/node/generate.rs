//! From a seed to a scenario of this level: what the core level draws, at the pace of real connections, and the faults
//! that only datagrams, addresses, processes and clocks have.

use crate::core;
use crate::level::{Level, Shape};
use crate::world::{Chance, Item, Millis, Scenario, What};

/// The kinds of faults that a seed draws from.
pub const FAULTS: &[&str] = &[
    "loss",
    "duplicate",
    "reorder",
    "delay",
    "cut",
    "one-way",
    "drop",
    "crash",
    "disk",
    "slow-disk",
    "put-back",
    "copy",
    "crash-at",
    "io-error",
    "full",
    "damage",
    "narrow",
    "move",
    "pause",
    "clock",
];

/// Of these, those that only this level has.
const OWN_FAULTS: &[&str] = &["damage", "narrow", "move", "pause", "clock"];

/// And those that it shares with the levels below.
const FAULTS_OF_CORE: &[&str] = &[
    "loss",
    "duplicate",
    "reorder",
    "delay",
    "cut",
    "one-way",
    "drop",
    "crash",
    "disk",
    "slow-disk",
    "put-back",
    "copy",
    "crash-at",
    "io-error",
    "full",
];

/// Times are so much longer than at the core level: a connection takes seconds to be found dead.
const PACE: Millis = 8;

/// The scenario that `seed` stands for.
pub fn generate(seed: u64, shape: &Shape) -> Scenario {
    let allowed = |fault: &&str| shape.faults.as_ref().is_none_or(|faults| faults.iter().any(|of| of == fault));
    let of_core = FAULTS_OF_CORE.iter().filter(|fault| allowed(fault)).map(|fault| (*fault).to_owned()).collect();
    let mut scenario = core::generate(Level::Node, seed, &Shape { nodes: shape.nodes, faults: Some(of_core) });
    forget_copies_of_the_dialled(&mut scenario);
    scenario.items.retain(|item| !matches!(item.what, What::Wipe { .. }));
    scenario.quiet_at *= PACE;
    for Item { at, what } in &mut scenario.items {
        *at *= PACE;
        if let What::Weather { weather, .. } = what {
            // Loss inside a session is ordinary here, and QUIC mends it; so much of it would only be a cut.
            weather.loss = weather.loss.min(250);
            weather.delay_ms.1 = weather.delay_ms.1.min(1_500);
        }
    }
    let chance = Chance::new(seed);
    let mut swarm = chance.draws("swarm of nodes", 0);
    let share = *swarm.pick(&[150, 350, 600]);
    for fault in OWN_FAULTS {
        if swarm.yes(share) && allowed(fault) {
            harm(chance, fault, &mut scenario);
        }
    }
    scenario.items.sort_by_key(|item| item.at);
    scenario
}

/// A device is dialled only while no store of it is connected. So whoever waits to be dialled, and is copied onto one
/// that dials, may be away for as long as the copy is there: that is how it is, and nothing to be expected otherwise.
fn forget_copies_of_the_dialled(scenario: &mut Scenario) {
    let copied = scenario.items.iter().find_map(|item| match item.what {
        What::Copy { node, onto } => Some((node, onto)),
        _ => None,
    });
    let Some((node, onto)) = copied else { return };
    if !scenario.edges.iter().any(|(_, dialled)| *dialled == node) {
        return;
    }
    scenario.items.retain(|item| !item.what.nodes().contains(&onto));
    scenario.edges.retain(|(a, b)| *a != onto && *b != onto);
    // It was added last.
    scenario.nodes -= 1;
}

/// Adds one kind of fault to a scenario.
fn harm(chance: Chance, fault: &'static str, scenario: &mut Scenario) {
    let mut draws = chance.draws(fault, 0);
    for _ in 0..draws.within((1, 4)) {
        let at = draws.below(scenario.quiet_at);
        let node = usize::try_from(draws.below(scenario.nodes as u64)).unwrap_or(0);
        let what = match fault {
            "move" => What::Move { node },
            "pause" => What::Pause { node, ms: *draws.pick(&[50, 2_000, 20_000]) },
            "clock" => {
                let ms = i64::try_from(draws.below(100_000_000)).unwrap_or(0);
                What::Clock { node, ms: if draws.yes(500) { ms } else { -ms } }
            }
            way => {
                let Some(&(a, b)) = (!scenario.edges.is_empty()).then(|| draws.pick(&scenario.edges)) else { return };
                let (from, to) = if draws.yes(500) { (a, b) } else { (b, a) };
                match way {
                    "damage" => What::Damage { from, to, per_mille: *draws.pick(&[5, 50, 200]) },
                    _ => What::Narrow { from, to, bytes: *draws.pick(&[1200, 1300, 1400]) },
                }
            }
        };
        scenario.items.push(Item { at, what });
    }
}
