//! How tenant calls are authenticated: the operator's token as it is, or one exchanged for it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use secrecy::SecretString;

/// How tenant calls are authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AuthMode {
    /// The token as it is; an exchange when the server answers 401 to that.
    #[default]
    Auto,
    /// The token as it is.
    Bearer,
    /// A token exchange (RFC 8693) before the first tenant call.
    Exchange,
}

/// An exchanged token is given up this long before it ends, so that it does not end on the way.
const MARGIN: Duration = Duration::from_secs(30);

pub(super) struct Authenticator {
    token: SecretString,
    state: Mutex<State>,
}

struct State {
    mode: AuthMode,
    exchanged: Option<(SecretString, Instant)>,
}

impl Authenticator {
    pub(super) fn new(token: SecretString, mode: AuthMode) -> Self {
        Self {
            token,
            state: Mutex::new(State {
                mode,
                exchanged: None,
            }),
        }
    }

    pub(super) fn own_token(&self) -> &SecretString {
        &self.token
    }

    pub(super) fn exchanges(&self) -> bool {
        self.state().mode == AuthMode::Exchange
    }

    /// The exchanged token, while it is good for longer than the margin.
    pub(super) fn exchanged(&self) -> Option<SecretString> {
        let state = self.state();
        let (token, ends) = state.exchanged.as_ref()?;
        (*ends > Instant::now() + MARGIN).then(|| token.clone())
    }

    pub(super) fn keep(&self, token: SecretString, lifetime: Duration) {
        let mut state = self.state();
        state.mode = AuthMode::Exchange;
        state.exchanged = Some((token, Instant::now() + lifetime));
    }

    /// Called on a 401: says whether one more try can help.
    pub(super) fn can_try_otherwise(&self) -> bool {
        let mut state = self.state();
        state.exchanged = None;
        state.mode != AuthMode::Bearer
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is replaced whole; a panic elsewhere cannot leave it half written.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
