//! The server against the real platform. Needs `cargo build -p systemprompt`.

use mcp_testing::real::RealPlatform;
use mcp_testing::scenario;
use mcp_testing::stdio::Server;
use serde_json::json;

const BINARY: &str = env!("CARGO_BIN_EXE_systemprompt-infrastructure");

#[tokio::test]
async fn releases_come_and_go() {
    let platform = RealPlatform::start(BINARY);
    let images = platform.push_images(BINARY);
    let server = Server::start(BINARY, &platform.variables()).await;
    scenario::deployments(&server, &images).await;
    let logs = server
        .succeed("logs", json!({"filter": "listens on"}))
        .await;
    assert!(
        !logs.value["lines"].as_array().unwrap().is_empty(),
        "{}",
        logs.text
    );
    server.stop().await;
}

#[tokio::test]
async fn the_local_platform_is_found_without_settings() {
    let platform = RealPlatform::start(BINARY);
    let below = platform.project().join("a/b");
    std::fs::create_dir_all(&below).unwrap();
    let server = Server::start_in(BINARY, &below).await;
    let status = server.succeed("status", json!({})).await;
    assert_eq!(status.value["tenant"], mcp_testing::real::TENANT);
    assert_eq!(status.value["platform"]["product"], "systemprompt");
    drop(platform);
    let gone = server.call("status", json!({})).await;
    assert!(
        gone.failed && gone.text.contains("cargo xtask local up"),
        "{}",
        gone.text
    );
    server.stop().await;
}
