//! `.dockerignore`: which files of the context Docker would not see.
//!
//! The rules are those of `moby/patternmatcher`, not those of git: a pattern is anchored at the
//! root, the last line that matches decides, and a match of a parent directory counts for all
//! below it.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::glob::{BadPattern, Glob, has_wildcard};
use crate::paths;

/// Why the ignore file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IgnoreError {
    /// The file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: io::Error,
    },
    /// A line is no pattern.
    #[error("{path}:{line}: cannot use this line")]
    Pattern {
        /// The file.
        path: PathBuf,
        /// Line number, counted from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: BadPattern,
    },
}

/// The rules of one ignore file; empty when there is none.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    /// The file they come from.
    pub file: Option<PathBuf>,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    line: usize,
    exception: bool,
    pattern: String,
    glob: Glob,
}

impl Ignore {
    /// Finds the rules for a Dockerfile: `<Dockerfile>.dockerignore` beside it or else
    /// `.dockerignore` at the root of the context.
    pub fn find(context: &Path, dockerfile: &Path) -> Result<Self, IgnoreError> {
        let mut own = dockerfile.as_os_str().to_owned();
        own.push(".dockerignore");
        for path in [PathBuf::from(own), context.join(".dockerignore")] {
            match fs::read(&path) {
                Ok(bytes) => return Self::parse(&path, &String::from_utf8_lossy(&bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(IgnoreError::Read { path, source }),
            }
        }
        Ok(Self::default())
    }

    /// Reads the rules out of `text`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, IgnoreError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut rules = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let at = |source| IgnoreError::Pattern {
                path: path.to_owned(),
                line: index + 1,
                source,
            };
            rules.extend(rule(index + 1, line).map_err(at)?);
        }
        Ok(Self {
            file: Some(path.to_owned()),
            rules,
        })
    }

    /// The patterns of `--exclude` flags.
    pub(crate) fn of_patterns(patterns: &[String]) -> Result<Self, BadPattern> {
        let mut rules = Vec::new();
        for (index, pattern) in patterns.iter().enumerate() {
            rules.extend(rule(index + 1, pattern)?);
        }
        Ok(Self { file: None, rules })
    }

    /// The line that excludes `path`, if one does.
    #[must_use]
    pub fn excludes(&self, path: &Path) -> Option<usize> {
        let mut excluded = None;
        for rule in &self.rules {
            // A rule that would not change the answer need not be looked at.
            if rule.exception == excluded.is_some() && rule.matches(path) {
                excluded = (!rule.exception).then_some(rule.line);
            }
        }
        excluded
    }

    /// Whether `path` is excluded, and all that may be below it.
    #[must_use]
    pub fn excludes_all(&self, path: &Path) -> bool {
        self.excludes(path).is_some() && !self.may_include_below(path)
    }

    /// Whether something below the directory `path` may be included though the directory is not.
    pub(crate) fn may_include_below(&self, path: &Path) -> bool {
        let exceptions = self.rules.iter().filter(|rule| rule.exception);
        exceptions
            .into_iter()
            .any(|rule| rule.may_match_below(path))
    }
}

impl Rule {
    fn matches(&self, path: &Path) -> bool {
        let mut ancestors = path.ancestors().filter(|path| !path.as_os_str().is_empty());
        ancestors.any(|path| self.glob.matches(path.as_os_str().as_bytes()))
    }

    fn may_match_below(&self, directory: &Path) -> bool {
        let mut wanted = self.pattern.split('/');
        for name in directory {
            let Some(part) = wanted.next() else {
                return false;
            };
            if part.contains("**") {
                return true;
            }
            let pattern = has_wildcard(part) || part.contains('\\');
            if !pattern && part.as_bytes() != name.as_bytes() {
                return false;
            }
        }
        wanted.next().is_some()
    }
}

fn rule(line: usize, text: &str) -> Result<Option<Rule>, BadPattern> {
    if text.starts_with('#') {
        return Ok(None);
    }
    let text = text.trim();
    let (exception, pattern) = match text.strip_prefix('!') {
        Some(rest) => (true, rest.trim()),
        None => (false, text),
    };
    if pattern.is_empty() {
        let lone_exception = BadPattern("!".into());
        return if exception {
            Err(lone_exception)
        } else {
            Ok(None)
        };
    }
    // Nothing in the context lies outside of it: Docker keeps such a pattern, and it never matches.
    if leaves_the_context(pattern) {
        return Ok(None);
    }
    let pattern = paths::clean(pattern).trim_start_matches('/').to_owned();
    if pattern.is_empty() {
        return Ok(None);
    }
    let glob = Glob::path(&pattern)?;
    Ok(Some(Rule {
        line,
        exception,
        pattern,
        glob,
    }))
}

/// Whether a pattern that is not anchored with `/` goes above the root.
fn leaves_the_context(pattern: &str) -> bool {
    if pattern.starts_with('/') {
        return false;
    }
    let mut depth = 0_i32;
    pattern.split('/').any(|part| {
        depth += match part {
            "" | "." => 0,
            ".." => -1,
            _ => 1,
        };
        depth < 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rules: &str, path: &str, excluded: bool) {
        let ignore = Ignore::parse(Path::new(".dockerignore"), rules).unwrap();
        assert_eq!(
            ignore.excludes(Path::new(path)).is_some(),
            excluded,
            "{rules:?} and {path}"
        );
    }

    #[test]
    fn patterns_are_anchored_at_the_root() {
        check("target", "target", true);
        check("target", "a/target", false);
        check("/target", "target", true);
        check("target/", "target/x", true);
        check("./target", "target", true);
        check("a/../target", "target", true);
        check("*.md", "README.md", true);
        check("*.md", "docs/x.md", false);
        check("*/*.md", "docs/x.md", true);
    }

    #[test]
    fn a_pattern_above_the_root_matches_nothing() {
        check("../target", "target", false);
        check("a/../../target", "target", false);
        check("/../target", "target", true);
        check("a/../target", "target", true);
    }

    #[test]
    fn a_match_of_a_parent_counts() {
        check("target", "target/release/x", true);
        check("target/*", "target/release/x", true);
        check("*", "a/b/c", true);
    }

    #[test]
    fn two_stars_stand_for_any_directories() {
        check("**/x", "x", true);
        check("**/x", "a/b/x", true);
        check("a/**", "a/b/c", true);
        check("a/**", "a", false);
        check("a/**/c", "a/c", true);
        check("a/**/c", "a/b/b/c", true);
        check("**", "anything/at/all", true);
        check("**rc", "home/.bashrc", true);
        check("**/*.rs", "src/main.rs", true);
    }

    #[test]
    fn the_last_match_decides() {
        check("*\n!keep", "keep", false);
        check("*\n!keep\nkeep", "keep", true);
        check("target\n!target/release/app", "target/release/app", false);
        check("target\n!target/release/app", "target/release/other", true);
        check("!keep\n*", "keep", true);
        check("docs\n!docs/*.md\ndocs/secret.md", "docs/a.md", false);
        check("docs\n!docs/*.md\ndocs/secret.md", "docs/secret.md", true);
    }

    #[test]
    fn comments_and_spaces_are_passed_over() {
        check("# target\n\n  target  ", "target", true);
        check("\u{feff}target", "target", true);
        check("#target", "#target", false);
        check(" #target", "#target", true);
        check("! keep\n", "keep", false);
    }

    #[test]
    fn a_lone_exclamation_mark_is_refused_with_its_line() {
        let error = Ignore::parse(Path::new(".dockerignore"), "a\n!\n").unwrap_err();
        assert_eq!(error.to_string(), ".dockerignore:2: cannot use this line");
    }

    #[test]
    fn only_directories_that_may_hold_an_exception_are_entered() {
        let rules = "*\n!target/release/app\n!docs/**/keep\n";
        let ignore = Ignore::parse(Path::new(".dockerignore"), rules).unwrap();
        let enters = |path: &str| ignore.may_include_below(Path::new(path));
        assert!(enters("target") && enters("target/release") && enters("docs/a/b"));
        assert!(!enters("target/debug") && !enters("src") && !enters("target/release/app"));
    }
}
