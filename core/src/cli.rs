//! The command line.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use secrecy::SecretString;

use crate::data_dir::{DataDir, DataDirError};
use crate::key::KeySource;
use crate::store::{DatabaseServer, DatabaseUrl, Head, UrlError};

/// The platform server: deploys images of its own registry and keeps them running.
#[derive(Debug, Parser)]
#[command(name = "systemprompt", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server until SIGTERM, which leaves its instances to the next one, or SIGINT, which stops them.
    Serve(ServeArgs),
    /// Ask a running server whether it is healthy; exit code 0 or 1.
    Healthcheck(HealthcheckArgs),
    /// Check that the audit log is whole and the images of what serves are; the server may run.
    Verify(VerifyArgs),
    /// Copy what a server keeps: releases, secrets as they are sealed, history; the server may run.
    Backup(BackupArgs),
    /// Make the folder of a server from a backup.
    Restore(RestoreArgs),
    /// Seal the tenants' secrets with a new key; the server must not run.
    Rekey(RekeyArgs),
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Folder that holds everything the server keeps; made where it is missing.
    #[arg(long, env = "SYSTEMPROMPT_DATA", value_name = "DIR")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    /// Address to listen on; port 0 picks a free one [default: ${HOST:-127.0.0.1}:${PORT:-8080}].
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Certificate to show, in PEM, with those that lead to its authority behind it; read again when it changes.
    #[arg(
        long,
        env = "SYSTEMPROMPT_TLS_CERTIFICATE",
        value_name = "FILE",
        requires = "tls_key"
    )]
    pub(crate) tls_certificate: Option<PathBuf>,
    /// Its private key, in PEM.
    #[arg(
        long,
        env = "SYSTEMPROMPT_TLS_KEY",
        value_name = "FILE",
        requires = "tls_certificate"
    )]
    pub(crate) tls_key: Option<PathBuf>,
    /// Listen beyond this machine without a certificate: for a proxy with TLS in front.
    #[arg(
        long,
        env = "SYSTEMPROMPT_INSECURE",
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub(crate) insecure: bool,
    /// Folder of the dashboard.
    #[arg(long, env = "SYSTEMPROMPT_WEB", value_name = "DIR")]
    pub(crate) web: Option<PathBuf>,
    /// Folder of the platform's configuration (platform.toml).
    #[arg(long, env = "SYSTEMPROMPT_SERVICES", value_name = "DIR")]
    pub(crate) services: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) secrets_key: SecretsKeyArgs,
    /// How instances are kept apart from the machine.
    #[arg(long, value_enum, default_value_t = Isolation::Auto)]
    pub(crate) isolation: Isolation,
    /// How the server's own log is written.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

/// Where the state is, if not in the data folder.
#[derive(Debug, Args)]
pub(crate) struct DatabaseArgs {
    /// File with the URL of a database of PostgreSQL that holds the state, instead of the data folder
    /// [default: the URL in `DATABASE_URL`, if there is one].
    #[arg(long, env = "SYSTEMPROMPT_DATABASE_URL_FILE", value_name = "FILE")]
    database_url_file: Option<PathBuf>,
    /// Folder with the images, the keys and the operator's token, where several servers have one database
    /// [default: the data folder].
    #[arg(long, env = "SYSTEMPROMPT_SHARED", value_name = "DIR")]
    shared: Option<PathBuf>,
}

impl DatabaseArgs {
    /// The server of the database, where there is one.
    pub(crate) fn server(&self) -> Result<Option<DatabaseServer>, UrlError> {
        let url = match (&self.database_url_file, variable("DATABASE_URL")) {
            (Some(file), _) => DatabaseUrl::from_file(file)?,
            (None, Some(url)) => DatabaseUrl::parse(&SecretString::from(url))?,
            (None, None) => return Ok(None),
        };
        DatabaseServer::of(&url).map(Some)
    }

    /// The folder that servers share.
    pub(crate) fn shared<'a>(&'a self, data: &'a Path) -> &'a Path {
        self.shared.as_deref().unwrap_or(data)
    }

    /// The data folder with what it shares.
    pub(crate) fn open(&self, data: &Path) -> Result<DataDir, DataDirError> {
        let folder = DataDir::open(data)?;
        match &self.shared {
            Some(shared) => folder.sharing(shared),
            None => Ok(folder),
        }
    }
}

/// Where the key of secrets is.
#[derive(Debug, Args)]
pub(crate) struct SecretsKeyArgs {
    /// File with the key of tenants' secrets, 64 hexadecimal digits; made where it is missing
    /// [default: secrets.key in the data folder].
    #[arg(long, env = "SYSTEMPROMPT_SECRETS_KEY_FILE", value_name = "FILE")]
    secrets_key: Option<PathBuf>,
    /// Shell command that prints that key, of a key management system for instance.
    #[arg(
        long,
        env = "SYSTEMPROMPT_SECRETS_KEY_COMMAND",
        value_name = "COMMAND",
        conflicts_with = "secrets_key"
    )]
    secrets_key_command: Option<String>,
}

impl SecretsKeyArgs {
    /// The source that is named; the data folder's own file otherwise.
    pub(crate) fn source(&self, data: &DataDir) -> KeySource {
        match (&self.secrets_key_command, &self.secrets_key) {
            (Some(command), _) => KeySource::Command(command.clone()),
            (None, Some(file)) => KeySource::File(file.clone()),
            (None, None) => KeySource::File(data.secrets_key()),
        }
    }
}

/// Arguments of `rekey`.
#[derive(Debug, Args)]
pub(crate) struct RekeyArgs {
    /// Folder that holds everything the server keeps.
    #[arg(long, env = "SYSTEMPROMPT_DATA", value_name = "DIR")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    #[command(flatten)]
    pub(crate) secrets_key: SecretsKeyArgs,
    /// Shell command that prints the new key; without it, the present key's file gets a new one.
    #[arg(long, value_name = "COMMAND")]
    pub(crate) new_secrets_key_command: Option<String>,
    /// File with the new key, made where it is missing.
    #[arg(long, value_name = "FILE", conflicts_with = "new_secrets_key_command")]
    pub(crate) new_secrets_key: Option<PathBuf>,
}

/// Arguments of `healthcheck`.
#[derive(Debug, Args)]
pub(crate) struct HealthcheckArgs {
    /// Base URL of the server [default: http://127.0.0.1:${PORT:-8080}, https with a certificate].
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// The certificate that the server shows, where it has one.
    #[arg(long, env = "SYSTEMPROMPT_TLS_CERTIFICATE", value_name = "FILE")]
    pub(crate) tls_certificate: Option<PathBuf>,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The server's folder.
    #[arg(long, env = "SYSTEMPROMPT_DATA", value_name = "DIR")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    /// An end of the audit log that was printed before: tells whether rows were cut off since, or written anew.
    #[arg(long, value_name = "COUNT:HASH")]
    pub(crate) expect: Option<Head>,
}

/// Arguments of `backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The server's folder.
    #[arg(long, env = "SYSTEMPROMPT_DATA", value_name = "DIR")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    /// What to make: an archive where it ends in `.tar`, else a folder. It must not be there yet.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) to: PathBuf,
    /// Put the key of the secrets into it too: whoever has the backup can then read them.
    #[arg(long)]
    pub(crate) with_key: bool,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup.
    #[arg(long, value_name = "FILE|DIR")]
    pub(crate) from: PathBuf,
    /// The folder of the server to be: empty, or not there yet.
    #[arg(long, env = "SYSTEMPROMPT_DATA", value_name = "DIR")]
    pub(crate) data: PathBuf,
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
}

/// How instances are kept apart from the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Isolation {
    /// As far as the machine allows.
    Auto,
    /// Not at all.
    Off,
}

/// How the server's own log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For programs: an object a line.
    Json,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// It is none.
    #[error("{text:?} is not an address to listen on, such as 127.0.0.1:8080")]
    Address {
        /// What was given.
        text: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Tokens would travel in the clear.
    #[error(
        "listen_without_tls: {address} can be reached from other machines, and tokens would travel there in the clear: \
         give --tls-certificate and --tls-key, or --insecure where a proxy with TLS stands in front, or listen on \
         127.0.0.1"
    )]
    Unprotected {
        /// The address.
        address: SocketAddr,
    },
}

impl ServeArgs {
    /// Where to listen: the option, else `HOST` and `PORT`, else loopback and 8080. Beyond this machine only with TLS,
    /// or where that is asked for.
    pub(crate) fn addresses(&self, has_tls: bool) -> Result<Vec<SocketAddr>, ListenError> {
        let text = match &self.listen {
            Some(text) => text.clone(),
            None => default_address(variable("HOST"), variable("PORT")),
        };
        let resolved = text.to_socket_addrs();
        let addresses = resolved.map_err(|source| ListenError::Address { text, source })?;
        let addresses: Vec<_> = addresses.collect();
        let open = addresses.iter().find(|address| !address.ip().is_loopback());
        match open {
            Some(&address) if !has_tls && !self.insecure => {
                Err(ListenError::Unprotected { address })
            }
            _ => Ok(addresses),
        }
    }
}

/// The port of this machine's server.
pub(crate) fn default_port() -> String {
    variable("PORT").unwrap_or_else(|| "8080".to_owned())
}

fn default_address(host: Option<String>, port: Option<String>) -> String {
    let host = host.unwrap_or_else(|| "127.0.0.1".to_owned());
    let port = port.unwrap_or_else(|| "8080".to_owned());
    if host.contains(':') && !host.starts_with('[') {
        return format!("[{host}]:{port}");
    }
    format!("{host}:{port}")
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn addresses_from_the_environment() {
        for (host, port, expected) in [
            (None, None, "127.0.0.1:8080"),
            (Some("0.0.0.0"), Some("9"), "0.0.0.0:9"),
            (Some("::1"), None, "[::1]:8080"),
        ] {
            let address = default_address(host.map(Into::into), port.map(Into::into));
            assert_eq!(address, expected);
            assert!(address.parse::<SocketAddr>().is_ok());
        }
    }
}
