//! What the command is called for, what the control plane is given, and what is told of it.

use serde_json::json;
use testkit::aramb::{Call, Generation, Mishap};

use crate::shop::{FILE, Shop};

/// The commands but those that ask which command it is.
fn called(shop: &Shop) -> Vec<Call> {
    let calls = shop.double.calls().into_iter();
    let calls = calls.filter(|call| !call.command.contains("--"));
    calls.collect()
}

/// The command lines, each once: a status is asked for until it is good.
fn lines(shop: &Shop) -> Vec<String> {
    let mut lines: Vec<_> = called(shop)
        .iter()
        .map(|call| call.arguments.join(" "))
        .collect();
    lines.dedup();
    lines
}

#[test]
fn every_command_is_called_as_it_is_published() {
    for generation in Generation::ALL {
        let shop = Shop::new(generation).watched();
        let finished = shop.deploy(&[]);
        finished.expect_success();
        let (flag, sha) = (generation.from_toml(), shop.sha());
        let status = |service| format!("deploy status --service {service} --output json");
        assert_eq!(
            lines(&shop),
            [
                "applications get -i app-xyz789 -o json".to_owned(),
                format!("build --name my-app/backend-build --tag {sha}"),
                format!("deploy {flag} --yes"),
                status("postgres-db"),
                status("backend-api"),
            ]
        );
        assert_eq!(finished.stdout, "https://backend-api.aramb.dev\n");
        let calls = called(&shop);
        for call in &calls {
            let (folder, repository) = match &*call.command {
                "build" => (shop.root().join("backend"), Some("my-app/backend-build")),
                _ => (shop.root(), None),
            };
            assert_eq!(call.folder, folder, "{call:?}");
            assert_eq!(call.docker_repository.as_deref(), repository, "{call:?}");
            assert!(call.was_given("ARAMB_API_TOKEN"), "{call:?}");
        }
    }
}

#[test]
fn the_control_plane_is_given_the_image_and_the_file_is_as_before() {
    for generation in Generation::ALL {
        let shop = Shop::new(generation);
        shop.deploy(&[]).expect_success();
        let given = shop.double.given();
        let expected = FILE.replace("${101.outputs.IMAGE_URL}", &shop.image("backend-build"));
        assert_eq!(given, [expected.into_bytes()]);
        assert_eq!(shop.file(), FILE);
        assert_eq!(shop.git(&["status", "--porcelain"]).stdout, "");
    }
}

/// The document that is published for a deployment with builds, with what differs from one to the next.
#[test]
fn the_document_has_builds_and_deployments() {
    for generation in Generation::ALL {
        let shop = Shop::new(generation);
        let (finished, mut document) = shop.deploy_as_json(&[]);
        finished.expect_success();
        for time in [
            document["total_time"].take(),
            document["builds"]["backend"][0]["build_time"].take(),
        ] {
            assert!(time.as_str().unwrap().ends_with('s'), "{finished}");
        }
        let expected = json!({
            "status": "success",
            "application": {"id": "app-xyz789", "slug": "my-app"},
            "build_skipped": false,
            "builds": {
                "backend": [{
                    "service": "backend-api",
                    "build_service": "backend-build",
                    "docker_repo": "my-app/backend-build",
                    "image": shop.image("backend-build"),
                    "commit_sha": shop.sha(),
                    "build_time": null,
                    "status": "success",
                    "toml_updated": true
                }]
            },
            "deployments": {
                "services": ["postgres-db", "backend-api"],
                "status": "success",
                "backend_outputs": {
                    "PUBLIC_URL": "https://backend-api.aramb.dev",
                    "INTERNAL_URL": "http://backend-api:8080"
                },
                "successful": ["postgres-db", "backend-api"],
                "failed": []
            },
            "total_time": null
        });
        assert_eq!(document, expected, "{finished}");
    }
}

const WITHOUT_BUILDS: &str = r#"[[services]]
uniqueIdentifier = 100
name = "postgres-db"
type = "postgres"
[services.configuration.settings]
image = "postgres:15"

[[services]]
uniqueIdentifier = 102
name = "backend-api"
type = "backend"
[services.configuration.settings]
image = "my-app/backend-build:abc123"
commandPort = 8080
publicNet = true
"#;

#[test]
fn without_builds_it_is_deployed_directly() {
    for generation in Generation::ALL {
        // No commit, no application, no BuildKit: nobody asks for them.
        let shop = Shop::without_git(generation, WITHOUT_BUILDS);
        shop.lacks("APPLICATION_ID");
        shop.lacks("BUILDKIT_HOST");
        let (finished, mut document) = shop.deploy_as_json(&[]);
        finished.expect_success();
        assert!(document["total_time"].take().is_string());
        let expected = json!({
            "status": "success",
            "build_skipped": true,
            "images_built": 0,
            "deployments": {
                "services": ["postgres-db", "backend-api"],
                "status": "success",
                "backend_outputs": {
                    "PUBLIC_URL": "https://backend-api.aramb.dev",
                    "INTERNAL_URL": "http://backend-api:8080"
                },
                "successful": ["postgres-db", "backend-api"],
                "failed": []
            },
            "total_time": null
        });
        assert_eq!(document, expected, "{finished}");
        assert_eq!(shop.double.given(), [WITHOUT_BUILDS.as_bytes()]);
        assert_eq!(shop.double.calls_of("build"), []);
        assert_eq!(shop.double.calls_of("applications get"), []);
    }
}

#[test]
fn the_steps_are_told_as_they_are_taken() {
    let shop = Shop::new(Generation::Old);
    let told = shop.deploy(&[]);
    let sha = shop.sha();
    for line in [
        "✓ aramb-cli already installed (aramb version 0.4.2)".to_owned(),
        "✓ Found aramb.toml".to_owned(),
        "✓ Found build services: backend-build".to_owned(),
        "✓ Application slug: my-app".to_owned(),
        "✓ Image name: my-app/backend-build".to_owned(),
        format!("Building: my-app/backend-build:{sha}"),
        format!("✓ Built: my-app/backend-build:{sha}"),
        format!("✓ Updated aramb.toml: 101.outputs.IMAGE_URL -> my-app/backend-build:{sha}"),
        "Deploying services from aramb.toml...".to_owned(),
        "✓ Deployment initiated".to_owned(),
    ] {
        let is_there = told.stderr.lines().any(|other| other.trim() == line);
        assert!(is_there, "{line}: {told}");
    }
    let direct = Shop::with(Generation::Old, WITHOUT_BUILDS).deploy(&[]);
    direct.expect_stderr("ℹ No build services found in aramb.toml - skipping build phase");
}

#[test]
fn services_are_waited_for_one_state_after_the_other() {
    let shop = Shop::new(Generation::New);
    let on_its_way = ["pending", "building", "deploying", "completed"];
    shop.double.goes_through("backend-api", &on_its_way);
    let told = shop.deploy(&[]);
    told.expect_success();
    for state in &on_its_way[..3] {
        told.expect_stderr(&format!("backend-api: {state}"));
    }
    // Databases first.
    let looks = shop.double.calls_of("deploy status").into_iter();
    let looks: Vec<_> = looks
        .map(|call| call.flag("--service").unwrap().to_owned())
        .collect();
    assert_eq!(
        looks.iter().position(|name| name == "backend-api"),
        Some(1),
        "{looks:?}"
    );
    assert_eq!(looks.len(), 5, "{looks:?}");
}

#[test]
fn builds_are_skipped_where_the_control_plane_knows_the_images() {
    let shop = Shop::new(Generation::New);
    shop.double.resolves_images();
    shop.lacks("APPLICATION_ID");
    let (finished, document) = shop.deploy_as_json(&["--skip-build"]);
    finished.expect_success();
    assert_eq!(document["build_skipped"], true);
    assert_eq!(shop.double.calls_of("build"), []);
    assert_eq!(shop.double.given(), [FILE.as_bytes()]);
}

#[test]
fn images_are_pushed_as_well() {
    let shop = Shop::new(Generation::Old);
    shop.deploy(&["--push-registry"]).expect_success();
    let builds = shop.double.calls_of("build");
    assert!(builds.len() == 1 && builds[0].has("--push"), "{builds:?}");
}

#[test]
fn some_services_are_deployed_alone() {
    let shop = Shop::new(Generation::Old);
    let services = |shop: &Shop| {
        let deploys = shop.double.calls_of("deploy").into_iter();
        let named = deploys.map(|call| call.flag("--services").map(str::to_owned));
        let named: Vec<_> = named.collect();
        shop.double.forget();
        named
    };
    let some = |text: &str| Some(text.to_owned());
    let both = ["--services", "postgres-db,backend-api"];
    shop.deploy(&both).expect_success();
    assert_eq!(services(&shop), [None], "these are all");
    shop.deploy(&["--services", "postgres-db"]).expect_success();
    assert_eq!(shop.double.calls_of("build"), []);
    assert_eq!(services(&shop), [some("postgres-db")]);
    shop.deploy(&["--services", "backend-api"]).expect_success();
    assert_eq!(shop.double.calls_of("build").len(), 1);
    assert_eq!(services(&shop), [some("backend-api")]);
    shop.deploy(&["--backend-services", "backend-api"])
        .expect_success();
    assert_eq!(services(&shop), [None], "with the database that it needs");
}

#[test]
fn the_project_may_be_elsewhere() {
    let shop = Shop::new(Generation::Old);
    let root = shop.root();
    let project = ["--project-path", root.to_str().unwrap()];
    shop.deploy_from(&shop.home(), &project, &["deploy"])
        .expect_success();
    let file = root.join("aramb.toml");
    let named = ["deploy", "--config", file.to_str().unwrap()];
    shop.deploy_from(&shop.home(), &[], &named).expect_success();
    shop.deploy_from(&root.join("backend"), &[], &["deploy"])
        .expect_success();
    let folders = shop.double.calls_of("deploy").into_iter();
    let folders: Vec<_> = folders.map(|call| call.folder).collect();
    assert_eq!(folders, [root.clone(), root.clone(), root]);
}

#[test]
fn the_file_keeps_the_images_where_that_is_wanted() {
    let shop = Shop::new(Generation::Old);
    shop.double.writes_ids_back();
    shop.deploy(&["--write-back"]).expect_success();
    let written = shop.file();
    assert!(written.contains(&format!("image = \"{}\"", shop.image("backend-build"))));
    assert_eq!(written.matches("\nid = ").count(), 2, "{written}");
    // Nothing is to be built any more.
    shop.double.forget();
    shop.deploy(&[]).expect_success();
    assert_eq!(shop.double.given(), [written.as_bytes()]);
}

#[test]
fn what_the_control_plane_notes_in_the_file_is_taken_out_and_told() {
    let shop = Shop::new(Generation::Old);
    shop.double.writes_ids_back();
    shop.double.knows_slugs_alone();
    let told = shop.deploy(&[]);
    told.expect_success();
    told.expect_stderr("--write-back");
    assert_eq!(shop.file(), FILE);
    // The services are found by what was noted.
    assert_eq!(told.stdout, "https://backend-api.aramb.dev\n");
}

#[test]
fn a_dry_run_changes_nothing_and_asks_nobody() {
    let shop = Shop::new(Generation::New).watched();
    let told = shop.deploy(&["--dry-run"]);
    told.expect_success();
    told.expect_stderr("would build backend-build in ./backend");
    told.expect_stderr("would deploy backend-api (backend)");
    assert_eq!(called(&shop), []);
    assert_eq!(shop.file(), FILE);
    assert!(
        !shop.root().join(".git/systemprompt").exists(),
        "no lock either"
    );
}

#[test]
fn a_build_is_told_of_in_its_own_words() {
    let shop = Shop::new(Generation::New);
    let words = "warning: COPY of everything\n";
    shop.double.inject(&Mishap::at("build").complains(words));
    let told = shop.deploy(&[]);
    told.expect_success().expect_stderr(words);
    told.expect_stderr("load build definition from Dockerfile");
}
