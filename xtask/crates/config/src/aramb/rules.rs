//! What services have to be for what they are, and what references may name.

use std::collections::HashMap;
use std::ops::Range;

use deploy_plan::aramb::{
    ArambFile, BadReference, Graph, OutputName, Reference, Service, ServiceType, Target, Value,
    references,
};

use super::Notes;
use crate::check::Fault;
use crate::nearest::nearest;

/// A reference in a text, or what looks like one.
type Found = Result<Reference, (Range<usize>, BadReference)>;

/// So many services are listed where one that does not exist is named.
const LISTED: usize = 6;

pub(super) fn check(file: &ArambFile, notes: &mut Notes<'_>) {
    let by_id: HashMap<u64, &Service> = file
        .services
        .iter()
        .rev()
        .map(|service| (service.id, service))
        .collect();
    for service in &file.services {
        check_type(service, notes);
        check_twice(service, notes);
        for value in service.plain_values() {
            check_value(file, &by_id, value, true, notes);
        }
        for secret in &service.secrets {
            check_value(file, &by_id, &secret.value, false, notes);
        }
    }
}

fn check_type(service: &Service, notes: &mut Notes<'_>) {
    let settings = &service.settings;
    let about = |message: String| Fault::new(format!("service `{}`: {message}", service.name));
    let at = || service.span.clone();
    let kind = service.kind.name();
    match service.kind {
        ServiceType::Build => {
            if !is_repository(&service.name) {
                let fault = about("an image cannot have this name".to_owned());
                let help = "use small letters, digits and single `-`, `_` or `.` between them";
                notes.wrong(at(), fault.with_help(help));
            }
        }
        ServiceType::Frontend => {
            if settings.image.is_none() && settings.static_path.is_none() {
                let fault = about("a frontend needs an `image` or a `staticPath`".to_owned());
                notes.wrong(at(), fault);
            }
        }
        ServiceType::Backend => {
            if settings.image.is_none() {
                let help = "image = \"${101.outputs.IMAGE_URL}\" for what the build 101 makes";
                let fault = about("a backend needs an `image`".to_owned());
                notes.wrong(at(), fault.with_help(help));
            }
        }
        ServiceType::Postgres | ServiceType::Redis | ServiceType::Mongodb => {
            if settings.image.is_none() {
                let version = match service.kind {
                    ServiceType::Postgres => "postgres:16",
                    ServiceType::Redis => "redis:7",
                    _ => "mongo:7",
                };
                let fault = about(format!("a service of type {kind} needs an `image`"));
                notes.wrong(at(), fault.with_help(format!("image = \"{version}\"")));
            }
        }
        ServiceType::ArambAgent | ServiceType::Onboarding | ServiceType::Template => {}
    }
    let is_public = settings.public_net == Some(true);
    if is_public && settings.command_port.is_none() && service.kind == ServiceType::Backend {
        let fault = about("`publicNet` needs a `commandPort`".to_owned());
        notes.wrong(at(), fault.with_help("say which port it listens on"));
    }
}

/// A component of a repository's name (the grammar of the distribution specification).
fn is_repository(name: &str) -> bool {
    let parts = name.split(['.', '_', '-']);
    let is_plain = |part: &str| {
        part.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    parts.clone().all(is_plain)
        && ends(name.chars().next())
        && ends(name.chars().next_back())
        && !name.contains("..")
        && !name.contains("._")
        && !name.contains("_.")
        && !name.contains("___")
}

fn check_twice(service: &Service, notes: &mut Notes<'_>) {
    for secret in &service.secrets {
        if service.var(&secret.key).is_some() {
            let message = format!("`{}` is a variable and a secret of one service", secret.key);
            let fault = Fault::new(message).with_help("leave it among the secrets");
            notes.wrong(secret.value.span.clone(), fault);
        }
    }
}

fn check_value(
    file: &ArambFile,
    by_id: &HashMap<u64, &Service>,
    value: &Value,
    is_plain: bool,
    notes: &mut Notes<'_>,
) {
    let written: Vec<_> = references(&notes.source[value.span.clone()]).collect();
    for (number, found) in references(&value.text).enumerate() {
        let span = within(value, &found, written.get(number));
        let reference = match found {
            Ok(reference) => reference,
            Err((_, bad)) => {
                notes.wrong(span, malformed(&bad));
                continue;
            }
        };
        let Some(named) = by_id.get(&reference.service) else {
            notes.wrong(span, nobody(file, &reference));
            continue;
        };
        if let Some(fault) = wrong_kind(named, &reference) {
            notes.wrong(span, fault);
        } else if is_plain && matches!(reference.target, Target::Secret(_)) {
            let fault = Fault::new("a secret becomes part of a text that is none");
            let help = "move it to [[services.configuration.secrets]]";
            notes.odd(span, fault.with_help(help));
        } else if let Some(fault) = odd(named, value, &reference) {
            notes.odd(span, fault);
        }
    }
}

/// Where a reference stands in the file: in the text between the quotes as it is written there, if it is the same.
fn within(value: &Value, found: &Found, written: Option<&Found>) -> Range<usize> {
    match written {
        Some(written) if is_same(found, written) => {
            let range = range(written);
            value.span.start + range.start..value.span.start + range.end
        }
        _ => value.span.clone(),
    }
}

fn is_same(one: &Found, other: &Found) -> bool {
    match (one, other) {
        (Ok(one), Ok(other)) => (one.service, &one.target) == (other.service, &other.target),
        // The end of the quotes is no part of a reference that has no end.
        (Err((_, one)), Err((_, other))) => one == other && *one != BadReference::Open,
        _ => false,
    }
}

fn range(found: &Found) -> Range<usize> {
    match found {
        Ok(reference) => reference.range.clone(),
        Err((range, _)) => range.clone(),
    }
}

fn malformed(bad: &BadReference) -> Fault {
    let help = match bad {
        BadReference::Part(part) => nearest(part, ["vars", "secrets", "outputs"]).map_or_else(
            || "it has vars, secrets and outputs".to_owned(),
            |close| format!("did you mean `{close}`?"),
        ),
        BadReference::Output(name) => {
            let names = OutputName::NAMES.map(|(name, _)| name);
            nearest(name, names).map_or_else(
                || format!("outputs are {}", names.join(", ")),
                |close| format!("did you mean `{close}`?"),
            )
        }
        _ => "as in ${100.outputs.PUBLIC_URL}, ${100.vars.NAME}, ${100.secrets.NAME}".to_owned(),
    };
    Fault::new(bad.to_string()).with_help(help)
}

fn nobody(file: &ArambFile, reference: &Reference) -> Fault {
    let fault = Fault::new(format!("there is no service {}", reference.service));
    let mut listed: Vec<_> = file.services.iter().collect();
    listed.sort_by_key(|service| (service.id.abs_diff(reference.service), service.id));
    listed.truncate(LISTED);
    listed.sort_by_key(|service| service.id);
    let listed: Vec<_> = listed
        .iter()
        .map(|service| format!("{} ({})", service.id, service.name))
        .collect();
    fault.with_help(format!("there are {}", listed.join(", ")))
}

/// What the service that is named cannot have.
fn wrong_kind(named: &Service, reference: &Reference) -> Option<Fault> {
    let (name, kind) = (&named.name, named.kind.name());
    let is_build = named.kind == ServiceType::Build;
    let (key, known, what) = match &reference.target {
        Target::Output(OutputName::ImageUrl) if !is_build => {
            let message = format!("`{name}` ({kind}) makes no image");
            return Some(
                Fault::new(message).with_help("only services of type build have IMAGE_URL"),
            );
        }
        Target::Output(OutputName::PublicUrl | OutputName::InternalUrl) if is_build => {
            let message = format!("`{name}` is a build, which has no URL");
            return Some(Fault::new(message).with_help("name the service that runs its image"));
        }
        Target::Output(_) => return None,
        Target::Var(key) => (key, &named.vars, "variable"),
        Target::Secret(key) => (key, &named.secrets, "secret"),
    };
    if known.iter().any(|variable| variable.key == *key) {
        return None;
    }
    let fault = Fault::new(format!("`{name}` has no {what} `{key}`"));
    let names: Vec<_> = known.iter().map(|variable| variable.key.as_str()).collect();
    Some(match nearest(key, names.iter().copied()) {
        Some(close) => fault.with_help(format!("did you mean `{close}`?")),
        None if names.is_empty() => fault.with_help(format!("it has no {what}s at all")),
        None => fault.with_help(format!("it has {}", names.join(", "))),
    })
}

/// What is most likely not meant so.
fn odd(named: &Service, value: &Value, reference: &Reference) -> Option<Fault> {
    let Target::Output(output) = reference.target else {
        return None;
    };
    let name = &named.name;
    if output == OutputName::PublicUrl && named.settings.public_net != Some(true) {
        let message = format!("`{name}` has no public URL");
        return Some(Fault::new(message).with_help("set publicNet = true there"));
    }
    let (before, after) = (
        &value.text[..reference.range.start],
        &value.text[reference.range.end..],
    );
    let is_url = output != OutputName::ImageUrl;
    let has_scheme = before.ends_with('@') || before.ends_with("://");
    let has_port = after
        .strip_prefix(':')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if !is_url || !(has_scheme || has_port) {
        return None;
    }
    let around = match (has_scheme, has_port) {
        (true, true) => "a scheme or a user before it and a port behind it",
        (true, false) => "a scheme or a user before it",
        (false, _) => "a port behind it",
    };
    let message = format!(
        "the URL of `{name}` may have a scheme and a port of its own, and the text has {around}"
    );
    let help = "take the URL alone, or keep host and port in a variable of that service";
    Some(Fault::new(message).with_help(help))
}

pub(super) fn check_circles(file: &ArambFile, graph: &Graph, notes: &mut Notes<'_>) {
    for cycle in &graph.cycles {
        let names: Vec<_> = cycle
            .services
            .iter()
            .map(|position| file.services[*position].name.as_str())
            .collect();
        let names = names.join(", ");
        if cycle.is_strict {
            let message = format!("there is no order in which these can be made: {names}");
            let help = "images and variables cannot depend on each other in a circle; take one reference out";
            notes.wrong(cycle.span.clone(), Fault::new(message).with_help(help));
        } else {
            let message = format!("these name each other's URLs in a circle: {names}");
            let help = "the first of them to run does so before the others' URLs answer";
            notes.odd(cycle.span.clone(), Fault::new(message).with_help(help));
        }
    }
}
