//! Deployments that go well, and requests that are refused before anything is begun.

use management_api::client::ApiError;
use management_api::types::{DeployRequest, NewTenant, SecretsRequest};

use serde_json::Value;

use crate::harness::{BOUND, Server, agent, get, health, key, until};
use crate::image::push;

#[test]
pub(crate) fn an_image_is_deployed_and_serves_at_the_tenants_url() {
    let server = Server::start();
    let digest = push(&server, "local", "v1", &[("VERSION", "one")]);
    let mut request = server.request("v1");
    request.digest = Some(digest.clone());
    request.env.insert("GREETING".into(), "hello".into());
    let answer = server.deploy(&request);
    assert_eq!(answer.status, "deploying");
    assert_eq!(answer.deployment, Some(1));
    let done = server.wait(1);
    assert_eq!(done.state, "succeeded", "{done:?}");
    assert!(done.live && done.finished_at.is_some());
    assert_eq!((done.digest, done.tag.as_deref()), (digest, Some("v1")));
    assert_eq!(done.actor, "operator");
    assert_eq!(done.app_url, Some(server.app_url()));
    assert_eq!(server.version().as_deref(), Some("one"));
    let greeting = get(&format!("{}/env/GREETING", server.app_url()));
    assert_eq!(greeting.as_deref(), Some("hello"));
    let status = server.client().status("local").unwrap();
    assert_eq!(status.status, "deployed");
    assert_eq!(status.live.unwrap().number, 1);
    assert!(status.running.is_none());
}

#[test]
fn an_application_alone_finds_its_url_unless_somebody_says_another() {
    let server = Server::start();
    push(&server, "local", "v1", &[("VERSION", "one")]);
    let own = [("VERSION", "two"), ("PUBLIC_URL", "of its image")];
    push(&server, "local", "v2", &own);
    let found = |tag: &str, said: Option<&str>| {
        let mut request = server.request(tag);
        let said = said.map(|said| ("PUBLIC_URL".to_owned(), said.to_owned()));
        request.env.extend(said);
        let done = server.wait(server.deploy(&request).deployment.unwrap());
        assert_eq!(done.state, "succeeded", "{done:?}");
        let variable = |name: &str| get(&format!("{}/env/{name}", server.app_url()));
        // As of every variable that is not there.
        assert_eq!(variable("INTERNAL_URL").as_deref(), Some(""));
        variable("PUBLIC_URL").unwrap()
    };
    assert_eq!(found("v1", None), server.app_url());
    assert_eq!(found("v2", None), "of its image");
    assert_eq!(found("v2", Some("asked for")), "asked for");
    let secrets = [("PUBLIC_URL".to_owned(), "a secret".to_owned().into())];
    let request = SecretsRequest {
        secrets: secrets.into(),
        externally_rotated: Vec::new(),
        remove: Vec::new(),
    };
    server.client().change_secrets("local", &request).unwrap();
    assert_eq!(found("v1", None), "a secret");
}

#[test]
pub(crate) fn the_next_release_takes_over_at_the_same_url() {
    let server = Server::start();
    let url = server.app_url();
    for (tag, version) in [("v1", "one"), ("v2", "two")] {
        push(&server, "local", tag, &[("VERSION", version)]);
        let done = server.deploy_and_wait(tag);
        assert_eq!(done.state, "succeeded", "{done:?}");
        assert_eq!(server.version().as_deref(), Some(version));
    }
    assert_eq!(server.app_url(), url);
    let history = server.client().deployments("local").unwrap().unwrap();
    let rows: Vec<_> = history
        .iter()
        .map(|d| (d.number, d.live, d.previous))
        .collect();
    assert_eq!(rows, [(2, true, Some(1)), (1, false, None)]);
}

#[test]
fn recreate_stops_the_old_instance_first() {
    let server = Server::start();
    push(&server, "local", "v1", &[("VERSION", "one")]);
    push(&server, "local", "v2", &[("VERSION", "two")]);
    server.deploy_and_wait("v1");
    let mut request = server.request("v2");
    request.strategy = Some("recreate".into());
    let number = server.deploy(&request).deployment.unwrap();
    let done = server.wait(number);
    assert_eq!(
        (done.state.as_str(), done.strategy.as_str()),
        ("succeeded", "recreate")
    );
    assert_eq!(server.version().as_deref(), Some("two"));
}

#[test]
fn the_very_same_release_is_not_deployed_again() {
    let server = Server::start();
    push(&server, "local", "v1", &[]);
    server.deploy_and_wait("v1");
    // The same content under another tag is the same release.
    push(&server, "local", "v1-again", &[]);
    let answer = server.deploy(&server.request("v1-again"));
    assert!(answer.unchanged);
    assert_eq!(
        (answer.status.as_str(), answer.deployment),
        ("deployed", Some(1))
    );
    let mut other = server.request("v1");
    other.env.insert("A".into(), "b".into());
    let number = server.deploy(&other).deployment.unwrap();
    assert_eq!(server.wait(number).state, "succeeded");
    let mut forced = other.clone();
    forced.force = true;
    let answer = server.deploy(&forced);
    assert_eq!((answer.unchanged, answer.deployment), (false, Some(3)));
    assert_eq!(server.wait(3).state, "succeeded");
}

#[test]
fn unknown_fields_are_told_and_slips_of_known_ones_refused() {
    let server = Server::start();
    push(&server, "local", "v1", &[]);
    let ask = |field: &str| -> (u16, Value) {
        let mut request = serde_json::to_value(server.request("v1")).unwrap();
        request[field] = "canary".into();
        let answer = agent()
            .post(format!("{}/api/v1/tenants/local/deploy", server.url))
            .header("authorization", format!("Bearer {}", server.token()))
            .send(request.to_string());
        let mut answer = answer.unwrap();
        (
            answer.status().as_u16(),
            answer.body_mut().read_json().unwrap(),
        )
    };
    let (status, refused) = ask("stratgy");
    assert_eq!(
        (status, &refused["error"]["code"]),
        (400, &"invalid_request".into())
    );
    assert_eq!(
        refused["error"]["message"],
        "unknown field `stratgy`: did you mean `strategy`?"
    );
    // Clients of the contract may know more than this server.
    let warnings = serde_json::json!(["unknown field `region` was ignored"]);
    let (status, answer) = ask("region");
    assert_eq!((status, &answer["data"]["warnings"]), (202, &warnings));
    assert_eq!(server.wait(1).state, "succeeded");
    let (status, again) = ask("region");
    assert_eq!((status, &again["data"]["unchanged"]), (200, &true.into()));
    assert_eq!(again["data"]["warnings"], warnings);
    let events = server.client().deployment_events("local", 1, 0, BOUND);
    let told: Vec<String> = events
        .unwrap()
        .map(|event| event.unwrap().message)
        .collect();
    assert_eq!(told[1], "unknown field `region` was ignored", "{told:?}");
    let plain = server.deploy(&server.request("v1"));
    assert_eq!(plain.warnings, Vec::<String>::new());
}

#[test]
fn a_tag_that_is_not_there_is_answered_with_the_latest_releases_alone() {
    let server = Server::start();
    let digest = push(&server, "local", "v9", &[]);
    let papers = digest.replace(':', "-");
    for tag in [
        "v10",
        "api-v9",
        "api-v10",
        "zz-top-v10",
        &papers,
        &format!("{papers}.sig"),
    ] {
        push(&server, "local", tag, &[]);
    }
    let unknown = server
        .client()
        .deploy("local", &server.request("v11"), &key(), false);
    let told = format!("{:?}", unknown.unwrap_err());
    assert!(told.contains("image_not_found"), "{told}");
    assert!(told.contains("the latest releases are v10, v9"), "{told}");
    assert!(
        !told.contains("api-") && !told.contains("zz-top") && !told.contains(&papers),
        "{told}"
    );
}

#[test]
fn what_cannot_be_deployed_is_refused_with_a_reason() {
    let server = Server::start();
    let digest = push(&server, "local", "v1", &[]);
    let other = format!("sha256:{}", "0".repeat(64));
    let base = server.request("v1");
    let with = |change: &dyn Fn(&mut DeployRequest)| {
        let mut request = base.clone();
        change(&mut request);
        request
    };
    let host = server.image("local", "").trim_end_matches(':').to_owned();
    for (request, status, code, hint) in [
        (
            with(&|r| r.image = server.image("local", "v9")),
            404,
            "image_not_found",
            "v1",
        ),
        (
            with(&|r| r.image = format!("{host}@{other}")),
            404,
            "image_not_found",
            "push",
        ),
        (
            with(&|r| r.image = "registry.example/local:v1".into()),
            404,
            "image_not_found",
            "push",
        ),
        (
            with(&|r| r.image = server.image("other", "v1")),
            422,
            "invalid_request",
            "repository",
        ),
        (
            with(&|r| r.image = "not an image".into()),
            422,
            "invalid_request",
            "image",
        ),
        (
            with(&|r| r.image = format!("ada:hunter2@{host}:v1")),
            422,
            "invalid_request",
            "no password",
        ),
        (
            with(&|r| r.digest = Some(other.clone())),
            422,
            "invalid_request",
            &digest,
        ),
        (
            with(&|r| r.strategy = Some("yolo".into())),
            422,
            "invalid_request",
            "rolling",
        ),
        (
            with(&|r| r.timeout_seconds = Some(0)),
            422,
            "invalid_request",
            "timeout",
        ),
        (
            with(&|r| drop(r.env.insert("PORT".into(), "1".into()))),
            422,
            "invalid_request",
            "PORT",
        ),
    ] {
        let refused = server
            .client()
            .deploy("local", &request, &key(), false)
            .unwrap_err();
        let text = format!("{refused:?}");
        let kind = if status == 404 { "NotFound" } else { "422" };
        assert!(text.contains(code) && text.contains(kind), "{text}");
        assert!(text.contains(hint), "{hint} is not in {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    assert_eq!(
        server.client().deployments("local").unwrap(),
        Some(Vec::new())
    );
}

#[test]
fn an_image_can_be_named_by_its_digest() {
    let server = Server::start();
    let digest = push(&server, "local", "v1", &[]);
    let mut request = server.request("v1");
    request.image = request.image.replace(":v1", &format!("@{digest}"));
    let number = server.deploy(&request).deployment.unwrap();
    let done = server.wait(number);
    assert_eq!((done.state.as_str(), done.tag), ("succeeded", None));
}

#[test]
fn one_deployment_of_a_tenant_runs_at_a_time() {
    let server = Server::start();
    push(
        &server,
        "local",
        "slow",
        &[("MODE", "slow"), ("START_MS", "5000")],
    );
    push(&server, "local", "v2", &[]);
    let first = server.deploy(&server.request("slow")).deployment.unwrap();
    let refused = server
        .client()
        .deploy("local", &server.request("v2"), &key(), false)
        .unwrap_err();
    let text = format!("{refused:?}");
    assert!(
        text.contains("deployment_in_progress") && text.contains("operator"),
        "{text}"
    );
    assert_eq!(server.wait(first).state, "succeeded");
}

#[test]
fn whoever_asks_again_for_what_is_in_progress_is_told_of_it() {
    let server = Server::start();
    push(
        &server,
        "local",
        "slow",
        &[("MODE", "slow"), ("START_MS", "5000")],
    );
    let request = server.request("slow");
    let first = server.deploy(&request);
    let again = server.deploy(&request);
    assert_eq!(
        (again.deployment, again.unchanged),
        (first.deployment, false)
    );
    let message = again.message.unwrap();
    assert!(message.contains("on its way already"), "{message}");
    // In another way it is another deployment.
    let mut other = request.clone();
    other.strategy = Some("recreate".to_owned());
    let mut forced = request.clone();
    forced.force = true;
    for another in [other, forced] {
        let refused = server.client().deploy("local", &another, &key(), false);
        let text = format!("{:?}", refused.unwrap_err());
        assert!(text.contains("deployment_in_progress"), "{text}");
    }
    // What is being undone is nothing to wait for.
    let number = first.deployment.unwrap();
    server.client().abort("local", number).unwrap();
    server.wait(number);
    let anew = server.deploy(&request).deployment.unwrap();
    assert_eq!(anew, number + 1);
    assert_eq!(server.wait(anew).state, "succeeded");
}

#[test]
pub(crate) fn tenants_have_urls_images_and_histories_of_their_own() {
    let server = Server::start();
    let client = server.client();
    let new = NewTenant {
        id: "shop".into(),
        name: Some("The shop".into()),
    };
    let shop = client.create_tenant(&new).unwrap();
    assert!(matches!(
        client.create_tenant(&new),
        Err(ApiError::Refused { status: 409, .. })
    ));
    push(&server, "shop", "v1", &[("VERSION", "shop")]);
    let request = DeployRequest {
        image: server.image("shop", "v1"),
        health: Some(health()),
        ..DeployRequest::default()
    };
    client.deploy("shop", &request, &key(), false).unwrap();
    let page = format!("{}/version", shop.app_url.unwrap());
    until("the shop serves", || {
        get(&page).filter(|body| body == "shop")
    });
    assert_eq!(client.deployments("local").unwrap(), Some(Vec::new()));
    until("the deployment is over", || {
        let done = client.deployment("shop", 1).unwrap();
        (done.state == "succeeded").then_some(())
    });
    client.delete_tenant("shop").unwrap();
    assert!(get(&page).is_none());
    assert!(matches!(
        client.status("shop"),
        Err(ApiError::NotFound { .. })
    ));
    assert!(matches!(
        client.create_tenant(&new),
        Err(ApiError::Refused { status: 409, .. })
    ));
}
