//! The events of a deployment as server-sent events, until its final state.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::{Stream, StreamExt as _, stream};
use management_api::types::DeploymentEvent;
use tokio::sync::watch;

use super::extract::Segments;
use super::guard::Pass;
use super::{ApiError, history};
use crate::platform::App;

/// Between two signs of life on a quiet stream: below the idle limits of common proxies.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(10);

/// `GET …/deployments/{number}/events`.
pub(super) async fn follow(
    State(app): State<App>,
    Segments((tenant, number)): Segments<(String, u64)>,
    Extension(pass): Extension<Pass>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    history::existing(&app, &tenant, number).await?;
    let changes = app
        .tenants
        .changes(&tenant)
        .ok_or_else(|| ApiError::no_tenant(&tenant))?;
    let follower = Follower {
        app,
        tenant,
        number,
        last: last_event_id(&headers)?,
        changes,
        queued: VecDeque::new(),
        over: false,
    };
    let events = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok(event), follower))
    })
    .take_until(pass.over());
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT)))
}

/// Reads from the database, woken by changes: whoever reconnects misses nothing.
struct Follower {
    app: App,
    tenant: String,
    number: u64,
    last: u64,
    changes: watch::Receiver<u64>,
    queued: VecDeque<DeploymentEvent>,
    over: bool,
}

impl Follower {
    async fn next(&mut self) -> Option<Event> {
        while self.queued.is_empty() {
            if self.over {
                return None;
            }
            self.read().await?;
            if self.queued.is_empty() && !self.over {
                self.wait().await?;
            }
        }
        let event = self.queued.pop_front()?;
        self.last = event.seq;
        Some(sent(&event))
    }

    /// Reads what is new. The mark is set before the look, so that a change between the two wakes.
    async fn read(&mut self) -> Option<()> {
        self.changes.mark_unchanged();
        let store = &self.app.store;
        // Looked at before the events: a deployment that is over by now has its last event by now.
        let row = store.deployment(&self.tenant, self.number).await.ok()??;
        let events = store.events_after(&self.tenant, self.number, self.last);
        self.queued = events.await.ok()?.into();
        self.over = row.state.is_final();
        Some(())
    }

    async fn wait(&mut self) -> Option<()> {
        tokio::select! {
            changed = self.changes.changed() => changed.ok(),
            () = self.app.shutdown.cancelled() => None,
        }
    }
}

fn sent(event: &DeploymentEvent) -> Event {
    let data = serde_json::json!(event).to_string();
    Event::default()
        .id(event.seq.to_string())
        .event("deployment")
        .data(data)
}

fn last_event_id(headers: &HeaderMap) -> Result<u64, ApiError> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(0);
    };
    let number = value
        .to_str()
        .ok()
        .and_then(|text| text.trim().parse().ok());
    number.ok_or_else(|| ApiError::malformed("Last-Event-ID is not a number of an event"))
}
