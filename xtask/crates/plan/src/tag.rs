//! Tags of release images.

use crate::observed::Git;

/// `deploy-{unix timestamp}-{short git sha}`; `unknown` outside git, `-dirty` appended when the tree
/// has changes that no commit holds.
#[must_use]
pub fn generate(unix_seconds: i64, git: Option<&Git>) -> String {
    match git {
        None => format!("deploy-{unix_seconds}-unknown"),
        Some(Git { sha, dirty: false }) => format!("deploy-{unix_seconds}-{sha}"),
        Some(Git { sha, dirty: true }) => format!("deploy-{unix_seconds}-{sha}-dirty"),
    }
}

/// Whether a registry accepts the text as a tag (OCI Distribution 1.1: a letter, digit or
/// underscore, then up to 127 of those and `.` and `-`).
#[must_use]
pub fn is_valid(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = tag.as_bytes();
    matches!(bytes.len(), 1..=128)
        && word(bytes[0])
        && bytes.iter().all(|&b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms() {
        let git = |dirty| Git {
            sha: "a1b2c3d".into(),
            dirty,
        };
        assert_eq!(
            generate(1_705_329_622, Some(&git(false))),
            "deploy-1705329622-a1b2c3d"
        );
        assert_eq!(
            generate(1_705_329_622, Some(&git(true))),
            "deploy-1705329622-a1b2c3d-dirty"
        );
        assert_eq!(generate(1, None), "deploy-1-unknown");
    }

    #[test]
    fn validity() {
        assert!(is_valid("v1.0.0") && is_valid("_x") && is_valid(&"a".repeat(128)));
        for bad in ["", "-a", ".a", "a b", "a/b", "ä", &"a".repeat(129)] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
