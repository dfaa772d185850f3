//! One HTTP request to see whether somebody answers.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Probed {
    /// An answer, whatever its status.
    Answered(StatusCode),
    /// Nobody listens.
    Refused,
    /// Somebody listens and does not answer in time.
    TimedOut,
    /// Somebody listens and speaks something else, or hung up.
    Broken(String),
}

/// Sends `GET path` on a connection of its own and reads the head of the answer.
pub(crate) async fn probe(address: SocketAddr, path: &str, limit: Duration) -> Probed {
    probe_with(None, address, path, limit).await
}

/// [`probe`] of what listens with TLS, where there is a connector for it.
pub(crate) async fn probe_with(
    tls: Option<TlsConnector>,
    address: SocketAddr,
    path: &str,
    limit: Duration,
) -> Probed {
    let probing = async {
        let Ok(stream) = TcpStream::connect(address).await else {
            return Probed::Refused;
        };
        let Some(tls) = tls else {
            return request(stream, address, path).await;
        };
        match tls.connect(address.ip().into(), stream).await {
            Ok(stream) => request(stream, address, path).await,
            Err(error) => broken(&error),
        }
    };
    tokio::time::timeout(limit, probing)
        .await
        .unwrap_or(Probed::TimedOut)
}

fn broken(error: &dyn std::error::Error) -> Probed {
    Probed::Broken(crate::chain(error))
}

async fn request<S>(stream: S, address: SocketAddr, path: &str) -> Probed
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = match handshake {
        Ok(parts) => parts,
        Err(error) => return broken(&error),
    };
    // The connection ends with this request, also when its time is over.
    let _connection = AbortOnDrop(tokio::spawn(connection).abort_handle());
    let request = Request::get(path)
        .header(header::HOST, address.to_string())
        .header(header::USER_AGENT, "systemprompt-health-check")
        .header(header::CONNECTION, "close")
        .body(Empty::<bytes::Bytes>::new());
    let request = match request {
        Ok(request) => request,
        Err(error) => return broken(&error),
    };
    match sender.send_request(request).await {
        Ok(response) => Probed::Answered(response.status()),
        Err(error) => broken(&error),
    }
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
