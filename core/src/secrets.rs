//! Tenants' secrets: set, listed by name, opened for an instance. No call gives a value back.

use std::collections::BTreeMap;
use std::sync::Arc;

use management_api::types::SecretsRequest;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use crate::deployments::{Refusal, check_variable};
use crate::store::{SecretChange, Store, StoreError};
use crate::vault::{Place, Vault, VaultError};

/// Of one value.
const MAX_VALUE_BYTES: usize = 64 * 1024;
const MAX_SECRETS: usize = 200;

/// Why secrets cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// What a request changes, checked and ready for the store. Names of values are told, values never.
pub(crate) fn changes(
    vault: &Arc<Vault>,
    tenant: &str,
    request: SecretsRequest,
) -> Result<Vec<(String, SecretChange)>, Refusal> {
    let external = request.externally_rotated;
    let unset = |name: &&String| !request.secrets.contains_key(*name);
    if let Some(name) = external.iter().find(unset) {
        return Err(Refusal::invalid(format!(
            "externally_rotated names {name}, which `secrets` does not set"
        )));
    }
    if request.secrets.len() + request.remove.len() > MAX_SECRETS {
        return Err(Refusal::invalid(format!(
            "at most {MAX_SECRETS} secrets can be changed at a time"
        )));
    }
    let mut changes = Vec::new();
    for (name, value) in request.secrets {
        let text = value.expose_secret();
        check_variable(&name, text)?;
        if text.len() > MAX_VALUE_BYTES {
            return Err(Refusal::invalid(format!(
                "the value of {name} is longer than {MAX_VALUE_BYTES} bytes"
            )));
        }
        let external = external.contains(&name);
        changes.push((name.clone(), set(vault, tenant, name, value, external)));
    }
    for name in request.remove {
        if changes.iter().any(|(set, _)| *set == name) {
            return Err(Refusal::invalid(format!("{name} is both set and removed")));
        }
        changes.push((name, SecretChange::Remove));
    }
    Ok(changes)
}

fn set(
    vault: &Arc<Vault>,
    tenant: &str,
    name: String,
    value: SecretString,
    external: bool,
) -> SecretChange {
    let (opens, seals) = (Arc::clone(vault), Arc::clone(vault));
    let (known, fresh) = (value.clone(), value);
    let (tenant, other) = (tenant.to_owned(), tenant.to_owned());
    let called = name.clone();
    SecretChange::Set {
        external,
        is_same: Box::new(move |version, sealed| {
            let place = Place {
                tenant: &tenant,
                name: &called,
                version,
            };
            let opened = opens.unseal(place, sealed);
            // What does not open any more is not the same.
            opened.is_ok_and(|opened| {
                let (one, other) = (opened.expose_secret(), known.expose_secret());
                one.as_bytes().ct_eq(other.as_bytes()).into()
            })
        }),
        seal: Box::new(move |version| {
            let place = Place {
                tenant: &other,
                name: &name,
                version,
            };
            seals.seal(place, &fresh).ok()
        }),
    }
}

/// The values of these versions.
pub(crate) async fn open(
    store: &Store,
    vault: &Vault,
    tenant: &str,
    versions: &BTreeMap<String, u64>,
) -> Result<BTreeMap<String, SecretString>, OpenError> {
    if versions.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut opened = BTreeMap::new();
    for (name, version, sealed) in store.sealed_secrets(tenant, versions).await? {
        let place = Place {
            tenant,
            name: &name,
            version,
        };
        let value = vault.unseal(place, &sealed)?;
        opened.insert(name, value);
    }
    Ok(opened)
}
