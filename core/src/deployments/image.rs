//! From the image that a request names to the digest that this server's registry holds.

use std::collections::BTreeSet;

use management_api::tag::is_of_a_release;
use oci::{Digest, ParseReferenceError, Reference, Repository, Tag, latest_tags};

use super::Refusal;

/// How many known releases a refusal lists.
const TAGS_LISTED: usize = 5;

/// An image that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resolved {
    /// Digest of its manifest.
    pub(crate) digest: Digest,
    /// The tag it was asked for by.
    pub(crate) tag: Option<String>,
}

/// Finds the image of a tenant. `hosts` are the names under which clients know this registry.
/// Reads small files only, but it blocks.
pub(crate) fn resolve(
    store: &oci::Store,
    tenant: &str,
    image: &str,
    expected: Option<&str>,
    hosts: &[String],
) -> Result<Resolved, Refusal> {
    let reference: Reference = image.parse().map_err(|error| match error {
        // The text holds a password.
        ParseReferenceError::Credentials => Refusal::invalid(format!("image: {error}")),
        error => Refusal::invalid(format!("image {image:?}: {error}")),
    })?;
    if !hosts.iter().any(|host| host == reference.registry()) {
        return Err(Refusal::ImageNotFound(format!(
            "image {image:?} is in another registry; push it to {}/{tenant} first",
            hosts.first().map_or("this server", String::as_str),
        )));
    }
    if reference.repository().as_str() != tenant {
        return Err(Refusal::invalid(format!(
            "image {image:?} is not in the repository of tenant {tenant:?}"
        )));
    }
    let found = find(store, &reference)?;
    check_expected(&found, expected, image)?;
    Ok(found)
}

/// Those of a tenant's images that the registry holds with all that they need. It blocks.
pub(crate) fn held(
    store: &oci::Store,
    tenant: &str,
    images: BTreeSet<String>,
) -> Result<BTreeSet<String>, oci::StoreError> {
    let Ok(repository) = tenant.parse::<Repository>() else {
        return Ok(BTreeSet::new());
    };
    let mut held = BTreeSet::new();
    for image in images {
        if let Ok(digest) = image.parse()
            && store.is_whole(&repository, &digest)?
        {
            held.insert(image);
        }
    }
    Ok(held)
}

fn find(store: &oci::Store, reference: &Reference) -> Result<Resolved, Refusal> {
    let repository = reference.repository();
    let tag = reference.tag();
    let digest = match (reference.digest(), tag) {
        (Some(digest), _) => *digest,
        (None, Some(tag)) => {
            let tagged = store.tagged(repository, tag).ok().flatten();
            tagged.ok_or_else(|| unknown_tag(store, repository, tag))?
        }
        (None, None) => {
            return Err(Refusal::invalid(format!(
                "image \"{reference}\" names neither a tag nor a digest"
            )));
        }
    };
    if !is_manifest(store, repository, &digest) {
        return Err(Refusal::ImageNotFound(format!(
            "the registry holds no image {digest} in {}; push it first",
            repository.as_str()
        )));
    }
    Ok(Resolved {
        digest,
        tag: tag.map(|tag| tag.as_str().to_owned()),
    })
}

fn is_manifest(store: &oci::Store, repository: &Repository, digest: &Digest) -> bool {
    matches!(store.manifest_media_type(repository, digest), Ok(Some(_))) && store.contains(digest)
}

fn check_expected(found: &Resolved, expected: Option<&str>, image: &str) -> Result<(), Refusal> {
    let Some(expected) = expected else {
        return Ok(());
    };
    let expected: Digest = expected
        .parse()
        .map_err(|error| Refusal::invalid(format!("digest {expected:?}: {error}")))?;
    if expected == found.digest {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "image {image:?} is {}, not {expected} as expected: its tag was moved",
        found.digest
    )))
}

fn unknown_tag(store: &oci::Store, repository: &Repository, tag: &Tag) -> Refusal {
    let all = store.tags(repository).unwrap_or_default();
    let latest = latest_tags(&all, TAGS_LISTED, |tag, all| {
        is_of_a_release(tag, |other| all.contains(other))
    });
    let listed: Vec<_> = latest.map(Tag::as_str).collect();
    let hint = if listed.is_empty() {
        "it holds no release yet".to_owned()
    } else {
        format!("the latest releases are {}", listed.join(", "))
    };
    Refusal::ImageNotFound(format!(
        "the registry holds no tag {:?} in {}; {hint}",
        tag.as_str(),
        repository.as_str()
    ))
}
