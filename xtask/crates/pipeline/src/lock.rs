//! `.systemprompt/deploy.lock`: which image each base image's name means, by digest.
//!
//! A tag moves whenever somebody pushes; with the lock the same commit stands on the same base on
//! every machine until the lock is updated. It is committed, and merged like any other text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use deploy_config::{project, replace_file};
use oci::{Digest, Platform, Reference, Tag};
use serde::Deserialize;

/// The file, beside `deploy.toml`.
pub const FILE: &str = "deploy.lock";
/// Locked by whoever changes it; not the file itself, which is replaced.
const TURN: &str = "cache/pins.lock";
const VERSION: u32 = 1;
const HEAD: &str = "# The base images of this project. Written by `cargo xtask`; commit it.\n\
     # `cargo xtask lock --update` looks for newer ones.\n";

/// Why the lock cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// It is no lock, or what a merge has left of one.
    #[error("{} is not a lock file", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A later version of this tool wrote it.
    #[error("{} has version {found}, this tool knows version {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
}

/// A name and a platform: what a digest is kept for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pin {
    /// The full name: `docker.io/library/debian:bookworm`.
    pub reference: String,
    /// `linux/amd64`
    pub platform: String,
}

impl Pin {
    /// What a reference means for a platform; one without a tag means `latest`, as with Docker.
    #[must_use]
    pub fn of(reference: &Reference, platform: &Platform) -> Self {
        let latest = || "latest".parse::<Tag>().ok();
        let tag = reference.tag().cloned().or_else(latest);
        let reference = tag.map_or_else(|| reference.clone(), |tag| reference.with_tag(tag));
        Self {
            reference: reference.to_string(),
            platform: platform_text(platform),
        }
    }

    /// The platform, read again.
    #[must_use]
    pub fn machines(&self) -> Platform {
        let mut parts = self.platform.split('/').map(str::to_owned);
        Platform {
            os: parts.next().unwrap_or_default(),
            architecture: parts.next().unwrap_or_default(),
            os_version: None,
            variant: parts.next(),
        }
    }
}

/// `os/architecture[/variant]`
#[must_use]
pub fn platform_text(platform: &Platform) -> String {
    let Platform {
        os, architecture, ..
    } = platform;
    match &platform.variant {
        Some(variant) => format!("{os}/{architecture}/{variant}"),
        None => format!("{os}/{architecture}"),
    }
}

/// The lock of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    path: PathBuf,
    pins: BTreeMap<Pin, Digest>,
}

/// All that is read before the version is known.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    #[serde(rename = "version")]
    _version: u32,
    #[serde(default)]
    base: Vec<BaseRecord>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BaseRecord {
    reference: Reference,
    platform: String,
    digest: Digest,
}

impl Lock {
    /// Reads the lock in the folder `.systemprompt`; one that is not there is empty.
    pub fn read(folder: &Path) -> Result<Self, LockError> {
        let path = folder.join(FILE);
        let pins = match fs::read_to_string(&path) {
            // An empty one, too: it is what a loss of power has left, and not a lock without pins.
            Ok(text) => pins(&path, &text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(source) => return Err(LockError::Read { path, source }),
        };
        Ok(Self { path, pins })
    }

    /// The digest of the image that a name means.
    #[must_use]
    pub fn get(&self, pin: &Pin) -> Option<Digest> {
        self.pins.get(pin).copied()
    }

    /// All of them.
    pub fn pins(&self) -> impl Iterator<Item = (&Pin, &Digest)> {
        self.pins.iter()
    }

    /// Notes a digest in the file, and leaves alone what another run has noted since.
    pub fn set(&mut self, pin: Pin, digest: Digest) -> Result<(), LockError> {
        let _turn = self.read_alone()?;
        if self.pins.insert(pin, digest) == Some(digest) {
            return Ok(());
        }
        self.keep()
    }

    /// Takes pins out of the file, and leaves alone what another run has noted since.
    pub fn remove(&mut self, pins: &[Pin]) -> Result<(), LockError> {
        if pins.is_empty() {
            return Ok(());
        }
        let _turn = self.read_alone()?;
        let before = self.pins.len();
        self.pins.retain(|pin, _| !pins.contains(pin));
        if self.pins.len() == before {
            return Ok(());
        }
        self.keep()
    }

    /// Reads it anew. No other run changes it until the file that this returns is dropped.
    fn read_alone(&mut self) -> Result<File, LockError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let turn = take_turn(folder).map_err(|source| self.unwritten(source))?;
        self.pins = Self::read(folder)?.pins;
        Ok(turn)
    }

    fn keep(&self) -> Result<(), LockError> {
        replace_file(&self.path, self.text().as_bytes(), 0o644)
            .map_err(|source| self.unwritten(source))
    }

    fn unwritten(&self, source: io::Error) -> LockError {
        LockError::Write {
            path: self.path.clone(),
            source,
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{HEAD}version = {VERSION}\n");
        for (
            Pin {
                reference,
                platform,
            },
            digest,
        ) in &self.pins
        {
            // Neither of the three can hold a quote or a backslash.
            let _ = write!(
                text,
                "\n[[base]]\nreference = \"{reference}\"\nplatform = \"{platform}\"\ndigest = \"{digest}\"\n"
            );
        }
        text
    }
}

/// Waits until no other run changes the lock.
fn take_turn(folder: &Path) -> io::Result<File> {
    let path = folder.join(TURN);
    if let Some(cache) = path.parent() {
        fs::create_dir_all(cache)?;
        project::ignore_all(cache)?;
    }
    let turn = File::options().create(true).append(true).open(path)?;
    turn.lock()?;
    Ok(turn)
}

fn pins(path: &Path, text: &str) -> Result<BTreeMap<Pin, Digest>, LockError> {
    let path = || path.to_owned();
    let malformed = |source| LockError::Malformed {
        path: path(),
        source: Box::new(source),
    };
    let Version { version: found } = toml::from_str(text).map_err(malformed)?;
    if found != VERSION {
        return Err(LockError::Version {
            path: path(),
            found,
        });
    }
    let record: Record = toml::from_str(text).map_err(malformed)?;
    let pins = record.base.into_iter().map(|base| {
        let pin = Pin {
            reference: base.reference.to_string(),
            platform: base.platform,
        };
        (pin, base.digest)
    });
    Ok(pins.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(reference: &str, architecture: &str) -> Pin {
        let platform = Platform {
            architecture: architecture.to_owned(),
            ..Platform::host()
        };
        Pin::of(&reference.parse().unwrap(), &platform)
    }

    #[test]
    fn what_is_set_is_read_again_and_stands_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut lock = Lock::read(folder.path()).unwrap();
        let mut other = lock.clone();
        let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
        lock.set(pin("debian:12", "amd64"), one).unwrap();
        // A second run, which has read the lock before the first one wrote it.
        other.set(pin("alpine", "arm64"), two).unwrap();
        let read = Lock::read(folder.path()).unwrap();
        assert_eq!(
            read.get(&pin("docker.io/library/debian:12", "amd64")),
            Some(one)
        );
        assert_eq!(read.get(&pin("alpine:latest", "arm64")), Some(two));
        assert_eq!(read.get(&pin("debian:12", "arm64")), None);
        let text = fs::read_to_string(folder.path().join(FILE)).unwrap();
        let expected = format!(
            "{HEAD}version = 1\n\n[[base]]\nreference = \"docker.io/library/alpine:latest\"\n\
             platform = \"linux/arm64\"\ndigest = \"{two}\"\n\n[[base]]\n\
             reference = \"docker.io/library/debian:12\"\nplatform = \"linux/amd64\"\n\
             digest = \"{one}\"\n"
        );
        assert_eq!(text, expected);
        let left = fs::read_dir(folder.path()).unwrap();
        let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["cache", FILE]);
    }

    #[test]
    fn runs_that_pin_at_the_same_moment_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (runs, pins) = (4, 25);
        let name = |run: usize, number: usize| pin(&format!("run-{run}:{number}"), "amd64");
        std::thread::scope(|scope| {
            for run in 0..runs {
                let folder = folder.path();
                scope.spawn(move || {
                    for number in 0..pins {
                        let mut lock = Lock::read(folder).unwrap();
                        lock.set(name(run, number), Digest::of(b"x")).unwrap();
                    }
                });
            }
        });
        let lock = Lock::read(folder.path()).unwrap();
        assert_eq!(lock.pins().count(), runs * pins);
    }

    #[test]
    fn what_is_removed_is_gone_and_the_rest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let mut lock = Lock::read(folder.path()).unwrap();
        let (one, two) = (pin("debian:12", "amd64"), pin("alpine", "arm64"));
        lock.set(one.clone(), Digest::of(b"one")).unwrap();
        lock.set(two.clone(), Digest::of(b"two")).unwrap();
        let text = || fs::read_to_string(folder.path().join(FILE)).unwrap();
        lock.remove(std::slice::from_ref(&one)).unwrap();
        assert_eq!(
            (lock.get(&one), lock.get(&two)),
            (None, Some(Digest::of(b"two")))
        );
        let left = text();
        assert!(!left.contains("debian"), "{left}");
        // What is not there needs no writing.
        fs::write(folder.path().join(FILE), format!("{left}# by hand\n")).unwrap();
        lock.remove(&[one]).unwrap();
        assert!(text().ends_with("# by hand\n"));
    }

    #[test]
    fn what_is_no_lock_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            fs::write(folder.path().join(FILE), text).unwrap();
            Lock::read(folder.path())
        };
        assert!(matches!(
            read("<<<<<<< HEAD\nversion = 1\n"),
            Err(LockError::Malformed { .. })
        ));
        // What a loss of power has left of one: it does not mean that nothing is pinned.
        assert!(matches!(read(""), Err(LockError::Malformed { .. })));
        assert!(matches!(
            read("version = 2\nnew = 1\n"),
            Err(LockError::Version { found: 2, .. })
        ));
        assert!(matches!(
            read("version = 1\n[[base]]\nreference = \"a b\"\nplatform = \"\"\ndigest = \"x\"\n"),
            Err(LockError::Malformed { .. })
        ));
        assert!(read("version = 1\n").unwrap().pins.is_empty());
    }
}
