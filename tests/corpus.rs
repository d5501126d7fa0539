//! Every input in `fuzz/corpus` still does what it should: what fuzzing found stays found, without any fuzzer.

#[path = "../fuzz/src/bodies/mod.rs"]
#[allow(dead_code, reason = "what makes the first inputs is used by the fuzz crate only")]
mod bodies;

use std::fs;
use std::path::Path;

#[test]
fn what_was_found_stays_found() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let targets: Vec<_> =
        fs::read_dir(&corpus).expect("the corpus is there").map(|entry| entry.expect("a folder")).collect();
    let names: Vec<_> = targets.iter().map(|target| target.file_name().into_string().expect("a name")).collect();
    assert_eq!(names.len(), 10, "a folder for every target: {names:?}");
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
