//! Any tree of files, as GNU tar takes it out of its layer.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod common;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::Project;
use deploy_image::{Cache, Compression, Dockerfile, NoImages, Options, assemble, plan};
use proptest::collection::vec;
use proptest::prelude::*;

/// Something to put into a tree.
#[derive(Debug, Clone)]
enum Thing {
    File {
        content: Vec<u8>,
        executable: bool,
    },
    /// With holes before and after the content.
    Sparse {
        before: u64,
        content: Vec<u8>,
        after: u64,
    },
    Folder,
    Link(OsString),
}

/// What a tree has under a path: the kind, what is in it, whether it may be run.
type Tree = BTreeMap<PathBuf, (char, Vec<u8>, bool)>;

/// A name as file systems allow it: any bytes, up to 255 of them.
fn name() -> impl Strategy<Value = OsString> {
    let byte = prop_oneof![8 => 0x61_u8..=0x7a, 1 => 1_u8..=255];
    let length = prop_oneof![6 => 1_usize..12, 1 => 90_usize..=255];
    length
        .prop_flat_map(move |length| vec(byte.clone(), length))
        .prop_map(|bytes| {
            bytes
                .into_iter()
                .map(|b| if b == b'/' { b'_' } else { b })
                .collect::<Vec<u8>>()
        })
        .prop_filter("not a name", |bytes| {
            bytes.as_slice() != b"." && bytes.as_slice() != b".."
        })
        .prop_map(OsString::from_vec)
}

fn thing() -> impl Strategy<Value = Thing> {
    // Around the block size of the format, where its padding begins and ends.
    let length = prop_oneof![
        Just(0),
        Just(1),
        Just(511),
        Just(512),
        Just(513),
        0_usize..5000
    ];
    let content = length
        .prop_flat_map(|length| vec(any::<u8>(), length))
        .boxed();
    let target = prop_oneof![vec(1_u8..=255, 1..40), vec(0x61_u8..=0x7a, 90..300)];
    prop_oneof![
        4 => (content.clone(), any::<bool>()).prop_map(|(content, executable)| Thing::File { content, executable }),
        1 => (0_u64..200_000, content, 0_u64..200_000).prop_map(|(before, content, after)| Thing::Sparse { before, content, after }),
        1 => Just(Thing::Folder),
        2 => target.prop_map(|bytes| Thing::Link(OsString::from_vec(bytes))),
    ]
}

fn put(path: &Path, thing: &Thing) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match thing {
        Thing::File {
            content,
            executable,
        } => {
            fs::write(path, content)?;
            let mode = if *executable { 0o755 } else { 0o644 };
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
        }
        Thing::Sparse {
            before,
            content,
            after,
        } => {
            let mut file = fs::File::create(path)?;
            file.seek(SeekFrom::Start(*before))?;
            file.write_all(content)?;
            file.set_len(before + content.len() as u64 + after)
        }
        Thing::Folder => fs::create_dir_all(path),
        Thing::Link(target) => std::os::unix::fs::symlink(target, path),
    }
}

fn tree(root: &Path) -> Tree {
    let entries = walkdir::WalkDir::new(root).min_depth(1);
    entries
        .into_iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let metadata = entry.metadata().unwrap();
            let path = entry.path().strip_prefix(root).unwrap().to_owned();
            let (kind, content) = if metadata.is_dir() {
                ('d', Vec::new())
            } else if metadata.is_symlink() {
                (
                    'l',
                    fs::read_link(entry.path())
                        .unwrap()
                        .into_os_string()
                        .into_vec(),
                )
            } else {
                ('f', fs::read(entry.path()).unwrap())
            };
            let executable = kind == 'f' && metadata.mode() & 0o100 != 0;
            (path, (kind, content, executable))
        })
        .collect()
}

/// The layer of `COPY data /data`, as tar takes it out.
fn through_tar(project: &Project) -> Tree {
    let dockerfile = Dockerfile::parse("Dockerfile", "FROM scratch\nCOPY data /data\n").unwrap();
    let options = Options {
        compression: Compression::None,
        ..Options::default()
    };
    let plan = plan(&dockerfile, &project.context(), &options, &NoImages).unwrap();
    let mut cache = Cache::open(project.path("layers.json"));
    let image = assemble(&plan, &project.store(), &mut cache).unwrap();
    let out = project.path("out");
    fs::create_dir(&out).unwrap();
    for layer in &image.layers {
        let mut bytes = Vec::new();
        let source = &image.sources[&layer.digest];
        source.open_at(0).unwrap().read_to_end(&mut bytes).unwrap();
        let archive = project.path("layer.tar");
        fs::write(&archive, bytes).unwrap();
        extract(&archive, &out);
    }
    tree(&out.join("data"))
}

/// It does not know `hdrcharset`, by which POSIX says that a name is not UTF-8, and takes the bytes as they are.
fn extract(archive: &Path, folder: &Path) {
    let output = Command::new("tar")
        .args([
            OsStr::new("-xf"),
            archive.as_os_str(),
            OsStr::new("-C"),
            folder.as_os_str(),
        ])
        .args([
            "--no-same-owner",
            "--warning=no-timestamp",
            "--warning=no-unknown-keyword",
        ])
        .output()
        .unwrap_or_else(|_| panic!("tar is missing: run `cargo xtask test --setup`"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tar_takes_out_what_was_put_in(things in vec((vec(name(), 1..4), thing()), 0..12)) {
        let project = Project::new();
        let data = project.root().join("data");
        fs::create_dir(&data).unwrap();
        for (path, thing) in &things {
            let path = data.join(path.iter().collect::<PathBuf>());
            // Two things that want the same place: the first one has it.
            if !path.as_os_str().as_bytes().is_empty() && fs::symlink_metadata(&path).is_err() {
                let _ = put(&path, thing);
            }
        }
        project.age();
        let before = tree(&data);
        prop_assert_eq!(through_tar(&project), before);
    }
}

/// Two names of one file are one file in the image, or two with the same content.
#[test]
fn hard_links_come_out_whole() {
    let project = Project::new();
    let data = project.root().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("one"), "the content").unwrap();
    fs::hard_link(data.join("one"), data.join("two")).unwrap();
    project.age();
    assert_eq!(through_tar(&project), tree(&data));
}
