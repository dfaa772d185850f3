//! The control plane that a plan names: reaching it, finding the tenant, turning its errors into
//! failures that a person can act on.

use std::path::PathBuf;

use deploy_plan::config::{Auth, ControlPlane};
use deploy_plan::exit::Exit;
use deploy_plan::failure::{Failure, Step};
use management_api::client::{ApiError, AuthMode, Client, Options};
use management_api::error::code;
use management_api::types::{Capabilities, Tenant};
use secrecy::SecretString;

/// A control plane that can be talked to.
pub struct Control {
    /// The client.
    pub client: Client,
    /// The tenant.
    pub tenant: String,
    /// What the server offers; `None` when it knows the contract only.
    pub capabilities: Option<Capabilities>,
    /// The repository that images of the tenant go to, when the registry token names none.
    pub default_repository: String,
    /// Which kind it is.
    pub kind: ControlPlane,
}

/// Where a control plane is and how to authenticate.
pub struct Access {
    /// Its address.
    pub url: String,
    /// The token.
    pub token: SecretString,
    /// How tenant calls are authenticated.
    pub auth: Auth,
    /// Which kind it is.
    pub kind: ControlPlane,
    /// Files of certificates that its own may come from, besides those of the known authorities.
    pub certificates: Vec<PathBuf>,
}

impl Control {
    /// Reaches the control plane and finds the tenant.
    pub fn connect(access: &Access, tenant: Option<&str>) -> Result<Self, Failure> {
        let mut options = Options::new(access.url.clone(), access.token.clone());
        options.auth = match access.auth {
            Auth::Auto => AuthMode::Auto,
            Auth::Bearer => AuthMode::Bearer,
            Auth::Exchange => AuthMode::Exchange,
        };
        options
            .further_certificates
            .clone_from(&access.certificates);
        let client = Client::new(options).map_err(|e| failure(Step::Token, &e))?;
        let capabilities = client
            .capabilities()
            .map_err(|e| failure(Step::Token, &e))?;
        let (tenant, default_repository) = match tenant {
            Some(id) => (id.to_owned(), repository_of(&client, id)),
            None => only_tenant(&client)?,
        };
        Ok(Self {
            client,
            tenant,
            capabilities,
            default_repository,
            kind: access.kind,
        })
    }

    /// Whether the server offers a feature beyond the contract.
    #[must_use]
    pub fn offers(&self, feature: &str) -> bool {
        self.capabilities
            .as_ref()
            .is_some_and(|capabilities| capabilities.offers(feature))
    }
}

/// A token for one tenant may not be allowed to list tenants: then its id is the best guess.
fn repository_of(client: &Client, id: &str) -> String {
    client
        .tenants()
        .ok()
        .and_then(|tenants| tenants.into_iter().find(|tenant| tenant.id == id))
        .map_or_else(|| id.to_owned(), |tenant| repository(&tenant))
}

fn repository(tenant: &Tenant) -> String {
    tenant
        .fly_app_name
        .clone()
        .unwrap_or_else(|| tenant.id.clone())
}

fn only_tenant(client: &Client) -> Result<(String, String), Failure> {
    let tenants = client.tenants().map_err(|e| failure(Step::Token, &e))?;
    match tenants.as_slice() {
        [tenant] => Ok((tenant.id.clone(), repository(tenant))),
        [] => Err(Failure::new(
            Step::Token,
            "tenant_missing",
            Exit::Configuration,
            "the token sees no tenant",
            "make a tenant, or use a token of one",
        )),
        several => {
            let ids: Vec<&str> = several.iter().map(|tenant| tenant.id.as_str()).collect();
            Err(Failure::new(
                Step::Token,
                "tenant_ambiguous",
                Exit::Configuration,
                format!("the token sees several tenants: {}", ids.join(", ")),
                "name one: SYSTEMPROMPT_TENANT_ID, or api.tenant_id in .systemprompt/deploy.toml",
            ))
        }
    }
}

/// What an error of the Management API means to the person who deploys.
#[must_use]
pub fn failure(step: Step, error: &ApiError) -> Failure {
    let (kind, exit, resolution) = explain(error);
    Failure::new(step, kind, exit, with_causes(error), resolution)
}

/// What a code of our own platform means; others are told by their kind.
fn explain_code(code: &str) -> Option<(&'static str, Exit, &'static str)> {
    let explained = match code {
        code::IMAGE_NOT_FOUND => (
            "image_not_found",
            Exit::Other,
            "ensure that the push completed: deploy again without --skip-push",
        ),
        code::DEPLOYMENT_IN_PROGRESS => (
            "deployment_in_progress",
            Exit::Locked,
            "wait for it (`cargo xtask status`) or undo it (`cargo xtask abort`), then run the same command again",
        ),
        code::RELEASE_GONE => (
            "release_gone",
            Exit::Other,
            "`cargo xtask history` shows which releases are gone; roll back to another, or deploy it again",
        ),
        code::OPERATOR_NEEDED => (
            "operator_needed",
            Exit::Locked,
            "look at `cargo xtask status` and `cargo xtask logs`; when it is settled, say so with `cargo xtask abort`, then deploy again",
        ),
        code::NOTHING_TO_ROLL_BACK => (
            "nothing_to_roll_back",
            Exit::Other,
            "`cargo xtask history` lists what was deployed",
        ),
        _ => return None,
    };
    Some(explained)
}

fn explain(error: &ApiError) -> (&'static str, Exit, &'static str) {
    const LOG_IN: &str = "check the token: SYSTEMPROMPT_API_TOKEN, or log in: cargo xtask login";
    if let Some(explained) = error.code().and_then(explain_code) {
        return explained;
    }
    match error {
        ApiError::BadAddress { .. } => (
            "api_url_invalid",
            Exit::Configuration,
            "correct api.url in .systemprompt/deploy.toml, or SYSTEMPROMPT_API_URL",
        ),
        ApiError::Unauthorized { .. } => ("unauthorized", Exit::Authentication, LOG_IN),
        ApiError::Forbidden { .. } => (
            "forbidden",
            Exit::Authentication,
            "use a token that may deploy to this tenant",
        ),
        ApiError::NotFound { .. } => (
            "not_found",
            Exit::Other,
            "check the tenant (SYSTEMPROMPT_TENANT_ID) and the address (SYSTEMPROMPT_API_URL)",
        ),
        ApiError::Refused {
            status: 409 | 423, ..
        } => (
            "deployment_in_progress",
            Exit::Locked,
            "wait until the running deployment has ended, then run the same command again",
        ),
        ApiError::Refused { .. } => (
            "refused",
            Exit::Other,
            "the server's words above say what to change",
        ),
        ApiError::RateLimited { .. } => (
            "rate_limited",
            Exit::Other,
            "wait a minute, then run the same command again",
        ),
        ApiError::Server { status: 507, .. } => (
            "disk_full",
            Exit::Other,
            "make room on the platform's disk, then run the same command again; what serves goes on",
        ),
        ApiError::Server { .. } => (
            "server_error",
            Exit::Other,
            "check the platform's status, then run the same command again",
        ),
        ApiError::Untrusted { .. } => (
            "api_untrusted",
            Exit::Other,
            "name the certificate of its authority: api.ca_file in .systemprompt/deploy.toml, or \
             SSL_CERT_FILE=FILE",
        ),
        ApiError::Certificates(_) => (
            "ca_file_invalid",
            Exit::Configuration,
            "correct api.ca_file in .systemprompt/deploy.toml, or SSL_CERT_FILE: a file with \
             certificates in PEM",
        ),
        ApiError::Transport { .. } | ApiError::Timeout { .. } | ApiError::Stream { .. } => (
            "unreachable",
            Exit::Other,
            "check the network and the address (SYSTEMPROMPT_API_URL), then run the same command again",
        ),
        ApiError::OutcomeUnknown { .. } => (
            "outcome_unknown",
            Exit::Other,
            "look before you repeat it: cargo xtask status",
        ),
        ApiError::Malformed { .. } => (
            "answer_malformed",
            Exit::Other,
            "check that the address is that of a Management API (SYSTEMPROMPT_API_URL)",
        ),
    }
}

/// The error with its causes, each once.
#[must_use]
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = inner.source();
    }
    text
}
