//! The server as seen by the npm MCP inspector. Needs `cargo xtask test --setup`.

use mcp_testing::fake::{FakePlatform, Generation};
use mcp_testing::inspector;

const BINARY: &str = env!("CARGO_BIN_EXE_systemprompt-infrastructure");

#[tokio::test]
async fn the_inspector_lists_and_calls() {
    let platform = FakePlatform::start(Generation::Ours).await;
    let variables = platform.variables();
    let answer = inspector::check(BINARY, "status", &[], &variables).await;
    assert_eq!(answer["structuredContent"]["tenant"], "acme");
    let deploy = ["image=registry.example/acme:one", "wait_seconds=30"];
    let arguments = ["--tool-arg", deploy[0], "--tool-arg", deploy[1]];
    let answer = inspector::check(BINARY, "deploy_image", &arguments, &variables).await;
    assert_eq!(answer["structuredContent"]["state"], "succeeded");
}
