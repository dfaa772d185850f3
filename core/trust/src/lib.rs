//! Which authorities a server's certificate may come from: those that are built in, those of a file
//! in their place, and those of further files.
//!
//! It reads files and speaks to nobody.

mod file;

pub use file::{TrustError, read};

use std::path::PathBuf;

use ureq::tls::{Certificate, RootCerts};

/// Whom to believe. By default, those that are built in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trust {
    /// A PEM file of root certificates in place of the built-in ones.
    pub instead: Option<PathBuf>,
    /// PEM files of root certificates that are believed too.
    pub also: Vec<PathBuf>,
}

impl Trust {
    /// All of them, as the HTTP library takes them. Reads the files.
    pub fn roots(&self) -> Result<RootCerts, TrustError> {
        let mut roots = match &self.instead {
            None if self.also.is_empty() => return Ok(RootCerts::WebPki),
            None => built_in(),
            Some(path) => read(path)?,
        };
        for path in &self.also {
            roots.extend(read(path)?);
        }
        Ok(roots.into())
    }
}

/// The file that is named for all programs of this machine: `SSL_CERT_FILE`.
#[must_use]
pub fn from_environment() -> Option<PathBuf> {
    std::env::var_os("SSL_CERT_FILE")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

/// The HTTP library takes its built-in roots or certificates, not both: these are the same authorities
/// as certificates.
fn built_in() -> Vec<Certificate<'static>> {
    webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .map(|root| Certificate::from_der(root))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_further_authority_takes_the_place_of_none() {
        let authority = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../registry/tests/it/certificates/authority.pem"
        );
        let trust = Trust {
            also: vec![authority.into()],
            ..Trust::default()
        };
        let Ok(RootCerts::Specific(roots)) = trust.roots() else {
            panic!("no list of certificates");
        };
        let known = built_in();
        assert!(known.len() > 100);
        assert_eq!(roots.len(), known.len() + 1);
        assert!(matches!(Trust::default().roots(), Ok(RootCerts::WebPki)));
    }
}
