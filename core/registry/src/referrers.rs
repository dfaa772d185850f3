//! Manifests about a manifest: signatures, bills of materials, attestations.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, StatusCode, header};
use oci::{Descriptor, Digest, ImageIndex, Repository, media_type};

use crate::Registry;
use crate::dispatch::{Asked, with_headers};
use crate::error::RegistryError;
use crate::manifests::outline;
use crate::tags::{add_link, page, page_length};

/// The most referrers in one answer: each is a manifest to read.
const PAGE: usize = 200;
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// An index of the referrers; an empty one when there are none, also for a subject nobody knows.
pub(crate) async fn list(asked: Asked, subject: Digest) -> Result<Response, RegistryError> {
    let wanted = asked.parameter("artifactType");
    let filter = wanted.clone();
    let (count, last) = (page_length(&asked, PAGE)?, asked.parameter("last"));
    let (manifests, next) = asked
        .blocking(move |registry, repository| {
            let all = registry.store.referrers(repository, &subject)?;
            let names = all.iter().map(ToString::to_string);
            let (names, more) = page(names, last.as_deref(), count);
            let mut found = describe_all(registry, repository, &names)?;
            if let Some(wanted) = &filter {
                found.retain(|entry| entry.artifact_type.as_ref() == Some(wanted));
            }
            Ok((found, names.last().filter(|_| more).cloned()))
        })
        .await?;
    let mut response = with_headers(
        StatusCode::OK,
        Body::from(ImageIndex::new(manifests).to_vec()),
        [(header::CONTENT_TYPE, media_type::OCI_INDEX.to_owned())],
    );
    if wanted.is_some()
        && let Ok(value) = "artifactType".parse()
    {
        response.headers_mut().insert(FILTERS_APPLIED, value);
    }
    if let Some(last) = next {
        let path = format!("{}/referrers/{subject}", asked.repository);
        add_link(&mut response, &path, count, &last);
    }
    Ok(response)
}

fn describe_all(
    registry: &Registry,
    repository: &Repository,
    names: &[String],
) -> Result<Vec<Descriptor>, RegistryError> {
    let mut found = Vec::new();
    for digest in names.iter().filter_map(|name| name.parse::<Digest>().ok()) {
        found.extend(describe(registry, repository, &digest)?);
    }
    Ok(found)
}

/// None for one that was deleted in the meantime.
fn describe(
    registry: &Registry,
    repository: &Repository,
    digest: &Digest,
) -> Result<Option<Descriptor>, RegistryError> {
    let Some(media_type) = registry.store.manifest_media_type(repository, digest)? else {
        return Ok(None);
    };
    let bytes = registry
        .store
        .read_small(digest, registry.limits.manifest)?;
    let outline = outline(&bytes)?;
    let mut descriptor = Descriptor::new(media_type, *digest, bytes.len() as u64);
    let by_config = outline.config.map(|config| config.media_type);
    descriptor.artifact_type = outline.artifact_type.or(by_config);
    descriptor.annotations = outline.annotations.unwrap_or_default();
    Ok(Some(descriptor))
}
