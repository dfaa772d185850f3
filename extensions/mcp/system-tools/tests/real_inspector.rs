//! The server as seen by the npm MCP inspector. Needs `cargo xtask test --setup`.

use mcp_testing::http::HttpServer;
use mcp_testing::inspector;

const BINARY: &str = env!("CARGO_BIN_EXE_system-tools");

#[tokio::test]
async fn the_inspector_lists_and_calls_over_a_pipe() {
    let answer = inspector::check(BINARY, "host_info", &["--tool-arg", "path=/"], &[]).await;
    assert_eq!(answer["structuredContent"]["disk"]["path"], "/");
}

#[tokio::test]
async fn the_inspector_calls_over_http() {
    let server = HttpServer::start(BINARY, &[]).await;
    let target = [server.url.as_str(), "--transport", "http"];
    let call = [
        "--method",
        "tools/call",
        "--tool-name",
        "processes",
        "--tool-arg",
        "limit=3",
    ];
    let answer = inspector::inspect(&target, &call, &[]).await;
    let processes = answer["structuredContent"]["processes"].as_array().unwrap();
    assert_eq!(processes.len(), 3);
    server.stop().await;
}
