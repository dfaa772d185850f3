//! One call of the command: what it is given, what it says, and that it ends.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::answers::Said;
use super::{Cli, REPOSITORY_VARIABLE};
use crate::aramb::TOKEN_VARIABLE;
use crate::child::Program;
use crate::interrupt::Interrupts;

/// So many of the command's last lines are part of a failure.
const LAST: usize = 12;
/// So much of an answer is kept.
const LONGEST: usize = 4 * 1024 * 1024;

impl Cli {
    /// Runs the command to its end and keeps what it says.
    pub(super) fn ask(&self, call: Call<'_>, interrupts: &Interrupts) -> Result<Said, String> {
        let Some(command) = &self.command else {
            return Err("it is not installed".to_owned());
        };
        let command = command.to_string_lossy();
        let mut program = Program::new(&command, call.folder)
            .arguments(call.arguments.iter().copied())
            .within(call.limit)
            .grouped();
        if let Some(token) = self.variables.get(TOKEN_VARIABLE) {
            program = program.variable(TOKEN_VARIABLE, token);
        }
        if let Some(repository) = call.repository {
            program = program.variable(REPOSITORY_VARIABLE, repository);
        }
        let mut output = String::new();
        let last = Mutex::new(VecDeque::with_capacity(LAST));
        let note = |line: &str| {
            if !line.trim().is_empty() {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.len() == LAST {
                    last.pop_front();
                }
                last.push_back(line.trim_end().chars().take(500).collect::<String>());
            }
            if let Some(hear) = call.hear {
                hear(line);
            }
        };
        let on_output = |line: &str| {
            note(line);
            if output.len() + line.len() > LONGEST {
                // What is asked for comes last.
                output.clear();
            }
            output.push_str(line);
            output.push('\n');
        };
        let status = program.stream(interrupts, on_output, note);
        let last = last.into_inner().unwrap_or_else(PoisonError::into_inner);
        match status {
            Ok(status) => Ok(Said {
                ended: status.to_string(),
                is_good: status.success(),
                output,
                last: last.into(),
            }),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// One call of the command.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) folder: &'a Path,
    pub(super) arguments: &'a [&'a str],
    pub(super) limit: Duration,
    pub(super) repository: Option<&'a str>,
    pub(super) hear: Option<&'a (dyn Fn(&str) + Sync)>,
}

impl<'a> Call<'a> {
    pub(super) fn new(folder: &'a Path, arguments: &'a [&'a str], limit: Duration) -> Self {
        Self {
            folder,
            arguments,
            limit,
            repository: None,
            hear: None,
        }
    }

    /// As a person would type it.
    pub(super) fn shown(&self) -> String {
        format!("aramb {}", self.arguments.join(" "))
    }
}
