//! From what the platform knows to what travels.

use std::collections::BTreeMap;

use management_api::types::{
    self as api, AuditEntry, DeployedService, Deployment, ServiceStatus, TokenInfo,
};

use crate::hex;
use crate::platform::Platform;
use crate::rollout::{Condition, ServiceNow, internal_url, public_url_of};
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

/// The services of what serves.
pub(super) fn services(tenant: &Tenant) -> Vec<ServiceStatus> {
    let services = tenant.services_now().into_iter();
    let told: BTreeMap<String, ServiceStatus> = services
        .map(|now| (now.name.clone(), service(tenant, now)))
        .collect();
    told.into_values().collect()
}

fn service(tenant: &Tenant, now: ServiceNow) -> ServiceStatus {
    let (state, message, instances) = match now.condition {
        Condition::Serving(instances) => ("serving", None, instances),
        Condition::Starting => ("starting", None, Vec::new()),
        Condition::Down(why) => ("down", Some(why), Vec::new()),
        Condition::Ended { why, well } => {
            (if well { "done" } else { "failed" }, Some(why), Vec::new())
        }
    };
    ServiceStatus {
        state: state.to_owned(),
        message,
        deployment: now.deployment,
        digest: now.service.digest.clone(),
        replicas: now.service.replicas,
        instances,
        public_url: public_url_of(tenant, &now.service),
        internal_url: internal_url(tenant, &now.name, &now.service),
        name: now.name,
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
