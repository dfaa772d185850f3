//! Tenants' secrets at rest: sealed with AES-256-GCM (NIST SP 800-38D) under one key, which lies in a file of its
//! own or comes from a command, such as one that asks a key management system.
//!
//! What is sealed is bound to its tenant, name and version: a row that is moved to another place in the database
//! does not open. Nonces are random; below 2^32 seals of one key they do not meet.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use secrecy::{ExposeSecret, SecretString};

use crate::hex;

/// 256 bits.
const KEY_BYTES: usize = 32;
/// A key is 64 hexadecimal digits and perhaps a newline; nothing longer is read.
const KEY_TEXT: u64 = 256;

/// Why secrets cannot be kept or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VaultError {
    /// The key's file.
    #[error("cannot {action} the key of secrets {}", path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The command that tells the key.
    #[error("the command that tells the key of secrets {how}: {command}")]
    Command {
        /// Its words.
        command: String,
        /// What it did.
        how: String,
    },
    /// Not a key.
    #[error("the key of secrets must be 64 hexadecimal digits, {origin} holds something else")]
    Form {
        /// Where it came from.
        origin: String,
    },
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

/// Where the key is.
#[derive(Debug, Clone)]
pub(crate) enum KeySource {
    /// In a file, which is made where it is missing.
    File(PathBuf),
    /// A shell command prints it.
    Command(String),
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
    /// Takes the key from its source.
    pub(crate) fn open(source: &KeySource) -> Result<Self, VaultError> {
        let (text, origin) = match source {
            KeySource::File(path) => (read_or_make(path)?, path.display().to_string()),
            KeySource::Command(command) => (ask(command)?, "what it printed".to_owned()),
        };
        let form = || VaultError::Form { origin };
        let bytes = hex::decode(text.expose_secret().trim()).ok_or_else(form.clone())?;
        let key = UnboundKey::new(&AES_256_GCM, &bytes).map_err(|_| form())?;
        Ok(Self {
            key: LessSafeKey::new(key),
        })
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

/// The file's text; a new key where there is no file. Whoever loses the file loses the secrets.
fn read_or_make(path: &Path) -> Result<SecretString, VaultError> {
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(failed("read", path, source)),
        Ok(text) => return Ok(text),
    }
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(|_| VaultError::Random)?;
    let mut text = String::with_capacity(2 * KEY_BYTES + 1);
    for byte in key {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
    make(path, &text).map_err(|source| failed("make", path, source))?;
    Ok(SecretString::from(text))
}

fn read(path: &Path) -> io::Result<SecretString> {
    let mut text = String::new();
    fs::File::open(path)?
        .take(KEY_TEXT)
        .read_to_string(&mut text)?;
    Ok(SecretString::from(text))
}

/// Whole or not at all, for its owner only, and flushed before anything is sealed with it.
fn make(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    match path.parent() {
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn ask(command: &str) -> Result<SecretString, VaultError> {
    let failed = |how: String| VaultError::Command {
        command: command.to_owned(),
        how,
    };
    let output = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| failed(format!("cannot be run ({error})")))?;
    if !output.status.success() {
        return Err(failed(format!("ended with {}", output.status)));
    }
    let text = String::from_utf8(output.stdout);
    text.map(SecretString::from)
        .map_err(|_| failed("printed no text".to_owned()))
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> VaultError {
    let path = path.to_owned();
    VaultError::File {
        action,
        path,
        source,
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    use super::*;

    /// A vault with a key of its own.
    pub(crate) fn vault() -> Vault {
        let folder = tempfile::tempdir().unwrap();
        Vault::open(&KeySource::File(folder.path().join("key"))).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

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

    #[test]
    fn the_key_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let source = KeySource::File(folder.path().join("key"));
        let sealed = Vault::open(&source)
            .unwrap()
            .seal(HERE, &"x".into())
            .unwrap();
        assert_eq!(
            text(Vault::open(&source).unwrap().unseal(HERE, &sealed)),
            "x"
        );
        let mode = fs::metadata(folder.path().join("key"))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    #[test]
    fn a_command_tells_the_key() {
        let command = |text: &str| Vault::open(&KeySource::Command(text.to_owned()));
        let key = "7".repeat(64);
        let sealed = command(&format!("echo {key}"))
            .unwrap()
            .seal(HERE, &"x".into());
        let again = command(&format!("printf {key}")).unwrap();
        assert_eq!(text(again.unseal(HERE, &sealed.unwrap())), "x");
        for bad in ["exit 3", "echo short", "true"] {
            let refused = command(bad).err().unwrap().to_string();
            assert!(!refused.contains("short"), "{refused}");
        }
    }
}
