//! Entering namespaces. The guard enters those that count for its children; the init those that
//! change what itself sees.

use std::fs;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::protocol::{Confinement, Failure};

/// The user namespace when there is one, and the process namespace for what is spawned next.
pub(super) fn enter_outer(confinement: &Confinement) -> Result<(), Failure> {
    let Confinement::Namespaces(namespaces) = confinement else {
        return Ok(());
    };
    if namespaces.user {
        enter_user()?;
    }
    unshare(CloneFlags::CLONE_NEWPID).map_err(Failure::at("pid namespace"))
}

/// Mounts and System V IPC of its own. The network stays the machine's: the proxy reaches the
/// instance over loopback.
pub(super) fn enter_inner() -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(Failure::at("mount namespace"))?;
    unshare(CloneFlags::CLONE_NEWIPC).map_err(Failure::at("ipc namespace"))
}

/// Makes us root of a user namespace in which no other user exists.
fn enter_user() -> Result<(), Failure> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(Failure::at("user namespace"))?;
    // the kernel demands this before it takes a group map from someone who is not root
    let maps = [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
    ];
    for (path, text) in maps {
        fs::write(path, text).map_err(Failure::at(&format!("user namespace: write {path}")))?;
    }
    Ok(())
}
