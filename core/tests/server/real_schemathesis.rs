//! The server against its own interface description: schemathesis, which is not ours, asks whatever the description
//! allows and what it does not, in a fixed order. `FUZZ_SECONDS` gives it longer than half a minute, `FUZZ_SEED` another
//! beginning.

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

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Runs it with this configuration, and fails with what it has to say.
fn check(server: &Server, configuration: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("schemathesis.toml"), configuration).unwrap();
    let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-tools/pip");
    let program = packages.join("bin/schemathesis");
    assert!(
        program.is_file(),
        "schemathesis is missing: run `cargo xtask test --setup`"
    );
    let output = Command::new("python3")
        .arg(program)
        .args(["run", "--checks", CHECKS, "--phases", "coverage,fuzzing,stateful"])
        .args(["--max-time", &variable("FUZZ_SECONDS", "15")])
        .args(["--seed", &variable("FUZZ_SEED", "1")])
        .args(["--generation-database", "none", "--max-examples", "50"])
        .args(["--request-timeout", "30", "--continue-on-failure"])
        .args(["--output-truncate", "false", "--url", &server.url])
        .arg(format!("{}/api/v1/openapi.json", server.url))
        .env("PYTHONPATH", packages)
        // Not among the arguments, which everybody sees.
        .env("TOKEN", server.token())
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .expect("python3 is missing: run `cargo xtask test --setup`");
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{said}{errors}");
    assert!(said.contains("Test cases:"), "{said}{errors}");
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

const HEADERS: &str = "headers = { Authorization = \"Bearer ${TOKEN}\" }\n";

#[test]
fn whatever_is_asked_is_answered_as_described() {
    let server = Server::start_with(&[], LIMITS);
    check(&server, HEADERS);
}

#[test]
fn whatever_is_asked_of_a_tenant_that_serves_is_answered_as_described() {
    let server = Server::start_with(&[], LIMITS);
    push(&server, "local", "one", &[("VERSION", "one")]);
    server.deploy_and_wait("one");
    // The tenant is not removed under the others.
    let configuration = format!(
        "{HEADERS}parameters = {{ \"path.tenant\" = \"local\", \"path.number\" = 1 }}\n\
         [[operations]]\ninclude-name = \"DELETE /api/v1/tenants/{{tenant}}\"\nenabled = false\n"
    );
    check(&server, &configuration);
    assert_eq!(server.version().as_deref(), Some("one"));
}
