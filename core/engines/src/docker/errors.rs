//! What a Docker Engine answers, in the words of the engine's own errors.

use bollard::errors::Error;

use crate::error::EngineError;

/// Something was asked of the Docker Engine and did not come about.
pub(super) fn failed(action: &'static str) -> impl FnOnce(Error) -> EngineError {
    move |error| EngineError::Docker {
        action,
        reason: reason(&error),
    }
}

/// What it says, without what is ours about it.
pub(super) fn reason(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        Error::DockerStreamError { error } => error.clone(),
        Error::RequestTimeoutError => "it does not answer in time".to_owned(),
        Error::SocketNotFoundError(path) => format!("there is no socket {path}"),
        other => chain(other),
    }
}

/// Whether there is no such thing.
pub(super) fn is_missing(error: &Error) -> bool {
    status(error) == Some(404)
}

/// Whether something of this name is there already, or is in another state than it would have to be.
pub(super) fn is_conflict(error: &Error) -> bool {
    status(error) == Some(409)
}

/// Whether it was the Docker Engine that refused: it is there, and asking again is no use.
pub(super) fn is_refusal(error: &Error) -> bool {
    status(error).is_some_and(|status| status < 500)
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
