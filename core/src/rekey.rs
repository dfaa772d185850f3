//! Sealing the tenants' secrets with a new key.
//!
//! A new key of a file is written beside it first (`.FILE.next`), then all secrets are sealed with it in one transaction,
//! then it takes the file's place. Whenever that is cut short, one of the two keys opens everything, and whoever opens
//! the vault next finds out which ([`open_vault`]).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::cli::RekeyArgs;
use crate::data_dir::DataDir;
use crate::die::die_if;
use crate::key::{self, KeySource};
use crate::standby;
use crate::store::{SealedSecret, Store};
use crate::told;
use crate::vault::{Place, Vault, VaultError};

/// Runs the command.
pub(crate) async fn run(arguments: &RekeyArgs) -> anyhow::Result<()> {
    let database = arguments.database.server()?;
    let marker = match &database {
        Some(_) => arguments.database.shared(&arguments.data).to_owned(),
        None => arguments.data.join("state.db"),
    };
    if !marker.exists() {
        bail!(
            "{} is not the data folder of a server",
            arguments.data.display()
        );
    }
    let data = arguments.database.open(&arguments.data)?;
    let Some(database) = database else {
        let store = Store::open(&data.database()).context("cannot open the state database")?;
        return rekey(arguments, &data, &store).await;
    };
    let (store, lead) = standby::connect_to_lead(&database, &data, "systemprompt rekey").await?;
    let done = rekey(arguments, &data, &store).await;
    standby::give_back(&lead).await;
    done
}

async fn rekey(arguments: &RekeyArgs, data: &DataDir, store: &Store) -> anyhow::Result<()> {
    let old = arguments.secrets_key.source(data);
    let vault = open_vault(store, &old).await?;
    let new = match (
        &arguments.new_secrets_key_command,
        &arguments.new_secrets_key,
    ) {
        (Some(command), _) => Some(KeySource::Command(command.clone())),
        (None, Some(file)) => Some(KeySource::File(file.clone())),
        (None, None) => None,
    };
    let count = match (new, old) {
        (Some(new), _) => {
            let new = Vault::new(&new.read()?);
            if new.has_key_of(&vault)? {
                bail!(
                    "that is the present key: name a file that is not there yet, or one with another key"
                );
            }
            reseal(store, vault, new).await?
        }
        (None, KeySource::File(path)) => replace(store, vault, &path).await?,
        (None, KeySource::Command(_)) => bail!(
            "the present key comes from a command: say where the new one comes from with --new-secrets-key-command or \
             --new-secrets-key"
        ),
    };
    say(count);
    Ok(())
}

/// The vault with the key that the secrets were sealed with. With another one a server would start every release
/// without them. Finishes what a `rekey` that was cut short has left.
pub(crate) async fn open_vault(store: &Store, source: &KeySource) -> anyhow::Result<Vault> {
    let sample = store.any_secret().await?;
    // A new key would open nothing, and stand where the right one has to be put.
    let present = match &sample {
        Some(_) => source.existing(),
        None => source.read(),
    };
    let opens = |vault: &Vault| opens(vault, sample.as_ref());
    let next = match source {
        KeySource::File(path) => Some((path, next_to(path))).filter(|(_, next)| next.exists()),
        KeySource::Command(_) => None,
    };
    let vault = match present {
        Ok(key) => Some(Vault::new(&key)),
        // The one beside it may be all there is.
        Err(error) if error.is_missing() && next.is_some() => None,
        Err(error) if error.is_missing() => {
            return Err(anyhow::Error::new(error).context(
                "the key that the tenants' secrets were sealed with is not there: put it back, or give it with \
                 --secrets-key or --secrets-key-command",
            ));
        }
        Err(error) => return Err(error.into()),
    };
    // Nothing is removed before there is a key that opens.
    if let Some(vault) = vault.filter(|vault| opens(vault)) {
        remove_unfinished(source)?;
        if let Some((_, next)) = next {
            key::remove(&next)?;
            tracing::info!("a change of the key of secrets that was cut short is undone");
        }
        return Ok(vault);
    }
    if let Some((path, next)) = next {
        let newer = Vault::new(&KeySource::File(next.clone()).existing()?);
        if opens(&newer) {
            key::replace(&next, path)?;
            remove_unfinished(source)?;
            tracing::info!("a change of the key of secrets that was cut short is finished");
            return Ok(newer);
        }
    }
    bail!(
        "this is not the key that the tenants' secrets were sealed with: give the right one with --secrets-key or \
         --secrets-key-command"
    )
}

/// Whether a key is the one that a secret was sealed with; where there is none, any key is.
pub(crate) fn opens(vault: &Vault, sample: Option<&SealedSecret>) -> bool {
    sample.is_none_or(|sample| unseal(vault, sample).is_ok())
}

fn remove_unfinished(source: &KeySource) -> anyhow::Result<()> {
    if let KeySource::File(path) = source {
        key::remove_unfinished(path)?;
        key::remove_unfinished(&next_to(path))?;
    }
    Ok(())
}

/// Seals everything with a new key, which takes the place of the one in `path`.
async fn replace(store: &Store, old: Vault, path: &Path) -> anyhow::Result<usize> {
    let next = next_to(path);
    key::make(&next)?;
    die_if(|point| point == "key_made");
    let new = Vault::new(&KeySource::File(next.clone()).existing()?);
    let count = reseal(store, old, new).await?;
    die_if(|point| point == "sealed");
    key::replace(&next, path)?;
    die_if(|point| point == "replaced");
    Ok(count)
}

async fn reseal(store: &Store, old: Vault, new: Vault) -> anyhow::Result<usize> {
    let seal = move |secret: &SealedSecret| {
        let sealed = unseal(&old, secret).and_then(|value| new.seal(place(secret), &value));
        die_if(|point| point == "sealing");
        sealed
    };
    let sealed = store.reseal_secrets(seal).await;
    sealed
        .context("the secrets were not sealed with the new key; the one before it still opens them")
}

fn unseal(vault: &Vault, secret: &SealedSecret) -> Result<secrecy::SecretString, VaultError> {
    vault.unseal(place(secret), &secret.sealed)
}

fn place(secret: &SealedSecret) -> Place<'_> {
    Place {
        tenant: &secret.tenant,
        name: &secret.name,
        version: secret.version,
    }
}

/// `.FILE.next`: a name that nobody gives to a key.
fn next_to(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".next");
    path.with_file_name(name)
}

fn say(count: usize) {
    told::result(&format!(
        "{count} versions of secrets are sealed with the new key"
    ));
}
