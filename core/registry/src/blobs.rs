//! Blobs: looking, getting whole or in part, deleting.

use std::io::SeekFrom;

use axum::body::Body;
use axum::response::Response;
use http::{Method, StatusCode, header};
use oci::Digest;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use crate::dispatch::{Asked, CONTENT_DIGEST, empty, with_headers};
use crate::error::{RegistryError, io_failed};

/// What lies between disk and connection of one download.
const BUFFER: usize = 256 * 1024;

pub(crate) async fn get(asked: Asked, digest: Digest) -> Result<Response, RegistryError> {
    let head = asked.head.method == Method::HEAD;
    let (file, size) = asked
        .blocking(move |registry, repository| {
            // Whoever asks whether it is there goes on without sending it.
            let there = if head {
                registry.store.renew(repository, &digest)?
            } else {
                registry.store.linked(repository, &digest)
            };
            if !there {
                return Err(RegistryError::BlobUnknown);
            }
            Ok((
                registry.store.open_blob(&digest)?,
                registry.store.size(&digest)?,
            ))
        })
        .await?;
    let wanted = asked.header(&header::RANGE).and_then(parse_range);
    let part = match wanted {
        Some(range) => Some(
            range
                .within(size)
                .ok_or(RegistryError::RangeNotSatisfiable { size })?,
        ),
        None => None,
    };
    let (status, start, length) = match part {
        Some((start, length)) => (StatusCode::PARTIAL_CONTENT, start, length),
        None => (StatusCode::OK, 0, size),
    };
    let body = match asked.head.method {
        Method::HEAD => Body::empty(),
        _ => stream(tokio::fs::File::from_std(file), start, length).await?,
    };
    let mut response = with_headers(
        status,
        body,
        [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (header::CONTENT_LENGTH, length.to_string()),
            (header::ACCEPT_RANGES, "bytes".to_owned()),
            (header::ETAG, format!("\"{digest}\"")),
            (CONTENT_DIGEST, digest.to_string()),
        ],
    );
    if part.is_some() {
        let range = format!("bytes {start}-{}/{size}", start + length - 1);
        if let Ok(value) = range.parse() {
            response.headers_mut().insert(header::CONTENT_RANGE, value);
        }
    }
    Ok(response)
}

pub(crate) async fn delete(asked: Asked, digest: Digest) -> Result<Response, RegistryError> {
    let removed = asked
        .blocking(move |registry, repository| {
            registry.remove(repository, &digest, || {
                Ok(registry.store.unlink(repository, &digest)?)
            })
        })
        .await?;
    if removed {
        Ok(empty(StatusCode::ACCEPTED, []))
    } else {
        Err(RegistryError::BlobUnknown)
    }
}

async fn stream(mut file: tokio::fs::File, start: u64, length: u64) -> Result<Body, RegistryError> {
    file.set_max_buf_size(BUFFER);
    if start > 0 {
        file.seek(SeekFrom::Start(start))
            .await
            .map_err(io_failed("seek in a blob"))?;
    }
    Ok(Body::from_stream(ReaderStream::with_capacity(
        file.take(length),
        BUFFER,
    )))
}

/// One range of bytes, as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ByteRange {
    From(u64),
    Between(u64, u64),
    Last(u64),
}

impl ByteRange {
    /// Start and length within `size` bytes; none when nothing of it is there.
    fn within(self, size: u64) -> Option<(u64, u64)> {
        let (start, end) = match self {
            Self::From(start) => (start, size),
            Self::Between(start, last) => (start, last.saturating_add(1).min(size)),
            Self::Last(count) => (size.saturating_sub(count), size),
        };
        (start < end).then(|| (start, end - start))
    }
}

/// Reads `bytes=a-b`, `bytes=a-` and `bytes=-n`. Anything else is ignored, as RFC 9110 allows, and
/// answered with the whole blob; a range that ends before it begins is refused, which it allows too.
fn parse_range(value: &str) -> Option<ByteRange> {
    let (start, end) = value.trim().strip_prefix("bytes=")?.split_once('-')?;
    match (start.trim(), end.trim()) {
        ("", count) => count.parse().ok().map(ByteRange::Last),
        (start, "") => start.parse().ok().map(ByteRange::From),
        (start, end) => Some(ByteRange::Between(start.parse().ok()?, end.parse().ok()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_read_and_fit() {
        let within = |value, size| parse_range(value).and_then(|range| range.within(size));
        assert_eq!(within("bytes=0-3", 10), Some((0, 4)));
        assert_eq!(within("bytes=8-100", 10), Some((8, 2)));
        assert_eq!(within("bytes=4-", 10), Some((4, 6)));
        assert_eq!(within("bytes=-3", 10), Some((7, 3)));
        assert_eq!(within("bytes=-30", 10), Some((0, 10)));
        assert_eq!(within("bytes=10-", 10), None);
        assert_eq!(within("bytes=-0", 10), None);
        assert_eq!(within("bytes=5-2", 10), None);
        assert_eq!(within(&format!("bytes=0-{}", u64::MAX), 10), Some((0, 10)));
    }

    #[test]
    fn what_is_no_single_range_is_ignored() {
        for value in ["", "bytes=", "items=0-1", "bytes=0-1,3-4", "bytes=a-b"] {
            assert_eq!(parse_range(value), None, "{value}");
        }
    }
}
