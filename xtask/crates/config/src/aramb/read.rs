//! From TOML to services.

use std::collections::HashMap;
use std::ops::Range;

use deploy_plan::aramb::{
    ArambFile, FIRST_ID, Service, ServiceSettings, ServiceType, Value, Variable,
};
use deploy_plan::config::is_secret_name;
use toml::de::DeTable;

use super::Notes;
use super::fields::Fields;
use crate::check::Fault;
use crate::nearest::nearest;

/// How files name the application, the newest first.
const APPLICATION: [&str; 3] = ["applicationID", "applicationId", "application"];

pub(super) fn file(table: &DeTable<'_>, notes: &mut Notes<'_>) -> ArambFile {
    let top = Fields::new(table, 0..0);
    let mut applications: Vec<Value> = application(&top, notes).into_iter().collect();
    if top.get("services").is_none() {
        let fault = Fault::new("the file describes no service");
        notes.wrong(
            0..0,
            fault.with_help("begin each service with [[services]]"),
        );
    }
    let mut seen = Seen::default();
    let mut services = Vec::new();
    for fields in top.sections("services", "[[services]]", notes) {
        applications.extend(application(&fields, notes));
        services.extend(service(&fields, &mut seen, notes));
    }
    let application = applications.first().cloned();
    for other in &applications {
        if application
            .as_ref()
            .is_some_and(|first| first.text != other.text)
        {
            let fault = Fault::new("the services belong to different applications");
            notes.wrong(
                other.span.clone(),
                fault.with_help("a file describes the services of one application"),
            );
        }
    }
    ArambFile {
        application,
        services,
    }
}

/// Numbers and names that are taken, with the line of who has them.
#[derive(Default)]
struct Seen {
    ids: HashMap<u64, usize>,
    names: HashMap<String, usize>,
}

fn application(fields: &Fields<'_, '_>, notes: &mut Notes<'_>) -> Option<Value> {
    let key = APPLICATION
        .into_iter()
        // A section of this name describes the application, and does not name it.
        .find(|key| fields.get(key).is_some_and(|value| value.get_ref().is_str()))?;
    fields.text(key, notes)
}

fn service(fields: &Fields<'_, '_>, seen: &mut Seen, notes: &mut Notes<'_>) -> Option<Service> {
    let id = id(fields, seen, notes);
    let name = name(fields, seen, notes);
    let kind = kind(fields, notes);
    let slug = fields.text("slug", notes).map(|slug| slug.text);
    for key in ["description", "id"] {
        fields.scalar(key, notes);
    }
    let configuration = fields.section("configuration", notes);
    let settings = configuration
        .as_ref()
        .and_then(|configuration| configuration.section("settings", notes))
        .map(|settings| self::settings(&settings, notes))
        .unwrap_or_default();
    let variables = |key, notes: &mut Notes<'_>| {
        configuration
            .as_ref()
            .map(|configuration| variables(configuration, key, notes))
            .unwrap_or_default()
    };
    let vars = variables("vars", notes);
    let secrets = variables("secrets", notes);
    Some(Service {
        id: id?,
        name: name?.text,
        kind: kind?,
        span: fields.span.clone(),
        slug,
        settings,
        vars,
        secrets,
    })
}

fn id(fields: &Fields<'_, '_>, seen: &mut Seen, notes: &mut Notes<'_>) -> Option<u64> {
    if fields.get("uniqueIdentifier").is_none() {
        let fault = Fault::new("the service has no `uniqueIdentifier`");
        let help = format!("give it a number of its own, {FIRST_ID} or more");
        notes.wrong(fields.span.clone(), fault.with_help(help));
        return None;
    }
    let (id, span) = fields.number("uniqueIdentifier", notes)?;
    if id < FIRST_ID {
        let fault = Fault::new(format!("`uniqueIdentifier`: {id} is less than {FIRST_ID}"));
        notes.wrong(span.clone(), fault);
    }
    is_new(&mut seen.ids, id, &span, "uniqueIdentifier", notes);
    Some(id)
}

fn name(fields: &Fields<'_, '_>, seen: &mut Seen, notes: &mut Notes<'_>) -> Option<Value> {
    if fields.get("name").is_none() {
        notes.wrong(fields.span.clone(), Fault::new("the service has no `name`"));
        return None;
    }
    let name = fields.text("name", notes)?;
    let span = name.span.clone();
    if name.text.is_empty() || name.text.contains([',', '"', '\'']) || has_blanks(&name.text) {
        let fault = Fault::new("`name`: no name that a command can be given");
        let help = "use letters, digits and `-`, as in `backend-api`";
        notes.wrong(span.clone(), fault.with_help(help));
    }
    is_new(&mut seen.names, name.text.clone(), &span, "name", notes);
    Some(name)
}

fn has_blanks(text: &str) -> bool {
    text.chars().any(|c| c.is_whitespace() || c.is_control())
}

fn is_new<K: std::hash::Hash + Eq + std::fmt::Display>(
    seen: &mut HashMap<K, usize>,
    key: K,
    span: &Range<usize>,
    what: &str,
    notes: &mut Notes<'_>,
) {
    let shown = key.to_string();
    if let Some(first) = seen.insert(key, span.start) {
        let line = notes.source[..first].matches('\n').count() + 1;
        let fault = Fault::new(format!(
            "`{what}`: {shown} is there already, in line {line}"
        ));
        notes.wrong(span.clone(), fault.with_help("give one of them another"));
    }
}

fn kind(fields: &Fields<'_, '_>, notes: &mut Notes<'_>) -> Option<ServiceType> {
    if fields.get("type").is_none() {
        notes.wrong(
            fields.span.clone(),
            Fault::new("the service has no `type`").with_help(types()),
        );
        return None;
    }
    let kind = fields.text("type", notes)?;
    let known = ServiceType::of(&kind.text);
    if known.is_none() {
        let close = nearest(&kind.text, ServiceType::ALL.map(ServiceType::name));
        let help = close.map_or_else(types, |close| format!("did you mean `{close}`?"));
        let fault = Fault::new(format!("`type`: there is no type `{}`", kind.text));
        notes.wrong(kind.span, fault.with_help(help));
    }
    known
}

fn types() -> String {
    let names = ServiceType::ALL.map(ServiceType::name);
    format!("types are {}", names.join(", "))
}

fn settings(fields: &Fields<'_, '_>, notes: &mut Notes<'_>) -> ServiceSettings {
    ServiceSettings {
        image: image(fields, notes),
        repo_url: fields.text("repoUrl", notes),
        build_path: fields.text("buildPath", notes),
        target_branches: fields.texts("targetBranches", notes),
        installation_id: fields.scalar("installationId", notes),
        target_type: fields.text("targetType", notes),
        static_out_dir: fields.text("staticOutDir", notes),
        static_path: fields.text("staticPath", notes),
        cmd: fields.text("cmd", notes),
        command_port: port(fields, notes),
        public_net: fields.flag("publicNet", notes),
        cpu: fields.scalar("cpu", notes),
        memory: fields.scalar("memory", notes),
        restart_policy: fields.text("restartPolicy", notes),
    }
}

/// One that is no text is complained about once, and not for being missing.
fn image(fields: &Fields<'_, '_>, notes: &mut Notes<'_>) -> Option<Value> {
    let span = fields.get("image")?.span();
    let image = fields.text("image", notes);
    Some(image.unwrap_or_else(|| Value {
        text: String::new(),
        span,
    }))
}

fn port(fields: &Fields<'_, '_>, notes: &mut Notes<'_>) -> Option<u16> {
    let (number, span) = fields.number("commandPort", notes)?;
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    if port.is_none() {
        let message = format!("`commandPort`: expected a port from 1 to 65535, found {number}");
        notes.wrong(span, Fault::new(message));
    }
    port
}

fn variables(configuration: &Fields<'_, '_>, key: &str, notes: &mut Notes<'_>) -> Vec<Variable> {
    let header = format!("[[services.configuration.{key}]]");
    let mut variables: Vec<Variable> = Vec::new();
    let mut seen = HashMap::new();
    for fields in configuration.sections(key, &header, notes) {
        let is_secret = |name: &Value| is_secret_name(&name.text);
        if let Some(value) = fields.get("value")
            && (key == "secrets" || fields.peek("key").as_ref().is_some_and(is_secret))
        {
            notes.secrets.push(value.span());
        }
        for needed in ["key", "value"] {
            if fields.get(needed).is_none() {
                let fault = Fault::new(format!("the variable has no `{needed}`"));
                notes.wrong(fields.span.clone(), fault);
            }
        }
        let (name, value) = (fields.text("key", notes), fields.scalar("value", notes));
        let (Some(name), Some(value)) = (name, value) else {
            continue;
        };
        if name.text.is_empty() || name.text.contains(['=', '}']) || has_blanks(&name.text) {
            let fault = Fault::new("`key`: no name that a variable can have");
            notes.wrong(name.span.clone(), fault);
        }
        is_new(&mut seen, name.text.clone(), &name.span, "key", notes);
        variables.push(Variable {
            key: name.text,
            value,
        });
    }
    variables
}
