//! `--builder native` beside the `aramb` command: the image of a package is made without a Dockerfile, and is where the command
//! leaves those that it builds.

use std::fs;

use testkit::DockerEngine;
use testkit::aramb::{APPLICATION, Double, Generation};
use testkit::workspace::{Layout, Workspace};

use crate::world::XTASK;

const FILE: &str = r#"[[services]]
uniqueIdentifier = 101
name = "api-build"
type = "build"
[services.configuration.settings]
buildPath = "api"

[[services]]
uniqueIdentifier = 102
name = "page-build"
type = "build"
[services.configuration.settings]
buildPath = "page"

[[services]]
uniqueIdentifier = 103
name = "api"
type = "backend"
[services.configuration.settings]
image = "${101.outputs.IMAGE_URL}"
commandPort = 8080
publicNet = true

[[services]]
uniqueIdentifier = 104
name = "page"
type = "frontend"
[services.configuration.settings]
image = "${102.outputs.IMAGE_URL}"
"#;

/// The package takes another that is beside it.
fn shop() -> Workspace {
    let shop = Workspace::laid_out(&Layout::default());
    fs::remove_dir_all(shop.root().join(".systemprompt")).unwrap();
    for (folder, more) in [
        ("api", "[dependencies]\nwords = { path = \"../words\" }\n"),
        ("words", ""),
    ] {
        let package = format!(
            "[package]\nname = \"{folder}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n{more}\n[workspace]\n"
        );
        shop.write(&format!("{folder}/Cargo.toml"), &package);
    }
    shop.write("words/src/lib.rs", "pub const WORDS: &str = \"hello\";\n");
    shop.write(
        "api/src/main.rs",
        "fn main() { println!(\"{}\", words::WORDS); }\n",
    );
    shop.write("page/Dockerfile", "FROM scratch\n");
    shop.write("aramb.toml", FILE);
    shop.commit_everything("open a shop");
    shop
}

#[test]
fn a_package_becomes_an_image_of_dockers_and_all_else_is_built_by_the_command() {
    let engine = DockerEngine::get();
    let shop = shop();
    let double = Double::new(Generation::Old);
    double.is_quick();
    let slug = format!("native-{}", std::process::id());
    double.knows_application(APPLICATION, &slug);
    let path = double.path_variable();
    let token = testkit::management::token_that_ends(std::time::SystemTime::now());
    let variables = [
        ("PATH", path.to_str().unwrap()),
        ("DOCKER_HOST", engine.host()),
        ("APPLICATION_ID", APPLICATION),
        ("ARAMB_API_TOKEN", &token),
        ("BUILDKIT_HOST", "tcp://127.0.0.1:1234"),
    ];
    let deploy = || {
        let arguments = ["deploy", "--builder", "native", "--policy", "guarded"];
        double.forget();
        let deployed = shop.xtask(XTASK, &arguments, &variables);
        deployed.expect_success();
        let image = format!("{slug}/api-build:{}", shop.commit_id());
        let given = double.given().pop().unwrap();
        assert!(
            String::from_utf8_lossy(&given).contains(&image),
            "{deployed}"
        );
        assert_eq!(shop.read("aramb.toml"), FILE);
        let builds = double.calls_of("build").into_iter();
        let builds: Vec<_> = builds
            .map(|call| call.flag("--name").unwrap().to_owned())
            .collect();
        let ran = engine.docker(["run", "--rm", "--network", "none", &image]);
        engine
            .docker(["image", "rm", "--force", &image])
            .expect_success();
        (builds, ran.stdout)
    };
    // Of a run that was killed.
    let mut ended = std::process::Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let left = format!(".systemprompt/cache/docker.tar.{}.new", ended.id());
    shop.write(&left, "");
    let page = format!("{slug}/page-build");
    assert_eq!(deploy(), (vec![page], "hello\n".to_owned()));
    assert!(!shop.root().join(&left).exists());
    // What its folder does not hold is new, and so is its image. The other has not changed.
    shop.write("words/src/lib.rs", "pub const WORDS: &str = \"bye\";\n");
    shop.commit_everything("leave");
    assert_eq!(deploy(), (vec![], "bye\n".to_owned()));
}
