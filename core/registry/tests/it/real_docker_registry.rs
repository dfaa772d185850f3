//! The client against Debian's `docker-registry`, which nobody here wrote.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

use crate::shared;

/// `alice` with the password of `server::ALICE`, as `htpasswd -Bbn` writes it.
const HTPASSWD: &str = "alice:$2y$05$ieKO5xQA2NAZd6x8ENncLu.92V8OQyLdbsah7A5yTAfBzzL64/BQ6\n";

struct DockerRegistry {
    child: Child,
    address: String,
    _folder: TempDir,
}

impl DockerRegistry {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().display();
        std::fs::write(folder.path().join("htpasswd"), HTPASSWD).unwrap();
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {root}/data\n  \
             delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:0\nauth:\n  htpasswd:\n    \
             realm: test\n    path: {root}/htpasswd\n"
        );
        let path = folder.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|_| {
            panic!("docker-registry is missing: run `cargo xtask test --setup`")
        });
        let log = BufReader::new(child.stderr.take().unwrap());
        let address = wait_for_address(log);
        Self {
            child,
            address,
            _folder: folder,
        }
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        // Killing what has ended already is no failure; waiting reaps it either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The port is the registry's choice; its log says which. The log is read to its end, so that the
/// registry never waits for a reader.
fn wait_for_address(log: impl BufRead + Send + 'static) -> String {
    let (found, address) = mpsc::channel();
    std::thread::spawn(move || {
        for line in log.lines().map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("listening on ") {
                let end = rest.find(|c: char| c != '.' && c != ':' && !c.is_ascii_digit());
                // Nobody waits any more after the first line that matches.
                let _ = found.send(rest[..end.unwrap_or(rest.len())].to_owned());
            }
        }
    });
    address
        .recv_timeout(Duration::from_secs(20))
        .expect("docker-registry says where it listens")
}

macro_rules! against_docker_registry {
    ($($check:ident),* $(,)?) => {
        $(#[test]
        fn $check() {
            shared::$check(&DockerRegistry::start().address);
        })*
    };
}

against_docker_registry!(
    push_and_get_back,
    a_first_push_wastes_no_request,
    blobs_are_mounted,
    tags_are_listed,
    what_is_missing_is_named,
    wrong_credentials_are_told,
    an_incomplete_image_is_refused,
    a_short_source_is_told,
    tiny_blobs_pass,
    manifests_are_deleted,
    progress_is_reported,
);

#[test]
fn a_broken_upload_ends_whole() {
    let registry = DockerRegistry::start();
    // This registry refuses to go on with an upload that broke, so all of it is sent anew.
    crate::faults::broken_upload(&registry.address);
}
