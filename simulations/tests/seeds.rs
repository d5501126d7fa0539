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

/// How many seeds of a level are run here: about as long for each.
fn few(level: Level) -> u64 {
    match level {
        Level::Model => 2,
        Level::Core => 300,
        Level::Store => 40,
        Level::Node => 30,
    }
}

#[test]
fn every_level_withstands_some_worlds() {
    for level in Level::ALL {
        each(0..few(*level), |seed| {
            let outcome = run(&level.generate(seed, &Shape::default()), false);
            assert_eq!(outcome.violation, None, "run next: cargo sim replay {level}:{seed} --tell");
        });
    }
}

#[test]
fn a_seed_is_the_same_world_twice_and_another_seed_another() {
    for level in Level::ALL {
        each(0..few(*level).div_ceil(15), |seed| {
            let hash = |seed| run(&level.generate(seed, &Shape::default()), false).hash;
            assert_eq!(hash(seed), hash(seed));
            assert_ne!(hash(seed), hash(seed + 1));
        });
    }
}

#[test]
fn a_scenario_that_is_written_down_and_read_is_the_same_world() {
    for level in Level::ALL {
        each(0..few(*level).div_ceil(15), |seed| {
            let scenario = level.generate(seed, &Shape::default());
            let read: Scenario = scenario.to_string().parse().expect("what was written can be read");
            assert_eq!(read.to_string(), scenario.to_string());
            assert_eq!(run(&read, false).hash, run(&scenario, false).hash);
        });
    }
}
