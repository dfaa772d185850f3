//! Why a deployment failed, in the words of the contract.

use std::ops::RangeInclusive;
use std::time::Duration;

use engines::{EngineError, Exit, Instance};
use management_api::types::Failure;

/// Lines of the application's log that go with a failure.
const LOG_LINES: usize = 20;

/// All ports that instances may have are taken.
pub(super) const NO_PORT: &str = "no_port";
/// Another program has an instance's port.
pub(super) const PORT_TAKEN: &str = "port_taken";

/// A failure without more than its code and message.
pub(super) fn plain(code: &str, message: impl Into<String>) -> Failure {
    Failure {
        code: code.to_owned(),
        message: message.into(),
        ..Failure::default()
    }
}

/// The instance could not be started.
pub(super) fn not_started(error: &EngineError) -> Failure {
    let code = match error {
        EngineError::ImageNotFound { .. } => "image_not_found",
        EngineError::ShuttingDown => "interrupted",
        EngineError::Resources { .. } => "limits_not_enforced",
        EngineError::NoVolumes { .. } => "volumes_not_possible",
        EngineError::NotADirectory { .. } => "not_a_directory",
        _ => "start_failed",
    };
    plain(code, crate::chain(error))
}

/// The application ended by itself before it was healthy.
pub(super) fn ended(exit: Exit) -> Failure {
    ended_at(exit, "before it was healthy")
}

/// The application ended by itself although it had been healthy: while it was watched, or asked once more.
pub(super) fn ended_later(exit: Exit) -> Failure {
    ended_at(exit, "after it had been healthy")
}

fn ended_at(exit: Exit, when: &str) -> Failure {
    match exit {
        Exit::Code(code) => Failure {
            exit_code: Some(code),
            ..plain(
                "exited",
                format!("the application ended with {exit} {when}"),
            )
        },
        Exit::Signal(signal) => Failure {
            signal: Some(signal),
            ..plain(
                "killed",
                format!("the application was ended by {exit} {when}"),
            )
        },
        Exit::OutOfMemory { .. } => Failure {
            signal: exit.signal(),
            ..plain(
                "out_of_memory",
                format!("the application was ended {when}: {exit}"),
            )
        },
    }
}

/// All ports that instances may have are taken.
pub(super) fn no_port(range: &RangeInclusive<u16>) -> Failure {
    let (first, last) = (range.start(), range.end());
    let message = format!(
        "no port from {first} to {last} is free; free one, or change `[engine] instance_ports` in platform.toml"
    );
    plain(NO_PORT, message)
}

/// Another program of this machine was quicker.
pub(super) fn port_taken(port: u16, exit: Option<Exit>) -> Failure {
    let ended = exit.map(|exit| format!("; the application ended with {exit}"));
    let message = format!(
        "port {port} was free and is taken by another program of this machine by now{}; the next start gets another port",
        ended.unwrap_or_default()
    );
    Failure {
        exit_code: exit.and_then(Exit::code),
        signal: exit.and_then(Exit::signal),
        ..plain(PORT_TAKEN, message)
    }
}

/// The command that runs before the release did not end well.
pub(super) fn command_failed(words: &[String], exit: Exit) -> Failure {
    // Only its first word: arguments may hold what is nobody's business.
    let command = words.first().map_or("", String::as_str);
    let mut failure = plain(
        "release_command_failed",
        format!("the release command `{command}` ended with {exit}; nothing was started"),
    );
    failure.exit_code = exit.code();
    failure.signal = exit.signal();
    failure
}

/// The command that runs before the release did not end in time.
pub(super) fn command_late(words: &[String], limit: Duration) -> Failure {
    let command = words.first().map_or("", String::as_str);
    plain(
        "release_command_failed",
        format!(
            "the release command `{command}` did not end within {} s; nothing was started",
            limit.as_secs()
        ),
    )
}

/// The command that runs before the release cannot be run. What is missing for any instance is told as such.
pub(super) fn command_not_started(failure: Failure) -> Failure {
    if failure.code != "start_failed" {
        return failure;
    }
    Failure {
        code: "release_command_failed".to_owned(),
        message: format!("the release command cannot be run: {}", failure.message),
        ..failure
    }
}

/// Adds the application's last lines, unless it has them. The end of an instance completes its log.
pub(super) async fn with_log(mut failure: Failure, instance: Option<&Instance>) -> Failure {
    let instance = instance.filter(|_| failure.log_tail.is_empty());
    if let Some(instance) = instance.cloned() {
        let lines = tokio::task::spawn_blocking(move || instance.log_tail(LOG_LINES));
        failure.log_tail = lines.await.unwrap_or_default();
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_with_whether_it_had_been_healthy() {
        let exit = Exit::Code(4);
        let (never, once) = (ended(exit), ended_later(exit));
        assert!(
            never.message.ends_with("before it was healthy"),
            "{never:?}"
        );
        assert!(
            once.message.ends_with("after it had been healthy"),
            "{once:?}"
        );
        assert_eq!((once.code.as_str(), once.exit_code), ("exited", Some(4)));
    }
}
