//! These tests once more, on machines that allow less: without root, without capabilities, without
//! namespaces, on a file system that cannot be overlaid. Root can make all of them out of this one.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::setup::{is_root, open_up, program};

/// `nobody`, everywhere.
const USER: u32 = 65534;

/// What holds on any machine, whatever it allows.
const EVERYWHERE: [&str; 12] = [
    "commands::it_",
    "commands::nothing_of",
    "commands::the_next",
    "guards::orphans",
    "isolation::",
    "launch::it_serves",
    "launch::the_environment",
    "launch::exit_codes",
    "launch::what_cannot_be_run",
    "stop::it_is",
    "server_death::nothing_outlives",
    "volumes::",
];

/// Runs this program's tests inside of `wrapper`, in a temporary directory of `owner`.
fn check(owner: u32, wrapper: &[&str], expected: &str, tests: &[&str], least: usize) {
    if !is_root() {
        // this run is itself one of those elsewhere
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    open_up(folder.path());
    let test = folder.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &test).unwrap();
    for name in ["engine-launcher", "engine-fixture", "engine-server"] {
        fs::copy(program(name), folder.path().join(name)).unwrap();
    }
    let work = folder.path().join("work");
    fs::create_dir(&work).unwrap();
    chown(&work, Some(owner), Some(owner)).unwrap();
    let (first, rest) = wrapper.split_first().unwrap();
    let done = Command::new(first)
        .args(rest)
        .arg(&test)
        .arg("--test-threads=2")
        .args(tests)
        // root's namesakes elsewhere would go on for ever, and a machine is one wherever it is
        .args(["--skip", "elsewhere::", "--skip", "machine::"])
        .current_dir(&work)
        .env("TMPDIR", &work)
        .env("ENGINES_PROGRAMS", folder.path())
        .env("ENGINES_EXPECTED", expected)
        .output()
        .unwrap_or_else(|error| panic!("{first}, of package util-linux: {error}"));
    let printed = String::from_utf8_lossy(&done.stdout).into_owned();
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{printed}\n{errors}");
    let ran = printed
        .lines()
        .filter(|line| line.ends_with("... ok"))
        .count();
    assert!(ran >= least, "{printed}");
    check_empty(&work);
}

/// Runs a command as an ordinary user who may make no namespaces.
const ORDINARY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all -- \
     unshare --user --map-user=65534 --map-group=65534 --keep-caps -- sh -ec '
         for kind in user pid mnt; do echo 0 > /proc/sys/user/max_${kind}_namespaces; done
         exec setpriv --ambient-caps=-all --inh-caps=-all -- \"$@\"' sh";

#[test]
fn an_ordinary_user_without_namespaces_leaves_no_orphans_either() {
    let script = format!("ENGINES_HELD=false; export ENGINES_HELD; {ORDINARY} \"$@\"");
    let wrapper = ["sh", "-ec", &script, "sh"];
    check(USER, &wrapper, "Group/Copy", &EVERYWHERE, 18);
}

#[test]
fn an_ordinary_user_with_a_control_group_of_his_own_holds_what_hides() {
    if !is_root() {
        // this run is itself one of those elsewhere
        return;
    }
    let own = OwnGroup(own_group());
    let group = &own.0;
    let script = format!(
        "mkdir {group}; chown -R {USER} {group}; echo $$ > {group}/cgroup.procs
         ENGINES_HELD=true; export ENGINES_HELD; {ORDINARY} \"$@\""
    );
    let wrapper = ["sh", "-ec", &script, "sh"];
    check(USER, &wrapper, "Group/Copy", &EVERYWHERE, 18);
    // it is empty once all has ended, which may be a moment after it was killed
    let is_gone = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        fs::remove_dir(group).is_ok()
    });
    assert!(is_gone, "somebody is left in {group}");
}

/// Goes when the test has failed, too.
struct OwnGroup(String);

impl Drop for OwnGroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// A group of version 2 that is not there yet.
fn own_group() -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mount = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        after
            .starts_with("cgroup2 ")
            .then(|| before.split(' ').nth(4))?
    });
    let mount = mount.expect("a mounted hierarchy of control groups of version 2");
    format!("{mount}/engines-test-{}", std::process::id())
}

fn check_empty(work: &Path) {
    let left: Vec<_> = fs::read_dir(work).unwrap().collect();
    assert!(left.is_empty(), "files are left: {left:?}");
}

#[test]
fn everything_holds_without_root() {
    let user = format!("--reuid={USER}");
    let group = format!("--regid={USER}");
    let wrapper = ["setpriv", &user, &group, "--clear-groups", "--"];
    check(USER, &wrapper, "UserNamespaces/Overlay", &[], 40);
}

#[test]
fn a_root_without_capabilities_uses_a_user_namespace() {
    let wrapper = [
        "setpriv",
        "--bounding-set=-sys_admin",
        "--inh-caps=-sys_admin",
        "--",
    ];
    check(0, &wrapper, "UserNamespaces/Overlay", &EVERYWHERE, 18);
}

#[test]
fn a_root_of_a_user_namespace_has_namespaces() {
    let wrapper = ["unshare", "--user", "--map-root-user", "--"];
    check(0, &wrapper, "Namespaces/Overlay", &EVERYWHERE, 18);
}

#[test]
fn processes_are_grouped_where_there_are_no_namespaces() {
    let script = "for kind in user pid mnt; do echo 0 > /proc/sys/user/max_${kind}_namespaces; done
                  exec \"$@\"";
    let wrapper = [
        "unshare",
        "--user",
        "--map-root-user",
        "--",
        "sh",
        "-ec",
        script,
        "sh",
    ];
    check(0, &wrapper, "Group/Copy", &EVERYWHERE, 18);
}

#[test]
fn images_are_read_only_where_they_cannot_be_overlaid() {
    // an overlay cannot be the upper layer of another one
    let script = "mount -t tmpfs tmpfs \"$TMPDIR\"; cd \"$TMPDIR\"; mkdir lower upper work root
                  mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay root
                  TMPDIR=$TMPDIR/root; cd root; exec \"$@\"";
    let wrapper = ["unshare", "--mount", "--", "sh", "-ec", script, "sh"];
    check(0, &wrapper, "Namespaces/ReadOnly", &EVERYWHERE, 18);
}
