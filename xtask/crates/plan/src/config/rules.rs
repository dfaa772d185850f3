//! What single fields accept beyond what their type says.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{Duration, ServiceName, variables};

pub(super) fn not_empty<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    let text = String::deserialize(input)?;
    if text.trim().is_empty() {
        return Err(D::Error::custom("must not be empty"));
    }
    Ok(text)
}

pub(super) fn absolute_path<'de, D: Deserializer<'de>>(input: D) -> Result<String, D::Error> {
    let path = String::deserialize(input)?;
    if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(D::Error::custom(
            "expected a path that begins with `/` and holds no space",
        ));
    }
    Ok(path)
}

pub(super) fn not_zero<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    let duration = Duration::deserialize(input)?;
    if duration.as_std().is_zero() {
        return Err(D::Error::custom("must be longer than nothing"));
    }
    Ok(duration)
}

pub(super) fn variable_names<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let map = BTreeMap::<String, String>::deserialize(input)?;
    for name in map.keys() {
        variables::check_name(name).map_err(D::Error::custom)?;
    }
    Ok(map)
}

pub(super) fn variable_name_list<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<Vec<String>, D::Error> {
    let names = Vec::<String>::deserialize(input)?;
    for name in &names {
        variables::check_name(name).map_err(D::Error::custom)?;
    }
    Ok(names)
}

/// Names of variables with names of secrets, which are names of variables too. What is none is not repeated: it may be the secret
/// itself, written where its name belongs.
pub(super) fn secret_names<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let map = variable_names(input)?;
    for (variable, secret) in &map {
        variables::check_name(secret).map_err(|_| {
            D::Error::custom(format!(
                "what {variable} is given is no name of a secret: letters, digits and `_`, no digit first; the secret itself is \
                 kept by `cargo xtask secrets set NAME`"
            ))
        })?;
    }
    Ok(map)
}

/// Volumes by name, with the paths at which they are found. The names follow the rule of those of services.
pub(super) fn volumes<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let map = BTreeMap::<String, String>::deserialize(input)?;
    for (name, path) in &map {
        if name.parse::<ServiceName>().is_err() {
            return Err(D::Error::custom(format!(
                "`{name}` is no name of a volume: a lower-case letter, then at most 29 lower-case letters, digits and single \
                 dashes between them"
            )));
        }
        if !path.starts_with('/') || path.trim_end_matches('/').is_empty() {
            return Err(D::Error::custom(format!(
                "`{path}` is no place for a volume: an absolute path below `/`"
            )));
        }
        let mut words = path.split('/').filter(|word| !word.is_empty());
        let of_system = words
            .clone()
            .next()
            .is_some_and(|first| matches!(first, "proc" | "sys" | "dev"));
        if of_system || words.any(|word| matches!(word, "." | "..")) {
            return Err(D::Error::custom(format!(
                "`{path}` is no place for a volume: it is not below `/proc`, `/sys` or `/dev`, and holds neither `.` nor `..`"
            )));
        }
    }
    Ok(map)
}

/// TOML has no null, so a text that is not given is an empty one. An environment can take back what
/// the file sets by writing `""`.
pub(super) mod optional {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Option<String>,
        output: S,
    ) -> Result<S::Ok, S::Error> {
        output.serialize_str(value.as_deref().unwrap_or_default())
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<Option<String>, D::Error> {
        Ok(Some(String::deserialize(input)?).filter(|text| !text.is_empty()))
    }
}

/// As [`optional`], for an image of a registry.
pub(super) mod optional_reference {
    use serde::de::Error as _;
    use serde::{Deserializer, Serializer};

    use super::optional;
    use crate::config::base::looks_like_a_reference;

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Option<String>,
        output: S,
    ) -> Result<S::Ok, S::Error> {
        optional::serialize(value, output)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<Option<String>, D::Error> {
        let text = optional::deserialize(input)?;
        match &text {
            Some(text) if !looks_like_a_reference(text) => Err(D::Error::custom(format!(
                "`{text}` is no image reference: write it as in `docker.io/library/postgres:16`"
            ))),
            _ => Ok(text),
        }
    }
}

/// As [`optional`], for a path.
pub(super) mod optional_path {
    use std::path::PathBuf;

    use serde::{Deserializer, Serialize, Serializer};

    use super::optional;

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Option<PathBuf>,
        output: S,
    ) -> Result<S::Ok, S::Error> {
        value.clone().unwrap_or_default().serialize(output)
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        Ok(optional::deserialize(input)?.map(PathBuf::from))
    }
}

/// As [`optional`], for a platform.
pub(super) mod optional_platform {
    use serde::de::Error as _;
    use serde::{Deserializer, Serializer};

    use super::optional;
    use crate::config::Platform;

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Option<Platform>,
        output: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(platform) => output.collect_str(platform),
            None => output.serialize_str(""),
        }
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<Option<Platform>, D::Error> {
        let text = optional::deserialize(input)?;
        text.map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}

/// As [`optional`], for an amount of memory.
pub(super) mod optional_memory {
    use serde::de::Error as _;
    use serde::{Deserializer, Serializer};

    use super::optional;
    use crate::config::Memory;

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Option<Memory>,
        output: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(memory) => output.collect_str(memory),
            None => output.serialize_str(""),
        }
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<Option<Memory>, D::Error> {
        let text = optional::deserialize(input)?;
        text.map(|text| text.parse().map_err(D::Error::custom))
            .transpose()
    }
}

/// As [`optional`], for an address to listen on.
pub(super) mod optional_address {
    use std::net::SocketAddr;

    use serde::de::Error as _;
    use serde::{Deserializer, Serializer};

    use super::optional;

    #[expect(clippy::ref_option, reason = "the signature is serde's")]
    pub(in crate::config) fn serialize<S: Serializer>(
        value: &Option<SocketAddr>,
        output: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(address) => output.collect_str(address),
            None => output.serialize_str(""),
        }
    }

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        input: D,
    ) -> Result<Option<SocketAddr>, D::Error> {
        let Some(text) = optional::deserialize(input)? else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| {
            D::Error::custom(format!(
                "`{text}` is no address to listen on: write an IP address and a port, as in \
                 `127.0.0.1:7480`"
            ))
        })
    }
}
