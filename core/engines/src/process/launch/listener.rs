//! Where the next server comes in while there is none: a socket in the directory of the instance.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, umask};

use super::protocol::SOCKET;
use crate::process::tree::absent_is_fine;

/// A listening socket. It goes with this, or with the directory.
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// In the directory of the instance, in place of one that was left there.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let folder = File::open(directory)?;
        let path = directory.join(SOCKET);
        absent_is_fine(fs::remove_file(&path))?;
        // nobody but the server's user may come in
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(address(&folder));
        umask(before);
        let socket = bound?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whoever waits outside, if anybody still does.
    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        let (socket, _) = self.socket.accept()?;
        socket.set_nonblocking(false)?;
        Ok(socket)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // one that stays refuses whoever knocks, and is replaced when a server is missing again
        let _ = fs::remove_file(&self.path);
    }
}

/// The socket in an open directory. The address of a socket holds 107 bytes, which is less than a
/// path may have.
pub(crate) fn address(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd()))
}
