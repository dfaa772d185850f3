//! What the end of an instance means, by the release's policy.

use engines::Exit;
use management_api::types::Restart;

/// Whether one that ended so has done its work: it has not failed, and there is nothing to start again.
pub(super) fn is_done(restart: Restart, exit: Exit) -> bool {
    restart != Restart::Always && exit == Exit::Code(0)
}

/// Whether another one takes the place of one that ended so.
pub(super) fn starts_again(restart: Restart, exit: Exit) -> bool {
    match restart {
        Restart::Always => true,
        Restart::OnFailure => exit != Exit::Code(0),
        Restart::Never => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_and_ends() {
        let cases = [
            (Restart::Always, Exit::Code(0), false, true),
            (Restart::Always, Exit::Code(1), false, true),
            (Restart::OnFailure, Exit::Code(0), true, false),
            (Restart::OnFailure, Exit::Code(1), false, true),
            (Restart::OnFailure, Exit::Signal(9), false, true),
            (Restart::Never, Exit::Code(0), true, false),
            (Restart::Never, Exit::Code(1), false, false),
        ];
        for (restart, exit, done, again) in cases {
            assert_eq!(is_done(restart, exit), done, "{restart:?} {exit}");
            assert_eq!(starts_again(restart, exit), again, "{restart:?} {exit}");
        }
    }
}
