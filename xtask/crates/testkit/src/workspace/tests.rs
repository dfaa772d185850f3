use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use super::*;
use crate::process::{eventually, free_port};

fn build(workspace: &Workspace) -> Finished {
    let mut command = workspace.command("cargo");
    run(command.args(["build", "--release", "--workspace"]), LIMIT)
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: l\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn start_app(workspace: &Workspace, behaviour: Behaviour, port: u16) -> Running {
    let mut command = workspace.command(workspace.root().join("target/release/systemprompt"));
    command
        .env("HOST", "127.0.0.1")
        .env("PORT", port.to_string())
        .env("APP_BEHAVIOUR", behaviour.text());
    Running::start(&mut command)
}

#[test]
fn the_project_builds_and_its_application_behaves_as_told() {
    let workspace = Workspace::new();
    build(&workspace).expect_success();
    for binary in [
        "system-tools",
        "systemprompt-infrastructure",
        "systemprompt-admin",
    ] {
        assert!(workspace.exists(&format!("target/release/{binary}")));
    }
    assert_eq!(workspace.git(&["status", "--porcelain"]).stdout, "");

    let port = free_port();
    let app = start_app(&workspace, Behaviour::Serves, port);
    let healthy = || get(port, "/api/v1/health").is_some_and(|a| a.contains("\"one\""));
    assert!(eventually(LIMIT, healthy));
    drop(app);

    let exits = start_app(&workspace, Behaviour::Exits(3), port).wait(LIMIT);
    exits.expect_code(3).expect_stderr("cannot go on");
    assert_eq!(
        start_app(&workspace, Behaviour::Aborts, port)
            .wait(LIMIT)
            .code(),
        134
    );
    let crashes = start_app(&workspace, Behaviour::CrashesLater(50), free_port());
    assert_eq!(crashes.wait(LIMIT).code(), 70);
}

#[test]
fn defects_are_where_they_should_be() {
    let without = |defect, path| !Workspace::laid_out(&Layout::with(defect)).exists(path);
    assert!(without(Defect::NoDockerfile, ".systemprompt/Dockerfile"));
    assert!(without(Defect::NoWebDist, "core/web/dist"));
    assert!(without(Defect::NoGit, ".git"));
    let dirty = Workspace::laid_out(&Layout::with(Defect::Dirty));
    assert!(
        dirty
            .git(&["status", "--porcelain"])
            .stdout
            .contains("README.md")
    );
    let dockerfile =
        |defect| Workspace::laid_out(&Layout::with(defect)).read(".systemprompt/Dockerfile");
    assert!(!dockerfile(Defect::ExtensionWithoutCopy).contains("systemprompt-admin"));
    assert!(dockerfile(Defect::StaleCopy).contains("systemprompt-gone"));
}

#[test]
fn a_compile_error_is_one() {
    let workspace = Workspace::laid_out(&Layout::with(Defect::CompileError));
    build(&workspace)
        .expect_code(101)
        .expect_stderr("mismatched types");
}

#[test]
fn core_outside_the_workspace_builds_by_itself() {
    let workspace = Workspace::laid_out(&Layout::with(Defect::CoreOutside));
    let mut command = workspace.command("cargo");
    command.args([
        "build",
        "--release",
        "--locked",
        "--manifest-path",
        "core/Cargo.toml",
    ]);
    run(&mut command, LIMIT).expect_success();
    assert!(workspace.exists("target/release/systemprompt"));
}

#[test]
fn nothing_of_the_tests_environment_reaches_the_project() {
    let workspace = Workspace::new();
    let shown = run(&mut workspace.command("env"), LIMIT).stdout;
    let names: Vec<_> = shown
        .lines()
        .filter_map(|line| line.split('=').next())
        .collect();
    assert!(
        !names
            .iter()
            .any(|name| name.starts_with("CARGO_PKG") || *name == "CARGO")
    );
    assert!(shown.contains(&format!("HOME={}", workspace.home().display())));
}
