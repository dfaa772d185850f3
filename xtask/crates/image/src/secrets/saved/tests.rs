use std::io::Write as _;

use super::super::Spot;
use super::*;

/// Not written out, so that no other scanner takes it for real.
fn token() -> String {
    format!("ghp_{}", "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xYz0cF2hJ")
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn config(layers: &[&[u8]], environment: &str) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer)).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Env": [environment]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    serde_json::to_vec(&config).unwrap()
}

fn manifest(config: &str, layers: &[&str]) -> Vec<u8> {
    let records = serde_json::json!([{"Config": config, "RepoTags": ["a:1"], "Layers": layers}]);
    serde_json::to_vec(&records).unwrap()
}

fn look(archive: &[u8], bases: &[Vec<Digest>], allowed: &[&str]) -> Result<SavedImage, SavedError> {
    let allowed: Vec<_> = allowed.iter().map(|&path| path.to_owned()).collect();
    let folder = tempfile::tempdir().unwrap();
    let result = find_secrets_in_saved(archive, bases, &allowed, folder.path());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    result
}

fn shown(archive: &[u8], bases: &[Vec<Digest>], allowed: &[&str]) -> Vec<String> {
    let image = look(archive, bases, allowed).unwrap();
    image.secrets.iter().map(ToString::to_string).collect()
}

/// Two layers, each with a secret of its own, as engines up to 24 save them.
fn old() -> (Vec<u8>, [Vec<u8>; 2]) {
    let base = tar(&[("etc/.env", b"PASSWORD=word\n")]);
    let secret = format!("one\ntwo {}\n", token());
    let own = tar(&[("./app/made.txt", secret.as_bytes())]);
    let archive = tar(&[
        ("aa/VERSION", b"1.0"),
        ("aa/layer.tar", &base),
        ("bb/layer.tar", &own),
        ("cc.json", &config(&[&base, &own], "A=b")),
        (
            MANIFEST,
            &manifest("cc.json", &["aa/layer.tar", "bb/layer.tar"]),
        ),
    ]);
    (archive, [base, own])
}

const IN_BASE: &str = "/etc/.env: .env file with values";
const OWN: &str = "/app/made.txt: token of GitHub in line 2";

#[test]
fn layers_of_the_base_are_left_out_where_they_are_its() {
    let (archive, [base, own]) = old();
    let id = |bytes: &[u8]| Digest::of(bytes);
    assert_eq!(shown(&archive, &[], &[]), [IN_BASE, OWN]);
    assert_eq!(shown(&archive, &[vec![id(&base)]], &[]), [OWN]);
    // What was called the base, and is another image now.
    let other = vec![id(&own), id(&base)];
    assert_eq!(shown(&archive, &[other], &[]), [IN_BASE, OWN]);
    let none: [&str; 0] = [];
    assert_eq!(shown(&archive, &[vec![id(&base)]], &["/app/*.txt"]), none);
    let image = look(&archive, &[], &[]).unwrap();
    assert_eq!(image.diff_ids, [id(&base), id(&own)]);
}

#[test]
fn the_layout_of_newer_engines_with_compressed_layers() {
    let (_, [base, own]) = old();
    let packed = gzip(&own);
    let name = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let config = config(&[&base, &own], &format!("TOKEN={}", token()));
    let layers = [name(&base), name(&packed)];
    let archive = tar(&[
        (&name(&base), &base),
        (&name(&packed), &packed),
        (&name(&config), &config),
        ("index.json", b"{}"),
        (
            MANIFEST,
            &manifest(&name(&config), &[&layers[0], &layers[1]]),
        ),
        ("oci-layout", b"{\"imageLayoutVersion\":\"1.0.0\"}"),
    ]);
    let in_configuration = "the image's configuration (ENV, LABEL, ARG): token of GitHub";
    assert_eq!(
        shown(&archive, &[vec![Digest::of(&base)]], &[]),
        [in_configuration, OWN]
    );
}

#[test]
fn a_layer_that_is_a_link_is_the_one_it_leads_to() {
    let secret = tar(&[("a.txt", token().as_bytes())]);
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes).unwrap();
    };
    add("aa/layer.tar", &secret);
    add("cc.json", &config(&[&secret, &secret], "A=b"));
    add(
        MANIFEST,
        &manifest("cc.json", &["aa/layer.tar", "bb/layer.tar"]),
    );
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder
        .append_link(&mut header, "bb/layer.tar", "../aa/layer.tar")
        .unwrap();
    let archive = builder.into_inner().unwrap();
    let base = vec![Digest::of(&secret)];
    let found = look(&archive, &[base], &[]).unwrap().secrets;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].spot, Spot::Line(1));
}

#[test]
fn what_cannot_be_read_is_an_error_and_no_clean_image() {
    let (archive, [base, own]) = old();
    let cut = look(&archive[..archive.len() / 2], &[], &[]);
    assert!(matches!(cut, Err(SavedError::Archive(_))), "{cut:?}");
    let unsaid = look(&tar(&[("bb/layer.tar", &own)]), &[], &[]);
    assert!(matches!(unsaid, Err(SavedError::Incomplete { .. })));
    let described = |layer: &[u8]| {
        tar(&[
            ("aa/layer.tar", &base),
            ("bb/layer.tar", layer),
            ("cc.json", &config(&[&base, &own], "A=b")),
            (
                MANIFEST,
                &manifest("cc.json", &["aa/layer.tar", "bb/layer.tar"]),
            ),
        ])
    };
    let no_layer = look(&described(b"{}"), &[], &[]);
    assert!(matches!(no_layer, Err(SavedError::Incomplete { .. })));
    let damaged = gzip(&own);
    let damaged = look(&described(&damaged[..damaged.len() / 2]), &[], &[]);
    assert!(
        matches!(damaged, Err(SavedError::Layer { .. })),
        "{damaged:?}"
    );
}
