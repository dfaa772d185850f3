//! A signed envelope around a statement: DSSE, <https://github.com/secure-systems-lab/dsse>.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::key::{NotSigned, SigningKey};

pub(super) const MEDIA_TYPE: &str = "application/vnd.dsse.envelope.v1+json";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<'a> {
    payload_type: &'a str,
    payload: String,
    signatures: [Signature; 1],
}

#[derive(Serialize)]
struct Signature {
    keyid: &'static str,
    sig: String,
}

/// The envelope of `body`, signed.
pub(super) fn sealed(kind: &str, body: &[u8], key: &SigningKey) -> Result<Vec<u8>, NotSigned> {
    let signature = key.sign(&authenticated(kind, body))?;
    Ok(super::to_json(&Envelope {
        payload_type: kind,
        payload: STANDARD.encode(body),
        signatures: [Signature {
            keyid: "",
            sig: STANDARD.encode(signature),
        }],
    }))
}

/// What is signed: type and body with their lengths, so that neither can be taken for the other
/// (section "Pre-Authentication Encoding").
fn authenticated(kind: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {kind} {} ", kind.len(), body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn the_encoding_is_that_of_the_specification() {
        assert_eq!(
            authenticated("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
    }
}
