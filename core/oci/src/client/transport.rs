//! One request and its answer: connection, redirects, authorisation, tries.
//!
//! `Exchange` sends exactly one HTTP request; `Transport` adds what makes it dependable. Redirects
//! are followed here and not by the HTTP library, because whoever is not the registry must see
//! neither a token nor a password.

use std::io::Read as _;
use std::sync::OnceLock;
use std::time::{Instant, SystemTime};

use secrecy::ExposeSecret as _;
use serde::Deserialize;
use trust::Trust;
use ureq::http::{self, HeaderMap, HeaderValue, Method};
use ureq::tls::TlsConfig;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector as _, DefaultConnector};
use ureq::{Agent, Body, SendBody};
use url::Url;

use super::auth::{self, Authenticator, Authorization, Refused, Scope};
use super::body::{Payload, PayloadReader};
use super::connection::Hearing;
use super::counters::Meter;
use super::error::{Answer, CallSite, ClientError};
use super::options::{ClientOptions, PlainHttp};
use super::retry::{Patience, parse_retry_after};
use crate::reference::is_loopback_registry;

const REDIRECT_LIMIT: usize = 5;
/// Error documents are small; of a larger one the beginning suffices.
const ERROR_LIMIT: u64 = 64 * 1024;
/// As many characters of a foreign error text as a person wants to read.
const MESSAGE_LIMIT: usize = 300;
/// How often one request may find its token ended.
const RENEWALS: usize = 5;
/// Connections kept open: as many as a push uses at the same time, so that none is opened twice.
const IDLE_CONNECTIONS: usize = 8;
/// What is read ahead of an answer. Answers are small, but for the layers of bases, which are seldom fetched;
/// the library's 128 KiB a connection would be zeroed for nothing.
const INPUT_BUFFER: usize = 16 * 1024;
/// What is sent at a time. Zeroing the library's 128 KiB was a third of all that a push with nothing to do executes
/// in an unoptimised build.
const OUTPUT_BUFFER: usize = 32 * 1024;
/// From this size on, a refusal is worth waiting for before the body is sent.
const EXPECT_FROM: u64 = 64 * 1024;

pub(super) type Response = http::Response<Body>;

/// A request as an operation means it.
pub(super) struct Request<'a> {
    /// The operation, for errors.
    pub(super) call: &'static str,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) scopes: Vec<Scope>,
    pub(super) payload: Payload<'a>,
    /// Statuses that are answers and not failures, besides the 2xx.
    pub(super) answers: &'static [u16],
}

impl<'a> Request<'a> {
    pub(super) fn new(call: &'static str, method: Method, url: Url, scope: Scope) -> Self {
        Self {
            call,
            method,
            url,
            headers: Vec::new(),
            scopes: vec![scope],
            payload: Payload::None,
            answers: &[],
        }
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn payload(mut self, payload: Payload<'a>) -> Self {
        self.payload = payload;
        self
    }

    pub(super) fn answers(mut self, answers: &'static [u16]) -> Self {
        self.answers = answers;
        self
    }

    pub(super) fn site(&self) -> CallSite {
        CallSite::new(self.call, &self.method, &self.url)
    }

    /// Where an upload goes on. It may be on another host, which then gets no credentials.
    pub(super) fn location(&self, response: &Response) -> Result<Url, ClientError> {
        match header(response, "location") {
            Some(location) => self.resolve(location),
            None => Err(ClientError::Protocol {
                site: Box::new(self.site()),
                detail: "the registry does not say where to upload to".to_owned(),
            }),
        }
    }

    /// The absolute address that a `Location` or `Link` of the answer means.
    pub(super) fn resolve(&self, text: &str) -> Result<Url, ClientError> {
        self.url.join(text).map_err(|_| ClientError::Protocol {
            site: Box::new(self.site()),
            detail: "an address in the answer makes no sense".to_owned(),
        })
    }
}

impl CallSite {
    /// The query stays out: upload addresses carry their session in it.
    pub(super) fn new(call: &'static str, method: &Method, url: &Url) -> Self {
        let host = url.host_str().unwrap_or_default();
        let port = url
            .port()
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        let target = format!("{method} {}://{host}{port}{}", url.scheme(), url.path());
        Self { call, target }
    }
}

/// Sends single requests.
#[derive(Debug)]
pub(super) struct Exchange {
    plain: Agent,
    /// With TLS, from its first use on: reading a bundle of root certificates takes longer than all
    /// the rest of a push that has nothing to send.
    secure: OnceLock<Agent>,
    proxied: bool,
    options: ClientOptions,
    pub(super) meter: Meter,
}

impl Exchange {
    fn new(registry: &str, options: ClientOptions) -> Self {
        // A proxy from the environment would look for the registry on its own machine.
        let proxied = !is_loopback_registry(registry);
        Self {
            plain: agent(TlsConfig::default(), proxied, &options),
            secure: OnceLock::new(),
            proxied,
            options,
            meter: Meter::default(),
        }
    }

    /// What sends to this address.
    fn agent(&self, url: &Url) -> Result<&Agent, ClientError> {
        if url.scheme() == "http" {
            return Ok(&self.plain);
        }
        if let Some(agent) = self.secure.get() {
            return Ok(agent);
        }
        let trust = Trust {
            instead: self.options.root_certificates.clone(),
            also: self.options.further_certificates.clone(),
        };
        let tls = TlsConfig::builder().root_certs(trust.roots()?);
        let agent = agent(tls.build(), self.proxied, &self.options);
        Ok(self.secure.get_or_init(|| agent))
    }

    pub(super) fn check_scheme(&self, site: &CallSite, url: &Url) -> Result<(), ClientError> {
        let allowed = match url.scheme() {
            "https" => true,
            "http" => self.options.plain_http.allows(&registry_of(url)),
            _ => false,
        };
        if allowed {
            Ok(())
        } else {
            Err(ClientError::Insecure {
                site: Box::new(site.clone()),
            })
        }
    }

    /// Gets a token document, at most `limit` bytes of it.
    pub(super) fn get_token(
        &self,
        site: &CallSite,
        url: &Url,
        authorization: Option<&Authorization>,
        limit: u64,
    ) -> Result<Vec<u8>, ClientError> {
        self.meter.token_request();
        let request = request_head(site, &Method::GET, url, &[], authorization)?;
        let sent = self.agent(url)?.run(with_body(request, SendBody::none()));
        let mut response =
            sent.map_err(|error| ClientError::from_transport(site.clone(), error))?;
        if !response.status().is_success() {
            return Err(failure(site.clone(), &mut response));
        }
        read_limited(site, response.body_mut(), limit)
    }

    fn send(
        &self,
        request: &Request<'_>,
        url: &Url,
        authorization: Option<&Authorization>,
    ) -> Result<Response, ClientError> {
        let site = CallSite::new(request.call, &request.method, url);
        self.check_scheme(&site, url)?;
        let mut head = request_head(&site, &request.method, url, &request.headers, authorization)?;
        if let Some(length) = request.payload.length() {
            head.headers_mut()
                .insert("content-length", HeaderValue::from(length));
            if length >= EXPECT_FROM {
                head.headers_mut()
                    .insert("expect", HeaderValue::from_static("100-continue"));
            }
        }
        if self.options.is_interrupted() {
            return Err(ClientError::Interrupted);
        }
        let agent = self.agent(url)?;
        self.meter.request();
        let payload = &request.payload;
        let Some(mut reader) = PayloadReader::open(payload, &self.meter, &self.options)? else {
            let sent = agent.run(with_body(head, SendBody::none()));
            return sent.map_err(|error| ClientError::from_transport(site, error));
        };
        let sent = agent.run(with_body(head, SendBody::from_reader(&mut reader)));
        // A source that fails looks like a broken connection to the library.
        reader.check()?;
        sent.map_err(|error| ClientError::from_transport(site, error))
    }
}

/// Sends requests dependably.
#[derive(Debug)]
pub(super) struct Transport {
    exchange: Exchange,
    authenticator: Authenticator,
    base: Url,
}

impl Transport {
    pub(super) fn new(registry: &str, options: ClientOptions) -> Result<Self, ClientError> {
        let base = base_url(registry, &options.plain_http)?;
        let authenticator = Authenticator::new(options.credentials.clone());
        let exchange = Exchange::new(registry, options);
        if base.scheme() == "https" {
            // Unusable certificates are found before anything is sent.
            exchange.agent(&base)?;
        }
        Ok(Self {
            exchange,
            authenticator,
            base,
        })
    }

    /// The address of a path under `/v2/`.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{path}"));
        url
    }

    pub(super) fn meter(&self) -> &Meter {
        &self.exchange.meter
    }

    /// Sends, and tries again while that may help. Only for what may happen twice.
    pub(super) fn send(&self, request: &Request<'_>) -> Result<Response, ClientError> {
        let mut patience = Patience::new(self.options());
        loop {
            match self.send_once(request) {
                Ok(response) => return Ok(response),
                Err(error) => patience.wait_after(error)?,
            }
        }
    }

    /// Sends without a second try, but with redirects and a renewed token.
    pub(super) fn send_once(&self, request: &Request<'_>) -> Result<Response, ClientError> {
        let mut url = request.url.clone();
        let mut at_home = self.is_home(&url);
        for _ in 0..=REDIRECT_LIMIT {
            let mut response = if at_home {
                self.send_authorized(request, &url)?
            } else {
                self.exchange.send(request, &url, None)?
            };
            let Some(next) = redirect_target(request, &url, &response) else {
                return self.judge(request, &url, &mut response).map(|()| response);
            };
            drain(&mut response);
            // Once away, never home again: a foreign server must not direct our token.
            at_home = at_home && self.is_home(&next);
            url = next;
        }
        let site = Box::new(request.site());
        Err(ClientError::Protocol {
            site,
            detail: format!("more than {REDIRECT_LIMIT} redirects"),
        })
    }

    fn is_home(&self, url: &Url) -> bool {
        url.origin() == self.base.origin()
    }

    pub(super) fn options(&self) -> &ClientOptions {
        &self.exchange.options
    }

    /// With what the registry asks for. A token that has ended in between is renewed, and the body
    /// is read again from its source.
    fn send_authorized(&self, request: &Request<'_>, url: &Url) -> Result<Response, ClientError> {
        let (exchange, scopes) = (&self.exchange, &request.scopes);
        let mut authorization = self.authenticator.authorization(exchange, scopes)?;
        let mut before = 0;
        loop {
            let sent_at = Instant::now();
            let mut response = exchange.send(request, url, authorization.as_ref())?;
            if response.status() != 401 {
                if let Some(authorization) = &authorization {
                    authorization.accepted();
                }
                return Ok(response);
            }
            let refused = Refused {
                authorization: authorization.as_ref(),
                sent_at,
                before,
            };
            let challenges = auth::challenges(response.headers());
            let next = self
                .authenticator
                .after_refusal(exchange, scopes, &challenges, &refused)?;
            if next.is_none() || before == RENEWALS {
                return Ok(response);
            }
            drain(&mut response);
            authorization = next;
            before += 1;
        }
    }

    fn judge(
        &self,
        request: &Request<'_>,
        url: &Url,
        response: &mut Response,
    ) -> Result<(), ClientError> {
        let status = response.status();
        if status.is_success() || request.answers.contains(&status.as_u16()) {
            return Ok(());
        }
        let site = CallSite::new(request.call, &request.method, url);
        Err(self.authenticator.redact(failure(site, response)))
    }
}

/// Reads a body whole, at most `limit` bytes of it.
pub(super) fn read_limited(
    site: &CallSite,
    body: &mut Body,
    limit: u64,
) -> Result<Vec<u8>, ClientError> {
    let mut bytes = Vec::new();
    let read = body.as_reader().take(limit + 1).read_to_end(&mut bytes);
    read.map_err(|cause| ClientError::from_io(Box::new(site.clone()), cause))?;
    if bytes.len() as u64 > limit {
        let detail = format!("more than {limit} bytes");
        return Err(ClientError::Protocol {
            site: Box::new(site.clone()),
            detail,
        });
    }
    Ok(bytes)
}

/// A header of an answer as text.
pub(super) fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response
        .headers()
        .get(name)
        .and_then(|value| value.to_str().ok())
}

fn agent(tls: TlsConfig, proxied: bool, options: &ClientOptions) -> Agent {
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .user_agent(options.user_agent.as_str())
        .tls_config(tls)
        .input_buffer_size(INPUT_BUFFER)
        .output_buffer_size(OUTPUT_BUFFER)
        .max_idle_connections(2 * IDLE_CONNECTIONS)
        .max_idle_connections_per_host(IDLE_CONNECTIONS)
        .timeout_resolve(Some(options.timeouts.connect))
        .timeout_connect(Some(options.timeouts.connect))
        .timeout_send_request(Some(options.timeouts.idle))
        .timeout_recv_response(Some(options.timeouts.idle))
        .timeout_per_read(Some(options.timeouts.idle))
        .timeout_per_write(Some(options.timeouts.idle));
    if !proxied {
        config = config.proxy(None);
    }
    let connector = DefaultConnector::new().chain(Hearing);
    let resolver = DefaultResolver::default();
    Agent::with_parts(config.build(), connector, resolver)
}

fn base_url(registry: &str, plain_http: &PlainHttp) -> Result<Url, ClientError> {
    let scheme = if plain_http.allows(registry) {
        "http"
    } else {
        "https"
    };
    // Docker Hub's images are named after a host that is not its registry.
    let host = if registry == "docker.io" {
        "registry-1.docker.io"
    } else {
        registry
    };
    let unusable = || ClientError::Registry {
        registry: registry.to_owned(),
    };
    let url = Url::parse(&format!("{scheme}://{host}/")).map_err(|_| unusable())?;
    let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let anonymous = url.username().is_empty() && url.password().is_none();
    if plain && anonymous && url.has_host() {
        Ok(url)
    } else {
        Err(unusable())
    }
}

fn registry_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn request_head(
    site: &CallSite,
    method: &Method,
    url: &Url,
    headers: &[(&'static str, String)],
    authorization: Option<&Authorization>,
) -> Result<http::Request<()>, ClientError> {
    let mut builder = http::Request::builder()
        .method(method.clone())
        .uri(url.as_str());
    for (name, value) in headers {
        builder = builder.header(*name, value);
    }
    if let Some(authorization) = authorization {
        let mut value = HeaderValue::from_str(authorization.header().expose_secret())
            .map_err(|_| unsendable(site))?;
        value.set_sensitive(true);
        builder = builder.header("authorization", value);
    }
    builder.body(()).map_err(|_| unsendable(site))
}

/// Says nothing of the value: it may be a credential with a line break in it.
fn unsendable(site: &CallSite) -> ClientError {
    let detail = "a header holds characters that cannot be sent".to_owned();
    ClientError::Protocol {
        site: Box::new(site.clone()),
        detail,
    }
}

fn with_body<B>(head: http::Request<()>, body: B) -> http::Request<B> {
    head.map(|()| body)
}

/// Only reading is redirected: a body went to the address that was meant.
fn redirect_target(request: &Request<'_>, at: &Url, response: &Response) -> Option<Url> {
    let followed = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    let reading = matches!(request.method, Method::GET | Method::HEAD);
    if !(followed && reading) {
        return None;
    }
    at.join(header(response, "location")?).ok()
}

/// Reads what nobody wants to know: a connection with an unread answer cannot be used again.
fn drain(response: &mut Response) {
    let mut rest = response.body_mut().as_reader().take(ERROR_LIMIT);
    // One that breaks off here is merely not used again.
    let _ = std::io::copy(&mut rest, &mut std::io::sink());
}

fn failure(site: CallSite, response: &mut Response) -> ClientError {
    let retry_after = retry_after(response.headers());
    let status = response.status().as_u16();
    let mut body = Vec::new();
    // An error document that breaks off still says what it said.
    let _ = response
        .body_mut()
        .as_reader()
        .take(ERROR_LIMIT)
        .read_to_end(&mut body);
    ClientError::from_answer(site, read_answer(status, &body), retry_after)
}

fn retry_after(headers: &HeaderMap) -> Option<std::time::Duration> {
    let value = headers.get("retry-after")?.to_str().ok()?;
    parse_retry_after(value, SystemTime::now())
}

#[derive(Deserialize)]
struct ErrorDocument {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

fn read_answer(status: u16, body: &[u8]) -> Answer {
    let document = serde_json::from_slice::<ErrorDocument>(body).ok();
    match document.and_then(|document| document.errors.into_iter().next()) {
        Some(first) => Answer {
            status,
            code: Some(printable(&first.code)).filter(|code| !code.is_empty()),
            message: printable(&first.message),
        },
        None => Answer {
            status,
            code: None,
            message: printable(&String::from_utf8_lossy(body)),
        },
    }
}

/// One line without control characters: it ends up in a terminal.
fn printable(text: &str) -> String {
    let shown = text
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c });
    shown.take(MESSAGE_LIMIT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_become_addresses() {
        let policy = PlainHttp::default();
        let base = |registry| base_url(registry, &policy).map(|url| url.to_string()).ok();
        assert_eq!(base("docker.io").unwrap(), "https://registry-1.docker.io/");
        assert_eq!(base("localhost:5000").unwrap(), "http://localhost:5000/");
        assert_eq!(base("[::1]:5000").unwrap(), "http://[::1]:5000/");
        assert_eq!(
            base("r.example.com:8443").unwrap(),
            "https://r.example.com:8443/"
        );
        for registry in ["", "a/b", "user:pw@host", "host?x", "host#x", "ho st"] {
            assert_eq!(base(registry), None, "{registry}");
        }
    }

    /// Reading them costs more than the rest of a push that has nothing to send.
    #[test]
    fn certificates_are_read_only_where_tls_is_spoken() {
        let options = ClientOptions {
            root_certificates: Some("/dev/null".into()),
            ..ClientOptions::default()
        };
        assert!(Transport::new("localhost:5000", options.clone()).is_ok());
        let unusable = Transport::new("r.example.com", options);
        assert!(matches!(
            unusable,
            Err(ClientError::RootCertificates { .. })
        ));
    }

    #[test]
    fn call_sites_show_no_query() {
        let url = Url::parse("https://r.io:1/v2/a/blobs/uploads/1?_state=secret").unwrap();
        let site = CallSite::new("upload", &Method::PUT, &url);
        assert_eq!(site.target, "PUT https://r.io:1/v2/a/blobs/uploads/1");
    }

    #[test]
    fn error_documents_and_other_texts_read() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no\u001b[31m","detail":{}}]}"#;
        let answer = read_answer(403, body);
        assert_eq!(answer.to_string(), "status 403 DENIED: no [31m");
        assert_eq!(
            read_answer(502, b"<html>bad</html>").to_string(),
            "status 502: <html>bad</html>"
        );
        assert_eq!(read_answer(500, b"").to_string(), "status 500");
    }
}
