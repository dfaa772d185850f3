//! Uploading a blob: begin, add, ask, finish, cancel; or mount one that is here already.

use axum::response::Response;
use http::{StatusCode, header};
use oci::{Algorithm, Digest, Repository};
use tracing::Span;
use tracing::field::Empty;

use crate::authorize::Action;
use crate::body::{Incoming, content_length};
use crate::dispatch::{Asked, CONTENT_DIGEST, authorize, empty};
use crate::error::{RegistryError, received_range};
use crate::route::{digest_invalid, parse_digest};
use crate::session::{Held, UploadId};

/// The time in which something of a blob comes, for traces.
pub(crate) fn span(repository: &Repository) -> Span {
    tracing::info_span!(
        "registry upload",
        repository = repository.as_str(),
        bytes = Empty
    )
}

/// `POST`: mounts, takes a whole blob at once, or begins an upload.
pub(crate) async fn begin(
    asked: Asked,
    incoming: &mut Incoming,
) -> Result<Response, RegistryError> {
    if let Some(digest) = mount(&asked).await? {
        return Ok(created(&asked.repository, &digest));
    }
    let digest = asked
        .parameter("digest")
        .as_deref()
        .map(parse_digest)
        .transpose()?;
    let hint = asked.parameter("digest-algorithm");
    let algorithm = match (&digest, hint) {
        (Some(digest), _) => digest.algorithm(),
        (None, Some(hint)) => hint.parse().map_err(digest_invalid)?,
        (None, None) => Algorithm::default(),
    };
    let id = asked
        .blocking(move |registry, repository| registry.sessions.begin(repository, algorithm))
        .await?;
    match digest {
        Some(digest) => {
            let stored = store(&asked, &id, digest, incoming).await;
            if stored.is_err() {
                // Nobody knows this upload's address, so nobody can go on with it.
                discard(&asked, &id).await;
            }
            stored
        }
        None => Ok(accepted(&asked.repository, &id, 0)),
    }
}

/// `GET`: how much has come.
pub(crate) async fn status(asked: Asked, id: UploadId) -> Result<Response, RegistryError> {
    let held = asked.registry.sessions.hold(&id, &asked.repository).await?;
    let mut response = accepted(&asked.repository, &id, held.received());
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// `PATCH`: adds a part.
pub(crate) async fn append(
    asked: Asked,
    id: UploadId,
    incoming: &mut Incoming,
) -> Result<Response, RegistryError> {
    let held = asked.registry.sessions.hold(&id, &asked.repository).await?;
    check_position(&asked, &id, held.received())?;
    let held = receive(&asked, held, incoming).await?;
    Ok(accepted(&asked.repository, &id, held.received()))
}

/// `PUT`: adds the last part, if there is one, and makes it a blob.
pub(crate) async fn finish(
    asked: Asked,
    id: UploadId,
    incoming: &mut Incoming,
) -> Result<Response, RegistryError> {
    let digest = asked
        .parameter("digest")
        .ok_or_else(|| RegistryError::DigestInvalid {
            detail: "the query must say the digest".to_owned(),
        })?;
    let digest = parse_digest(&digest)?;
    store(&asked, &id, digest, incoming).await
}

/// `DELETE`: throws the upload away.
pub(crate) async fn cancel(asked: Asked, id: UploadId) -> Result<Response, RegistryError> {
    let held = asked.registry.sessions.hold(&id, &asked.repository).await?;
    held.blocking(|session| {
        session.discard();
        Ok(())
    })
    .await?;
    asked.registry.sessions.forget(&id);
    Ok(empty(StatusCode::NO_CONTENT, []))
}

/// The blob, if it could be mounted. Whoever may not read the other repository learns nothing of it,
/// not even whether it has the blob.
async fn mount(asked: &Asked) -> Result<Option<Digest>, RegistryError> {
    let (Some(digest), Some(from)) = (asked.parameter("mount"), asked.parameter("from")) else {
        return Ok(None);
    };
    let digest = parse_digest(&digest)?;
    let Ok(from) = from.parse::<Repository>() else {
        return Ok(None);
    };
    if authorize(&asked.registry, &asked.head, Some(&from), Action::Pull)
        .await
        .is_err()
    {
        return Ok(None);
    }
    asked
        .blocking(move |registry, repository| {
            // It has to stay until it is linked.
            if !registry.store.renew(&from, &digest)? {
                return Ok(None);
            }
            registry.store.link(repository, &digest)?;
            Ok(Some(digest))
        })
        .await
}

async fn store(
    asked: &Asked,
    id: &UploadId,
    digest: Digest,
    incoming: &mut Incoming,
) -> Result<Response, RegistryError> {
    let mut held = asked.registry.sessions.hold(id, &asked.repository).await?;
    check_position(asked, id, held.received())?;
    held.expect(digest.algorithm());
    let held = receive(asked, held, incoming).await?;
    let registry = std::sync::Arc::clone(&asked.registry);
    let finished = held
        .blocking(move |session| session.finish(&registry.store, &digest))
        .await;
    if matches!(finished, Ok(_) | Err(RegistryError::DigestInvalid { .. })) {
        asked.registry.sessions.forget(id);
    }
    finished.map(|_| created(&asked.repository, &digest))
}

/// Writes the request's body to the upload. What has come stays, also when the rest does not come.
async fn receive(
    asked: &Asked,
    mut held: Held,
    incoming: &mut Incoming,
) -> Result<Held, RegistryError> {
    let limits = asked.registry.limits;
    let before = held.received();
    let allowance = limits.blob.saturating_sub(before);
    let headers = &asked.head.headers;
    incoming.admit(headers, allowance, limits.blob)?;
    while let Some(batch) = incoming.batch().await? {
        (held, ()) = held.blocking(move |session| session.append(&batch)).await?;
        Span::current().record("bytes", held.received() - before);
    }
    Ok(held)
}

async fn discard(asked: &Asked, id: &UploadId) {
    if let Ok(held) = asked.registry.sessions.hold(id, &asked.repository).await {
        let discarded = held.blocking(|session| {
            session.discard();
            Ok(())
        });
        // A failure is logged where it happens; the sweep takes what stays.
        let _ = discarded.await;
    }
    asked.registry.sessions.forget(id);
}

/// A part that says where it belongs must belong at the end, and be as long as it says.
fn check_position(asked: &Asked, id: &UploadId, received: u64) -> Result<(), RegistryError> {
    let Some(range) = asked.header(&header::CONTENT_RANGE) else {
        return Ok(());
    };
    let (start, last) = parse_content_range(range).ok_or_else(|| {
        let detail = "content-range must be <first>-<last>".to_owned();
        RegistryError::BlobUploadInvalid { detail }
    })?;
    if start != received {
        let location = upload_path(&asked.repository, id);
        return Err(RegistryError::UploadRange { location, received });
    }
    match content_length(&asked.head.headers) {
        Some(length) if length != last - start + 1 => Err(RegistryError::BlobUploadInvalid {
            detail: "content-range and content-length contradict each other".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// `<first>-<last>` as the specification has it, or HTTP's `bytes <first>-<last>/<size>`.
fn parse_content_range(value: &str) -> Option<(u64, u64)> {
    let range = value
        .trim()
        .trim_start_matches("bytes")
        .trim_start_matches(['=', ' ']);
    let range = range.split('/').next()?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < u64::MAX).then_some((first, last))
}

fn upload_path(repository: &Repository, id: &UploadId) -> String {
    format!("/v2/{repository}/blobs/uploads/{}", id.as_str())
}

fn accepted(repository: &Repository, id: &UploadId, received: u64) -> Response {
    empty(
        StatusCode::ACCEPTED,
        [
            (header::LOCATION, upload_path(repository, id)),
            (header::RANGE, received_range(received)),
            (
                http::HeaderName::from_static("docker-upload-uuid"),
                id.as_str().to_owned(),
            ),
            (header::CONTENT_LENGTH, "0".to_owned()),
        ],
    )
}

fn created(repository: &Repository, digest: &Digest) -> Response {
    empty(
        StatusCode::CREATED,
        [
            (header::LOCATION, format!("/v2/{repository}/blobs/{digest}")),
            (CONTENT_DIGEST, digest.to_string()),
            (header::CONTENT_LENGTH, "0".to_owned()),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_of_a_content_range_read() {
        assert_eq!(parse_content_range("0-9"), Some((0, 9)));
        assert_eq!(parse_content_range("bytes 5-9/10"), Some((5, 9)));
        assert_eq!(parse_content_range("bytes=5-9"), Some((5, 9)));
        for value in ["", "5", "9-5", "a-b", &format!("0-{}", u64::MAX)] {
            assert_eq!(parse_content_range(value), None, "{value}");
        }
    }
}
