//! Waiting for what a stage has to react to: the two sockets and the signals.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

use super::channel::Channel;

/// Signals of a person or of the system that are handed on to the program. The others keep their
/// meaning: a launcher that is killed takes its instance along.
const FORWARDED: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Something that a stage reads from.
pub(super) struct Source<'a> {
    fd: BorrowedFd<'a>,
    /// There is more already that was read from the descriptor.
    ready: bool,
}

impl<'a> From<&'a Channel> for Source<'a> {
    fn from(channel: &'a Channel) -> Self {
        Self {
            fd: channel.fd(),
            ready: channel.has_message(),
        }
    }
}

impl<'a> From<BorrowedFd<'a>> for Source<'a> {
    fn from(fd: BorrowedFd<'a>) -> Self {
        Self { fd, ready: false }
    }
}

/// Signals as a readable descriptor: each arrives as a byte in a socket of its own.
pub(super) struct Signals {
    children: UnixStream,
    forwarded: Vec<(Signal, UnixStream)>,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        let forwarded = FORWARDED
            .iter()
            .map(|signal| Ok((*signal, listen(*signal)?)));
        Ok(Self {
            children: listen(Signal::SIGCHLD)?,
            forwarded: forwarded.collect::<io::Result<_>>()?,
        })
    }

    /// The forwarded signals that have come since the last call.
    pub(super) fn take(&mut self) -> Vec<Signal> {
        drain(&mut self.children);
        let come = self
            .forwarded
            .iter_mut()
            .filter_map(|(signal, socket)| drain(socket).then_some(*signal));
        come.collect()
    }

    /// Waits until a signal comes, one of `sources` has something to read or `limit` is over, and
    /// says which of them have.
    pub(super) fn wait(&self, sources: &[Source<'_>], limit: Option<Duration>) -> Vec<bool> {
        let own = self.forwarded.iter().map(|(_, socket)| socket.as_fd());
        let others = sources.iter().map(|source| source.fd);
        let all = others.chain([self.children.as_fd()]).chain(own);
        let mut fds: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let limit = if sources.iter().any(|source| source.ready) {
            Some(Duration::ZERO)
        } else {
            limit
        };
        let limit = limit.map_or(PollTimeout::NONE, |limit| {
            PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX)
        });
        let polled = poll(&mut fds, limit).is_ok();
        let ready = |(source, fd): (&Source<'_>, &PollFd<'_>)| {
            // when interrupted, the caller looks at everything else and comes back
            source.ready || (polled && fd.any().unwrap_or(true))
        };
        sources.iter().zip(&fds).map(ready).collect()
    }
}

/// Collects every child that has ended, and says so when there are none left at all.
pub(super) fn reap() -> (Vec<WaitStatus>, bool) {
    let mut ended = Vec::new();
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return (ended, false),
            Ok(status) => ended.push(status),
            Err(Errno::EINTR) => {}
            Err(_) => return (ended, true),
        }
    }
}

fn listen(signal: Signal) -> io::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal as i32, write)?;
    Ok(read)
}

fn drain(socket: &mut UnixStream) -> bool {
    let mut buffer = [0; 64];
    let mut any = false;
    while socket.read(&mut buffer).is_ok_and(|read| read > 0) {
        any = true;
    }
    any
}
