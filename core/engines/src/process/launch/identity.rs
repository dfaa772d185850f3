//! Who the program runs as.

use std::path::Path;

use nix::unistd::{
    AccessFlags, Gid, Uid, eaccess, geteuid, setegid, seteuid, setgroups, setresgid, setresuid,
};

use super::protocol::{Confinement, Failure, FailureKind, Program};
use crate::process::owner;
use crate::process::user::{self, User};

/// The image's user, by the image's own accounts.
pub(super) fn find(confinement: &Confinement, program: &Program) -> Result<User, Failure> {
    let accounts = match confinement {
        // the root directory is the image by now
        Confinement::Namespaces(_) => Path::new("/"),
        Confinement::Group { root, .. } => root,
    };
    user::resolve(accounts, &program.user).map_err(|error| Failure {
        kind: FailureKind::UserNotFound,
        step: "find the user".to_owned(),
        reason: error.user,
    })
}

/// Becomes `user` for good, when we are root. Says in words why not, where the image asks for
/// somebody whom we cannot become.
pub(super) fn assume(
    user: &User,
    confinement: &Confinement,
    program: &Program,
) -> Result<Option<String>, Failure> {
    let alone = matches!(confinement, Confinement::Namespaces(inside) if inside.user);
    if !geteuid().is_root() || alone {
        // known before any instance is started, and told there
        return Ok(None);
    }
    let stays = |why: &str| Ok(Some(format!("user {} runs as root: {why}", program.user)));
    if !owner::exists(user.uid, user.gid) {
        let root = user.uid == 0 && user.gid == 0;
        return if root {
            Ok(None)
        } else {
            stays("the server's user namespace has no such user")
        };
    }
    if let Confinement::Group { root, .. } = confinement
        && user.uid != 0
        && !can_reach(user, root)?
    {
        let place = root.display();
        return stays(&format!(
            "it may not enter {place} (allow it with chmod o+x on each directory above)"
        ));
    }
    switch(user)?;
    Ok(None)
}

fn switch(user: &User) -> Result<(), Failure> {
    let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setgroups(&groups).map_err(Failure::at("set groups"))?;
    setresgid(gid, gid, gid).map_err(Failure::at("set group"))?;
    setresuid(uid, uid, uid).map_err(Failure::at("set user"))
}

/// Without a root directory of its own, a user has to get to the image through the machine's.
fn can_reach(user: &User, place: &Path) -> Result<bool, Failure> {
    let step = "try the user";
    setegid(Gid::from_raw(user.gid)).map_err(Failure::at(step))?;
    seteuid(Uid::from_raw(user.uid)).map_err(Failure::at(step))?;
    let reached = eaccess(place, AccessFlags::X_OK).is_ok();
    seteuid(Uid::from_raw(0)).map_err(Failure::at(step))?;
    setegid(Gid::from_raw(0)).map_err(Failure::at(step))?;
    Ok(reached)
}
