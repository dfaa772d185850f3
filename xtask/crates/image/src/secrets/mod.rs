//! Secrets among the files that go into an image: private keys, credentials, tokens.
//!
//! A layer is public to whoever may pull the image, and stays so when a later layer deletes the
//! file. What counts is decided on complete structures — a key that decodes, a token with all its
//! parts — because programs and documents are full of their beginnings. What this deliberately
//! does not do: it guesses at no passwords in configuration files, looks into no archives, and
//! leaves base images to those who made them.

mod documents;
mod names;
mod pem;
mod remembered;
mod rules;
mod saved;
mod stream;
mod tokens;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::files::{Content, FileStat, Kind};
use crate::glob::{BadPattern, Glob};
use crate::plan::{AssemblyPlan, PlannedLayer};
use names::Class;
use rules::Rules;

pub use saved::{SavedError, SavedImage, find_secrets_in_saved};

/// Files read at the same time. More gain nothing where the disk is the limit.
const PARALLEL: usize = 4;

/// A secret in an image. What it says is not in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundSecret {
    /// The file, by its path in the image; `None` for the image's configuration.
    pub path: Option<PathBuf>,
    /// The line of the Dockerfile that puts it there; 0 where that is not known, and for the
    /// configuration, which many make.
    pub line: usize,
    /// What it is, in words.
    pub kind: String,
    /// Where in the file.
    pub spot: Spot,
}

impl fmt::Display for FoundSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.path {
            Some(path) => write!(f, "{}", path.display())?,
            None => f.write_str("the image's configuration (ENV, LABEL, ARG)")?,
        }
        write!(f, ": {}{}", self.kind, self.spot)?;
        if self.line > 0 {
            write!(f, ", put there by line {} of the Dockerfile", self.line)?;
        }
        Ok(())
    }
}

/// Where in a file something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spot {
    /// The file as a whole.
    File,
    /// A line of a text, counted from 1.
    Line(u64),
    /// So many bytes after the start of a binary.
    Byte(u64),
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => Ok(()),
            Self::Line(line) => write!(f, " in line {line}"),
            Self::Byte(byte) => write!(f, " at byte {byte}"),
        }
    }
}

/// Why files could not be looked through.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// An entry of the allow-list is no pattern.
    #[error("cannot use an entry of the list of allowed secrets")]
    Pattern(#[from] BadPattern),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// A file was written to meanwhile.
    #[error("{path} changed while it was read")]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

/// Something found in one file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Hit {
    spot: Spot,
    kind: String,
}

impl Hit {
    fn new(kind: &str, spot: Spot) -> Self {
        Self {
            spot,
            kind: kind.to_owned(),
        }
    }
}

/// All secrets that the image of `plan` would hold, but for files that `allowed` names: paths in
/// the image or patterns of them, a folder standing for all below it. Files that have not changed
/// since they were looked through last are not read.
pub fn find_secrets(
    plan: &AssemblyPlan,
    allowed: &[String],
    cache: &mut Cache,
) -> Result<Vec<FoundSecret>, SecretsError> {
    let allowed = Allowed::new(allowed)?;
    let rules = Rules::new();
    let mut found = in_configuration(&plan.config.to_vec(), &rules);
    for layer in &plan.layers {
        found.extend(in_layer(layer, &rules, cache)?);
    }
    found.retain(|secret| {
        let path = secret.path.as_deref();
        path.is_none_or(|path| !allowed.covers(path))
    });
    Ok(found)
}

/// `ENV`, `LABEL` and the history: as public as any file.
fn in_configuration(mut config: &[u8], rules: &Rules) -> Vec<FoundSecret> {
    let hits = stream::scan(&mut config, rules).unwrap_or_default();
    // Its history repeats what its settings say.
    let kinds: BTreeSet<String> = hits.into_iter().map(|hit| hit.kind).collect();
    let found = kinds.into_iter().map(|kind| FoundSecret {
        path: None,
        line: 0,
        kind,
        spot: Spot::File,
    });
    found.collect()
}

/// A file to be looked through.
struct Candidate<'a> {
    path: &'a Path,
    class: Class,
    content: &'a Content,
}

fn in_layer(
    layer: &PlannedLayer,
    rules: &Rules,
    cache: &mut Cache,
) -> Result<Vec<FoundSecret>, SecretsError> {
    let candidates = candidates(layer);
    let hits = match remembered::layer(&candidates, cache) {
        Some(hits) => hits,
        None => read_layer(&candidates, rules, cache)?,
    };
    let found = hits.into_iter().filter_map(|(index, hit)| {
        Some(FoundSecret {
            path: Some(Path::new("/").join(candidates.get(index)?.path)),
            line: layer.line,
            kind: hit.kind,
            spot: hit.spot,
        })
    });
    Ok(found.collect())
}

fn candidates(layer: &PlannedLayer) -> Vec<Candidate<'_>> {
    let files = layer
        .nodes
        .iter()
        .filter_map(|(path, node)| match &node.kind {
            Kind::File { content, .. } => Some(Candidate {
                path,
                class: names::class(path),
                content,
            }),
            _ => None,
        });
    files.collect()
}

/// The hits of a layer, each with the number of its file.
type LayerHits = Vec<(usize, Hit)>;

fn read_layer(
    candidates: &[Candidate<'_>],
    rules: &Rules,
    cache: &mut Cache,
) -> Result<LayerHits, SecretsError> {
    let mut hits = LayerHits::new();
    let mut unread = Vec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        match remembered::file(candidate, cache) {
            Some(known) => hits.extend(known.into_iter().map(|hit| (index, hit))),
            None => unread.push(index),
        }
    }
    for (index, found) in read_files(candidates, &unread, rules)? {
        remembered::remember_file(&candidates[index], &found, cache);
        hits.extend(found.into_iter().map(|hit| (index, hit)));
    }
    hits.sort();
    remembered::remember_layer(candidates, &hits, cache);
    Ok(hits)
}

/// Reads files on several threads, the first error ending it.
fn read_files(
    candidates: &[Candidate<'_>],
    unread: &[usize],
    rules: &Rules,
) -> Result<Vec<(usize, Vec<Hit>)>, SecretsError> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Ok(Vec::new()));
    let work = || {
        while let Some(&index) = unread.get(next.fetch_add(1, Ordering::Relaxed)) {
            let read = read_file(&candidates[index], rules);
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            match (read, results.as_mut()) {
                (Ok(hits), Ok(all)) => all.push((index, hits)),
                (Err(error), Ok(_)) => *results = Err(error),
                (_, Err(_)) => return,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..PARALLEL.min(unread.len()) {
            scope.spawn(work);
        }
        work();
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn read_file(candidate: &Candidate<'_>, rules: &Rules) -> Result<Vec<Hit>, SecretsError> {
    match candidate.content {
        Content::Inline(bytes) => {
            let mut hits = stream::scan(&mut bytes.as_ref(), rules).unwrap_or_default();
            hits.extend(documents::judge(candidate.class, bytes));
            Ok(settled(hits))
        }
        // Assembling refuses it with a better word.
        Content::Unbuilt { .. } => Ok(Vec::new()),
        Content::Disk { path, stat } => on_disk(candidate, path, stat, rules),
    }
}

fn on_disk(
    candidate: &Candidate<'_>,
    path: &Path,
    stat: &FileStat,
    rules: &Rules,
) -> Result<Vec<Hit>, SecretsError> {
    let failed = |source| SecretsError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    let mut hits = stream::scan(&mut file, rules).map_err(failed)?;
    if candidate.class != Class::Plain {
        let start = documents::read_start(path).map_err(failed)?;
        hits.extend(documents::judge(candidate.class, &start));
    }
    let now = FileStat::from(&file.metadata().map_err(failed)?);
    if now != *stat {
        return Err(SecretsError::Changed {
            path: path.to_owned(),
        });
    }
    Ok(settled(hits))
}

/// One word about one spot: a file that is known as a whole is not told about line by line.
fn settled(mut hits: Vec<Hit>) -> Vec<Hit> {
    hits.sort();
    hits.dedup();
    if hits.first().is_some_and(|hit| hit.spot == Spot::File) {
        hits.truncate(1);
    }
    hits
}

/// The allow-list.
struct Allowed(Vec<Glob>);

impl Allowed {
    fn new(patterns: &[String]) -> Result<Self, BadPattern> {
        let globs = patterns
            .iter()
            .map(|pattern| Glob::path(pattern.trim_matches('/')));
        Ok(Self(globs.collect::<Result<_, _>>()?))
    }

    fn covers(&self, path: &Path) -> bool {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let mut levels = relative.ancestors();
        levels.any(|level| {
            let name = level.as_os_str().as_encoded_bytes();
            !name.is_empty() && self.0.iter().any(|glob| glob.matches(name))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_files_folders_and_patterns() {
        let allowed = Allowed::new(&[
            "/app/tls/test.pem".to_owned(),
            "app/fixtures".to_owned(),
            "**/*.example.env".to_owned(),
        ])
        .unwrap();
        for (path, expected) in [
            ("/app/tls/test.pem", true),
            ("/app/tls/test.pem.bak", false),
            ("/app/fixtures/deep/key.pem", true),
            ("/app/other/a.example.env", true),
            ("/app/.env", false),
        ] {
            assert_eq!(allowed.covers(Path::new(path)), expected, "{path}");
        }
        assert!(Allowed::new(&["[".to_owned()]).is_err());
    }

    #[test]
    fn a_finding_names_place_kind_and_line_and_not_the_secret() {
        let found = FoundSecret {
            path: Some("/app/a.pem".into()),
            line: 7,
            kind: "private key".into(),
            spot: Spot::Line(3),
        };
        assert_eq!(
            found.to_string(),
            "/app/a.pem: private key in line 3, put there by line 7 of the Dockerfile"
        );
    }
}
