//! A proxy in front of a real server that records every call and breaks the chosen ones.

use std::io::{self, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::fault::Rule;
use crate::http::{Request, Response, read_response, write_request};
use crate::server::{Exchange, Server};

/// A running proxy; stopped when dropped.
pub struct FaultProxy {
    server: Server,
}

impl FaultProxy {
    /// Stands in front of `upstream` on a free port. The `Host` field passes unchanged, so that
    /// the addresses in the answers of the server behind lead through the proxy too.
    #[must_use]
    pub fn before(upstream: SocketAddr) -> Self {
        Self::adding(upstream, None)
    }

    /// The same behind something that takes TLS off: the server behind learns that its clients
    /// speak TLS.
    #[must_use]
    pub fn secured_before(upstream: SocketAddr) -> Self {
        Self::adding(upstream, Some(("X-Forwarded-Proto", "https")))
    }

    fn adding(upstream: SocketAddr, field: Option<(&'static str, &'static str)>) -> Self {
        let server = Server::start(Box::new(move |request| {
            let mut request = request.clone();
            let field = field.map(|(name, value)| (name.to_owned(), value.to_owned()));
            request.headers.extend(field);
            forward(upstream, &request).unwrap_or_else(|error| {
                Response::new(502, "text/plain", format!("no answer from behind: {error}"))
            })
        }));
        Self { server }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn host(&self) -> String {
        self.server.address().to_string()
    }

    /// Adds a fault rule.
    pub fn inject(&self, rule: Rule) {
        self.server.inject(rule);
    }

    /// Removes every fault rule.
    pub fn heal(&self) {
        self.server.heal();
    }

    /// All that was asked, in order.
    #[must_use]
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.server.exchanges()
    }

    /// Forgets what was asked.
    pub fn forget(&self) {
        self.server.forget();
    }

    /// How many bytes of blobs were uploaded.
    #[must_use]
    pub fn uploaded(&self) -> usize {
        self.exchanges()
            .iter()
            .filter(|e| e.request.path().contains("/blobs/uploads/"))
            .map(|e| e.request.body.len())
            .sum()
    }
}

fn forward(upstream: SocketAddr, request: &Request) -> io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&upstream, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    write_request(&mut stream, request)?;
    read_response(&mut BufReader::new(stream), &request.method)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;

    fn get(host: &str, path: &str) -> Response {
        let mut stream = TcpStream::connect(host).unwrap();
        let request = Request {
            method: "GET".into(),
            target: path.into(),
            headers: vec![("Host".into(), "public.example".into())],
            body: Vec::new(),
        };
        write_request(&mut stream, &request).unwrap();
        read_response(&mut BufReader::new(stream), "GET").unwrap()
    }

    #[test]
    fn calls_pass_with_their_host_unless_a_rule_says_otherwise() {
        let behind = Server::start(Box::new(|request| {
            Response::new(
                200,
                "text/plain",
                request.header("host").unwrap_or("").to_owned(),
            )
        }));
        let proxy = FaultProxy::before(behind.address());
        proxy.inject(Rule::on("GET", "/v2/*", Fault::Status(429)));
        assert_eq!(get(&proxy.host(), "/v2/x").status, 429);
        assert_eq!(get(&proxy.host(), "/v2/x").body, b"public.example");
        assert_eq!((proxy.exchanges().len(), behind.exchanges().len()), (2, 1));
    }

    #[test]
    fn a_dead_server_behind_is_a_bad_gateway() {
        let behind = Server::start(Box::new(|_| Response::empty(204)));
        let proxy = FaultProxy::before(behind.address());
        assert_eq!(get(&proxy.host(), "/").status, 204);
        drop(behind);
        assert_eq!(get(&proxy.host(), "/").status, 502);
    }
}
