//! What is wrong with a Dockerfile, on which line, and what to do about it.

use std::fmt;

/// A fault in a Dockerfile, with the line that holds it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct DockerfileError {
    /// The file as the user knows it, usually relative to the project.
    pub file: String,
    /// Line number, counted from 1.
    pub line: usize,
    /// The text of that line, without the spaces around it.
    pub text: String,
    /// What is wrong.
    #[source]
    pub problem: Problem,
}

impl fmt::Display for DockerfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: cannot read `{}`",
            self.file, self.line, self.text
        )
    }
}

impl DockerfileError {
    /// One edit or one command that gets the user on.
    #[must_use]
    pub fn resolution(&self) -> String {
        self.problem.resolution()
    }
}

/// The kinds of faults a Dockerfile can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// There is nothing in the file to build.
    #[error("the file has no instruction")]
    Empty,
    /// The first word of the line is not an instruction.
    #[error("unknown instruction {0}")]
    UnknownInstruction(String),
    /// The first instruction other than `ARG` is not `FROM`.
    #[error("{0} stands before the first FROM")]
    BeforeFrom(String),
    /// An instruction got too few or too many arguments.
    #[error("{instruction} takes {expected}")]
    Arguments {
        /// The instruction.
        instruction: &'static str,
        /// What it takes instead.
        expected: &'static str,
    },
    /// `--flag` that the instruction does not know.
    #[error("{instruction} has no flag --{flag}")]
    UnknownFlag {
        /// The instruction.
        instruction: &'static str,
        /// The flag without its dashes.
        flag: String,
    },
    /// The same flag twice where once is allowed, or a flag without its value.
    #[error("--{flag}: {reason}")]
    Flag {
        /// The flag without its dashes.
        flag: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A JSON list that holds something other than strings.
    #[error("a JSON list may hold strings only")]
    JsonNotStrings,
    /// A heredoc without its end.
    #[error("the heredoc {0} has no closing line")]
    UnterminatedHeredoc(String),
    /// A parser directive that stands twice or has a bad value.
    #[error("parser directive {name}: {reason}")]
    Directive {
        /// Name of the directive.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// `ENV`, `LABEL`: a word without `=`.
    #[error("no `=` in `{0}`")]
    NoEquals(String),
    /// A variable or a quote that cannot be expanded.
    #[error("{0}")]
    Expansion(String),
    /// A value that an instruction does not take.
    #[error("{what} `{value}`: {reason}")]
    Value {
        /// What the value is for.
        what: &'static str,
        /// The value itself.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `FROM`, `COPY --from` or the target names a stage that cannot be used there.
    #[error("stage `{name}`: {reason}")]
    Stage {
        /// Name or number of the stage.
        name: String,
        /// Why it cannot be used.
        reason: &'static str,
    },
}

impl Problem {
    fn resolution(&self) -> String {
        match self {
            Self::Empty => "add at least a FROM line".into(),
            Self::UnknownInstruction(word) => nearest_instruction(word),
            Self::BeforeFrom(_) => "move the line below FROM; only ARG may stand above it".into(),
            Self::Arguments { expected, .. } => format!("give the line {expected}"),
            Self::UnknownFlag { .. } | Self::Flag { .. } => {
                "correct or remove the flag, see docs.docker.com/reference/dockerfile".into()
            }
            Self::JsonNotStrings => "put every element of the list in double quotes".into(),
            Self::UnterminatedHeredoc(name) => format!("add a line that holds only `{name}`"),
            Self::Directive { .. } => "write the directive once, in the first lines".into(),
            Self::NoEquals(word) => format!("write `{word}=value`, or quote the value"),
            Self::Expansion(_) => "close the quote or brace, or give the variable a value".into(),
            Self::Value { .. } => "correct the value on that line".into(),
            Self::Stage { .. } => {
                "name a stage that an earlier `FROM … AS` of this file defines".into()
            }
        }
    }
}

fn nearest_instruction(word: &str) -> String {
    let upper = word.to_ascii_uppercase();
    super::instruction::NAMES
        .iter()
        .map(|name| (distance(&upper, name), *name))
        .filter(|(distance, _)| *distance <= 2)
        .min()
        .map_or_else(
            || "write one of Docker's instructions, such as COPY or ENV".into(),
            |(_, name)| format!("did you mean {name}?"),
        )
}

/// Levenshtein distance; instruction names are short, so the plain form will do.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
