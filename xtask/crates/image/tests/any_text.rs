//! Whatever stands in a Dockerfile or an ignore file: an answer or a named error, never a panic.

use std::path::Path;

use deploy_image::{Dockerfile, Ignore, Options, copies, needs_engine};
use proptest::prelude::*;

/// Lines that look like a Dockerfile's, with the characters that mean something in one.
fn line() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        "[a-z./]{0,6}",
        Just("${A:-${B}}".to_owned()),
        Just("<<EOF".to_owned()),
        Just("--from=x".to_owned()),
        Just("[\"a\",\"b\"]".to_owned()),
        "[$(){}\"'\\\\`=<#*?!\\[\\]:+%/-]{0,6}",
        "\\PC{0,4}",
    ];
    let name = prop::sample::select(vec![
        "FROM",
        "COPY",
        "ADD",
        "ENV",
        "ARG",
        "LABEL",
        "CMD",
        "HEALTHCHECK",
        "WORKDIR",
        "EXPOSE",
        "VOLUME",
        "SHELL",
        "USER",
        "STOPSIGNAL",
        "ONBUILD",
        "EOF",
        "#",
        "# escape=`",
        "",
        "\\",
    ]);
    (name, prop::collection::vec(word, 0..5))
        .prop_map(|(name, words)| format!("{name} {}", words.join(" ")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn dockerfiles(lines in prop::collection::vec(line(), 0..8)) {
        let text = format!("FROM scratch\n{}", lines.join("\n"));
        if let Ok(dockerfile) = Dockerfile::parse("Dockerfile", &text) {
            let _ = needs_engine(&dockerfile, &Options::default());
            let _ = copies(&dockerfile, &Options::default());
        }
    }

    #[test]
    fn any_dockerfile(text in "\\PC*") {
        let _ = Dockerfile::parse("Dockerfile", &text);
    }

    #[test]
    fn ignore_files(text in "[a-z*?!/.\\[\\]\\\\^\n#-]{0,40}", path in "[a-z/]{1,20}") {
        if let Ok(ignore) = Ignore::parse(Path::new(".dockerignore"), &text) {
            let _ = ignore.excludes(Path::new(&path));
        }
    }
}
