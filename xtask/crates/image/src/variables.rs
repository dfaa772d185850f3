//! `ARG` and `ENV`: an ordered list of names and values, and the expansion of words with them.

use crate::dockerfile::{Lexer, Problem};
use crate::options::Options;

/// Names and values, in the order they were first set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Variables(Vec<(String, String)>);

impl Variables {
    /// Reads `NAME=value` entries.
    pub(crate) fn from_entries(entries: &[String]) -> Self {
        let mut variables = Self::default();
        for entry in entries {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            variables.set(name, value);
        }
        variables
    }

    /// The platform's variables, which stand in the global scope without an `ARG`.
    pub(crate) fn predefined(options: &Options) -> Self {
        let build = oci::Platform::host();
        let mut variables = Self::default();
        for (prefix, platform) in [("TARGET", &options.platform), ("BUILD", &build)] {
            let variant = platform.variant.as_deref().unwrap_or_default();
            let slash = if variant.is_empty() { "" } else { "/" };
            let whole = format!("{}/{}{slash}{variant}", platform.os, platform.architecture);
            variables.set(&format!("{prefix}PLATFORM"), &whole);
            variables.set(&format!("{prefix}OS"), &platform.os);
            variables.set(&format!("{prefix}ARCH"), &platform.architecture);
            variables.set(&format!("{prefix}VARIANT"), variant);
        }
        variables
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// Sets a value; a name that is set already keeps its place.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((name.to_owned(), value.to_owned())),
        }
    }

    /// `NAME=value` entries, as the image configuration stores them.
    pub(crate) fn entries(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    pub(crate) fn expand(&self, escape: char, word: &str) -> Result<String, Problem> {
        let lookup = |name: &str| self.get(name).map(str::to_owned);
        Lexer::new(escape, &lookup)
            .word(word)
            .map_err(Problem::Expansion)
    }

    pub(crate) fn expand_words(&self, escape: char, word: &str) -> Result<Vec<String>, Problem> {
        let lookup = |name: &str| self.get(name).map(str::to_owned);
        Lexer::new(escape, &lookup)
            .words(word)
            .map_err(Problem::Expansion)
    }

    /// Expands a text in which quotes mean nothing: a heredoc. Its escape is always a backslash.
    pub(crate) fn expand_text(&self, text: &str) -> Result<String, Problem> {
        let lookup = |name: &str| self.get(name).map(str::to_owned);
        Lexer::new('\\', &lookup)
            .ignore_quotes()
            .word(text)
            .map_err(Problem::Expansion)
    }
}
