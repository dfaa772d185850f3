//! Paths inside an image, as texts: relative to its root, without `.`, `..` and doubled slashes.

/// The path that `text` means from the root.
pub(crate) fn clean(text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            // As the kernel does it: above the root is the root.
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

/// The folder that holds `path`; empty for the root.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// The last part of `path`.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Whether `path` lies below `folder`.
pub(super) fn is_below(path: &str, folder: &str) -> bool {
    folder.is_empty()
        || path
            .strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        assert_eq!(clean("./usr//lib/../lib64/"), "usr/lib64");
        assert_eq!(clean("/../etc/passwd"), "etc/passwd");
        assert_eq!((parent("a/b"), parent("a")), ("a", ""));
        assert_eq!((file_name("a/b"), file_name("a")), ("b", "a"));
        assert!(is_below("a/b", "a") && !is_below("ab", "a") && is_below("a", ""));
    }
}
