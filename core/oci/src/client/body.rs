//! What a request sends: nothing, a few bytes, or a blob from wherever it lies.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use super::counters::Meter;
use super::error::ClientError;
use super::options::{BlobState, ClientOptions, Progress};
use crate::digest::Digest;
use crate::store::Store;

/// Where a blob's bytes come from. It is opened anew for every try.
pub trait BlobSource: Send + Sync {
    /// Opens the blob's bytes from `offset` on.
    fn open_at(&self, offset: u64) -> io::Result<Box<dyn Read + '_>>;
}

impl BlobSource for Vec<u8> {
    fn open_at(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(self.len());
        Ok(Box::new(&self[start..]))
    }
}

impl BlobSource for PathBuf {
    fn open_at(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let mut file = File::open(self)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Box::new(file))
    }
}

impl<S: BlobSource + ?Sized> BlobSource for Arc<S> {
    fn open_at(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        (**self).open_at(offset)
    }
}

impl<S: BlobSource + ?Sized> BlobSource for Box<S> {
    fn open_at(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        (**self).open_at(offset)
    }
}

/// A blob that lies in a store.
#[derive(Debug, Clone)]
pub struct StoredBlob {
    path: PathBuf,
}

impl StoredBlob {
    /// Names the blob; it is opened when it is sent.
    #[must_use]
    pub fn new(store: &Store, digest: &Digest) -> Self {
        Self {
            path: store.path(digest),
        }
    }
}

impl BlobSource for StoredBlob {
    fn open_at(&self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        self.path.open_at(offset)
    }
}

/// A request's body.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    /// None, and none could be.
    None,
    /// A body of no bytes, which `POST`, `PUT` and `PATCH` have to say.
    Empty,
    Bytes(&'a [u8]),
    Blob(BlobPart<'a>),
}

/// A stretch of a blob.
#[derive(Clone, Copy)]
pub(super) struct BlobPart<'a> {
    pub(super) source: &'a dyn BlobSource,
    pub(super) digest: Digest,
    /// The whole blob's length.
    pub(super) total: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Payload<'_> {
    pub(super) fn length(&self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::Empty => Some(0),
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::Blob(part) => Some(part.length),
        }
    }
}

/// Reads a payload, counts it, and keeps apart what the source did wrong from what the network did.
pub(super) struct PayloadReader<'a> {
    inner: Box<dyn Read + 'a>,
    blob: Option<BlobPart<'a>>,
    left: u64,
    failure: Option<io::Error>,
    meter: &'a Meter,
    options: &'a ClientOptions,
}

impl<'a> PayloadReader<'a> {
    /// None when there is nothing to read.
    pub(super) fn open(
        payload: &Payload<'a>,
        meter: &'a Meter,
        options: &'a ClientOptions,
    ) -> Result<Option<Self>, ClientError> {
        let left = payload.length().unwrap_or_default();
        let (inner, blob): (Box<dyn Read + 'a>, _) = match *payload {
            Payload::Bytes(bytes) if left > 0 => (Box::new(bytes), None),
            Payload::Blob(part) if left > 0 => {
                let opened = part.source.open_at(part.offset);
                let source = |source| ClientError::Source {
                    digest: part.digest,
                    source,
                };
                (opened.map_err(source)?, Some(part))
            }
            _ => return Ok(None),
        };
        Ok(Some(Self {
            inner,
            blob,
            left,
            failure: None,
            meter,
            options,
        }))
    }

    /// The source's own failure, if it had one, or the caller's wish to end.
    pub(super) fn check(self) -> Result<(), ClientError> {
        match (self.failure, self.blob) {
            (Some(_), _) if self.options.is_interrupted() => Err(ClientError::Interrupted),
            (Some(source), Some(part)) => Err(ClientError::Source {
                digest: part.digest,
                source,
            }),
            _ => Ok(()),
        }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.options.is_interrupted() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let count = loop {
            match self.inner.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if count == 0 {
            // Without this the library would wait for the promised bytes for ever.
            let text = format!("it ends {} bytes early", self.left);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        Ok(count)
    }

    fn report(&self) {
        if let (Some(hook), Some(part)) = (&self.options.progress, self.blob) {
            let sent = part.offset + part.length - self.left;
            hook(Progress {
                digest: part.digest,
                state: BlobState::Sending,
                sent,
                total: part.total,
            });
        }
    }
}

impl Read for PayloadReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        match self.fill(&mut buffer[..wanted]) {
            Ok(count) => {
                self.left -= count as u64;
                self.meter.sent(count);
                self.report();
                Ok(count)
            }
            Err(error) => {
                let kind = error.kind();
                self.failure = Some(error);
                Err(kind.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(source: &dyn BlobSource, offset: u64, length: u64) -> Payload<'_> {
        Payload::Blob(BlobPart {
            source,
            digest: Digest::of(b""),
            total: 10,
            offset,
            length,
        })
    }

    #[test]
    fn a_stretch_is_read_and_reported() {
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let options = ClientOptions {
            progress: Some(Arc::new(move |p: Progress| {
                sink.lock().unwrap().push(p.sent);
            })),
            ..ClientOptions::default()
        };
        let meter = Meter::default();
        let source = b"0123456789".to_vec();
        let payload = part(&source, 4, 3);
        let mut reader = PayloadReader::open(&payload, &meter, &options)
            .unwrap()
            .unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "456");
        assert_eq!(*seen.lock().unwrap(), [7]);
        assert_eq!(meter.read().bytes_sent, 3);
        reader.check().unwrap();
    }

    #[test]
    fn a_source_that_ends_early_is_named() {
        let options = ClientOptions::default();
        let meter = Meter::default();
        let source = b"0123".to_vec();
        let payload = part(&source, 0, 10);
        let mut reader = PayloadReader::open(&payload, &meter, &options)
            .unwrap()
            .unwrap();
        assert!(io::copy(&mut reader, &mut io::sink()).is_err());
        let error = reader.check().unwrap_err();
        assert!(matches!(error, ClientError::Source { .. }), "{error}");
    }
}
