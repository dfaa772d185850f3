//! Connections that have left HTTP (WebSocket): bytes both ways until one side ends it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

use crate::activity::Activity;
use crate::listener::Stop;
use crate::route::Flight;
use crate::stats::Counters;

/// How long the two ends may take to hand over their connections after the 101 answer.
const HANDOVER: Duration = Duration::from_secs(10);

/// A tunnel between a client and the instance that accepted its upgrade. It is in flight on that
/// instance until it is closed.
pub(crate) struct Tunnel {
    pub(crate) client: OnUpgrade,
    pub(crate) instance: OnUpgrade,
    pub(crate) flight: Flight,
    pub(crate) counters: Arc<Counters>,
    pub(crate) idle_timeout: Duration,
    pub(crate) stop: Stop,
}

impl Tunnel {
    /// Runs the tunnel beside the connection that it came from.
    pub(crate) fn start(self) {
        tokio::spawn(async move {
            self.counters.tunnel_began();
            let end = self.run().await;
            self.counters.tunnel_ended();
            tracing::debug!(target_id = self.flight.target().id, "tunnel ended: {end}");
        });
    }

    async fn run(&self) -> &'static str {
        let mut stop = self.stop.clone();
        tokio::select! {
            end = self.carry() => end,
            () = stop.closed() => "the proxy stops",
        }
    }

    async fn carry(&self) -> &'static str {
        let handover = async { tokio::try_join!(self.client.clone(), self.instance.clone()) };
        let Ok(Ok((client, instance))) = tokio::time::timeout(HANDOVER, handover).await else {
            return "one side left before it began";
        };
        let (client, instance) = (TokioIo::new(client), TokioIo::new(instance));
        carry(client, instance, &self.counters, self.idle_timeout).await
    }
}

/// Carries bytes both ways until one side ends it, or nothing has moved for `limit`; says which.
pub(crate) async fn carry<C, I>(
    client: C,
    instance: I,
    counters: &Counters,
    limit: Duration,
) -> &'static str
where
    C: AsyncRead + AsyncWrite + Unpin,
    I: AsyncRead + AsyncWrite + Unpin,
{
    let activity = Activity::new();
    let mut client = Watched::new(client, &activity, |bytes| counters.received(bytes));
    let mut instance = Watched::new(instance, &activity, |bytes| counters.sent(bytes));
    tokio::select! {
        copied = copy_bidirectional(&mut client, &mut instance) => match copied {
            Ok(_) => "closed",
            Err(_) => "broken off",
        },
        () = silence(&activity, limit) => "silent for too long",
    }
}

/// Returns when nothing has moved for `limit`.
async fn silence(activity: &Activity, limit: Duration) {
    loop {
        let wait = activity.remaining(limit);
        if wait.is_zero() {
            return;
        }
        tokio::time::sleep(wait).await;
    }
}

/// One end of a tunnel; what is read from it is counted and is a sign of life.
struct Watched<'a, S, F> {
    io: S,
    activity: &'a Activity,
    count: F,
}

impl<'a, S, F: Fn(usize)> Watched<'a, S, F> {
    fn new(io: S, activity: &'a Activity, count: F) -> Self {
        Self {
            io,
            activity,
            count,
        }
    }
}

impl<S: AsyncRead + Unpin, F: Fn(usize) + Unpin> AsyncRead for Watched<'_, S, F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(context, buffer));
        self.activity.touch();
        (self.count)(buffer.filled().len() - before);
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin, F: Unpin> AsyncWrite for Watched<'_, S, F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
