//! A connection to an instance that takes one plain request after the other.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::buffer::Buffer;

/// Enough for the head of most answers, and for the whole of many.
const USUAL: usize = 16 * 1024;

/// One connection, between two requests or with one.
#[derive(Debug)]
pub(crate) struct PlainLine {
    stream: TcpStream,
    pub(super) read: Buffer,
}

impl PlainLine {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            read: Buffer::new(USUAL),
        }
    }

    /// Whether it can take a request: one that the instance has closed cannot, nor one on which it speaks unasked.
    pub(crate) fn is_ready(&mut self, context: &mut Context<'_>) -> bool {
        self.read.is_empty() && self.read.poll_fill(&mut self.stream, context).is_pending()
    }

    /// Makes it ready to wait for another request, with no more memory than that takes.
    pub(super) fn rest(mut self) -> Self {
        if self.read.capacity() > USUAL {
            self.read = Buffer::new(USUAL);
        }
        self
    }

    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.poll_fill(&mut self.stream, context)
    }

    /// Sends what is left of `bytes` after the first `sent`, which it counts on.
    pub(super) fn poll_send(
        &mut self,
        bytes: &[u8],
        sent: &mut usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while *sent < bytes.len() {
            let stream = Pin::new(&mut self.stream);
            let count = ready!(stream.poll_write(context, &bytes[*sent..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *sent += count;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;
    use tokio::task::coop;

    use crate::pool::Pool;
    use crate::settings::Settings;

    #[tokio::test]
    async fn what_is_said_unasked_is_seen_by_a_task_that_has_had_its_turn_too() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let pool = Pool::new(listener.local_addr().unwrap(), &Settings::default());
        let line = pool.new_plain().await.unwrap();
        let (mut instance, _) = listener.accept().await.unwrap();
        instance
            .write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
            .await
            .unwrap();
        line.stream.readable().await.unwrap();
        let first = line.stream.local_addr().unwrap();
        pool.keep_plain(line);
        while coop::has_budget_remaining() {
            coop::consume_budget().await;
        }
        let next = pool.take_plain().await;
        assert!(next.is_none(), "{first} has spoken");
    }
}
