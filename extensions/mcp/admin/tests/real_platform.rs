//! The server against the real platform. Needs `cargo build -p systemprompt`.

use mcp_testing::real::{RealPlatform, TENANT};
use mcp_testing::scenario;
use mcp_testing::stdio::Server;

const BINARY: &str = env!("CARGO_BIN_EXE_systemprompt-admin");

#[tokio::test]
async fn tenants_come_and_go() {
    let platform = RealPlatform::start(BINARY);
    let server = Server::start(BINARY, &platform.variables()).await;
    scenario::tenants(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn tokens_come_and_go_and_are_told_once() {
    let platform = RealPlatform::start(BINARY);
    let server = Server::start(BINARY, &platform.variables()).await;
    scenario::bad_tokens(&server).await;
    let (id, secret) = scenario::reader_token(&server, TENANT).await;
    let holder = Server::start(BINARY, &platform.variables_with(&secret)).await;
    scenario::reader(&holder).await;
    scenario::revoke(&server, &id, &holder).await;
    server.stop().await;
    holder.stop().await;
}
