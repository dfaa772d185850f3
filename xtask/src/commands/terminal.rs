//! Asking whoever sits at the terminal.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use deploy_pipeline::interrupt::Interrupts;

use crate::render;

/// How soon Ctrl-C is noticed.
const LOOK: Duration = Duration::from_millis(50);

/// Whether somebody sits there who sees a question and can answer it.
pub(super) fn asks() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks, and waits for a line; none when Ctrl-C comes before it. The end of the input is an empty line.
pub(super) fn typed(question: &str, interrupts: &Interrupts) -> Option<String> {
    render::err(question);
    let (line, typed) = mpsc::channel();
    // Ctrl-C is counted and does not end a read. A thread that still waits for its line ends with this process.
    thread::spawn(move || {
        let mut text = String::new();
        let _ = io::stdin().read_line(&mut text);
        let _ = line.send(text);
    });
    loop {
        match typed.recv_timeout(LOOK) {
            Ok(text) => return Some(text),
            Err(RecvTimeoutError::Disconnected) => return Some(String::new()),
            Err(RecvTimeoutError::Timeout) if interrupts.any() => {
                render::err("\n");
                return None;
            }
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}
