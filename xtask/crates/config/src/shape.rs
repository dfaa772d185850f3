//! The keys that a configuration may hold and what their values look like, read off the JSON
//! Schema of its types. So the list of known keys exists once, in the types.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::entry::KeyPath;

/// What may stand at one place of a configuration.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    /// A section.
    Section(Section),
    /// A value.
    Leaf(Leaf),
}

/// The keys of a section.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    /// Those that are known, in the order of the documentation.
    fields: Vec<(String, Shape)>,
    /// What stands under each key that the user chooses, where one may be chosen.
    others: Option<Box<Shape>>,
}

/// What a value looks like.
#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) kind: Kind,
    /// All values there are, where they can be listed.
    pub(crate) words: Vec<String>,
    /// A value that shows the form.
    pub(crate) example: Option<String>,
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Boolean,
    Integer {
        minimum: Option<i64>,
        maximum: Option<i64>,
    },
    /// With a fraction perhaps.
    Number,
    /// A list of texts.
    List,
}

impl Shape {
    /// The shape of a type.
    pub(crate) fn of<T: JsonSchema>() -> Self {
        let schema = SchemaSettings::draft2020_12()
            .into_generator()
            .into_root_schema_for::<T>()
            .to_value();
        let definitions = schema.get("$defs").and_then(Value::as_object);
        compile(&schema, definitions.unwrap_or(&Map::new()))
    }

    /// What stands under a key of this place.
    pub(crate) fn child(&self, key: &str) -> Option<&Self> {
        let Self::Section(section) = self else {
            return None;
        };
        let known = section.fields.iter().find(|(name, _)| name == key);
        known.map(|(_, shape)| shape).or(section.others.as_deref())
    }

    /// What stands under a key that is none of those known, where the user may choose one.
    pub(crate) fn chosen(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Section(section) if self.keys().all(|known| known != key) => {
                section.others.as_deref()
            }
            Self::Section(_) | Self::Leaf(_) => None,
        }
    }

    /// The keys of this place that are known.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        let fields = match self {
            Self::Section(section) => section.fields.as_slice(),
            Self::Leaf(_) => &[],
        };
        fields.iter().map(|(name, _)| name.as_str())
    }

    /// The same with the sections that a user has named, at these paths, among the known ones; no further ones may be named
    /// beside them. What is not a section of a chosen name is left alone.
    pub(crate) fn with_named(mut self, paths: &[KeyPath]) -> Self {
        if let Self::Section(section) = &mut self {
            section.name(&mut Vec::new(), paths);
        }
        self
    }

    /// Calls `visit` with every path that holds a value, and with every section whose keys a user chooses.
    pub(crate) fn visit(&self, visit: &mut impl FnMut(&[String], &Self)) {
        self.visit_below(&mut Vec::new(), visit);
    }

    fn visit_below(&self, path: &mut Vec<String>, visit: &mut impl FnMut(&[String], &Self)) {
        let Self::Section(section) = self else {
            return visit(path, self);
        };
        for (name, shape) in &section.fields {
            path.push(name.clone());
            shape.visit_below(path, visit);
            path.pop();
        }
        if section.others.is_some() {
            visit(path, self);
        }
    }

    /// The values whose keys a user chooses here.
    pub(crate) fn chosen_leaf(&self) -> Option<&Leaf> {
        match self {
            Self::Section(section) => match section.others.as_deref() {
                Some(Self::Leaf(leaf)) => Some(leaf),
                Some(Self::Section(_)) | None => None,
            },
            Self::Leaf(_) => None,
        }
    }
}

impl Section {
    fn name(&mut self, at: &mut KeyPath, paths: &[KeyPath]) {
        if let Some(Shape::Section(inner)) = self.others.as_deref() {
            for path in paths {
                let Some([name]) = path.strip_prefix(at.as_slice()) else {
                    continue;
                };
                if self.fields.iter().all(|(known, _)| known != name) {
                    let shape = Shape::Section(inner.clone());
                    self.fields.push((name.clone(), shape));
                }
            }
            self.others = None;
        }
        for (name, shape) in &mut self.fields {
            if let Shape::Section(section) = shape {
                at.push(name.clone());
                section.name(at, paths);
                at.pop();
            }
        }
    }
}

fn compile(schema: &Value, definitions: &Map<String, Value>) -> Shape {
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let name = target.rsplit('/').next().unwrap_or(target);
        // The types nest without recursion, so following references ends.
        return compile(&definitions[name], definitions);
    }
    let fields = schema.get("properties").and_then(Value::as_object);
    let others = map_value(schema);
    if fields.is_some() || others.is_some() {
        let compiled = fields
            .into_iter()
            .flatten()
            .map(|(name, field)| (name.clone(), compile(field, definitions)));
        return Shape::Section(Section {
            fields: compiled.collect(),
            others: others.map(|value| Box::new(compile(value, definitions))),
        });
    }
    Shape::Leaf(Leaf {
        kind: kind(schema),
        words: words(schema),
        example: example(schema),
    })
}

/// The schema of a map's values: under the pattern of its keys where they have one.
fn map_value(schema: &Value) -> Option<&Value> {
    schema
        .get("patternProperties")
        .and_then(Value::as_object)
        .and_then(|patterns| patterns.values().next())
        .or_else(|| schema.get("additionalProperties"))
        .filter(|value| value.is_object())
}

fn kind(schema: &Value) -> Kind {
    let number = |name: &str| schema.get(name).and_then(Value::as_i64);
    match schema.get("type").and_then(Value::as_str) {
        Some("boolean") => Kind::Boolean,
        Some("integer") => Kind::Integer {
            minimum: number("minimum"),
            maximum: number("maximum"),
        },
        Some("number") => Kind::Number,
        Some("array") => Kind::List,
        _ => Kind::Text,
    }
}

/// A documented enumeration comes as one `const` a word, an undocumented one as `enum`.
fn words(schema: &Value) -> Vec<String> {
    let list = |name: &str| schema.get(name).and_then(Value::as_array);
    let one_of = list("oneOf").into_iter().flatten();
    one_of
        .filter_map(|word| word.get("const"))
        .chain(list("enum").into_iter().flatten())
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect()
}

fn example(schema: &Value) -> Option<String> {
    let first = schema.get("examples")?.as_array()?.first()?;
    first.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use deploy_plan::config::{Config, DeployFile};

    fn check<T: JsonSchema>() -> String {
        let mut lines = Vec::new();
        Shape::of::<T>().visit(&mut |path, shape| {
            let what = match shape {
                Shape::Leaf(leaf) if leaf.words.is_empty() => format!("{:?}", leaf.kind),
                Shape::Leaf(leaf) => leaf.words.join("|"),
                Shape::Section(_) => "map".to_owned(),
            };
            lines.push(format!("{} {what}", path.join(".")));
        });
        lines.join("\n")
    }

    #[test]
    fn every_key_of_an_environment() {
        insta::assert_snapshot!(check::<Config>(), @r"
        control_plane embedded|management-api
        build.profile Text
        build.locked Boolean
        build.packages List
        build.manifests List
        build.web Text
        image.dockerfile Text
        image.context Text
        image.base Text
        image.platform Text
        image.check_libraries Boolean
        image.builder auto|native|docker
        image.compression auto|none|gzip|zstd
        image.compression_level Integer { minimum: Some(0), maximum: Some(19) }
        image.build_args map
        image.repository Text
        image.allow_secrets List
        image.sbom Boolean
        image.provenance Boolean
        image.signing_key_file Text
        deploy.strategy rolling|blue-green|canary|recreate
        deploy.release_command List
        deploy.replicas Integer { minimum: Some(1), maximum: Some(100) }
        deploy.restart always|on-failure|never
        deploy.timeout Text
        deploy.require_clean Boolean
        deploy.require_env List
        deploy.wait Boolean
        rollout.max_surge Integer { minimum: Some(0), maximum: Some(100) }
        rollout.max_unavailable Integer { minimum: Some(0), maximum: Some(100) }
        rollout.batch_pause Text
        rollout.bake Text
        rollout.keep_warm Text
        rollout.steps List
        analysis.min_requests Integer { minimum: Some(1), maximum: Some(1000000) }
        analysis.max_error_percent Integer { minimum: Some(0), maximum: Some(100) }
        analysis.max_p95 Text
        analysis.max_p95_ratio Integer { minimum: Some(1), maximum: Some(1000) }
        analysis.log_patterns List
        analysis.synthetic Boolean
        resources.memory Text
        resources.cpus Number
        resources.pids Integer { minimum: Some(0), maximum: Some(4000000) }
        resources.read_only Boolean
        resources.best_effort Boolean
        health.kind http|tcp|command|image|process
        health.command List
        health.path Text
        health.interval Text
        health.timeout Text
        health.start_period Text
        health.retries Integer { minimum: Some(1), maximum: Some(1000) }
        health.status Integer { minimum: Some(100), maximum: Some(599) }
        health.body Text
        liveness.kind none|http|tcp|command
        liveness.command List
        liveness.path Text
        liveness.interval Text
        liveness.timeout Text
        liveness.retries Integer { minimum: Some(1), maximum: Some(1000) }
        liveness.status Integer { minimum: Some(100), maximum: Some(599) }
        api.url Text
        api.tenant_id Text
        api.auth auto|bearer|exchange
        api.insecure_registries List
        api.ca_file Text
        api.registry_ca_file Text
        local.server Text
        local.listen Text
        local.insecure Boolean
        env map
        services.app.binary Text
        services.app.image Text
        services.app.command List
        services.app.depends_on List
        services.app.volumes map
        services.app.routes List
        services map
        ");
    }

    #[test]
    fn the_file_has_the_sections_of_an_environment() {
        let file = Shape::of::<DeployFile>();
        let environment = Shape::of::<Config>();
        let extra: Vec<_> = file
            .keys()
            .filter(|key| environment.child(key).is_none())
            .collect();
        assert_eq!(extra, ["schema", "default_environment", "environments"]);
        let missing: Vec<_> = environment
            .keys()
            .filter(|key| file.child(key).is_none())
            .collect();
        assert_eq!(missing, ["control_plane"]);
    }
}
