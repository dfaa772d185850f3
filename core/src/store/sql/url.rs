//! `DATABASE_URL`: where the database is, and how it is spoken to. The password is in no message.

use std::fmt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use crate::tls::TlsError;

/// Options that are read here; the library reads the others, and refuses those that it does not know.
const SSL_MODE: &str = "sslmode";
const ROOT_CERTIFICATES: &str = "sslrootcert";

/// Why a database cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UrlError {
    /// It is something else.
    #[error(
        "the database's URL is none of PostgreSQL, such as postgresql://USER:PASSWORD@HOST:5432/DATABASE"
    )]
    NotPostgres,
    /// The library refuses it.
    #[error("the database's URL is refused: {reason}")]
    Refused {
        /// Which option, without its value.
        reason: String,
    },
    /// It would be less than it says, or less than is safe.
    #[error(
        "the database's URL has sslmode={mode}, which {why}: use sslmode=verify-full, or sslmode=disable where the \
         connection stays on this machine"
    )]
    SslMode {
        /// The mode.
        mode: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It holds none.
    #[error("{} holds no certificate of an authority", path.display())]
    NoAuthority {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("the certificates of sslrootcert cannot be used")]
    Certificate {
        /// The cause.
        #[source]
        source: Box<TlsError>,
    },
    /// The file that holds the URL cannot be read.
    #[error("cannot read the database's URL from {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Where a database is.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseUrl {
    /// As it was given, but for what is read here.
    text: SecretString,
    ssl: Option<String>,
    roots: Option<PathBuf>,
    /// Without the password.
    name: String,
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl DatabaseUrl {
    /// Reads one. What it says is not checked further than it has to be to tell what it is.
    pub(crate) fn parse(text: &SecretString) -> Result<Self, UrlError> {
        let text = text.expose_secret().trim();
        let is_known = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| text.starts_with(scheme));
        if !is_known {
            return Err(UrlError::NotPostgres);
        }
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let (mut ssl, mut roots) = (None, None);
        let mut rest = form_urlencoded::Serializer::new(String::new());
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                SSL_MODE => ssl = Some(value.into_owned()),
                ROOT_CERTIFICATES => roots = Some(PathBuf::from(value.into_owned())),
                _ => drop(rest.append_pair(&name, &value)),
            }
        }
        // The library decodes percent signs, but takes a plus for itself.
        let rest = rest.finish().replace('+', "%20");
        let text = match rest.as_str() {
            "" => place.to_owned(),
            rest => format!("{place}?{rest}"),
        };
        let mut url = Self {
            text: SecretString::from(text),
            ssl,
            roots,
            name: String::new(),
        };
        url.name = name(&url.config()?);
        Ok(url)
    }

    /// Reads the one that a file holds.
    pub(crate) fn from_file(path: &Path) -> Result<Self, UrlError> {
        let text = std::fs::read_to_string(path).map_err(|source| UrlError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&SecretString::from(text))
    }

    /// The authorities that may have signed the database's certificate, where not the known ones.
    pub(super) fn root_certificates(&self) -> Option<&Path> {
        self.roots.as_deref()
    }

    pub(super) fn config(&self) -> Result<Config, UrlError> {
        let parsed: Result<Config, _> = self.text.expose_secret().parse();
        let mut config = parsed.map_err(|error| UrlError::Refused {
            // The name of an option at most.
            reason: std::error::Error::source(&error)
                .map_or_else(|| error.to_string(), ToString::to_string),
        })?;
        if config.get_hosts().is_empty() {
            return Err(UrlError::NotPostgres);
        }
        config.ssl_mode(self.ssl_mode(&config)?);
        Ok(config)
    }

    fn ssl_mode(&self, config: &Config) -> Result<SslMode, UrlError> {
        let refused = |why| UrlError::SslMode {
            mode: self.ssl.clone().unwrap_or_default(),
            why,
        };
        match self.ssl.as_deref() {
            None if config.get_hosts().iter().all(is_here) => Ok(SslMode::Disable),
            // Encrypted without a look at the certificate is encrypted to whoever answers.
            None | Some("verify-full" | "require") => Ok(SslMode::Require),
            Some("disable") => Ok(SslMode::Disable),
            Some("allow" | "prefer") => Err(refused("may send the password in the clear")),
            Some("verify-ca") => Err(refused("does not look at the name in the certificate")),
            Some(_) => Err(refused("nobody knows")),
        }
    }
}

/// Whether it is on this machine.
fn is_here(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            let address = name.parse::<std::net::IpAddr>();
            name == "localhost" || address.is_ok_and(|address| address.is_loopback())
        }
    }
}

fn name(config: &Config) -> String {
    let ports = config.get_ports();
    let hosts = config.get_hosts().iter().enumerate().map(|(index, host)| {
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Unix(path) => path.display().to_string(),
            Host::Tcp(name) => format!("{name}:{port}"),
        }
    });
    let hosts: Vec<_> = hosts.collect();
    let database = config.get_dbname().or(config.get_user()).unwrap_or("");
    format!("{}/{database}", hosts.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DatabaseUrl, UrlError> {
        DatabaseUrl::parse(&SecretString::from(text))
    }

    fn mode(text: &str) -> SslMode {
        parse(text).unwrap().config().unwrap().get_ssl_mode()
    }

    #[test]
    fn what_leaves_the_machine_is_encrypted_and_checked() {
        for text in [
            "postgresql://u:p@db.example/d",
            "postgresql://u:p@db.example/d?sslmode=require",
            "postgres://u:p@127.0.0.1/d?sslmode=verify-full",
            "postgres://u:p@127.0.0.1,db.example/d",
        ] {
            assert_eq!(mode(text), SslMode::Require, "{text}");
        }
        for text in [
            "postgresql://u:p@localhost/d",
            "postgresql://u:p@127.0.0.1:5433/d",
            "postgresql://u@%2Frun%2Fpostgresql/d",
            "postgresql://u:p@db.example/d?sslmode=disable",
        ] {
            assert_eq!(mode(text), SslMode::Disable, "{text}");
        }
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for mode in ["prefer", "allow", "verify-ca", "no-such"] {
            let text = format!("postgresql://u:hidden@db.example/d?sslmode={mode}");
            let refused = parse(&text).unwrap_err().to_string();
            assert!(refused.contains(&format!("sslmode={mode}")), "{refused}");
            assert!(!refused.contains("hidden"));
        }
    }

    #[test]
    fn no_message_holds_the_password() {
        for text in [
            "mysql://u:hidden@h/d",
            "postgresql://u:hidden@h:x/d",
            "postgresql://u:hidden@h/d?no_such=hidden",
            "postgresql://u:hidden@h/d?channel_binding=hidden",
            "postgresql:///d?password=hidden",
        ] {
            let refused = parse(text).unwrap_err();
            let told = format!("{} {refused:?}", crate::chain(&refused));
            assert!(!told.contains("hidden"), "{told}");
        }
        let url = parse("postgresql://u:hidden@h:7/d?application_name=a%20b").unwrap();
        assert!(!format!("{url} {url:?}").contains("hidden"));
        assert_eq!(url.to_string(), "h:7/d");
        let config = url.config().unwrap();
        assert_eq!(config.get_application_name(), Some("a b"));
        assert_eq!(config.get_password(), Some(&b"hidden"[..]));
    }
}
