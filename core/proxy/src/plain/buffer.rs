//! Bytes that were read and are not used yet.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};

/// Bytes in the order in which they came, in one piece.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            bytes: vec![0; capacity].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    pub(super) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Forgets the first `count` bytes.
    pub(super) fn consume(&mut self, count: usize) {
        self.start += count.min(self.end - self.start);
        if self.is_empty() {
            self.clear();
        }
    }

    /// Whether there is no room for a further byte.
    pub(super) fn is_full(&self) -> bool {
        self.end - self.start == self.bytes.len()
    }

    /// Has room for `capacity` bytes from now on, at least.
    pub(super) fn grow(&mut self, capacity: usize) {
        if capacity > self.bytes.len() {
            let mut bytes = vec![0; capacity].into_boxed_slice();
            bytes[..self.end - self.start].copy_from_slice(&self.bytes[self.start..self.end]);
            (self.end, self.start) = (self.end - self.start, 0);
            self.bytes = bytes;
        }
    }

    /// Reads what there is, as far as there is room, which there must be; 0 at the end.
    pub(super) fn poll_fill(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        debug_assert!(!self.is_full(), "no room would look like the end");
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.end, self.start) = (self.end - self.start, 0);
        }
        let mut room = ReadBuf::new(&mut self.bytes[self.end..]);
        ready!(Pin::new(stream).poll_read(context, &mut room))?;
        let count = room.filled().len();
        self.end += count;
        Poll::Ready(Ok(count))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn fill(buffer: &mut Buffer, mut from: &[u8]) -> usize {
        poll_fn(|context| buffer.poll_fill(&mut from, context))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn bytes_stay_in_order_and_in_one_piece() {
        let mut buffer = Buffer::new(4);
        assert_eq!(fill(&mut buffer, b"abcdef").await, 4);
        assert!(buffer.is_full());
        buffer.consume(3);
        assert_eq!(fill(&mut buffer, b"ef").await, 2);
        assert_eq!(buffer.filled(), b"def");
        buffer.consume(1);
        buffer.grow(8);
        assert_eq!(fill(&mut buffer, b"ghijklmnop").await, 6);
        assert_eq!((buffer.filled(), buffer.capacity()), (&b"efghijkl"[..], 8));
        buffer.consume(usize::MAX);
        assert!(buffer.is_empty());
        assert_eq!(fill(&mut buffer, b"").await, 0, "the end");
    }
}
