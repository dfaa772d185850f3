//! The server as seen by the npm MCP inspector. Needs `cargo xtask test --setup`.

use mcp_testing::fake::{FakePlatform, Generation};
use mcp_testing::inspector;

const BINARY: &str = env!("CARGO_BIN_EXE_systemprompt-admin");

#[tokio::test]
async fn the_inspector_lists_and_calls() {
    let platform = FakePlatform::start(Generation::Ours).await;
    let arguments = ["--tool-arg", "id=globex"];
    let variables = platform.variables();
    let answer = inspector::check(BINARY, "create_tenant", &arguments, &variables).await;
    assert_eq!(answer["structuredContent"]["id"], "globex");
}
