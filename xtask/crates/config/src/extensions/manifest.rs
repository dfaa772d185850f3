//! Reads one manifest.

use saphyr::{AnnotatedMapping, LoadableYamlNode as _, MarkedYaml, Scalar, ScanError, YamlData};

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

const KEYS: [&str; 5] = ["type", "name", "binary", "port", "enabled"];

/// A manifest without a declaration is one of something else.
pub(super) fn parse(text: &str) -> Result<Option<Declared>, Fault> {
    let documents = MarkedYaml::load_from_str(text)?;
    let [whole] = documents.as_slice() else {
        return match documents.get(1) {
            None => Ok(None),
            Some(second) => Err(Fault::at(second, "a manifest is one document")),
        };
    };
    if is_null(whole) {
        return Ok(None);
    }
    let whole = Record::of(whole, "a manifest")?;
    let Some(extension) = whole.get("extension") else {
        whole.find_misspelling(&["extension"])?;
        return Ok(None);
    };
    let extension = Record::of(extension, "`extension`")?;
    extension.find_misspelling(&KEYS)?;
    extension.declared().map(Some)
}

impl Fault {
    fn at(node: &MarkedYaml<'_>, message: impl Into<String>) -> Self {
        Self {
            line: Some(line(node)),
            message: message.into(),
        }
    }
}

impl From<ScanError> for Fault {
    fn from(error: ScanError) -> Self {
        Self {
            line: Some(error.marker().line() as u64),
            message: error.info().to_owned(),
        }
    }
}

fn line(node: &MarkedYaml<'_>) -> u64 {
    node.span.start.line() as u64
}

fn is_null(node: &MarkedYaml<'_>) -> bool {
    matches!(node.data, YamlData::Value(Scalar::Null))
}

/// A mapping, and where it stands.
struct Record<'a> {
    node: &'a MarkedYaml<'a>,
    entries: &'a AnnotatedMapping<'a, MarkedYaml<'a>>,
}

impl<'a> Record<'a> {
    fn of(node: &'a MarkedYaml<'a>, what: &str) -> Result<Self, Fault> {
        match &node.data {
            YamlData::Mapping(entries) => Ok(Self { node, entries }),
            _ => Err(Fault::at(node, format!("{what} must be a mapping"))),
        }
    }

    /// What stands under the key, if anything does.
    fn get(&self, key: &str) -> Option<&'a MarkedYaml<'a>> {
        let mut entries = self.entries.iter();
        let (_, value) = entries.find(|(name, _)| name.data.as_str() == Some(key))?;
        Some(value)
    }

    /// An unknown key may be the extension's own, but not where it is nearly one that is missing:
    /// an `enabeld: false` would ship what should stay behind.
    fn find_misspelling(&self, known: &[&str]) -> Result<(), Fault> {
        let absent = known.iter().copied().filter(|key| self.get(key).is_none());
        for key in self.entries.keys() {
            let Some(name) = key.data.as_str().filter(|name| !known.contains(name)) else {
                continue;
            };
            if let Some(meant) = nearest(name, absent.clone()) {
                let message = format!("unknown key `{name}`: did you mean `{meant}`?");
                return Err(Fault::at(key, message));
            }
        }
        Ok(())
    }

    fn declared(&self) -> Result<Declared, Fault> {
        let kind = self.needed("type")?;
        let name = self.needed("name")?;
        let binary = self.text("binary")?;
        if let Some(node) = self.get("binary").or_else(|| self.get("name"))
            && let binary = binary.unwrap_or(name)
            && (binary.contains(['/', '\\']) || binary.starts_with('.'))
        {
            let message = format!("`{binary}` is no name of a program: write it without a folder");
            return Err(Fault::at(node, message));
        }
        Ok(Declared {
            kind: kind.to_owned(),
            name: name.to_owned(),
            binary: binary.map(str::to_owned),
            port: self.port()?,
            enabled: self.enabled()?.unwrap_or(true),
            line: line(self.node),
        })
    }

    fn needed(&self, key: &str) -> Result<&'a str, Fault> {
        self.text(key)?
            .ok_or_else(|| Fault::at(self.node, format!("missing key `{key}`")))
    }

    /// A text that says something. A number without quotes is none: it would have to be
    /// written back the way it was.
    fn text(&self, key: &str) -> Result<Option<&'a str>, Fault> {
        let Some(value) = self.get(key).filter(|value| !is_null(value)) else {
            return Ok(None);
        };
        match value.data.as_str() {
            Some(text) if text.trim().is_empty() => {
                Err(Fault::at(value, format!("`{key}` must not be empty")))
            }
            Some(text) => Ok(Some(text)),
            None => Err(Fault::at(value, format!("`{key}` must be a text"))),
        }
    }

    fn port(&self) -> Result<Option<u16>, Fault> {
        let Some(value) = self.get("port").filter(|value| !is_null(value)) else {
            return Ok(None);
        };
        match value.data.as_integer().map(u16::try_from) {
            Some(Ok(port @ 1..)) => Ok(Some(port)),
            _ => Err(Fault::at(value, "`port` must be a number from 1 to 65535")),
        }
    }

    fn enabled(&self) -> Result<Option<bool>, Fault> {
        let Some(value) = self.get("enabled").filter(|value| !is_null(value)) else {
            return Ok(None);
        };
        match value.data.as_bool() {
            Some(enabled) => Ok(Some(enabled)),
            None => Err(Fault::at(value, "`enabled` must be `true` or `false`")),
        }
    }
}
