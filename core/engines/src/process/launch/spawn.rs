//! Starting a program of the image, with what it may have.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::unistd::Pid;

use super::protocol::{Failure, Program};
use super::search;
use crate::process::user::User;

/// A program with its arguments and its environment.
pub(super) struct Prepared {
    /// Reads nothing, and writes to where its parent does unless the caller says otherwise.
    pub(super) command: Command,
    name: String,
    file: PathBuf,
}

/// Finds the program. In the root directory of the instance, as the user that it runs as.
pub(super) fn prepare(program: &Program, user: &User) -> Result<Prepared, Failure> {
    let name = program.command.first().map_or("", String::as_str);
    let path = program
        .environment
        .get("PATH")
        .map_or(search::DEFAULT_PATH, String::as_str);
    let (file, shown, arguments) = match &program.executable {
        Some(found) => (
            found.path.clone(),
            found.name.as_str(),
            found.arguments.as_slice(),
        ),
        None => (
            search::find(name, path)?,
            name,
            program.command.get(1..).unwrap_or_default(),
        ),
    };
    let mut command = Command::new(&file);
    command.arg0(shown).args(arguments).stdin(Stdio::null());
    command.env_clear().env("PATH", path);
    command.env("HOME", user.home.as_deref().unwrap_or("/"));
    command.envs(&program.environment);
    Ok(Prepared {
        command,
        name: name.to_owned(),
        file,
    })
}

impl Prepared {
    /// Runs it. Closes our copies of what it writes to.
    pub(super) fn spawn(mut self) -> Result<Pid, Failure> {
        let child = self
            .command
            .spawn()
            .map_err(|error| search::refused(&self.name, &self.file, &error))?;
        let pid = i32::try_from(child.id()).map_err(Failure::at("start the program"))?;
        Ok(Pid::from_raw(pid))
    }
}
