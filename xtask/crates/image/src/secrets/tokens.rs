//! Tokens that say by their form what they are.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// No token is longer.
const LIMIT: usize = 8 * 1024;

/// A place in the bytes that were read, with what stands before and after it.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Place<'a> {
    /// From here on.
    pub(super) fn rest(self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Whether no word runs into this place.
    fn begins_word(self) -> bool {
        let before = self.at.checked_sub(1).map(|at| self.bytes[at]);
        before.is_none_or(|byte| !is_word(byte))
    }

    /// The run of bytes after `skipped` that `takes` accepts, when it begins a word.
    fn run(self, skipped: usize, takes: impl Fn(u8) -> bool) -> Option<&'a [u8]> {
        let rest = self.rest().get(skipped..)?;
        let rest = &rest[..rest.len().min(LIMIT)];
        let length = rest.iter().position(|byte| !takes(*byte));
        self.begins_word()
            .then(|| &rest[..length.unwrap_or(rest.len())])
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// Whether these bytes look drawn by lot: many different ones, digits and letters among them.
/// `xxxxxxxx` and `YOUR_TOKEN_HERE` do not.
fn is_random(bytes: &[u8]) -> bool {
    let mut seen = [false; 256];
    for byte in bytes {
        seen[usize::from(*byte)] = true;
    }
    let distinct = seen.iter().filter(|seen| **seen).count();
    distinct >= 10
        && bytes.iter().any(u8::is_ascii_digit)
        && bytes.iter().any(u8::is_ascii_alphabetic)
}

/// `prefix` and exactly `length` letters and digits.
pub(super) fn exactly(place: Place<'_>, prefix: usize, length: usize) -> bool {
    let run = place.run(prefix, is_word);
    run.is_some_and(|run| {
        run.len() == length && run.iter().all(u8::is_ascii_alphanumeric) && is_random(run)
    })
}

/// `prefix` and `shortest` letters, digits, `-` and `_`, or more.
pub(super) fn at_least(place: Place<'_>, prefix: usize, shortest: usize) -> bool {
    let run = place.run(prefix, is_word);
    run.is_some_and(|run| (shortest..256).contains(&run.len()) && is_random(run))
}

/// `github_pat_`, 22 letters and digits, `_`, 59 more.
pub(super) fn github_fine_grained(place: Place<'_>) -> bool {
    let run = place.run(b"github_pat_".len(), is_word);
    run.is_some_and(|run| run.len() == 82 && run[22] == b'_' && is_random(run))
}

/// `xoxb-` and the like, then numbers and letters in groups.
pub(super) fn slack(place: Place<'_>) -> bool {
    let rest = place.rest();
    let kind = rest.get(3).is_some_and(|kind| b"abeoprs".contains(kind));
    let run = place.run(5, is_word).unwrap_or_default();
    let groups = run.split(|byte| *byte == b'-').count();
    kind && rest.get(4) == Some(&b'-') && run.len() >= 24 && groups >= 2 && is_random(run)
}

/// `hooks.slack.com/services/T…/B…/…`
pub(super) fn slack_webhook(place: Place<'_>) -> bool {
    let rest = place.rest().get(b"hooks.slack.com/services/".len()..);
    let rest = rest.unwrap_or_default();
    let path = &rest[..rest.len().min(100)];
    let mut parts = path.split(|byte| *byte == b'/');
    let mut next = || parts.next().unwrap_or_default();
    let (team, app, secret) = (next(), next(), next());
    let length = secret.iter().position(|byte| !byte.is_ascii_alphanumeric());
    let secret = &secret[..length.unwrap_or(secret.len())];
    team.starts_with(b"T") && app.starts_with(b"B") && secret.len() == 24 && is_random(secret)
}

/// How far apart the two halves of a pair of AWS keys may stand.
pub(super) const PAIR: usize = 512;

/// An access key id with its secret beside it: the id alone opens nothing.
pub(super) fn aws_pair(place: Place<'_>) -> bool {
    let id = place.run(0, is_word).unwrap_or_default();
    let is_id = id.len() == 20
        && id
            .iter()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
    if !is_id || id.ends_with(b"EXAMPLE") || !is_random(id) {
        return false;
    }
    let start = place.at.saturating_sub(PAIR);
    let end = place.bytes.len().min(place.at + 20 + PAIR);
    let mut words = place.bytes[start..end].split(|byte| !is_aws_secret(*byte));
    words.any(is_secret_of_aws)
}

/// `secret_access_key = …`, in any spelling of files and variables.
pub(super) fn aws_secret(place: Place<'_>, key: usize) -> bool {
    let rest = place.rest().get(key..).unwrap_or_default();
    let rest = &rest[..rest.len().min(64)];
    let mut words = rest.split(|byte| !is_aws_secret(*byte));
    words
        .find(|word| !word.is_empty())
        .is_some_and(is_secret_of_aws)
}

fn is_aws_secret(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'/' || byte == b'+'
}

fn is_secret_of_aws(word: &[u8]) -> bool {
    word.len() == 40
        && !word.windows(7).any(|part| part == b"EXAMPLE")
        // A digest in hexadecimal has forty characters too.
        && word.iter().any(u8::is_ascii_uppercase)
        && word.iter().any(u8::is_ascii_lowercase)
        && is_random(word)
}

/// `AccountKey=` or `SharedAccessKey=` and so many bytes in base64.
pub(super) fn azure_key(place: Place<'_>, prefix: usize, bytes: usize) -> bool {
    let rest = place.rest().get(prefix..).unwrap_or_default();
    let length = rest
        .iter()
        .position(|byte| !is_aws_secret(*byte) && *byte != b'=');
    let encoded = &rest[..length.unwrap_or(rest.len()).min(128)];
    BASE64.decode(encoded).is_ok_and(|key| key.len() == bytes) && is_random(encoded)
}

/// A secret of an Azure application: three characters, a digit, `Q~`, then 31 to 34 more. `place`
/// is that of `Q~`.
pub(super) fn azure_secret(place: Place<'_>) -> bool {
    let Some(start) = place.at.checked_sub(4) else {
        return false;
    };
    let from = Place {
        bytes: place.bytes,
        at: start,
    };
    let run = from.run(0, |byte| is_word(byte) || byte == b'~' || byte == b'.');
    run.is_some_and(|run| {
        (37..=40).contains(&run.len()) && run[3].is_ascii_digit() && is_random(run)
    })
}

/// A token of this platform: `sp_`, 16 hexadecimal digits, `_`, 64 more.
pub(super) fn own(place: Place<'_>) -> bool {
    place.run(0, is_word).is_some_and(is_own_token)
}

pub(super) fn is_own_token(token: &[u8]) -> bool {
    let digits = |part: &[u8]| part.iter().all(u8::is_ascii_hexdigit);
    token.len() == 3 + 16 + 1 + 64
        && token.starts_with(b"sp_")
        && token[19] == b'_'
        && digits(&token[3..19])
        && digits(&token[20..])
        && token[20..].iter().any(|byte| *byte != token[20])
}

/// A signed JSON Web Token (RFC 7519) that has an end: what systems hand out to be let in with.
/// The well-known example has none.
pub(super) fn json_web_token(place: Place<'_>) -> bool {
    let Some(run) = place.run(0, |byte| is_word(byte) || byte == b'.') else {
        return false;
    };
    let mut parts = run.split(|byte| *byte == b'.');
    let mut next = || BASE64_URL.decode(parts.next()?).ok();
    let (Some(header), Some(payload), Some(signature)) = (next(), next(), next()) else {
        return false;
    };
    let read = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    let (header, payload) = (read(&header), read(&payload));
    let signed = header["alg"].as_str().is_some_and(|name| name != "none");
    signed && payload["exp"].is_number() && signature.len() >= 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place<'_> {
        Place {
            bytes: text.as_bytes(),
            at: 0,
        }
    }

    /// Looks drawn by lot; not written out, so that no other scanner takes it for real.
    fn random(length: usize) -> String {
        const ALPHABET: &[u8] = b"aB3dE5gH7jK9mN1pQ2rS4tU6vW8xYz0c";
        (0..length)
            .map(|at| char::from(ALPHABET[(at * 7 + at / 5) % ALPHABET.len()]))
            .collect()
    }

    #[test]
    fn a_placeholder_is_no_token() {
        assert!(exactly(place(&format!("ghp_{}", random(36))), 4, 36));
        assert!(!exactly(place(&format!("ghp_{}", "x".repeat(36))), 4, 36));
        assert!(!exactly(place(&format!("ghp_{}", random(35))), 4, 36));
        assert!(!exactly(place(&format!("ghp_{}", random(37))), 4, 36));
    }

    #[test]
    fn an_id_of_aws_needs_its_secret() {
        let id = format!("AKIA{}", "Z3K5M7P2Q4R6S8T9");
        let pair = format!("{id}\nsecret: {}\n", random(40));
        assert!(aws_pair(place(&pair)));
        assert!(!aws_pair(place(&id)));
        let digest = format!("{id} {}", "0123456789abcdef0123456789abcdef01234567");
        assert!(!aws_pair(place(&digest)));
        let sample = format!("AKIA{}EXAMPLE {}", "IOSFODNN7", random(40));
        assert!(!aws_pair(place(&sample)));
    }

    #[test]
    fn web_tokens_decode_and_end() {
        let token = |header: &str, payload: &str| {
            let parts = [header, payload].map(|part| BASE64_URL.encode(part));
            let whole = format!("{}.{}.{}", parts[0], parts[1], BASE64_URL.encode([7; 32]));
            whole.replace('=', "")
        };
        let good = token(r#"{"alg":"HS256"}"#, r#"{"sub":"me","exp":2000000000}"#);
        assert!(json_web_token(place(&good)));
        for other in [
            token(r#"{"alg":"none"}"#, r#"{"exp":2000000000}"#),
            token(r#"{"alg":"HS256"}"#, r#"{"sub":"1234567890"}"#),
            "eyJhbGciOi".to_owned(),
            good.rsplit_once('.').unwrap().0.to_owned(),
        ] {
            assert!(!json_web_token(place(&other)), "{other}");
        }
    }

    #[test]
    fn tokens_of_chat_and_clouds() {
        assert!(slack(place(&format!("xoxb-1234567890-{}", random(24)))));
        assert!(!slack(place("xoxb-not-a-token")));
        let hook = format!("hooks.slack.com/services/T0/B0/{}", random(24));
        assert!(slack_webhook(place(&hook)));
        assert!(!slack_webhook(place("hooks.slack.com/services/T0/B0/XX")));
        let key = format!("AccountKey={}", BASE64.encode(random(64)));
        assert!(azure_key(place(&key), 11, 64));
        assert!(!azure_key(place("AccountKey=..."), 11, 64));
        let secret = format!("aB18Q~{}", random(34));
        let at_mark = Place {
            bytes: secret.as_bytes(),
            at: 4,
        };
        assert!(azure_secret(at_mark));
    }
}
