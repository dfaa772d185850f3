//! `cargo xtask login`: keeps a token for a Management API, after the API has accepted it.

use std::path::Path;

use chrono::Utc;
use deploy_config::credentials::Credentials;
use deploy_config::tenants::{Tenant, Tenants};
use deploy_pipeline::interrupt::Interrupts;
use deploy_pipeline::{authorities, control};
use deploy_plan::config::ControlPlane;
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use management_api::client::{Client, Options};
use management_api::types::Me;
use secrecy::SecretString;

use super::Failures;
use super::terminal::{self, Ends, Unheard};
use crate::cli::Login;
use crate::context::{Context, target_overrides};
use crate::render;

/// No token is longer.
const LONGEST: u64 = 64 * 1024;

pub(crate) fn run(project: Option<&Path>, flags: &Login) -> Result<(), Failures> {
    let context = Context::load(project, |overrides| {
        target_overrides(&flags.target, overrides);
    })
    .map_err(|failure| vec![failure])?;
    perform(&context).map_err(|failure| vec![context.redactor.clean_failure(failure)])
}

fn perform(context: &Context) -> Result<(), Failure> {
    let config = &context.settings.config;
    if config.control_plane == ControlPlane::Embedded {
        return Err(failure(
            "login_not_needed",
            format!(
                "environment {} needs no login",
                context.settings.environment
            ),
            "name another one: cargo xtask login -e production",
        ));
    }
    let token = read_token(&context.interrupts)?;
    context.redactor.learn(&token);
    let url = config.api.url.to_string();
    authorities::check_api(&context.settings)?;
    let mut options = Options::new(url.clone(), token.clone());
    options.further_certificates = authorities::of_api(&context.settings);
    let client = Client::new(options).map_err(|e| control::failure(Step::Token, &e))?;
    let me = client.me().map_err(|e| control::failure(Step::Token, &e))?;
    keep(context, token, &url, &me)?;
    render::err(&format!(
        "logged in at {url} as {}, {} tenants\n",
        me.user.email,
        me.tenants.len()
    ));
    Ok(())
}

/// From standard input only: an argument would be seen by everyone on this machine.
fn read_token(interrupts: &Interrupts) -> Result<SecretString, Failure> {
    let question = "paste the token, which is not shown, and press Enter: ";
    let text = terminal::secret(question, Ends::Line, LONGEST, interrupts);
    let text = text.map_err(|unheard| match unheard {
        Unheard::Interrupted => Failure::new(
            Step::Token,
            "interrupted",
            Exit::Interrupted,
            "interrupted before there was a token",
            "nothing has changed",
        ),
        Unheard::Unreadable(error) => failure(
            "token_unreadable",
            format!("cannot read the token: {error}"),
            PIPE,
        ),
    })?;
    let token = text.trim();
    if token.is_empty() || token.contains(char::is_whitespace) {
        let details = "standard input holds no token".to_owned();
        return Err(failure("token_missing", details, PIPE));
    }
    Ok(SecretString::from(token.to_owned()))
}

const PIPE: &str = "give it on standard input: cargo xtask login < FILE";

fn keep(context: &Context, token: SecretString, url: &str, me: &Me) -> Result<(), Failure> {
    let now = Utc::now().to_rfc3339();
    let mut credentials = Credentials::new(token, url);
    credentials.authenticated_at = Some(now.clone());
    credentials.user_email = Some(me.user.email.clone());
    credentials.last_validated_at = Some(now.clone());
    let unwritten = |e: &dyn std::error::Error| {
        failure(
            "credentials_not_kept",
            control::with_causes(e),
            "make .systemprompt/ writable",
        )
    };
    credentials
        .write(&context.root)
        .map_err(|e| unwritten(&e))?;
    // Tenants that are known from elsewhere, local ones among them, stay.
    let known = Tenants::read(&context.root).ok().flatten();
    let mut tenants = known.map(|(tenants, _)| tenants).unwrap_or_default();
    for tenant in &me.tenants {
        if tenants.tenants.iter().all(|known| known.id != tenant.id) {
            let mut new = Tenant::new(tenant.id.clone(), tenant.name.clone());
            new.app_id.clone_from(&tenant.fly_app_name);
            new.hostname.clone_from(&tenant.hostname);
            new.tenant_type = Some("cloud".to_owned());
            tenants.tenants.push(new);
        }
    }
    tenants.synced_at = Some(now);
    tenants.write(&context.root).map_err(|e| unwritten(&e))
}

fn failure(code: &'static str, details: String, resolution: &str) -> Failure {
    Failure::new(Step::Token, code, Exit::Authentication, details, resolution)
}
