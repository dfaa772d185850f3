//! Registry tokens: JSON Web Tokens (RFC 7519) that name repositories and actions, in the form that the distribution
//! project's `docs/spec/auth/jwt.md` describes.
//!
//! Whoever signs them is whoever reads them, so they are signed with HMAC-SHA256 (RFC 7518 section 3.2) and a key that
//! never leaves the server's data folder. Whether the platform token behind one still holds is not decided here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::hex;

/// Who issues the tokens and whom they are for, which is this server both times.
pub(crate) const SERVICE: &str = "systemprompt";

/// What a token lets its bearer do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    /// `repository`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// The repository.
    pub(crate) name: String,
    /// `pull`, `push`, `delete`.
    pub(crate) actions: Vec<String>,
}

/// What a token says. Times are seconds since the epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    iss: String,
    aud: String,
    /// Id of the platform token that it was got with.
    #[serde(rename = "sub")]
    pub(crate) root_token: String,
    jti: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    pub(crate) access: Vec<Grant>,
}

impl Claims {
    /// Whether the bearer may do `action` to `repository`.
    pub(crate) fn allow(&self, repository: &str, action: &str) -> bool {
        let allows = |grant: &Grant| {
            let named = grant.kind == "repository" && grant.name == repository;
            named && grant.actions.iter().any(|allowed| allowed == action)
        };
        self.access.iter().any(allows)
    }

    /// Seconds until it ends.
    pub(crate) fn remaining(&self, now: i64) -> u64 {
        u64::try_from(self.exp.saturating_sub(now)).unwrap_or(0)
    }
}

/// Signs tokens and reads them back.
pub(crate) struct Signer {
    key: hmac::Key,
    /// Encoded. A token with another one was not made here: no algorithm is chosen by whoever sends it.
    header: String,
}

impl Signer {
    /// Signs with this key.
    pub(crate) fn new(key: &SecretSlice<u8>) -> Self {
        let key = key.expose_secret();
        let id = hex::encode(&Sha256::digest(key)[..8]);
        let header = format!(r#"{{"typ":"JWT","alg":"HS256","kid":"{id}"}}"#);
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key),
            header: BASE64.encode(header),
        }
    }

    /// A token that holds for `seconds` from `now` on.
    pub(crate) fn sign(
        &self,
        root_token: &str,
        access: Vec<Grant>,
        now: i64,
        seconds: u64,
    ) -> SecretString {
        let mut id = [0; 16];
        getrandom::fill(&mut id).expect("the operating system gives random bytes");
        let claims = Claims {
            iss: SERVICE.to_owned(),
            aud: SERVICE.to_owned(),
            root_token: root_token.to_owned(),
            jti: hex::encode(&id),
            iat: now,
            nbf: now,
            exp: now.saturating_add_unsigned(seconds),
            access,
        };
        let payload = serde_json::to_vec(&claims).expect("claims are plain text and numbers");
        let signed = format!("{}.{}", self.header, BASE64.encode(payload));
        let tag = hmac::sign(&self.key, signed.as_bytes());
        SecretString::from(format!("{signed}.{}", BASE64.encode(tag)))
    }

    /// What a token says that was signed here and holds now.
    pub(crate) fn read(&self, token: &str, now: i64) -> Option<Claims> {
        let (signed, tag) = token.rsplit_once('.')?;
        let tag = BASE64.decode(tag).ok()?;
        // In constant time.
        hmac::verify(&self.key, signed.as_bytes(), &tag).ok()?;
        let payload = signed.strip_prefix(&self.header)?.strip_prefix('.')?;
        let claims: Claims = serde_json::from_slice(&BASE64.decode(payload).ok()?).ok()?;
        let ours = claims.iss == SERVICE && claims.aud == SERVICE;
        (ours && claims.nbf <= now && now < claims.exp).then_some(claims)
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    use super::*;

    /// A signer with this byte as its key.
    pub(crate) fn signer(byte: u8) -> Signer {
        Signer::new(&SecretSlice::from(vec![byte; 32]))
    }
}

#[cfg(test)]
mod tests {
    use super::fixtures::signer;
    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn grant(name: &str, actions: &[&str]) -> Grant {
        Grant {
            kind: "repository".into(),
            name: name.into(),
            actions: actions.iter().map(|&action| action.to_owned()).collect(),
        }
    }

    #[test]
    fn a_token_allows_what_it_names_and_nothing_else() {
        let signer = signer(1);
        let access = vec![grant("a", &["pull", "push"]), grant("b", &["pull"])];
        let token = signer.sign("root", access, NOW, 60);
        let claims = signer.read(token.expose_secret(), NOW).unwrap();
        assert_eq!(claims.root_token, "root");
        for (repository, action, allowed) in [
            ("a", "pull", true),
            ("a", "push", true),
            ("a", "delete", false),
            ("b", "pull", true),
            ("b", "push", false),
            ("a/b", "pull", false),
            ("", "pull", false),
        ] {
            assert_eq!(
                claims.allow(repository, action),
                allowed,
                "{repository} {action}"
            );
        }
    }

    #[test]
    fn a_token_holds_from_its_first_second_to_its_last() {
        let token = signer(1).sign("root", Vec::new(), NOW, 60);
        let read = |now| signer(1).read(token.expose_secret(), now);
        for (now, holds) in [(NOW - 1, false), (NOW, true), (NOW + 59, true)] {
            assert_eq!(read(now).is_some(), holds, "{now}");
        }
        assert_eq!(read(NOW + 60), None);
        assert_eq!(read(NOW + 20).unwrap().remaining(NOW + 20), 40);
    }

    #[test]
    fn what_was_not_signed_here_is_no_token() {
        let signer = signer(1);
        let token = signer.sign("root", vec![grant("a", &["pull"])], NOW, 60);
        let text = token.expose_secret();
        let [header, payload, tag] = text.split('.').collect::<Vec<_>>()[..] else {
            panic!("{text}");
        };
        let other = fixtures::signer(2).sign("root", Vec::new(), NOW, 60);
        let none = BASE64.encode(r#"{"typ":"JWT","alg":"none"}"#);
        let more = BASE64.encode(
            String::from_utf8(BASE64.decode(payload).unwrap())
                .unwrap()
                .replace("pull", "push"),
        );
        for forged in [
            other.expose_secret().to_owned(),
            format!("{none}.{payload}."),
            format!("{none}.{payload}.{tag}"),
            format!("{header}.{more}.{tag}"),
            format!("{header}.{payload}."),
            format!("{header}.{payload}"),
            format!("{header}.{payload}.{tag}A"),
            String::new(),
            "..".to_owned(),
        ] {
            assert_eq!(signer.read(&forged, NOW), None, "{forged}");
        }
    }
}
