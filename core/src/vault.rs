//! Tenants' secrets at rest: sealed with AES-256-GCM (NIST SP 800-38D) under one key.
//!
//! What is sealed is bound to its tenant, name and version: a row that is moved to another place in the database
//! does not open. Nonces are random; below 2^32 seals of one key they do not meet.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use secrecy::{ExposeSecret, SecretSlice, SecretString};

/// Why secrets cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VaultError {
    /// The system gives no random bytes.
    #[error("the operating system gives no random bytes")]
    Random,
    /// Another key, or a row that was changed.
    #[error("{what} does not open: it was sealed with another key, or changed since")]
    Unopened {
        /// The secret.
        what: String,
    },
}

/// The place of a secret: what is sealed for one does not open at another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) name: &'a str,
    pub(crate) version: u64,
}

impl Place<'_> {
    fn bytes(&self) -> Vec<u8> {
        // None of the names holds a zero byte.
        format!("{}\0{}\0{}", self.tenant, self.name, self.version).into_bytes()
    }
}

/// Seals and opens.
pub(crate) struct Vault {
    key: LessSafeKey,
}

impl Vault {
    /// Seals and opens with this key.
    pub(crate) fn new(key: &SecretSlice<u8>) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key.expose_secret());
        Self {
            key: LessSafeKey::new(key.expect("a key has 256 bits")),
        }
    }

    /// Whether another vault opens what this one seals.
    pub(crate) fn has_key_of(&self, other: &Self) -> Result<bool, VaultError> {
        let place = Place {
            tenant: "",
            name: "",
            version: 0,
        };
        let sealed = self.seal(place, &SecretString::from(""))?;
        Ok(other.unseal(place, &sealed).is_ok())
    }

    /// Nonce and sealed value.
    pub(crate) fn seal(
        &self,
        place: Place<'_>,
        value: &SecretString,
    ) -> Result<Vec<u8>, VaultError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(|_| VaultError::Random)?;
        let mut sealed = value.expose_secret().as_bytes().to_vec();
        self.key
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place.bytes()),
                &mut sealed,
            )
            .map_err(|_| VaultError::Random)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// The value that was sealed for this place.
    pub(crate) fn unseal(
        &self,
        place: Place<'_>,
        sealed: &[u8],
    ) -> Result<SecretString, VaultError> {
        let unopened = || VaultError::Unopened {
            what: format!("version {} of {}", place.version, place.name),
        };
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN).ok_or_else(unopened)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| unopened())?;
        let mut bytes = sealed.to_vec();
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(place.bytes()), &mut bytes);
        let opened = opened.map_err(|_| unopened())?;
        let text = std::str::from_utf8(opened).map_err(|_| unopened())?;
        Ok(SecretString::from(text))
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    use super::*;

    /// A vault with a key of its own.
    pub(crate) fn vault() -> Vault {
        let mut key = vec![0; 32];
        getrandom::fill(&mut key).unwrap();
        Vault::new(&SecretSlice::from(key))
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::vault;
    use super::*;

    const HERE: Place<'_> = Place {
        tenant: "a",
        name: "TOKEN",
        version: 1,
    };

    fn text(opened: Result<SecretString, VaultError>) -> String {
        opened.unwrap().expose_secret().to_owned()
    }

    #[test]
    fn a_secret_opens_where_it_was_sealed_and_nowhere_else() {
        let vault = vault();
        let sealed = vault.seal(HERE, &"hunter2".into()).unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert_eq!(text(vault.unseal(HERE, &sealed)), "hunter2");
        for place in [
            Place {
                tenant: "b",
                ..HERE
            },
            Place {
                name: "OTHER",
                ..HERE
            },
            Place { version: 2, ..HERE },
        ] {
            assert!(vault.unseal(place, &sealed).is_err(), "{place:?}");
        }
        let mut changed = sealed.clone();
        *changed.last_mut().unwrap() ^= 1;
        for broken in [&changed[..], &sealed[..5], &[]] {
            assert!(vault.unseal(HERE, broken).is_err());
        }
        assert_ne!(sealed, vault.seal(HERE, &"hunter2".into()).unwrap());
        assert!(fixtures::vault().unseal(HERE, &sealed).is_err());
    }
}
