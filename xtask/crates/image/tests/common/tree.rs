//! What an image's layers unpack to, as rows that can be compared.

use std::collections::BTreeMap;
use std::io::Read;

use tar::EntryType;

/// Path and a line that says everything about what stands there but its time.
pub(crate) type Tree = BTreeMap<String, String>;

/// Lays one layer over `tree`.
pub(crate) fn apply(tree: &mut Tree, layer: impl Read) {
    for entry in tar::Archive::new(layer).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let path = path
            .trim_start_matches("./")
            .trim_end_matches('/')
            .to_owned();
        let name = path.rsplit('/').next().unwrap();
        if let Some(removed) = name.strip_prefix(".wh.") {
            let gone = path.replace(name, removed);
            tree.retain(|known, _| *known != gone && !known.starts_with(&format!("{gone}/")));
            continue;
        }
        if path.is_empty() {
            continue;
        }
        let row = row(&mut entry, tree);
        tree.insert(path, row);
    }
}

fn row(entry: &mut tar::Entry<'_, impl Read>, tree: &Tree) -> String {
    let header = entry.header().clone();
    let mode = header.mode().unwrap() & 0o7777;
    let owner = format!("{}:{}", header.uid().unwrap(), header.gid().unwrap());
    let link = entry
        .link_name_bytes()
        .map(|link| String::from_utf8_lossy(&link).into_owned());
    match header.entry_type() {
        EntryType::Directory => format!("directory {mode:o} {owner}"),
        EntryType::Symlink => format!("link {owner} -> {}", link.unwrap()),
        // A hard link is another name of a file: what counts is what is read there.
        EntryType::Link => tree[link.unwrap().trim_start_matches("./")].clone(),
        _ => {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            format!(
                "file {mode:o} {owner} {}",
                oci::Digest::of(&content).short()
            )
        }
    }
}

/// Files and the time of each, in seconds. Of directories nobody asks when they were made.
pub(crate) type Times = BTreeMap<String, u64>;

/// Notes the times of one layer's files.
pub(crate) fn note_times(times: &mut Times, layer: impl Read) {
    for entry in tar::Archive::new(layer).entries().unwrap() {
        let entry = entry.unwrap();
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if matches!(
            entry.header().entry_type(),
            EntryType::Regular | EntryType::Symlink
        ) {
            times.insert(path, entry.header().mtime().unwrap());
        }
    }
}

/// Every path at which two trees differ.
pub(crate) fn differences(ours: &Tree, theirs: &Tree) -> Vec<String> {
    let none = "nothing".to_owned();
    let paths: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let row = |path: &String| {
        let (left, right) = (
            ours.get(path).unwrap_or(&none),
            theirs.get(path).unwrap_or(&none),
        );
        (left != right).then(|| format!("{path}: ours {left}, docker's {right}"))
    };
    paths.into_iter().filter_map(row).collect()
}
