//! TLS before a server that speaks none, with a certificate of a private authority.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};
use tempfile::TempDir;

use crate::process::need_program;

use crate::acceptor::Acceptor;

/// A peer that says nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// An authority that nobody knows, made by openssl for one test.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
}

impl Authority {
    /// Makes its key and certificate.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let authority = Self { folder };
        authority.openssl(&[
            "-keyout",
            "authority.key",
            "-out",
            "authority.pem",
            "-subj",
            "/CN=authority of the test",
            "-addext",
            "keyUsage=critical,keyCertSign",
        ]);
        authority
    }

    /// Its certificate, in PEM.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// What a server needs that is `registry.test` or on loopback.
    fn server(&self) -> ServerConfig {
        self.openssl(&[
            "-keyout",
            "server.key",
            "-out",
            "server.pem",
            "-CA",
            "authority.pem",
            "-CAkey",
            "authority.key",
            "-subj",
            "/CN=server of the test",
            "-addext",
            "subjectAltName=DNS:registry.test,DNS:localhost,IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ]);
        let file = |name: &str| self.folder.path().join(name);
        let certificate = CertificateDer::from_pem_file(file("server.pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(file("server.key")).expect("a key");
        ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("the key is the certificate's")
    }

    fn openssl(&self, arguments: &[&str]) {
        let common = [
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-noenc",
            "-days",
            "2",
        ];
        let output = Command::new(need_program("openssl"))
            .current_dir(self.folder.path())
            .args(common)
            .args(arguments)
            .output()
            .expect("start openssl");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl failed: {said}");
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// A running listener; stopped when dropped.
#[derive(Debug)]
pub struct Secured {
    acceptor: Acceptor,
}

impl Secured {
    /// Passes to `upstream` what comes over TLS.
    #[must_use]
    pub fn before(upstream: SocketAddr, authority: &Authority) -> Self {
        let config = Arc::new(authority.server());
        let acceptor = Acceptor::start(move |stream| {
            // Whoever is connected notices for himself.
            let _ = serve(stream, upstream, Arc::clone(&config));
        });
        Self { acceptor }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.acceptor.address()
    }

    /// `https://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }
}

fn serve(mut client: TcpStream, upstream: SocketAddr, config: Arc<ServerConfig>) -> io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut tls = ServerConnection::new(config).map_err(io::Error::other)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut client)?;
    }
    let mut upstream = TcpStream::connect_timeout(&upstream, PATIENCE)?;
    upstream.set_write_timeout(Some(PATIENCE))?;
    // The first words may have come together with the end of the handshake.
    deliver(&mut tls, &mut upstream)?;
    while let Some((from_client, from_upstream)) = wait(&client, &upstream)? {
        if from_client && !inwards(&mut tls, &mut client, &mut upstream)? {
            return Ok(());
        }
        if from_upstream && !outwards(&mut tls, &mut client, &mut upstream)? {
            return Ok(());
        }
    }
    Ok(())
}

/// Which of the two has something to say; none when both fall silent.
fn wait(client: &TcpStream, upstream: &TcpStream) -> io::Result<Option<(bool, bool)>> {
    let mut both = [client, upstream].map(|side| PollFd::new(side.as_fd(), PollFlags::POLLIN));
    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
    if poll(&mut both, patience)? == 0 {
        return Ok(None);
    }
    let [client, upstream] = both.map(|side| side.any().unwrap_or(true));
    Ok(Some((client, upstream)))
}

/// Decrypts what the client has sent; says whether there may be more.
fn inwards(
    tls: &mut ServerConnection,
    client: &mut TcpStream,
    upstream: &mut TcpStream,
) -> io::Result<bool> {
    if tls.read_tls(client)? == 0 {
        return Ok(false);
    }
    let more = deliver(tls, upstream)?;
    flush(tls, client)?;
    Ok(more)
}

fn deliver(tls: &mut ServerConnection, upstream: &mut TcpStream) -> io::Result<bool> {
    let state = tls.process_new_packets().map_err(io::Error::other)?;
    let mut plain = vec![0; state.plaintext_bytes_to_read()];
    tls.reader().read_exact(&mut plain)?;
    upstream.write_all(&plain)?;
    Ok(!state.peer_has_closed())
}

/// Encrypts what the server has sent; says whether there may be more.
fn outwards(
    tls: &mut ServerConnection,
    client: &mut TcpStream,
    upstream: &mut TcpStream,
) -> io::Result<bool> {
    let mut part = [0; 16 * 1024];
    let length = upstream.read(&mut part)?;
    if length == 0 {
        tls.send_close_notify();
    }
    tls.writer().write_all(&part[..length])?;
    flush(tls, client)?;
    Ok(length > 0)
}

fn flush(tls: &mut ServerConnection, client: &mut TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(client)?;
    }
    Ok(())
}
