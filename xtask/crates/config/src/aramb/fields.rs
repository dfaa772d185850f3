//! Single values of a section, each of the type that it has to have.

use std::ops::Range;

use deploy_plan::aramb::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Notes;
use crate::check::Fault;

/// A section, and where it stands.
pub(super) struct Fields<'t, 's> {
    table: &'t DeTable<'s>,
    pub(super) span: Range<usize>,
}

impl<'t, 's> Fields<'t, 's> {
    pub(super) fn new(table: &'t DeTable<'s>, span: Range<usize>) -> Self {
        Self { table, span }
    }

    pub(super) fn get(&self, key: &str) -> Option<&'t Spanned<DeValue<'s>>> {
        self.table.get(key)
    }

    /// A text.
    pub(super) fn text(&self, key: &str, notes: &mut Notes<'_>) -> Option<Value> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::String(text) => Some(Value {
                text: text.to_string(),
                span: value.span(),
            }),
            other => {
                let fault = expected(key, "text in quotes", other);
                notes.wrong(value.span(), fault.with_help("put it in quotes"));
                None
            }
        }
    }

    /// A text, if it is one.
    pub(super) fn peek(&self, key: &str) -> Option<Value> {
        let value = self.get(key)?;
        value.get_ref().as_str().map(|text| Value {
            text: text.to_owned(),
            span: value.span(),
        })
    }

    /// A text, or what reads as one: a number, `true`.
    pub(super) fn scalar(&self, key: &str, notes: &mut Notes<'_>) -> Option<Value> {
        let value = self.get(key)?;
        let span = value.span();
        match value.get_ref() {
            DeValue::Array(_) | DeValue::Table(_) => {
                notes.wrong(span, expected(key, "text in quotes", value.get_ref()));
                None
            }
            DeValue::String(text) => Some(Value {
                text: text.to_string(),
                span,
            }),
            _ => Some(Value {
                text: notes.source[span.clone()].to_owned(),
                span,
            }),
        }
    }

    /// A list of texts; a single text is a list of one.
    pub(super) fn texts(&self, key: &str, notes: &mut Notes<'_>) -> Vec<Value> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let items = match value.get_ref() {
            DeValue::Array(items) => items.iter().collect(),
            _ => vec![value],
        };
        let mut texts = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::String(text) => texts.push(Value {
                    text: text.to_string(),
                    span: item.span(),
                }),
                other => notes.wrong(item.span(), expected(key, "text in quotes", other)),
            }
        }
        texts
    }

    /// A whole number, which some files have in quotes.
    pub(super) fn number(&self, key: &str, notes: &mut Notes<'_>) -> Option<(u64, Range<usize>)> {
        let value = self.get(key)?;
        let number = match value.get_ref() {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            DeValue::String(text) => text.parse().ok(),
            _ => None,
        };
        if number.is_none() {
            notes.wrong(
                value.span(),
                expected(key, "a whole number", value.get_ref()),
            );
        }
        number.map(|number| (number, value.span()))
    }

    /// `true` or `false`, in quotes or not.
    pub(super) fn flag(&self, key: &str, notes: &mut Notes<'_>) -> Option<bool> {
        let value = self.get(key)?;
        let flag = match value.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            DeValue::String(text) => text.parse().ok(),
            _ => None,
        };
        if flag.is_none() {
            notes.wrong(
                value.span(),
                expected(key, "true or false", value.get_ref()),
            );
        }
        flag
    }

    /// A section below.
    pub(super) fn section(&self, key: &str, notes: &mut Notes<'_>) -> Option<Fields<'t, 's>> {
        let value = self.get(key)?;
        match value.get_ref() {
            DeValue::Table(table) => Some(Self::new(table, value.span())),
            other => {
                notes.wrong(value.span(), expected(key, "a section", other));
                None
            }
        }
    }

    /// Sections that there are any number of; `header` is how each begins.
    pub(super) fn sections(
        &self,
        key: &str,
        header: &str,
        notes: &mut Notes<'_>,
    ) -> Vec<Fields<'t, 's>> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let DeValue::Array(items) = value.get_ref() else {
            let fault = expected(key, "a list of sections", value.get_ref());
            notes.wrong(
                value.span(),
                fault.with_help(format!("begin each with {header}")),
            );
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items {
            match item.get_ref() {
                DeValue::Table(table) => sections.push(Self::new(table, item.span())),
                other => notes.wrong(item.span(), expected(key, "a section", other)),
            }
        }
        sections
    }
}

fn expected(key: &str, what: &str, found: &DeValue<'_>) -> Fault {
    let found = crate::deploy_toml::type_name(found);
    Fault::new(format!("`{key}`: expected {what}, found {found}"))
}
