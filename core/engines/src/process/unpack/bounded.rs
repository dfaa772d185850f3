//! A reader that gives up past a number of bytes: what stands between a small compressed blob and
//! a full disk.

use std::io::{self, Read};

/// Reads from `inner` until `left` bytes have come, then fails.
pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
}

/// The error inside the [`io::Error`] of a [`Bounded`] reader that gave up.
#[derive(Debug, thiserror::Error)]
#[error("more bytes than allowed")]
pub(super) struct BoundReached;

impl<R> Bounded<R> {
    pub(super) fn new(inner: R, left: u64) -> Self {
        Self { inner, left }
    }

    /// Bytes that may still come.
    pub(super) fn left(&self) -> u64 {
        self.left
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, BoundReached))?;
        Ok(read)
    }
}

/// Whether `error` says that a [`Bounded`] reader gave up. The tar reader wraps errors in its own.
pub(super) fn is_bound(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::FileTooLarge
}
