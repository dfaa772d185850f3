//! A new key for the tenants' secrets: whenever its making is cut short, what was kept still opens.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use management_api::types::SecretsRequest;
use secrecy::SecretString;

use crate::database;
use crate::harness::{Server, until};

/// Enough that sealing them takes a while.
const SECRETS: usize = 60;
const VERSIONS: usize = 20;

fn request(version: usize) -> SecretsRequest {
    let secret = |index: usize| {
        let value = format!("{index} {version} {}", "x".repeat(2000));
        (format!("SECRET_{index}"), SecretString::from(value))
    };
    SecretsRequest {
        secrets: (0..SECRETS).map(secret).collect(),
        externally_rotated: Vec::new(),
        remove: Vec::new(),
    }
}

/// A server's folder with many secrets of many versions, and no server on it.
fn folder() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = Server::start_in(&data);
    for version in 0..VERSIONS {
        server
            .client()
            .change_secrets("local", &request(version))
            .unwrap();
    }
    assert!(server.terminate().success());
    (folder, data)
}

fn rekey(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_systemprompt"));
    database::tell(&mut command);
    command.arg("rekey").arg("--data").arg(data);
    for name in [
        "SYSTEMPROMPT_SECRETS_KEY_FILE",
        "SYSTEMPROMPT_SECRETS_KEY_COMMAND",
    ] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

fn succeed(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Whether the newest values open: setting them once more makes no new version only if the server has read them.
fn assert_opens(server: &Server) {
    let client = server.client();
    client
        .change_secrets("local", &request(VERSIONS - 1))
        .unwrap();
    let known = client.secrets("local").unwrap().unwrap();
    let versions: BTreeMap<_, _> = known.iter().map(|s| (s.name.as_str(), s.version)).collect();
    assert_eq!(versions.len(), SECRETS);
    assert!(
        versions.values().all(|version| *version == VERSIONS as u64),
        "{versions:?}"
    );
}

fn assert_server_opens(data: &Path) {
    let mut server = Server::start_in(data);
    assert_opens(&server);
    assert!(server.terminate().success());
    for entry in fs::read_dir(data).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.starts_with(".secrets.key"), "{name} is left");
    }
}

#[test]
fn no_key_of_somebodys_own_is_removed_or_replaced() {
    let (_folder, data) = folder();
    let key = data.join("secrets.key");
    let present = fs::read(&key).unwrap();
    // Named as people name keys; the last one holds the key that everything is sealed with.
    let own = ["secrets.new", "secrets.key.new", "secrets.key.next"];
    for name in own {
        fs::write(data.join(name), &present).unwrap();
        let refused = rekey(&data)
            .arg("--new-secrets-key")
            .arg(data.join(name))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(
            !refused.status.success() && text.contains("the present key"),
            "{text}"
        );
        assert_eq!(fs::read(data.join(name)).unwrap(), present, "{name}");
    }
    let other = format!("{}\n", "5".repeat(64));
    fs::write(data.join("secrets.new"), &other).unwrap();
    let output = rekey(&data)
        .arg("--new-secrets-key")
        .arg(data.join("secrets.new"))
        .output();
    succeed(&output.unwrap());
    assert_eq!(fs::read_to_string(data.join("secrets.new")).unwrap(), other);
    // The key in the folder is the old one now, and everything that lies beside it is somebody's.
    let refused = rekey(&data).output().unwrap();
    assert!(!refused.status.success());
    let output = rekey(&data)
        .arg("--secrets-key")
        .arg(data.join("secrets.new"))
        .output();
    succeed(&output.unwrap());
    assert_ne!(fs::read_to_string(data.join("secrets.new")).unwrap(), other);
    for name in ["secrets.key", "secrets.key.new", "secrets.key.next"] {
        assert_eq!(fs::read(data.join(name)).unwrap(), present, "{name}");
    }
}

#[test]
pub(crate) fn a_new_key_opens_everything_and_the_old_one_nothing() {
    let (folder, data) = folder();
    let key = data.join("secrets.key");
    let old = folder.path().join("old");
    fs::copy(&key, &old).unwrap();
    let said = succeed(&rekey(&data).output().unwrap());
    assert!(
        said.starts_with(&format!("{} versions", SECRETS * VERSIONS)),
        "{said}"
    );
    assert_ne!(fs::read(&key).unwrap(), fs::read(&old).unwrap());
    let mode = fs::metadata(&key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_server_opens(&data);
    // From one file to another, and from there to what a command prints.
    let other = folder.path().join("other");
    let output = rekey(&data).arg("--new-secrets-key").arg(&other).output();
    succeed(&output.unwrap());
    let refused = rekey(&data).output().unwrap();
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(
        !refused.status.success() && text.contains("--secrets-key"),
        "{text}"
    );
    let command = format!("printf {}", "7".repeat(64));
    let output = rekey(&data)
        .arg("--secrets-key")
        .arg(&other)
        .args(["--new-secrets-key-command", &command])
        .output();
    succeed(&output.unwrap());
    let output = rekey(&data)
        .args(["--secrets-key-command", &command])
        .arg("--new-secrets-key")
        .arg(&key)
        .output();
    succeed(&output.unwrap());
    assert_server_opens(&data);
}

#[test]
fn nothing_is_done_beside_a_server_or_to_what_is_no_servers_folder() {
    let server = Server::start();
    let refused = rekey(server.data()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("stop it first"));
    let empty = tempfile::tempdir().unwrap();
    let refused = rekey(empty.path()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);
}

#[test]
fn wherever_it_is_cut_short_the_next_server_opens_everything() {
    let (_folder, data) = folder();
    for point in ["key_made", "sealing", "sealed", "replaced"] {
        let before = fs::read(data.join("secrets.key")).unwrap();
        let died = rekey(&data)
            .env("SYSTEMPROMPT_DIE_AT", point)
            .output()
            .unwrap();
        assert!(!died.status.success(), "{point}");
        assert_server_opens(&data);
        let after = fs::read(data.join("secrets.key")).unwrap();
        let changed = matches!(point, "sealed" | "replaced");
        assert_eq!(before != after, changed, "{point}");
    }
    // The command itself finishes what another one has begun, too.
    for point in ["key_made", "sealing", "sealed", "replaced"] {
        let died = rekey(&data)
            .env("SYSTEMPROMPT_DIE_AT", point)
            .output()
            .unwrap();
        assert!(!died.status.success(), "{point}");
        succeed(&rekey(&data).output().unwrap());
    }
    assert_server_opens(&data);
}

#[test]
fn killed_at_any_moment_it_loses_nothing() {
    let (_folder, data) = folder();
    let started = std::time::Instant::now();
    succeed(&rekey(&data).output().unwrap());
    let whole = started.elapsed();
    for part in 1..=12 {
        let mut child = rekey(&data).stdout(Stdio::null()).spawn().unwrap();
        // Not to wait for anything: to hit another moment each time.
        std::thread::sleep(Duration::from_micros(
            u64::try_from(whole.as_micros()).unwrap() * part / 12,
        ));
        // It may be done already.
        let _ = child.kill();
        until("it ends", || child.try_wait().unwrap());
        assert_server_opens(&data);
    }
}
