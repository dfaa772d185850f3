//! Asking at a tenant's URL, wherever an engine has it: as its users will.

use std::io::Read as _;
use std::time::Duration;

use management_api::types::{Failure, HealthCheck, Probe, ProbeKind};
use trust::Trust;
use ureq::tls::TlsConfig;

use super::super::failure;
use super::super::probe::{Probed, wrong};
use super::super::verify::{VERIFICATION_PAUSE, VERIFICATIONS, leads_to};
use crate::deployments::Capsule;

/// How much of an answer is looked through for a text.
const BODY_LIMIT: u64 = 64 * 1024;

/// Asks each service whose check the URL leads to.
pub(super) async fn verify(capsule: &Capsule, url: &str) -> Result<(), Failure> {
    for (name, service) in capsule.services() {
        let check = &service.health;
        let path = &check.probe.path;
        let is_asked = check.probe.kind == ProbeKind::Http
            && leads_to(capsule, path).as_deref() == Some(name.as_str());
        if is_asked {
            let asked = answers(url, check).await;
            asked.map_err(|why| failure::plain("unhealthy", format!("asked at {url}: {why}")))?;
        }
    }
    Ok(())
}

async fn answers(url: &str, check: &HealthCheck) -> Result<(), String> {
    let limit = Duration::from_millis(check.timeout_ms);
    let mut last = Probed::Refused;
    for _ in 0..VERIFICATIONS {
        let (asked, probe) = (format!("{url}{}", check.probe.path), check.probe.clone());
        let asking = tokio::task::spawn_blocking(move || get(&asked, &probe, limit));
        last = asking
            .await
            .unwrap_or_else(|_| Probed::Broken("nobody has asked".to_owned()));
        if last == Probed::Good {
            return Ok(());
        }
        tokio::time::sleep(VERIFICATION_PAUSE).await;
    }
    Err(match last {
        // It names a port, and who knows that of a URL.
        Probed::Refused => "it refuses connections".to_owned(),
        last => wrong(&check.probe, limit, 0, &last),
    })
}

/// It blocks.
fn get(url: &str, probe: &Probe, limit: Duration) -> Probed {
    match try_get(url, probe, limit) {
        Ok(probed) => probed,
        Err(ureq::Error::Timeout(_)) => Probed::TimedOut,
        Err(ureq::Error::ConnectionFailed) => Probed::Refused,
        Err(error) => Probed::Broken(error.to_string()),
    }
}

fn try_get(url: &str, probe: &Probe, limit: Duration) -> Result<Probed, ureq::Error> {
    let trust = Trust {
        instead: trust::from_environment(),
        also: Vec::new(),
    };
    let roots = match trust.roots() {
        Ok(roots) => roots,
        Err(error) => return Ok(Probed::Broken(crate::chain(&error))),
    };
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(limit))
        .tls_config(TlsConfig::builder().root_certs(roots).build())
        .build()
        .new_agent();
    let mut answer = agent
        .get(url)
        .header("user-agent", "systemprompt-health-check")
        .call()?;
    if answer.status().as_u16() != probe.status {
        return Ok(Probed::Status(answer.status()));
    }
    let Some(text) = &probe.body else {
        return Ok(Probed::Good);
    };
    let mut read = Vec::new();
    let mut body = answer.body_mut().as_reader().take(BODY_LIMIT);
    body.read_to_end(&mut read)?;
    let holds = read
        .windows(text.len().max(1))
        .any(|part| part == text.as_bytes());
    Ok(if holds { Probed::Good } else { Probed::Lacking })
}
