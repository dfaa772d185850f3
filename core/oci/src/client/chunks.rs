//! How large a request's body may be, as far as a registry has shown or is known for.
//!
//! Nothing is sent in chunks before a whole body was refused: each chunk is a request, and few
//! registries bound them. What one blob has learnt holds for the others.

use std::sync::atomic::{AtomicU64, Ordering};

const MIB: u64 = 1024 * 1024;
/// The lengths tried, one after the other. The last is small enough for every front end there is.
const LENGTHS: [u64; 4] = [16 * MIB, 4 * MIB, MIB, MIB / 4];

/// Registries that take whole blobs of any size but bound chunks, with what they take: they would
/// find out by a refusal.
const KNOWN: [(&str, u64); 1] = [
    // 416, "the request body is too large and exceeds the maximum permissible limit of 4.00MiB".
    ("ghcr.io", 4 * MIB),
];

/// What is known of one registry.
#[derive(Debug)]
pub(super) struct Chunks {
    /// The longest chunk worth a try.
    longest: u64,
    /// The shortest body that was refused.
    refused: AtomicU64,
}

impl Chunks {
    pub(super) fn of(registry: &str) -> Self {
        let known = KNOWN.iter().find(|(host, _)| *host == registry);
        Self {
            longest: known.map_or(LENGTHS[0], |(_, longest)| *longest),
            refused: AtomicU64::new(u64::MAX),
        }
    }

    /// The chunks for a blob of this size; none when it goes in one piece.
    pub(super) fn for_blob(&self, size: u64) -> Option<u64> {
        let refused = self.refused.load(Ordering::Relaxed);
        if size < refused {
            None
        } else {
            self.largest_below(refused)
        }
    }

    /// A body of this length was refused: what to try next, if anything. A refusal of the smallest
    /// says nothing about sizes, and is not kept.
    pub(super) fn below(&self, length: u64) -> Option<u64> {
        let refused = self.refused.load(Ordering::Relaxed).min(length);
        let next = self.largest_below(refused)?;
        self.refused.fetch_min(length, Ordering::Relaxed);
        Some(next)
    }

    fn largest_below(&self, refused: u64) -> Option<u64> {
        let mut lengths = LENGTHS.into_iter();
        lengths.find(|length| *length < refused && *length <= self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_holds_for_all_blobs() {
        let chunks = Chunks::of("registry.example.com");
        assert_eq!(chunks.for_blob(u64::MAX - 1), None);
        assert_eq!(chunks.below(100 * MIB), Some(16 * MIB));
        assert_eq!(chunks.for_blob(100 * MIB), Some(16 * MIB));
        assert_eq!(chunks.for_blob(99 * MIB), None);
        assert_eq!(chunks.below(16 * MIB), Some(4 * MIB));
        assert_eq!(chunks.for_blob(99 * MIB), Some(4 * MIB));
        assert_eq!(chunks.below(MIB / 4), None);
        assert_eq!(chunks.for_blob(99 * MIB), Some(4 * MIB));
    }

    #[test]
    fn what_a_registry_is_known_for_is_not_tried() {
        assert_eq!(Chunks::of("ghcr.io").below(100 * MIB), Some(4 * MIB));
    }
}
