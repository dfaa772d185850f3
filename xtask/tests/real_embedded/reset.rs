//! Nothing is removed that nobody has confirmed, and no volume that nobody has named.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ExitStatus, Stdio};
use std::thread::JoinHandle;

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::machine::{Machine, get_with};

const ROWS: &str = ".systemprompt/local/volumes/local/data/rows";

fn with_a_volume() -> Machine {
    let machine = Machine::new();
    machine.workspace.write(ROWS, "rows");
    machine
        .workspace
        .write(".systemprompt/local/registry/blob", "layer");
    machine
}

/// The tool on a terminal of its own.
struct AtTerminal {
    child: Child,
    terminal: File,
    said: JoinHandle<String>,
}

impl AtTerminal {
    /// Runs it until it asks.
    fn asked(machine: &Machine, arguments: &[&str]) -> Self {
        let ends = openpty(None, None).unwrap();
        let side = || Stdio::from(ends.slave.try_clone().unwrap());
        let mut command = machine.command(arguments);
        command.env_remove("GITHUB_ACTIONS").process_group(0);
        let child = command.stdin(side()).stdout(Stdio::null()).stderr(side());
        let child = child.spawn().unwrap();
        drop(command);
        drop(ends.slave);
        let terminal = File::from(ends.master);
        let mut hears = terminal.try_clone().unwrap();
        let (asked, asks) = std::sync::mpsc::channel();
        let said = std::thread::spawn(move || {
            let (mut text, mut some) = (String::new(), [0; 4096]);
            // Its end is an error: nobody has the other side any more.
            while let Ok(count @ 1..) = hears.read(&mut some) {
                text.push_str(&String::from_utf8_lossy(&some[..count]));
                if text.contains("to go on: ") {
                    let _ = asked.send(());
                }
            }
            text
        });
        // Without a question the sender goes with the thread.
        let _ = asks.recv();
        Self {
            child,
            terminal,
            said,
        }
    }

    fn types(mut self, text: &str) -> (ExitStatus, String) {
        self.terminal.write_all(text.as_bytes()).unwrap();
        self.ended()
    }

    fn interrupted(self) -> (ExitStatus, String) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGINT).unwrap();
        self.ended()
    }

    fn ended(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        (status, self.said.join().unwrap())
    }
}

#[test]
fn nothing_goes_that_nobody_has_confirmed() {
    let machine = with_a_volume();
    let refused = machine.xtask(&["local", "reset", "--volumes"]);
    refused.expect_code(2).expect_stderr("reset unconfirmed");
    refused.expect_stderr("removed: volumes, with all that is in them: local/data");
    refused.expect_stderr("cargo xtask local reset --yes --volumes");

    let (status, said) = AtTerminal::asked(&machine, &["local", "reset"]).types("yes\n");
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("nothing was removed"), "{said}");
    let (status, said) = AtTerminal::asked(&machine, &["local", "reset"]).interrupted();
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(
        machine
            .workspace
            .exists(".systemprompt/local/registry/blob")
    );

    let (status, said) = AtTerminal::asked(&machine, &["local", "reset"]).types("reset\n");
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("volumes stay: local/data"), "{said}");
    assert!(!machine.workspace.exists(".systemprompt/local/registry"));
    assert_eq!(machine.workspace.read(ROWS), "rows");

    // Nothing is asked where nothing would go.
    let again = machine.xtask(&["local", "reset"]);
    again
        .expect_success()
        .expect_stderr("nothing to remove but volumes");
    assert_eq!(machine.workspace.read(ROWS), "rows");
}

#[test]
fn the_next_platform_has_the_volumes_that_stayed() {
    let machine = with_a_volume();
    machine.xtask(&["local", "up"]).expect_success();
    machine.xtask(&["local", "reset", "--yes"]).expect_success();
    let up = machine.xtask(&["local", "up"]);
    up.expect_success();
    let volumes = volumes(&machine, up.stdout.trim());
    assert_eq!(volumes["data"][0]["name"], "data", "{volumes:#}");
    assert_eq!(machine.workspace.read(ROWS), "rows");

    let reset = machine.xtask(&["local", "reset", "--yes", "--volumes"]);
    reset
        .expect_success()
        .expect_stderr("with all that is in them: local/data");
    assert!(!machine.workspace.exists(".systemprompt/local"));
    machine.xtask(&["local", "reset"]).expect_success();
}

fn volumes(machine: &Machine, url: &str) -> Value {
    let token = machine.workspace.read(".systemprompt/local/token");
    let url = format!("{url}/api/v1/tenants/local/volumes");
    let token = format!("Authorization: Bearer {}\r\n", token.trim());
    let (status, body) = get_with(&url, &token).unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}
