//! Bytes as lower-case hexadecimal digits.

use std::fmt::Write as _;

/// Encodes bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
