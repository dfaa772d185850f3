//! Layers read back by readers that are not ours.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use proptest::prelude::*;

use super::tar::{Metadata, TarWriter};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Directory,
    File(Vec<u8>),
    Link(Vec<u8>),
}

type Items = BTreeMap<Vec<u8>, (Item, u32, u32)>;

fn path(bytes: &[u8]) -> PathBuf {
    OsString::from_vec(bytes.to_vec()).into()
}

fn archive(items: &Items) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for (name, (item, mode, user)) in items {
        let metadata = Metadata {
            mode: *mode,
            user: *user,
            group: user / 2,
            modified: 1,
        };
        match item {
            Item::Directory => writer.directory(&path(name), metadata),
            Item::File(bytes) => writer.file(
                &path(name),
                metadata,
                bytes.len() as u64,
                &mut bytes.as_slice(),
            ),
            Item::Link(target) => writer.symlink(&path(name), &path(target), metadata),
        }
        .unwrap();
    }
    writer.finish().unwrap()
}

fn read_back(bytes: &[u8]) -> Items {
    let mut archive = ::tar::Archive::new(bytes);
    let mut items = Items::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut name = entry.path_bytes().into_owned();
        let item = match entry.header().entry_type() {
            ::tar::EntryType::Directory => {
                assert_eq!(name.pop(), Some(b'/'));
                Item::Directory
            }
            ::tar::EntryType::Symlink => Item::Link(entry.link_name_bytes().unwrap().into_owned()),
            _ => {
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                Item::File(content)
            }
        };
        let (mode, user) = (
            entry.header().mode().unwrap(),
            entry.header().uid().unwrap(),
        );
        assert_eq!(entry.header().mtime().unwrap(), 1);
        items.insert(name, (item, mode, u32::try_from(user).unwrap()));
    }
    items
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        6 => "[a-zA-Z0-9._ -]{1,12}".prop_map(String::into_bytes),
        2 => "[a-z]{90,130}".prop_map(String::into_bytes),
        1 => "[äöüß日本]{1,40}".prop_map(String::into_bytes),
        1 => prop::collection::vec(0x80_u8..=0xff, 1..20),
    ];
    let usable = |part: &Vec<u8>| part != b"." && part != b"..";
    prop::collection::vec(part.prop_filter("a name", usable), 1..5)
        .prop_map(|parts| parts.join(&b'/'))
}

fn item() -> impl Strategy<Value = Item> {
    prop_oneof![
        Just(Item::Directory),
        prop::collection::vec(any::<u8>(), 0..1500).prop_map(Item::File),
        name().prop_map(Item::Link),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        items in prop::collection::btree_map(name(), (item(), 0_u32..0o10000, 0_u32..0o7_777_777), 0..12)
    ) {
        let bytes = archive(&items);
        prop_assert_eq!(bytes.len() % 512, 0);
        prop_assert_eq!(&bytes, &archive(&items));
        prop_assert_eq!(read_back(&bytes), items);
    }
}

#[test]
fn numbers_too_large_for_octal_go_into_pax_records() {
    let mut writer = TarWriter::new(Vec::new());
    let metadata = Metadata {
        mode: 0o644,
        user: 4_000_000_000,
        group: 3_000_000_000,
        modified: 1,
    };
    writer
        .file(&path(b"x"), metadata, 1, &mut b"x".as_slice())
        .unwrap();
    let bytes = writer.finish().unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(
        text.contains("18 gid=3000000000\n18 uid=4000000000\n"),
        "{text}"
    );
}

#[test]
fn a_file_over_eight_gibibytes_has_its_size_in_a_pax_record() {
    const SIZE: u64 = 9 * 1024 * 1024 * 1024;
    /// Takes everything and keeps the beginning.
    struct Head(Vec<u8>, u64);
    impl std::io::Write for Head {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.1 += bytes.len() as u64;
            if self.0.len() < 4096 {
                self.0.extend_from_slice(bytes);
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut writer = TarWriter::new(Head(Vec::new(), 0));
    let metadata = Metadata {
        mode: 0o644,
        user: 0,
        group: 0,
        modified: 1,
    };
    let mut content = std::io::repeat(0).take(SIZE);
    writer
        .file(&path(b"large"), metadata, SIZE, &mut content)
        .unwrap();
    let head = writer.finish().unwrap();
    assert_eq!(head.1, 512 * 3 + SIZE + 1024);
    assert!(String::from_utf8_lossy(&head.0).contains("19 size=9663676416\n"));
    let mut archive = ::tar::Archive::new(head.0.as_slice());
    let entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!(entry.size(), SIZE);
}

#[test]
fn a_file_that_changes_its_length_is_an_error() {
    for content in [b"longer".as_slice(), b"s".as_slice()] {
        let mut writer = TarWriter::new(Vec::new());
        let metadata = Metadata {
            mode: 0o644,
            user: 0,
            group: 0,
            modified: 1,
        };
        assert!(
            writer
                .file(&path(b"x"), metadata, 3, &mut { content })
                .is_err()
        );
    }
}

/// Components that are neither Rust nor coreutils.
mod real_tar {
    use super::*;

    #[test]
    fn gnu_tar_reads_it() {
        let long = [b"d/".to_vec(), vec![b'n'; 180]].concat();
        let items = Items::from([
            (b"d".to_vec(), (Item::Directory, 0o755, 0)),
            (long.clone(), (Item::File(b"content".to_vec()), 0o755, 1000)),
            (
                "d/ü".as_bytes().to_vec(),
                (Item::Link(b"x".to_vec()), 0o777, 0),
            ),
            (b"d/\xff".to_vec(), (Item::File(Vec::new()), 0o644, 0)),
        ]);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.tar");
        std::fs::write(&file, archive(&items)).unwrap();
        let out = folder.path().join("out");
        std::fs::create_dir(&out).unwrap();
        let status = std::process::Command::new("tar")
            .args(["--no-same-owner", "-xf"])
            .arg(&file)
            .arg("-C")
            .arg(&out)
            .env("LC_ALL", "C.UTF-8")
            .status();
        let status = status.expect("GNU tar is missing: run `cargo xtask test --setup`");
        assert!(status.success());
        assert_eq!(std::fs::read(out.join(path(&long))).unwrap(), b"content");
        assert_eq!(std::fs::read_link(out.join("d/ü")).unwrap(), path(b"x"));
        assert!(out.join(path(b"d/\xff")).is_file());
    }
}
