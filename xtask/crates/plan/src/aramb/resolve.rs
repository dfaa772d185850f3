//! Texts with what their references stand for.

use std::collections::{BTreeMap, HashMap};

use super::{ArambFile, Id, OutputName, Target, Value, references};

/// What is known of the services' outputs.
pub type Outputs = BTreeMap<(Id, OutputName), String>;

/// Why a text cannot be made whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The service has not told it, or not yet.
    #[error("service {service} has told no {name}")]
    NoOutput {
        /// Whose it is.
        service: Id,
        /// Its name in the file.
        name: String,
    },
    /// Nobody has said it.
    #[error("{0} stands for nothing in this file")]
    Nothing(String),
    /// It stands for itself in the end.
    #[error("{0} stands for a text that it is part of")]
    Circle(String),
    /// It goes from variable to variable for too long.
    #[error("{0} stands for a text behind more than {DEEPEST} others")]
    TooDeep(String),
    /// It has grown out of all proportion.
    #[error("what the references stand for is longer than {LONGEST} bytes")]
    TooLong,
}

/// The longest text: variables that hold each other twice double with every step.
const LONGEST: usize = 1024 * 1024;
/// The most variables that hold each other in a row.
const DEEPEST: usize = 64;

/// Replaces references. What it has found out about a variable it does not look for again.
#[derive(Debug)]
pub struct Resolver<'a> {
    file: &'a ArambFile,
    positions: HashMap<Id, usize>,
    outputs: &'a Outputs,
    depth: usize,
    /// None while it is being found out.
    known: HashMap<(usize, bool, &'a str), Option<String>>,
}

impl<'a> Resolver<'a> {
    /// For the texts of a file, with what its services have told.
    #[must_use]
    pub fn new(file: &'a ArambFile, outputs: &'a Outputs) -> Self {
        Self {
            file,
            positions: super::graph::positions(&file.services),
            outputs,
            depth: 0,
            known: HashMap::new(),
        }
    }

    /// The text with all references replaced. What looks like one and is none stays as it is.
    ///
    /// # Errors
    ///
    /// When a reference stands for nothing, or for a text that contains it.
    pub fn resolve(&mut self, text: &str) -> Result<String, ResolveError> {
        let mut whole = String::with_capacity(text.len());
        let mut copied = 0;
        for reference in references(text).flatten() {
            whole.push_str(&text[copied..reference.range.start]);
            copied = reference.range.end;
            let written = &text[reference.range];
            let meant = match &reference.target {
                Target::Output(name) => self.output(reference.service, *name, written)?,
                Target::Var(key) => self.variable(reference.service, false, key, written)?,
                Target::Secret(key) => self.variable(reference.service, true, key, written)?,
            };
            whole.push_str(&meant);
            if whole.len() > LONGEST {
                return Err(ResolveError::TooLong);
            }
        }
        whole.push_str(&text[copied..]);
        Ok(whole)
    }

    fn output(&self, service: Id, name: OutputName, written: &str) -> Result<String, ResolveError> {
        let told = self.outputs.get(&(service, name)).cloned();
        told.ok_or_else(|| {
            let inner = written.trim_end_matches('}');
            ResolveError::NoOutput {
                service,
                name: inner.rsplit('.').next().unwrap_or(inner).to_owned(),
            }
        })
    }

    fn variable(
        &mut self,
        service: Id,
        is_secret: bool,
        key: &str,
        written: &str,
    ) -> Result<String, ResolveError> {
        let nothing = || ResolveError::Nothing(written.to_owned());
        let position = *self.positions.get(&service).ok_or_else(nothing)?;
        let file = self.file;
        let variables = if is_secret {
            &file.services[position].secrets
        } else {
            &file.services[position].vars
        };
        let variable = variables.iter().find(|variable| variable.key == key);
        let variable = variable.ok_or_else(nothing)?;
        let place = (position, is_secret, variable.key.as_str());
        match self.known.get(&place) {
            Some(Some(text)) => return Ok(text.clone()),
            Some(None) => return Err(ResolveError::Circle(written.to_owned())),
            None => {}
        }
        if self.depth == DEEPEST {
            return Err(ResolveError::TooDeep(written.to_owned()));
        }
        self.known.insert(place, None);
        self.depth += 1;
        let Value { text, .. } = &variable.value;
        let whole = self.resolve(text);
        self.depth -= 1;
        match &whole {
            Ok(text) => self.known.insert(place, Some(text.clone())),
            Err(_) => self.known.remove(&place),
        };
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::super::ServiceType::{Backend, Postgres};
    use super::super::graph::tests::{file, service};
    use super::*;

    fn outputs() -> Outputs {
        [
            ((100, OutputName::InternalUrl), "http://db:5432".to_owned()),
            (
                (101, OutputName::PublicUrl),
                "https://a.example.com".to_owned(),
            ),
        ]
        .into()
    }

    #[test]
    fn references_are_replaced_wherever_they_stand() {
        let file = file(vec![
            service(100, Postgres, &["app", "${101.vars.V0}!"]),
            service(101, Backend, &["<${100.vars.V0}>", "${100.vars.V1}"]),
        ]);
        let outputs = outputs();
        let mut resolver = Resolver::new(&file, &outputs);
        let text =
            "${HOME}/${100.outputs.PRIVATE_URL}?a=${101.outputs.PUBLIC_URL}&b=${101.vars.V1} é";
        assert_eq!(
            resolver.resolve(text).unwrap(),
            "${HOME}/http://db:5432?a=https://a.example.com&b=<app>! é"
        );
    }

    #[test]
    fn what_stands_for_nothing_is_told() {
        let file = file(vec![service(
            100,
            Postgres,
            &["${100.vars.V1}", "${100.vars.V0}"],
        )]);
        let outputs = outputs();
        let mut resolver = Resolver::new(&file, &outputs);
        for (text, message) in [
            (
                "${100.outputs.IMAGE_URL}",
                "service 100 has told no IMAGE_URL",
            ),
            (
                "${102.vars.A}",
                "${102.vars.A} stands for nothing in this file",
            ),
            (
                "${100.secrets.V0}",
                "${100.secrets.V0} stands for nothing in this file",
            ),
            (
                "${100.vars.V0}",
                "${100.vars.V0} stands for a text that it is part of",
            ),
        ] {
            for _ in 0..2 {
                assert_eq!(resolver.resolve(text).unwrap_err().to_string(), message);
            }
        }
    }

    #[test]
    fn a_long_way_ends() {
        let texts: Vec<_> = (1..=DEEPEST + 1)
            .map(|number| format!("${{100.vars.V{number}}}"))
            .chain(["x".to_owned()])
            .collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let file = file(vec![service(100, Postgres, &texts)]);
        let outputs = Outputs::new();
        let mut resolver = Resolver::new(&file, &outputs);
        let deep = resolver.resolve("${100.vars.V0}");
        assert!(matches!(deep, Err(ResolveError::TooDeep(_))), "{deep:?}");
        assert_eq!(resolver.resolve("${100.vars.V2}"), Ok("x".to_owned()));
    }

    #[test]
    fn doubling_ends() {
        let texts: Vec<_> = (0..40)
            .map(|number| format!("${{100.vars.V{0}}}${{100.vars.V{0}}}", number + 1))
            .chain(["x".to_owned()])
            .collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let file = file(vec![service(100, Postgres, &texts)]);
        let outputs = Outputs::new();
        let refused = Resolver::new(&file, &outputs).resolve("${100.vars.V0}");
        assert_eq!(refused, Err(ResolveError::TooLong));
    }
}
