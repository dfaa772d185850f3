//! The server over its real pipe, driven by the SDK's client.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Child, Command};

use mcp_testing::http::initialize;
use mcp_testing::stdio::{Server, check_descriptions, hints};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_system-tools");

/// A process to look at; ends with the test.
struct Sleeper(Child);

impl Sleeper {
    fn start(arguments: &[&str]) -> Self {
        Self(
            Command::new("sleep")
                .arg("600")
                .args(arguments)
                .spawn()
                .expect("run sleep"),
        )
    }

    /// A process whose arguments hold secrets: the shell keeps them as `$0` and so on.
    fn with_secrets() -> Self {
        let script = "read line";
        let child = Command::new("sh")
            .args(["-c", script, "--token", "hunter2", "API_KEY=hunter2"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("run sh");
        Self(child)
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn it_introduces_itself_and_its_tools() {
    let server = Server::start(BINARY, &[]).await;
    let (name, version, instructions) = server.introduction();
    assert_eq!(name, "system-tools");
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    assert!(instructions.contains("host_info"));
    let tools = server.tools().await;
    let names: Vec<&str> = tools.iter().map(|tool| tool.name.as_ref()).collect();
    assert_eq!(names, ["host_info", "ports", "process", "processes"]);
    check_descriptions(&tools);
    for tool in &tools {
        assert_eq!(
            hints(tool),
            [Some(true), None, Some(true), Some(false)],
            "{}",
            tool.name
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn the_newest_revision_of_the_protocol_works_too() {
    let server = Server::start_discovering(BINARY, &[]).await;
    assert_eq!(server.tool_names().await.len(), 4);
    server.succeed("host_info", Value::Null).await;
    server.stop().await;
}

#[tokio::test]
async fn host_info_says_what_the_kernel_says() {
    let server = Server::start(BINARY, &[]).await;
    let info = server.succeed("host_info", json!({"path": "/proc"})).await;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(info.value["kernel"]["release"], kernel.trim());
    assert!(info.text.contains(kernel.trim()));
    assert_eq!(info.value["disk"]["mount_point"], "/proc");
    assert_eq!(info.value["disk"]["file_system"], "proc");
    assert!(info.value["memory"]["total_bytes"].as_u64() > Some(0));
    assert!(info.value["cpu"]["available"].as_u64() > Some(0));
    server.stop().await;
}

#[tokio::test]
async fn processes_finds_a_process_by_name() {
    let sleeper = Sleeper::start(&[]);
    let server = Server::start(BINARY, &[]).await;
    let arguments = json!({"filter": "SLEEP", "sort": "newest", "limit": 200});
    let list = server.succeed("processes", arguments).await;
    let found = list.value["processes"].as_array().unwrap();
    assert!(
        found.iter().any(|p| p["pid"] == sleeper.0.id()),
        "{}",
        list.text
    );
    assert!(
        found
            .iter()
            .all(|p| p["name"].as_str().unwrap().to_lowercase().contains("sleep"))
    );
    let first = server
        .succeed("processes", json!({"limit": 1, "sort": "cpu_time"}))
        .await;
    assert_eq!(first.value["processes"].as_array().unwrap().len(), 1);
    server.stop().await;
}

#[tokio::test]
async fn process_shows_one_process_without_its_secrets() {
    let sleeper = Sleeper::with_secrets();
    let server = Server::start(BINARY, &[]).await;
    let details = server
        .succeed("process", json!({"pid": sleeper.0.id()}))
        .await;
    assert_eq!(details.value["parent"], std::process::id());
    assert_eq!(details.value["command_line"][1], "-c");
    assert!(details.value["open_files"].as_u64() >= Some(3));
    let all = details.value.to_string() + &details.text;
    assert!(!all.contains("hunter2"), "{all}");
    assert!(all.contains("[redacted]"), "{all}");
    server.stop().await;
}

#[tokio::test]
async fn ports_finds_a_listener_and_its_owner() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Server::start(BINARY, &[]).await;
    let list = server.succeed("ports", json!({"port": port})).await;
    assert_eq!(list.value["matched"], 1);
    let socket = &list.value["ports"][0];
    assert_eq!(socket["address"], "127.0.0.1");
    assert_eq!(socket["loopback_only"], true);
    let owners = socket["owners"].as_array().unwrap();
    assert!(
        owners.iter().any(|o| o["pid"] == std::process::id()),
        "{}",
        list.text
    );
    drop(listener);
    let list = server.succeed("ports", json!({"port": port})).await;
    // Somebody else may have it by now.
    let is_ours = |owner: &Value| owner["pid"] == std::process::id();
    let sockets = list.value["ports"].as_array().unwrap().iter();
    let mut owners = sockets.flat_map(|socket| socket["owners"].as_array().unwrap());
    assert!(!owners.any(is_ours), "{}", list.text);
    server.stop().await;
}

#[tokio::test]
async fn bad_input_is_a_tool_error_that_says_why() {
    let server = Server::start(BINARY, &[]).await;
    server
        .fail(
            "host_info",
            json!({"path": "etc"}),
            "`path` is not absolute",
        )
        .await;
    server
        .fail(
            "host_info",
            json!({"path": "/no/such"}),
            "cannot be looked at",
        )
        .await;
    server
        .fail("host_info", json!({"paht": "/"}), "unknown field `paht`")
        .await;
    server
        .fail("processes", json!({"limit": 0}), "`limit` is not within")
        .await;
    server
        .fail(
            "processes",
            json!({"sort": "size"}),
            "unknown variant `size`",
        )
        .await;
    server
        .fail("processes", json!({"filter": "a\nb"}), "control characters")
        .await;
    server
        .fail("process", json!({"pid": 4_194_304}), "there is no process")
        .await;
    server
        .fail("process", json!({"pid": -1}), "invalid value")
        .await;
    server
        .fail("process", json!({}), "missing field `pid`")
        .await;
    server
        .fail("ports", json!({"port": 70_000}), "invalid value")
        .await;
    server.refuse_unknown_tool().await;
    server.succeed("host_info", json!({})).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_says_nothing_is_no_failure() {
    let status = Command::new(BINARY)
        .stdin(std::process::Stdio::null())
        .status()
        .expect("run the server");
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn it_ends_when_a_service_manager_asks() {
    let server = Server::start(BINARY, &[]).await;
    server.succeed("host_info", json!({})).await;
    server.terminate().await;
}

#[test]
fn a_line_that_is_no_message_is_survived_and_every_answer_is_sent() {
    let mut child = Command::new(BINARY)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("run the server");
    let lines = [
        "this is no message".to_owned(),
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": initialize()})
            .to_string(),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string(),
        "{\"jsonrpc\": \"2.0\", \"id\": ".to_owned(),
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/list"}).to_string(),
    ];
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    stdin
        .write_all((lines.join("\n") + "\n").as_bytes())
        .expect("write to the server");
    // The end of the input comes while the last answer is still being made.
    drop(stdin);
    let output = child.wait_with_output().expect("wait for the server");
    assert!(output.status.success(), "{}", output.status);
    let answers: Vec<Value> = String::from_utf8(output.stdout)
        .expect("UTF-8")
        .lines()
        .map(|line| serde_json::from_str(line).expect("every line is a message"))
        .collect();
    let answered = |id: u64| {
        answers
            .iter()
            .any(|a| a["id"] == id && a["result"].is_object())
    };
    assert!(answered(1) && answered(2), "{answers:?}");
}
