//! Keeping the local store small: the images made last keep their blobs, everything older goes. And what runs have left that were
//! killed.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oci::{Digest, ImageManifest, Store};

/// How many images of each service are kept: enough to go back and forth between a few branches.
const KEPT: usize = 10;
/// No manifest of ours is longer.
const MANIFEST_LIMIT: u64 = 4 * 1024 * 1024;

/// Notes the images of a release as the newest and removes what the last ones do not use. A store that cannot be
/// swept only grows: no error is worth a deployment.
pub(crate) fn keep_recent(cache_folder: &Path, digests: &[String]) {
    let _ = sweep(cache_folder, digests);
}

fn sweep(cache_folder: &Path, digests: &[String]) -> io::Result<()> {
    let list = cache_folder.join("images");
    let text = fs::read_to_string(&list).unwrap_or_default();
    let known: Vec<&str> = text.lines().collect();
    let mut newest: Vec<&str> = Vec::new();
    for digest in digests {
        if !newest.contains(&digest.as_str()) {
            newest.push(digest);
        }
    }
    if known.starts_with(&newest) {
        return Ok(());
    }
    let others = known.iter().filter(|other| !newest.contains(other));
    let recent: Vec<&str> = newest
        .iter()
        .chain(others)
        .copied()
        .take(KEPT * newest.len())
        .collect();
    let coming = cache_folder.join("images.new");
    fs::write(&coming, recent.join("\n"))?;
    fs::rename(&coming, &list)?;
    let store = Store::open(cache_folder.join("oci")).map_err(io::Error::other)?;
    let used = used(&store, &recent);
    let contents = store.contents().map_err(io::Error::other)?;
    for blob in contents.iter().filter(|blob| !used.contains(blob)) {
        store.remove(blob).map_err(io::Error::other)?;
    }
    Ok(())
}

/// The blobs of the images named. An image that cannot be read uses nothing that could be saved.
fn used(store: &Store, images: &[&str]) -> BTreeSet<Digest> {
    let mut used = BTreeSet::new();
    for digest in images.iter().filter_map(|text| text.parse::<Digest>().ok()) {
        used.insert(digest);
        let manifest = store.read_small(&digest, MANIFEST_LIMIT).ok();
        if let Some(manifest) = manifest.and_then(|bytes| ImageManifest::from_slice(&bytes).ok()) {
            used.extend(manifest.blobs().map(|blob| blob.digest));
        }
    }
    used
}

/// Folders below `.systemprompt` in which something is written under another name first.
const WRITTEN: [&str; 6] = [
    "",
    "cache",
    "cache/bases/facts",
    "cache/bases/tmp",
    "cache/oci/tmp",
    "local/registry/tmp",
];

/// Removes files of runs that were killed while they wrote them: each is named after its process. What cannot be removed is
/// left to the next run.
pub(crate) fn abandoned(state: &Path) {
    let own = WRITTEN.map(|folder| state.join(folder));
    // There are credentials in these.
    let temporary = std::env::temp_dir();
    for folder in own.iter().chain([&temporary]) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        for entry in entries {
            let name = entry.file_name();
            let is_ours =
                *folder != temporary || name.to_string_lossy().starts_with(crate::docker::FOLDER);
            let writer = name.to_str().and_then(writer_of);
            if is_ours && writer.is_some_and(is_gone) {
                let path = entry.path();
                let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
            }
        }
    }
}

/// The process in the name of a file that is not finished: `cache.json.12.new`, `deploy.lock.12`, `x.new.12`, `layer-12-0`,
/// `12-0-99` of a store.
fn writer_of(name: &str) -> Option<Pid> {
    let numbers = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let before_new = name
        .strip_suffix(".new")
        .and_then(|rest| rest.rsplit('.').next());
    let behind = |mark: &str| name.rsplit_once(mark).map(|(_, pid)| pid);
    let prefixed = ["look-", "layer-", crate::docker::FOLDER].iter();
    let mut prefixed = prefixed.filter_map(|prefix| name.strip_prefix(prefix));
    let in_store = || {
        let parts: Vec<&str> = name.split('-').collect();
        (parts.len() == 3 && parts.iter().all(|part| numbers(part))).then(|| parts[0])
    };
    let pid = before_new
        .or_else(|| behind(".lock."))
        .or_else(|| behind(".new."))
        .or_else(|| prefixed.next().and_then(|rest| rest.split('-').next()))
        .or_else(in_store)?;
    pid.parse().ok().map(Pid::from_raw)
}

/// Whether no process of this machine has the number.
pub(crate) fn is_gone(process: Pid) -> bool {
    process.as_raw() > 0 && kill(process, None::<Signal>) == Err(Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_killed_runs_have_left_goes_and_nothing_else() {
        let state = tempfile::tempdir().unwrap();
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let (dead, own) = (ended.id(), std::process::id());
        let names = |pid: u32| {
            [
                format!("deploy.lock.{pid}"),
                format!("credentials.json.{pid}.new"),
                format!("cache/layers.{pid}.new"),
                format!("cache/bases/facts/ab.new.{pid}"),
                format!("cache/bases/tmp/look-{pid}-0"),
                format!("cache/oci/tmp/{pid}-0-1234567"),
                format!("local/registry/tmp/{pid}-3-1234567"),
            ]
        };
        let kept = [
            "deploy.lock",
            "deploy.toml",
            "cache/layers.json",
            "cache/images.new",
        ];
        let kept = kept.map(str::to_owned).into_iter().chain(names(own));
        let kept: Vec<String> = kept.collect();
        for name in kept.iter().chain(&names(dead)) {
            let path = state.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        abandoned(state.path());
        for name in names(dead) {
            assert!(!state.path().join(&name).exists(), "{name}");
        }
        for name in kept {
            assert!(state.path().join(&name).exists(), "{name}");
        }
    }
    use oci::Descriptor;

    #[test]
    fn old_images_go_and_shared_blobs_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("oci")).unwrap();
        let put = |text: &str| {
            let digest = store.put_bytes(text.as_bytes()).unwrap();
            (
                digest,
                Descriptor::of("application/octet-stream", text.as_bytes()),
            )
        };
        let (shared, shared_layer) = put("shared");
        let mut first = None;
        for number in 0..=KEPT {
            let (own, layer) = put(&format!("own {number}"));
            let (_, config) = put(&format!("config {number}"));
            let manifest = ImageManifest::new(config, vec![shared_layer.clone(), layer]).to_vec();
            let digest = store.put_bytes(&manifest).unwrap();
            keep_recent(folder.path(), &[digest.to_string()]);
            first.get_or_insert((own, digest));
        }
        let (own, manifest) = first.unwrap();
        assert!(!store.contains(&own) && !store.contains(&manifest));
        assert!(store.contains(&shared));
    }
}
