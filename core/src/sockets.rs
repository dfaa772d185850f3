//! Listening sockets that outlive this process, and what else a service manager is told.
//!
//! While a server ends and the next one starts, a socket that nobody has is one that refuses connections. systemd keeps those
//! that it is given (`FDSTORE=1`, [sd_notify(3)]) and hands them to the next process of the service ([sd_listen_fds(3)]), also
//! after a crash: whoever connects meanwhile waits in the kernel's queue. A socket is known again by its address. Without a
//! service manager all of this does nothing.
//!
//! [sd_notify(3)]: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
//! [sd_listen_fds(3)]: https://www.freedesktop.org/software/systemd/man/latest/sd_listen_fds.html

use std::io;
use std::net::{SocketAddr, TcpListener as Socket};
use std::os::fd::AsFd as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::net::TcpListener;

/// The listening sockets of this server.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    /// Those of the process before, until somebody listens there again.
    left: Mutex<Vec<(SocketAddr, Socket)>>,
}

impl Sockets {
    /// With those that the service manager has kept. Only once: they are handed over with it. From here on no program that
    /// is started inherits them.
    pub(crate) fn inherited() -> Self {
        let mut given = ListenFd::from_env();
        let mut left = Vec::new();
        for index in 0..given.len() {
            let taken = given.take_tcp_listener(index).and_then(|socket| {
                let socket = socket.ok_or(io::ErrorKind::NotFound)?;
                Ok((socket.local_addr()?, socket))
            });
            match taken {
                Ok(socket) => left.push(socket),
                Err(error) => {
                    tracing::warn!(%error, "the service manager has handed over what is no socket of this server");
                }
            }
        }
        Self {
            left: Mutex::new(left),
        }
    }

    /// Listens on an address: with the socket that was kept, else with a new one, which is kept from now on.
    pub(crate) async fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        if let Some(socket) = self.take(address) {
            socket.set_nonblocking(true)?;
            return TcpListener::from_std(socket);
        }
        let socket = TcpListener::bind(address).await?;
        let name = name(socket.local_addr()?);
        let told = [NotifyState::FdStore, NotifyState::FdName(&name)];
        heard(sd_notify::notify_with_fds(&told, &[socket.as_fd()]));
        Ok(socket)
    }

    /// Lets go of what nobody listens on: connections to it would wait for nothing.
    pub(crate) fn forget_left(&self) {
        for (address, socket) in self.left().drain(..) {
            close(address, socket);
        }
    }

    fn take(&self, address: SocketAddr) -> Option<Socket> {
        let mut left = self.left();
        if let Some(place) = left.iter().position(|(found, _)| *found == address) {
            return Some(left.swap_remove(place).1);
        }
        // The server listens at another address than the one before: both at once could not be had.
        for (found, socket) in left.extract_if(.., |(found, _)| found.port() == address.port()) {
            close(found, socket);
        }
        None
    }

    fn left(&self) -> MutexGuard<'_, Vec<(SocketAddr, Socket)>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn close(address: SocketAddr, socket: Socket) {
    tracing::info!(%address, "a socket of the server before is closed: nobody listens there any more");
    forget(address);
    drop(socket);
}

/// Nobody listens there any more, nor will.
pub(crate) fn forget(address: SocketAddr) {
    let name = name(address);
    let told = [NotifyState::FdStoreRemove, NotifyState::FdName(&name)];
    heard(sd_notify::notify(&told));
}

/// Tells the service manager that requests are answered, and where.
pub(crate) fn tell_ready(status: &str) {
    heard(sd_notify::notify(&[
        NotifyState::Ready,
        NotifyState::Status(status),
    ]));
}

/// Tells the service manager that this process is about to end.
pub(crate) fn tell_ending() {
    heard(sd_notify::notify(&[NotifyState::Stopping]));
}

/// A colon would end the name.
fn name(address: SocketAddr) -> String {
    address.to_string().replace(':', "_")
}

fn heard(told: io::Result<()>) {
    if let Err(error) = told {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_kept_is_used_once_and_the_rest_is_closed() {
        let socket = || {
            let socket = Socket::bind("127.0.0.1:0").unwrap();
            (socket.local_addr().unwrap(), socket)
        };
        let (kept, other, moved) = (socket(), socket(), socket());
        let (address, elsewhere, port) = (kept.0, other.0, moved.0.port());
        let sockets = Sockets {
            left: Mutex::new(vec![kept, other, moved]),
        };
        let waiting = std::net::TcpStream::connect(address).unwrap();
        let listener = sockets.listen(address).await.unwrap();
        let (_, from) = listener.accept().await.unwrap();
        assert_eq!(from, waiting.local_addr().unwrap(), "nobody is lost");
        let taken = sockets.listen(address).await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        let everywhere = SocketAddr::from(([0, 0, 0, 0], port));
        sockets.listen(everywhere).await.unwrap();
        sockets.forget_left();
        sockets.listen(elsewhere).await.unwrap();
    }

    #[test]
    fn a_name_has_no_colon() {
        assert_eq!(name("[::1]:443".parse().unwrap()), "[__1]_443");
        assert_eq!(name("127.0.0.1:80".parse().unwrap()), "127.0.0.1_80");
    }
}
