//! Certificates in a file.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ureq::tls::{Certificate, PemItem, parse_pem};

/// All authorities of the world are a quarter of a megabyte.
const LIMIT: u64 = 16 * 1024 * 1024;
/// How everything in PEM begins.
const BEGINNING: &[u8] = b"-----BEGIN ";

/// Why a file's certificates cannot be used. What is in the file is not repeated.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("{} is not in PEM: nothing in it begins with -----BEGIN", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
    },
    /// Its beginning has no end, or what is between is not base64.
    #[error("{} is broken PEM", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
    },
    /// It holds a key, for instance.
    #[error("{} holds no certificate", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
}

/// Reads the certificates of a PEM file: one at least. Keys among them are passed over.
pub fn read(path: &Path) -> Result<Vec<Certificate<'static>>, TrustError> {
    let own = || path.to_owned();
    let text = bounded(path).map_err(|source| TrustError::Read {
        path: own(),
        source,
    })?;
    if !text.windows(BEGINNING.len()).any(|part| part == BEGINNING) {
        return Err(TrustError::NotPem { path: own() });
    }
    let mut certificates = Vec::new();
    for item in parse_pem(&text) {
        match item {
            // The shape of a certificate, as far as a mistaken file goes: the rest is looked at
            // when a server shows one.
            Ok(PemItem::Certificate(certificate)) if is_sequence(certificate.der()) => {
                certificates.push(certificate);
            }
            Ok(PemItem::Certificate(_)) | Err(_) => {
                return Err(TrustError::Broken { path: own() });
            }
            Ok(_) => {}
        }
    }
    if certificates.is_empty() {
        return Err(TrustError::NoCertificate { path: own() });
    }
    Ok(certificates)
}

/// Whether it begins as a certificate does.
fn is_sequence(der: &[u8]) -> bool {
    der.len() > 2 && der[0] == 0x30
}

fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(path)?.take(LIMIT + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LIMIT {
        return Err(io::Error::other("it is larger than 16 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n";

    /// How many certificates are in it, or what is wrong.
    fn read_text(text: &str) -> Result<usize, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let name = file.path().display().to_string();
        let read = read(file.path());
        read.map(|certificates| certificates.len())
            .map_err(|error| error.to_string().replace(&name, "FILE"))
    }

    #[test]
    fn certificates_are_read_with_anything_around_them() {
        assert_eq!(read_text(CERTIFICATE), Ok(1));
        let several = format!("# ours\n{CERTIFICATE}{KEY}\n{CERTIFICATE}");
        assert_eq!(read_text(&several), Ok(2));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_without_what_is_in_it() {
        let wrong = |text: &str| read_text(text).unwrap_err();
        let not_pem = "FILE is not in PEM: nothing in it begins with -----BEGIN";
        assert_eq!(wrong(""), not_pem);
        assert_eq!(wrong("\u{30}\u{3}\u{2}"), not_pem);
        assert_eq!(wrong(KEY), "FILE holds no certificate");
        let cut = &CERTIFICATE[..40];
        assert_eq!(wrong(cut), "FILE is broken PEM");
        assert_eq!(wrong(&CERTIFICATE.replace('=', "*")), "FILE is broken PEM");
        let text = CERTIFICATE.replace("MAMCAQE=", "aHVudGVyMg==");
        assert_eq!(wrong(&text), "FILE is broken PEM");
        let error = read(Path::new("/nonexistent")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /nonexistent");
    }
}
