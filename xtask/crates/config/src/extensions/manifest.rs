//! Reads one manifest.

use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::{MessageFormatter as _, Spanned, UserMessageFormatter};

use crate::nearest::nearest;

/// What a manifest declares.
pub(super) struct Declared {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) binary: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) enabled: bool,
    /// The line that the declaration begins at, from 1.
    pub(super) line: u64,
}

/// What is wrong with a manifest, and on which line.
pub(super) struct Fault {
    pub(super) line: Option<u64>,
    pub(super) message: String,
}

#[derive(Deserialize)]
struct Record {
    #[serde(rename = "type")]
    kind: Spanned<String>,
    name: Spanned<String>,
    binary: Option<Spanned<String>>,
    port: Option<Port>,
    enabled: Option<bool>,
}

const KEYS: [&str; 5] = ["type", "name", "binary", "port", "enabled"];

/// A manifest without a declaration is one of something else.
pub(super) fn parse(text: &str) -> Result<Option<Declared>, Fault> {
    #[derive(Deserialize)]
    struct Outline {
        extension: Keys,
    }
    #[derive(Deserialize)]
    struct Whole {
        extension: Spanned<Record>,
    }
    if text.trim().is_empty() {
        return Ok(None);
    }
    let keys: Keys = serde_saphyr::from_str(text)?;
    if !keys.has("extension") {
        return find_misspelling(&keys, &["extension"]).map(|()| None);
    }
    let outline: Outline = serde_saphyr::from_str(text)?;
    find_misspelling(&outline.extension, &KEYS)?;
    let whole: Whole = serde_saphyr::from_str(text)?;
    check(&whole.extension.value)?;
    Ok(Some(whole.extension.into()))
}

impl From<Spanned<Record>> for Declared {
    fn from(record: Spanned<Record>) -> Self {
        let line = record.referenced.line();
        let record = record.value;
        Self {
            kind: record.kind.value,
            name: record.name.value,
            binary: record.binary.map(|binary| binary.value),
            port: record.port.map(|port| port.0),
            enabled: record.enabled.unwrap_or(true),
            line,
        }
    }
}

impl Fault {
    fn at<T>(value: &Spanned<T>, message: impl Into<String>) -> Self {
        Self {
            line: Some(value.referenced.line()),
            message: message.into(),
        }
    }
}

impl From<serde_saphyr::Error> for Fault {
    fn from(error: serde_saphyr::Error) -> Self {
        let message = match error.without_snippet() {
            serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
                format!("the key `{key}` stands there twice")
            }
            error => UserMessageFormatter.format_message(error).into_owned(),
        };
        Self {
            line: error.location().map(|location| location.line()),
            message,
        }
    }
}

/// A port that a program can listen on.
struct Port(u16);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Visit;
        impl Visitor<'_> for Visit {
            type Value = Port;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port from 1 to 65535")
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Port, E> {
                match u16::try_from(number) {
                    Ok(port @ 1..) => Ok(Port(port)),
                    _ => Err(E::invalid_value(Unexpected::Signed(number), &self)),
                }
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Port, E> {
                self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }
        input.deserialize_any(Visit)
    }
}

/// The keys of a mapping, whatever stands under them.
struct Keys(Vec<Spanned<String>>);

impl Keys {
    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|key| key.value == name)
    }
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, IgnoredAny)) = map.next_entry()? {
                    keys.push(key);
                }
                Ok(Keys(keys))
            }
        }
        input.deserialize_map(Visit)
    }
}

/// An unknown key may be the extension's own, but not where it is nearly one that is missing: an
/// `enabeld: false` would ship what should stay behind.
fn find_misspelling(keys: &Keys, known: &[&str]) -> Result<(), Fault> {
    let absent = known.iter().copied().filter(|known| !keys.has(known));
    for key in keys
        .0
        .iter()
        .filter(|key| !known.contains(&key.value.as_str()))
    {
        if let Some(meant) = nearest(&key.value, absent.clone()) {
            let message = format!("unknown key `{}`: did you mean `{meant}`?", key.value);
            return Err(Fault::at(key, message));
        }
    }
    Ok(())
}

fn check(declared: &Record) -> Result<(), Fault> {
    for (what, value) in [
        ("type", Some(&declared.kind)),
        ("name", Some(&declared.name)),
        ("binary", declared.binary.as_ref()),
    ] {
        let Some(value) = value else { continue };
        if value.value.trim().is_empty() {
            return Err(Fault::at(value, format!("`{what}` must not be empty")));
        }
    }
    let binary = declared.binary.as_ref().unwrap_or(&declared.name);
    if binary.value.contains(['/', '\\']) || binary.value.starts_with('.') {
        let message = format!(
            "`{}` is no name of a program: write it without a folder",
            binary.value
        );
        return Err(Fault::at(binary, message));
    }
    Ok(())
}
