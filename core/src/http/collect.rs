//! Removing what nothing needs any more, at once.

use axum::extract::State;
use axum::{Extension, Json};
use management_api::types::{CollectRequest, Collection, Data};

use super::ApiError;
use super::extract::OptionalBody;
use crate::platform::App;
use crate::store::Actor;

/// `POST /api/v1/collect`. What was begun goes on when its client hangs up.
pub(super) async fn collect(
    State(app): State<App>,
    Extension(actor): Extension<Actor>,
    OptionalBody(body): OptionalBody<CollectRequest>,
) -> Result<Json<Data<Collection>>, ApiError> {
    let platform = App::clone(&app);
    let dry_run = body.value.dry_run;
    let work = async move { platform.collect(&actor, dry_run).await };
    let data = app.detached(work).await?;
    Ok(Json(Data { data }))
}
