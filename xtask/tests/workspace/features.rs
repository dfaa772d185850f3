//! Building `xtask` alone and building everything agree on the features of every crate that
//! `xtask` needs. Where they do not, each of the two compiles that crate, and all that depend on
//! it, once more.
//!
//! `real_no_recompilation` shows the same with real builds; this says which feature is to blame.

use std::collections::{BTreeMap, BTreeSet};

use crate::world::cargo;

/// The sets of features that a package is built with, by name and version. It has more than one
/// where it is built for this machine's build scripts too.
type Features = BTreeMap<String, BTreeSet<String>>;

/// What is compiled into programs, without what only runs while they are compiled.
const PROGRAMS: &str = "normal,no-proc-macro";
/// Procedural macros and build scripts, with what they are made of.
const EVERYTHING: &str = "normal,build";
/// What the programs of a test run are made of.
const TESTS: &str = "normal,dev,no-proc-macro";

fn features(packages: &str, edges: &str) -> Features {
    let arguments = [
        "tree",
        "--locked",
        "--offline",
        packages,
        "--edges",
        edges,
        "--no-dedupe",
        "--prefix=none",
        "--format={p}|{f}",
    ];
    let mut features = Features::new();
    for line in cargo(&arguments).lines() {
        let Some((package, set)) = line.split_once('|') else {
            continue;
        };
        let name = package.split(" (").next().unwrap_or(package);
        let sets = features.entry(name.to_owned()).or_default();
        sets.insert(set.to_owned());
    }
    assert!(features.len() > 50, "cargo tree printed too little");
    features
}

#[track_caller]
fn check(alone: &str, together: &str) {
    let alone = features("--package=xtask", alone);
    let together = features("--workspace", together);
    let different: Vec<_> = alone
        .iter()
        .filter(|(name, sets)| !sets.is_subset(&together[*name]))
        .map(|(name, sets)| describe(name, sets, &together[name]))
        .collect();
    assert!(
        different.is_empty(),
        "crates that are compiled twice; add the features that they lack in xtask to \
         [workspace.dependencies]:\n{}",
        different.join("\n")
    );
}

fn describe(name: &str, alone: &BTreeSet<String>, together: &BTreeSet<String>) -> String {
    let words = |sets: &BTreeSet<String>| -> BTreeSet<String> {
        let sets = sets.iter().flat_map(|set| set.split(','));
        sets.map(str::to_owned).collect()
    };
    let lacking: Vec<_> = words(together).difference(&words(alone)).cloned().collect();
    format!("  {name} lacks {}", lacking.join(", "))
}

#[test]
fn programs_have_the_features_that_the_workspace_gives_them() {
    check(PROGRAMS, PROGRAMS);
}

#[test]
fn procedural_macros_have_the_features_that_the_workspace_gives_them() {
    check(EVERYTHING, EVERYTHING);
}

#[test]
fn a_test_run_gives_programs_no_more_features() {
    check(PROGRAMS, TESTS);
}
