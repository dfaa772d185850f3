//! Mutations of real input, for tests of readers that face the outside.
//!
//! A run without further ado takes a few seconds and is the same everywhere: the seed is fixed. With
//! `FUZZ_SECONDS` each target runs for so long; `FUZZ_SEED` chooses another beginning. An input that
//! fails is made as small as can be before it is shown.
//!
//! What this crate deliberately does not do: it watches no coverage and keeps no corpus. What it
//! finds becomes a unit test beside the reader.

mod mutate;
mod random;
mod shrink;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use mutate::Mutator;
use random::Random;

/// Inputs of a run that nobody has asked to be longer.
const CASES: u32 = 4000;
/// A reader that takes longer for one small input can be made to hang.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tries `target` on every seed and then on mutations of them. It fails by panicking.
///
/// `words` are put into inputs as they are: keywords and delimiters that chance would not find.
///
/// # Panics
///
/// With the smallest input found, when `target` panics or takes more than five seconds.
pub fn fuzz<S: AsRef<[u8]>>(seeds: &[S], words: &[&str], target: impl Fn(&[u8])) {
    fuzz_cases(CASES, seeds, words, target);
}

/// The same with another number of inputs, for a target that takes longer.
///
/// # Panics
///
/// As [`fuzz`] does.
pub fn fuzz_cases<S: AsRef<[u8]>>(count: u32, seeds: &[S], words: &[&str], target: impl Fn(&[u8])) {
    for seed in seeds {
        check(seed.as_ref(), &target);
    }
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let mut mutator = Mutator {
        random: Random::new(number("FUZZ_SEED").unwrap_or(1)),
        seeds: seeds.iter().map(AsRef::as_ref).collect(),
        words,
    };
    let until = number("FUZZ_SECONDS").map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut cases = 0_u32;
    while until.map_or(cases < count, |until| Instant::now() < until) {
        check(&mutator.input(), &target);
        cases = cases.wrapping_add(1);
    }
}

fn check(input: &[u8], target: &impl Fn(&[u8])) {
    let Some(reason) = failure(input, target) else {
        return;
    };
    // The messages of the many tries below would hide the one that counts.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let small = shrink::smallest(input, |input| failure(input, target).is_some());
    let reason = failure(&small, target).unwrap_or(reason);
    std::panic::set_hook(hook);
    panic!("{reason}\ninput: b\"{}\"", small.escape_ascii());
}

fn failure(input: &[u8], target: &impl Fn(&[u8])) -> Option<String> {
    let begun = Instant::now();
    let ended = catch_unwind(AssertUnwindSafe(|| target(input)));
    let took = begun.elapsed();
    match ended {
        Err(panic) => Some(message(panic.as_ref())),
        Ok(()) if took > PATIENCE => Some(format!("it took {took:?}")),
        Ok(()) => None,
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it panicked")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn every_run_is_the_same() {
        let run = || {
            let seen = RefCell::new(Vec::new());
            fuzz(&["FROM scratch\n", "COPY a b\n"], &["ENV"], |input| {
                seen.borrow_mut().push(input.to_vec());
            });
            seen.into_inner()
        };
        if std::env::var_os("FUZZ_SECONDS").is_none() {
            let (first, second) = (run(), run());
            assert_eq!(first.len(), 2 + CASES as usize);
            assert_eq!(first, second);
            assert!(
                first
                    .iter()
                    .any(|input| input.starts_with(b"FROM") && input.ends_with(b"b\n"))
            );
        }
    }

    #[test]
    fn a_failure_is_shown_with_little_around_it() {
        let reader = |input: &[u8]| {
            let bad = input.windows(2).any(|pair| pair == b"xy");
            assert!(!bad, "xy is bad");
        };
        let found = catch_unwind(|| fuzz(&["some words around xy and more of them"], &[], reader));
        let text = message(found.unwrap_err().as_ref());
        assert_eq!(text, "xy is bad\ninput: b\"xy\"");
    }
}
