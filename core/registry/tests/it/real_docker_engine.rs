//! `docker login`, `pull` and `push` against this crate's server.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use oci::{
    BlobSources, Descriptor, ImageConfig, ImageManifest, ImagePush, RootFs, media_type, push_image,
};
use tempfile::TempDir;

use crate::image::{client, repository, tag};
use crate::server::{ALICE, Server};

/// Where `cargo xtask test` says that an engine already runs for all tests.
const SHARED_HOST: &str = "SYSTEMPROMPT_TEST_DOCKER_HOST";
const READY: Duration = Duration::from_secs(90);

/// A Docker Engine: the shared one, or one of this test's own without bridge and firewall rules.
struct Engine {
    host: String,
    daemon: Option<Child>,
    folder: TempDir,
}

impl Engine {
    fn get() -> Self {
        let folder = tempfile::tempdir().unwrap();
        if let Ok(host) = std::env::var(SHARED_HOST) {
            return Self {
                host,
                daemon: None,
                folder,
            };
        }
        let below = |name: &str| folder.path().join(name).display().to_string();
        let host = format!("unix://{}", below("docker.sock"));
        std::fs::write(below("daemon.json"), "{}").unwrap();
        let mut command = Command::new("dockerd");
        command
            .arg(format!("--host={host}"))
            .arg(format!("--pidfile={}", below("pid")));
        command.args(["--bridge=none", "--iptables=false", "--ip6tables=false"]);
        command.arg(format!("--data-root={}", below("data")));
        command.arg(format!("--exec-root={}", below("exec")));
        command.arg(format!("--config-file={}", below("daemon.json")));
        let daemon = command
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(below("log")).unwrap())
            .spawn()
            .unwrap_or_else(|_| panic!("dockerd is missing: run `cargo xtask test --setup`"));
        let engine = Self {
            host,
            daemon: Some(daemon),
            folder,
        };
        engine.wait_until_ready();
        engine
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + READY;
        while !self.docker(&["version"], "").status.success() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(
                Instant::now() < deadline,
                "dockerd does not answer (it needs root): {log}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn docker(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = Command::new("docker")
            .args(arguments)
            .env("DOCKER_HOST", &self.host)
            .env("DOCKER_CONFIG", self.folder.path().join("client"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|_| panic!("docker is missing: run `cargo xtask test --setup`"));
        // A client that reads no input may be gone already.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn succeed(&self, arguments: &[&str], input: &str) {
        let output = self.docker(arguments, input);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "docker {arguments:?}: {text}");
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(mut daemon) = self.daemon.take() else {
            return;
        };
        // Asked politely it ends its containerd, too.
        let _ = Command::new("kill").arg(daemon.id().to_string()).status();
        let deadline = Instant::now() + Duration::from_secs(30);
        while matches!(daemon.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = daemon.kill();
        let _ = daemon.wait();
        // The engine makes these for plugins; they stay when anybody else uses them.
        let _ = std::fs::remove_dir("/run/docker/plugins");
        let _ = std::fs::remove_dir("/run/docker");
    }
}

#[test]
fn docker_logs_in_pulls_and_pushes() {
    let engine = Engine::get();
    let server = Server::start();
    let host = server.host();
    let manifest = push_an_image(&host);

    let refused = engine.docker(
        &["login", &host, "-u", "alice", "--password-stdin"],
        "wrong",
    );
    assert!(!refused.status.success());
    engine.succeed(
        &["login", &host, "-u", "anything", "--password-stdin"],
        ALICE.1,
    );
    let (image, copy) = (
        format!("{host}/alice/app:v1"),
        format!("{host}/alice/copy:v2"),
    );
    engine.succeed(&["pull", &image], "");
    engine.succeed(&["tag", &image, &copy], "");
    engine.succeed(&["push", &copy], "");
    engine.succeed(&["logout", &host], "");
    engine.succeed(&["rmi", &image, &copy], "");

    let client = client(&host, Some(ALICE));
    let name = repository("alice/copy");
    let received = client.get_manifest(&name, &tag("v2")).unwrap();
    let copied = ImageManifest::from_slice(&received.bytes).unwrap();
    assert_eq!(copied.config.digest, manifest.config.digest);
    for blob in copied.blobs() {
        client.get_blob(&name, blob, &mut std::io::sink()).unwrap();
    }
    assert_login_left_nothing(engine.folder.path());
}

/// An image of one file, pushed as `alice/app:v1`.
fn push_an_image(host: &str) -> ImageManifest {
    let layer = tar_of("hello", b"hello from an image\n");
    let descriptor = Descriptor::of(media_type::OCI_LAYER, &layer);
    let config = ImageConfig {
        architecture: oci::Platform::host().architecture,
        os: "linux".to_owned(),
        rootfs: RootFs {
            diff_ids: vec![descriptor.digest],
            ..RootFs::default()
        },
        ..ImageConfig::default()
    };
    let config = config.to_vec();
    let described = Descriptor::of(media_type::OCI_CONFIG, &config);
    let manifest = ImageManifest::new(described.clone(), vec![descriptor.clone()]);
    let mut sources = BlobSources::new();
    sources.insert(descriptor.digest, Box::new(layer));
    sources.insert(described.digest, Box::new(config));
    let (name, tag) = (repository("alice/app"), tag("v1"));
    let push = ImagePush {
        repository: &name,
        manifest: &manifest,
        sources: &sources,
        tag: Some(&tag),
        mount_from: &[],
        known: &oci::Known::new(),
        store: None,
        ahead: None,
    };
    push_image(&client(host, Some(ALICE)), &push).unwrap();
    manifest
}

/// A tar archive of one file, in the ustar format.
fn tar_of(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    let mut field = |at: usize, text: &str| {
        header[at..at + text.len()].copy_from_slice(text.as_bytes());
    };
    field(0, name);
    field(100, "0000644\0");
    field(108, "0000000\0");
    field(116, "0000000\0");
    field(124, &format!("{:011o}\0", content.len()));
    field(136, "00000000000\0");
    field(148, "        ");
    field(156, "0");
    field(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}

fn assert_login_left_nothing(folder: &Path) {
    let text = std::fs::read_to_string(folder.join("client/config.json")).unwrap_or_default();
    assert!(!text.contains("\"auth\":"), "{text}");
}
