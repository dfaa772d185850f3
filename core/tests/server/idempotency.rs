//! Idempotency keys over HTTP.

use serde_json::Value;

use crate::harness::{Server, agent, key};
use crate::image::push;

struct Answer {
    status: u16,
    replayed: bool,
    location: Option<String>,
    body: Value,
}

fn post(server: &Server, path: &str, key: &str, body: &str) -> Answer {
    let mut answer = agent()
        .post(format!("{}{path}", server.url))
        .header("authorization", format!("Bearer {}", server.token()))
        .header("idempotency-key", key)
        .content_type("application/json")
        .send(body)
        .unwrap();
    let header = |name: &str| {
        let value = answer.headers().get(name)?;
        Some(value.to_str().unwrap().to_owned())
    };
    Answer {
        status: answer.status().as_u16(),
        replayed: header("idempotency-replayed").is_some(),
        location: header("location"),
        body: answer.body_mut().read_json().unwrap(),
    }
}

#[test]
pub(crate) fn the_same_key_and_body_begin_one_deployment() {
    let server = Server::start();
    push(&server, "local", "v1", &[]);
    let path = "/api/v1/tenants/local/deploy";
    let key = key();
    let body = serde_json::to_string(&server.request("v1")).unwrap();
    let first = post(&server, path, &key, &body);
    let second = post(&server, path, &key, &body);
    assert_eq!((first.status, first.replayed), (202, false));
    assert_eq!((second.status, second.replayed), (202, true));
    assert_eq!(first.body, second.body);
    let location = Some("/api/v1/tenants/local/deployments/1".to_owned());
    assert_eq!((&first.location, &second.location), (&location, &location));
    server.wait(1);
    assert_eq!(
        server.client().deployments("local").unwrap().unwrap().len(),
        1
    );
    // Also after a crash: the answer was written together with the deployment.
    let server = server.kill_and_restart();
    assert_eq!(post(&server, path, &key, &body).body, first.body);
    let other = body.replace("\"interval_ms\":200", "\"interval_ms\":201");
    assert_ne!(other, body);
    let mismatch = post(&server, path, &key, &other);
    assert_eq!(mismatch.status, 422);
    assert_eq!(mismatch.body["error"]["code"], "idempotency_mismatch");
}

#[test]
pub(crate) fn a_refusal_does_not_use_the_key_up() {
    let server = Server::start();
    let path = "/api/v1/tenants/local/deploy";
    let key = key();
    let body = serde_json::to_string(&server.request("v1")).unwrap();
    assert_eq!(post(&server, path, &key, &body).status, 404);
    push(&server, "local", "v1", &[]);
    assert_eq!(post(&server, path, &key, &body).status, 202);
    server.wait(1);
    let long = "x".repeat(256);
    assert_eq!(post(&server, path, &long, &body).status, 400);
}
