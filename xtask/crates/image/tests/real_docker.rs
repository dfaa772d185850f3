//! The same Dockerfiles through this crate and through a real Docker Engine: what they yield must
//! be the same files, with modes, owners and links, and the same configuration.
//!
//! Files get the time of the build from Docker and a fixed one from us, so times are not compared.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod common;

mod real_engine {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};
    use std::process::{Command, Output};

    use deploy_image::{
        Accounts, BaseChoice, BaseImage, BaseSource, Cache, Compression, Dockerfile, Image, Looked,
        Options, assemble, plan, write_docker_archive,
    };
    use oci::{Descriptor, ImageConfig, Platform};
    use serde_json::Value;

    use crate::common::tree::{Tree, apply, differences};
    use crate::common::{Project, compile};

    const BASE: &str = "deploy-image-test-base:1";
    const BASE_FILES: &str = "FROM scratch\nCOPY base/ /\nCOPY script.sh /usr/bin/tool\n\
        WORKDIR /srv/base\nENV PATH=/usr/bin BASE=yes\nLABEL from=base\nENTRYPOINT [\"/usr/bin/tool\"]\n\
        CMD [\"of\", \"base\"]\nUSER 7\nEXPOSE 1\n";

    /// Dockerfiles that both must build to the same image.
    const SAME: &[(&str, &str)] = &[
        ("file to directory", "FROM scratch\nCOPY a.txt /x/\n"),
        ("file to file", "FROM scratch\nCOPY a.txt /x/y\n"),
        ("file to root", "FROM scratch\nCOPY a.txt /\n"),
        (
            "relative destination",
            "FROM scratch\nWORKDIR /w\nCOPY a.txt .\nCOPY b.txt sub/\n",
        ),
        (
            "dot destination",
            "FROM scratch\nWORKDIR /w\nCOPY a.txt ./\nCOPY dir ./dir/.\n",
        ),
        ("two files", "FROM scratch\nCOPY a.txt b.txt /x/\n"),
        ("directory contents", "FROM scratch\nCOPY dir /x\n"),
        (
            "directory contents with slash",
            "FROM scratch\nCOPY dir/ /x/\n",
        ),
        ("directory to root", "FROM scratch\nCOPY dir /\n"),
        ("whole context", "FROM scratch\nCOPY . /all/\n"),
        ("nested directory", "FROM scratch\nCOPY dir/sub /deep/er/\n"),
        ("directory and file", "FROM scratch\nCOPY dir a.txt /x/\n"),
        ("empty directory", "FROM scratch\nCOPY empty /x/\n"),
        ("star", "FROM scratch\nCOPY *.txt /x/\n"),
        (
            "copied system directories",
            "FROM scratch\nCOPY base /\nWORKDIR /var/tmp\n",
        ),
        ("star in directory", "FROM scratch\nCOPY dir/* /x/\n"),
        ("star matches directories", "FROM scratch\nCOPY d* /x/\n"),
        ("question mark", "FROM scratch\nCOPY ?.txt /x/\n"),
        ("class", "FROM scratch\nCOPY [ab].txt /x/\n"),
        ("negated class", "FROM scratch\nCOPY [^b].txt /x/\n"),
        ("escaped bracket", "FROM scratch\nCOPY weird[[]1].txt /x/\n"),
        ("star between", "FROM scratch\nCOPY dir/s*/three /x/\n"),
        ("hidden files", "FROM scratch\nCOPY .hid* /x/\n"),
        (
            "json form",
            "FROM scratch\nCOPY [\"with space.txt\", \"/x y/\"]\n",
        ),
        ("non-ascii", "FROM scratch\nCOPY ü.txt /ö/\n"),
        ("link to file", "FROM scratch\nCOPY linkfile /x/\n"),
        ("link to directory", "FROM scratch\nCOPY linkdir /x/\n"),
        (
            "link inside directory",
            "FROM scratch\nCOPY dir /x/\nCOPY a.txt /x/link\n",
        ),
        ("ignored files", "FROM scratch\nCOPY docs /x/\n"),
        (
            "ignored directory with exception",
            "FROM scratch\nCOPY secret /x/\n",
        ),
        (
            "chown numbers",
            "FROM scratch\nCOPY --chown=1000:1001 dir /x/\n",
        ),
        (
            "chown user only",
            "FROM scratch\nCOPY --chown=1000 a.txt /new/dir/\n",
        ),
        (
            "chown group only",
            "FROM scratch\nCOPY --chown=:1001 a.txt /new/dir/\n",
        ),
        ("chmod file", "FROM scratch\nCOPY --chmod=0750 a.txt /x/\n"),
        (
            "chmod directory",
            "FROM scratch\nCOPY --chmod=0700 dir /x/\n",
        ),
        (
            "later file wins",
            "FROM scratch\nCOPY a.txt /x\nCOPY b.txt /x\n",
        ),
        (
            "merged directories",
            "FROM scratch\nCOPY dir /x/\nCOPY docs /x/\n",
        ),
        (
            "owner of parents stays",
            "FROM scratch\nCOPY a.txt /p/a\nCOPY --chown=5 b.txt /p/b\n",
        ),
        (
            "copy onto own directory",
            "FROM scratch\nCOPY dir /x\nCOPY a.txt /x\n",
        ),
        (
            "system directories",
            "FROM scratch\nCOPY a.txt /tmp/\nCOPY --chown=3 b.txt /usr/bin/\n",
        ),
        (
            "workdir makes directories",
            "FROM scratch\nWORKDIR /a/b\nWORKDIR c\nWORKDIR ../d\n",
        ),
        (
            "workdir of user",
            "FROM scratch\nUSER 1000:50\nWORKDIR /home/app\n",
        ),
        (
            "workdir of user without group",
            "FROM scratch\nUSER 1000\nWORKDIR /home/app/x\n",
        ),
        (
            "workdir exists",
            "FROM scratch\nCOPY --chown=9 dir /x/\nUSER 4\nWORKDIR /x\n",
        ),
        (
            "workdir with variable",
            "FROM scratch\nENV D=/data\nWORKDIR $D/${E:-x}\nCOPY a.txt .\n",
        ),
        (
            "volume",
            "FROM scratch\nCOPY a.txt /x/\nVOLUME /data /x\nVOLUME [\"/j son\"]\n",
        ),
        (
            "env forms",
            "FROM scratch\nENV A=1 B=\"two words\" C=a\\ b\nENV D some old form\nENV A=2\n",
        ),
        (
            "env quotes",
            "FROM scratch\nENV A='$X' B=\"$PATH:/x\" C=\"say \\\"hi\\\"\" D=\n",
        ),
        (
            "env does not see itself",
            "FROM scratch\nENV A=1\nENV A=2 B=$A C=${A}x\n",
        ),
        (
            "env defaults",
            "FROM scratch\nENV E=\nENV A=${U:-d} B=${E:-d} C=${A:+a} F=${PATH:+p}\n",
        ),
        (
            "env escapes",
            "FROM scratch\nENV A=\\$PATH B=\"\\$PATH\" C='\\$' D=a\\\\b\n",
        ),
        (
            "arg",
            "ARG G=global\nFROM scratch\nARG G\nARG L=local\nARG N\nENV A=$G B=$L C=$N D=$U\n",
        ),
        (
            "arg default of arg",
            "FROM scratch\nARG A=1\nARG B=${A}2\nENV X=$B\nCOPY ${A:+a.txt} /x/\n",
        ),
        (
            "global arg is not in scope",
            "ARG G=global\nFROM scratch\nENV A=${G:-unset}\n",
        ),
        (
            "env over arg",
            "FROM scratch\nARG A=arg\nENV A=env\nENV B=$A\n",
        ),
        (
            "platform arguments",
            "FROM scratch\nARG TARGETARCH\nARG TARGETOS\nENV P=$TARGETOS/$TARGETARCH\n",
        ),
        (
            "label",
            "FROM scratch\nLABEL a=1 \"b c\"=\"d e\"\nLABEL multi=\"x \\\n  y\"\nENV V=v\nLABEL e=$V\n",
        ),
        (
            "expose",
            "FROM scratch\nEXPOSE 80 53/udp\nEXPOSE 8000-8002/tcp\nENV P=90\nEXPOSE $P\n",
        ),
        ("cmd exec", "FROM scratch\nCMD [\"a\", \"$B\"]\n"),
        ("cmd shell", "FROM scratch\nCMD echo  $HOME \"x\"\n"),
        (
            "entrypoint and cmd",
            "FROM scratch\nENTRYPOINT [\"e\"]\nCMD [\"c\"]\n",
        ),
        (
            "cmd before entrypoint",
            "FROM scratch\nCMD [\"c\"]\nENTRYPOINT [\"e\"]\n",
        ),
        (
            "shell",
            "FROM scratch\nSHELL [\"/bin/x\", \"-y\"]\nCMD a b\nENTRYPOINT c\n",
        ),
        (
            "shell after cmd",
            "FROM scratch\nCMD a\nSHELL [\"/bin/x\"]\n",
        ),
        (
            "healthcheck",
            "FROM scratch\nHEALTHCHECK --interval=1m --timeout=2s --start-period=3s --retries=4 CMD [\"x\", \"y\"]\n",
        ),
        (
            "healthcheck shell",
            "FROM scratch\nSHELL [\"/s\"]\nHEALTHCHECK CMD curl $X || exit 1\n",
        ),
        ("healthcheck none", "FROM scratch\nHEALTHCHECK NONE\n"),
        ("stopsignal", "FROM scratch\nSTOPSIGNAL SIGQUIT\n"),
        ("user", "FROM scratch\nENV U=12\nUSER $U:13\n"),
        (
            "maintainer",
            "FROM scratch\nMAINTAINER Some One <some@example.org>\n",
        ),
        (
            "case and comments",
            "# c\nfrom scratch\n  # c\ncOpY a.txt \\\n# inside\n\n   b.txt \\\n /x/\n",
        ),
        (
            "escape directive",
            "# escape=`\nFROM scratch\nCOPY a.txt `\n  /x/\nENV A=a\\b B=`$C\n",
        ),
        (
            "windows line ends",
            "FROM scratch\r\nCOPY a.txt \\\r\n  /x/\r\nENV A=b\r\n",
        ),
        ("tabs", "FROM\tscratch\nCOPY\ta.txt\t\t/x/\nENV\tA=b\tC=d\n"),
        (
            "stages",
            "FROM scratch AS one\nCOPY --chown=5:6 dir /x/\nCOPY --chmod=0600 a.txt /y\nFROM scratch\nCOPY --from=one /x/sub /z/\nCOPY --from=0 /y /x/o* /w/\n",
        ),
        (
            "stage owners change",
            "FROM scratch AS one\nCOPY --chown=5 a.txt /y\nFROM scratch\nCOPY --from=one --chown=8:9 /y /z\n",
        ),
        (
            "stage on stage",
            "FROM scratch AS one\nARG A=1\nENV E=e\nCOPY a.txt /x\nCMD [\"c\"]\nFROM one\nENV B=$A$E\nENTRYPOINT [\"e\"]\nCOPY b.txt /y\n",
        ),
        (
            "unused stage",
            "FROM scratch AS unused\nCOPY no-such-file /x\nFROM scratch\nCOPY a.txt /x\n",
        ),
        (
            "stage by variable",
            "ARG S=one\nFROM scratch AS one\nCOPY a.txt /x\nFROM ${S}\nCOPY b.txt /y\n",
        ),
        ("add of files", "FROM scratch\nADD a.txt dir /x/\n"),
        (
            "base image",
            "FROM deploy-image-test-base:1\nCOPY a.txt /app/\n",
        ),
        (
            "base image configuration",
            "FROM deploy-image-test-base:1\nENV PATH=/x:$PATH\nLABEL own=1\nCMD [\"own\"]\nEXPOSE 2\n",
        ),
        (
            "base image entrypoint",
            "FROM deploy-image-test-base:1\nENTRYPOINT [\"own\"]\n",
        ),
        (
            "base image names",
            "FROM deploy-image-test-base:1\nCOPY --chown=app:staff a.txt /app/\nCOPY --chown=app b.txt /app/\n",
        ),
        (
            "base image user",
            "FROM deploy-image-test-base:1\nUSER app\nWORKDIR /work\n",
        ),
        (
            "base image workdir",
            "FROM deploy-image-test-base:1\nCOPY a.txt .\nWORKDIR more\n",
        ),
        (
            "base image linked directory",
            "FROM deploy-image-test-base:1\nCOPY script.sh /usr/bin/\nCOPY a.txt /tmp/x/\n",
        ),
        (
            "base image directory without slash",
            "FROM deploy-image-test-base:1\nCOPY script.sh /usr/bin\n",
        ),
        (
            "own passwd",
            "FROM scratch\nCOPY base/etc/passwd /etc/passwd\nCOPY base/etc/group /etc/group\nCOPY --chown=app:staff a.txt /x/\n",
        ),
        (
            "unmatched pattern beside a file",
            "FROM scratch\nCOPY a.txt no-such-* /x/\n",
        ),
        ("add unknown suffix", "FROM scratch\nADD b.txt /x/y.tar\n"),
    ];

    /// Dockerfiles that both must refuse.
    const REFUSED: &[(&str, &str)] = &[
        ("missing file", "FROM scratch\nCOPY no-such-file /x\n"),
        ("ignored file", "FROM scratch\nCOPY docs/internal.md /x\n"),
        (
            "missing in stage",
            "FROM scratch AS one\nCOPY a.txt /x\nFROM scratch\nCOPY --from=one /y /y\n",
        ),
        (
            "directory over file",
            "FROM scratch\nCOPY a.txt /x\nCOPY dir /x\n",
        ),
        (
            "file over directory",
            "FROM scratch\nCOPY dir /x/one/\nCOPY dir /y/\nCOPY a.txt /y/sub/three/x\n",
        ),
        ("unknown instruction", "FROM scratch\nCOPPY a b\n"),
        ("no from", "COPY a.txt /x\n"),
        ("unknown flag", "FROM scratch\nCOPY --what=1 a.txt /x\n"),
        ("no destination", "FROM scratch\nCOPY a.txt\n"),
        ("bad signal", "FROM scratch\nSTOPSIGNAL NOPE\n"),
        ("bad port", "FROM scratch\nEXPOSE http\n"),
        ("env without value", "FROM scratch\nENV A=1 B\n"),
        (
            "bad healthcheck",
            "FROM scratch\nHEALTHCHECK --interval=x CMD y\n",
        ),
        ("empty", "# nothing\n"),
        ("unknown owner", "FROM scratch\nCOPY --chown=bob a.txt /x\n"),
        ("bad substitution", "FROM scratch\nENV A=${B\n"),
        (
            "required variable",
            "FROM scratch\nWORKDIR ${A:?must be set}\n",
        ),
        ("empty image", "ARG I\nFROM $I\n"),
        ("stage name", "FROM scratch AS 1x\n"),
        (
            "later stage",
            "FROM scratch AS one\nCOPY --from=two /a /b\nFROM scratch AS two\nCOPY a.txt /a\nFROM one\n",
        ),
    ];

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
        symlink("/etc/hostname", project.root().join("dir/sub/absolute")).unwrap();
        project.chmod("script.sh", 0o755);
        project
    }

    /// A Docker client that can build with `BuildKit`; Debian's and Docker's differ in that.
    fn docker() -> PathBuf {
        let builds = |client: &&str| {
            let mut version = Command::new(client);
            version.args(["version", "--format", "{{.Server.Version}}"]);
            let mut help = Command::new(client);
            help.args(["build", "--help"]).env("DOCKER_BUILDKIT", "1");
            [version, help]
                .iter_mut()
                .all(|command| command.output().is_ok_and(|output| output.status.success()))
        };
        let found = ["docker", "/usr/bin/docker"]
            .into_iter()
            .find(|client| builds(client));
        found
            .expect("a Docker Engine is missing: run `cargo xtask test --setup`")
            .into()
    }

    fn run(command: &mut Command) -> Result<Output, String> {
        let output = command
            .env("DOCKER_BUILDKIT", "1")
            .output()
            .map_err(|error| error.to_string())?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(output)
        } else {
            Err(error)
        }
    }

    struct Theirs {
        tree: Tree,
        config: Value,
        author: String,
    }

    fn build_with_docker(docker: &Path, project: &Project, text: &str) -> Result<Theirs, String> {
        let file = project.path("Dockerfile.case");
        fs::write(&file, text).unwrap();
        let mut build = Command::new(docker);
        build
            .args(["build", "-q", "-f"])
            .arg(&file)
            .arg(project.root());
        let id = String::from_utf8(run(&mut build)?.stdout)
            .unwrap()
            .trim()
            .to_owned();
        let inspected = run(Command::new(docker).args(["inspect", &id]))?.stdout;
        let inspected: Value = serde_json::from_slice(&inspected).unwrap();
        // Docker cannot save an image without layers.
        let empty = inspected[0]["RootFS"]["Layers"]
            .as_array()
            .is_none_or(Vec::is_empty);
        let tree = if empty {
            Tree::new()
        } else {
            saved_tree(docker, project, &id)?
        };
        run(Command::new(docker).args(["rmi", "-f", &id]))?;
        Ok(Theirs {
            tree,
            config: inspected[0]["Config"].clone(),
            author: inspected[0]["Author"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        })
    }

    fn saved_tree(docker: &Path, project: &Project, id: &str) -> Result<Tree, String> {
        let (saved, folder) = (project.path("saved.tar"), project.path("saved"));
        run(Command::new(docker)
            .args(["save", "-o"])
            .arg(&saved)
            .arg(id))?;
        if folder.exists() {
            fs::remove_dir_all(&folder).unwrap();
        }
        tar::Archive::new(fs::File::open(saved).unwrap())
            .unpack(&folder)
            .unwrap();
        let manifest: Value =
            serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
        let mut tree = Tree::new();
        for layer in manifest[0]["Layers"].as_array().unwrap() {
            let path = folder.join(layer.as_str().unwrap());
            apply(&mut tree, fs::File::open(path).unwrap());
        }
        Ok(tree)
    }

    /// Gives the one base image of these tests.
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
            match image.sources.get(&layer.digest) {
                Some(own) => apply(&mut tree, own.open_at(0).unwrap()),
                None => apply(&mut tree, project.store().open_blob(&layer.digest).unwrap()),
            }
        }
        tree
    }

    /// Makes the base image here and loads it into the engine.
    fn base(docker: &Path, project: &Project) -> Base {
        let image = ours(project, &Base(None, Accounts::default()), BASE_FILES).unwrap();
        let archive = project.path("base.tar");
        let file = fs::File::create(&archive).unwrap();
        write_docker_archive(&image, &[BASE.to_owned()], file).unwrap();
        run(Command::new(docker).args(["load", "-i"]).arg(&archive)).unwrap();
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
            reference: BASE.into(),
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

    #[test]
    fn the_same_dockerfile_yields_the_same_image() {
        let docker = docker();
        let project = project();
        let base = base(&docker, &project);
        let mut failures = Vec::new();
        for (name, text) in SAME {
            let found = match (
                ours(&project, &base, text),
                build_with_docker(&docker, &project, text),
            ) {
                (Ok(image), Ok(theirs)) => compare(&project, &image, &theirs),
                (Err(error), Ok(_)) => vec![format!("only docker builds it; ours: {error}")],
                (_, Err(error)) => vec![format!("docker refuses it: {error}")],
            };
            failures.extend(found.into_iter().map(|line| format!("{name}: {line}")));
        }
        run(Command::new(&docker).args(["rmi", "-f", BASE])).unwrap();
        assert!(
            failures.is_empty(),
            "{} differences:\n{}",
            failures.len(),
            failures.join("\n")
        );
    }

    #[test]
    fn an_image_on_this_machines_libraries_runs_in_docker() {
        const NAME: &str = "deploy-image-test-host:1";
        let docker = docker();
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
            let plan = plan(
                &dockerfile,
                &context,
                &options,
                &Base(None, Accounts::default()),
            )
            .unwrap();
            let image = assemble(&plan, &project.store(), &mut Cache::none()).unwrap();
            let archive = project.path("image.tar");
            let file = fs::File::create(&archive).unwrap();
            write_docker_archive(&image, &[NAME.to_owned()], file).unwrap();
            run(Command::new(&docker).args(["load", "-i"]).arg(&archive)).unwrap();
            let output = run(Command::new(&docker).args(["run", "--rm", "--network=none", NAME]));
            run(Command::new(&docker).args(["rmi", "-f", NAME])).unwrap();
            assert_eq!(
                String::from_utf8_lossy(&output.unwrap().stdout),
                "hello from inside\n"
            );
        }
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        let docker = docker();
        let project = project();
        let mut failures = Vec::new();
        for (name, text) in REFUSED {
            if ours(&project, &Base(None, Accounts::default()), text).is_ok() {
                failures.push(format!("{name}: ours builds it"));
            }
            if build_with_docker(&docker, &project, text).is_ok() {
                failures.push(format!("{name}: docker builds it"));
            }
        }
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }
}
