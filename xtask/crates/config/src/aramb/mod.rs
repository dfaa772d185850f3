//! Reads `aramb.toml`, and changes single values of it.
//!
//! Unknown keys are left alone: the file is another tool's, and newer ones of it know more. What is known has to be right,
//! and all that is wrong is told at once, with its line.

mod edit;
mod fields;
mod load;
mod read;
mod rules;

use std::mem;
use std::ops::Range;
use std::path::Path;

use deploy_plan::aramb::{ArambFile, Graph};
use deploy_plan::config::{REDACTED, redact_value};
use toml::de::DeTable;

use crate::check::Fault;
use crate::diagnostic::{Diagnostic, Line, Lines, Place, begin_of_line};

pub use edit::{EditError, replace};
pub use load::load;

/// The file's name, in the root of a project.
pub const ARAMB_TOML: &str = "aramb.toml";

/// A file, and what there is to say about it.
#[derive(Clone, Debug, Default)]
pub struct ArambToml {
    /// What it describes, as far as that could be read.
    pub file: ArambFile,
    /// Who takes what from whom; empty if something is wrong with the file.
    pub graph: Graph,
    /// Everything wrong with it, in the order of its lines.
    pub diagnostics: Vec<Diagnostic>,
    /// What is most likely not meant so, in the order of its lines.
    pub warnings: Vec<Diagnostic>,
}

/// Reads the text of the file at `path` (relative to the project, for messages).
#[must_use]
pub fn parse(path: &Path, source: &str) -> ArambToml {
    let mut notes = Notes {
        path,
        source,
        wrong: Vec::new(),
        odd: Vec::new(),
        secrets: Vec::new(),
    };
    let (table, errors) = DeTable::parse_recoverable(source);
    let mut toml = ArambToml::default();
    if errors.is_empty() {
        toml.file = read::file(table.get_ref(), &mut notes);
        rules::check(&toml.file, &mut notes);
        if notes.wrong.is_empty() {
            toml.graph = Graph::of(&toml.file);
            rules::check_circles(&toml.file, &toml.graph, &mut notes);
        }
    } else {
        // What a reader recovers after an error is guesswork.
        for error in &errors {
            let message = error.message().trim().replace('\n', ", ");
            let span = error.span().unwrap_or_default();
            // Whose value it is cannot be told here.
            let begin = begin_of_line(source, span.start);
            if source[begin..]
                .lines()
                .next()
                .is_some_and(|line| line.contains("value"))
            {
                notes.secrets.push(begin..begin + 1);
            }
            notes.wrong(span, Fault::new(format!("not TOML: {message}")));
        }
    }
    (toml.diagnostics, toml.warnings) = notes.finish();
    toml
}

/// What there is to say about a file.
struct Notes<'a> {
    path: &'a Path,
    source: &'a str,
    wrong: Vec<(Range<usize>, Fault)>,
    odd: Vec<(Range<usize>, Fault)>,
    /// Texts that nobody is to see: those of secrets, and of variables that are called like some.
    secrets: Vec<Range<usize>>,
}

impl Notes<'_> {
    fn wrong(&mut self, span: Range<usize>, fault: Fault) {
        self.wrong.push((span, fault));
    }

    fn odd(&mut self, span: Range<usize>, fault: Fault) {
        self.odd.push((span, fault));
    }

    fn finish(mut self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        let (wrong, odd) = (mem::take(&mut self.wrong), mem::take(&mut self.odd));
        let lines = Lines::of(self.source);
        self.secrets.sort_by_key(|secret| secret.start);
        let told = |mut notes: Vec<(Range<usize>, Fault)>| {
            notes.sort_by_key(|(span, _)| span.start);
            let told = notes.into_iter().map(|(span, fault)| {
                let place = Place::Line(self.line(&lines, span));
                Diagnostic::new(fault.message, place).with_help(fault.help)
            });
            told.collect()
        };
        (told(wrong), told(odd))
    }

    /// The line that a piece of the file is in, without secrets.
    fn line(&self, lines: &Lines, span: Range<usize>) -> Line {
        let begin = begin_of_line(self.source, span.start);
        let mut line = Line::raw(self.path, self.source, lines, span);
        let end = begin + line.text.len();
        // They are texts of the file, and none is within another: of those that begin before the line ends, the last one reaches
        // furthest.
        let before = self.secrets.partition_point(|secret| secret.start < end);
        let last = before.checked_sub(1).map(|last| &self.secrets[last]);
        if last.is_some_and(|secret| begin < secret.end) {
            REDACTED.clone_into(&mut line.text);
            return line;
        }
        // A password in a URL, wherever it stands.
        let shown = redact_value("", &line.text);
        if shown != line.text {
            let skipped = line.text.chars().skip(line.column - 1);
            let piece: String = skipped.take(line.length).collect();
            if let Some(at) = shown.find(&piece) {
                line.column = shown[..at].chars().count() + 1;
            } else {
                (line.column, line.length) = (1, 1);
            }
            line.text = shown;
        }
        line
    }
}

impl Fault {
    fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}
