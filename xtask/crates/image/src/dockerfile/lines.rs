//! From the text of a Dockerfile to its logical lines: parser directives, comments, line
//! continuations and heredocs. What an instruction means is decided elsewhere.
//!
//! The rules are those of `BuildKit`'s `frontend/dockerfile/parser`.

use std::str::SplitInclusive;

use super::error::Problem;
use super::expand::Lexer;

/// First and last line of an instruction, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The line the instruction starts on.
    pub first: usize,
    /// The last line that belongs to it, heredocs included.
    pub last: usize,
}

/// Text given in the Dockerfile itself: `COPY <<name /destination`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it, without quotes.
    pub name: String,
    /// The lines between, each with its line end; tabs already taken off for `<<-`.
    pub content: String,
    /// Whether variables in it are expanded: not when the name is quoted.
    pub expand: bool,
}

/// An instruction with its continuation lines joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogicalLine {
    pub(super) span: Span,
    pub(super) text: String,
    pub(super) heredocs: Vec<Heredoc>,
}

/// A fault and the line it stands on.
pub(super) type Located<T> = Result<T, (usize, Problem)>;

/// The lines of a Dockerfile and the escape character that its directives choose.
#[derive(Debug)]
pub(super) struct Logical {
    pub(super) escape: char,
    pub(super) lines: Vec<LogicalLine>,
}

/// Splits `text` into logical lines.
pub(super) fn read(text: &str) -> Located<Logical> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let escape = directives(text)?;
    let mut reader = Reader {
        rest: text.split_inclusive('\n'),
        number: 0,
        escape,
    };
    let mut lines = Vec::new();
    while let Some(line) = reader.next_logical()? {
        lines.push(line);
    }
    Ok(Logical { escape, lines })
}

/// Reads the parser directives, which stand above everything else, and gives the escape character.
fn directives(text: &str) -> Located<char> {
    let mut escape = '\\';
    let mut seen = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let Some((name, value)) = directive(line) else {
            break;
        };
        let fault = |reason| {
            (
                index + 1,
                Problem::Directive {
                    name: name.clone(),
                    reason,
                },
            )
        };
        if seen.contains(&name) {
            return Err(fault("it may stand only once"));
        }
        if name == "escape" {
            escape = match value {
                "\\" => '\\',
                "`" => '`',
                _ => return Err(fault("it must be \\ or `")),
            };
        }
        seen.push(name);
    }
    Ok(escape)
}

fn directive(line: &str) -> Option<(String, &str)> {
    let (name, value) = line.trim_start().strip_prefix('#')?.split_once('=')?;
    let name = name.trim().to_ascii_lowercase();
    let known = matches!(name.as_str(), "escape" | "syntax" | "check");
    (known && !value.trim().is_empty()).then_some((name, value.trim()))
}

struct Reader<'a> {
    /// Each with its line end, which belongs to the content of a heredoc.
    rest: SplitInclusive<'a, char>,
    number: usize,
    escape: char,
}

impl Reader<'_> {
    fn next_logical(&mut self) -> Located<Option<LogicalLine>> {
        while let Some(line) = self.next_physical() {
            let line = line.trim_start().to_owned();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let first = self.number;
            let text = self.join_continuations(&line);
            if text.trim().is_empty() {
                continue;
            }
            let heredocs = self.heredocs(first, &text)?;
            let span = Span {
                first,
                last: self.number,
            };
            return Ok(Some(LogicalLine {
                span,
                text,
                heredocs,
            }));
        }
        Ok(None)
    }

    fn next_physical(&mut self) -> Option<String> {
        self.next_with_end()
            .map(|line| without_end(line).to_owned())
    }

    fn next_with_end(&mut self) -> Option<&str> {
        let line = self.rest.next()?;
        self.number += 1;
        Some(line)
    }

    fn join_continuations(&mut self, first: &str) -> String {
        let (mut text, mut more) = cut_continuation(first, self.escape);
        while more {
            let Some(line) = self.next_physical() else {
                break;
            };
            // Comments and empty lines inside a continued instruction are passed over.
            if line.trim_start().starts_with('#') || line.trim().is_empty() {
                continue;
            }
            let (part, continues) = cut_continuation(&line, self.escape);
            text.push_str(&part);
            more = continues;
        }
        text
    }

    fn heredocs(&mut self, first: usize, text: &str) -> Located<Vec<Heredoc>> {
        heredoc_starts(text, self.escape)
            .into_iter()
            .map(|start| self.heredoc_body(first, start))
            .collect()
    }

    fn heredoc_body(&mut self, first: usize, start: HeredocStart) -> Located<Heredoc> {
        let mut content = String::new();
        while let Some(line) = self.next_with_end() {
            let line = if start.chomp {
                line.trim_start_matches('\t')
            } else {
                line
            };
            if without_end(line) == start.name {
                return Ok(Heredoc {
                    name: start.name,
                    content,
                    expand: start.expand,
                });
            }
            content.push_str(line);
        }
        Err((first, Problem::UnterminatedHeredoc(start.name)))
    }
}

fn without_end(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

/// Takes a trailing escape character off. Two of them are an escaped one and end the line.
fn cut_continuation(line: &str, escape: char) -> (String, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(kept) if !kept.ends_with(escape) => (kept.to_owned(), true),
        _ => (line.to_owned(), false),
    }
}

/// `<<-"name"` taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeredocStart {
    pub(super) name: String,
    chomp: bool,
    expand: bool,
}

/// The heredocs that an instruction announces; only these three instructions may have any.
fn heredoc_starts(text: &str, escape: char) -> Vec<HeredocStart> {
    let mut words = text.splitn(2, char::is_whitespace);
    let mut instruction = words.next().unwrap_or_default().to_ascii_uppercase();
    let mut rest = words.next().unwrap_or_default().trim_start();
    if instruction == "ONBUILD" {
        let (inner, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        instruction = inner.to_ascii_uppercase();
        rest = after;
    }
    if !matches!(instruction.as_str(), "ADD" | "COPY" | "RUN") || !rest.contains("<<") {
        return Vec::new();
    }
    let none = |_: &str| None;
    let words = Lexer::new(escape, &none)
        .keep_quotes()
        .keep_unset()
        .words(rest);
    words
        .unwrap_or_default()
        .iter()
        .filter_map(|word| heredoc_start(word, escape))
        .collect()
}

/// Reads one word as the start of a heredoc: `[descriptor]<<[-]name`.
pub(super) fn heredoc_start(word: &str, escape: char) -> Option<HeredocStart> {
    let rest = word
        .trim_start_matches(|c: char| c.is_ascii_digit())
        .strip_prefix("<<")?;
    let (chomp, quoted) = match rest.strip_prefix('-') {
        Some(quoted) => (true, quoted),
        None => (false, rest),
    };
    if quoted.is_empty() || quoted.contains('<') {
        return None;
    }
    let none = |_: &str| None;
    let mut names = Lexer::new(escape, &none).keep_unset().words(quoted).ok()?;
    let name = names
        .pop()
        .filter(|name| names.is_empty() && !name.is_empty())?;
    Some(HeredocStart {
        expand: name == quoted,
        name,
        chomp,
    })
}
