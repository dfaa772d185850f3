//! Every file in `aramb/`, with what is said about it in the file beside it. `UPDATE_CORPUS=1` writes those anew.

use std::fs;
use std::path::{Path, PathBuf};

use deploy_config::aramb::{ArambToml, parse, replace};
use deploy_plan::aramb::{Value, text};
use proptest::prelude::*;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/aramb")
}

fn corpus() -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(folder())
        .expect("the corpus")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        })
        .map(|path| {
            let name = path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            (name, fs::read_to_string(&path).expect("text"))
        })
        .collect();
    files.sort();
    files
}

fn read(source: &str) -> ArambToml {
    parse(Path::new("aramb.toml"), source)
}

fn told(source: &str) -> String {
    let toml = read(source);
    let mut told = String::new();
    for error in &toml.diagnostics {
        told.extend(["error: ", &error.to_string(), "\n\n"]);
    }
    for warning in &toml.warnings {
        told.extend(["warning: ", &warning.to_string(), "\n\n"]);
    }
    if toml.diagnostics.is_empty() {
        told.push_str(&text(&toml.file, &toml.graph));
    }
    told
}

#[test]
fn every_file_is_read_as_it_is_written_down() {
    let files = corpus();
    assert!(files.len() >= 25, "{} files", files.len());
    let mut wrong = Vec::new();
    for (name, source) in files {
        let path = folder().join(format!("{name}.told"));
        let told = told(&source);
        assert!(!told.contains("hunter"), "{told}");
        if std::env::var_os("UPDATE_CORPUS").is_some() {
            fs::write(&path, &told).expect("written");
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if told != expected {
            wrong.push(format!("{name}: expected\n{expected}\ntold\n{told}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// All texts of a file in quotes.
fn values(toml: &ArambToml, source: &str) -> Vec<Value> {
    let is_quoted = |value: &&Value| source[value.span.clone()].starts_with(['"', '\'']);
    let services = toml.file.services.iter();
    services
        .flat_map(|service| service.values().collect::<Vec<_>>())
        .filter(is_quoted)
        .cloned()
        .collect()
}

/// The file without what is written in place of these values, and the values.
fn around(source: &str, values: &[Value]) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut at = 0;
    for value in values {
        pieces.push(source[at..value.span.start].to_owned());
        at = value.span.end;
    }
    pieces.push(source[at..].to_owned());
    pieces
}

proptest! {
    #[test]
    fn a_change_changes_nothing_else(
        file in any::<prop::sample::Index>(),
        lines in any::<bool>(),
        chosen in prop::collection::vec((any::<prop::sample::Index>(), "[ -~é\t\n\r\u{1}]{0,20}"), 1..6),
    ) {
        let files: Vec<_> = corpus().into_iter().filter(|(_, source)| read(source).diagnostics.is_empty()).collect();
        let source = &file.get(&files).1;
        let source = if lines { source.replace('\n', "\r\n") } else { source.clone() };
        let before = read(&source);
        let mut all = values(&before, &source);
        all.sort_by_key(|value| value.span.start);
        let mut texts: Vec<String> = all.iter().map(|value| value.text.clone()).collect();
        let mut changes = std::collections::BTreeMap::new();
        for (which, text) in &chosen {
            changes.insert(which.index(all.len()), text.as_str());
        }
        for (index, text) in &changes {
            texts[*index] = (*text).to_owned();
        }
        let list: Vec<_> = changes.iter().map(|(index, text)| (&all[*index], *text)).collect();
        let changed = replace(&source, &list).expect("values of this text");
        let after = read(&changed);
        let mut found = values(&after, &changed);
        found.sort_by_key(|value| value.span.start);
        let read_texts: Vec<_> = found.iter().map(|value| value.text.clone()).collect();
        prop_assert_eq!(read_texts, texts);
        prop_assert_eq!(around(&changed, &found), around(&source, &all));
        let unchanged: Vec<_> = (0..all.len()).filter(|index| !changes.contains_key(index)).collect();
        for index in unchanged {
            prop_assert_eq!(&changed[found[index].span.clone()], &source[all[index].span.clone()]);
        }
    }
}
