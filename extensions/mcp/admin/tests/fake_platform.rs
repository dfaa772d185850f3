//! The server over its real pipe, against a Management API in this process.

use mcp_testing::fake::{FakePlatform, Generation, OPERATOR};
use mcp_testing::http::check_transport;
use mcp_testing::scenario;
use mcp_testing::stdio::{Server, check_descriptions, hints};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_systemprompt-admin");

#[tokio::test]
async fn it_introduces_itself_and_its_tools() {
    let server = Server::start(BINARY, &[]).await;
    let (name, version, instructions) = server.introduction();
    assert_eq!(name, "systemprompt-admin");
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    assert!(instructions.contains("`confirm`"));
    let tools = server.tools().await;
    check_descriptions(&tools);
    let found: Vec<_> = tools
        .iter()
        .map(|tool| (tool.name.as_ref(), hints(tool)))
        .collect();
    let looks = [Some(true), None, Some(true), Some(false)];
    let makes = [Some(false), Some(false), Some(false), Some(false)];
    let removes = [Some(false), Some(true), Some(true), Some(false)];
    let expected = [
        ("create_tenant", makes),
        ("create_token", makes),
        ("delete_tenant", removes),
        ("list_tenants", looks),
        ("list_tokens", looks),
        ("revoke_token", removes),
    ];
    assert_eq!(found, expected);
    server.stop().await;
}

#[tokio::test]
async fn tenants_come_and_go() {
    let platform = FakePlatform::start(Generation::Ours).await;
    let server = Server::start(BINARY, &platform.variables()).await;
    scenario::tenants(&server).await;
    let expected = ["POST /api/v1/tenants", "DELETE /api/v1/tenants/globex-2"];
    assert_eq!(platform.mutations(), expected);
    server.stop().await;
}

#[tokio::test]
async fn tokens_come_and_go_and_are_told_once() {
    let platform = FakePlatform::start(Generation::Ours).await;
    let server = Server::start(BINARY, &platform.variables()).await;
    let (id, secret) = scenario::reader_token(&server, "acme").await;
    let holder = Server::start(BINARY, &platform.variables_with(&secret)).await;
    scenario::reader(&holder).await;
    scenario::revoke(&server, &id, &holder).await;
    for stderr in [server.stop().await, holder.stop().await] {
        assert!(
            !stderr.contains(&secret) && !stderr.contains(OPERATOR),
            "{stderr}"
        );
    }
}

#[tokio::test]
async fn bad_input_is_a_tool_error_and_reaches_no_platform() {
    let platform = FakePlatform::start(Generation::Ours).await;
    let server = Server::start(BINARY, &platform.variables()).await;
    scenario::bad_tokens(&server).await;
    server
        .fail("list_tenants", json!({"all": true}), "unknown field `all`")
        .await;
    server
        .fail(
            "create_tenant",
            json!({"id": "a", "name": ""}),
            "`name` is empty",
        )
        .await;
    server
        .fail(
            "delete_tenant",
            json!({"id": "", "confirm": ""}),
            "`id` is empty",
        )
        .await;
    server.refuse_unknown_tool().await;
    assert_eq!(platform.mutations(), Vec::<String>::new());
    server.stop().await;
}

#[tokio::test]
async fn an_older_platform_says_that_it_has_no_tokens() {
    let platform = FakePlatform::start(Generation::Contract).await;
    let server = Server::start_discovering(BINARY, &platform.variables()).await;
    server.succeed("list_tenants", Value::Null).await;
    server
        .fail("list_tokens", json!({}), "does not offer this call")
        .await;
    server.stop().await;
}

#[tokio::test]
async fn without_settings_it_says_which_variables_to_set() {
    let server = Server::start(BINARY, &[]).await;
    let refused = server
        .fail("list_tokens", json!({}), "no platform is configured")
        .await;
    assert!(
        refused.text.contains("SYSTEMPROMPT_API_TOKEN"),
        "{}",
        refused.text
    );
    server.stop().await;
}

#[tokio::test]
async fn it_works_over_http_and_refuses_what_the_specification_says() {
    let platform = FakePlatform::start(Generation::Ours).await;
    check_transport(BINARY, "list_tenants", &platform.variables()).await;
}
