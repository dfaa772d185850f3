//! The memory of one connection, which the next one on the same thread takes over: a new one for each would cost more than
//! all else that is done for a short connection.

use std::cell::RefCell;

use super::buffer::Buffer;

/// Enough for the heads of most requests.
const USUAL: usize = 2 * 1024;

/// What a connection keeps for what it writes, while it waits for the next request.
pub(super) const KEPT: usize = 16 * 1024;

/// The most that a thread keeps for connections to come: 256 KiB.
const SPARE: usize = 64;

thread_local! {
    static SPARES: RefCell<Vec<Buffers>> = const { RefCell::new(Vec::new()) };
}

/// What has been read of a connection, and what is written for it.
#[derive(Debug)]
pub(super) struct Buffers {
    pub(super) read: Buffer,
    /// The head for the instance, as long as it may have to be sent again.
    pub(super) head: Vec<u8>,
    /// What the client is sent next.
    pub(super) out: Vec<u8>,
}

impl Buffers {
    /// Empty ones.
    pub(super) fn take() -> Self {
        let spare = SPARES.with_borrow_mut(Vec::pop);
        spare.unwrap_or_else(|| Self {
            read: Buffer::new(USUAL),
            head: Vec::with_capacity(USUAL / 2),
            out: Vec::with_capacity(USUAL / 2),
        })
    }

    /// What has been read, of which there is nothing here any more.
    pub(super) fn take_read(&mut self) -> Buffer {
        std::mem::take(&mut self.read)
    }

    /// Gives back the memory that only a long answer, or a client that was ahead, has taken: this may be a long wait.
    pub(super) fn rest(&mut self) {
        if self.read.capacity() > USUAL {
            self.read = Buffer::new(USUAL);
        }
        for bytes in [&mut self.head, &mut self.out] {
            bytes.clear();
            bytes.shrink_to(KEPT);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        let usual = |bytes: &Vec<u8>| bytes.capacity() <= USUAL;
        if self.read.capacity() != USUAL || !usual(&self.head) || !usual(&self.out) {
            return;
        }
        // A thread that is ending keeps nothing.
        let _ = SPARES.try_with(|spares| {
            let mut spares = spares.borrow_mut();
            if spares.len() < SPARE {
                self.read.clear();
                self.head.clear();
                self.out.clear();
                spares.push(Self {
                    read: std::mem::take(&mut self.read),
                    head: std::mem::take(&mut self.head),
                    out: std::mem::take(&mut self.out),
                });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spares() -> usize {
        SPARES.with_borrow(Vec::len)
    }

    #[test]
    fn the_next_connection_takes_over_the_memory_of_the_last_and_nothing_that_was_in_it() {
        let mut first = Buffers::take();
        first.head.extend_from_slice(b"a secret");
        first.out.extend_from_slice(b"another");
        let memory = (first.head.as_ptr(), first.out.as_ptr());
        drop(first);
        let second = Buffers::take();
        assert_eq!((second.head.as_ptr(), second.out.as_ptr()), memory);
        assert!(second.read.is_empty() && second.head.is_empty() && second.out.is_empty());
        assert_eq!(spares(), 0);
    }

    #[test]
    fn memory_that_is_unusual_or_too_much_is_not_kept() {
        let mut long = Buffers::take();
        long.out.reserve(4 * USUAL);
        drop(long);
        let mut handed_over = Buffers::take();
        handed_over.take_read();
        drop(handed_over);
        assert_eq!(spares(), 0);
        let many: Vec<_> = (0..2 * SPARE).map(|_| Buffers::take()).collect();
        drop(many);
        assert_eq!(spares(), SPARE);
    }

    #[test]
    fn a_thread_may_end_with_memory_that_it_has_kept() {
        let ended = std::thread::spawn(|| drop(Buffers::take()));
        ended.join().expect("no panic");
    }
}
