//! What a build is made from: a Dockerfile in its folder, or a package of Cargo's.

use std::fs;
use std::path::{Component, Path, PathBuf};

use deploy_plan::aramb::Service;
use deploy_plan::config::{AppService, Builder, Config, Services, Variables};
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use serde::Deserialize;

use crate::observe::cargo::metadata;

const DOCKERFILE: &str = "Dockerfile";
const MANIFEST: &str = "Cargo.toml";

/// How the image of a build comes to be. Paths are relative to the folder of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::aramb) enum Source {
    /// A Dockerfile, with its folder as the context.
    Dockerfile(PathBuf),
    /// A program, and nothing else.
    Program { binary: String, manifest: PathBuf },
}

impl Source {
    /// That of a build. Where there is a Dockerfile it is that, unless the builder is to be ours.
    pub(in crate::aramb) fn of(
        root: &Path,
        build: &Service,
        builder: Builder,
    ) -> Result<Self, Failure> {
        let said = build.settings.build_path.as_ref();
        let folder = tidy(Path::new(said.map_or(".", |path| &path.text)));
        let has = |name: &str| root.join(&folder).join(name).is_file();
        let manifest = tidy(&folder.join(MANIFEST));
        match (has(DOCKERFILE), has(MANIFEST)) {
            (true, true) if builder == Builder::Native => Self::of_package(root, manifest, build),
            (true, _) => Ok(Self::Dockerfile(folder)),
            (false, true) => Self::of_package(root, manifest, build),
            (false, false) => Err(Failure::preflight(
                "build_source_missing",
                format!(
                    "{} holds neither {DOCKERFILE} nor {MANIFEST}",
                    folder.display()
                ),
                format!(
                    "write one of them, or correct the buildPath of `{}`",
                    build.name
                ),
            )),
        }
    }

    fn of_package(root: &Path, manifest: PathBuf, build: &Service) -> Result<Self, Failure> {
        let path = root.join(&manifest);
        let known: Metadata = metadata(root, &path, &["--no-deps"]).map_err(|words| {
            Failure::new(
                Step::Preflight,
                "cargo_metadata_failed",
                Exit::Configuration,
                format!("cargo cannot read {}: {words}", manifest.display()),
                "correct the manifest that cargo names",
            )
        })?;
        let path = fs::canonicalize(&path).unwrap_or(path);
        let binary = known.binary(&path, &build.name).map_err(|names| {
            let manifest = manifest.display();
            if names.is_empty() {
                return Failure::preflight(
                    "program_missing",
                    format!("no package of {manifest} has a binary"),
                    "add one, or build it with a Dockerfile",
                );
            }
            Failure::preflight(
                "program_ambiguous",
                format!("{manifest} has several binaries: {}", names.join(", ")),
                format!(
                    "name the package's folder as the buildPath of `{0}`, set default-run in its Cargo.toml, or call the build \
                     like the binary",
                    build.name
                ),
            )
        })?;
        Ok(Self::Program { binary, manifest })
    }

    /// Makes the image of the release's `app` from it, and nothing else.
    pub(in crate::aramb) fn apply(&self, config: &mut Config) {
        config.env = Variables::default();
        config.deploy.release_command = Vec::new();
        config.deploy.require_env = Vec::new();
        config.services = Services::default();
        config.build.packages = Vec::new();
        match self {
            Self::Dockerfile(folder) => {
                config.image.dockerfile = tidy(&folder.join(DOCKERFILE));
                config.image.context.clone_from(folder);
            }
            Self::Program { binary, manifest } => {
                config.services.app = Some(AppService {
                    binary: Some(binary.clone()),
                    ..AppService::default()
                });
                if manifest != Path::new(MANIFEST) && !config.build.manifests.contains(manifest) {
                    config.build.manifests.push(manifest.clone());
                }
            }
        }
    }
}

/// The answer of `cargo metadata --format-version 1 --no-deps`, as far as it is of use here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<Target>,
    default_run: Option<String>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Package {
    fn binaries(&self) -> impl Iterator<Item = &str> {
        let targets = self.targets.iter();
        targets
            .filter(|target| target.kind.iter().any(|kind| kind == "bin"))
            .map(|target| target.name.as_str())
    }
}

impl Metadata {
    /// The one binary that is meant, else all that there are: of the manifest's package, or of a workspace's packages where it
    /// has none.
    fn binary(&self, manifest: &Path, build: &str) -> Result<String, Vec<String>> {
        let is_own = |package: &&Package| package.manifest_path == manifest;
        let own: Vec<&Package> = self.packages.iter().filter(is_own).collect();
        let packages = if own.is_empty() {
            self.packages.iter().collect()
        } else {
            own
        };
        let binaries: Vec<&str> = packages
            .iter()
            .flat_map(|package| package.binaries())
            .collect();
        let is_there = |name: &&str| binaries.contains(name);
        let of_one = match packages[..] {
            [package] => {
                let run = package.default_run.as_deref();
                run.or(Some(&package.name)).filter(is_there)
            }
            _ => None,
        };
        match binaries[..] {
            [only] => Ok(only.to_owned()),
            _ => of_one
                .or(Some(build).filter(is_there))
                .map(str::to_owned)
                .ok_or_else(|| binaries.iter().map(|name| (*name).to_owned()).collect()),
        }
    }
}

/// Without what means nothing: `./a/.` is `a`.
fn tidy(path: &Path) -> PathBuf {
    let parts = path.components();
    let tidy: PathBuf = parts.filter(|part| *part != Component::CurDir).collect();
    if tidy.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        tidy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(packages: &str) -> Metadata {
        serde_json::from_str(&format!("{{\"packages\": [{packages}]}}")).unwrap()
    }

    fn package(name: &str, default_run: &str, binaries: &[&str]) -> String {
        let target = |name: &&str| format!(", {{\"name\": \"{name}\", \"kind\": [\"bin\"]}}");
        let targets: String = binaries.iter().map(target).collect();
        format!(
            "{{\"name\": \"{name}\", \"manifest_path\": \"/p/{name}/Cargo.toml\", \"default_run\": {default_run}, \"targets\": \
             [{{\"name\": \"{name}\", \"kind\": [\"lib\"]}}{targets}]}}"
        )
    }

    #[test]
    fn which_binary_is_meant() {
        let api = package("api", "null", &["server"]);
        let tools = package("tools", "null", &["one", "two"]);
        let run = package("run", "\"two\"", &["one", "two"]);
        let own = package("own", "null", &["own", "other"]);
        let none = package("none", "null", &[]);
        let all = metadata(&[api, tools, run, own, none].join(","));
        let of = |package: &str, build: &str| {
            let manifest = format!("/p/{package}/Cargo.toml");
            all.binary(Path::new(&manifest), build)
                .map_err(|names| names.join(" "))
        };
        for (package, build, expected) in [
            ("api", "x", Ok("server")),
            ("tools", "x", Err("one two")),
            ("tools", "two", Ok("two")),
            ("run", "x", Ok("two")),
            ("own", "x", Ok("own")),
            ("none", "x", Err("")),
            // The root of a workspace without a package of its own.
            ("root", "server", Ok("server")),
            ("root", "x", Err("server one two one two own other")),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(of(package, build), expected, "{package} {build}");
        }
    }

    #[test]
    fn paths_are_tidied() {
        for (path, expected) in [
            ("./a/./b", "a/b"),
            (".", "."),
            ("", "."),
            ("./", "."),
            ("../a", "../a"),
        ] {
            assert_eq!(tidy(Path::new(path)), Path::new(expected));
        }
    }
}
