//! The smallest input that still fails: pieces are left out, large ones first.

use std::time::{Duration, Instant};

/// Tries of one search; each runs the whole target.
const TRIES: usize = 3000;
/// What one search may take: an input that fails by being slow fails slowly each time.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) fn smallest(input: &[u8], fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut best = input.to_vec();
    let mut piece = best.len();
    let mut tries = 0;
    let until = Instant::now() + PATIENCE;
    while piece > 0 {
        let mut at = 0;
        while at < best.len() && tries < TRIES && Instant::now() < until {
            tries += 1;
            let mut shorter = best.clone();
            shorter.drain(at..(at + piece).min(best.len()));
            if fails(&shorter) {
                best = shorter;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    best
}
