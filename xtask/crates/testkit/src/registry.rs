//! The real `docker-registry` (CNCF distribution) on a free port.

use std::fs;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use crate::http::{Headers, Request, Response, read_response, write_request};
use crate::management::RegistryAccess;
use crate::process::{Daemon, eventually, find_program, need_program};

/// Media types of manifests, as a client that wants any of them asks.
const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";
/// It starts in well under a second.
const READY: Duration = Duration::from_secs(30);

/// A running registry with its data in a folder of its own; ended and removed when dropped.
#[derive(Debug)]
pub struct DockerRegistry {
    address: SocketAddr,
    credentials: Option<(String, String)>,
    folder: TempDir,
    // After `folder` in no sense of order: dropped explicitly first, see `Drop`.
    daemon: Option<Daemon>,
}

impl DockerRegistry {
    /// A registry that anyone may push to.
    #[must_use]
    pub fn open() -> Self {
        Self::start(None)
    }

    /// A registry with basic authentication against an htpasswd file.
    #[must_use]
    pub fn with_password(username: &str, password: &str) -> Self {
        Self::start(Some((username.to_owned(), password.to_owned())))
    }

    fn start(credentials: Option<(String, String)>) -> Self {
        let program = find_program("docker-registry").unwrap_or_else(|| missing());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let config = folder.path().join("config.yml");
        let log = folder.path().join("log");
        fs::write(&config, configuration(folder.path(), credentials.as_ref()))
            .expect("write the registry's configuration");
        let mut command = Command::new(program);
        command
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none");
        let mut daemon = Daemon::start(&mut command, &log);
        let address = wait_for_address(&mut daemon, &log);
        let registry = Self {
            address,
            credentials,
            folder,
            daemon: Some(daemon),
        };
        registry.wait_until_it_answers();
        registry
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What a Management API hands out for it; `registry` may be a proxy in front of it.
    #[must_use]
    pub fn access_through(&self, registry: &str) -> RegistryAccess {
        let (username, password) = self.credentials.clone().unwrap_or_default();
        RegistryAccess {
            registry: registry.to_owned(),
            username,
            password,
        }
    }

    /// Name and password as Docker's configuration holds them.
    #[must_use]
    pub fn encoded_credentials(&self) -> String {
        let (username, password) = self.credentials.clone().unwrap_or_default();
        STANDARD.encode(format!("{username}:{password}"))
    }

    /// Whether a manifest exists, by tag or digest.
    #[must_use]
    pub fn has(&self, repository: &str, reference: &str) -> bool {
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.ask("HEAD", &path).status == 200
    }

    /// A manifest as JSON, with its digest.
    #[must_use]
    pub fn manifest(&self, repository: &str, reference: &str) -> (serde_json::Value, String) {
        let answer = self.ask("GET", &format!("/v2/{repository}/manifests/{reference}"));
        assert_eq!(answer.status, 200, "no manifest {repository}:{reference}");
        let digest = crate::http::header(&answer.headers, "docker-content-digest")
            .expect("the registry names the digest")
            .to_owned();
        (
            serde_json::from_slice(&answer.body).expect("a manifest is JSON"),
            digest,
        )
    }

    /// A blob's content.
    #[must_use]
    pub fn blob(&self, repository: &str, digest: &str) -> Vec<u8> {
        let answer = self.ask("GET", &format!("/v2/{repository}/blobs/{digest}"));
        assert_eq!(answer.status, 200, "no blob {digest} in {repository}");
        answer.body
    }

    /// A manifest's bytes, with its media type.
    #[must_use]
    pub fn manifest_bytes(&self, repository: &str, reference: &str) -> (Vec<u8>, String) {
        let answer = self.ask("GET", &format!("/v2/{repository}/manifests/{reference}"));
        assert_eq!(answer.status, 200, "no manifest {repository}:{reference}");
        let media_type = crate::http::header(&answer.headers, "content-type");
        let media_type = media_type.unwrap_or_default().to_owned();
        (answer.body, media_type)
    }

    /// Uploads a blob.
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) {
        let begun = self.ask("POST", &format!("/v2/{repository}/blobs/uploads/"));
        let location = crate::http::header(&begun.headers, "location").expect("an upload address");
        let (_, path) = location
            .split_once("/v2/")
            .expect("an address of the registry");
        let digest = crate::base::digest(bytes);
        let and = if path.contains('?') { '&' } else { '?' };
        let path = format!("/v2/{path}{and}digest={digest}");
        let answer = self.send("PUT", &path, "application/octet-stream", bytes);
        assert_eq!(answer.status, 201, "cannot upload {digest}");
    }

    /// Uploads a manifest under a tag.
    pub fn put_manifest(&self, repository: &str, tag: &str, media_type: &str, bytes: &[u8]) {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let answer = self.send("PUT", &path, media_type, bytes);
        assert_eq!(answer.status, 201, "cannot upload {repository}:{tag}");
    }

    /// The tags of a repository; none when it does not exist.
    #[must_use]
    pub fn tags(&self, repository: &str) -> Vec<String> {
        let answer = self.ask("GET", &format!("/v2/{repository}/tags/list"));
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let tags = body["tags"].as_array().cloned().unwrap_or_default();
        tags.iter()
            .filter_map(|tag| tag.as_str().map(str::to_owned))
            .collect()
    }

    /// Whether it holds an image named `registry/repository:tag` or `…@digest`; to be handed to
    /// [`ManagementApi`](crate::ManagementApi).
    #[must_use]
    pub fn looks_up(&self) -> Box<dyn Fn(&str) -> bool + Send + Sync> {
        let (address, credentials) = (self.address, self.credentials.clone());
        Box::new(move |image| {
            let Some((repository, reference)) = split_image(image) else {
                return false;
            };
            let path = format!("/v2/{repository}/manifests/{reference}");
            ask(address, credentials.as_ref(), "HEAD", &path).status == 200
        })
    }

    /// Where its data are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn ask(&self, method: &str, path: &str) -> Response {
        ask(self.address, self.credentials.as_ref(), method, path)
    }

    fn send(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> Response {
        let mut headers = headers(self.address, self.credentials.as_ref());
        headers.push(("Content-Type".into(), media_type.to_owned()));
        let request = Request {
            method: method.to_owned(),
            target: path.to_owned(),
            headers,
            body: body.to_vec(),
        };
        exchange(self.address, &request)
            .unwrap_or_else(|error| panic!("{method} {path} at {}: {error}", self.address))
    }

    fn wait_until_it_answers(&self) {
        let ready = eventually(READY, || {
            try_ask(self.address, self.credentials.as_ref(), "GET", "/v2/")
                .is_ok_and(|answer| answer.status == 200)
        });
        assert!(ready, "docker-registry does not answer: {}", self.log());
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        // Before its folder is removed under it.
        self.daemon.take();
    }
}

/// Fails the test with what to do.
fn missing() -> ! {
    panic!("docker-registry is missing: run `cargo xtask test --setup`")
}

fn configuration(folder: &Path, credentials: Option<&(String, String)>) -> String {
    let data = folder.join("data");
    let mut text = format!(
        "version: 0.1\nlog:\n  level: info\n  accesslog:\n    disabled: true\nstorage:\n  \
         filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\n  maintenance:\n    \
         uploadpurging:\n      enabled: false\nhttp:\n  addr: 127.0.0.1:0\n",
        data.display()
    );
    if let Some((username, password)) = credentials {
        let file = folder.join("htpasswd");
        fs::write(&file, htpasswd(username, password)).expect("write the htpasswd file");
        text.push_str("auth:\n  htpasswd:\n    realm: test\n    path: ");
        text.push_str(&file.to_string_lossy());
        text.push('\n');
    }
    text
}

/// A line of an htpasswd file; the password goes through standard input, not the command line.
fn htpasswd(username: &str, password: &str) -> Vec<u8> {
    let mut child = Command::new(need_program("htpasswd"))
        .args(["-n", "-i", "-B", "-C", "4", username])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start htpasswd");
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    stdin
        .write_all(password.as_bytes())
        .expect("write to htpasswd");
    drop(stdin);
    let output = child.wait_with_output().expect("wait for htpasswd");
    assert!(output.status.success(), "htpasswd failed");
    output.stdout
}

/// It is told to take any free port and says in its log which one it took: no other way is free
/// of races.
fn wait_for_address(daemon: &mut Daemon, log: &Path) -> SocketAddr {
    let mut address = None;
    let mut ended = None;
    eventually(READY, || {
        let text = fs::read_to_string(log).unwrap_or_default();
        address = address_in(&text);
        ended = daemon.has_ended();
        address.is_some() || ended.is_some()
    });
    address.unwrap_or_else(|| {
        let text = fs::read_to_string(log).unwrap_or_default();
        panic!("docker-registry did not start ({ended:?}): {text}")
    })
}

fn address_in(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once("listening on ")?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))?;
    rest[..end].parse().ok()
}

fn split_image(image: &str) -> Option<(&str, &str)> {
    let (_, rest) = image.split_once('/')?;
    rest.split_once('@').or_else(|| rest.rsplit_once(':'))
}

fn ask(
    address: SocketAddr,
    credentials: Option<&(String, String)>,
    method: &str,
    path: &str,
) -> Response {
    try_ask(address, credentials, method, path)
        .unwrap_or_else(|error| panic!("{method} {path} at {address}: {error}"))
}

fn try_ask(
    address: SocketAddr,
    credentials: Option<&(String, String)>,
    method: &str,
    path: &str,
) -> std::io::Result<Response> {
    let request = Request {
        method: method.to_owned(),
        target: path.to_owned(),
        headers: headers(address, credentials),
        body: Vec::new(),
    };
    exchange(address, &request)
}

fn headers(address: SocketAddr, credentials: Option<&(String, String)>) -> Headers {
    let mut headers: Headers = vec![
        ("Host".into(), address.to_string()),
        ("Accept".into(), MANIFESTS.into()),
    ];
    if let Some((username, password)) = credentials {
        let encoded = STANDARD.encode(format!("{username}:{password}"));
        headers.push(("Authorization".into(), format!("Basic {encoded}")));
    }
    headers
}

fn exchange(address: SocketAddr, request: &Request) -> std::io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write_request(&mut stream, request)?;
    read_response(&mut BufReader::new(stream), &request.method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_runs_with_authentication_and_ends_with_its_handle() {
        let registry = DockerRegistry::with_password("robot", "pa ss");
        assert!(registry.tags("a/b").is_empty());
        let anonymous = ask(registry.address(), None, "GET", "/v2/");
        assert_eq!(anonymous.status, 401);
        let (address, folder) = (registry.address(), registry.folder().to_owned());
        drop(registry);
        assert!(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err());
        assert!(!folder.exists());
    }

    #[test]
    fn image_names_are_split() {
        assert_eq!(split_image("h:1/a/b:t"), Some(("a/b", "t")));
        assert_eq!(split_image("h:1/a@sha256:0"), Some(("a", "sha256:0")));
    }

    #[test]
    fn the_port_is_read_from_the_log() {
        let line = r#"time="x" level=info msg="listening on 127.0.0.1:4312" go.version=go1"#;
        assert_eq!(
            address_in(line),
            Some(SocketAddr::from(([127, 0, 0, 1], 4312)))
        );
    }
}
