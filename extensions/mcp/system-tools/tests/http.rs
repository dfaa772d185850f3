//! The server over streamable HTTP: what it answers and what it refuses.

use std::process::Command;

use mcp_testing::http::{HttpServer, check_transport, initialize};
use serde_json::json;

const BINARY: &str = env!("CARGO_BIN_EXE_system-tools");
const TOKEN: &str = "SYSTEMPROMPT_MCP_TOKEN";

#[tokio::test]
async fn it_works_over_http_and_refuses_what_the_specification_says() {
    check_transport(BINARY, "host_info", &[]).await;
}

#[tokio::test]
async fn with_a_token_set_nothing_works_without_it() {
    let server = HttpServer::start(BINARY, &[(TOKEN, "s3cret-0123456789")]).await;
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    for headers in [
        &[][..],
        &[("Authorization", "Bearer s3cret-012345678")],
        &[("Authorization", "Bearer ")],
        &[("Authorization", "Basic s3cret-0123456789")],
    ] {
        let response = server.post(&list, headers).await;
        assert_eq!(response.status, 401, "{headers:?}");
        assert!(
            response
                .head
                .to_lowercase()
                .contains("www-authenticate: bearer")
        );
        assert!(!response.body.contains("s3cret"));
    }
    let authorized = [("Authorization", "Bearer s3cret-0123456789")];
    server
        .request("initialize", initialize(), &authorized)
        .await;
    assert_eq!(server.post(&list, &authorized).await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn other_machines_are_refused_unless_somebody_insists() {
    refuse(&["--http", "0.0.0.0:0"], &[], "or pass --insecure");
    refuse(
        &["--http", "127.0.0.1:0"],
        &[(TOKEN, "")],
        "SYSTEMPROMPT_MCP_TOKEN is set but",
    );
    refuse(&["--insecure"], &[], "--http");
    refuse(&["--http", "localhost"], &[], "invalid socket address");
}

/// The server must end at once with an error that holds `expected`.
fn refuse(arguments: &[&str], variables: &[(&str, &str)], expected: &str) {
    let output = Command::new(BINARY)
        .args(arguments)
        .envs(variables.iter().copied())
        .output()
        .expect("run the server");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{arguments:?} was accepted");
    assert!(stderr.contains(expected), "{stderr}");
    assert!(output.stdout.is_empty());
}
