//! Keeping the local store small: the images made last keep their blobs, everything older goes, but for what another run has
//! just made and not sent yet. And what runs have left that were killed.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use oci::{Digest, Hold, ImageManifest, Store, StoreError};

/// How many images of each service are kept: enough to go back and forth between a few branches.
const KEPT: usize = 10;
/// No manifest of ours is longer.
const MANIFEST_LIMIT: u64 = 4 * 1024 * 1024;

/// The list of the images made last, in the cache folder.
const IMAGES: &str = "images";
/// How long another run may sweep.
const HOLD_LIMIT: Duration = Duration::from_mins(1);

/// A release whose blobs stay in the local store until they are sent, whatever other runs sweep meanwhile.
pub(crate) struct Held {
    cache_folder: PathBuf,
    hold: Hold,
    /// The images that were made for it.
    images: Vec<String>,
    /// What it has of images that are copied: those are in no list.
    copied: BTreeSet<Digest>,
    /// Whether it is another release than the last one.
    is_news: bool,
}

impl Held {
    /// Nothing of it is made yet. Waits for a sweep that is going on.
    pub(crate) fn begin(cache_folder: PathBuf, store: &Store) -> Result<Self, StoreError> {
        Ok(Self {
            cache_folder,
            hold: store.hold(HOLD_LIMIT)?,
            images: Vec::new(),
            copied: BTreeSet::new(),
            is_news: false,
        })
    }

    pub(crate) fn made(&mut self, image: &Digest) {
        self.images.push(image.to_string());
    }

    pub(crate) fn copied(&mut self, image: &ImageManifest) {
        self.copied.extend(image.blobs().map(|blob| blob.digest));
    }

    /// Notes its images as the newest.
    pub(crate) fn note(&mut self) {
        self.is_news = note(&self.cache_folder, &self.images).unwrap_or(false);
    }

    /// Once everything is sent: removes what the images noted last do not use. A store that cannot be swept, because of what another
    /// run has in it for instance, only grows: no error is worth a deployment.
    pub(crate) fn sweep(self) {
        drop(self.hold);
        if self.is_news {
            let _ = sweep(&self.cache_folder, self.copied);
        }
    }
}

/// Whether that is news.
fn note(cache_folder: &Path, images: &[String]) -> io::Result<bool> {
    let list = cache_folder.join(IMAGES);
    // Other runs note theirs.
    let lock = File::create(list.with_extension("lock"))?;
    lock.lock()?;
    let text = fs::read_to_string(&list).unwrap_or_default();
    let known: Vec<&str> = text.lines().collect();
    let mut newest: Vec<&str> = Vec::new();
    for digest in images {
        if !newest.contains(&digest.as_str()) {
            newest.push(digest);
        }
    }
    if known.starts_with(&newest) {
        return Ok(false);
    }
    let others = known.iter().filter(|other| !newest.contains(other));
    let recent = newest.iter().chain(others).copied();
    let recent: Vec<&str> = recent.take(KEPT * newest.len()).collect();
    deploy_config::replace_file(&list, recent.join("\n").as_bytes(), 0o644)?;
    Ok(true)
}

fn sweep(cache_folder: &Path, copied: BTreeSet<Digest>) -> io::Result<()> {
    let store = Store::open(cache_folder.join("oci")).map_err(io::Error::other)?;
    let _alone = store.collecting().map_err(io::Error::other)?;
    let recent = fs::read_to_string(cache_folder.join(IMAGES))?;
    let mut used = used(&store, recent.lines());
    used.extend(copied);
    let contents = store.contents().map_err(io::Error::other)?;
    for blob in contents.iter().filter(|blob| !used.contains(blob)) {
        store.remove(blob).map_err(io::Error::other)?;
    }
    Ok(())
}

/// The blobs of the images named. An image that cannot be read uses nothing that could be saved.
fn used<'a>(store: &Store, images: impl Iterator<Item = &'a str>) -> BTreeSet<Digest> {
    let mut used = BTreeSet::new();
    for digest in images.filter_map(|text| text.parse::<Digest>().ok()) {
        used.insert(digest);
        let manifest = store.read_small(&digest, MANIFEST_LIMIT).ok();
        if let Some(manifest) = manifest.and_then(|bytes| ImageManifest::from_slice(&bytes).ok()) {
            used.extend(manifest.blobs().map(|blob| blob.digest));
        }
    }
    used
}

/// Folders below `.systemprompt` in which something is written under another name first.
const WRITTEN: [&str; 7] = [
    "",
    "cache",
    "cache/bases/facts",
    "cache/bases/tmp",
    "cache/oci/tmp",
    "local",
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

/// The process in the name of a file that is not finished: `cache.json.0.12.new`, `x.new.12`, `layer-12-0`,
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
                format!("deploy.lock.0.{pid}.new"),
                format!("credentials.json.0.{pid}.new"),
                format!("cache/layers.{pid}.new"),
                format!("cache/docker.tar.{pid}.new"),
                format!("local/listen.0.{pid}.new"),
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
            let mut held = Held::begin(folder.path().to_owned(), &store).unwrap();
            held.made(&digest);
            held.note();
            held.sweep();
            first.get_or_insert((own, digest));
        }
        let (own, manifest) = first.unwrap();
        assert!(!store.contains(&own) && !store.contains(&manifest));
        assert!(store.contains(&shared));
    }

    #[test]
    fn what_another_run_has_made_stays_until_it_is_sent() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("oci")).unwrap();
        let begin = || Held::begin(folder.path().to_owned(), &store).unwrap();
        let release = |text: &str| {
            let config = Descriptor::of("application/octet-stream", text.as_bytes());
            let layer = store.put_bytes(text.as_bytes()).unwrap();
            let manifest = ImageManifest::new(config, Vec::new()).to_vec();
            (layer, store.put_bytes(&manifest).unwrap())
        };
        let deploy = |image: &Digest| {
            let mut held = begin();
            held.made(image);
            held.note();
            held.sweep();
        };
        let mut other = begin();
        let (layer, image) = release("other");
        let copied = store.put_bytes(b"copied").unwrap();
        let layers = vec![Descriptor::of("application/octet-stream", b"copied")];
        let config = Descriptor::of("application/octet-stream", b"{}");
        other.copied(&ImageManifest::new(config, layers));
        let (_, first) = release("first");
        deploy(&first);
        assert!(store.contains(&layer) && store.contains(&copied));
        other.made(&image);
        other.note();
        other.sweep();
        assert!(store.contains(&layer) && store.contains(&copied));
        let (_, second) = release("second");
        deploy(&second);
        assert!(store.contains(&layer) && !store.contains(&copied));
    }

    #[test]
    fn images_that_are_noted_at_once_are_all_noted() {
        let folder = tempfile::tempdir().unwrap();
        let images: Vec<String> = (0..KEPT).map(|number| format!("image {number}")).collect();
        std::thread::scope(|scope| {
            for image in &images {
                scope.spawn(|| note(folder.path(), std::slice::from_ref(image)).unwrap());
            }
        });
        let noted = fs::read_to_string(folder.path().join(IMAGES)).unwrap();
        let mut noted: Vec<&str> = noted.lines().collect();
        noted.sort_unstable();
        assert_eq!(noted, images);
    }
}
