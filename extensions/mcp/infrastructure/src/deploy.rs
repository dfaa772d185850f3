//! `deploy_image`: asks for a deployment of an image that is in the registry.

use std::collections::BTreeMap;

use management_api::types::{DeployAnswer, DeployRequest};
use mcp_common::{CallError, Connection, Platform, Reply, ToolError, bounded};
use rmcp::RoleServer;
use rmcp::service::RequestContext;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::follow::{self, Begun, Outcome};

/// The platform's own limit of a rollout is lower or the same.
pub(crate) const MAX_TIMEOUT: u64 = 86_400;
const MAX_VARIABLES: usize = 200;
const MAX_VALUE: usize = 32 * 1024;

/// Arguments of `deploy_image`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeployArguments {
    /// The tenant; the configured one, or the only one, when absent.
    #[schemars(length(min = 1, max = 100))]
    tenant: Option<String>,
    /// The image: `registry/repository:tag` or `registry/repository@sha256:…`.
    #[schemars(length(min = 1, max = 512))]
    image: String,
    /// The digest that the tag is expected to name, `sha256:` and 64 hexadecimal digits; another
    /// one is refused.
    digest: Option<String>,
    /// `rolling`, `recreate`, …; the platform's default when absent.
    #[schemars(length(min = 1, max = 40))]
    strategy: Option<String>,
    /// The whole environment of the application. It replaces the one of the live release, so
    /// leave nothing out.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Seconds that the platform gives the rollout before it undoes it; its default when absent.
    #[schemars(range(min = 1, max = 86_400))]
    timeout_seconds: Option<u64>,
    /// Seconds to wait for the outcome; 0 answers at once.
    #[serde(default)]
    #[schemars(range(min = 0, max = 600))]
    wait_seconds: u64,
}

pub(crate) async fn deploy(
    platform: &Platform,
    arguments: DeployArguments,
    context: &RequestContext<RoleServer>,
) -> Result<Reply<Outcome>, ToolError> {
    let wait = follow::wait(arguments.wait_seconds)?;
    check(&arguments)?;
    let begun = platform
        .call(move |connection| {
            let tenant = connection.tenant(arguments.tenant.clone())?;
            let answer = request(connection, &tenant, arguments)?;
            Ok(Begun { tenant, answer })
        })
        .await?;
    follow::outcome(platform, begun, wait, context).await
}

fn request(
    connection: &Connection,
    tenant: &str,
    arguments: DeployArguments,
) -> Result<DeployAnswer, CallError> {
    let request = DeployRequest {
        image: arguments.image,
        digest: arguments.digest,
        strategy: arguments.strategy,
        env: arguments.env,
        timeout_seconds: arguments.timeout_seconds,
        ..DeployRequest::default()
    };
    // Only a platform that honours the key may be asked twice.
    let offers_key = connection
        .client
        .capabilities()?
        .is_some_and(|capabilities| capabilities.offers("idempotency"));
    let key = idempotency_key()?;
    Ok(connection
        .client
        .deploy(tenant, &request, &key, offers_key)?)
}

/// A key of its own for every call, so that a repeated call of the user's is a new request and
/// a repeated try of the client's is not.
pub(crate) fn idempotency_key() -> Result<String, ToolError> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| ToolError::new(format!("the system gives no randomness: {error}")))?;
    Ok(format!("mcp-{:032x}", u128::from_be_bytes(bytes)))
}

fn check(arguments: &DeployArguments) -> Result<(), ToolError> {
    check_image(&arguments.image)?;
    if let Some(digest) = &arguments.digest {
        check_digest(digest)?;
    }
    if let Some(strategy) = &arguments.strategy {
        bounded("strategy", strategy, 40)?;
    }
    check_timeout(arguments.timeout_seconds)?;
    check_env(&arguments.env)
}

/// Finds what surely is no reference; what a registry accepts is the platform's to say.
fn check_image(image: &str) -> Result<(), ToolError> {
    bounded("image", image, 512)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-:/@+[]".contains(c);
    if !image.chars().all(allowed) || image.contains("://") {
        return Err(ToolError::argument("image", "is not an image reference")
            .next("pass `registry/repository:tag`, without a scheme"));
    }
    Ok(())
}

fn check_digest(digest: &str) -> Result<(), ToolError> {
    let hex = digest.strip_prefix("sha256:").unwrap_or_default();
    let lower = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if hex.len() == 64 && hex.chars().all(lower) {
        return Ok(());
    }
    Err(ToolError::argument(
        "digest",
        "is not `sha256:` and 64 lower-case hexadecimal digits",
    ))
}

pub(crate) fn check_timeout(seconds: Option<u64>) -> Result<(), ToolError> {
    match seconds {
        Some(seconds) if !(1..=MAX_TIMEOUT).contains(&seconds) => Err(ToolError::argument(
            "timeout_seconds",
            format!("is not within 1 to {MAX_TIMEOUT}"),
        )),
        _ => Ok(()),
    }
}

/// Values are never quoted in an error: they may be secrets.
fn check_env(env: &BTreeMap<String, String>) -> Result<(), ToolError> {
    if env.len() > MAX_VARIABLES {
        let why = format!("has more than {MAX_VARIABLES} variables");
        return Err(ToolError::argument("env", why));
    }
    for (name, value) in env {
        let sound = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let digit = |c: char| c.is_ascii_digit();
        if name.is_empty()
            || name.len() > 256
            || !name.chars().all(sound)
            || name.starts_with(digit)
        {
            let why = format!("holds {name:?}, which is no name of a variable");
            return Err(ToolError::argument("env", why));
        }
        if value.len() > MAX_VALUE || value.contains('\0') {
            let why = format!("has a value for {name} that is too long or holds a zero byte");
            return Err(ToolError::argument("env", why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_told_from_other_text() {
        for good in [
            "app",
            "registry.example/team/app:deploy-1705329622-a1b2c3d",
            "127.0.0.1:5000/app@sha256:0123",
            "[::1]:5000/app:t",
        ] {
            assert!(check_image(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a b",
            "https://registry.example/app",
            "app;rm",
            "app\n",
            "äpp",
        ] {
            assert!(check_image(bad).is_err(), "{bad:?}");
        }
        assert!(check_image(&"a".repeat(513)).is_err());
    }

    #[test]
    fn digests_are_checked() {
        assert!(check_digest(&format!("sha256:{}", "a".repeat(64))).is_ok());
        for bad in [
            "",
            "sha256:",
            "sha512:aa",
            &format!("sha256:{}", "A".repeat(64)),
        ] {
            assert!(check_digest(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_value_of_the_environment_is_never_quoted() {
        let env = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        assert!(check_env(&env("A_1", "x")).is_ok());
        for name in ["", "1A", "A-B", "A=B"] {
            assert!(check_env(&env(name, "x")).is_err(), "{name:?}");
        }
        let error = check_env(&env("A", "hunter2\0")).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn keys_differ() {
        let (one, two) = (idempotency_key().unwrap(), idempotency_key().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), 36);
    }
}
