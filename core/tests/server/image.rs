//! Images of the test application, pushed as any client pushes.

use std::fs;

use management_api::types::RegistryToken;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::app;
use crate::harness::{Server, agent};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Pushes an image with this environment under `tag`; returns its digest.
pub(crate) fn push(server: &Server, tenant: &str, tag: &str, env: &[(&str, &str)]) -> String {
    registry(server, tenant).push(tag, env)
}

/// The registry of a server without TLS.
pub(crate) fn registry(server: &Server, tenant: &str) -> Registry {
    Registry {
        agent: agent(),
        scheme: "http",
        token: server.client().registry_token(tenant).unwrap(),
    }
}

/// A registry that an image goes to.
pub(crate) struct Registry {
    pub(crate) agent: ureq::Agent,
    pub(crate) scheme: &'static str,
    pub(crate) token: RegistryToken,
}

impl Registry {
    /// Pushes an image with this environment under `tag`; returns its digest.
    pub(crate) fn push(&self, tag: &str, env: &[(&str, &str)]) -> String {
        self.push_checked(tag, env, &json!(null))
    }

    /// The same with a health check of the image's own.
    pub(crate) fn push_checked(&self, tag: &str, env: &[(&str, &str)], health: &Value) -> String {
        let about = json!({ "Healthcheck": health });
        self.push_made(tag, &layer(), env, &about)
    }

    /// An image of this layer, with more in its configuration.
    pub(crate) fn push_made(
        &self,
        tag: &str,
        layer: &[u8],
        env: &[(&str, &str)],
        about: &Value,
    ) -> String {
        let config = config(layer, env, about);
        for blob in [layer, &config] {
            self.upload(blob);
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": CONFIG, "digest": digest(&config), "size": config.len() },
            "layers": [{ "mediaType": LAYER, "digest": digest(layer), "size": layer.len() }],
        });
        let manifest = manifest.to_string().into_bytes();
        let url = format!("{}/manifests/{tag}", self.base());
        let answer = self
            .agent
            .put(&url)
            .header("authorization", self.bearer())
            .header("content-type", MANIFEST)
            .send(&manifest)
            .unwrap();
        assert_eq!(answer.status(), 201, "{url}");
        digest(&manifest)
    }

    /// Whether the registry says that it has something: `blobs/DIGEST`, `manifests/TAG`.
    pub(crate) fn has(&self, what: &str) -> bool {
        let found = self
            .agent
            .head(format!("{}/{what}", self.base()))
            .header("authorization", self.bearer())
            .call()
            .unwrap();
        found.status() == 200
    }

    pub(crate) fn upload(&self, blob: &[u8]) {
        if self.has(&format!("blobs/{}", digest(blob))) {
            return;
        }
        let url = format!("{}/blobs/uploads/?digest={}", self.base(), digest(blob));
        let answer = self
            .agent
            .post(&url)
            .header("authorization", self.bearer())
            .header("content-type", "application/octet-stream")
            .send(blob)
            .unwrap();
        assert_eq!(answer.status(), 201, "{url}");
    }

    fn base(&self) -> String {
        let repository = self.token.repository.as_deref().unwrap();
        format!("{}://{}/v2/{repository}", self.scheme, self.token.registry)
    }

    fn bearer(&self) -> String {
        format!("Bearer {}", self.token.token.expose_secret())
    }
}

/// The archive of the image's one layer.
pub(crate) fn layer() -> Vec<u8> {
    layer_with(|_| ())
}

/// The same with more in it.
pub(crate) fn layer_with(add: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let program = fs::read(app::binary()).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(program.len() as u64);
    header.set_mode(0o755);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    archive
        .append_data(&mut header, "app", program.as_slice())
        .unwrap();
    add(&mut archive);
    archive.into_inner().unwrap()
}

fn config(layer: &[u8], env: &[(&str, &str)], about: &Value) -> Vec<u8> {
    let env: Vec<_> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut run = json!({ "Entrypoint": ["/app"], "Env": env });
    for (name, value) in about.as_object().unwrap() {
        run[name] = value.clone();
    }
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": run,
        "rootfs": { "type": "layers", "diff_ids": [digest(layer)] },
    });
    config.to_string().into_bytes()
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
