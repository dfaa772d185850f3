//! The services of a file, and those that were deployed.

use crate::state::{Generation, State, hexadecimal};
use crate::toml::{self, Table, Value};

#[derive(Clone, Default)]
pub struct Service {
    pub id: String,
    pub name: String,
    pub kind: String,
    pub is_public: bool,
    /// What the control plane calls it.
    pub slug: String,
    image: String,
    /// With which it was deployed last.
    pub deployment: String,
}

/// The services that a file describes.
pub fn read(source: &str) -> Result<Vec<Service>, String> {
    let file = toml::read(source)?;
    let Some(Value::List(list)) = file.get("services") else {
        return Err("no [[services]]".to_owned());
    };
    let mut services: Vec<Service> = Vec::new();
    for entry in list {
        let Value::Table(table) = entry else {
            return Err("a service is no table".to_owned());
        };
        let service = Service::of(table)?;
        let is_taken = |other: &Service| other.id == service.id || other.name == service.name;
        if services.iter().any(is_taken) {
            return Err(format!("service {}: its id or name is taken", service.name));
        }
        services.push(service);
    }
    Ok(services)
}

impl Service {
    fn of(table: &Table) -> Result<Self, String> {
        let words = |path: &[&str]| {
            let words = table.at(path).and_then(Value::words);
            words.unwrap_or_default().to_owned()
        };
        let settings = |name| words(&["configuration", "settings", name]);
        let service = Self {
            id: words(&["uniqueIdentifier"]),
            name: words(&["name"]),
            kind: words(&["type"]),
            is_public: settings("publicNet") == "true",
            slug: words(&["slug"]),
            image: settings("image"),
            deployment: String::new(),
        };
        for (value, name) in [
            (&service.id, "uniqueIdentifier"),
            (&service.name, "name"),
            (&service.kind, "type"),
        ] {
            if value.is_empty() {
                return Err(format!("a service has no {name}"));
            }
        }
        Ok(service.with_slug())
    }

    /// A control plane gives one to those that have none.
    fn with_slug(mut self) -> Self {
        if self.slug.is_empty() {
            self.slug = format!("s-{}", hexadecimal(&self.name));
        }
        self
    }

    /// What it is called for ever.
    pub fn key(&self) -> String {
        format!("svc-{}", hexadecimal(&self.name))
    }

    /// Whether a word on the command line means it.
    pub fn is_called(&self, word: &str, state: &State) -> bool {
        let by_name = self.name == word && !state.has("knows-slugs-alone");
        by_name || self.slug == word || self.key() == word
    }

    /// `${101.outputs.IMAGE_URL}` and the like: nobody but whoever has built it knows the image.
    fn needs_an_image(&self) -> bool {
        let mut rest = self.image.split("${").skip(1);
        rest.any(|part| part.starts_with(|c: char| c.is_ascii_digit()))
    }
}

/// Those that are to be deployed: all that are no builds, or the ones that are named.
pub fn chosen(
    services: Vec<Service>,
    named: Option<&[&str]>,
    state: &State,
) -> Result<Vec<Service>, String> {
    for name in named.into_iter().flatten() {
        match services.iter().find(|service| service.name == *name) {
            None => return Err(format!("service {name} not found")),
            Some(service) if service.kind == "build" => {
                return Err(format!("service {name} is a build and is not deployed"));
            }
            Some(_) => {}
        }
    }
    let is_chosen = |service: &Service| {
        let name = service.name.as_str();
        service.kind != "build" && named.is_none_or(|named| named.contains(&name))
    };
    let chosen: Vec<_> = services.into_iter().filter(is_chosen).collect();
    if chosen.is_empty() {
        return Err("there is nothing to deploy".to_owned());
    }
    let unknown = chosen.iter().find(|service| service.needs_an_image());
    match unknown.filter(|_| !state.has("resolves-images")) {
        Some(service) => {
            let (name, image) = (&service.name, &service.image);
            Err(format!("service {name}: no image {image}"))
        }
        None => Ok(chosen),
    }
}

/// Remembers a deployment; its name.
pub fn deploy(state: &State, chosen: &[Service]) -> String {
    let id = format!("deploy-{:04}", state.count("deployments"));
    let mut order = lines(state, "order");
    for service in chosen {
        let name = &service.name;
        if !order.contains(name) {
            order.push(name.clone());
        }
        let kind = &service.kind;
        let (public, slug) = (service.is_public, &service.slug);
        let facts = format!("{kind}\n{public}\n{id}\n{slug}");
        state.keep(&of(name, "facts"), facts);
        state.keep(&of(name, "looks"), "0");
    }
    state.keep("order", order.join("\n"));
    let names: Vec<_> = chosen.iter().map(|service| &*service.name).collect();
    let mut history = lines(state, "history");
    history.push(format!("{id}\t{}", names.join("\t")));
    state.keep("history", history.join("\n"));
    id
}

/// Every service that was deployed, the first one first.
pub fn deployed(state: &State) -> Vec<Service> {
    let services = lines(state, "order").into_iter().map(|name| {
        let facts = lines(state, &of(&name, "facts"));
        let fact = |at: usize| facts.get(at).cloned().unwrap_or_default();
        Service {
            kind: fact(0),
            is_public: fact(1) == "true",
            deployment: fact(2),
            slug: fact(3),
            name,
            ..Service::default()
        }
    });
    services.collect()
}

/// Deployments with the names of their services, the oldest first.
pub fn history(state: &State) -> Vec<(String, Vec<String>)> {
    let lines = lines(state, "history").into_iter().map(|line| {
        let mut words = line.split('\t').map(str::to_owned);
        (words.next().unwrap_or_default(), words.collect())
    });
    lines.collect()
}

/// The state in which the next look finds a service. In the last one it stays.
pub fn next_state(state: &State, service: &Service) -> String {
    let end = match state.generation() {
        Generation::Old => "healthy",
        Generation::New => "completed",
    };
    let states = state.setting_of(&service.name, "states");
    let before = match state.has("at-once") {
        true => "",
        false => "pending\nbuilding\ndeploying\n",
    };
    let states = states.unwrap_or_else(|| format!("{before}{end}"));
    let states: Vec<_> = states.lines().collect();
    let look = state.count(&of(&service.name, "looks"));
    states[(look - 1).min(states.len() - 1)].to_owned()
}

/// Where it can be reached.
pub fn outputs(state: &State, service: &Service) -> Vec<(String, String)> {
    if let Some(text) = state.setting_of(&service.name, "outputs") {
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        return pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
    }
    let name = &service.name;
    let inner = match state.generation() {
        Generation::Old => "INTERNAL_URL",
        Generation::New => "PRIVATE_URL",
    };
    let mut outputs = Vec::new();
    if service.is_public {
        outputs.push(("PUBLIC_URL".to_owned(), format!("https://{name}.aramb.dev")));
    }
    outputs.push((inner.to_owned(), format!("http://{name}:8080")));
    outputs
}

/// The file with `id` and `slug` below the header of each service that has none yet.
pub fn with_ids(source: &str, chosen: &[Service]) -> String {
    let line_end = if source.contains("\r\n") {
        "\r\n"
    } else {
        "\n"
    };
    let headers = source.match_indices("[[services]]").map(|(at, _)| at);
    let headers = headers.filter(|at| source[..*at].ends_with('\n') || *at == 0);
    let headers: Vec<_> = headers.collect();
    let mut text = String::new();
    let mut copied = 0;
    for (nth, at) in headers.iter().enumerate() {
        let end = headers.get(nth + 1).copied().unwrap_or(source.len());
        let part = &source[*at..end];
        let services = read(part).unwrap_or_default();
        let Some(service) = services.first() else {
            continue;
        };
        if !chosen.iter().any(|other| other.name == service.name) {
            continue;
        }
        let line = source[*at..]
            .find('\n')
            .map_or(end, |length| at + length + 1);
        text.push_str(&source[copied..line]);
        for (key, value) in [("id", service.key()), ("slug", service.slug.clone())] {
            if !part.contains(&format!("\n{key} = ")) {
                text.push_str(&format!("{key} = \"{value}\"{line_end}"));
            }
        }
        copied = line;
    }
    text.push_str(&source[copied..]);
    text
}

fn of(name: &str, what: &str) -> String {
    format!("services/{}/{what}", hexadecimal(name))
}

fn lines(state: &State, name: &str) -> Vec<String> {
    let text = state.kept(name).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
