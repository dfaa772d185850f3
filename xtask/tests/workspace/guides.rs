//! The guides say what the program does: every key with its default, every error code, no promise
//! without a test, and no link that leads nowhere.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::world::{files, root};

const BEGIN: &str = "<!-- keys: made from the schema; UPDATE_GUIDES=1 makes them anew -->\n";
const END: &str = "<!-- end of keys -->";

fn read(path: &Path) -> String {
    std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

#[test]
fn the_configuration_guide_lists_every_key() {
    let guide = root().join("docs/guides/configuration.md");
    let text = read(&guide);
    let (before, rest) = text.split_once(BEGIN).expect("the keys begin");
    let (_, after) = rest.split_once(END).expect("the keys end");
    let right = format!("{before}{BEGIN}{}{END}{after}", keys());
    if std::env::var_os("UPDATE_GUIDES").is_some() {
        std::fs::write(&guide, &right).unwrap();
        return;
    }
    assert_eq!(text, right, "run this test with UPDATE_GUIDES=1");
}

/// The keys of an environment as a table a section, from the schema that editors use.
fn keys() -> String {
    let schema = read(&root().join(".systemprompt/deploy.schema.json"));
    let schema: Value = serde_json::from_str(&schema).expect("the schema is JSON");
    let mut text = String::new();
    let mut alone = String::new();
    for (name, property) in properties(&schema["$defs"]["Config"]) {
        let described = resolve(&schema, property);
        if described.get("properties").is_some() {
            section(&mut text, &schema, name, property);
        } else {
            alone.push_str(&row(&schema, name, property));
        }
    }
    format!("\n{HEAD}{alone}{text}\n")
}

/// A section with its keys and the sections below it. One that is the same elsewhere is not told twice.
fn section(text: &mut String, schema: &Value, name: &str, property: &Value) {
    let described = resolve(schema, property);
    let what = described["description"].as_str().unwrap_or_default();
    let _ = write!(text, "\n### `{name}`\n\n{}\n", line(what));
    let mut below = Vec::new();
    let mut rows = String::new();
    for (key, property) in properties(described) {
        let path = format!("{name}.{key}");
        let top = &schema["$defs"]["Config"]["properties"][key];
        let is_section = resolve(schema, property).get("properties").is_some();
        if !is_section {
            rows.push_str(&row(schema, &path, property));
        } else if top["$ref"] == property["$ref"] {
            let what = property["description"].as_str().unwrap_or_default();
            let variable = variable(&path);
            let _ = writeln!(
                rows,
                "| `{path}.KEY` |  | `SYSTEMPROMPT_{variable}_KEY` | {} The keys of [`{key}`](#{key}). |",
                line(what)
            );
        } else {
            below.push((path, property));
        }
    }
    if !rows.is_empty() {
        let _ = write!(text, "\n{HEAD}{rows}");
    }
    for (path, property) in below {
        section(text, schema, &path, property);
    }
    let chosen = described["patternProperties"].as_object();
    for (_, property) in chosen.into_iter().flatten() {
        section(text, schema, &format!("{name}.NAME"), property);
    }
}

fn variable(key: &str) -> String {
    key.replace('.', "_").to_uppercase()
}

const HEAD: &str = "| key | default | variable | |\n| --- | --- | --- | --- |\n";

fn properties(described: &Value) -> impl Iterator<Item = (&String, &Value)> {
    described["properties"].as_object().into_iter().flatten()
}

fn resolve<'s>(schema: &'s Value, property: &'s Value) -> &'s Value {
    match property["$ref"].as_str() {
        Some(reference) => {
            let name = reference.rsplit('/').next().unwrap_or_default();
            &schema["$defs"][name]
        }
        None => property,
    }
}

fn row(schema: &Value, key: &str, property: &Value) -> String {
    let variable = variable(key);
    let map = property.get("additionalProperties").is_some();
    let chosen = match key {
        _ if key.ends_with(".volumes") => "VOLUME",
        _ if key.contains(".NAME.") => "VARIABLE",
        _ => "NAME",
    };
    let (key, variable) = if map {
        (format!("{key}.{chosen}"), format!("{variable}_{chosen}"))
    } else {
        (key.to_owned(), variable)
    };
    let default = match &property["default"] {
        Value::Null => String::new(),
        Value::String(text) if text.is_empty() => "empty".to_owned(),
        Value::String(text) => format!("`{text}`"),
        value => format!("`{value}`"),
    };
    let what = property["description"].as_str().unwrap_or_default();
    let words = words(resolve(schema, property));
    format!(
        "| `{key}` | {default} | `SYSTEMPROMPT_{variable}` | {}{words} |\n",
        line(what)
    )
}

/// The words that a key takes, each with what it means.
fn words(described: &Value) -> String {
    let mut text = String::new();
    for word in described["oneOf"].as_array().into_iter().flatten() {
        let (name, what) = (&word["const"], &word["description"]);
        if let (Some(name), Some(what)) = (name.as_str(), what.as_str()) {
            let _ = write!(text, "<br>`{name}`: {}", line(what));
        }
    }
    text
}

fn line(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

#[test]
fn troubleshooting_knows_every_error_code() {
    let guide = read(&root().join("docs/guides/troubleshooting.md"));
    let explained: BTreeSet<_> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(code, _)| code.to_owned())
        .collect();
    let used = codes();
    assert!(used.len() > 40, "codes are not found any more: {used:?}");
    let unexplained: Vec<_> = used.difference(&explained).collect();
    assert!(unexplained.is_empty(), "not in the guide: {unexplained:?}");
    let gone: Vec<_> = explained.difference(&used).collect();
    assert!(gone.is_empty(), "in the guide, but nowhere used: {gone:?}");
}

/// The codes of failures in the sources of the release side. A code stands before the exit code of
/// its failure, or first in the call that makes one.
fn codes() -> BTreeSet<String> {
    let sources = [
        "xtask/src",
        "xtask/crates/plan/src",
        "xtask/crates/pipeline/src",
    ];
    let mut codes = BTreeSet::new();
    for file in sources
        .iter()
        .flat_map(|folder| files(&root().join(folder), "rs"))
    {
        let text = read(&file);
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        for made in [
            "Failure::new(",
            "Failure::preflight(",
            "failure(",
            "Fault::new(",
            "Fault::invalid(",
        ] {
            let calls = text.split(made).skip(1);
            codes.extend(calls.filter_map(first_word));
        }
        let credentials = text.split("Credential::").skip(1);
        codes.extend(credentials.filter_map(|text| first_word(text.split_once("=> (")?.1)));
        let tuples = text.split("Exit::").map(str::trim_end);
        codes.extend(tuples.filter_map(last_word));
        let changed = text.split(".code = ").skip(1);
        codes.extend(changed.filter_map(first_word));
    }
    codes
}

/// The literal that comes first, after a step at most.
fn first_word(text: &str) -> Option<String> {
    let text = text.trim_start();
    let text = match text.strip_prefix("Step::") {
        Some(rest) => rest.split_once(',')?.1.trim_start(),
        None => text.strip_prefix("step,").unwrap_or(text).trim_start(),
    };
    let word = text.strip_prefix('"')?.split('"').next()?;
    is_code(word).then(|| word.to_owned())
}

/// The literal before the comma that ends the text.
fn last_word(text: &str) -> Option<String> {
    let word = text.strip_suffix("\",")?.rsplit('"').next()?;
    is_code(word).then(|| word.to_owned())
}

fn is_code(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

/// Programs validate results with it.
#[test]
fn the_schema_of_the_result_for_an_aramb_toml_is_that_of_the_program() {
    let printed = std::process::Command::new(env!("CARGO_BIN_EXE_xtask"))
        .args(["config", "report-schema", "--aramb"])
        .output()
        .expect("it starts");
    let printed = String::from_utf8(printed.stdout).expect("text");
    assert!(
        read(&root().join("docs/aramb-report.schema.json")) == printed,
        "run: cargo xtask config report-schema --aramb > docs/aramb-report.schema.json"
    );
}

/// A promise is worth what holds it: `module::test` in backticks, in a file of that name.
#[test]
fn every_promise_names_tests_that_are_there() {
    let text = read(&root().join("docs/guarantees.md"));
    let folders = ["core", "xtask"].map(|folder| files(&root().join(folder), "rs"));
    let sources = folders.concat();
    let mut count = 0;
    for named in text.split('`').skip(1).step_by(2) {
        let Some((module, test)) = named.split_once("::") else {
            continue;
        };
        let wanted = format!("fn {test}(");
        let is_there = sources.iter().any(|path| {
            path.file_stem().is_some_and(|stem| stem == module) && read(path).contains(&wanted)
        });
        assert!(is_there, "docs/guarantees.md: there is no test {named}");
        count += 1;
    }
    assert!(count > 50, "{count}");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let documents = [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
    ];
    let documents = documents
        .iter()
        .map(|name| root().join(name))
        .chain(files(&root().join("docs"), "md"));
    for document in documents {
        for link in read(&document).split("](").skip(1) {
            let link = link.split([')', '#']).next().unwrap_or_default();
            if link.is_empty() || link.contains("://") {
                continue;
            }
            let target = document.with_file_name(link);
            assert!(
                target.exists(),
                "{}: nothing is at {link}",
                document.display()
            );
        }
    }
}
