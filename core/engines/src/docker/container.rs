//! From what is to be run to the container that the Docker Engine is asked for, and back.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, ContainerSummary, HealthConfig, HostConfig, HostConfigLogConfig, Mount,
};

use crate::engine::InstanceSpec;
use crate::resources::Resources;
use crate::volumes::VolumeId;

/// The machine's own network, as Docker calls it.
pub(super) const HOST: &str = "host";
/// Whose container it is: the id of the server.
pub(super) const SERVER: &str = "io.systemprompt.server";
const INSTANCE: &str = "io.systemprompt.instance";
const PORT: &str = "io.systemprompt.port";
const LOG: &str = "io.systemprompt.log";
/// The volumes of an instance.
const VOLUMES: &str = "io.systemprompt.volumes";

/// What Docker keeps of an instance's output: enough for a server that is away for a while. The server's own log is kept
/// longer.
const LOG_BYTES: &str = "16m";
const LOG_FILES: &str = "2";

/// What is written at a container about the instance that it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Labels {
    pub(super) instance: String,
    pub(super) port: u16,
    pub(super) log: PathBuf,
    pub(super) volumes: Vec<VolumeId>,
}

impl Labels {
    /// Of an instance whose log is somewhere in or beside `root`; it moves with that.
    pub(super) fn write(spec: &InstanceSpec, server: &str, root: &Path) -> HashMap<String, String> {
        let data = root.parent().unwrap_or(root);
        let log = spec.log.strip_prefix(data).unwrap_or(&spec.log);
        let volumes: Vec<VolumeId> = spec.volume_ids().collect();
        let labels = [
            (SERVER, server.to_owned()),
            (INSTANCE, spec.id.clone()),
            (PORT, spec.port.to_string()),
            (LOG, log.to_string_lossy().into_owned()),
            (VOLUMES, serde_json::json!(volumes).to_string()),
        ];
        labels.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// What a container says of itself, if it is an instance of ours.
    pub(super) fn read(container: &ContainerSummary, root: &Path) -> Option<Self> {
        let labels = container.labels.as_ref()?;
        // An absolute path stays what it is.
        let data = root.parent().unwrap_or(root);
        Some(Self {
            instance: labels.get(INSTANCE)?.clone(),
            port: labels.get(PORT)?.parse().ok()?,
            log: data.join(labels.get(LOG)?),
            // Those of earlier servers have none.
            volumes: match labels.get(VOLUMES) {
                Some(volumes) => serde_json::from_str(volumes).ok()?,
                None => Vec::new(),
            },
        })
    }
}

/// The name of an instance's container: no other server has it.
pub(super) fn name(server: &str, instance: &str) -> String {
    format!("systemprompt-{server}-{instance}")
}

/// What to create for `spec`, with the bounds in `resources`, which are those that this engine can enforce.
pub(super) fn body(
    spec: &InstanceSpec,
    image: &str,
    labels: HashMap<String, String>,
    mounts: Vec<Mount>,
    network: &str,
    resources: &Resources,
) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: spec.command.clone(),
        env: Some(environment(spec, network)),
        labels: Some(labels),
        // The platform looks after the instance; a second opinion would only cost.
        healthcheck: Some(HealthConfig {
            test: Some(vec!["NONE".to_owned()]),
            ..HealthConfig::default()
        }),
        host_config: Some(HostConfig {
            mounts: Some(mounts),
            ..host(network, resources)
        }),
        ..ContainerCreateBody::default()
    }
}

/// The address last, for nobody may choose another one.
fn environment(spec: &InstanceSpec, network: &str) -> Vec<String> {
    let mut all = spec.env.clone();
    all.insert("PORT".to_owned(), spec.port.to_string());
    let host = match network {
        HOST => "127.0.0.1",
        // Its network is its own: who else is in it can reach it.
        _ => "0.0.0.0",
    };
    all.insert("HOST".to_owned(), host.to_owned());
    all.into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

fn host(network: &str, resources: &Resources) -> HostConfig {
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let memory = resources.memory.map(bytes);
    let tmp = || HashMap::from([("/tmp".to_owned(), "mode=1777".to_owned())]);
    HostConfig {
        network_mode: Some(network.to_owned()),
        memory,
        // The same: nothing of it is swapped out instead.
        memory_swap: memory,
        nano_cpus: resources.cpu_millis.map(|cpu| i64::from(cpu) * 1_000_000),
        pids_limit: resources.pids.map(i64::from),
        readonly_rootfs: Some(resources.read_only),
        tmpfs: resources.read_only.then(tmp),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        // Reaps what the program leaves behind, and lets it be ended by signals that it does not know.
        init: Some(true),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), LOG_BYTES.to_owned()),
                ("max-file".to_owned(), LOG_FILES.to_owned()),
            ])),
        }),
        ..HostConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::volumes::Mounted;

    fn spec() -> InstanceSpec {
        InstanceSpec {
            id: "a-1-2".to_owned(),
            repository: "a".parse().unwrap(),
            image: format!("sha256:{}", "a".repeat(64)).parse().unwrap(),
            env: BTreeMap::from([
                ("PORT".to_owned(), "1".to_owned()),
                ("A".to_owned(), "b=c".to_owned()),
            ]),
            port: 8081,
            log: PathBuf::from("/data/logs/a/1.log"),
            command: None,
            resources: Resources::default(),
            volumes: Vec::new(),
        }
    }

    #[test]
    fn what_is_written_at_a_container_is_read_again_wherever_the_folder_is_by_then() {
        let data = VolumeId {
            owner: "a".to_owned(),
            name: "data".to_owned(),
        };
        let mut spec = spec();
        spec.volumes = vec![Mounted {
            volume: data.clone(),
            path: PathBuf::from("/data"),
        }];
        let labels = Labels::write(&spec, "s", Path::new("/data/engine"));
        let container = ContainerSummary {
            labels: Some(labels),
            ..ContainerSummary::default()
        };
        let read = Labels::read(&container, Path::new("/moved/engine"));
        let expected = Labels {
            instance: "a-1-2".to_owned(),
            port: 8081,
            log: PathBuf::from("/moved/logs/a/1.log"),
            volumes: vec![data],
        };
        assert_eq!(read, Some(expected));
        assert_eq!(
            Labels::read(&ContainerSummary::default(), Path::new("/")),
            None
        );
    }

    #[test]
    fn nobody_chooses_the_address_of_an_instance() {
        assert_eq!(
            environment(&spec(), "n"),
            ["A=b=c", "HOST=0.0.0.0", "PORT=8081"]
        );
        assert_eq!(
            environment(&spec(), HOST),
            ["A=b=c", "HOST=127.0.0.1", "PORT=8081"]
        );
    }

    #[test]
    fn bounds_are_said_in_dockers_units() {
        let resources = Resources {
            memory: Some(64 << 20),
            cpu_millis: Some(1500),
            pids: Some(20),
            read_only: true,
            best_effort: false,
        };
        let host = host(HOST, &resources);
        assert_eq!(
            (host.memory, host.memory_swap),
            (Some(64 << 20), Some(64 << 20))
        );
        assert_eq!(
            (host.nano_cpus, host.pids_limit),
            (Some(1_500_000_000), Some(20))
        );
        assert_eq!(host.readonly_rootfs, Some(true));
        assert!(host.tmpfs.is_some_and(|tmpfs| tmpfs.contains_key("/tmp")));
    }
}
