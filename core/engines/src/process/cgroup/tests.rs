use super::*;

const GROUPS: &str = "\
5:pids:/user/7
4:memory:/jobs/one
3:cpu,cpuacct:/
1:name=systemd:/x
0::/unified/two
";

const MOUNTS: &str = "\
35 31 0:32 /jobs /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
39 31 0:36 /elsewhere /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

#[test]
fn our_own_groups_are_found_through_what_is_mounted() {
    let found = find::named(GROUPS, MOUNTS);
    let own = |controller| match found.get(&controller) {
        Some(Ok(hierarchy)) => Some(hierarchy.own.to_str().unwrap().to_owned()),
        _ => None,
    };
    let memory = own(Controller::Memory);
    assert_eq!(memory.as_deref(), Some("/sys/fs/cgroup/memory/one"));
    let cpu = own(Controller::Cpu);
    assert_eq!(cpu.as_deref(), Some("/sys/fs/cgroup/cpu,cpuacct/"));
    assert_eq!(own(Controller::Pids), None, "its mount does not show it");
    let unified = find::unified(GROUPS, MOUNTS).unwrap();
    assert_eq!(unified, Path::new("/sys/fs/cgroup/unified/unified/two"));
    assert!(find::named("", "").is_empty() && find::unified("", "").is_none());
}

/// A directory that looks like a hierarchy, and the engine's view of it.
fn hierarchy(version: Version) -> (tempfile::TempDir, Cgroups) {
    let own = tempfile::tempdir().unwrap();
    if version == Version::V2 {
        let base = own.path().join("systemprompt-test");
        for folder in [own.path(), &base] {
            fs::create_dir_all(folder).unwrap();
            fs::write(folder.join("cgroup.controllers"), "cpuset cpu memory\n").unwrap();
        }
    }
    let known = |controller| {
        let own = own.path().to_owned();
        (controller, Ok(Hierarchy { version, own }))
    };
    let mut hierarchies: BTreeMap<_, _> = [Controller::Memory, Controller::Cpu]
        .map(known)
        .into_iter()
        .collect();
    hierarchies.insert(Controller::Pids, Err("not here".to_owned()));
    let name = "systemprompt-test".to_owned();
    let cgroups = Cgroups {
        hierarchies,
        holding: None,
        name,
    };
    (own, cgroups)
}

fn all() -> Resources {
    Resources {
        memory: Some(64 << 20),
        cpu_millis: Some(1500),
        pids: Some(8),
        ..Resources::default()
    }
}

#[test]
fn bounds_are_written_as_each_version_has_them() {
    let expected: [(Version, &[(&str, &str)]); 2] = [
        (
            Version::V1,
            &[
                ("memory.limit_in_bytes", "67108864"),
                ("cpu.cfs_period_us", "100000"),
                ("cpu.cfs_quota_us", "150000"),
            ],
        ),
        (
            Version::V2,
            &[("memory.max", "67108864"), ("cpu.max", "150000 100000")],
        ),
    ];
    for (version, files) in expected {
        let (own, cgroups) = hierarchy(version);
        let groups = cgroups.create("one", &all(), Hold::Bounded).unwrap();
        let group = own.path().join("systemprompt-test/one");
        assert_eq!(groups.0, std::slice::from_ref(&group));
        for (file, value) in files {
            assert_eq!(fs::read_to_string(group.join(file)).unwrap(), *value);
        }
        // those that a kernel may lack are not made up
        assert!(!group.join("memory.memsw.limit_in_bytes").exists());
        assert!(!group.join("memory.swap.max").exists());
        assert!(!group.join("pids.max").exists());
        if version == Version::V2 {
            let handed = own.path().join("systemprompt-test/cgroup.subtree_control");
            assert_eq!(fs::read_to_string(handed).unwrap(), "+cpu");
        }
    }
}

#[test]
fn what_cannot_be_enforced_is_named() {
    let (_own, cgroups) = hierarchy(Version::V1);
    assert_eq!(cgroups.lacks(&all()), ["pids: not here"]);
    assert!(cgroups.lacks(&Resources::default()).is_empty());
    let nothing = Cgroups {
        hierarchies: BTreeMap::new(),
        holding: None,
        name: String::new(),
    };
    assert_eq!(nothing.lacks(&all()).len(), 3);
}

#[test]
fn processes_that_ran_out_of_memory_are_counted_in_both_versions() {
    let folder = tempfile::tempdir().unwrap();
    let groups = Groups(vec![folder.path().to_owned()]);
    assert_eq!(groups.out_of_memory(), 0);
    let control = "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n";
    fs::write(folder.path().join("memory.oom_control"), control).unwrap();
    assert_eq!(groups.out_of_memory(), 2);
    let events = "low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 0\n";
    fs::write(folder.path().join("memory.events"), events).unwrap();
    fs::remove_file(folder.path().join("memory.oom_control")).unwrap();
    assert_eq!(groups.out_of_memory(), 1);
}

/// With the kernel's own files. Ordinary users have them where `elsewhere`, of the tests of the engine, gives them a group.
#[test]
fn a_group_of_version_2_holds_whoever_comes_from_what_entered_it_until_all_are_ended() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let cgroups = Cgroups::find(root.path());
    let version = cgroups.holding.as_ref().map(|holding| holding.version);
    assert_eq!(version, Some(Version::V2), "is /sys/fs/cgroup writable?");
    let nothing = Resources::default();
    let bounded = cgroups.create("one", &nothing, Hold::Bounded).unwrap();
    assert!(bounded.0.is_empty(), "there is nothing to bound");
    let groups = cgroups.create("one", &nothing, Hold::Always).unwrap();
    let [group] = &groups.0[..] else {
        panic!("one group: {groups:?}")
    };
    let script = "read go; (setsid sleep 600 &); sleep 600 & wait";
    let mut shell = std::process::Command::new("sh")
        .args(["-c", script])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    groups.enter(i32::try_from(shell.id()).unwrap()).unwrap();
    shell.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let read = |file: &str| fs::read_to_string(group.join(file)).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while read("cgroup.procs").lines().count() < 3 {
        assert!(Instant::now() < deadline, "{}", read("cgroup.procs"));
        std::thread::sleep(LOOK);
    }
    assert!(read("cgroup.events").contains("populated 1"));
    groups.kill();
    shell.wait().unwrap();
    groups.remove();
    let base = group.parent().unwrap();
    assert!(!group.exists() && !base.exists(), "{}", base.display());
    // ended and removed once more, by somebody who does not know of it
    groups.kill();
    groups.remove();
}
