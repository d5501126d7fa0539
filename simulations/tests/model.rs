//! The small scopes, as far as a minute goes; and that what is explored is the same twice.

use std::sync::Mutex;

use simulations::level::{Level, Shape};
use simulations::model::{SCOPES, explore};
use simulations::world::Scenario;

/// How many states of each scope are explored here: many scopes have no more. `examples/scopes.rs` goes on.
const STATES_MAX: usize = 6_000;

fn parse(text: &str) -> Scenario {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_interleaving_of_the_small_scopes_is_as_it_should_be() {
    let left = Mutex::new(SCOPES.iter());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = || left.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(scope) = next() {
                    let (outcome, extent) = explore(&parse(scope.text), STATES_MAX, false);
                    assert_eq!(outcome.violation, None, "{}", scope.name);
                    assert!(extent.exhausted || extent.states >= STATES_MAX, "{}: {extent}", scope.name);
                }
            });
        }
    });
}

#[test]
fn what_is_explored_is_the_same_twice_and_another_seed_is_something_else() {
    let hash = |seed| explore(&Level::Model.generate(seed, &Shape::default()), 2_000, false).0.hash;
    for seed in 0..3 {
        assert_eq!(hash(seed), hash(seed));
        assert_ne!(hash(seed), hash(seed + 1));
    }
}

#[test]
fn what_weather_does_to_messages_is_noticed_where_nothing_makes_good_for_it() {
    // Without a fault among the items nothing may wait for a long timer; with one it may, and in the end all is well.
    let scope = SCOPES.iter().find(|scope| scope.name == "lost-message").expect("it is in the table");
    let (outcome, extent) = explore(&parse(scope.text), STATES_MAX, false);
    assert_eq!(outcome.violation, None);
    let calm: String =
        scope.text.lines().filter(|line| !line.contains("weather")).map(|line| format!("{line}\n")).collect();
    let (outcome, calm) = explore(&parse(&calm), STATES_MAX, false);
    assert_eq!(outcome.violation, None);
    assert!(calm.exhausted && calm.states < extent.states, "{calm} against {extent}");
}

#[test]
fn a_scenario_that_says_nothing_here_is_refused() {
    let scenario = parse("level model\nnodes 2\nedge 1 0\n1 cut 0 1\n");
    let violation = explore(&scenario, STATES_MAX, false).0.violation.expect("it is refused");
    assert!(violation.to_string().contains("cut 0 1"), "{violation}");
}
