//! `--policy guarded`: an image is used again only if a build would make the same one.

use testkit::aramb::Generation;

use crate::shop::Shop;

const GUARDED: [&str; 2] = ["--policy", "guarded"];

/// The second build stands on the image of the first.
const STACKED: &str = r#"[[services]]
uniqueIdentifier = 101
name = "base-build"
type = "build"
[services.configuration.settings]
buildPath = "backend"
dockerfile = "Dockerfile"

[[services]]
uniqueIdentifier = 102
name = "web-build"
type = "build"
[services.configuration.settings]
buildPath = "web"
[[services.configuration.vars]]
key = "BASE"
value = "${101.outputs.IMAGE_URL}"

[[services]]
uniqueIdentifier = 103
name = "api"
type = "backend"
[services.configuration.settings]
image = "${101.outputs.IMAGE_URL}"

[[services]]
uniqueIdentifier = 104
name = "web"
type = "frontend"
[services.configuration.settings]
image = "${102.outputs.IMAGE_URL}"
"#;

fn shop() -> Shop {
    let shop = Shop::with_front_end(Generation::New, STACKED);
    shop.deploy(&GUARDED).expect_success();
    shop
}

/// Deploys; which builds that took.
#[track_caller]
fn check(shop: &Shop, arguments: &[&str], expected: &[&str]) {
    shop.double.forget();
    shop.deploy(&[&GUARDED[..], arguments].concat())
        .expect_success();
    let builds = shop.double.calls_of("build").into_iter();
    let mut built: Vec<_> = builds
        .map(|call| call.flag("--name").unwrap().to_owned())
        .collect();
    built.sort();
    let expected: Vec<_> = expected
        .iter()
        .map(|name| format!("my-app/{name}"))
        .collect();
    assert_eq!(built, expected);
}

#[test]
fn who_takes_an_image_is_built_with_it() {
    let shop = shop();
    check(&shop, &[], &[]);
    shop.write("backend/main.c", "1");
    shop.commit("base");
    // First alone, so that it is not new any more when the other is looked at.
    check(&shop, &["--services", "api"], &["base-build"]);
    check(&shop, &[], &["web-build"]);
    shop.write("backend/main.c", "2");
    shop.commit("base again");
    check(&shop, &[], &["base-build", "web-build"]);
    check(&shop, &[], &[]);
}

#[test]
fn what_the_file_says_counts_whole() {
    let shop = shop();
    // Neither is a value that we know.
    for (old, new) in [
        ("\"Dockerfile\"", "\"../Dockerfile\""),
        ("key = \"BASE\"", "key = \"FROM\""),
    ] {
        let file = shop.file();
        assert!(file.contains(old));
        shop.write("aramb.toml", file.replace(old, new));
        // Who takes the image of another is made of other things as soon as that is.
        let both = ["base-build", "web-build"];
        let is_variable = new.starts_with("key");
        check(&shop, &[], if is_variable { &both[1..] } else { &both });
    }
}

#[test]
fn files_that_git_ignores_count_unless_docker_ignores_them_too() {
    let shop = shop();
    shop.write(".gitignore", "dist/\n.env\n");
    shop.commit("ignore");
    check(&shop, &[], &[]);
    shop.write("web/dist/index.html", "1");
    shop.write("web/.env", "A=1");
    for _ in 0..2 {
        check(&shop, &[], &["web-build"]);
    }
    shop.write("web/.dockerignore", "dist\n");
    shop.commit("half");
    for _ in 0..2 {
        check(&shop, &[], &["web-build"]);
    }
    shop.write("web/.dockerignore", "dist\n.env\n");
    shop.commit("whole");
    check(&shop, &[], &["web-build"]);
    check(&shop, &[], &[]);
}
