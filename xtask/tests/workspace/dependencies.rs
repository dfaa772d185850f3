//! What dependencies may be: the rules of `deny.toml` that `cargo metadata` can answer, so that
//! they hold with nothing installed. cargo-deny checks the rest in CI.

use std::collections::BTreeSet;

use cargo_metadata::Package;

use crate::world::{metadata, read_toml, root};

fn rules() -> toml::Table {
    read_toml(&root().join("deny.toml"))
}

fn words(value: &toml::Value) -> BTreeSet<String> {
    let words = value.as_array().expect("a list").iter();
    words
        .map(|word| word.as_str().expect("a word").to_owned())
        .collect()
}

/// The packages that builds on this machine really use, other than our own.
fn foreign() -> Vec<&'static Package> {
    let resolve = metadata().resolve.as_ref().expect("resolved");
    let used: BTreeSet<_> = resolve.nodes.iter().map(|node| &node.id).collect();
    let packages = metadata().packages.iter();
    packages
        .filter(|package| package.source.is_some() && used.contains(&package.id))
        .collect()
}

#[test]
fn licences_are_among_the_allowed() {
    let rules = rules();
    let allowed = words(&rules["licenses"]["allow"]);
    for package in foreign() {
        let licence = package.license.as_deref().unwrap_or("none");
        assert!(
            is_allowed(licence, &allowed),
            "{} is under {licence}",
            package.name
        );
    }
}

#[test]
fn banned_packages_are_not_in_the_lock_file() {
    let rules = rules();
    let lock = read_toml(&root().join("Cargo.lock"));
    let locked: BTreeSet<_> = lock["package"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    for banned in rules["bans"]["deny"].as_array().expect("a list") {
        let name = banned["crate"].as_str().expect("a name");
        let reason = banned["reason"].as_str().expect("a reason");
        assert!(!locked.contains(name), "{name} is there: {reason}");
    }
}

#[test]
fn everything_comes_from_the_crate_registry() {
    let rules = rules();
    let registries = words(&rules["sources"]["allow-registry"]);
    for package in foreign() {
        let source = package.source.as_ref().expect("foreign").repr.as_str();
        let registry = source.strip_prefix("registry+").unwrap_or(source);
        assert!(registries.contains(registry), "{}: {source}", package.name);
    }
}

/// `*` would take any version, as soon as the lock file is made anew.
#[test]
fn no_version_is_a_wildcard() {
    let workspace = read_toml(&root().join("Cargo.toml"));
    let entries = workspace["workspace"]["dependencies"].as_table();
    for (name, entry) in entries.expect("a table") {
        let version = entry.get("version").unwrap_or(entry).as_str();
        assert!(
            version.map_or(entry.get("path").is_some(), |version| !version
                .contains('*')),
            "{name} may be any version"
        );
    }
}

/// Evaluates an SPDX expression: `AND` binds closer than `OR`, older manifests write `/` for `OR`,
/// and an exception (`WITH …`) only ever permits more.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let (permitted, rest) = either(&words, allowed);
    assert!(rest.is_empty(), "cannot read the licence {expression:?}");
    permitted
}

fn either<'w>(words: &'w [&'w str], allowed: &BTreeSet<String>) -> (bool, &'w [&'w str]) {
    let (mut permitted, mut rest) = both(words, allowed);
    while let ["OR", after @ ..] = rest {
        let (next, after) = both(after, allowed);
        (permitted, rest) = (permitted | next, after);
    }
    (permitted, rest)
}

fn both<'w>(words: &'w [&'w str], allowed: &BTreeSet<String>) -> (bool, &'w [&'w str]) {
    let (mut permitted, mut rest) = one(words, allowed);
    while let ["AND", after @ ..] = rest {
        let (next, after) = one(after, allowed);
        (permitted, rest) = (permitted & next, after);
    }
    (permitted, rest)
}

fn one<'w>(words: &'w [&'w str], allowed: &BTreeSet<String>) -> (bool, &'w [&'w str]) {
    match words {
        ["(", inner @ ..] => {
            let (permitted, rest) = either(inner, allowed);
            assert_eq!(rest.first(), Some(&")"), "a parenthesis stays open");
            (permitted, &rest[1..])
        }
        [licence, "WITH", _, rest @ ..] | [licence, rest @ ..] => {
            (allowed.contains(*licence), rest)
        }
        [] => panic!("a licence is missing"),
    }
}

#[test]
fn licence_expressions() {
    let allowed = ["MIT", "ISC"].map(str::to_owned).into();
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("MIT/GPL-3.0-only", true),
        ("GPL-3.0-only OR MIT AND ISC", true),
        ("MIT AND GPL-3.0-only", false),
        ("(MIT OR GPL-3.0-only) AND ISC", true),
        ("MIT AND (GPL-3.0-only OR ISC)", true),
        ("MIT WITH LLVM-exception", true),
    ] {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
}
