//! The JSON Schema of `deploy.toml`, for editors.

use deploy_plan::config::DeployFile;
use schemars::generate::SchemaSettings;
use serde_json::Value;

/// The JSON Schema (draft 2020-12) of `.systemprompt/deploy.toml`, ending in a newline.
#[must_use]
pub fn schema_json() -> String {
    let mut schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<DeployFile>()
        .to_value();
    drop_section_defaults(&mut schema);
    let mut text = format!("{schema:#}");
    text.push('\n');
    text
}

/// A section's default is the defaults of its keys, which stand there already.
fn drop_section_defaults(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            if map.get("default").is_some_and(Value::is_object) {
                map.shift_remove("default");
            }
            map.values_mut().for_each(drop_section_defaults);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_section_defaults),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn committed(name: &str) -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
        let path = root.join(".systemprompt").join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    #[test]
    fn the_committed_schema_is_that_of_the_types() {
        assert!(
            committed("deploy.schema.json") == schema_json(),
            "the types have changed: run `cargo xtask config schema > \
             .systemprompt/deploy.schema.json`"
        );
    }

    #[test]
    fn deploy_toml_names_its_schema() {
        assert!(committed("deploy.toml").starts_with("#:schema ./deploy.schema.json\n"));
    }
}
