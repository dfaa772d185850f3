//! The audit log: who changed what, when and from where. Append-only, each row chained to the one before.
//!
//! A row is written in the transaction of the change that it tells of. Values of secrets and of variables never
//! stand in one, only their names.

mod chain;
#[cfg(test)]
mod pages;
#[cfg(test)]
mod tampering;

use std::collections::BTreeMap;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use management_api::types::Role;
use serde_json::{Map, Value, json};

use super::deployments::{DeploymentRow, NewDeployment};
use super::sql::{Row, Transaction, params};
use super::tokens::{TokenRow, role_word};
use super::{Advance, Store, StoreError, from_millis, now, signed, unsigned};

pub(crate) use chain::{Broken, Hash, Head, Sealed, check};

/// The name of the server itself among those who change something.
const SERVER: &str = "server";

/// Who changes something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Actor {
    /// Shown in the history.
    pub(crate) name: String,
    /// Id of the token that people made.
    pub(crate) token: Option<String>,
    pub(crate) role: Option<Role>,
    /// The other end of the connection: a proxy's, where one stands between.
    pub(crate) address: Option<IpAddr>,
}

impl Actor {
    /// Whoever is known by name only.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            token: None,
            role: None,
            address: None,
        }
    }

    /// The server, of its own accord.
    pub(crate) fn server() -> Self {
        Self::named(SERVER)
    }
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    TenantCreate,
    TenantDelete,
    TokenMake,
    TokenRevoke,
    SecretsChange,
    /// All secrets were sealed with another key.
    SecretsRekey,
    /// A volume is to go with all that is in it.
    VolumeRemove,
    Deploy,
    Rollback,
    /// Somebody asks for it; the states that follow tell whether it came in time.
    Abort,
    /// The same.
    Promote,
    /// A deployment came to another state.
    DeploymentState,
    /// Images and secrets that nothing needs any more are to go.
    Collect,
    /// They have gone.
    Collected,
    /// The database was made from a backup.
    Restore,
}

impl Action {
    /// The word in the database and on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::TenantCreate => "tenant.create",
            Self::TenantDelete => "tenant.delete",
            Self::TokenMake => "token.make",
            Self::TokenRevoke => "token.revoke",
            Self::SecretsChange => "secrets.change",
            Self::SecretsRekey => "secrets.rekey",
            Self::VolumeRemove => "volume.remove",
            Self::Deploy => "deployment.deploy",
            Self::Rollback => "deployment.rollback",
            Self::Abort => "deployment.abort",
            Self::Promote => "deployment.promote",
            Self::DeploymentState => "deployment.state",
            Self::Collect => "retention.collect",
            Self::Collected => "retention.collected",
            Self::Restore => "server.restore",
        }
    }
}

/// What is to be remembered of a change.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) action: Action,
    pub(crate) tenant: Option<String>,
    pub(crate) deployment: Option<u64>,
    /// An object.
    pub(crate) details: Value,
}

impl Entry {
    pub(crate) fn of(action: Action, tenant: Option<&str>, details: Value) -> Self {
        Self {
            action,
            tenant: tenant.map(str::to_owned),
            deployment: None,
            details,
        }
    }

    /// A deployment that was accepted. The values of its variables may be confidential: their names only.
    pub(super) fn begun(new: &NewDeployment, number: u64) -> Self {
        let capsule = &new.capsule;
        let action = match new.kind {
            crate::deployments::Kind::Deploy => Action::Deploy,
            crate::deployments::Kind::Rollback => Action::Rollback,
        };
        let services = capsule.group.services.iter();
        let services: BTreeMap<_, _> = services
            .map(|(name, service)| (name, &service.digest))
            .collect();
        let details = json!({
            "image": new.image,
            "digest": capsule.digest,
            "release": capsule.fingerprint(),
            "strategy": new.strategy.as_str(),
            "replicas": capsule.replicas,
            "services": services,
            "variables": capsule.env.keys().collect::<Vec<_>>(),
            "secrets": capsule.secrets,
            "restores": new.restores,
            "source": new.source,
        });
        Self {
            deployment: Some(number),
            ..Self::of(action, Some(&new.tenant), details)
        }
    }

    /// A step of a deployment. Of a failure everything but the application's own words, which may be confidential.
    pub(super) fn step(step: &Advance, row: &DeploymentRow) -> Self {
        let failure = step.failure.as_ref().map(|failure| {
            json!({
                "code": failure.code,
                "message": failure.message,
                "exit_code": failure.exit_code,
                "signal": failure.signal,
            })
        });
        let took = now().signed_duration_since(row.created_at);
        let details = json!({
            "state": step.to.as_str(),
            "message": step.message,
            "digest": row.capsule.digest,
            "milliseconds": took.num_milliseconds().max(0),
            "failure": failure,
        });
        Self {
            deployment: Some(step.number),
            ..Self::of(Action::DeploymentState, Some(&step.tenant), details)
        }
    }

    /// A token that was made.
    pub(super) fn token(token: &TokenRow) -> Self {
        let details = json!({
            "id": token.id,
            "name": token.name,
            "role": role_word(token.role),
            "expires_at": token.expires_at,
        });
        Self::of(Action::TokenMake, token.tenant.as_deref(), details)
    }

    /// The same, of one in the place of another, which ends then.
    pub(super) fn replacing(mut self, old: &str, end: DateTime<Utc>) -> Self {
        if let Value::Object(details) = &mut self.details {
            details.insert("replaces".to_owned(), old.into());
            details.insert("old_valid_until".to_owned(), json!(end));
        }
        self
    }
}

/// One row, for readers.
#[derive(Debug, Clone)]
pub(crate) struct AuditRow {
    pub(crate) at: DateTime<Utc>,
    pub(crate) details: Map<String, Value>,
    /// As it stands in the database.
    pub(crate) sealed: Sealed,
}

impl Store {
    /// Writes a row about something that no other row of the database tells of.
    pub(crate) async fn audit(&self, actor: &Actor, entry: Entry) -> Result<(), StoreError> {
        let actor = actor.clone();
        self.write(move |transaction| append(transaction, &actor, &entry))
            .await
    }

    /// Looks at every row; see [`check`].
    pub(crate) async fn check_chain(&self, expected: Option<Head>) -> Result<Head, Broken> {
        let looked = self.read(move |transaction| Ok(check(transaction, expected)));
        looked.await?
    }

    /// Rows before number `before`, newest first; those of one tenant only, where one is named.
    pub(crate) async fn audited(
        &self,
        tenant: Option<String>,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditRow>, StoreError> {
        self.read(move |transaction| {
            let before = before.map_or(i64::MAX, signed);
            let sql = page(tenant.is_some());
            match tenant {
                Some(tenant) => transaction.all(&sql, params![before, limit, tenant], shown),
                None => transaction.all(&sql, params![before, limit], shown),
            }
        })
        .await
    }
}

/// Reads rows, newest first. Two questions and not one with `tenant IS NULL OR`: that would be answered by a look at every row.
fn page(of_tenant: bool) -> String {
    let columns = chain::COLUMNS;
    let of_tenant = if of_tenant { "tenant = ?3 AND" } else { "" };
    format!("SELECT {columns} FROM audit WHERE {of_tenant} seq < ?1 ORDER BY seq DESC LIMIT ?2")
}

fn shown(row: &Row) -> Result<AuditRow, StoreError> {
    let sealed = chain::read(row)?;
    Ok(AuditRow {
        at: from_millis(sealed.at),
        details: serde_json::from_str(&sealed.details)?,
        sealed,
    })
}

/// Reads what a deployment was asked for with. It looks at rows of its tenant alone: once for each tenant, as `verify` does it, that is
/// a look at each row at most once (in PostgreSQL too), and the check of the chain has read them all by then. An index by deployment would
/// save a part of that, and be written to with every row.
const ASKED: &str = "SELECT details FROM audit
    WHERE tenant = ?1 AND deployment = ?2 AND action IN (?3, ?4) ORDER BY seq LIMIT 1";

/// The fingerprint of the release that a deployment was asked for with.
pub(super) fn release_of(
    transaction: &Transaction<'_>,
    tenant: &str,
    deployment: u64,
) -> Result<Option<String>, StoreError> {
    let asked = [Action::Deploy.as_str(), Action::Rollback.as_str()];
    let details: Option<String> = transaction.optional(
        ASKED,
        params![tenant, signed(deployment), asked[0], asked[1]],
        |row| Ok(row.get(0)?),
    )?;
    let Some(details) = details else {
        return Ok(None);
    };
    let details: Value = serde_json::from_str(&details)?;
    Ok(details["release"].as_str().map(str::to_owned))
}

/// Adds one row within the transaction of the change that it tells of.
pub(super) fn append(
    transaction: &Transaction<'_>,
    actor: &Actor,
    entry: &Entry,
) -> Result<(), StoreError> {
    let last = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
    let last: Option<(i64, Hash)> =
        transaction.optional(last, &[], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (seq, previous) = last.unwrap_or((0, chain::GENESIS));
    let mut row = Sealed {
        seq: unsigned(seq) + 1,
        at: now().timestamp_millis(),
        action: entry.action.as_str().to_owned(),
        tenant: entry.tenant.clone(),
        deployment: entry.deployment,
        actor: actor.name.clone(),
        token: actor.token.clone(),
        role: actor.role.map(|role| role_word(role).to_owned()),
        address: actor.address.map(|address| address.to_string()),
        details: entry.details.to_string(),
        previous,
        hash: chain::GENESIS,
    };
    row.hash = row.due();
    chain::insert(transaction, &row)
}
