//! What an image says about its own health check.
//!
//! Its command is not run (that needs a program in the image which knows the port); its times are
//! the author's knowledge of how long the application takes, and are used.

use management_api::types::HealthCheck;
use oci::{Digest, Healthcheck, ImageConfig, ImageIndex, ImageManifest, Platform, Store};

/// Manifests and configurations are documents, not content.
const MAX_DOCUMENT: u64 = 4 * 1024 * 1024;
const NANOS_PER_MILLI: u64 = 1_000_000;

/// `defaults`, with what the image `digest` says. It reads small files and blocks. An image that
/// cannot be read says nothing here; the engine then says why.
pub(crate) fn from_image(store: &Store, digest: Digest, defaults: HealthCheck) -> HealthCheck {
    match read(store, digest) {
        Some(said) => merged(&said, defaults),
        None => defaults,
    }
}

fn read(store: &Store, digest: Digest) -> Option<Healthcheck> {
    let document = store.read_small(&digest, MAX_DOCUMENT).ok()?;
    let manifest = match ImageIndex::from_slice(&document) {
        Ok(index) => {
            let chosen = index.for_platform(&Platform::host())?;
            let document = store.read_small(&chosen.digest, MAX_DOCUMENT).ok()?;
            ImageManifest::from_slice(&document).ok()?
        }
        Err(_) => ImageManifest::from_slice(&document).ok()?,
    };
    let config = store.read_small(&manifest.config.digest, MAX_DOCUMENT);
    let config = ImageConfig::from_slice(&config.ok()?).ok()?;
    config.config.healthcheck
}

/// Zero means that the image does not say. What it says is kept within what a request may say.
fn merged(said: &Healthcheck, defaults: HealthCheck) -> HealthCheck {
    let millis = |nanos: u64, default: u64, least: u64, most: u64| match nanos / NANOS_PER_MILLI {
        0 => default,
        millis => millis.clamp(least, most),
    };
    let hour = 60 * 60 * 1000;
    HealthCheck {
        interval_ms: millis(said.interval, defaults.interval_ms, 50, hour),
        timeout_ms: millis(said.timeout, defaults.timeout_ms, 10, 5 * 60 * 1000),
        start_period_ms: millis(said.start_period, defaults.start_period_ms, 0, hour),
        retries: match u32::try_from(said.retries.min(100)) {
            Ok(0) | Err(_) => defaults.retries,
            Ok(retries) => retries,
        },
        ..defaults
    }
}

#[cfg(test)]
mod tests {
    use super::super::capsule::fixtures::capsule;
    use super::*;

    #[test]
    fn what_an_image_says_is_used_and_the_rest_stays() {
        let defaults = capsule('a').health;
        let said = Healthcheck {
            interval: 5_000_000_000,
            start_period: u64::MAX,
            ..Healthcheck::default()
        };
        let check = merged(&said, defaults.clone());
        assert_eq!(check.interval_ms, 5000);
        assert_eq!(check.start_period_ms, 60 * 60 * 1000);
        assert_eq!(
            (check.timeout_ms, check.retries, check.probe),
            (defaults.timeout_ms, defaults.retries, defaults.probe)
        );
    }

    #[test]
    fn it_is_found_through_manifest_and_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "config": { "Healthcheck": { "Test": ["CMD", "true"], "Retries": 9 } },
            "rootfs": { "type": "layers", "diff_ids": [] },
        })
        .to_string();
        let digest = store.put_bytes(config.as_bytes()).unwrap();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest.to_string(), "size": config.len(),
            },
            "layers": [],
        })
        .to_string();
        let digest = store.put_bytes(manifest.as_bytes()).unwrap();
        let check = from_image(&store, digest, capsule('a').health);
        assert_eq!(check.retries, 9);
    }

    #[test]
    fn an_image_that_is_not_there_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let defaults = capsule('a').health;
        let digest = capsule('a').digest.parse().unwrap();
        assert_eq!(from_image(&store, digest, defaults.clone()), defaults);
    }
}
