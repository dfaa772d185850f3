//! The same Dockerfiles through this crate and through a real Docker Engine: what they yield must
//! be the same files, with modes, owners and links, and the same configuration.
//!
//! Docker leaves a file the time that it has in the context, and we give all of them one: the context
//! of these tests has that time, so that times can be compared as well.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod common;
mod corpus;

mod real_engine {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::time::{Duration, UNIX_EPOCH};

    use deploy_image::{
        Accounts, BaseChoice, BaseImage, BaseSource, Cache, Compression, DEFAULT_EPOCH, Dockerfile,
        Image, LayerReport, Looked, Options, assemble, plan, write_docker_archive,
    };
    use oci::{Descriptor, ImageConfig, Platform};
    use serde_json::Value;

    use crate::common::docker::{Docker, Theirs};
    use crate::common::tree::{Times, Tree, apply, differences, note_times};
    use crate::common::{Project, compile};
    use crate::corpus::{FILES, GRAMMAR, IGNORES, MODERN, REFUSED, SAME, STRICTER};

    /// In the Dockerfiles; each test has a tag of its own.
    const BASE: &str = "deploy-image-test-base:1";
    const BASE_FILES: &str = "FROM scratch\nCOPY base/ /\nCOPY script.sh /usr/bin/tool\n\
        WORKDIR /srv/base\nENV PATH=/usr/bin BASE=yes\nLABEL from=base\nENTRYPOINT [\"/usr/bin/tool\"]\n\
        CMD [\"of\", \"base\"]\nUSER 7\nEXPOSE 1\n";

    /// The files that the Dockerfiles above copy.
    fn project() -> Project {
        let project = Project::new();
        for (path, content) in [
            ("a.txt", "a"),
            ("b.txt", ""),
            ("script.sh", "#!/bin/sh\n"),
            ("dir/one", "1"),
            ("dir/two", "2"),
            ("dir/sub/three", "3"),
            (".hidden", "h"),
            ("with space.txt", "s"),
            ("weird[1].txt", "w"),
            ("ü.txt", "u"),
            ("docs/public.md", "p"),
            ("docs/internal.md", "i"),
            ("docs/other", "o"),
            ("secret/key", "k"),
            ("secret/shown/x", "x"),
            (
                ".dockerignore",
                "Dockerfile*\n.dockerignore\nsecret\n!secret/shown\n**/internal.md\n",
            ),
            (
                "base/etc/passwd",
                "root:x:0:0::/:/x\napp:x:1234:1235::/:/x\n",
            ),
            ("base/etc/group", "root:x:0:\nstaff:x:50:\n"),
        ] {
            project.write(path, content);
        }
        for directory in [
            "empty",
            "links",
            "base/tmp",
            "base/usr/bin",
            "base/opt",
            "base/usr/lib",
        ] {
            fs::create_dir_all(project.root().join(directory)).unwrap();
        }
        for (target, link) in [
            ("one", "dir/link"),
            ("dir", "linkdir"),
            ("a.txt", "linkfile"),
        ] {
            symlink(target, project.root().join(link)).unwrap();
        }
        symlink("usr/bin", project.root().join("base/bin")).unwrap();
        symlink("/etc/hostname", project.root().join("links/absolute")).unwrap();
        project.chmod("script.sh", 0o755);
        // In every test: an engine that has met the same content before takes it, and its time, from
        // its cache.
        project.set_times(UNIX_EPOCH + Duration::from_secs(DEFAULT_EPOCH));
        project
    }

    /// Gives the one base image of these tests.
    #[derive(Default)]
    struct Base(Option<BaseImage>, Accounts);

    impl BaseSource for Base {
        fn image(
            &self,
            _: &str,
            _: &Platform,
        ) -> Result<Option<BaseImage>, Box<dyn std::error::Error + Send + Sync>> {
            Ok(self.0.clone())
        }

        fn accounts(
            &self,
            _: &BaseImage,
        ) -> Result<Looked<Accounts>, Box<dyn std::error::Error + Send + Sync>> {
            Ok(Looked::Found(self.1.clone()))
        }
    }

    fn ours(project: &Project, base: &Base, text: &str) -> Result<Image, String> {
        let dockerfile =
            Dockerfile::parse("Dockerfile", text).map_err(|error| error.to_string())?;
        let plan = plan(&dockerfile, &project.context(), &Options::default(), base)
            .map_err(|error| error.to_string())?;
        assemble(&plan, &project.store(), &mut Cache::none()).map_err(|error| error.to_string())
    }

    fn our_tree(project: &Project, image: &Image) -> Tree {
        let mut tree = Tree::new();
        for layer in &image.layers {
            apply(&mut tree, open(project, image, layer));
        }
        tree
    }

    /// A layer's bytes: its own, or those of the base in the store.
    fn open<'i>(project: &Project, image: &'i Image, layer: &LayerReport) -> Box<dyn Read + 'i> {
        match image.sources.get(&layer.digest) {
            Some(own) => Box::new(own.open_at(0).unwrap()),
            None => Box::new(project.store().open_blob(&layer.digest).unwrap()),
        }
    }

    /// Makes the base image here and loads it into the engine.
    fn base(docker: &Docker, project: &Project, name: &str) -> Base {
        let image = ours(project, &Base::default(), BASE_FILES).unwrap();
        let archive = project.path("base.tar");
        let file = fs::File::create(&archive).unwrap();
        write_docker_archive(&image, &[name.to_owned()], file).unwrap();
        docker.load(archive.to_str().unwrap(), name);
        // As a base its layers are those of a registry: somewhere else than the project's files.
        let store = project.store();
        for source in image.sources.values() {
            let mut blob = store.begin().unwrap();
            std::io::copy(&mut source.open_at(0).unwrap(), &mut blob).unwrap();
            blob.commit(None).unwrap();
        }
        let read = |path: &str| fs::read_to_string(project.root().join(path)).unwrap();
        let accounts = Accounts {
            passwd: read("base/etc/passwd"),
            group: read("base/etc/group"),
        };
        let layers = image
            .layers
            .iter()
            .map(|layer| Descriptor::new(layer.media_type.clone(), layer.digest, layer.size));
        let layers = layers.collect();
        let image = BaseImage {
            reference: name.into(),
            digest: Some(image.digest),
            config: image.config,
            layers,
        };
        Base(Some(image), accounts)
    }

    /// Configuration as both write it: what is empty is absent.
    fn comparable(config: &Value) -> Value {
        const FIELDS: [&str; 11] = [
            "User",
            "ExposedPorts",
            "Env",
            "Entrypoint",
            "Cmd",
            "Volumes",
            "WorkingDir",
            "Labels",
            "StopSignal",
            "Healthcheck",
            "Shell",
        ];
        let empty = |value: &Value| match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        };
        let present = FIELDS.iter().filter(|field| !empty(&config[**field]));
        present
            .map(|field| ((*field).to_owned(), config[*field].clone()))
            .collect()
    }

    fn compare(project: &Project, image: &Image, theirs: &Theirs) -> Vec<String> {
        let mut found = differences(&our_tree(project, image), &theirs.tree);
        let config: Value = serde_json::from_slice(&image.config.to_vec()).unwrap();
        let (left, right) = (comparable(&config["config"]), comparable(&theirs.config));
        if left != right {
            found.push(format!("configuration: ours {left}, docker's {right}"));
        }
        let author = ImageConfig::clone(&image.config).author.unwrap_or_default();
        if author != theirs.author {
            found.push(format!("author: ours {author}, docker's {}", theirs.author));
        }
        found
    }

    /// The files of a context have one time, which is also what ours gives to all: then both agree,
    /// but for what an engine makes itself.
    fn time_differences(project: &Project, image: &Image, theirs: &Theirs) -> Vec<String> {
        let mut ours = Times::new();
        for layer in &image.layers {
            note_times(&mut ours, open(project, image, layer));
        }
        let differs = |(path, time): (&String, &u64)| {
            let found = theirs.times.get(path).filter(|theirs| *theirs != time)?;
            Some(format!("{path}: our time {time}, docker's {found}"))
        };
        ours.iter().filter_map(differs).collect()
    }

    /// Builds every Dockerfile twice and says where the images differ.
    fn check(docker: &Docker, cases: &[(&str, &str)], with_times: bool) {
        let project = project();
        // Tests that run at the same time share the engine.
        let name = format!("{BASE}{}", std::process::id());
        let base = base(docker, &project, &name);
        let mut failures = Vec::new();
        for (case, text) in cases {
            let text = text.replace(BASE, &name);
            let found = match (ours(&project, &base, &text), docker.build(&project, &text)) {
                (Ok(image), Ok(theirs)) => {
                    let mut found = compare(&project, &image, &theirs);
                    if with_times {
                        found.extend(time_differences(&project, &image, &theirs));
                    }
                    found
                }
                (Err(error), Ok(_)) => vec![format!("only docker builds it; ours: {error}")],
                (_, Err(error)) => vec![format!("docker refuses it: {error}")],
            };
            failures.extend(found.into_iter().map(|line| format!("{case}: {line}")));
        }
        assert_no_differences(&failures);
    }

    fn assert_no_differences(failures: &[String]) {
        let count = failures.len();
        assert!(
            failures.is_empty(),
            "{count} differences:\n{}",
            failures.join("\n")
        );
    }

    #[test]
    fn the_same_dockerfile_yields_the_same_image() {
        check(&Docker::of_this_machine(), SAME, true);
    }

    #[test]
    fn lines_variables_and_corners_of_copy_are_the_same() {
        check(&Docker::newer(), GRAMMAR, true);
    }

    /// Without times: the content of a heredoc has that of the build.
    #[test]
    fn what_newer_engines_know_is_the_same() {
        check(&Docker::newer(), MODERN, false);
    }

    #[test]
    fn ignore_files_leave_the_same() {
        let docker = Docker::newer();
        let mut failures = Vec::new();
        let project = Project::new();
        for path in FILES {
            project.write(path, path);
        }
        for (name, ignore) in IGNORES {
            project.write(".dockerignore", ignore);
            let text = "FROM scratch\nCOPY . /all/\n";
            let found = match (
                ours(&project, &Base::default(), text),
                docker.build(&project, text),
            ) {
                (Ok(image), Ok(theirs)) => compare(&project, &image, &theirs),
                (Err(error), _) => vec![format!("ours refuses it: {error}")],
                (_, Err(error)) => vec![format!("docker refuses it: {error}")],
            };
            failures.extend(found.into_iter().map(|line| format!("{name}: {line}")));
        }
        assert_no_differences(&failures);
    }

    #[test]
    fn an_image_on_this_machines_libraries_runs_in_docker() {
        let name = format!("deploy-image-test-host:{}", std::process::id());
        let docker = Docker::of_this_machine();
        let project = project();
        let program = compile(&project, "hello");
        let overlay = [("target/release/hello".into(), program)].into();
        let text = "FROM debian\nCOPY target/release/hello /app/bin/\nUSER 1000:1000\nWORKDIR /app\n\
                    ENTRYPOINT [\"/app/bin/hello\"]\n";
        let dockerfile = Dockerfile::parse("Dockerfile", text).unwrap();
        let context = project.context().with_overlay(overlay);
        for compression in [Compression::None, Compression::Gzip(1)] {
            let options = Options {
                base: BaseChoice::Host,
                compression,
                ..Options::default()
            };
            let plan = plan(&dockerfile, &context, &options, &Base::default()).unwrap();
            let image = assemble(&plan, &project.store(), &mut Cache::none()).unwrap();
            let archive = project.path("image.tar");
            let file = fs::File::create(&archive).unwrap();
            write_docker_archive(&image, std::slice::from_ref(&name), file).unwrap();
            docker.load(archive.to_str().unwrap(), &name);
            let output = docker.run(&["run", "--rm", "--network=none", &name]);
            docker.run(&["rmi", "-f", &name]).unwrap();
            assert_eq!(
                String::from_utf8_lossy(&output.unwrap().stdout),
                "hello from inside\n"
            );
        }
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        let docker = Docker::newer();
        let project = project();
        let mut failures = Vec::new();
        for (name, text) in REFUSED {
            if ours(&project, &Base::default(), text).is_ok() {
                failures.push(format!("{name}: ours builds it"));
            }
            if docker.build(&project, text).is_ok() {
                failures.push(format!("{name}: docker builds it"));
            }
        }
        assert_no_differences(&failures);
    }

    /// Docker builds these, at least of late, and what comes out is hardly what was meant.
    #[test]
    fn what_docker_makes_something_else_of_is_refused() {
        let docker = Docker::newer();
        let project = project();
        for (name, text) in STRICTER {
            let error = ours(&project, &Base::default(), text).err();
            assert!(error.is_some(), "{name}: ours builds it");
            let built = docker.build(&project, text);
            assert!(
                built.is_ok(),
                "{name}: docker refuses it, too: move it to REFUSED"
            );
        }
    }
}
