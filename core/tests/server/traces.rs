//! Traces, as a collector gets them: one written from the OTLP specification
//! (`opentelemetry/proto/collector/trace/v1/trace_service.proto` and what it imports) and from that of its transport,
//! because there is none to be had everywhere. It knows nothing of the library that sends.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use secrecy::ExposeSecret as _;

use crate::harness::{BOUND, Server, agent, until};
use crate::image::push;

/// A message of protocol buffers: its fields by number, in order.
struct Message<'a>(Vec<(u64, Field<'a>)>);

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Message<'a> {
    fn read(mut bytes: &'a [u8]) -> Self {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let field = match key & 7 {
                0 => Field::Number(varint(&mut bytes)),
                1 => Field::Number(u64::from_le_bytes(take(&mut bytes, 8).try_into().unwrap())),
                2 => {
                    let length = usize::try_from(varint(&mut bytes)).unwrap();
                    Field::Bytes(take(&mut bytes, length))
                }
                5 => {
                    let bytes = take(&mut bytes, 4).try_into().unwrap();
                    Field::Number(u32::from_le_bytes(bytes).into())
                }
                other => panic!("wire type {other}"),
            };
            fields.push((key >> 3, field));
        }
        Self(fields)
    }

    fn all(&self, number: u64) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter_map(move |(n, field)| match field {
            Field::Bytes(bytes) if *n == number => Some(*bytes),
            _ => None,
        })
    }

    fn messages(&self, number: u64) -> impl Iterator<Item = Message<'a>> {
        self.all(number).map(Message::read)
    }

    fn text(&self, number: u64) -> String {
        let bytes = self.all(number).next().unwrap_or_default();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn hex(&self, number: u64) -> String {
        let bytes = self.all(number).next().unwrap_or_default();
        let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let digits = digits.map(|digit| char::from_digit(digit.into(), 16).unwrap());
        digits.collect()
    }

    fn number(&self, number: u64) -> u64 {
        let found = self.0.iter().find_map(|(n, field)| match field {
            Field::Number(value) if *n == number => Some(*value),
            _ => None,
        });
        found.unwrap_or_default()
    }

    /// `KeyValue`s, whose value is one of several fields of `AnyValue`.
    fn attributes(&self, number: u64) -> BTreeMap<String, String> {
        let pairs = self.messages(number).map(|pair| {
            let value = pair.messages(2).next().unwrap();
            let value = match value.0.first() {
                Some((1, Field::Bytes(text))) => String::from_utf8_lossy(text).into_owned(),
                Some((_, Field::Number(number))) => number.to_string(),
                _ => String::new(),
            };
            (pair.text(1), value)
        });
        pairs.collect()
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("a number without an end")
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count);
    *bytes = rest;
    taken
}

#[derive(Debug, Clone)]
struct Span {
    service: String,
    trace: String,
    id: String,
    parent: String,
    name: String,
    kind: u64,
    start: u64,
    end: u64,
    attributes: BTreeMap<String, String>,
    status: u64,
}

/// All spans of an `ExportTraceServiceRequest`.
fn spans(body: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_resource in Message::read(body).messages(1) {
        let resource = of_resource.messages(1).next().unwrap().attributes(1);
        for of_scope in of_resource.messages(2) {
            spans.extend(of_scope.messages(2).map(|span| {
                Span {
                    service: resource["service.name"].clone(),
                    trace: span.hex(1),
                    id: span.hex(2),
                    parent: span.hex(4),
                    name: span.text(5),
                    kind: span.number(6),
                    start: span.number(7),
                    end: span.number(8),
                    attributes: span.attributes(9),
                    status: span
                        .messages(15)
                        .next()
                        .map_or(0, |status| status.number(3)),
                }
            }));
        }
    }
    spans
}

/// Takes what is sent to it.
struct Collector {
    endpoint: String,
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let bodies = Arc::default();
        let taken = Arc::clone(&bodies);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, taken) = (stream.unwrap(), Arc::clone(&taken));
                std::thread::spawn(move || serve(stream, &taken));
            }
        });
        Self { endpoint, bodies }
    }

    fn settings(&self) -> String {
        format!("[telemetry]\nendpoint = {:?}\n", self.endpoint)
    }

    fn spans(&self) -> Vec<Span> {
        let bodies = self.bodies.lock().unwrap();
        bodies.iter().flat_map(|body| spans(body)).collect()
    }

    /// The first span of this name, once it has come.
    fn span(&self, name: &str) -> Span {
        until(&format!("a span {name:?} comes"), || {
            self.spans().into_iter().find(|span| span.name == name)
        })
    }
}

/// Requests of one connection, until it ends.
fn serve(stream: TcpStream, taken: &Mutex<Vec<Vec<u8>>>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line.trim().is_empty() {
                break;
            }
            head.push(line.trim().to_ascii_lowercase());
        }
        assert!(head[0].starts_with("post /v1/traces http/1.1"), "{head:?}");
        assert!(head.contains(&"content-type: application/x-protobuf".to_owned()));
        let length = head
            .iter()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        taken.lock().unwrap().push(body);
        // An empty ExportTraceServiceResponse: everything was taken.
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        reader.get_mut().write_all(answer.as_bytes()).unwrap();
    }
}

const SERVER: u64 = 2;
const ERROR: u64 = 2;

#[test]
fn a_request_is_a_span_of_the_trace_that_it_came_with() {
    let collector = Collector::start();
    let server = Server::start_with(&collector.settings());
    let (trace, parent) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let answer = agent()
        .get(format!(
            "{}/api/v1/tenants/local/status?secret=query",
            server.url
        ))
        .header("authorization", format!("Bearer {}", server.token()))
        .header("traceparent", format!("00-{trace}-{parent}-01"))
        .call();
    assert_eq!(answer.unwrap().status(), 200);
    let span = collector.span("GET /api/v1/tenants/{tenant}/status");
    assert_eq!((span.trace.as_str(), span.parent.as_str()), (trace, parent));
    assert_eq!((span.service.as_str(), span.kind), ("systemprompt", SERVER));
    assert!(span.end >= span.start && span.start > 0);
    let attribute = |name: &str| span.attributes[name].as_str();
    assert_eq!(attribute("http.request.method"), "GET");
    assert_eq!(attribute("http.response.status_code"), "200");
    assert_eq!(attribute("url.path"), "/api/v1/tenants/local/status");
    // Somebody who does not want to be followed is not.
    let quiet = "11111111111111111111111111111111";
    let answer = agent()
        .get(format!("{}/healthz", server.url))
        .header("traceparent", format!("00-{quiet}-{parent}-00"))
        .call();
    assert_eq!(answer.unwrap().status(), 200);
    let mut server = server;
    assert!(server.terminate().success());
    assert!(collector.spans().iter().all(|span| span.trace != quiet));
    let bodies = collector.bodies.lock().unwrap().concat();
    let token = server.token().rsplit('_').next().unwrap();
    for secret in [token, "secret=query", "Bearer"] {
        let found = bodies.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(!found, "a secret is in the traces");
    }
}

#[test]
fn a_deployment_is_a_span_with_its_states_below_what_asked_for_it() {
    let collector = Collector::start();
    let mut server = Server::start_with(&collector.settings());
    push(&server, "local", "v1", &[("VERSION", "v1")]);
    assert_eq!(server.deploy_and_wait("v1").state, "succeeded");
    assert!(server.interrupt().success());
    let spans = collector.spans();
    let one = |name: &str| {
        let mut found = spans.iter().filter(|span| span.name == name);
        let first = found.next().unwrap_or_else(|| panic!("no span {name:?}"));
        assert!(found.next().is_none(), "several spans {name:?}");
        first
    };
    let asked = one("POST /api/v1/tenants/{tenant}/deploy");
    let deployment = one("deployment");
    assert_eq!(deployment.trace, asked.trace);
    assert_eq!(deployment.parent, asked.id);
    assert_eq!(deployment.attributes["tenant"], "local");
    assert_eq!(deployment.attributes["state"], "succeeded");
    assert_ne!(deployment.status, ERROR);
    for state in [
        "requested",
        "provisioned",
        "healthy",
        "shifting",
        "verified",
    ] {
        let span = one(state);
        assert_eq!(span.parent, deployment.id, "{state}");
        assert!(span.start >= deployment.start && span.end <= deployment.end);
    }
    // The image was pushed before.
    let uploads = spans.iter().filter(|span| span.name == "registry upload");
    let uploads: Vec<_> = uploads.collect();
    assert!(!uploads.is_empty());
    for upload in uploads {
        assert_eq!(upload.attributes["repository"], "local");
        let request = spans.iter().find(|span| span.id == upload.parent);
        assert!(request.unwrap().name.contains("/v2/"));
    }
}

/// A collector that takes a connection and says nothing is nobody's problem.
#[test]
fn a_collector_that_does_not_answer_holds_nothing_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let settings = format!("[telemetry]\nendpoint = {endpoint:?}\ntimeout_seconds = 1\n");
    let mut server = Server::start_with(&settings);
    let issued = server.issue(management_api::types::Role::Reader, Some("local"));
    for _ in 0..100 {
        let answer = agent()
            .get(format!("{}/api/v1/auth/me", server.url))
            .header(
                "authorization",
                format!("Bearer {}", issued.token.expose_secret()),
            )
            .call();
        assert_eq!(answer.unwrap().status(), 200);
    }
    until("the server says so", || {
        server.log().contains("traces are not sent").then_some(())
    });
    let begun = Instant::now();
    assert!(server.terminate().success());
    assert!(begun.elapsed() < BOUND / 2);
}
