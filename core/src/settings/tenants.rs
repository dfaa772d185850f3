//! How the tenants' URLs are reached from elsewhere.

use http::Uri;
use proxy::Forwarded;
use serde::{Deserialize, Deserializer, de};

/// Stands for a tenant's id in the pattern of their URLs.
const TENANT: &str = "{tenant}";
/// Stands for the port that the server listens on for a tenant.
const PORT: &str = "{port}";

/// How the tenants' URLs are reached from elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Tenants {
    /// What clients and applications are told; the address that is listened on, where it is not said.
    pub(crate) url: Option<UrlPattern>,
    /// Whether nobody but a proxy reaches the tenants' ports, which has checked what it says in `X-Forwarded-…`.
    pub(crate) behind_proxy: bool,
}

impl Tenants {
    /// What a tenant's URL is, if the address that it listens on does not say.
    pub(crate) fn url_of(&self, id: &str, port: u16) -> Option<String> {
        self.url.as_ref().map(|pattern| pattern.of(id, port))
    }

    /// Whom applications are told as their client.
    pub(crate) fn forwarded(&self) -> Forwarded {
        if self.behind_proxy {
            Forwarded::Append
        } else {
            Forwarded::Replace
        }
    }
}

/// A URL without a path that tells tenants apart, by their ids or their ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UrlPattern(String);

impl UrlPattern {
    fn parse(text: &str) -> Result<Self, String> {
        let pattern = Self(text.trim_end_matches('/').to_owned());
        // Which of the two differ does not matter to what is asked here.
        let made = pattern.of("a", 20_000);
        let url: Uri = made.parse().map_err(|error| format!("{error}"))?;
        let host = url.host().unwrap_or_default();
        let has_user = url.authority().is_some_and(|a| a.as_str().contains('@'));
        if !matches!(url.scheme_str(), Some("http" | "https")) || host.is_empty() || has_user {
            return Err("it does not begin with http:// or https:// and a host".to_owned());
        }
        if url.path() != "/" || url.query().is_some() || made.contains(['{', '}', '#']) {
            return Err("behind the host there may be a port and nothing else".to_owned());
        }
        if !text.contains(TENANT) && !text.contains(PORT) {
            return Err(format!(
                "all tenants would have it: put {TENANT} or {PORT} into it"
            ));
        }
        Ok(pattern)
    }

    fn of(&self, id: &str, port: u16) -> String {
        self.0.replace(TENANT, id).replace(PORT, &port.to_string())
    }
}

impl<'de> Deserialize<'de> for UrlPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|why| {
            let example = format!("such as https://platform.example.com:{PORT}");
            de::Error::custom(format!("{text:?} is no URL of tenants, {example}: {why}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_the_id_or_the_port_of_its_tenant() {
        for (pattern, expected) in [
            (
                "https://p.example.com:{port}",
                "https://p.example.com:20007",
            ),
            ("https://{tenant}.example.com/", "https://shop.example.com"),
            ("http://[2001:db8::1]:{port}", "http://[2001:db8::1]:20007"),
        ] {
            let pattern = UrlPattern::parse(pattern).unwrap();
            assert_eq!(pattern.of("shop", 20_007), expected);
        }
    }

    #[test]
    fn what_is_no_url_of_tenants_is_refused_with_its_reason() {
        for (pattern, told) in [
            ("p.example.com:{port}", "http"),
            ("ftp://p.example.com:{port}", "http"),
            ("https://me@p.example.com:{port}", "http"),
            ("https://p.example.com", "{tenant}"),
            ("https://p.example.com/{tenant}", "nothing else"),
            ("https://p.example.com:{prot}", "invalid"),
            ("https://{tenant}.example.com?x", "nothing else"),
        ] {
            let refused = UrlPattern::parse(pattern).unwrap_err();
            assert!(refused.contains(told), "{pattern}: {refused}");
        }
    }
}
