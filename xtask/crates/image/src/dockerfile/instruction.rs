//! One logical line read as the instruction it is. Variables are still unexpanded: what they
//! stand for depends on the stage, see `crate::stage`.

use super::copy::{self, Copy};
use super::error::Problem;
use super::flags::Flags;
use super::health::{self, Healthcheck};
use super::lines::LogicalLine;
use super::words;

/// All instructions of a Dockerfile.
pub(super) const NAMES: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// What an instruction asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// `FROM image [AS name]`
    From(From),
    /// `ARG name[=default] …`
    Arg(Vec<(String, Option<String>)>),
    /// `ENV name=value …`
    Env(Vec<(String, String)>),
    /// `LABEL name=value …`
    Label(Vec<(String, String)>),
    /// `COPY source… destination`
    Copy(Copy),
    /// `ADD source… destination`
    Add(Copy),
    /// `WORKDIR directory`
    Workdir(String),
    /// `USER user[:group]`
    User(String),
    /// `EXPOSE port[/protocol] …`
    Expose(Vec<String>),
    /// `VOLUME directory …`
    Volume(Vec<String>),
    /// `CMD`
    Cmd(CommandLine),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `STOPSIGNAL signal`
    StopSignal(String),
    /// `SHELL ["program", …]`
    Shell(Vec<String>),
    /// `MAINTAINER name`
    Maintainer(String),
    /// `RUN …`: needs an engine.
    Run,
    /// `ONBUILD …`: needs an engine.
    Onbuild,
}

/// `FROM [--platform=p] image [AS name]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// Image or earlier stage, with variables.
    pub image: String,
    /// Lower-cased name of the stage.
    pub name: Option<String>,
    /// The platform asked for, with variables.
    pub platform: Option<String>,
}

/// A command as a list of words or as one line for the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// `["program", "argument"]`
    Exec(Vec<String>),
    /// `program argument`
    Shell(String),
}

impl CommandLine {
    pub(super) fn read(text: &str) -> Result<Self, Problem> {
        Ok(words::json_list(text)?.map_or_else(|| Self::Shell(text.to_owned()), Self::Exec))
    }

    /// The words that run, with `shell` in front of a shell line.
    #[must_use]
    pub fn with_shell(&self, shell: &[String]) -> Vec<String> {
        match self {
            Self::Exec(words) => words.clone(),
            Self::Shell(line) if line.is_empty() => Vec::new(),
            Self::Shell(line) => shell.iter().chain([line]).cloned().collect(),
        }
    }
}

/// Reads a logical line; gives the instruction's name too.
pub(super) fn read(line: &LogicalLine, escape: char) -> Result<(String, Instruction), Problem> {
    let command = words::command(&line.text);
    let name = command.name;
    let flags = Flags::new(command.flags);
    let rest = command.rest.as_str();
    let instruction = match name.as_str() {
        "COPY" => Instruction::Copy(copy::read("COPY", flags, rest, line, escape)?),
        "ADD" => Instruction::Add(copy::read("ADD", flags, rest, line, escape)?),
        "FROM" => Instruction::From(from(flags, rest)?),
        "HEALTHCHECK" => Instruction::Healthcheck(health::read(flags, rest)?),
        "RUN" => Instruction::Run,
        "ONBUILD" => Instruction::Onbuild,
        _ => return without_flags(name, flags, rest, escape),
    };
    Ok((name, instruction))
}

fn without_flags(
    name: String,
    flags: Flags,
    rest: &str,
    escape: char,
) -> Result<(String, Instruction), Problem> {
    let Some(known) = NAMES.into_iter().find(|known| *known == name) else {
        return Err(Problem::UnknownInstruction(name));
    };
    flags.finish(known)?;
    let one = || one_argument(known, rest);
    let instruction = match known {
        "ARG" => Instruction::Arg(arguments(rest, escape)?),
        "ENV" => Instruction::Env(words::pairs("ENV", rest, escape)?),
        "LABEL" => Instruction::Label(words::pairs("LABEL", rest, escape)?),
        "WORKDIR" => Instruction::Workdir(one()?),
        "USER" => Instruction::User(one()?),
        "STOPSIGNAL" => Instruction::StopSignal(one()?),
        "MAINTAINER" => Instruction::Maintainer(one()?),
        "EXPOSE" => Instruction::Expose(some("EXPOSE", words::list(rest)?)?),
        "VOLUME" => Instruction::Volume(volumes(rest)?),
        "SHELL" => Instruction::Shell(shell(rest)?),
        "CMD" => Instruction::Cmd(CommandLine::read(rest)?),
        _ => Instruction::Entrypoint(CommandLine::read(rest)?),
    };
    Ok((name, instruction))
}

fn from(mut flags: Flags, rest: &str) -> Result<From, Problem> {
    let platform = flags.value("platform")?;
    flags.finish("FROM")?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (image, name) = match words.as_slice() {
        [image] => (*image, None),
        [image, keyword, name] if keyword.eq_ignore_ascii_case("as") => {
            (*image, Some(stage_name(name)?))
        }
        _ => {
            return Err(Problem::Arguments {
                instruction: "FROM",
                expected: "image [AS name]",
            });
        }
    };
    Ok(From {
        image: image.to_owned(),
        name,
        platform,
    })
}

fn stage_name(name: &str) -> Result<String, Problem> {
    let lower = name.to_ascii_lowercase();
    let rest_valid = lower
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if rest_valid && lower.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Ok(lower);
    }
    Err(Problem::Stage {
        name: name.to_owned(),
        reason: "a name is a letter, then a-z 0-9 - _ .",
    })
}

fn arguments(rest: &str, escape: char) -> Result<Vec<(String, Option<String>)>, Problem> {
    let words = some("ARG", words::quoted_words(rest, escape))?;
    let split = |word: String| match word.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (word, None),
    };
    Ok(words.into_iter().map(split).collect())
}

fn volumes(rest: &str) -> Result<Vec<String>, Problem> {
    let volumes = some("VOLUME", words::list(rest)?)?;
    if volumes.iter().any(|volume| volume.trim().is_empty()) {
        return Err(Problem::Arguments {
            instruction: "VOLUME",
            expected: "non-empty paths",
        });
    }
    Ok(volumes)
}

fn shell(rest: &str) -> Result<Vec<String>, Problem> {
    let fault = Problem::Arguments {
        instruction: "SHELL",
        expected: r#"a JSON list, ["sh","-c"]"#,
    };
    words::json_list(rest)?
        .filter(|words| !words.is_empty())
        .ok_or(fault)
}

fn one_argument(instruction: &'static str, rest: &str) -> Result<String, Problem> {
    if rest.is_empty() {
        return Err(Problem::Arguments {
            instruction,
            expected: "one argument",
        });
    }
    Ok(rest.to_owned())
}

fn some(instruction: &'static str, words: Vec<String>) -> Result<Vec<String>, Problem> {
    if words.is_empty() {
        return Err(Problem::Arguments {
            instruction,
            expected: "at least one argument",
        });
    }
    Ok(words)
}
