//! Layers compressed with zstd, unpacked by the program of that name, where there is one.

use std::fs::File;
use std::io::{self, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

/// As much of what it complains of as is read: less than a pipe holds, so that it cannot block.
const COMPLAINT: u64 = 4096;

/// Whether a program is on this machine.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// A program that needs nothing of our environment, in which there may be a token or a key.
pub(crate) fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command
}

/// The unpacked bytes of a file. The program ends with it.
pub(crate) struct Unpacked {
    name: &'static str,
    program: Child,
    output: ChildStdout,
}

impl Unpacked {
    /// `name` is that of a program with the options of gzip; the short ones, which small systems
    /// know as well.
    pub(crate) fn by(name: &'static str, packed: File) -> io::Result<Self> {
        let mut program = tool(name)
            .arg("-dc")
            .stdin(packed)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        match program.stdout.take() {
            Some(output) => Ok(Self {
                name,
                program,
                output,
            }),
            None => Err(io::Error::other(format!("{name} has no output"))),
        }
    }

    /// A program that has closed its output has ended, or soon will.
    fn ended(&mut self) -> io::Result<usize> {
        let mut complaint = String::new();
        if let Some(stderr) = self.program.stderr.take() {
            stderr.take(COMPLAINT).read_to_string(&mut complaint)?;
        }
        let status = self.program.wait()?;
        if status.success() {
            return Ok(0);
        }
        let (name, complaint) = (self.name, complaint.trim());
        let text = format!("{name} ended with {status}: {complaint}");
        Err(io::Error::other(text))
    }
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.output.read(buffer) {
            Ok(0) if !buffer.is_empty() => self.ended(),
            other => other,
        }
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        // What follows the end of the archive need not be unpacked. After `ended` both find
        // nothing to do.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_inherits_nothing_but_where_programs_are() {
        let output = tool("env").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let names = text.lines().filter_map(|line| line.split_once('='));
        let names: Vec<_> = names.map(|(name, _)| name).collect();
        assert_eq!(names, ["PATH"]);
    }
}
