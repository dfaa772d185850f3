//! Ctrl-C, SIGTERM and the end of a terminal (SIGHUP): the first asks for a safe end, the second for an immediate one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Counts the interrupts of this process.
#[derive(Clone, Default)]
pub struct Interrupts {
    count: Arc<AtomicUsize>,
    /// Set by the signal itself: whoever sees that a child of the same terminal was interrupted sees this too.
    caught: Arc<AtomicBool>,
    of_all: Option<Arc<AtomicUsize>>,
}

impl Interrupts {
    /// Counts from now on, in place of dying.
    pub fn catch() -> std::io::Result<Self> {
        let interrupts = Self::default();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut heeded = vec![SIGINT, SIGTERM];
        if !outlives_its_terminal(&status) {
            heeded.push(SIGHUP);
        }
        for signal in &heeded {
            signal_hook::flag::register(*signal, Arc::clone(&interrupts.caught))?;
        }
        let mut signals = signal_hook::iterator::Signals::new(heeded)?;
        let count = interrupts.count.clone();
        std::thread::Builder::new()
            .name("interrupts".to_owned())
            .spawn(move || {
                for _ in signals.forever() {
                    count.fetch_add(1, Ordering::SeqCst);
                }
            })?;
        Ok(interrupts)
    }

    /// How many there have been.
    #[must_use]
    pub fn count(&self) -> usize {
        let of_all = self.of_all.as_ref();
        let of_all = of_all.map_or(0, |count| count.load(Ordering::SeqCst));
        let caught = usize::from(self.caught.load(Ordering::SeqCst));
        self.count.load(Ordering::SeqCst).max(caught) + of_all
    }

    /// Whether there has been one.
    #[must_use]
    pub fn any(&self) -> bool {
        self.count() > 0
    }

    /// One that can be raised for a part of the work alone.
    pub(crate) fn of_part(&self) -> Self {
        Self {
            of_all: Some(Arc::clone(&self.count)),
            ..Self::default()
        }
    }

    /// Ends the work that heeds it.
    pub(crate) fn raise(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }

    /// As after one Ctrl-C.
    #[cfg(test)]
    pub(crate) fn raised() -> Self {
        let interrupts = Self::default();
        interrupts.raise();
        interrupts
    }
}

/// Whether we were started to go on without a terminal, as `nohup` does. Where the system does not tell, we were not.
fn outlives_its_terminal(status: &str) -> bool {
    let mut lines = status.lines();
    let ignored = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    // Bits are counted from the lowest, signals from 1.
    ignored.is_some_and(|bits| bits & (1 << (SIGHUP - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nohup_is_heeded() {
        let status = "Name:\txtask\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\n";
        assert!(outlives_its_terminal(status));
        assert!(!outlives_its_terminal("SigIgn:\t0000000000001000\n"));
        assert!(!outlives_its_terminal(""));
    }
}
