//! Whether a value fits its key, whichever source it comes from.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::entry::{dotted, tree};
use crate::nearest::nearest;
use crate::shape::{Kind, Leaf};

/// Why a value does not fit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
}

impl Fault {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: None,
        }
    }

    /// Names the key, for the line that an error shows need not show its section.
    pub(crate) fn about(mut self, path: &[String]) -> Self {
        self.message = format!("`{}`: {}", dotted(path), self.message);
        self
    }
}

/// Checks type, words and range, which the shape knows.
pub(crate) fn fits(leaf: &Leaf, value: &Value) -> Result<(), Fault> {
    match (leaf.kind, value) {
        (Kind::Text, Value::String(text)) => is_known_word(leaf, text),
        (Kind::Boolean, Value::Bool(_)) | (Kind::Number, Value::Number(_)) => Ok(()),
        (Kind::List, Value::Array(items)) if items.iter().all(Value::is_string) => Ok(()),
        (Kind::Integer { minimum, maximum }, Value::Number(number)) if number.is_i64() => {
            in_range(number.as_i64().unwrap_or_default(), minimum, maximum)
        }
        _ => Err(wrong_type(leaf, found(value))),
    }
}

/// Checks what only the type's own reader knows: a tree with nothing but this value is read, all
/// other keys have their defaults. So every value is judged by itself and none hides another.
pub(crate) fn reads_alone<T: DeserializeOwned>(
    path: &[String],
    value: &Value,
) -> Result<(), Fault> {
    match serde_json::from_value::<T>(tree([(path, value)])) {
        Ok(_) => Ok(()),
        Err(error) => Err(Fault::new(error.to_string())),
    }
}

/// Reads the text of an option or a variable as the key asks: `true`, `3`, `a,b`.
pub(crate) fn from_text(leaf: &Leaf, text: &str) -> Result<Value, Fault> {
    let wrong = || wrong_type(leaf, &format!("`{text}`"));
    match leaf.kind {
        Kind::Text => Ok(Value::from(text)),
        Kind::Boolean => match text {
            "true" | "1" => Ok(Value::from(true)),
            "false" | "0" => Ok(Value::from(false)),
            _ => Err(wrong()),
        },
        Kind::Integer { .. } => text.parse::<i64>().map(Value::from).map_err(|_| wrong()),
        // `inf` and `NaN` are numbers to Rust, and nothing to what is written in JSON
        Kind::Number => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Value::from(number)),
            _ => Err(wrong()),
        },
        Kind::List => Ok(text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .collect()),
    }
}

/// The fault of a value of another type; `found` says what it is.
pub(crate) fn wrong_type(leaf: &Leaf, found: &str) -> Fault {
    Fault::new(format!("expected {}, found {found}", expected(leaf)))
}

fn expected(leaf: &Leaf) -> String {
    match (leaf.kind, &leaf.example) {
        (Kind::Text, _) if !leaf.words.is_empty() => format!("one of {}", leaf.words.join(", ")),
        (Kind::Text, Some(example)) => format!("text such as \"{example}\""),
        (Kind::Text, None) => "text in quotes".to_owned(),
        (Kind::Boolean, _) => "true or false".to_owned(),
        (Kind::Integer { .. }, _) => "a whole number".to_owned(),
        (Kind::Number, _) => "a number".to_owned(),
        (Kind::List, _) => "a list of texts".to_owned(),
    }
}

fn found(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a section",
    }
}

fn is_known_word(leaf: &Leaf, text: &str) -> Result<(), Fault> {
    if leaf.words.is_empty() || leaf.words.iter().any(|word| word == text) {
        return Ok(());
    }
    let mut fault = wrong_type(leaf, &format!("`{text}`"));
    fault.help = nearest(text, leaf.words.iter().map(String::as_str))
        .map(|word| format!("did you mean `{word}`?"));
    Err(fault)
}

fn in_range(number: i64, minimum: Option<i64>, maximum: Option<i64>) -> Result<(), Fault> {
    let low = minimum.filter(|minimum| number < *minimum);
    let high = maximum.filter(|maximum| number > *maximum);
    match (low, high, minimum, maximum) {
        (None, None, ..) => Ok(()),
        (_, _, Some(minimum), Some(maximum)) => Err(Fault::new(format!(
            "expected a number from {minimum} to {maximum}, found {number}"
        ))),
        (Some(minimum), ..) => Err(Fault::new(format!(
            "expected a number of at least {minimum}, found {number}"
        ))),
        (_, Some(maximum), ..) => Err(Fault::new(format!(
            "expected a number of at most {maximum}, found {number}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn leaf(kind: Kind) -> Leaf {
        Leaf {
            kind,
            words: Vec::new(),
            example: None,
        }
    }

    fn check(leaf: &Leaf, text: &str) -> String {
        match from_text(leaf, text) {
            Ok(value) => format!("{value} {:?}", fits(leaf, &value).map_err(|f| f.message)),
            Err(fault) => fault.message,
        }
    }

    #[test]
    fn texts_of_options_and_variables() {
        assert_eq!(check(&leaf(Kind::Text), "1"), r#""1" Ok(())"#);
        assert_eq!(check(&leaf(Kind::Boolean), "1"), "true Ok(())");
        assert_eq!(
            check(&leaf(Kind::Boolean), "yes"),
            "expected true or false, found `yes`"
        );
        assert_eq!(check(&leaf(Kind::List), "a, b,"), r#"["a","b"] Ok(())"#);
        let port = leaf(Kind::Integer {
            minimum: Some(1),
            maximum: Some(9),
        });
        assert_eq!(check(&port, "3"), "3 Ok(())");
        assert_eq!(
            check(&port, "10"),
            r#"10 Err("expected a number from 1 to 9, found 10")"#
        );
        assert_eq!(check(&port, "x"), "expected a whole number, found `x`");
        assert_eq!(check(&leaf(Kind::Number), "1.5"), "1.5 Ok(())");
        for text in ["inf", "NaN", "1e999", "x"] {
            let fault = format!("expected a number, found `{text}`");
            assert_eq!(check(&leaf(Kind::Number), text), fault);
        }
    }

    #[test]
    fn values_of_other_types() {
        for (kind, value, message) in [
            (
                Kind::Text,
                json!(1),
                "expected text in quotes, found a number",
            ),
            (
                Kind::Boolean,
                json!("x"),
                "expected true or false, found text",
            ),
            (
                Kind::List,
                json!([1]),
                "expected a list of texts, found a list",
            ),
            (
                Kind::Integer {
                    minimum: None,
                    maximum: None,
                },
                json!(1.5),
                "expected a whole number, found a fraction",
            ),
        ] {
            assert_eq!(fits(&leaf(kind), &value), Err(Fault::new(message)));
        }
    }
}
