//! The audit log: what is in it, who sees it, and that a change of it is noticed.

use std::path::Path;
use std::process::{Command, Output};

use management_api::types::{
    AuditEntry, DeployRequest, NewTenant, NewToken, Role, RollbackRequest, RotateRequest,
};
use rusqlite::Connection;
use secrecy::ExposeSecret;

use crate::database;
use crate::harness::{Server, key, until};
use crate::image::push;
use crate::secrets;

const VALUE: &str = "correct horse battery staple";

/// Runs the program beside the server.
pub(crate) fn program(arguments: &[&str], data: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_systemprompt"));
    database::tell(&mut command);
    command.args(arguments).arg("--data").arg(data);
    command.output().unwrap()
}

/// What a program that ended well printed, or the error it ended with.
pub(crate) fn outcome(output: &Output) -> Result<String, String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

fn verify(data: &Path, expect: Option<&str>) -> Result<String, String> {
    let mut arguments = vec!["verify"];
    arguments.extend(expect.iter().flat_map(|head| ["--expect", head]));
    outcome(&program(&arguments, data))
}

/// The end that `verify` printed.
fn head(printed: &str) -> String {
    let (_, rest) = printed.split_once("its end: ").unwrap();
    rest.lines().next().unwrap().to_owned()
}

fn rows(server: &Server) -> Vec<AuditEntry> {
    let mut rows = server.client().audit(None, None, 1000).unwrap().unwrap();
    rows.reverse();
    rows
}

fn token(server: &Server, role: Role, tenant: &str) -> (String, String) {
    let wanted = NewToken {
        name: format!("{role:?}"),
        role,
        tenant: Some(tenant.into()),
        expires_in: None,
    };
    let issued = server.client().create_token(&wanted).unwrap();
    (issued.info.id, issued.token.expose_secret().to_owned())
}

/// Something of everything.
fn busy() -> (Server, String) {
    let server = Server::start();
    let (id, deployer) = token(&server, Role::Deployer, "local");
    let client = server.client_with(&deployer);
    let secrets = secrets::request(&[("TOKEN", VALUE)]);
    client.change_secrets("local", &secrets).unwrap();
    client.change_secrets("local", &secrets).unwrap();
    push(&server, "local", "one", &[("VERSION", "one")]);
    push(&server, "local", "two", &[("VERSION", "two")]);
    push(&server, "local", "bad", &[("MODE", "exit")]);
    let mut request = server.request("one");
    request.env.insert("COLOUR".into(), VALUE.into());
    let deploy = |request: DeployRequest| client.deploy("local", &request, &key(), false).unwrap();
    server.wait(deploy(request).deployment.unwrap());
    server.wait(deploy(server.request("two")).deployment.unwrap());
    server.wait(deploy(server.request("bad")).deployment.unwrap());
    let back = client.rollback("local", &RollbackRequest::default(), &key());
    server.wait(back.unwrap().deployment.unwrap());
    (server, id)
}

#[test]
pub(crate) fn every_change_says_who_what_and_from_where() {
    let (server, id) = busy();
    let other = NewTenant {
        id: "other".into(),
        name: None,
    };
    server.client().create_tenant(&other).unwrap();
    server.client().delete_tenant("other").unwrap();
    let rotate = RotateRequest::default();
    server
        .client()
        .rotate_credentials("local", &rotate)
        .unwrap();
    server.client().revoke_token(&id).unwrap();
    let rows = rows(&server);
    let seqs: Vec<u64> = rows.iter().map(|row| row.seq).collect();
    assert_eq!(seqs, (1..=rows.len() as u64).collect::<Vec<_>>());
    let told: Vec<_> = rows
        .iter()
        .filter(|row| row.action != "deployment.state")
        .map(|row| {
            (
                row.action.as_str(),
                row.actor.as_str(),
                row.tenant.as_deref(),
            )
        })
        .collect();
    let local = Some("local");
    let expected = [
        ("token.make", "server", None),
        ("tenant.create", "server", local),
        ("token.make", "operator", local),
        // The second time changed nothing.
        ("secrets.change", "Deployer", local),
        ("deployment.deploy", "Deployer", local),
        ("deployment.deploy", "Deployer", local),
        ("deployment.deploy", "Deployer", local),
        ("deployment.rollback", "Deployer", local),
        ("tenant.create", "operator", Some("other")),
        ("tenant.delete", "operator", Some("other")),
        ("token.make", "operator", local),
        ("token.revoke", "operator", local),
    ];
    assert_eq!(told, expected);
    let rotated = rows.iter().rfind(|row| row.action == "token.make").unwrap();
    assert_eq!(rotated.details["replaces"], id);
    for row in rows.iter().filter(|row| row.actor != "server") {
        assert_eq!(row.address.as_deref(), Some("127.0.0.1"), "{row:?}");
        assert!(row.token.is_some() && row.role.is_some(), "{row:?}");
    }
    let deployer = rows.iter().filter(|row| row.actor == "Deployer");
    for row in deployer {
        assert_eq!(row.token.as_ref(), Some(&id));
        assert_eq!(row.role.as_deref(), Some("deployer"));
    }
    let text = serde_json::to_string(&rows).unwrap();
    assert!(!text.contains(VALUE), "{text}");
}

#[test]
pub(crate) fn a_deployment_is_told_from_its_request_to_its_end() {
    let (server, _) = busy();
    let rows = rows(&server);
    let of = |number| {
        rows.iter()
            .filter(move |row| row.deployment == Some(number))
    };
    let states: Vec<_> = of(3)
        .filter_map(|row| row.details.get("state")?.as_str())
        .collect();
    assert_eq!(states.last(), Some(&"rolled_back"), "{states:?}");
    let asked = of(1).next().unwrap();
    let digest = server.client().deployment("local", 1).unwrap().digest;
    assert_eq!(asked.details["digest"], digest);
    assert_eq!(asked.details["variables"], serde_json::json!(["COLOUR"]));
    assert_eq!(asked.details["secrets"], serde_json::json!({ "TOKEN": 1 }));
    let undone = of(3)
        .find(|row| {
            row.details
                .get("state")
                .is_some_and(|state| state == "rolling_back")
        })
        .unwrap();
    assert_eq!(undone.details["failure"]["code"], "exited", "{undone:?}");
    assert!(
        of(1).all(|row| row.action != "deployment.state" || row.details["milliseconds"].is_u64())
    );
    assert_eq!(of(4).next().unwrap().details["restores"], 1);
}

#[test]
pub(crate) fn a_word_to_a_rollout_is_written_down() {
    let server = Server::start();
    push(&server, "local", "slow", &[("MODE", "unhealthy")]);
    let request = server.patient_request("slow");
    let number = server.deploy(&request).deployment.unwrap();
    server.client().abort("local", number).unwrap();
    server.wait(number);
    let rows = rows(&server);
    let word = rows
        .iter()
        .find(|row| row.action == "deployment.abort")
        .unwrap();
    assert_eq!(
        (word.actor.as_str(), word.deployment),
        ("operator", Some(number))
    );
    let aborting = rows
        .iter()
        .find(|row| row.details.get("state").is_some_and(|s| s == "aborting"));
    assert!(word.seq < aborting.unwrap().seq, "before it acts");
}

#[test]
pub(crate) fn a_tenants_token_sees_its_own_rows_only_and_all_come_in_pages() {
    let (server, _) = busy();
    let new = NewTenant {
        id: "other".into(),
        name: None,
    };
    server.client().create_tenant(&new).unwrap();
    let all = rows(&server);
    let (_, reader) = token(&server, Role::Reader, "other");
    let reader = server.client_with(&reader);
    let own = reader.audit(None, None, 1000).unwrap().unwrap();
    let actions: Vec<_> = own.iter().map(|row| row.action.as_str()).collect();
    assert_eq!(actions, ["token.make", "tenant.create"]);
    assert!(reader.audit(Some("local"), None, 10).is_err());
    let local = server
        .client()
        .audit(Some("local"), None, 1000)
        .unwrap()
        .unwrap();
    assert!(
        local
            .iter()
            .all(|row| row.tenant.as_deref() == Some("local"))
    );
    let (mut paged, mut before) = (Vec::new(), Some(all.len() as u64 + 1));
    while before.is_some() {
        let page = server.client().audit(None, before, 7).unwrap().unwrap();
        before = page.last().map(|row| row.seq);
        paged.extend(page);
    }
    paged.reverse();
    assert_eq!(paged, all);
}

#[test]
fn verify_names_the_row_that_was_changed_and_tells_a_cut_by_the_end_of_before() {
    let (mut server, _) = busy();
    let printed = verify(server.data(), None).unwrap();
    assert!(
        printed.contains("are whole (releases: 1, blobs: 3,"),
        "{printed}"
    );
    let before = head(&printed);
    server.kill();
    assert_eq!(head(&verify(server.data(), Some(&before)).unwrap()), before);
    let database = server.data().join("state.db");
    let change = |sql: &str| {
        let connection = Connection::open(&database).unwrap();
        connection
            .execute_batch("DROP TRIGGER IF EXISTS audit_is_append_only_update")
            .unwrap();
        connection
            .execute_batch("DROP TRIGGER IF EXISTS audit_is_append_only_delete")
            .unwrap();
        connection.execute_batch(sql).unwrap();
    };
    change("UPDATE audit SET actor = 'somebody' WHERE seq = 4");
    let error = verify(server.data(), None).unwrap_err();
    assert!(
        error.contains("row 4 of the audit log was changed"),
        "{error}"
    );
    change("UPDATE audit SET actor = 'Deployer' WHERE seq = 4");
    verify(server.data(), None).unwrap();
    change("DELETE FROM audit WHERE seq = (SELECT MAX(seq) FROM audit)");
    verify(server.data(), None).unwrap();
    let error = verify(server.data(), Some(&before)).unwrap_err();
    assert!(error.contains("the audit log was cut"), "{error}");
    // What is left goes on as a chain of its own.
    let server = server.kill_and_restart();
    until("it serves again", || server.version());
    verify(server.data(), None).unwrap();
    assert!(verify(server.data(), Some(&before)).is_err());
}

#[test]
fn verify_names_the_deployment_whose_release_was_changed() {
    let (mut server, _) = busy();
    server.kill();
    let connection = Connection::open(server.data().join("state.db")).unwrap();
    let sql = "UPDATE releases SET env = '{\"A\":\"1\"}' WHERE id =
        (SELECT release_id FROM deployments WHERE number = 4)";
    assert_eq!(connection.execute(sql, []).unwrap(), 1);
    let error = verify(server.data(), None).unwrap_err();
    assert!(
        error.contains("deployment 4") && error.contains("not the one that was asked for"),
        "{error}"
    );
}

#[test]
fn verify_names_the_deployment_whose_image_is_damaged() {
    let (server, _) = busy();
    let digest = server.client().deployment("local", 4).unwrap().digest;
    let blobs = server.data().join("registry/blobs/sha256");
    let manifest = std::fs::read_to_string(blobs.join(&digest["sha256:".len()..])).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let path = blobs.join(&layer["sha256:".len()..]);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[1..]).unwrap();
    let error = verify(server.data(), None).unwrap_err();
    assert!(
        error.contains("deployment 4") && error.contains(layer),
        "{error}"
    );
    std::fs::remove_file(&path).unwrap();
    let error = verify(server.data(), None).unwrap_err();
    assert!(error.contains("holds no blob"), "{error}");
}
