//! Lets tests end the process, or stop it for a while, at a point that no signal from outside hits reliably. Not in release builds.

use std::process::Command;

/// Names the point at which to end; with [`STOP`] before it, at which to stop.
const VARIABLE: &str = "SYSTEMPROMPT_DIE_AT";
/// Whoever stops goes on when it is sent SIGCONT.
const STOP: &str = "stop:";

/// Ends or stops the process if the point that was named is this one.
pub(crate) fn die_if(is_told: impl FnOnce(&str) -> bool) {
    if !cfg!(debug_assertions) {
        return;
    }
    #[cfg(test)]
    simulated::pass();
    let Ok(wanted) = std::env::var(VARIABLE) else {
        return;
    };
    let (stops, wanted) = match wanted.strip_prefix(STOP) {
        Some(wanted) => (true, wanted),
        None => (false, wanted.as_str()),
    };
    match is_told(wanted) {
        true if stops => stop(),
        // No destructor runs, no buffer is flushed: like a kill.
        true => std::process::abort(),
        false => {}
    }
}

/// All threads, until SIGCONT comes: what is around the process changes, and it sees none of it.
fn stop() {
    let pid = std::process::id().to_string();
    let sent = Command::new("kill").args(["-s", "STOP", &pid]).status();
    assert!(
        sent.is_ok_and(|sent| sent.success()),
        "it cannot be stopped"
    );
}

/// For simulations, which cannot do without their own process.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::Cell;

    thread_local! {
        static LEFT: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// Lets what this thread runs die at the nth point from now on, or at none.
    pub(crate) fn die_at(point: Option<u32>) {
        LEFT.set(point);
    }

    /// Whether it has come to that: everything else that this thread runs is to go too.
    pub(crate) fn has_died() -> bool {
        LEFT.get() == Some(0)
    }

    pub(super) fn pass() {
        let Some(left) = LEFT.get() else { return };
        LEFT.set(Some(left.saturating_sub(1)));
        if has_died() {
            // The task ends here, and nobody is told of a panic.
            std::panic::resume_unwind(Box::new("died"));
        }
    }
}
