//! Writes an `aramb.toml` of so many services, or measures what reading, ordering and resolving one takes.
//!
//! `aramb_scale write N` prints the file; `aramb_scale measure FILE` prints milliseconds of reading (the graph included), of
//! the graph alone and of resolving all texts.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Instant;

use deploy_config::aramb;
use deploy_plan::aramb::{Graph, OutputName, Outputs, Resolver};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", count] => io::stdout().write_all(file(count.parse()?)?.as_bytes())?,
        ["measure", path] => measure(&std::fs::read_to_string(path)?)?,
        _ => return Err("aramb_scale write N | measure FILE".into()),
    }
    Ok(())
}

/// Groups of four: a database, a build, a backend that takes both, and a frontend that takes the backend and is taken by it;
/// each backend also takes the one before it. Frontends stand before what they take.
fn file(count: u64) -> Result<String, std::fmt::Error> {
    let mut text = String::from("application = \"app-1\"\n");
    for group in 0..count.div_ceil(4) {
        let first = 100 + group * 4;
        let (db, build, api, web) = (first, first + 1, first + 2, first + 3);
        let before = if group == 0 { api } else { api - 4 };
        write!(
            text,
            r#"
[[services]]
uniqueIdentifier = {web}
name = "web-{group}"
type = "frontend"
[services.configuration.settings]
image = "web:{group}"
publicNet = true
[[services.configuration.vars]]
key = "API"
value = "${{{api}.outputs.PUBLIC_URL}}/v1"

[[services]]
uniqueIdentifier = {api}
name = "api-{group}"
type = "backend"
[services.configuration.settings]
image = "${{{build}.outputs.IMAGE_URL}}"
commandPort = 8080
publicNet = true
[[services.configuration.vars]]
key = "DATABASE"
value = "postgres://${{{db}.vars.USER}}@${{{db}.outputs.INTERNAL_URL}}/x"
[[services.configuration.vars]]
key = "ORIGIN"
value = "${{{web}.outputs.PUBLIC_URL}}"
[[services.configuration.vars]]
key = "PEER"
value = "${{{before}.outputs.INTERNAL_URL}}"

[[services]]
uniqueIdentifier = {build}
name = "build-{group}"
type = "build"

[[services]]
uniqueIdentifier = {db}
name = "db-{group}"
type = "postgres"
[services.configuration.settings]
image = "postgres:16"
[[services.configuration.vars]]
key = "USER"
value = "user-{group}"
"#
        )?;
    }
    Ok(text)
}

fn measure(source: &str) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let toml = aramb::parse(Path::new("aramb.toml"), source);
    let read = begun.elapsed();
    if let Some(wrong) = toml.diagnostics.first() {
        return Err(wrong.to_string().into());
    }
    let begun = Instant::now();
    let graph = Graph::of(&toml.file);
    let ordered = begun.elapsed();
    assert_eq!(graph.order.len(), toml.file.services.len());

    let names = [
        OutputName::ImageUrl,
        OutputName::PublicUrl,
        OutputName::InternalUrl,
    ];
    let ids = toml.file.services.iter().map(|service| service.id);
    let outputs: Outputs = ids
        .flat_map(|id| names.map(|name| ((id, name), format!("http://{id}.example.com"))))
        .collect();
    let begun = Instant::now();
    let mut resolver = Resolver::new(&toml.file, &outputs);
    for value in toml
        .file
        .services
        .iter()
        .flat_map(deploy_plan::aramb::Service::values)
    {
        resolver.resolve(&value.text)?;
    }
    let resolved = begun.elapsed();
    let times = [read, ordered, resolved].map(|time| time.as_secs_f64() * 1000.0);
    let [read, ordered, resolved] = times;
    writeln!(io::stdout(), "{read} {ordered} {resolved}")?;
    Ok(())
}
