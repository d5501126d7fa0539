//! The level `store`, bounded: some crash points of every story, and some seeds.

use simulations::core::FAULTS_OF_A_MEDIUM;
use simulations::level::{Level, Shape, run};
use simulations::store::crash_points;
use simulations::world::Scenario;

/// What the engine's answers to damage would print is of no use in a test that passes.
fn hush_the_engine() {
    std::panic::set_hook(Box::new(|panic| {
        if !panic.location().is_some_and(|at| at.file().contains("/redb-")) {
            eprintln!("{panic}");
        }
    }));
}

fn each(seeds: std::ops::Range<u64>, check: impl Fn(u64) + Sync) {
    hush_the_engine();
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (seeds, check) = (seeds.clone(), &check);
            scope.spawn(move || seeds.filter(|seed| seed % threads == thread).for_each(check));
        }
    });
}

#[test]
fn a_crash_at_any_operation_leaves_what_was_acknowledged() {
    hush_the_engine();
    let report = crash_points(1, 11);
    assert_eq!(report.failures, Vec::<String>::new());
    assert!(report.stories >= 20 && report.points > 8 * report.stories as u64, "{report:?}");
    assert!(report.recovery_points > report.points / 2, "{report:?}");
}

#[test]
fn the_store_withstands_worlds() {
    each(0..60, |seed| {
        let outcome = run(&Level::Store.generate(seed, &Shape::default()), false);
        assert_eq!(outcome.violation, None, "run next: cargo sim replay store:{seed} --tell");
    });
}

#[test]
fn a_seed_writes_the_same_bytes_twice_and_another_seed_others() {
    let shape =
        Shape { nodes: Some(2), faults: Some(FAULTS_OF_A_MEDIUM.iter().map(|fault| (*fault).to_owned()).collect()) };
    each(0..8, |seed| {
        let scenario = Level::Store.generate(seed, &shape);
        let hash = run(&scenario, false).hash;
        let read: Scenario = scenario.to_string().parse().expect("what was written can be read");
        assert_eq!(read.to_string(), scenario.to_string());
        assert_eq!(run(&read, false).hash, hash);
        assert_ne!(run(&Level::Store.generate(seed + 1, &shape), false).hash, hash);
    });
}
