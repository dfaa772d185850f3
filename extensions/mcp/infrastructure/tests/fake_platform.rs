//! The server over its real pipe, against a Management API in this process.

use mcp_testing::fake::{FakePlatform, Generation, OPERATOR, READER, with};
use mcp_testing::http::check_transport;
use mcp_testing::scenario::{self, Images};
use mcp_testing::stdio::{Server, check_descriptions, hints};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_systemprompt-infrastructure");
const TENANT: &str = "SYSTEMPROMPT_TENANT_ID";

fn images() -> Images {
    let image = |tag: &str| format!("registry.example/acme:{tag}");
    Images {
        one: image("one"),
        two: image("two"),
        broken: image("broken"),
        missing: image("missing"),
    }
}

#[tokio::test]
async fn it_introduces_itself_and_its_tools() {
    let server = Server::start(BINARY, &[]).await;
    let (name, version, instructions) = server.introduction();
    assert_eq!(name, "systemprompt-infrastructure");
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    assert!(instructions.contains("deploy_image"));
    let tools = server.tools().await;
    check_descriptions(&tools);
    let found: Vec<_> = tools
        .iter()
        .map(|tool| (tool.name.as_ref(), hints(tool)))
        .collect();
    let looks = [Some(true), None, Some(true), Some(false)];
    let changes = [Some(false), Some(true), Some(false), Some(false)];
    let expected = [
        ("abort", changes),
        (
            "deploy_image",
            [Some(false), Some(true), Some(true), Some(false)],
        ),
        ("list_deployments", looks),
        ("list_secrets", looks),
        ("list_volumes", looks),
        ("logs", looks),
        ("promote", changes),
        ("rollback", changes),
        ("show_deployment", looks),
        ("status", looks),
    ];
    assert_eq!(found, expected);
    server.stop().await;
}

#[tokio::test]
async fn releases_come_and_go() {
    let platform = FakePlatform::start(Generation::Ours).await;
    let server = Server::start(BINARY, &platform.variables()).await;
    scenario::deployments(&server, &images()).await;
    let stderr = server.stop().await;
    assert!(!stderr.contains(OPERATOR), "{stderr}");
}

#[tokio::test]
async fn the_newest_revision_of_the_protocol_works_too() {
    let platform = FakePlatform::start(Generation::Ours).await;
    let server = Server::start_discovering(BINARY, &platform.variables()).await;
    let deploy = json!({"image": images().one, "wait_seconds": 30});
    server.succeed("deploy_image", deploy).await;
    server.stop().await;
}

#[tokio::test]
async fn a_wait_ends_when_it_should() {
    let platform = FakePlatform::start(Generation::Ours).await;
    let server = Server::start(BINARY, &platform.variables()).await;
    let slow = "registry.example/acme:slow";
    let outcome = server
        .succeed("deploy_image", json!({"image": slow, "wait_seconds": 1}))
        .await;
    assert_eq!(outcome.value["finished"], false);
    assert_eq!(outcome.value["state"], "provisioned");
    assert!(
        outcome.text.contains("look with `show_deployment`"),
        "{}",
        outcome.text
    );
    let second = json!({"image": images().one});
    server
        .fail("deploy_image", second, "deployment 1 is in progress")
        .await;
    server.stop().await;
}

#[tokio::test]
async fn a_deployment_is_led_on_or_undone_by_its_number() {
    let platform = FakePlatform::start(Generation::Ours).await;
    let server = Server::start(BINARY, &platform.variables()).await;
    let slow = json!({"image": "registry.example/acme:slow"});
    server.succeed("deploy_image", slow.clone()).await;
    server
        .fail("promote", json!({}), "missing field `number`")
        .await;
    server.fail("promote", json!({"number": 2}), "404").await;
    let promoted = server.succeed("promote", json!({"number": 1})).await;
    assert_eq!(promoted.value["state"], "succeeded");
    assert!(
        promoted.text.starts_with("deployment 1 goes on"),
        "{}",
        promoted.text
    );
    let other = json!({"image": "registry.example/acme:slow-2"});
    server.succeed("deploy_image", other).await;
    server.fail("abort", json!({"number": 1}), "(409)").await;
    let aborted = server.succeed("abort", json!({"number": 2})).await;
    assert_eq!(aborted.value["state"], "rolled_back");
    let status = server.succeed("status", json!({})).await;
    assert_eq!(status.value["state"]["live"]["number"], 1);
    server.stop().await;
    let reader = Server::start(BINARY, &platform.variables_with(READER)).await;
    reader.fail("abort", json!({"number": 2}), "403").await;
    reader.stop().await;
}

#[tokio::test]
async fn volumes_and_names_of_secrets_are_listed() {
    let platform = FakePlatform::start(Generation::Ours).await;
    platform.add_tenant("globex");
    let server = Server::start(BINARY, &platform.variables()).await;
    let of = json!({"tenant": "globex"});
    let volumes = server.succeed("list_volumes", of.clone()).await;
    assert_eq!(volumes.value["volumes"][0]["name"], "data");
    assert!(
        volumes.text.contains("data  4096 bytes  of db"),
        "{}",
        volumes.text
    );
    let secrets = server.succeed("list_secrets", of).await;
    assert_eq!(secrets.value["secrets"][0]["version"], 2);
    assert!(
        secrets.text.contains("rotated by others"),
        "{}",
        secrets.text
    );
    server.stop().await;
    let platform = FakePlatform::start(Generation::Contract).await;
    let server = Server::start(BINARY, &platform.variables()).await;
    server
        .fail("list_volumes", json!({}), "has no volumes")
        .await;
    server
        .fail("list_secrets", json!({}), "does not tell")
        .await;
    server.stop().await;
}

#[tokio::test]
async fn logs_are_read_with_their_bounds() {
    let platform = FakePlatform::start(Generation::Ours).await;
    let server = Server::start(BINARY, &platform.variables()).await;
    let logs = server
        .succeed("logs", json!({"tail": 3, "since": "10m"}))
        .await;
    let lines = logs.value["lines"].as_array().unwrap();
    assert_eq!(lines.len(), 3);
    assert!(logs.text.ends_with("line 10"), "{}", logs.text);
    let logs = server.succeed("logs", json!({"filter": "error"})).await;
    assert_eq!(logs.value["lines"][0]["line"], "error: seven");
    let logs = server
        .succeed("logs", json!({"filter": "nothing like it"}))
        .await;
    assert_eq!(logs.value["lines"], json!([]));
    server
        .fail("logs", json!({"since": "never"}), "`since` is no time")
        .await;
    server.stop().await;
}

#[tokio::test]
async fn the_tenant_is_named_configured_or_the_only_one() {
    let platform = FakePlatform::start(Generation::Ours).await;
    platform.add_tenant("globex");
    let variables = platform.variables();
    let server = Server::start(BINARY, &variables).await;
    let asked = server
        .fail("status", json!({}), "there are acme, globex")
        .await;
    assert!(asked.text.contains(TENANT), "{}", asked.text);
    let named = server.succeed("status", json!({"tenant": "globex"})).await;
    assert_eq!(named.value["tenant"], "globex");
    server
        .fail("status", json!({"tenant": "../acme"}), "404")
        .await;
    server.stop().await;
    let server = Server::start(BINARY, &with(&variables, (TENANT, "acme"))).await;
    let configured = server.succeed("status", json!({})).await;
    assert_eq!(configured.value["tenant"], "acme");
    server.stop().await;
}

#[tokio::test]
async fn a_platform_that_knows_the_contract_only_is_enough_to_deploy() {
    let platform = FakePlatform::start(Generation::Contract).await;
    let server = Server::start(BINARY, &platform.variables()).await;
    let status = server.succeed("status", json!({})).await;
    assert_eq!(status.value["platform"], Value::Null);
    assert!(status.text.contains("contract only"), "{}", status.text);
    let deploy = json!({"image": images().one, "wait_seconds": 30});
    let outcome = server.succeed("deploy_image", deploy).await;
    assert_eq!(outcome.value["state"], "ready");
    server
        .fail("list_deployments", json!({}), "keeps no history")
        .await;
    server
        .fail("rollback", json!({}), "does not offer this call")
        .await;
    server.stop().await;
}

#[tokio::test]
async fn a_reader_may_look_but_not_deploy() {
    let platform = FakePlatform::start(Generation::Ours).await;
    let server = Server::start(BINARY, &platform.variables_with(READER)).await;
    server.succeed("status", json!({})).await;
    let deploy = json!({"image": images().one});
    let refused = server.fail("deploy_image", deploy, "403").await;
    assert!(
        refused.text.contains("`deployer` to deploy"),
        "{}",
        refused.text
    );
    server.fail("rollback", json!({}), "403").await;
    assert_eq!(platform.mutations(), Vec::<String>::new());
    server.stop().await;
}

#[tokio::test]
async fn wrong_settings_say_which_variable_to_set() {
    let platform = FakePlatform::start(Generation::Ours).await;
    let url = ("SYSTEMPROMPT_API_URL", platform.url.as_str());
    let check = async |variables: &[(&str, &str)], expected: &str| {
        let server = Server::start(BINARY, variables).await;
        server.fail("status", json!({}), expected).await;
        server.stop().await;
    };
    check(
        &[],
        "next: set SYSTEMPROMPT_API_URL and SYSTEMPROMPT_API_TOKEN",
    )
    .await;
    check(&[url], "next: set SYSTEMPROMPT_API_TOKEN").await;
    let token = ("SYSTEMPROMPT_API_TOKEN", "wrong-token-0123");
    check(&[token], "next: set SYSTEMPROMPT_API_URL").await;
    check(&[url, token], "next: set SYSTEMPROMPT_API_TOKEN to a token").await;
    let plain = ("SYSTEMPROMPT_API_URL", "http://api.example");
    check(&[plain, token], "plain http is for loopback").await;
    let nobody = ("SYSTEMPROMPT_API_URL", "http://127.0.0.1:1");
    check(&[nobody, token], "SYSTEMPROMPT_API_URL can be reached").await;
}

#[tokio::test]
async fn bad_input_is_a_tool_error_and_reaches_no_platform() {
    let platform = FakePlatform::start(Generation::Ours).await;
    let server = Server::start(BINARY, &platform.variables()).await;
    let deploy = |more: Value| {
        let mut arguments = json!({"image": images().one});
        arguments
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        arguments
    };
    for (tool, arguments, expected) in [
        ("deploy_image", json!({}), "missing field `image`"),
        (
            "deploy_image",
            deploy(json!({"image": "a b"})),
            "`image` is not",
        ),
        (
            "deploy_image",
            deploy(json!({"digest": "sha256:1"})),
            "`digest` is not",
        ),
        (
            "deploy_image",
            deploy(json!({"wait_seconds": 601})),
            "`wait_seconds` is not within",
        ),
        (
            "deploy_image",
            deploy(json!({"timeout_seconds": 0})),
            "`timeout_seconds` is not within",
        ),
        (
            "deploy_image",
            deploy(json!({"env": {"1": "x"}})),
            "no name of a variable",
        ),
        (
            "deploy_image",
            deploy(json!({"force": true})),
            "unknown field `force`",
        ),
        ("rollback", json!({"to": ""}), "`to` is empty"),
        ("rollback", json!({"wait_seconds": -1}), "invalid value"),
        ("show_deployment", json!({"number": 0}), "`number` is 0"),
        ("abort", json!({"number": 0}), "`number` is 0"),
        ("show_deployment", json!({"number": "x"}), "invalid type"),
        (
            "list_deployments",
            json!({"limit": 201}),
            "`limit` is not within",
        ),
        ("logs", json!({"tail": 0}), "`tail` is not within"),
        ("logs", json!({"filter": "a\nb"}), "control characters"),
        ("status", json!({"tenant": ""}), "`tenant` is empty"),
    ] {
        server.fail(tool, arguments, expected).await;
    }
    server.refuse_unknown_tool().await;
    assert_eq!(platform.mutations(), Vec::<String>::new());
    server.stop().await;
}

#[tokio::test]
async fn it_works_over_http_and_refuses_what_the_specification_says() {
    let platform = FakePlatform::start(Generation::Ours).await;
    check_transport(BINARY, "status", &platform.variables()).await;
}
