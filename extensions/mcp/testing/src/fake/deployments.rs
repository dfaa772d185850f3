//! Deployments of the fake platform.

use axum::Json;
use axum::extract::{Path, Query, State};
use chrono::Utc;
use management_api::error::code;
use management_api::types::{
    DeployAnswer, DeployRequest, Deployment, LogLine, RollbackRequest, SecretInfo, TenantStatus,
    VolumeInfo,
};

use super::world::{TenantState, answer};
use super::{Answer, Refusal, Shared, data, lock, refuse};

pub(super) async fn deploy(
    State(world): State<Shared>,
    Path(id): Path<String>,
    Json(request): Json<DeployRequest>,
) -> Answer<DeployAnswer> {
    let keeps_history = lock(&world).keeps_history;
    on(&world, &id, |tenant| {
        if request.image.contains("missing") {
            let message = format!("the registry does not hold {}", request.image);
            return refuse(404, code::IMAGE_NOT_FOUND, message);
        }
        refuse_when_busy(tenant)?;
        let url = tenant.tenant.app_url.clone();
        let mut begun = match tenant.live() {
            Some(live) if live.image == request.image && !request.force => {
                answer("deployed", url, live.number)
            }
            _ => tenant.begin(&request.image, None),
        };
        begun.deployment = begun.deployment.filter(|_| keeps_history);
        data(begun)
    })
}

pub(super) async fn rollback(
    State(world): State<Shared>,
    Path(id): Path<String>,
    Json(request): Json<RollbackRequest>,
) -> Answer<DeployAnswer> {
    on(&world, &id, |tenant| {
        refuse_when_busy(tenant)?;
        let good = |d: &&Deployment| d.state == "succeeded" && !d.live;
        let target = tenant.deployments.iter().rev().find(|deployment| {
            let wanted = request.to.as_deref().is_none_or(|to| {
                to == deployment.number.to_string() || deployment.tag.as_deref() == Some(to)
            });
            wanted && good(deployment)
        });
        let Some(target) = target else {
            return refuse(409, code::NOTHING_TO_ROLL_BACK, "no such good release");
        };
        let (image, number) = (target.image.clone(), target.number);
        data(tenant.begin(&image, Some(number)))
    })
}

pub(super) async fn status(
    State(world): State<Shared>,
    Path(id): Path<String>,
) -> Answer<TenantStatus> {
    on(&world, &id, |tenant| {
        tenant.look();
        data(tenant.status())
    })
}

pub(super) async fn list(
    State(world): State<Shared>,
    Path(id): Path<String>,
) -> Answer<Vec<Deployment>> {
    on(&world, &id, |tenant| {
        data(tenant.deployments.iter().rev().cloned().collect())
    })
}

pub(super) async fn show(
    State(world): State<Shared>,
    Path((id, number)): Path<(String, u64)>,
) -> Answer<Deployment> {
    on(&world, &id, |tenant| {
        tenant.look();
        let found = tenant.deployments.iter().find(|d| d.number == number);
        match found {
            Some(deployment) => data(deployment.clone()),
            None => refuse(
                404,
                code::NOT_FOUND,
                format!("there is no deployment {number}"),
            ),
        }
    })
}

/// Whatever is being made ends well then.
pub(super) async fn promote(
    State(world): State<Shared>,
    Path((id, number)): Path<(String, u64)>,
) -> Answer<Deployment> {
    on(&world, &id, |tenant| {
        running(tenant, number)?;
        data(tenant.end("succeeded"))
    })
}

pub(super) async fn abort(
    State(world): State<Shared>,
    Path((id, number)): Path<(String, u64)>,
) -> Answer<Deployment> {
    on(&world, &id, |tenant| {
        running(tenant, number)?;
        data(tenant.end("rolled_back"))
    })
}

fn running(tenant: &TenantState, number: u64) -> Result<(), Refusal> {
    if tenant.deployments.iter().all(|d| d.number != number) {
        let message = format!("there is no deployment {number}");
        return refuse(404, code::NOT_FOUND, message);
    }
    match tenant.running() {
        Some(running) if running.number == number => Ok(()),
        _ => refuse(409, code::CONFLICT, format!("deployment {number} is over")),
    }
}

/// The tenant `globex` has one.
pub(super) async fn volumes(
    State(world): State<Shared>,
    Path(id): Path<String>,
) -> Answer<Vec<VolumeInfo>> {
    on(&world, &id, |_| {
        let data_of_db = VolumeInfo {
            name: "data".to_owned(),
            service: Some("db".to_owned()),
            in_use_by: None,
            bytes: Some(4096),
            created_at: None,
        };
        data(Vec::from_iter((id == "globex").then_some(data_of_db)))
    })
}

/// The tenant `globex` has one.
pub(super) async fn secrets(
    State(world): State<Shared>,
    Path(id): Path<String>,
) -> Answer<Vec<SecretInfo>> {
    on(&world, &id, |_| {
        let password = SecretInfo {
            name: "DB_PASSWORD".to_owned(),
            version: 2,
            externally_rotated: true,
            updated_at: Utc::now(),
        };
        data(Vec::from_iter((id == "globex").then_some(password)))
    })
}

#[derive(serde::Deserialize)]
pub(super) struct LogParameters {
    filter: Option<String>,
    tail: Option<usize>,
    since: Option<String>,
}

/// Ten lines, of which one is an error.
pub(super) async fn logs(
    State(world): State<Shared>,
    Path(id): Path<String>,
    Query(parameters): Query<LogParameters>,
) -> Answer<Vec<LogLine>> {
    if parameters.since.as_deref() == Some("never") {
        return refuse(400, code::INVALID_REQUEST, "`since` is no time");
    }
    on(&world, &id, |_| {
        let text = |n: u32| {
            if n == 7 {
                "error: seven".to_owned()
            } else {
                format!("line {n}")
            }
        };
        let mut lines: Vec<LogLine> = (1..=10).map(|n| line(text(n))).collect();
        if let Some(filter) = &parameters.filter {
            lines.retain(|line| line.line.contains(filter));
        }
        let tail = parameters.tail.unwrap_or(usize::MAX);
        data(lines.split_off(lines.len().saturating_sub(tail)))
    })
}

fn line(text: String) -> LogLine {
    LogLine {
        at: Utc::now(),
        deployment: 1,
        service: None,
        instance: None,
        stream: "stdout".to_owned(),
        line: text,
    }
}

fn refuse_when_busy(tenant: &TenantState) -> Result<(), Refusal> {
    match tenant.running() {
        Some(running) => refuse(
            409,
            code::DEPLOYMENT_IN_PROGRESS,
            format!("deployment {} is in progress", running.number),
        ),
        None => Ok(()),
    }
}

fn on<T>(world: &Shared, id: &str, job: impl FnOnce(&mut TenantState) -> Answer<T>) -> Answer<T> {
    match lock(world).tenants.get_mut(id) {
        Some(tenant) => job(tenant),
        None => refuse(404, code::NOT_FOUND, format!("there is no tenant {id}")),
    }
}
