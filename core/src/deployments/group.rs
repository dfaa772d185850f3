//! What a request says of several services, checked before anything is written.

use std::collections::BTreeMap;
use std::path::Path;

use management_api::tag::is_service_name;
use management_api::types::{
    self as wire, DeployRequest, HealthCheck, Probe, ProbeKind, Protocol, Route,
};

use super::capsule::Capsule;
use super::course::replicas_of;
use super::outputs::{self, Reference, named};
use super::request::{
    Refusal, check_env, check_health, check_restart, check_variable, command_of, resources_of,
};
use super::service::{APP, Group, Service, has_output, in_order};

/// Of one release.
const MAX_SERVICES: usize = 32;
const MAX_ROUTES: usize = 128;
/// Of one service.
const MAX_VOLUMES: usize = 16;
/// How long a program that listens nowhere must have run before it counts as well.
const PROCESS_PROOF_MS: u64 = 2000;

/// A service's image, as it was found.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) digest: String,
    /// What the request says of its health, with the image's own check in place where that is asked for.
    pub(crate) asked: Option<HealthCheck>,
    /// What applies where the request says nothing of its health.
    pub(crate) health: HealthCheck,
}

/// What a request says beyond one service that gets everything. `found` has the image of each service.
pub(crate) fn group_of(
    request: &DeployRequest,
    mut found: BTreeMap<String, Found>,
) -> Result<Group, Refusal> {
    if request.services.len() > MAX_SERVICES {
        return Err(Refusal::invalid(format!(
            "services: a release has at most {MAX_SERVICES} beside `{APP}`"
        )));
    }
    let mut services = BTreeMap::new();
    for (name, asked) in &request.services {
        check_name(name)?;
        let found = found.remove(name).ok_or_else(|| {
            Refusal::ImageNotFound(format!("services.{name}: its image was not found"))
        })?;
        let service = service_of(asked, found).map_err(|refusal| refusal.of_service(name))?;
        services.insert(name.clone(), service);
    }
    let volumes = volumes_of(&request.volumes)?;
    let routes = request.routes.as_deref().map(routes_of).transpose()?;
    Ok(Group {
        command: command_of("command", request.command.clone())?,
        depends_on: request.depends_on.iter().cloned().collect(),
        volumes,
        routes,
        services,
    })
}

/// Checks what the services of a release say of each other.
pub(crate) fn check_group(capsule: &Capsule) -> Result<(), Refusal> {
    let services = capsule.services();
    check_dependencies(&services)?;
    check_routes(&services)?;
    check_volumes(&services)?;
    for (name, service) in &services {
        check_references(name, service, capsule, &services)?;
        check_secrets(name, service, &capsule.secrets)?;
    }
    Ok(())
}

/// A name is part of those of instances, variables and files.
fn check_name(name: &str) -> Result<(), Refusal> {
    check_is_name("services", name)?;
    if name == APP {
        return Err(Refusal::invalid(format!(
            "services.{name}: `{APP}` is what the request itself describes; give this one another name"
        )));
    }
    Ok(())
}

fn check_is_name(section: &str, name: &str) -> Result<(), Refusal> {
    if is_service_name(name) {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "{section}.{name}: a name is 1 to 30 lower-case letters, digits and single dashes between them, and begins \
         with a letter"
    )))
}

fn service_of(asked: &wire::Service, found: Found) -> Result<Service, Refusal> {
    check_env(&asked.env)?;
    for (variable, secret) in &asked.secrets {
        check_variable(variable, "")?;
        if asked.env.contains_key(variable) {
            return Err(Refusal::invalid(format!(
                "{variable} is in `env` and in `secrets` ({secret}): take it out of one of them"
            )));
        }
    }
    let routes = routes_of(&asked.routes)?;
    let protocol = match asked.protocol {
        None if routes.is_empty() => None,
        Some(Protocol::Tcp) if !routes.is_empty() => {
            return Err(Refusal::invalid(
                "routes are for HTTP, and `protocol` is tcp: take one of them away",
            ));
        }
        asked => Some(asked.unwrap_or(Protocol::Http)),
    };
    let health = found.asked.clone();
    let health = health.unwrap_or_else(|| default_health(protocol, found.health));
    check_health(&health)?;
    check_restart(asked.restart, &health)?;
    let asks_a_port = |probe: &Probe| matches!(probe.kind, ProbeKind::Http | ProbeKind::Tcp);
    let liveness = health.liveness.as_ref().map(|liveness| &liveness.probe);
    if protocol.is_none() && (asks_a_port(&health.probe) || liveness.is_some_and(asks_a_port)) {
        return Err(Refusal::invalid(
            "its health check asks on a port, and it has neither `protocol` nor `routes`: give it one, or the check \
             another kind",
        ));
    }
    Ok(Service {
        digest: found.digest,
        command: command_of("command", asked.command.clone())?,
        env: asked.env.clone(),
        secrets: asked.secrets.clone(),
        volumes: volumes_of(&asked.volumes)?,
        health,
        replicas: replicas_of(asked.replicas)?,
        resources: resources_of(&asked.resources)?,
        restart: asked.restart,
        depends_on: asked.depends_on.iter().cloned().collect(),
        protocol,
        routes,
    })
}

/// What listens is asked as it speaks; what does not has to run.
fn default_health(protocol: Option<Protocol>, known: HealthCheck) -> HealthCheck {
    let kind = match protocol {
        Some(Protocol::Http) => return known,
        Some(Protocol::Tcp) => ProbeKind::Tcp,
        None => ProbeKind::Process,
    };
    let start_period_ms = match kind {
        ProbeKind::Process => PROCESS_PROOF_MS,
        _ => known.start_period_ms,
    };
    HealthCheck {
        probe: Probe {
            kind,
            ..Probe::default()
        },
        start_period_ms,
        liveness: None,
        ..known
    }
}

/// Each once, hosts in lower case.
fn routes_of(asked: &[Route]) -> Result<Vec<Route>, Refusal> {
    let mut routes = Vec::new();
    for route in asked {
        let route = Route {
            host: route.host.as_deref().map(host_of).transpose()?,
            path: path_of(&route.path)?,
        };
        if !routes.contains(&route) {
            routes.push(route);
        }
    }
    Ok(routes)
}

fn host_of(host: &str) -> Result<String, Refusal> {
    let lower = host.to_ascii_lowercase();
    let name = lower.strip_prefix("*.").unwrap_or(&lower);
    let label = |label: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(allowed)
    };
    if name.len() <= 253 && name.split('.').all(label) {
        return Ok(lower);
    }
    Err(Refusal::invalid(format!(
        "routes: {host:?} is no host: a name without a port, or `*.` and a name"
    )))
}

/// Without the slash at its end, which means nothing.
fn path_of(path: &str) -> Result<String, Refusal> {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
    if !path.starts_with('/') || path.len() > 1024 || !path.bytes().all(plain) {
        return Err(Refusal::invalid(format!(
            "routes: {path:?} is no path: it begins with / and holds no spaces, ? or #"
        )));
    }
    let trimmed = path.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/" } else { trimmed }.to_owned())
}

/// Names, each with its path in one spelling.
fn volumes_of(asked: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Refusal> {
    if asked.len() > MAX_VOLUMES {
        return Err(Refusal::invalid(format!(
            "volumes: a service has at most {MAX_VOLUMES}"
        )));
    }
    let mut volumes = BTreeMap::new();
    for (name, path) in asked {
        check_is_name("volumes", name)?;
        volumes.insert(name.clone(), mount_point(name, path)?);
    }
    for (name, path) in &volumes {
        let within = |(other, outer): &(&String, &String)| {
            *other != name && Path::new(path).starts_with(outer)
        };
        if let Some((other, outer)) = volumes.iter().find(within) {
            return Err(Refusal::invalid(format!(
                "volumes.{name}: {path} is within {outer}, where the volume {other} is: give one of them another path"
            )));
        }
    }
    Ok(volumes)
}

/// Without slashes that mean nothing.
fn mount_point(name: &str, path: &str) -> Result<String, Refusal> {
    let refuse = |why: &str| Refusal::invalid(format!("volumes.{name}: {path:?} {why}"));
    if !path.starts_with('/') || path.len() > 1024 || path.chars().any(char::is_control) {
        return Err(refuse(
            "is no path: it begins with / and is at most 1024 bytes long, without control characters",
        ));
    }
    let words: Vec<&str> = path.split('/').filter(|word| !word.is_empty()).collect();
    if words.iter().any(|word| matches!(*word, "." | "..")) {
        return Err(refuse("holds . or ..: say where it leads"));
    }
    match words.first() {
        None => Err(refuse("is the root directory: name a directory in it")),
        Some(&"proc" | &"sys" | &"dev") => Err(refuse("is the system's: choose another one")),
        Some(_) => Ok(format!("/{}", words.join("/"))),
    }
}

/// No volume is for two, neither services nor instances.
fn check_volumes(services: &BTreeMap<String, Service>) -> Result<(), Refusal> {
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, service) in services {
        for volume in service.volumes.keys() {
            if service.replicas > 1 {
                return Err(Refusal::invalid(format!(
                    "{}: one instance at a time may have the volume {volume}: replicas must be 1, or the volume go",
                    place(name)
                )));
            }
            if let Some(other) = taken.insert(volume, name) {
                return Err(Refusal::invalid(format!(
                    "{} and {} both have the volume {volume}, which is for one service at a time: give one of them another",
                    place(other),
                    place(name)
                )));
            }
        }
    }
    Ok(())
}

fn check_dependencies(services: &BTreeMap<String, Service>) -> Result<(), Refusal> {
    for (name, service) in services {
        let unknown = service
            .depends_on
            .iter()
            .find(|on| !services.contains_key(*on));
        if let Some(unknown) = unknown {
            return Err(Refusal::invalid(format!(
                "{}: it depends on {unknown:?}, which is no service of this release",
                place(name)
            )));
        }
    }
    let edges = services
        .iter()
        .map(|(name, service)| (name.as_str(), &service.depends_on));
    in_order(&edges.collect()).map(drop).map_err(|cycle| {
        Refusal::invalid(format!(
            "depends_on goes round in a circle: {}; take one of these away (an address of a service may be used \
             without it)",
            cycle.join(" -> ")
        ))
    })
}

/// No request is for two services.
fn check_routes(services: &BTreeMap<String, Service>) -> Result<(), Refusal> {
    let mut taken: BTreeMap<&Route, &str> = BTreeMap::new();
    for (name, service) in services {
        for route in &service.routes {
            if let Some(other) = taken.insert(route, name) {
                let host = route.host.as_deref().unwrap_or("any host");
                return Err(Refusal::invalid(format!(
                    "{other} and {name} both have the route {} of {host}: give one of them another{}",
                    route.path,
                    if other == APP || name == APP {
                        " (`app` has / of any host where it has no `routes`)"
                    } else {
                        ""
                    }
                )));
            }
        }
    }
    if taken.len() > MAX_ROUTES {
        return Err(Refusal::invalid(format!(
            "a release has at most {MAX_ROUTES} routes"
        )));
    }
    Ok(())
}

fn check_references(
    name: &str,
    service: &Service,
    capsule: &Capsule,
    services: &BTreeMap<String, Service>,
) -> Result<(), Refusal> {
    if capsule.is_single() {
        // Nothing is replaced in it, as before.
        return Ok(());
    }
    let references = service.env.iter().flat_map(|(variable, value)| {
        let named = named(value).into_iter();
        named.map(move |reference| (variable, reference))
    });
    for (variable, reference) in references {
        let Reference::Output {
            service: other,
            output,
        } = reference
        else {
            continue;
        };
        let place = format!(
            "{}: {variable} names ${{services.{other}.{output}}}",
            place(name)
        );
        if !outputs::ALL.contains(&output) {
            return Err(Refusal::invalid(format!(
                "{place}; a service has {}",
                outputs::ALL.join(", ")
            )));
        }
        let Some(found) = services.get(other) else {
            return Err(Refusal::invalid(format!(
                "{place}, and there is no such service"
            )));
        };
        if !has_output(found, output) {
            let lacks = if output == outputs::PUBLIC_URL {
                "a route that names no wildcard"
            } else {
                "a `protocol`"
            };
            return Err(Refusal::invalid(format!(
                "{place}, and {other} lacks {lacks}"
            )));
        }
    }
    Ok(())
}

fn check_secrets(
    name: &str,
    service: &Service,
    known: &BTreeMap<String, u64>,
) -> Result<(), Refusal> {
    let named = service.named_secrets().into_iter();
    let mut unknown = named.filter(|secret| !known.contains_key(secret));
    match unknown.next() {
        None => Ok(()),
        Some(secret) => Err(Refusal::invalid(format!(
            "{}: this tenant has no secret {secret:?}; set it first: cargo xtask secrets set {secret}",
            place(name)
        ))),
    }
}

/// What a refusal calls a service by.
fn place(name: &str) -> String {
    if name == APP {
        APP.to_owned()
    } else {
        format!("services.{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::capsule::fixtures::capsule;
    use super::*;

    fn found(digit: char) -> Found {
        let capsule = capsule(digit);
        Found {
            digest: capsule.digest,
            asked: None,
            health: capsule.health,
        }
    }

    /// The services that `change` asks for beside `app`.
    fn ask(change: impl FnOnce(&mut DeployRequest)) -> Result<Capsule, Refusal> {
        let mut request = DeployRequest::default();
        change(&mut request);
        let found = request.services.iter().map(|(name, service)| {
            let asked = service.health.clone();
            (
                name.clone(),
                Found {
                    asked,
                    ..found('b')
                },
            )
        });
        let group = group_of(&request, found.collect())?;
        let capsule = Capsule {
            env: request.env,
            secrets: BTreeMap::from([("KEY".to_owned(), 3)]),
            group,
            ..capsule('a')
        };
        check_group(&capsule)?;
        Ok(capsule)
    }

    fn one(name: &str, change: impl FnOnce(&mut wire::Service)) -> Result<Capsule, Refusal> {
        let mut service = wire::Service::default();
        change(&mut service);
        ask(|request| {
            request.services.insert(name.to_owned(), service);
        })
    }

    fn refused(outcome: Result<Capsule, Refusal>, with: &str) {
        let refusal = outcome.unwrap_err().to_string();
        assert!(refusal.contains(with), "{refusal}");
    }

    fn route(host: Option<&str>, path: &str) -> Route {
        Route {
            host: host.map(str::to_owned),
            path: path.to_owned(),
        }
    }

    fn list(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn what_a_service_has_says_what_it_is() {
        let service = |change: fn(&mut wire::Service)| {
            let capsule = one("it", change).unwrap();
            capsule.service("it").unwrap()
        };
        let worker = service(|_| ());
        assert_eq!(worker.protocol, None);
        assert_eq!(worker.health.probe.kind, ProbeKind::Process);
        let public = service(|s| s.routes = vec![route(Some("API.example"), "/v1//")]);
        assert_eq!(public.protocol, Some(Protocol::Http));
        assert_eq!(public.routes, [route(Some("api.example"), "/v1")]);
        assert_eq!(public.health, capsule('b').health);
        let database = service(|s| s.protocol = Some(Protocol::Tcp));
        assert_eq!(database.health.probe.kind, ProbeKind::Tcp);
        assert!(!database.is_routed());
    }

    #[test]
    fn names_and_fields_are_checked_with_their_place() {
        for name in ["", "A", "-a", "a--b", "1a", "a.b", &"x".repeat(31)] {
            refused(one(name, |_| ()), "a name is");
        }
        refused(one("app", |_| ()), "another name");
        refused(one("it", |s| s.replicas = Some(0)), "services.it: replicas");
        refused(
            one("it", |s| {
                s.protocol = Some(Protocol::Tcp);
                s.routes = vec![route(None, "/x")];
            }),
            "services.it: routes are for HTTP",
        );
        refused(
            one("it", |s| s.health = Some(capsule('a').health)),
            "asks on a port",
        );
        for bad in ["a b", "", "a..b", "a:80", "*.", "*.*.b"] {
            let bad = route(Some(bad), "/");
            refused(one("it", |s| s.routes = vec![bad]), "is no host");
        }
        for bad in ["", "x", "/a b", "/a?b"] {
            let bad = route(None, bad);
            refused(one("it", |s| s.routes = vec![bad]), "is no path");
        }
    }

    #[test]
    fn dependencies_are_there_and_have_an_end() {
        refused(
            one("it", |s| s.depends_on = list(&["db"])),
            "services.it: it depends on \"db\"",
        );
        let circle = ask(|request| {
            request.depends_on = list(&["it"]);
            let it = wire::Service {
                depends_on: list(&["app"]),
                ..wire::Service::default()
            };
            request.services.insert("it".to_owned(), it);
        });
        refused(circle, "app -> it -> app");
        refused(one("it", |s| s.depends_on = list(&["it"])), "it -> it");
    }

    #[test]
    fn no_request_is_for_two() {
        refused(
            one("it", |s| s.routes = vec![Route::default()]),
            "app and it both have the route / of any host",
        );
        let both = ask(|request| {
            request.routes = Some(vec![route(None, "/api")]);
            let it = wire::Service {
                routes: vec![Route::default()],
                ..wire::Service::default()
            };
            request.services.insert("it".to_owned(), it);
        });
        assert!(both.is_ok());
    }

    #[test]
    fn addresses_that_values_name_are_there() {
        let refers = |text: &str| {
            let text = text.to_owned();
            one("it", |s| {
                s.env.insert("URL".to_owned(), text);
            })
        };
        assert!(refers("x${services.app.PUBLIC_URL}y${services.app.INTERNAL_PORT}").is_ok());
        refused(refers("${services.db.PUBLIC_URL}"), "no such service");
        refused(refers("${services.app.URL}"), "a service has PUBLIC_URL");
        refused(refers("${services.it.INTERNAL_URL}"), "lacks a `protocol`");
        refused(refers("${services.it.PUBLIC_URL}"), "lacks a route");
        // Where there are no others, it is a text like any other.
        let alone = ask(|request| {
            request
                .env
                .insert("X".to_owned(), "${services.db.PUBLIC_URL}".to_owned());
        });
        assert!(alone.is_ok());
    }

    #[test]
    fn secrets_are_those_of_the_tenant() {
        let named = |secret: &str| {
            let secrets = BTreeMap::from([("PASSWORD".to_owned(), secret.to_owned())]);
            one("it", |s| s.secrets = secrets)
        };
        assert!(named("KEY").is_ok());
        refused(named("OTHER"), "no secret \"OTHER\"");
        let both = one("it", |s| {
            s.env.insert("A".to_owned(), String::new());
            s.secrets.insert("A".to_owned(), "KEY".to_owned());
        });
        refused(both, "in `env` and in `secrets`");
        let in_value = |secret: &str| {
            let value = format!("postgres://shop:${{secrets.{secret}}}@db");
            one("it", |s| drop(s.env.insert("URL".to_owned(), value)))
        };
        assert!(in_value("KEY").is_ok());
        refused(
            in_value("OTHER"),
            "services.it: this tenant has no secret \"OTHER\"",
        );
        // The one service of a release as well.
        let alone = ask(|request| {
            let value = "${secrets.OTHER}".to_owned();
            request.env.insert("URL".to_owned(), value);
        });
        refused(alone, "app: this tenant has no secret \"OTHER\"");
    }

    #[test]
    fn a_volume_is_at_a_place_of_its_own_and_one_services() {
        let at = |volumes: &[(&str, &str)]| {
            let volumes = volumes.iter().map(|(n, p)| ((*n).into(), (*p).into()));
            one("it", |s| s.volumes = volumes.collect())
        };
        let kept = at(&[("data", "//var/lib//db/"), ("more", "/var/lib/dbs")]).unwrap();
        let kept = kept.service("it").unwrap().volumes;
        assert_eq!(kept["data"], "/var/lib/db");
        for name in ["", "Data", "a--b", "..", "a/b"] {
            refused(at(&[(name, "/data")]), "a name is");
        }
        for (path, why) in [
            ("data", "begins with /"),
            ("", "begins with /"),
            ("/a\nb", "begins with /"),
            ("/a/../b", "holds . or .."),
            ("/./b", "holds . or .."),
            ("/", "root directory"),
            ("//", "root directory"),
            ("/proc", "the system's"),
            ("/sys/fs", "the system's"),
            ("/dev/shm", "the system's"),
        ] {
            refused(at(&[("data", path)]), why);
        }
        refused(at(&[("a", "/x/y"), ("b", "/x")]), "/x/y is within /x");
        refused(at(&[("a", "/x"), ("b", "/x/")]), "/x is within /x");
        let replicas = one("it", |s| {
            s.volumes = BTreeMap::from([("data".to_owned(), "/data".to_owned())]);
            s.replicas = Some(2);
        });
        refused(
            replicas,
            "services.it: one instance at a time may have the volume data",
        );
        let two = ask(|request| {
            request.volumes = BTreeMap::from([("data".to_owned(), "/data".to_owned())]);
            let it = wire::Service {
                volumes: request.volumes.clone(),
                ..wire::Service::default()
            };
            request.services.insert("it".to_owned(), it);
        });
        refused(two, "app and services.it both have the volume data");
    }
}
