//! Reading request bodies: bounded in size, and in the time without a byte.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{HeaderMap, header};

use crate::error::RegistryError;

/// As much goes to the disk at once. Each upload has so much in memory, beside what the connection has read.
const BATCH: usize = 256 * 1024;

/// As much is read of a body that nobody wants.
const DRAINED: usize = 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// A request body on its way in.
pub(crate) struct Incoming {
    stream: BodyDataStream,
    idle: Duration,
    /// Bytes that may still come.
    allowance: u64,
    limit: u64,
    /// Kept until what came before it has been dealt with.
    failure: Option<RegistryError>,
}

impl Incoming {
    /// Nothing may come until it is admitted.
    pub(crate) fn new(body: Body, idle: Duration) -> Self {
        Self {
            stream: body.into_data_stream(),
            idle,
            allowance: 0,
            limit: 0,
            failure: None,
        }
    }

    /// Lets `allowance` bytes come; refuses a body that says itself that it is longer. `limit` is
    /// what the client is told.
    pub(crate) fn admit(
        &mut self,
        headers: &HeaderMap,
        allowance: u64,
        limit: u64,
    ) -> Result<(), RegistryError> {
        if content_length(headers).is_some_and(|length| length > allowance) {
            return Err(RegistryError::TooLarge { limit });
        }
        (self.allowance, self.limit) = (allowance, limit);
        Ok(())
    }

    /// Reads on for a little while after a refusal. A connection closed over unread bytes is reset,
    /// and the reset may overtake the answer that says why.
    pub(crate) async fn drain(&mut self, headers: &HeaderMap) {
        // Whoever waits for a word to go on sends nothing more; reading would give the word.
        if headers.contains_key(header::EXPECT) {
            return;
        }
        let reading = async {
            let mut left = DRAINED;
            while let Some(Ok(part)) = self.stream.next().await {
                match left.checked_sub(part.len()) {
                    Some(rest) => left = rest,
                    None => break,
                }
            }
        };
        // Out of time is as good as at the end: the answer goes out now.
        let _ = tokio::time::timeout(DRAIN_TIME, reading).await;
    }

    /// The next stretch, about a [`BATCH`]; none at the end.
    pub(crate) async fn batch(&mut self) -> Result<Option<Vec<Bytes>>, RegistryError> {
        let mut batch = Vec::new();
        let mut length = 0;
        while length < BATCH && self.failure.is_none() {
            match self.part().await {
                Ok(Some(part)) => {
                    length += part.len();
                    batch.push(part);
                }
                Ok(None) => break,
                // What has come is handed out first: the client will want to go on from there.
                Err(error) => self.failure = Some(error),
            }
        }
        match self.failure.take_if(|_| batch.is_empty()) {
            Some(error) => Err(error),
            None => Ok(Some(batch).filter(|batch| !batch.is_empty())),
        }
    }

    /// The whole body, for small ones.
    pub(crate) async fn whole(&mut self) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        while let Some(batch) = self.batch().await? {
            for part in batch {
                bytes.extend_from_slice(&part);
            }
        }
        Ok(bytes)
    }

    async fn part(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let next = tokio::time::timeout(self.idle, self.stream.next()).await;
        match next.map_err(|_| RegistryError::BodyTimeout)? {
            None => Ok(None),
            Some(Err(_)) => Err(RegistryError::BodyBroken),
            Some(Ok(part)) => {
                let left = self.allowance.checked_sub(part.len() as u64);
                self.allowance = left.ok_or(RegistryError::TooLarge { limit: self.limit })?;
                Ok(Some(part))
            }
        }
    }
}

pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}
