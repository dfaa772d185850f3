//! The extensions of a project, as their manifests declare them:
//!
//! ```yaml
//! # extensions/**/manifest.yaml
//! extension:
//!   type: mcp
//!   name: system-tools
//!   binary: system-tools   # the name, where absent
//!   port: 5010             # optional
//!   enabled: true          # true, where absent
//! ```
//!
//! Other keys belong to the extension and are not looked at. Whether the image ships what is
//! declared is a question of the plan, not of this reader.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::{Error, IgnoredAny, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_saphyr::{MessageFormatter as _, Spanned, UserMessageFormatter};

use crate::nearest::nearest;

/// Where extensions live, relative to the project.
const FOLDER: &str = "extensions";
const MANIFEST: &str = "manifest.yaml";
/// `extensions/KIND/NAME/` is two deep; more than this is a tree that nobody meant.
const DEEPEST: usize = 8;
/// Folders that hold copies of other people's files.
const SKIPPED: [&str; 2] = ["target", "node_modules"];
/// A manifest is a few lines; a file past this is something else.
const LARGEST: u64 = 1024 * 1024;

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Extensions {
    /// The extensions, sorted by the path of their manifests, the disabled ones too.
    pub found: Vec<Extension>,
    /// What is wrong with manifests, sorted by their paths.
    pub errors: Vec<ManifestError>,
}

/// One extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ExtensionKind,
    /// The program it runs as.
    pub binary: String,
    /// The port it listens on, where it listens on one of its own.
    pub port: Option<u16>,
    /// Whether it is part of a release.
    pub enabled: bool,
    /// Its manifest, relative to the project.
    pub path: PathBuf,
    /// The line of the manifest that its declaration begins at, from 1.
    pub line: Option<u64>,
}

/// What an extension is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtensionKind {
    /// A server of the Model Context Protocol.
    Mcp,
    /// A kind that this tool does not know; the platform may.
    Other(String),
}

/// One thing wrong with one manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}: {message}", path.display(), Position(*line))]
pub struct ManifestError {
    /// The manifest or folder, relative to the project.
    pub path: PathBuf,
    /// The line, from 1, where one is known.
    pub line: Option<u64>,
    /// What is wrong.
    pub message: String,
}

struct Position(Option<u64>);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, ":{line}"))
    }
}

impl fmt::Display for ExtensionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mcp => "mcp",
            Self::Other(kind) => kind,
        })
    }
}

impl Extensions {
    /// Reads all manifests of the project in `root`. One that is wrong does not hide the others,
    /// so that all problems can be shown at once. A project may have no extensions.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let mut extensions = Self::default();
        extensions.walk(root, Path::new(FOLDER), 1);
        extensions.find_clashes();
        extensions.errors.sort_by(|a, b| a.path.cmp(&b.path));
        extensions
    }

    /// The extensions that are part of a release.
    pub fn enabled(&self) -> impl Iterator<Item = &Extension> {
        self.found.iter().filter(|extension| extension.enabled)
    }

    fn walk(&mut self, root: &Path, folder: &Path, depth: usize) {
        let mut entries = match list(&root.join(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound && depth == 1 => return,
            Err(error) => return self.report(folder, None, format!("cannot be listed: {error}")),
        };
        entries.sort();
        for (name, is_folder) in entries {
            let path = folder.join(&name);
            if !is_folder && name == MANIFEST {
                self.manifest(root, &path);
            } else if is_folder && !name.starts_with('.') && !SKIPPED.contains(&name.as_str()) {
                if depth < DEEPEST {
                    self.walk(root, &path, depth + 1);
                } else {
                    let message =
                        format!("manifests are looked for {DEEPEST} folders deep at most");
                    self.report(&path, None, message);
                }
            }
        }
    }

    fn manifest(&mut self, root: &Path, path: &Path) {
        let text = match read(&root.join(path)) {
            Ok(text) => text,
            Err(error) => return self.report(path, None, format!("cannot be read: {error}")),
        };
        match parse(&text) {
            Ok(Some(declared)) => self.found.push(extension(path, declared)),
            Ok(None) => {}
            Err(fault) => self.report(path, fault.line, fault.message),
        }
    }

    /// Two enabled extensions cannot have one name, nor one port.
    fn find_clashes(&mut self) {
        let mut names = HashMap::new();
        let mut ports = HashMap::new();
        let mut clashes = Vec::new();
        for extension in self.found.iter().filter(|extension| extension.enabled) {
            let mut clash = |what: String, with: &Path| {
                clashes.push(ManifestError {
                    path: extension.path.clone(),
                    line: extension.line,
                    message: format!("{what} is taken by {}", with.display()),
                });
            };
            if let Some(with) = names.insert(&extension.name, &extension.path) {
                clash(format!("the name `{}`", extension.name), with);
            }
            if let Some(port) = extension.port
                && let Some(with) = ports.insert(port, &extension.path)
            {
                clash(format!("port {port}"), with);
            }
        }
        self.errors.extend(clashes);
    }

    fn report(&mut self, path: &Path, line: Option<u64>, message: String) {
        self.errors.push(ManifestError {
            path: path.to_owned(),
            line,
            message,
        });
    }
}

/// Names in a folder, and whether each is a folder. Links are neither followed nor read: one that
/// leads upwards would be a loop.
fn list(folder: &Path) -> io::Result<Vec<(String, bool)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        // Neither a manifest nor the folder of one has a name that is no text.
        if let Ok(name) = entry.file_name().into_string()
            && !kind.is_symlink()
        {
            entries.push((name, kind.is_dir()));
        }
    }
    Ok(entries)
}

fn read(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > LARGEST {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    fs::read_to_string(path)
}

/// What a manifest declares.
#[derive(Deserialize)]
struct Declared {
    #[serde(rename = "type")]
    kind: Spanned<String>,
    name: Spanned<String>,
    binary: Option<Spanned<String>>,
    port: Option<Port>,
    enabled: Option<bool>,
}

const KEYS: [&str; 5] = ["type", "name", "binary", "port", "enabled"];

#[derive(Debug)]
struct Fault {
    line: Option<u64>,
    message: String,
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

/// A manifest without a declaration is one of something else.
fn parse(text: &str) -> Result<Option<Spanned<Declared>>, Fault> {
    #[derive(Deserialize)]
    struct Outline {
        extension: Keys,
    }
    #[derive(Deserialize)]
    struct Whole {
        extension: Spanned<Declared>,
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
    Ok(Some(whole.extension))
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

fn check(declared: &Declared) -> Result<(), Fault> {
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

fn extension(path: &Path, declared: Spanned<Declared>) -> Extension {
    let line = declared.referenced.line();
    let declared = declared.value;
    let kind = declared.kind.value;
    Extension {
        binary: declared
            .binary
            .map_or_else(|| declared.name.value.clone(), |binary| binary.value),
        name: declared.name.value,
        kind: match kind.as_str() {
            "mcp" => ExtensionKind::Mcp,
            _ => ExtensionKind::Other(kind),
        },
        port: declared.port.map(|port| port.0),
        enabled: declared.enabled.unwrap_or(true),
        path: path.to_owned(),
        line: (line > 0).then_some(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes the files and shows what is read from them.
    fn check(files: &[(&str, &str)]) -> String {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let read = Extensions::read(root.path());
        let found = read.found.iter().map(|extension| {
            let Extension {
                name,
                kind,
                binary,
                port,
                enabled,
                path,
                line,
            } = extension;
            let path = path.display();
            format!("{path}:{line:?} {name} {kind} {binary} {port:?} {enabled}")
        });
        let errors = read.errors.iter().map(|error| format!("error: {error}"));
        found.chain(errors).collect::<Vec<_>>().join("\n")
    }

    fn check_one(manifest: &str) -> String {
        check(&[("extensions/a/manifest.yaml", manifest)])
    }

    #[test]
    fn manifests_at_any_depth() {
        insta::assert_snapshot!(check(&[
            ("extensions/mcp/b/manifest.yaml", "# first\nextension:\n  type: mcp\n  name: b\n"),
            (
                "extensions/mcp/a/manifest.yaml",
                "extension: {type: mcp, name: a, binary: sp-a, port: 5010, enabled: false, icon: x}\n",
            ),
            ("extensions/manifest.yaml", "extension: {type: wasm, name: top}"),
            ("extensions/mcp/a/README.md", ""),
        ]), @r"
        extensions/manifest.yaml:Some(1) top wasm top None true
        extensions/mcp/a/manifest.yaml:Some(1) a mcp sp-a Some(5010) false
        extensions/mcp/b/manifest.yaml:Some(3) b mcp b None true
        ");
    }

    #[test]
    fn folders_of_others_are_left_out() {
        let manifest = "extension: {type: mcp, name: a}";
        assert_eq!(
            check(&[
                ("extensions/a/target/manifest.yaml", manifest),
                ("extensions/a/node_modules/x/manifest.yaml", manifest),
                ("extensions/.git/manifest.yaml", manifest),
                ("manifest.yaml", manifest),
            ]),
            ""
        );
    }

    #[test]
    fn a_project_without_extensions() {
        assert_eq!(check(&[]), "");
        assert_eq!(check_one(""), "");
        assert_eq!(check_one("apiVersion: v1\n"), "");
    }

    #[test]
    fn wrong_manifests() {
        insta::assert_snapshot!([
            "extension: [",
            "- a",
            "extension:\n  name: a\n",
            "extension:\n  type: mcp\n  name: a\n  port: many\n",
            "extension:\n  type: mcp\n  name: a\n  port: 70000\n",
            "extension:\n  type: mcp\n  name: a\n  port: 0\n",
            "extension:\n  type: mcp\n  name: ''\n",
            "extension:\n  type: mcp\n  name: a\n  binary: bin/a\n",
            "extension:\n  type: mcp\n  name: a\n  enabeld: false\n",
            "\nextention:\n  type: mcp\n",
            "extension:\n  type: mcp\n  name: a\n  name: b\n",
        ].map(check_one).join("\n"), @r#"
        error: extensions/a/manifest.yaml:1: unclosed bracket '['
        error: extensions/a/manifest.yaml:1: expected mapping start
        error: extensions/a/manifest.yaml:2: missing field `type`
        error: extensions/a/manifest.yaml:4: invalid type: string "many", expected a port from 1 to 65535
        error: extensions/a/manifest.yaml:4: invalid value: integer `70000`, expected a port from 1 to 65535
        error: extensions/a/manifest.yaml:4: invalid value: integer `0`, expected a port from 1 to 65535
        error: extensions/a/manifest.yaml:3: `name` must not be empty
        error: extensions/a/manifest.yaml:4: `bin/a` is no name of a program: write it without a folder
        error: extensions/a/manifest.yaml:4: unknown key `enabeld`: did you mean `enabled`?
        error: extensions/a/manifest.yaml:2: unknown key `extention`: did you mean `extension`?
        error: extensions/a/manifest.yaml:4: the key `name` stands there twice
        "#);
    }

    #[test]
    fn one_wrong_manifest_hides_no_other() {
        insta::assert_snapshot!(check(&[
            ("extensions/a/manifest.yaml", "extension: {type: mcp, name: a, port: 1}"),
            ("extensions/b/manifest.yaml", "extension: {type: mcp, name: a, port: 1}"),
            ("extensions/c/manifest.yaml", "extension: {type: mcp, name: a, enabled: false}"),
            ("extensions/d/manifest.yaml", "{"),
        ]), @r"
        extensions/a/manifest.yaml:Some(1) a mcp a Some(1) true
        extensions/b/manifest.yaml:Some(1) a mcp a Some(1) true
        extensions/c/manifest.yaml:Some(1) a mcp a None false
        error: extensions/b/manifest.yaml:1: the name `a` is taken by extensions/a/manifest.yaml
        error: extensions/b/manifest.yaml:1: port 1 is taken by extensions/a/manifest.yaml
        error: extensions/d/manifest.yaml:1: unclosed bracket '{'
        ");
    }

    #[test]
    fn the_walk_ends() {
        let deep = format!("extensions/{}manifest.yaml", "d/".repeat(8));
        insta::assert_snapshot!(check(&[(&deep, "extension: {type: mcp, name: a}")]), @"error: extensions/d/d/d/d/d/d/d/d: manifests are looked for 8 folders deep at most");
    }

    #[test]
    fn links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("extensions/a");
        fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink("..", folder.join("up")).unwrap();
        let read = Extensions::read(root.path());
        assert!(read.found.is_empty() && read.errors.is_empty(), "{read:?}");
    }
}
