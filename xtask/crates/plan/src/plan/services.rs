//! The services of a release: where the image of each comes from, and the order in which they start.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::{Image, Request, image_of};
use crate::config::{self, APP, Base, Config, Platform};
use crate::observed::{Dockerfile, Observed};
use crate::preflight::profile_folder;

/// A service beside `app`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Where its image comes from.
    pub image: ServiceImage,
}

impl Service {
    /// The tag of its image in the tenant's repository, that of `app` being the one given; none where it runs that one.
    #[must_use]
    pub fn tag(&self, of_app: &str) -> Option<String> {
        match self.image {
            ServiceImage::OfApp | ServiceImage::Kept(_) => None,
            _ => Some(format!("{}-{of_app}", self.name)),
        }
    }
}

/// Where the image of a service comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServiceImage {
    /// It is that of `app`.
    OfApp,
    /// It is made here.
    Made(Box<Image>),
    /// It is copied from a registry.
    Copied(Copied),
    /// It is in the tenant's repository, with this digest.
    Kept(String),
    /// It is in the tenant's repository (`--skip-push`).
    There,
}

/// Where the image of `app` comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AppImage {
    /// It is made here, or in the tenant's repository (`--skip-push`).
    #[default]
    Made,
    /// It is copied from a registry.
    Copied(Copied),
    /// It is in the tenant's repository, with this digest.
    Kept(String),
}

/// A finished image of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Its name there.
    pub reference: String,
    /// The machines it is for; Linux on this machine's processor when absent.
    pub platform: Option<Platform>,
    /// Refuse what `deploy.lock` does not pin.
    pub locked: bool,
}

/// Where the instructions for an image stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// A file relative to the project, or what the text is called in messages.
    pub dockerfile: PathBuf,
    /// The instructions, where no file holds them.
    pub text: Option<String>,
}

/// How the image of a service is made, if it has one of its own made; `of_app` is the Dockerfile of `app`.
#[must_use]
pub fn recipe(
    name: &str,
    service: &config::Service,
    config: &Config,
    of_app: &Dockerfile,
) -> Option<Recipe> {
    if let Some(dockerfile) = &service.dockerfile {
        return Some(Recipe {
            dockerfile: dockerfile.clone(),
            text: None,
        });
    }
    let binary = service.binary.as_ref()?;
    let from = match of_app {
        Dockerfile::Read { from, .. } => from,
        Dockerfile::Missing | Dockerfile::Invalid(_) => "scratch",
    };
    Some(of_binary(name, binary, from, config))
}

/// How the image of `app` is made; not at all where it is a finished one.
#[must_use]
pub fn recipe_of_app(config: &Config) -> Option<Recipe> {
    if config.services.image_of_app().is_some() {
        return None;
    }
    let Some(binary) = config.services.binary_of_app() else {
        return Some(Recipe {
            dockerfile: config.image.dockerfile.clone(),
            text: None,
        });
    };
    Some(of_binary(APP, binary, "scratch", config))
}

fn of_binary(name: &str, binary: &str, from: &str, config: &Config) -> Recipe {
    let profile = profile_folder(&config.build.profile);
    Recipe {
        dockerfile: PathBuf::from(format!("services.{name}.binary")),
        text: Some(format!(
            "FROM {from}\nCOPY target/{profile}/{binary} /app/bin/\nWORKDIR /app\nUSER 1000:1000\n\
             ENTRYPOINT [\"/app/bin/{binary}\"]\n"
        )),
    }
}

/// What an image stands on. Where no Dockerfile says what a program needs, it is what it needs of this machine.
pub(super) fn base_of(recipe: &Recipe, config: &Config) -> Base {
    let services = &config.services;
    let unsaid = services.binary_of_app().is_some() || services.image_of_app().is_some();
    match &config.image.base {
        Base::Dockerfile if recipe.text.is_some() && unsaid => Base::Host,
        base => base.clone(),
    }
}

pub(super) fn of_app(request: &Request, config: &Config) -> AppImage {
    if let Some(digest) = request.there.get(APP) {
        return AppImage::Kept(digest.clone());
    }
    match config.services.image_of_app() {
        Some(reference) if !request.skip_push => AppImage::Copied(Copied::of(reference, config)),
        _ => AppImage::Made,
    }
}

impl Copied {
    fn of(reference: &str, config: &Config) -> Self {
        Self {
            reference: reference.to_owned(),
            platform: config.image.platform.clone(),
            locked: config.build.locked,
        }
    }
}

pub(super) fn services(request: &Request, config: &Config, observed: &Observed) -> Vec<Service> {
    let services = config.services.others.iter().map(|(name, service)| {
        let kept = request.there.get(name.as_str());
        let image = match (kept, &service.image) {
            (Some(digest), _) => ServiceImage::Kept(digest.clone()),
            (None, Some(_)) if request.skip_push => ServiceImage::There,
            (None, Some(reference)) => ServiceImage::Copied(Copied::of(reference, config)),
            (None, None) => {
                let recipe = recipe(name.as_str(), service, config, &observed.dockerfile);
                let dockerfile = observed.dockerfiles.get(name.as_str());
                match (recipe, dockerfile) {
                    (None, _) => ServiceImage::OfApp,
                    (Some(_), _) if request.skip_push => ServiceImage::There,
                    (Some(recipe), dockerfile) => {
                        let dockerfile = dockerfile.unwrap_or(&Dockerfile::Missing);
                        let image = image_of(recipe, dockerfile, request, config, observed);
                        ServiceImage::Made(Box::new(image))
                    }
                }
            }
        };
        Service {
            name: name.to_string(),
            image,
        }
    });
    services.collect()
}

/// How many instances each service has that gets requests on the tenant's URL.
pub(super) fn public_replicas(config: &Config) -> impl Iterator<Item = u32> {
    let app = config.services.app.as_ref();
    let routes = app.and_then(|app| app.routes.as_ref());
    let of_app = routes.is_none_or(|routes| !routes.is_empty());
    let of_app = of_app.then_some(config.deploy.replicas);
    let others = config.services.others.values();
    let others = others.filter(|service| !service.routes.is_empty());
    of_app
        .into_iter()
        .chain(others.map(|service| service.replicas))
}

/// All services by name, `app` among them, each with those that it depends on.
pub(crate) fn dependencies(config: &Config) -> BTreeMap<&str, BTreeSet<&str>> {
    fn names(depends_on: &[String]) -> BTreeSet<&str> {
        depends_on.iter().map(String::as_str).collect()
    }
    let of_app = config.services.app.as_ref();
    let of_app = of_app.map_or_else(BTreeSet::new, |app| names(&app.depends_on));
    let others = config.services.others.iter();
    let others = others.map(|(name, service)| (name.as_str(), names(&service.depends_on)));
    others.chain([(APP, of_app)]).collect()
}

pub(super) fn order(config: &Config) -> Vec<String> {
    let order = in_order(&dependencies(config)).unwrap_or_default();
    order.into_iter().map(str::to_owned).collect()
}

/// The names, each behind those that it depends on; else a circle of them. What is not among the names is left out.
pub(crate) fn in_order<'a>(
    edges: &BTreeMap<&'a str, BTreeSet<&'a str>>,
) -> Result<Vec<&'a str>, Vec<&'a str>> {
    let mut order: Vec<&str> = Vec::new();
    while order.len() < edges.len() {
        let waits = |name: &&&str| {
            let before = edges[*name].iter();
            before
                .filter(|on| edges.contains_key(*on))
                .all(|on| order.contains(on))
        };
        let left = edges.keys().filter(|name| !order.contains(name));
        let ready: Vec<&str> = left.filter(waits).copied().collect();
        if ready.is_empty() {
            return Err(circle(edges, &order));
        }
        order.extend(ready);
    }
    Ok(order)
}

/// Of names none of which can be started, each waits for another one: whoever follows them comes back to where they were.
fn circle<'a>(edges: &BTreeMap<&'a str, BTreeSet<&'a str>>, started: &[&'a str]) -> Vec<&'a str> {
    let waiting = |name: &&&str| edges.contains_key(**name) && !started.contains(*name);
    let mut path: Vec<&str> = Vec::new();
    let mut at = edges.keys().find(waiting).copied();
    while let Some(name) = at {
        if let Some(begin) = path.iter().position(|before| *before == name) {
            let mut circle = path.split_off(begin);
            circle.push(name);
            return circle;
        }
        path.push(name);
        at = edges[name].iter().find(waiting).copied();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(edges: &[(&'static str, &[&'static str])]) -> String {
        let edges = edges
            .iter()
            .map(|(name, on)| (*name, on.iter().copied().collect()))
            .collect();
        match in_order(&edges) {
            Ok(order) => order.join(" "),
            Err(circle) => format!("circle {}", circle.join(" -> ")),
        }
    }

    #[test]
    fn each_behind_those_that_it_depends_on() {
        let web = [
            ("app", &["api"][..]),
            ("api", &["db", "cache"]),
            ("cache", &[]),
            ("db", &[]),
            ("worker", &["db"]),
        ];
        assert_eq!(check(&web), "cache db api worker app");
        assert_eq!(check(&[("app", &["gone"])]), "app");
    }

    #[test]
    fn a_circle_is_told_without_what_only_leads_to_it() {
        let edges = [
            ("app", &["a"][..]),
            ("a", &["b"]),
            ("b", &["c", "free"]),
            ("c", &["b"]),
            ("free", &[]),
        ];
        assert_eq!(check(&edges), "circle b -> c -> b");
        assert_eq!(check(&[("app", &["app"])]), "circle app -> app");
    }
}
