//! From what the platform knows to what travels.

use std::collections::BTreeMap;

use management_api::types::{
    self as api, AuditEntry, DeployedService, Deployment, ServiceStatus, TokenInfo,
};

use crate::hex;
use crate::platform::Platform;
use crate::rollout::{Kept, KeptState, internal_url, public_url_of};
use crate::store::{AuditRow, DeploymentRow, TenantRow, TokenRow};
use crate::tenant::Tenant;

/// One row of the history.
pub(super) fn deployment(platform: &Platform, row: DeploymentRow) -> Deployment {
    let app_url = platform.tenants.url(&row.tenant);
    let services = row.capsule.group.services.into_iter();
    let services = services.map(|(name, service)| DeployedService {
        name,
        digest: service.digest,
        replicas: service.replicas,
    });
    Deployment {
        services: services.collect(),
        number: row.number,
        tenant: row.tenant,
        kind: row.kind.as_str().to_owned(),
        state: row.state.as_str().to_owned(),
        image: row.image,
        tag: row.tag,
        digest: row.capsule.digest,
        strategy: row.strategy.as_str().to_owned(),
        replicas: row.capsule.replicas,
        previous: row.previous,
        restores: row.restores,
        live: row.live,
        // Who lists a history looks for it.
        gone: false,
        actor: row.actor,
        source: row.source,
        app_url,
        created_at: row.created_at,
        finished_at: row.finished_at,
        failure: row.failure,
    }
}

/// The services of what serves: those of the live release, and those that the release keeps for it in whose place it serves.
pub(super) fn services(tenant: &Tenant) -> Vec<ServiceStatus> {
    let (live, lost) = (tenant.live(), tenant.lost());
    let releases = lost.iter().chain(live.iter());
    let services = releases.flat_map(|live| live.services());
    let told: BTreeMap<&str, ServiceStatus> = services
        .map(|kept| (kept.name.as_str(), service(tenant, kept)))
        .collect();
    told.into_values().collect()
}

fn service(tenant: &Tenant, kept: &Kept) -> ServiceStatus {
    let (state, message, targets) = match kept.state() {
        KeptState::Serving(targets) => ("serving", None, targets),
        KeptState::Starting => ("starting", None, Vec::new()),
        KeptState::Down(why) => ("down", Some(why), Vec::new()),
        KeptState::Ended { why, well } => {
            (if well { "done" } else { "failed" }, Some(why), Vec::new())
        }
    };
    ServiceStatus {
        name: kept.name.clone(),
        state: state.to_owned(),
        message,
        deployment: kept.row.number,
        digest: kept.service.digest.clone(),
        replicas: kept.service.replicas,
        instances: targets.into_iter().map(|target| target.id).collect(),
        public_url: public_url_of(tenant, &kept.service),
        internal_url: internal_url(tenant, &kept.name, &kept.service),
    }
}

/// One row of the audit log.
pub(super) fn audit(row: AuditRow) -> AuditEntry {
    let sealed = row.sealed;
    AuditEntry {
        seq: sealed.seq,
        at: row.at,
        action: sealed.action,
        tenant: sealed.tenant,
        deployment: sealed.deployment,
        actor: sealed.actor,
        token: sealed.token,
        role: sealed.role,
        address: sealed.address,
        details: row.details,
        hash: hex::encode(&sealed.hash),
    }
}

/// One tenant.
pub(super) fn tenant(platform: &Platform, row: TenantRow) -> api::Tenant {
    api::Tenant {
        app_url: platform.tenants.url(&row.id),
        id: row.id,
        name: row.name,
        fly_app_name: None,
        fly_hostname: None,
        hostname: None,
    }
}

/// One token without its secret part.
pub(super) fn token(row: TokenRow) -> TokenInfo {
    TokenInfo {
        id: row.id,
        name: row.name,
        role: row.role,
        tenant: row.tenant,
        created_at: row.created_at,
        expires_at: row.expires_at,
    }
}
