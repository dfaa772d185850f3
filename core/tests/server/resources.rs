//! What a deployment says that its instances may use of the machine.

use management_api::types::{DeployRequest, Resources};

use crate::harness::{Server, key, until};
use crate::image::push;

const MIB: u64 = 1 << 20;

fn with_memory(server: &Server, tag: &str, mebibytes: u64) -> DeployRequest {
    DeployRequest {
        resources: Resources {
            memory_bytes: Some(mebibytes * MIB),
            pids: Some(200),
            cpu_millis: Some(1500),
            ..Resources::default()
        },
        ..server.request(tag)
    }
}

/// Asks for a deployment with limits. On a machine that cannot enforce them this must be refused by name; `None` then.
fn deploy(server: &Server, request: &DeployRequest) -> Option<u64> {
    match server.client().deploy("local", request, &key(), false) {
        Ok(answer) => answer.deployment,
        Err(error) => {
            let text = format!("{error:?}");
            assert!(text.contains("limits_not_enforced"), "{text}");
            assert!(!std::path::Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists());
            None
        }
    }
}

#[test]
pub(crate) fn a_release_that_needs_more_memory_than_allowed_is_undone_with_the_reason() {
    let server = Server::start();
    push(
        &server,
        "local",
        "hungry",
        &[("MODE", "hungry"), ("EAT_MB", "96")],
    );
    let Some(number) = deploy(&server, &with_memory(&server, "hungry", 48)) else {
        return;
    };
    let done = server.wait(number);
    assert_eq!(done.state, "failed");
    let failure = done.failure.unwrap();
    assert_eq!(
        (failure.code.as_str(), failure.signal),
        ("out_of_memory", Some(9))
    );
    assert!(
        failure.message.ends_with("it ran out of memory: limit 48M"),
        "{failure:?}"
    );
    // With enough of it the very same image serves.
    let number = deploy(&server, &with_memory(&server, "hungry", 256)).unwrap();
    assert_eq!(server.wait(number).state, "succeeded");
}

#[test]
fn limits_are_part_of_the_release_and_hold_after_a_restart() {
    let server = Server::start();
    push(&server, "local", "v1", &[("VERSION", "one")]);
    let request = with_memory(&server, "v1", 64);
    let Some(number) = deploy(&server, &request) else {
        return;
    };
    assert_eq!(server.wait(number).state, "succeeded");
    assert_eq!(
        deploy(&server, &request),
        Some(number),
        "nothing has changed"
    );
    let other = deploy(&server, &with_memory(&server, "v1", 65)).unwrap();
    assert_eq!(server.wait(other).state, "succeeded");
    assert_ne!(other, number);
    let groups = |server: &Server| {
        let instances = server.instances();
        let pids = instances
            .values()
            .map(|record| record["program"]["pid"].to_string());
        let group = |pid: String| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        pids.map(group).collect::<Vec<_>>()
    };
    assert!(
        groups(&server)[0].contains("systemprompt-"),
        "{:?}",
        groups(&server)
    );
    let before = groups(&server);
    let server = server.kill_and_restart();
    assert_eq!(groups(&server), before);
    let id = server.instances().into_keys().next().unwrap();
    let url = server.app_url();
    let _ = crate::harness::get(&format!("{url}/exit/1"));
    until("another instance serves", || {
        let instances = server.instances();
        let other = instances.iter().find(|(other, _)| **other != id)?;
        other.1["program"].is_object().then(|| server.version())?
    });
    assert!(
        groups(&server)[0].contains("systemprompt-"),
        "{:?}",
        groups(&server)
    );
}

#[test]
fn limits_without_sense_are_refused() {
    let server = Server::start();
    push(&server, "local", "v1", &[]);
    let request = DeployRequest {
        resources: Resources {
            memory_bytes: Some(1),
            ..Resources::default()
        },
        ..server.request("v1")
    };
    let refused = server.client().deploy("local", &request, &key(), false);
    let text = refused.unwrap_err().to_string();
    assert!(
        text.contains("resources.memory_bytes must be between"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_enforced_is_refused_by_name_unless_best_effort_is_said() {
    let server = Server::start_without_isolation();
    push(&server, "local", "v1", &[("VERSION", "one")]);
    let mut request = server.request("v1");
    request.resources.read_only = true;
    let refused = server.client().deploy("local", &request, &key(), false);
    let text = format!("{:?}", refused.unwrap_err());
    assert!(text.contains("limits_not_enforced"), "{text}");
    assert!(text.contains("read-only root"), "{text}");
    request.resources.best_effort = true;
    let number = server.deploy(&request).deployment.unwrap();
    assert_eq!(server.wait(number).state, "succeeded");
    assert_eq!(server.version().as_deref(), Some("one"));
}
