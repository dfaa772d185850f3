//! Layers, mutated: unpacked or refused, and whatever is in them, nothing outside of the image's
//! folder changes and no device appears in it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use fuzzing::fuzz_cases;
use tar::{Builder, EntryType, Header};

use super::{Limits, Rules, Unpacker};

const LIMITS: Limits = Limits {
    entries: 50,
    file_bytes: 4096,
    total_bytes: 64 * 1024,
};
/// Each makes and removes a dozen files.
const CASES: u32 = 300;
const WORDS: &[&str] = &[
    "../",
    "../../outside",
    "/",
    "./",
    ".wh.",
    ".wh..wh..opq",
    "a/b/",
    "\0",
    "ustar\0",
    "ustar  \0",
    "0000777\0",
    "up/x",
    "hard",
];

/// One entry by its kind, its name, what it points at and its content.
type Item<'a> = (EntryType, &'a str, &'a str, &'a [u8]);

fn layer(items: &[Item<'_>]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (kind, path, target, content) in items {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o4755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        // Past the checks of the builder: hostile archives are made by hand.
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        let link = &mut header.as_old_mut().linkname;
        link[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        archive.append(&header, *content).unwrap();
    }
    archive.into_inner().unwrap()
}

fn seeds() -> Vec<Vec<u8>> {
    use EntryType as Is;
    let plain: &[Item<'_>] = &[
        (Is::Directory, "a/", "", b""),
        (Is::Regular, "a/file", "", b"content"),
        (Is::Symlink, "a/link", "file", b""),
        (Is::Link, "a/hard", "a/file", b""),
        (Is::Fifo, "a/pipe", "", b""),
    ];
    let hiding: &[Item<'_>] = &[
        (Is::Regular, "a/.wh.file", "", b""),
        (Is::Regular, "b/.wh..wh..opq", "", b""),
        (Is::Regular, ".wh.a", "", b""),
    ];
    let hostile: &[Item<'_>] = &[
        (Is::Symlink, "up", "../..", b""),
        (Is::Regular, "up/outside", "", b"x"),
        (Is::Symlink, "abs", "/", b""),
        (Is::Directory, "abs/tmp/", "", b""),
        (Is::Link, "stolen", "up/outside", b""),
        (Is::Link, "abs/stolen", "../outside", b""),
    ];
    let devices: &[Item<'_>] = &[
        (Is::Char, "null", "", b""),
        (Is::Block, "disk", "", b""),
        (Is::XGlobalHeader, "g", "", b"9 a=b\n"),
        (Is::XHeader, "x", "", b"18 path=../outsid\n"),
        (Is::Regular, "y", "", b"z"),
    ];
    let long: &[Item<'_>] = &[
        (Is::GNULongName, "././@LongLink", "", b"../../outside\0"),
        (Is::Regular, "short", "", b"z"),
        (Is::GNULongLink, "././@LongLink", "", b"/etc/passwd\0"),
        (Is::Symlink, "etc", "x", b""),
        (Is::Regular, "etc", "", b"z"),
    ];
    [plain, hiding, hostile, devices, long].map(layer).into()
}

#[test]
fn fuzz_layers() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    fs::write(&outside, "untouched").unwrap();
    let before = fs::metadata(&outside).unwrap();
    let base = layer(&[
        (EntryType::Regular, "a/file", "", b"old"),
        (EntryType::Symlink, "up", "../..", b""),
        (EntryType::Directory, "b/c/", "", b""),
    ]);
    let root = folder.path().join("image/root");
    fuzz_cases(CASES, &seeds(), WORDS, |bytes| {
        let bytes = &checked(bytes);
        fs::create_dir_all(&root).unwrap();
        let rules = Rules {
            keep_owners: false,
            limits: LIMITS,
        };
        let mut unpacker = Unpacker::new(&root, rules);
        unpacker.layer(base.as_slice(), &mut None).unwrap();
        if unpacker.layer(bytes.as_slice(), &mut None).is_ok() {
            let written = unpacker.finish().unwrap_or(0);
            assert!(written <= LIMITS.total_bytes);
        }
        check_tree(&root);
        crate::process::tree::remove(folder.path().join("image").as_path()).unwrap();
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        let now = fs::metadata(&outside).unwrap();
        assert_eq!(fs::read(&outside).unwrap(), b"untouched");
        assert_eq!(
            (now.nlink(), now.mode(), now.mtime()),
            (1, before.mode(), before.mtime())
        );
    });
}

/// The same with right check sums: a reader that stops at a wrong one sees nothing of the rest.
fn checked(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            let mut header = Header::new_old();
            header.as_mut_bytes().copy_from_slice(block);
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
    bytes
}

/// No device, and no file that is known by a name outside, too.
fn check_tree(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let found = path.symlink_metadata().unwrap();
        let kind = found.file_type();
        assert!(
            !kind.is_char_device() && !kind.is_block_device(),
            "{path:?}"
        );
        assert_eq!(found.mode() & 0o4000, 0, "{path:?}");
        if kind.is_dir() {
            check_tree(&path);
        }
    }
}
