//! A result that standard output did not take: its reader has gone, its disk is full.

use std::io;
use std::sync::{Mutex, PoisonError};

use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};

use super::err;
use super::result::text;

/// Why standard output did not take what was written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    /// Its reader has closed it.
    Closed,
    /// In the system's words.
    Failed(String),
}

/// The first failure: later ones follow from it.
static NOTED: Mutex<Option<Why>> = Mutex::new(None);

pub(super) fn note(error: &io::Error) {
    let why = match error.kind() {
        io::ErrorKind::BrokenPipe => Why::Closed,
        _ => Why::Failed(error.to_string()),
    };
    let mut noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    noted.get_or_insert(why);
}

/// Whether something has not got there.
pub(crate) fn any() -> bool {
    NOTED
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .is_some()
}

/// How a command ends, now that it is known whether its result was told. Where it `changes` something, a reader that has
/// gone has missed what it asked for.
pub(crate) fn settle(exit: Exit, changes: bool) -> Exit {
    let noted = NOTED.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(why) = noted.as_ref() else {
        return exit;
    };
    let (failure, exit) = ended(exit, changes, why);
    if let Some(failure) = failure {
        err(&format!("\n{}", text(&failure)));
    }
    exit
}

fn ended(exit: Exit, changes: bool, why: &Why) -> (Option<Failure>, Exit) {
    if *why == Why::Closed && !changes {
        return (None, exit);
    }
    let why = match why {
        Why::Closed => "its reader has closed it",
        Why::Failed(words) => words,
    };
    // What has failed before says more than this.
    let ends = if exit == Exit::Done {
        Exit::Untold
    } else {
        exit
    };
    let was = if exit == Exit::Done {
        "the command did what it was asked for"
    } else {
        "the command failed"
    };
    let resolution = if changes {
        "look before doing it again: cargo xtask status"
    } else {
        "make room where it goes, and run the command again"
    };
    let details = format!("{was}, and its result could not be written to standard output: {why}");
    let failure = Failure::new(Step::Report, "result_unwritten", ends, details, resolution);
    (Some(failure), ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_waits_for_a_result_misses_it() {
        let full = Why::Failed("no space".to_owned());
        for (exit, changes, why, ends, is_told) in [
            (Exit::Done, true, &Why::Closed, Exit::Untold, true),
            (Exit::Done, false, &Why::Closed, Exit::Done, false),
            (Exit::Done, false, &full, Exit::Untold, true),
            (Exit::RolledBack, true, &full, Exit::RolledBack, true),
            (Exit::Usage, false, &Why::Closed, Exit::Usage, false),
        ] {
            let (failure, end) = ended(exit, changes, why);
            assert_eq!(
                (end, failure.is_some()),
                (ends, is_told),
                "{exit:?} {why:?}"
            );
        }
    }
}
