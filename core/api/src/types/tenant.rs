//! Tenants: who they are, how they are, and their secrets.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{Deployment, ServiceStatus, reveal_all};

/// A tenant: the unit that owns a repository, a URL and a history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tenant {
    /// Stable identifier, part of every path.
    pub id: String,
    /// Display name.
    pub name: String,
    /// Name of the Fly application, where there is one; also the default repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fly_app_name: Option<String>,
    /// Host name of the Fly application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fly_hostname: Option<String>,
    /// Host name that people use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// *Ours*: the tenant's URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_url: Option<String>,
}

/// *Ours*: body of `POST /api/v1/tenants`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewTenant {
    /// Lower-case letters, digits and dashes, 1 to 40; becomes part of the repository's name.
    pub id: String,
    /// Display name; the id when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// `GET …/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantStatus {
    /// An open set; see [`is_final`](super::is_final) and [`is_good`](super::is_good).
    pub status: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The tenant's URL.
    #[serde(default, alias = "url", skip_serializing_if = "Option::is_none")]
    pub app_url: Option<String>,
    /// Where secrets are edited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets_url: Option<String>,
    /// *Ours*: the release that serves now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Deployment>,
    /// *Ours*: the deployment that is being made now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<Deployment>,
    /// *Ours*: the services of the release that serves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceStatus>,
}

/// *Ours*: who holds the tenant, so that nobody else deploys to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TenantLock {
    /// Whether a deployment or rollback would be refused now.
    pub locked: bool,
    /// `deployment_in_progress` or `operator_needed`: the code that it would be refused with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The deployment that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<u64>,
    /// Name of the token that asked for that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// The state that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// When it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
}

/// `PUT …/secrets`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SecretsRequest {
    /// Names and values; never answered by any call.
    #[serde(serialize_with = "reveal_all")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub secrets: BTreeMap<String, SecretString>,
    /// *Ours*: those of them that somebody else changes from time to time. A rollback does not bring their old values
    /// back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub externally_rotated: Vec<String>,
    /// *Ours*: names that have no value from now on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// *Ours*: what is told of a secret, which is everything but its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretInfo {
    /// Its name, which is that of the variable the application finds it in.
    pub name: String,
    /// Counts up with each new value.
    pub version: u64,
    /// Whether somebody else changes it.
    #[serde(default)]
    pub externally_rotated: bool,
    /// When it got this value.
    pub updated_at: DateTime<Utc>,
}
