//! What nobody may do too often, too slowly, too much at once, or outside of the folders that are served.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use management_api::types::Role;
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::harness::{BOUND, Server, agent, command, until};

/// More requests than any of these bounds lets pass.
const ENOUGH: u32 = 1000;

/// Status, `Retry-After` and body of a request with a bearer token.
fn ask(server: &Server, path: &str, token: &str) -> (u16, Option<u64>, Value) {
    let request = agent()
        .get(format!("{}{path}", server.url))
        .header("authorization", format!("Bearer {token}"));
    let mut answer = request.call().unwrap();
    let after = answer.headers().get("retry-after");
    let after = after.map(|value| value.to_str().unwrap().parse().unwrap());
    let text = answer.body_mut().read_to_string().unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (answer.status().as_u16(), after, body)
}

#[test]
fn wrong_tokens_are_answered_429_after_too_many_and_right_ones_are_not() {
    // This machine may try ten times as often.
    let server = Server::start_with("[limits]\nfailed_logins = 3\n");
    let me = "/api/v1/auth/me";
    let mut refused = None;
    for number in 0..200 {
        // Another token each time: it is the address that tries.
        let (status, after, body) = ask(&server, me, &format!("sp_{number:016x}_00"));
        if status == 429 {
            refused = Some((after, body, number));
            break;
        }
        assert_eq!(status, 401);
    }
    let (after, body, number) = refused.unwrap();
    assert!(number >= 30, "{number}");
    assert!(
        after.is_some_and(|seconds| (1..=2).contains(&seconds)),
        "{after:?}"
    );
    assert_eq!(body["error"]["code"], "too_many_requests");
    let (status, _, _) = ask(&server, me, server.token());
    assert_eq!(status, 200, "a right token from the same address");
    // Its bucket fills again by ten a second: some of a quick row are refused, in the registry's words there.
    let registry = until("the registry refuses too", || {
        let (status, after, body) = ask(&server, "/v2/local/tags/list", "sp_00000000000000ff_00");
        (status == 429).then_some((after, body))
    });
    assert!(registry.0.is_some());
    assert_eq!(registry.1["errors"][0]["code"], "TOOMANYREQUESTS");
    let (status, _, _) = ask(&server, "/v2/", server.token());
    assert_eq!(status, 200);
}

#[test]
fn guesses_at_a_token_are_refused_and_its_owner_is_not() {
    let server = Server::start_with("[limits]\nfailed_logins = 10\n");
    let guessed = server.token();
    let id = guessed.split('_').nth(1).unwrap();
    let wrong = format!("sp_{id}_00");
    let me = "/api/v1/auth/me";
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let guessing = scope.spawn(|| {
            let mut refused = 0_u32;
            while !over.load(Ordering::Relaxed) {
                let (status, after, _) = ask(&server, me, &wrong);
                assert!(
                    status == 401 || status == 429 && after.is_some(),
                    "{status}"
                );
                refused += u32::from(status == 429);
            }
            refused
        });
        until("the guesses are refused", || {
            (ask(&server, me, &wrong).0 == 429).then_some(())
        });
        for path in [me, "/v2/local/tags/list"].repeat(20) {
            let (status, ..) = ask(&server, path, guessed);
            assert!(
                status == 200 || path != me && status == 404,
                "{path}: {status}"
            );
        }
        over.store(true, Ordering::Relaxed);
        assert!(guessing.join().unwrap() > 0);
    });
}

#[test]
fn a_token_that_asks_without_end_is_told_to_wait() {
    let server = Server::start_with("[limits]\nrequests_per_second = 2\n");
    let busy = server.issue(Role::Reader, Some("local"));
    let busy = busy.token.expose_secret();
    let passed = (0..ENOUGH).find(|_| {
        let (status, after, _) = ask(&server, "/api/v1/auth/me", busy);
        assert!(status == 200 || after.is_some());
        status == 429
    });
    assert!(passed.is_some_and(|count| count >= 40), "{passed:?}");
    let (status, _, _) = ask(&server, "/api/v1/auth/me", server.token());
    assert_eq!(status, 200);
}

#[test]
fn tokens_that_are_derived_from_one_count_as_that_one() {
    let server = Server::start_with("[limits]\nrequests_per_second = 2\n");
    let issued = server.issue(Role::Deployer, Some("local"));
    let root = issued.token.expose_secret();
    // Neither what asks for sessions, nor each session, is counted anew.
    let exchange = || {
        let mut answer = agent()
            .post(format!("{}/api/v1/core/oauth/token", server.url))
            .send_form([
                (
                    "grant_type",
                    "urn:ietf:params:oauth:grant-type:token-exchange",
                ),
                ("subject_token", root),
            ])
            .unwrap();
        let after = answer.headers().get("retry-after").cloned();
        let body: Value = answer.body_mut().read_json().unwrap();
        (answer.status().as_u16(), after, body)
    };
    let passed = (0..ENOUGH).find(|_| {
        let (status, after, body) = exchange();
        let Some(session) = body["access_token"].as_str() else {
            assert_eq!((status, after.is_some()), (429, true), "{body}");
            return true;
        };
        let (status, after, _) = ask(&server, "/api/v1/auth/me", session);
        assert!(status == 200 || after.is_some(), "{status}");
        status == 429
    });
    // Two requests a round.
    assert!(passed.is_some_and(|count| count >= 20), "{passed:?}");
    assert_eq!(ask(&server, "/api/v1/auth/me", server.token()).0, 200);
}

#[test]
fn forms_with_a_token_are_told_when_to_come_back() {
    let server = Server::start_with("[limits]\nrequests_per_second = 2\n");
    let issued = server.issue(Role::Reader, Some("local"));
    let password = issued.token.expose_secret();
    let form = [("grant_type", "password"), ("password", password)];
    let refused = (0..ENOUGH).find_map(|_| {
        let url = format!("{}/token", server.url);
        let answer = agent().post(url).send_form(form).unwrap();
        (answer.status() == 429).then_some(answer)
    });
    assert!(refused.unwrap().headers().contains_key("retry-after"));
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.host()).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream
}

/// Waits until the server has closed a connection; how long that took.
fn closed(mut stream: TcpStream) -> Duration {
    let started = Instant::now();
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
    started.elapsed()
}

#[test]
fn clients_that_say_nothing_or_a_byte_now_and_then_are_let_go() {
    let server = Server::start();
    let silent = connect(&server);
    // The beginning of HTTP/2, and nothing after it.
    let mut unsure = connect(&server);
    unsure.write_all(b"PRI * HT").unwrap();
    let mut answered = connect(&server);
    answered
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    let mut slow = connect(&server);
    slow.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n")
        .unwrap();
    let trickling = std::thread::spawn(move || {
        let started = Instant::now();
        // A header a second, for ever, as slowloris does.
        while slow.write_all(b"x: y\r\n").is_ok() {
            assert!(started.elapsed() < BOUND, "it was let trickle");
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    for stream in [silent, unsure, answered] {
        let took = closed(stream);
        assert!(took < BOUND, "{took:?}");
    }
    trickling.join().unwrap();
}

#[test]
fn a_body_that_does_not_come_ends_the_request() {
    let server = Server::start();
    let mut stream = connect(&server);
    let token = server.token();
    write!(
        stream,
        "POST /api/v1/tokens HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\
         content-length: 1000\r\n\r\n{{"
    )
    .unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
}

#[test]
fn more_connections_than_allowed_wait_for_a_place() {
    let server = Server::start_with("[limits]\nmax_connections = 4\n");
    let held: Vec<_> = (0..4).map(|_| connect(&server)).collect();
    let mut waiting = connect(&server);
    write!(
        waiting,
        "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    waiting
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let refused = waiting.read(&mut [0]).unwrap_err();
    assert!(
        matches!(refused.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        "{refused}"
    );
    drop(held);
    waiting.set_read_timeout(Some(BOUND)).unwrap();
    let mut answer = String::new();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn no_route_takes_a_body_without_end() {
    let server = Server::start();
    let text = crate::harness::get(&format!("{}/api/v1/openapi.json", server.url)).unwrap();
    let description: Value = serde_json::from_str(&text).unwrap();
    let long = vec![b' '; 1024 * 1024 + 1];
    let mut tried = 0;
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let Some(content) = operation.get("requestBody").map(|body| &body["content"]) else {
                continue;
            };
            let media_type = content.as_object().unwrap().keys().next().unwrap();
            let path = path.replace("{tenant}", "local").replace("{number}", "1");
            let request = ureq::http::Request::builder()
                .method(method.to_uppercase().as_str())
                .uri(format!("{}{path}", server.url))
                .header("authorization", format!("Bearer {}", server.token()))
                .header("content-type", media_type)
                .body(long.clone())
                .unwrap();
            let answer = agent().run(request).unwrap();
            assert_eq!(answer.status(), 413, "{method} {path}");
            tried += 1;
        }
    }
    assert!(tried >= 8, "{tried}");
}

#[test]
fn no_path_leads_out_of_what_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let web = folder.path().join("web");
    std::fs::create_dir_all(web.join("assets")).unwrap();
    std::fs::write(web.join("index.html"), "<title>board</title>").unwrap();
    std::fs::write(web.join("assets/app.js"), "1").unwrap();
    std::fs::write(folder.path().join("secret"), "here it is").unwrap();
    std::os::unix::fs::symlink(folder.path().join("secret"), web.join(".hidden")).unwrap();
    let web = web.to_str().unwrap();
    let server = Server::start_as(&["--web", web], "");
    let ups = [
        "..",
        "%2e%2e",
        "%2E.",
        "..%2f",
        "..%5c",
        "%252e%252e",
        "..;",
        ".%00.",
    ];
    let mut paths = vec!["/.hidden".to_owned(), "//secret".to_owned()];
    for up in ups {
        for front in [
            "/assets",
            "",
            "/v2/local",
            "/v2/local/blobs",
            "/api/v1/tenants",
        ] {
            for depth in 1..=3 {
                let climb = format!("{up}/").repeat(depth);
                paths.push(format!("{front}/{climb}secret"));
                paths.push(format!("{front}/{climb}data/token"));
                paths.push(format!("{front}/{climb}state.db"));
            }
        }
        // Where a tenant's folder of logs is, and an upload's file.
        paths.push(format!("/api/v1/tenants/{up}/logs"));
        paths.push(format!("/api/v1/tenants/{up}%2f{up}/logs"));
        paths.push(format!("/v2/local/blobs/uploads/{up}"));
        paths.push(format!("/v2/local/manifests/{up}%2f{up}%2fstate.db"));
        paths.push(format!("/v2/{up}/tags/list"));
    }
    for path in paths {
        let (status, body) = raw(&server, &path);
        assert!((400..500).contains(&status), "{path}: {status} {body}");
        assert!(
            !body.contains("here it is") && !body.contains("sp_"),
            "{path}: {body}"
        );
    }
}

/// Status and body of a path that no client would send unchanged, with the operator's token.
fn raw(server: &Server, path: &str) -> (u16, String) {
    let mut stream = connect(server);
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\nconnection: close\r\n\r\n",
        server.token()
    )
    .unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, body.to_owned())
}

#[test]
fn a_server_does_not_listen_beyond_this_machine_without_tls() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let start = |words: &[&str]| {
        let mut refused = command(&data);
        refused.args(words).stderr(std::process::Stdio::piped());
        refused.output().unwrap()
    };
    for address in ["0.0.0.0:0", "[::]:0"] {
        let output = start(&["--listen", address]);
        assert_eq!(output.status.code(), Some(1), "{address}");
        let text = String::from_utf8_lossy(&output.stderr);
        for word in ["listen_without_tls", "--tls-certificate", "--insecure"] {
            assert!(text.contains(word), "{text}");
        }
    }
    assert!(!data.exists(), "nothing was made");
    let half = start(&["--tls-certificate", "x.pem"]);
    assert_eq!(half.status.code(), Some(2));
    let missing = start(&["--tls-certificate", "/none.pem", "--tls-key", "/none.key"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/none.pem"));
    let server = Server::start_as(&["--listen", "0.0.0.0:0", "--insecure"], "");
    assert!(
        server.url.starts_with("http://127.0.0.1:"),
        "{}",
        server.url
    );
    assert!(server.client().health().is_ok());
}

/// A connection with HTTP/2 that has asked for a path, with these settings.
fn connect_http_2(server: &Server, path: &str, settings: &[u8]) -> TcpStream {
    let mut stream = connect(server);
    stream.set_read_timeout(Some(2 * BOUND)).unwrap();
    // The preface (RFC 9113 section 3.4), then GET by the static table of HPACK (RFC 7541 appendix A) with a path and
    // an authority of its own, headers and stream at their end.
    let mut request = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    request.extend(path.as_bytes());
    request.extend([0x41, 1, b'x']);
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    sent.extend([
        0,
        0,
        u8::try_from(settings.len()).unwrap(),
        4,
        0,
        0,
        0,
        0,
        0,
    ]);
    sent.extend(settings);
    sent.extend([0, 0, u8::try_from(request.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
    sent.extend(request);
    stream.write_all(&sent).unwrap();
    stream
}

/// Does nothing but answer pings (RFC 9113 section 6.7) until it is let go; how long that took, and what came.
fn answer_pings(mut stream: TcpStream) -> (Duration, Vec<u8>) {
    let started = Instant::now();
    let (mut head, mut content) = ([0; 9], Vec::new());
    while stream.read_exact(&mut head).is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).unwrap();
        let is_ping = head[3] == 6 && head[4] & 1 == 0;
        if is_ping {
            // It may be let go in this very moment.
            let pong = [&[0, 0, 8, 6, 1, 0, 0, 0, 0], &payload[..]].concat();
            if stream.write_all(&pong).is_err() {
                break;
            }
        } else if head[3] == 0 {
            content.extend(payload);
        }
        assert!(started.elapsed() < 2 * BOUND, "it was kept");
    }
    (started.elapsed(), content)
}

#[test]
fn a_connection_with_http_2_is_let_go_when_nothing_is_asked_for_long() {
    let server = Server::start();
    let (took, content) = answer_pings(connect_http_2(&server, "/healthz", &[]));
    assert!(took > Duration::from_secs(14), "{took:?}");
    assert!(!content.is_empty());
}

#[test]
fn a_connection_with_http_2_that_takes_no_answer_is_let_go() {
    let server = Server::start_with("[limits]\nmax_connections = 4\n");
    // SETTINGS_INITIAL_WINDOW_SIZE (RFC 9113 section 6.5.2): nothing of an answer may be sent.
    let settings = [0, 4, 0, 0, 0, 0];
    let path = "/api/v1/openapi.json";
    let held = [(); 4].map(|()| connect_http_2(&server, path, &settings));
    for stream in held.map(|stream| std::thread::spawn(|| answer_pings(stream))) {
        let (took, content) = stream.join().unwrap();
        assert!(took > Duration::from_secs(14), "{took:?}");
        assert!(content.is_empty());
    }
    assert!(server.client().health().is_ok(), "their places are free");
}
