//! Errors that point at what they are about.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use deploy_plan::config::{REDACTED, is_secret_name, redact_value};

use crate::origin::Origin;

/// One thing wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Where.
    pub place: Place,
}

/// Where something wrong was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    Line(Line),
    /// By an option, a variable or a default.
    Origin(Origin),
}

/// A piece of a line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The file, relative to the project.
    pub path: PathBuf,
    /// The line, from 1.
    pub line: usize,
    /// The first character of the piece, from 1.
    pub column: usize,
    /// Characters in the piece; 1 at least.
    pub length: usize,
    /// The text of the line, without what looks like a secret.
    pub text: String,
}

impl Line {
    /// The line of `source` that holds the bytes of `span`; where they go over several lines, the
    /// first.
    pub(crate) fn of(path: &Path, source: &str, span: Range<usize>) -> Self {
        let mut line = Self::raw(path, source, &Lines::of(source), span.clone());
        let before = &source[..begin_of_line(source, span.start)];
        line.text = if is_inside_text(before) {
            REDACTED.to_owned()
        } else {
            without_secrets(&line.text, is_among_secrets(before))
        };
        line
    }

    /// The same with the text as it is, for callers that know where secrets stand.
    pub(crate) fn raw(path: &Path, source: &str, lines: &Lines, span: Range<usize>) -> Self {
        let start = floor(source, span.start);
        let end = floor(source, span.end).max(start);
        let begin = begin_of_line(source, start);
        let text = source[begin..].lines().next().unwrap_or_default();
        let inside = (start - begin).min(text.len());
        let until = (end - begin).clamp(inside, text.len());
        Self {
            path: path.to_owned(),
            line: lines.number(begin),
            column: text[..inside].chars().count() + 1,
            length: text[inside..until].chars().count().max(1),
            text: text.to_owned(),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let path = self.path.display();
        writeln!(f, "\n{margin}--> {path}:{number}:{}", self.column)?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", self.text)?;
        // Tabs stay tabs, so that the carets stand under what they mean at any width of a tab.
        let before: String = self.text.chars().take(self.column - 1).map(blank).collect();
        let shown = self.text.chars().count().saturating_sub(self.column - 1);
        let carets = "^".repeat(self.length.min(shown).max(1));
        write!(f, "{margin} | {before}{carets}")
    }
}

/// Where the lines of a text begin: what is told of many places is not counted from the top for each.
pub(crate) struct Lines(Vec<usize>);

impl Lines {
    pub(crate) fn of(source: &str) -> Self {
        let newlines = source.match_indices('\n').map(|(at, _)| at + 1);
        Self(std::iter::once(0).chain(newlines).collect())
    }

    /// The number of the line that a byte is in, from 1.
    fn number(&self, index: usize) -> usize {
        self.0.partition_point(|begin| *begin <= index)
    }
}

/// The first byte of the line that a byte is in.
pub(crate) fn begin_of_line(source: &str, index: usize) -> usize {
    let before = &source[..floor(source, index)];
    before.rfind('\n').map_or(0, |newline| newline + 1)
}

/// The nearest boundary of a character at or before `index`.
fn floor(text: &str, index: usize) -> usize {
    let mut index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// Whether a text of several lines is still open at the end of this piece. Such a line does not
/// show the key that it belongs to, so it may be a secret.
fn is_inside_text(before: &str) -> bool {
    let is_open = |quotes| before.matches(quotes).count() % 2 == 1;
    is_open("\"\"\"") || is_open("'''")
}

fn blank(character: char) -> char {
    if character == '\t' { '\t' } else { ' ' }
}

/// Whether the section that is open at the end of this piece holds names of secrets: people write the secrets themselves there.
fn is_among_secrets(before: &str) -> bool {
    let lines = before.lines().rev().map(str::trim_start);
    let header = lines
        .filter_map(|line| line.strip_prefix('['))
        .find_map(|line| line.split(']').next());
    header.is_some_and(|header| header.rsplit('.').next().is_some_and(is_secrets))
}

fn is_secrets(word: &str) -> bool {
    word.trim_matches([' ', '\t', '"', '\'']) == "secrets"
}

/// A line of a file is shown in an error only without the value of a key that looks secret, or of any where `all` are.
fn without_secrets(line: &str, all: bool) -> String {
    for (equals, _) in line.match_indices('=') {
        let before = line[..equals].trim_end();
        let key = before
            .rsplit(|c: char| !c.is_alphanumeric() && c != '_' && c != '-')
            .find(|word| !word.is_empty())
            .unwrap_or_default();
        let dotted = before.rsplit(['{', ',']).next().unwrap_or_default();
        if all || is_secret_name(key) || dotted.split('.').any(is_secrets) {
            return format!("{} {REDACTED}", &line[..=equals]);
        }
    }
    redact_value("", line)
}

impl Diagnostic {
    pub(crate) fn new(message: impl Into<String>, place: Place) -> Self {
        Self {
            message: message.into(),
            help: None,
            place,
        }
    }

    pub(crate) fn with_help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Line(line) => {
                f.write_str(&self.message)?;
                line.write(f)?;
            }
            Place::Origin(Origin::Default) => f.write_str(&self.message)?,
            Place::Origin(origin) => write!(f, "{origin}: {}", self.message)?,
        }
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, piece: &str) -> String {
        let start = source.find(piece).expect("the piece is in the source");
        let line = Line::of(Path::new("a.toml"), source, start..start + piece.len());
        Diagnostic::new("wrong", Place::Line(line))
            .with_help(Some("right it".to_owned()))
            .to_string()
    }

    #[test]
    fn one_line() {
        insta::assert_snapshot!(check("a = 1\nb = 22\n", "22"), @r"
        wrong
         --> a.toml:2:5
          |
        2 | b = 22
          |     ^^
          help: right it
        ");
    }

    #[test]
    fn tabs_and_wide_characters() {
        insta::assert_snapshot!(check("\tx = \"é\" # é", "\"é\""), @r#"
        wrong
         --> a.toml:1:6
          |
        1 | 	x = "é" # é
          | 	    ^^^
          help: right it
        "#);
    }

    #[test]
    fn several_lines() {
        insta::assert_snapshot!(check("a = [\n 1,\n]\n", "[\n 1,\n]"), @r"
        wrong
         --> a.toml:1:5
          |
        1 | a = [
          |     ^
          help: right it
        ");
    }

    #[test]
    fn the_end_of_the_file() {
        let line = Line::of(Path::new("a.toml"), "a = ", 4..9);
        assert_eq!((line.line, line.column, line.length), (1, 5, 1));
        let line = Line::of(Path::new("a.toml"), "a = 1\n", 6..6);
        assert_eq!((line.line, line.column, line.length), (2, 1, 1));
    }

    #[test]
    fn no_secret_is_shown() {
        for source in [
            "API_TOKEN = hunter2",
            "env = { LOG = \"x\", \"DB_PASSWORD\" = hunter2 }",
            "DATABASE_URL = \"postgres://u:hunter2@host/db\"",
            "API_TOKEN = \"\"\"\nhunter2",
        ] {
            let text = check(source, "hunter2");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
