//! Making a backup, of a server that may run.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use oci::{Digest, Repository};

use super::sink::Unfinished;
use super::{ABOUT, About, DATABASE, FORMAT, KEY, REGISTRY};
use crate::cli::BackupArgs;
use crate::data_dir;
use crate::store::Snapshot;
use crate::verify;

/// For a collection that is going on.
const HOLD_LIMIT: Duration = Duration::from_mins(1);

/// Writes beside the place of the backup, and moves there what is whole.
#[expect(clippy::print_stdout, reason = "the result of a command")]
pub(crate) fn make(arguments: &BackupArgs) -> anyhow::Result<()> {
    let (data, to) = (&arguments.data, &arguments.to);
    let database = verify::open(data)?;
    let key = key(arguments)?;
    let store = oci::Store::existing(data_dir::registry(data))
        .with_context(|| format!("{} holds no registry", data.display()))?;
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
    drop(copied);

    let mut sink = unfinished.sink()?;
    sink.take(DATABASE.as_ref(), &copy)?;
    for path in &images {
        let place = Path::new(REGISTRY).join(path);
        sink.copy(&place, &store.root().join(path))?;
    }
    if let Some(key) = &key {
        sink.copy(KEY.as_ref(), key)?;
    }
    let about = About {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: chrono::Utc::now(),
        audit: head.to_string(),
        files: sink.files(),
        bytes: sink.bytes(),
        with_key: key.is_some(),
    };
    sink.write(ABOUT.as_ref(), &serde_json::to_vec_pretty(&about)?)?;
    unfinished.finish(sink)?;
    println!(
        "backed up to {} (files: {}, bytes: {})",
        to.display(),
        about.files,
        about.bytes
    );
    println!("the end of the audit log: {head}");
    println!(
        "{}",
        match key {
            Some(_) =>
                "the key of the secrets is in it: whoever reads the backup reads the secrets",
            None =>
                "the key of the secrets is not in it: without that key they cannot be read again",
        }
    );
    Ok(())
}

fn key(arguments: &BackupArgs) -> anyhow::Result<Option<PathBuf>> {
    if !arguments.with_key {
        return Ok(None);
    }
    let key = data_dir::secrets_key(&arguments.data);
    if !key.is_file() {
        bail!(
            "the key of the secrets is not in {}: keep it from where the server has it, and leave --with-key out",
            arguments.data.display()
        );
    }
    Ok(Some(key))
}

/// The files of the registry that the releases need, content first: what is cut off has no link that leads nowhere.
/// A release whose image was removed before has none.
fn images(snapshot: &Snapshot, store: &oci::Store) -> anyhow::Result<Vec<PathBuf>> {
    let (mut contents, mut links) = (BTreeSet::new(), BTreeSet::new());
    let mut seen = BTreeSet::new();
    for release in snapshot.releases()? {
        let repository: Repository = release.tenant.parse()?;
        let digest: Digest = release.digest.parse()?;
        let is_there = store.manifest_media_type(&repository, &digest)?.is_some();
        if is_there && seen.insert((repository.clone(), digest)) {
            let files = store.files_of(&repository, &digest)?;
            contents.extend(files.contents);
            links.extend(files.links);
        } else if release.live && !is_there {
            bail!(
                "the image of deployment {} of tenant {:?}, which serves, is not in the registry: push it again",
                release.newest,
                release.tenant
            );
        }
    }
    Ok(contents.into_iter().chain(links).collect())
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
