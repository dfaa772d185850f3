//! What git knows of the sources of a build.

use std::path::{Path, PathBuf};

use xshell::{Cmd, Shell, cmd};

use crate::child::without_secrets;

/// They name a repository whatever the folder is.
const OF_A_HOOK: [&str; 6] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_COMMON_DIR",
    "GIT_OBJECT_DIRECTORY",
];

/// The commit that is checked out, shortened as git does it.
pub(super) fn commit(folder: &Path) -> Option<String> {
    read(folder, &["rev-parse", "--short", "HEAD"]).filter(|sha| is_hex(sha))
}

/// What names the content of a folder, if it is all committed.
pub(super) fn tree(folder: &Path) -> Option<String> {
    let status = ["--no-optional-locks", "status", "--porcelain"];
    let all = [
        "--untracked-files=normal",
        "--ignore-submodules=none",
        "--",
        ".",
    ];
    if !read(folder, &[&status[..], &all[..]].concat())?.is_empty() {
        return None;
    }
    read(folder, &["rev-parse", "HEAD:./"]).filter(|tree| is_hex(tree))
}

/// What of a folder git does not look at: build outputs, local settings.
pub(super) fn ignored(folder: &Path) -> Option<Vec<PathBuf>> {
    let list = [
        "ls-files",
        "-z",
        "--others",
        "--ignored",
        "--exclude-standard",
        "--directory",
    ];
    let list = read(folder, &list)?;
    // A folder of which all is ignored ends with a slash.
    let names = list.split('\0').map(|name| name.trim_end_matches('/'));
    Some(
        names
            .filter(|name| !name.is_empty())
            .map(PathBuf::from)
            .collect(),
    )
}

/// What git answers in a folder. A hook is told of its own repository by variables, and so is all that it starts: the folder's
/// own comes first.
pub(super) fn read(folder: &Path, arguments: &[&str]) -> Option<String> {
    let shell = Shell::new().ok()?;
    shell.change_dir(folder);
    let ask = |command: Cmd<'_>| without_secrets(command).quiet().ignore_stderr().read().ok();
    let git = || cmd!(shell, "git {arguments...}");
    let own = OF_A_HOOK.iter().fold(git(), Cmd::env_remove);
    ask(own).or_else(|| ask(git()))
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_known_by_its_content_alone() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        assert_eq!(commit(root), None);
        let shell = Shell::new().unwrap();
        shell.change_dir(root);
        let git = |words: &str| {
            let words = words.split(' ');
            let identity = ["-c", "user.name=T", "-c", "user.email=t@example.com"];
            cmd!(shell, "git {identity...} {words...}")
                .quiet()
                .run()
                .unwrap();
        };
        git("init --quiet");
        std::fs::create_dir_all(root.join("api")).unwrap();
        std::fs::write(root.join("api/a"), "1").unwrap();
        git("add .");
        git("commit --quiet -m one");
        let (first, tree_of_api) = (commit(root).unwrap(), tree(&root.join("api")).unwrap());
        std::fs::write(root.join("b"), "2").unwrap();
        git("add .");
        git("commit --quiet -m two");
        assert_ne!(commit(root).unwrap(), first);
        assert_eq!(tree(&root.join("api")).unwrap(), tree_of_api);
        std::fs::write(root.join("api/new"), "").unwrap();
        assert_eq!(tree(&root.join("api")), None);
        assert!(tree(root).is_none());
    }
}
