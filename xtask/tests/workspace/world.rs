//! The workspace as cargo sees it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace is around this package")
        .to_owned()
}

/// All packages that this machine's builds need, and how they depend on each other. Without the
/// network: what is missing for other platforms is not asked for.
pub(crate) fn metadata() -> &'static Metadata {
    static METADATA: LazyLock<Metadata> = LazyLock::new(|| {
        let platform = format!("--filter-platform={}", platform());
        MetadataCommand::new()
            .manifest_path(root().join("Cargo.toml"))
            .other_options(["--locked", "--offline", &platform].map(str::to_owned))
            .exec()
            .expect("`cargo metadata` describes this workspace")
    });
    &METADATA
}

/// The packages of the workspace.
pub(crate) fn members() -> Vec<&'static Package> {
    metadata().workspace_packages()
}

/// What the packages' manifests say.
pub(crate) fn manifest(package: &Package) -> toml::Table {
    read_toml(package.manifest_path.as_std_path())
}

/// A TOML file of this workspace.
pub(crate) fn read_toml(path: &Path) -> toml::Table {
    let text = std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
    text.parse()
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The folder of a package, from the root.
pub(crate) fn folder(package: &Package) -> String {
    let folder = package.manifest_path.parent().expect("manifests have one");
    let folder = folder.as_std_path().strip_prefix(root());
    folder
        .expect("members are in the workspace")
        .display()
        .to_string()
}

/// What a member depends on inside the workspace, tests included.
pub(crate) fn neighbours(package: &Package) -> Vec<String> {
    let local = package.dependencies.iter().filter(|dependency| {
        dependency.path.is_some() && dependency.kind != DependencyKind::Unknown
    });
    let mut names: Vec<_> = local.map(|dependency| dependency.name.clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// Runs cargo in the workspace; what it prints.
pub(crate) fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(arguments)
        .current_dir(root())
        .output()
        .expect("cargo can be started");
    assert!(
        output.status.success(),
        "cargo {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("cargo prints text")
}

/// Every file with this extension below a folder, sorted.
pub(crate) fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn platform() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .arg("-vV")
        .current_dir(root())
        .output()
        .expect("rustc can be started");
    let text = String::from_utf8(output.stdout).expect("rustc prints text");
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("rustc names its host")
        .to_owned()
}
