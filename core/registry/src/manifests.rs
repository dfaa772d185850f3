//! Manifests: put by tag or digest, got the same way, deleted.
//!
//! A manifest is taken only when everything it names is in the repository: an image that can be got
//! can be run. Its bytes are kept exactly as they came.

use axum::body::Body;
use axum::response::Response;
use http::{Method, StatusCode, header};
use oci::{
    Descriptor, Digest, ImageIndex, ImageManifest, ParseReferenceError, Repository, Store, Tag,
    media_type,
};
use serde::Deserialize;

use crate::Registry;
use crate::body::Incoming;
use crate::dispatch::{Asked, CONTENT_DIGEST, empty, with_headers};
use crate::error::RegistryError;
use crate::route::Target;

/// A manifest may get so many tags with one request.
const TAGS_AT_ONCE: usize = 16;

pub(crate) async fn get(asked: Asked, target: Target) -> Result<Response, RegistryError> {
    let head = asked.head.method == Method::HEAD;
    let found = asked.blocking(move |registry, repository| {
        let found = find(registry, repository, &target)?;
        // Whoever asks whether it is there deploys it without pushing it again.
        if head && !registry.store.renew_manifest(repository, &found.digest)? {
            return Err(RegistryError::ManifestUnknown);
        }
        Ok(found)
    });
    let Found {
        digest,
        media_type,
        bytes,
    } = found.await?;
    let length = bytes.len().to_string();
    let body = if head {
        Body::empty()
    } else {
        Body::from(bytes)
    };
    Ok(with_headers(
        StatusCode::OK,
        body,
        [
            (header::CONTENT_TYPE, media_type),
            (header::CONTENT_LENGTH, length),
            (header::ETAG, format!("\"{digest}\"")),
            (CONTENT_DIGEST, digest.to_string()),
        ],
    ))
}

pub(crate) async fn put(
    asked: Asked,
    target: Target,
    incoming: &mut Incoming,
) -> Result<Response, RegistryError> {
    let content_type = asked.header(&header::CONTENT_TYPE).map(plain_media_type);
    let tags = tags_for(&asked, &target)?;
    let names: Vec<String> = match &target {
        Target::Tag(_) => Vec::new(),
        Target::Digest(_) => tags.iter().map(ToString::to_string).collect(),
    };
    let limit = asked.registry.limits.manifest;
    incoming.admit(&asked.head.headers, limit, limit)?;
    let bytes = incoming.whole().await?;
    let received = Received {
        target,
        tags,
        content_type,
        bytes,
    };
    let stored =
        asked.blocking(move |registry, repository| keep(&registry.store, repository, &received));
    let Stored { digest, subject } = stored.await?;
    let mut response = empty(
        StatusCode::CREATED,
        [
            (
                header::LOCATION,
                format!("/v2/{}/manifests/{digest}", asked.repository),
            ),
            (CONTENT_DIGEST, digest.to_string()),
            (header::CONTENT_LENGTH, "0".to_owned()),
        ],
    );
    if let Some(subject) = subject
        && let Ok(value) = subject.to_string().parse()
    {
        // Tells the client that it need not keep a list of referrers under a tag.
        response.headers_mut().insert("oci-subject", value);
    }
    for name in names {
        if let Ok(value) = name.parse() {
            response.headers_mut().append("oci-tag", value);
        }
    }
    Ok(response)
}

/// The tags that will mean the manifest: the one of the address, or beside a digest those of the query. By the
/// latter, manifests are tagged that are not addressed by SHA-256.
fn tags_for(asked: &Asked, target: &Target) -> Result<Vec<Tag>, RegistryError> {
    if let Target::Tag(tag) = target {
        return Ok(vec![tag.clone()]);
    }
    let parsed = asked.parameters("tag").map(|text| text.parse());
    let tags: Vec<Tag> = parsed
        .collect::<Result<_, _>>()
        .map_err(|error: ParseReferenceError| invalid(error.to_string()))?;
    if tags.len() > TAGS_AT_ONCE {
        return Err(invalid(format!("more than {TAGS_AT_ONCE} tags at once")));
    }
    Ok(tags)
}

pub(crate) async fn delete(asked: Asked, target: Target) -> Result<Response, RegistryError> {
    let removed = asked.blocking(move |registry, repository| match target {
        Target::Tag(tag) => Ok(registry.store.remove_tag(repository, &tag)?),
        Target::Digest(digest) => registry.remove(repository, &digest, || {
            remove(registry, repository, &digest)
        }),
    });
    if removed.await? {
        Ok(empty(StatusCode::ACCEPTED, []))
    } else {
        Err(RegistryError::ManifestUnknown)
    }
}

/// What a manifest says of itself beyond an image's parts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Outline {
    media_type: Option<String>,
    pub(crate) artifact_type: Option<String>,
    pub(crate) config: Option<Descriptor>,
    pub(crate) subject: Option<Descriptor>,
    #[serde(default)]
    pub(crate) annotations: Option<std::collections::BTreeMap<String, String>>,
}

struct Found {
    digest: Digest,
    media_type: String,
    bytes: Vec<u8>,
}

struct Received {
    target: Target,
    tags: Vec<Tag>,
    content_type: Option<String>,
    bytes: Vec<u8>,
}

struct Stored {
    digest: Digest,
    subject: Option<Digest>,
}

fn find(
    registry: &Registry,
    repository: &Repository,
    target: &Target,
) -> Result<Found, RegistryError> {
    let store = &registry.store;
    let digest = match target {
        Target::Digest(digest) => Some(*digest),
        Target::Tag(tag) => store.tagged(repository, tag)?,
    };
    let digest = digest.ok_or(RegistryError::ManifestUnknown)?;
    let media_type = store.manifest_media_type(repository, &digest)?;
    let media_type = media_type.ok_or(RegistryError::ManifestUnknown)?;
    let bytes = store.read_small(&digest, registry.limits.manifest)?;
    Ok(Found {
        digest,
        media_type,
        bytes,
    })
}

fn keep(
    store: &Store,
    repository: &Repository,
    received: &Received,
) -> Result<Stored, RegistryError> {
    let digest = addressed(&received.target, &received.bytes)?;
    let outline = outline(&received.bytes)?;
    let media_type = agreed_media_type(&outline, received.content_type.as_deref())?;
    check_same_type(store, repository, &digest, &media_type)?;
    check_parts(store, repository, &media_type, &received.bytes)?;
    store.put_bytes_by(digest.algorithm(), &received.bytes)?;
    let subject = outline.subject.map(|subject| subject.digest);
    // The tag comes last: it must never mean a manifest that is not whole.
    match (&subject, received.tags.as_slice()) {
        (None, [tag]) => {
            store.link_tagged_manifest(repository, &digest, &media_type, tag)?;
        }
        (subject, tags) => {
            store.link_manifest(repository, &digest, &media_type)?;
            if let Some(subject) = subject {
                store.link_referrer(repository, subject, &digest)?;
            }
            for tag in tags {
                store.set_tag(repository, tag, &digest)?;
            }
        }
    }
    Ok(Stored { digest, subject })
}

/// The digest of a manifest by the algorithm that it is asked to have; a tag leaves that to the registry.
fn addressed(target: &Target, bytes: &[u8]) -> Result<Digest, RegistryError> {
    let Target::Digest(expected) = target else {
        return Ok(Digest::of(bytes));
    };
    let digest = Digest::by(expected.algorithm(), bytes);
    if digest == *expected {
        return Ok(digest);
    }
    let detail = format!("the manifest has digest {digest}, expected {expected}");
    Err(RegistryError::DigestInvalid { detail })
}

/// The same bytes cannot become something else for those who have their digest already.
fn check_same_type(
    store: &Store,
    repository: &Repository,
    digest: &Digest,
    media_type: &str,
) -> Result<(), RegistryError> {
    match store.manifest_media_type(repository, digest)? {
        Some(known) if known != media_type => Err(invalid(format!(
            "the repository has this manifest as `{known}`, and not as `{media_type}`"
        ))),
        _ => Ok(()),
    }
}

fn remove(
    registry: &Registry,
    repository: &Repository,
    digest: &Digest,
) -> Result<bool, RegistryError> {
    let store = &registry.store;
    if store.manifest_media_type(repository, digest)?.is_none() {
        return Ok(false);
    }
    let bytes = store.read_small(digest, registry.limits.manifest)?;
    if let Ok(Outline {
        subject: Some(subject),
        ..
    }) = outline(&bytes)
    {
        store.unlink_referrer(repository, &subject.digest, digest)?;
    }
    Ok(store.unlink_manifest(repository, digest)?)
}

pub(crate) fn outline(bytes: &[u8]) -> Result<Outline, RegistryError> {
    serde_json::from_slice(bytes).map_err(|error| invalid(format!("not a manifest: {error}")))
}

/// Header and document must not contradict each other: readers trust the one or the other.
fn agreed_media_type(
    outline: &Outline,
    content_type: Option<&str>,
) -> Result<String, RegistryError> {
    match (outline.media_type.as_deref(), content_type) {
        (Some(written), Some(sent)) if written != sent => Err(invalid(format!(
            "the manifest says `{written}`, the content type `{sent}`"
        ))),
        (Some(known), _) | (None, Some(known)) => Ok(known.to_owned()),
        (None, None) => Err(invalid(
            "neither manifest nor content type name a media type".to_owned(),
        )),
    }
}

fn check_parts(
    store: &Store,
    repository: &Repository,
    media_type: &str,
    bytes: &[u8],
) -> Result<(), RegistryError> {
    let unusable = |error: oci::ParseManifestError| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        invalid(format!("{error}{}", cause.unwrap_or_default()))
    };
    if media_type::is_manifest(media_type) {
        let manifest = ImageManifest::from_slice(bytes).map_err(unusable)?;
        let ours = manifest
            .blobs()
            .filter(|blob| media_type::is_distributable(&blob.media_type));
        // What it names counts as new from here on: it stays until the manifest is linked.
        return require(ours, |digest| {
            store.renew(repository, digest).unwrap_or(false)
        });
    }
    if media_type::is_index(media_type) {
        let index = ImageIndex::from_slice(bytes).map_err(unusable)?;
        let there = |digest: &Digest| store.renew_manifest(repository, digest).unwrap_or(false);
        return require(index.manifests.iter(), there);
    }
    Err(invalid(format!(
        "manifests of type `{media_type}` are not supported"
    )))
}

fn require<'a>(
    parts: impl Iterator<Item = &'a Descriptor>,
    there: impl Fn(&Digest) -> bool,
) -> Result<(), RegistryError> {
    for part in parts {
        if !there(&part.digest) {
            let digest = part.digest.to_string();
            return Err(RegistryError::ManifestBlobUnknown { digest });
        }
    }
    Ok(())
}

fn invalid(detail: String) -> RegistryError {
    RegistryError::ManifestInvalid { detail }
}

fn plain_media_type(value: &str) -> String {
    value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned()
}
