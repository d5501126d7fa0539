//! A run depends on its scenario and on nothing else, at every level.

use std::process::Command;

use serde_json::json;
use simulations::level::{Level, Shape, run};
use simulations::world::{Scenario, What};
use thence::model::Operation;

/// The line `trace LEVEL:SEED HASH` of a process of its own.
fn traced(level: Level, seed: u64) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_simulations"))
        .args(["run", "--level", level.name(), "--seed", &seed.to_string()])
        .output()
        .expect("the simulator starts");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().find(|line| line.starts_with("trace ")).unwrap_or_else(|| panic!("no trace in {text:?}")).to_owned()
}

fn hex(hash: &[u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn two_processes_see_the_same_world() {
    for level in Level::ALL {
        let here = run(&level.generate(7, &Shape::default()), false).hash;
        let expected = format!("trace {level}:7 {}", hex(&here));
        assert_eq!(traced(*level, 7), expected);
        assert_eq!(traced(*level, 7), expected);
    }
}

/// The same world, but that the first text that any user writes is another.
fn with_another_text(scenario: &Scenario, text: &str) -> Scenario {
    let mut scenario = scenario.clone();
    let requests = scenario.items.iter_mut().find_map(|item| match &mut item.what {
        What::Write { requests, node: 0, .. } => Some(requests),
        _ => None,
    });
    let requests = requests.expect("somebody writes at node 0");
    // What else is done in one transaction might undo it.
    requests.truncate(1);
    requests[0].operation = Operation::Put(serde_json::Map::from_iter([("title".to_owned(), json!(text))]));
    scenario
}

#[test]
fn one_flipped_bit_of_what_is_written_is_another_world() {
    for level in Level::ALL {
        let shape = Shape { nodes: Some(2), faults: Some(Vec::new()) };
        let scenario = level.generate(3, &shape);
        let hash = |text| run(&with_another_text(&scenario, text), false).hash;
        assert_eq!(hash("a"), hash("a"), "{level}");
        // 0x61 and 0x63.
        assert_ne!(hash("a"), hash("c"), "{level}");
    }
}
