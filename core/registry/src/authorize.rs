//! The question whether a request may do what it asks for, answered by whoever runs the server.

use std::any::Any;
use std::collections::BTreeSet;

use http::request::Parts;
use http::{Extensions, HeaderMap};
use oci::Digest;

/// What a request wants with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read.
    Pull,
    /// Write.
    Push,
    /// Remove what was written.
    Delete,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow,
    /// Nobody is known yet: 401 with this value of `WWW-Authenticate`, `Basic realm="…"` for instance.
    Challenge(String),
    /// Somebody is known and may not: 403.
    Deny,
}

/// Who asks, as far as the request says it.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The request's headers, `Authorization` among them.
    pub headers: HeaderMap,
    /// What was found out about the request before the registry got it.
    pub extensions: Extensions,
}

impl Caller {
    pub(crate) fn of(head: &Parts) -> Self {
        Self {
            headers: head.headers.clone(),
            extensions: head.extensions.clone(),
        }
    }
}

/// Images that are not deleted.
#[derive(Default)]
pub struct Needed {
    /// Their manifests; with each goes what it names.
    pub images: BTreeSet<Digest>,
    /// While this lives, nobody begins to need another one.
    pub hold: Option<Box<dyn Any + Send>>,
}

/// Decides. May block: it is called on a thread for that.
pub trait Authorize: Send + Sync + 'static {
    /// Without a repository the question is whether the client may use the server at all, which is what
    /// `docker login` asks.
    fn authorize(&self, caller: &Caller, repository: Option<&str>, action: Action) -> Decision;

    /// What somebody needs of a repository, whoever asks for its removal; `None` when that cannot be told now.
    fn needed(&self, repository: &str) -> Option<Needed> {
        let _ = repository;
        Some(Needed::default())
    }
}
