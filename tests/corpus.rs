//! Every input in `fuzz/corpus` still does what it should: what fuzzing found stays found, without any fuzzer. And the
//! first of them hold what honest nodes say today.

#[path = "../fuzz/src/bodies/mod.rs"]
mod bodies;
#[path = "../fuzz/src/seeds.rs"]
mod seeds;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use thence::replica::{InvalidMessage, Message};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

#[test]
fn what_was_found_stays_found() {
    let targets: Vec<_> =
        fs::read_dir(corpus()).expect("the corpus is there").map(|entry| entry.expect("a folder")).collect();
    let names: Vec<_> = targets.iter().map(|target| target.file_name().into_string().expect("a name")).collect();
    assert_eq!(names.len(), 11, "a folder for every target: {names:?}");
    for (target, name) in targets.iter().zip(&names) {
        let run = bodies::named(name).unwrap_or_else(|| panic!("{name} is no target"));
        let inputs: Vec<_> =
            fs::read_dir(target.path()).expect("a folder").map(|entry| entry.expect("a file").path()).collect();
        assert!(!inputs.is_empty(), "{name} has no inputs");
        for input in inputs {
            let bytes = fs::read(&input).expect("a file");
            let (shown, outcome) = (input.display(), std::panic::catch_unwind(|| run(&bytes)));
            assert!(outcome.is_ok(), "{shown}");
        }
    }
}

#[test]
fn the_first_inputs_are_what_honest_nodes_say_today() {
    let stale = "write them anew: `cargo run --manifest-path fuzz/Cargo.toml --example seeds`";
    for (target, number, bytes) in seeds::seeds() {
        let path = corpus().join(target).join(format!("honest-{number}"));
        assert!(fs::read(&path).is_ok_and(|found| found == bytes), "{} is stale; {stale}", path.display());
    }
}

#[test]
fn the_first_inputs_hold_a_message_of_every_kind() {
    let unknown = |kind| matches!(Message::decode(kind, true, &[]), Err(InvalidMessage::Unknown { .. }));
    let said: BTreeSet<u8> =
        (seeds::seeds().iter()).filter(|(target, ..)| *target == "message").map(|(.., bytes)| bytes[0]).collect();
    let known: BTreeSet<u8> = (0..=u8::MAX).filter(|kind| !unknown(*kind)).collect();
    assert_eq!(said, known, "one of each in `messages` of fuzz/src/seeds.rs");
}
