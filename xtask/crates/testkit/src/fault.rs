//! What can go wrong at a call, and at which call it does.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::http::Response;

/// One way in which a call goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// A refusal in the contract's shape; the call has no effect.
    Status(u16),
    /// Any other answer instead of the real one; the call has no effect.
    Answer(Response),
    /// 429 with `Retry-After` in seconds; the call has no effect.
    RateLimited(u64),
    /// A page made for people by something between client and server.
    HtmlPage(u16),
    /// Valid JSON of another shape; the call has no effect.
    WrongShape,
    /// The connection is reset before the server has looked at the request.
    ResetBeforeAnswer,
    /// The connection is reset when half of the request's body has arrived.
    ResetDuringUpload,
    /// The call has its effect and the connection is reset before the answer: the client cannot
    /// know which of the two happened.
    ResetAfterEffect,
    /// The call has its effect; the connection is reset in the middle of the answer's body.
    ResetDuringAnswer,
    /// The call has its effect; the answer's JSON ends in the middle.
    TruncatedJson,
    /// The call has its effect, but its answer comes only when the gate opens.
    Slow(Gate),
}

impl Fault {
    /// The answer of faults that have no effect on the server.
    pub(crate) fn refusal(&self) -> Option<Response> {
        match self {
            Self::Status(status) => Some(refusal(*status)),
            Self::Answer(response) => Some(response.clone()),
            Self::RateLimited(seconds) => {
                Some(refusal(429).with("Retry-After", seconds.to_string()))
            }
            Self::HtmlPage(status) => Some(Response::new(
                *status,
                "text/html",
                "<!DOCTYPE html><html><body><h1>This page is for people</h1></body></html>",
            )),
            Self::WrongShape => Some(Response::json(
                200,
                &serde_json::json!({"data": {"unexpected": [1, 2, 3]}}),
            )),
            _ => None,
        }
    }
}

fn refusal(status: u16) -> Response {
    let code = match status {
        401 => "unauthorized",
        403 => "forbidden",
        404 => "not_found",
        409 => "conflict",
        422 => "invalid_request",
        429 => "rate_limited",
        503 => "unavailable",
        _ => "internal",
    };
    let message = format!("injected {status}");
    Response::json(
        status,
        &serde_json::json!({"error": {"code": code, "message": message}}),
    )
}

/// Which calls a fault happens to.
#[derive(Debug, Clone)]
pub struct Rule {
    method: String,
    pattern: String,
    first: usize,
    last: usize,
    fault: Fault,
}

impl Rule {
    /// The first call of a method (`*` for any) to a path. In the pattern `*` stands for one
    /// segment and a `**` at the end for all that follow.
    #[must_use]
    pub fn on(method: &str, pattern: &str, fault: Fault) -> Self {
        Self {
            method: method.to_owned(),
            pattern: pattern.to_owned(),
            first: 1,
            last: 1,
            fault,
        }
    }

    /// Only the nth matching call, counted from 1.
    #[must_use]
    pub fn nth(self, nth: usize) -> Self {
        Self {
            first: nth,
            last: nth,
            ..self
        }
    }

    /// The first so many matching calls.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self {
            first: 1,
            last: times,
            ..self
        }
    }

    /// Every matching call.
    #[must_use]
    pub fn always(self) -> Self {
        Self {
            first: 1,
            last: usize::MAX,
            ..self
        }
    }

    fn matches(&self, method: &str, path: &str) -> bool {
        (self.method == "*" || self.method == method) && path_matches(&self.pattern, path)
    }
}

/// The rules of one server, each with how often it has matched.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    rules: Mutex<Vec<(Rule, usize)>>,
}

impl Faults {
    pub(crate) fn add(&self, rule: Rule) {
        self.lock().push((rule, 0));
    }

    /// Forgets every rule and lets go of every call that is held.
    pub(crate) fn clear(&self) {
        for (rule, _) in self.lock().drain(..) {
            if let Fault::Slow(gate) = rule.fault {
                gate.open();
            }
        }
    }

    /// The fault of this call. Each rule counts each call that it matches, once.
    pub(crate) fn next(&self, method: &str, path: &str) -> Option<Fault> {
        let mut chosen = None;
        for (rule, count) in self.lock().iter_mut() {
            if !rule.matches(method, path) {
                continue;
            }
            *count += 1;
            if chosen.is_none() && (rule.first..=rule.last).contains(count) {
                chosen = Some(rule.fault.clone());
            }
        }
        chosen
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(Rule, usize)>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds an answer until the test opens it, at most for a given time.
#[derive(Debug, Clone)]
pub struct Gate {
    state: Arc<(Mutex<bool>, Condvar)>,
    deadline: Duration,
}

impl Gate {
    /// A closed gate that opens by itself after `deadline`.
    #[must_use]
    pub fn closed(deadline: Duration) -> Self {
        Self {
            state: Arc::new((Mutex::new(false), Condvar::new())),
            deadline,
        }
    }

    /// Lets everything through from now on.
    pub fn open(&self) {
        *self.state.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.state.1.notify_all();
    }

    pub(crate) fn wait(&self) {
        let open = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .state
            .1
            .wait_timeout_while(open, self.deadline, |open| !*open);
        drop(waited);
    }
}

fn path_matches(pattern: &str, path: &str) -> bool {
    let mut wanted = pattern.split('/');
    let mut found = path.split('/');
    loop {
        match (wanted.next(), found.next()) {
            (Some("**"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(segment), Some(other)) if segment == other => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_by_segment() {
        assert!(path_matches(
            "/api/v1/tenants/*/deploy",
            "/api/v1/tenants/t/deploy"
        ));
        assert!(!path_matches(
            "/api/v1/tenants/*",
            "/api/v1/tenants/t/deploy"
        ));
        assert!(path_matches("/v2/**", "/v2/a/b/blobs/uploads/"));
        assert!(!path_matches("/v2/**", "/v2"));
    }

    #[test]
    fn a_rule_counts_the_calls_it_matches() {
        let faults = Faults::default();
        faults.add(Rule::on("GET", "/a", Fault::Status(500)).nth(2));
        assert!(faults.next("GET", "/a").is_none());
        assert!(faults.next("POST", "/a").is_none());
        assert!(faults.next("GET", "/b").is_none());
        assert!(matches!(faults.next("GET", "/a"), Some(Fault::Status(500))));
        assert!(faults.next("GET", "/a").is_none());
    }

    #[test]
    fn the_first_rule_that_applies_wins() {
        let faults = Faults::default();
        faults.add(Rule::on("*", "/a", Fault::Status(503)).times(2));
        faults.add(Rule::on("GET", "/a", Fault::Status(500)).always());
        let statuses: Vec<_> = (0..4)
            .map(|_| match faults.next("GET", "/a") {
                Some(Fault::Status(status)) => status,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(statuses, [503, 503, 500, 500]);
    }
}
