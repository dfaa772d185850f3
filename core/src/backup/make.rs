//! Making a backup, of a server that may run.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use oci::{Digest, Repository};
use secrecy::{ExposeSecret as _, SecretString};

use super::sink::Unfinished;
use super::{ABOUT, About, DATABASE, FORMAT, KEY, REGISTRY, SUMS, SUMS_LIMIT};
use crate::chain;
use crate::cli::BackupArgs;
use crate::data_dir;
use crate::key::KeySource;
use crate::store::{ReleaseUse, Snapshot};
use crate::told;
use crate::vault::Vault;
use crate::verify;
use crate::{hex, rekey};

/// For a collection that is going on.
const HOLD_LIMIT: Duration = Duration::from_mins(1);

/// Writes beside the place of the backup, and moves there what is whole.
pub(crate) fn make(arguments: &BackupArgs) -> anyhow::Result<()> {
    let (data, to) = (&arguments.data, &arguments.to);
    let shared = arguments.database.shared(data);
    let database = verify::open(data, &arguments.database)?;
    let key = key(arguments)?;
    let store = oci::Store::existing(data_dir::registry(shared))
        .with_context(|| format!("{} holds no registry", shared.display()))?;
    // From before the database is read: what it names is there until it has been copied.
    let _hold = store.hold(HOLD_LIMIT)?;
    let unfinished = Unfinished::begin(to)?;
    let copy = unfinished.folder().join(DATABASE);
    create_private(&copy)?;
    database
        .copy_to(&copy)
        .context("cannot copy the state database")?;
    let copied = Snapshot::open(&copy).context("cannot read the copy of the state database")?;
    let head = copied
        .check_chain(None)
        .context("the audit log is broken: look at it with `systemprompt verify` before anything is backed up")?;
    let images = images(&copied, &store)?;
    let key = key.map(|key| checked(&key, &copied)).transpose()?;
    drop(copied);

    let mut sink = unfinished.sink()?;
    sink.take(DATABASE.as_ref(), &copy)?;
    // Content first: what is cut off has no link that leads nowhere.
    for path in &images.contents {
        sink.copy(&Path::new(REGISTRY).join(path), &store.root().join(path))?;
    }
    for path in &images.links {
        let link = store.root().join(path);
        // Tags, and what is about an image, may be removed at any time.
        sink.copy_if_there(&Path::new(REGISTRY).join(path), &link)?;
    }
    if let Some(key) = &key {
        sink.write(KEY.as_ref(), key.expose_secret().as_bytes())?;
    }
    let sums = sink.sums().to_owned();
    if sums.len() as u64 > SUMS_LIMIT {
        bail!("there are too many files for a backup that can be restored: collect images first");
    }
    sink.write(SUMS.as_ref(), sums.as_bytes())?;
    let about = About {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: chrono::Utc::now(),
        audit: head.to_string(),
        files: sink.files(),
        bytes: sink.bytes(),
        sums: Digest::of(sums.as_bytes()),
        with_key: key.is_some(),
    };
    sink.write(ABOUT.as_ref(), &serde_json::to_vec_pretty(&about)?)?;
    unfinished.finish(sink)?;
    told::result(&format!(
        "backed up to {} (files: {}, bytes: {})",
        to.display(),
        about.files,
        about.bytes
    ));
    told::result(&format!("the end of the audit log: {head}"));
    told::result(match key {
        Some(_) => "the key of the secrets is in it: whoever reads the backup reads the secrets",
        None => "the key of the secrets is not in it: without that key they cannot be read again",
    });
    if !images.lacking.is_empty() {
        bail!("{}", images.lacking.join("; "));
    }
    Ok(())
}

fn key(arguments: &BackupArgs) -> anyhow::Result<Option<PathBuf>> {
    if !arguments.with_key {
        return Ok(None);
    }
    let shared = arguments.database.shared(&arguments.data);
    let key = data_dir::secrets_key(shared);
    if !key.is_file() {
        bail!(
            "the key of the secrets is not in {}: keep it from where the server has it, and leave --with-key out",
            shared.display()
        );
    }
    Ok(Some(key))
}

/// The key's text, if it opens what is in the database: a wrong one would be noticed when it is too late.
fn checked(path: &Path, database: &Snapshot) -> anyhow::Result<SecretString> {
    let key = KeySource::File(path.to_owned()).existing()?;
    let sample = database.any_secret().context("cannot read the secrets")?;
    if !rekey::opens(&Vault::new(&key), sample.as_ref()) {
        bail!(
            "{} is not the key that the secrets were sealed with: keep that one from where the server has it, and leave \
             --with-key out",
            path.display()
        );
    }
    Ok(SecretString::from(format!(
        "{}\n",
        hex::encode(key.expose_secret())
    )))
}

/// What a backup takes of the registry.
#[derive(Default)]
struct Images {
    contents: BTreeSet<PathBuf>,
    links: BTreeSet<PathBuf>,
    /// What serves and is not in the registry any more.
    lacking: Vec<String>,
}

/// The files of the registry that the releases need. A release whose image was removed before has none, and one that
/// serves without its image keeps nobody else from being backed up.
fn images(snapshot: &Snapshot, store: &oci::Store) -> anyhow::Result<Images> {
    let mut images = Images::default();
    let mut seen = BTreeSet::new();
    for release in snapshot.releases()?.iter().filter(|r| r.is_needed()) {
        let repository: Repository = release.tenant.parse()?;
        for digest in release.images() {
            let digest: Digest = digest.parse()?;
            if !seen.insert((repository.clone(), digest)) && !release.live {
                continue;
            }
            match files_of(store, &repository, &digest) {
                Ok(Some(files)) => {
                    images.contents.extend(files.contents);
                    images.links.extend(files.links);
                }
                Ok(None) if release.live => images.lack(release, "is not in the registry"),
                Err(error) if release.live => images.lack(release, &chain(&error)),
                // It cannot be restored here either.
                Ok(None) | Err(_) => {}
            }
        }
    }
    Ok(images)
}

impl Images {
    fn lack(&mut self, release: &ReleaseUse, why: &str) {
        self.lacking.push(format!(
            "the image of deployment {} of tenant {:?}, which serves, is not in the backup ({why}): push it again, then \
             make another backup",
            release.newest, release.tenant
        ));
    }
}

/// With the links that its repository has lost.
fn files_of(
    store: &oci::Store,
    repository: &Repository,
    digest: &Digest,
) -> Result<Option<oci::Files>, oci::StoreError> {
    if !store.relink(repository, digest)? {
        return Ok(None);
    }
    store.files_of(repository, digest).map(Some)
}

/// An empty file for its owner only, before SQLite makes it otherwise.
fn create_private(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))
}

/// Removes a folder that is not needed any more.
pub(super) fn discard(folder: &Path) {
    // The error to tell is the one that made it useless.
    let _ = fs::remove_dir_all(folder);
}
