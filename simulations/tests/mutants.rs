//! The bugs that are planted in the product: each has its place there and its row in the table, and some are caught.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use simulations::mutants::{all, commit_number, hunt, sample, show};

/// How often each name stands in the product.
fn planted(folder: &Path, names: &mut BTreeMap<String, usize>) {
    for entry in folder.read_dir().expect("the folder is there") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            planted(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("readable");
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for line in code {
                for site in line.split("planted!(\"").skip(1) {
                    let name = site.split('"').next().unwrap_or_default();
                    *names.entry(name.to_owned()).or_default() += 1;
                }
            }
        }
    }
}

#[test]
fn every_planted_bug_has_one_place_and_one_row() {
    let mut places = BTreeMap::new();
    planted(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../src"), &mut places);
    let twice: Vec<_> = places.iter().filter(|(_, count)| **count != 1).collect();
    assert!(twice.is_empty(), "planted more than once: {twice:?}");
    let names: BTreeSet<String> = all().map(|mutant| mutant.name.to_owned()).collect();
    assert_eq!(names.len(), all().count(), "two rows of the table have one name");
    assert_eq!(names, places.into_keys().collect(), "the table, and what is planted in src");
}

#[test]
fn where_a_regression_is_named_it_shows_the_bug() {
    for mutant in all().filter(|mutant| mutant.regression.is_some()) {
        let catch = show(mutant).expect("tests are built with debug assertions");
        let catch = catch.unwrap_or_else(|| panic!("{} is not shown by its regression", mutant.name));
        assert!(mutant.oracles.contains(&catch.invariant), "{}: another oracle objects: {catch:?}", mutant.name);
    }
}

/// Others with every commit, so that all of them come round; `cargo sim mutants` hunts them all.
#[test]
fn some_planted_bugs_are_caught() {
    let quick =
        |name: &str| all().any(|mutant| mutant.name == name && mutant.seeds <= 300 && mutant.out_of_reach.is_none());
    for mutant in sample(12, commit_number()).into_iter().filter(|mutant| quick(mutant.name)).take(6) {
        let hunted = hunt(mutant).expect("tests are built with debug assertions");
        assert!(hunted.catch.is_some(), "{} is not caught by {} seeds", mutant.name, mutant.seeds);
    }
}
