//! Tags of release images.

use crate::config::ServiceName;
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

/// Whether a tag stands for a release, in a repository where `is_there` says which tags there are. Images of other services
/// are tagged `NAME-TAG` beside it, and signatures and papers by the digest that they are about.
#[must_use]
pub fn is_of_a_release(tag: &str, is_there: impl Fn(&str) -> bool) -> bool {
    let of_a_digest = ["sha256-", "sha512-"].iter().any(|algorithm| {
        let hex = tag.strip_prefix(algorithm).unwrap_or_default();
        hex.len() >= 64 && hex.bytes().take(64).all(|b| b.is_ascii_hexdigit())
    });
    let dashes = tag.match_indices('-').map(|(at, _)| tag.split_at(at));
    let mut services = dashes.filter(|(name, _)| name.parse::<ServiceName>().is_ok());
    !of_a_digest && !services.any(|(_, release)| is_there(&release[1..]))
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
    fn releases_are_told_from_the_services_beside_them() {
        let signature = format!("sha256-{}.sig", "ab".repeat(32));
        let all = [
            "v1",
            "v2-rc-1",
            "api-v1",
            "my-db-v1",
            "api-v2-rc-1",
            "api-v9",
            "deploy-1-a1b2c3d",
            &signature,
        ];
        let releases = all
            .into_iter()
            .filter(|tag| is_of_a_release(tag, |other| all.contains(&other)));
        let releases: Vec<&str> = releases.collect();
        assert_eq!(releases, ["v1", "v2-rc-1", "api-v9", "deploy-1-a1b2c3d"]);
    }

    #[test]
    fn validity() {
        assert!(is_valid("v1.0.0") && is_valid("_x") && is_valid(&"a".repeat(128)));
        for bad in ["", "-a", ".a", "a b", "a/b", "ä", &"a".repeat(129)] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
