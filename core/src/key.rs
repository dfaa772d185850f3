//! Keys of 256 bits: from a file, which is made where it is missing, or from a command, such as one that asks a key
//! management system. As text they are 64 hexadecimal digits.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use secrecy::{ExposeSecret, SecretSlice, SecretString};

use crate::hex;

/// 256 bits.
const KEY_BYTES: usize = 32;
/// A key is 64 hexadecimal digits and perhaps a newline; nothing longer is read.
const KEY_TEXT: u64 = 256;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// The key's file.
    #[error("cannot {action} the key {}", path.display())]
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
    #[error("the command that tells the key {how}: {command}")]
    Command {
        /// Its words.
        command: String,
        /// What it did.
        how: String,
    },
    /// Not a key.
    #[error("a key must be 64 hexadecimal digits, {origin} holds something else")]
    Form {
        /// Where it came from.
        origin: String,
    },
    /// The system gives no random bytes.
    #[error("the operating system gives no random bytes")]
    Random,
}

/// Where a key is.
#[derive(Debug, Clone)]
pub(crate) enum KeySource {
    /// In a file, which is made where it is missing.
    File(PathBuf),
    /// A shell command prints it.
    Command(String),
}

impl KeySource {
    /// The key; a new one where its file is missing.
    pub(crate) fn read(&self) -> Result<SecretSlice<u8>, KeyError> {
        let (text, origin) = match self {
            Self::File(path) => (read_or_make(path)?, path.display().to_string()),
            Self::Command(command) => (ask(command)?, "what it printed".to_owned()),
        };
        let bytes = hex::decode(text.expose_secret().trim());
        let key = bytes.filter(|bytes| bytes.len() == KEY_BYTES);
        key.map(SecretSlice::from).ok_or(KeyError::Form { origin })
    }
}

/// Puts a new key into a file, in the place of what is there.
pub(crate) fn make(path: &Path) -> Result<SecretString, KeyError> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).map_err(|_| KeyError::Random)?;
    let text = format!("{}\n", hex::encode(&key));
    write(path, &text).map_err(|source| failed("make", path, source))?;
    Ok(SecretString::from(text))
}

/// Moves a key's file into the place of another, durably.
pub(crate) fn replace(from: &Path, to: &Path) -> Result<(), KeyError> {
    let moved = fs::rename(from, to).and_then(|()| flush_folder(to));
    moved.map_err(|source| failed("replace", to, source))
}

/// Removes a key's file, if there is one, durably.
pub(crate) fn remove(path: &Path) -> Result<(), KeyError> {
    match fs::remove_file(path).and_then(|()| flush_folder(path)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|source| failed("remove", path, source)),
    }
}

/// Removes what a writer of this file has left that was killed.
pub(crate) fn remove_unfinished(path: &Path) -> Result<(), KeyError> {
    remove(&unfinished(path))
}

/// The file's text; a new key where there is no file. Whoever loses the file loses what was sealed with it.
fn read_or_make(path: &Path) -> Result<SecretString, KeyError> {
    match read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        read => read.map_err(|source| failed("read", path, source)),
    }
}

fn read(path: &Path) -> io::Result<SecretString> {
    let mut text = String::new();
    fs::File::open(path)?
        .take(KEY_TEXT)
        .read_to_string(&mut text)?;
    Ok(SecretString::from(text))
}

/// Whole or not at all, for its owner only, and flushed before anything is sealed with it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let unfinished = unfinished(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    flush_folder(path)
}

fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("new")
}

fn flush_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        // A file named without a folder is in the present one.
        Some(folder) if folder.as_os_str().is_empty() => fs::File::open(".")?.sync_all(),
        Some(folder) => fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn ask(command: &str) -> Result<SecretString, KeyError> {
    let failed = |how: String| KeyError::Command {
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

fn failed(action: &'static str, path: &Path, source: io::Error) -> KeyError {
    let path = path.to_owned();
    KeyError::File {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let source = KeySource::File(path.clone());
        let made = source.read().unwrap();
        assert_eq!(made.expose_secret().len(), KEY_BYTES);
        assert_eq!(made.expose_secret(), source.read().unwrap().expose_secret());
        let mode = fs::metadata(&path).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        make(&path).unwrap();
        assert_ne!(made.expose_secret(), source.read().unwrap().expose_secret());
    }

    #[test]
    fn a_command_tells_the_key() {
        let tell = |text: &str| KeySource::Command(text.to_owned()).read();
        let key = "7".repeat(64);
        assert_eq!(
            tell(&format!("echo {key}")).unwrap().expose_secret(),
            [0x77; KEY_BYTES]
        );
        for bad in ["exit 3", "echo short", "true", "echo 77"] {
            let refused = tell(bad).err().unwrap().to_string();
            assert!(!refused.contains("short "), "{refused}");
        }
    }
}
