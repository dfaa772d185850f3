//! Packages and their binaries, asked of cargo.

use std::path::{Path, PathBuf};

use cargo_metadata::{MetadataCommand, TargetKind};
use deploy_config::credentials::TOKEN_VARIABLE;
use deploy_plan::config::Build;
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use deploy_plan::observed::Package;

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

fn read(root: &Path, manifest: Option<&Path>) -> Result<(Vec<Package>, PathBuf), Failure> {
    let path = root.join(manifest.unwrap_or(Path::new("Cargo.toml")));
    let metadata = MetadataCommand::new()
        .cargo_path("cargo")
        .manifest_path(&path)
        .current_dir(root)
        .no_deps()
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove(TOKEN_VARIABLE)
        .exec()
        .map_err(|e| {
            Failure::new(
                Step::Preflight,
                "cargo_metadata_failed",
                Exit::Configuration,
                format!(
                    "cargo cannot read {}: {}",
                    path.display(),
                    e.to_string().trim()
                ),
                "correct the manifest that cargo names",
            )
        })?;
    let packages = metadata
        .packages
        .iter()
        .map(|package| Package {
            name: package.name.to_string(),
            binaries: package
                .targets
                .iter()
                .filter(|target| target.kind.contains(&TargetKind::Bin))
                .map(|target| target.name.clone())
                .collect(),
            manifest: manifest.map(Path::to_owned),
        })
        .collect();
    Ok((packages, metadata.target_directory.into()))
}
