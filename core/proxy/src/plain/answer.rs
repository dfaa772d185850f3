//! The head of an instance's answer: how its body ends, and what the client is sent for it.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{Response, StatusCode};
use httparse::{Header, Status};

use super::chunks::{BadChunks, Chunks};
use super::fields::{self, Field, tokens};

/// The most header lines of an answer that are read without further ado.
const USUAL_HEADERS: usize = 128;

/// The instance has sent what is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadAnswer {
    #[error("the head of the answer is not valid")]
    Head,
    #[error("the head of the answer is too large")]
    TooLarge,
    #[error("it is not clear where the body of the answer ends")]
    Length,
    #[error("the connection ended within the head of the answer")]
    Cut,
    #[error(transparent)]
    Chunks(#[from] BadChunks),
}

/// How the body of an answer ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// So many bytes are to come.
    Length(u64),
    Chunked(Chunks),
    /// It ends with the connection to the instance.
    UntilClose,
}

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Of the head, in bytes.
    pub(super) length: usize,
    pub(super) status: StatusCode,
    pub(super) body: Body,
    /// Whether the connection to the instance can take another request afterwards.
    pub(super) is_reusable: bool,
}

impl Answer {
    /// Whether it only announces another one.
    pub(super) fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// What was asked, as far as the answer depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    pub(super) is_head: bool,
    /// Whether the client's connection stays.
    pub(super) keeps_alive: bool,
    pub(super) max_headers: usize,
}

/// Reads a head, and writes the one for the client to `out`, which is cleared before. None as long as it is not whole.
pub(super) fn read(
    bytes: &[u8],
    question: Question,
    out: &mut Vec<u8>,
) -> Result<Option<Answer>, BadAnswer> {
    let mut usual = [const { MaybeUninit::uninit() }; USUAL_HEADERS];
    let mut many;
    let headers = if let Some(headers) = usual.get_mut(..question.max_headers) {
        headers
    } else {
        many = vec![MaybeUninit::uninit(); question.max_headers];
        &mut many[..]
    };
    let mut response = httparse::Response::new(&mut []);
    let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        bytes,
        headers,
    );
    let length = match parsed {
        Ok(Status::Complete(length)) => length,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(BadAnswer::TooLarge),
        Err(_) => return Err(BadAnswer::Head),
    };
    let (Some(version), Some(code)) = (response.version, response.code) else {
        return Err(BadAnswer::Head);
    };
    let status = StatusCode::from_u16(code).map_err(|_| BadAnswer::Head)?;
    let is_http11 = version == 1;
    let noted = Noted::of(response.headers, is_http11)?;
    let (body, is_reusable) = noted.body(status, question.is_head, is_http11);
    out.clear();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(response.reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    noted.write_fields(response.headers, status, out);
    if body_is_chunked(&body) && !question.is_head {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    if !question.keeps_alive {
        out.extend_from_slice(b"connection: close\r\n");
    }
    if !noted.has_date {
        write_date(out);
    }
    out.extend_from_slice(b"\r\n");
    Ok(Some(Answer {
        length,
        status,
        body,
        is_reusable,
    }))
}

/// Writes an answer of the proxy's own to `out`, which is cleared before.
pub(super) fn write_own(response: &Response<String>, question: Question, out: &mut Vec<u8>) {
    out.clear();
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for (name, value) in response.headers() {
        fields::write(out, name.as_str(), value.as_bytes());
    }
    let length = response.body().len().to_string();
    fields::write(out, "content-length", length.as_bytes());
    if !question.keeps_alive {
        fields::write(out, "connection", b"close");
    }
    write_date(out);
    out.extend_from_slice(b"\r\n");
    if !question.is_head {
        out.extend_from_slice(response.body().as_bytes());
    }
}

/// The client is sent chunks where the length is not known before.
fn body_is_chunked(body: &Body) -> bool {
    matches!(body, Body::Chunked(_) | Body::UntilClose)
}

/// What the fields of an answer say to the proxy.
#[derive(Debug)]
struct Noted<'a> {
    length: Option<u64>,
    is_chunked: bool,
    /// Whether the connection stays, if it says so.
    stays: Option<bool>,
    has_date: bool,
    /// Further fields that concern only the connection.
    named: Vec<&'a [u8]>,
}

impl<'a> Noted<'a> {
    fn of(headers: &[Header<'a>], is_http11: bool) -> Result<Self, BadAnswer> {
        let mut noted = Self {
            length: None,
            is_chunked: false,
            stays: None,
            has_date: false,
            named: Vec::new(),
        };
        for Header { name, value } in headers {
            match Field::of(name) {
                Field::ContentLength => noted.note_length(value)?,
                // Another coding cannot be undone here, and one around the chunks hides their end.
                Field::TransferEncoding
                    if is_http11
                        && !noted.is_chunked
                        && value.trim_ascii().eq_ignore_ascii_case(b"chunked") =>
                {
                    noted.is_chunked = true;
                }
                Field::TransferEncoding => return Err(BadAnswer::Length),
                Field::Connection => noted.note_connection(value),
                Field::Date => noted.has_date = true,
                _ => {}
            }
        }
        Ok(noted)
    }

    fn note_length(&mut self, value: &[u8]) -> Result<(), BadAnswer> {
        let digits = value.trim_ascii();
        let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(digits).map_err(|_| BadAnswer::Length)?;
        let length = text.parse().map_err(|_| BadAnswer::Length)?;
        if !is_number || self.length.is_some_and(|other| other != length) {
            return Err(BadAnswer::Length);
        }
        self.length = Some(length);
        Ok(())
    }

    fn note_connection(&mut self, value: &'a [u8]) {
        for token in tokens(value) {
            if token.eq_ignore_ascii_case(b"close") {
                self.stays = Some(false);
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.stays.get_or_insert(true);
            } else {
                self.named.push(token);
            }
        }
    }

    /// How the body ends (RFC 9112 section 6.3), and whether the connection can be used again.
    fn body(&self, status: StatusCode, is_head: bool, is_http11: bool) -> (Body, bool) {
        let has_none = is_head
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let stays = self.stays.unwrap_or(is_http11);
        match (has_none, self.is_chunked, self.length) {
            (true, _, _) => (Body::Length(0), stays),
            // The chunks overrule the length; who sends both is not to be trusted with more.
            (false, true, length) => (Body::Chunked(Chunks::new()), stays && length.is_none()),
            (false, false, Some(length)) => (Body::Length(length), stays),
            (false, false, None) => (Body::UntilClose, false),
        }
    }

    fn write_fields(&self, headers: &[Header<'_>], status: StatusCode, out: &mut Vec<u8>) {
        // Of several that are the same one is handed on (RFC 9112 section 6.3).
        let mut wants_length = !self.is_chunked && status != StatusCode::NO_CONTENT;
        for Header { name, value } in headers {
            let is_for_the_client = match Field::of(name) {
                // `Upgrade` says what else is spoken here: to the instance, not to the proxy.
                Field::Connection | Field::TransferEncoding | Field::HopByHop | Field::Special => {
                    false
                }
                Field::ContentLength => std::mem::take(&mut wants_length),
                _ => !self
                    .named
                    .iter()
                    .any(|other| other.eq_ignore_ascii_case(name.as_bytes())),
            };
            if is_for_the_client {
                fields::write(out, name, value);
            }
        }
    }
}

thread_local! {
    /// The second that was last written, and how it is written.
    static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
}

/// An answer gets the time at which it came by (RFC 9110 section 6.6.1).
fn write_date(out: &mut Vec<u8>) {
    let now = SystemTime::now();
    let second = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|(written, text)| {
        if *written != second || text.is_empty() {
            (*written, *text) = (second, httpdate::fmt_http_date(now));
        }
        fields::write(out, "date", text.as_bytes());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const GET: Question = Question {
        is_head: false,
        keeps_alive: true,
        max_headers: 128,
    };
    const HEAD: Question = Question {
        is_head: true,
        ..GET
    };

    fn answer(head: &str, question: Question) -> Result<(Answer, String), BadAnswer> {
        let mut out = b"of the answer before".to_vec();
        let answer = read(head.as_bytes(), question, &mut out)?.expect("a whole head");
        assert_eq!(answer.length, head.len());
        Ok((answer, String::from_utf8(out).unwrap()))
    }

    #[test]
    fn an_answer_is_handed_on_as_it_came() {
        let head = "HTTP/1.1 418 I'm a  teapot\r\nDate: then\r\nSet-Cookie: a\r\nset-cookie: b\r\nContent-Length: 7\r\nKeep-Alive: 5\r\n\
                    Connection: keep-alive, X-Mine\r\nx-mine: 1\r\nUpgrade: h2c\r\nX-Empty:\r\n\r\n";
        let expected = "HTTP/1.1 418 I'm a  teapot\r\nDate: then\r\nSet-Cookie: a\r\nset-cookie: b\r\nContent-Length: 7\r\nX-Empty: \r\n\r\n";
        let (answer, out) = answer(head, GET).unwrap();
        assert_eq!(out, expected);
        assert_eq!(answer.body, Body::Length(7));
        assert!(answer.is_reusable);
        for cut in 0..head.len() {
            let part = read(&head.as_bytes()[..cut], GET, &mut Vec::new());
            assert_eq!(part, Ok(None), "to {cut}");
        }
    }

    #[test]
    fn a_body_ends_as_the_head_says() {
        let chunked = || Body::Chunked(Chunks::new());
        for (head, question, body, is_reusable) in [
            ("200 OK\r\ncontent-length: 3", GET, Body::Length(3), true),
            (
                "200 OK\r\ncontent-length: 3\r\ncontent-length: 3",
                GET,
                Body::Length(3),
                true,
            ),
            (
                "200 OK\r\ncontent-length: 3\r\nconnection: close",
                GET,
                Body::Length(3),
                false,
            ),
            (
                "200 OK\r\ncontent-length: 3\r\nconnection: close, keep-alive",
                GET,
                Body::Length(3),
                false,
            ),
            ("200 OK\r\nTransfer-Encoding: Chunked", GET, chunked(), true),
            (
                "200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked",
                GET,
                chunked(),
                false,
            ),
            ("200 OK\r\nx: y", GET, Body::UntilClose, false),
            ("200 OK\r\ncontent-length: 3", HEAD, Body::Length(0), true),
            (
                "200 OK\r\ntransfer-encoding: chunked",
                HEAD,
                Body::Length(0),
                true,
            ),
            ("204 No Content\r\nx: y", GET, Body::Length(0), true),
            (
                "304 Not Modified\r\ncontent-length: 3",
                GET,
                Body::Length(0),
                true,
            ),
        ] {
            let (answer, _) = answer(&format!("HTTP/1.1 {head}\r\n\r\n"), question).unwrap();
            assert_eq!(answer.body, body, "{head}");
            assert_eq!(answer.is_reusable, is_reusable, "{head}");
        }
        let (old, _) = answer("HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\n", GET).unwrap();
        assert!(!old.is_reusable);
        let kept = "HTTP/1.0 200 OK\r\ncontent-length: 3\r\nconnection: keep-alive\r\n\r\n";
        assert!(answer(kept, GET).unwrap().0.is_reusable);
    }

    #[test]
    fn the_client_is_told_how_its_copy_ends() {
        let out = |head: &str, question| answer(&format!("{head}\r\n\r\n"), question).unwrap().1;
        let chunked = "HTTP/1.1 200 OK\r\ndate: d\r\ntransfer-encoding: chunked\r\n\r\n";
        for head in [
            "HTTP/1.1 200 OK\r\ndate: d\r\ntransfer-encoding: chunked",
            "HTTP/1.1 200 OK\r\ndate: d\r\ncontent-length: 1\r\ntransfer-encoding: chunked",
            "HTTP/1.0 200 OK\r\ndate: d",
        ] {
            assert_eq!(out(head, GET), chunked, "{head}");
        }
        let length = "HTTP/1.1 200 OK\r\ndate: d\r\ncontent-length: 3\r\n\r\n";
        assert_eq!(
            out("HTTP/1.1 200 OK\r\ndate: d\r\ncontent-length: 3", HEAD),
            length
        );
        let bare = "HTTP/1.1 204 \r\ndate: d\r\n\r\n";
        assert_eq!(
            out("HTTP/1.1 204\r\ndate: d\r\ncontent-length: 0", GET),
            bare
        );
        let last = Question {
            keeps_alive: false,
            ..GET
        };
        let closing = out("HTTP/1.1 204 X\r\ndate: d", last);
        assert_eq!(
            closing,
            "HTTP/1.1 204 X\r\ndate: d\r\nconnection: close\r\n\r\n"
        );
        let dated = out("HTTP/1.1 204 X", GET);
        let date = dated.strip_prefix("HTTP/1.1 204 X\r\ndate: ").unwrap();
        httpdate::parse_http_date(date.trim_end()).unwrap();
    }

    #[test]
    fn an_answer_that_could_be_read_in_two_ways_is_refused() {
        for fields in [
            "content-length: 3\r\ncontent-length: 4",
            "content-length: +3",
            "content-length: -3",
            "content-length: 3, 3",
            "content-length:",
            "content-length: 0x3",
            "content-length: 18446744073709551616",
            "transfer-encoding: gzip",
            "transfer-encoding: gzip, chunked",
            "transfer-encoding: chunked, chunked",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        ] {
            let refused = answer(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n"), GET);
            assert_eq!(refused.err(), Some(BadAnswer::Length), "{fields}");
        }
        let old = answer("HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", GET);
        assert_eq!(old.err(), Some(BadAnswer::Length));
        for head in [
            "HTTP/2 200 OK\r\n\r\n",
            "HTTP/1.1 099 X\r\n\r\n",
            "HTTP/1.1 OK\r\n\r\n",
            "hello\r\n\r\n",
        ] {
            assert_eq!(answer(head, GET).err(), Some(BadAnswer::Head), "{head}");
        }
        let many = "x: y\r\n".repeat(200);
        let head = format!("HTTP/1.1 200 OK\r\n{many}\r\n");
        assert_eq!(answer(&head, GET).err(), Some(BadAnswer::TooLarge));
        let more = Question {
            max_headers: 200,
            ..GET
        };
        answer(&head, more).unwrap();
    }
}
