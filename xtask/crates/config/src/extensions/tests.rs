//! Files in, what is read from them out.

use super::*;

/// Writes the files and shows what is read from them.
fn check(files: &[(&str, &str)]) -> String {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let read = Extensions::read(root.path());
    let found = read.found.iter().map(|extension| {
        let Extension {
            name,
            kind,
            binary,
            port,
            enabled,
            path,
            line,
        } = extension;
        let path = path.display();
        format!("{path}:{line:?} {name} {kind} {binary} {port:?} {enabled}")
    });
    let errors = read.errors.iter().map(|error| format!("error: {error}"));
    found.chain(errors).collect::<Vec<_>>().join("\n")
}

fn check_one(manifest: &str) -> String {
    check(&[("extensions/a/manifest.yaml", manifest)])
}

#[test]
fn manifests_at_any_depth() {
    insta::assert_snapshot!(check(&[
        ("extensions/mcp/b/manifest.yaml", "# first\nextension:\n  type: mcp\n  name: b\n"),
        (
            "extensions/mcp/a/manifest.yaml",
            "extension: {type: mcp, name: a, binary: sp-a, port: 5010, enabled: false, icon: x}\n",
        ),
        ("extensions/manifest.yaml", "extension: {type: wasm, name: top}"),
        ("extensions/mcp/a/README.md", ""),
    ]), @r"
    extensions/manifest.yaml:Some(1) top wasm top None true
    extensions/mcp/a/manifest.yaml:Some(1) a mcp sp-a Some(5010) false
    extensions/mcp/b/manifest.yaml:Some(3) b mcp b None true
    ");
}

#[test]
fn folders_of_others_are_left_out() {
    let manifest = "extension: {type: mcp, name: a}";
    assert_eq!(
        check(&[
            ("extensions/a/target/manifest.yaml", manifest),
            ("extensions/a/node_modules/x/manifest.yaml", manifest),
            ("extensions/.git/manifest.yaml", manifest),
            ("manifest.yaml", manifest),
        ]),
        ""
    );
}

#[test]
fn a_project_without_extensions() {
    assert_eq!(check(&[]), "");
    assert_eq!(check_one(""), "");
    assert_eq!(check_one("# later\n"), "");
    assert_eq!(check_one("apiVersion: v1\n"), "");
}

#[test]
fn wrong_manifests() {
    insta::assert_snapshot!([
        "extension: [",
        "- a",
        "extension:\n  name: a\n",
        "extension:\n  type: mcp\n  name: a\n  port: many\n",
        "extension:\n  type: mcp\n  name: a\n  port: 70000\n",
        "extension:\n  type: mcp\n  name: a\n  port: 0\n",
        "extension:\n  type: mcp\n  name: ''\n",
        "extension:\n  type: mcp\n  name: 7\n",
        "extension:\n  type: mcp\n  name: a\n  enabled: no\n",
        "extension: {type: mcp, name: a}\n---\nx: 1\n",
        "extension:\n  type: mcp\n  name: a\n  binary: bin/a\n",
        "extension:\n  type: mcp\n  name: a\n  enabeld: false\n",
        "\nextention:\n  type: mcp\n",
        "extension:\n  type: mcp\n  name: a\n  name: b\n",
    ].map(check_one).join("\n"), @r#"
    error: extensions/a/manifest.yaml:2: while parsing a node, did not find expected node content
    error: extensions/a/manifest.yaml:1: a manifest must be a mapping
    error: extensions/a/manifest.yaml:2: missing key `type`
    error: extensions/a/manifest.yaml:4: `port` must be a number from 1 to 65535
    error: extensions/a/manifest.yaml:4: `port` must be a number from 1 to 65535
    error: extensions/a/manifest.yaml:4: `port` must be a number from 1 to 65535
    error: extensions/a/manifest.yaml:3: `name` must not be empty
    error: extensions/a/manifest.yaml:3: `name` must be a text
    error: extensions/a/manifest.yaml:4: `enabled` must be `true` or `false`
    error: extensions/a/manifest.yaml:3: a manifest is one document
    error: extensions/a/manifest.yaml:4: `bin/a` is no name of a program: write it without a folder
    error: extensions/a/manifest.yaml:4: unknown key `enabeld`: did you mean `enabled`?
    error: extensions/a/manifest.yaml:2: unknown key `extention`: did you mean `extension`?
    error: extensions/a/manifest.yaml:4: duplicated key in mapping
    "#);
}

#[test]
fn one_wrong_manifest_hides_no_other() {
    insta::assert_snapshot!(check(&[
        ("extensions/a/manifest.yaml", "extension: {type: mcp, name: a, port: 1}"),
        ("extensions/b/manifest.yaml", "extension: {type: mcp, name: a, port: 1}"),
        ("extensions/c/manifest.yaml", "extension: {type: mcp, name: a, enabled: false}"),
        ("extensions/d/manifest.yaml", "{"),
    ]), @r"
    extensions/a/manifest.yaml:Some(1) a mcp a Some(1) true
    extensions/b/manifest.yaml:Some(1) a mcp a Some(1) true
    extensions/c/manifest.yaml:Some(1) a mcp a None false
    error: extensions/b/manifest.yaml:1: the name `a` is taken by extensions/a/manifest.yaml
    error: extensions/b/manifest.yaml:1: port 1 is taken by extensions/a/manifest.yaml
    error: extensions/d/manifest.yaml:2: while parsing a node, did not find expected node content
    ");
}

#[test]
fn the_walk_ends() {
    let deep = format!("extensions/{}manifest.yaml", "d/".repeat(8));
    insta::assert_snapshot!(check(&[(&deep, "extension: {type: mcp, name: a}")]), @"error: extensions/d/d/d/d/d/d/d/d: manifests are looked for 8 folders deep at most");
}

#[test]
fn links_are_not_followed() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("extensions/a");
    fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::symlink("..", folder.join("up")).unwrap();
    let read = Extensions::read(root.path());
    assert!(read.found.is_empty() && read.errors.is_empty(), "{read:?}");
}
