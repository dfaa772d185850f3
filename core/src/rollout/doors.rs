//! Where the services of a release reach each other, and what each is told of that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use engines::orchestrator::Address;
use management_api::types::{Failure, Protocol};
use proxy::{Forwarded, Front, Proxy, Settings};

use super::failure;
use crate::deployments::outputs::{
    INTERNAL_HOST, INTERNAL_PORT, INTERNAL_URL, PUBLIC_URL, variable,
};
use crate::deployments::{Capsule, Service, public_url};
use crate::platform::{App, Platform};
use crate::ports;
use crate::store::{DeploymentRow, StoreError};
use crate::tenant::Tenant;
use crate::traffic::{door_key, protocol_of};

/// How long a port that belongs to a door is tried for, in the background.
const TRIES: u32 = 300;
const PAUSE: Duration = Duration::from_millis(200);

/// Opens the doors of a release before anything of it is started, and closes those that no release needs any more. A port
/// is written down before anybody is told of it.
pub(super) async fn open(
    app: &App,
    tenant: &Tenant,
    releases: impl Iterator<Item = &Capsule>,
) -> Result<(), Failure> {
    let wanted: BTreeSet<String> = releases.flat_map(keys).collect();
    let known = app.store.service_ports(&tenant.id).await;
    let known = known.map_err(|error| unwritten(&error))?;
    let mut ports: BTreeMap<String, u16> = known.clone();
    ports.retain(|key, _| wanted.contains(key));
    let mut opened = Vec::new();
    for key in wanted.iter().filter(|key| !tenant.has_door(key)) {
        let proxy = match ports.get(key) {
            Some(port) => bind(app, *port, protocol_of(key)).await,
            None => bind_any(app, protocol_of(key)).await,
        };
        let proxy = proxy.map_err(|error| {
            failure::plain(
                "start_failed",
                format!("no port for requests between services can be had ({key}): {error}"),
            )
        })?;
        ports.insert(key.clone(), proxy.local_addr().port());
        opened.push((key, proxy));
    }
    if ports != known {
        let written = app.store.set_service_ports(&tenant.id, ports).await;
        if let Err(error) = written {
            for (_, proxy) in opened {
                app.close(&proxy, Duration::ZERO).await;
            }
            return Err(unwritten(&error));
        }
    }
    for (key, proxy) in opened {
        tenant.add_door(key, proxy);
    }
    for closed in tenant.close_doors(&wanted) {
        app.close(&closed, Duration::ZERO).await;
    }
    Ok(())
}

/// Opens the doors that an earlier server has written down; one whose port cannot be had yet, as soon as it can.
pub(super) async fn open_again(app: &App, tenant: &Arc<Tenant>) -> Result<(), StoreError> {
    for (key, port) in app.store.service_ports(&tenant.id).await? {
        if let Ok(proxy) = bind(app, port, protocol_of(&key)).await {
            tenant.add_door(&key, proxy);
        } else {
            tracing::warn!(
                tenant = tenant.id,
                port,
                "a port between services is not free"
            );
            let (app, tenant) = (App::clone(app), Arc::clone(tenant));
            let tasks = app.tasks.clone();
            tasks.spawn(async move { open_later(&app, &tenant, &key, port).await });
        }
    }
    Ok(())
}

async fn open_later(app: &App, tenant: &Tenant, key: &str, port: u16) {
    for _ in 0..TRIES {
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        if tenant.has_door(key) {
            return;
        }
        if let Ok(proxy) = bind(app, port, protocol_of(key)).await {
            tenant.add_door(key, proxy);
            return;
        }
    }
    tracing::error!(
        tenant = tenant.id,
        port,
        "a port between services stays in use by another program: free it and deploy again"
    );
}

/// One service needs no door: nobody else is there.
fn keys(capsule: &Capsule) -> Vec<String> {
    if capsule.is_single() {
        return Vec::new();
    }
    let services = capsule.services().into_iter();
    let keys = services.filter_map(|(name, service)| Some(door_key(&name, service.protocol?)));
    keys.collect()
}

async fn bind_any(app: &App, protocol: Protocol) -> std::io::Result<Proxy> {
    let mut last = Err(std::io::ErrorKind::AddrInUse.into());
    for address in ports::for_tenant(app.engine.host()) {
        last = bind(app, address.port(), protocol).await;
        if last.is_ok() {
            break;
        }
    }
    last
}

/// Where instances reach it, and nobody outside of this machine does.
async fn bind(app: &App, port: u16, protocol: Protocol) -> std::io::Result<Proxy> {
    let address = SocketAddr::from((app.engine.host(), port));
    let settings = Settings {
        // Who asks here has its requests from the tenant's URL, and hands on what that has said.
        forwarded: Forwarded::Append,
        ..Settings::default()
    };
    let front = match protocol {
        Protocol::Http => Front::Http,
        Protocol::Tcp => Front::Tcp,
    };
    Proxy::on(app.sockets.listen(address).await?, front, settings)
}

fn unwritten(error: &StoreError) -> Failure {
    tracing::error!(error = %crate::chain(error), "the ports of services cannot be read or written");
    failure::plain("internal", "the server could not write its state")
}

/// The addresses of the services of a release.
pub(super) struct Addresses<'a> {
    capsule: &'a Capsule,
    tenant: Option<Arc<Tenant>>,
}

impl<'a> Addresses<'a> {
    pub(super) fn of(platform: &Platform, row: &'a DeploymentRow) -> Self {
        Self {
            capsule: &row.capsule,
            tenant: platform.tenants.get(&row.tenant),
        }
    }

    /// An address that a value names. Where there is one service, nothing is one.
    pub(super) fn named(&self, name: &str, output: &str) -> Option<String> {
        if self.capsule.is_single() {
            return None;
        }
        let service = self.capsule.service(name)?;
        self.output(name, &service, output)
    }

    /// The variables that a service finds: its own addresses, and those of the services that it depends on. One alone has
    /// nobody inside who asks it.
    pub(super) fn told(&self, name: &str, service: &Service) -> Vec<(String, String)> {
        if self.capsule.is_single() {
            let own = self.output(name, service, PUBLIC_URL);
            let own = own.map(|value| (PUBLIC_URL.to_owned(), value));
            return own.into_iter().collect();
        }
        let mut told = Vec::new();
        for output in [PUBLIC_URL, INTERNAL_URL] {
            let own = self.output(name, service, output);
            told.extend(own.map(|value| (output.to_owned(), value)));
            for other in &service.depends_on {
                let found = self.capsule.service(other);
                let value = found.and_then(|found| self.output(other, &found, output));
                told.extend(value.map(|value| (variable(other, output), value)));
            }
        }
        told
    }

    fn output(&self, name: &str, service: &Service, output: &str) -> Option<String> {
        let tenant = self.tenant.as_ref()?;
        match output {
            PUBLIC_URL => public(tenant, service),
            INTERNAL_URL => internal(tenant, name, service),
            INTERNAL_HOST => Some(tenant.inside(name, service.protocol?)?.host),
            INTERNAL_PORT => Some(tenant.inside(name, service.protocol?)?.port.to_string()),
            _ => None,
        }
    }
}

/// Where everybody reaches a service.
pub(crate) fn public(tenant: &Tenant, service: &Service) -> Option<String> {
    let route = service.public_route()?;
    Some(public_url(&tenant.url(), route))
}

/// Where other services reach one.
pub(crate) fn internal(tenant: &Tenant, name: &str, service: &Service) -> Option<String> {
    let scheme = match service.protocol? {
        Protocol::Http => "http",
        Protocol::Tcp => "tcp",
    };
    let Address { host, port } = tenant.inside(name, service.protocol?)?;
    // Of version 6: brackets keep it apart from the port.
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host
    };
    Some(format!("{scheme}://{host}:{port}"))
}

pub(super) fn door(tenant: &Tenant, name: &str, service: &Service) -> Option<SocketAddr> {
    tenant.door(name, service.protocol?)
}
