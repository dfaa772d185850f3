//! The machines an image is for.

use std::fmt;
use std::str::FromStr;

/// An operating system and a processor, as images name them: `linux/amd64`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Platform {
    /// `linux`
    pub os: String,
    /// `amd64`
    pub architecture: String,
    /// `v7`, for processors that have variants.
    pub variant: Option<String>,
}

/// A text that is no [`Platform`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no platform: write it as in `linux/amd64` or `linux/arm/v7`")]
pub struct InvalidPlatform(String);

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidPlatform(text.to_owned());
        let word = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(word) {
            return Err(invalid());
        }
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => return Err(invalid()),
        };
        // What this machine calls itself is the commonest slip.
        if matches!(architecture, "x86_64" | "aarch64") || os != "linux" {
            return Err(invalid());
        }
        Ok(Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant,
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for text in ["linux/amd64", "linux/arm64", "linux/arm/v7"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "linux",
            "amd64",
            "linux/",
            "linux/x86_64",
            "linux/a/b/c",
            "Linux/amd64",
            "windows/amd64",
            "linux/amd64 ",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }
}
