//! When a token ends. The signature is not looked at: only the server can judge it, and it will.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

/// RFC 7515 writes no padding; some issuers do.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The `exp` of a JSON Web Token (RFC 7519, section 4.1.4): seconds since 1970. `None` for a token
/// that is no JWT or has no `exp`.
#[must_use]
pub fn expires_at(token: &str) -> Option<i64> {
    let mut parts = token.trim().split('.');
    let (_header, payload, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let payload = BASE64.decode(payload).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let exp = claims.get("exp")?;
    exp.as_i64()
        .or_else(|| exp.as_f64().and_then(whole_seconds))
}

/// `NumericDate` may have a fraction. What does not fit is no time.
fn whole_seconds(seconds: f64) -> Option<i64> {
    // 2^53: up to here every whole number is exact.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if seconds.abs() > EXACT {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the fraction is dropped on purpose and the rest fits"
    )]
    let whole = seconds.floor() as i64;
    Some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};

    fn token(claims: &str) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
        format!("{header}.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn the_end_of_a_token() {
        assert_eq!(
            expires_at(&token(r#"{"exp":1705329622}"#)),
            Some(1_705_329_622)
        );
        assert_eq!(
            expires_at(&token(r#"{"exp":1705329622.9}"#)),
            Some(1_705_329_622)
        );
        assert_eq!(expires_at(&token(r#"{"exp":-1}"#)), Some(-1));
        assert_eq!(
            expires_at(&format!(
                "a.{}.b\n",
                URL_SAFE.encode(r#"{"exp":12,"a":"é?>"}"#)
            )),
            Some(12)
        );
    }

    #[test]
    fn tokens_without_an_end() {
        let texts = [
            String::new(),
            "opaque".to_owned(),
            "a.b".to_owned(),
            "a.%%.c".to_owned(),
            format!("{}.d", token(r#"{"exp":1}"#)),
            token("not json"),
            token(r#"{"sub":"me"}"#),
            token(r#"{"exp":"soon"}"#),
            token(r#"{"exp":1e300}"#),
            token("[]"),
        ];
        for text in texts {
            assert_eq!(expires_at(&text), None, "{text}");
        }
    }
}
