//! Packages and their binaries, asked of cargo.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use deploy_plan::config::Build;
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::observed::Package;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::child::Program;
use crate::interrupt::Interrupts;

/// What cargo knows about the project.
pub(super) struct Cargo {
    pub(super) packages: Vec<Package>,
    /// Settings that name what is not there, in words.
    pub(super) unknown: Vec<String>,
    /// Where the workspace's artifacts are.
    pub(super) target: PathBuf,
}

pub(super) fn observe(root: &Path, build: &Build) -> Result<Cargo, Failure> {
    let mut cargo = Cargo {
        packages: Vec::new(),
        unknown: Vec::new(),
        target: root.join("target"),
    };
    if root.join("Cargo.toml").exists() {
        let (packages, target) = read(root, None)?;
        cargo.packages = packages;
        cargo.target = target;
    }
    for manifest in &build.manifests {
        if !root.join(manifest).exists() {
            cargo.unknown.push(format!(
                "build.manifests: there is no {}",
                manifest.display()
            ));
            continue;
        }
        let (packages, _) = read(root, Some(manifest))?;
        for package in packages {
            // A manifest may name a member of the workspace after all.
            if cargo
                .packages
                .iter()
                .all(|known| known.name != package.name)
            {
                cargo.packages.push(package);
            }
        }
    }
    for name in &build.packages {
        if cargo.packages.iter().all(|package| package.name != *name) {
            cargo
                .unknown
                .push(format!("build.packages: no package is called {name}"));
        }
    }
    Ok(cargo)
}

/// The answer of `cargo metadata --format-version 1 --no-deps`, as far as it is of use here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct MetadataPackage {
    name: String,
    targets: Vec<MetadataTarget>,
    #[serde(default)]
    dependencies: Vec<MetadataDependency>,
}

#[derive(Deserialize)]
struct MetadataDependency {
    name: String,
    /// None for a normal dependency.
    kind: Option<String>,
    /// There for what is in the project itself.
    path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct MetadataTarget {
    name: String,
    kind: Vec<String>,
}

fn read(root: &Path, manifest: Option<&Path>) -> Result<(Vec<Package>, PathBuf), Failure> {
    let path = root.join(manifest.unwrap_or(Path::new("Cargo.toml")));
    let metadata = ask(root, &path).map_err(|words| {
        Failure::new(
            Step::Preflight,
            "cargo_metadata_failed",
            Exit::Configuration,
            format!("cargo cannot read {}: {words}", path.display()),
            "correct the manifest that cargo names",
        )
    })?;
    let own_crates = own_crates(&metadata.packages);
    let packages = metadata.packages.into_iter().map(|package| Package {
        own_crates: own_crates.get(&package.name).copied().unwrap_or(1),
        name: package.name,
        binaries: package
            .targets
            .into_iter()
            .filter(|target| target.kind.iter().any(|kind| kind == "bin"))
            .map(|target| target.name)
            .collect(),
        manifest: manifest.map(Path::to_owned),
    });
    Ok((packages.collect(), metadata.target_directory))
}

/// Of each package: how many of the project's own crates it is made of, itself included.
fn own_crates(packages: &[MetadataPackage]) -> BTreeMap<String, usize> {
    let below: BTreeMap<&str, Vec<&str>> = packages
        .iter()
        .map(|package| {
            let own = package.dependencies.iter().filter(|dependency| {
                dependency.path.is_some() && dependency.kind.as_deref() != Some("dev")
            });
            let names = own.map(|dependency| dependency.name.as_str()).collect();
            (package.name.as_str(), names)
        })
        .collect();
    let count = |name: &str| {
        let (mut seen, mut todo) = (BTreeSet::new(), vec![name.to_owned()]);
        while let Some(name) = todo.pop() {
            let below = below.get(name.as_str()).into_iter().flatten();
            if seen.insert(name.clone()) {
                todo.extend(below.map(|name| (*name).to_owned()));
            }
        }
        seen.len()
    };
    below
        .keys()
        .map(|name| ((*name).to_owned(), count(name)))
        .collect()
}

/// Asks cargo; what it complained of when it does not answer.
fn ask(root: &Path, manifest: &Path) -> Result<Metadata, String> {
    metadata(root, manifest, &["--no-deps"])
}

/// What `cargo metadata` says of a manifest, as far as the asker wants it.
pub(crate) fn metadata<T: DeserializeOwned>(
    root: &Path,
    manifest: &Path,
    options: &[&str],
) -> Result<T, String> {
    let (mut answer, mut complaints) = (String::new(), Vec::new());
    let status = Program::new("cargo", root)
        .arguments(["metadata", "--format-version", "1"])
        .arguments(options)
        .arguments([Path::new("--manifest-path"), manifest])
        .stream(
            &Interrupts::default(),
            |line| answer.push_str(line),
            |line| complaints.push(line.to_owned()),
        )
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if !status.success() {
        return Err(complaints.join("\n"));
    }
    serde_json::from_str(&answer).map_err(|e| format!("cargo's answer cannot be read: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_crates_are_counted_once_and_without_those_for_tests() {
        let packages: Vec<MetadataPackage> = serde_json::from_str(
            r#"[
            {"name": "server", "targets": [], "dependencies": [
                {"name": "api", "kind": null, "path": "/p/api"},
                {"name": "store", "kind": null, "path": "/p/store"},
                {"name": "testkit", "kind": "dev", "path": "/p/testkit"},
                {"name": "serde", "kind": null}]},
            {"name": "store", "targets": [], "dependencies": [
                {"name": "api", "kind": "build", "path": "/p/api"}]},
            {"name": "api", "targets": []},
            {"name": "testkit", "targets": [], "dependencies": [
                {"name": "server", "kind": null, "path": "/p/server"}]}]"#,
        )
        .unwrap();
        let counted = own_crates(&packages);
        let expected = [("api", 1), ("server", 3), ("store", 2), ("testkit", 4)];
        assert_eq!(
            counted,
            expected.map(|(name, n)| (name.to_owned(), n)).into()
        );
    }
}
