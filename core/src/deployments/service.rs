//! The services of a release: what each is, in which order they start, and what they have to do with each other. Pure.

use std::collections::{BTreeMap, BTreeSet};

use management_api::types::{HealthCheck, Protocol, Resources, Restart, Route};
use sha2::{Digest as _, Sha256};

use super::capsule::{Capsule, field, hash_program};
use super::outputs::{PUBLIC_URL, Reference, named};
use crate::hex;

/// The service that a release's own fields describe.
pub(crate) const APP: &str = "app";

/// One service of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// Digest of the image's manifest, `sha256:…`.
    pub(crate) digest: String,
    /// In place of the image's own; empty for that.
    pub(crate) command: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    /// Names of variables, each with the tenant's secret that it holds.
    pub(crate) secrets: BTreeMap<String, String>,
    /// The tenant's volumes that it has, by name, each with its path.
    pub(crate) volumes: BTreeMap<String, String>,
    pub(crate) health: HealthCheck,
    pub(crate) replicas: u32,
    pub(crate) resources: Resources,
    /// Which of its instances are started again that have ended.
    pub(crate) restart: Restart,
    /// Those that serve before it is started.
    pub(crate) depends_on: BTreeSet<String>,
    /// What it speaks on its port, if it listens.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) routes: Vec<Route>,
}

impl Service {
    /// Whether requests on the tenant's URL are for it.
    pub(crate) fn is_routed(&self) -> bool {
        !self.routes.is_empty()
    }

    /// The first of its routes that says which host to ask.
    pub(crate) fn public_route(&self) -> Option<&Route> {
        let names_a_host = |route: &&Route| {
            let host = route.host.as_deref();
            host.is_none_or(|host| !host.starts_with("*."))
        };
        self.routes.iter().find(names_a_host)
    }

    /// Services whose addresses it finds in its environment, its own among them under `name`.
    fn sees(&self, name: &str) -> BTreeSet<String> {
        let mut seen: BTreeSet<String> = self
            .references()
            .filter_map(|reference| match reference {
                Reference::Output { service, .. } => Some(service.to_owned()),
                Reference::Secret(_) => None,
            })
            .collect();
        seen.extend(self.depends_on.iter().cloned());
        seen.insert(name.to_owned());
        seen
    }

    /// All that the values of its variables name.
    fn references(&self) -> impl Iterator<Item = Reference<'_>> {
        self.env.values().flat_map(|value| named(value))
    }

    /// The tenant's secrets that values of its variables name.
    fn secrets_in_values(&self) -> BTreeSet<String> {
        self.references()
            .filter_map(|reference| match reference {
                Reference::Secret(name) => Some(name.to_owned()),
                Reference::Output { .. } => None,
            })
            .collect()
    }

    /// All of the tenant's secrets that its instances are told.
    pub(crate) fn named_secrets(&self) -> BTreeSet<String> {
        let mut named = self.secrets_in_values();
        named.extend(self.secrets.values().cloned());
        named
    }

    fn hash(&self, hash: &mut Sha256) {
        hash_program(hash, self);
        for word in &self.command {
            field(hash, &format!("command {word}"));
        }
        for (variable, name) in &self.secrets {
            field(hash, &format!("secret {variable} {name}"));
        }
        hash_volumes(hash, &self.volumes);
        for name in &self.depends_on {
            field(hash, &format!("depends on {name}"));
        }
        self.hash_address(hash);
    }

    fn hash_address(&self, hash: &mut Sha256) {
        field(hash, &serde_json::json!(self.protocol).to_string());
        for route in &self.routes {
            field(hash, &serde_json::json!(route).to_string());
        }
    }
}

/// What a release has beyond one service that gets everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group {
    /// Of `app`.
    pub(crate) command: Vec<String>,
    /// Of `app`.
    pub(crate) depends_on: BTreeSet<String>,
    /// Of `app`.
    pub(crate) volumes: BTreeMap<String, String>,
    /// Of `app`; all that is for no other service where nothing is said.
    pub(crate) routes: Option<Vec<Route>>,
    /// The others.
    pub(crate) services: BTreeMap<String, Service>,
}

impl Group {
    /// Nothing is hashed of a release that has nothing of this, as before there was any.
    pub(super) fn hash(&self, hash: &mut Sha256) {
        for word in &self.command {
            field(hash, &format!("command {word}"));
        }
        for name in &self.depends_on {
            field(hash, &format!("depends on {name}"));
        }
        hash_volumes(hash, &self.volumes);
        if let Some(routes) = &self.routes {
            field(hash, &format!("routes {}", serde_json::json!(routes)));
        }
        for (name, service) in &self.services {
            field(hash, &format!("service {name}"));
            service.hash(hash);
        }
    }
}

impl Capsule {
    /// Whether there is one service only.
    pub(crate) fn is_single(&self) -> bool {
        self.group.services.is_empty()
    }

    /// One of its services.
    pub(crate) fn service(&self, name: &str) -> Option<Service> {
        if name == APP {
            return Some(self.app());
        }
        self.group.services.get(name).cloned()
    }

    /// All of its services by name.
    pub(crate) fn services(&self) -> BTreeMap<String, Service> {
        let mut services = self.group.services.clone();
        services.insert(APP.to_owned(), self.app());
        services
    }

    /// Whether a service of it has volumes.
    pub(crate) fn has_volumes(&self) -> bool {
        let services = self.services();
        services.values().any(|service| !service.volumes.is_empty())
    }

    /// Names of its services, each behind those that it depends on.
    pub(crate) fn order(&self) -> Vec<String> {
        let services = self.services();
        let edges = services
            .iter()
            .map(|(name, service)| (name.as_str(), &service.depends_on));
        // What has a cycle was refused.
        in_order(&edges.collect()).unwrap_or_else(|_| services.keys().cloned().collect())
    }

    /// Digests of the images of all services.
    pub(crate) fn digests(&self) -> BTreeSet<String> {
        let services = self.group.services.values();
        let digests = services.map(|service| service.digest.clone());
        digests.chain([self.digest.clone()]).collect()
    }

    /// The same for a service of two releases only when its instances of the one do for the other.
    pub(crate) fn fingerprint_of(&self, name: &str) -> Option<String> {
        let service = self.service(name)?;
        let mut hash = Sha256::new();
        service.hash(&mut hash);
        for secret in service.secrets.values() {
            let version = self.secrets.get(secret).copied().unwrap_or_default();
            field(&mut hash, &format!("version {version}"));
        }
        for secret in service.secrets_in_values() {
            let version = self.secrets.get(&secret).copied().unwrap_or_default();
            field(&mut hash, &format!("in values {secret} {version}"));
        }
        for seen in service.sees(name) {
            field(&mut hash, &format!("sees {seen}"));
            if let Some(seen) = self.service(&seen) {
                seen.hash_address(&mut hash);
            }
        }
        Some(hex::encode(&hash.finalize()))
    }

    /// The service that the release's own fields describe.
    pub(crate) fn app(&self) -> Service {
        let names = self.secrets.keys();
        Service {
            digest: self.digest.clone(),
            command: self.group.command.clone(),
            env: self.env.clone(),
            secrets: names.map(|name| (name.clone(), name.clone())).collect(),
            volumes: self.group.volumes.clone(),
            health: self.health.clone(),
            replicas: self.replicas,
            resources: self.resources.clone(),
            restart: self.restart,
            depends_on: self.group.depends_on.clone(),
            protocol: Some(Protocol::Http),
            routes: match &self.group.routes {
                Some(routes) => routes.clone(),
                None => vec![Route::default()],
            },
        }
    }
}

/// Nothing is hashed of what has no volumes, as before there were any.
fn hash_volumes(hash: &mut Sha256, volumes: &BTreeMap<String, String>) {
    for (name, path) in volumes {
        field(hash, &format!("volume {name} {path}"));
    }
}

/// Names behind those that they depend on; names of one rank in their own order. Else the names of a cycle, the first one
/// again at its end.
pub(super) fn in_order(
    edges: &BTreeMap<&str, &BTreeSet<String>>,
) -> Result<Vec<String>, Vec<String>> {
    let mut order: Vec<String> = Vec::new();
    for name in edges.keys() {
        visit(name, edges, &mut Vec::new(), &mut order)?;
    }
    Ok(order)
}

fn visit(
    name: &str,
    edges: &BTreeMap<&str, &BTreeSet<String>>,
    path: &mut Vec<String>,
    order: &mut Vec<String>,
) -> Result<(), Vec<String>> {
    if order.iter().any(|done| done == name) {
        return Ok(());
    }
    if let Some(first) = path.iter().position(|above| above == name) {
        let mut cycle = path.split_off(first);
        cycle.push(name.to_owned());
        return Err(cycle);
    }
    path.push(name.to_owned());
    for other in edges.get(name).into_iter().flat_map(|others| others.iter()) {
        visit(other, edges, path, order)?;
    }
    path.pop();
    order.push(name.to_owned());
    Ok(())
}

/// The URL of a service by a route of it, where the tenant's own is `tenant`.
pub(crate) fn public_url(tenant: &str, route: &Route) -> String {
    let path = route.path.trim_end_matches('/');
    let Some(host) = &route.host else {
        return format!("{tenant}{path}");
    };
    let (scheme, address) = tenant.split_once("://").unwrap_or(("http", tenant));
    let port = address.rsplit_once(':').map_or("", |(_, port)| port);
    format!("{scheme}://{host}:{port}{path}")
}

/// Whether a service has an output of this name.
pub(super) fn has_output(service: &Service, output: &str) -> bool {
    if output == PUBLIC_URL {
        service.public_route().is_some()
    } else {
        service.protocol.is_some()
    }
}

#[cfg(test)]
pub(crate) mod fixtures {
    use super::super::capsule::fixtures::capsule;
    use super::*;

    /// A service of an image whose digest consists of one repeated digit, for the others.
    pub(crate) fn service(digit: char) -> Service {
        Service {
            protocol: Some(Protocol::Http),
            routes: Vec::new(),
            ..capsule(digit).app()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::capsule::fixtures::capsule;
    use super::fixtures::service;
    use super::*;

    fn with(services: &[(&str, Service)]) -> Capsule {
        let services = services.iter().cloned();
        Capsule {
            group: Group {
                services: services.map(|(n, s)| (n.to_owned(), s)).collect(),
                ..Group::default()
            },
            ..capsule('a')
        }
    }

    fn on(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn services_come_behind_those_that_they_depend_on() {
        let needs = |names: &[&str]| Service {
            depends_on: on(names),
            ..service('b')
        };
        let mut capsule = with(&[
            ("db", needs(&[])),
            ("web", needs(&["cache", "app"])),
            ("cache", needs(&["db"])),
        ]);
        capsule.group.depends_on = on(&["db"]);
        assert_eq!(capsule.order(), ["db", "app", "cache", "web"]);
    }

    #[test]
    fn a_cycle_is_told_by_its_names() {
        let (a, b, c) = (on(&["b"]), on(&["c"]), on(&["b"]));
        let edges = BTreeMap::from([("a", &a), ("b", &b), ("c", &c)]);
        assert_eq!(
            in_order(&edges),
            Err(vec!["b".into(), "c".into(), "b".into()])
        );
    }

    #[test]
    fn a_part_changes_with_what_its_instances_would_notice_and_with_nothing_else() {
        let base = with(&[
            ("db", service('b')),
            (
                "worker",
                Service {
                    depends_on: on(&["db"]),
                    env: BTreeMap::from([(
                        "API".to_owned(),
                        "${services.app.INTERNAL_URL}".to_owned(),
                    )]),
                    ..service('c')
                },
            ),
        ]);
        let change = |change: fn(&mut Capsule)| {
            let mut other = base.clone();
            change(&mut other);
            let changed = |name: &str| other.fingerprint_of(name) != base.fingerprint_of(name);
            assert_ne!(other.fingerprint(), base.fingerprint());
            ["app", "db", "worker"]
                .into_iter()
                .filter(|name| changed(name))
                .collect::<Vec<_>>()
        };
        assert_eq!(change(|c| c.digest = capsule('d').digest), ["app"]);
        assert_eq!(
            change(|c| {
                c.group.services.insert("more".into(), service('e'));
            }),
            [""; 0]
        );
        assert_eq!(
            change(|c| c.group.services.get_mut("db").unwrap().replicas = 2),
            ["db"]
        );
        // Others would look for it elsewhere.
        let to_tcp = |c: &mut Capsule| {
            c.group.services.get_mut("db").unwrap().protocol = Some(Protocol::Tcp);
        };
        assert_eq!(change(to_tcp), ["db", "worker"]);
        assert_eq!(
            change(|c| c.group.routes = Some(Vec::new())),
            ["app", "worker"]
        );
        let move_volume = |c: &mut Capsule| {
            let db = c.group.services.get_mut("db").unwrap();
            db.volumes.insert("data".into(), "/data".into());
        };
        assert_eq!(change(move_volume), ["db"]);
        // All secrets are for the one service of before, and none for others.
        assert_eq!(
            change(|c| {
                c.secrets.insert("KEY".into(), 1);
            }),
            ["app"]
        );
    }

    #[test]
    fn a_secret_in_a_value_is_part_of_who_names_it() {
        let named = |version| {
            let env = [("URL".to_owned(), "x:${secrets.KEY}@y".to_owned())];
            let named = Service {
                env: env.into(),
                ..service('c')
            };
            let mut capsule = with(&[("db", service('b')), ("worker", named)]);
            capsule.secrets.insert("KEY".into(), version);
            capsule
        };
        let (one, two) = (named(1), named(2));
        let worker = one.service("worker").unwrap();
        assert_eq!(worker.named_secrets(), on(&["KEY"]));
        for (name, changes) in [("worker", true), ("db", false), ("app", true)] {
            let changed = one.fingerprint_of(name) != two.fingerprint_of(name);
            assert_eq!(changed, changes, "{name}");
        }
    }

    #[test]
    fn public_urls() {
        let tenant = "https://127.0.0.1:20001";
        let route = |host: Option<&str>, path: &str| Route {
            host: host.map(str::to_owned),
            path: path.to_owned(),
        };
        for (route, url) in [
            (route(None, "/"), "https://127.0.0.1:20001"),
            (route(None, "/api/"), "https://127.0.0.1:20001/api"),
            (route(Some("a.example"), "/x"), "https://a.example:20001/x"),
        ] {
            assert_eq!(public_url(tenant, &route), url);
        }
    }
}
