//! A proxy as companies have them: it takes `CONNECT` and passes bytes on.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::acceptor::Acceptor;

/// No header of a request is longer.
const LINES: usize = 100;
/// A client that says nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running proxy; stopped when dropped.
#[derive(Debug)]
pub struct Tunnel {
    acceptor: Acceptor,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    targets: Mutex<Vec<String>>,
}

impl Tunnel {
    /// Whatever host is asked for, the bytes go to `upstream`.
    #[must_use]
    pub fn to(upstream: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            upstream,
            targets: Mutex::default(),
        });
        let acceptor = Acceptor::start({
            let shared = Arc::clone(&shared);
            move |stream| {
                // Whoever is connected notices for himself.
                let _ = serve(stream, &shared);
            }
        });
        Self { acceptor, shared }
    }

    /// `http://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.acceptor.address())
    }

    /// The hosts and ports asked for, in order.
    #[must_use]
    pub fn targets(&self) -> Vec<String> {
        let targets = self.shared.targets.lock();
        targets.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(client: TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(client.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    for _ in 0..LINES {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
    }
    let mut client = client;
    let Some(target) = first.strip_prefix("CONNECT ") else {
        return client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n");
    };
    let target = target.split(' ').next().unwrap_or_default().to_owned();
    let mut targets = shared
        .targets
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    targets.push(target);
    drop(targets);
    let upstream = TcpStream::connect_timeout(&shared.upstream, PATIENCE)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (from, to) = (upstream.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || pass(from, to));
    // What the reader has read ahead goes first.
    let sent = io::copy(&mut reader, &mut &upstream);
    // Closed already where the other side was quicker.
    let _ = upstream.shutdown(Shutdown::Write);
    let _ = back.join();
    sent.map(drop)
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    // A broken connection ends the tunnel, as it does in a real one.
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}
