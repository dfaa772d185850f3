//! Which platform the servers talk to: the environment's, else the local one of the project.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Deserialize;

/// Address of the Management API.
const URL: &str = "SYSTEMPROMPT_API_URL";
/// Bearer token for it.
const TOKEN: &str = "SYSTEMPROMPT_API_TOKEN";
/// The tenant that tools use when a call names none.
const TENANT: &str = "SYSTEMPROMPT_TENANT_ID";
/// The embedded platform's folder, in the project's root.
const LOCAL: &str = ".systemprompt/local";
/// Neither file is ever longer.
const MAX_FILE: u64 = 64 * 1024;

/// Address and token of a platform.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Address of the Management API.
    pub url: String,
    /// Bearer token for it.
    pub token: SecretString,
    /// The tenant to use when a call names none.
    pub tenant: Option<String>,
    /// Where address and token come from.
    pub origin: Origin,
}

/// Where address and token come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Environment variables.
    Environment,
    /// The embedded platform, whose files are in this folder.
    Local(PathBuf),
}

/// Why no platform could be found.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Neither the environment nor a folder names a platform.
    #[error(
        "no platform is configured: {URL} is not set, and no folder from {} upwards holds {LOCAL}/server.json",
        from.display()
    )]
    NoPlatform {
        /// Where the search began.
        from: PathBuf,
    },
    /// One of two variables that belong together.
    #[error("{set} is set but {missing} is not")]
    Half {
        /// The variable that is set.
        set: &'static str,
        /// The variable that is not.
        missing: &'static str,
    },
    /// A file of the local platform cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file of the local platform is not what it should be.
    #[error("{} is not usable: {why}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl SettingsError {
    /// What to do now.
    #[must_use]
    pub fn resolution(&self) -> String {
        match self {
            Self::NoPlatform { .. } => format!(
                "set {URL} and {TOKEN} (and {TENANT}), or run `cargo xtask local up` in the project \
                 and start this server there"
            ),
            Self::Half { missing, .. } => format!("set {missing}"),
            Self::Read { .. } | Self::Malformed { .. } => {
                format!("run `cargo xtask local up`, or set {URL} and {TOKEN}")
            }
        }
    }
}

/// The part of `server.json` that matters here.
#[derive(Deserialize)]
struct ServerRecord {
    url: String,
}

impl Settings {
    /// Looks at the process's environment, then from its working directory upwards.
    pub fn find() -> Result<Self, SettingsError> {
        let directory = std::env::current_dir().map_err(|source| SettingsError::Read {
            path: PathBuf::from("."),
            source,
        })?;
        Self::find_in(&|name| std::env::var(name).ok(), &directory)
    }

    /// As [`Settings::find`], with the environment and the directory given. A variable that is set
    /// to nothing counts as not set.
    pub fn find_in(
        variable: &dyn Fn(&str) -> Option<String>,
        directory: &Path,
    ) -> Result<Self, SettingsError> {
        let value = |name| {
            variable(name)
                .map(|v| v.trim().to_owned())
                .filter(|v| !v.is_empty())
        };
        let tenant = value(TENANT);
        // A token is sent only where its owner said: never the local one to a configured
        // address, nor a configured one to whatever a folder names.
        match (value(URL), value(TOKEN)) {
            (Some(url), Some(token)) => Ok(Self {
                url,
                token: token.into(),
                tenant,
                origin: Origin::Environment,
            }),
            (Some(_), None) => Err(half(URL, TOKEN)),
            (None, Some(_)) => Err(half(TOKEN, URL)),
            (None, None) => local(directory, tenant),
        }
    }
}

fn half(set: &'static str, missing: &'static str) -> SettingsError {
    SettingsError::Half { set, missing }
}

fn local(directory: &Path, tenant: Option<String>) -> Result<Settings, SettingsError> {
    let folder = directory
        .ancestors()
        .map(|ancestor| ancestor.join(LOCAL))
        .find(|folder| folder.join("server.json").is_file())
        .ok_or_else(|| SettingsError::NoPlatform {
            from: directory.to_owned(),
        })?;
    let path = folder.join("server.json");
    let record: ServerRecord =
        serde_json::from_str(&read(&path)?).map_err(|e| SettingsError::Malformed {
            path,
            why: e.to_string(),
        })?;
    let path = folder.join("token");
    let token = read(&path)?.trim().to_owned();
    if token.is_empty() {
        return Err(SettingsError::Malformed {
            path,
            why: "it is empty".to_owned(),
        });
    }
    Ok(Settings {
        url: record.url,
        token: token.into(),
        tenant,
        origin: Origin::Local(folder),
    })
}

fn read(path: &Path) -> Result<String, SettingsError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        .map_err(|source| SettingsError::Read {
            path: path.to_owned(),
            source,
        })?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn find(variables: &[(&str, &str)], directory: &Path) -> Result<Settings, SettingsError> {
        let variable = |name: &str| {
            variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        };
        Settings::find_in(&variable, directory)
    }

    fn project() -> tempfile::TempDir {
        let project = tempfile::tempdir().unwrap();
        let local = project.path().join(LOCAL);
        std::fs::create_dir_all(&local).unwrap();
        std::fs::create_dir_all(project.path().join("a/b")).unwrap();
        let record = r#"{"pid":1,"address":"127.0.0.1:7","url":"http://127.0.0.1:7"}"#;
        std::fs::write(local.join("server.json"), record).unwrap();
        std::fs::write(local.join("token"), "t0ken\n").unwrap();
        project
    }

    #[test]
    fn the_environment_comes_first() {
        let project = project();
        let variables = [(URL, "https://api.example"), (TOKEN, "abc"), (TENANT, "t1")];
        let settings = find(&variables, project.path()).unwrap();
        assert_eq!(settings.url, "https://api.example");
        assert_eq!(settings.token.expose_secret(), "abc");
        assert_eq!(settings.tenant.as_deref(), Some("t1"));
        assert_eq!(settings.origin, Origin::Environment);
    }

    #[test]
    fn the_local_platform_is_found_from_below() {
        let project = project();
        let settings = find(&[(URL, " ")], &project.path().join("a/b")).unwrap();
        assert_eq!(settings.url, "http://127.0.0.1:7");
        assert_eq!(settings.token.expose_secret(), "t0ken");
        assert_eq!(settings.origin, Origin::Local(project.path().join(LOCAL)));
    }

    #[test]
    fn a_token_is_never_sent_to_an_address_it_was_not_given_for() {
        let project = project();
        for (variables, missing) in [([(URL, "https://a.example")], TOKEN), ([(TOKEN, "x")], URL)] {
            let error = find(&variables, project.path()).unwrap_err();
            assert_eq!(error.resolution(), format!("set {missing}"));
        }
    }

    #[test]
    fn nothing_found_says_which_variables_to_set() {
        let folder = tempfile::tempdir().unwrap();
        let error = find(&[], folder.path()).unwrap_err();
        assert!(error.to_string().contains("no platform is configured"));
        for name in [URL, TOKEN, TENANT] {
            assert!(error.resolution().contains(name));
        }
    }

    #[test]
    fn files_that_are_not_usable_are_named() {
        let project = project();
        let local = project.path().join(LOCAL);
        std::fs::write(local.join("token"), " \n").unwrap();
        let error = find(&[], project.path()).unwrap_err().to_string();
        assert!(
            error.ends_with("token is not usable: it is empty"),
            "{error}"
        );
        std::fs::write(local.join("server.json"), "{").unwrap();
        let error = find(&[], project.path()).unwrap_err().to_string();
        assert!(error.contains("server.json is not usable"), "{error}");
    }
}
