//! Documents that hold secrets by their nature: what must stand in them so that they do.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use base64::Engine as _;
use serde_json::Value;

use super::names::Class;
use super::tokens::{self, BASE64};
use super::{Hit, Spot, pem};

/// A document of the kinds meant here is never longer.
pub(super) const LIMIT: u64 = 1024 * 1024;

/// Reads as much of a file as a document may have.
pub(super) fn read_start(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a file of this class with this content is, if it holds a secret.
pub(super) fn judge(class: Class, bytes: &[u8]) -> Option<Hit> {
    let text = || String::from_utf8_lossy(bytes);
    let (kind, holds) = match class {
        Class::Plain => return None,
        Class::DotEnv => (".env file with values", sets_anything(&text())),
        Class::Passwords => ("password file", has_password(&text())),
        Class::Npmrc => return npmrc(&text()),
        Class::DockerConfig => ("registry credentials of docker", docker_auths(bytes)),
        Class::AwsCredentials => ("AWS credentials file", aws_profile(&text())),
        Class::Kubeconfig => ("Kubernetes credentials", kubeconfig(&text())),
        Class::Own => ("credentials of this platform", own(bytes)),
        Class::BinaryKey => ("private key in binary form", pem::is_binary_key(bytes)),
        Class::Json => ("service account key", service_account(bytes)),
    };
    holds.then(|| Hit::new(kind, Spot::File))
}

/// `NAME=value`: a file of nothing but comments and empty values gives nothing away.
fn sets_anything(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        let value = line.split_once('=').map(|(_, value)| value);
        let value = value.map(|value| value.trim_matches(['"', '\'', ' ']));
        !line.starts_with('#') && value.is_some_and(|value| !value.is_empty())
    })
}

/// netrc names it; the lines of pgpass end with it; those of git are addresses with it.
fn has_password(text: &str) -> bool {
    let lines = text.lines().map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let netrc = words.windows(2).any(|pair| pair[0] == "password");
        let pgpass = line.matches(':').count() >= 4 && !line.ends_with(':');
        let git = line.split_once("://").is_some_and(|(_, rest)| {
            let user = rest.split_once('@').map(|(user, _)| user);
            user.is_some_and(|user| user.contains(':') && !user.ends_with(':'))
        });
        netrc || pgpass || git
    })
}

/// A password or token that is written there; `${NAME}` is where one will come from.
fn npmrc(text: &str) -> Option<Hit> {
    const KEYS: [&str; 4] = ["_authtoken", "_auth", "_password", "npmauthtoken"];
    let at = text.lines().position(|line| {
        let Some((key, value)) = line.split_once(['=', ' ']).or_else(|| line.split_once(':'))
        else {
            return false;
        };
        let key = key.trim().trim_end_matches(':').to_ascii_lowercase();
        let key = key.rsplit(':').next().unwrap_or_default();
        let value = value.trim().trim_matches(['"', '\'']);
        KEYS.contains(&key) && value.len() >= 8 && !value.contains("${")
    })?;
    Some(Hit::new("token of npm", Spot::Line(at as u64 + 1)))
}

fn docker_auths(bytes: &[u8]) -> bool {
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else {
        return false;
    };
    // `.dockercfg` is the list itself.
    let auths = document.get("auths").unwrap_or(&document).as_object();
    let filled = |entry: &Value| {
        ["auth", "identitytoken", "registrytoken", "password"]
            .iter()
            .any(|key| entry[key].as_str().is_some_and(|text| !text.is_empty()))
    };
    auths.is_some_and(|auths| auths.values().any(filled))
}

fn aws_profile(text: &str) -> bool {
    text.lines().any(|line| {
        let Some((key, value)) = line.split_once('=') else {
            return false;
        };
        key.trim() == "aws_secret_access_key" && value.trim().len() >= 20
    })
}

/// A token or the key of a client's certificate. Both are written on lines of their own by every
/// tool that writes such files.
fn kubeconfig(text: &str) -> bool {
    let value = |line: &str, key: &str| {
        let rest = line.trim().trim_start_matches("- ").strip_prefix(key)?;
        let value = rest.strip_prefix(':')?.trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| value.to_owned())
    };
    text.contains("users:")
        && text.lines().any(|line| {
            let key = value(line, "client-key-data").and_then(|data| BASE64.decode(data).ok());
            let token = value(line, "token").or_else(|| value(line, "password"));
            key.is_some_and(|key| pem::begins_private_key(&key)) || token.is_some()
        })
}

/// A token anywhere in it; `tenants.json` has addresses of databases with their passwords.
fn own(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else {
        return tokens::is_own_token(text.trim().as_bytes());
    };
    let token = document["api_token"].as_str();
    token.is_some_and(|token| !token.is_empty()) || has_password(&text.replace('"', "\n"))
}

fn service_account(bytes: &[u8]) -> bool {
    // Most documents are something else: reading them as JSON would take longer than finding out.
    if memchr::memmem::find(bytes, b"\"service_account\"").is_none() {
        return false;
    }
    let Ok(document) = serde_json::from_slice::<Value>(bytes) else {
        return false;
    };
    let key = document["private_key"].as_str().unwrap_or_default();
    document["type"] == "service_account" && pem::begins_private_key(key.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(class: Class, text: &str, expected: bool) {
        assert_eq!(judge(class, text.as_bytes()).is_some(), expected, "{text}");
    }

    #[test]
    fn env_files_with_values() {
        check(Class::DotEnv, "# nothing\n\nTOKEN=\nOTHER=\"\"\n", false);
        check(Class::DotEnv, "export DATABASE_URL=postgres://x\n", true);
    }

    #[test]
    fn password_files() {
        check(Class::Passwords, "machine a login b password c\n", true);
        check(Class::Passwords, "machine a login b\n", false);
        check(Class::Passwords, "db:5432:*:app:word\n", true);
        check(Class::Passwords, "# db:5432:*:app:word\n", false);
        check(Class::Passwords, "https://me:word@example.org\n", true);
        check(Class::Passwords, "https://me@example.org\n", false);
    }

    #[test]
    fn npm_and_docker() {
        let literal = format!("//r.example/:_authToken={}\n", "a1b2c3d4e5");
        check(Class::Npmrc, &literal, true);
        check(Class::Npmrc, "//r.example/:_authToken=${TOKEN}\n", false);
        check(Class::Npmrc, "registry=https://r.example/\n", false);
        let auths = r#"{"auths":{"r.example":{"auth":"bWU6d29yZA=="}}}"#;
        check(Class::DockerConfig, auths, true);
        check(Class::DockerConfig, r#"{"auths":{"r.example":{}}}"#, false);
        check(Class::DockerConfig, r#"{"credsStore":"pass"}"#, false);
    }

    #[test]
    fn clusters_and_clouds() {
        check(
            Class::Kubeconfig,
            "users:\n- user:\n    token: abcdef\n",
            true,
        );
        check(Class::Kubeconfig, "users:\n- user:\n    exec: {}\n", false);
        check(
            Class::AwsCredentials,
            &format!("[default]\naws_secret_access_key = {}\n", "x1".repeat(20)),
            true,
        );
    }

    #[test]
    fn our_own_files() {
        check(Class::Own, r#"{"api_token":"x","api_url":"y"}"#, true);
        check(Class::Own, r#"{"tenants":[{"id":"a","name":"b"}]}"#, false);
        let tenants = r#"{"tenants":[{"database_url":"postgres://app:word@db/app"}]}"#;
        check(Class::Own, tenants, true);
        let token = format!("sp_{}_{}\n", "0123456789abcdef", "01234567".repeat(8));
        check(Class::Own, &token, true);
    }
}
