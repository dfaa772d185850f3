//! Reads a Dockerfile: its lines, instructions and stages, each with where it stands.
//!
//! Nothing is expanded, looked up or built here; [`Dockerfile::parse`] needs the text and nothing
//! else. The reader is our own because the published ones neither keep the line of every
//! instruction nor follow `BuildKit` where its quoting differs from a shell's.

mod copy;
mod error;
mod expand;
mod flags;
mod health;
mod instruction;
mod lines;
mod pattern;
#[cfg(test)]
mod tests;
mod words;

pub use copy::Copy;
pub use error::{DockerfileError, Problem};
pub(crate) use expand::Lexer;
pub use health::Healthcheck;
pub use instruction::{CommandLine, From, Instruction};
pub use lines::{Heredoc, Span};

/// A Dockerfile that has been read.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    /// The name used in messages.
    pub file: String,
    /// `ARG`s above the first `FROM`.
    pub arguments: Vec<Line>,
    /// The stages, in order.
    pub stages: Vec<Stage>,
    pub(crate) escape: char,
}

/// One `FROM` and what follows it.
#[derive(Debug, Clone)]
pub struct Stage {
    /// Its `FROM`.
    pub from: From,
    /// Where that stands.
    pub line: Line,
    /// The instructions below it.
    pub lines: Vec<Line>,
}

/// One instruction and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// First and last line of the file that belong to it.
    pub span: Span,
    /// Its text, continuation lines joined.
    pub text: String,
    /// Its name, in upper case.
    pub name: String,
    /// What it asks for.
    pub instruction: Instruction,
}

/// The sources and the destination of one `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyLine {
    /// The line it starts on.
    pub line: usize,
    /// Paths and patterns; variables are expanded as far as the file and `arguments` say.
    pub sources: Vec<String>,
    /// Where they go.
    pub destination: String,
    /// The stage or image of `--from`.
    pub from: Option<String>,
}

impl Dockerfile {
    /// Reads `text`; `file` is the name used in messages.
    pub fn parse(file: &str, text: &str) -> Result<Self, DockerfileError> {
        let at = |(line, problem)| locate(file, text, line, problem);
        let logical = lines::read(text).map_err(at)?;
        let mut dockerfile = Self {
            file: file.to_owned(),
            arguments: Vec::new(),
            stages: Vec::new(),
            escape: logical.escape,
        };
        for line in logical.lines {
            let first = line.span.first;
            dockerfile
                .push(&line)
                .map_err(|problem| at((first, problem)))?;
        }
        if dockerfile.stages.is_empty() {
            return Err(at((1, Problem::Empty)));
        }
        Ok(dockerfile)
    }

    fn push(&mut self, logical: &lines::LogicalLine) -> Result<(), Problem> {
        let (name, instruction) = instruction::read(logical, self.escape)?;
        let text = logical.text.trim().to_owned();
        let line = Line {
            span: logical.span,
            text,
            name,
            instruction,
        };
        if let Instruction::From(from) = &line.instruction {
            self.stages.push(Stage {
                from: from.clone(),
                line,
                lines: Vec::new(),
            });
        } else if let Some(stage) = self.stages.last_mut() {
            stage.lines.push(line);
        } else if matches!(line.instruction, Instruction::Arg(_)) {
            self.arguments.push(line);
        } else {
            return Err(Problem::BeforeFrom(line.name));
        }
        Ok(())
    }

    pub(crate) fn fault(&self, line: &Line, problem: Problem) -> DockerfileError {
        let text = line.text.clone();
        DockerfileError {
            file: self.file.clone(),
            line: line.span.first,
            text,
            problem,
        }
    }
}

fn locate(file: &str, text: &str, line: usize, problem: Problem) -> DockerfileError {
    let shown = text
        .lines()
        .nth(line.saturating_sub(1))
        .unwrap_or_default()
        .trim();
    DockerfileError {
        file: file.to_owned(),
        line,
        text: shown.to_owned(),
        problem,
    }
}
