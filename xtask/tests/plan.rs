//! `cargo xtask plan`: what goes to standard output, what to standard error, and how it ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const SHOP: &str = r#"
[[services]]
uniqueIdentifier = 102
name = "api"
type = "backend"
[services.configuration.settings]
image = "${101.outputs.IMAGE_URL}"
[[services.configuration.vars]]
key = "DB"
value = "app@${100.outputs.PRIVATE_URL}:5432"

[[services]]
uniqueIdentifier = 101
name = "api-build"
type = "build"

[[services]]
uniqueIdentifier = 100
name = "db"
type = "postgres"
[services.configuration.settings]
image = "postgres:16"
"#;

fn plan(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_xtask"))
        .arg("plan")
        .args(arguments)
        .current_dir(folder)
        .output()
        .expect("it starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

#[test]
fn the_order_is_the_result_and_warnings_are_told_beside_it() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("aramb.toml"), SHOP).expect("written");
    let below = folder.path().join("apps/api");
    fs::create_dir_all(&below).expect("made");
    let output = plan(&below, &[]);
    assert!(output.status.success());
    let expected = "101  api-build  build\n100  db         postgres\n102  api        backend   image of api-build, URL of db\n";
    assert_eq!(text(&output.stdout), expected);
    let told = text(&output.stderr);
    assert!(
        told.starts_with("warning: the URL of `db` may have a scheme and a port of its own"),
        "{told}"
    );
    assert!(told.contains("--> aramb.toml:10:14"), "{told}");
}

#[test]
fn it_is_drawn_in_three_ways() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("shop.toml"), SHOP).expect("written");
    let drawn = |format: &str| {
        let output = plan(folder.path(), &["--config", "shop.toml", format]);
        assert!(output.status.success());
        text(&output.stdout)
    };
    assert!(drawn("--graph").starts_with("101  api-build"));
    assert!(drawn("--graph=mermaid").starts_with("flowchart LR\n"));
    assert!(drawn("--graph=svg").starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = SHOP
        .replace("uniqueIdentifier = 100", "uniqueIdentifier = 7")
        .replace("101.outputs", "103.outputs");
    fs::write(folder.path().join("aramb.toml"), wrong).expect("written");
    let output = plan(folder.path(), &[]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(text(&output.stdout), "");
    let told = text(&output.stderr);
    for said in [
        "Step:       settings",
        "3 things are wrong with",
        "there is no service 103",
        "there is no service 100",
        "7 is less than 100",
        "Resolution: correct",
    ] {
        assert!(told.contains(said), "{said}: {told}");
    }
}

#[test]
fn without_a_file_the_next_command_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = plan(folder.path(), &["--config", "other.toml"]);
    assert_eq!(output.status.code(), Some(3));
    let told = text(&output.stderr);
    assert!(told.contains("other.toml not found"), "{told}");
    assert!(told.contains("cargo xtask plan --config FILE"), "{told}");
}
