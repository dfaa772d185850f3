//! Credentials for registries as Docker's own client keeps them: the document in
//! `DOCKER_AUTH_CONFIG`, then `config.json` in `$DOCKER_CONFIG` or `~/.docker`, and the credential
//! helpers that they name.
//!
//! Source: the reference of `docker login`, "Credential stores" and "Credential helpers"; for the
//! variable, docker/cli 28.3 and GitLab's "Access an image from a private container registry".
//! Nothing is ever written there.

mod helper;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
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
use crate::redact::Redactor;
use helper::Helper;

/// The variable that holds such a document as text. All of it is a secret.
pub(crate) const VARIABLE: &str = "DOCKER_AUTH_CONFIG";
/// What of an account is no secret.
const PUBLIC: [&str; 3] = ["username", "email", "serveraddress"];
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
    /// The cause may quote the text, and with it a password: it is left out.
    #[error("{place} is not a configuration of Docker: line {line}")]
    Malformed { place: Place, line: usize },
    #[error("the password for {registry} in {place} is not in base64")]
    Encoding { place: Place, registry: String },
    #[error(
        "the credentials for {registry} are an identity token, which is not supported: log in with a \
         password or an access token"
    )]
    IdentityToken { registry: String },
    #[error(transparent)]
    Helper(#[from] helper::HelperError),
}

/// Where a configuration was found.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Variable,
    File(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable => f.write_str(VARIABLE),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Where Docker's configuration is, and how long a helper may take.
#[derive(Debug, Clone)]
pub(crate) struct DockerConfig {
    /// What the variable holds.
    text: Option<SecretString>,
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
    /// The configuration that Docker's client would use now. The redactor learns what the variable
    /// holds.
    pub(crate) fn of_environment(redactor: &Redactor) -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let text = set(VARIABLE).map(|text| text.to_string_lossy().into_owned());
        let text = text.filter(|text| !text.trim().is_empty());
        if let Some(text) = &text {
            learn(redactor, text);
        }
        let own = set("DOCKER_CONFIG").map(PathBuf::from);
        let home = || Some(PathBuf::from(set("HOME")?).join(".docker"));
        Self {
            text: text.map(SecretString::from),
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
        // As Docker's client does: what the variable does not know may be in the file.
        for found in [self.in_variable(), self.in_file()] {
            if let Some((place, record)) = found?
                && let Some(credentials) = self.look_up(&place, record, registry, interrupts)?
            {
                return Ok(Some(credentials));
            }
        }
        Ok(None)
    }

    fn look_up(
        &self,
        place: &Place,
        record: Record,
        registry: &str,
        interrupts: &Interrupts,
    ) -> Result<Option<Credentials>, DockerConfigError> {
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
            Some(auth) => decoded(auth, place, registry),
            None => Ok(None),
        }
    }

    fn in_variable(&self) -> Result<Option<(Place, Record)>, DockerConfigError> {
        let text = self.text.as_ref().map(ExposeSecret::expose_secret);
        text.map(|text| parsed(Place::Variable, text.as_bytes()))
            .transpose()
    }

    fn in_file(&self) -> Result<Option<(Place, Record)>, DockerConfigError> {
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
        parsed(Place::File(path), &text).map(Some)
    }
}

fn parsed(place: Place, text: &[u8]) -> Result<(Place, Record), DockerConfigError> {
    match serde_json::from_slice(text) {
        Ok(record) => Ok((place, record)),
        Err(error) => Err(DockerConfigError::Malformed {
            place,
            line: error.line(),
        }),
    }
}

/// What the variable holds passes no sink from now on: passwords, the pairs they stand in, tokens.
pub(crate) fn learn(redactor: &Redactor, text: &str) {
    let Ok(document) = serde_json::from_str::<serde_json::Value>(text) else {
        // Nobody knows what is what in it.
        text.lines()
            .for_each(|line| redactor.learn_text(line.trim()));
        return;
    };
    let accounts = document["auths"].as_object().into_iter().flatten();
    for (_, account) in accounts {
        let fields = account.as_object().into_iter().flatten();
        for (name, value) in fields.filter(|(name, _)| !PUBLIC.contains(&name.as_str())) {
            let value = value.as_str().unwrap_or_default();
            redactor.learn_text(value);
            if name == "auth"
                && let Some((_, password)) = pair(value)
            {
                redactor.learn_text(&password);
            }
        }
    }
}

/// Name and password from `name:password` in base64.
fn pair(encoded: &str) -> Option<(String, String)> {
    let bytes = STANDARD.decode(encoded.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    // Old clients padded it.
    let password = password.trim_end_matches('\0');
    Some((username.to_owned(), password.to_owned()))
}

/// `auth` is `name:password` in base64; both may stand apart as well. An empty entry is what
/// `docker login` leaves beside a credential store.
fn decoded(
    auth: &Auth,
    place: &Place,
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
    let (username, password) =
        pair(encoded.expose_secret()).ok_or_else(|| DockerConfigError::Encoding {
            place: place.clone(),
            registry: registry.to_owned(),
        })?;
    let found = Credentials {
        username,
        password: password.into(),
    };
    checked(found, registry).map(Some)
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
