//! Which requests on the tenant's URL are for a service: `/api`, `api.example.com`, `api.example.com/v1`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest path that the platform takes.
const MAX_PATH: usize = 1024;
/// The longest host name that there is.
const MAX_HOST: usize = 253;

/// Requests by host and path. Two that mean the same are equal: the host is in lower case, and no slash ends the path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// A host name, or `*.` and one for any label before it; none for every host.
    pub host: Option<String>,
    /// A path, with all below it.
    pub path: String,
}

/// A text that is no [`Route`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no route: write a path as in `/api`, a host as in `api.example.com` or `*.example.com`, or both as in \
     `api.example.com/v1`"
)]
pub struct InvalidRoute(String);

impl FromStr for Route {
    type Err = InvalidRoute;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidRoute(text.to_owned());
        let (host, path) = match text.find('/') {
            Some(slash) => text.split_at(slash),
            None => (text, "/"),
        };
        let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
        if !path.bytes().all(plain) || path.len() > MAX_PATH || text.is_empty() {
            return Err(invalid());
        }
        let host = host.to_ascii_lowercase();
        if !host.is_empty() && !is_host(&host) {
            return Err(invalid());
        }
        let path = match path.trim_end_matches('/') {
            "" => "/",
            path => path,
        };
        Ok(Self {
            host: Some(host).filter(|host| !host.is_empty()),
            path: path.to_owned(),
        })
    }
}

fn is_host(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.chars().all(allowed);
    // A bare word is most often a path whose slash is missing.
    name.len() <= MAX_HOST && name.contains('.') && name.split('.').all(label)
        || name == "localhost"
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.as_deref(), self.path.as_str()) {
            (None, path) => f.write_str(path),
            (Some(host), "/") => f.write_str(host),
            (Some(host), path) => write!(f, "{host}{path}"),
        }
    }
}

impl Serialize for Route {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Route {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Route {
    fn schema_name() -> Cow<'static, str> {
        "Route".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A path, a host, or both.",
            "type": "string",
            "examples": ["/api", "api.example.com", "*.example.com", "api.example.com/v1"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_the_same_is_equal() {
        for (text, written) in [
            ("/", "/"),
            ("/api/", "/api"),
            ("API.example.com", "api.example.com"),
            ("api.example.com/", "api.example.com"),
            ("*.example.com/v1/", "*.example.com/v1"),
            ("localhost/v1", "localhost/v1"),
        ] {
            let route: Route = text.parse().unwrap();
            assert_eq!(route.to_string(), written);
            assert_eq!(written.parse(), Ok(route));
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "api",
            "*",
            "*.",
            "a..b",
            "example.com:8080",
            "/a b",
            "/a?b",
            "/a#b",
            "http://example.com",
        ] {
            let refused = text.parse::<Route>().unwrap_err().to_string();
            assert!(refused.contains("as in `/api`"), "{text}: {refused}");
        }
    }
}
