//! A backup of a server that works, and a server made from it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use management_api::types::NewTenant;

use crate::audit::{outcome, program};
use crate::harness::{Server, command, get, key, log_file, until};
use crate::image::push;
use crate::secrets::set;

const VALUE: &str = "correct horse battery staple";

fn backup(data: &Path, to: &Path, more: &[&str]) -> Result<String, String> {
    let to = to.to_str().unwrap();
    outcome(&program(&[&["backup", "--to", to], more].concat(), data))
}

fn restore(from: &Path, data: &Path) -> Result<String, String> {
    outcome(&program(
        &["restore", "--from", from.to_str().unwrap()],
        data,
    ))
}

/// A server with a secret, and a release that has it.
fn serving() -> Server {
    let server = Server::start();
    set(&server, &[("TOKEN", VALUE)]);
    push(&server, "local", "v0", &[("VERSION", "v0")]);
    assert_eq!(server.deploy_and_wait("v0").state, "succeeded");
    server
}

fn places(folder: &Path) -> [PathBuf; 2] {
    ["backup", "backup.tar"].map(|name| folder.join(name))
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_backup_under_load_is_a_server_elsewhere() {
    let mut server = serving();
    let other = NewTenant {
        id: "other".into(),
        name: None,
    };
    server.client().create_tenant(&other).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [_, archive] = places(folder.path());
    let over = AtomicBool::new(false);
    let deployed = std::thread::scope(|scope| {
        let deploying = scope.spawn(|| {
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                number += 1;
                let version = format!("v{number}");
                push(&server, "local", &version, &[("VERSION", &version)]);
                push(&server, "other", &version, &[("VERSION", &version)]);
                assert_eq!(server.deploy_and_wait(&version).state, "succeeded");
            }
            number
        });
        until("something was deployed", || {
            server.version().filter(|version| version != "v0")
        });
        for round in 0..3 {
            let to = folder.path().join(format!("round-{round}"));
            backup(server.data(), &to, &[]).unwrap();
        }
        backup(server.data(), &archive, &["--with-key"]).unwrap();
        over.store(true, Ordering::Relaxed);
        deploying.join().unwrap()
    });
    assert!(deployed > 1, "{deployed}");
    server.kill();

    let data = folder.path().join("restored");
    let printed = restore(&archive, &data).unwrap();
    assert!(printed.contains("systemprompt serve"), "{printed}");
    let restored = Server::start_in(&data);
    let history = restored.client().deployments("local").unwrap().unwrap();
    let live = history.iter().find(|deployment| deployment.live).unwrap();
    assert!(
        history.iter().all(|deployment| !deployment.gone),
        "{history:?}"
    );
    let tag = live.tag.clone();
    until("the same release serves", || {
        restored
            .version()
            .filter(|version| Some(version) == tag.as_ref())
    });
    let secret = get(&format!("{}/env/TOKEN", restored.app_url()));
    assert_eq!(secret.as_deref(), Some(VALUE));
    outcome(&program(&["verify"], &data)).unwrap();
    let rows = restored.client().audit(None, None, 1000).unwrap().unwrap();
    assert!(rows.iter().any(|row| row.action == "server.restore"));
    // And it goes on from there.
    push(&restored, "local", "after", &[("VERSION", "after")]);
    assert_eq!(restored.deploy_and_wait("after").state, "succeeded");
    for round in 0..3 {
        let data = folder.path().join(format!("data-{round}"));
        restore(&folder.path().join(format!("round-{round}")), &data).unwrap();
        outcome(&program(&["verify"], &data)).unwrap();
    }
}

#[test]
fn it_holds_no_key_and_no_value_unless_it_is_told_to() {
    let server = serving();
    let folder = tempfile::tempdir().unwrap();
    let key = fs::read_to_string(server.data().join("secrets.key")).unwrap();
    let token = server.token().to_owned();
    for to in places(folder.path()) {
        let printed = backup(server.data(), &to, &[]).unwrap();
        assert!(printed.contains("is not in it"), "{printed}");
        let all = if to.is_dir() {
            files(&to)
        } else {
            vec![to.clone()]
        };
        for file in all {
            let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", file.display());
            let bytes = fs::read(&file).unwrap();
            for secret in [key.trim(), VALUE, &token] {
                let found = bytes
                    .windows(secret.len())
                    .any(|part| part == secret.as_bytes());
                assert!(!found, "{}", file.display());
            }
        }
        let data = folder.path().join(format!("{}-data", to.display()));
        let printed = restore(&to, &data).unwrap();
        assert!(printed.contains("--secrets-key"), "{printed}");
        // Without the key it does not start, with it it does.
        assert!(!command(&data).status().unwrap().success());
        assert!(
            fs::read_to_string(log_file(&data))
                .unwrap()
                .contains("--secrets-key")
        );
        fs::write(data.join("secrets.key"), &key).unwrap();
        drop(Server::start_in(&data));
    }
    // A key that opens nothing would be noticed when it is too late.
    let wrong = server.data().join("secrets.key");
    fs::write(&wrong, format!("{}\n", "3".repeat(64))).unwrap();
    let refused = backup(server.data(), &folder.path().join("x"), &["--with-key"]).unwrap_err();
    assert!(refused.contains("is not the key"), "{refused}");
    fs::write(&wrong, &key).unwrap();
    let to = folder.path().join("with-key");
    let printed = backup(server.data(), &to, &["--with-key"]).unwrap();
    assert!(printed.contains("reads the secrets"), "{printed}");
    assert_eq!(fs::read_to_string(to.join("secrets.key")).unwrap(), key);
}

#[test]
fn what_is_there_is_neither_overwritten_nor_mixed() {
    let server = serving();
    let folder = tempfile::tempdir().unwrap();
    for to in places(folder.path()) {
        backup(server.data(), &to, &[]).unwrap();
        let refused = backup(server.data(), &to, &[]).unwrap_err();
        assert!(refused.contains("exists already"), "{refused}");
        let refused = restore(&to, server.data()).unwrap_err();
        assert!(refused.contains("is not empty"), "{refused}");
    }
    let nothing = backup(folder.path(), &folder.path().join("x"), &[]).unwrap_err();
    assert!(nothing.contains("holds no state of a server"), "{nothing}");
    let left = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "nothing unfinished stays");
}

#[test]
fn a_backup_that_is_not_whole_is_refused() {
    let server = serving();
    let folder = tempfile::tempdir().unwrap();
    let [plain, archive] = places(folder.path());
    for to in [&plain, &archive] {
        backup(server.data(), to, &[]).unwrap();
    }
    let data = folder.path().join("data");
    let refused = |from: &Path, told: &str| {
        let error = restore(from, &data).unwrap_err();
        assert!(error.contains(told), "{error}");
        // It can be tried again, with another.
        assert!(!data.join("state.db").exists() && !data.join("restore.part").exists());
    };
    let bytes = fs::read(&archive).unwrap();
    let cut = folder.path().join("cut.tar");
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    refused(&cut, "cannot restore");
    let blobs = plain.join("registry/blobs/sha256");
    let blob = files(&blobs).pop().unwrap();
    let whole = fs::read(&blob).unwrap();
    fs::write(&blob, b"rotten").unwrap();
    refused(&plain, "is damaged");
    fs::remove_file(&blob).unwrap();
    refused(&plain, "files when it was made");
    fs::write(&blob, &whole).unwrap();
    fs::write(plain.join("more"), b"").unwrap();
    refused(&plain, "does not belong into a backup");
    fs::remove_file(plain.join("more")).unwrap();
    // Neither the database nor a link is named by its digest.
    let link = files(&plain.join("registry/repositories")).pop().unwrap();
    for file in [plain.join("state.db"), link, plain.join("SHA256SUMS")] {
        let whole = fs::read(&file).unwrap();
        let mut changed = whole.clone();
        if let Some(byte) = changed.get_mut(whole.len() / 2) {
            *byte ^= 1;
        } else {
            changed.push(b'x');
        }
        fs::write(&file, changed).unwrap();
        refused(&plain, "is damaged");
        fs::write(&file, &whole).unwrap();
    }
    let about = plain.join("backup.json");
    let text = fs::read_to_string(&about).unwrap();
    fs::remove_file(&about).unwrap();
    refused(&plain, "is no backup, or was cut off");
    fs::write(&about, text.replace("\"format\": 1", "\"format\": 2")).unwrap();
    refused(&plain, "use a newer one");
    fs::write(&about, text).unwrap();
    restore(&plain, &data).unwrap();
}

#[test]
fn an_archive_reaches_nothing_outside_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let outside = folder.path().join("outside");
    for (place, kind) in [
        ("registry/../../outside", tar::EntryType::Regular),
        ("registry/blobs", tar::EntryType::Symlink),
        ("/state.db", tar::EntryType::Regular),
        ("token", tar::EntryType::Regular),
    ] {
        let mut header = tar::Header::new_gnu();
        // The library itself refuses to write such names.
        let name = &mut header.as_gnu_mut().unwrap().name;
        name[..place.len()].copy_from_slice(place.as_bytes());
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_cksum();
        let archive = folder.path().join("evil.tar");
        let mut builder = tar::Builder::new(fs::File::create(&archive).unwrap());
        builder.append(&header, &[][..]).unwrap();
        builder.finish().unwrap();
        let refused = restore(&archive, &data).unwrap_err();
        assert!(
            refused.contains("does not belong into") || refused.contains("is no file"),
            "{refused}"
        );
        assert!(!outside.exists() && !data.join("token").exists());
    }
}

#[test]
fn a_tenant_without_its_image_keeps_nobody_else_from_being_backed_up() {
    let server = serving();
    server.create_tenants(&["other"]);
    let digest = push(&server, "other", "v1", &[("VERSION", "lost")]);
    let mut request = server.request("v1");
    request.image = server.image("other", "v1");
    let answer = server
        .client()
        .deploy("other", &request, &key(), true)
        .unwrap();
    let number = answer.deployment.unwrap();
    until("the other tenant serves", || {
        let found = server.client().deployment("other", number).unwrap();
        found.live.then_some(())
    });
    let hex = digest.strip_prefix("sha256:").unwrap();
    fs::remove_file(server.data().join("registry/blobs/sha256").join(hex)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for to in places(folder.path()) {
        let told = backup(server.data(), &to, &[]).unwrap_err();
        assert!(
            told.contains("deployment 1 of tenant \"other\"") && told.contains("push it again"),
            "{told}"
        );
        let data = folder.path().join(format!("{}-data", to.display()));
        restore(&to, &data).unwrap();
        fs::copy(server.data().join("secrets.key"), data.join("secrets.key")).unwrap();
        let restored = Server::start_in(&data);
        until("the release of the first tenant serves", || {
            restored.version().filter(|version| version == "v0")
        });
    }
}

#[test]
fn a_server_that_has_deployed_nothing_is_backed_up_as_well() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    for to in places(folder.path()) {
        let data = folder.path().join(format!("{}-data", to.display()));
        backup(server.data(), &to, &[]).unwrap();
        restore(&to, &data).unwrap();
        outcome(&program(&["verify"], &data)).unwrap();
    }
}
