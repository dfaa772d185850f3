//! An error with its causes, in one line.

use std::error::Error;
use std::fmt::Write as _;

/// The error's text and those of its causes, separated by colons. A cause that its error has
/// already repeated is left out.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.ends_with(&part) {
            let _ = write!(text, ": {part}");
        }
        cause = error.source();
    }
    text
}
