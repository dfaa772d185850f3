//! What git knows of the sources of a build.

use std::path::Path;

use xshell::{Cmd, Shell, cmd};

use crate::child::without_secrets;

/// The commit that is checked out, shortened as git does it.
pub(super) fn commit(folder: &Path) -> Option<String> {
    let shell = shell(folder)?;
    read(cmd!(shell, "git rev-parse --short HEAD")).filter(|sha| is_hex(sha))
}

/// What names the content of a folder, if it is all committed.
pub(super) fn tree(folder: &Path) -> Option<String> {
    let shell = shell(folder)?;
    let changes = cmd!(
        shell,
        "git --no-optional-locks status --porcelain --untracked-files=normal -- ."
    );
    if !read(changes)?.is_empty() {
        return None;
    }
    read(cmd!(shell, "git rev-parse HEAD:./")).filter(|tree| is_hex(tree))
}

fn shell(folder: &Path) -> Option<Shell> {
    let shell = Shell::new().ok()?;
    shell.change_dir(folder);
    Some(shell)
}

fn read(command: Cmd<'_>) -> Option<String> {
    without_secrets(command).quiet().ignore_stderr().read().ok()
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
        let shell = shell(root).unwrap();
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
