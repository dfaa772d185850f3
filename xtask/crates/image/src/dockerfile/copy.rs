//! `COPY` and `ADD` as written: flags, sources, destination.

use super::error::Problem;
use super::flags::Flags;
use super::lines::{Heredoc, LogicalLine, heredoc_start};
use super::words;

/// What `COPY` or `ADD` asks for, variables unexpanded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// Paths and patterns, in the order of the line.
    pub sources: Vec<String>,
    /// Contents written in the Dockerfile itself.
    pub heredocs: Vec<Heredoc>,
    /// Where they go; ends with `/` for a directory.
    pub destination: String,
    /// `--from`: a stage or an image.
    pub from: Option<String>,
    /// `--chown=user[:group]`
    pub chown: Option<String>,
    /// `--chmod=0755`
    pub chmod: Option<String>,
    /// `--link`
    pub link: bool,
    /// `--parents`: keep the directories of the sources.
    pub parents: bool,
    /// `--exclude=pattern`, any number of times.
    pub exclude: Vec<String>,
    /// Why `ADD` cannot be done without an engine, found from its flags.
    pub(crate) fetches: Option<&'static str>,
}

pub(super) fn read(
    instruction: &'static str,
    mut flags: Flags,
    rest: &str,
    line: &LogicalLine,
    escape: char,
) -> Result<Copy, Problem> {
    let mut copy = Copy {
        from: if instruction == "COPY" {
            flags.value("from")?
        } else {
            None
        },
        chown: flags.value("chown")?,
        chmod: flags.value("chmod")?,
        link: flags.switch("link")?,
        parents: instruction == "COPY" && flags.switch("parents")?,
        exclude: flags.values("exclude")?,
        fetches: if instruction == "ADD" {
            fetches(&mut flags)?
        } else {
            None
        },
        ..Copy::default()
    };
    flags.finish(instruction)?;
    let mut arguments = words::list(rest)?;
    let expected = "one or more sources and a destination";
    let too_few = Problem::Arguments {
        instruction,
        expected,
    };
    copy.destination = arguments.pop().ok_or(too_few.clone())?;
    if arguments.is_empty() || heredoc_start(&copy.destination, escape).is_some() {
        return Err(too_few);
    }
    for argument in arguments {
        match heredoc_start(&argument, escape) {
            Some(start) => copy.heredocs.extend(body(line, &start.name)),
            None => copy.sources.push(argument),
        }
    }
    Ok(copy)
}

/// The flags of `ADD` that only make sense for what it downloads or unpacks.
fn fetches(flags: &mut Flags) -> Result<Option<&'static str>, Problem> {
    let checksum = flags.value("checksum")?.is_some();
    let git = flags.switch("keep-git-dir")?;
    let unpack = flags.switch("unpack")?;
    let reason = "it downloads or unpacks its source";
    Ok((checksum || git || unpack).then_some(reason))
}

fn body(line: &LogicalLine, name: &str) -> Option<Heredoc> {
    line.heredocs
        .iter()
        .find(|heredoc| heredoc.name == name)
        .cloned()
}
