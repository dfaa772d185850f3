//! `cargo xtask secrets`: what the application is told and nobody else. Values come from standard input or from
//! environment variables, never from arguments, which everybody on this machine can read.

use std::collections::BTreeMap;
use std::path::Path;

use deploy_pipeline::control::{self, Control};
use deploy_pipeline::interrupt::Interrupts;
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use management_api::types::SecretsRequest;
use secrecy::SecretString;

use super::Failures;
use super::terminal::{self, Ends, Unheard};
use crate::cli::{Output, Secrets, Target};
use crate::context::{Context, target_overrides};
use crate::render::{self, same_target};

/// What the platform takes of one value.
const LONGEST: u64 = 64 * 1024;

pub(crate) fn output(action: &Secrets) -> Output {
    target(action).output
}

fn target(action: &Secrets) -> &Target {
    match action {
        Secrets::List { target } | Secrets::Set { target, .. } | Secrets::Remove { target, .. } => {
            target
        }
    }
}

pub(crate) fn run(project: Option<&Path>, action: &Secrets) -> Result<(), Failures> {
    let context = Context::load(project, |overrides| {
        target_overrides(target(action), overrides);
    })
    .map_err(|failure| vec![failure])?;
    let done = match action {
        Secrets::List { target } => list(&context, target.output),
        Secrets::Set {
            name,
            from_env,
            externally_rotated,
            ..
        } => values(name.as_deref(), from_env, &context.interrupts).and_then(|secrets| {
            let names: Vec<String> = secrets.keys().cloned().collect();
            let request = SecretsRequest {
                externally_rotated: if *externally_rotated {
                    names.clone()
                } else {
                    Vec::new()
                },
                secrets,
                remove: Vec::new(),
            };
            change(&context, &request, &format!("set {}", names.join(", ")))
        }),
        Secrets::Remove { names, .. } => remove(&context, names),
    };
    done.map_err(|failures| {
        let clean = |failure| context.redactor.clean_failure(failure);
        failures.into_iter().map(clean).collect()
    })
}

fn list(context: &Context, output: Output) -> Result<(), Failures> {
    let control = super::status::connect(context)?;
    let known = control.client.secrets(&control.tenant);
    let known = known.map_err(|e| vec![control::failure(Step::Inspect, &e)])?;
    let Some(known) = known else {
        return Err(vec![Failure::new(
            Step::Inspect,
            "secrets_not_told",
            Exit::Other,
            "the platform does not tell which secrets there are",
            "set one all the same: cargo xtask secrets set NAME < FILE",
        )]);
    };
    if output != Output::Human {
        render::result::document(&known, output);
        return Ok(());
    }
    if known.is_empty() {
        let words = "there are none; give one: cargo xtask secrets set NAME < FILE\n";
        render::err(&same_target::text(words));
    }
    for secret in &known {
        let rotated = if secret.externally_rotated {
            ", rotated by others"
        } else {
            ""
        };
        render::out(&format!(
            "{}  version {}, {}{rotated}\n",
            secret.name,
            secret.version,
            secret.updated_at.format("%Y-%m-%d %H:%M UTC")
        ));
    }
    Ok(())
}

/// The platform takes any name. Whoever has mistyped one must not believe that the secret is gone.
fn remove(context: &Context, names: &[String]) -> Result<(), Failures> {
    let control = super::status::connect(context)?;
    let known = control.client.secrets(&control.tenant);
    let known = known.map_err(|e| vec![control::failure(Step::Inspect, &e)])?;
    if let Some(known) = known {
        let is_known = |name: &&String| known.iter().any(|secret| secret.name == **name);
        let unknown: Vec<&str> = names
            .iter()
            .filter(|name| !is_known(name))
            .map(String::as_str)
            .collect();
        if !unknown.is_empty() {
            return Err(vec![Failure::new(
                Step::Inspect,
                "secret_unknown",
                Exit::Other,
                format!(
                    "the tenant has no secret {}; nothing was removed",
                    unknown.join(", ")
                ),
                "`cargo xtask secrets list` names those that it has",
            )]);
        }
    }
    let request = SecretsRequest {
        secrets: BTreeMap::new(),
        externally_rotated: Vec::new(),
        remove: names.to_vec(),
    };
    send(&control, &request, &format!("removed {}", names.join(", ")))
}

fn change(context: &Context, request: &SecretsRequest, done: &str) -> Result<(), Failures> {
    for value in request.secrets.values() {
        context.redactor.learn(value);
    }
    send(&super::status::connect(context)?, request, done)
}

fn send(control: &Control, request: &SecretsRequest, done: &str) -> Result<(), Failures> {
    control
        .client
        .change_secrets(&control.tenant, request)
        .map_err(|e| vec![control::failure(Step::Inspect, &e)])?;
    render::err(&same_target::text(&format!(
        "{done}; the next deployment has it: cargo xtask deploy\n"
    )));
    Ok(())
}

fn values(
    name: Option<&str>,
    from_env: &[String],
    interrupts: &Interrupts,
) -> Result<BTreeMap<String, SecretString>, Failures> {
    let mut values = BTreeMap::new();
    if let Some(name) = name {
        values.insert(name.to_owned(), read(interrupts)?);
    }
    for name in from_env {
        let value = std::env::var(name).map_err(|_| {
            vec![missing(format!(
                "the environment variable {name} is not set, or is no text"
            ))]
        })?;
        values.insert(name.clone(), SecretString::from(value));
    }
    Ok(values)
}

/// One line end at the end is the terminal's or the file's and not the value's.
fn read(interrupts: &Interrupts) -> Result<SecretString, Failures> {
    let question = "type the value, which is not shown, then press Enter and Ctrl-D:\n";
    let text = terminal::secret(question, Ends::Input, LONGEST + 1, interrupts);
    let text = text.map_err(|unheard| match unheard {
        Unheard::Interrupted => vec![Failure::new(
            Step::Inspect,
            "interrupted",
            Exit::Interrupted,
            "interrupted before there was a value",
            "nothing has changed",
        )],
        Unheard::Unreadable(error) => vec![missing(format!("cannot read the value: {error}"))],
    })?;
    let value = text.strip_suffix('\n').unwrap_or(&text);
    let value = value.strip_suffix('\r').unwrap_or(value);
    if value.is_empty() {
        return Err(vec![missing("standard input holds no value".to_owned())]);
    }
    Ok(SecretString::from(value.to_owned()))
}

fn missing(details: String) -> Failure {
    Failure::new(
        Step::Inspect,
        "secret_missing",
        Exit::Usage,
        details,
        "give it on standard input, `cargo xtask secrets set NAME < FILE`, or name variables: --from-env A,B",
    )
}
