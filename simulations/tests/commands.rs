//! `cargo sim` as a person has it: its last lines, its exit codes, what it writes.

use std::path::Path;
use std::process::{Command, Output};

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simulations")).args(arguments).output().expect("it runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_last_line_counts_and_a_hash_can_be_expected() {
    let (one, two) = (sim(&["run", "--seed", "7"]), sim(&["run", "--seed", "7"]));
    assert_eq!(said(&one), said(&two));
    let lines: Vec<String> = said(&one).lines().map(str::to_owned).collect();
    assert_eq!(lines.last().map(String::as_str), Some("1 passed, 0 failed"));
    let hash = lines[0].strip_prefix("trace core:7 ").expect("a line with the hash");

    assert!(sim(&["replay", "core:7", "--expect", hash]).status.success());
    assert_eq!(sim(&["replay", "core:7", "--expect", &"0".repeat(64)]).status.code(), Some(1));
}

#[test]
fn a_wrong_question_is_answered_with_what_there_is() {
    for (arguments, answer) in [
        (vec!["run", "--faults", "sunshine"], "there are loss, duplicate"),
        (vec!["run", "--level", "sea"], "there are core"),
        (vec!["replay", "core:seven"], "as in core:42"),
        (vec!["draw", "nothing.scenario"], "nor a scenario file"),
    ] {
        let output = sim(&arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(answer), "{arguments:?}: {message}");
    }
}

#[test]
fn a_scenario_is_drawn_where_one_says() {
    let story = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions/001-landed-commit.scenario");
    let page = Path::new(env!("CARGO_TARGET_TMPDIR")).join("landed.html");
    let output = sim(&["draw", &story.to_string_lossy(), "--to", &page.to_string_lossy()]);
    assert!(said(&output).contains("everything holds in it"), "{}", said(&output));
    let page = std::fs::read_to_string(page).expect("the page is there");
    assert!(page.starts_with("<!doctype html>") && page.contains("the disk says that the commit failed"));
}
