//! Files that hold secrets: readable by their owner only, replaced in one step, kept out of git.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::project::IGNORE;

/// Nobody but the owner.
const MODE: u32 = 0o600;
/// Of the next file of this process that is replaced.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// It is there but cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its content is not what it should be. The place is named, the content is not: it holds
    /// secrets.
    #[error("{}:{line}:{column} is not valid: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What kind of fault.
        problem: &'static str,
    },
    /// It cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Something about a file that its owner should know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// Others can read it.
    #[error("others can read {} (mode {mode:04o}): run `chmod 600 {}`", path.display(), path.display())]
    ReadableByOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

/// Fields that a file has and this program does not know; they are written back as they came.
#[derive(Clone, Default, PartialEq)]
pub(crate) struct Unknown(pub(crate) Map<String, Value>);

/// Their values may be secrets.
impl std::fmt::Debug for Unknown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Reads a file; `None` where there is none.
pub(crate) fn read<T: DeserializeOwned>(
    path: &Path,
) -> Result<Option<(T, Vec<Warning>)>, PrivateFileError> {
    let failed = |source| PrivateFileError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    let text = io::read_to_string(file).map_err(failed)?;
    let content = serde_json::from_str(&text).map_err(|error| PrivateFileError::Content {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
        problem: problem(&error),
    })?;
    let wider = mode & !0o700 != 0;
    let warning = wider.then(|| Warning::ReadableByOthers {
        path: path.to_owned(),
        mode,
    });
    Ok(Some((content, warning.into_iter().collect())))
}

fn problem(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Eof => "it ends too early",
        serde_json::error::Category::Data => "a field is missing or of another type",
        serde_json::error::Category::Syntax | serde_json::error::Category::Io => "it is not JSON",
    }
}

/// Writes a file, so that at every moment either the old content or the new is there, and makes
/// sure that git ignores it.
pub(crate) fn write<T: Serialize>(path: &Path, content: &T) -> Result<(), PrivateFileError> {
    let failed = |source| PrivateFileError::Write {
        path: path.to_owned(),
        source,
    };
    let mut text = serde_json::to_string_pretty(content)
        .map_err(io::Error::other)
        .map_err(failed)?;
    text.push('\n');
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed)?;
    // First: the file shall never be there without being ignored.
    keep_out_of_git(path).map_err(failed)?;
    replace_file(path, text.as_bytes(), MODE).map_err(failed)
}

/// Writes a file by way of another one beside it, flushed: whenever the writer dies or the power is lost, either the old
/// content or the new is there.
///
/// # Errors
///
/// When the folder cannot be written to, or the disk is full.
pub fn replace_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    name.push(format!(".{number}.{}.new", std::process::id()));
    let new = folder.join(name);
    // One left behind by a killed process of the same id; `create_new` below follows no link that
    // somebody else put there.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = fill(&new, content, mode).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // The error that matters is the one that is returned.
        let _ = fs::remove_file(&new);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn fill(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// A line in `.gitignore` beside the file, unless git ignores it already (through a `.gitignore`
/// further up, say). Outside a repository too: `git init` may come later.
///
/// # Errors
///
/// When `.gitignore` cannot be read, or be written as a whole.
pub fn keep_out_of_git(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Ok(());
    };
    if is_ignored(folder, name) {
        return Ok(());
    }
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .mode(0o644)
        .open(folder.join(IGNORE))?;
    // Another run may add a rule of its own.
    file.lock()?;
    let mut rules = Vec::new();
    file.read_to_end(&mut rules)?;
    let rule = format!("/{name}");
    let mut lines = rules
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii_end);
    if lines.any(|line| line == rule.as_bytes() || line == b"*") {
        return Ok(());
    }
    // What was cut off of another rule is not to spoil this one.
    let gap = if rules.last().is_none_or(|last| *last == b'\n') {
        ""
    } else {
        "\n"
    };
    file.write_all(format!("{gap}{rule}\n").as_bytes())?;
    file.sync_all()?;
    File::open(folder)?.sync_all()
}

/// Where git is, and where it has its rules for all repositories.
const NEEDED_BY_GIT: [&str; 3] = ["PATH", "HOME", "XDG_CONFIG_HOME"];

/// Asks git; where it is missing or the folder is in no repository, nothing is ignored.
fn is_ignored(folder: &Path, name: &str) -> bool {
    Command::new("git")
        .args(["check-ignore", "--quiet", "--no-index", "--", name])
        .current_dir(folder)
        // Not the others: secrets are among them, and inside of a git hook those that point at another repository.
        .env_clear()
        .envs(NEEDED_BY_GIT.iter().filter_map(|name| Some((name, env::var_os(name)?))))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != ".git")
            .collect();
        names.sort();
        names
    }

    fn git(folder: &Path, arguments: &[&str]) {
        let done = Command::new("git")
            .args(arguments)
            .current_dir(folder)
            .output()
            .expect("git is needed by the tests: install it");
        assert!(done.status.success(), "{done:?}");
    }

    #[test]
    fn written_for_the_owner_only_and_ignored() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/secret.json");
        write(&path, &1).unwrap();
        write(&path, &2).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "2\n");
        assert_eq!(mode(&path), 0o600);
        let folder = path.parent().unwrap();
        assert_eq!(names(folder), [".gitignore", "secret.json"]);
        let rules = fs::read_to_string(folder.join(".gitignore")).unwrap();
        assert_eq!(rules, "/secret.json\n");
    }

    #[test]
    fn a_wider_file_becomes_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.json");
        fs::write(&path, "1").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let (content, warnings) = read::<u8>(&path).unwrap().unwrap();
        assert_eq!(content, 1);
        let shown = warnings[0]
            .to_string()
            .replace(path.to_str().unwrap(), "FILE");
        assert_eq!(
            shown,
            "others can read FILE (mode 0644): run `chmod 600 FILE`"
        );
        write(&path, &2).unwrap();
        assert_eq!(read::<u8>(&path).unwrap(), Some((2, Vec::new())));
    }

    #[test]
    fn what_the_repository_ignores_needs_no_other_rule() {
        let folder = tempfile::tempdir().unwrap();
        git(folder.path(), &["init", "--quiet"]);
        fs::write(folder.path().join(".gitignore"), "/here/*\n").unwrap();
        let path = folder.path().join("here/secret.json");
        write(&path, &1).unwrap();
        assert_eq!(names(path.parent().unwrap()), ["secret.json"]);
    }

    #[test]
    fn existing_rules_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        git(folder.path(), &["init", "--quiet"]);
        let ignore = folder.path().join(".gitignore");
        fs::write(&ignore, "local").unwrap();
        write(&folder.path().join("a.json"), &1).unwrap();
        write(&folder.path().join("b.json"), &1).unwrap();
        write(&folder.path().join("a.json"), &2).unwrap();
        assert_eq!(
            fs::read_to_string(&ignore).unwrap(),
            "local\n/a.json\n/b.json\n"
        );
    }

    #[test]
    fn rules_that_are_added_at_the_same_moment_are_all_there() {
        for _ in 0..50 {
            let folder = tempfile::tempdir().unwrap();
            let names = ["credentials.json", "history.jsonl"];
            std::thread::scope(|scope| {
                for name in names {
                    let path = folder.path().join(name);
                    scope.spawn(move || keep_out_of_git(&path).unwrap());
                }
            });
            let rules = fs::read_to_string(folder.path().join(".gitignore")).unwrap();
            let mut rules: Vec<&str> = rules.lines().collect();
            rules.sort_unstable();
            assert_eq!(rules, names.map(|name| format!("/{name}")));
        }
    }

    #[test]
    fn a_rule_that_was_cut_off_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let ignore = folder.path().join(".gitignore");
        // The end of the second is not even a character.
        for half in [&b"/tenants.json\n/cred"[..], b"/tenants.json\n/caf\xc3"] {
            fs::write(&ignore, half).unwrap();
            keep_out_of_git(&folder.path().join("credentials.json")).unwrap();
            let rules = fs::read(&ignore).unwrap();
            assert_eq!(rules, [half, b"\n/credentials.json\n"].concat());
        }
    }

    #[test]
    fn a_file_that_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read::<u8>(&folder.path().join("none")).unwrap(), None);
    }

    #[test]
    fn errors_name_the_place_and_not_the_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret.json");
        let check = |content: &str| {
            fs::write(&path, content).unwrap();
            let error = read::<Vec<u8>>(&path).unwrap_err().to_string();
            error.replace(path.to_str().unwrap(), "FILE")
        };
        assert_eq!(check("["), "FILE:1:1 is not valid: it ends too early");
        assert_eq!(
            check("[\n \"hunter2\"]"),
            "FILE:2:10 is not valid: a field is missing or of another type"
        );
        assert_eq!(check("hunter2"), "FILE:1:1 is not valid: it is not JSON");
    }

    #[test]
    fn errors_of_the_file_system() {
        let folder = tempfile::tempdir().unwrap();
        let error = read::<u8>(folder.path()).unwrap_err();
        assert!(matches!(error, PrivateFileError::Read { .. }), "{error}");
        let taken = folder.path().join("taken");
        fs::create_dir(&taken).unwrap();
        let error = write(&taken, &1).unwrap_err();
        assert!(matches!(error, PrivateFileError::Write { .. }), "{error}");
        fs::write(folder.path().join("file"), "").unwrap();
        let error = write(&folder.path().join("file/below.json"), &1).unwrap_err();
        assert!(matches!(error, PrivateFileError::Write { .. }), "{error}");
    }
}
