//! Manifests and tags.

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use ureq::http::Method;
use url::Url;

use super::Client;
use super::auth::Scope;
use super::blobs::named_digest;
use super::body::Payload;
use super::error::ClientError;
use super::transport::{Request, Response, header, read_limited};
use crate::digest::{Algorithm, Digest};
use crate::manifest::Descriptor;
use crate::media_type;
use crate::reference::{Repository, Tag};
use crate::tags::latest_tags;

/// What the specification asks registries to accept at least, and what they accept at most.
const MANIFEST_LIMIT: u64 = 4 * 1024 * 1024;
const TAGS_LIMIT: u64 = 4 * 1024 * 1024;
const TAGS_PER_PAGE: u32 = 1000;
/// Bounds a registry that always has one more page.
const PAGE_LIMIT: usize = 100;

/// Which manifest of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagOrDigest<'a> {
    /// The one a tag means now.
    Tag(&'a Tag),
    /// This one.
    Digest(&'a Digest),
}

impl TagOrDigest<'_> {
    /// By which what it refers to is hashed.
    fn algorithm(self) -> Algorithm {
        match self {
            Self::Tag(_) => Algorithm::Sha256,
            Self::Digest(digest) => digest.algorithm(),
        }
    }
}

impl fmt::Display for TagOrDigest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl<'a> From<&'a Tag> for TagOrDigest<'a> {
    fn from(tag: &'a Tag) -> Self {
        Self::Tag(tag)
    }
}

impl<'a> From<&'a Digest> for TagOrDigest<'a> {
    fn from(digest: &'a Digest) -> Self {
        Self::Digest(digest)
    }
}

/// A manifest as the registry keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedManifest {
    /// The digest of `bytes`, computed here.
    pub digest: Digest,
    /// What kind of manifest it is.
    pub media_type: String,
    /// The exact bytes.
    pub bytes: Vec<u8>,
}

#[derive(Deserialize)]
struct TagsPage {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Client {
    /// Asks for a manifest with a single `HEAD`; none when there is no such manifest.
    pub fn manifest_exists<'a>(
        &self,
        repository: &Repository,
        reference: impl Into<TagOrDigest<'a>>,
    ) -> Result<Option<Descriptor>, ClientError> {
        let reference = reference.into();
        let request =
            self.manifest_request("look for a manifest", Method::HEAD, repository, reference);
        let response = self.transport.send(&request.answers(&[404]))?;
        if response.status() == 404 {
            return Ok(None);
        }
        match described(&response) {
            Some(found) => Ok(Some(found)),
            // A registry that does not say the digest makes us compute it.
            None => self.get_manifest(repository, reference).map(|received| {
                let size = received.bytes.len() as u64;
                Some(Descriptor::new(received.media_type, received.digest, size))
            }),
        }
    }

    /// Gets a manifest. One asked for by digest is verified.
    pub fn get_manifest<'a>(
        &self,
        repository: &Repository,
        reference: impl Into<TagOrDigest<'a>>,
    ) -> Result<ReceivedManifest, ClientError> {
        let reference = reference.into();
        let request = self.manifest_request("get a manifest", Method::GET, repository, reference);
        let mut response = self.transport.send(&request)?;
        let bytes = read_limited(&request.site(), response.body_mut(), MANIFEST_LIMIT)?;
        self.transport.meter().received(bytes.len());
        let digest = Digest::by(reference.algorithm(), &bytes);
        let site = Box::new(request.site());
        match reference {
            TagOrDigest::Digest(expected) if *expected != digest => {
                Err(ClientError::DigestMismatch {
                    site,
                    expected: *expected,
                    actual: digest,
                })
            }
            _ => Ok(ReceivedManifest {
                digest,
                media_type: media_type_of(&response, &bytes),
                bytes,
            }),
        }
    }

    /// Puts a manifest. Its blobs must be there. Returns its digest.
    pub fn put_manifest<'a>(
        &self,
        repository: &Repository,
        reference: impl Into<TagOrDigest<'a>>,
        bytes: &[u8],
        media_type: &str,
    ) -> Result<Digest, ClientError> {
        let reference = reference.into();
        let digest = Digest::by(reference.algorithm(), bytes);
        let url = self
            .transport
            .url(&format!("{repository}/manifests/{reference}"));
        let scope = Scope::push(repository);
        let request = Request::new("put a manifest", Method::PUT, url, scope)
            .header("content-type", media_type)
            .payload(Payload::Bytes(bytes));
        let response = self.transport.send(&request)?;
        match named_digest(&response, digest.algorithm()) {
            Some(actual) if actual != digest => Err(ClientError::DigestMismatch {
                site: Box::new(request.site()),
                expected: digest,
                actual,
            }),
            _ => Ok(digest),
        }
    }

    /// Removes a tag, or a manifest with all its tags; says whether it was there.
    pub fn delete_manifest<'a>(
        &self,
        repository: &Repository,
        reference: impl Into<TagOrDigest<'a>>,
    ) -> Result<bool, ClientError> {
        let url = self
            .transport
            .url(&format!("{repository}/manifests/{}", reference.into()));
        let scope = Scope::push(repository);
        let request = Request::new("delete a manifest", Method::DELETE, url, scope).answers(&[404]);
        Ok(self.transport.send(&request)?.status() != 404)
    }

    /// All tags of a repository, in the registry's order; none when it does not exist.
    pub fn list_tags(&self, repository: &Repository) -> Result<Vec<Tag>, ClientError> {
        let mut tags = Vec::new();
        let mut url = self.transport.url(&format!("{repository}/tags/list"));
        url.set_query(Some(&format!("n={TAGS_PER_PAGE}")));
        for _ in 0..PAGE_LIMIT {
            match self.tags_page(repository, url, &mut tags)? {
                Some(next) => url = next,
                None => break,
            }
        }
        Ok(tags)
    }

    /// The last `count` tags that are wanted, newest first; see [`latest_tags`].
    pub fn latest_tags(
        &self,
        repository: &Repository,
        count: usize,
        wanted: impl Fn(&str, &HashSet<&str>) -> bool,
    ) -> Result<Vec<Tag>, ClientError> {
        let all = self.list_tags(repository)?;
        Ok(latest_tags(&all, count, wanted).cloned().collect())
    }

    fn tags_page(
        &self,
        repository: &Repository,
        url: Url,
        tags: &mut Vec<Tag>,
    ) -> Result<Option<Url>, ClientError> {
        let request = Request::new("list tags", Method::GET, url, Scope::pull(repository));
        let request = request.answers(&[404]);
        let mut response = self.transport.send(&request)?;
        if response.status() == 404 {
            return Ok(None);
        }
        let bytes = read_limited(&request.site(), response.body_mut(), TAGS_LIMIT)?;
        let page: TagsPage = serde_json::from_slice(&bytes).map_err(|_| ClientError::Protocol {
            site: Box::new(request.site()),
            detail: "the registry did not send a list of tags".to_owned(),
        })?;
        tags.extend(
            page.tags
                .unwrap_or_default()
                .iter()
                .filter_map(|tag| tag.parse().ok()),
        );
        match header(&response, "link").and_then(next_link) {
            Some(link) => request.resolve(link).map(Some),
            None => Ok(None),
        }
    }

    fn manifest_request(
        &self,
        call: &'static str,
        method: Method,
        repository: &Repository,
        reference: TagOrDigest<'_>,
    ) -> Request<'static> {
        let url = self
            .transport
            .url(&format!("{repository}/manifests/{reference}"));
        Request::new(call, method, url, Scope::pull(repository))
            .header("accept", media_type::MANIFESTS.join(", "))
    }
}

fn described(response: &Response) -> Option<Descriptor> {
    let digest = header(response, "docker-content-digest")?.parse().ok()?;
    let size = header(response, "content-length")?.parse().ok()?;
    Some(Descriptor::new(
        plain_media_type(header(response, "content-type")?),
        digest,
        size,
    ))
}

/// The header may be a proxy's guess; the document itself knows better.
fn media_type_of(response: &Response, bytes: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    let written = serde_json::from_slice::<Typed>(bytes)
        .ok()
        .and_then(|typed| typed.media_type);
    written.unwrap_or_else(|| {
        plain_media_type(header(response, "content-type").unwrap_or(media_type::OCI_MANIFEST))
    })
}

fn plain_media_type(value: &str) -> String {
    value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The target of `Link: <target>; rel="next"`.
fn next_link(value: &str) -> Option<&str> {
    value.split(',').find_map(|link| {
        let (target, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
        let next = parameters
            .split(';')
            .any(|parameter| matches!(parameter.trim(), "rel=\"next\"" | "rel=next"));
        next.then_some(target)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found() {
        assert_eq!(
            next_link(r#"</v2/a/tags/list?n=1&last=x>; rel="next""#),
            Some("/v2/a/tags/list?n=1&last=x")
        );
        assert_eq!(next_link(r"</a>; rel=prev, </b>; rel=next"), Some("/b"));
        assert_eq!(next_link("</a>; rel=prev"), None);
        assert_eq!(next_link("nonsense"), None);
    }
}
