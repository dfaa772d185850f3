//! What the server tells about itself, and how it refuses.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use crate::harness::{Server, agent, command, get, until};

fn ask(server: &Server, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
    let request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("{}{path}", server.url))
        .header("authorization", format!("Bearer {}", server.token()))
        .body(body.to_vec())
        .unwrap();
    let mut answer = agent().run(request).unwrap();
    let status = answer.status().as_u16();
    let text = answer.body_mut().read_to_string().unwrap();
    (
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    )
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table with a line a refusal")]
fn every_refusal_has_the_contracts_shape() {
    let server = Server::start();
    let long = vec![b' '; 1024 * 1024 + 1];
    for (method, path, body, status, code) in [
        ("GET", "/nothing", &b""[..], 404, "not_found"),
        (
            "GET",
            "/api/v1/tenants/nobody/status",
            b"",
            404,
            "not_found",
        ),
        (
            "GET",
            "/api/v1/tenants/local/deployments/9",
            b"",
            404,
            "not_found",
        ),
        (
            "GET",
            "/api/v1/tenants/%ff%fe/status",
            b"",
            404,
            "not_found",
        ),
        (
            "GET",
            "/api/v1/tenants/local/deployments/x",
            b"",
            404,
            "not_found",
        ),
        (
            "GET",
            "/api/v1/tenants/local/deployments?limit=0",
            b"",
            400,
            "invalid_request",
        ),
        (
            "GET",
            "/api/v1/tenants/local/logs?since=never",
            b"",
            400,
            "invalid_request",
        ),
        ("PUT", "/api/v1/health", b"", 405, "method_not_allowed"),
        (
            "POST",
            "/api/v1/tenants/local/deploy",
            b"{\"image\":",
            400,
            "invalid_request",
        ),
        (
            "POST",
            "/api/v1/tenants/local/deploy",
            b"[]",
            400,
            "invalid_request",
        ),
        (
            "POST",
            "/api/v1/tenants/local/deploy",
            &long,
            413,
            "payload_too_large",
        ),
        (
            "POST",
            "/api/v1/tenants",
            b"{\"id\":\"../x\"}",
            422,
            "invalid_request",
        ),
        (
            "POST",
            "/api/v1/tenants",
            b"{\"id\":\"local\"}",
            409,
            "conflict",
        ),
        (
            "PUT",
            "/api/v1/tenants/local/secrets",
            b"{\"secrets\":{\"PORT\":\"1\"}}",
            422,
            "invalid_request",
        ),
        (
            "POST",
            "/api/v1/tenants/local/rotate-credentials",
            b"{\"grace_seconds\":9999999999}",
            422,
            "invalid_request",
        ),
        (
            "POST",
            "/api/v1/tenants/local/rollback",
            b"",
            409,
            "nothing_to_roll_back",
        ),
        ("DELETE", "/api/v1/tokens/none", b"", 404, "not_found"),
        (
            "POST",
            "/api/v1/core/oauth/token",
            b"grant_type=x",
            400,
            "invalid_request",
        ),
    ] {
        let (found, answer) = ask(&server, method, path, body);
        assert_eq!(found, status, "{method} {path}: {answer}");
        assert_eq!(answer["error"]["code"], code, "{method} {path}: {answer}");
        assert!(answer["error"]["message"].is_string(), "{answer}");
    }
}

#[test]
fn probes_metrics_and_the_description_are_there() {
    let server = Server::start();
    for path in ["/api/v1/health", "/healthz", "/readyz"] {
        assert!(get(&format!("{}{path}", server.url)).is_some(), "{path}");
    }
    let metrics = get(&format!("{}/metrics", server.url)).unwrap();
    for line in [
        "systemprompt_http_requests_total{method=\"GET\",route=\"/healthz\",status=\"200\"} 1",
        "systemprompt_tenant_up{tenant=\"local\"} 0",
        "systemprompt_proxy_requests_total{tenant=\"local\"} 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    let description = get(&format!("{}/api/v1/openapi.json", server.url)).unwrap();
    let description: Value = serde_json::from_str(&description).unwrap();
    assert_eq!(description["openapi"], "3.1.0");
    let capabilities = server.client().capabilities().unwrap().unwrap();
    assert!(capabilities.offers("events") && capabilities.offers("idempotency"));
}

/// Whoever stands behind a proxy on this machine listens on loopback too, and may not be of this machine.
#[test]
fn what_comes_through_a_proxy_needs_a_token_for_the_measurements() {
    let server = Server::start();
    let ask = |header: (&str, &str), token: Option<&str>| {
        let mut request = agent().get(format!("{}/metrics", server.url));
        request = request.header(header.0, header.1);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.call().unwrap().status().as_u16()
    };
    for header in [
        ("x-forwarded-for", "192.0.2.1"),
        ("x-real-ip", "192.0.2.1"),
        ("forwarded", "for=192.0.2.1"),
        ("via", "1.1 proxy"),
    ] {
        assert_eq!(ask(header, None), 401, "{header:?}");
        assert_eq!(ask(header, Some(server.token())), 200, "{header:?}");
    }
    assert_eq!(ask(("x-other", "1"), None), 200);
}

#[test]
fn the_health_check_command_tells_by_its_exit_code() {
    let mut server = Server::start();
    let url = server.url.clone();
    let check = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_systemprompt"));
        command
            .args(["healthcheck", "--url", &url])
            .output()
            .unwrap()
    };
    assert!(check().status.success());
    server.kill();
    let output = check();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing listens"));
}

#[test]
fn the_dashboard_is_served_with_a_strict_policy() {
    let folder = tempfile::tempdir().unwrap();
    let web = folder.path().join("web");
    std::fs::create_dir_all(web.join("assets")).unwrap();
    std::fs::write(web.join("index.html"), "<title>board</title>").unwrap();
    std::fs::write(web.join("assets/app.js"), "1").unwrap();
    std::fs::write(folder.path().join("secret"), "secret").unwrap();
    let data = folder.path().join("data");
    let mut child = command(&data).arg("--web").arg(&web).spawn().unwrap();
    let announced = until("it announces itself", || {
        let text = std::fs::read_to_string(data.join("server.json")).ok()?;
        serde_json::from_str::<Value>(&text).ok()
    });
    let url = announced["url"].as_str().unwrap();
    let page = agent().get(url).call().unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert_eq!(get(&format!("{url}/assets/app.js")).as_deref(), Some("1"));
    for path in [
        "/assets/../../secret",
        "/assets/%2e%2e/%2e%2e/secret",
        "/assets/none.js",
    ] {
        assert_eq!(raw(url, path), 404, "{path}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The status of a path that no client would send unchanged.
fn raw(url: &str, path: &str) -> u16 {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_client_that_does_not_finish_its_head_is_let_go() {
    let server = Server::start();
    let mut stream = TcpStream::connect(server.url.trim_start_matches("http://")).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nhost:").unwrap();
    stream
        .set_read_timeout(Some(crate::harness::BOUND))
        .unwrap();
    // Whatever the server says before it closes: it closes.
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
}
