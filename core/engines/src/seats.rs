//! The names of an engine's instances: each belongs to one at a time.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::EngineError;

/// The longest name: with what is put around it, it has to be a file name.
const MAX_ID: usize = 128;

/// The names that are taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seats(Arc<Mutex<HashSet<String>>>);

/// A name that is taken, until this is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    all: Seats,
    id: String,
}

impl Seats {
    /// Takes a name, which becomes part of paths and of other systems' names.
    pub(crate) fn take(&self, id: &str) -> Result<Seat, EngineError> {
        if !is_valid(id) {
            return Err(EngineError::InvalidId { id: id.to_owned() });
        }
        if !self.lock().insert(id.to_owned()) {
            return Err(EngineError::DuplicateId { id: id.to_owned() });
        }
        Ok(Seat {
            all: self.clone(),
            id: id.to_owned(),
        })
    }

    /// Whether an instance has that name.
    pub(crate) fn is_taken(&self, id: &str) -> bool {
        self.lock().contains(id)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.all.lock().remove(&self.id);
    }
}

/// Whether it may be part of a path, and of another system's name.
pub(crate) fn is_valid(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let whole = !id.is_empty() && id.len() <= MAX_ID && id.bytes().all(allowed);
    whole && !id.starts_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_free_again_when_its_seat_is_left() {
        let seats = Seats::default();
        let seat = seats.take("a-1-1").unwrap();
        assert!(matches!(
            seats.take("a-1-1"),
            Err(EngineError::DuplicateId { .. })
        ));
        assert!(seats.is_taken("a-1-1"));
        drop(seat);
        assert!(!seats.is_taken("a-1-1"));
        seats.take("a-1-1").unwrap();
        for wrong in [
            "",
            ".",
            "..",
            ".hidden",
            "a/b",
            "a b",
            "a,b",
            "a:b",
            "ü",
            &"x".repeat(MAX_ID + 1),
        ] {
            let taken = seats.take(wrong);
            assert!(
                matches!(taken, Err(EngineError::InvalidId { .. })),
                "{wrong}"
            );
        }
    }
}
