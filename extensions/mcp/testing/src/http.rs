//! A server's binary over streamable HTTP. Requests are written by hand: a client library would
//! not send the headers that must be refused.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use crate::{PATIENCE, Variables, command, temporary_folder, terminate};

/// A server that listens on a free port.
pub struct HttpServer {
    /// The endpoint's URL, as the server printed it.
    pub url: String,
    address: SocketAddr,
    child: Child,
    // Kept open: a server that prints into a closed pipe could die of it.
    _stdout: BufReader<ChildStdout>,
    _home: TempDir,
}

/// An HTTP answer.
#[derive(Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its head, as it came.
    pub head: String,
    /// Its body.
    pub body: String,
}

impl Response {
    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }
}

impl HttpServer {
    /// Starts the binary with `--http 127.0.0.1:0`.
    pub async fn start(binary: &str, variables: Variables<'_>) -> Self {
        let home = temporary_folder();
        let mut command = command(binary, &["--http", "127.0.0.1:0"], variables, &home);
        // Standard input says nothing to a server on HTTP: its end must not stop it.
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("start the server");
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        timeout(PATIENCE, stdout.read_line(&mut line))
            .await
            .expect("the server does not say where it listens")
            .expect("read standard output");
        let url = line.trim().to_owned();
        let address = url
            .strip_prefix("http://")
            .and_then(|rest| rest.strip_suffix("/mcp"))
            .and_then(|address| address.parse().ok())
            .unwrap_or_else(|| panic!("not an endpoint: {url:?}"));
        Self {
            url,
            address,
            child,
            _stdout: stdout,
            _home: home,
        }
    }

    /// Sends a JSON-RPC message with the usual headers; those given replace them.
    pub async fn post(&self, message: &Value, headers: &[(&str, &str)]) -> Response {
        let mut all = vec![
            ("Host", self.address.to_string()),
            ("Content-Type", "application/json".to_owned()),
            ("Accept", "application/json, text/event-stream".to_owned()),
        ];
        for (name, value) in headers {
            all.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
            all.push((name, (*value).to_owned()));
        }
        self.send("POST", "/mcp", &all, &message.to_string()).await
    }

    /// Sends any request.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, String)],
        body: &str,
    ) -> Response {
        let headers: String = headers
            .iter()
            .map(|(name, value)| [name, ": ", value, "\r\n"].concat())
            .collect();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\n{headers}\
             Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await?;
            Ok::<_, std::io::Error>(answer)
        };
        let answer = timeout(PATIENCE, exchange)
            .await
            .expect("the server does not answer")
            .expect("exchange a request");
        parse(&String::from_utf8_lossy(&answer))
    }

    /// Sends a request as clients of today do, and answers its result.
    pub async fn request(
        &self,
        method: &str,
        parameters: Value,
        headers: &[(&str, &str)],
    ) -> Value {
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters});
        let response = self.post(&message, headers).await;
        assert_eq!(response.status, 200, "{response:?}");
        let answer = response.json();
        assert!(answer["result"].is_object(), "{answer}");
        answer["result"].clone()
    }

    /// Asks the server to end as a service manager does. It must end with success.
    pub async fn stop(mut self) {
        terminate(&self.child).await;
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .expect("the server ignores SIGTERM")
            .expect("wait for the server");
        assert!(status.success(), "the server ended with {status}");
    }
}

/// The parameters of an `initialize` request.
#[must_use]
pub fn initialize() -> Value {
    json!({
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "0"},
    })
}

/// The whole round over HTTP: handshake, list, call; then all that must be refused.
pub async fn check_transport(binary: &str, tool: &str, variables: Variables<'_>) {
    let server = HttpServer::start(binary, variables).await;
    let greeting = server.request("initialize", initialize(), &[]).await;
    assert!(greeting["serverInfo"]["version"].is_string(), "{greeting}");
    let listed = server.request("tools/list", json!({}), &[]).await;
    assert!(listed["tools"].to_string().contains(tool), "{listed}");
    let arguments = json!({"name": tool, "arguments": {}});
    let called = server.request("tools/call", arguments, &[]).await;
    assert_eq!(called["isError"], json!(false), "{called}");
    check_refusals(&server).await;
    server.stop().await;
}

async fn check_refusals(server: &HttpServer) {
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let refused: [&[(&str, &str)]; 5] = [
        &[("Host", "evil.example")],
        &[("Host", "evil.example:80")],
        &[("Origin", "https://evil.example")],
        &[("Origin", "http://127.0.0.1:1")],
        &[("Origin", "null")],
    ];
    for headers in refused {
        assert_eq!(server.post(&list, headers).await.status, 403, "{headers:?}");
    }
    let own = server.url.trim_end_matches("/mcp").to_owned();
    assert_eq!(server.post(&list, &[("Origin", &own)]).await.status, 200);
    assert_eq!(
        server.post(&list, &[("Host", "localhost:1")]).await.status,
        200
    );
    let host = [("Host", "localhost".to_owned())];
    assert_eq!(server.send("POST", "/", &host, "{}").await.status, 404);
    assert_eq!(server.send("GET", "/mcp", &host, "").await.status, 405);
    let long = json!({"jsonrpc": "2.0", "id": 1, "method": "x".repeat(2 * 1024 * 1024)});
    assert_eq!(server.post(&long, &[]).await.status, 413);
}

fn parse(answer: &str) -> Response {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_else(|| panic!("not an HTTP answer: {answer:?}"));
    let chunked = head
        .to_ascii_lowercase()
        .contains("transfer-encoding: chunked");
    Response {
        status,
        head: head.to_owned(),
        body: if chunked {
            unchunk(body)
        } else {
            body.to_owned()
        },
    }
}

fn unchunk(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, tail)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        let Some(chunk) = tail.get(..size).filter(|chunk| !chunk.is_empty()) else {
            break;
        };
        body += chunk;
        rest = tail.get(size + 2..).unwrap_or_default();
    }
    body
}
