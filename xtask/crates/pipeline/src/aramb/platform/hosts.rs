//! The hosts of public services: below that of the tenant's URL.

use std::net::IpAddr;

use deploy_plan::failure::Failure;

use super::OwnPlatform;
use crate::control::Control;

/// Below it, names lead to this machine (RFC 6761).
pub(super) const LOCALHOST: &str = "localhost";

impl OwnPlatform {
    /// The host below which public services have theirs.
    pub(super) fn host(&self, control: Option<&Control>) -> Result<String, Failure> {
        if self.is_embedded() {
            return Ok(LOCALHOST.to_owned());
        }
        let tenant = control.and_then(|control| {
            let tenants = control.client.tenants().ok()?;
            tenants.into_iter().find(|one| one.id == control.tenant)
        });
        let named = tenant.and_then(|tenant| {
            let url = tenant.app_url.as_deref().and_then(host_of);
            tenant.hostname.or(tenant.fly_hostname).or(url)
        });
        let api = self.settings.config.api.url.to_string();
        let host = named.or_else(|| host_of(&api)).unwrap_or_default();
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) if address.is_loopback() => Ok(LOCALHOST.to_owned()),
            Ok(address) => Err(Failure::preflight(
                "host_missing",
                format!(
                    "several services are public, and the platform is at {address}: there are no hosts below an address"
                ),
                "give the platform a name, or make one service public and let it lead to the others",
            )),
            Err(_) => Ok(host),
        }
    }
}

fn host_of(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    (!host.is_empty()).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_addresses() {
        for (url, host) in [
            ("https://shop.example.com", Some("shop.example.com")),
            ("http://127.0.0.1:20001/x", Some("127.0.0.1")),
            ("http://[::1]:80", Some("[::1]")),
            ("http://:80", None),
            ("shop", None),
        ] {
            assert_eq!(host_of(url).as_deref(), host, "{url}");
        }
    }
}
