//! What an address under `/v2/` means. Repository names hold slashes, so it is read from its end.

use oci::{Digest, ParseDigestError, Repository, Tag};

use crate::error::RegistryError;
use crate::session::UploadId;

/// A tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Tag(Tag),
    Digest(Digest),
}

/// A thing of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Thing {
    Blob(Digest),
    Uploads,
    Upload(UploadId),
    Manifest(Target),
    Tags,
    Referrers(Digest),
}

/// A thing and its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) repository: Repository,
    pub(crate) thing: Thing,
}

impl Route {
    /// Reads what follows `/v2/`.
    pub(crate) fn parse(path: &str) -> Result<Self, RegistryError> {
        let mut parts: Vec<&str> = path.split('/').collect();
        if parts.len() > 1 && parts.last() == Some(&"") {
            parts.pop();
        }
        let (name, thing) = match parts.as_slice() {
            [name @ .., "blobs", "uploads"] => (name, Thing::Uploads),
            [name @ .., "blobs", "uploads", id] => {
                let id = UploadId::parse(id).ok_or(RegistryError::BlobUploadUnknown)?;
                (name, Thing::Upload(id))
            }
            [name @ .., "blobs", digest] => (name, Thing::Blob(parse_digest(digest)?)),
            [name @ .., "manifests", target] => (name, Thing::Manifest(parse_target(target)?)),
            [name @ .., "tags", "list"] => (name, Thing::Tags),
            [name @ .., "referrers", digest] => (name, Thing::Referrers(parse_digest(digest)?)),
            _ => return Err(RegistryError::NotFound),
        };
        let name = name.join("/");
        match name.parse() {
            Ok(repository) => Ok(Self { repository, thing }),
            Err(_) => Err(RegistryError::NameInvalid { name }),
        }
    }
}

pub(crate) fn parse_digest(text: &str) -> Result<Digest, RegistryError> {
    text.parse().map_err(digest_invalid)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
pub(crate) fn digest_invalid(error: ParseDigestError) -> RegistryError {
    RegistryError::DigestInvalid {
        detail: error.to_string(),
    }
}

fn parse_target(text: &str) -> Result<Target, RegistryError> {
    if text.contains(':') {
        return parse_digest(text).map(Target::Digest);
    }
    // No manifest can be under a name that is no tag.
    text.parse()
        .map(Target::Tag)
        .map_err(|_| RegistryError::ManifestUnknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(path: &str) -> (String, Thing) {
        let route = Route::parse(path).unwrap();
        (route.repository.to_string(), route.thing)
    }

    #[test]
    fn names_may_look_like_anything() {
        let digest = Digest::of(b"x");
        assert_eq!(thing("a/blobs/uploads/"), ("a".to_owned(), Thing::Uploads));
        assert_eq!(thing("a/blobs/uploads"), ("a".to_owned(), Thing::Uploads));
        let nested = format!("blobs/uploads/tags/blobs/{digest}");
        assert_eq!(
            thing(&nested),
            ("blobs/uploads/tags".to_owned(), Thing::Blob(digest))
        );
        assert_eq!(thing("a/b/tags/list"), ("a/b".to_owned(), Thing::Tags));
        let tag = Thing::Manifest(Target::Tag("v1".parse().unwrap()));
        assert_eq!(thing("a/manifests/v1"), ("a".to_owned(), tag));
        let manifest = Thing::Manifest(Target::Digest(digest));
        assert_eq!(
            thing(&format!("a/manifests/{digest}")),
            ("a".to_owned(), manifest)
        );
    }

    #[test]
    fn what_is_not_in_the_specification_is_refused() {
        for path in [
            "",
            "a",
            "_catalog",
            "a/blobs/sha256:1",
            "../a/tags/list",
            "a/../b/tags/list",
            "A/tags/list",
            "/tags/list",
            "tags/list",
            "a//tags/list",
            "a/manifests/.x",
            "a/blobs/uploads/..",
            "a/blobs/uploads/x",
        ] {
            assert!(Route::parse(path).is_err(), "{path}");
        }
    }
}
