//! What services say of each other and of what is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::config::{
    APP, Config, LivenessKind, Protocol, Restart, Route, Service, ServiceHealthKind, Variables,
};
use crate::failure::Failure;
use crate::observed::Observed;
use crate::plan::{Request, in_order, producer};
use crate::tag;

/// What an address of a service consists of, as in `${services.NAME.INTERNAL_URL}`.
const OUTPUTS: [&str; 4] = [
    "PUBLIC_URL",
    "INTERNAL_URL",
    "INTERNAL_HOST",
    "INTERNAL_PORT",
];

/// Set by the platform, another one for each instance.
const PORT: &str = "PORT";

/// Everything that speaks against the services of a release, whatever becomes of their images.
pub(super) fn check(request: &Request, config: &Config, observed: &Observed) -> Vec<Failure> {
    if config.services.is_empty() {
        return Vec::new();
    }
    let mut failures = Vec::new();
    for (name, service) in services(config) {
        failures.extend(alone(name, service));
        failures.extend(checks(name, service));
        failures.extend(secrets(name, service, observed));
    }
    failures.extend(tags(request, config));
    failures.extend(dependencies(config));
    failures.extend(routes(config));
    failures.extend(references(config));
    failures.extend(volumes(config));
    failures
}

fn services(config: &Config) -> impl Iterator<Item = (&str, &Service)> {
    let others = config.services.others.iter();
    others.map(|(name, service)| (name.as_str(), service))
}

fn invalid(details: impl Into<String>, resolution: impl Into<String>) -> Failure {
    Failure::preflight("service_invalid", details, resolution)
}

/// Two images for `app`.
pub(super) fn sources_of_app(config: &Config) -> Option<Failure> {
    let services = &config.services;
    let both = services.binary_of_app().is_some() && services.image_of_app().is_some();
    both.then(|| {
        invalid(
            format!("services.{APP} has binary and image: its image comes from one of them"),
            format!("keep one of them in [services.{APP}], or none for that of its Dockerfile"),
        )
    })
}

/// What a service says that cannot be meant together.
fn alone(name: &str, service: &Service) -> Vec<Failure> {
    let mut failures = Vec::new();
    let sources = [
        ("binary", service.binary.is_some()),
        ("dockerfile", service.dockerfile.is_some()),
        ("image", service.image.is_some()),
    ];
    let said: Vec<_> = sources.iter().filter(|(_, said)| *said).collect();
    if said.len() > 1 {
        let said: Vec<_> = said.iter().map(|(key, _)| *key).collect();
        failures.push(invalid(
            format!(
                "services.{name} has {}: its image comes from one of them",
                said.join(" and ")
            ),
            format!("keep one of them in [services.{name}], or none to run the image of `{APP}`"),
        ));
    }
    if service.protocol == Protocol::Tcp && !service.routes.is_empty() {
        failures.push(invalid(
            format!("services.{name} has routes, which are for HTTP, and its protocol is tcp"),
            format!("take either of them out of [services.{name}]"),
        ));
    }
    for (section, is_set) in [
        ("env", service.env.get(PORT).is_some()),
        ("secrets", service.secrets.contains_key(PORT)),
    ] {
        if is_set {
            failures.push(invalid(
                format!("services.{name}.{section} sets {PORT}, which the platform sets"),
                format!("take it out of services.{name}.{section}"),
            ));
        }
    }
    for (variable, secret) in &service.secrets {
        if service.env.get(variable).is_some() {
            failures.push(invalid(
                format!(
                    "{variable} is in services.{name}.env and in services.{name}.secrets ({secret})"
                ),
                "take it out of one of them",
            ));
        }
    }
    failures
}

/// Checks that a service cannot have as it is.
fn checks(name: &str, service: &Service) -> Vec<Failure> {
    let mut failures = Vec::new();
    let (health, liveness) = (service.health_kind(), service.liveness.kind);
    let asks_a_port = [
        (
            "health",
            matches!(
                health,
                Some(ServiceHealthKind::Http | ServiceHealthKind::Tcp)
            ),
            "process, command or image",
        ),
        (
            "liveness",
            matches!(liveness, LivenessKind::Http | LivenessKind::Tcp),
            "command or none",
        ),
    ];
    for (section, asks_a_port, others) in asks_a_port {
        if asks_a_port && service.speaks() == Protocol::None {
            failures.push(invalid(
                format!("the {section} check of services.{name} asks on a port, and it listens on none: it has neither protocol nor routes"),
                format!("set services.{name}.protocol, or services.{name}.{section}.kind to {others}"),
            ));
        }
    }
    if service.restart == Restart::Never && liveness != LivenessKind::None {
        failures.push(invalid(
            format!("services.{name}.liveness says when an instance is started again, and services.{name}.restart is never"),
            format!("take either of them out of [services.{name}]"),
        ));
    }
    failures
}

/// Secrets that a service is given, and those in the values of its variables.
fn secrets(name: &str, service: &Service, observed: &Observed) -> Vec<Failure> {
    let in_values = service
        .env
        .iter()
        .flat_map(|(_, value)| named_secrets(value));
    let wanted = service.secrets.values().map(String::as_str);
    missing(
        &format!("services.{name} needs"),
        wanted.chain(in_values),
        observed,
    )
}

/// Secrets in the values of the variables of `app`.
pub(super) fn secrets_of_app(config: &Config, observed: &Observed) -> Vec<Failure> {
    let in_values = config
        .env
        .iter()
        .flat_map(|(_, value)| named_secrets(value));
    missing("[env] names", in_values, observed)
}

fn missing<'a>(
    who: &str,
    wanted: impl Iterator<Item = &'a str>,
    observed: &Observed,
) -> Vec<Failure> {
    let Some(known) = &observed.secrets else {
        return Vec::new();
    };
    let missing: BTreeSet<&str> = wanted.filter(|secret| !known.contains(*secret)).collect();
    let failures = missing.into_iter().map(|secret| {
        Failure::preflight(
            "secret_missing",
            format!("{who} the secret {secret}, which the tenant does not have"),
            format!("set it first: cargo xtask secrets set {secret}"),
        )
    });
    failures.collect()
}

/// The secrets that a value names.
fn named_secrets(value: &str) -> impl Iterator<Item = &str> {
    let references = value.split("${secrets.").skip(1);
    references.filter_map(|rest| Some(rest.split_once('}')?.0))
}

/// The tags of services with an image of their own, which are longer than that of `app`, and must not be those that others have in
/// another release: it would run the wrong image when it is deployed once more.
fn tags(request: &Request, config: &Config) -> Vec<Failure> {
    let Some(of_app) = request.tag.as_deref().filter(|tag| tag::is_valid(tag)) else {
        return Vec::new();
    };
    let names = services(config).filter(|(_, service)| service.has_own_image());
    let names: Vec<&str> = names.map(|(name, _)| name).collect();
    let mut failures = Vec::new();
    let own = names.iter().map(|name| format!("{name}-"));
    for begin in std::iter::once(String::new()).chain(own) {
        let tag = format!("{begin}{of_app}");
        if !tag::is_valid(&tag) {
            failures.push(Failure::preflight(
                "tag_invalid",
                format!("`{tag}`, the tag of services.{}, is longer than registries accept", begin.trim_end_matches('-')),
                "choose a shorter --tag: with the name and a dash in front it may have 128 characters",
            ));
        }
        let others = names.iter().filter(|name| name.len() >= begin.len());
        let taken =
            others.filter_map(|name| Some((name, tag.strip_prefix(*name)?.strip_prefix('-')?)));
        // Without a push no tag gets another image.
        let taken = taken.filter(|(_, release)| tag::is_valid(release) && !request.skip_push);
        for (other, release) in taken {
            failures.push(Failure::preflight(
                "tag_invalid",
                format!("`{tag}` is the tag of services.{other} in a release with the tag `{release}`"),
                "choose another --tag: one that does not begin with the name of a service and a dash",
            ));
        }
    }
    failures
}

fn dependencies(config: &Config) -> Vec<Failure> {
    let edges = crate::plan::dependencies(config);
    let mut failures = Vec::new();
    for (name, on) in &edges {
        for unknown in on.iter().filter(|on| !edges.contains_key(*on)) {
            failures.push(unknown_service(
                &format!("services.{name}.depends_on names {unknown}"),
                unknown,
                config,
            ));
        }
    }
    if let Err(circle) = in_order(&edges) {
        failures.push(Failure::preflight(
            "services_circular",
            format!("depends_on goes round in a circle: {}", circle.join(" -> ")),
            "take one of these out of its depends_on; an address of a service may be used without it",
        ));
    }
    failures
}

fn unknown_service(what: &str, unknown: &str, config: &Config) -> Failure {
    let names: Vec<&str> = std::iter::once(APP)
        .chain(services(config).map(|(name, _)| name))
        .collect();
    Failure::preflight(
        "service_unknown",
        format!(
            "{what}, and the services of this release are {}",
            names.join(", ")
        ),
        format!(
            "correct the name, or describe it: [services.{unknown}] in .systemprompt/deploy.toml"
        ),
    )
}

/// No request is for two services.
fn routes(config: &Config) -> Vec<Failure> {
    let of_app = config
        .services
        .app
        .as_ref()
        .and_then(|app| app.routes.as_deref());
    let everything = [Route {
        host: None,
        path: "/".to_owned(),
    }];
    let of_app = of_app.unwrap_or(&everything);
    let others = services(config).map(|(name, service)| (name, service.routes.as_slice()));
    let mut taken: BTreeMap<&Route, &str> = BTreeMap::new();
    let mut failures = Vec::new();
    for (name, routes) in std::iter::once((APP, of_app)).chain(others) {
        for route in routes {
            let Some(other) = taken.insert(route, name).filter(|other| *other != name) else {
                continue;
            };
            let unsaid = other == APP
                && config
                    .services
                    .app
                    .as_ref()
                    .is_none_or(|app| app.routes.is_none());
            failures.push(Failure::preflight(
                "route_taken",
                format!("{other} and {name} both have the route {route}"),
                if unsaid {
                    format!("give {name} another one, or set services.{APP}.routes: without them `{APP}` has all that is for no other")
                } else {
                    "give one of them another one".to_owned()
                },
            ));
        }
    }
    failures
}

/// No volume is for two, neither services nor instances.
fn volumes(config: &Config) -> Vec<Failure> {
    let of_app = config.services.app.iter();
    let of_app = of_app.map(|app| (APP, config.deploy.replicas, &app.volumes));
    let others = services(config).map(|(name, said)| (name, said.replicas, &said.volumes));
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    let mut failures = Vec::new();
    for (name, replicas, volumes) in of_app.chain(others) {
        for volume in volumes.keys() {
            if replicas > 1 {
                failures.push(invalid(
                    format!("services.{name} has the volume {volume} and {replicas} instances: one instance at a time may have it"),
                    "set its replicas to 1, or take the volume away",
                ));
            }
            let path = Path::new(&volumes[volume]);
            let outer = volumes
                .iter()
                .find(|(other, outer)| *other != volume && path.starts_with(outer));
            if let Some((other, outer)) = outer {
                failures.push(invalid(
                    format!(
                        "services.{name}.volumes.{volume} is at {}, within {outer}, where the volume {other} is",
                        path.display()
                    ),
                    "give one of them another path",
                ));
            }
            if let Some(other) = taken.insert(volume, name) {
                failures.push(invalid(
                    format!("{other} and {name} both have the volume {volume}, which is for one service at a time"),
                    "give one of them another",
                ));
            }
        }
    }
    failures
}

/// Addresses of services in values of variables.
fn references(config: &Config) -> Vec<Failure> {
    let mut failures = Vec::new();
    let all = std::iter::once(("env".to_owned(), &config.env));
    let others =
        services(config).map(|(name, service)| (format!("services.{name}.env"), &service.env));
    for (section, env) in all.chain(others) {
        failures.extend(references_of(&section, env, config));
    }
    failures
}

fn references_of(section: &str, env: &Variables, config: &Config) -> Vec<Failure> {
    let mut failures = Vec::new();
    for (variable, value) in env.iter() {
        for (name, output) in named(value) {
            let what = format!("{section}.{variable} names ${{services.{name}.{output}}}");
            let service = services(config).find(|(known, _)| *known == name);
            if service.is_none() && name != APP {
                failures.push(unknown_service(&what, name, config));
            } else if !OUTPUTS.contains(&output) {
                failures.push(invalid(
                    format!("{what}, and a service has {}", OUTPUTS.join(", ")),
                    format!("correct {section}.{variable}"),
                ));
            } else if let Some(lacks) = service.map_or_else(
                || app_lacks(config, output),
                |(_, service)| lacks(service, output),
            ) {
                failures.push(invalid(
                    format!("{what}, and {name} has no {lacks}"),
                    format!("give services.{name} one, or correct {section}.{variable}"),
                ));
            }
        }
    }
    failures
}

fn lacks(service: &Service, output: &str) -> Option<&'static str> {
    match output {
        "PUBLIC_URL" => lacks_a_public_route(&service.routes),
        _ => (service.speaks() == Protocol::None).then_some("protocol"),
    }
}

/// It listens, and has a public address unless its routes say otherwise.
fn app_lacks(config: &Config, output: &str) -> Option<&'static str> {
    let routes = config.services.app.as_ref()?.routes.as_ref()?;
    (output == "PUBLIC_URL").then(|| lacks_a_public_route(routes))?
}

fn lacks_a_public_route(routes: &[Route]) -> Option<&'static str> {
    let names_a_host = |route: &Route| {
        let host = route.host.as_deref();
        host.is_none_or(|host| !host.starts_with("*."))
    };
    (!routes.iter().any(names_a_host)).then_some("route without a wildcard")
}

/// The services and outputs that a value names.
fn named(value: &str) -> Vec<(&str, &str)> {
    let references = value.split("${services.").skip(1);
    let references = references.filter_map(|rest| rest.split_once('}'));
    references
        .map(|(reference, _)| reference.split_once('.').unwrap_or((reference, "")))
        .collect()
}

/// Binaries that no package builds.
pub(super) fn binaries(request: &Request, config: &Config, observed: &Observed) -> Vec<Failure> {
    let of_app = config.services.binary_of_app().map(|binary| (APP, binary));
    let others =
        services(config).filter_map(|(name, service)| Some((name, service.binary.as_deref()?)));
    let wanted = of_app.into_iter().chain(others);
    let wanted = wanted.filter(|(name, _)| !request.there.contains_key(*name));
    let missing = wanted.filter(|(_, binary)| producer(binary, config, observed).is_none());
    let failures = missing.map(|(name, binary)| {
        let mut packages = observed.packages.iter();
        if let Some(package) = packages.find(|package| package.binaries.iter().any(|known| known == binary)) {
            let package = &package.name;
            return Failure::preflight(
                "binary_unknown",
                format!("services.{name}.binary: {binary} is of the package {package}, which build.packages leaves out"),
                format!("add {package} to build.packages"),
            );
        }
        let known = observed
            .packages
            .iter()
            .flat_map(|package| &package.binaries);
        let known: Vec<&str> = known.map(String::as_str).collect();
        Failure::preflight(
            "binary_unknown",
            format!(
                "services.{name}.binary: no package builds {binary}; there are {}",
                known.join(", ")
            ),
            format!("correct the name, or add a package with a binary named {binary}"),
        )
    });
    failures.collect()
}
