//! Reads `deploy.toml` into single values that know their line. What they mean together is decided
//! by [`crate::settings`].

use std::ops::Range;
use std::path::Path;

use deploy_plan::config::{DeployFile, is_secret_name};
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::check::{Fault, fits, reads_alone, wrong_type};
use crate::diagnostic::{Diagnostic, Line, Place};
use crate::entry::{Entry, KeyPath, dotted};
use crate::nearest::nearest;
use crate::origin::Origin;
use crate::shape::{Kind, Leaf, Shape};

/// What a file says.
#[derive(Default)]
pub(crate) struct DeployToml {
    /// Its values, each well by itself.
    pub(crate) entries: Vec<Entry>,
    /// The sections whose names the user has chosen, be they empty ones: environments, services.
    pub(crate) named: Vec<KeyPath>,
    /// Whether it is broken in a way that kept it from being read to its end.
    pub(crate) unread: bool,
    /// Everything wrong with it, in the order of its lines.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Reads the text of the file at `path` (relative to the project, for messages).
pub(crate) fn parse(path: &Path, source: &str) -> DeployToml {
    let mut reader = Reader {
        path,
        source,
        shape: &Shape::of::<DeployFile>(),
        found: Vec::new(),
        toml: DeployToml::default(),
    };
    let (table, errors) = DeTable::parse_recoverable(source);
    if errors.is_empty() {
        reader.document(table.get_ref());
    } else {
        // What a reader recovers after an error is guesswork: complaining about it as well would
        // bury the cause.
        reader.toml.unread = true;
        reader.syntax(&errors);
    }
    reader.finish()
}

struct Reader<'a> {
    path: &'a Path,
    source: &'a str,
    shape: &'a Shape,
    /// Errors with the byte that they begin at.
    found: Vec<(usize, Diagnostic)>,
    toml: DeployToml,
}

impl Reader<'_> {
    fn document(&mut self, table: &DeTable<'_>) {
        let shape = self.shape;
        if let (Some(version), Some(known)) = (table.get("schema"), shape.child("schema")) {
            self.value(&["schema".to_owned()], version, known);
            if !self.found.is_empty() {
                // A file of another format may be right in everything that seems wrong here.
                self.toml.unread = true;
                return;
            }
            self.toml.entries.clear();
        }
        self.table(&[], table, shape);
    }

    fn syntax(&mut self, errors: &[toml::de::Error]) {
        for error in errors {
            let message = error.message().trim().replace('\n', ", ");
            self.report(
                error.span().unwrap_or_default(),
                Fault::new(format!("not TOML: {message}")),
            );
        }
    }

    fn finish(mut self) -> DeployToml {
        self.found.sort_by_key(|(start, _)| *start);
        self.toml.diagnostics = self.found.into_iter().map(|(_, found)| found).collect();
        self.toml
    }

    fn table(&mut self, at: &[String], table: &DeTable<'_>, shape: &Shape) {
        for (key, value) in table {
            let mut path = at.to_vec();
            path.push(key.get_ref().to_string());
            let Some(child) = shape.child(key.get_ref()) else {
                let fault = self.unknown_key(&path, shape, value.get_ref().is_table());
                self.report(key.span(), fault);
                continue;
            };
            if let Some(chosen) = shape.chosen(key.get_ref()) {
                if let Err(fault) = check_chosen_key(&path, chosen) {
                    self.report(key.span(), fault);
                    continue;
                }
                if value.get_ref().is_table() {
                    self.toml.named.push(path.clone());
                }
            }
            self.value(&path, value, child);
        }
    }

    fn value(&mut self, path: &[String], value: &Spanned<DeValue<'_>>, shape: &Shape) {
        match (shape, value.get_ref()) {
            (Shape::Leaf(leaf), found) => self.leaf(path, value.span(), found, leaf),
            (section, DeValue::Table(table)) => self.table(path, table, section),
            (_, found) => {
                let mut fault =
                    Fault::new(format!("expected a section, found {}", type_name(found)));
                fault.help = Some(format!(
                    "write it as [{}], with its keys below",
                    dotted(path)
                ));
                self.report(value.span(), fault.about(path));
            }
        }
    }

    fn leaf(&mut self, path: &[String], span: Range<usize>, found: &DeValue<'_>, leaf: &Leaf) {
        if self.has_wrong_items(path, found, leaf) {
            return;
        }
        let checked = to_json(found, leaf).and_then(|value| {
            fits(leaf, &value)?;
            reads_alone::<DeployFile>(path, &value)?;
            Ok(value)
        });
        match checked {
            Ok(value) => self.accept(path.to_vec(), value, span),
            Err(fault) => self.report(span, fault.about(path)),
        }
    }

    /// Points at each item of a list that is no text, rather than at the list.
    fn has_wrong_items(&mut self, path: &[String], found: &DeValue<'_>, leaf: &Leaf) -> bool {
        let before = self.found.len();
        if let (Kind::List, DeValue::Array(items)) = (leaf.kind, found) {
            for item in items.iter().filter(|item| !item.get_ref().is_str()) {
                let found = type_name(item.get_ref());
                let message = format!("expected text in quotes, found {found}");
                self.report(item.span(), Fault::new(message).about(path));
            }
        }
        self.found.len() > before
    }

    fn accept(&mut self, path: KeyPath, value: Value, span: Range<usize>) {
        let line = Line::of(self.path, self.source, span);
        self.toml.entries.push(Entry {
            path,
            value,
            origin: Origin::File {
                path: line.path.clone(),
                line: line.line,
            },
            place: Place::Line(line),
        });
    }

    fn report(&mut self, span: Range<usize>, fault: Fault) {
        let start = span.start;
        let place = Place::Line(Line::of(self.path, self.source, span));
        let diagnostic = Diagnostic::new(fault.message, place).with_help(fault.help);
        self.found.push((start, diagnostic));
    }

    fn unknown_key(&self, path: &[String], shape: &Shape, is_table: bool) -> Fault {
        let (key, section) = match path.split_last() {
            Some((key, section)) => (key.as_str(), section),
            None => ("", path),
        };
        let place = match section {
            [] => "at the top of the file".to_owned(),
            _ => format!("in [{}]", dotted(section)),
        };
        let help = if let Some(known) = nearest(key, shape.keys()) {
            format!("did you mean `{known}`?")
        } else if let Some(others) = self.sections_with(key, section) {
            format!("`{key}` is a key of {others}")
        } else if is_secret_name(key) {
            "secrets do not belong in this file: the token goes into SYSTEMPROMPT_API_TOKEN or \
             .systemprompt/credentials.json"
                .to_owned()
        } else if section.is_empty() && is_table {
            format!(
                "known are {}; an environment is written as [environments.{key}], a service as [services.{key}]",
                list(shape)
            )
        } else {
            format!("known are {}", list(shape))
        };
        Fault {
            message: format!("unknown key `{key}` {place}"),
            help: Some(help),
        }
    }

    /// The sections that do know a key, within the environment that it stands in.
    fn sections_with(&self, key: &str, section: &[String]) -> Option<String> {
        let prefix = match section {
            [first, name, ..] if first == "environments" => vec![first.clone(), name.clone()],
            _ => Vec::new(),
        };
        let root = prefix
            .iter()
            .try_fold(self.shape, |at, key| at.child(key))?;
        let mut found = Vec::new();
        root.visit(&mut |path, _| {
            if let [parents @ .., last] = path
                && last == key
            {
                found.push(format!(
                    "[{}]",
                    [prefix.as_slice(), parents].concat().join(".")
                ));
            }
        });
        (!found.is_empty()).then(|| found.join(" and of "))
    }
}

fn list(shape: &Shape) -> String {
    shape.keys().collect::<Vec<_>>().join(", ")
}

/// A key that the user chooses (of an environment, of a service, of a variable) follows the rules of its type.
fn check_chosen_key(path: &[String], chosen: &Shape) -> Result<(), Fault> {
    match chosen {
        // One of these is a value for every map of texts, whose keys hold names of secrets or paths.
        Shape::Leaf(_) => reads_alone::<DeployFile>(path, &json!("A"))
            .or_else(|fault| reads_alone::<DeployFile>(path, &json!("/A")).map_err(|_| fault)),
        Shape::Section(_) => reads_alone::<DeployFile>(path, &json!({})),
    }
}

fn to_json(found: &DeValue<'_>, leaf: &Leaf) -> Result<Value, Fault> {
    match (found, leaf.kind) {
        (DeValue::String(text), _) => Ok(Value::from(text.as_ref())),
        (DeValue::Boolean(value), Kind::Boolean) => Ok(Value::from(*value)),
        (DeValue::Integer(number), Kind::Integer { .. }) => {
            i64::from_str_radix(number.as_str(), number.radix())
                .map(Value::from)
                .map_err(|_| Fault::new("the number is too large"))
        }
        (DeValue::Integer(number), Kind::Number) => number_of(number.as_str()),
        (DeValue::Float(number), Kind::Number) => number_of(number.as_str()),
        (DeValue::Array(items), Kind::List) => Ok(items
            .iter()
            .filter_map(|item| item.get_ref().as_str())
            .collect()),
        _ => Err(mismatch(found, leaf)),
    }
}

fn number_of(text: &str) -> Result<Value, Fault> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite());
    let wrong = || Fault::new(format!("`{text}` is no number that can be handled"));
    number.map(Value::from).ok_or_else(wrong)
}

fn mismatch(found: &DeValue<'_>, leaf: &Leaf) -> Fault {
    let mut fault = wrong_type(leaf, type_name(found));
    let plain_text = leaf.kind == Kind::Text && leaf.words.is_empty() && leaf.example.is_none();
    if plain_text && !matches!(found, DeValue::Array(_) | DeValue::Table(_)) {
        fault.help = Some("put it in quotes".to_owned());
    }
    fault
}

pub(crate) fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}
