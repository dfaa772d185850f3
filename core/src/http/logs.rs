//! The application's log: as it is, or as it comes.

use std::convert::Infallible;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use axum::{Extension, Json};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt, stream};
use management_api::types::{Data, LogLine};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::events::HEARTBEAT;
use super::extract::{QueryOf, Segments};
use super::guard::Pass;
use super::{ApiError, tenants};
use crate::logs::{Filter, Follower, MAX_LINES};
use crate::platform::App;

/// The query string.
#[derive(Deserialize, JsonSchema)]
pub(super) struct LogsQuery {
    /// Server-sent events as lines come.
    #[serde(default)]
    follow: bool,
    /// `10m`, `2h`, `1d` or an RFC 3339 time.
    since: Option<String>,
    /// Only lines that hold this text.
    filter: Option<String>,
    /// Only lines of this service; `app` is the one that the release's own fields describe.
    service: Option<String>,
    /// Only lines of this instance; `status` and the lines themselves have the names.
    instance: Option<String>,
    /// Only lines of this deployment.
    deployment: Option<u64>,
    /// Only the last so many lines.
    #[schemars(range(min = 0, max = MAX_LINES))]
    tail: Option<usize>,
}

/// `GET …/logs`.
pub(super) async fn logs(
    State(app): State<App>,
    Segments(tenant): Segments<String>,
    Extension(pass): Extension<Pass>,
    QueryOf(query): QueryOf<LogsQuery>,
) -> Result<Response, ApiError> {
    tenants::existing(&app, &tenant).await?;
    let filter = filter(&query)?;
    let folder = app.data.logs(&tenant);
    if query.follow {
        let followed = app.tenants.get(&tenant);
        let followed = followed.ok_or_else(|| ApiError::no_tenant(&tenant))?;
        let ends = [app.shutdown.clone(), followed.deleted.clone()];
        return Ok(follow(ends, pass, Follower::new(folder, filter)).into_response());
    }
    let data: Vec<LogLine> =
        tokio::task::spawn_blocking(move || crate::logs::read(&folder, &filter))
            .await
            .map_err(|error| ApiError::internal(&error))?
            .map_err(|error| ApiError::internal(&error))?;
    Ok(Json(Data { data }).into_response())
}

/// Until one of `ends`, or of the token.
fn follow(
    ends: [CancellationToken; 2],
    pass: Pass,
    follower: Follower,
) -> Sse<impl futures_util::Stream<Item = Result<Event, Infallible>>> {
    let lines = stream::unfold(follower, |mut follower| async move {
        let lines = follower.next().await?;
        Some((stream::iter(lines), follower))
    });
    let events = lines
        .flatten()
        .map(|line| {
            let event = Event::default().event("log");
            Ok(event.data(serde_json::json!(line).to_string()))
        })
        .take_until(async move {
            let [shutdown, deleted] = ends;
            tokio::select! {
                () = shutdown.cancelled_owned() => {}
                () = deleted.cancelled_owned() => {}
                () = pass.over() => {}
            }
        });
    Sse::new(events).keep_alive(KeepAlive::new().interval(HEARTBEAT))
}

fn filter(query: &LogsQuery) -> Result<Filter, ApiError> {
    let tail = query.tail.unwrap_or(MAX_LINES);
    if tail > MAX_LINES {
        return Err(ApiError::malformed(format!("tail is at most {MAX_LINES}")));
    }
    let since = query.since.as_deref().map(|text| moment(text, Utc::now()));
    Ok(Filter {
        deployment: query.deployment,
        service: query.service.clone(),
        instance: query.instance.clone(),
        since: since.transpose()?,
        text: query.filter.clone(),
        tail,
    })
}

/// `90s`, `10m`, `2h`, `1d` ago, or a moment as RFC 3339.
fn moment(text: &str, now: DateTime<Utc>) -> Result<DateTime<Utc>, ApiError> {
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Ok(moment.with_timezone(&Utc));
    }
    let refused = || {
        ApiError::malformed(format!(
            "since {text:?} is neither an age such as 90s, 10m, 2h, 1d nor an RFC 3339 time"
        ))
    };
    let unit = text.chars().last().ok_or_else(refused)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(refused()),
    };
    let number = text.strip_suffix(unit).unwrap_or_default();
    let number: i64 = number.parse::<u32>().map_err(|_| refused())?.into();
    TimeDelta::try_seconds(number * seconds)
        .and_then(|age| now.checked_sub_signed(age))
        .ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_moments() {
        let now = DateTime::from_timestamp(1_000_000, 0).unwrap();
        for (text, ago) in [("90s", 90), ("10m", 600), ("2h", 7200), ("1d", 86400)] {
            let age = now - moment(text, now).unwrap();
            assert_eq!(age.num_seconds(), ago, "{text}");
        }
        let exact = moment("1970-01-01T00:00:10Z", now).unwrap();
        assert_eq!(exact.timestamp(), 10);
        for bad in ["", "m", "10", "-1m", "10 m", "10w", "yesterday", "1é"] {
            assert!(moment(bad, now).is_err(), "{bad}");
        }
    }
}
