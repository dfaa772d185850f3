//! Fields of a request for a deployment that this server does not know.
//!
//! The contract is older than this server, and has clients that were not made here: what they send beyond it is no reason to
//! turn them away. It is left unheeded, and the answer and the events of the deployment say so. A slip of the fingers
//! is another matter. `stratgy` would give all of the traffic to a release that was to have a tenth of it, and nobody reads a
//! warning in time for that: what is within a letter or two of a known name is refused with that name. In sections that
//! are this server's alone, serde refuses all that is unknown; `health` and `source` cannot have that, one because
//! it is flattened and the other because history keeps it for people.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use management_api::types::{DeployRequest, HealthCheck, Liveness, RollbackRequest, Source};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};

use super::ApiError;

/// How many fields are named.
const NAMED: usize = 10;
/// How much of a name is shown.
const SHOWN: usize = 60;
/// In letters of a name: one more may be wrong. Four, so that `comment` is not taken for `command`.
const LETTERS: usize = 4;
/// Where the beginning of a name says enough to tell what may be meant.
const TELLING: usize = 3;

/// The names that an object may have.
type Names = BTreeSet<String>;

static DEPLOY: LazyLock<Names> = LazyLock::new(names::<DeployRequest>);
static ROLLBACK: LazyLock<Names> = LazyLock::new(names::<RollbackRequest>);
static HEALTH: LazyLock<Names> = LazyLock::new(names::<HealthCheck>);
static LIVENESS: LazyLock<Names> = LazyLock::new(names::<Liveness>);
static SOURCE: LazyLock<Names> = LazyLock::new(names::<Source>);

/// What is to be said of a request for a deployment: a warning for each field that is left unheeded.
pub(super) fn in_deployment(body: &[u8]) -> Result<Vec<String>, ApiError> {
    let request = object(body);
    let mut unheeded = Unheeded::default();
    unheeded.look("", &request, &DEPLOY)?;
    unheeded.look_below("", &request, "source", &SOURCE)?;
    unheeded.look_at_health("", &request)?;
    if let Some(Value::Object(services)) = request.get("services") {
        for (name, service) in services {
            if let Value::Object(service) = service {
                unheeded.look_at_health(&format!("services.{name}."), service)?;
            }
        }
    }
    Ok(unheeded.warnings())
}

/// The same of a request for a rollback: one to `v1` and one to whatever served before are not the same.
pub(super) fn in_rollback(body: &[u8]) -> Result<Vec<String>, ApiError> {
    let mut unheeded = Unheeded::default();
    unheeded.look("", &object(body), &ROLLBACK)?;
    Ok(unheeded.warnings())
}

/// The body has been read as a request before; one that may be left out is no object.
fn object(body: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(body).unwrap_or_default()
}

fn names<T: JsonSchema>() -> Names {
    let schema = SchemaGenerator::default().into_root_schema_for::<T>();
    let properties = schema.get("properties").and_then(Value::as_object);
    let names = properties.into_iter().flat_map(Map::keys);
    names.cloned().collect()
}

/// Fields that are left unheeded, each with what may have been meant.
#[derive(Default)]
struct Unheeded(Vec<(String, Option<String>)>);

impl Unheeded {
    /// `place` is where the object is, with a dot behind it where it is anywhere.
    fn look(
        &mut self,
        place: &str,
        object: &Map<String, Value>,
        known: &Names,
    ) -> Result<(), ApiError> {
        for field in object.keys().filter(|field| !known.contains(*field)) {
            let name = shown(&format!("{place}{field}"));
            if let Some(meant) = slip(field, known) {
                // As serde refuses what is unknown in other sections.
                return Err(ApiError::malformed(format!(
                    "unknown field {name}: did you mean `{place}{meant}`?"
                )));
            }
            let near = related(field, known).map(|near| format!("{place}{near}"));
            self.0.push((name, near));
        }
        Ok(())
    }

    fn look_below(
        &mut self,
        place: &str,
        object: &Map<String, Value>,
        section: &str,
        known: &Names,
    ) -> Result<(), ApiError> {
        match object.get(section) {
            Some(Value::Object(below)) => self.look(&format!("{place}{section}."), below, known),
            _ => Ok(()),
        }
    }

    fn look_at_health(&mut self, place: &str, of: &Map<String, Value>) -> Result<(), ApiError> {
        self.look_below(place, of, "health", &HEALTH)?;
        match of.get("health") {
            Some(Value::Object(health)) => {
                self.look_below(&format!("{place}health."), health, "liveness", &LIVENESS)
            }
            _ => Ok(()),
        }
    }

    fn warnings(self) -> Vec<String> {
        let count = self.0.len();
        let named = self.0.into_iter().take(NAMED).map(|(name, near)| {
            let near = near.map(|near| format!("; did you mean `{near}`?"));
            format!(
                "unknown field {name} was ignored{}",
                near.unwrap_or_default()
            )
        });
        let mut warnings: Vec<String> = named.collect();
        if count > NAMED {
            let more = count - NAMED;
            warnings.push(format!("{more} more unknown fields were ignored"));
        }
        warnings
    }
}

/// The name that was most likely to be written.
fn slip<'n>(field: &str, known: &'n Names) -> Option<&'n str> {
    let written = folded(field);
    let letters = written.chars().count();
    // One letter is near to all names of two.
    if letters < 2 {
        return None;
    }
    let allowed = (letters / LETTERS).max(1);
    known
        .iter()
        // Nothing is gained by a close look at what is much longer, and time is lost.
        .filter(|name| name.len().abs_diff(written.len()) <= 2 * allowed && written.len() <= SHOWN)
        .map(|name| (strsim::osa_distance(&written, &folded(name)), name.as_str()))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// A name that begins as this one does: `health` for `health_path`.
fn related<'n>(field: &str, known: &'n Names) -> Option<&'n str> {
    let written = folded(field);
    let begins = |name: &&String| {
        let name = folded(name);
        let (short, long) = if name.len() < written.len() {
            (&name, &written)
        } else {
            (&written, &name)
        };
        short.len() >= TELLING && long.starts_with(short.as_str())
    };
    let near = known.iter().filter(begins);
    near.max_by_key(|name| name.len()).map(String::as_str)
}

/// Without what people and programs are used to write in other ways: `timeoutSeconds`, `timeout-seconds`.
fn folded(name: &str) -> String {
    let letters = name.chars().filter(|letter| !matches!(letter, '-' | '_'));
    letters.flat_map(char::to_lowercase).collect()
}

fn shown(name: &str) -> String {
    let start: String = name.chars().take(SHOWN).collect();
    let rest = if start.len() < name.len() { "…" } else { "" };
    format!("`{}{rest}`", start.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(body: &str) -> String {
        match in_deployment(body.as_bytes()) {
            Ok(warnings) => warnings.join(", "),
            Err(refused) => format!("{} {}", refused.status.as_u16(), refused.message),
        }
    }

    #[test]
    fn every_field_of_the_contract_is_known() {
        for (known, some) in [
            (&*DEPLOY, ["image", "strategy", "health", "services"]),
            // Two of them are flattened.
            (&*HEALTH, ["path", "kind", "retries", "liveness"]),
            (&*LIVENESS, ["path", "kind", "retries", "interval_ms"]),
            (&*SOURCE, ["git_sha", "git_sha", "dirty", "dirty"]),
            (
                &*ROLLBACK,
                ["to", "to", "timeout_seconds", "timeout_seconds"],
            ),
        ] {
            assert!(some.iter().all(|name| known.contains(*name)), "{known:?}");
        }
        assert_eq!(told(r#"{"image": "x", "health": {"path": "/"}}"#), "");
        assert_eq!(in_rollback(b"").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn slips_are_refused_with_what_was_meant() {
        for (written, meant) in [
            ("stratgy", "strategy"),
            ("Strategy", "strategy"),
            ("startegy", "strategy"),
            ("replica", "replicas"),
            ("timeoutSeconds", "timeout_seconds"),
            ("depends-on", "depends_on"),
            ("envs", "env"),
            ("volume", "volumes"),
        ] {
            let expected = format!("400 unknown field `{written}`: did you mean `{meant}`?");
            assert_eq!(told(&format!(r#"{{"{written}": 1}}"#)), expected);
        }
        for (body, expected) in [
            (
                r#"{"health": {"retires": 1}}"#,
                "400 unknown field `health.retires`: did you mean `health.retries`?",
            ),
            (
                r#"{"services": {"api": {"health": {"liveness": {"pth": 1}}}}}"#,
                "400 unknown field `services.api.health.liveness.pth`: did you mean `services.api.health.liveness.path`?",
            ),
        ] {
            assert_eq!(told(body), expected);
        }
        assert_eq!(in_rollback(br#"{"t": 1}"#).unwrap().len(), 1);
        let refused = in_rollback(br#"{"too": "v1"}"#).unwrap_err().message;
        assert_eq!(refused, "unknown field `too`: did you mean `to`?");
    }

    #[test]
    fn what_others_may_send_is_ignored_and_said() {
        for field in [
            "comment",
            "commit",
            "tag",
            "region",
            "version",
            "app_id",
            "repository",
            "tenant",
            "branch",
            "name",
            "port",
            "cmd",
            "x",
            "",
            "デプロイ",
        ] {
            let expected = format!("unknown field `{field}` was ignored");
            assert_eq!(told(&format!(r#"{{"{field}": 1}}"#)), expected);
        }
        for (field, near) in [
            ("environment", "env"),
            ("health_path", "health"),
            ("image_tag", "image"),
        ] {
            let expected = format!("unknown field `{field}` was ignored; did you mean `{near}`?");
            assert_eq!(told(&format!(r#"{{"{field}": 1}}"#)), expected);
        }
        assert_eq!(
            told(r#"{"source": {"branch": "main"}}"#),
            "unknown field `source.branch` was ignored"
        );
    }

    #[test]
    fn however_much_is_unknown_little_is_said() {
        let fields: Map<String, Value> = (0..1000)
            .map(|number| (format!("zz\n{number}{}", "ü".repeat(500)), Value::Null))
            .collect();
        let body = Value::Object(fields).to_string();
        let warnings = in_deployment(body.as_bytes()).unwrap();
        assert_eq!(warnings.len(), NAMED + 1);
        assert_eq!(warnings[NAMED], "990 more unknown fields were ignored");
        let most = warnings.iter().map(|warning| warning.chars().count()).max();
        assert!(
            most < Some(120) && !warnings[0].contains('\n'),
            "{warnings:?}"
        );
    }
}
