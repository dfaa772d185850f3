//! A program on a terminal of its own, as somebody who sits there has it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::pty::openpty;
use nix::sys::signal::{self, Signal};
use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::process::{eventually, kill_group, need_program, pid};

/// What a program may take to ask, and to end.
const LIMIT: Duration = Duration::from_mins(1);

/// A program whose terminal sends it signals as a real one does. It is killed when this is dropped.
#[derive(Debug)]
pub struct AtTerminal {
    child: Child,
    /// The side where somebody sits.
    hands: File,
    /// The program's side. A terminal that nobody has open forgets its settings.
    settings: Option<OwnedFd>,
    said: Option<JoinHandle<String>>,
}

impl AtTerminal {
    /// Runs a command until it has asked this, or has ended, with the variables that the command names and no others. Its
    /// standard output goes nowhere.
    #[must_use]
    pub fn asked(command: &Command, question: &str) -> Self {
        let ends = openpty(None, None).expect("a terminal");
        let side = || Stdio::from(ends.slave.try_clone().expect("clone a terminal's side"));
        let mut command = with_terminal(command);
        command.stdin(side()).stdout(Stdio::null()).stderr(side());
        let mut child = command.spawn().expect("start a program on a terminal");
        drop(command);
        let hands = File::from(ends.master);
        let (asked, asks) = mpsc::channel();
        let said = listen(&hands, question.to_owned(), asked);
        let over = eventually(LIMIT, || {
            asks.try_recv().is_ok() || !matches!(child.try_wait(), Ok(None))
        });
        let at_terminal = Self {
            child,
            hands,
            settings: Some(ends.slave),
            said: Some(said),
        };
        assert!(over, "neither asked {question:?} nor ended");
        at_terminal
    }

    /// Whether the terminal shows what is typed.
    #[must_use]
    pub fn echoes(&self) -> bool {
        let side = self.settings.as_ref().expect("it has not ended");
        let settings = tcgetattr(side).expect("the settings of a terminal");
        settings.local_flags.contains(LocalFlags::ECHO)
    }

    /// Types this; `\u{3}` is Ctrl-C, `\u{4}` is Ctrl-D.
    pub fn types(&mut self, text: &str) {
        let written = self.hands.write_all(text.as_bytes());
        written.expect("type on a terminal");
    }

    /// Sends a signal to the program.
    pub fn signal(&self, signal: Signal) {
        signal::kill(pid(&self.child), signal).expect("signal a child");
    }

    /// Waits for its end: how it ended, whether the terminal shows what is typed then, and all that was to be seen.
    #[must_use]
    pub fn ended(mut self) -> (ExitStatus, bool, String) {
        let mut status = None;
        let over = eventually(LIMIT, || {
            status = self.child.try_wait().expect("wait for a child");
            status.is_some()
        });
        assert!(over, "not over after {LIMIT:?}");
        let echoes = self.echoes();
        let said = self.hear_out();
        (status.expect("it has ended"), echoes, said)
    }

    /// The other side of the terminal closes with the last who has it open, and with it the story.
    fn hear_out(&mut self) -> String {
        self.settings = None;
        let said = self.said.take().map(JoinHandle::join);
        said.map_or_else(String::new, |said| said.expect("hear a terminal out"))
    }
}

impl Drop for AtTerminal {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            kill_group(&self.child);
            let _ = self.child.wait();
        }
        self.hear_out();
    }
}

/// The same in a session of its own, which is where a terminal sends its signals.
fn with_terminal(command: &Command) -> Command {
    let mut session = Command::new(need_program("setsid"));
    let named = command.get_envs();
    let named = named.filter_map(|(name, value)| Some((name, value?)));
    session
        .arg("--ctty")
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .envs(named);
    if let Some(folder) = command.get_current_dir() {
        session.current_dir(folder);
    }
    session
}

fn listen(hands: &File, question: String, asked: mpsc::Sender<()>) -> JoinHandle<String> {
    let mut hears = hands.try_clone().expect("clone a terminal's side");
    thread::spawn(move || {
        let (mut text, mut some) = (String::new(), [0; 4096]);
        // Its end is an error: nobody has the other side any more.
        while let Ok(count @ 1..) = hears.read(&mut some) {
            text.push_str(&String::from_utf8_lossy(&some[..count]));
            if text.contains(&question) {
                let _ = asked.send(());
            }
        }
        text
    })
}
