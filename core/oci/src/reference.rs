//! Names of images: `registry[:port]/repository[:tag][@digest]`.
//!
//! The grammar is the one of `distribution/reference`, with Docker's short forms: `debian` means
//! `docker.io/library/debian`. No tag is made up: a reference without one has none, because
//! `latest` is a choice of the caller.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, ParseDigestError};

const DEFAULT_REGISTRY: &str = "docker.io";
/// Longest repository name the grammar allows, in bytes.
const REPOSITORY_LIMIT: usize = 255;
/// Longest tag the grammar allows, in bytes.
const TAG_LIMIT: usize = 128;

/// Why a text names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseReferenceError {
    /// The registry's host or port.
    #[error("`{text}` is not a registry, expected host or host:port")]
    Registry {
        /// The text as given.
        text: String,
    },
    /// The repository.
    #[error(
        "`{text}` is not a repository name, expected lower-case words joined by `/`, `.`, `_` or `-`"
    )]
    Repository {
        /// The text as given.
        text: String,
    },
    /// The tag.
    #[error("`{text}` is not a tag, expected up to 128 of a-z, A-Z, 0-9, `_`, `.` and `-`")]
    Tag {
        /// The text as given.
        text: String,
    },
    /// A user and a password before an `@`. They are not repeated.
    #[error(
        "a name of an image carries no user and no password: they are given to its registry, as by `docker login`"
    )]
    Credentials,
    /// The digest after `@`.
    #[error(transparent)]
    Digest(#[from] ParseDigestError),
}

/// The name of a repository within a registry. Safe as a relative path: it holds no `..`, no
/// leading slash, and no part that begins with anything but a lower-case letter or a digit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository(String);

impl Repository {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Repository {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() <= REPOSITORY_LIMIT && text.split('/').all(is_path_component) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseReferenceError::Repository {
                text: text.to_owned(),
            })
        }
    }
}

/// A tag: a movable name of a manifest within a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// The tag.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let starts = text.bytes().next().is_some_and(word);
        let holds = text.bytes().all(|b| word(b) || b == b'.' || b == b'-');
        if starts && holds && text.len() <= TAG_LIMIT {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseReferenceError::Tag {
                text: text.to_owned(),
            })
        }
    }
}

/// The full name of an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: Repository,
    tag: Option<Tag>,
    digest: Option<Digest>,
}

impl Reference {
    /// Joins a registry (`host` or `host:port`) and a repository.
    pub fn new(registry: &str, repository: Repository) -> Result<Self, ParseReferenceError> {
        check_registry(registry)?;
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag: None,
            digest: None,
        })
    }

    /// The registry, `host` or `host:port`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The tag, if one was written.
    #[must_use]
    pub fn tag(&self) -> Option<&Tag> {
        self.tag.as_ref()
    }

    /// The digest, if one was written.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The same repository under this tag, without a digest: the old one would contradict it.
    #[must_use]
    pub fn with_tag(&self, tag: Tag) -> Self {
        Self {
            tag: Some(tag),
            digest: None,
            ..self.clone()
        }
    }

    /// The same name pinned to a digest.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// The name by digest alone, as deployments use it.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// Whether the registry is on this machine, where plain HTTP harms nobody.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        is_loopback_registry(&self.registry)
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if carries_credentials(text) {
            return Err(ParseReferenceError::Credentials);
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse()?)),
            None => (text, None),
        };
        let (registry, rest) = split_registry(name);
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) => (path, Some(tag.parse()?)),
            None => (rest, None),
        };
        check_registry(registry)?;
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}").parse()
        } else {
            path.parse()
        };
        let repository = repository.map_err(|_| ParseReferenceError::Repository {
            text: path.to_owned(),
        })?;
        Ok(Self {
            registry: registry.to_owned(),
            repository,
            tag,
            digest,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Implements text forms by way of `FromStr` and the string inside.
macro_rules! text_forms {
    ($name:ty) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Implements `Display` and `AsRef<str>` over the string inside.
macro_rules! string_forms {
    ($name:ty) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

text_forms!(Repository);
text_forms!(Tag);
text_forms!(Reference);
string_forms!(Repository);
string_forms!(Tag);

/// Whether a registry (`host` or `host:port`) is on this machine.
#[must_use]
pub fn is_loopback_registry(registry: &str) -> bool {
    let host = split_port(registry).0;
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let by_name = address.eq_ignore_ascii_case("localhost")
        || address.to_ascii_lowercase().ends_with(".localhost");
    by_name || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a user or a password stands before an `@`, as in `https://user:password@host/name` or without its scheme.
/// A digest has an `@` of its own, after a repository.
fn carries_credentials(text: &str) -> bool {
    let Some((before, after)) = text.split_once('@') else {
        return false;
    };
    if before.contains("://") {
        return true;
    }
    let user = before.split('/').next().unwrap_or(before);
    let is_host = before.contains('/') && check_registry(user).is_ok();
    user.contains(':') && !is_host && after.contains('/')
}

/// Docker's rule: the first part is a registry if it could not be part of a repository.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest)) if looks_like_registry(first) => match first {
            "index.docker.io" => (DEFAULT_REGISTRY, rest),
            _ => (first, rest),
        },
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn looks_like_registry(first: &str) -> bool {
    first == "localhost"
        || first.contains(['.', ':', '['])
        || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn check_registry(registry: &str) -> Result<(), ParseReferenceError> {
    let (host, port) = split_port(registry);
    let port_holds = port.is_none_or(|port| {
        !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok()
    });
    if port_holds && is_host(host) {
        Ok(())
    } else {
        Err(ParseReferenceError::Registry {
            text: registry.to_owned(),
        })
    }
}

/// Splits off the port; colons within `[…]` belong to an IPv6 address.
fn split_port(registry: &str) -> (&str, Option<&str>) {
    match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    }
}

fn is_host(host: &str) -> bool {
    if let Some(inner) = host.strip_prefix('[') {
        let address = inner.strip_suffix(']');
        return address.is_some_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok());
    }
    host.split('.').all(|label| {
        let inside = label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-');
        inside && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    })
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(part: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(|b| word(*b));
    if !ends(bytes.first()) || !ends(bytes.last()) {
        return false;
    }
    part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || is_dashes(separator))
}

fn is_dashes(separator: &str) -> bool {
    separator.bytes().all(|b| b == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn short_forms_become_full_names() {
        assert_eq!(full("debian"), "docker.io/library/debian");
        assert_eq!(
            full("debian:bookworm-slim"),
            "docker.io/library/debian:bookworm-slim"
        );
        assert_eq!(full("org/app:1"), "docker.io/org/app:1");
        assert_eq!(full("index.docker.io/org/app"), "docker.io/org/app");
        assert_eq!(full("localhost/app"), "localhost/app");
        assert_eq!(full("localhost:5000/a/b:t"), "localhost:5000/a/b:t");
        assert_eq!(full("[::1]:5000/app:t"), "[::1]:5000/app:t");
        assert_eq!(full("ghcr.io/a__b/c--d.e"), "ghcr.io/a__b/c--d.e");
    }

    #[test]
    fn tag_and_digest_stand_together() {
        let digest = Digest::of(b"x");
        let reference: Reference = format!("r.io/app:v1@{digest}").parse().unwrap();
        assert_eq!(reference.tag().unwrap().as_str(), "v1");
        assert_eq!(reference.digest(), Some(&digest));
        assert_eq!(
            reference.with_tag("v2".parse().unwrap()).to_string(),
            "r.io/app:v2"
        );
        assert_eq!(
            reference.pinned(digest).to_string(),
            format!("r.io/app@{digest}")
        );
    }

    #[test]
    fn what_the_grammar_forbids_is_refused() {
        let long = "a/".repeat(128) + "a";
        for text in [
            "",
            ":",
            "@",
            "App",
            "a//b",
            "../etc",
            "a/../b",
            "a/.b",
            "a_/b",
            "a/b___c",
            "a:",
            "r.io/",
            "r.io:99999/a",
            "r.io:/a",
            "-r.io/a",
            "[::1/a",
            "a:b:c",
            "a@sha256:00",
            "a b",
            "r.io/a:té",
            "/a",
            "a/",
            &long,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text} was accepted");
        }
        assert!("a".repeat(129).parse::<Tag>().is_err());
        assert!(".a".parse::<Tag>().is_err());
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        for text in [
            "https://ada:hunter2@r.io/app:1",
            "https://hunter2@r.io/app",
            "ada:hunter2@r.io/app:1",
            "ada:hunter@2@r.io/app",
            "ada:hunter2@r.io:5000/a/b",
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert_eq!(error, ParseReferenceError::Credentials, "{text}");
            assert!(!error.to_string().contains("hunter"));
        }
        for text in ["debian:12@sha25:00", "r.io:5000/app@1/2", "app@x/y"] {
            let error = text.parse::<Reference>().unwrap_err();
            assert_ne!(error, ParseReferenceError::Credentials, "{text}");
        }
    }

    #[test]
    fn loopback_is_told_from_the_rest() {
        for registry in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:1",
            "127.8.8.8",
            "[::1]:5000",
        ] {
            assert!(is_loopback_registry(registry), "{registry}");
        }
        for registry in [
            "docker.io",
            "10.0.0.1:5000",
            "localhost.example.com",
            "127.0.0.1.nip.io",
        ] {
            assert!(!is_loopback_registry(registry), "{registry}");
        }
    }

    proptest! {
        #[test]
        fn a_parsed_name_prints_and_parses_again(
            registry in "([a-z][a-z0-9]{0,5}\\.[a-z]{2,3}|localhost)(:[1-9][0-9]{0,3})?",
            repository in "[a-z0-9]{1,4}([._-][a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,4}(__[a-z0-9]{1,3})?){0,3}",
            tag in proptest::option::of("[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}"),
            digest in proptest::option::of(any::<Vec<u8>>()),
        ) {
            let mut text = format!("{registry}/{repository}");
            if let Some(tag) = &tag {
                text = format!("{text}:{tag}");
            }
            if let Some(bytes) = &digest {
                text = format!("{text}@{}", Digest::of(bytes));
            }
            let reference: Reference = text.parse().unwrap();
            prop_assert_eq!(reference.to_string(), text);
        }

        #[test]
        fn any_text_parses_or_fails_without_panic(text in ".{0,60}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let again: Reference = reference.to_string().parse().unwrap();
                prop_assert_eq!(again, reference);
            }
        }

        #[test]
        fn a_repository_never_leaves_its_folder(text in "[a-z./_-]{0,12}") {
            if let Ok(repository) = text.parse::<Repository>() {
                let path = std::path::Path::new(repository.as_str());
                prop_assert!(path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
                prop_assert!(!path.to_str().unwrap().split('/').any(|part| part.starts_with('_')));
            }
        }
    }
}
