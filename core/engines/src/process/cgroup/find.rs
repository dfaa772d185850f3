//! Where this process is among the control groups of the machine.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Controller, Hierarchy, Version};

/// The group that a server of version 2 moves itself to, for no group may have both processes and
/// groups with controllers. The unit in `docs/guides/self-host.md` names it too: systemd could not
/// start the next server above groups with controllers.
const SERVER: &str = "systemprompt-server";

/// For each controller where this process is in its hierarchy.
pub(super) fn hierarchies() -> BTreeMap<Controller, Result<Hierarchy, String>> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found = named(&groups, &mounts);
    let Some(own) = unified(&groups, &mounts).map(above_server) else {
        return found;
    };
    let offered = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
    let offered: Vec<&str> = offered.split_whitespace().collect();
    let missing = Controller::ALL
        .into_iter()
        .filter(|controller| !found.contains_key(controller))
        .filter(|controller| offered.contains(&controller.as_str()));
    let missing: Vec<Controller> = missing.collect();
    if missing.is_empty() {
        return found;
    }
    let ready =
        make_room(&own).map_err(|error| format!("control group {}: {error}", own.display()));
    for controller in missing {
        let hierarchy = ready.clone().map(|()| Hierarchy {
            version: Version::V2,
            own: own.clone(),
        });
        found.insert(controller, hierarchy);
    }
    found
}

/// The version 2 group that ours are made in, whatever its controllers.
pub(super) fn unified_group() -> Option<Hierarchy> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = above_server(unified(&groups, &mounts)?);
    let version = Version::V2;
    Some(Hierarchy { version, own })
}

/// A server before this one, or this one, may have moved to a group of its own.
fn above_server(own: PathBuf) -> PathBuf {
    match own.file_name() {
        Some(name) if name == SERVER => own.parent().unwrap_or(&own).to_owned(),
        _ => own,
    }
}

/// Hands all controllers of a version 2 group that we need down to the groups in it.
pub(super) fn hand_down(group: &Path) -> io::Result<()> {
    let offered = fs::read_to_string(group.join("cgroup.controllers"))?;
    let offered: Vec<&str> = offered.split_whitespace().collect();
    let wanted = Controller::ALL.map(Controller::as_str);
    for controller in wanted.iter().filter(|name| offered.contains(name)) {
        fs::write(
            group.join("cgroup.subtree_control"),
            format!("+{controller}"),
        )?;
    }
    Ok(())
}

/// Makes it possible to have groups with controllers in our own. Only a process that is alone in its
/// group may rearrange it.
fn make_room(own: &Path) -> io::Result<()> {
    let Err(error) = hand_down(own) else {
        return Ok(());
    };
    if error.kind() != io::ErrorKind::ResourceBusy {
        return Err(error);
    }
    let inside = fs::read_to_string(own.join("cgroup.procs"))?;
    let pid = std::process::id().to_string();
    if inside.lines().any(|line| line != pid) {
        let why = "the server shares it with other processes";
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, why));
    }
    let leaf = own.join(SERVER);
    fs::create_dir_all(&leaf)?;
    fs::write(leaf.join("cgroup.procs"), pid)?;
    hand_down(own)
}

/// The hierarchies of version 1, each named by its controllers.
pub(super) fn named(groups: &str, mounts: &str) -> BTreeMap<Controller, Result<Hierarchy, String>> {
    let mut found = BTreeMap::new();
    for controller in Controller::ALL {
        let has = |list: &str| list.split(',').any(|name| name == controller.as_str());
        let own = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            has(controllers).then_some(path)
        });
        let mount = mounts
            .lines()
            .filter_map(Mount::parse)
            .find(|mount| mount.kind == "cgroup" && has(mount.options));
        if let Some(own) = own.zip(mount).and_then(|(own, mount)| mount.place(own)) {
            let version = Version::V1;
            found.insert(controller, Ok(Hierarchy { version, own }));
        }
    }
    found
}

/// Our group in the hierarchy of version 2.
pub(super) fn unified(groups: &str, mounts: &str) -> Option<PathBuf> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mut mounts = mounts.lines().filter_map(Mount::parse);
    mounts.find(|mount| mount.kind == "cgroup2")?.place(own)
}

/// A line of `mountinfo`, see proc(5).
struct Mount<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    /// Those of the file system.
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let mut after = after.split(' ');
        Some(Self {
            root: before.next()?,
            point: before.next()?,
            kind: after.next()?,
            options: after.nth(1)?,
        })
    }

    /// Where a group is, if this mount shows it.
    fn place(&self, group: &str) -> Option<PathBuf> {
        let inside = Path::new(group).strip_prefix(self.root).ok()?;
        Some(Path::new(self.point).join(inside))
    }
}
