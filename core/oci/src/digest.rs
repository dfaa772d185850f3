//! Content addresses: `sha256:<64 hex digits>` or `sha512:<128 hex digits>`, and hashing while bytes
//! pass by.
//!
//! These two algorithms are the ones that the image specification registers and asks for. Its grammar
//! knows others, so that a reader of such a digest is told that it is unsupported and not that it is
//! malformed. What is made here is addressed by SHA-256; SHA-512 is for what others made.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};

/// How content is hashed to its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Algorithm {
    /// SHA-256, which everybody knows.
    #[default]
    Sha256,
    /// SHA-512, which registries may know.
    Sha512,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// As it is written before the colon of a digest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|known| known.as_str() == text);
        known.ok_or_else(|| ParseDigestError::Unsupported {
            algorithm: text.to_owned(),
        })
    }
}

/// The address of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(Value);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Value {
    Sha256([u8; 32]),
    Sha512([u8; 64]),
}

impl Digest {
    /// The SHA-256 digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::by(Algorithm::Sha256, bytes)
    }

    /// The digest of `bytes` by an algorithm of choice.
    #[must_use]
    pub fn by(algorithm: Algorithm, bytes: &[u8]) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => Value::Sha256(Sha256::digest(bytes).into()),
            Algorithm::Sha512 => Value::Sha512(Sha512::digest(bytes).into()),
        })
    }

    /// How the content was hashed.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Value::Sha256(_) => Algorithm::Sha256,
            Value::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// The lower-case hex digits, without the algorithm: 64 or 128, by which the algorithms are told apart.
    #[must_use]
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let bytes: &[u8] = match &self.0 {
            Value::Sha256(bytes) => bytes,
            Value::Sha512(bytes) => bytes,
        };
        let mut text = String::with_capacity(2 * bytes.len());
        for byte in bytes {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        text
    }

    /// Reads lower-case hex digits without an algorithm, as file names hold them.
    pub fn from_hex(hex: &str) -> Result<Self, ParseDigestError> {
        let value = match hex.len() {
            64 => bytes_of(hex).map(Value::Sha256),
            128 => bytes_of(hex).map(Value::Sha512),
            _ => None,
        };
        value.map(Self).ok_or_else(|| ParseDigestError::Malformed {
            text: hex.to_owned(),
        })
    }

    /// `sha256-<hex>`: the digest where no colon may stand.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}-{}", self.algorithm(), self.hex())
    }

    /// Reads what [`Self::file_name`] makes.
    pub fn from_file_name(name: &str) -> Result<Self, ParseDigestError> {
        name.replacen('-', ":", 1).parse()
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
    /// A well-formed digest of another algorithm.
    #[error("digest algorithm `{algorithm}` is not supported, only sha256 and sha512 are")]
    Unsupported {
        /// The algorithm as written.
        algorithm: String,
    },
    /// Not a digest at all.
    #[error(
        "`{text}` is not a digest, expected sha256:<64 lower-case hex digits> or sha512:<128 of them>"
    )]
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
        if !is_algorithm(algorithm) || !is_encoded(encoded) {
            return Err(malformed());
        }
        let algorithm: Algorithm = algorithm.parse()?;
        let digest = Self::from_hex(encoded).map_err(|_| malformed())?;
        if digest.algorithm() == algorithm {
            Ok(digest)
        } else {
            Err(malformed())
        }
    }
}

/// `[a-z0-9]+([+._-][a-z0-9]+)*`, as the image specification has it.
fn is_algorithm(text: &str) -> bool {
    let is_component = |part: &str| {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        !part.is_empty() && part.bytes().all(plain)
    };
    text.split(['+', '.', '_', '-']).all(is_component)
}

/// `[a-zA-Z0-9=_-]+`
fn is_encoded(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-');
    !text.is_empty() && text.bytes().all(plain)
}

/// The bytes that hex digits stand for. Upper-case digits are refused: a digest has one spelling.
fn bytes_of<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = hex_value(pair[0])? << 4 | hex_value(pair[1])?;
    }
    Some(bytes)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
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
#[derive(Clone)]
pub struct Hasher {
    state: State,
    length: u64,
}

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// A SHA-256 hasher that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::by(Algorithm::Sha256)
    }

    /// A hasher of this algorithm that has seen nothing.
    #[must_use]
    pub fn by(algorithm: Algorithm) -> Self {
        let state = match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        };
        Self { state, length: 0 }
    }

    /// Which digest this will be.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self.state {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
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
        Digest(match self.state {
            State::Sha256(state) => Value::Sha256(state.finalize().into()),
            State::Sha512(state) => Value::Sha512(state.finalize().into()),
        })
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher")
            .field("algorithm", &self.algorithm())
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
    /// Starts hashing what `inner` yields, with SHA-256.
    pub fn new(inner: R) -> Self {
        Self::by(Algorithm::Sha256, inner)
    }

    /// Starts hashing what `inner` yields.
    pub fn by(algorithm: Algorithm, inner: R) -> Self {
        Self {
            inner,
            hasher: Hasher::by(algorithm),
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
    /// Starts hashing what goes to `inner`, with SHA-256.
    pub fn new(inner: W) -> Self {
        Self::by(Algorithm::Sha256, inner)
    }

    /// Starts hashing what goes to `inner`.
    pub fn by(algorithm: Algorithm, inner: W) -> Self {
        Self {
            inner,
            hasher: Hasher::by(algorithm),
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
    fn both_algorithms_have_the_known_digests() {
        // The examples of FIPS 180-4.
        let abc = Digest::by(Algorithm::Sha512, b"abc");
        assert_eq!(
            abc.to_string(),
            "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        );
        assert_eq!(Digest::from_hex(&abc.hex()), Ok(abc));
        assert_eq!(Digest::from_file_name(&abc.file_name()), Ok(abc));
        assert!(Digest::from_file_name(&abc.hex()).is_err());
        assert_eq!(abc.algorithm(), Algorithm::Sha512);
        assert_eq!(Digest::of(b"").algorithm(), Algorithm::Sha256);
        assert_eq!(Digest::of(b"").hex().len() * 2, abc.hex().len());
    }

    #[test]
    fn other_algorithms_are_known_but_unsupported() {
        for (text, algorithm) in [
            ("sha384:00", "sha384"),
            ("blake3:00ff", "blake3"),
            (
                "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8",
                "multihash+base58",
            ),
            (
                "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564",
                "sha256+b64u",
            ),
        ] {
            let expected = ParseDigestError::Unsupported {
                algorithm: algorithm.to_owned(),
            };
            assert_eq!(text.parse::<Digest>(), Err(expected));
        }
    }

    #[test]
    fn malformed_digests_are_refused() {
        let upper = EMPTY.to_uppercase();
        let short = &EMPTY[..70];
        for text in [
            "",
            "sha256",
            "sha256:",
            ":00",
            "md5:",
            "-md5:00",
            "md5++x:00",
            "md5:0 0",
            "MD5:00",
            &upper,
            short,
            "sha256:é",
            "sha512:ab",
            &format!("sha512:{}", "a".repeat(64)),
            &format!("sha256:{}", "a".repeat(128)),
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
        fn display_and_parse_agree(bytes: Vec<u8>) {
            for algorithm in Algorithm::ALL {
                let digest = Digest::by(algorithm, &bytes);
                prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
                prop_assert_eq!(Digest::from_hex(&digest.hex()), Ok(digest));
            }
        }

        #[test]
        fn reader_and_writer_agree_with_the_whole(bytes: Vec<u8>) {
            for algorithm in Algorithm::ALL {
                let mut reader = DigestReader::by(algorithm, bytes.as_slice());
                let mut writer = DigestWriter::by(algorithm, Vec::new());
                io::copy(&mut reader, &mut writer).unwrap();
                prop_assert_eq!(reader.finish().0, Digest::by(algorithm, &bytes));
                let (digest, copied) = writer.finish();
                prop_assert_eq!(digest, Digest::by(algorithm, &bytes));
                prop_assert_eq!(&copied, &bytes);
            }
        }

        #[test]
        fn any_text_parses_or_fails_without_panic(text in ".{0,80}") {
            let _ = text.parse::<Digest>();
        }
    }
}
