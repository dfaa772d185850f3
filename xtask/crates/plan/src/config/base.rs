//! What an image stands on.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What the application's layers are put upon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Base {
    /// What the Dockerfile's `FROM` says.
    #[default]
    Dockerfile,
    /// A layer made from this machine's loader and the shared libraries that the binaries need.
    Host,
    /// Nothing.
    Scratch,
    /// Another image, by reference. The shape is checked here, the grammar by the image step.
    Image(String),
}

/// A text that is no [`Base`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBase {
    /// A bare word. It could be an image of that name, but is most often one of the three words
    /// misspelt.
    #[error(
        "`{0}` is none of dockerfile, host, scratch; an image is written with its tag or digest, as \
         in `{0}:latest`"
    )]
    Word(String),
    /// Holds what no image reference holds.
    #[error("`{0}` is neither dockerfile, host, scratch nor an image reference")]
    Reference(String),
}

impl FromStr for Base {
    type Err = InvalidBase;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "dockerfile" => Ok(Self::Dockerfile),
            "host" => Ok(Self::Host),
            "scratch" => Ok(Self::Scratch),
            _ if !looks_like_a_reference(text) => Err(InvalidBase::Reference(text.to_owned())),
            _ if !text.contains([':', '@']) => Err(InvalidBase::Word(text.to_owned())),
            _ => Ok(Self::Image(text.to_owned())),
        }
    }
}

pub(crate) fn looks_like_a_reference(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "._-/:@".contains(c))
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Dockerfile => "dockerfile",
            Self::Host => "host",
            Self::Scratch => "scratch",
            Self::Image(reference) => reference,
        })
    }
}

impl Serialize for Base {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Base {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Base {
    fn schema_name() -> Cow<'static, str> {
        "Base".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "dockerfile, host, scratch, or an image reference with a tag or digest.",
            "type": "string",
            "minLength": 1,
            "examples": ["dockerfile", "host", "scratch", "debian:bookworm-slim"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let found = match text.parse::<Base>() {
            Ok(base) => {
                assert_eq!(base.to_string(), text);
                format!("{base:?}")
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn forms() {
        check("dockerfile", "Dockerfile");
        check("host", "Host");
        check("scratch", "Scratch");
        check("debian:bookworm-slim", r#"Image("debian:bookworm-slim")"#);
        check(
            "localhost:5000/a/b@sha256:00ff",
            r#"Image("localhost:5000/a/b@sha256:00ff")"#,
        );
    }

    #[test]
    fn refused() {
        check(
            "hosts",
            "`hosts` is none of dockerfile, host, scratch; an image is written with its tag or \
             digest, as in `hosts:latest`",
        );
        for text in ["", "debian:", "a b:c", "-rf:x", "debian:tag\n"] {
            let refused =
                format!("`{text}` is neither dockerfile, host, scratch nor an image reference");
            check(text, &refused);
        }
    }
}
