//! The key that images are signed with: EC P-256, as cosign uses it.
//!
//! It is read from PKCS#8 in PEM and nothing else: what `openssl genpkey` writes. The key stays in
//! this module; nothing prints it, and no child process inherits the variable.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deploy_plan::failure::Failure;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};

/// The variable that may hold the key itself.
pub const VARIABLE: &str = "SYSTEMPROMPT_SIGNING_KEY";
const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
/// How a key that fits is made.
const MAKE: &str = "make one: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out \
     FILE; another one is brought into the form by: openssl pkcs8 -topk8 -nocrypt -in OLD -out FILE";

/// A key to sign with.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

/// The key did not sign: the system gave no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("cannot sign: the system gives no random numbers")]
pub struct NotSigned;

impl SigningKey {
    /// The key that the variable holds or the settings name; `None` where neither does.
    pub fn find(
        root: &Path,
        file: Option<&Path>,
        variables: &BTreeMap<String, String>,
    ) -> Result<Option<Self>, Failure> {
        let variable = variables.get(VARIABLE).filter(|text| !text.is_empty());
        let (text, origin) = match (variable, file) {
            (Some(text), _) => (text.clone(), VARIABLE.to_owned()),
            (None, Some(file)) => {
                let origin = file.display().to_string();
                let text = std::fs::read_to_string(root.join(file))
                    .map_err(|e| invalid(&origin, &format!("cannot be read: {e}")))?;
                (text, origin)
            }
            (None, None) => return Ok(None),
        };
        Self::from_pem(&text)
            .map(Some)
            .map_err(|why| invalid(&origin, why))
    }

    /// Reads a key; what is wrong with it in words.
    fn from_pem(text: &str) -> Result<Self, &'static str> {
        if text.contains("-----BEGIN EC PRIVATE KEY-----") {
            return Err("is in the form of SEC 1, not PKCS#8");
        }
        if text.contains("ENCRYPTED") {
            return Err("is encrypted");
        }
        // A variable of a CI system may hold its line breaks as `\n`.
        let text = text.replace("\\n", "\n");
        let (_, rest) = text
            .split_once(BEGIN)
            .ok_or("holds no private key in PEM")?;
        let (body, _) = rest.split_once(END).ok_or("ends before the key does")?;
        let body: String = body.split_whitespace().collect();
        let document = STANDARD.decode(body).map_err(|_| "is no base64")?;
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &document, &random)
            .map_err(|_| "is no key for EC P-256 in PKCS#8")?;
        Ok(Self { pair, random })
    }

    /// An ECDSA signature over the SHA-256 of `message`, in DER.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, NotSigned> {
        let signature = self.pair.sign(&self.random, message);
        signature
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| NotSigned)
    }

    /// Whether `signature` is one of ours over `message`.
    #[must_use]
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let public = self.pair.public_key().as_ref();
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public);
        public.verify(message, signature).is_ok()
    }
}

fn invalid(origin: &str, why: &str) -> Failure {
    Failure::preflight(
        "signing_key_invalid",
        format!("the signing key of {origin} {why}"),
        MAKE,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that nobody uses, made anew for every test.
    fn pem() -> String {
        let random = SystemRandom::new();
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(document))
    }

    fn find(text: &str) -> Result<Option<SigningKey>, Failure> {
        let variables = [(VARIABLE.to_owned(), text.to_owned())].into();
        SigningKey::find(Path::new("/"), None, &variables)
    }

    #[test]
    fn a_signature_is_recognised_and_no_other() {
        let key = find(&pem()).unwrap().unwrap();
        let signature = key.sign(b"message").unwrap();
        assert!(key.has_signed(b"message", &signature));
        assert!(!key.has_signed(b"another", &signature));
        let other = find(&pem().replace('\n', "\\n")).unwrap().unwrap();
        assert!(!other.has_signed(b"message", &signature));
    }

    #[test]
    fn what_is_no_key_is_named_and_not_shown() {
        let body = "c2VjcmV0";
        for (text, why) in [
            ("", "none"),
            (body, "holds no private key in PEM"),
            (BEGIN, "ends before the key does"),
            (
                &format!("{BEGIN}\n{body}\n{END}"),
                "is no key for EC P-256 in PKCS#8",
            ),
            (
                "-----BEGIN EC PRIVATE KEY-----",
                "is in the form of SEC 1, not PKCS#8",
            ),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----", "is encrypted"),
        ] {
            match find(text) {
                Ok(found) => assert!(found.is_none() && why == "none", "{text}"),
                Err(failure) => {
                    assert_eq!(failure.code, "signing_key_invalid");
                    assert!(failure.details.ends_with(why), "{}", failure.details);
                    assert!(!failure.details.contains(body));
                }
            }
        }
    }

    #[test]
    fn a_file_is_named_when_it_is_missing() {
        let file = Some(Path::new("keys/none.pem"));
        let failure = SigningKey::find(Path::new("/"), file, &BTreeMap::new()).unwrap_err();
        assert!(failure.details.contains("keys/none.pem cannot be read"));
    }
}
