//! The git work tree, asked of git itself.

use std::path::Path;

use deploy_plan::observed::Git;
use xshell::{Shell, cmd};

use crate::child::without_secrets;

/// More commits than anyone reads in a plan.
const MOST: &str = "50";

/// The commit and whether the tree is clean; `None` outside a work tree or without git.
///
/// Ignored files do not make a tree dirty; untracked ones do, because they may be shipped.
pub(super) fn observe(root: &Path) -> Option<Git> {
    let shell = Shell::new().ok()?;
    shell.change_dir(root);
    // One call for both: the branch's commit and the changes.
    let status = cmd!(
        shell,
        "git --no-optional-locks status --porcelain=v2 --branch --untracked-files=normal"
    );
    let status = without_secrets(status)
        .quiet()
        .ignore_stderr()
        .read()
        .ok()?;
    Some(parse(&status))
}

/// Commits of the work tree that `sha` lacks, newest first; `None` when git does not know it.
pub(super) fn since(root: &Path, sha: &str) -> Option<Vec<String>> {
    // What a platform answers is no option for git to obey.
    if sha.is_empty() || !sha.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let shell = Shell::new().ok()?;
    shell.change_dir(root);
    let range = format!("{sha}..HEAD");
    let log = cmd!(
        shell,
        "git --no-optional-locks log --oneline --no-decorate -n {MOST} {range}"
    )
    .quiet()
    .ignore_stderr()
    .read()
    .ok()?;
    Some(log.lines().map(str::to_owned).collect())
}

fn parse(status: &str) -> Git {
    let full = status
        .lines()
        .find_map(|line| line.strip_prefix("# branch.oid "))
        .filter(|id| id.chars().all(|c| c.is_ascii_hexdigit()))
        .unwrap_or("unknown");
    Git {
        sha: full.chars().take(7).collect(),
        dirty: status.lines().any(|line| !line.starts_with('#')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_states() {
        let clean =
            parse("# branch.oid a1b2c3d4e5f60718293a4b5c6d7e8f9012345678\n# branch.head main");
        assert_eq!((clean.sha.as_str(), clean.dirty), ("a1b2c3d", false));
        let dirty = parse("# branch.oid a1b2c3d4e5\n# branch.head main\n? new.txt");
        assert!(dirty.dirty);
        assert_eq!(parse("# branch.oid (initial)\n").sha, "unknown");
    }

    #[test]
    fn outside_a_work_tree_there_is_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(observe(folder.path()), None);
    }
}
