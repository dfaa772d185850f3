//! Just enough HTTP/1.1 to be a server and a proxy in a test: heads, fixed and chunked bodies.
//!
//! Written by hand so that a fault can be placed between any two bytes, which a library's server
//! would smooth over.

use std::io::{self, BufRead, Read, Write};

/// No head of a real client comes near this.
const MAX_HEAD: u64 = 64 * 1024;
/// Test images are a few megabytes; more is a mistake in the test.
const MAX_BODY: u64 = 512 * 1024 * 1024;

/// Header fields in the order they arrived.
pub type Headers = Vec<(String, String)>;

/// A request, read to its end.
#[derive(Debug, Clone)]
pub struct Request {
    /// `GET`, `PUT`, …
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// Header fields in the order they arrived.
    pub headers: Headers,
    /// The whole body, unchunked.
    pub body: Vec<u8>,
}

impl Request {
    /// The path without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or("")
    }

    /// The first value of a header field, whatever its case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The token of `Authorization: Bearer`.
    #[must_use]
    pub fn bearer(&self) -> Option<&str> {
        self.header("authorization")?.strip_prefix("Bearer ")
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The body as `application/x-www-form-urlencoded` pairs.
    #[must_use]
    pub fn form(&self) -> Vec<(String, String)> {
        self.text()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (decode_form(name), decode_form(value)))
            .collect()
    }

    /// Whether the client keeps the connection open after the answer.
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        !self
            .header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// An answer, complete before its first byte is sent.
#[derive(Debug, Clone)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header fields without `Content-Length` and `Connection`, which are written from the body.
    pub headers: Headers,
    /// The body.
    pub body: Vec<u8>,
    /// The length that a `HEAD` announces, when it is not that of the body.
    pub announced: Option<usize>,
}

impl Response {
    /// An answer without a body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            announced: None,
        }
    }

    /// An answer with a body of a type.
    #[must_use]
    pub fn new(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            body: body.into(),
            ..Self::empty(status).with("Content-Type", content_type)
        }
    }

    /// A JSON answer.
    #[must_use]
    pub fn json(status: u16, value: &serde_json::Value) -> Self {
        Self::new(status, "application/json", value.to_string())
    }

    /// Adds a header field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// The head, up to and with the empty line.
    fn head(&self, keep_alive: bool) -> String {
        use std::fmt::Write as _;
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if self.status != 204 {
            let length = self.announced.unwrap_or(self.body.len());
            let _ = write!(head, "Content-Length: {length}\r\n");
        }
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let _ = write!(head, "Connection: {connection}\r\n\r\n");
        head
    }

    /// Writes the answer; `method` decides whether the body follows the head.
    pub fn write(&self, to: &mut impl Write, method: &str, keep_alive: bool) -> io::Result<()> {
        to.write_all(self.head(keep_alive).as_bytes())?;
        if method != "HEAD" {
            to.write_all(&self.body)?;
        }
        to.flush()
    }

    /// Writes the head, which promises the whole body, and the first half of that body.
    pub fn write_half(&self, to: &mut impl Write) -> io::Result<()> {
        to.write_all(self.head(true).as_bytes())?;
        to.write_all(&self.body[..self.body.len() / 2])?;
        to.flush()
    }
}

/// The first value of a header field, whatever its case.
#[must_use]
pub fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.as_str())
}

/// Reads the head of a request; `None` when the peer has closed the connection before it.
/// The body is still unread.
pub fn read_request_head(from: &mut impl BufRead) -> io::Result<Option<Request>> {
    let Some((line, headers)) = read_head(from)? else {
        return Ok(None);
    };
    let mut words = line.split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some(method), Some(target), Some(version)) if version.starts_with("HTTP/1.") => {
            Ok(Some(Request {
                method: method.to_owned(),
                target: target.to_owned(),
                headers,
                body: Vec::new(),
            }))
        }
        _ => Err(invalid(format!("not a request line: {line}"))),
    }
}

/// Reads the body that a request's head promises.
pub fn read_request_body(from: &mut impl BufRead, headers: &Headers) -> io::Result<Vec<u8>> {
    if is_chunked(headers) {
        return read_chunked(from);
    }
    read_exactly(from, content_length(headers)?.unwrap_or(0))
}

/// Reads a whole answer to a request of `method`.
pub fn read_response(from: &mut impl BufRead, method: &str) -> io::Result<Response> {
    loop {
        let (line, headers) = read_head(from)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "no answer"))?;
        let status = status_of(&line)?;
        // An interim answer (100 Continue) has no body and is not the answer.
        if (100..200).contains(&status) {
            continue;
        }
        let announced = content_length(&headers)?;
        let body = read_response_body(from, method, status, &headers, announced)?;
        return Ok(Response {
            status,
            headers: without_framing(headers),
            body,
            announced: announced.and_then(|length| usize::try_from(length).ok()),
        });
    }
}

/// Writes a request with its body, asking the peer to close the connection afterwards.
pub fn write_request(to: &mut impl Write, request: &Request) -> io::Result<()> {
    use std::fmt::Write as _;
    let mut head = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    for (name, value) in without_framing(request.headers.clone()) {
        if !name.eq_ignore_ascii_case("expect") {
            let _ = write!(head, "{name}: {value}\r\n");
        }
    }
    let _ = write!(head, "Content-Length: {}\r\n", request.body.len());
    head.push_str("Connection: close\r\n\r\n");
    to.write_all(head.as_bytes())?;
    to.write_all(&request.body)?;
    to.flush()
}

/// Half of what a head announces, for a reset in the middle of an upload.
pub(crate) fn read_half_of_body(from: &mut impl BufRead, headers: &Headers) -> io::Result<()> {
    let half = content_length(headers)?.unwrap_or(2) / 2;
    io::copy(&mut from.take(half), &mut io::sink()).map(|_| ())
}

fn read_response_body(
    from: &mut impl BufRead,
    method: &str,
    status: u16,
    headers: &Headers,
    announced: Option<u64>,
) -> io::Result<Vec<u8>> {
    if method == "HEAD" || status == 204 || status == 304 {
        return Ok(Vec::new());
    }
    if is_chunked(headers) {
        return read_chunked(from);
    }
    if let Some(length) = announced {
        return read_exactly(from, length);
    }
    let mut body = Vec::new();
    from.take(MAX_BODY).read_to_end(&mut body)?;
    Ok(body)
}

/// The first line and the header fields; `None` at the end of the stream.
fn read_head(from: &mut impl BufRead) -> io::Result<Option<(String, Headers)>> {
    let mut bounded = from.take(MAX_HEAD);
    let Some(first) = read_line(&mut bounded)? else {
        return Ok(None);
    };
    let mut headers = Headers::new();
    loop {
        let line = read_line(&mut bounded)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "head cut short"))?;
        if line.is_empty() {
            return Ok(Some((first, headers)));
        }
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| invalid(format!("not a header field: {line}")))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn read_line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    if from.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
}

fn read_exactly(from: &mut impl Read, length: u64) -> io::Result<Vec<u8>> {
    if length > MAX_BODY {
        return Err(invalid(format!("a body of {length} bytes in a test")));
    }
    let mut body = Vec::new();
    from.take(length).read_to_end(&mut body)?;
    if body.len() as u64 == length {
        Ok(body)
    } else {
        Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "body cut short",
        ))
    }
}

fn read_chunked(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(from)?
            .ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "chunk missing"))?;
        let digits = line.split(';').next().unwrap_or("").trim();
        let length = u64::from_str_radix(digits, 16)
            .map_err(|_| invalid(format!("not the length of a chunk: {line}")))?;
        body.extend(read_exactly(from, length)?);
        // Each chunk ends with a line end; after the last one trailers may stand before it.
        let mut rest = read_line(from)?;
        while length == 0 && rest.as_deref().is_some_and(|line| !line.is_empty()) {
            rest = read_line(from)?;
        }
        if length == 0 {
            return Ok(body);
        }
    }
}

fn content_length(headers: &Headers) -> io::Result<Option<u64>> {
    header(headers, "content-length")
        .map(|value| {
            value
                .parse()
                .map_err(|_| invalid(format!("not a length: {value}")))
        })
        .transpose()
}

fn is_chunked(headers: &Headers) -> bool {
    header(headers, "transfer-encoding").is_some_and(|value| value.contains("chunked"))
}

fn without_framing(mut headers: Headers) -> Headers {
    headers.retain(|(name, _)| {
        ![
            "content-length",
            "transfer-encoding",
            "connection",
            "keep-alive",
        ]
        .iter()
        .any(|framing| name.eq_ignore_ascii_case(framing))
    });
    headers
}

fn status_of(line: &str) -> io::Result<u16> {
    line.split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| invalid(format!("not a status line: {line}")))
}

fn decode_form(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                let decoded = std::str::from_utf8(&digits)
                    .ok()
                    .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                bytes.push(decoded.unwrap_or(b'%'));
                rest = if decoded.is_some() { after } else { tail };
            }
            _ => bytes.push(first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        409 => "Conflict",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_request_is_read_to_its_end_and_no_further() {
        let mut text: &[u8] =
            b"PUT /a?b=c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\nGET";
        let mut request = read_request_head(&mut text).unwrap().unwrap();
        request.body = read_request_body(&mut text, &request.headers).unwrap();
        assert_eq!((request.path(), request.text().as_str()), ("/a", "abcde"));
        assert_eq!(text, b"GET");
    }

    #[test]
    fn an_interim_answer_is_not_the_answer() {
        let mut text: &[u8] =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok";
        let response = read_response(&mut text, "PUT").unwrap();
        assert_eq!(
            (response.status, response.body.as_slice()),
            (201, b"ok".as_slice())
        );
    }

    #[test]
    fn a_body_cut_short_is_an_error() {
        let mut text: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf";
        let error = read_response(&mut text, "GET").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn form_fields_are_decoded() {
        let request = Request {
            method: "POST".into(),
            target: "/".into(),
            headers: Headers::new(),
            body: b"grant_type=urn%3Aietf+x&b=%zz".to_vec(),
        };
        let expected = [("grant_type", "urn:ietf x"), ("b", "%zz")];
        assert_eq!(
            request.form(),
            expected.map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
    }
}
