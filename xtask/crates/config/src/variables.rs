//! The environment variables that set keys.

use std::collections::BTreeMap;

use crate::check::{Fault, fits, from_text};
use crate::diagnostic::{Diagnostic, Place};
use crate::entry::{Entry, KeyPath, dotted};
use crate::origin::Origin;
use crate::shape::{Leaf, Shape};

/// Names the environment deployed to.
pub(crate) const ENVIRONMENT: &str = "SYSTEMPROMPT_ENVIRONMENT";

/// Names that existing clients use for keys; they win over the name made from the key.
const ALIASES: [(&str, &str); 1] = [("SYSTEMPROMPT_TENANT_ID", "api.tenant_id")];

/// The variable that sets a key: `deploy.timeout` is `SYSTEMPROMPT_DEPLOY_TIMEOUT`.
#[must_use]
pub fn variable_of(key: &str) -> String {
    let key: String = key
        .chars()
        .map(|c| {
            if matches!(c, '.' | '-') {
                '_'
            } else {
                c.to_ascii_uppercase()
            }
        })
        .collect();
    format!("SYSTEMPROMPT_{key}")
}

/// What the variables say about the keys of `shape`. An empty variable counts as absent, for that
/// is what CI systems make of a secret that is not set; one that ends up in a map (`env`) may be
/// empty.
pub(crate) fn entries(
    variables: &BTreeMap<String, String>,
    shape: &Shape,
) -> (Vec<Entry>, Vec<Diagnostic>) {
    let mut found = Vec::new();
    let mut diagnostics = Vec::new();
    let mut take = |variable: &str, path: KeyPath, leaf: &Leaf, text: &str| match read(leaf, text) {
        Ok(value) => found.push(entry(variable, path, value)),
        Err(fault) => diagnostics.push(diagnostic(variable, fault)),
    };
    shape.visit(&mut |path, shape| {
        let variable = variable_of(&path.join("."));
        match shape {
            Shape::Leaf(leaf) => {
                if let Some(text) = filled(variables, &variable) {
                    take(&variable, path.to_vec(), leaf, text);
                }
            }
            Shape::Section(_) => {
                let Some(leaf) = shape.chosen_leaf() else {
                    return;
                };
                for (variable, key, text) in with_prefix(variables, &format!("{variable}_")) {
                    let path = path.iter().cloned().chain([key.to_owned()]).collect();
                    take(variable, path, leaf, text);
                }
            }
        }
    });
    for (variable, key) in ALIASES {
        let path: KeyPath = key.split('.').map(str::to_owned).collect();
        let leaf = path.iter().try_fold(shape, |at, key| at.child(key));
        if let (Some(text), Some(Shape::Leaf(leaf))) = (filled(variables, variable), leaf) {
            take(variable, path, leaf, text);
        }
    }
    diagnostics.extend(ambiguous(&found));
    (found, diagnostics)
}

/// Names that a file chooses can make one variable mean two keys: `env.LEVEL` of a service `api`, and `level` of one `api-env`.
fn ambiguous(entries: &[Entry]) -> Vec<Diagnostic> {
    let mut meant: BTreeMap<&str, &KeyPath> = BTreeMap::new();
    let mut found = Vec::new();
    for entry in entries {
        let Origin::Variable(variable) = &entry.origin else {
            continue;
        };
        if let Some(other) = meant.insert(variable, &entry.path) {
            let (one, two) = (dotted(other), dotted(&entry.path));
            let mut fault = Fault::new(format!("it means both `{one}` and `{two}`"));
            fault.help = Some(
                "set them in .systemprompt/deploy.toml, or give one of the services another name"
                    .to_owned(),
            );
            found.push(diagnostic(variable, fault));
        }
    }
    found
}

/// The value of a variable that is there and not empty.
pub(crate) fn filled<'a>(variables: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
    variables
        .get(name)
        .map(String::as_str)
        .filter(|text| !text.is_empty())
}

fn with_prefix<'a>(
    variables: &'a BTreeMap<String, String>,
    prefix: &str,
) -> impl Iterator<Item = (&'a str, &'a str, &'a str)> {
    variables.iter().filter_map(move |(name, text)| {
        let key = name.strip_prefix(prefix).filter(|key| !key.is_empty())?;
        Some((name.as_str(), key, text.as_str()))
    })
}

fn read(leaf: &Leaf, text: &str) -> Result<serde_json::Value, Fault> {
    let value = from_text(leaf, text)?;
    fits(leaf, &value)?;
    Ok(value)
}

fn entry(variable: &str, path: KeyPath, value: serde_json::Value) -> Entry {
    let origin = Origin::Variable(variable.to_owned());
    Entry {
        path,
        value,
        place: Place::Origin(origin.clone()),
        origin,
    }
}

fn diagnostic(variable: &str, fault: Fault) -> Diagnostic {
    let place = Place::Origin(Origin::Variable(variable.to_owned()));
    Diagnostic::new(fault.message, place).with_help(fault.help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use deploy_plan::config::Config;
    use std::collections::BTreeSet;

    fn check(variables: &[(&str, &str)]) -> Vec<String> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let (entries, diagnostics) = entries(&variables, &Shape::of::<Config>());
        let entries = entries
            .iter()
            .map(|entry| format!("{} = {}", entry.path.join("."), entry.value));
        entries
            .chain(diagnostics.iter().map(ToString::to_string))
            .collect()
    }

    #[test]
    fn every_kind_of_value() {
        assert_eq!(
            check(&[
                ("SYSTEMPROMPT_API_URL", "http://a"),
                ("SYSTEMPROMPT_BUILD_PACKAGES", "a,b"),
                ("SYSTEMPROMPT_DEPLOY_WAIT", "false"),
                ("SYSTEMPROMPT_HEALTH_RETRIES", "9"),
                ("SYSTEMPROMPT_ENV_LOG", ""),
                ("SYSTEMPROMPT_IMAGE_BUILD_ARGS_VERSION", "2"),
            ]),
            [
                r#"build.packages = ["a","b"]"#,
                r#"image.build_args.VERSION = "2""#,
                "deploy.wait = false",
                "health.retries = 9",
                r#"api.url = "http://a""#,
                r#"env.LOG = """#,
            ]
        );
    }

    #[test]
    fn the_contract_s_name_of_the_tenant_wins() {
        assert_eq!(
            check(&[
                ("SYSTEMPROMPT_API_TENANT_ID", "a"),
                ("SYSTEMPROMPT_TENANT_ID", "b"),
            ])
            .last()
            .map(String::as_str),
            Some(r#"api.tenant_id = "b""#)
        );
    }

    #[test]
    fn others_and_empty_ones_play_no_role() {
        assert_eq!(
            check(&[
                ("SYSTEMPROMPT_WEB", "/app/web"),
                ("SYSTEMPROMPT_API_TOKEN", "secret"),
                ("SYSTEMPROMPT_ENV_", "x"),
                ("SYSTEMPROMPT_TENANT_ID", ""),
                ("PATH", "/bin"),
            ]),
            Vec::<String>::new()
        );
    }

    #[test]
    fn wrong_values_name_their_variable() {
        assert_eq!(
            check(&[
                ("SYSTEMPROMPT_DEPLOY_WAIT", "maybe"),
                ("SYSTEMPROMPT_DEPLOY_STRATEGY", "roling"),
            ]),
            [
                "variable SYSTEMPROMPT_DEPLOY_STRATEGY: expected one of rolling, blue-green, \
                 canary, recreate, found `roling`\n  help: did you mean `rolling`?",
                "variable SYSTEMPROMPT_DEPLOY_WAIT: expected true or false, found `maybe`",
            ]
        );
    }

    #[test]
    fn no_variable_means_two_keys_and_none_is_the_token() {
        let mut seen = BTreeSet::new();
        Shape::of::<Config>().visit(&mut |path, _| {
            assert!(seen.insert(variable_of(&path.join("."))), "{path:?}");
        });
        assert!(!seen.contains("SYSTEMPROMPT_API_TOKEN"));
        assert!(!seen.contains(ENVIRONMENT));
    }
}
