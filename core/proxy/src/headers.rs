//! Header rules of a gateway: RFC 9110 section 7.6 and the `X-Forwarded-*` convention.

use std::net::SocketAddr;

use http::header::{
    CONNECTION, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Version};

use crate::failure::Failure;
use crate::forward::Client;
use crate::settings::Forwarded;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Headers that concern one connection only, whether or not `Connection` names them.
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Removes what concerns only the connection that the message came over. `Trailer` stays: it
/// announces fields that are passed on at the end of the body.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for name in named_by_connection(headers) {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The protocol that the request asks to switch to. An upgrade to HTTP/2 is not one: it would
/// carry requests past the proxy.
pub(crate) fn requested_upgrade<B>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    if request.version() != Version::HTTP_11 || !has_token(headers, &CONNECTION, "upgrade") {
        return None;
    }
    let protocol = headers.get(UPGRADE)?;
    let is_http = has_token(headers, &UPGRADE, "h2c") || has_token(headers, &UPGRADE, "h2");
    (!is_http).then(|| protocol.clone())
}

/// Asks the next hop for an upgrade, or confirms one to the client.
pub(crate) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// The host that the client asked for. HTTP/2 and absolute request targets name it in the URI, and
/// there it overrules the header (RFC 9112 section 3.2.2).
pub(crate) fn requested_host<B>(request: &Request<B>) -> Result<Option<HeaderValue>, Failure> {
    if let Some(authority) = request.uri().authority() {
        if authority.as_str().contains('@') {
            return Err(Failure::BadRequest(
                "the request target carries a user name",
            ));
        }
        return HeaderValue::from_str(authority.as_str())
            .map(Some)
            .map_err(|_| Failure::BadRequest("the host in the request target is not valid"));
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => Ok(Some(host.clone())),
        (None, _) if request.version() < Version::HTTP_11 => Ok(None),
        (None, _) => Err(Failure::BadRequest("the request has no Host header")),
        (Some(_), Some(_)) => Err(Failure::BadRequest("the request has several Host headers")),
    }
}

/// Turns the headers of a client's request into those of the proxy's own request.
pub(crate) fn rewrite_request(
    headers: &mut HeaderMap,
    host: Option<&HeaderValue>,
    target: SocketAddr,
    client: &Client,
    policy: Forwarded,
) {
    let trailers = has_token(headers, &TE, "trailers");
    remove_hop_by_hop(headers);
    // The proxy answers 100 Continue itself, as soon as the instance reads the body.
    headers.remove(EXPECT);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    join_cookies(headers);
    set_forwarded(headers, host, client, policy);
    let host = host
        .cloned()
        .or_else(|| HeaderValue::from_str(&target.to_string()).ok());
    if let Some(host) = host {
        headers.insert(HOST, host);
    }
}

fn set_forwarded(
    headers: &mut HeaderMap,
    host: Option<&HeaderValue>,
    client: &Client,
    policy: Forwarded,
) {
    let proto = HeaderValue::from_static(client.scheme);
    // An IPv4 client of a dual-stack listener is shown as what it is.
    let client = client.address.ip().to_canonical().to_string();
    let known = match policy {
        Forwarded::Append => joined(headers, &X_FORWARDED_FOR),
        Forwarded::Replace => {
            for name in [&X_FORWARDED_HOST, &X_FORWARDED_PROTO, &FORWARDED] {
                headers.remove(name);
            }
            None
        }
    };
    let chain = known.map_or_else(|| client.clone(), |known| format!("{known}, {client}"));
    if let Ok(chain) = HeaderValue::from_str(&chain) {
        headers.insert(X_FORWARDED_FOR, chain);
    }
    headers.entry(X_FORWARDED_PROTO).or_insert(proto);
    if let Some(host) = host {
        headers
            .entry(X_FORWARDED_HOST)
            .or_insert_with(|| host.clone());
    }
}

/// HTTP/2 clients split cookies over several lines; HTTP/1.1 allows one (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(COOKIE).iter();
    let (Some(_), Some(_)) = (lines.next(), lines.next()) else {
        return;
    };
    let lines: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(cookie) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        headers.insert(COOKIE, cookie);
    }
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    tokens(headers, &CONNECTION)
        .filter_map(|token| token.parse().ok())
        .collect()
}

fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}
