//! Keys of 256 bits: from a file, which is made where it is missing, or from a command, such as one that asks a key
//! management system. As text they are 64 hexadecimal digits.

use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt as _};
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
}

impl KeyError {
    /// Whether there is no file where the key should be.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
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
        self.read_by(read_or_make)
    }

    /// The key; an error where its file is missing.
    pub(crate) fn existing(&self) -> Result<SecretSlice<u8>, KeyError> {
        self.read_by(|path| read(path).map_err(|source| failed("read", path, source)))
    }

    fn read_by(
        &self,
        read: impl Fn(&Path) -> Result<SecretString, KeyError>,
    ) -> Result<SecretSlice<u8>, KeyError> {
        let (text, origin) = match self {
            Self::File(path) => (read(path)?, path.display().to_string()),
            Self::Command(command) => (ask(command)?, "what it printed".to_owned()),
        };
        let bytes = hex::decode(text.expose_secret().trim());
        let key = bytes.filter(|bytes| bytes.len() == KEY_BYTES);
        key.map(SecretSlice::from).ok_or(KeyError::Form { origin })
    }
}

/// Makes a new key in a file that is not there yet: what is there is never replaced.
pub(crate) fn make(path: &Path) -> Result<SecretString, KeyError> {
    write_new(path).map_err(|source| failed("make", path, source))
}

/// Moves a key's file into the place of another, durably.
pub(crate) fn replace(from: &Path, to: &Path) -> Result<(), KeyError> {
    let moved = fs::rename(from, to).and_then(|()| flush_folder(to));
    moved.map_err(|source| failed("replace", to, source))
}

/// Removes a key's file, if there is one, durably.
pub(crate) fn remove(path: &Path) -> Result<(), KeyError> {
    let removed = remove_if_there(path).and_then(|()| flush_folder(path));
    removed.map_err(|source| failed("remove", path, source))
}

/// Removes what writers of this file have left that were killed.
pub(crate) fn remove_unfinished(path: &Path) -> Result<(), KeyError> {
    let listed = fs::read_dir(folder(path)).and_then(|entries| {
        let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
        names.collect::<io::Result<Vec<OsString>>>()
    });
    let names = match listed {
        // Who may read a key and not its folder has never written there.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
        listed => listed.map_err(|source| failed("look for what is left of", path, source))?,
    };
    for name in names.iter().filter(|name| is_unfinished(path, name)) {
        remove(&path.with_file_name(name))?;
    }
    Ok(())
}

/// The file's text; a new key where there is no file. Whoever loses the file loses what was sealed with it.
fn read_or_make(path: &Path) -> Result<SecretString, KeyError> {
    let mut found = read(path);
    if matches!(&found, Err(error) if error.kind() == io::ErrorKind::NotFound) {
        match write_new(path) {
            Ok(made) => return Ok(made),
            // Somebody else was first, and theirs is the key: found, or because they have taken what was not finished for left.
            Err(error)
                if error.kind() == io::ErrorKind::AlreadyExists
                    || error.kind() == io::ErrorKind::NotFound && path.exists() =>
            {
                found = read(path);
            }
            Err(source) => return Err(failed("make", path, source)),
        }
    }
    found.map_err(|source| failed("read", path, source))
}

fn read(path: &Path) -> io::Result<SecretString> {
    let mut text = String::new();
    fs::File::open(path)?
        .take(KEY_TEXT)
        .read_to_string(&mut text)?;
    warn_of_readers(path);
    Ok(SecretString::from(text))
}

/// Says so when everybody on this machine may read a key. Its group may: that is how other programs are given one.
pub(crate) fn warn_of_readers(path: &Path) {
    if is_readable_by_all(path) {
        tracing::warn!(path = %path.display(), "every user of this machine may read this key: chmod 600 it");
    }
}

fn is_readable_by_all(path: &Path) -> bool {
    let found = fs::metadata(path);
    found.is_ok_and(|found| found.permissions().mode() & 0o004 != 0)
}

/// Whole or not at all, for its owner only, and flushed before anything is sealed with it.
fn write_new(path: &Path) -> io::Result<SecretString> {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key)
        .map_err(|_| io::Error::other("the operating system gives no random bytes"))?;
    let text = SecretString::from(format!("{}\n", hex::encode(&key)));
    let unfinished = unfinished(path)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)?;
    let written = file
        .write_all(text.expose_secret().as_bytes())
        .and_then(|()| file.sync_all())
        // Unlike a rename, it takes no other file's place.
        .and_then(|()| fs::hard_link(&unfinished, path));
    // A server that finds its key removes what others have left, too.
    remove_if_there(&unfinished)?;
    written?;
    flush_folder(path)?;
    // What the next one will find.
    read(path)
}

/// `.NAME.part-RANDOM` beside the file: a name that nobody gives to a key. Several containers that share the folder may
/// have the same number of process.
fn unfinished(path: &Path) -> io::Result<PathBuf> {
    let mut name = unfinished_prefix(path);
    name.push(hex::random()?);
    Ok(path.with_file_name(name))
}

fn unfinished_prefix(path: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".part-");
    name
}

fn is_unfinished(path: &Path, name: &OsStr) -> bool {
    let prefix = unfinished_prefix(path);
    let random = name.as_bytes().strip_prefix(prefix.as_bytes());
    random.is_some_and(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn flush_folder(path: &Path) -> io::Result<()> {
    fs::File::open(folder(path))?.sync_all()
}

/// Where a file is; one named without a folder is in the present one.
fn folder(path: &Path) -> &Path {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
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
    use std::sync::Barrier;

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
        assert!(!is_readable_by_all(&path));
        assert!(make(&path).is_err(), "no key is replaced");
        assert_eq!(made.expose_secret(), source.read().unwrap().expose_secret());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// As in containers, where each of them is process 1.
    #[test]
    fn all_who_make_a_key_with_one_process_number_have_the_same_one() {
        for _ in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("key");
            let source = KeySource::File(path.clone());
            let together = Barrier::new(4);
            let keys = std::thread::scope(|scope| {
                let make = || {
                    together.wait();
                    source.read().map(|key| key.expose_secret().to_vec())
                };
                let makers = [(); 4].map(|()| scope.spawn(make));
                makers.map(|maker| maker.join().unwrap().unwrap())
            });
            let kept = source.existing().unwrap();
            assert!(keys.iter().all(|key| key == kept.expose_secret()));
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn a_key_that_everybody_may_read_is_told_from_one_that_a_group_may() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, "").unwrap();
        for (mode, expected) in [(0o600, false), (0o640, false), (0o644, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_readable_by_all(&path), expected, "{mode:o}");
        }
        assert!(!is_readable_by_all(&folder.path().join("none")));
    }

    #[test]
    fn only_what_a_writer_has_left_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets.key");
        let own = [
            "secrets.new",
            "secrets.key.new",
            ".secrets.key.part-",
            ".secrets.key.part-x",
        ];
        let left = [
            ".secrets.key.part-1",
            ".secrets.key.part-4194303",
            ".secrets.key.part-0123456789abcdef",
        ];
        for name in own.iter().chain(&left) {
            fs::write(folder.path().join(name), "").unwrap();
        }
        remove_unfinished(&path).unwrap();
        for name in own {
            assert!(folder.path().join(name).exists(), "{name}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), own.len());
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
