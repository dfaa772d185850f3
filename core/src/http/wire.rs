//! From what the platform knows to what travels.

use management_api::types::{AuditEntry, DeployedService, Deployment, Tenant, TokenInfo};

use crate::hex;
use crate::platform::Platform;
use crate::store::{AuditRow, DeploymentRow, TenantRow, TokenRow};

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
pub(super) fn tenant(platform: &Platform, row: TenantRow) -> Tenant {
    Tenant {
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
