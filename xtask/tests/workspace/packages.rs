//! What every package states.

use cargo_metadata::Package;

use crate::world::{files, manifest, members, read_toml, root};

/// In two pieces, so that this file does not hold the word that it looks for.
const LINT: &str = concat!("unsafe", "_code");

#[track_caller]
fn check(rule: &str, holds: impl Fn(&Package) -> bool) {
    let wrong: Vec<_> = members()
        .into_iter()
        .filter(|package| !holds(package))
        .map(|package| package.name.to_string())
        .collect();
    assert!(wrong.is_empty(), "{rule}: not so in {}", wrong.join(", "));
}

#[test]
fn licence_rust_version_and_description_are_stated() {
    check("has a licence", |package| package.license.is_some());
    check("names its Rust version", |package| {
        package.rust_version.is_some()
    });
    check("says what it is in a line", |package| {
        package
            .description
            .as_deref()
            .is_some_and(|text| !text.is_empty())
    });
    check("stays out of the registry", |package| {
        package.publish.as_deref() == Some(&[])
    });
}

#[test]
fn lints_are_inherited_and_unsafe_is_denied() {
    let workspace = read_toml(&root().join("Cargo.toml"));
    let level = &workspace["workspace"]["lints"]["rust"][LINT];
    assert_eq!(level.as_str(), Some("deny"));
    check("inherits the workspace's lints", |package| {
        let manifest = manifest(package);
        let lints = manifest.get("lints").and_then(toml::Value::as_table);
        lints.is_some_and(|lints| lints["workspace"].as_bool() == Some(true) && lints.len() == 1)
    });
}

/// An attribute could take the lint back; nothing needs to.
#[test]
fn no_source_file_takes_that_ban_back() {
    for package in members() {
        for folder in ["src", "tests", "benches", "examples"] {
            let folder = package.manifest_path.with_file_name(folder);
            for file in files(folder.as_std_path(), "rs") {
                let text = std::fs::read_to_string(&file).unwrap();
                assert!(!text.contains(LINT), "{} names {LINT}", file.display());
            }
        }
    }
}

/// A feature added in one manifest would make this package's build another than the workspace's.
#[test]
fn dependencies_are_described_in_the_workspace_alone() {
    for package in members() {
        let manifest = manifest(package);
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let entries = manifest.get(section).and_then(toml::Value::as_table);
            for (name, entry) in entries.into_iter().flatten() {
                let entry = entry.as_table();
                let plain = entry.is_some_and(|entry| {
                    entry.len() == 1
                        && entry.get("workspace").and_then(toml::Value::as_bool) == Some(true)
                });
                assert!(
                    plain,
                    "{} says more than `{name}.workspace = true`",
                    package.name
                );
            }
        }
    }
}
