//! One value on its way into the settings.

use serde_json::{Map, Value};

use crate::diagnostic::Place;
use crate::origin::Origin;

/// The keys from the root of the configuration to a value.
pub(crate) type KeyPath = Vec<String>;

/// One value that some source gives to some key.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) path: KeyPath,
    pub(crate) value: Value,
    pub(crate) origin: Origin,
    /// Where an error about the value points.
    pub(crate) place: Place,
}

/// `a.b.c` as it is written in a file.
pub(crate) fn dotted(path: &[String]) -> String {
    path.join(".")
}

/// Builds the tree that holds the values at their paths.
pub(crate) fn tree<'a>(values: impl IntoIterator<Item = (&'a [String], &'a Value)>) -> Value {
    let mut root = Map::new();
    for (path, value) in values {
        plant(&mut root, path, value);
    }
    Value::Object(root)
}

fn plant(table: &mut Map<String, Value>, path: &[String], value: &Value) {
    match path {
        [] => {}
        [last] => {
            table.insert(last.clone(), value.clone());
        }
        [first, rest @ ..] => {
            let slot = table
                .entry(first.clone())
                .or_insert_with(|| Value::Object(Map::new()));
            // The shape of the configuration lets no path be both a value and a section.
            if let Value::Object(inner) = slot {
                plant(inner, rest, value);
            }
        }
    }
}
