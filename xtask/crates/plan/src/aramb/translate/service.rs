//! One service: its image, its command, its environment, where it is reached.

use std::collections::{BTreeMap, BTreeSet};

use super::values::Values;
use super::{Fault, PORT, Wanted, amounts, command};
use crate::aramb::{Edge, EdgeKind, OutputName, Service, ServiceType, Target, Value, references};
use crate::config::{self, APP, Health, Protocol, Restart, Route, ServiceHealthKind};

/// From this version on its data is in a folder of each version.
const POSTGRES_WITH_VERSIONS: u32 = 18;

pub(super) struct Translation<'a> {
    pub(super) wanted: &'a Wanted<'a>,
    pub(super) listening: &'a BTreeSet<usize>,
    pub(super) values: Values<'a>,
    pub(super) builds: BTreeMap<usize, usize>,
    pub(super) notes: Vec<String>,
    pub(super) faults: Vec<Fault>,
}

impl Translation<'_> {
    pub(super) fn service(&mut self, position: usize) -> config::Service {
        let service = &self.wanted.file.services[position];
        let is_database = service.kind.is_database();
        let listens = self.listening.contains(&position);
        let image = self.image(position);
        let mut translated = config::Service {
            command: self.command(position),
            depends_on: self.depends_on(position),
            protocol: match (listens, is_database) {
                (false, _) => Protocol::None,
                (true, true) => Protocol::Tcp,
                (true, false) => Protocol::Http,
            },
            routes: self.routes(position),
            restart: self.restart(service),
            env: self.env(position),
            volumes: if is_database {
                volume(
                    self.wanted.names.fitting(position),
                    service,
                    image.as_deref(),
                )
            } else {
                BTreeMap::new()
            },
            image,
            ..config::Service::default()
        };
        if let Some(text) = self.setting(position, "cpu", service.settings.cpu.as_ref()) {
            match amounts::cpus(&text) {
                Some(cpus) => translated.resources.cpus = cpus,
                None => self.faults.push(Fault::invalid(
                    "cpu_invalid",
                    service,
                    "cpu",
                    &text,
                    "write 0.01 or more processors, as in 0.5 or 500m",
                )),
            }
        }
        if let Some(text) = self.setting(position, "memory", service.settings.memory.as_ref()) {
            translated.resources.memory = amounts::memory(&text);
            if translated.resources.memory.is_none() {
                self.faults.push(Fault::invalid(
                    "memory_invalid",
                    service,
                    "memory",
                    &text,
                    "write a number with Ki, Mi, Gi or Ti, as in 512Mi",
                ));
            }
        }
        if translated.protocol == Protocol::Http {
            // Which path answers when it is well, the file does not say.
            translated.health = Some(Health {
                kind: ServiceHealthKind::Tcp,
                ..Health::default()
            });
        }
        translated
    }

    /// A setting without its references.
    fn setting(&mut self, position: usize, key: &str, value: Option<&Value>) -> Option<String> {
        match self.values.plain(position, key, &value?.text) {
            Ok(text) => Some(text),
            Err(fault) => {
                self.faults.push(fault);
                None
            }
        }
    }

    /// A finished image; none where a build makes it, which is noted.
    fn image(&mut self, position: usize) -> Option<String> {
        let service = &self.wanted.file.services[position];
        let Some(value) = &service.settings.image else {
            self.faults.push(Fault::new(
                "image_missing",
                format!("`{}` has no image", service.name),
                "give it one: image = \"postgres:15\", or \"${101.outputs.IMAGE_URL}\"",
            ));
            return None;
        };
        if let Some(build) = self.build(&value.text) {
            self.builds.insert(position, build);
            return None;
        }
        let text = self.setting(position, "image", Some(value))?;
        if !config::looks_like_a_reference(&text) {
            self.faults.push(Fault::invalid(
                "image_invalid",
                service,
                "image",
                &text,
                "write the image of a registry, as in postgres:15, or a build's alone: \"${101.outputs.IMAGE_URL}\"",
            ));
        }
        Some(text)
    }

    /// The build whose image a text is, and nothing else.
    fn build(&self, text: &str) -> Option<usize> {
        let mut found = references(text).flatten();
        let reference = found.next()?;
        let is_image = reference.target == Target::Output(OutputName::ImageUrl);
        let is_whole = reference.range == (0..text.len());
        let position = (is_image && is_whole).then_some(reference.service)?;
        let mut services = self.wanted.file.services.iter();
        services.position(|service| service.id == position)
    }

    fn command(&mut self, position: usize) -> Vec<String> {
        let service = &self.wanted.file.services[position];
        let cmd = self.setting(position, "cmd", service.settings.cmd.as_ref());
        let Some(cmd) = cmd.filter(|cmd| !cmd.trim().is_empty()) else {
            return usual_command(service.kind);
        };
        let program = self.builds_program(position).map(str::to_owned);
        let Some(program) = program else {
            return command::words(&cmd);
        };
        // Its image has no shell, and its program is run whatever the command is.
        let words = command::plain(&cmd);
        let is_it = |word: &String| word.rsplit('/').next() == Some(program.as_str());
        match words {
            Some(words) if words.first().is_some_and(is_it) => words[1..].to_vec(),
            _ => {
                self.faults.push(Fault::new(
                    "command_not_offered",
                    format!(
                        "`{}` runs `{cmd}` in an image that holds nothing but the program {program}",
                        service.name
                    ),
                    format!("begin cmd with {program}, without what needs a shell, or build it with a Dockerfile"),
                ));
                Vec::new()
            }
        }
    }

    /// The one program in the image of a service, where it is such an image.
    fn builds_program(&self, position: usize) -> Option<&str> {
        let value = self.wanted.file.services[position]
            .settings
            .image
            .as_ref()?;
        let build = self.build(&value.text)?;
        self.wanted.programs.get(&build).map(String::as_str)
    }

    /// Those whose addresses or values it takes, as far as they can be there before it.
    fn depends_on(&self, position: usize) -> Vec<String> {
        let place = |position: usize| {
            let mut order = self.wanted.graph.order.iter();
            order.position(|other| *other == position)
        };
        let of_this = |edge: &&Edge| edge.from == position && edge.kind != EdgeKind::Image;
        let edges = self.wanted.graph.edges.iter().filter(of_this);
        let before = edges.filter(|edge| {
            self.wanted.services.contains(&edge.to) && place(edge.to) < place(position)
        });
        let names: BTreeSet<&str> = before
            .map(|edge| self.wanted.names.on_platform(edge.to))
            .collect();
        names.into_iter().map(str::to_owned).collect()
    }

    /// A host of its own for what is public, but for the one that gets all else.
    fn routes(&self, position: usize) -> Vec<Route> {
        let settings = &self.wanted.file.services[position].settings;
        let names = self.wanted.names;
        if settings.public_net != Some(true) || names.on_platform(position) == APP {
            return Vec::new();
        }
        vec![Route {
            host: Some(format!("{}.{}", names.fitting(position), self.wanted.host)),
            path: "/".to_owned(),
        }]
    }

    fn restart(&mut self, service: &Service) -> Restart {
        let Some(policy) = &service.settings.restart_policy else {
            return Restart::Always;
        };
        amounts::restart(&policy.text).unwrap_or_else(|| {
            self.faults.push(Fault::invalid(
                "restart_policy_unknown",
                service,
                "restartPolicy",
                &policy.text,
                "write always, on-failure or never",
            ));
            Restart::Always
        })
    }

    /// Variables and secrets; of one that is both, the secret holds.
    fn env(&mut self, position: usize) -> config::Variables {
        let service = &self.wanted.file.services[position];
        let vars = service.vars.iter().map(|variable| (variable, false));
        let secrets = service.secrets.iter().map(|variable| (variable, true));
        let mut env = BTreeMap::new();
        for (variable, is_secret) in vars.chain(secrets) {
            let key = &variable.key;
            if key == PORT {
                self.notes.push(format!(
                    "PORT of `{}` is the one that the platform chooses, not the one in the file",
                    service.name
                ));
                continue;
            }
            if !config::is_variable_name(key) {
                self.faults.push(Fault::new(
                    "variable_invalid",
                    format!("`{key}` of `{}` is no name of a variable", service.name),
                    "use letters, digits and `_`, no digit first",
                ));
                continue;
            }
            match self
                .values
                .value(position, key, &variable.value.text, is_secret)
            {
                Ok(value) => drop(env.insert(key.clone(), value)),
                Err(fault) => self.faults.push(fault),
            }
        }
        env.into_iter().collect()
    }
}

/// Databases read no `PORT`, and the platform chooses it.
fn usual_command(kind: ServiceType) -> Vec<String> {
    let words: &[&str] = match kind {
        ServiceType::Postgres => &["postgres", "-p", "${PORT}"],
        ServiceType::Redis => &["redis-server", "--port", "${PORT}"],
        ServiceType::Mongodb => &["mongod", "--port", "${PORT}", "--bind_ip_all"],
        _ => &[],
    };
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What outlives its instances: the folder that its image keeps data in.
fn volume(name: &str, service: &Service, image: Option<&str>) -> BTreeMap<String, String> {
    let tag = image.and_then(|image| image.rsplit_once(':'));
    let version = tag.and_then(|(_, tag)| {
        let digits = tag.bytes().take_while(u8::is_ascii_digit).count();
        tag[..digits]
            .parse::<u32>()
            .ok()
            .filter(|_| !tag.contains('/'))
    });
    let folder = match service.kind {
        ServiceType::Redis => "/data",
        ServiceType::Mongodb => "/data/db",
        _ if version.is_some_and(|version| version < POSTGRES_WITH_VERSIONS) => {
            "/var/lib/postgresql/data"
        }
        // The newest, where none is said.
        _ => "/var/lib/postgresql",
    };
    [(name.to_owned(), folder.to_owned())].into()
}
