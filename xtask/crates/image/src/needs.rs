//! What cannot be done natively, said before anything is built.

use std::fmt;

use crate::dockerfile::{Copy, Dockerfile, Instruction, Line};
use crate::outline::{Outline, stage_of};
use crate::stage::Step;

/// An instruction that only a container engine can carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeedsEngine {
    /// The line it starts on.
    pub line: usize,
    /// The instruction, `RUN` for instance.
    pub instruction: String,
    /// Why an engine is needed.
    pub reason: String,
}

impl fmt::Display for NeedsEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "line {}: {} {}",
            self.line, self.instruction, self.reason
        )
    }
}

const ARCHIVES: [&str; 12] = [
    ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".gz",
    ".bz2", ".xz",
];

/// Says why `line` needs an engine, if it does.
pub(crate) fn check(
    dockerfile: &Dockerfile,
    outline: &Outline,
    stage: usize,
    line: &Line,
    step: &Step,
) -> Option<NeedsEngine> {
    let reason = match (&line.instruction, step) {
        (Instruction::Run, _) => Some("runs a command in a container".to_owned()),
        (Instruction::Onbuild, _) => Some("is left to builds that start from this image".into()),
        (Instruction::Add(_), Step::Copy(copy)) => add(copy),
        (Instruction::Copy(_), Step::Copy(copy)) => copy_from(dockerfile, outline, stage, copy),
        _ => None,
    }?;
    Some(NeedsEngine {
        line: line.span.first,
        instruction: line.name.clone(),
        reason,
    })
}

fn add(copy: &Copy) -> Option<String> {
    if let Some(reason) = copy.fetches {
        return Some(reason.into());
    }
    let remote = |source: &&String| source.contains("://") || source.starts_with("git@");
    if let Some(source) = copy.sources.iter().find(remote) {
        return Some(format!("downloads {source}"));
    }
    let archive = |source: &&String| {
        let lower = source.to_ascii_lowercase();
        ARCHIVES.iter().any(|ending| lower.ends_with(ending))
    };
    copy.sources
        .iter()
        .find(archive)
        .map(|source| format!("unpacks {source}"))
}

fn copy_from(
    dockerfile: &Dockerfile,
    outline: &Outline,
    stage: usize,
    copy: &Copy,
) -> Option<String> {
    let from = copy.from.as_deref()?;
    let Some(source) = stage_of(dockerfile, stage, from) else {
        return Some(format!("takes files out of the image {from}"));
    };
    if outline.stands_on_nothing(source) {
        return None;
    }
    // Only what the stage itself has copied is known; the files of its base image are not.
    let own = destinations(dockerfile, outline, source);
    let unknown = copy.sources.iter().find(|path| !is_below(path, &own));
    unknown.map(|path| format!("takes {path} from stage {from}, whose base image may hold more"))
}

/// Absolute destinations of the `COPY` lines of a stage and of those it stands on.
fn destinations(dockerfile: &Dockerfile, outline: &Outline, mut stage: usize) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        for line in &dockerfile.stages[stage].lines {
            if let Instruction::Copy(copy) | Instruction::Add(copy) = &line.instruction {
                found.push(copy.destination.trim_end_matches('/').to_owned());
            }
        }
        match outline.origins[stage] {
            crate::outline::Origin::Stage(earlier) => stage = earlier,
            _ => return found,
        }
    }
}

fn is_below(path: &str, destinations: &[String]) -> bool {
    let path = format!("/{}", path.trim_start_matches('/'));
    let plain = !path.contains(['*', '?', '[']);
    let directory = |known: &String| !known.is_empty() && path.starts_with(&format!("{known}/"));
    plain
        && !path.ends_with('/')
        && destinations
            .iter()
            .any(|known| path == *known || directory(known))
}
