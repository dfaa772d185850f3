//! Looking for blobs, mounting them and getting them.

use std::io::{self, Read as _, Write};

use ureq::http::Method;
use url::Url;

use super::Client;
use super::auth::Scope;
use super::body::Payload;
use super::error::{CallSite, ClientError};
use super::retry::PROGRESS;
use super::transport::{Request, Response, header};
use crate::digest::{Algorithm, Digest, Hasher};
use crate::manifest::Descriptor;
use crate::reference::Repository;
use crate::store::{Store, StoreError};

const BUFFER: usize = 128 * 1024;

/// What came of the wish to mount a blob.
pub(crate) enum Mounted {
    /// The repository has it now.
    Done,
    /// The registry does not mount it, and has begun an upload instead.
    UploadBegun(Url),
    /// Nothing came of it.
    Refused,
}

impl Client {
    /// Asks for a blob with a single `HEAD`. An answer that names another digest is no.
    pub fn blob_exists(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<bool, ClientError> {
        let url = self.transport.url(&format!("{repository}/blobs/{digest}"));
        let scope = Scope::pull(repository);
        let request = Request::new("look for a blob", Method::HEAD, url, scope).answers(&[404]);
        let response = self.transport.send(&request)?;
        Ok(response.status() != 404 && names_no_other(&response, digest))
    }

    /// Lets `repository` have a blob of `from` without an upload; says whether the registry did it.
    pub fn mount(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: &Repository,
    ) -> Result<bool, ClientError> {
        match self.try_mount(repository, digest, from)? {
            Mounted::Done => Ok(true),
            Mounted::UploadBegun(location) => {
                self.cancel_upload(repository, location);
                Ok(false)
            }
            Mounted::Refused => Ok(false),
        }
    }

    /// Gets a blob, verified in length and digest; a broken transfer continues where it broke.
    ///
    /// What was written before an error is to be thrown away.
    pub fn get_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        sink: &mut dyn Write,
    ) -> Result<(), ClientError> {
        let url = self
            .transport
            .url(&format!("{repository}/blobs/{}", descriptor.digest));
        let mut download = Download {
            client: self,
            repository,
            url,
            descriptor,
            sink,
            hasher: Hasher::by(descriptor.digest.algorithm()),
        };
        download.run()
    }

    /// Gets a blob into a store, unless it is there already.
    pub fn fetch_blob(
        &self,
        repository: &Repository,
        descriptor: &Descriptor,
        store: &Store,
    ) -> Result<(), ClientError> {
        let digest = descriptor.digest;
        if store.contains(&digest) {
            return Ok(());
        }
        let failed = |source: StoreError| ClientError::Store { digest, source };
        let mut writer = store.begin_by(digest.algorithm()).map_err(failed)?;
        self.get_blob(repository, descriptor, &mut writer)?;
        writer.commit(Some(&digest)).map(drop).map_err(failed)
    }

    pub(crate) fn try_mount(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: &Repository,
    ) -> Result<Mounted, ClientError> {
        let mut url = self.transport.url(&format!("{repository}/blobs/uploads/"));
        url.query_pairs_mut()
            .append_pair("mount", &digest.to_string())
            .append_pair("from", from.as_str());
        let mut request = Request::new("mount a blob", Method::POST, url, Scope::push(repository))
            .payload(Payload::Empty);
        request.scopes.push(Scope::pull(from));
        let response = match self.transport.send(&request) {
            Ok(response) => response,
            // A mount saves an upload, and the upload is still there to be made: who may push here
            // but not read there, for instance, gets no token for both.
            Err(error) if error.answer().is_some() && !error.is_transient() => {
                return Ok(Mounted::Refused);
            }
            Err(error) => return Err(error),
        };
        if response.status() != 201 {
            return request.location(&response).map(Mounted::UploadBegun);
        }
        if names_no_other(&response, digest) {
            Ok(Mounted::Done)
        } else {
            Ok(Mounted::Refused)
        }
    }
}

fn names_no_other(response: &Response, digest: &Digest) -> bool {
    named_digest(response, digest.algorithm()).is_none_or(|named| named == *digest)
}

/// What the registry says that the content's digest is, if it does. Most name it; some do so by another algorithm
/// than the one that they were asked by, which says nothing.
pub(super) fn named_digest(response: &Response, algorithm: Algorithm) -> Option<Digest> {
    let named: Digest = header(response, "docker-content-digest")?.parse().ok()?;
    (named.algorithm() == algorithm).then_some(named)
}

/// One blob on its way here.
struct Download<'a> {
    client: &'a Client,
    repository: &'a Repository,
    url: Url,
    descriptor: &'a Descriptor,
    sink: &'a mut dyn Write,
    hasher: Hasher,
}

impl Download<'_> {
    fn run(&mut self) -> Result<(), ClientError> {
        let mut patience = self.client.patience();
        loop {
            let before = self.hasher.length();
            let error = match self.attempt() {
                Ok(()) => return self.verify(),
                Err(error) => error,
            };
            if error.is_transient() && self.hasher.length() >= before + PROGRESS {
                patience = self.client.patience();
            }
            patience.wait_after(error)?;
        }
    }

    fn attempt(&mut self) -> Result<(), ClientError> {
        let scope = Scope::pull(self.repository);
        let mut request = Request::new("get a blob", Method::GET, self.url.clone(), scope);
        let offset = self.hasher.length();
        if offset > 0 {
            request = request.header("range", format!("bytes={offset}-"));
        }
        let response = self.client.transport.send_once(&request)?;
        let skipped = if offset > 0 && continues_at(&response, offset) {
            0
        } else {
            offset
        };
        self.receive(&request.site(), response, skipped)
    }

    fn receive(
        &mut self,
        site: &CallSite,
        response: Response,
        skipped: u64,
    ) -> Result<(), ClientError> {
        let broken = |cause| ClientError::from_io(Box::new(site.clone()), cause);
        let mut body = response.into_body().into_reader();
        let passed = io::copy(&mut (&mut body).take(skipped), &mut io::sink());
        if passed.map_err(broken)? < skipped {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut buffer = vec![0; BUFFER];
        loop {
            if self.client.transport.options().is_interrupted() {
                return Err(ClientError::Interrupted);
            }
            let count = body.read(&mut buffer).map_err(broken)?;
            if count == 0 {
                break;
            }
            self.client.transport.meter().received(count);
            self.take_in(site, &buffer[..count])?;
        }
        if self.hasher.length() < self.descriptor.size {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(())
    }

    fn take_in(&mut self, site: &CallSite, bytes: &[u8]) -> Result<(), ClientError> {
        if self.hasher.length() + bytes.len() as u64 > self.descriptor.size {
            let detail = format!("more than the {} bytes announced", self.descriptor.size);
            return Err(ClientError::Protocol {
                site: Box::new(site.clone()),
                detail,
            });
        }
        let digest = self.descriptor.digest;
        self.sink
            .write_all(bytes)
            .map_err(|source| ClientError::Sink { digest, source })?;
        self.hasher.update(bytes);
        Ok(())
    }

    fn verify(&mut self) -> Result<(), ClientError> {
        let expected = self.descriptor.digest;
        let actual = std::mem::take(&mut self.hasher).finish();
        if actual == expected {
            return Ok(());
        }
        let site = Box::new(CallSite::new("get a blob", &Method::GET, &self.url));
        Err(ClientError::DigestMismatch {
            site,
            expected,
            actual,
        })
    }
}

/// Whether a partial answer begins where we left off. A whole answer begins at 0 again.
fn continues_at(response: &Response, offset: u64) -> bool {
    let range = header(response, "content-range").and_then(|value| value.strip_prefix("bytes "));
    let start = range.and_then(|range| range.split('-').next());
    response.status() == 206 && start.and_then(|start| start.parse().ok()) == Some(offset)
}
