//! The image's own health check: asks the server of this machine over HTTP.

use std::net::ToSocketAddrs;
use std::time::Duration;

use anyhow::{Context, bail};
use management_api::paths;
use management_api::types::Probe;

use crate::cli::{HealthcheckArgs, default_port};
use crate::rollout::{Probed, probe_with};
use crate::tls;

const LIMIT: Duration = Duration::from_secs(5);

/// Fails unless the server answers 200.
pub(crate) async fn run(arguments: &HealthcheckArgs) -> anyhow::Result<()> {
    let set = arguments
        .shown
        .settings()?
        .tls
        .map(|files| files.certificate);
    let own = arguments.shown.tls_certificate.clone().or(set);
    let scheme = if own.is_some() { "https" } else { "http" };
    let default = || format!("{scheme}://127.0.0.1:{}", default_port());
    let url = arguments.url.clone().unwrap_or_else(default);
    let (authority, tls, port) = match (url.strip_prefix("https://"), own) {
        (Some(authority), Some(own)) => (authority, Some(tls::connector_for(&own)?), 443),
        (Some(_), None) => bail!(
            "for {url}, name the server's certificate: --tls-certificate FILE, or --services DIR where platform.toml has it"
        ),
        (None, _) => {
            let authority = url.strip_prefix("http://");
            let refused = || format!("{url} begins with neither http:// nor https://");
            (authority.with_context(refused)?, None, 80)
        }
    };
    let authority = authority.trim_end_matches('/');
    let with_port = match authority.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => authority.to_owned(),
        _ => format!("{authority}:{port}"),
    };
    let address = with_port
        .to_socket_addrs()
        .ok()
        .and_then(|mut addresses| addresses.next())
        .with_context(|| format!("{authority} is not the address of a server"))?;
    let asked = Probe {
        path: paths::HEALTH.to_owned(),
        ..Probe::default()
    };
    match probe_with(tls, address, &asked, LIMIT).await {
        Probed::Good => Ok(()),
        Probed::Status(status) => bail!("{url} answers {status}"),
        Probed::Lacking => bail!("{url} answers something else"),
        Probed::Refused => bail!("nothing listens at {url}"),
        Probed::TimedOut => bail!("{url} does not answer within {} s", LIMIT.as_secs()),
        // only commands end so
        Probed::Failed { .. } => bail!("{url} was not asked"),
        Probed::Broken(why) | Probed::Impossible(why) => bail!("{url} does not answer: {why}"),
    }
}
