//! Asking once more, as users will, when a service has all of its traffic.

use std::net::SocketAddr;
use std::time::Duration;

use management_api::types::{Failure, HealthCheck, ProbeKind};
use tokio_rustls::TlsConnector;

use super::live::rules;
use super::probe::{Probed, at_url, probe_with, wrong};
use super::run::{Part, Rollout};
use super::{doors, failure};
use crate::deployments::Capsule;
use crate::tenant::Tenant;
use crate::tls::Tls;

/// Requests through the proxy before the first one that fails is believed.
pub(super) const VERIFICATIONS: u32 = 5;
pub(super) const VERIFICATION_PAUSE: Duration = Duration::from_millis(200);

/// Asks where its users will.
pub(super) async fn verify(rollout: &Rollout, part: &Part) -> Result<(), Failure> {
    let Some(asked) = Asked::of(rollout, part) else {
        // Nobody asks it.
        return Ok(());
    };
    let check = &part.service.health;
    let limit = Duration::from_millis(check.timeout_ms);
    let mut last = Probed::Refused;
    for _ in 0..VERIFICATIONS {
        if let Some(exit) = part.failed() {
            return Err(rollout.told(failure::ended_later(exit), part));
        }
        if part.new.targets().is_empty() {
            // All have done their work: nobody is left to ask.
            return Ok(());
        }
        let question = at_url(&check.probe);
        last = probe_with(asked.tls.clone(), asked.address, &question, limit).await;
        if last == Probed::Good {
            return Ok(());
        }
        tokio::time::sleep(VERIFICATION_PAUSE).await;
    }
    let failure = failure::plain("unhealthy", asked.unverified(&rollout.tenant, check, &last));
    Err(rollout.told(failure, part))
}

/// Where a service is asked once it has its traffic.
struct Asked {
    address: SocketAddr,
    tls: Option<TlsConnector>,
    url: String,
}

impl Asked {
    /// The tenant's own URL where that leads to the path of its check; else where other services ask it.
    fn of(rollout: &Rollout, part: &Part) -> Option<Self> {
        let (tenant, service) = (&rollout.tenant, &part.service);
        let path = &service.health.probe.path;
        let is_public = match service.health.probe.kind {
            ProbeKind::Process => return None,
            ProbeKind::Tcp | ProbeKind::Command if rollout.row.capsule.is_single() => true,
            ProbeKind::Command => false,
            _ => leads_to(&rollout.row.capsule, path).as_deref() == Some(&*part.name),
        };
        if !is_public {
            let address = doors::door(tenant, &part.name, service)?;
            return Some(Self {
                address,
                tls: None,
                url: address.to_string(),
            });
        }
        let mut address = tenant.address;
        if address.ip().is_unspecified() {
            address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
        }
        Some(Self {
            address,
            tls: rollout.app.tls.as_ref().map(Tls::connector),
            url: tenant.url(),
        })
    }

    fn unverified(&self, tenant: &Tenant, check: &HealthCheck, last: &Probed) -> String {
        let (url, port) = (&self.url, self.address.port());
        let limit = Duration::from_millis(check.timeout_ms);
        match last {
            Probed::Refused if tenant.proxy().is_none() => format!(
                "port {port} of the tenant's URL is in use by another program; free it and deploy again"
            ),
            Probed::Refused => format!("{url} refuses connections"),
            _ => format!(
                "asked at {url}: {}",
                wrong(&at_url(&check.probe), limit, port, last)
            ),
        }
    }
}

/// The service that a path leads to, whatever the host.
pub(super) fn leads_to(capsule: &Capsule, path: &str) -> Option<String> {
    let path = path.split('?').next().unwrap_or(path);
    let rules = rules(capsule).into_iter();
    let any_host = rules.filter(|rule| rule.host.is_none());
    let below = any_host.filter(|rule| rule.is_for_path(path));
    let longest = below.max_by_key(|rule| rule.prefix.len())?;
    Some(longest.group)
}
