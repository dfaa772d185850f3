//! Where engines that fetch images by themselves find them.

use oci::Repository;
use secrecy::SecretString;

/// The platform's registry, as an engine is to reach it.
pub trait Registry: Send + Sync + 'static {
    /// `host:port`.
    fn host(&self) -> String;

    /// Whether it speaks TLS there.
    fn has_tls(&self) -> bool;

    /// A bearer token that allows to pull from one repository, for a few minutes.
    fn token(&self, repository: &Repository) -> SecretString;
}
