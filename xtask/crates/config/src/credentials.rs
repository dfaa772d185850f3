//! Who deploys: `SYSTEMPROMPT_API_TOKEN`, else `.systemprompt/credentials.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use deploy_plan::config::ApiUrl;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::jwt;
use crate::private_file::{self, PrivateFileError, Unknown, Warning};
use crate::project;

/// The variable that holds a token.
pub const TOKEN_VARIABLE: &str = "SYSTEMPROMPT_API_TOKEN";
/// The variable that says which API the token of [`TOKEN_VARIABLE`] is for.
pub const URL_VARIABLE: &str = "SYSTEMPROMPT_API_URL";

/// The content of `credentials.json`. Fields that are not known are kept when it is written.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The operator's token.
    pub api_token: SecretString,
    /// The API that gave it.
    pub api_url: String,
    /// When the operator logged in.
    pub authenticated_at: Option<String>,
    /// Who it is.
    pub user_email: Option<String>,
    /// When the server last accepted the token.
    pub last_validated_at: Option<String>,
    unknown: Unknown,
}

/// A token with all that is known about it.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The token.
    pub token: SecretString,
    /// The API it is for; `None` where nobody said.
    pub api_url: Option<String>,
    /// When it ends, in seconds since 1970; `None` where the token does not tell.
    pub expires_at: Option<i64>,
    /// Where it was found.
    pub source: Source,
}

/// Where a token was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In [`TOKEN_VARIABLE`].
    Variable,
    /// In a file.
    File(PathBuf),
}

/// Whether a token still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// For so many seconds more.
    Valid {
        /// Seconds, 1 at least.
        remaining: i64,
    },
    /// It ended so many seconds ago.
    Expired {
        /// Seconds; 0 when it ends just now.
        since: i64,
    },
    /// The token does not tell; the server will.
    Unknown,
}

/// The file, with the names that its other readers use.
#[derive(Serialize, Deserialize)]
struct Record {
    api_token: String,
    api_url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    authenticated_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user_email: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_validated_at: Option<String>,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl Credentials {
    /// Credentials that were just given.
    #[must_use]
    pub fn new(api_token: SecretString, api_url: impl Into<String>) -> Self {
        Self {
            api_token,
            api_url: api_url.into(),
            authenticated_at: None,
            user_email: None,
            last_validated_at: None,
            unknown: Unknown::default(),
        }
    }

    /// Reads the credentials of the project in `root`; `None` where there are none.
    ///
    /// # Errors
    ///
    /// When the file is there but cannot be read or understood.
    pub fn read(root: &Path) -> Result<Option<(Self, Vec<Warning>)>, PrivateFileError> {
        let found = private_file::read::<Record>(&root.join(project::CREDENTIALS))?;
        Ok(found.map(|(record, warnings)| (record.into(), warnings)))
    }

    /// Writes the credentials of the project in `root`, for its owner only and out of git's sight.
    /// At every moment the old file or the new one is there.
    ///
    /// # Errors
    ///
    /// When the file or the `.gitignore` beside it cannot be written.
    pub fn write(&self, root: &Path) -> Result<(), PrivateFileError> {
        private_file::write(&root.join(project::CREDENTIALS), &Record::from(self))
    }
}

impl From<Record> for Credentials {
    fn from(record: Record) -> Self {
        Self {
            api_token: record.api_token.into(),
            api_url: record.api_url,
            authenticated_at: record.authenticated_at,
            user_email: record.user_email,
            last_validated_at: record.last_validated_at,
            unknown: Unknown(record.unknown),
        }
    }
}

impl From<&Credentials> for Record {
    fn from(credentials: &Credentials) -> Self {
        let credentials = credentials.clone();
        Self {
            api_token: credentials.api_token.expose_secret().to_owned(),
            api_url: credentials.api_url,
            authenticated_at: credentials.authenticated_at,
            user_email: credentials.user_email,
            last_validated_at: credentials.last_validated_at,
            unknown: credentials.unknown.0,
        }
    }
}

impl Credential {
    /// The credential of the project in `root`: that of the variable, else that of the file. The
    /// file is not even read where the variable is set, so that a broken one cannot stop a CI run.
    ///
    /// # Errors
    ///
    /// When the file is needed and cannot be read or understood.
    pub fn find(
        variables: &BTreeMap<String, String>,
        root: &Path,
    ) -> Result<Option<(Self, Vec<Warning>)>, PrivateFileError> {
        if let Some(credential) = Self::from_variables(variables) {
            return Ok(Some((credential, Vec::new())));
        }
        let found = Credentials::read(root)?;
        Ok(found.and_then(|(credentials, warnings)| {
            let path = PathBuf::from(project::CREDENTIALS);
            Some((Self::from_file(credentials, path)?, warnings))
        }))
    }

    fn from_variables(variables: &BTreeMap<String, String>) -> Option<Self> {
        // A secret that is pasted into a CI system often brings its line end along.
        let filled = |name: &str| {
            let text = variables.get(name).map(|text| text.trim());
            text.filter(|text| !text.is_empty())
        };
        let token = filled(TOKEN_VARIABLE)?;
        Some(Self {
            expires_at: jwt::expires_at(token),
            token: token.into(),
            api_url: filled(URL_VARIABLE).map(str::to_owned),
            source: Source::Variable,
        })
    }

    fn from_file(credentials: Credentials, path: PathBuf) -> Option<Self> {
        let token = credentials.api_token.expose_secret().trim();
        (!token.is_empty()).then(|| Self {
            expires_at: jwt::expires_at(token),
            token: token.into(),
            api_url: Some(credentials.api_url).filter(|url| !url.is_empty()),
            source: Source::File(path),
        })
    }

    /// Whether the token was given for this API. A token must never be sent to another one.
    #[must_use]
    pub fn is_for(&self, api: &ApiUrl) -> bool {
        self.api_url
            .as_deref()
            .is_none_or(|url| url.parse().is_ok_and(|url: ApiUrl| url == *api))
    }

    /// Whether the token holds at `now`, in seconds since 1970.
    #[must_use]
    pub fn validity(&self, now: i64) -> Validity {
        match self.expires_at {
            None => Validity::Unknown,
            Some(end) if end > now => Validity::Valid {
                remaining: end.saturating_sub(now),
            },
            Some(end) => Validity::Expired {
                since: now.saturating_sub(end),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const FILE: &str = r#"{
  "api_token": "from-file",
  "api_url": "https://api.systemprompt.io",
  "authenticated_at": "2026-01-01T00:00:00Z",
  "user_email": "me@example.org",
  "customer": {
    "id": 7
  }
}
"#;

    fn project(credentials: Option<&str>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        if let Some(text) = credentials {
            fs::create_dir(folder.path().join(project::FOLDER)).unwrap();
            fs::write(folder.path().join(project::CREDENTIALS), text).unwrap();
        }
        folder
    }

    /// Token, address and source of what is found.
    fn check(variables: &[(&str, &str)], file: Option<&str>) -> Option<String> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let (found, _) = Credential::find(&variables, project(file).path()).unwrap()?;
        let token = found.token.expose_secret();
        Some(format!("{token} {:?} {:?}", found.api_url, found.source))
    }

    #[test]
    fn the_variable_wins_over_the_file() {
        let token = ("SYSTEMPROMPT_API_TOKEN", "from-variable\n");
        let url = ("SYSTEMPROMPT_API_URL", "https://b");
        assert_eq!(
            check(&[token, url], Some(FILE)).unwrap(),
            r#"from-variable Some("https://b") Variable"#
        );
        assert_eq!(
            check(&[token], Some("broken")).unwrap(),
            "from-variable None Variable"
        );
        assert_eq!(
            check(&[("SYSTEMPROMPT_API_TOKEN", "")], Some(FILE)).unwrap(),
            r#"from-file Some("https://api.systemprompt.io") File(".systemprompt/credentials.json")"#
        );
    }

    #[test]
    fn nobody_is_logged_in() {
        assert_eq!(check(&[], None), None);
        let empty = FILE.replace("from-file", "");
        assert_eq!(check(&[], Some(&empty)), None);
    }

    #[test]
    fn unknown_fields_survive() {
        let folder = project(Some(FILE));
        let (credentials, _) = Credentials::read(folder.path()).unwrap().unwrap();
        credentials.write(folder.path()).unwrap();
        let path = folder.path().join(project::CREDENTIALS);
        assert_eq!(fs::read_to_string(path).unwrap(), FILE);
    }

    #[test]
    fn a_broken_file_is_an_error() {
        let folder = project(Some(r#"{"api_url":"x"}"#));
        let error = Credentials::read(folder.path()).unwrap_err();
        assert!(matches!(error, PrivateFileError::Content { .. }), "{error}");
    }

    #[test]
    fn debug_shows_no_secret() {
        let file = FILE.replace("\"id\": 7", "\"refresh\": \"hunter2\"");
        let folder = project(Some(&file));
        let (credentials, _) = Credentials::read(folder.path()).unwrap().unwrap();
        let debug = format!("{credentials:?}");
        assert!(
            !debug.contains("from-file") && !debug.contains("hunter2"),
            "{debug}"
        );
    }

    fn credential(api_url: Option<&str>, expires_at: Option<i64>) -> Credential {
        Credential {
            token: "t".into(),
            api_url: api_url.map(str::to_owned),
            expires_at,
            source: Source::Variable,
        }
    }

    #[test]
    fn validity() {
        let at = |end| credential(None, end).validity(100);
        assert_eq!(at(None), Validity::Unknown);
        assert_eq!(at(Some(101)), Validity::Valid { remaining: 1 });
        assert_eq!(at(Some(100)), Validity::Expired { since: 0 });
        assert_eq!(at(Some(40)), Validity::Expired { since: 60 });
        assert_eq!(at(Some(i64::MIN)), Validity::Expired { since: i64::MAX });
    }

    #[test]
    fn a_token_is_for_one_api() {
        let api: ApiUrl = "https://a".parse().unwrap();
        assert!(credential(Some("https://a/"), None).is_for(&api));
        assert!(credential(None, None).is_for(&api));
        assert!(!credential(Some("https://b"), None).is_for(&api));
        assert!(!credential(Some("nonsense"), None).is_for(&api));
    }
}
