//! Images of the test application, pushed as any client pushes.

use std::fs;

use management_api::types::RegistryToken;
use secrecy::ExposeSecret;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::app;
use crate::harness::{Server, agent};

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Pushes an image with this environment under `tag`; returns its digest.
pub(crate) fn push(server: &Server, tenant: &str, tag: &str, env: &[(&str, &str)]) -> String {
    let token = server.client().registry_token(tenant).unwrap();
    let layer = layer();
    let config = config(&layer, env);
    for blob in [&layer, &config] {
        upload(&token, blob);
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": { "mediaType": CONFIG, "digest": digest(&config), "size": config.len() },
        "layers": [{ "mediaType": LAYER, "digest": digest(&layer), "size": layer.len() }],
    });
    let manifest = manifest.to_string().into_bytes();
    let url = format!("{}/manifests/{tag}", base(&token));
    let answer = agent()
        .put(&url)
        .header("authorization", bearer(&token))
        .header("content-type", MANIFEST)
        .send(&manifest)
        .unwrap();
    assert_eq!(answer.status(), 201, "{url}");
    digest(&manifest)
}

/// Whether the registry says that it has something: `blobs/DIGEST`, `manifests/TAG`.
pub(crate) fn has(token: &RegistryToken, what: &str) -> bool {
    let url = format!("{}/{what}", base(token));
    let found = agent()
        .head(&url)
        .header("authorization", bearer(token))
        .call()
        .unwrap();
    found.status() == 200
}

pub(crate) fn upload(token: &RegistryToken, blob: &[u8]) {
    if has(token, &format!("blobs/{}", digest(blob))) {
        return;
    }
    let url = format!("{}/blobs/uploads/?digest={}", base(token), digest(blob));
    let answer = agent()
        .post(&url)
        .header("authorization", bearer(token))
        .header("content-type", "application/octet-stream")
        .send(blob)
        .unwrap();
    assert_eq!(answer.status(), 201, "{url}");
}

fn layer() -> Vec<u8> {
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
    archive.into_inner().unwrap()
}

fn config(layer: &[u8], env: &[(&str, &str)]) -> Vec<u8> {
    let env: Vec<_> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": { "Entrypoint": ["/app"], "Env": env },
        "rootfs": { "type": "layers", "diff_ids": [digest(layer)] },
    });
    config.to_string().into_bytes()
}

fn base(token: &RegistryToken) -> String {
    let repository = token.repository.as_deref().unwrap();
    format!("http://{}/v2/{repository}", token.registry)
}

fn bearer(token: &RegistryToken) -> String {
    format!("Bearer {}", token.token.expose_secret())
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let hash = Sha256::digest(bytes);
    hash.iter().fold("sha256:".to_owned(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
