//! Credentials for registries as Docker's own client keeps them: `config.json` in `$DOCKER_CONFIG`
//! or `~/.docker`, and the credential helpers that it names.
//!
//! Source: the reference of `docker login`, "Credential stores" and "Credential helpers". Nothing
//! is ever written there.

mod helper;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci::Credentials;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::interrupt::Interrupts;
use helper::Helper;

/// What Docker Hub is called in these files, for historical reasons.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// Names of Docker Hub.
const HUB: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
/// A helper says this user when the secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// A configuration over this is none.
const LIMIT: u64 = 4 * 1024 * 1024;

/// Why there are no credentials although the configuration speaks of some. The registry is then
/// asked without any: most base images are public.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DockerConfigError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The cause may quote the file, and with it a password: it is left out.
    #[error("{} is not a configuration of Docker: line {line}", path.display())]
    Malformed { path: PathBuf, line: usize },
    #[error("the password for {registry} in {} is not in base64", path.display())]
    Encoding { path: PathBuf, registry: String },
    #[error(
        "the credentials for {registry} are an identity token, which is not supported: log in with a \
         password or an access token"
    )]
    IdentityToken { registry: String },
    #[error(transparent)]
    Helper(#[from] helper::HelperError),
}

/// Where Docker's configuration is, and how long a helper may take.
#[derive(Debug, Clone)]
pub(crate) struct DockerConfig {
    folder: Option<PathBuf>,
    patience: Duration,
    path: Option<OsString>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Record {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    #[serde(rename = "auth")]
    pair: Option<SecretString>,
    username: Option<String>,
    password: Option<SecretString>,
    identitytoken: Option<SecretString>,
}

impl DockerConfig {
    /// The configuration that Docker's client would use now.
    pub(crate) fn of_environment() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let own = set("DOCKER_CONFIG").map(PathBuf::from);
        let home = || Some(PathBuf::from(set("HOME")?).join(".docker"));
        Self {
            folder: own.or_else(home),
            patience: helper::PATIENCE,
            path: None,
        }
    }

    /// Name and password for a registry (`host` or `host:port`), if there are any. May run a helper.
    pub(crate) fn credentials(
        &self,
        registry: &str,
        interrupts: &Interrupts,
    ) -> Result<Option<Credentials>, DockerConfigError> {
        let Some(record) = self.read()? else {
            return Ok(None);
        };
        let named = record
            .cred_helpers
            .iter()
            .find(|(key, _)| means(key, registry));
        let store = record.creds_store.filter(|name| !name.is_empty());
        let helper = named.map(|(_, name)| name.clone()).or(store);
        if let Some(name) = helper {
            let helper = Helper {
                name,
                patience: self.patience,
                path: self.path.clone(),
            };
            if let Some(found) = helper.get(key_of(registry), interrupts)? {
                return checked(found, registry).map(Some);
            }
        }
        let exact = record.auths.get(key_of(registry));
        let alike = || record.auths.iter().find(|(key, _)| means(key, registry));
        match exact.or_else(|| alike().map(|(_, auth)| auth)) {
            Some(auth) => self.decoded(auth, registry),
            None => Ok(None),
        }
    }

    fn read(&self) -> Result<Option<Record>, DockerConfigError> {
        let Some(folder) = &self.folder else {
            return Ok(None);
        };
        let path = folder.join("config.json");
        let length = fs::metadata(&path).map(|metadata| metadata.len());
        let text = match length.and_then(|length| match length {
            0..=LIMIT => fs::read(&path),
            _ => Err(io::Error::other("it is larger than 4 MiB")),
        }) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(DockerConfigError::Read { path, source }),
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| DockerConfigError::Malformed {
                path,
                line: error.line(),
            })
    }

    /// `auth` is `name:password` in base64; both may stand apart as well. An empty entry is what
    /// `docker login` leaves beside a credential store.
    fn decoded(
        &self,
        auth: &Auth,
        registry: &str,
    ) -> Result<Option<Credentials>, DockerConfigError> {
        if auth.identitytoken.as_ref().is_some_and(is_set) {
            let registry = registry.to_owned();
            return Err(DockerConfigError::IdentityToken { registry });
        }
        if let (Some(username), Some(password)) = (&auth.username, &auth.password) {
            let (username, password) = (username.clone(), password.clone());
            return checked(Credentials { username, password }, registry).map(Some);
        }
        let Some(encoded) = auth.pair.as_ref().filter(|pair| is_set(pair)) else {
            return Ok(None);
        };
        let invalid = || DockerConfigError::Encoding {
            path: self.folder.clone().unwrap_or_default().join("config.json"),
            registry: registry.to_owned(),
        };
        let bytes = STANDARD.decode(encoded.expose_secret().trim());
        let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let text = text.ok_or_else(invalid)?;
        let (username, password) = text.split_once(':').ok_or_else(invalid)?;
        let found = Credentials {
            username: username.to_owned(),
            // Old clients padded it.
            password: password.trim_end_matches('\0').into(),
        };
        checked(found, registry).map(Some)
    }
}

fn is_set(secret: &SecretString) -> bool {
    !secret.expose_secret().is_empty()
}

fn checked(found: Credentials, registry: &str) -> Result<Credentials, DockerConfigError> {
    if found.username == TOKEN_USER {
        let registry = registry.to_owned();
        return Err(DockerConfigError::IdentityToken { registry });
    }
    Ok(found)
}

/// What a registry is called in the file and by helpers.
fn key_of(registry: &str) -> &str {
    if HUB.contains(&registry) {
        HUB_KEY
    } else {
        registry
    }
}

/// Whether a key of the file, which may be an address with a path, means the registry.
fn means(key: &str, registry: &str) -> bool {
    let bare = key.strip_prefix("https://").or(key.strip_prefix("http://"));
    let host = bare.unwrap_or(key).split('/').next().unwrap_or_default();
    host == registry || (HUB.contains(&host) && HUB.contains(&registry))
}

#[cfg(test)]
mod tests;
