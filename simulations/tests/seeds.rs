//! A bounded number of seeds, always the same: enough to notice that something broke, not to find what is rare.

use simulations::level::{Level, Shape, run};
use simulations::world::Scenario;

/// Runs seeds on all cores.
fn each(seeds: std::ops::Range<u64>, check: impl Fn(u64) + Sync) {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (seeds, check) = (seeds.clone(), &check);
            scope.spawn(move || seeds.filter(|seed| seed % threads == thread).for_each(check));
        }
    });
}

#[test]
fn the_core_withstands_three_hundred_worlds() {
    each(0..300, |seed| {
        let outcome = run(&Level::Core.generate(seed, &Shape::default()), false);
        assert_eq!(outcome.violation, None, "run next: cargo sim replay core:{seed} --tell");
    });
}

#[test]
fn a_seed_is_the_same_world_twice_and_another_seed_another() {
    each(0..20, |seed| {
        let outcome = |seed| run(&Level::Core.generate(seed, &Shape::default()), false).hash;
        assert_eq!(outcome(seed), outcome(seed));
        assert_ne!(outcome(seed), outcome(seed + 1));
    });
}

#[test]
fn a_scenario_that_is_written_down_and_read_is_the_same_world() {
    each(0..20, |seed| {
        let scenario = Level::Core.generate(seed, &Shape::default());
        let read: Scenario = scenario.to_string().parse().expect("what was written can be read");
        assert_eq!(read.to_string(), scenario.to_string());
        assert_eq!(run(&read, false).hash, run(&scenario, false).hash);
    });
}
