use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use serde_json::json;

use super::*;
use crate::fault::Fault;
use crate::http::{read_response, write_request};

fn start(variant: Variant) -> ManagementApi {
    let access = RegistryAccess {
        registry: "127.0.0.1:5".into(),
        username: "x".into(),
        password: "registry-password".into(),
    };
    ManagementApi::start(variant, access, Box::new(|image| image.ends_with(":there")))
}

fn ask(api: &ManagementApi, method: &str, path: &str, token: &str, body: &str) -> (u16, Value) {
    let host = api.url().replace("http://", "");
    let mut stream = TcpStream::connect(&host).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let kind = if body.starts_with('{') {
        "application/json"
    } else {
        "application/x-www-form-urlencoded"
    };
    let request = Request {
        method: method.into(),
        target: path.into(),
        headers: vec![
            ("Host".into(), host),
            ("Authorization".into(), format!("Bearer {token}")),
            ("Content-Type".into(), kind.into()),
        ],
        body: body.into(),
    };
    write_request(&mut stream, &request).unwrap();
    stream.flush().unwrap();
    let response = read_response(&mut BufReader::new(stream), method).unwrap();
    let body = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
    (response.status, body)
}

fn exchange(api: &ManagementApi) -> String {
    let form = format!(
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token={}\
         &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token\
         &resource={}&client_id=sp_web",
        api.token(),
        api.url()
    );
    let (status, body) = ask(api, "POST", "/api/v1/core/oauth/token", "", &form);
    assert_eq!(status, 200, "{body}");
    body["access_token"].as_str().unwrap().to_owned()
}

const REGISTRY_TOKEN: &str = "/api/v1/tenants/tn-7f3a/registry-token";
const DEPLOY: &str = "/api/v1/tenants/tn-7f3a/deploy";
const STATUS: &str = "/api/v1/tenants/tn-7f3a/status";

#[test]
fn the_registry_token_has_the_shape_of_its_time() {
    let seed = start(Variant::SeedEra);
    let (_, body) = ask(&seed, "GET", REGISTRY_TOKEN, seed.token(), "");
    assert_eq!(
        body["data"],
        json!({"registry": "127.0.0.1:5", "username": "x", "password": "registry-password",
               "repository": REPOSITORY})
    );
    let current = start(Variant::Current);
    let (_, body) = ask(&current, "GET", REGISTRY_TOKEN, current.token(), "");
    assert_eq!(
        body["data"],
        json!({"registry": "127.0.0.1:5", "username": "x", "token": "registry-password"})
    );
}

#[test]
fn tenant_calls_need_an_exchanged_token_where_the_server_exchanges() {
    let api = start(Variant::ServerTag);
    assert_eq!(ask(&api, "GET", REGISTRY_TOKEN, api.token(), "").0, 401);
    assert_eq!(ask(&api, "GET", "/api/v1/auth/me", api.token(), "").0, 200);
    let token = exchange(&api);
    let (status, body) = ask(&api, "GET", REGISTRY_TOKEN, &token, "");
    assert_eq!(
        (status, body["data"]["tag"].as_str()),
        (200, Some(FIRST_SERVER_TAG))
    );
    api.revoke_exchanged();
    assert_eq!(ask(&api, "GET", REGISTRY_TOKEN, &token, "").0, 401);
    assert_eq!(api.granted_exchanges(), 1);
}

#[test]
fn an_incomplete_exchange_is_refused() {
    let api = start(Variant::ServerTag);
    let (status, body) = ask(&api, "POST", "/api/v1/core/oauth/token", "", "grant_type=x");
    assert_eq!(status, 400);
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains("grant_type")
    );
    let plain = start(Variant::Current);
    assert_eq!(
        ask(&plain, "POST", "/api/v1/core/oauth/token", "", "a=b").0,
        404
    );
}

#[test]
fn only_an_image_that_exists_is_deployed() {
    let api = start(Variant::Current);
    let (status, body) = ask(&api, "POST", DEPLOY, api.token(), r#"{"image":"r/a:gone"}"#);
    assert_eq!(
        (status, body["error"]["code"].as_str()),
        (404, Some("image_not_found"))
    );
    let extra = r#"{"image":"r/a:there","strategy":"rolling"}"#;
    assert_eq!(ask(&api, "POST", DEPLOY, api.token(), extra).0, 422);
    let (status, body) = ask(
        &api,
        "POST",
        DEPLOY,
        api.token(),
        r#"{"image":"r/a:there"}"#,
    );
    assert_eq!(
        (status, body["data"]["app_url"].as_str()),
        (200, Some(api.app_url()))
    );
    assert_eq!(api.deployed(), ["r/a:there"]);
}

#[test]
fn statuses_are_walked_and_the_last_one_stays() {
    let api = start(Variant::SeedEra);
    let status = || {
        let (_, body) = ask(&api, "GET", STATUS, api.token(), "");
        body["data"]["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(status(), "pending");
    let (_, body) = ask(
        &api,
        "POST",
        DEPLOY,
        api.token(),
        r#"{"image":"r/a:there"}"#,
    );
    assert_eq!(body["data"]["url"].as_str(), Some(api.app_url()));
    api.statuses(&["deploying", "warming-up", "ready"]);
    let walked: Vec<_> = (0..4).map(|_| status()).collect();
    assert_eq!(walked, ["deploying", "warming-up", "ready", "ready"]);
}

#[test]
fn faults_happen_at_the_chosen_call_and_are_recorded() {
    let api = start(Variant::Current);
    api.inject(Rule::on("GET", "/api/v1/tenants/*/status", Fault::Status(503)).nth(2));
    let statuses: Vec<_> = (0..3)
        .map(|_| ask(&api, "GET", STATUS, api.token(), "").0)
        .collect();
    assert_eq!(statuses, [200, 503, 200]);
    let recorded: Vec<_> = api
        .exchanges()
        .iter()
        .map(|e| (e.status, e.faulty))
        .collect();
    assert_eq!(
        recorded,
        [(Some(200), false), (Some(503), true), (Some(200), false)]
    );
}

#[test]
fn a_token_carries_its_end() {
    let token = identity::token_that_ends(SystemTime::UNIX_EPOCH + Duration::from_secs(7));
    let claims = token.split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(claims)
        .unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["exp"], 7);
}
