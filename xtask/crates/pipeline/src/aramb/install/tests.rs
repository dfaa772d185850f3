use super::*;

const ASSET: &str = "aramb-linux-amd64";

#[test]
fn checksums_are_read_as_sha256sum_writes_them() {
    let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
    let [a, b] = [one, two].map(|digest| digest.hex());
    for (text, expected) in [
        (format!("{a}  {ASSET}\n"), Some(one)),
        (format!("{a} *{ASSET}\r\n"), Some(one)),
        (format!("{a}\n"), Some(one)),
        (format!("{}  ./{ASSET}\n", a.to_uppercase()), Some(one)),
        (format!("{a}  other\n{b}  {ASSET}\n"), Some(two)),
        (format!("{a}  other\n"), None),
        (format!("{a}\n{b}\n"), None),
        (format!("{}  {ASSET}\n", &a[1..]), None),
        (String::new(), None),
    ] {
        assert_eq!(checksum(&text, ASSET), expected, "{text}");
    }
}

#[test]
fn what_keeps_it_from_being_found_is_told() {
    let home = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| home.path().join(name));
    for folder in [&first, &second] {
        std::fs::create_dir(folder).unwrap();
        std::fs::write(folder.join("aramb"), "").unwrap();
    }
    let path = std::env::join_paths([&first, &second]).unwrap();
    let unseen = |folder: &Path| place::unseen(&folder.join("aramb"), Some(&path));
    assert_eq!(unseen(&first), None);
    assert!(unseen(&second).unwrap().contains("comes before"));
    assert!(unseen(home.path()).unwrap().contains("not in PATH"));
}

#[test]
fn the_command_for_this_system_can_be_typed() {
    let lines = install_command();
    assert!(lines.starts_with("cargo xtask deploy --install-cli\n"));
    assert!(lines.contains(&format!(
        "curl --proto '=https' --tlsv1.2 -fLO {RELEASES}/aramb-"
    )));
}
