//! What the servers must do with any platform, the fake one and the real one.

use serde_json::{Value, json};

use crate::stdio::Server;

/// Images of a platform, by what becomes of them.
#[derive(Debug, Clone)]
pub struct Images {
    /// One that works.
    pub one: String,
    /// Another one that works.
    pub two: String,
    /// One whose application ends before it is healthy.
    pub broken: String,
    /// One that the registry does not hold.
    pub missing: String,
}

/// Deploys, deploys again, fails, rolls back and reads about all of it, on a platform that has
/// no deployment yet.
pub async fn deployments(server: &Server, images: &Images) {
    nothing_yet(server, images).await;
    first_release(server, images).await;
    second_release(server, images).await;
    broken_release(server, images).await;
    back_to_the_first(server, images).await;
}

async fn nothing_yet(server: &Server, images: &Images) {
    let list = server.succeed("list_deployments", json!({})).await;
    assert_eq!(list.value["matched"], 0);
    let status = server.succeed("status", json!({})).await;
    assert_eq!(status.value["state"]["live"], Value::Null);
    let missing = json!({"image": images.missing});
    server.fail("deploy_image", missing, "404").await;
    server.fail("rollback", json!({}), "(409)").await;
    for tool in ["show_deployment", "promote", "abort"] {
        server.fail(tool, json!({"number": 1}), "404").await;
    }
    let volumes = server.succeed("list_volumes", json!({})).await;
    assert_eq!(volumes.value["volumes"], json!([]), "{}", volumes.text);
    let secrets = server.succeed("list_secrets", json!({})).await;
    assert_eq!(secrets.value["secrets"], json!([]), "{}", secrets.text);
}

async fn first_release(server: &Server, images: &Images) {
    let deploy = json!({"image": images.one, "wait_seconds": 60, "env": {"GREETING": "hello"}});
    let outcome = server.succeed("deploy_image", deploy.clone()).await;
    assert_eq!(outcome.value["state"], "succeeded");
    assert_eq!(outcome.value["finished"], true);
    assert_eq!(outcome.value["deployment"], 1);
    let seen = server.progress();
    assert!(
        seen.last().is_some_and(|last| last.ends_with("succeeded")),
        "progress was {seen:?}"
    );
    let again = server.succeed("deploy_image", deploy).await;
    assert_eq!(again.value["unchanged"], true, "{}", again.text);
    let status = server.succeed("status", json!({})).await;
    assert_eq!(status.value["state"]["live"]["number"], 1);
    assert!(status.text.contains(&images.one), "{}", status.text);
}

async fn second_release(server: &Server, images: &Images) {
    let deploy = json!({"image": images.two});
    let begun = server.succeed("deploy_image", deploy).await;
    assert_eq!(begun.value["finished"], false);
    wait_until_final(server, 2).await;
    let list = server
        .succeed("list_deployments", json!({"limit": 1}))
        .await;
    assert_eq!(list.value["matched"], 2);
    assert_eq!(list.value["deployments"][0]["number"], 2);
    assert_eq!(list.value["deployments"][0]["live"], true);
    let one = server
        .succeed("show_deployment", json!({"number": 1}))
        .await;
    assert_eq!(one.value["live"], false);
    assert_eq!(one.value["image"], images.one);
    // What is over is neither undone nor led on.
    for tool in ["promote", "abort"] {
        server.fail(tool, json!({"number": 2}), "(409)").await;
    }
}

async fn broken_release(server: &Server, images: &Images) {
    let deploy = json!({"image": images.broken, "wait_seconds": 60});
    let failed = server.fail("deploy_image", deploy, "rolled_back").await;
    assert!(failed.text.contains("exited"), "{}", failed.text);
    assert!(failed.text.contains("next: "), "{}", failed.text);
    let status = server.succeed("status", json!({})).await;
    assert_eq!(status.value["state"]["live"]["number"], 2);
    let list = json!({"state": "rolled_back"});
    let list = server.succeed("list_deployments", list).await;
    assert_eq!(list.value["matched"], 1);
}

async fn back_to_the_first(server: &Server, images: &Images) {
    server.fail("rollback", json!({"to": "99"}), "next").await;
    let outcome = server
        .succeed("rollback", json!({"wait_seconds": 60}))
        .await;
    assert_eq!(outcome.value["state"], "succeeded");
    let number = outcome.value["deployment"].clone();
    let shown = server
        .succeed("show_deployment", json!({"number": number}))
        .await;
    assert_eq!(shown.value["kind"], "rollback");
    assert_eq!(shown.value["restores"], 1);
    assert_eq!(shown.value["image"], images.one);
    assert_eq!(shown.value["live"], true);
}

/// Looks until a deployment has ended; the looks are bounded by the platform's own deadline.
async fn wait_until_final(server: &Server, number: u64) {
    for _ in 0..600 {
        let shown = server
            .succeed("show_deployment", json!({"number": number}))
            .await;
        if !shown.value["finished_at"].is_null() {
            assert_eq!(shown.value["state"], "succeeded", "{}", shown.text);
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("deployment {number} does not end");
}

/// Makes and removes tenants, on a platform that has one.
pub async fn tenants(server: &Server) {
    let before = server.succeed("list_tenants", json!({})).await;
    assert_eq!(before.value["tenants"].as_array().map(Vec::len), Some(1));
    let created = json!({"id": "globex-2", "name": "Globex"});
    let tenant = server.succeed("create_tenant", created.clone()).await;
    assert_eq!(tenant.value["name"], "Globex");
    server.fail("create_tenant", created, "(409)").await;
    server
        .fail("create_tenant", json!({"id": "Globex"}), "`id` is not")
        .await;
    let list = server.succeed("list_tenants", json!({})).await;
    assert!(list.text.contains("globex-2  Globex"), "{}", list.text);
    let unconfirmed = json!({"id": "globex-2", "confirm": "yes"});
    let refused = server
        .fail("delete_tenant", unconfirmed, "nothing was deleted")
        .await;
    assert!(refused.text.contains("ask the user"), "{}", refused.text);
    server
        .fail(
            "delete_tenant",
            json!({"id": "globex-2"}),
            "missing field `confirm`",
        )
        .await;
    let list = server.succeed("list_tenants", json!({})).await;
    assert_eq!(list.value["tenants"].as_array().map(Vec::len), Some(2));
    let confirmed = json!({"id": "globex-2", "confirm": "globex-2"});
    server.succeed("delete_tenant", confirmed.clone()).await;
    server.fail("delete_tenant", confirmed, "404").await;
}

/// Makes a reader's token for `tenant`; answers its id and its secret part.
pub async fn reader_token(server: &Server, tenant: &str) -> (String, String) {
    let wanted = json!({
        "name": "observer", "role": "reader", "tenant": tenant, "expires_in_seconds": 3600,
    });
    let answer = server.succeed("create_token", wanted).await;
    let text = |name: &str| {
        answer.value["issued"][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let (id, secret) = (text("id"), text("token"));
    assert!(!secret.is_empty(), "{}", answer.value);
    assert!(
        answer.text.contains(&format!("nowhere: {secret}")),
        "{}",
        answer.text
    );
    assert!(answer.text.contains("SECRET"), "{}", answer.text);
    let list = server.succeed("list_tokens", json!({})).await;
    let tokens = list.value["tokens"].to_string();
    assert!(
        tokens.contains(&id) && list.text.contains("observer"),
        "{}",
        list.text
    );
    assert!(!tokens.contains(&secret) && !list.text.contains(&secret));
    (id, secret)
}

/// What a reader may and may not do, by the admin server.
pub async fn reader(server: &Server) {
    let list = server.succeed("list_tenants", json!({})).await;
    assert_eq!(list.value["tenants"].as_array().map(Vec::len), Some(1));
    let refused = server
        .fail("create_tenant", json!({"id": "x"}), "403")
        .await;
    assert!(
        refused.text.contains("use a token with a wider role"),
        "{}",
        refused.text
    );
}

/// Ends a token; whoever holds it is refused from then on.
pub async fn revoke(server: &Server, id: &str, holder: &Server) {
    server.succeed("revoke_token", json!({"id": id})).await;
    server.fail("revoke_token", json!({"id": id}), "404").await;
    let refused = holder.fail("list_tenants", json!({}), "401").await;
    assert!(
        refused.text.contains("SYSTEMPROMPT_API_TOKEN"),
        "{}",
        refused.text
    );
}

/// Arguments of token tools that are refused without a call.
pub async fn bad_tokens(server: &Server) {
    let refused = [
        (
            json!({"name": "a", "role": "reader"}),
            "`tenant` is missing",
        ),
        (
            json!({"name": "a", "role": "operator", "tenant": "t"}),
            "does not bind",
        ),
        (json!({"name": " ", "role": "operator"}), "`name` is empty"),
        (
            json!({"name": "a", "role": "king"}),
            "unknown variant `king`",
        ),
        (
            json!({"name": "a", "role": "operator", "expires_in_seconds": 0}),
            "`expires_in_seconds` is not within",
        ),
    ];
    for (arguments, expected) in refused {
        server.fail("create_token", arguments, expected).await;
    }
    server
        .fail("revoke_token", json!({"id": ""}), "`id` is empty")
        .await;
}
