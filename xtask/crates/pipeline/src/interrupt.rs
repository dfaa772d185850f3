//! Ctrl-C and SIGTERM: the first asks for a safe end, the second for an immediate one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

/// Counts the interrupts of this process.
#[derive(Clone, Default)]
pub struct Interrupts(Arc<AtomicUsize>);

impl Interrupts {
    /// Counts from now on, in place of dying.
    pub fn catch() -> std::io::Result<Self> {
        let interrupts = Self::default();
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
        let count = interrupts.0.clone();
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
        self.0.load(Ordering::SeqCst)
    }

    /// Whether there has been one.
    #[must_use]
    pub fn any(&self) -> bool {
        self.count() > 0
    }

    /// As after one Ctrl-C.
    #[cfg(test)]
    pub(crate) fn raised() -> Self {
        let interrupts = Self::default();
        interrupts.raise();
        interrupts
    }

    /// Ctrl-C, while something runs.
    #[cfg(test)]
    pub(crate) fn raise(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
