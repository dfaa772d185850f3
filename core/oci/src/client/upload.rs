//! Uploading a blob: one `POST`, one streamed `PUT`, and what to do when that breaks.
//!
//! - The connection broke: look whether the blob has arrived, else ask how much has, and continue
//!   there; a registry that has forgotten the upload gets a new one.
//! - 413: something on the way bounds the size of a request; the blob goes in chunks, smaller and
//!   smaller ones while even those are refused.

use ureq::http::Method;
use url::Url;

use super::Client;
use super::auth::Scope;
use super::body::{BlobPart, BlobSource, Payload};
use super::error::ClientError;
use super::retry::PROGRESS;
use super::transport::{Request, header};
use crate::digest::Digest;
use crate::manifest::Descriptor;
use crate::reference::Repository;

const FIRST_CHUNK: u64 = 16 * 1024 * 1024;
const SMALLEST_CHUNK: u64 = 256 * 1024;
const OCTETS: &str = "application/octet-stream";

impl Client {
    /// Uploads a blob, whether or not the registry has it.
    pub fn push_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        source: &dyn BlobSource,
    ) -> Result<(), ClientError> {
        self.push_blob_to(repository, descriptor, source, None)
    }

    /// The same into an upload that a refused mount has begun.
    pub(crate) fn push_blob_to(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        source: &dyn BlobSource,
        begun: Option<Url>,
    ) -> Result<(), ClientError> {
        let position = match begun {
            Some(location) => Position {
                location,
                offset: 0,
            },
            None => self.begin_upload(repository)?,
        };
        let upload = Upload {
            client: self,
            repository,
            digest: descriptor.digest,
            size: descriptor.size,
            source,
            position,
            chunk: None,
        };
        upload.run()
    }

    /// Tells the registry to forget an upload. It would in time anyway, so a failure is nobody's concern.
    pub(crate) fn cancel_upload(&self, repository: &Repository, location: Url) {
        let scope = Scope::push(repository);
        let request = Request::new("cancel an upload", Method::DELETE, location, scope);
        let _ = self.transport.send_once(&request);
    }

    fn begin_upload(&self, repository: &Repository) -> Result<Position, ClientError> {
        let url = self.transport.url(&format!("{repository}/blobs/uploads/"));
        let request = Request::new(
            "begin an upload",
            Method::POST,
            url,
            Scope::push(repository),
        )
        .payload(Payload::Empty);
        let response = self.transport.send(&request)?;
        Ok(Position {
            location: request.location(&response)?,
            offset: 0,
        })
    }
}

/// How far the registry has come.
struct Position {
    location: Url,
    offset: u64,
}

/// One blob on its way to the registry.
struct Upload<'a> {
    client: &'a Client,
    repository: &'a Repository,
    digest: Digest,
    size: u64,
    source: &'a dyn BlobSource,
    position: Position,
    /// None while whole bodies pass.
    chunk: Option<u64>,
}

impl Upload<'_> {
    fn run(mut self) -> Result<(), ClientError> {
        let mut patience = self.client.patience();
        loop {
            let before = self.position.offset;
            let Err(error) = self.attempt() else {
                return Ok(());
            };
            if error.has_status(413) && self.shrink() {
                self.position = self.client.begin_upload(self.repository)?;
            } else if error.is_transient() {
                patience.wait_after(error)?;
                if self.arrived_or_continue()? {
                    return Ok(());
                }
                if self.position.offset >= before + PROGRESS {
                    patience = self.client.patience();
                }
            } else if error.has_status(413) {
                return Err(error);
            } else if before > 0 || self.position.offset > before || is_lost(&error) {
                // The registry does not agree about what it has: once more, from the start.
                patience.wait_after(as_transient(error))?;
                self.position = self.client.begin_upload(self.repository)?;
            } else {
                return Err(error);
            }
        }
    }

    fn attempt(&mut self) -> Result<(), ClientError> {
        if self.position.offset == 0 && self.chunk.is_none() {
            let part = self.part(self.size);
            return self.finish(Payload::Blob(part));
        }
        while self.position.offset < self.size {
            let left = self.size - self.position.offset;
            self.patch(left.min(self.chunk.unwrap_or(left)))?;
        }
        self.finish(Payload::Empty)
    }

    fn part(&self, length: u64) -> BlobPart<'_> {
        BlobPart {
            source: self.source,
            digest: self.digest,
            total: self.size,
            offset: self.position.offset,
            length,
        }
    }

    fn patch(&mut self, length: u64) -> Result<(), ClientError> {
        let (start, end) = (self.position.offset, self.position.offset + length);
        let location = {
            let payload = Payload::Blob(self.part(length));
            let request = self
                .request(
                    "upload part of a blob",
                    Method::PATCH,
                    self.position.location.clone(),
                )
                .header("content-type", OCTETS)
                .header("content-range", format!("{start}-{}", end - 1))
                .payload(payload);
            let response = self.client.transport.send_once(&request)?;
            request.location(&response)?
        };
        self.position = Position {
            location,
            offset: end,
        };
        Ok(())
    }

    fn finish(&self, payload: Payload<'_>) -> Result<(), ClientError> {
        let mut url = self.position.location.clone();
        url.query_pairs_mut()
            .append_pair("digest", &self.digest.to_string());
        let request = self
            .request("upload a blob", Method::PUT, url)
            .header("content-type", OCTETS)
            .payload(payload);
        let response = self.client.transport.send_once(&request)?;
        match response.status().as_u16() {
            201 | 204 => Ok(()),
            other => Err(ClientError::Protocol {
                site: Box::new(request.site()),
                detail: format!("status {other} where 201 was expected"),
            }),
        }
    }

    /// After a break: true when the blob is there, else the position is where to go on.
    fn arrived_or_continue(&mut self) -> Result<bool, ClientError> {
        // The answer may be all that was lost.
        if self.client.blob_exists(self.repository, &self.digest)? {
            return Ok(true);
        }
        self.position = match self.ask_position()? {
            Some(position) => position,
            None => self.client.begin_upload(self.repository)?,
        };
        Ok(false)
    }

    /// None when there is nothing worth continuing.
    fn ask_position(&self) -> Result<Option<Position>, ClientError> {
        let url = self.position.location.clone();
        let request = self
            .request("ask for an upload's state", Method::GET, url)
            .answers(&[400, 404, 405, 416]);
        let response = self.client.transport.send(&request)?;
        let received = header(&response, "range").and_then(received_bytes);
        match received {
            Some(offset) if response.status().is_success() && offset <= self.size => {
                // Without a new address the old one stays good.
                let moved = request.location(&response).ok();
                let location = moved.unwrap_or_else(|| self.position.location.clone());
                Ok(Some(Position { location, offset }))
            }
            _ => Ok(None),
        }
    }

    /// Smaller chunks from now on; false when they are as small as is sensible.
    fn shrink(&mut self) -> bool {
        let next = match self.chunk {
            None => FIRST_CHUNK.min(self.size / 2),
            Some(chunk) => chunk / 4,
        };
        let smaller = next >= SMALLEST_CHUNK;
        if smaller {
            self.chunk = Some(next);
        }
        smaller
    }

    fn request<'p>(&self, call: &'static str, method: Method, url: Url) -> Request<'p> {
        Request::new(call, method, url, Scope::push(self.repository))
    }
}

/// Reads `Range: 0-<last>`. `0-0` is said of nothing and of a single byte, so it counts as nothing.
fn received_bytes(range: &str) -> Option<u64> {
    let range = range.trim().trim_start_matches("bytes=");
    let last: u64 = range.strip_prefix("0-")?.parse().ok()?;
    if last == 0 { None } else { last.checked_add(1) }
}

/// Whether the registry has lost the upload, or our place in it.
fn is_lost(error: &ClientError) -> bool {
    error.has_status(404) || error.has_status(416)
}

/// Lets a disagreement about the position use up patience like a failure of the registry.
fn as_transient(error: ClientError) -> ClientError {
    match error {
        ClientError::NotFound { site, answer } | ClientError::Refused { site, answer } => {
            ClientError::Unavailable {
                site,
                answer,
                retry_after: None,
            }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_range_reads() {
        assert_eq!(received_bytes("0-99"), Some(100));
        assert_eq!(received_bytes("bytes=0-99"), Some(100));
        assert_eq!(received_bytes("0-0"), None);
        assert_eq!(received_bytes("5-99"), None);
        assert_eq!(received_bytes("nonsense"), None);
        assert_eq!(received_bytes(&format!("0-{}", u64::MAX)), None);
    }
}
