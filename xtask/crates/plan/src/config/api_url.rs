//! Address of a Management API.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Where the cloud's Management API answers.
pub const PRODUCTION_API: &str = "https://api.systemprompt.io";
/// Where the sandbox's Management API answers.
pub const SANDBOX_API: &str = "https://api-sandbox.systemprompt.io";

/// `http://` or `https://`, a host, and maybe a port and a path; never a final slash, so that a
/// path can be appended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ApiUrl(String);

/// A text that is no [`ApiUrl`]. The text is not repeated where it may hold a password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidApiUrl {
    /// No scheme, or one that is not spoken.
    #[error("expected an address that begins with `https://` or `http://`")]
    Scheme,
    /// No host.
    #[error("the address names no host: write it as in `{PRODUCTION_API}`")]
    Host,
    /// A port that is none.
    #[error("the port of the address is not a number from 1 to 65535")]
    Port,
    /// `user:password@`.
    #[error(
        "the address must not carry a user or password: the token goes into SYSTEMPROMPT_API_TOKEN"
    )]
    UserInformation,
    /// `?` or `#`, a space or the like.
    #[error("the address must end with its host, port or path: no `?`, `#` or space")]
    Characters,
}

impl ApiUrl {
    /// The address, without a final slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host, without the port.
    #[must_use]
    pub fn host(&self) -> &str {
        let authority = authority(&self.0);
        split_port(authority).map_or(authority, |(host, _)| host)
    }
}

impl ApiUrl {
    /// Whether it is on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.host().trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback())
    }
}

/// Between `://` and the path.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

/// The colons inside the brackets of an IPv6 address separate no port.
fn split_port(authority: &str) -> Option<(&str, &str)> {
    let (host, port) = authority.rsplit_once(':')?;
    (!port.ends_with(']')).then_some((host, port))
}

impl Default for ApiUrl {
    fn default() -> Self {
        Self(PRODUCTION_API.to_owned())
    }
}

impl FromStr for ApiUrl {
    type Err = InvalidApiUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"))
            .ok_or(InvalidApiUrl::Scheme)?;
        if authority(text).contains('@') {
            return Err(InvalidApiUrl::UserInformation);
        }
        if rest.contains(|c: char| c.is_whitespace() || c.is_control() || "?#@\\".contains(c)) {
            return Err(InvalidApiUrl::Characters);
        }
        let (host, port) = match split_port(authority(text)) {
            Some((host, port)) => (host, Some(port)),
            None => (authority(text), None),
        };
        if host.is_empty() {
            return Err(InvalidApiUrl::Host);
        }
        if port.is_some_and(|port| !matches!(port.parse::<u16>(), Ok(1..))) {
            return Err(InvalidApiUrl::Port);
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for ApiUrl {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ApiUrl {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for ApiUrl {
    fn schema_name() -> Cow<'static, str> {
        "ApiUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Address of a Management API.",
            "type": "string",
            "pattern": "^https?://[^/@?#\\s]+[^@?#\\s]*$",
            "examples": [PRODUCTION_API],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let found = match text.parse::<ApiUrl>() {
            Ok(url) => format!("{url} on {}", url.host()),
            Err(error) => format!("{error:?}"),
        };
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn forms() {
        check(
            "https://api.systemprompt.io/",
            "https://api.systemprompt.io on api.systemprompt.io",
        );
        check(
            "http://127.0.0.1:7480",
            "http://127.0.0.1:7480 on 127.0.0.1",
        );
        check("http://[::1]:7480/base/", "http://[::1]:7480/base on [::1]");
        check("http://[::1]", "http://[::1] on [::1]");
    }

    #[test]
    fn refused() {
        check("", "Scheme");
        check("api.systemprompt.io", "Scheme");
        check("ftp://api.systemprompt.io", "Scheme");
        check("https://", "Host");
        check("https:///path", "Host");
        check("https://:80", "Host");
        check("https://a:0", "Port");
        check("https://a:port", "Port");
        check("https://user:secret@a", "UserInformation");
        check("https://a?x=1", "Characters");
        check("https://a b", "Characters");
    }
}
