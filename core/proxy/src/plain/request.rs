//! The head of a request: whether it is plain, and what the instance is sent for it.

use std::mem::MaybeUninit;
use std::net::IpAddr;

use httparse::{Header, Status};

use super::fields::{self, Field, tokens};
use crate::rules::Asked;
use crate::settings::Forwarded;

/// The most header lines of a plain request; one with more is for hyper to judge.
const MAX_HEADERS: usize = 64;

/// What of the client the instance is told.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) address: String,
    pub(super) scheme: &'static str,
    pub(super) policy: Forwarded,
}

/// An address as [`IpAddr`] displays it. That takes longer for an IPv4 address than reading the whole request.
pub(super) fn text_of(address: IpAddr) -> String {
    let IpAddr::V4(address) = address else {
        return address.to_string();
    };
    let mut text = String::with_capacity("255.255.255.255".len());
    for octet in address.octets() {
        if !text.is_empty() {
            text.push('.');
        }
        if octet >= 100 {
            text.push(char::from(b'0' + octet / 100));
        }
        if octet >= 10 {
            text.push(char::from(b'0' + octet / 10 % 10));
        }
        text.push(char::from(b'0' + octet % 10));
    }
    text
}

/// What has come of a request.
#[derive(Debug)]
pub(super) enum Head<'a> {
    /// Not the whole head.
    Partial,
    /// One that is not plain, or none at all.
    Other,
    Plain(Request<'a>),
}

/// A plain request. What the instance is to be sent has been written.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// Of the head, in bytes.
    pub(super) length: usize,
    pub(super) asked: Asked<'a>,
    /// Whether only the head of an answer is wanted.
    pub(super) is_head: bool,
    /// Whether another request may follow.
    pub(super) keeps_alive: bool,
}

/// Reads a head. Of a plain request, writes the head for the instance to `out`, which is cleared before.
pub(super) fn read<'a>(bytes: &'a [u8], sender: &Sender, out: &mut Vec<u8>) -> Head<'a> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Head::Partial,
        Err(_) => return Head::Other,
    };
    let (Some(method @ ("GET" | "HEAD")), Some(target), Some(1)) =
        (request.method, request.path, request.version)
    else {
        return Head::Other;
    };
    if !is_plain_target(target) {
        return Head::Other;
    }
    out.clear();
    for part in [method, " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let Some(noted) = write_fields(request.headers, sender.policy, out) else {
        return Head::Other;
    };
    noted.write_forwarded(sender, out);
    out.extend_from_slice(b"\r\n");
    let asked = Asked {
        host: std::str::from_utf8(noted.host)
            .ok()
            .filter(|host| host.is_ascii()),
        path: target.split_once('?').map_or(target, |(path, _)| path),
    };
    Head::Plain(Request {
        length,
        asked,
        is_head: method == "HEAD",
        keeps_alive: noted.keeps_alive,
    })
}

/// A path and a query of which nobody thinks differently (RFC 3986).
fn is_plain_target(target: &str) -> bool {
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@/?".contains(&byte);
    target.starts_with('/') && target.bytes().all(is_plain)
}

/// What the fields of a request say to the proxy.
#[derive(Debug)]
struct Noted<'a> {
    host: &'a [u8],
    keeps_alive: bool,
    /// Of proxies before, where they are believed.
    forwarded_for: Vec<u8>,
    has_host: bool,
    has_proto: bool,
}

/// Hands on the fields that are for the instance. None if there is one that makes the request more than plain.
fn write_fields<'a>(
    headers: &[Header<'a>],
    policy: Forwarded,
    out: &mut Vec<u8>,
) -> Option<Noted<'a>> {
    let believes = policy == Forwarded::Append;
    let (mut host, mut cookies, mut keeps_alive) = (None, 0, true);
    let (mut forwarded_for, mut has_host, mut has_proto) = (Vec::new(), false, false);
    for Header { name, value } in headers {
        match Field::of(name) {
            Field::Host if host.is_none() => host = Some(*value),
            Field::Cookie => cookies += 1,
            Field::Connection => {
                keeps_alive &= keeps_connection(value)?;
                continue;
            }
            Field::HopByHop => continue,
            Field::Host | Field::Special | Field::ContentLength | Field::TransferEncoding => {
                return None;
            }
            Field::Forwarded | Field::ForwardedHost | Field::ForwardedProto if !believes => {
                continue;
            }
            Field::ForwardedFor => {
                if believes && is_text(value) {
                    forwarded_for.extend_from_slice(value);
                    forwarded_for.extend_from_slice(b", ");
                }
                continue;
            }
            Field::ForwardedHost => has_host = true,
            Field::ForwardedProto => has_proto = true,
            Field::Date | Field::Forwarded | Field::Other => {}
        }
        fields::write(out, name, value);
    }
    // HTTP/1.1 allows one line of cookies: several would have to be joined.
    (cookies < 2).then_some(())?;
    Some(Noted {
        host: host?,
        keeps_alive,
        forwarded_for,
        has_host,
        has_proto,
    })
}

impl Noted<'_> {
    fn write_forwarded(&self, sender: &Sender, out: &mut Vec<u8>) {
        out.extend_from_slice(b"x-forwarded-for: ");
        out.extend_from_slice(&self.forwarded_for);
        out.extend_from_slice(sender.address.as_bytes());
        out.extend_from_slice(b"\r\n");
        if !self.has_proto {
            fields::write(out, "x-forwarded-proto", sender.scheme.as_bytes());
        }
        if !self.has_host {
            fields::write(out, "x-forwarded-host", self.host);
        }
    }
}

/// Whether the connection stays. None if it is to become something else, or names fields that concern it alone.
fn keeps_connection(value: &[u8]) -> Option<bool> {
    let mut keeps = true;
    for token in tokens(value) {
        if token.eq_ignore_ascii_case(b"close") {
            keeps = false;
        } else if !token.eq_ignore_ascii_case(b"keep-alive") {
            return None;
        }
    }
    Some(keeps)
}

fn is_text(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(policy: Forwarded) -> Sender {
        Sender {
            address: "192.0.2.7".to_owned(),
            scheme: "http",
            policy,
        }
    }

    /// The head for the instance, if the request is plain.
    fn sent(policy: Forwarded, head: &str) -> Option<String> {
        let mut out = b"of the request before".to_vec();
        match read(head.as_bytes(), &sender(policy), &mut out) {
            Head::Plain(request) => {
                assert_eq!(request.length, head.len());
                Some(String::from_utf8(out).unwrap())
            }
            Head::Other => None,
            Head::Partial => panic!("{head:?} is whole"),
        }
    }

    #[test]
    fn an_address_is_written_as_it_is_displayed() {
        for octet in 0..=255 {
            for other in [0, 9, 10, 99, 100, 255] {
                let address = IpAddr::from([octet, other, octet, other]);
                assert_eq!(text_of(address), address.to_string());
            }
        }
        let address: IpAddr = "2001:db8::7".parse().unwrap();
        assert_eq!(text_of(address), "2001:db8::7");
    }

    #[test]
    fn a_plain_request_is_handed_on_as_it_came() {
        let head = "GET /a/b?c=d%20e&f HTTP/1.1\r\nHost: shop.example.com:8080\r\nUser-Agent: x  y\r\nConnection: Keep-Alive\r\nKeep-Alive: 5\r\n\
                    Proxy-Authorization: x\r\nX-Forwarded-For: 1.2.3.4\r\nx-forwarded-proto: https\r\nForwarded: for=1\r\nCookie: a=b; c=d\r\n\r\n";
        let expected = "GET /a/b?c=d%20e&f HTTP/1.1\r\nHost: shop.example.com:8080\r\nUser-Agent: x  y\r\nCookie: a=b; c=d\r\n\
                        x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: http\r\nx-forwarded-host: shop.example.com:8080\r\n\r\n";
        assert_eq!(sent(Forwarded::Replace, head).unwrap(), expected);
        let mut out = Vec::new();
        let Head::Plain(request) = read(head.as_bytes(), &sender(Forwarded::Replace), &mut out)
        else {
            panic!("it is plain");
        };
        assert_eq!(request.asked.host, Some("shop.example.com:8080"));
        assert_eq!(request.asked.path, "/a/b");
        assert!(request.keeps_alive && !request.is_head);
        for cut in 0..head.len() {
            let part = read(
                &head.as_bytes()[..cut],
                &sender(Forwarded::Replace),
                &mut out,
            );
            assert!(matches!(part, Head::Partial), "to {cut}");
        }
    }

    #[test]
    fn what_a_proxy_in_front_says_is_extended() {
        let head = "HEAD / HTTP/1.1\r\nhost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n\r\n";
        let expected = "HEAD / HTTP/1.1\r\nhost: a\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\nx-forwarded-for: 1.2.3.4, 5.6.7.8, 192.0.2.7\r\n\r\n";
        assert_eq!(sent(Forwarded::Append, head).unwrap(), expected);
    }

    #[test]
    fn whatever_is_more_than_plain_is_left_alone() {
        for head in [
            "POST / HTTP/1.1\r\nhost: a\r\n\r\n",
            "CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n",
            "get / HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.0\r\nhost: a\r\n\r\n",
            "GET http://a/ HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET /<x> HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET /#x HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nExpect: 100-continue\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nTE: trailers\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: x-secret\r\nx-secret: 1\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\ncookie: a\r\ncookie: b\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nno colon\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nspace : x\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n folded\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "\u{16}\u{3}\u{1}",
        ] {
            assert_eq!(sent(Forwarded::Replace, head), None, "{head:?}");
        }
        let many = "x: y\r\n".repeat(MAX_HEADERS);
        let head = format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n");
        assert_eq!(sent(Forwarded::Replace, &head), None);
    }

    #[test]
    fn a_client_may_ask_for_the_end_of_its_connection() {
        let mut out = Vec::new();
        let head = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Close\r\n\r\n";
        let Head::Plain(request) = read(head, &sender(Forwarded::Replace), &mut out) else {
            panic!("it is plain");
        };
        assert!(!request.keeps_alive);
    }

    /// The first request that hyper reads: its method, its target, and its fields in the order of their names.
    async fn as_hyper_reads(bytes: &[u8]) -> Option<(String, String, Vec<(String, Vec<u8>)>)> {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let (found, mut heads) = tokio::sync::mpsc::channel(1);
        let service =
            hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let fields = request.headers().iter();
                let mut fields: Vec<_> = fields
                    .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
                    .collect();
                fields.sort();
                let head = (
                    request.method().to_string(),
                    request.uri().to_string(),
                    fields,
                );
                let _ = found.try_send(head);
                async { Ok::<_, std::convert::Infallible>(http::Response::new(String::new())) }
            });
        let io = hyper_util::rt::TokioIo::new(server);
        let serving = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
        let asking = async {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut client, bytes).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut client).await;
            let _ = tokio::io::copy(&mut client, &mut tokio::io::sink()).await;
        };
        let _ = tokio::join!(serving, asking);
        heads.try_recv().ok()
    }

    #[test]
    fn no_request_is_read_otherwise_than_hyper_reads_it() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let seeds = [
            "GET /a?b=c HTTP/1.1\r\nhost: a\r\nuser-agent: x\r\naccept: */*\r\n\r\n",
            "HEAD / HTTP/1.1\r\nHost: shop.example.com:80\r\nConnection: keep-alive\r\nCookie: a=b\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 1.2.3.4\r\nforwarded: for=1\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc",
            "GET / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ];
        let words = [
            "\r\n",
            "\n",
            "\r",
            " ",
            "\t",
            ":",
            "\0",
            "host: b\r\n",
            "content-length: 3\r\n",
            "transfer-encoding: chunked\r\n",
            "connection: close\r\n",
            "upgrade: h2c\r\n",
            "expect: 100-continue\r\n",
            "HTTP/1.0",
            "GET ",
            "\u{e9}",
            "//",
            "#",
            "%00",
        ];
        fuzzing::fuzz_cases(3000, &seeds, &words, |bytes| {
            let mut out = Vec::new();
            let Head::Plain(request) = read(bytes, &sender(Forwarded::Append), &mut out) else {
                return;
            };
            let (theirs, sent) = runtime.block_on(async {
                (
                    as_hyper_reads(&bytes[..request.length]).await,
                    as_hyper_reads(&out).await,
                )
            });
            let (theirs, sent) = (theirs.expect("a request"), sent.expect("a request"));
            assert_eq!((&theirs.0, &theirs.1), (&sent.0, &sent.1));
            let own = [
                "connection",
                "keep-alive",
                "proxy-connection",
                "proxy-authenticate",
                "proxy-authorization",
                "x-forwarded-for",
                "x-forwarded-proto",
                "x-forwarded-host",
            ];
            let others = |fields: Vec<(String, Vec<u8>)>| -> Vec<_> {
                fields
                    .into_iter()
                    .filter(|(name, _)| !own.contains(&name.as_str()))
                    .collect()
            };
            let (theirs, sent) = (others(theirs.2), others(sent.2));
            assert_eq!(theirs, sent);
            let body = [
                "content-length",
                "transfer-encoding",
                "upgrade",
                "expect",
                "te",
            ];
            assert!(!sent.iter().any(|(name, _)| body.contains(&name.as_str())));
        });
    }
}
