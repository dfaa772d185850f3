//! Content addresses: `sha256:<64 hex digits>`, and hashing while bytes pass by.
//!
//! Only SHA-256 is accepted. The grammar knows `sha512` too, so that a reader of such a digest is
//! told that it is unsupported and not that it is malformed.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

const ALGORITHM: &str = "sha256";

/// The SHA-256 address of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The 64 lower-case hex digits, without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        text
    }

    /// Reads 64 lower-case hex digits without an algorithm, as file names hold them.
    pub fn from_hex(hex: &str) -> Result<Self, ParseDigestError> {
        let malformed = || ParseDigestError::Malformed {
            text: hex.to_owned(),
        };
        if hex.len() != 64 {
            return Err(malformed());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let high = hex_value(pair[0]).ok_or_else(malformed)?;
            let low = hex_value(pair[1]).ok_or_else(malformed)?;
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }

    /// The first 12 hex digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        let mut hex = self.hex();
        hex.truncate(12);
        hex
    }
}

/// Why a text is not a digest this crate can use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDigestError {
    /// A well-formed digest of an algorithm that is not SHA-256.
    #[error("digest algorithm `{algorithm}` is not supported, only sha256 is")]
    Unsupported {
        /// The algorithm as written.
        algorithm: String,
    },
    /// Not a digest at all.
    #[error("`{text}` is not a digest, expected sha256:<64 lower-case hex digits>")]
    Malformed {
        /// The text as given.
        text: String,
    },
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ParseDigestError::Malformed {
            text: text.to_owned(),
        };
        let (algorithm, encoded) = text.split_once(':').ok_or_else(malformed)?;
        match algorithm {
            ALGORITHM => Self::from_hex(encoded).map_err(|_| malformed()),
            "sha512" if encoded.len() == 128 && encoded.bytes().all(|b| hex_value(b).is_some()) => {
                Err(ParseDigestError::Unsupported {
                    algorithm: algorithm.to_owned(),
                })
            }
            _ => Err(malformed()),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A digest in the making. Cloning it keeps the state, so that a partial upload can be continued.
#[derive(Clone, Default)]
pub struct Hasher {
    state: Sha256,
    length: u64,
}

impl Hasher {
    /// A hasher that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state.update(bytes);
        self.length += bytes.len() as u64;
    }

    /// Bytes seen so far.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The digest of all bytes seen.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.state.finalize().into())
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher")
            .field("length", &self.length)
            .finish_non_exhaustive()
    }
}

/// Hashes what is read through it.
#[derive(Debug)]
pub struct DigestReader<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> DigestReader<R> {
    /// Starts hashing what `inner` yields.
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: Hasher::new(),
        }
    }

    /// Bytes read so far.
    pub fn length(&self) -> u64 {
        self.hasher.length()
    }

    /// The digest of what was read, and the reader.
    pub fn finish(self) -> (Digest, R) {
        (self.hasher.finish(), self.inner)
    }
}

impl<R: Read> Read for DigestReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

/// Hashes what is written through it.
#[derive(Debug)]
pub struct DigestWriter<W> {
    inner: W,
    hasher: Hasher,
}

impl<W: Write> DigestWriter<W> {
    /// Starts hashing what goes to `inner`.
    pub fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Hasher::new(),
        }
    }

    /// Bytes written so far.
    pub fn length(&self) -> u64 {
        self.hasher.length()
    }

    /// The digest of what was written, and the writer. Does not flush.
    pub fn finish(self) -> (Digest, W) {
        (self.hasher.finish(), self.inner)
    }
}

impl<W: Write> Write for DigestWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Upper-case digits are refused: a digest has one spelling.
fn hex_value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn empty_input_has_the_known_digest() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
        assert_eq!(Hasher::new().finish().to_string(), EMPTY);
    }

    #[test]
    fn sha512_is_known_but_unsupported() {
        let error = format!("sha512:{}", "a".repeat(128))
            .parse::<Digest>()
            .unwrap_err();
        assert_eq!(
            error,
            ParseDigestError::Unsupported {
                algorithm: "sha512".to_owned()
            }
        );
    }

    #[test]
    fn malformed_digests_are_refused() {
        let upper = EMPTY.to_uppercase();
        let short = &EMPTY[..70];
        for text in [
            "",
            "sha256",
            "sha256:",
            "md5:00",
            &upper,
            short,
            "sha256:é",
            "sha512:ab",
        ] {
            let error = text.parse::<Digest>().unwrap_err();
            assert!(
                matches!(error, ParseDigestError::Malformed { .. }),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn json_is_the_plain_text() {
        let digest: Digest = serde_json::from_str(&format!("\"{EMPTY}\"")).unwrap();
        assert_eq!(
            serde_json::to_string(&digest).unwrap(),
            format!("\"{EMPTY}\"")
        );
        assert!(serde_json::from_str::<Digest>("\"sha256:no\"").is_err());
    }

    proptest! {
        #[test]
        fn display_and_parse_agree(bytes: [u8; 32]) {
            let digest = Digest(bytes);
            prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        }

        #[test]
        fn reader_and_writer_agree_with_the_whole(bytes: Vec<u8>) {
            let mut reader = DigestReader::new(bytes.as_slice());
            let mut writer = DigestWriter::new(Vec::new());
            io::copy(&mut reader, &mut writer).unwrap();
            prop_assert_eq!(reader.finish().0, Digest::of(&bytes));
            let (digest, copied) = writer.finish();
            prop_assert_eq!(digest, Digest::of(&bytes));
            prop_assert_eq!(copied, bytes);
        }

        #[test]
        fn any_text_parses_or_fails_without_panic(text in ".{0,80}") {
            let _ = text.parse::<Digest>();
        }
    }
}
