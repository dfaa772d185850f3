//! Paths inside an image, as text: always with `/`, whatever machine this runs on.

use std::path::{Component, Path, PathBuf};

/// `path` seen from the directory `from`, without `.` and `..`. A trailing `/` or `/.`, which says
/// that a directory is meant, stays as a trailing `/`.
pub(crate) fn absolute(from: &str, path: &str) -> String {
    let directory = means_directory(path);
    let joined = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("{from}/{path}")
    };
    let mut clean = clean(&joined);
    if directory && !clean.ends_with('/') {
        clean.push('/');
    }
    clean
}

/// Whether a destination can only be a directory.
pub(crate) fn means_directory(path: &str) -> bool {
    path.is_empty() || path == "." || path.ends_with('/') || path.ends_with("/.")
}

/// An absolute path without `.`, `..` and doubled slashes; `..` stops at the root.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// A path below the root of an image or context: relative, without `.` and `..`.
pub(crate) fn below_root(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_absolute_and_keep_what_says_directory() {
        let check = |from: &str, path: &str, expected: &str| {
            assert_eq!(absolute(from, path), expected, "{path} from {from}");
        };
        check("/app", "bin", "/app/bin");
        check("/app", "bin/", "/app/bin/");
        check("/app", "./bin/.", "/app/bin/");
        check("/app", ".", "/app/");
        check("/app", "", "/app/");
        check("/", ".", "/");
        check("/app", "../etc/x", "/etc/x");
        check("/app", "/../../x//y", "/x/y");
    }
}
