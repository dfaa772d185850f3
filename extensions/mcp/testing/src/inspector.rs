//! The npm MCP inspector's command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{Variables, command, temporary_folder};

/// Environment variable with the inspector's path, where it is not in its usual place.
const PATH: &str = "MCP_INSPECTOR";
/// Node starts slowly on a busy machine.
const LIMIT: Duration = Duration::from_mins(2);

/// Runs `mcp-inspector --cli TARGET… ARGUMENTS…` and answers what it printed.
pub async fn inspect(target: &[&str], arguments: &[&str], variables: Variables<'_>) -> Value {
    let inspector = inspector(target[0]);
    let home: TempDir = temporary_folder();
    let all = [&["--cli"], target, arguments].concat();
    let running = command(
        inspector.to_str().expect("the inspector's path is UTF-8"),
        &all,
        variables,
        &home,
    )
    .stdin(std::process::Stdio::null())
    .output();
    let output = timeout(LIMIT, running)
        .await
        .expect("the inspector takes too long")
        .expect("run the inspector");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {stderr}", output.status);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        let stdout = String::from_utf8_lossy(&output.stdout);
        panic!("the inspector printed no JSON ({error}): {stdout}{stderr}")
    })
}

/// Lists the tools and calls one of them, over standard input and output.
pub async fn check(
    binary: &str,
    tool: &str,
    arguments: &[&str],
    variables: Variables<'_>,
) -> Value {
    let listed = inspect(&[binary], &["--method", "tools/list"], variables).await;
    let names = listed["tools"].as_array().expect("a list of tools");
    assert!(
        names.iter().any(|listed| listed["name"] == tool),
        "{tool} is not listed: {listed}"
    );
    let call = ["--method", "tools/call", "--tool-name", tool];
    let answer = inspect(&[binary], &[&call, arguments].concat(), variables).await;
    assert_ne!(answer["isError"], Value::Bool(true), "{answer}");
    assert!(answer["structuredContent"].is_object(), "{answer}");
    answer
}

/// The inspector of the target folder that holds the tested binary.
fn inspector(target: &str) -> PathBuf {
    let path = std::env::var_os(PATH).map_or_else(|| beside(target), PathBuf::from);
    assert!(
        path.is_file(),
        "the MCP inspector is missing: run `cargo xtask test --setup` ({} is not there)",
        path.display()
    );
    path
}

fn beside(target: &str) -> PathBuf {
    let tool = "test-tools/npm/node_modules/.bin/mcp-inspector";
    let binary = std::env::current_exe().expect("this test's own path");
    let candidates = Path::new(target).ancestors().chain(binary.ancestors());
    let found = candidates
        .map(|folder| folder.join(tool))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| PathBuf::from("target").join(tool))
}
