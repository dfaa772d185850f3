//! Container images as data: names, digests, manifests, a store of them on disk and a client of
//! registries.
//!
//! What this crate deliberately does not do: it runs nothing, unpacks no layers, reads no
//! credential files and serves nothing. Everything is blocking, and a blob is never held in memory.

mod client;
mod config;
mod digest;
mod manifest;
pub mod media_type;
mod push;
mod reference;
mod store;
mod tags;

pub use client::{
    Answer, BlobSource, BlobState, CallSite, Client, ClientError, ClientOptions, Counters,
    Credentials, Interrupt, PlainHttp, Progress, ProgressHook, ReceivedManifest, RetryPolicy,
    StoredBlob, TagOrDigest, Timeouts,
};
pub use config::{Healthcheck, History, ImageConfig, RootFs, RunConfig};
pub use digest::{Algorithm, Digest, DigestReader, DigestWriter, Hasher, ParseDigestError};
pub use manifest::{Descriptor, ImageIndex, ImageManifest, ParseManifestError, Platform};
pub use push::{Ahead, BlobSources, ImagePush, Known, Pushed, push_image, push_image_as};
pub use reference::{ParseReferenceError, Reference, Repository, Tag, is_loopback_registry};
pub use store::{
    BlobWriter, Collected, Collecting, Content, Files, Hold, Holdings, Inventory, Linked, Manifest,
    Manifests, Parts, STORE_LAYOUT, Store, StoreError, Surplus,
};
pub use tags::latest_tags;
