//! Bodies on their way through: counted, never collected.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use crate::activity::Activity;
use crate::pool::Lease;
use crate::route::Flight;
use crate::stats::Counters;

type Polled = Poll<Option<Result<Frame<Bytes>, hyper::Error>>>;

/// The body of a request on its way to the instance.
#[derive(Debug)]
pub(crate) enum Upload {
    /// No body: such a request can be sent again.
    Empty,
    /// A body that can be read once.
    Streaming {
        body: Incoming,
        activity: Arc<Activity>,
        counters: Arc<Counters>,
    },
}

impl Upload {
    pub(crate) fn new(body: Incoming, activity: &Arc<Activity>, counters: &Arc<Counters>) -> Self {
        if body.is_end_stream() {
            return Self::Empty;
        }
        Self::Streaming {
            body,
            activity: Arc::clone(activity),
            counters: Arc::clone(counters),
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        let Self::Streaming {
            body,
            activity,
            counters,
        } = &mut *self
        else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(context));
        activity.touch();
        if let Some(Ok(frame)) = &frame {
            counters.received(data_length(frame));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming { body, .. } => body.size_hint(),
        }
    }
}

/// The body of an answer on its way to the client.
#[derive(Debug)]
pub(crate) enum Download {
    /// Made here.
    Own(Full<Bytes>),
    /// From the instance.
    Instance(Box<Stream>),
}

/// A body from the instance. It holds the request's [`Flight`], so a request is in flight until
/// its answer has been handed on to the end or given up.
#[derive(Debug)]
pub(crate) struct Stream {
    body: Incoming,
    lease: Option<Lease>,
    counters: Arc<Counters>,
    _flight: Flight,
}

impl Download {
    pub(crate) fn own(bytes: impl Into<Bytes>) -> Self {
        Self::Own(Full::new(bytes.into()))
    }

    pub(crate) async fn instance(
        body: Incoming,
        lease: Lease,
        flight: Flight,
        counters: &Arc<Counters>,
    ) -> Self {
        let counters = Arc::clone(counters);
        let mut stream = Stream {
            body,
            lease: Some(lease),
            counters,
            _flight: flight,
        };
        poll_fn(|context| {
            stream.release_at_end(context);
            Poll::Ready(())
        })
        .await;
        Self::Instance(Box::new(stream))
    }
}

impl Stream {
    fn poll(&mut self, context: &mut Context<'_>) -> Polled {
        let frame = ready!(self.poll_body(context));
        match &frame {
            Some(Ok(frame)) => {
                self.counters.sent(data_length(frame));
                self.release_at_end(context);
            }
            Some(Err(_)) => self.lease = None,
            None => self.release(context),
        }
        Poll::Ready(frame)
    }

    /// What has come already, else what the connection has for us once it is driven.
    fn poll_body(&mut self, context: &mut Context<'_>) -> Polled {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        if let Some(lease) = &mut self.lease {
            lease.drive(context);
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    /// A reader that knows the length does not ask again after the last byte, so the connection is
    /// given back with that byte.
    fn release_at_end(&mut self, context: &mut Context<'_>) {
        if self.body.is_end_stream() {
            self.release(context);
        }
    }

    fn release(&mut self, context: &mut Context<'_>) {
        if let Some(lease) = self.lease.take() {
            lease.give_back(context);
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        match &mut *self {
            Self::Own(body) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                Poll::Ready(frame.map(|frame| frame.map_err(|never: Infallible| match never {})))
            }
            Self::Instance(stream) => stream.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Instance(stream) => stream.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Instance(stream) => stream.body.size_hint(),
        }
    }
}

fn data_length(frame: &Frame<Bytes>) -> usize {
    frame.data_ref().map_or(0, Bytes::len)
}
