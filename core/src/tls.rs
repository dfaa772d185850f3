//! The certificate that this server shows, on the API's listener and on those of the tenants.
//!
//! It is read again when its files change. What cannot be used is logged and changes nothing: the server goes on with
//! the certificate it has.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_rustls::rustls;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::sync::CancellationToken;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, ServerConfig, SignatureScheme};

use crate::key::warn_of_readers;

/// Between two looks at the files. A signal (SIGHUP) makes the server look at once.
const LOOK: Duration = Duration::from_secs(5);

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    /// A file is missing or holds something else.
    #[error("cannot read a {what} in PEM from {}", path.display())]
    Read {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: pem::Error,
    },
    /// The two do not belong together, or are of a kind that is not known.
    #[error("{} and {} cannot be used as a certificate and its key", certificate.display(), key.display())]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The cause.
        #[source]
        source: rustls::Error,
    },
}

/// The two files, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    /// The certificate, and behind it those that lead to its authority.
    pub(crate) certificate: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
}

/// A certificate that is shown to clients.
#[derive(Clone)]
pub(crate) struct Tls {
    files: Files,
    shown: Arc<Shown>,
    config: Arc<ServerConfig>,
}

/// What is shown now.
struct Shown(RwLock<Arc<CertifiedKey>>);

impl Tls {
    /// Reads the files.
    pub(crate) fn open(files: Files) -> Result<Self, TlsError> {
        let shown = Arc::new(Shown(RwLock::new(Arc::new(files.load()?))));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            files,
            shown,
            config: Arc::new(config),
        })
    }

    /// What listeners use.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// For this server's requests to itself: believes the certificate that it shows, whatever its name and time.
    pub(crate) fn connector(&self) -> TlsConnector {
        connector(Known::Shown(Arc::clone(&self.shown)))
    }

    /// Reads the files again whenever they have changed or a signal says so, until `stop`.
    pub(crate) async fn watch(self, mut hang_up: Signal, stop: CancellationToken) {
        let mut seen = self.files.stamps();
        loop {
            let is_told = tokio::select! {
                () = stop.cancelled() => return,
                _ = hang_up.recv() => true,
                () = tokio::time::sleep(LOOK) => false,
            };
            // Before the files are read: what changes meanwhile is read again.
            let before = std::mem::replace(&mut seen, self.files.stamps());
            if !is_told && seen == before {
                continue;
            }
            let files = self.files.clone();
            match tokio::task::spawn_blocking(move || files.load()).await {
                Ok(Ok(loaded)) => self.show(loaded),
                Ok(Err(error)) => tracing::warn!(
                    error = %crate::chain(&error),
                    "the new certificate cannot be used; the one before it is shown on"
                ),
                Err(error) => tracing::warn!(%error, "the certificate was not read again"),
            }
        }
    }

    fn show(&self, loaded: CertifiedKey) {
        *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
        let path = self.files.certificate.display();
        tracing::info!(certificate = %path, "the certificate was read again");
    }
}

impl Files {
    fn load(&self) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key);
        let key = key.map_err(read("private key", &self.key))?;
        warn_of_readers(&self.key);
        CertifiedKey::from_der(chain, key, &provider()).map_err(|source| TlsError::Pair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        })
    }

    /// What changes when somebody writes or replaces a file.
    fn stamps(&self) -> [Option<[i64; 5]>; 2] {
        [&self.certificate, &self.key].map(|path| {
            // Through symbolic links: certbot replaces the link.
            let data = fs::metadata(path).ok()?;
            Some([
                data.ino().cast_signed(),
                data.size().cast_signed(),
                data.mtime(),
                data.mtime_nsec(),
                data.ctime_nsec(),
            ])
        })
    }
}

/// The signal that makes a server look at its files at once; without anybody who listens it ends the process.
pub(crate) fn hang_up() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// A connector that believes the first certificate of this file and no other.
pub(crate) fn connector_for(certificate: &Path) -> Result<TlsConnector, TlsError> {
    let chain = certificates(certificate)?;
    Ok(connector(Known::These(chain)))
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read_all = CertificateDer::pem_file_iter(path).and_then(|found| {
        let found = found.collect::<Result<Vec<_>, _>>()?;
        // An empty chain would only be noticed by clients.
        if found.is_empty() {
            return Err(pem::Error::NoItemsFound);
        }
        Ok(found)
    });
    read_all.map_err(read("certificate", path))
}

fn read(what: &'static str, path: &Path) -> impl FnOnce(pem::Error) -> TlsError {
    let path = path.to_owned();
    move |source| TlsError::Read { what, path, source }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn connector(known: Known) -> TlsConnector {
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Own {
            known,
            provider: provider(),
        }))
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shown")
    }
}

impl Shown {
    fn now(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now())
    }
}

/// A certificate that is known by itself: the first of these.
#[derive(Debug)]
enum Known {
    /// Those that are shown at the moment.
    Shown(Arc<Shown>),
    These(Vec<CertificateDer<'static>>),
}

impl Known {
    fn is(&self, certificate: &CertificateDer<'_>) -> bool {
        match self {
            Self::Shown(shown) => shown.now().cert.first() == Some(certificate),
            Self::These(chain) => chain.first() == Some(certificate),
        }
    }
}

/// Believes one certificate, for requests of the server to itself.
#[derive(Debug)]
struct Own {
    known: Known,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Own {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.known.is(certificate) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General(
            "the server shows another certificate than its own".to_owned(),
        ))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
