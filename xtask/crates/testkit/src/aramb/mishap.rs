//! What is to go wrong with the double, and at which of its calls.

use std::path::Path;

use nix::sys::signal::Signal;

use super::write;

/// Something that happens to calls, step by step. Behind the last step the call goes on as it
/// should, unless one has ended it.
#[derive(Debug, Clone)]
pub struct Mishap {
    command: String,
    argument: Option<String>,
    first: usize,
    last: usize,
    is_late: bool,
    steps: Vec<(&'static str, Vec<u8>)>,
}

impl Mishap {
    /// At the first call of a command: `build`, `deploy`, `deploy status`, `deploy --help`,
    /// `--version`, `*` for any.
    #[must_use]
    pub fn at(command: &str) -> Self {
        Self {
            command: command.to_owned(),
            argument: None,
            first: 1,
            last: 1,
            is_late: false,
            steps: Vec::new(),
        }
    }

    /// Only at calls that have this argument, which alone are counted. What runs side by side comes
    /// in any order.
    #[must_use]
    pub fn with(mut self, argument: &str) -> Self {
        self.argument = Some(argument.to_owned());
        self
    }

    /// At the nth call, counted from 1.
    #[must_use]
    pub fn nth(self, nth: usize) -> Self {
        Self {
            first: nth,
            last: nth,
            ..self
        }
    }

    /// At every call.
    #[must_use]
    pub fn always(self) -> Self {
        Self {
            first: 1,
            last: usize::MAX,
            ..self
        }
    }

    /// When the call has had its effect, before it says so.
    #[must_use]
    pub fn behind_the_effect(self) -> Self {
        Self {
            is_late: true,
            ..self
        }
    }

    /// Writes to standard output.
    #[must_use]
    pub fn prints(self, text: impl AsRef<[u8]>) -> Self {
        self.step("stdout", text)
    }

    /// Writes to standard error.
    #[must_use]
    pub fn complains(self, text: impl AsRef<[u8]>) -> Self {
        self.step("stderr", text)
    }

    /// Ends with this code.
    #[must_use]
    pub fn exits(self, code: i32) -> Self {
        self.step("exit", code.to_string())
    }

    /// Answers with this in place of what it should, and ends well.
    #[must_use]
    pub fn answers(self, text: impl AsRef<[u8]>) -> Self {
        self.prints(text).exits(0)
    }

    /// Answers with half of what it should.
    #[must_use]
    pub fn cuts_its_answer(self) -> Self {
        self.behind_the_effect().step("truncate", "")
    }

    /// Writes its token to both outputs.
    #[must_use]
    pub fn tells_its_token(self) -> Self {
        self.step("token", "")
    }

    /// Writes about so many bytes, half of them to each output.
    #[must_use]
    pub fn floods(self, bytes: usize) -> Self {
        self.step("huge", bytes.to_string())
    }

    /// Leaves a process behind that holds both outputs open as long as the double is there.
    #[must_use]
    pub fn leaves_a_child(self) -> Self {
        self.step("child", "")
    }

    /// Appends to the `aramb.toml` of its folder.
    #[must_use]
    pub fn writes_to_the_file(self, text: impl AsRef<[u8]>) -> Self {
        self.step("write", text)
    }

    /// Goes no further until a gate is open; after a minute it ends with 98.
    #[must_use]
    pub fn waits_at(self, gate: &Path) -> Self {
        self.step("gate", gate.to_string_lossy().as_bytes())
    }

    /// Is killed by a signal.
    #[must_use]
    pub fn dies_by(self, signal: Signal) -> Self {
        self.step("signal", signal.as_str().trim_start_matches("SIG"))
    }

    /// Goes no further, ever.
    #[must_use]
    pub fn hangs(self) -> Self {
        self.step("hang", "")
    }

    /// The same, and does not listen to SIGINT, SIGTERM and SIGHUP.
    #[must_use]
    pub fn hangs_stubbornly(self) -> Self {
        self.step("stubborn", "")
    }

    fn step(mut self, kind: &'static str, content: impl AsRef<[u8]>) -> Self {
        self.steps.push((kind, content.as_ref().to_vec()));
        self
    }

    /// In the form in which the double reads it.
    pub(super) fn write(&self, folder: &Path) {
        for (nth, (kind, content)) in self.steps.iter().enumerate() {
            write(&folder.join(format!("steps/{nth:02}-{kind}")), content);
        }
        if let Some(argument) = &self.argument {
            write(&folder.join("argument"), argument);
        }
        if self.is_late {
            write(&folder.join("late"), "");
        }
        write(&folder.join("first"), self.first.to_string());
        write(&folder.join("last"), self.last.to_string());
        // Last: without it this happens to nothing yet.
        write(&folder.join("command"), &self.command);
    }
}
