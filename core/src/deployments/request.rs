//! What a request for a deployment must say. Everything is checked before anything is written.

use std::collections::BTreeMap;

use management_api::types::{
    DeployRequest, HealthCheck, Probe, ProbeKind, Resources, Restart, Source,
};

use super::course::replicas_of;
use super::{Capsule, Group, Strategy};

/// Environment variables of one release, names and values together.
const MAX_ENV_BYTES: usize = 128 * 1024;
/// Milliseconds.
const HOUR: u64 = 60 * 60 * 1000;
const MAX_COMMAND_BYTES: usize = 16 * 1024;
const SOUND_COMMAND: &str = "begin with a word, hold no zero byte and be at most 16384 bytes long";
/// SHA-256 has 64.
const LONGEST_SHA: usize = 100;
/// The longest rollout that may be asked for.
const MAX_TIMEOUT_SECONDS: u64 = 6 * 60 * 60;

/// Why a request is refused; the text is for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The request is wrong in itself.
    #[error("{0}")]
    Invalid(String),
    /// The registry does not hold the image.
    #[error("{0}")]
    ImageNotFound(String),
}

impl Refusal {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    /// The same, about a further service of the release.
    pub(crate) fn of_service(self, name: &str) -> Self {
        let told = |message| format!("services.{name}: {message}");
        match self {
            Self::Invalid(message) => Self::Invalid(told(message)),
            Self::ImageNotFound(message) => Self::ImageNotFound(told(message)),
        }
    }
}

/// What applies where a request is silent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestDefaults {
    pub(crate) health: HealthCheck,
    pub(crate) timeout_seconds: u64,
}

/// A tenant's id is part of paths, of repository names and of file names.
pub(crate) fn check_tenant_id(id: &str) -> Result<(), Refusal> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let sound = (1..=40).contains(&id.len())
        && id.chars().all(allowed)
        && !id.starts_with('-')
        && !id.ends_with('-')
        && !id.contains("--");
    if sound {
        return Ok(());
    }
    Err(Refusal::invalid(
        "a tenant id is 1 to 40 lower-case letters, digits and single dashes between them",
    ))
}

/// Every look at the history would carry it along.
fn check_source(source: Option<&Source>) -> Result<(), Refusal> {
    if source.is_none_or(|source| source.git_sha.len() <= LONGEST_SHA) {
        return Ok(());
    }
    let message = format!("source.git_sha has at most {LONGEST_SHA} characters");
    Err(Refusal::invalid(message))
}

/// The release that a request describes.
pub(crate) fn capsule_of(
    request: &DeployRequest,
    digest: String,
    defaults: &RequestDefaults,
) -> Result<Capsule, Refusal> {
    check_env(&request.env)?;
    check_source(request.source.as_ref())?;
    let health = request.health.clone();
    let health = health.unwrap_or_else(|| defaults.health.clone());
    check_health(&health)?;
    check_restart(request.restart, &health)?;
    Ok(Capsule {
        digest,
        env: request.env.clone(),
        health,
        replicas: replicas_of(request.replicas)?,
        resources: resources_of(&request.resources)?,
        restart: request.restart,
        secrets: BTreeMap::new(),
        group: Group::default(),
    })
}

/// What each instance may use, as a request asks for it. Below the least of each nothing could start.
pub(super) fn resources_of(asked: &Resources) -> Result<Resources, Refusal> {
    let Resources {
        memory_bytes,
        cpu_millis,
        pids,
        ..
    } = asked;
    for (name, value, least, most) in [
        ("memory_bytes", *memory_bytes, 8 << 20, 1 << 50),
        ("cpu_millis", cpu_millis.map(u64::from), 10, 1_000_000),
        ("pids", pids.map(u64::from), 1, 4_000_000),
    ] {
        if let Some(value) = value {
            within(&format!("resources.{name}"), value, least, most)?;
        }
    }
    Ok(asked.clone())
}

/// The capsule with the tenant's secrets as they are now. A name that is both would have two values.
pub(crate) fn with_secrets(
    capsule: Capsule,
    secrets: BTreeMap<String, u64>,
) -> Result<Capsule, Refusal> {
    if let Some(name) = secrets.keys().find(|name| capsule.env.contains_key(*name)) {
        return Err(Refusal::invalid(format!(
            "{name} is a secret of this tenant and in the deployment's `env`: take it out of one of them"
        )));
    }
    Ok(Capsule { secrets, ..capsule })
}

/// The strategy that a request asks for.
pub(crate) fn strategy_of(word: Option<&str>) -> Result<Strategy, Refusal> {
    let Some(word) = word else {
        return Ok(Strategy::Rolling);
    };
    Strategy::parse(word).ok_or_else(|| {
        let known = Strategy::ALL.map(Strategy::as_str).join(", ");
        Refusal::invalid(format!(
            "strategy {word:?} is not known; this server offers: {known}"
        ))
    })
}

/// The command that is to run before a release.
pub(crate) fn release_command_of(words: Vec<String>) -> Result<Vec<String>, Refusal> {
    command_of("release_command", words)
}

/// A command in place of the image's own, or none.
pub(super) fn command_of(name: &str, words: Vec<String>) -> Result<Vec<String>, Refusal> {
    if is_sound(&words) {
        return Ok(words);
    }
    let message = format!("{name} must {SOUND_COMMAND}");
    Err(Refusal::invalid(message))
}

fn is_sound(words: &[String]) -> bool {
    let bytes: usize = words.iter().map(String::len).sum();
    words.first().is_none_or(|first| !first.is_empty())
        && bytes <= MAX_COMMAND_BYTES
        && words.iter().all(|word| !word.contains('\0'))
}

/// The deadline that a request asks for.
pub(crate) fn timeout_of(seconds: Option<u64>, defaults: &RequestDefaults) -> Result<u64, Refusal> {
    let seconds = seconds.unwrap_or(defaults.timeout_seconds);
    if (1..=MAX_TIMEOUT_SECONDS).contains(&seconds) {
        return Ok(seconds);
    }
    Err(Refusal::invalid(format!(
        "timeout_seconds must be between 1 and {MAX_TIMEOUT_SECONDS}"
    )))
}

pub(super) fn check_env(env: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let size: usize = env.iter().map(|(k, v)| k.len() + v.len()).sum();
    if size > MAX_ENV_BYTES {
        return Err(Refusal::invalid(format!(
            "the environment is larger than {MAX_ENV_BYTES} bytes"
        )));
    }
    env.iter()
        .try_for_each(|(name, value)| check_variable(name, value))
}

/// Checks a variable of an application. The value is not repeated: it may be a secret.
pub(crate) fn check_variable(name: &str, value: &str) -> Result<(), Refusal> {
    let mut chars = name.chars();
    let first = chars
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if !first || !chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(Refusal::invalid(format!(
            "{name:?} is not a name of an environment variable"
        )));
    }
    if value.contains('\0') {
        return Err(Refusal::invalid(format!(
            "the value of {name} holds a zero byte"
        )));
    }
    if name == "PORT" {
        return Err(Refusal::invalid(
            "PORT is set by the platform: take it out of the environment",
        ));
    }
    Ok(())
}

/// Checks a health check from a request or from the configuration.
pub(crate) fn check_health(check: &HealthCheck) -> Result<(), Refusal> {
    check_probe("health", &check.probe)?;
    within("health.start_period_ms", check.start_period_ms, 0, HOUR)?;
    check_rhythm("health", check.interval_ms, check.timeout_ms, check.retries)?;
    let Some(liveness) = &check.liveness else {
        return Ok(());
    };
    check_probe("health.liveness", &liveness.probe)?;
    let (interval, timeout) = (liveness.interval_ms, liveness.timeout_ms);
    check_rhythm("health.liveness", interval, timeout, liveness.retries)
}

fn check_probe(section: &str, probe: &Probe) -> Result<(), Refusal> {
    let path = &probe.path;
    let plain = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    if !plain || path.len() > 1024 {
        return Err(Refusal::invalid(format!(
            "{section}.path must begin with / and hold no spaces or control characters"
        )));
    }
    let body = probe.body.as_ref().map_or(1, String::len);
    if !(1..=1024).contains(&body) {
        return Err(Refusal::invalid(format!(
            "{section}.body must be between 1 and 1024 bytes long"
        )));
    }
    if probe.body.is_some() && probe.kind != ProbeKind::Http {
        return Err(Refusal::invalid(format!(
            "{section}.body is for checks of the kind http"
        )));
    }
    check_command(section, probe)?;
    within(&format!("{section}.status"), probe.status.into(), 200, 599)
}

pub(super) fn check_restart(restart: Restart, health: &HealthCheck) -> Result<(), Refusal> {
    if restart == Restart::Never && health.liveness.is_some() {
        return Err(Refusal::invalid(
            "health.liveness says when an instance is started again, and restart is never: leave one of them out",
        ));
    }
    Ok(())
}

fn check_command(section: &str, probe: &Probe) -> Result<(), Refusal> {
    let refuse = |why: String| Err(Refusal::invalid(format!("{section}.{why}")));
    match probe.kind {
        ProbeKind::Command if probe.command.is_empty() => {
            refuse("command must say what is run".to_owned())
        }
        ProbeKind::Command if !is_sound(&probe.command) => {
            refuse(format!("command must {SOUND_COMMAND}"))
        }
        ProbeKind::Image => refuse("kind image is for the health check of a request".to_owned()),
        ProbeKind::Http | ProbeKind::Tcp | ProbeKind::Process if !probe.command.is_empty() => {
            refuse("command is for checks of the kind command".to_owned())
        }
        ProbeKind::Command | ProbeKind::Http | ProbeKind::Tcp | ProbeKind::Process => Ok(()),
    }
}

fn check_rhythm(section: &str, interval: u64, timeout: u64, retries: u32) -> Result<(), Refusal> {
    within(&format!("{section}.interval_ms"), interval, 50, HOUR)?;
    within(&format!("{section}.timeout_ms"), timeout, 10, HOUR / 12)?;
    within(&format!("{section}.retries"), retries.into(), 1, 100)
}

fn within(name: &str, value: u64, least: u64, most: u64) -> Result<(), Refusal> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "{name} must be between {least} and {most}"
    )))
}

#[cfg(test)]
mod tests {
    use management_api::types::Liveness;

    use super::super::capsule::fixtures::capsule;
    use super::*;

    fn defaults() -> RequestDefaults {
        RequestDefaults {
            health: capsule('a').health,
            timeout_seconds: 300,
        }
    }

    fn with_env(name: &str, value: &str) -> Result<Capsule, Refusal> {
        let request = DeployRequest {
            env: BTreeMap::from([(name.into(), value.into())]),
            ..DeployRequest::default()
        };
        capsule_of(&request, capsule('a').digest, &defaults())
    }

    #[test]
    fn tenant_ids() {
        for good in ["a", "local", "shop-2", &"x".repeat(40)] {
            assert_eq!(check_tenant_id(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "A",
            "a_b",
            "-a",
            "a-",
            "a--b",
            "a/b",
            "..",
            "ü",
            &"x".repeat(41),
        ] {
            assert!(check_tenant_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn environments() {
        assert!(with_env("GREETING_2", "hello\nworld").is_ok());
        for name in ["", "2A", "A-B", "A=B", "PORT", "Ä"] {
            assert!(with_env(name, "x").is_err(), "{name}");
        }
        let refused = with_env("SECRET", "hunter2\0").unwrap_err();
        assert!(!refused.to_string().contains("hunter2"));
        assert!(with_env("BIG", &"x".repeat(MAX_ENV_BYTES)).is_err());
    }

    #[test]
    fn sources() {
        let of = |length: usize| {
            let git_sha = "a".repeat(length);
            let source = Source {
                git_sha,
                dirty: false,
            };
            check_source(Some(&source))
        };
        assert!(of(0).is_ok() && of(LONGEST_SHA).is_ok() && check_source(None).is_ok());
        assert!(of(LONGEST_SHA + 1).is_err());
    }

    #[test]
    fn health_checks() {
        let good = capsule('a').health;
        assert_eq!(check_health(&good), Ok(()));
        for path in ["", "health", "/a b", "/a\r\nX: y"] {
            let mut check = good.clone();
            check.probe.path = path.into();
            assert!(check_health(&check).is_err(), "{path:?}");
            let liveness = Liveness {
                probe: check.probe,
                interval_ms: 1000,
                timeout_ms: 1000,
                retries: 1,
            };
            let mut check = good.clone();
            check.liveness = Some(liveness);
            let refused = check_health(&check).unwrap_err().to_string();
            assert!(refused.contains("health.liveness.path"), "{refused}");
        }
        let change = |change: fn(&mut HealthCheck)| {
            let mut check = good.clone();
            change(&mut check);
            check_health(&check)
        };
        assert!(change(|check| check.retries = 0).is_err());
        assert!(change(|check| check.probe.body = Some(String::new())).is_err());
        assert!(change(|check| check.probe.body = Some("up".into())).is_ok());
        let both = |check: &mut HealthCheck| {
            check.probe.body = Some("up".into());
            check.probe.kind = ProbeKind::Tcp;
        };
        assert!(change(both).is_err());
    }

    #[test]
    fn commands_of_checks() {
        let with = |kind, words: &[&str]| {
            let mut check = capsule('a').health;
            check.probe.kind = kind;
            check.probe.command = words.iter().map(|word| (*word).to_owned()).collect();
            check_health(&check).map_err(|refusal| refusal.to_string())
        };
        assert_eq!(with(ProbeKind::Command, &["pg_isready", ""]), Ok(()));
        for (kind, words, expected) in [
            (ProbeKind::Command, &[][..], "health.command must say what"),
            (ProbeKind::Command, &[""], "health.command must begin"),
            (ProbeKind::Command, &["a\0"], "hold no zero byte"),
            (ProbeKind::Http, &["true"], "for checks of the kind command"),
            (ProbeKind::Image, &[], "health.kind image is for"),
        ] {
            let refused = with(kind, words).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
    }

    #[test]
    fn resources() {
        let refused = |change: fn(&mut Resources)| {
            let mut asked = Resources::default();
            change(&mut asked);
            resources_of(&asked).map_err(|refusal| refusal.to_string())
        };
        assert_eq!(refused(|_| ()), Ok(Resources::default()));
        assert!(refused(|r| r.memory_bytes = Some(8 << 20)).is_ok());
        assert!(refused(|r| r.memory_bytes = Some(1)).is_err_and(|e| e.contains("memory_bytes")));
        assert!(refused(|r| r.cpu_millis = Some(0)).is_err_and(|e| e.contains("cpu_millis")));
        assert!(refused(|r| r.pids = Some(0)).is_err_and(|e| e.contains("pids")));
    }

    #[test]
    fn release_commands() {
        let words =
            |words: &[&str]| release_command_of(words.iter().map(|w| (*w).into()).collect());
        assert!(words(&[]).is_ok() && words(&["migrate", ""]).is_ok());
        assert!(words(&[""]).is_err() && words(&["a\0"]).is_err());
        assert!(words(&[&"x".repeat(MAX_COMMAND_BYTES + 1)]).is_err());
    }

    #[test]
    fn strategies_and_deadlines() {
        assert_eq!(strategy_of(None), Ok(Strategy::Rolling));
        assert_eq!(strategy_of(Some("recreate")), Ok(Strategy::Recreate));
        let refused = strategy_of(Some("yolo")).unwrap_err().to_string();
        assert!(
            refused.contains("rolling, recreate, blue-green, canary"),
            "{refused}"
        );
        assert_eq!(strategy_of(Some("blue_green")), Ok(Strategy::BlueGreen));
        assert_eq!(timeout_of(None, &defaults()), Ok(300));
        assert!(timeout_of(Some(0), &defaults()).is_err());
    }
}
