//! Which users there are besides our own, and giving files to them.
//!
//! Root is not always root: inside a user namespace (a rootless container, a sandbox) it is a name
//! for an ordinary user, and only the ids that the namespace maps exist.

use std::fs;
use std::io;
use std::os::unix::fs::lchown;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::geteuid;

/// Whether owners are worth keeping at all.
pub(crate) fn are_kept() -> bool {
    geteuid().is_root()
}

/// Gives `path` itself (not what a link leads to) to a user, where that is possible.
pub(crate) fn give(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    if !are_kept() {
        return Ok(());
    }
    match lchown(path, Some(uid), Some(gid)) {
        // a user who does not exist here, or a root who may not: the file stays ours
        Err(error) if is_refusal(&error) => Ok(()),
        done => done,
    }
}

/// Whether a process here can become this user.
pub(crate) fn exists(uid: u32, gid: u32) -> bool {
    let denied = fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text.trim() == "deny");
    !denied && is_mapped(uid, "/proc/self/uid_map") && is_mapped(gid, "/proc/self/gid_map")
}

fn is_refusal(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EINVAL | Errno::EPERM | Errno::EOVERFLOW))
}

/// Lines of the map are: first id here, first id outside, how many. See `user_namespaces(7)`.
fn is_mapped(id: u32, map: &str) -> bool {
    // a kernel without user namespaces has no map, and all users
    let Ok(map) = fs::read_to_string(map) else {
        return true;
    };
    map.lines().any(|line| contains(line, id))
}

fn contains(line: &str, id: u32) -> bool {
    let numbers: Vec<u64> = line.split_whitespace().flat_map(str::parse).collect();
    let [first, _, count] = numbers[..] else {
        return false;
    };
    (first..first + count).contains(&u64::from(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_looked_up_in_ranges() {
        assert!(contains("         0          0 4294967295", 1001));
        assert!(contains("0 1000 1", 0));
        assert!(!contains("0 1000 1", 1));
        assert!(contains("1 100000 65536", 65536));
        assert!(!contains("1 100000 65536", 65537));
        assert!(!contains("nonsense", 0));
    }
}
