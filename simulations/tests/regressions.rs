//! Every failure there ever was, in the shrunk form, and that each world is the same twice.

use std::path::Path;

use simulations::level::run;
use simulations::world::Scenario;

#[test]
fn no_failure_comes_back() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let mut files: Vec<_> =
        folder.read_dir().expect("the folder is there").map(|entry| entry.expect("readable").path()).collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("readable");
        let scenario: Scenario = text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let outcome = run(&scenario, false);
        assert_eq!(outcome.violation, None, "{}", file.display());
        assert_eq!(run(&scenario, false).hash, outcome.hash, "{} is not the same twice", file.display());
    }
}
