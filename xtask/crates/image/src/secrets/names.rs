//! What the name of a file says about it.

use std::path::Path;

/// Which kind of document a file is by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Its name says nothing.
    Plain,
    /// `.env` and its relatives, but for those that only show the form.
    DotEnv,
    /// `.netrc`, `.pgpass`, `.git-credentials`.
    Passwords,
    /// `.npmrc`, `.yarnrc`
    Npmrc,
    /// `.docker/config.json`
    DockerConfig,
    /// `.aws/credentials`
    AwsCredentials,
    /// `.kube/config`
    Kubeconfig,
    /// `.systemprompt/credentials.json` and the like.
    Own,
    /// A private key or key store in binary form.
    BinaryKey,
    /// A JSON document, which may be a service account's key.
    Json,
}

impl Class {
    /// A letter for the cache.
    pub(super) fn letter(self) -> char {
        match self {
            Self::Plain => 'p',
            Self::DotEnv => 'e',
            Self::Passwords => 'w',
            Self::Npmrc => 'n',
            Self::DockerConfig => 'd',
            Self::AwsCredentials => 'a',
            Self::Kubeconfig => 'k',
            Self::Own => 'o',
            Self::BinaryKey => 'b',
            Self::Json => 'j',
        }
    }
}

/// Endings of files that show which variables there are.
const FORMS: [&str; 6] = [
    "example", "sample", "template", "dist", "defaults", "schema",
];

pub(super) fn class(path: &Path) -> Class {
    let text = |name: Option<&std::ffi::OsStr>| {
        name.map(|name| name.to_string_lossy().to_ascii_lowercase())
            .unwrap_or_default()
    };
    let name = text(path.file_name());
    let folder = text(path.parent().and_then(Path::file_name));
    match (folder.as_str(), name.as_str()) {
        (".systemprompt", "credentials.json" | "tenants.json") | ("local", "token") => Class::Own,
        (".docker", "config.json") | (_, ".dockercfg" | ".dockerconfigjson") => Class::DockerConfig,
        (".aws", "credentials") => Class::AwsCredentials,
        (".kube", "config") | (_, "kubeconfig") => Class::Kubeconfig,
        (_, ".netrc" | "_netrc" | ".pgpass" | ".git-credentials") => Class::Passwords,
        (_, ".npmrc" | ".yarnrc" | ".yarnrc.yml") => Class::Npmrc,
        (_, ".env") => Class::DotEnv,
        _ => by_ending(&name),
    }
}

fn by_ending(name: &str) -> Class {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    match ending {
        "kubeconfig" => Class::Kubeconfig,
        "p12" | "pfx" | "der" | "key" | "p8" | "pk8" => Class::BinaryKey,
        _ if name.starts_with(".env.") && !FORMS.contains(&ending) => Class::DotEnv,
        "json" => Class::Json,
        _ => Class::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_the_folders_they_stand_in() {
        for (path, expected) in [
            ("app/.env", Class::DotEnv),
            ("app/.env.production", Class::DotEnv),
            ("app/.env.example", Class::Plain),
            ("app/env", Class::Plain),
            ("root/.docker/config.json", Class::DockerConfig),
            ("app/config.json", Class::Json),
            ("app/.systemprompt/credentials.json", Class::Own),
            ("app/credentials.json", Class::Json),
            ("root/.pgpass", Class::Passwords),
            ("root/.kube/config", Class::Kubeconfig),
            ("app/config", Class::Plain),
            ("app/server.P12", Class::BinaryKey),
        ] {
            assert_eq!(class(Path::new(path)), expected, "{path}");
        }
    }
}
