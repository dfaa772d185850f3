//! Uploading a blob: one `POST`, one streamed `PUT`, and what to do when that breaks.
//!
//! - The connection broke: look whether the blob has arrived, else ask how much has, and continue
//!   there; a registry that has forgotten the upload gets a new one.
//! - 413, or 416 at the right place: something on the way bounds the size of a request; the blob goes
//!   in chunks, smaller and smaller ones while even those are refused.

use ureq::http::Method;
use url::Url;

use super::Client;
use super::auth::Scope;
use super::blobs::named_digest;
use super::body::{BlobPart, BlobSource, Payload};
use super::error::ClientError;
use super::retry::{PROGRESS, Patience};
use super::transport::{Request, Response, header};
use crate::digest::Digest;
use crate::manifest::Descriptor;
use crate::reference::Repository;

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
            Some(location) => Position::start(location),
            None => self.begin_upload(repository)?,
        };
        let upload = Upload {
            client: self,
            repository,
            digest: descriptor.digest,
            size: descriptor.size,
            source,
            position,
            chunk: self.chunks.for_blob(descriptor.size),
            furthest: 0,
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
        let mut position = Position::start(request.location(&response)?);
        position.least = least_chunk(&response);
        Ok(position)
    }
}

/// How far the registry has come.
struct Position {
    location: Url,
    offset: u64,
    /// The smallest chunk, but for the last, that the registry takes.
    least: u64,
}

impl Position {
    fn start(location: Url) -> Self {
        Self {
            location,
            offset: 0,
            least: 0,
        }
    }
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
    /// The furthest offset that patience began anew at: a registry that loses and finds an upload
    /// again and again makes no progress.
    furthest: u64,
}

impl Upload<'_> {
    fn run(mut self) -> Result<(), ClientError> {
        let mut patience = self.client.patience();
        loop {
            let Err(error) = self.attempt() else {
                return Ok(());
            };
            if self.recover(error, &mut patience)? {
                return Ok(());
            }
            if self.position.offset >= self.furthest + PROGRESS {
                self.furthest = self.position.offset;
                patience = self.client.patience();
            }
        }
    }

    /// After a failure: true when the blob is there all the same, else the position is where to go
    /// on; the error, when there is nothing to be done about it.
    fn recover(
        &mut self,
        error: ClientError,
        patience: &mut Patience<'_>,
    ) -> Result<bool, ClientError> {
        if error.is_transient() {
            patience.wait_after(error)?;
            return self.arrived_or_continue();
        }
        let there = match error.answer().map(|answer| answer.status) {
            Some(413) => None,
            Some(416) => self.ask_position()?,
            // The registry has lost the upload, or does not agree about what it has of it.
            Some(404) => return self.again(error, patience),
            _ if self.position.offset > 0 => return self.again(error, patience),
            _ => return Err(error),
        };
        match there {
            Some(there) if there.offset != self.position.offset => {
                patience.wait_after(as_transient(error))?;
                self.position = there;
                Ok(false)
            }
            None if error.has_status(416) && self.position.offset > 0 => {
                self.again(error, patience)
            }
            _ => self.smaller(error),
        }
    }

    /// Once more, from the start.
    fn again(
        &mut self,
        error: ClientError,
        patience: &mut Patience<'_>,
    ) -> Result<bool, ClientError> {
        patience.wait_after(as_transient(error))?;
        self.position = self.client.begin_upload(self.repository)?;
        Ok(false)
    }

    /// From the start in smaller chunks; the refusal, when they are as small as is sensible.
    fn smaller(&mut self, error: ClientError) -> Result<bool, ClientError> {
        let refused = self.next_length();
        let Some(chunk) = self.client.chunks.below(refused) else {
            return Err(error);
        };
        self.chunk = Some(chunk);
        self.position = self.client.begin_upload(self.repository)?;
        // A registry that wants larger chunks than it takes is beyond help.
        if self.next_length() < refused {
            Ok(false)
        } else {
            Err(error)
        }
    }

    /// How long the next body is.
    fn next_length(&self) -> u64 {
        let left = self.size - self.position.offset;
        match self.chunk {
            Some(chunk) => left.min(chunk.max(self.position.least)),
            None => left,
        }
    }

    fn attempt(&mut self) -> Result<(), ClientError> {
        if self.position.offset == 0 && self.chunk.is_none() {
            let part = self.part(self.size);
            return self.finish(Payload::Blob(part));
        }
        while self.position.offset < self.size {
            self.patch(self.next_length())?;
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
        let least = self.position.least;
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
            least,
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
        let site = Box::new(request.site());
        let named = named_digest(&response, self.digest.algorithm());
        match (response.status().as_u16(), named) {
            (201 | 204, Some(actual)) if actual != self.digest => {
                Err(ClientError::DigestMismatch {
                    site,
                    expected: self.digest,
                    actual,
                })
            }
            (201 | 204, _) => Ok(()),
            (other, _) => Err(ClientError::Protocol {
                site,
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
                let least = self.position.least;
                Ok(Some(Position {
                    location,
                    offset,
                    least,
                }))
            }
            _ => Ok(None),
        }
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

/// `OCI-Chunk-Min-Length` of the distribution specification, "Pushing a blob in chunks".
fn least_chunk(response: &Response) -> u64 {
    let length = header(response, "oci-chunk-min-length");
    length
        .and_then(|length| length.trim().parse().ok())
        .unwrap_or_default()
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
