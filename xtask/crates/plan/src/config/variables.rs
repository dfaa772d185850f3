//! Environment variables of the application, and which of them are not shown.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::without_passwords;

/// Shown in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// Environment variables by name. Their `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl FromIterator<(String, String)> for Variables {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

impl IntoIterator for Variables {
    type Item = (String, String);
    type IntoIter = btree_map::IntoIter<String, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.iter()
                    .map(|(name, value)| (name, redact_value(name, value))),
            )
            .finish()
    }
}

impl<'de> Deserialize<'de> for Variables {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        super::rules::variable_names(input).map(Self)
    }
}

/// A name that the shell, the kernel and the platform all accept.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if starts_well && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    Err(format!(
        "`{name}` is no name of a variable: letters, digits and `_`, no digit first"
    ))
}

/// Whether it is such a name.
pub(crate) fn is_variable_name(name: &str) -> bool {
    check_name(name).is_ok()
}

/// Whether a variable of this name is taken to hold a secret. In doubt it is: hiding too much is
/// the smaller fault.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    /// At the end of a name only: `KEY_PREFIX` and `TOKEN_LIFETIME` are no secrets.
    const LAST: [&str; 5] = ["TOKEN", "KEY", "APIKEY", "PASS", "CREDENTIALS"];
    const ANYWHERE: [&str; 5] = ["SECRET", "SECRETS", "PASSWORD", "PASSWD", "PASSPHRASE"];
    let name = name.to_ascii_uppercase();
    let mut words = name.split(['_', '-', '.']);
    words.clone().any(|word| ANYWHERE.contains(&word))
        || words.next_back().is_some_and(|word| LAST.contains(&word))
}

/// The value of a variable as it may be shown: nothing of a secret, and no user and password of
/// an address such as `postgres://user:password@host/database`, with its scheme or without.
#[must_use]
pub fn redact_value(name: &str, value: &str) -> String {
    if is_secret_name(name) && !value.is_empty() {
        return REDACTED.to_owned();
    }
    without_passwords(&redact_user_information(value)).into_owned()
}

fn redact_user_information(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        // A password may hold an unescaped `@` or `/`: everything up to the last `@` of the word
        // goes, for hiding too much is the smaller fault.
        let end = after
            .find(|c: char| c.is_whitespace() || c == '"' || c == '\'')
            .unwrap_or(after.len());
        let (word, tail) = after.split_at(end);
        match word.rsplit_once('@') {
            Some((_, host)) => {
                shown.push_str(REDACTED);
                shown.push('@');
                shown.push_str(host);
            }
            None => shown.push_str(word),
        }
        rest = tail;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_names() {
        for name in [
            "API_TOKEN",
            "token",
            "STRIPE_KEY",
            "JWT_SECRET",
            "DB_PASSWORD",
            "TLS-KEY",
            "SECRET_KEY_BASE",
            "SMTP_PASS",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in [
            "MONKEY",
            "DATABASE_URL",
            "TOKENS_PER_SECOND",
            "KEY_PREFIX",
            "COMPASS",
            "KEYBOARD",
            "",
        ] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    fn check(name: &str, value: &str, shown: &str) {
        assert_eq!(redact_value(name, value), shown);
    }

    #[test]
    fn redaction() {
        check("API_TOKEN", "abc", "[redacted]");
        check("API_TOKEN", "", "");
        check("LOG", "info", "info");
        check(
            "DATABASE_URL",
            "postgres://me:pa@ss/w@db:5432/app",
            "postgres://[redacted]@db:5432/app",
        );
        check(
            "DATABASE_URL",
            "sqlite:///data/app.db",
            "sqlite:///data/app.db",
        );
        check(
            "BROKERS",
            "amqp://u:p@a https://b amqp://u:p@c",
            "amqp://[redacted]@a https://b amqp://[redacted]@c",
        );
        check("QUEUE", "u:p@mq:5672/orders", "[redacted]@mq:5672/orders");
    }

    #[test]
    fn debug_shows_no_secret() {
        let variables: Variables = [("A_TOKEN", "hunter2"), ("LOG", "info")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .collect();
        assert_eq!(
            format!("{variables:?}"),
            r#"{"A_TOKEN": "[redacted]", "LOG": "info"}"#
        );
    }

    #[test]
    fn names() {
        assert_eq!(check_name("DATABASE_URL"), Ok(()));
        for name in ["", "1A", "A-B", "A=B", "Ä"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
