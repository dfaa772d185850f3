//! Names of services.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The service that a release's own keys describe.
pub const APP: &str = "app";
/// The longest name that the platform takes.
const MAX: usize = 30;

/// The name of a service beside [`APP`]. It is part of tags, variables, file names and names of instances.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(String);

/// A text that is no [`ServiceName`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no name of a service: a lower-case letter, then at most 29 lower-case letters, digits and single dashes between \
     them"
)]
pub struct InvalidServiceName(String);

impl ServiceName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = InvalidServiceName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let well_formed = text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.len() <= MAX
            && text.chars().all(allowed)
            && !text.ends_with('-')
            && !text.contains("--");
        if well_formed {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidServiceName(text.to_owned()))
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for ServiceName {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ServiceName {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for ServiceName {
    fn schema_name() -> Cow<'static, str> {
        "ServiceName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Name of a service.",
            "type": "string",
            "pattern": "^[a-z](-?[a-z0-9]){0,29}$",
            "examples": ["api", "worker"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["api", "a", "db-2", "a1-b2", &"a".repeat(30)] {
            assert_eq!(name.parse::<ServiceName>().unwrap().as_str(), name);
        }
        let long = "a".repeat(31);
        for text in ["", "Api", "2nd", "-a", "a-", "a--b", "a_b", "a.b", &long] {
            assert_eq!(
                text.parse::<ServiceName>(),
                Err(InvalidServiceName(text.to_owned()))
            );
        }
    }
}
