//! What holds with the embedded database holds with PostgreSQL: the same tests, with servers that have one.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use crate::audit::{outcome, program};
use crate::cluster::Cluster;
use crate::database;
use crate::harness::{Server, command, get, until};
use crate::image::push;
use crate::secrets::set;

const VALUE: &str = "correct horse battery staple";

/// Tests of other modules, with a database of their own each.
macro_rules! with_postgres {
    ($($module:ident: $($test:ident),+;)*) => {
        $(
            mod $module {
                $(
                    #[test]
                    fn $test() {
                        super::database::with(crate::$module::$test);
                    }
                )+
            }
        )*
    };
}

with_postgres! {
    records:
        rolling_with_a_release_command,
        blue_green,
        canary_that_passes,
        canary_that_fails,
        recreate,
        recreate_that_fails;
    audit:
        every_change_says_who_what_and_from_where,
        a_deployment_is_told_from_its_request_to_its_end,
        a_word_to_a_rollout_is_written_down,
        a_tenants_token_sees_its_own_rows_only_and_all_come_in_pages;
    idempotency:
        the_same_key_and_body_begin_one_deployment,
        a_refusal_does_not_use_the_key_up;
    secrets:
        the_application_finds_them_from_the_next_deployment_on,
        a_version_comes_with_each_new_value_and_with_no_other,
        a_rollback_restores_old_values_but_those_that_others_rotate,
        they_outlive_the_server;
    rotation:
        every_token_of_the_tenant_is_made_anew_and_the_old_ones_hold_for_a_while,
        on_request_the_old_ones_end_at_once_with_all_that_was_got_with_them;
    rekey:
        a_new_key_opens_everything_and_the_old_one_nothing;
    rollback:
        a_rollback_restores_image_and_environment,
        a_release_that_never_served_is_not_restored;
    registry_tokens:
        a_registry_token_ends_with_the_platform_token_behind_it;
    adoption:
        after_a_kill_the_same_processes_serve_on,
        sigterm_leaves_the_release_to_the_next_server;
    operator:
        what_stands_in_outlives_the_server_and_the_release_before_still_comes_back;
}

/// A server with a secret, and a release that has it.
fn serving() -> Server {
    let server = Server::start();
    set(&server, &[("TOKEN", VALUE)]);
    push(&server, "local", "one", &[("VERSION", "one")]);
    assert_eq!(server.deploy_and_wait("one").state, "succeeded");
    server
}

fn backup(data: &Path, to: &Path) {
    let to = to.to_str().unwrap();
    let printed = outcome(&program(&["backup", "--with-key", "--to", to], data)).unwrap();
    assert!(printed.contains("backed up to"), "{printed}");
}

fn restore(from: &Path, data: &Path) -> Result<String, String> {
    let from = from.to_str().unwrap();
    outcome(&program(&["restore", "--from", from], data))
}

/// A server on what was restored: the same release serves, with its secret, and it goes on from there.
fn goes_on(data: &Path) {
    outcome(&program(&["verify"], data)).unwrap();
    let server = Server::start_in(data);
    until("the same release serves", || {
        server.version().filter(|version| version == "one")
    });
    let secret = get(&format!("{}/env/TOKEN", server.app_url()));
    assert_eq!(secret.as_deref(), Some(VALUE));
    let rows = server.client().audit(None, None, 1000).unwrap().unwrap();
    assert!(rows.iter().any(|row| row.action == "server.restore"));
    push(&server, "local", "two", &[("VERSION", "two")]);
    let next = server.deploy_and_wait("two");
    assert_eq!((next.state.as_str(), next.number), ("succeeded", 2));
    outcome(&program(&["verify"], data)).unwrap();
    // Its instances are no other server's.
    let mut server = server;
    assert!(server.interrupt().success());
}

#[test]
fn a_backup_goes_from_each_database_to_each() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second, third) = (Cluster::start(), Cluster::start(), Cluster::start());
    database::use_database(Some(first.url()));
    let server = serving();
    let archive = folder.path().join("postgres.tar");
    // While it serves.
    backup(server.data(), &archive);
    let refused = restore(&archive, &folder.path().join("beside")).unwrap_err();
    assert!(refused.contains("leads"), "{refused}");
    drop(server);
    let refused = restore(&archive, &folder.path().join("not-empty")).unwrap_err();
    assert!(
        refused.contains("leads") || refused.contains("already"),
        "{refused}"
    );

    database::use_database(Some(second.url()));
    let data = folder.path().join("second");
    restore(&archive, &data).unwrap();
    assert!(!data.join("state.db").exists());
    goes_on(&data);

    database::use_database(None);
    let data = folder.path().join("embedded");
    restore(&archive, &data).unwrap();
    let archive = folder.path().join("embedded.tar");
    backup(&data, &archive);
    goes_on(&data);

    database::use_database(Some(third.url()));
    let data = folder.path().join("third");
    restore(&archive, &data).unwrap();
    goes_on(&data);
}

#[test]
fn a_new_database_is_not_begun_beside_the_images_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Cluster::start(), Cluster::start());
    let shared = folder.path().join("shared");
    database::use_database(Some(first.url()));
    database::use_shared(Some(&shared));
    let data = folder.path().join("data");
    let mut server = Server::start_in(&data);
    push(&server, "local", "one", &[("VERSION", "one")]);
    assert!(server.interrupt().success());
    let kept = || {
        let tags = shared.join("registry/repositories/local");
        (read(&shared.join("token")), names(&tags), names(&shared))
    };
    let before = kept();

    database::use_database(Some(second.url()));
    let refused = begin(&data).unwrap_err();
    assert!(refused.contains("not in this database"), "{refused}");
    // What a restoration has left that was killed before it filled the database.
    let half = folder.path().join("half");
    std::fs::create_dir_all(half.join("restore.part")).unwrap();
    database::use_shared(Some(&half));
    let refused = begin(&data).unwrap_err();
    assert!(refused.contains("restoration"), "{refused}");
    assert!(!half.join("token").exists());

    database::use_database(Some(first.url()));
    database::use_shared(Some(&shared));
    assert_eq!(kept(), before);
    let server = Server::start_in(&data);
    assert_eq!(server.deploy_and_wait("one").state, "succeeded");
}

/// Starts a server that is to be refused.
fn begin(data: &Path) -> Result<String, String> {
    let mut child = command(data).stderr(Stdio::piped()).spawn().unwrap();
    let announced = data.join("server.json");
    until("the server ends or announces itself", || {
        let is_over = child.try_wait().unwrap().is_some() || announced.exists();
        is_over.then_some(())
    });
    // One that was not refused; of one that was there is nothing to kill.
    let _ = child.kill();
    outcome(&child.wait_with_output().unwrap())
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

fn names(folder: &Path) -> BTreeSet<OsString> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name()).collect()
}

#[test]
fn the_password_is_told_to_nobody() {
    let cluster = Cluster::start();
    database::use_database(Some(cluster.url()));
    let server = serving();
    let process = format!("/proc/{}/cmdline", server.pid());
    let told = [
        server.log(),
        std::fs::read_to_string(process).unwrap(),
        std::fs::read_to_string(server.data().join("server.json")).unwrap(),
        get(&format!("{}/env/DATABASE_URL", server.app_url())).unwrap_or_default(),
    ];
    for text in told {
        assert!(!text.contains("let-the-tests-in"), "{text}");
    }
    let file = server.data().with_extension("url");
    std::fs::write(&file, cluster.url()).unwrap();
    let data = server.data();
    database::use_database(None);
    let named = ["verify", "--database-url-file", file.to_str().unwrap()];
    outcome(&program(&named, data)).unwrap();
    std::fs::write(&file, "postgresql://u:hidden@127.0.0.1:1/d").unwrap();
    let refused = outcome(&program(&named, data)).unwrap_err();
    assert!(
        refused.contains("127.0.0.1:1/d") && !refused.contains("hidden"),
        "{refused}"
    );
}
