//! `systemprompt backup` and `restore`: what a server keeps, in one place, whole or not at all.
//!
//! A backup is a folder, or an archive of one, with the layout of the server's own: the database as it was at one
//! moment, and of the registry what the releases of that moment need. Secrets are in it as they are sealed. Logs, tokens
//! in files and unpacked images are not.

mod make;
mod restore;
mod sink;

use serde::{Deserialize, Serialize};

pub(crate) use make::make;
pub(crate) use restore::restore;

/// The file that says what a backup is. It is written last, so that what was cut off lacks it.
const ABOUT: &str = "backup.json";
/// What [`About`] describes.
const FORMAT: u32 = 1;
/// The SHA-256 of every other file, as `sha256sum --check` reads it.
const SUMS: &str = "SHA256SUMS";
/// Bytes of it: half a million files.
const SUMS_LIMIT: u64 = 64 * 1024 * 1024;
const DATABASE: &str = "state.db";
const REGISTRY: &str = "registry";
const KEY: &str = "secrets.key";

/// Content of [`ABOUT`].
#[derive(Debug, Clone, Serialize, Deserialize)]
struct About {
    format: u32,
    /// Of the server whose command made it.
    version: String,
    made_at: chrono::DateTime<chrono::Utc>,
    /// The end of the audit log, as `verify` prints it.
    audit: String,
    /// Everything but this file.
    files: u64,
    bytes: u64,
    /// Digest of [`SUMS`].
    sums: oci::Digest,
    with_key: bool,
}
