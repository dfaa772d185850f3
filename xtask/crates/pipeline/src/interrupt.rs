//! Ctrl-C and SIGTERM: the first asks for a safe end, the second for an immediate one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

/// Counts the interrupts of this process.
#[derive(Clone, Default)]
pub struct Interrupts {
    count: Arc<AtomicUsize>,
    of_all: Option<Arc<AtomicUsize>>,
}

impl Interrupts {
    /// Counts from now on, in place of dying.
    pub fn catch() -> std::io::Result<Self> {
        let interrupts = Self::default();
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
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
        self.count.load(Ordering::SeqCst) + of_all
    }

    /// Whether there has been one.
    #[must_use]
    pub fn any(&self) -> bool {
        self.count() > 0
    }

    /// One that can be raised for a part of the work alone.
    pub(crate) fn of_part(&self) -> Self {
        Self {
            count: Arc::default(),
            of_all: Some(Arc::clone(&self.count)),
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
