//! Asking whoever sits at the terminal, and reading secrets from there or from a pipe.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Stdin};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use deploy_pipeline::interrupt::Interrupts;
use nix::libc::_POSIX_VDISABLE;
use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};

use crate::render;

/// How soon Ctrl-C is noticed.
const LOOK: Duration = Duration::from_millis(50);
/// Of a longer line at a terminal the kernel keeps only so many bytes, and says nothing (termios(3)).
const LONGEST_LINE: usize = 4095;
/// What Ctrl-\ and Ctrl-Z are while they do nothing else.
const KEYS: [char; 2] = ['\u{1c}', '\u{1a}'];

/// Where a secret that somebody types is at its end. One that comes from elsewhere ends with the input.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// With its line.
    Line,
    /// With Ctrl-D: it may have several lines.
    Input,
}

/// Why there is no secret.
pub(super) enum Unheard {
    /// Ctrl-C, SIGTERM or the end of the terminal came before its end.
    Interrupted,
    /// Standard input cannot be read, or holds no text.
    Unreadable(io::Error),
}

/// Whether somebody sits there who sees a question and can answer it.
pub(super) fn asks() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks, and waits for a line; none when Ctrl-C comes before it. The end of the input is an empty line.
pub(super) fn typed(question: &str, interrupts: &Interrupts) -> Option<String> {
    render::err(question);
    let line = awaited(interrupts, |text| io::stdin().read_line(text).map(drop));
    match line {
        Ok(text) => Some(text),
        Err(Unheard::Unreadable(_)) => Some(String::new()),
        Err(Unheard::Interrupted) => {
            render::err("\n");
            None
        }
    }
}

/// Reads a secret of so many bytes at most. Whoever sits at a terminal is asked for it, and what is typed is not shown.
pub(super) fn secret(
    question: &str,
    ends: Ends,
    longest: u64,
    interrupts: &Interrupts,
) -> Result<String, Unheard> {
    if !io::stdin().is_terminal() {
        return awaited(interrupts, move |text| to_the_end(text, longest));
    }
    let hidden = Hidden::begin(io::stdin()).map_err(Unheard::Unreadable)?;
    render::err(question);
    let heard = awaited(interrupts, move |text| match ends {
        Ends::Line => {
            let mut line = io::stdin().lock().take(longest);
            line.read_line(text).map(drop)
        }
        Ends::Input => to_the_end(text, longest),
    });
    if matches!(heard, Err(Unheard::Interrupted)) {
        render::err("\n");
    }
    // A terminal that has gone has ended the input wherever it was.
    hidden.end().map_err(Unheard::Unreadable)?;
    let text = heard?;
    match mutilated(&text) {
        Some(how) => Err(Unheard::Unreadable(io::Error::other(how))),
        None => Ok(text),
    }
}

/// How what was typed is not what somebody has meant.
fn mutilated(text: &str) -> Option<&'static str> {
    if text.lines().any(|line| line.len() >= LONGEST_LINE) {
        return Some("a terminal cuts lines off after 4,095 bytes, and this one has as many");
    }
    let pressed = text.contains(KEYS);
    pressed.then_some("Ctrl-Z or Ctrl-\\ is in it, which do nothing here: Ctrl-C leaves")
}

fn to_the_end(text: &mut String, longest: u64) -> io::Result<()> {
    io::stdin().take(longest).read_to_string(text).map(drop)
}

/// Waits for what is read from standard input, or for Ctrl-C, which is counted and does not end a read.
fn awaited(
    interrupts: &Interrupts,
    read: impl FnOnce(&mut String) -> io::Result<()> + Send + 'static,
) -> Result<String, Unheard> {
    let (tell, told) = mpsc::channel();
    // A thread that still waits for its text ends with this process.
    thread::spawn(move || {
        let mut text = String::new();
        let read = read(&mut text);
        let _ = tell.send(read.map(|()| text));
    });
    loop {
        let heard = told.recv_timeout(LOOK);
        if interrupts.any() {
            return Err(Unheard::Interrupted);
        }
        match heard {
            Ok(text) => return text.map_err(Unheard::Unreadable),
            Err(RecvTimeoutError::Disconnected) => return Ok(String::new()),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// A terminal that does not show what is typed, until this goes.
struct Hidden {
    terminal: Stdin,
    before: Termios,
}

impl Hidden {
    fn begin(terminal: Stdin) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut settings = before.clone();
        settings.local_flags.remove(LocalFlags::ECHO);
        // Enter still moves to the next line.
        settings.local_flags.insert(LocalFlags::ECHONL);
        // Whoever leaves by these would leave a terminal behind that shows nothing.
        for key in [
            SpecialCharacterIndices::VQUIT,
            SpecialCharacterIndices::VSUSP,
        ] {
            settings.control_chars[key as usize] = _POSIX_VDISABLE;
        }
        // What was typed before the question was shown, and is no answer to it.
        tcsetattr(&terminal, SetArg::TCSAFLUSH, &settings)?;
        Ok(Self { terminal, before })
    }

    fn end(self) -> io::Result<()> {
        self.show()
    }

    /// What was typed and not read goes: the shell would show half of a secret, or run it.
    fn show(&self) -> io::Result<()> {
        tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &self.before).map_err(io::Error::from)
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = self.show();
    }
}
