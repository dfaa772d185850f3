//! Dockerfiles and ignore files, mutated: an answer or a named error, never a panic, never a file
//! from outside of the context.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod corpus;

use std::fs;
use std::path::{Component, Path};

use corpus::{FILES, GRAMMAR, IGNORES, MODERN, REFUSED, SAME, STRICTER};
use deploy_image::{Context, Dockerfile, Ignore, NoImages, Options, copies, needs_engine, plan};
use fuzzing::fuzz;

const WORDS: &[&str] = &[
    "FROM scratch\n",
    "FROM one AS two\n",
    "COPY --from=one / /\n",
    "COPY . /\n",
    "--from=0 ",
    "--parents ",
    "--exclude=** ",
    "--chown=app:1 ",
    "--chmod=u+s ",
    "--link ",
    "<<EOF ",
    "\nEOF\n",
    "<<-'EOF' ",
    "# escape=`\n",
    "# syntax=x\n",
    "${A:-",
    "${A##*/}",
    "${A//b/c}",
    "$A",
    "[\"a.txt\", \"/x/\"]",
    "../",
    "/./",
    "**/",
    "[a-",
    "[^]",
    "\\\n",
    "\r\n",
    "ONBUILD ",
    "HEALTHCHECK --interval=1h CMD ",
    "\u{feff}",
    "\u{85}",
    "\u{3000}",
];

/// A context with the names of the corpus, and a file beside it that no image may hold.
fn context() -> (tempfile::TempDir, Context) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("context");
    fs::create_dir_all(root.join("dir/sub")).unwrap();
    for path in ["a.txt", "b.txt", "dir/one", "dir/sub/three", "script.sh"] {
        fs::write(root.join(path), path).unwrap();
    }
    fs::write(folder.path().join("outside"), "outside").unwrap();
    for (target, link) in [
        ("../outside", "up"),
        ("/etc/passwd", "dir/absolute"),
        ("dir", "linkdir"),
        ("loop", "loop"),
    ] {
        std::os::unix::fs::symlink(target, root.join(link)).unwrap();
    }
    let context = Context::new(root, Ignore::default());
    (folder, context)
}

#[test]
fn fuzz_dockerfiles() {
    let seeds: Vec<&str> = [SAME, GRAMMAR, MODERN, REFUSED, STRICTER]
        .concat()
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    let (folder, context) = context();
    let root = folder.path().join("context");
    // Stages that copy each other double with every line, up to the limit: a low one is as good.
    let options = Options {
        file_limit: 10_000,
        ..Options::default()
    };
    fuzz(&seeds, WORDS, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let dockerfile = match Dockerfile::parse("Dockerfile", &text) {
            Ok(dockerfile) => dockerfile,
            Err(error) => {
                assert!(!error.resolution().is_empty());
                assert!(
                    error.line <= text.lines().count().max(1),
                    "line {}",
                    error.line
                );
                return;
            }
        };
        check_lines(&dockerfile, &text);
        let known = needs_engine(&dockerfile, &options).and_then(|_| copies(&dockerfile, &options));
        let planned = plan(&dockerfile, &context, &options, &NoImages);
        assert!(known.is_ok() || planned.is_err());
        let Ok(planned) = planned else { return };
        for file in planned.layers.iter().flat_map(|layer| &layer.files) {
            check_destination(&file.path);
            assert!(
                file.from.as_ref().is_none_or(|from| is_inside(from, &root)),
                "{file:?}"
            );
        }
    });
}

/// Every instruction stands where it says, and none begins inside another.
fn check_lines(dockerfile: &Dockerfile, text: &str) {
    let last = text.lines().count();
    let mut before = 0;
    for stage in &dockerfile.stages {
        for line in std::iter::once(&stage.line).chain(&stage.lines) {
            assert!(line.span.first > before, "{:?} after {before}", line.span);
            assert!(line.span.first <= line.span.last && line.span.last <= last);
            before = line.span.last;
        }
    }
}

fn check_destination(path: &Path) {
    assert!(path.is_absolute(), "{}", path.display());
    let climbs = path.components().any(|part| part == Component::ParentDir);
    assert!(!climbs, "{}", path.display());
}

fn is_inside(from: &Path, root: &Path) -> bool {
    let climbs = from.components().any(|part| part == Component::ParentDir);
    // A link is named where it stands; what it points at is only text.
    let folder = from.parent().unwrap_or(root);
    let real = fs::canonicalize(folder).unwrap_or_default();
    let own = fs::canonicalize(root).unwrap_or_default();
    !climbs && from.starts_with(root) && real.starts_with(own)
}

#[test]
fn fuzz_ignore_files() {
    let seeds: Vec<&str> = IGNORES.iter().map(|(_, text)| *text).collect();
    fuzz(
        &seeds,
        &[
            "**", "!", "\\", "[^a-z]", "/", "*?", "#", "\u{feff}", "\r\n",
        ],
        |bytes| {
            // Thousands of rules are slow because they are many.
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(1024)]);
            let Ok(ignore) = Ignore::parse(Path::new(".dockerignore"), &text) else {
                return;
            };
            let lines = text.lines().count();
            for path in FILES {
                let line = ignore.excludes(Path::new(path));
                assert!(
                    line.is_none_or(|line| (1..=lines).contains(&line)),
                    "{path}: {line:?}"
                );
            }
            // A name that is all one letter makes a reader that tries everything try for long.
            let _ = ignore.excludes(Path::new(&"a".repeat(200)));
            let _ = ignore.excludes(Path::new(&"a/".repeat(100)));
        },
    );
}
