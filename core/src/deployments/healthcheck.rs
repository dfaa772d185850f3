//! What an image says about its own health check.
//!
//! Its times are the author's knowledge of how long the application takes, and are used where a request says nothing about
//! health. Its command is run where a request asks for that: it has to know the port, which is another one for each
//! instance here.

use management_api::types::{HealthCheck, Probe, ProbeKind};
use oci::{Digest, Healthcheck, RunConfig, Store};

use super::Refusal;
use super::run_config::read;

const NANOS_PER_MILLI: u64 = 1_000_000;

/// `defaults`, with what the image `digest` says. It reads small files and blocks. An image that
/// cannot be read says nothing here; the engine then says why.
pub(crate) fn from_image(store: &Store, digest: Digest, defaults: HealthCheck) -> HealthCheck {
    match read(store, digest).and_then(|config| config.healthcheck) {
        Some(said) => merged(&said, defaults),
        None => defaults,
    }
}

/// What is asked for, with the image's own check in place where that is asked for. It reads small files and blocks.
pub(crate) fn settle_health(
    store: &Store,
    digest: Digest,
    asked: HealthCheck,
) -> Result<HealthCheck, Refusal> {
    if asked.probe.kind != ProbeKind::Image {
        return Ok(asked);
    }
    let config = read(store, digest).unwrap_or_default();
    let said = config.healthcheck.clone().unwrap_or_default();
    let Some(command) = command(&said, &config) else {
        return Err(Refusal::invalid(
            "health.kind is image, and the image has no HEALTHCHECK: add one to its Dockerfile, or choose another kind",
        ));
    };
    Ok(HealthCheck {
        probe: Probe {
            kind: ProbeKind::Command,
            command,
            ..Probe::default()
        },
        ..merged(&said, asked)
    })
}

/// The words to run, if the image has a check and has not switched it off. The shell form is for the image's shell, as in
/// Docker.
fn command(said: &Healthcheck, config: &RunConfig) -> Option<Vec<String>> {
    match said.test.split_first() {
        Some((form, words)) if form == "CMD" && !words.is_empty() => Some(words.to_vec()),
        Some((form, [script, ..])) if form == "CMD-SHELL" => {
            let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
            let mut words = config.shell.clone().unwrap_or_else(default);
            words.push(script.clone());
            Some(words)
        }
        _ => None,
    }
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
    use oci::Platform;

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

    /// An image with this configuration.
    fn image(store: &Store, config: &serde_json::Value) -> Digest {
        let config = serde_json::json!({
            "architecture": Platform::host().architecture, "os": "linux",
            "config": config,
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
        store.put_bytes(manifest.as_bytes()).unwrap()
    }

    #[test]
    fn it_is_found_through_manifest_and_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let said = serde_json::json!({ "Test": ["CMD", "true"], "Retries": 9 });
        let digest = image(&store, &serde_json::json!({ "Healthcheck": said }));
        let check = from_image(&store, digest, capsule('a').health);
        assert_eq!(check.retries, 9);
        assert_eq!(check.probe, capsule('a').health.probe);
    }

    #[test]
    fn its_command_is_the_check_where_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let mut asked = capsule('a').health;
        asked.probe.kind = ProbeKind::Image;
        let settle = |config: serde_json::Value| {
            let settled = settle_health(&store, image(&store, &config), asked.clone());
            settled.map_err(|refusal| refusal.to_string())
        };
        let check = settle(serde_json::json!({
            "Healthcheck": { "Test": ["CMD", "check", "it"], "Interval": 2_000_000_000_u64 },
        }))
        .unwrap();
        assert_eq!(check.probe.kind, ProbeKind::Command);
        assert_eq!(check.probe.command, ["check", "it"]);
        assert_eq!(
            (check.interval_ms, check.timeout_ms),
            (2000, asked.timeout_ms)
        );
        let shell = serde_json::json!({ "Test": ["CMD-SHELL", "a || b"] });
        let check = settle(serde_json::json!({ "Healthcheck": shell })).unwrap();
        assert_eq!(check.probe.command, ["/bin/sh", "-c", "a || b"]);
        let check = settle(serde_json::json!({ "Healthcheck": shell, "Shell": ["/busybox"] }));
        assert_eq!(check.unwrap().probe.command, ["/busybox", "a || b"]);
        for none in [
            serde_json::json!({}),
            serde_json::json!({ "Healthcheck": { "Test": ["NONE"] } }),
            serde_json::json!({ "Healthcheck": { "Test": ["CMD"] } }),
        ] {
            let refused = settle(none).unwrap_err();
            assert!(
                refused.contains("the image has no HEALTHCHECK"),
                "{refused}"
            );
        }
        let other = capsule('a').health;
        let digest = capsule('a').digest.parse().unwrap();
        assert_eq!(settle_health(&store, digest, other.clone()), Ok(other));
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
