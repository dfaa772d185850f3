//! Plans and images of small Dockerfiles: what they take, what they refuse and what they say then.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use common::Project;
use common::tree::{Tree, apply};
use deploy_image::{
    Accounts, AssembleError, BaseChoice, BaseImage, BaseSource, Cache, Dockerfile, Image, Looked,
    NoImages, Options, PlanError, PlannedBase, assemble, base_images, copies, needs_engine, plan,
};

fn project() -> Project {
    let project = Project::new();
    for path in [
        "a.txt",
        "b.txt",
        "dir/one.rs",
        "dir/sub/two.rs",
        "dir/sub/three.md",
        "docs/x.md",
    ] {
        project.write(path, path);
    }
    project
}

fn build(project: &Project, text: &str) -> Result<Image, String> {
    let dockerfile = Dockerfile::parse("Dockerfile", text).map_err(|error| error.to_string())?;
    let planned = plan(
        &dockerfile,
        &project.context(),
        &Options::default(),
        &NoImages,
    );
    let planned = planned.map_err(|error| report(&error, &error.resolution()))?;
    let built = assemble(&planned, &project.store(), &mut Cache::none());
    built.map_err(|error| report(&error, &error.resolution()))
}

/// An error with its causes and what to do.
fn report(error: &dyn std::error::Error, resolution: &str) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    format!("{text} | {resolution}")
}

fn tree(image: &Image) -> Tree {
    let mut tree = Tree::new();
    for layer in &image.layers {
        apply(&mut tree, image.sources[&layer.digest].open_at(0).unwrap());
    }
    tree
}

/// The files and links, without directories, that a Dockerfile yields.
fn files(project: &Project, lines: &str) -> Vec<String> {
    let image = build(project, &format!("FROM scratch\n{lines}")).unwrap();
    let rows = tree(&image).into_iter();
    rows.filter(|(_, row)| !row.starts_with("directory"))
        .map(|(path, _)| path)
        .collect()
}

#[test]
fn parents_keeps_directories_from_the_pivot_on() {
    let project = project();
    assert_eq!(
        files(&project, "COPY --parents dir/sub/two.rs /x/\n"),
        ["x/dir/sub/two.rs"]
    );
    assert_eq!(
        files(&project, "COPY --parents dir/./sub/two.rs /x/\n"),
        ["x/sub/two.rs"]
    );
    assert_eq!(
        files(&project, "COPY --parents **/*.rs /x/\n"),
        ["x/dir/one.rs", "x/dir/sub/two.rs"]
    );
    assert_eq!(
        files(&project, "COPY --parents dir/sub /x/\n"),
        ["x/dir/sub/three.md", "x/dir/sub/two.rs"]
    );
}

#[test]
fn exclude_leaves_files_out() {
    let project = project();
    assert_eq!(
        files(&project, "COPY --exclude=**/*.md dir /x/\n"),
        ["x/one.rs", "x/sub/two.rs"]
    );
    assert_eq!(
        files(&project, "COPY --exclude=sub dir /x/\n"),
        ["x/one.rs"]
    );
    assert_eq!(
        files(&project, "COPY --exclude=b.* *.txt /x/\n"),
        ["x/a.txt"]
    );
    let kept = "COPY --exclude=sub --exclude=!sub/two.rs dir /x/\n";
    assert_eq!(files(&project, kept), ["x/one.rs", "x/sub/two.rs"]);
}

#[test]
fn heredocs_become_files() {
    let project = project();
    let text = "FROM scratch\nARG WHO=world\nCOPY <<one <<'two' a.txt /x/\nhello \"$WHO\" \\$WHO\none\n$WHO\ntwo\n\
                COPY --chmod=755 --chown=3:4 <<EOF /bin/run\n#!/bin/sh\nEOF\n";
    let image = build(&project, text).unwrap();
    let tree = tree(&image);
    let file = |text: &str| oci::Digest::of(text.as_bytes()).short();
    assert_eq!(
        tree["x/one"],
        format!("file 644 0:0 {}", file("hello \"world\" $WHO\n"))
    );
    assert_eq!(tree["x/two"], format!("file 644 0:0 {}", file("$WHO\n")));
    assert_eq!(
        tree["bin/run"],
        format!("file 755 3:4 {}", file("#!/bin/sh\n"))
    );
    assert!(tree.contains_key("x/a.txt"));
}

#[test]
fn no_link_leads_out_of_the_context() {
    let project = project();
    fs::write(project.path("outside"), "secret").unwrap();
    symlink("../outside", project.root().join("leak")).unwrap();
    symlink(project.path("outside"), project.root().join("absolute")).unwrap();
    symlink("..", project.root().join("up")).unwrap();
    symlink("round", project.root().join("round")).unwrap();
    for source in ["leak", "absolute", "up/outside", "round"] {
        let error = build(&project, &format!("FROM scratch\nCOPY {source} /x/\n")).unwrap_err();
        assert!(error.contains("cannot carry out"), "{error}");
    }
    // Inside a directory a link is copied as what it is.
    fs::rename(project.root().join("leak"), project.root().join("dir/leak")).unwrap();
    let image = build(&project, "FROM scratch\nCOPY dir /x/\n").unwrap();
    assert_eq!(tree(&image)["x/leak"], "link 0:0 -> ../outside");
}

#[test]
fn refusals_say_where_why_and_what_to_do() {
    let project = project();
    project.write(".dockerignore", "docs\n");
    let check = |lines: &str, expected: &str| {
        let error = build(&project, &format!("FROM scratch\n{lines}\n")).unwrap_err();
        assert_eq!(error, expected);
    };
    check(
        "COPY a.tx /x",
        "Dockerfile:2: cannot carry out `COPY a.tx /x`: there is no a.tx | did you mean a.txt?",
    );
    check(
        "\nCOPY nothing-like-it /x",
        "Dockerfile:3: cannot carry out `COPY nothing-like-it /x`: there is no nothing-like-it | \
         create nothing-like-it, or remove the line",
    );
    check(
        "COPY ../up /x",
        "Dockerfile:2: cannot carry out `COPY ../up /x`: ../up lies outside of the build context | \
         copy it into the project, or move the context up",
    );
    check(
        "COPY *.txt /x",
        "Dockerfile:2: cannot carry out `COPY *.txt /x`: *.txt matches 2 files, which go to a \
         directory: end the destination with / | add / to the end of the line",
    );
    check(
        "COPY --chown=bob a.txt /x",
        "Dockerfile:2: cannot tell whose the files of `COPY --chown=bob a.txt /x` are: the user bob \
         is not in the image's /etc/passwd, as far as that is known here | write numbers, such as 1000:1000",
    );
    let ignored = build(&project, "FROM scratch\nCOPY docs /x\n").unwrap_err();
    assert!(
        ignored.ends_with(".dockerignore:1 hides it: add `!docs` below"),
        "{ignored}"
    );
}

#[test]
fn what_needs_an_engine_is_listed_at_once() {
    let text = "FROM rust AS build\nRUN cargo build\nFROM scratch AS unused\nRUN x\nFROM debian\n\
                ADD https://example.org/x /x\nADD x.tar.gz /\nADD a.txt /ok\nCOPY --from=nginx /x /y\n\
                COPY --from=build /target/x /x\nONBUILD COPY a b\nCOPY a.txt /fine\n";
    let dockerfile = Dockerfile::parse("Dockerfile", text).unwrap();
    let needs = needs_engine(&dockerfile, &Options::default()).unwrap();
    let lines: Vec<String> = needs.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "line 2: RUN runs a command in a container",
            "line 6: ADD downloads https://example.org/x",
            "line 7: ADD unpacks x.tar.gz",
            "line 9: COPY takes files out of the image nginx",
            "line 10: COPY takes /target/x from stage build, whose base image may hold more",
            "line 11: ONBUILD is left to builds that start from this image",
        ]
    );
    let error = plan(
        &dockerfile,
        &project().context(),
        &Options::default(),
        &NoImages,
    )
    .unwrap_err();
    assert!(matches!(error, PlanError::NeedsEngine { needs, .. } if needs.len() == 6));
}

#[test]
fn add_tells_archives_by_their_content() {
    let project = project();
    fs::write(project.root().join("data"), b"\x1f\x8b\x08\0").unwrap();
    let error = build(&project, "FROM scratch\nADD data /x\n").unwrap_err();
    assert!(
        error.contains("line 2: ADD unpacks an archive to x"),
        "{error}"
    );
    assert!(build(&project, "FROM scratch\nCOPY data /x\n").is_ok());
}

#[test]
fn copies_have_their_variables_expanded() {
    let text = "ARG PROFILE=release\nFROM scratch\nARG PROFILE\nWORKDIR /app\n\
                COPY target/$PROFILE/app ./bin/\nCOPY --from=other /x /y\n";
    let dockerfile = Dockerfile::parse("Dockerfile", text).unwrap();
    let found = copies(&dockerfile, &Options::default()).unwrap();
    assert_eq!(
        (found[0].line, found[0].sources[0].as_str()),
        (5, "target/release/app")
    );
    assert_eq!(found[0].destination, "/app/bin/");
    assert_eq!(found[1].from.as_deref(), Some("other"));
    let given = BTreeMap::from([("PROFILE".to_owned(), "debug".to_owned())]);
    let options = Options {
        build_arguments: given,
        ..Options::default()
    };
    assert_eq!(
        copies(&dockerfile, &options).unwrap()[0].sources,
        ["target/debug/app"]
    );
}

#[test]
fn the_target_is_a_name_or_a_number() {
    let project = project();
    let text = "FROM scratch AS one\nCOPY a.txt /one\nFROM scratch AS two\nCOPY a.txt /two\n";
    let dockerfile = Dockerfile::parse("Dockerfile", text).unwrap();
    for (target, file) in [(None, "two"), (Some("ONE"), "one"), (Some("0"), "one")] {
        let options = Options {
            target: target.map(str::to_owned),
            ..Options::default()
        };
        let plan = plan(&dockerfile, &project.context(), &options, &NoImages).unwrap();
        assert_eq!(
            plan.layers[0].files.last().unwrap().path,
            Path::new("/").join(file)
        );
    }
    let options = Options {
        target: Some("three".into()),
        ..Options::default()
    };
    assert!(plan(&dockerfile, &project.context(), &options, &NoImages).is_err());
}

#[test]
fn build_outputs_stand_where_the_dockerfile_names_them() {
    let project = project();
    fs::create_dir(project.path("elsewhere")).unwrap();
    fs::write(project.path("elsewhere/tool"), "binary").unwrap();
    fs::set_permissions(
        project.path("elsewhere/tool"),
        fs::Permissions::from_mode(0o755),
    )
    .unwrap();
    let overlay = |names: &[&str]| -> BTreeMap<PathBuf, PathBuf> {
        let one = |name: &&str| {
            (
                Path::new("target/release").join(name),
                project.path("elsewhere/tool"),
            )
        };
        names.iter().map(one).collect()
    };
    let layers = |lines: &str, names: &[&str]| -> Vec<usize> {
        let dockerfile =
            Dockerfile::parse("Dockerfile", &format!("FROM scratch\n{lines}")).unwrap();
        let context = project.context().with_overlay(overlay(names));
        let plan = plan(&dockerfile, &context, &Options::default(), &NoImages).unwrap();
        assemble(&plan, &project.store(), &mut Cache::none()).unwrap();
        plan.layers
            .iter()
            .map(|layer| {
                layer
                    .files
                    .iter()
                    .filter(|file| file.size.is_some())
                    .count()
            })
            .collect()
    };
    assert_eq!(layers("COPY target/release/tool /bin/\n", &["tool"]), [1]);
    // Several outputs of one COPY get a layer each, everything else stays together.
    assert_eq!(
        layers("COPY target/release/* /bin/\n", &["one", "two"]),
        [1, 1]
    );
    assert_eq!(
        layers("COPY target/release/one a.txt b.txt /bin/\n", &["one"]),
        [2, 1]
    );
    assert_eq!(layers("COPY target /all/\n", &["one", "two"]), [1, 1]);
}

#[test]
fn a_context_rule_hides_build_outputs_as_docker_would() {
    let project = project();
    project.write(".dockerignore", "target\n");
    let dockerfile = Dockerfile::parse("Dockerfile", "FROM scratch\nCOPY target/x /x\n").unwrap();
    let expected = BTreeMap::from([(PathBuf::from("target/x"), "package".to_owned())]);
    let context = || project.context().with_expected(expected.clone());
    let error = plan(&dockerfile, &context(), &Options::default(), &NoImages).unwrap_err();
    assert!(
        error
            .resolution()
            .ends_with(".dockerignore:1 hides it: add `!target/x` below")
    );
    project.write(".dockerignore", "target\n!target/x\n");
    assert!(plan(&dockerfile, &context(), &Options::default(), &NoImages).is_ok());
}

#[test]
fn an_unmatched_pattern_is_a_warning() {
    let project = project();
    let dockerfile =
        Dockerfile::parse("Dockerfile", "FROM scratch\nCOPY a.txt Cargo.lock* /x/\n").unwrap();
    let plan = plan(
        &dockerfile,
        &project.context(),
        &Options::default(),
        &NoImages,
    )
    .unwrap();
    assert_eq!(plan.warnings, ["Dockerfile:2: nothing matches Cargo.lock*"]);
}

#[test]
fn a_program_without_its_loader_is_refused() {
    let project = project();
    let program = common::compile(&project, "dynamic");
    fs::rename(program, project.root().join("dynamic")).unwrap();
    let error = build(&project, "FROM scratch\nCOPY dynamic /bin/\n").unwrap_err();
    let expected = "/bin/dynamic needs the loader /lib64/ld-linux-x86-64.so.2, which an image from \
                    scratch does not have | use the base `host`, or a base image with a C library, \
                    or link statically";
    if cfg!(target_arch = "x86_64") {
        assert_eq!(error, expected);
    }
}

#[test]
fn a_program_for_another_processor_is_refused() {
    let project = project();
    let program = common::compile(&project, "here");
    let mut bytes = fs::read(program).unwrap();
    // The machine in the ELF header: s390x, in place of this one.
    bytes[18..20].copy_from_slice(&22_u16.to_le_bytes());
    fs::write(project.root().join("foreign"), bytes).unwrap();
    project.chmod("foreign", 0o755);
    let dockerfile = Dockerfile::parse("Dockerfile", "FROM scratch\nCOPY foreign /x\n").unwrap();
    let options = Options {
        base: BaseChoice::Host,
        ..Options::default()
    };
    let plan = plan(&dockerfile, &project.context(), &options, &NoImages).unwrap();
    let error = assemble(&plan, &project.store(), &mut Cache::none()).unwrap_err();
    assert!(matches!(error, AssembleError::Program(_)), "{error}");
    assert!(
        error
            .to_string()
            .contains("is built for s390x, the image is for"),
        "{error}"
    );
}

#[test]
fn a_host_base_without_programs_has_no_libraries() {
    let project = project();
    let dockerfile =
        Dockerfile::parse("Dockerfile", "FROM debian\nUSER 5\nCOPY a.txt /x/\n").unwrap();
    let options = Options {
        base: BaseChoice::Host,
        ..Options::default()
    };
    let plan = plan(&dockerfile, &project.context(), &options, &NoImages).unwrap();
    let image = assemble(&plan, &project.store(), &mut Cache::none()).unwrap();
    let tree = tree(&image);
    assert!(
        !tree
            .keys()
            .any(|path| path.contains("libc.so") || path.contains("ld-linux"))
    );
    assert!(tree["tmp"].starts_with("directory 1777") && tree["root"].starts_with("directory 700"));
    assert!(tree.contains_key("etc/nsswitch.conf") && tree.contains_key("etc/passwd"));
}

#[test]
fn libraries_are_found_beside_the_program() {
    let project = project();
    fs::create_dir_all(project.path("out/lib")).unwrap();
    fs::create_dir_all(project.path("out/bin")).unwrap();
    let library = "#[unsafe(no_mangle)] pub extern \"C\" fn greet() -> i32 { 42 }";
    let program =
        "unsafe extern \"C\" { safe fn greet() -> i32; } fn main() { println!(\"{}\", greet()); }";
    let (library_path, program_path) = (
        project.path("out/lib/libgreet.so"),
        project.path("out/bin/app"),
    );
    common::rustc(&project, library, &library_path, &["--crate-type=cdylib"]);
    let folder = format!("-L{}", project.path("out/lib").display());
    let origin = "-Clink-arg=-Wl,-rpath,$ORIGIN/../lib";
    common::rustc(
        &project,
        program,
        &program_path,
        &[&folder, "-lgreet", origin],
    );
    let dockerfile =
        Dockerfile::parse("Dockerfile", "FROM debian\nCOPY app /opt/tool/bin/\n").unwrap();
    let context = project
        .context()
        .with_overlay([("app".into(), program_path)].into());
    let options = Options {
        base: BaseChoice::Host,
        ..Options::default()
    };
    let plan = plan(&dockerfile, &context, &options, &NoImages).unwrap();
    let image = assemble(&plan, &project.store(), &mut Cache::none()).unwrap();
    let root = common::unpack(&project, &image);
    assert!(root.join("opt/tool/lib/libgreet.so").is_file());
    assert_eq!(common::run_inside(&root, "/opt/tool/bin/app"), "42\n");
}

#[test]
fn a_missing_library_is_named() {
    let project = project();
    let library = "#[unsafe(no_mangle)] pub extern \"C\" fn greet() -> i32 { 42 }";
    let program =
        "unsafe extern \"C\" { safe fn greet() -> i32; } fn main() { println!(\"{}\", greet()); }";
    let (library_path, program_path) = (project.path("libgone.so"), project.path("app"));
    common::rustc(&project, library, &library_path, &["--crate-type=cdylib"]);
    let folder = format!("-L{}", project.path("").display());
    common::rustc(&project, program, &program_path, &[&folder, "-lgone"]);
    let dockerfile = Dockerfile::parse("Dockerfile", "FROM debian\nCOPY app /x/\n").unwrap();
    let context = project
        .context()
        .with_overlay([("app".into(), program_path)].into());
    let options = Options {
        base: BaseChoice::Host,
        ..Options::default()
    };
    let plan = plan(&dockerfile, &context, &options, &NoImages).unwrap();
    let error = assemble(&plan, &project.store(), &mut Cache::none()).unwrap_err();
    assert_eq!(
        error.resolution(),
        "install the package that has libgone.so"
    );
}

#[test]
fn application_layers_do_not_depend_on_the_base() {
    let project = project();
    let text = "FROM debian\nCOPY a.txt /app/\nCOPY --chown=5 b.txt /tmp/x/\nCOPY dir /usr/bin/\nWORKDIR /srv/data\n";
    let dockerfile = Dockerfile::parse("Dockerfile", text).unwrap();
    let own = |base| -> Vec<_> {
        let options = Options {
            base,
            ..Options::default()
        };
        let plan = plan(&dockerfile, &project.context(), &options, &NoImages).unwrap();
        let image = assemble(&plan, &project.store(), &mut Cache::none()).unwrap();
        image.layers[1..].iter().map(|layer| layer.digest).collect()
    };
    assert_eq!(own(BaseChoice::Host), own(BaseChoice::Scratch));
}

#[test]
fn the_image_does_not_depend_on_checkout_path_umask_or_day() {
    let digest = |umask: u32| {
        let project = project();
        for path in ["a.txt", "dir/one.rs", "dir/sub/two.rs"] {
            project.chmod(path, 0o666 & !umask);
        }
        project.write("run.sh", "#!/bin/sh\n");
        project.chmod("run.sh", 0o777 & !umask);
        for path in ["dir", "dir/sub"] {
            project.chmod(path, 0o2777 & !umask);
        }
        if umask == 0o077 {
            project.age();
        }
        let text = "FROM scratch\nCOPY . /x/\nENV A=b\nWORKDIR /y\n";
        build(&project, text).unwrap().digest
    };
    assert_eq!(digest(0o022), digest(0o077));
    assert_eq!(digest(0o000), digest(0o027));
}

#[test]
fn the_time_of_everything_is_the_given_one() {
    let project = project();
    let dockerfile = Dockerfile::parse("Dockerfile", "FROM scratch\nCOPY dir /x\n").unwrap();
    let options = Options {
        epoch: 1_700_000_000,
        ..Options::default()
    };
    let plan = plan(&dockerfile, &project.context(), &options, &NoImages).unwrap();
    let image = assemble(&plan, &project.store(), &mut Cache::none()).unwrap();
    assert_eq!(
        image.config.created.as_deref(),
        Some("2023-11-14T22:13:20Z")
    );
    let blob = image.sources[&image.layers[0].digest].open_at(0).unwrap();
    for entry in tar::Archive::new(blob).entries().unwrap() {
        assert_eq!(entry.unwrap().header().mtime().unwrap(), 1_700_000_000);
    }
}

#[test]
fn a_file_that_changes_after_the_plan_is_noticed() {
    let project = project();
    let dockerfile = Dockerfile::parse("Dockerfile", "FROM scratch\nCOPY a.txt /x\n").unwrap();
    let plan = plan(
        &dockerfile,
        &project.context(),
        &Options::default(),
        &NoImages,
    )
    .unwrap();
    project.write("a.txt", "something else");
    let error = assemble(&plan, &project.store(), &mut Cache::none()).unwrap_err();
    assert_eq!(
        error.resolution(),
        "wait for the build that writes it, then run again"
    );
}

#[test]
fn pipes_are_refused_and_sockets_left_out() {
    let project = project();
    let socket = project.root().join("dir/socket");
    let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    assert!(
        !files(&project, "COPY dir /x\n")
            .iter()
            .any(|path| path.contains("socket"))
    );
    let pipe = project.root().join("dir/pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let error = build(&project, "FROM scratch\nCOPY dir /x\n").unwrap_err();
    assert!(
        error.contains("is a pipe, which an image cannot take"),
        "{error}"
    );
}

#[test]
fn names_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let project = project();
    let name = std::ffi::OsStr::from_bytes(b"dir/\xff\xfe");
    fs::write(project.root().join(name), "x").unwrap();
    let image = build(&project, "FROM scratch\nCOPY dir /x\n").unwrap();
    let blob = image.sources[&image.layers[0].digest].open_at(0).unwrap();
    let mut archive = tar::Archive::new(blob);
    let mut entries = archive.entries().unwrap();
    assert!(entries.any(|entry| entry.unwrap().path_bytes().as_ref() == b"x/\xff\xfe"));
}

/// Each stage holds the one before twice: thirty lines would make a thousand million files.
fn doubling(stages: usize) -> String {
    let more = (1..=stages).map(|stage| {
        let before = stage - 1;
        format!(
            "FROM scratch AS s{stage}\nCOPY --from=s{before} / /a/\nCOPY --from=s{before} / /b/\n"
        )
    });
    let first = "FROM scratch AS s0\nCOPY dir /d/\n".to_owned();
    std::iter::once(first).chain(more).collect()
}

#[test]
fn stages_that_double_end_at_the_limit_of_files() {
    let project = project();
    let limited = |text: &str, file_limit| {
        let dockerfile = Dockerfile::parse("Dockerfile", text).unwrap();
        let options = Options {
            file_limit,
            ..Options::default()
        };
        plan(&dockerfile, &project.context(), &options, &NoImages).map(|_| ())
    };
    let error = limited(&doubling(30), 20_000).unwrap_err();
    let error = report(&error, &error.resolution());
    assert!(
        error.contains("all stages together may have 20000 files"),
        "{error}"
    );
    assert!(error.contains("copy less"), "{error}");
    // `dir` has four entries, and both copies have `d` besides.
    limited(&doubling(1), 4 + 5 + 5).unwrap();
    let error = limited(&doubling(1), 4 + 5 + 4).unwrap_err();
    let PlanError::Copy { at, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(at.line, 5);
    // A stage upon a stage costs what that has.
    let chain = "FROM scratch AS a\nCOPY dir /d/\nFROM a AS b\nFROM b AS c\nFROM c\n";
    let error = limited(chain, 15).unwrap_err();
    assert!(
        matches!(&error, PlanError::Copy { at, .. } if at.line == 5),
        "{error}"
    );
}

#[test]
fn a_path_no_system_can_open_is_refused() {
    let project = project();
    let deep = format!("FROM scratch\nCOPY a.txt /{}\n", "long/".repeat(820));
    let error = build(&project, &deep).unwrap_err();
    assert!(error.contains("4095 are possible"), "{error}");
    assert!(error.contains("shorten the destination"), "{error}");
}

/// A registry with every image that is asked for, which notes what it was asked for.
#[derive(Default)]
struct Asked(std::cell::RefCell<Vec<String>>);

type Failed = Box<dyn std::error::Error + Send + Sync>;

impl BaseSource for Asked {
    fn image(&self, reference: &str, _: &oci::Platform) -> Result<Option<BaseImage>, Failed> {
        self.0.borrow_mut().push(reference.to_owned());
        Ok(None)
    }

    fn accounts(&self, _: &BaseImage) -> Result<Looked<Accounts>, Failed> {
        Ok(Looked::Later)
    }
}

#[test]
fn a_base_that_is_named_counts_whatever_from_says() {
    let project = project();
    let asked = |text: &str| {
        let dockerfile = Dockerfile::parse("Dockerfile", text).unwrap();
        let options = Options {
            base: BaseChoice::Image("debian:12".into()),
            ..Options::default()
        };
        let named = base_images(&dockerfile, &options).unwrap();
        assert_eq!(named, [("debian:12".into(), options.platform.clone())]);
        let registry = Asked::default();
        let plan = plan(&dockerfile, &project.context(), &options, &registry).unwrap();
        assert!(matches!(&plan.base, PlannedBase::Unavailable(name) if name == "debian:12"));
        // Its directories may be links: `bin` is none of ours.
        let paths = plan.layers.iter().flat_map(|layer| &layer.files);
        let paths: Vec<_> = paths.map(|file| file.path.clone()).collect();
        assert!(!paths.contains(&"/bin".into()), "{paths:?}");
        registry.0.take()
    };
    assert_eq!(asked("FROM alpine\nCOPY a.txt /bin/\n"), ["debian:12"]);
    assert_eq!(asked("FROM scratch\nCOPY a.txt /bin/\n"), ["debian:12"]);
    let stages = "FROM scratch AS one\nCOPY a.txt /bin/\nFROM scratch AS files\nCOPY b.txt /\n\
                  FROM one\nCOPY --from=files / /srv/\n";
    assert_eq!(asked(stages), ["debian:12"]);
}
