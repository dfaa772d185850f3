//! A real engine: what it makes of a Dockerfile, as files and configuration.

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

use super::Project;
use super::tree::{Times, Tree, apply, note_times};

/// Where `cargo xtask test` says that an engine listens whose `BuildKit` knows heredocs, and with
/// which client and client's configuration it is spoken to.
const NEWER: [&str; 3] = [
    "SYSTEMPROMPT_TEST_BUILDKIT_HOST",
    "SYSTEMPROMPT_TEST_BUILDKIT_CLIENT",
    "SYSTEMPROMPT_TEST_BUILDKIT_CONFIG",
];

/// An engine and the client that builds with it; images built here are removed at the end.
pub(crate) struct Docker {
    client: PathBuf,
    environment: Vec<(&'static str, String)>,
    built: RefCell<Vec<String>>,
}

/// What an engine made of a Dockerfile.
pub(crate) struct Theirs {
    pub(crate) tree: Tree,
    pub(crate) times: Times,
    pub(crate) config: Value,
    pub(crate) author: String,
}

impl Docker {
    /// The engine of this machine. Of its clients the one that can build with `BuildKit`: Debian's
    /// and Docker's differ in that.
    pub(crate) fn of_this_machine() -> Self {
        let found = ["docker", "/usr/bin/docker"]
            .into_iter()
            .map(|client| Self::new(client.into(), Vec::new()))
            .find(|docker| {
                docker.run(&["version"]).is_ok() && docker.run(&["build", "--help"]).is_ok()
            });
        found.expect("a Docker Engine is missing: run `cargo xtask test --setup`")
    }

    /// An engine with a `BuildKit` of 2023 or later.
    pub(crate) fn newer() -> Self {
        let [host, client, config] = NEWER.map(|name| {
            std::env::var(name).unwrap_or_else(|_| {
                panic!("a newer BuildKit is missing ({name}): run `cargo xtask test --setup`")
            })
        });
        let environment = vec![("DOCKER_HOST", host), ("DOCKER_CONFIG", config)];
        Self::new(client.into(), environment)
    }

    fn new(client: PathBuf, environment: Vec<(&'static str, String)>) -> Self {
        // Docker's images have a file's mode as it is in the context, ours do not: under an umask of
        // its own the two would differ.
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        Self {
            client,
            environment,
            built: RefCell::default(),
        }
    }

    /// Runs the client; its standard error where it fails.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Output, String> {
        let output = Command::new(&self.client)
            .args(arguments)
            .env("DOCKER_BUILDKIT", "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .output()
            .map_err(|error| error.to_string())?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(output)
        } else {
            Err(error)
        }
    }

    /// Loads an archive that names an image; the image goes away with the others.
    pub(crate) fn load(&self, archive: &str, name: &str) {
        self.built.borrow_mut().push(name.to_owned());
        self.run(&["load", "-i", archive]).unwrap();
    }

    pub(crate) fn build(&self, project: &Project, text: &str) -> Result<Theirs, String> {
        let file = project.path("Dockerfile.case");
        fs::write(&file, text).unwrap();
        let (file, root) = (file.to_str().unwrap(), project.root());
        let output = self.run(&["build", "-q", "-f", file, root.to_str().unwrap()])?;
        let id = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        self.built.borrow_mut().push(id.clone());
        let inspected = self.run(&["inspect", &id])?.stdout;
        let inspected: Value = serde_json::from_slice(&inspected).unwrap();
        let mut theirs = Theirs {
            tree: Tree::new(),
            times: Times::new(),
            config: inspected[0]["Config"].clone(),
            author: inspected[0]["Author"].as_str().unwrap_or("").to_owned(),
        };
        // Docker cannot save an image without layers.
        let layers = inspected[0]["RootFS"]["Layers"].as_array();
        if layers.is_some_and(|layers| !layers.is_empty()) {
            self.save(project, &id, &mut theirs)?;
        }
        Ok(theirs)
    }

    fn save(&self, project: &Project, id: &str, theirs: &mut Theirs) -> Result<(), String> {
        let (saved, folder) = (project.path("saved.tar"), project.path("saved"));
        self.run(&["save", "-o", saved.to_str().unwrap(), id])?;
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        let archive = fs::File::open(saved).unwrap();
        tar::Archive::new(archive).unpack(&folder).unwrap();
        let manifest = fs::read(folder.join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        for layer in manifest[0]["Layers"].as_array().unwrap() {
            let path = folder.join(layer.as_str().unwrap());
            apply(&mut theirs.tree, fs::File::open(&path).unwrap());
            note_times(&mut theirs.times, fs::File::open(&path).unwrap());
        }
        Ok(())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let mut built = self.built.take();
        built.sort();
        built.dedup();
        if built.is_empty() {
            return;
        }
        let names = built.iter().map(String::as_str);
        let words: Vec<&str> = ["rmi", "-f"].into_iter().chain(names).collect();
        // An image that stands on another of them goes with it.
        let _ = self.run(&words);
    }
}
