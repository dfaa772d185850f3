//! One question to see whether somebody answers, and answers well.

use std::net::SocketAddr;
use std::time::Duration;

use engines::{Command, EngineError, Exit, Instance};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use management_api::types::{Probe, ProbeKind};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

/// How much of an answer is looked through for a text.
const BODY_LIMIT: usize = 64 * 1024;
/// How many characters of what a command has said are told.
const LINE_LIMIT: usize = 300;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Probed {
    /// What was asked for.
    Good,
    /// An answer with another status.
    Status(StatusCode),
    /// An answer that does not hold the text it should.
    Lacking,
    /// Nobody listens.
    Refused,
    /// Somebody listens and does not answer in time.
    TimedOut,
    /// Somebody listens and speaks something else, or hung up; or a command could not be run this time.
    Broken(String),
    /// A command ended with something else than 0.
    Failed {
        exit: Exit,
        /// The last line that it wrote.
        said: Option<String>,
    },
    /// A command that can never be run: the image does not have it.
    Impossible(String),
}

/// Asks an instance, in whichever way.
pub(super) async fn ask_instance(instance: &Instance, asked: &Probe, limit: Duration) -> Probed {
    match asked.kind {
        ProbeKind::Command => run(instance, asked, limit).await,
        ProbeKind::Process if instance.exited().is_some() => Probed::Refused,
        ProbeKind::Process => Probed::Good,
        ProbeKind::Http | ProbeKind::Tcp | ProbeKind::Image => {
            probe(instance.address(), asked, limit).await
        }
    }
}

/// What is left of a question to ask at a tenant's URL, behind which there may be any instance: a command has no place
/// there.
pub(super) fn at_url(asked: &Probe) -> Probe {
    match asked.kind {
        ProbeKind::Command => Probe {
            kind: ProbeKind::Tcp,
            ..Probe::default()
        },
        ProbeKind::Http | ProbeKind::Tcp | ProbeKind::Image | ProbeKind::Process => asked.clone(),
    }
}

async fn run(instance: &Instance, asked: &Probe, limit: Duration) -> Probed {
    let command = Command::new(asked.command.clone(), limit);
    let outcome = match instance.run(command).await {
        Ok(outcome) => outcome,
        Err(error @ (EngineError::ProgramNotFound { .. } | EngineError::ExecFormat { .. })) => {
            return Probed::Impossible(crate::chain(&error));
        }
        Err(error) => return Probed::Broken(crate::chain(&error)),
    };
    match outcome.exit {
        Some(Exit::Code(0)) => Probed::Good,
        Some(exit) => Probed::Failed {
            exit,
            said: last_line(&outcome.output),
        },
        None => Probed::TimedOut,
    }
}

/// The last line that is not empty, as much of it as fits into a message.
fn last_line(output: &str) -> Option<String> {
    let mut lines = output.lines().rev().map(str::trim);
    let line = lines.find(|line| !line.is_empty())?;
    Some(line.chars().take(LINE_LIMIT).collect())
}

/// Asks on a connection of its own.
pub(crate) async fn probe(address: SocketAddr, asked: &Probe, limit: Duration) -> Probed {
    probe_with(None, address, asked, limit).await
}

/// [`probe`] of what listens with TLS, where there is a connector for it.
pub(crate) async fn probe_with(
    tls: Option<TlsConnector>,
    address: SocketAddr,
    asked: &Probe,
    limit: Duration,
) -> Probed {
    if asked.kind == ProbeKind::Process {
        // Its end is noticed by whoever keeps it: there is nobody to ask.
        return Probed::Good;
    }
    let answer = async {
        let Ok(stream) = TcpStream::connect(address).await else {
            return Probed::Refused;
        };
        let Some(tls) = tls else {
            return ask(stream, address, asked).await;
        };
        match tls.connect(address.ip().into(), stream).await {
            Ok(stream) => ask(stream, address, asked).await,
            Err(error) => Probed::Broken(crate::chain(&error)),
        }
    };
    tokio::time::timeout(limit, answer)
        .await
        .unwrap_or(Probed::TimedOut)
}

async fn ask<S>(stream: S, address: SocketAddr, asked: &Probe) -> Probed
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match asked.kind {
        ProbeKind::Tcp | ProbeKind::Process => Probed::Good,
        ProbeKind::Command | ProbeKind::Image => {
            Probed::Broken("only an instance can be asked so".to_owned())
        }
        ProbeKind::Http => get(stream, address, asked)
            .await
            .unwrap_or_else(|error| Probed::Broken(crate::chain(&error))),
    }
}

async fn get<S>(stream: S, address: SocketAddr, asked: &Probe) -> Result<Probed, ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // The connection ends with this request, also when its time is over.
    let _connection = AbortOnDrop(tokio::spawn(connection).abort_handle());
    let request = Request::get(&asked.path)
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, "systemprompt-health-check")
        .header(header::CONNECTION, "close")
        .body(Empty::<bytes::Bytes>::new())?;
    let response = sender.send_request(request).await?;
    if response.status().as_u16() != asked.status {
        return Ok(Probed::Status(response.status()));
    }
    let holds = match &asked.body {
        Some(text) => holds(response.into_body(), text.as_bytes()).await?,
        None => true,
    };
    Ok(if holds { Probed::Good } else { Probed::Lacking })
}

async fn holds(mut body: Incoming, text: &[u8]) -> Result<bool, ProbeError> {
    let mut read = Vec::new();
    while read.len() < BODY_LIMIT
        && let Some(frame) = body.frame().await
    {
        if let Ok(data) = frame?.into_data() {
            read.extend_from_slice(&data);
        }
    }
    read.truncate(BODY_LIMIT);
    Ok(read.windows(text.len()).any(|window| window == text))
}

#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("the connection broke")]
    Connection(#[from] hyper::Error),
    #[error("the request cannot be made")]
    Request(#[from] http::Error),
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What it means that the answer was good, as the end of a sentence about the time that it took.
pub(super) fn succeeded(asked: &Probe) -> String {
    match asked.kind {
        ProbeKind::Http => format!("GET {} answered", asked.path),
        ProbeKind::Tcp => "its port took a connection".to_owned(),
        ProbeKind::Command | ProbeKind::Image => format!("{} ended well", named(asked)),
        ProbeKind::Process => "it runs".to_owned(),
    }
}

/// What an instance does no longer that did.
pub(super) fn no_longer(asked: &Probe) -> String {
    match asked.kind {
        ProbeKind::Http => format!("no longer answers GET {} as it should", asked.path),
        ProbeKind::Tcp => "no longer takes connections on its port".to_owned(),
        ProbeKind::Command | ProbeKind::Image => format!("no longer passes {}", named(asked)),
        ProbeKind::Process => "no longer runs".to_owned(),
    }
}

/// Only its first word: arguments may hold what is nobody's business.
fn named(asked: &Probe) -> String {
    format!(
        "the check `{}`",
        asked.command.first().map_or("", String::as_str)
    )
}

/// What is wrong with an answer that is not good, from an instance that listens on `port`.
pub(super) fn wrong(asked: &Probe, limit: Duration, port: u16, probed: &Probed) -> String {
    let path = &asked.path;
    let limit = limit.as_millis();
    match (probed, asked.kind) {
        (Probed::Status(actual), _) => {
            format!(
                "GET {path} answers {} instead of {}",
                actual.as_u16(),
                asked.status
            )
        }
        (Probed::Lacking, _) => format!(
            "the answer to GET {path} does not hold {:?}",
            asked.body.as_deref().unwrap_or_default()
        ),
        (Probed::Refused, _) => {
            format!("nothing listens on port {port} (PORT) of 127.0.0.1")
        }
        (Probed::TimedOut, ProbeKind::Http) => {
            format!("GET {path} is not answered within {limit} ms")
        }
        (Probed::TimedOut, ProbeKind::Tcp | ProbeKind::Process) => {
            format!("port {port} (PORT) takes no connection within {limit} ms")
        }
        (Probed::TimedOut, ProbeKind::Command | ProbeKind::Image) => {
            format!("{} does not end within {limit} ms", named(asked))
        }
        (Probed::Failed { exit, said }, _) => {
            let said = said.as_ref().map(|line| format!(" ({line})"));
            format!(
                "{} ends with {exit}{}",
                named(asked),
                said.unwrap_or_default()
            )
        }
        (Probed::Impossible(why), _) => format!("{} cannot be run: {why}", named(asked)),
        (Probed::Broken(why), ProbeKind::Command | ProbeKind::Image) => {
            format!("{} was not run: {why}", named(asked))
        }
        (Probed::Broken(why), _) => format!("GET {path} is not answered: {why}"),
        (Probed::Good, _) => "the answer is good".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    /// Answers one request with these bytes, in two parts.
    async fn answering(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            let (first, second) = answer.split_at(answer.len() / 2);
            for part in [first, second] {
                stream.write_all(part.as_bytes()).await.unwrap();
                stream.flush().await.unwrap();
            }
        });
        address
    }

    async fn asked(answer: &'static str, body: Option<&str>) -> Probed {
        let question = Probe {
            body: body.map(str::to_owned),
            ..Probe::default()
        };
        probe(answering(answer).await, &question, LIMIT).await
    }

    #[tokio::test]
    async fn status_and_text_decide() {
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{\"status\": \"up\"}";
        assert_eq!(asked(ok, None).await, Probed::Good);
        assert_eq!(asked(ok, Some("\"up\"")).await, Probed::Good);
        assert_eq!(asked(ok, Some("\"down\"")).await, Probed::Lacking);
        let empty = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(asked(empty, Some("up")).await, Probed::Lacking);
        let bad = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nup";
        assert_eq!(
            asked(bad, Some("up")).await,
            Probed::Status(StatusCode::SERVICE_UNAVAILABLE)
        );
        assert!(matches!(
            asked("SSH-2.0-x\r\n", None).await,
            Probed::Broken(_)
        ));
        let cut = "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhalf";
        assert!(matches!(asked(cut, Some("x")).await, Probed::Broken(_)));
    }

    #[tokio::test]
    async fn a_connection_is_enough_where_no_more_is_asked() {
        let question = Probe {
            kind: ProbeKind::Tcp,
            ..Probe::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(probe(address, &question, LIMIT).await, Probed::Good);
        drop(listener);
        assert_eq!(probe(address, &question, LIMIT).await, Probed::Refused);
    }

    #[tokio::test]
    async fn an_answer_without_end_is_looked_at_for_a_while_only() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = "HTTP/1.1 200 OK\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            // Ends when the other side hangs up.
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        });
        let question = Probe {
            body: Some("y".to_owned()),
            ..Probe::default()
        };
        assert_eq!(probe(address, &question, LIMIT).await, Probed::Lacking);
    }
}
