//! Every error that is published for this flow, with the words, the number and the name of its step.

use testkit::aramb::{Generation, Mishap};

use crate::shop::{FILE, Shop, assert_failed};

const APPLICATION: &str = "3 - Get Application Slug";
const BUILD: &str = "5 - Run Build Commands";
const DEPLOY: &str = "8 - Run TOML Deploy";
const RETURN: &str = "9 - Return Deployment Details";

#[test]
fn the_command_is_not_there() {
    let shop = Shop::new(Generation::Old);
    let programs = testkit::process::need_program("git");
    shop.finds_programs_in(&[programs.parent().unwrap()]);
    let details = assert_failed(
        &shop.deploy(&[]),
        "aramb-cli not found",
        "0 - Install aramb-cli",
    );
    assert!(
        details.contains("cargo xtask deploy --install-cli"),
        "{details}"
    );
}

#[test]
fn the_folder_of_the_file_is_not_there() {
    let shop = Shop::new(Generation::Old);
    let details = assert_failed(
        &shop.deploy(&["--config", "nowhere/aramb.toml"]),
        "aramb.toml not found in current directory",
        "1 - Read aramb.toml",
    );
    assert!(details.contains("nowhere/aramb.toml"), "{details}");
    assert!(!shop.root().join("nowhere").exists());
}

#[test]
fn the_file_is_not_there() {
    let shop = Shop::new(Generation::Old);
    std::fs::remove_file(shop.root().join("aramb.toml")).unwrap();
    let details = assert_failed(
        &shop.deploy(&["--config", "aramb.toml"]),
        "aramb.toml not found in current directory",
        "1 - Read aramb.toml",
    );
    assert!(details.contains("aramb-metadata"), "{details}");
    assert_eq!(shop.double.calls_of("deploy"), []);
}

#[test]
fn the_file_is_not_valid() {
    // In the published script: no uniqueIdentifier for a build.
    let file = FILE.replace("uniqueIdentifier = 101\n", "");
    let shop = Shop::with(Generation::Old, &file);
    let told = shop.deploy(&[]);
    let details = assert_failed(&told, "aramb.toml is not valid", "1 - Read aramb.toml");
    assert!(details.contains("uniqueIdentifier"), "{details}");
    assert!(details.contains("aramb.toml:"), "its line: {details}");
    assert_eq!(shop.double.calls_of("build"), []);
    assert_eq!(shop.file(), file);
}

#[test]
fn the_application_is_not_named() {
    let shop = Shop::new(Generation::New);
    shop.lacks("APPLICATION_ID");
    let told = shop.deploy(&[]);
    let details = assert_failed(
        &told,
        "APPLICATION_ID environment variable not set",
        APPLICATION,
    );
    assert!(details.contains("export APPLICATION_ID="), "{details}");
    assert_eq!(shop.double.calls_of("applications get"), []);
}

#[test]
fn the_application_has_no_slug() {
    let shop = Shop::new(Generation::Old);
    let get = || Mishap::at("applications get");
    for mishap in [
        get().complains("Error: unauthorized (401)\n").exits(1),
        get().answers("{\"id\": \"app-xyz789\", \"slug\": null}\n"),
        get().answers("{\"id\": \"app-xyz789\", \"slug\": \"\"}\n"),
        get().answers("{\"id\": \"app-xyz789\"}\n"),
        get().answers("{\"slug\": 7}\n"),
        get().answers("{\"slug\": \"My App\"}\n"),
        get().answers("ID: app-xyz789\nSlug: my-app\n"),
        get().answers("null\n"),
        get().answers(""),
        get().cuts_its_answer(),
    ] {
        shop.double.heal();
        shop.double.inject(&mishap);
        let details = assert_failed(
            &shop.deploy(&[]),
            "Failed to retrieve application slug",
            APPLICATION,
        );
        let command = "Command: aramb applications get -i app-xyz789 -o json";
        assert!(details.contains(command), "{mishap:?}: {details}");
        assert_eq!(shop.double.calls_of("build"), [], "{mishap:?}");
        assert_eq!(shop.double.calls_of("applications get").len(), 1, "once");
        shop.double.forget();
    }
}

#[test]
fn there_is_no_commit() {
    let shop = Shop::without_git(Generation::Old, FILE);
    let told = shop.deploy(&[]);
    let error = "Failed to get commit SHA. Not a git repository?";
    assert_failed(&told, error, BUILD);
    shop.git(&["init", "-q"]);
    assert_failed(&shop.deploy(&[]), error, BUILD);
    assert_eq!(shop.double.calls_of("build"), []);
}

#[test]
fn a_build_fails() {
    for generation in Generation::ALL {
        let shop = Shop::new(generation).watched();
        let words = "error: process \"/bin/sh -c npm ci\" did not complete successfully\n";
        shop.double
            .inject(&Mishap::at("build").complains(words).exits(1));
        let details = assert_failed(&shop.deploy(&[]), "Build failed for backend-build", BUILD);
        let sha = shop.sha();
        let first = format!(
            "Image my-app/backend-build:{sha}\nCommand: aramb build --name my-app/backend-build --tag {sha}\n"
        );
        assert!(details.starts_with(&first), "{details}");
        assert!(
            details.contains(words.trim()),
            "in its own words: {details}"
        );
        assert_eq!(shop.double.calls_of("build").len(), 1, "no second try");
        assert_eq!(shop.double.calls_of("deploy"), []);
        assert_eq!(shop.file(), FILE);
    }
}

#[test]
fn an_image_is_none() {
    let shop = Shop::new(Generation::New);
    let answer = "{\"IMAGE_URL\": \"registry.aramb.dev/x:1\\\"\\npublicNet = true\"}\n";
    shop.double.inject(&Mishap::at("build").answers(answer));
    let told = shop.deploy(&[]);
    assert_failed(
        &told,
        "backend-build has told no image",
        "6 - Capture Image URLs",
    );
    assert_eq!(shop.double.calls_of("deploy"), []);
}

#[test]
fn the_file_cannot_be_updated() {
    // The build has no folder of its own, so it finds the file in its own.
    let file = FILE.replace("buildPath = \"./backend\"\n", "");
    let shop = Shop::with(Generation::Old, &file);
    let mishap = Mishap::at("build").writes_to_the_file("# somebody was here\n");
    shop.double.inject(&mishap);
    assert_failed(
        &shop.deploy(&[]),
        "Failed to update aramb.toml",
        "7 - Update aramb.toml",
    );
    assert_eq!(shop.double.calls_of("deploy"), []);
    assert_eq!(shop.file(), format!("{file}# somebody was here\n"));
}

#[test]
fn the_deployment_is_refused() {
    for generation in Generation::ALL {
        let shop = Shop::new(generation);
        let flag = generation.from_toml();
        let deploy = || Mishap::at("deploy");
        for mishap in [
            deploy().complains("Error: quota exceeded\n").exits(1),
            // An older one ends well when services could not be made.
            deploy().answers("Service: backend-api\nStatus: Failed\nReason: quota exceeded\n"),
            deploy().answers(
                "postgres-db\n  Status: Created\nbackend-api\n  Status: Failed\n  quota exceeded\n",
            ),
        ] {
            shop.double.heal();
            shop.double.forget();
            shop.double.inject(&mishap);
            let error = format!("aramb deploy {flag} failed");
            let details = assert_failed(&shop.deploy(&[]), &error, DEPLOY);
            assert!(details.contains("quota exceeded"), "{details}");
            let command = format!("Command: aramb deploy {flag} --yes");
            assert!(details.contains(&command), "{details}");
            assert_eq!(shop.double.calls_of("deploy").len(), 1, "no second try");
            assert_eq!(shop.double.calls_of("deploy status"), []);
            assert_eq!(shop.file(), FILE);
        }
    }
}

#[test]
fn a_service_fails() {
    for (in_words, service, kind) in [
        (false, "backend-api", "Backend"),
        (true, "backend-api", "Backend"),
        (false, "postgres-db", "Database"),
    ] {
        let shop = Shop::new(Generation::Old);
        let word = if in_words {
            shop.double.fails_in_words(service, "no capacity in ams");
            "Failed"
        } else {
            shop.double.fails(service, "no capacity in ams");
            "failed"
        };
        shop.double.goes_through(service, &["failed"]);
        let (told, document) = shop.deploy_as_json(&[]);
        let error = format!("{kind} deployment failed with status: {word}");
        let details = assert_failed(&told, &error, RETURN);
        assert!(details.contains("no capacity in ams"), "{details}");
        assert_eq!(document["status"], "failed", "{told}");
        assert_eq!(document["error"]["message"], error, "{told}");
        assert_eq!(document["error"]["step"], RETURN, "{told}");
        assert_eq!(document["error"]["exit"], 1, "{told}");
        assert_eq!(document["deployments"]["failed"][0], service, "{told}");
        assert_eq!(shop.file(), FILE);
    }
}

#[test]
fn a_service_does_not_become_healthy() {
    for state in ["deploying", "contemplating"] {
        let shop = Shop::new(Generation::New);
        shop.double.goes_through("backend-api", &[state]);
        let told = shop.deploy(&["--timeout", "1s"]);
        let error = format!("Backend deployment failed with status: {state}");
        let details = assert_failed(&told, &error, RETURN);
        assert!(details.contains("--timeout"), "{details}");
    }
}

#[test]
fn what_is_lacking_after_the_deployment_is_a_warning() {
    let shop = Shop::new(Generation::Old);
    shop.double.tells(
        "backend-api",
        &[("INTERNAL_URL", "http://backend-api:8080")],
    );
    let told = shop.deploy(&[]);
    told.expect_success()
        .expect_stderr("WARNING: PUBLIC_URL not found in backend deployment outputs");
    assert_eq!(told.stdout, "");

    let status = Mishap::at("deploy status").with("backend-api").always();
    shop.double
        .inject(&status.complains("Error: gateway (502)\n").exits(1));
    let (told, document) = shop.deploy_as_json(&[]);
    told.expect_success()
        .expect_stderr("WARNING: Could not get deployment status for backend-api");
    assert_eq!(document["status"], "deployed", "{told}");

    let shop = Shop::new(Generation::Old);
    shop.deploy(&["--services", "postgres-db"])
        .expect_success()
        .expect_stderr("WARNING: No backend service found for PUBLIC_URL extraction");
}

#[test]
fn all_that_is_missing_is_told_at_once() {
    let shop = Shop::without_git(Generation::Old, FILE);
    for variable in ["APPLICATION_ID", "ARAMB_API_TOKEN", "BUILDKIT_HOST"] {
        shop.lacks(variable);
    }
    let told = shop.deploy(&[]);
    told.expect_code(1);
    for words in [
        "APPLICATION_ID environment variable not set",
        "ARAMB_API_TOKEN environment variable not set",
        "BUILDKIT_HOST environment variable not set",
        "Failed to get commit SHA. Not a git repository?",
        "export APPLICATION_ID=",
        "export ARAMB_API_TOKEN=",
        "export BUILDKIT_HOST=",
        "git init",
    ] {
        told.expect_stderr(words);
    }
    assert_eq!(told.stderr.matches("ERROR: ").count(), 1, "{told}");
}

#[test]
fn names_that_the_file_does_not_have_are_told() {
    let shop = Shop::new(Generation::Old);
    for (flags, words) in [
        (["--services", "other"], "there is no service `other`"),
        (["--services", "backend-build"], "is a build"),
        (["--backend-services", "postgres-db"], "not a backend"),
    ] {
        let told = shop.deploy(&flags);
        told.expect_code(1).expect_stderr(words);
        told.expect_stderr("Step: 2 - Extract Build Services");
    }
    let told = shop.deploy(&["--services", "a", "--backend-services", "b"]);
    told.expect_code(2);
    assert_eq!(shop.double.calls_of("deploy"), []);
}

#[test]
fn flags_of_other_deployments_are_refused() {
    let shop = Shop::new(Generation::Old);
    for flags in [
        &["--tag", "x"][..],
        &["--strategy", "canary"],
        &["--replicas", "2"],
        &["--skip-push"],
        &["--no-wait"],
    ] {
        let told = shop.deploy(flags);
        told.expect_code(2).expect_stderr(flags[0]);
    }
    assert_eq!(shop.double.calls(), []);
}

#[test]
fn a_refusal_is_one_document_as_well() {
    let shop = Shop::new(Generation::Old);
    for arguments in [
        &["--timeout", "soon"][..],
        &["--tag", "v1"],
        &["--push-registry", "--control-plane", "platform"],
    ] {
        let (told, document) = shop.deploy_as_json(arguments);
        told.expect_code(2);
        assert_eq!(document["error"]["exit"], 2, "{told}");
        assert_eq!(document["status"], "failed", "{told}");
    }
    shop.write(".systemprompt/deploy.toml", "nothing = [\n");
    let platform = ["--config", "aramb.toml", "--control-plane", "platform"];
    let (told, document) = shop.deploy_as_json(&platform);
    assert_failed(
        &told,
        document["error"]["message"].as_str().unwrap(),
        "0 - Find the Platform",
    );
}

#[test]
fn names_may_have_blanks_around_their_commas() {
    let shop = Shop::new(Generation::Old);
    shop.deploy(&["--services", " postgres-db , backend-api,postgres-db"])
        .expect_success();
    let deployed = shop.double.calls_of("deploy").remove(0);
    assert!(!deployed.has("--services"), "these are all: {deployed:?}");
    // A variable that is not set selects nothing, and not everything.
    for none in ["", " ", ","] {
        let told = shop.deploy(&["--services", none]);
        assert_failed(
            &told,
            "there is no service ``",
            "2 - Extract Build Services",
        );
    }
}
