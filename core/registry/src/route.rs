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
    /// A manifest whose reference is neither a tag nor a digest, as it was written: none can be under it.
    Misnamed(String),
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
            [name @ .., "manifests", target] => (name, manifest(target)?),
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

fn manifest(reference: &str) -> Result<Thing, RegistryError> {
    if reference.contains(':') {
        return Ok(Thing::Manifest(Target::Digest(parse_digest(reference)?)));
    }
    Ok(match reference.parse() {
        Ok(tag) => Thing::Manifest(Target::Tag(tag)),
        // What that means depends on what is to be done with it, and on whether the client may.
        Err(_) => Thing::Misnamed(reference.to_owned()),
    })
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
        let long = "x".repeat(129);
        for reference in [".x", "-x", "a b", "", &long] {
            assert_eq!(
                thing(&format!("a/manifests/{reference}/")),
                ("a".to_owned(), Thing::Misnamed(reference.to_owned()))
            );
        }
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
            "A/manifests/.x",
            "a/manifests/sha256:1",
            "a/blobs/uploads/..",
            "a/blobs/uploads/x",
        ] {
            assert!(Route::parse(path).is_err(), "{path}");
        }
    }
}
