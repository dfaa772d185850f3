//! What each command does, and what it answers.

use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::arguments::{Call, from_toml};
use crate::services::{self, Service};
use crate::state::{Generation, State, quoted, quoted_all};

/// What a command says, and how it ends.
#[derive(Default)]
pub struct Answer {
    pub stdout: String,
    pub stderr: String,
    pub code: i32,
}

impl Answer {
    pub fn says(stdout: impl Into<String>) -> Self {
        Self {
            stdout: stdout.into(),
            ..Self::default()
        }
    }

    /// The words of a command line that cannot be read.
    pub fn usage(stderr: &str) -> Self {
        Self {
            stderr: stderr.to_owned(),
            code: 2,
            ..Self::default()
        }
    }

    fn fails(reason: impl AsRef<str>) -> Self {
        Self {
            stderr: format!("Error: {}\n", reason.as_ref()),
            code: 1,
            ..Self::default()
        }
    }

    fn refuses(reason: impl AsRef<str>) -> Self {
        Self {
            code: 2,
            ..Self::fails(reason)
        }
    }
}

pub fn answer(state: &State, call: &Call) -> Answer {
    if std::env::var_os("ARAMB_API_TOKEN").is_none_or(|token| token.is_empty()) {
        return Answer::fails("not logged in: set ARAMB_API_TOKEN or run `aramb login`");
    }
    let output = call.flags.get("--output").map_or("text", String::as_str);
    if !["text", "json"].contains(&output) {
        return Answer::refuses(format!("invalid argument {output:?} for --output"));
    }
    let is_json = output == "json";
    match call.words {
        "applications get" => application(state, call, is_json),
        "services list" => list(state, call, is_json),
        "build" => build(state, call),
        "deploy status" => status(state, call, is_json),
        "deploy history" => history(state, call, is_json),
        _ => deploy(state, call),
    }
}

/// Whether this is the application that there is; it is answered with otherwise.
fn is_known(state: &State, id: Option<&String>, flag: &str) -> Result<String, Answer> {
    let Some(id) = id else {
        let reason = format!("required flag {flag} not set");
        return Err(Answer::refuses(reason));
    };
    let known = state.setting("application/id").unwrap_or_default();
    if *id != known {
        return Err(Answer::fails(format!("application {id} not found (404)")));
    }
    Ok(known)
}

fn application(state: &State, call: &Call, is_json: bool) -> Answer {
    let id = match is_known(state, call.flags.get("--id"), "--id") {
        Ok(id) => id,
        Err(answer) => return answer,
    };
    let slug = state.setting("application/slug").unwrap_or_default();
    if !is_json {
        return Answer::says(format!("ID:   {id}\nSlug: {slug}\nName: {slug}\n"));
    }
    let (id, slug) = (quoted(&id), quoted(&slug));
    Answer::says(format!(
        "{{\n  \"id\": {id},\n  \"slug\": {slug},\n  \"name\": {slug}\n}}\n"
    ))
}

fn list(state: &State, call: &Call, is_json: bool) -> Answer {
    if let Err(answer) = is_known(state, call.flags.get("--application"), "--application") {
        return answer;
    }
    let services = state.alone(|| services::deployed(state));
    let lines = services.iter().map(|service| {
        let (name, kind) = (&service.name, &service.kind);
        if is_json {
            let (id, slug) = (quoted(&service.key()), quoted(&service.slug));
            let (name, kind) = (quoted(name), quoted(kind));
            format!("{{\"id\":{id},\"slug\":{slug},\"name\":{name},\"type\":{kind}}}")
        } else {
            format!("{name:<20}{kind}\n")
        }
    });
    let lines: Vec<_> = lines.collect();
    Answer::says(if is_json {
        format!("[{}]\n", lines.join(","))
    } else {
        lines.concat()
    })
}

fn build(state: &State, call: &Call) -> Answer {
    let is_old = state.generation() == Generation::Old;
    if let Some(folder) = call.flags.get("--static-outdir").filter(|_| is_old) {
        if ["--push", "--tag"]
            .iter()
            .any(|flag| call.flags.contains_key(flag))
        {
            return Answer::refuses("--static-outdir cannot be used with --push or --tag");
        }
        return Answer::says(format!("Static files are in {folder}\n"));
    }
    let (Some(name), Some(tag)) = (call.flags.get("--name"), call.flags.get("--tag")) else {
        return Answer::refuses("required flags --name, --tag not set");
    };
    if is_old && std::env::var_os("BUILDKIT_HOST").is_none_or(|host| host.is_empty()) {
        return Answer::fails("BUILDKIT_HOST is not set: no BuildKit to build with");
    }
    let path = call.place.as_deref().unwrap_or(".");
    if !Path::new(path).is_dir() {
        return Answer::fails(format!("build context {path:?} is no folder"));
    }
    let image = format!("{name}:{tag}");
    if !is_repository(name) || !is_tag(tag) {
        return Answer::fails(format!("invalid reference format: {image}"));
    }
    let mut progress = "#1 [internal] load build definition from Dockerfile\n#1 DONE 0.0s\n#2 [1/1] COPY . /app\n#2 DONE 0.1s\n".to_owned();
    if call.flags.contains_key("--push") {
        progress.push_str(&format!("#3 pushing {image}\n#3 DONE 0.2s\n"));
    }
    if is_old {
        return Answer::says(format!("{progress}Successfully built {image}\n"));
    }
    let url = quoted(&format!("registry.aramb.dev/{image}"));
    let (name, tag) = (quoted(name), quoted(tag));
    let stdout =
        format!("{{\n  \"name\": {name},\n  \"tag\": {tag},\n  \"IMAGE_URL\": {url}\n}}\n");
    Answer {
        stdout,
        stderr: progress,
        code: 0,
    }
}

/// Lower-case path components with single separators between letters and digits.
fn is_repository(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.split('/').all(|part| {
        part.chars().all(|c| is_plain(c) || "._-".contains(c))
            && part.starts_with(is_plain)
            && part.ends_with(is_plain)
    })
}

fn is_tag(tag: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= 128
        && tag.starts_with(is_word)
        && tag.chars().all(|c| is_word(c) || c == '.' || c == '-')
}

fn deploy(state: &State, call: &Call) -> Answer {
    let flag = from_toml(state.generation());
    if !call.flags.contains_key(flag) {
        return Answer::refuses(format!("nothing to deploy: pass {flag}"));
    }
    let source = match std::fs::read_to_string("aramb.toml") {
        Ok(source) => source,
        Err(error) => return Answer::fails(format!("aramb.toml: {error}")),
    };
    if !call.flags.contains_key("--yes") {
        return Answer::fails("standard input is no terminal: confirm with --yes");
    }
    let named = call.flags.get("--services");
    let named: Option<Vec<_>> = named.map(|names| names.split(',').map(str::trim).collect());
    let chosen = services::read(&source)
        .and_then(|services| services::chosen(services, named.as_deref(), state));
    let chosen = match chosen {
        Ok(chosen) => chosen,
        Err(reason) => return Answer::fails(format!("aramb.toml: {reason}")),
    };
    let id = state.alone(|| services::deploy(state, &chosen));
    if state.has("writes-back") {
        let text = services::with_ids(&source, &chosen);
        std::fs::write("aramb.toml", text).expect("aramb.toml can be written");
    }
    let mut text = format!("Deploying {} services from aramb.toml\n", chosen.len());
    for service in &chosen {
        text.push_str(&format!("  {:<20}{} queued\n", service.name, service.kind));
    }
    text.push_str(&format!("Deployment {id} started\n"));
    Answer::says(text)
}

fn status(state: &State, call: &Call, is_json: bool) -> Answer {
    let known = state.alone(|| services::deployed(state));
    let Some(name) = call.flags.get("--service") else {
        let all = known.iter().map(|service| look(state, service, is_json));
        let all: Vec<_> = all.map(|seen| seen.text).collect();
        return Answer::says(if is_json {
            format!("[{}]\n", all.join(","))
        } else {
            all.concat()
        });
    };
    let Some(service) = known.iter().find(|service| service.is_called(name, state)) else {
        return Answer::fails(format!("service {name} not found (404)"));
    };
    let is_loop = call.flags.contains_key("--loop");
    loop {
        let seen = look(state, service, is_json);
        if is_loop && !seen.is_over && !state.is_gone() {
            // A second of the real one.
            thread::sleep(Duration::from_millis(5));
            continue;
        }
        let code = i32::from(is_loop && seen.has_failed);
        let stdout = format!("{}\n", seen.text.trim_end());
        return Answer {
            code,
            ..Answer::says(stdout)
        };
    }
}

struct Seen {
    text: String,
    is_over: bool,
    has_failed: bool,
}

/// Each look lets a service go on by one state.
fn look(state: &State, service: &Service, is_json: bool) -> Seen {
    let word = state.alone(|| services::next_state(state, service));
    let is_good = ["healthy", "completed"].contains(&&*word);
    let has_failed = word == "failed";
    let reason = state.setting_of(&service.name, "reason");
    let reason = reason.filter(|_| has_failed).unwrap_or_default();
    let outputs = if is_good {
        services::outputs(state, service)
    } else {
        Vec::new()
    };
    let in_words = has_failed && state.setting_of(&service.name, "fails-in-words").is_some();
    let text = if is_json && !in_words {
        let mut fields = vec![
            format!("  \"service\": {}", quoted(&service.name)),
            format!("  \"status\": {}", quoted(&word)),
            format!("  \"deployment_id\": {}", quoted(&service.deployment)),
        ];
        if !reason.is_empty() {
            fields.push(format!("  \"error\": {}", quoted(&reason)));
        }
        let pairs = outputs.iter();
        let pairs = pairs.map(|(name, value)| format!("{}: {}", quoted(name), quoted(value)));
        let pairs: Vec<_> = pairs.collect();
        fields.push(format!("  \"outputs\": {{{}}}", pairs.join(", ")));
        format!("{{\n{}\n}}", fields.join(",\n"))
    } else {
        let mut text = format!("Service: {}\nStatus: {}\n", service.name, titled(&word));
        if !reason.is_empty() {
            text.push_str(&format!("Reason: {reason}\n"));
        }
        for (name, value) in &outputs {
            text.push_str(&format!("{name}: {value}\n"));
        }
        text
    };
    Seen {
        text,
        is_over: is_good || has_failed,
        has_failed,
    }
}

fn titled(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string());
    format!("{}{}", first.unwrap_or_default(), letters.as_str())
}

fn history(state: &State, call: &Call, is_json: bool) -> Answer {
    let limit = call
        .flags
        .get("--limit")
        .map_or(Ok(10), |text| text.parse());
    let Ok(limit) = limit else {
        return Answer::refuses("invalid argument for --limit");
    };
    let deployments = state.alone(|| services::history(state));
    let latest = deployments.iter().rev().take(limit);
    let lines = latest.map(|(id, names)| {
        if is_json {
            let names = quoted_all(names.iter().map(String::as_str));
            format!("{{\"deployment_id\":{},\"services\":{names}}}", quoted(id))
        } else {
            format!("{id}  {}\n", names.join(","))
        }
    });
    let lines: Vec<_> = lines.collect();
    Answer::says(if is_json {
        format!("[{}]\n", lines.join(","))
    } else {
        lines.concat()
    })
}
