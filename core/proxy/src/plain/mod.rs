//! Plain requests: `GET` and `HEAD` over HTTP/1.1, without a body, an upgrade or anything else that changes how the messages
//! are read. They are most of all requests, and nothing of them has to be understood but the heads: these are read by
//! httparse, written once more with the fields that a gateway changes, and all else goes through as it came.
//!
//! Everything else is hyper's: the connection is handed over with the first request that is not plain, or that has to wait for
//! an instance, before anything of it was used, and stays there. What a request is for, its second attempt and its counts are the same on both ways.

mod answer;
mod buffer;
mod buffers;
mod chunks;
mod exchange;
mod fields;
mod guard;
mod line;
mod prefixed;
mod request;

use std::ffi::c_int;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use http::StatusCode;
use nix::libc;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use self::answer::Question;
use self::buffers::Buffers;
use self::guard::{Guard, Interrupt, Until};
use self::request::{Head, Sender};
use crate::failure::Failure;
use crate::forward::{Client, Forwarder};
use crate::listener::Phase;
use crate::route::Flight;
use crate::shared::Shared;
use crate::table::Choice;

pub(crate) use self::line::PlainLine;
pub(crate) use self::prefixed::Prefixed;

/// How long the first request of a connection is waited for that has come when the proxy ends.
const FIRST: Duration = Duration::from_secs(1);

/// The connection is of no more use: the client or the proxy has ended it, or the rest of an answer cannot come.
#[derive(Debug)]
struct Ended;

impl From<Interrupt> for Ended {
    fn from(_: Interrupt) -> Self {
        Self
    }
}

impl From<std::io::Error> for Ended {
    fn from(_: std::io::Error) -> Self {
        Self
    }
}

/// What comes of waiting for a request.
enum Next {
    Plain(Exchange),
    /// A request, or the begin of one, that hyper is to read.
    Other,
    /// The client or the proxy has had enough.
    End,
}

/// A request that has been read, with whom it is for.
struct Exchange {
    flight: Result<Flight, Failure>,
    question: Question,
    began: Instant,
}

/// A client's connection.
pub(crate) struct Connection<S> {
    stream: S,
    buffers: Buffers,
    guard: Guard,
    forwarder: Arc<Forwarder>,
    client: Client,
    sender: Sender,
    /// Whether no request has come over it yet.
    is_new: bool,
}

/// What a client's connection is made of.
pub(crate) trait ClientStream: AsyncRead + AsyncWrite + Unpin {
    /// What is handed over of it.
    type Rest: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// What is handed over, and by what its end is noticed, where there is something.
    fn share(self) -> (Self::Rest, Option<Shared>);

    /// Sends of the last bytes, all of which the end of the connection follows at once; returns how many were taken.
    fn poll_send_last(
        &mut self,
        bytes: &[u8],
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        Pin::new(self).poll_write(context, bytes)
    }
}

impl ClientStream for TcpStream {
    type Rest = Shared;

    fn share(self) -> (Self::Rest, Option<Shared>) {
        let line = Shared::new(self);
        (line.clone(), Some(line))
    }

    /// The kernel keeps them until it is told of the end, and sends both in one segment: for the client that is one thing
    /// to wake up for instead of two.
    fn poll_send_last(
        &mut self,
        bytes: &[u8],
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        const LAST: c_int = libc::MSG_MORE | libc::MSG_NOSIGNAL;
        loop {
            ready!(self.poll_write_ready(context))?;
            let send = || SockRef::from(&*self).send_with_flags(bytes, LAST);
            match self.try_io(Interest::WRITABLE, send) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

impl ClientStream for TlsStream<Shared> {
    type Rest = Self;

    fn share(self) -> (Self::Rest, Option<Shared>) {
        let line = self.get_ref().0.clone();
        (self, Some(line))
    }
}

/// What has been served of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// All of it: it is over.
    All,
    /// What was plain. The rest, of which some may have been read, is hyper's.
    Plain,
}

impl<S: ClientStream> Connection<S> {
    pub(crate) fn new(stream: S, client: Client, forwarder: Arc<Forwarder>) -> Self {
        let sender = Sender {
            // An IPv4 client of a dual-stack listener is shown as what it is.
            address: request::text_of(client.address.ip().to_canonical()),
            scheme: client.scheme,
            policy: forwarder.settings.forwarded,
        };
        Self {
            stream,
            buffers: Buffers::take(),
            guard: Guard::new(&client.stop),
            forwarder,
            client,
            sender,
            is_new: true,
        }
    }

    /// Answers plain requests until there is one that is not.
    pub(crate) async fn serve(&mut self) -> Served {
        loop {
            match self.next().await {
                Next::Plain(exchange) => match self.answer(exchange).await {
                    Ok(true) => {}
                    Ok(false) => {
                        self.end().await;
                        return Served::All;
                    }
                    Err(Ended) => return Served::All,
                },
                Next::Other => return Served::Plain,
                Next::End => return Served::All,
            }
        }
    }

    /// The connection with what has been read of it, and its client, whose end is noticed from now on.
    pub(crate) fn hand_over(mut self) -> (Prefixed<S::Rest>, Client, Arc<Forwarder>) {
        let (stream, line) = self.stream.share();
        let client = Client {
            line,
            ..self.client
        };
        let stream = Prefixed::new(self.buffers.take_read(), stream);
        (stream, client, self.forwarder)
    }

    /// The next request. One that comes byte by byte has as long as one that does not come.
    async fn next(&mut self) -> Next {
        let settings = &self.forwarder.settings;
        let limit = settings.header_read_timeout;
        let most = settings.max_header_bytes.max(8192) as usize;
        let started = Instant::now();
        // Whether what has been read may be a whole head.
        let mut is_worth_a_look = !self.buffers.read.is_empty();
        if self.buffers.read.is_empty() {
            self.buffers.rest();
        }
        loop {
            if is_worth_a_look && let Some(next) = self.look() {
                return next;
            }
            if self.buffers.read.is_full() {
                if self.buffers.read.capacity() >= most {
                    return Next::Other;
                }
                self.buffers
                    .read
                    .grow((2 * self.buffers.read.capacity()).min(most));
            }
            let until = Until {
                limit: Some(limit.saturating_sub(started.elapsed())),
                // Between two requests the connection is closed at once; one that has begun is read.
                phase: if self.buffers.read.is_empty() {
                    Phase::Finishing
                } else {
                    Phase::Closed
                },
            };
            let (read, stream) = (&mut self.buffers.read, &mut self.stream);
            let mut fill = |context: &mut Context<'_>| read.poll_fill(stream, context);
            let mut filled = self.guard.wait(until, &mut fill).await;
            let is_stopped = matches!(filled, Err(Interrupt::Stop));
            if self.is_new && until.phase == Phase::Finishing && is_stopped {
                // Whoever has connected in this moment is about to ask.
                filled = self.guard.wait(Until::within(FIRST), &mut fill).await;
            }
            let Ok(Ok(count @ 1..)) = filled else {
                return Next::End;
            };
            let filled = self.buffers.read.filled();
            is_worth_a_look =
                filled[filled.len() - count..].contains(&b'\n') || count == filled.len();
        }
    }

    /// What has been read, if that can be told yet.
    fn look(&mut self) -> Option<Next> {
        let request = match request::read(
            self.buffers.read.filled(),
            &self.sender,
            &mut self.buffers.head,
        ) {
            Head::Plain(request) => request,
            Head::Partial => return None,
            Head::Other => return Some(Next::Other),
        };
        let began = Instant::now();
        let flight = match self.forwarder.table.choose(began, request.asked) {
            Ok(Choice::Instance(flight)) => Ok(flight),
            // Waiting, and a client that goes away meanwhile, is hyper's.
            Ok(Choice::Awaited) => return Some(Next::Other),
            Err(failure) => Err(failure),
        };
        self.forwarder.counters.requested();
        self.is_new = false;
        let question = Question {
            is_head: request.is_head,
            keeps_alive: request.keeps_alive,
            max_headers: self.forwarder.settings.max_headers,
        };
        let length = request.length;
        self.buffers.read.consume(length);
        Some(Next::Plain(Exchange {
            flight,
            question,
            began,
        }))
    }

    /// Answers a request; whether another one may follow.
    async fn answer(&mut self, exchange: Exchange) -> Result<bool, Ended> {
        let Exchange {
            flight,
            mut question,
            began,
        } = exchange;
        let outcome = match flight {
            Ok(flight) => self.ask(flight, &mut question).await?,
            Err(failure) => Err(failure),
        };
        match outcome {
            Ok(asked) => {
                self.count(asked.answer.status, began);
                self.hand_on(asked, question.keeps_alive).await?;
            }
            Err(failure) => {
                question.keeps_alive &= self.guard.phase() == Phase::Running;
                let status = self.write_failure(&failure, question);
                self.count(status, began);
                self.flush(!question.keeps_alive).await?;
            }
        }
        Ok(question.keeps_alive)
    }

    fn count(&self, status: StatusCode, began: Instant) {
        self.forwarder.counters.answered(status, began.elapsed());
    }

    /// The proxy's own answer.
    fn write_failure(&mut self, failure: &Failure, question: Question) -> StatusCode {
        let response = self.forwarder.answer_failure(&self.client, failure);
        answer::write_own(&response, question, &mut self.buffers.out);
        response.status()
    }

    /// The client sees the end after the answer; what it still sends is nobody's. With TLS the end is one more message, which
    /// a client may not take.
    async fn end(&mut self) {
        let until = Until::within(self.forwarder.settings.take_timeout);
        let stream = &mut self.stream;
        let shutdown = |context: &mut Context<'_>| Pin::new(&mut *stream).poll_shutdown(context);
        let _ = self.guard.wait(until, shutdown).await;
    }

    /// Sends the client what has been written; `is_last` when the connection ends after it. Each part that it takes is
    /// progress, over a slow line too.
    async fn flush(&mut self, is_last: bool) -> Result<(), Ended> {
        let (out, stream) = (&self.buffers.out, &mut self.stream);
        let limit = self.forwarder.settings.take_timeout;
        let mut sent = 0;
        while sent < out.len() {
            let rest = &out[sent..];
            let send = |context: &mut Context<'_>| {
                if is_last {
                    stream.poll_send_last(rest, context)
                } else {
                    Pin::new(&mut *stream).poll_write(context, rest)
                }
            };
            match self.guard.wait(Until::within(limit), send).await?? {
                0 => return Err(Ended),
                count => sent += count,
            }
        }
        let (stream, flush) = (&mut self.stream, Until::within(limit));
        self.guard
            .wait(flush, |context| Pin::new(&mut *stream).poll_flush(context))
            .await??;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::SocketAddr;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadBuf};
    use tokio::sync::watch;

    use super::*;
    use crate::listener::Stop;
    use crate::route::Target;
    use crate::settings::Settings;
    use crate::split::{Group, Share};
    use crate::stats::Counters;
    use crate::table::Table;

    const SOON: Duration = Duration::from_secs(20);

    /// A connection whose other side does not take the end, as TLS may have it.
    struct Endless(DuplexStream);

    impl ClientStream for Endless {
        type Rest = Self;

        fn share(self) -> (Self::Rest, Option<Shared>) {
            (self, None)
        }
    }

    impl ClientStream for DuplexStream {
        type Rest = Self;

        fn share(self) -> (Self::Rest, Option<Shared>) {
            (self, None)
        }
    }

    impl AsyncRead for Endless {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            room: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(context, room)
        }
    }

    impl AsyncWrite for Endless {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Pin::new(&mut self.0).poll_write(context, bytes)
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(context)
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    fn forwarder(settings: Settings) -> Arc<Forwarder> {
        let counters = Arc::new(Counters::default());
        Arc::new(Forwarder {
            table: Table::new(Arc::clone(&counters), &settings),
            settings,
            counters,
        })
    }

    fn client(stop: watch::Receiver<Phase>) -> Client {
        Client {
            address: SocketAddr::from(([192, 0, 2, 7], 1)),
            scheme: "https",
            stop: Stop::new(stop),
            line: None,
        }
    }

    #[tokio::test]
    async fn a_client_that_does_not_take_the_end_is_not_waited_for_without_end() {
        for is_stopped in [false, true] {
            let (phase, stop) = watch::channel(Phase::Running);
            let limit = [Duration::from_millis(20), 2 * SOON][usize::from(is_stopped)];
            let forwarder = forwarder(Settings {
                take_timeout: limit,
                ..Settings::default()
            });
            let (mut near, far) = tokio::io::duplex(4096);
            let mut connection = Connection::new(Endless(far), client(stop), forwarder);
            let serving = tokio::spawn(async move { connection.serve().await });
            near.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                .await
                .unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"}}") {
                assert_ne!(near.read_buf(&mut answer).await.unwrap(), 0);
            }
            if is_stopped {
                phase.send(Phase::Closed).unwrap();
            }
            let ended = tokio::time::timeout(SOON, serving).await;
            assert_eq!(ended.expect("it ends").unwrap(), Served::All);
        }
    }

    #[tokio::test]
    async fn a_connection_that_waits_keeps_little_memory() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let forwarder = forwarder(Settings::default());
        let target = Target {
            id: "one".to_owned(),
            address: listener.local_addr().unwrap(),
        };
        let shares = [Share {
            targets: vec![target],
            weight: 1,
        }];
        let groups = [Group::only(&shares)];
        let retired = forwarder
            .table
            .direct(&groups, &[Group::all()], &forwarder.settings);
        assert!(retired.is_empty());
        let length = 1 << 20;
        let instance = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&vec![b'x'; length]).await.unwrap();
            stream
        });
        let (_phase, stop) = watch::channel(Phase::Running);
        let (mut near, far) = tokio::io::duplex(1 << 20);
        let mut connection = Connection::new(far, client(stop), forwarder);
        let head = format!(
            "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
            "y".repeat(50_000)
        );
        near.write_all(head.as_bytes()).await.unwrap();
        let Next::Plain(exchange) = connection.next().await else {
            panic!("it is plain");
        };
        let answered = tokio::spawn(async move {
            assert!(connection.answer(exchange).await.unwrap());
            connection
        });
        let mut answer = vec![0; length];
        near.read_exact(&mut answer).await.unwrap();
        let mut connection = answered.await.unwrap();
        drop(near);
        assert!(matches!(connection.next().await, Next::End));
        let kept = [
            connection.buffers.read.capacity(),
            connection.buffers.head.capacity(),
            connection.buffers.out.capacity(),
        ];
        assert!(kept.iter().all(|size| *size <= buffers::KEPT), "{kept:?}");
        instance.await.unwrap();
    }
}
