//! Private keys: in PEM, where the text between the two lines must be one, and in binary form.

use base64::Engine as _;

use super::tokens::BASE64;

/// The longest key text looked at: an RSA key of 16384 bits takes 12.5 kB.
pub(super) const LIMIT: usize = 16 * 1024;
pub(super) const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
/// Shorter than any key: an Ed25519 key has 48 bytes.
const SHORTEST: usize = 40;
const OPENSSH: &[u8] = b"openssh-key-v1\0";

/// What the text that starts here is, if it is a private key from its first line to its last.
pub(super) fn private_key(text: &[u8]) -> Option<&'static str> {
    let text = &text[..text.len().min(LIMIT)];
    let rest = text.strip_prefix(BEGIN)?;
    let label = &rest[..position(&rest[..rest.len().min(64)], DASHES)?];
    let kind = kind(label)?;
    let body = &rest[label.len() + DASHES.len()..];
    let body = &body[..position(body, END)?];
    let (headers, bytes) = decode(body)?;
    let sound = match kind {
        // What is encrypted by the old scheme decodes to noise in whole blocks.
        _ if headers => bytes.len() >= SHORTEST && bytes.len().is_multiple_of(8),
        "OpenSSH private key" => bytes.starts_with(OPENSSH),
        "PGP private key" => bytes.first().is_some_and(|tag| tag & 0x80 != 0),
        _ => bytes.len() >= SHORTEST && is_one_sequence(&bytes),
    };
    sound.then_some(kind)
}

/// Whether a text opens with the first line of a private key: for documents that say what follows.
pub(super) fn begins_private_key(text: &[u8]) -> bool {
    let rest = text.strip_prefix(BEGIN).unwrap_or_default();
    let rest = &rest[..rest.len().min(64)];
    position(rest, DASHES).is_some_and(|end| kind(&rest[..end]).is_some())
}

fn kind(label: &[u8]) -> Option<&'static str> {
    Some(match label {
        b"OPENSSH PRIVATE KEY" => "OpenSSH private key",
        b"PGP PRIVATE KEY BLOCK" => "PGP private key",
        b"ENCRYPTED PRIVATE KEY" => "encrypted private key",
        b"PRIVATE KEY" | b"RSA PRIVATE KEY" | b"EC PRIVATE KEY" | b"DSA PRIVATE KEY" => {
            "private key"
        }
        _ => return None,
    })
}

/// The bytes of a body, and whether it has the headers of an encrypted key. Line breaks may be
/// written as `\n`, as they are in JSON and in variables.
fn decode(body: &[u8]) -> Option<(bool, Vec<u8>)> {
    let text = std::str::from_utf8(body).ok()?;
    let text = text.replace("\\r", "").replace("\\n", "\n");
    let mut encrypted = false;
    let mut encoded = String::with_capacity(text.len());
    for line in text.lines().map(str::trim) {
        if line.contains(": ") {
            encrypted |= line.starts_with("DEK-Info");
        } else if !line.starts_with('=') {
            // `=` opens the checksum of PGP.
            encoded.push_str(line);
        }
    }
    let bytes = BASE64.decode(encoded).ok()?;
    Some((encrypted, bytes))
}

/// Whether the bytes are one DER `SEQUENCE` and nothing else, as every key is.
fn is_one_sequence(bytes: &[u8]) -> bool {
    sequence(bytes).is_some_and(|(_, rest)| rest.is_empty())
}

/// The content of the `SEQUENCE` at the start, and what follows it.
fn sequence(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    element(bytes, 0x30)
}

fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            let length = length
                .iter()
                .fold(0, |sum: usize, byte| sum << 8 | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    (found == tag).then(|| rest.split_at_checked(length))?
}

/// PKCS#8 (RFC 5958), PKCS#1 (RFC 8017), SEC 1 (RFC 5915) and PKCS#12 (RFC 7292): a sequence that
/// opens with its version.
pub(super) fn is_binary_key(bytes: &[u8]) -> bool {
    let Some((inner, [])) = sequence(bytes) else {
        return false;
    };
    let Some((&[version], rest)) = element(inner, 0x02) else {
        return false;
    };
    let pkcs8 = || Some(element(sequence(rest)?.1, 0x04)?.0.len() >= 32);
    let pkcs1 = || Some(element(rest, 0x02)?.0.len() >= 64);
    let sec1 = || Some(element(rest, 0x04)?.0.len() >= 24);
    match version {
        0 => pkcs8().or_else(pkcs1),
        1 => pkcs8().or_else(sec1),
        3 => sequence(rest).map(|_| true),
        _ => None,
    }
    .unwrap_or(false)
}

fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(label: &str, bytes: &[u8]) -> String {
        let body = BASE64.encode(bytes);
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }

    /// A sequence with the length of an Ed25519 key.
    fn sequence_of_46() -> Vec<u8> {
        let mut bytes = vec![0x30, 46];
        bytes.extend([7; 46]);
        bytes
    }

    #[test]
    fn whole_keys_only() {
        let whole = pem("PRIVATE KEY", &sequence_of_46());
        assert_eq!(private_key(whole.as_bytes()), Some("private key"));
        let in_json = whole.replace('\n', "\\n");
        assert_eq!(private_key(in_json.as_bytes()), Some("private key"));
        for broken in [
            &whole[..40],
            "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
            "-----BEGIN PRIVATE KEY-----\nMIIEvQ...\n-----END PRIVATE KEY-----\n",
            &pem("PRIVATE KEY", b"no sequence at all, and forty bytes long"),
            &pem("CERTIFICATE", &sequence_of_46()),
            &pem("PUBLIC KEY", &sequence_of_46()),
        ] {
            assert_eq!(private_key(broken.as_bytes()), None, "{broken}");
        }
    }

    #[test]
    fn keys_of_other_families() {
        let mut openssh = OPENSSH.to_vec();
        openssh.extend([0; 60]);
        let text = pem("OPENSSH PRIVATE KEY", &openssh);
        assert_eq!(private_key(text.as_bytes()), Some("OpenSSH private key"));
        let encrypted = pem("RSA PRIVATE KEY", &[9; 64]).replacen(
            '\n',
            "\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n",
            1,
        );
        assert_eq!(private_key(encrypted.as_bytes()), Some("private key"));
    }
}
