//! Who may call what: the operator's token and the token exchange of RFC 8693.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::{Core, Variant};
use crate::http::{Request, Response};

impl Core {
    /// Answers a call that the operator's own token is good for.
    pub(super) fn as_operator(
        &self,
        request: &Request,
        answer: impl FnOnce(&Self) -> Response,
    ) -> Response {
        if request.bearer() == Some(self.operator_token.as_str()) {
            answer(self)
        } else {
            unauthorized()
        }
    }

    /// Whether a tenant call is allowed: by the operator's token, or, where this variant exchanges
    /// tokens, by an exchanged one only.
    pub(super) fn may_call_tenant(&self, request: &Request) -> bool {
        let Some(bearer) = request.bearer() else {
            return false;
        };
        if self.variant == Variant::ServerTag {
            self.lock().exchanged.iter().any(|token| token == bearer)
        } else {
            bearer == self.operator_token
        }
    }

    /// `POST /api/v1/core/oauth/token`.
    pub(super) fn exchange(&self, request: &Request) -> Response {
        if self.variant != Variant::ServerTag {
            return self.not_found();
        }
        if let Some(problem) = self.problem_of_exchange(request) {
            return Response::json(
                400,
                &json!({"error": {"code": "invalid_request", "message": problem}}),
            );
        }
        let mut state = self.lock();
        state.exchanges += 1;
        let token = format!("exchanged-{}-{}", state.exchanges, unique());
        state.exchanged.push(token.clone());
        // Every other server leaves `expires_in` out; clients then assume 300 seconds.
        Response::json(200, &json!({"access_token": token, "token_type": "Bearer"}))
    }

    fn problem_of_exchange(&self, request: &Request) -> Option<String> {
        let content_type = request.header("content-type").unwrap_or("");
        if !content_type.starts_with("application/x-www-form-urlencoded") {
            return Some(format!("content type is {content_type:?}"));
        }
        let host = request.header("host").unwrap_or("");
        let resource = format!("http://{host}");
        let wanted = [
            (
                "grant_type",
                "urn:ietf:params:oauth:grant-type:token-exchange",
            ),
            ("subject_token", self.operator_token.as_str()),
            (
                "subject_token_type",
                "urn:ietf:params:oauth:token-type:access_token",
            ),
            ("resource", resource.as_str()),
            ("client_id", "sp_web"),
        ];
        let form = request.form();
        wanted.into_iter().find_map(|(name, value)| {
            let found = form.iter().find(|(field, _)| field == name);
            let right = found.is_some_and(|(_, text)| text.trim_end_matches('/') == value);
            (!right).then(|| format!("parameter {name} is missing or wrong"))
        })
    }
}

pub(super) fn unauthorized() -> Response {
    Response::json(
        401,
        &json!({"error": {"code": "unauthorized", "message": "missing or invalid token"}}),
    )
}

/// A token that is valid for an hour.
pub(super) fn operator_token() -> String {
    token_that_ends(SystemTime::now() + Duration::from_hours(1))
}

/// A token with an `exp`, as the real server issues it; nobody checks the signature, which makes
/// each one unique.
#[must_use]
pub fn token_that_ends(at: SystemTime) -> String {
    let seconds = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("a time after 1970")
        .as_secs();
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(&json!({"alg": "HS256", "typ": "JWT"}));
    let claims = part(&json!({"sub": "usr_1", "email": "ops@example.com", "exp": seconds}));
    format!("{header}.{claims}.{}", unique())
}

/// A string that occurs nowhere else on this machine.
fn unique() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let state = RandomState::new();
    format!("{:016x}{:016x}", state.hash_one(0), state.hash_one(1))
}
