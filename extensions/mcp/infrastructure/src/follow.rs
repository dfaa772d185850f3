//! What became of a deployment that was asked for: at once, or after a bounded wait with progress
//! notifications.

use std::time::Duration;

use management_api::types::{DeployAnswer, Failure, is_bad, is_final};
use mcp_common::{Platform, Reply, ToolError};
use rmcp::RoleServer;
use rmcp::model::ProgressNotificationParam;
use rmcp::service::RequestContext;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::history;

/// Clients give up on a call long before a deployment has to end.
const MAX_WAIT: u64 = 600;
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// A deployment that the platform has accepted.
pub(crate) struct Begun {
    pub(crate) tenant: String,
    pub(crate) answer: DeployAnswer,
}

/// What became of a deployment.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(crate) struct Outcome {
    /// The tenant.
    pub tenant: String,
    /// Number of the deployment; null when the platform keeps no history.
    pub deployment: Option<u64>,
    /// Its state: `deploying`, `succeeded`, … (an open set).
    pub state: String,
    /// Whether this state is the last one.
    pub finished: bool,
    /// The very same release was live already; nothing was begun.
    pub unchanged: bool,
    /// The tenant's URL.
    pub app_url: Option<String>,
    /// The platform's words.
    pub message: Option<String>,
}

/// One look at a deployment.
struct Look {
    state: String,
    app_url: Option<String>,
    failure: Option<Failure>,
}

/// Checks `wait_seconds`.
pub(crate) fn wait(seconds: u64) -> Result<Duration, ToolError> {
    if seconds > MAX_WAIT {
        let why = format!("is not within 0 to {MAX_WAIT}");
        return Err(ToolError::argument("wait_seconds", why)
            .next("begin it with a shorter wait, then look with `show_deployment`"));
    }
    Ok(Duration::from_secs(seconds))
}

/// Waits as long as was asked for, and answers what is known then. A deployment that ended badly
/// is a tool error.
pub(crate) async fn outcome(
    platform: &Platform,
    begun: Begun,
    wait: Duration,
    context: &RequestContext<RoleServer>,
) -> Result<Reply<Outcome>, ToolError> {
    let mut outcome = Outcome {
        tenant: begun.tenant,
        deployment: begun.answer.deployment,
        finished: begun.answer.unchanged || is_final(&begun.answer.status),
        state: begun.answer.status,
        unchanged: begun.answer.unchanged,
        app_url: begun.answer.app_url,
        message: begun.answer.message,
    };
    if wait.is_zero() || outcome.finished {
        return Ok(Reply::new(describe(&outcome), outcome));
    }
    let look = follow(platform, &outcome, wait, context).await?;
    if is_bad(&look.state) {
        return Err(failed(&outcome, &look));
    }
    outcome.finished = is_final(&look.state);
    outcome.state = look.state;
    outcome.app_url = look.app_url.or(outcome.app_url);
    Ok(Reply::new(describe(&outcome), outcome))
}

async fn follow(
    platform: &Platform,
    outcome: &Outcome,
    wait: Duration,
    context: &RequestContext<RoleServer>,
) -> Result<Look, ToolError> {
    let deadline = Instant::now() + wait;
    let mut progress = Progress::new(context);
    loop {
        let look = look(platform, outcome)
            .await
            .map_err(|error| lost(outcome, &error))?;
        progress.report(&look.state).await;
        let now = Instant::now();
        if is_final(&look.state) || now >= deadline {
            return Ok(look);
        }
        tokio::select! {
            () = sleep(INTERVAL.min(deadline - now)) => {}
            // The answer goes to nobody; the deployment goes on.
            () = context.ct.cancelled() => return Ok(look),
        }
    }
}

async fn look(platform: &Platform, outcome: &Outcome) -> Result<Look, ToolError> {
    let (tenant, number) = (outcome.tenant.clone(), outcome.deployment);
    platform
        .call(move |connection| {
            let Some(number) = number else {
                let status = connection.client.status(&tenant)?;
                return Ok(Look {
                    state: status.status,
                    app_url: status.app_url,
                    failure: None,
                });
            };
            let deployment = connection.client.deployment(&tenant, number)?;
            Ok(Look {
                state: deployment.state,
                app_url: deployment.app_url,
                failure: deployment.failure,
            })
        })
        .await
}

/// Notifications for a client that asked for them.
struct Progress<'a> {
    context: &'a RequestContext<RoleServer>,
    last: String,
    count: u32,
}

impl<'a> Progress<'a> {
    fn new(context: &'a RequestContext<RoleServer>) -> Self {
        Self {
            context,
            last: String::new(),
            count: 0,
        }
    }

    async fn report(&mut self, state: &str) {
        let Some(token) = self.context.meta.get_progress_token() else {
            return;
        };
        if self.last == state {
            return;
        }
        state.clone_into(&mut self.last);
        self.count += 1;
        let message = ProgressNotificationParam::new(token, f64::from(self.count))
            .with_message(format!("the deployment is {state}"));
        // Progress is a courtesy: a client that hangs up gets no answer either.
        let _ = self.context.peer.notify_progress(message).await;
    }
}

fn name(outcome: &Outcome) -> String {
    match outcome.deployment {
        Some(number) => format!("deployment {number} of {}", outcome.tenant),
        None => format!("the deployment of {}", outcome.tenant),
    }
}

fn describe(outcome: &Outcome) -> String {
    let name = name(outcome);
    let mut lines = vec![match (outcome.unchanged, outcome.finished) {
        (true, _) => format!("nothing to do: {name} runs this very release"),
        (false, true) => format!("{name} is {}", outcome.state),
        (false, false) => format!(
            "{name} is {}; the platform finishes or undoes it: look with `{}`",
            outcome.state,
            if outcome.deployment.is_some() {
                "show_deployment"
            } else {
                "status"
            }
        ),
    }];
    lines.extend(outcome.message.clone());
    lines.extend(outcome.app_url.as_ref().map(|url| format!("url {url}")));
    lines.join("\n")
}

fn failed(outcome: &Outcome, look: &Look) -> ToolError {
    let mut text = format!("{} is {}", name(outcome), look.state);
    if let Some(failure) = &look.failure {
        text.push('\n');
        text.push_str(&history::failure(failure));
    }
    let next = match look.state.as_str() {
        "needs_operator" => "an operator has to look at the platform; see its own log",
        "superseded" => "look at the newer deployment with `status`",
        _ => {
            "the release before it still serves; read `logs`, correct the application, deploy again"
        }
    };
    ToolError::new(text).next(next)
}

/// A look that failed says nothing about the deployment.
fn lost(outcome: &Outcome, error: &ToolError) -> ToolError {
    ToolError::new(format!(
        "{} was begun and goes on, but it cannot be followed: {error}",
        name(outcome)
    ))
}
