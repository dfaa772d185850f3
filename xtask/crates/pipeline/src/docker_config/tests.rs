//! Configurations, and helpers that are shell scripts.

use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use super::*;

fn config(text: &str) -> (tempfile::TempDir, DockerConfig) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), text).unwrap();
    let config = DockerConfig {
        text: None,
        folder: Some(folder.path().to_owned()),
        patience: helper::PATIENCE,
        path: None,
    };
    (folder, config)
}

/// `name:password`, `none`, or the error.
fn ask(text: &str, registry: &str) -> String {
    let (_folder, config) = config(text);
    match config.credentials(registry, &Interrupts::default()) {
        Ok(Some(Credentials { username, password })) => {
            format!("{username}:{}", password.expose_secret())
        }
        Ok(None) => "none".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn auths(key: &str, pair: &str) -> String {
    format!(
        "{{\"auths\": {{\"{key}\": {{\"auth\": \"{}\"}}}}}}",
        STANDARD.encode(pair)
    )
}

#[test]
fn a_registry_is_found_by_any_of_its_names() {
    for key in ["r.io:5000", "https://r.io:5000", "http://r.io:5000/v2/"] {
        assert_eq!(ask(&auths(key, "u:p:q"), "r.io:5000"), "u:p:q", "{key}");
        assert_eq!(ask(&auths(key, "u:p"), "r.io"), "none", "{key}");
    }
    for key in [HUB_KEY, "docker.io", "index.docker.io"] {
        assert_eq!(ask(&auths(key, "u:p"), "docker.io"), "u:p", "{key}");
    }
    assert_eq!(ask(&auths(HUB_KEY, "u:p"), "quay.io"), "none");
}

/// What the variable and the file say about `r.io`.
fn of_both(variable: &str, file: &str) -> String {
    let (_folder, config) = config(file);
    let config = DockerConfig {
        text: Some(variable.to_owned().into()),
        ..config
    };
    match config.credentials("r.io", &Interrupts::default()) {
        Ok(found) => found.map_or("none".to_owned(), |found| {
            format!("{}:{}", found.username, found.password.expose_secret())
        }),
        Err(error) => crate::control::with_causes(&error),
    }
}

#[test]
fn the_variable_is_asked_before_the_file() {
    let (one, two) = (auths("r.io", "one:1"), auths("r.io", "two:2"));
    assert_eq!(of_both(&one, &two), "one:1");
    assert_eq!(of_both("{}", &two), "two:2");
    assert_eq!(of_both(&auths("other.io", "one:1"), &two), "two:2");
    assert_eq!(of_both(&one, "nonsense"), "one:1");
    assert_eq!(of_both("{}", "{}"), "none");
}

#[test]
fn a_variable_that_cannot_be_used_is_named_without_what_is_in_it() {
    let file = auths("r.io", "two:2");
    assert_eq!(
        of_both("{\"auths\":\n{\"r.io\": hunter2}}", &file),
        "DOCKER_AUTH_CONFIG is not a configuration of Docker: line 2"
    );
    assert_eq!(
        of_both(r#"{"auths": "hunter2"}"#, &file),
        "DOCKER_AUTH_CONFIG is not a configuration of Docker: line 1"
    );
    assert_eq!(
        of_both(r#"{"auths": {"r.io": {"auth": "hunter2!"}}}"#, &file),
        "the password for r.io in DOCKER_AUTH_CONFIG is not in base64"
    );
}

#[test]
fn nothing_of_the_variable_passes_a_sink() {
    let redactor = Redactor::default();
    let pair = STANDARD.encode("reader:the-password");
    let document = format!(
        "{{\n \"auths\": {{\n  \"r.io\": {{\"auth\": \"{pair}\", \"email\": \"a@example.com\"}},\n  \
         \"q.io\": {{\"username\": \"somebody\", \"identitytoken\": \"the-token\"}}\n}}}}"
    );
    learn(&redactor, &document);
    let clean = redactor.clean(&format!("{document} the-password somebody"));
    for secret in [pair.as_str(), "the-password", "the-token"] {
        assert!(!clean.contains(secret), "{clean}");
    }
    // What is no secret is not hidden, or messages would be garbled.
    for word in ["auths", "r.io", "a@example.com", "somebody"] {
        assert!(clean.contains(word), "{clean}");
    }
    learn(&redactor, "not a document, but hunter2");
    assert!(
        !redactor
            .clean("not a document, but hunter2")
            .contains("hunter2")
    );
}

#[test]
fn what_is_not_there_is_no_error() {
    assert_eq!(ask("{}", "r.io"), "none");
    assert_eq!(ask("{\"auths\": {\"r.io\": {}}}", "r.io"), "none");
    let apart = r#"{"auths": {"r.io": {"username": "u", "password": "p"}}}"#;
    assert_eq!(ask(apart, "r.io"), "u:p");
    let nowhere = DockerConfig {
        text: None,
        folder: Some("/nonexistent".into()),
        patience: helper::PATIENCE,
        path: None,
    };
    let found = nowhere.credentials("r.io", &Interrupts::default());
    assert!(found.unwrap().is_none());
}

#[test]
fn what_cannot_be_used_is_named_without_what_is_in_it() {
    let identity = r#"{"auths": {"r.io": {"auth": "dTpw", "identitytoken": "hunter2"}}}"#;
    assert!(ask(identity, "r.io").contains("identity token"));
    assert!(ask(&auths("r.io", "<token>:hunter2"), "r.io").contains("identity token"));
    let broken = ask("{\"auths\": {\"r.io\": {\"auth\": hunter2}}}", "r.io");
    assert!(
        broken.contains("line 1") && !broken.contains("hunter2"),
        "{broken}"
    );
    let encoding = ask(r#"{"auths": {"r.io": {"auth": "hunter2!"}}}"#, "r.io");
    assert!(
        encoding.contains("base64") && !encoding.contains("hunter2"),
        "{encoding}"
    );
}

#[test]
fn a_helper_that_is_not_there_or_has_a_path_for_a_name_is_named() {
    let missing = r#"{"credHelpers": {"r.io": "no-such-helper-here"}}"#;
    assert_eq!(
        ask(missing, "r.io"),
        "cannot run docker-credential-no-such-helper-here"
    );
    assert_eq!(ask(missing, "other.io"), "none");
    let path = r#"{"credsStore": "../../bin/sh"}"#;
    assert!(ask(path, "r.io").contains("is not the name"));
}

/// What a helper with this script makes of a configuration, in so much time at most.
fn helped(script: &str, more: &str, patience: Duration) -> String {
    let text = format!("{{\"credsStore\": \"test\"{more}}}");
    let (folder, config) = config(&text);
    let program = folder.path().join("docker-credential-test");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let mut path = folder.path().as_os_str().to_owned();
    path.push(":/usr/bin:/bin");
    let config = DockerConfig {
        patience,
        path: Some(path),
        ..config
    };
    match config.credentials("r.io", &Interrupts::default()) {
        Ok(Some(Credentials { username, password })) => {
            format!("{username}:{}", password.expose_secret())
        }
        Ok(None) => "none".to_owned(),
        Err(error) => error.to_string(),
    }
}

const ANSWERS: &str =
    r#"read host; echo "{\"ServerURL\":\"$host\",\"Username\":\"$1-$host\",\"Secret\":\"s\"}""#;
const LONG: Duration = Duration::from_secs(10);

#[test]
fn a_helper_gets_the_registry_on_its_standard_input() {
    assert_eq!(helped(ANSWERS, "", LONG), "get-r.io:s");
}

#[test]
fn a_helper_that_knows_nothing_leaves_the_word_to_the_file() {
    let script = "cat >/dev/null; echo credentials not found in native keychain; exit 1";
    assert_eq!(helped(script, "", LONG), "none");
    let auths = r#", "auths": {"r.io": {"username": "u", "password": "p"}}"#;
    assert_eq!(helped(script, auths, LONG), "u:p");
}

#[test]
fn a_helper_that_fails_or_talks_nonsense_is_named_without_its_answer() {
    let failed = helped("echo the keychain is locked; exit 3", "", LONG);
    assert!(
        failed.contains("docker-credential-test ended with exit status: 3: the keychain is locked"),
        "{failed}"
    );
    let nonsense = helped("echo hunter2", "", LONG);
    assert_eq!(
        nonsense,
        "docker-credential-test did not answer with a name and a secret"
    );
    let token = helped(
        r#"echo '{"Username":"<token>","Secret":"hunter2"}'"#,
        "",
        LONG,
    );
    assert!(token.contains("identity token") && !token.contains("hunter2"));
}

#[test]
fn a_helper_that_waits_is_ended_with_all_that_it_has_started() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let script = format!("sleep 600 & echo $! > {}; wait", pid.display());
    let begun = Instant::now();
    let told = helped(&script, "", Duration::from_secs(3));
    assert!(told.contains("did not answer within"), "{told}");
    assert!(begun.elapsed() < Duration::from_secs(30));
    let child = fs::read_to_string(&pid).unwrap();
    assert!(!child.trim().is_empty(), "the helper has started nothing");
    let state = || fs::read_to_string(format!("/proc/{}/stat", child.trim()));
    // Somebody else's child now: it takes a moment until it is off the table.
    let gone = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        state().map_or(true, |stat| stat.contains(") Z "))
    });
    assert!(gone, "the helper's child still runs");
}
