//! `systemprompt verify`: whether the audit log is whole, and whether what serves could be started again.
//!
//! It only reads, whether a server runs on the folder or not.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use oci::{Digest, Repository};

use crate::cli::{DatabaseArgs, VerifyArgs};
use crate::data_dir;
use crate::store::{DeploymentRow, Snapshot};
use crate::told;

/// For a collection that is going on.
const HOLD_LIMIT: Duration = Duration::from_mins(1);

/// What was looked at.
#[derive(Default)]
struct Images {
    live: usize,
    blobs: usize,
    bytes: u64,
}

/// Prints what is whole; the first thing that is not is the error.
pub(crate) fn run(arguments: &VerifyArgs) -> anyhow::Result<()> {
    let data = &arguments.data;
    let snapshot = open(data, &arguments.database)?;
    let head = snapshot.check_chain(arguments.expect)?;
    told::result(&format!("the audit log is whole (rows: {})", head.count));
    told::result(&format!("its end: {head}"));
    let images = check_images(
        &snapshot,
        &data_dir::registry(arguments.database.shared(data)),
    )?;
    told::result(&format!(
        "the images of what serves are whole (releases: {}, blobs: {}, bytes: {})",
        images.live, images.blobs, images.bytes
    ));
    told::result("keep the end elsewhere: with --expect it tells later whether rows were cut off");
    Ok(())
}

/// The database of a data folder, or the one that is named.
pub(crate) fn open(data: &Path, database: &DatabaseArgs) -> anyhow::Result<Snapshot> {
    if let Some(server) = database.server()? {
        return Snapshot::connect(&server).context("cannot read the state database");
    }
    let database = data_dir::database(data);
    if !database.is_file() {
        bail!(
            "{} holds no state of a server: give its folder with --data",
            data.display()
        );
    }
    Snapshot::open(&database).context("cannot read the state database")
}

/// Hashes everything that it takes to start what serves.
fn check_images(snapshot: &Snapshot, registry: &Path) -> anyhow::Result<Images> {
    let Some(store) = oci::Store::existing(registry) else {
        let serves = snapshot.live()?.into_iter().next();
        if let Some(row) = serves {
            bail!(
                "{} holds no images, and tenant {:?} serves",
                registry.display(),
                row.tenant
            );
        }
        return Ok(Images::default());
    };
    let _hold = store.hold(HOLD_LIMIT)?;
    let live = snapshot.live()?;
    let mut seen = BTreeSet::new();
    for row in &live {
        let asked = snapshot.audited_release(row)?;
        if asked.is_some_and(|release| release != row.capsule.fingerprint()) {
            bail!(
                "the release of deployment {} of tenant {:?}, which serves, is not the one that was asked for: the state \
                 database was changed",
                row.number,
                row.tenant
            );
        }
        check_image(&store, row, &mut seen).with_context(|| {
            format!(
                "the image of deployment {} of tenant {:?}, which serves, is not whole: push {} again",
                row.number, row.tenant, row.image
            )
        })?;
    }
    let sizes = seen.iter().map(|digest| store.size(digest));
    Ok(Images {
        live: live.len(),
        blobs: seen.len(),
        bytes: sizes.sum::<Result<u64, _>>()?,
    })
}

fn check_image(
    store: &oci::Store,
    row: &DeploymentRow,
    seen: &mut BTreeSet<Digest>,
) -> anyhow::Result<()> {
    let repository: Repository = row.tenant.parse()?;
    for digest in row.capsule.digests() {
        let parts = store.parts(&repository, &digest.parse()?)?;
        for digest in parts.manifests.into_iter().chain(parts.blobs) {
            if seen.insert(digest) {
                store.verify(&digest)?;
            }
        }
    }
    Ok(())
}
