//! Where the next server comes in: a socket in the directory of the instance.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};

use super::protocol::SOCKET;

/// A listening socket. It goes with the directory.
pub(super) struct Door {
    listener: UnixListener,
}

impl Door {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let folder = File::open(directory)?;
        // nobody but the server's user may come in
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(address(&folder));
        umask(before);
        let listener = bound?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Whoever waits outside, if anybody still does.
    pub(super) fn admit(&self) -> io::Result<UnixStream> {
        let (socket, _) = self.listener.accept()?;
        socket.set_nonblocking(false)?;
        Ok(socket)
    }
}

/// The socket in an open directory. The address of a socket holds 107 bytes, which is less than a
/// path may have.
pub(crate) fn address(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))
}
