//! The server against its own interface description: schemathesis, which is not ours, asks whatever the description
//! allows and what it does not, in a fixed order. `FUZZ_SECONDS` lets it go on for so long, `FUZZ_SEED` gives it another beginning.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::Server;
use crate::image::push;

/// Limits that nobody but such a client meets.
const LIMITS: &str = "[limits]\nfailed_logins = 100000000\nrequests_per_second = 100000000\n";

/// What is checked of each answer. That data which fits its schema is accepted is not among it: that a deployer's token
/// needs a tenant, or a secret a value, is no matter of a schema.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance,negative_data_rejection,missing_required_header,\
    unsupported_method,allow_header_conformance,use_after_free,ensure_resource_availability,ignored_auth";

/// Of each route and phase, beside those that cover every limit of the description.
const EXAMPLES: &str = "20";

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Runs it with this configuration, and fails with what it has to say.
fn check(server: &Server, configuration: &str, options: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("schemathesis.toml"), configuration).unwrap();
    let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-tools/pip");
    let program = packages.join("bin/schemathesis");
    assert!(
        program.is_file(),
        "schemathesis is missing: run `cargo xtask test --setup`"
    );
    let mut command = Command::new("python3");
    command
        .arg(program)
        .args(["run", "--checks", CHECKS])
        .args(["--phases", "coverage,fuzzing,stateful"])
        .args(options)
        .args(["--seed", &variable("FUZZ_SEED", "1")])
        .args(["--generation-database", "none", "--max-examples", EXAMPLES])
        .args(["--request-timeout", "30", "--continue-on-failure"])
        .args(["--output-truncate", "false", "--url", &server.url])
        .env("PYTHONPATH", packages)
        // Not among the arguments, which everybody sees.
        .env("TOKEN", server.token())
        .current_dir(folder.path())
        .stdin(Stdio::null());
    if let Ok(seconds) = std::env::var("FUZZ_SECONDS") {
        command.args(["--max-time", &seconds]);
    }
    let output = command
        .arg(format!("{}/api/v1/openapi.json", server.url))
        .output()
        .expect("python3 is missing: run `cargo xtask test --setup`");
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains("Test cases:"), "{said}{errors}");
    assert!(!server.log().contains("panicked"), "{}", server.log());
    // Otherwise most of it were refusals.
    assert!(server.client().me().is_ok(), "it has ended its own token");
}

/// The operator's token, which the list of tokens names, is not ended under the others.
const TOKENS: &str = "[[operations]]\ninclude-name = \"DELETE /api/v1/tokens/{id}\"\n\
    enabled = false\n";
/// Whoever asks to follow a log or the events is answered at once, and then for as long as it stays.
const FOLLOWING: &str = "[[operations]]\ninclude-path-regex = \"/(logs|events)$\"\n\
    request-timeout = 2\n";
const HEADERS: &str = "headers = { Authorization = \"Bearer ${TOKEN}\" }\n";

#[test]
fn whatever_is_asked_is_answered_as_described() {
    let server = Server::start_with(LIMITS);
    check(&server, &format!("{HEADERS}{TOKENS}{FOLLOWING}"), &[]);
    // By itself it cannot know that token's id.
    check(&server, HEADERS, &["--include-path", "/api/v1/tokens/{id}"]);
}

#[test]
fn whatever_is_asked_of_a_tenant_that_serves_is_answered_as_described() {
    let server = Server::start_with(LIMITS);
    push(&server, "local", "one", &[("VERSION", "one")]);
    server.deploy_and_wait("one");
    // Nor is the tenant.
    let configuration = format!(
        "{HEADERS}parameters = {{ \"path.tenant\" = \"local\", \"path.number\" = 1 }}\n{TOKENS}{FOLLOWING}\
         [[operations]]\ninclude-name = \"DELETE /api/v1/tenants/{{tenant}}\"\nenabled = false\n"
    );
    check(&server, &configuration, &[]);
    assert_eq!(server.version().as_deref(), Some("one"));
}
