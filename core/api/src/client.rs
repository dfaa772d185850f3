//! The client of the Management API: blocking, bounded in time, frugal with retries.
//!
//! It speaks to our own server and to those that only know the contract. What differs (how tenant
//! calls are authenticated, which routes exist) is found out from the answers and not asked of
//! the user.

mod auth;
mod call;
mod error;
mod stream;

pub use auth::AuthMode;
pub use error::ApiError;
pub use stream::{DeploymentEvents, LogLines};

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::de::DeserializeOwned;
use trust::Trust;
use ureq::tls::{RootCerts, TlsConfig};

use crate::paths;
use crate::types::{
    AuditEntry, Capabilities, CollectRequest, Collection, Data, DeployAnswer, DeployRequest,
    Deployment, Health, IssuedToken, LogLine, Me, NewTenant, NewToken, RegistryToken,
    RollbackRequest, RotateRequest, RotatedCredentials, SecretInfo, SecretsRequest, Tenant,
    TenantLock, TenantStatus, TokenInfo, VolumeInfo,
};
use auth::Authenticator;
use call::{Call, Retry};

/// What a client is made from.
#[derive(Debug, Clone)]
pub struct Options {
    /// `https://host[:port]`, without a path.
    pub base_url: String,
    /// The operator's or deployer's token.
    pub token: SecretString,
    /// How tenant calls are authenticated.
    pub auth: AuthMode,
    /// Limit for finding and reaching the server.
    pub connect_timeout: Duration,
    /// Limit for one call, retries not included.
    pub total_timeout: Duration,
    /// How long one call may be tried again, all tries together.
    pub retry_for: Duration,
    /// PEM files of certificates that are believed besides the built-in roots, or those of
    /// `SSL_CERT_FILE`.
    pub further_certificates: Vec<PathBuf>,
}

impl Options {
    /// The contract's time-outs: 10 s to connect, 30 s in all.
    #[must_use]
    pub fn new(base_url: impl Into<String>, token: SecretString) -> Self {
        Self {
            base_url: base_url.into(),
            token,
            auth: AuthMode::Auto,
            connect_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_secs(30),
            retry_for: Duration::from_secs(30),
            further_certificates: Vec::new(),
        }
    }
}

/// A client of one Management API.
pub struct Client {
    agent: ureq::Agent,
    base: url::Url,
    authenticator: Authenticator,
    retry_for: Duration,
}

impl Client {
    /// Checks the address and reads the certificates; connects to nothing yet.
    pub fn new(options: Options) -> Result<Self, ApiError> {
        let base = parse_base(&options.base_url)?;
        let trust = Trust {
            instead: trust::from_environment(),
            also: options.further_certificates,
        };
        // Reading certificates takes longer than a call to a server on this machine.
        let roots = match base.scheme() {
            "https" => trust.roots()?,
            _ => RootCerts::WebPki,
        };
        let mut config = ureq::Agent::config_builder();
        if is_loopback(&base) {
            // A proxy from the environment would look for the server on its own machine.
            config = config.proxy(None);
        }
        let agent = config
            .http_status_as_error(false)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .timeout_connect(Some(options.connect_timeout))
            .timeout_global(Some(options.total_timeout))
            // A redirect would carry the token to a place that nobody configured.
            .max_redirects(0)
            .max_redirects_will_error(false)
            // Documents are small: the library's 256 KiB a connection would be zeroed for nothing.
            .input_buffer_size(16 * 1024)
            .output_buffer_size(16 * 1024)
            .user_agent(concat!("systemprompt-deploy/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            base,
            authenticator: Authenticator::new(options.token, options.auth),
            retry_for: options.retry_for,
        })
    }

    /// The server's address, as given.
    #[must_use]
    pub fn base_url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Whether the server answers at all. One try: the caller decides how long to wait.
    pub fn health(&self) -> Result<Health, ApiError> {
        self.read(&Call::get(paths::HEALTH).once())
    }

    /// What the server offers beyond the contract; `None` when it knows the contract only.
    pub fn capabilities(&self) -> Result<Option<Capabilities>, ApiError> {
        optional(self.read_data(&Call::get(paths::CAPABILITIES)))
    }

    /// Who the token belongs to.
    pub fn me(&self) -> Result<Me, ApiError> {
        self.read(&Call::get(paths::ME))
    }

    /// The tenants that the token may see.
    pub fn tenants(&self) -> Result<Vec<Tenant>, ApiError> {
        self.read_data(&Call::get(paths::TENANTS))
    }

    /// Makes a tenant.
    pub fn create_tenant(&self, tenant: &NewTenant) -> Result<Tenant, ApiError> {
        self.read_data(&Call::post(paths::TENANTS).json(tenant))
    }

    /// Removes a tenant with everything it has.
    pub fn delete_tenant(&self, id: &str) -> Result<(), ApiError> {
        self.send(&Call::delete(paths::tenant(id))).map(drop)
    }

    /// Credentials for the tenant's repository.
    pub fn registry_token(&self, tenant: &str) -> Result<RegistryToken, ApiError> {
        self.read_data(&Call::get(paths::registry_token(tenant)).for_tenant())
    }

    /// Asks for a deployment. With a server that offers `idempotency` the same `key` never begins
    /// two; with others a call whose outcome is unknown is not repeated but reported as
    /// [`ApiError::OutcomeUnknown`].
    pub fn deploy(
        &self,
        tenant: &str,
        request: &DeployRequest,
        key: &str,
        retry_unknown: bool,
    ) -> Result<DeployAnswer, ApiError> {
        self.mutate(paths::deploy(tenant), request, key, retry_unknown)
    }

    /// Asks for an older release.
    pub fn rollback(
        &self,
        tenant: &str,
        request: &RollbackRequest,
        key: &str,
    ) -> Result<DeployAnswer, ApiError> {
        self.mutate(paths::rollback(tenant), request, key, true)
    }

    /// Undoes a running deployment.
    pub fn abort(&self, tenant: &str, number: u64) -> Result<(), ApiError> {
        self.send(&Call::post(paths::abort(tenant, number)).for_tenant())
            .map(drop)
    }

    /// Lets a deployment that is being watched go on to its next step.
    pub fn promote(&self, tenant: &str, number: u64) -> Result<(), ApiError> {
        self.send(&Call::post(paths::promote(tenant, number)).for_tenant())
            .map(drop)
    }

    /// Lets a deployment that is paused go on.
    pub fn resume(&self, tenant: &str, number: u64) -> Result<(), ApiError> {
        self.send(&Call::post(paths::resume(tenant, number)).for_tenant())
            .map(drop)
    }

    /// Who holds the tenant; `None` when the server does not tell.
    pub fn lock(&self, tenant: &str) -> Result<Option<TenantLock>, ApiError> {
        optional(self.read_data(&Call::get(paths::lock(tenant)).for_tenant()))
    }

    /// Changes some of the tenant's secrets. Deployments from now on have them.
    pub fn change_secrets(&self, tenant: &str, request: &SecretsRequest) -> Result<(), ApiError> {
        let call = Call::put(paths::secrets(tenant)).for_tenant();
        self.send(&call.json(request)).map(drop)
    }

    /// Names and versions of the tenant's secrets; `None` when the server does not tell them.
    pub fn secrets(&self, tenant: &str) -> Result<Option<Vec<SecretInfo>>, ApiError> {
        optional(self.read_data(&Call::get(paths::secrets(tenant)).for_tenant()))
    }

    /// The tenant's volumes; `None` when the server has none.
    pub fn volumes(&self, tenant: &str) -> Result<Option<Vec<VolumeInfo>>, ApiError> {
        optional(self.read_data(&Call::get(paths::volumes(tenant)).for_tenant()))
    }

    /// Removes a volume with all that is in it, with the operator's token. Refused while a release has it.
    pub fn remove_volume(&self, tenant: &str, name: &str) -> Result<(), ApiError> {
        let call = Call::delete(paths::volume(tenant, name)).for_tenant();
        self.send(&call).map(drop)
    }

    /// The tenant's present state.
    pub fn status(&self, tenant: &str) -> Result<TenantStatus, ApiError> {
        self.read_data(&Call::get(paths::status(tenant)).for_tenant())
    }

    /// The tenant's history, newest first; `None` when the server keeps none.
    pub fn deployments(&self, tenant: &str) -> Result<Option<Vec<Deployment>>, ApiError> {
        optional(self.read_data(&Call::get(paths::deployments(tenant)).for_tenant()))
    }

    /// One deployment.
    pub fn deployment(&self, tenant: &str, number: u64) -> Result<Deployment, ApiError> {
        self.read_data(&Call::get(paths::deployment(tenant, number)).for_tenant())
    }

    /// Follows a deployment from after event `after` until it ends or `limit` has passed.
    pub fn deployment_events(
        &self,
        tenant: &str,
        number: u64,
        after: u64,
        limit: Duration,
    ) -> Result<DeploymentEvents, ApiError> {
        let call = Call::get(paths::deployment_events(tenant, number))
            .for_tenant()
            .after(after);
        Ok(DeploymentEvents::new(self.open_stream(&call, limit)?))
    }

    /// Log lines as they are now.
    pub fn logs(&self, tenant: &str, query: &LogQuery) -> Result<Vec<LogLine>, ApiError> {
        self.read_data(&Call::get(query.path(tenant, false)).for_tenant())
    }

    /// Log lines as they come, until `limit` has passed.
    pub fn follow_logs(
        &self,
        tenant: &str,
        query: &LogQuery,
        limit: Duration,
    ) -> Result<LogLines, ApiError> {
        let call = Call::get(query.path(tenant, true)).for_tenant();
        Ok(LogLines::new(self.open_stream(&call, limit)?))
    }

    /// The platform's API tokens.
    pub fn tokens(&self) -> Result<Vec<TokenInfo>, ApiError> {
        self.read_data(&Call::get(paths::TOKENS))
    }

    /// Makes a token. Its secret part is in this answer and never again.
    pub fn create_token(&self, token: &NewToken) -> Result<IssuedToken, ApiError> {
        self.read_data(&Call::post(paths::TOKENS).json(token))
    }

    /// Ends a token.
    pub fn revoke_token(&self, id: &str) -> Result<(), ApiError> {
        self.send(&Call::delete(paths::token(id))).map(drop)
    }

    /// The newest rows of the audit log before row `before`, newest first; `None` when the server keeps none. Only an
    /// operator's token sees those of other tenants and of none.
    pub fn audit(
        &self,
        tenant: Option<&str>,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Option<Vec<AuditEntry>>, ApiError> {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", &limit.to_string());
        if let Some(tenant) = tenant {
            query.append_pair("tenant", tenant);
        }
        if let Some(before) = before {
            query.append_pair("before", &before.to_string());
        }
        let path = format!("{}?{}", paths::AUDIT, query.finish());
        optional(self.read_data(&Call::get(path)))
    }

    /// Removes what nothing needs any more, or says what that would be.
    pub fn collect(&self, request: &CollectRequest) -> Result<Collection, ApiError> {
        self.read_data(&Call::post(paths::COLLECT).json(request))
    }

    /// Makes the tokens of a tenant anew. Their secret parts are in this answer and never again, so it is asked once.
    pub fn rotate_credentials(
        &self,
        tenant: &str,
        request: &RotateRequest,
    ) -> Result<RotatedCredentials, ApiError> {
        let call = Call::post(paths::rotate_credentials(tenant)).for_tenant();
        self.read(&call.json(request))
    }

    fn mutate<B: serde::Serialize>(
        &self,
        path: String,
        body: &B,
        key: &str,
        retry_unknown: bool,
    ) -> Result<DeployAnswer, ApiError> {
        let retry = if retry_unknown {
            Retry::Always
        } else {
            Retry::WhenRefused
        };
        let call = Call::post(path).json(body).for_tenant().key(key);
        self.read_data(&call.retry(retry))
    }

    fn read_data<T: DeserializeOwned>(&self, call: &Call) -> Result<T, ApiError> {
        self.read::<Data<T>>(call).map(|envelope| envelope.data)
    }
}

/// Which log lines are wanted.
#[derive(Debug, Clone, Default)]
pub struct LogQuery {
    /// `10m`, `2h`, or an RFC 3339 time.
    pub since: Option<String>,
    /// Only lines that hold this text.
    pub filter: Option<String>,
    /// Only lines of this service.
    pub service: Option<String>,
    /// Only lines of this instance.
    pub instance: Option<String>,
    /// Only lines of this deployment.
    pub deployment: Option<u64>,
    /// Only the last so many lines.
    pub tail: Option<u64>,
}

impl LogQuery {
    fn path(&self, tenant: &str, follow: bool) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if follow {
            query.append_pair("follow", "true");
        }
        if let Some(since) = &self.since {
            query.append_pair("since", since);
        }
        if let Some(filter) = &self.filter {
            query.append_pair("filter", filter);
        }
        if let Some(service) = &self.service {
            query.append_pair("service", service);
        }
        if let Some(instance) = &self.instance {
            query.append_pair("instance", instance);
        }
        if let Some(deployment) = self.deployment {
            query.append_pair("deployment", &deployment.to_string());
        }
        if let Some(tail) = self.tail {
            query.append_pair("tail", &tail.to_string());
        }
        let query = query.finish();
        let path = paths::logs(tenant);
        if query.is_empty() {
            path
        } else {
            format!("{path}?{query}")
        }
    }
}

/// A route that a contract-only server does not have is not an error.
fn optional<T>(answer: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(ApiError::NotFound { .. } | ApiError::Refused { status: 405, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An address for messages: some write a user and a password into it.
fn without_user(text: &str) -> String {
    let begin = text.find("://").map_or(0, |at| at + "://".len());
    match text.rfind('@') {
        Some(at) if at >= begin => format!("{}[redacted]{}", &text[..begin], &text[at..]),
        _ => text.to_owned(),
    }
}

/// A token may travel in the clear only to this very machine.
fn parse_base(text: &str) -> Result<url::Url, ApiError> {
    let invalid = |why: &str| ApiError::BadAddress {
        url: without_user(text),
        why: why.to_owned(),
    };
    let url = url::Url::parse(text).map_err(|e| invalid(&e.to_string()))?;
    if url.host().is_none() {
        return Err(invalid("it names no host"));
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        "http" => Err(invalid("plain http is for loopback addresses only")),
        _ => Err(invalid("it must begin with https://")),
    }
}

/// Whether the address is one of this very machine.
fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_used_is_told_without_its_password() {
        for (address, shown) in [
            ("ada:pw@host:5000/name", "[redacted]@host:5000/name"),
            ("http://ada:p@w@host/", "http://[redacted]@host/"),
            ("https://ada:pw@:1", "https://[redacted]@:1"),
            ("http://host/", "http://host/"),
        ] {
            let error = parse_base(address).unwrap_err().to_string();
            assert!(error.contains(&format!("{shown:?}")), "{error}");
            assert!(!error.contains("ada"), "{error}");
        }
    }
}
