//! What tags mean beside releases. A release of several services has a tag for each image, in the tenant's one repository.

/// The longest name of a service.
const LONGEST_NAME: usize = 30;

/// Whether a tag stands for a release, in a repository where `is_there` says which tags there are. Images of other services
/// are tagged `NAME-TAG` beside it, and signatures and papers by the digest that they are about.
#[must_use]
pub fn is_of_a_release(tag: &str, is_there: impl Fn(&str) -> bool) -> bool {
    let of_a_digest = ["sha256-", "sha512-"].iter().any(|algorithm| {
        let hex = tag.strip_prefix(algorithm).unwrap_or_default();
        hex.len() >= 64 && hex.bytes().take(64).all(|b| b.is_ascii_hexdigit())
    });
    let dashes = tag.match_indices('-').map(|(at, _)| tag.split_at(at));
    let mut services = dashes.filter(|(name, _)| is_service_name(name));
    !of_a_digest && !services.any(|(_, release)| is_there(&release[1..]))
}

/// Whether a service may be called so: 1 to 30 lower-case letters, digits and single dashes between them, a letter first.
#[must_use]
pub fn is_service_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= LONGEST_NAME
        && name.chars().all(allowed)
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && !name.contains("--")
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn names_of_services() {
        for name in ["api", "a", "db-2", "a1-b2", &"a".repeat(30)] {
            assert!(is_service_name(name), "{name}");
        }
        for name in [
            "",
            "Api",
            "2nd",
            "-a",
            "a-",
            "a--b",
            "a_b",
            "a.b",
            &"a".repeat(31),
        ] {
            assert!(!is_service_name(name), "{name}");
        }
    }
}
