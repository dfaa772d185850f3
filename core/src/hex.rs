//! Bytes as lower-case hexadecimal digits.

use std::fmt::Write as _;
use std::io;

/// Reads digits back, of either case; nothing where they are none.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        [high, low] => {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
        }
        _ => None,
    };
    digits.map(byte).collect()
}

/// 16 digits that nobody else has.
pub(crate) fn random() -> io::Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|_| io::Error::other("the operating system gives no random bytes"))?;
    Ok(encode(&bytes))
}

/// Encodes bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
