//! Who may depend on whom inside the workspace.

use std::collections::{BTreeMap, BTreeSet};

use crate::world::{folder, members, neighbours};

/// All that a package may depend on inside the workspace, its tests included. A new package gets a
/// line here, with the thought that goes with it.
const MAY: &[(&str, &[&str])] = &[
    // The contract between the two halves knows neither of them.
    ("management-api", &["trust"]),
    ("oci", &["trust", "fuzzing"]),
    // Which certificates clients believe.
    ("trust", &[]),
    // Makes input for tests, of anything.
    ("fuzzing", &[]),
    // Parts of the run side, which do not know each other.
    ("registry", &["oci"]),
    ("engines", &["oci", "fuzzing"]),
    ("proxy", &["fuzzing"]),
    (
        "systemprompt",
        &[
            "management-api",
            "oci",
            "registry",
            "engines",
            "proxy",
            "trust",
        ],
    ),
    // The MCP servers speak to any platform, through its API alone.
    ("mcp-common", &["management-api"]),
    ("mcp-testing", &["management-api", "oci"]),
    ("system-tools", &["mcp-common", "mcp-testing"]),
    (
        "systemprompt-infrastructure",
        &["management-api", "mcp-common", "mcp-testing"],
    ),
    (
        "systemprompt-admin",
        &["management-api", "mcp-common", "mcp-testing"],
    ),
    // The release side.
    ("deploy-plan", &[]),
    ("deploy-config", &["deploy-plan"]),
    ("deploy-image", &["deploy-plan", "oci", "fuzzing"]),
    (
        "deploy-pipeline",
        &[
            "deploy-plan",
            "deploy-config",
            "deploy-image",
            "management-api",
            "oci",
            "trust",
            "testkit",
        ],
    ),
    // Doubles written from the public contracts: they must not share our own types.
    ("testkit", &[]),
    (
        "xtask",
        &[
            "deploy-plan",
            "deploy-config",
            "deploy-image",
            "deploy-pipeline",
            "management-api",
            "oci",
            "testkit",
        ],
    ),
];

/// What is in these folders reaches nothing in those, not even through others.
const APART: &[(&str, &str)] = &[
    ("xtask", "extensions"),
    ("core", "xtask"),
    ("core", "extensions"),
    ("extensions", "xtask"),
];

/// The run side proper; the contract crates below `core/` are open to all.
const RUN_SIDE: &[&str] = &["systemprompt", "registry", "engines", "proxy"];

#[test]
fn every_package_keeps_to_its_neighbours() {
    let may: BTreeMap<_, _> = MAY.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in members() {
        let Some(allowed) = may.get(package.name.as_str()) else {
            wrong.push(format!("{} has no line in MAY", package.name));
            continue;
        };
        for name in neighbours(package) {
            if !allowed.contains(&name.as_str()) {
                wrong.push(format!("{} must not depend on {name}", package.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_names_only_packages_that_there_are() {
    let there: BTreeSet<_> = members()
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    for (name, allowed) in MAY {
        for name in allowed.iter().chain([name]) {
            assert!(there.contains(name), "{name} is no package");
        }
    }
}

#[test]
fn the_two_halves_never_reach_each_other() {
    let folders: BTreeMap<_, _> = members()
        .into_iter()
        .map(|package| (package.name.to_string(), folder(package)))
        .collect();
    for (name, home) in &folders {
        for reached in reachable(name) {
            for (from, to) in APART {
                assert!(
                    !(below(home, from) && below(&folders[&reached], to)),
                    "{name} ({from}/) reaches {reached} ({to}/)"
                );
            }
            let outside = !below(home, "core");
            assert!(
                !(outside && RUN_SIDE.contains(&reached.as_str())),
                "{name} ({home}) reaches {reached}, which is the run side's own"
            );
        }
    }
}

#[test]
fn planning_reaches_nothing() {
    assert_eq!(reachable("deploy-plan"), BTreeSet::new());
}

fn below(folder: &str, top: &str) -> bool {
    folder.split('/').next() == Some(top)
}

/// What a package depends on inside the workspace, directly or through others.
fn reachable(name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![name.to_owned()];
    while let Some(name) = open.pop() {
        let package = members().into_iter().find(|package| *package.name == name);
        for name in neighbours(package.expect("neighbours are members")) {
            if found.insert(name.clone()) {
                open.push(name);
            }
        }
    }
    found
}
