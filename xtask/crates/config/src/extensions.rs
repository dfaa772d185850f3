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

mod manifest;

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use self::manifest::Declared;

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
        match manifest::parse(&text) {
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

fn extension(path: &Path, declared: Declared) -> Extension {
    Extension {
        binary: declared.binary.unwrap_or_else(|| declared.name.clone()),
        name: declared.name,
        kind: match declared.kind.as_str() {
            "mcp" => ExtensionKind::Mcp,
            _ => ExtensionKind::Other(declared.kind),
        },
        port: declared.port,
        enabled: declared.enabled,
        path: path.to_owned(),
        line: Some(declared.line),
    }
}

#[cfg(test)]
mod tests;
