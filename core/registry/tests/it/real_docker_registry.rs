//! The client against Debian's `docker-registry`, which nobody here wrote.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use oci::{Client, ClientError};
use tempfile::TempDir;

use crate::image::{TestImage, options, repository, tag};
use crate::server::ALICE;
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
        Self::with("")
    }

    /// With certificates for `localhost`.
    fn with_tls() -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/certificates");
        let tls =
            format!("  tls:\n    certificate: {folder}/server.pem\n    key: {folder}/server.key\n");
        Self::with(&tls)
    }

    /// With more lines in the section `http` of its configuration.
    fn with(http: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().display();
        std::fs::write(folder.path().join("htpasswd"), HTPASSWD).unwrap();
        let config = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {root}/data\n  \
             delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:0\n{http}auth:\n  htpasswd:\n    \
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
        // Made first: should the wait fail, dropping it ends the registry.
        let mut registry = Self {
            child,
            address: String::new(),
            _folder: folder,
        };
        registry.address = wait_for_address(log);
        registry
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
    referrers_are_listed,
);

#[test]
fn a_broken_upload_ends_whole() {
    let registry = DockerRegistry::start();
    // This registry refuses to go on with an upload that broke, so all of it is sent anew.
    crate::faults::broken_upload(&registry.address);
}

#[test]
fn pushes_keep_to_their_budget() {
    crate::budget::pushes_keep_to_their_budget(&DockerRegistry::start().address);
}

#[test]
fn one_ten_and_a_hundred_repositories_get_the_blobs_once() {
    for repositories in [1, 10, 100] {
        let registry = DockerRegistry::start();
        crate::budget::further_repositories_send_no_blobs(&registry.address, repositories);
    }
}

#[test]
fn a_killed_push_goes_on() {
    crate::child::a_killed_push_goes_on(&DockerRegistry::start().address);
}

#[test]
fn any_schedule_of_faults_ends_whole_or_named() {
    let registry = DockerRegistry::start();
    crate::fault_properties::any_schedule_ends_whole_or_named(&registry.address);
}

/// Over TLS, with an authority that only the caller trusts.
#[test]
fn the_callers_root_certificates_count() {
    let registry = DockerRegistry::with_tls();
    let authority = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/certificates/authority.pem"
    );
    let name = repository("alice/app");
    let mut options = options(Some(ALICE));
    // A registry on loopback is taken for one without TLS unless told otherwise.
    options.plain_http.loopback = false;
    let stranger = Client::new(&registry.address, options.clone()).unwrap();
    let error = stranger.manifest_exists(&name, &tag("v1")).unwrap_err();
    assert!(matches!(error, ClientError::Untrusted { .. }), "{error:?}");
    assert_eq!(stranger.counters().requests, 1);

    options.root_certificates = Some(authority.into());
    let client = Client::new(&registry.address, options.clone()).unwrap();
    TestImage::new(70, &[200_000]).push(&client, "alice/app", "v1");
    assert!(client.manifest_exists(&name, &tag("v1")).unwrap().is_some());

    // Besides the roots that are built in, and besides those of a file.
    options.further_certificates = vec![authority.into()];
    for instead in [None, Some(authority.into())] {
        options.root_certificates = instead;
        let client = Client::new(&registry.address, options.clone()).unwrap();
        assert!(client.manifest_exists(&name, &tag("v1")).unwrap().is_some());
    }

    options.root_certificates = Some("/dev/null".into());
    let error = Client::new(&registry.address, options).unwrap_err();
    assert!(
        matches!(error, ClientError::RootCertificates { .. }),
        "{error}"
    );
}
