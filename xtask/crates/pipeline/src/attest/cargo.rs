//! What cargo and the programs themselves say about their parts.
//!
//! `cargo metadata` knows the packages with their licences; a program that `cargo auditable` built
//! knows exactly what was compiled into it, and wins. Procedural macros and build scripts run while
//! programs are compiled and are not in them: they are left out, with what only they need.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use deploy_image::embedded_dependencies;
use serde::Deserialize;

use super::graph::{Details, Edges, Facts, Origin, Part};
use super::lockfile;
use crate::image::Shipped;
use crate::observe::cargo::metadata;

/// The source of packages from the default registry, as cargo names it.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Everything known about the programs that are shipped.
pub(super) fn facts(
    root: &Path,
    manifests: &[PathBuf],
    shipped: &[Shipped],
) -> Result<Facts, String> {
    let mut facts = Facts::default();
    let workspace = PathBuf::from("Cargo.toml");
    for manifest in std::iter::once(&workspace).chain(manifests) {
        let path = root.join(manifest);
        if path.exists() {
            Known::read(root, &path)?.describe(shipped, &mut facts)?;
        }
    }
    Ok(facts)
}

/// The answer of `cargo metadata --format-version 1`, as far as it is of use here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    source: Option<String>,
    license: Option<String>,
    description: Option<String>,
    repository: Option<String>,
    manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

/// `null` is a dependency of the program itself.
#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

/// One workspace.
struct Known {
    edges: Edges,
    details: BTreeMap<Part, Details>,
}

impl Known {
    fn read(root: &Path, manifest: &Path) -> Result<Self, String> {
        let metadata = ask(root, manifest)?;
        let lock = metadata.workspace_root.join("Cargo.lock");
        let checksums = lockfile::checksums(&std::fs::read_to_string(lock).unwrap_or_default());
        let mut parts = BTreeMap::new();
        let mut details = BTreeMap::new();
        for package in &metadata.packages {
            if package
                .targets
                .iter()
                .any(|target| target.kind == ["proc-macro"])
            {
                continue;
            }
            let part = package.part(root);
            let key = (part.name.clone(), part.version.clone());
            let checksum = checksums.get(&key).filter(|_| package.source.is_some());
            details.insert(part.clone(), package.details(checksum.cloned()));
            parts.insert(package.id.as_str(), part);
        }
        let edges = edges(&metadata.resolve, &parts);
        Ok(Self { edges, details })
    }

    /// Adds the programs that this workspace makes.
    fn describe(&self, shipped: &[Shipped], facts: &mut Facts) -> Result<(), String> {
        for program in shipped {
            let local = |part: &&Part| {
                part.name == program.package && matches!(part.origin, Origin::Local(_))
            };
            let Some(part) = self.edges.keys().find(local) else {
                continue;
            };
            let path = program.path.display();
            let embedded = embedded_dependencies(&program.path)
                .map_err(|e| format!("cannot read {path}: {e}"))?;
            match embedded.and_then(|bytes| self.audited(part, &bytes)) {
                Some(edges) => {
                    facts.add(part, &edges);
                    facts.audited.insert(part.clone());
                }
                None => facts.add(part, &self.edges),
            }
        }
        let used = facts.edges.keys();
        let described: Vec<_> = used
            .filter_map(|part| Some((part.clone(), self.details.get(part)?.clone())))
            .collect();
        facts.details.extend(described);
        Ok(())
    }

    /// The edges that a program tells about itself.
    fn audited(&self, root: &Part, bytes: &[u8]) -> Option<Edges> {
        let audited: Audited = serde_json::from_slice(bytes).ok()?;
        let part = |package: &AuditedPackage| {
            if package.root {
                root.clone()
            } else {
                self.named(package)
            }
        };
        let runs = |package: &&AuditedPackage| package.kind.as_deref() != Some("build");
        let mut edges = Edges::new();
        for package in audited.packages.iter().filter(runs) {
            let needed = package.dependencies.iter();
            let needed = needed.filter_map(|index| audited.packages.get(*index));
            edges.insert(part(package), needed.filter(runs).map(part).collect());
        }
        edges.contains_key(root).then_some(edges)
    }

    /// The package that cargo knows under this name and version, for its details.
    fn named(&self, package: &AuditedPackage) -> Part {
        let same = |part: &&Part| part.name == package.name && part.version == package.version;
        let known = self.details.keys().find(same).cloned();
        known.unwrap_or_else(|| Part {
            name: package.name.clone(),
            version: package.version.clone(),
            origin: match package.source.as_str() {
                "crates.io" => Origin::Registry,
                other => Origin::Elsewhere(other.to_owned()),
            },
        })
    }
}

/// The section `.dep-v0`.
#[derive(Deserialize)]
struct Audited {
    packages: Vec<AuditedPackage>,
}

#[derive(Deserialize)]
struct AuditedPackage {
    name: String,
    version: String,
    source: String,
    kind: Option<String>,
    #[serde(default)]
    dependencies: Vec<usize>,
    #[serde(default)]
    root: bool,
}

impl Package {
    fn part(&self, root: &Path) -> Part {
        let origin = match self.source.as_deref() {
            Some(REGISTRY) => Origin::Registry,
            Some(other) => Origin::Elsewhere(other.to_owned()),
            None => {
                // A path outside the project would tell where it lies on this machine.
                let folder = self.manifest_path.parent().unwrap_or(root);
                let inside = folder.strip_prefix(root).unwrap_or(Path::new(""));
                Origin::Local(inside.to_string_lossy().into_owned())
            }
        };
        Part {
            name: self.name.clone(),
            version: self.version.clone(),
            origin,
        }
    }

    fn details(&self, checksum: Option<String>) -> Details {
        let description = self.description.as_deref();
        Details {
            licence: self.license.clone(),
            checksum,
            description: description
                .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")),
            repository: self.repository.clone(),
        }
    }
}

fn edges(resolve: &Resolve, parts: &BTreeMap<&str, Part>) -> Edges {
    let mut edges = Edges::new();
    for node in &resolve.nodes {
        let Some(part) = parts.get(node.id.as_str()) else {
            continue;
        };
        let normal = node
            .deps
            .iter()
            .filter(|dependency| dependency.dep_kinds.iter().any(|kind| kind.kind.is_none()));
        let needed = normal.filter_map(|dependency| parts.get(dependency.pkg.as_str()));
        edges.insert(part.clone(), needed.cloned().collect());
    }
    edges
}

/// Asks cargo, which needs no network for it: all packages of this platform have just been built.
fn ask(root: &Path, manifest: &Path) -> Result<Metadata, String> {
    let host = super::provenance::rustc(root).host;
    metadata(root, manifest, &["--offline", "--filter-platform", &host])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, origin: Origin) -> Part {
        Part {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            origin,
        }
    }

    #[test]
    fn what_a_program_says_of_itself_wins() {
        let app = part("app", Origin::Local(String::new()));
        let known = part("known", Origin::Registry);
        let unused = part("unused", Origin::Registry);
        let cargo = Known {
            edges: [(app.clone(), [known.clone(), unused].into())].into(),
            details: [(known.clone(), Details::default())].into(),
        };
        let json = br#"{"packages":[
            {"name":"app","version":"1.0.0","source":"local","root":true,"dependencies":[1,2,3]},
            {"name":"known","version":"1.0.0","source":"crates.io","dependencies":[3]},
            {"name":"macros","version":"1.0.0","source":"crates.io","kind":"build"},
            {"name":"patched","version":"1.0.0","source":"git"}]}"#;
        let edges = cargo.audited(&app, json).unwrap();
        let patched = part("patched", Origin::Elsewhere("git".into()));
        assert_eq!(edges[&app], [known.clone(), patched.clone()].into());
        assert_eq!(edges[&known], [patched].into());
        assert_eq!(cargo.audited(&app, b"{}"), None);
        // A program of another package is none that this one is made of.
        assert_eq!(cargo.audited(&app, br#"{"packages":[]}"#), None);
    }

    #[test]
    fn this_workspace_is_described_without_what_only_compiles_it() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(3)
            .unwrap();
        let shipped = [Shipped {
            package: "xtask".to_owned(),
            path: std::env::current_exe().unwrap(),
        }];
        let facts = facts(root, &[], &shipped).unwrap();
        let named = |name: &str| facts.edges.keys().find(|part| part.name == name);
        let serde = named("serde").expect("xtask is made of serde");
        assert!(
            facts.details[serde]
                .checksum
                .as_ref()
                .is_some_and(|sum| sum.len() == 64)
        );
        assert!(
            facts.details[serde]
                .licence
                .as_ref()
                .is_some_and(|text| text.contains("MIT"))
        );
        let oci = named("oci").expect("and of a package of ours");
        assert_eq!(oci.origin, Origin::Local("core/oci".into()));
        for absent in ["serde_derive", "syn", "tempfile", "cc", "tokio"] {
            assert!(named(absent).is_none(), "{absent} is not in the program");
        }
    }
}
