//! Layers written by the `tar` library, with libraries made by the C compiler of this machine.

use std::io::Write as _;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use super::*;

enum Node<'a> {
    File(&'a [u8]),
    Link(&'a str),
    Hard(&'a str),
    Folder,
}

fn layer(nodes: &[(&str, Node<'_>)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (path, node) in nodes {
        let mut header = Header::new_gnu();
        header.set_size(0);
        match node {
            Node::File(content) => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, path, *content).unwrap();
            }
            Node::Link(target) => {
                header.set_entry_type(EntryType::Symlink);
                builder.append_link(&mut header, path, target).unwrap();
            }
            Node::Hard(target) => {
                header.set_entry_type(EntryType::Link);
                builder.append_link(&mut header, path, target).unwrap();
            }
            Node::Folder => {
                header.set_entry_type(EntryType::Directory);
                builder.append_data(&mut header, path, &b""[..]).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

/// A shared library that offers these versions.
fn library(versions: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("lib.c"), "int answer(void) { return 42; }\n").unwrap();
    let script: String = versions
        .iter()
        .enumerate()
        .map(|(number, version)| match number {
            0 => format!("{version} {{ global: answer; }};\n"),
            _ => format!("{version} {{ }};\n"),
        })
        .collect();
    fs::write(at("versions"), script).unwrap();
    let made = Command::new("cc")
        .args(["-shared", "-fPIC", "-nostdlib", "-o"])
        .arg(at("lib.so"))
        .arg(at("lib.c"))
        .arg(format!("-Wl,--version-script={}", at("versions").display()))
        .status()
        .expect("cc is missing: install a C compiler");
    assert!(made.success());
    fs::read(at("lib.so")).unwrap()
}

fn look(layers: &[Vec<u8>]) -> BaseFacts {
    let folder = tempfile::tempdir().unwrap();
    let mut look = Look::begin(folder.path()).unwrap();
    for layer in layers {
        look.layer(media_type::OCI_LAYER, file(layer)).unwrap();
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    look.finish()
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

fn versions(facts: &BaseFacts, path: &str) -> Option<Vec<String>> {
    let library = facts.at(path)?;
    Some(library.versions.clone()?.into_iter().collect())
}

#[test]
fn libraries_are_found_with_their_versions_through_links() {
    let libc = library(&["GLIBC_2.2.5", "GLIBC_2.17"]);
    let facts = look(&[layer(&[
        ("lib", Node::Link("usr/lib")),
        ("./usr/lib/x/libc-2.17.so", Node::File(&libc)),
        ("usr/lib/x/libc.so.6", Node::Link("libc-2.17.so")),
        (
            "usr/lib/x/libhard.so.1",
            Node::Hard("usr/lib/x/libc-2.17.so"),
        ),
        ("usr/lib/x/libc.so", Node::File(b"/* a linker script */")),
        ("etc/passwd", Node::File(b"app:x:7:8::/:/bin/sh\n")),
        ("etc/group", Node::File(b"app:x:8:\n")),
    ])]);
    let expected = Some(vec!["GLIBC_2.17".to_owned(), "GLIBC_2.2.5".to_owned()]);
    assert_eq!(versions(&facts, "/lib/x/libc.so.6"), expected);
    assert_eq!(versions(&facts, "/lib/x/libhard.so.1"), expected);
    assert_eq!(versions(&facts, "/lib/x/libc.so"), None);
    assert_eq!(facts.named("libc.so.6").count(), 1);
    let owner = facts.accounts().owner("app").unwrap();
    assert_eq!((owner.user, owner.group), (7, 8));
}

#[test]
fn upper_layers_replace_hide_and_add() {
    let (old, new) = (library(&["V_1"]), library(&["V_2"]));
    let base = layer(&[
        ("usr/lib/liba.so.1", Node::File(&old)),
        ("usr/lib/libb.so.1", Node::File(&old)),
        ("opt/one/libc.so.1", Node::File(&old)),
        ("srv/one/libd.so.1", Node::File(&old)),
        ("srv/two/libe.so.1", Node::File(&old)),
        ("lib", Node::Link("usr/lib")),
        ("lib64", Node::Link("usr/lib")),
        ("etc/passwd", Node::File(b"a:x:1:1::/:\n")),
    ]);
    let upper = layer(&[
        ("lib/liba.so.1", Node::File(&new)),
        ("usr/lib/.wh.libb.so.1", Node::File(b"")),
        ("opt/one/libnew.so.1", Node::File(&new)),
        ("opt/one/.wh..wh..opq", Node::File(b"")),
        ("srv/.wh.one", Node::File(b"")),
        ("srv/two", Node::File(b"a file where a folder was")),
        ("lib64", Node::Folder),
        ("etc/.wh.passwd", Node::File(b"")),
    ]);
    let facts = look(&[base, upper]);
    let one = |name: &str| Some(vec![name.to_owned()]);
    assert_eq!(versions(&facts, "/usr/lib/liba.so.1"), one("V_2"));
    assert_eq!(versions(&facts, "/opt/one/libnew.so.1"), one("V_2"));
    for gone in [
        "/usr/lib/libb.so.1",
        "/opt/one/libc.so.1",
        "/srv/one/libd.so.1",
        "/srv/two/libe.so.1",
        "/lib64/liba.so.1",
    ] {
        assert_eq!(versions(&facts, gone), None, "{gone}");
    }
    assert!(facts.accounts().owner("a").is_err());
}

#[test]
fn layers_may_be_packed() {
    let plain = layer(&[("etc/passwd", Node::File(b"app:x:7:8::/:\n"))]);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&plain).unwrap();
    let packed = encoder.finish().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut look = Look::begin(folder.path()).unwrap();
    look.layer(media_type::DOCKER_LAYER_GZIP, file(&packed))
        .unwrap();
    let odd = look.layer("application/vnd.example.layer", file(&packed));
    assert!(matches!(odd, Err(LookError::Unreadable { .. })));
    for damaged in [media_type::OCI_LAYER_GZIP, media_type::OCI_LAYER_ZSTD] {
        let outcome = look.layer(damaged, file(&plain));
        assert!(matches!(outcome, Err(LookError::Layer(_))), "{damaged}");
    }
    assert!(look.finish().accounts().owner("app").is_ok());
}
