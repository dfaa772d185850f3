//! The image configuration: how to run an image, and what its layers unpack to.
//!
//! Source: the OCI image specification's `config.md`; `Healthcheck` and `Shell` are Docker's additions.
//! Docker writes `null` where OCI leaves a field out, so both read as empty.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::manifest::{null_as_default, to_json};

/// The configuration blob of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, RFC 3339. A fixed time keeps builds reproducible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The processor, as `GOARCH` names it.
    pub architecture: String,
    /// The processor's variant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The operating system, as `GOOS` names it.
    pub os: String,
    /// How to run a container of it.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: RunConfig,
    /// What the layers unpack to.
    pub rootfs: RootFs,
    /// How each layer came to be, base first.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub history: Vec<History>,
}

impl ImageConfig {
    /// Reads a configuration blob.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The canonical bytes: compact JSON, maps sorted.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        to_json(self)
    }
}

/// How to run a container of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RunConfig {
    /// User and group, by name or number: `user`, `uid`, `user:group`, `uid:gid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Ports such as `8080/tcp`.
    #[serde(
        default,
        skip_serializing_if = "BTreeSet::is_empty",
        with = "empty_objects"
    )]
    pub exposed_ports: BTreeSet<String>,
    /// `NAME=value`, in order.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub env: Vec<String>,
    /// The program and its fixed arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Arguments to the entrypoint, or the program when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Paths that are to be volumes.
    #[serde(
        default,
        skip_serializing_if = "BTreeSet::is_empty",
        with = "empty_objects"
    )]
    pub volumes: BTreeSet<String>,
    /// The folder to start in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Free-form notes.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to stop, `SIGTERM` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Docker's check of a running container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Docker's shell for the shell form of instructions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// Docker's check of a running container. Times are in nanoseconds; 0 means Docker's default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", "…"]`.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "null_as_default"
    )]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: u64,
    /// For one check.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: u64,
    /// During which failures do not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: u64,
    /// Between two checks during the start period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: u64,
    /// Failures in a row that make a container unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u64,
}

/// The uncompressed layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed tars, base first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<Digest>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self {
            kind: "layers".to_owned(),
            diff_ids: Vec::new(),
        }
    }
}

/// How a layer came to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By which command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// In other words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// True when the step changed no files and so has no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// A Go `map[string]struct{}`: a set, written as an object of empty objects.
mod empty_objects {
    use super::{BTreeMap, BTreeSet, Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize)]
    struct Empty {}

    pub(super) fn serialize<S: Serializer>(
        set: &BTreeSet<String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(set.iter().map(|key| (key, Empty {})))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeSet<String>, D::Error> {
        let map = Option::<BTreeMap<String, serde_json::Value>>::deserialize(deserializer)?;
        Ok(map.unwrap_or_default().into_keys().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `docker build` writes it, shortened.
    const DOCKER: &str = r#"{"architecture":"amd64","config":{"Hostname":"","User":"1000:1000",
        "ExposedPorts":{"8080/tcp":{}},"Env":["PATH=/bin"],"Cmd":null,"Entrypoint":["/app/bin"],
        "Volumes":null,"WorkingDir":"/app","OnBuild":null,"Labels":null,"StopSignal":"SIGTERM",
        "Healthcheck":{"Test":["CMD","true"],"Interval":5000000000,"Retries":3}},
        "created":"2024-01-01T00:00:00Z","docker_version":"20.10",
        "history":[{"created_by":"ENV a=b","empty_layer":true}],"os":"linux",
        "rootfs":{"type":"layers","diff_ids":[]}}"#;

    #[test]
    fn docker_configuration_reads() {
        let image = ImageConfig::from_slice(DOCKER.as_bytes()).unwrap();
        assert_eq!(image.config.user.as_deref(), Some("1000:1000"));
        assert!(image.config.exposed_ports.contains("8080/tcp"));
        assert_eq!(image.config.entrypoint, Some(vec!["/app/bin".to_owned()]));
        assert_eq!(image.config.cmd, None);
        assert_eq!(
            image.config.healthcheck.as_ref().unwrap().interval,
            5_000_000_000
        );
        assert!(image.history[0].empty_layer);
    }

    #[test]
    fn names_are_exact_and_bytes_stable() {
        let image = ImageConfig::from_slice(DOCKER.as_bytes()).unwrap();
        let bytes = image.to_vec();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.contains(r#""ExposedPorts":{"8080/tcp":{}}"#), "{text}");
        assert!(text.contains(r#""Healthcheck":{"Test":["CMD","true"],"Interval":5000000000"#));
        assert!(!text.contains("null"), "{text}");
        assert_eq!(ImageConfig::from_slice(&bytes).unwrap(), image);
        assert_eq!(ImageConfig::from_slice(&bytes).unwrap().to_vec(), bytes);
    }
}
