//! Directories named after what they hold: `sha256-…`. Without a colon, for overlay options separate
//! layers by one.

use std::ffi::OsStr;

use oci::Digest;

const PREFIX: &str = "sha256-";

/// The name of a digest's directory.
pub(crate) fn of(digest: &Digest) -> String {
    format!("{PREFIX}{}", digest.hex())
}

/// Whose directory has this name, if it is one.
pub(crate) fn read(name: &OsStr) -> Option<Digest> {
    let hex = name.to_str()?.strip_prefix(PREFIX)?;
    Digest::from_hex(hex).ok()
}
