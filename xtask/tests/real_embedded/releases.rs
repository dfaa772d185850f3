//! A first release, the same again, one with a changed line, one that only exists in the registry.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::machine::{Machine, get, summary, version};

#[test]
fn from_a_clone_to_a_live_url() {
    let machine = Machine::new();
    let finished = machine.xtask(&["deploy"]);
    finished.expect_success();
    let url = finished.stdout.trim();
    assert_eq!(
        finished.stdout,
        format!("{url}\n"),
        "standard output is the URL alone"
    );
    assert_eq!(version(url), "one");
    // Out of the image and not out of the project: the page comes from /app, which only exists there.
    let (status, page) = get(&format!("{url}/")).unwrap();
    assert_eq!(
        (status, page.as_str()),
        (200, "<!doctype html><title>Example</title>\n")
    );
    let (_, services) = get(&format!("{url}/services")).unwrap();
    assert_eq!(services, "name: example\n");
}

#[test]
fn the_application_sees_its_own_environment_and_nothing_of_ours() {
    let machine = Machine::new();
    machine
        .workspace
        .write(".systemprompt/deploy.toml", "[env]\nGREETING = \"hello\"\n");
    machine.workspace.commit_everything("greet");
    let report = machine.deploy_well();
    let url = report["url"].as_str().unwrap();
    let (_, env) = get(&format!("{url}/env")).unwrap();
    assert!(env.contains("GREETING=hello\n"), "{env}");
    assert!(env.contains("HOST=127.0.0.1\n"), "{env}");
    for foreign in ["SYSTEMPROMPT_LOCAL_SERVER", "CARGO_", "HOME=/root"] {
        assert!(!env.contains(foreign), "{foreign} in {env}");
    }
}

#[test]
fn limits_of_the_configuration_hold_for_the_application() {
    let machine = Machine::new();
    let write = |limits: &str| {
        let text = format!("[resources]\n{limits}\n");
        machine.workspace.write(".systemprompt/deploy.toml", &text);
        machine.workspace.commit_everything("limits");
    };
    write("memory = \"96M\"\ncpus = 1.5\npids = 100\nread_only = true");
    let (code, report) = machine.deploy(&[]);
    if code != 0 {
        // A machine without control groups: it must say so, and take "best effort" for an answer.
        let error = report.to_string();
        assert!(error.contains("cannot enforce"), "{error}");
        write("memory = \"96M\"\nbest_effort = true");
        machine.deploy_well();
        return;
    }
    let record = machine.instance_record();
    let pid = record["program"]["pid"].as_i64().unwrap();
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(groups.contains("systemprompt-"), "{groups}");
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap();
    let of_root = mounts
        .lines()
        .find(|line| line.split(' ').nth(1) == Some("/"));
    assert!(
        of_root.is_some_and(|line| line.contains(" ro,")),
        "{mounts}"
    );
    // Another limit is another release.
    write("memory = \"97M\"\ncpus = 1.5\npids = 100\nread_only = true");
    assert_eq!(machine.deploy_well()["status"], "succeeded");
}

#[test]
fn a_second_deploy_without_changes_does_nothing() {
    let machine = Machine::new();
    let first = machine.deploy_well();
    let second = machine.deploy_well();
    assert_eq!(second["status"], "unchanged");
    for same in ["digest", "tag", "url", "deployment"] {
        assert_eq!(first[same], second[same], "{same}");
    }
    assert!(
        summary(&second, "build").contains("nothing to compile"),
        "{second:#}"
    );
    // The protocol's minimum: one HEAD of the manifest.
    assert!(
        summary(&second, "push").contains("nothing sent (1 request)"),
        "{second:#}"
    );
    assert!(
        new_layers(&first).len() > 1 && new_layers(&second).is_empty(),
        "{second:#}"
    );
}

/// The lines of the layers that the release which served before did not have.
fn new_layers(report: &serde_json::Value) -> Vec<&str> {
    let layers = report["image_report"]["layers"].as_array().unwrap().iter();
    let new = layers.filter(|layer| layer["state"] == "new");
    new.filter_map(|layer| layer["source"].as_str()).collect()
}

#[test]
fn one_changed_line_is_one_new_layer() {
    let machine = Machine::new();
    let first = machine.deploy_well();
    machine.edit_version("one", "two");
    let second = machine.deploy_well();
    assert_eq!(second["status"], "succeeded");
    assert_ne!(first["digest"], second["digest"]);
    assert_eq!(first["url"], second["url"], "the URL stays");
    assert_eq!(version(second["url"].as_str().unwrap()), "two");
    // The layer and the configuration that names it: made in the platform's store, and not sent.
    assert!(
        summary(&second, "push").ends_with("2 in place (2 requests)"),
        "{second:#}"
    );
    assert_eq!(second["previous"]["tag"], first["tag"]);
    assert_eq!(
        new_layers(&second),
        ["COPY target/release/systemprompt /app/bin/"]
    );
}

#[test]
fn a_dry_run_touches_nothing() {
    let machine = Machine::new();
    let before = files(machine.workspace.root());
    let finished = machine.xtask(&["deploy", "--dry-run"]);
    finished.expect_success();
    assert!(
        finished.stdout.contains("(built by systemprompt)"),
        "{}",
        finished.stdout
    );
    let document = machine
        .xtask(&["deploy", "--dry-run", "--output", "json"])
        .json();
    assert_eq!(document["status"], "planned");
    assert_eq!(document["image"]["layers"].as_array().unwrap().len(), 6);
    assert_eq!(files(machine.workspace.root()), before);
}

/// Of each layer: whether the image that serves now has it.
#[test]
fn a_dry_run_tells_which_layers_would_change() {
    let machine = Machine::new();
    machine.deploy(&[]);
    let live = |machine: &Machine| -> Vec<serde_json::Value> {
        let plan = machine
            .xtask(&["deploy", "--dry-run", "--output", "json"])
            .json();
        let layers = plan["image"]["layers"].as_array().unwrap().clone();
        layers.iter().map(|layer| layer["live"].clone()).collect()
    };
    assert_eq!(live(&machine), vec![serde_json::json!(true); 6]);
    machine
        .workspace
        .write("services/app.yaml", "name: another\n");
    let before = files(machine.workspace.root());
    let changed = live(&machine);
    assert_eq!(changed.iter().filter(|live| **live == false).count(), 1);
    let text = machine.xtask(&["deploy", "--dry-run"]).stdout;
    assert!(text.contains("as last built it is live"), "{text}");
    let line = text
        .lines()
        .find(|line| line.contains("COPY services/"))
        .unwrap();
    assert!(line.ends_with(", changed)"), "{text}");
    assert_eq!(files(machine.workspace.root()), before);
}

#[test]
fn a_tag_of_ones_own_and_the_same_image_again() {
    let machine = Machine::new();
    let (code, first) = machine.deploy(&["--tag", "v1.0.0"]);
    assert_eq!((code, &first["tag"]), (0, &"v1.0.0".into()));
    machine.edit_version("one", "two");
    let (code, _) = machine.deploy(&["--tag", "v1.1.0"]);
    assert_eq!(code, 0);
    let (code, again) = machine.deploy(&["--skip-push", "--tag", "v1.0.0"]);
    assert_eq!(code, 0, "{again:#}");
    assert_eq!(again["digest"], first["digest"]);
    assert_eq!(version(again["url"].as_str().unwrap()), "one");
}

#[test]
fn an_unknown_tag_is_answered_with_the_known_ones() {
    let machine = Machine::new();
    machine.deploy(&["--tag", "v1.0.0"]);
    let (code, report) = machine.deploy(&["--skip-push", "--tag", "v9"]);
    assert_eq!(code, 6);
    assert_eq!(report["error"]["code"], "tag_not_found");
    let details = report["error"]["details"].as_str().unwrap();
    assert!(
        details.contains("the latest releases are v1.0.0"),
        "{details}"
    );
}

/// Every file with its length and time, git's own apart, and what the kernel closes to others than
/// root: the folder it works in while it lays layers over each other.
fn files(folder: &Path) -> BTreeMap<PathBuf, (u64, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::PermissionDenied => continue,
            entries => entries.unwrap(),
        };
        for entry in entries.flatten() {
            let metadata = entry.metadata().unwrap();
            if metadata.is_dir() {
                if entry.file_name() != ".git" {
                    folders.push(entry.path());
                }
            } else {
                found.insert(entry.path(), (metadata.len(), metadata.modified().unwrap()));
            }
        }
    }
    found
}
