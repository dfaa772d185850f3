//! One end of the socket between two stages: whole lines in, whole lines out, and the end of the
//! other side noticed.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::unistd::dup2_stdin;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::protocol::MAX_LINE;

/// A socket that speaks lines of JSON. Blocking; [`Channel::fd`] says when to read.
pub(crate) struct Channel {
    socket: UnixStream,
    pending: Vec<u8>,
}

impl Channel {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            pending: Vec::new(),
        }
    }

    /// The socket this process was given as its standard input, which is none from then on: the other
    /// side sees the end as soon as the channel is dropped.
    pub(crate) fn stdin() -> io::Result<Self> {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        dup2_stdin(File::open("/dev/null")?)?;
        Ok(Self::new(UnixStream::from(socket)))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub(crate) fn set_read_timeout(&self, timeout: std::time::Duration) -> io::Result<()> {
        self.socket.set_read_timeout(Some(timeout))
    }

    pub(crate) fn send<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.socket.write_all(&line)
    }

    /// Whether a message has come that was not asked for yet: the socket will not tell.
    pub(crate) fn has_message(&self) -> bool {
        self.pending.contains(&b'\n')
    }

    /// The messages that are complete, after one read when there are none yet. `None` when the
    /// other side is gone.
    pub(crate) fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<Vec<T>>> {
        if !self.has_message() && !self.read()? {
            return Ok(None);
        }
        let mut messages = Vec::new();
        while let Some(message) = self.take()? {
            messages.push(message);
        }
        Ok(Some(messages))
    }

    /// Waits for the next message alone. `None` when the other side is gone.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        while !self.has_message() {
            if !self.read()? {
                return Ok(None);
            }
        }
        self.take()
    }

    /// Reads once; `false` when the other side is gone.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = vec![0; 1 << 16];
        let read = match self.socket.read(&mut buffer) {
            // unread orders at its end make the kernel answer so when the other side dies
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            other => other?,
        };
        if self.pending.len() > MAX_LINE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.pending.extend_from_slice(&buffer[..read]);
        Ok(read > 0)
    }

    fn take<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        let message = serde_json::from_slice(&self.pending[..end])?;
        self.pending.drain(..=end);
        Ok(Some(message))
    }
}
