//! Ending all descendants of this process, also those that have left its group and session.
//!
//! Works because a launcher stage is a *subreaper*: whoever loses its parent becomes its child.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

use super::events;
use crate::process::proc;

/// How long the kernel may take to end killed processes. One in uninterruptible sleep on a dead
/// disk takes for ever; nothing can be done about that one.
const PATIENCE: Duration = Duration::from_secs(10);

/// Kills until no descendant is left. New ones may be born meanwhile, hence the rounds.
pub(super) fn kill_descendants() {
    let deadline = Instant::now() + PATIENCE;
    loop {
        // first: mostly there is nobody, and to look for them is to look at every process of the machine
        let (_, none_left) = events::reap();
        if none_left || Instant::now() > deadline {
            return;
        }
        for pid in proc::descendants(getpid().as_raw()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
