//! Tokens for registry clients: the challenge, both ways to ask, what they are for and how they end.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use management_api::types::Role;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::harness::{Server, agent};

/// Status and document of `GET /token`.
fn get(server: &Server, query: &str, password: Option<&str>) -> (u16, Value) {
    let mut request = agent().get(format!("{}/token?{query}", server.url));
    if let Some(password) = password {
        let pair = STANDARD.encode(format!("somebody:{password}"));
        request = request.header("authorization", format!("Basic {pair}"));
    }
    let mut answer = request.call().unwrap();
    let document = answer.body_mut().read_json().unwrap();
    (answer.status().as_u16(), document)
}

/// Status and document of `POST /token`.
fn post(server: &Server, form: &[(&str, &str)]) -> (u16, Value) {
    let url = format!("{}/token", server.url);
    let mut answer = agent().post(url).send_form(form.iter().copied()).unwrap();
    let document = answer.body_mut().read_json().unwrap();
    (answer.status().as_u16(), document)
}

/// A token for these scopes.
pub(crate) fn token(server: &Server, scopes: &[&str], password: &str) -> String {
    let query = format!("service=systemprompt&scope={}", scopes.join("&scope="));
    let (status, document) = get(server, &query, Some(password));
    assert_eq!(status, 200, "{document}");
    document["token"].as_str().unwrap().to_owned()
}

/// What a token says, unread by any client.
fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// The status of a look at a repository's tags, and the challenge that came with it.
fn tags(server: &Server, repository: &str, header: &str) -> (u16, Option<String>) {
    let url = format!("{}/v2/{repository}/tags/list", server.url);
    let request = agent().get(url).header("authorization", header);
    let answer = request.call().unwrap();
    let challenge = answer.headers().get("www-authenticate");
    let challenge = challenge.map(|value| value.to_str().unwrap().to_owned());
    (answer.status().as_u16(), challenge)
}

#[test]
fn the_challenge_says_where_to_get_a_token_and_for_what() {
    let server = Server::start();
    let realm = format!(
        "Bearer realm=\"{}/token\",service=\"systemprompt\"",
        server.url
    );
    let challenge = |method: &str, path: &str| {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", server.url))
            .body(())
            .unwrap();
        let answer = agent().run(request).unwrap();
        assert_eq!(answer.status(), 401, "{path}");
        let challenge = answer.headers()["www-authenticate"].to_str().unwrap();
        challenge.to_owned()
    };
    assert_eq!(challenge("GET", "/v2/"), realm);
    for (method, path, actions) in [
        ("GET", "/v2/local/tags/list", "pull"),
        ("POST", "/v2/local/blobs/uploads/", "pull,push"),
        ("DELETE", "/v2/local/manifests/v1", "pull,push,delete"),
    ] {
        let expected = format!("{realm},scope=\"repository:local:{actions}\"");
        assert_eq!(challenge(method, path), expected);
    }
    // Behind a proxy with TLS the realm is where the client comes from.
    let answer = agent()
        .get(format!("{}/v2/", server.url))
        .header("host", "registry.example.com")
        .header("x-forwarded-proto", "https")
        .call()
        .unwrap();
    let challenge = answer.headers()["www-authenticate"].to_str().unwrap();
    let expected = "Bearer realm=\"https://registry.example.com/token\",service=\"systemprompt\"";
    assert_eq!(challenge, expected);
}

#[test]
fn a_token_has_those_of_the_scopes_that_its_owner_may_have() {
    let server = Server::start();
    server.create_tenants(&["own", "other"]);
    let secret = |role, tenant| {
        let issued = server.issue(role, tenant);
        issued.token.expose_secret().to_owned()
    };
    let all = [
        "repository:own:pull,push",
        "repository:other:pull%20repository:nobody:pull",
        "registry:catalog:*",
        "repository:own:delete",
    ];
    let grant = |name: &str, actions: &[&str]| json!({ "type": "repository", "name": name, "actions": actions });
    for (password, expected) in [
        (
            server.token().to_owned(),
            json!([
                grant("own", &["pull", "push"]),
                grant("other", &["pull"]),
                grant("own", &["delete"]),
            ]),
        ),
        (
            secret(Role::Deployer, Some("own")),
            json!([grant("own", &["pull", "push"]), grant("own", &["delete"])]),
        ),
        (
            secret(Role::Reader, Some("own")),
            json!([grant("own", &["pull"])]),
        ),
        (
            server
                .client()
                .registry_token("other")
                .unwrap()
                .token
                .expose_secret()
                .to_owned(),
            json!([grant("other", &["pull"])]),
        ),
    ] {
        let said = claims(&token(&server, &all, &password));
        assert_eq!(said["access"], expected);
        let life = said["exp"].as_i64().unwrap() - said["iat"].as_i64().unwrap();
        assert_eq!(life, 300);
    }
    let everything = claims(&token(&server, &["repository:own:*"], server.token()));
    assert_eq!(
        everything["access"],
        json!([grant("own", &["pull", "push", "delete"])])
    );
}

#[test]
fn a_form_gets_the_same_and_there_are_no_refresh_tokens() {
    let server = Server::start();
    let form = |grant: &'static str, password: &str| {
        post(
            &server,
            &[
                ("grant_type", grant),
                ("service", "systemprompt"),
                ("client_id", "docker"),
                ("access_type", "offline"),
                ("scope", "repository:local:pull,push repository:nobody:pull"),
                ("username", "somebody"),
                ("password", password),
            ],
        )
    };
    let (status, document) = form("password", server.token());
    assert_eq!(status, 200, "{document}");
    let access = claims(document["access_token"].as_str().unwrap())["access"].clone();
    assert_eq!(
        access,
        json!([{ "type": "repository", "name": "local", "actions": ["pull", "push"] }])
    );
    assert_eq!(document["expires_in"], 300);
    assert_eq!(document.get("refresh_token"), None);
    let (status, refused) = form("refresh_token", server.token());
    assert_eq!(
        (status, &refused["error"]["code"]),
        (400, &json!("invalid_request"))
    );
    let (status, refused) = form("password", "sp_0011223344556677_00");
    assert_eq!(
        (status, &refused["error"]["code"]),
        (401, &json!("unauthorized"))
    );
    // The other way, a client may ask for one and gets none.
    let query = "service=systemprompt&offline_token=true&client_id=docker&account=somebody";
    let (status, document) = get(&server, query, Some(server.token()));
    assert_eq!(status, 200, "{document}");
    assert_eq!(document.get("refresh_token"), None);
}

#[test]
fn whoever_shows_no_token_as_the_password_gets_none() {
    let server = Server::start();
    for password in [None, Some(""), Some("x"), Some("sp_0011223344556677_00")] {
        let (status, document) = get(&server, "service=systemprompt", password);
        assert_eq!(status, 401, "{password:?}");
        assert_eq!(document["error"]["code"], "unauthorized");
    }
    let (status, document) = get(&server, "service=elsewhere", Some(server.token()));
    assert_eq!(
        (status, &document["error"]["code"]),
        (400, &json!("invalid_request"))
    );
    let many = "scope=repository:local:pull&".repeat(65);
    let (status, _) = get(&server, &many, Some(server.token()));
    assert_eq!(status, 400);
}

#[test]
fn a_token_without_the_scope_is_told_to_get_one_with_it() {
    let server = Server::start();
    server.create_tenants(&["other"]);
    let bearer = format!("Bearer {}", token(&server, &[], server.token()));
    let (status, challenge) = tags(&server, "local", &bearer);
    assert_eq!(status, 401);
    let challenge = challenge.unwrap();
    assert!(
        challenge.ends_with("scope=\"repository:local:pull\",error=\"insufficient_scope\""),
        "{challenge}"
    );
    // What its owner may not do is no matter of scopes.
    let reader = server.issue(Role::Reader, Some("local"));
    let reader = token(
        &server,
        &["repository:other:pull"],
        reader.token.expose_secret(),
    );
    assert_eq!(tags(&server, "other", &format!("Bearer {reader}")).0, 403);
    let (status, challenge) = tags(&server, "local", "Bearer a.b.c");
    assert_eq!(status, 401);
    assert!(challenge.unwrap().ends_with("error=\"invalid_token\""));
}

#[test]
pub(crate) fn a_registry_token_ends_with_the_platform_token_behind_it() {
    let server = Server::start();
    // So that the repository is there.
    crate::image::push(&server, "local", "v1", &[]);
    let deployer = server.issue(Role::Deployer, Some("local"));
    let password = deployer.token.expose_secret();
    let direct = token(&server, &["repository:local:pull"], password);
    let contract = server
        .client_with(password)
        .registry_token("local")
        .unwrap();
    let contract = contract.token.expose_secret().to_owned();
    // One that was got with the other.
    let second = token(&server, &["repository:local:pull"], &contract);
    for bearer in [&direct, &contract, &second] {
        assert_eq!(tags(&server, "local", &format!("Bearer {bearer}")).0, 200);
    }
    server.client().revoke_token(&deployer.info.id).unwrap();
    for bearer in [&direct, &contract, &second] {
        assert_eq!(tags(&server, "local", &format!("Bearer {bearer}")).0, 401);
        let (status, _) = get(&server, "service=systemprompt", Some(bearer));
        assert_eq!(status, 401);
    }
}

#[test]
fn another_key_makes_registry_tokens_void_and_no_others() {
    let server = Server::start();
    crate::image::push(&server, "local", "v1", &[]);
    let bearer = format!(
        "Bearer {}",
        token(&server, &["repository:local:pull"], server.token())
    );
    let server = server.kill_and_restart();
    assert_eq!(tags(&server, "local", &bearer).0, 200, "the key is kept");
    let key = server.data().join("registry.key");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    std::fs::remove_file(key).unwrap();
    let server = server.kill_and_restart();
    assert_eq!(tags(&server, "local", &bearer).0, 401);
    let bearer = format!(
        "Bearer {}",
        token(&server, &["repository:local:pull"], server.token())
    );
    assert_eq!(tags(&server, "local", &bearer).0, 200);
}
