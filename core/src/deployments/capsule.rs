//! A release: everything it takes to run it again.

use std::collections::BTreeMap;

use management_api::types::{HealthCheck, ProbeKind, Resources, Restart};
use sha2::{Digest as _, Sha256};

use super::service::{Group, Service};
use crate::hex;

/// What is deployed, and what a rollback restores: not only the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Capsule {
    /// Digest of the image's manifest, `sha256:…`.
    pub(crate) digest: String,
    /// Environment of the application.
    pub(crate) env: BTreeMap<String, String>,
    /// How an instance proves that it works.
    pub(crate) health: HealthCheck,
    /// How many instances there are.
    pub(crate) replicas: u32,
    /// What each of them may use of the machine.
    pub(crate) resources: Resources,
    /// Which of them are started again that have ended.
    pub(crate) restart: Restart,
    /// The tenant's secrets, each with the version that it had. Values are nowhere but in the store.
    pub(crate) secrets: BTreeMap<String, u64>,
    /// What it has beyond one service that gets everything.
    pub(crate) group: Group,
}

impl Capsule {
    /// The same for two capsules only when they would run alike.
    pub(crate) fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash_program(&mut hash, &self.app());
        for (name, version) in &self.secrets {
            field(&mut hash, &format!("secret {name} {version}"));
        }
        self.group.hash(&mut hash);
        hex::encode(&hash.finalize())
    }
}

/// What a service could always say of the program that it runs.
pub(super) fn hash_program(hash: &mut Sha256, service: &Service) {
    field(hash, &service.digest);
    field(hash, &service.env.len().to_string());
    for (name, value) in &service.env {
        field(hash, name);
        field(hash, value);
    }
    hash_check(hash, &service.health);
    // One is what releases had before there could be several: theirs stay the same.
    if service.replicas != 1 {
        field(hash, &format!("replicas {}", service.replicas));
    }
    hash_resources(hash, &service.resources);
    if service.restart != Restart::Always {
        field(hash, &format!("restart {}", service.restart.as_str()));
    }
}

fn hash_check(hash: &mut Sha256, check: &HealthCheck) {
    field(hash, &check.probe.path);
    for number in [
        u64::from(check.probe.status),
        check.interval_ms,
        check.timeout_ms,
        check.start_period_ms,
        u64::from(check.retries),
    ] {
        field(hash, &number.to_string());
    }
    // What releases could not have before is not in the fingerprint of one that has it not.
    if (check.probe.kind, &check.probe.body, &check.liveness) != (ProbeKind::Http, &None, &None) {
        let more = (check.probe.kind, &check.probe.body, &check.liveness);
        field(hash, &serde_json::json!(more).to_string());
    }
    if !check.probe.command.is_empty() {
        let command = serde_json::json!(check.probe.command);
        field(hash, &format!("command {command}"));
    }
}

fn hash_resources(hash: &mut Sha256, resources: &Resources) {
    let Resources {
        memory_bytes,
        cpu_millis,
        pids,
        read_only,
        best_effort,
    } = resources;
    for (name, bound) in [
        ("memory", *memory_bytes),
        ("cpu", cpu_millis.map(u64::from)),
        ("pids", pids.map(u64::from)),
        ("read-only", read_only.then_some(1)),
        ("best-effort", best_effort.then_some(1)),
    ] {
        // Nothing is said of what is not bounded, as before there were bounds.
        if let Some(bound) = bound {
            field(hash, &format!("{name} {bound}"));
        }
    }
}

/// Lengths keep neighbouring fields apart: `ab`,`c` is not `a`,`bc`.
pub(super) fn field(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text.as_bytes());
}

#[cfg(test)]
pub(crate) mod fixtures {
    use management_api::types::Probe;

    use super::*;

    /// A capsule of an image whose digest consists of one repeated digit.
    pub(crate) fn capsule(digit: char) -> Capsule {
        Capsule {
            digest: format!("sha256:{}", digit.to_string().repeat(64)),
            env: BTreeMap::new(),
            health: HealthCheck {
                probe: Probe {
                    path: "/health".into(),
                    ..Probe::default()
                },
                interval_ms: 1000,
                timeout_ms: 1000,
                start_period_ms: 1000,
                retries: 3,
                liveness: None,
            },
            replicas: 1,
            resources: Resources::default(),
            restart: Restart::Always,
            secrets: BTreeMap::new(),
            group: Group::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::capsule;
    use super::*;

    fn with_env(pairs: &[(&str, &str)]) -> Capsule {
        let env = pairs.iter().map(|(k, v)| ((*k).into(), (*v).into()));
        Capsule {
            env: env.collect(),
            ..capsule('a')
        }
    }

    /// As servers of before there were several services had it.
    #[test]
    fn the_fingerprint_of_one_service_is_what_it_was() {
        let mut before = with_env(&[("A", "bc")]);
        before.replicas = 2;
        before.resources.memory_bytes = Some(1);
        before.secrets.insert("KEY".to_owned(), 2);
        assert_eq!(
            before.fingerprint(),
            "8139bd8b7732c6720c6e6fcd471027580b867740ec797ef5b70cb250fc6033b0"
        );
    }

    #[test]
    fn the_fingerprint_sees_every_part() {
        let base = with_env(&[("A", "bc")]);
        let mut slower = base.clone();
        slower.health.timeout_ms += 1;
        let with_resources = |change: fn(&mut Resources)| {
            let mut other = base.clone();
            change(&mut other.resources);
            other
        };
        let with_command = |words: &[&str]| {
            let mut other = base.clone();
            other.health.probe.kind = ProbeKind::Command;
            other.health.probe.command = words.iter().map(|word| (*word).to_owned()).collect();
            other
        };
        let others = [
            with_env(&[]),
            with_env(&[("AB", "c")]),
            slower,
            with_command(&["a", "b"]),
            with_command(&["a b"]),
            Capsule {
                secrets: BTreeMap::from([("A".to_owned(), 1)]),
                ..base.clone()
            },
            Capsule {
                secrets: BTreeMap::from([("A".to_owned(), 2)]),
                ..base.clone()
            },
            Capsule {
                replicas: 2,
                ..base.clone()
            },
            Capsule {
                restart: Restart::Never,
                ..base.clone()
            },
            Capsule {
                restart: Restart::OnFailure,
                ..base.clone()
            },
            with_resources(|resources| resources.memory_bytes = Some(1)),
            with_resources(|resources| resources.cpu_millis = Some(1)),
            with_resources(|resources| resources.pids = Some(1)),
            with_resources(|resources| resources.read_only = true),
            with_resources(|resources| resources.best_effort = true),
            Capsule {
                digest: capsule('b').digest,
                ..base.clone()
            },
        ];
        for (place, other) in others.iter().enumerate() {
            assert_ne!(base.fingerprint(), other.fingerprint(), "{other:?}");
            let before = others[..place].iter().map(Capsule::fingerprint);
            assert!(before.into_iter().all(|b| b != other.fingerprint()));
        }
        assert_eq!(base.fingerprint(), base.clone().fingerprint());
    }
}
