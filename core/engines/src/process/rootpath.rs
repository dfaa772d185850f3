//! Where a path of an image lies on this machine: symbolic links followed as a process confined
//! to the image would follow them, never past its root.
//!
//! The walk is by name, not by descriptor. That is sound because whoever calls this owns the tree
//! alone: an image being unpacked, or an instance that has not been started.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

/// As many links as Linux follows before it answers `ELOOP`.
const MAX_LINKS: u32 = 40;

/// What to do with a symbolic link in the last place of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Last {
    /// Resolve it too: the path is about to be read, run or mounted over.
    Follow,
    /// Leave it: the entry itself is meant.
    Keep,
}

/// Why a path of an image was refused.
#[derive(Debug, thiserror::Error)]
pub enum RootPathError {
    /// `..` leads above the root of the image, in the path or in a link it goes through.
    #[error("`{path}` leads out of the image")]
    Escapes {
        /// The path as given.
        path: PathBuf,
    },
    /// Links that lead to each other.
    #[error("`{path}` goes through too many symbolic links")]
    TooManyLinks {
        /// The path as given.
        path: PathBuf,
    },
    /// The file system did not answer.
    #[error("look at `{path}` in the image")]
    Io {
        /// The path as given.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The place of `path` below `root`. What does not exist is taken as written, so the answer may
/// name something to be created. Absolute links start again at `root`.
pub(crate) fn resolve(root: &Path, path: &Path, last: Last) -> Result<PathBuf, RootPathError> {
    let mut walk = Walk {
        path,
        real: Vec::new(),
        pending: VecDeque::new(),
        links: 0,
    };
    walk.queue(path);
    while let Some(name) = walk.pending.pop_front() {
        walk.step(root, name, last)?;
    }
    Ok(walk.place(root))
}

/// Like [`resolve`] with [`Last::Follow`], and `None` when nothing is there or it is out of bounds.
pub(crate) fn existing(root: &Path, path: &Path) -> Option<PathBuf> {
    let place = resolve(root, path, Last::Follow).ok()?;
    place.symlink_metadata().is_ok().then_some(place)
}

struct Walk<'a> {
    path: &'a Path,
    real: Vec<OsString>,
    pending: VecDeque<OsString>,
    links: u32,
}

impl Walk<'_> {
    fn place(&self, root: &Path) -> PathBuf {
        let mut place = root.to_path_buf();
        place.extend(&self.real);
        place
    }

    /// Puts the components of `path` before what is still pending.
    fn queue(&mut self, path: &Path) {
        let names = path.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
        });
        let names: Vec<_> = names.collect();
        for name in names.into_iter().rev() {
            self.pending.push_front(name);
        }
    }

    fn step(&mut self, root: &Path, name: OsString, last: Last) -> Result<(), RootPathError> {
        if name == ".." {
            let popped = self.real.pop();
            return popped.map(drop).ok_or_else(|| self.escapes());
        }
        self.real.push(name);
        if self.pending.is_empty() && last == Last::Keep {
            return Ok(());
        }
        let place = self.place(root);
        match place.symlink_metadata() {
            Ok(found) if found.is_symlink() => self.follow(&place),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(RootPathError::Io {
                path: self.path.to_owned(),
                source,
            }),
        }
    }

    fn follow(&mut self, link: &Path) -> Result<(), RootPathError> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(RootPathError::TooManyLinks {
                path: self.path.to_owned(),
            });
        }
        let target = link.read_link().map_err(|source| RootPathError::Io {
            path: self.path.to_owned(),
            source,
        })?;
        if target.is_absolute() {
            self.real.clear();
        } else {
            self.real.pop();
        }
        self.queue(&target);
        Ok(())
    }

    fn escapes(&self) -> RootPathError {
        RootPathError::Escapes {
            path: self.path.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/lib")).unwrap();
        symlink("usr/lib", root.path().join("lib")).unwrap();
        symlink("/usr", root.path().join("absolute")).unwrap();
        symlink("../../etc", root.path().join("usr/out")).unwrap();
        symlink("loop", root.path().join("loop")).unwrap();
        root
    }

    fn check(path: &str, last: Last, expected: &str) {
        let root = tree();
        let place = resolve(root.path(), Path::new(path), last).unwrap();
        assert_eq!(
            place.strip_prefix(root.path()).unwrap(),
            Path::new(expected),
            "{path}"
        );
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        check("/lib/x/y", Last::Follow, "usr/lib/x/y");
        check("absolute/lib/z", Last::Keep, "usr/lib/z");
        check("lib", Last::Keep, "lib");
        check("lib", Last::Follow, "usr/lib");
        check("usr/./lib/..", Last::Follow, "usr");
        check("/", Last::Follow, "");
    }

    #[test]
    fn nothing_leads_out_of_the_root() {
        let root = tree();
        for path in ["..", "usr/../../etc", "usr/out/passwd"] {
            let refused = resolve(root.path(), Path::new(path), Last::Follow).unwrap_err();
            assert!(
                matches!(refused, RootPathError::Escapes { .. }),
                "{path}: {refused}"
            );
        }
    }

    #[test]
    fn links_that_lead_to_each_other_end() {
        let root = tree();
        let refused = resolve(root.path(), Path::new("loop/x"), Last::Follow).unwrap_err();
        assert!(matches!(refused, RootPathError::TooManyLinks { .. }));
    }
}
