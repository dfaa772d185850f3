//! These tests once more on a machine that has control groups of version 2 alone, with all of their
//! controllers: a virtual one, whatever this one has.
//!
//! It boots a kernel of the distribution with a root file system in memory that holds this program and
//! those that it needs; what it says on its serial line is the result. The processor is emulated:
//! virtualization would be faster where it works, and this works everywhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::images::closure;
use crate::setup::program;

/// Boot, tests and end take a quarter of it on an idle machine.
const LIMIT: Duration = Duration::from_mins(9);
const LOOK: Duration = Duration::from_millis(100);

/// What the scripts and the tests run.
const PROGRAMS: [&str; 12] = [
    "/bin/bash",
    "/bin/cat",
    "/bin/chmod",
    "/bin/cp",
    "/bin/mkdir",
    "/bin/mount",
    "/bin/sh",
    "/bin/sleep",
    "/usr/bin/chown",
    "/usr/bin/ldd",
    "/usr/bin/setpriv",
    "/usr/sbin/chroot",
];

/// The first root cannot be left as a mount namespace leaves one: everything moves to another.
const INIT: &str = "#!/bin/sh
mount -t tmpfs -o size=80% tmpfs /new
cp -a /bin /etc /lib /lib64 /tests /usr /new/
cd /new; mkdir dev proc sys tmp; chmod 1777 tmp
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t devtmpfs devices dev
mount -t cgroup2 cgroup2 sys/fs/cgroup
exec chroot /new /bin/sh /tests/run
";

/// Groups are handed down as systemd does it, to a service of root's and to one of a user. One test at a time: a server is
/// alone in its group when it makes room for others.
const RUN: &str = "cd /tmp
groups=/sys/fs/cgroup
echo '+cpu +memory +pids' > $groups/cgroup.subtree_control
mkdir $groups/root $groups/user $groups/shared
chown -R 65534 $groups/user
export ENGINES_PROGRAMS=/tests ENGINES_HELD=true ENGINES_LACKS=
tests='/tests/process --test-threads=1 limits::more limits::no_more_processes'
sh /tests/in root $tests limits::groups limits::the_groups limits::no_more_of
echo \"root: ended with $?\"
sh /tests/in user setpriv --reuid=65534 --regid=65534 --clear-groups -- $tests guards::orphans
echo \"user: ended with $?\"
cat $groups/root/cgroup.subtree_control
sleep 600 & echo $! > $groups/shared/cgroup.procs
ENGINES_LACKS='the server shares it with other processes'
sh /tests/in shared /tests/process limits::no_more_processes
echo \"shared: ended with $?\"
echo 'all of it has ended'
exec sleep 600
";

/// The last line. The machine is ended by whoever has read it: one that ends by itself loses what its serial line still holds.
const LAST: &str = "all of it has ended";

const ENTER: &str = "echo $$ > /sys/fs/cgroup/$1/cgroup.procs; shift; exec \"$@\"\n";

/// A root file system in memory, as the kernel unpacks it (`initramfs-buffer-format.rst` of Linux).
struct Archive {
    bytes: Vec<u8>,
    entries: usize,
    folders: BTreeSet<PathBuf>,
}

impl Archive {
    fn new() -> Self {
        let mut archive = Self {
            bytes: Vec::new(),
            entries: 0,
            folders: BTreeSet::new(),
        };
        for folder in ["dev", "new"] {
            archive.folder(Path::new(folder));
        }
        // what the kernel opens for the first process
        archive.entry("dev/console", 0o020_600, b"", [5, 1]);
        archive
    }

    fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        let path = path.trim_start_matches('/');
        let above = Path::new(path).ancestors().skip(1);
        let above: Vec<_> = above.filter(|folder| *folder != Path::new("")).collect();
        for folder in above.into_iter().rev() {
            self.folder(folder);
        }
        self.entry(path, 0o100_000 | mode, content, [0, 0]);
    }

    fn folder(&mut self, path: &Path) {
        if self.folders.insert(path.to_owned()) {
            self.entry(path.to_str().unwrap(), 0o040_755, b"", [0, 0]);
        }
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8], device: [usize; 2]) {
        self.entries += 1;
        let [major, minor] = device;
        let fields = [
            self.entries,
            mode as usize,
            0,
            0,
            1,
            0,
            content.len(),
            0,
            0,
            major,
            minor,
            name.len() + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// A program with its libraries, both where this machine has them.
    fn program(&mut self, path: &str) {
        self.file(path, 0o755, &fs::read(path).unwrap());
        self.libraries(Path::new(path));
    }

    fn libraries(&mut self, program: &Path) {
        for library in closure(program) {
            let name = library.to_str().unwrap();
            if self.folders.insert(library.clone()) {
                self.file(name, 0o755, &fs::read(&library).unwrap());
            }
        }
    }

    fn finish(mut self, path: &Path) {
        self.entry("TRAILER!!!", 0, b"", [0, 0]);
        fs::write(path, self.bytes).unwrap();
    }
}

fn pack(folder: &Path) -> PathBuf {
    let mut archive = Archive::new();
    for path in PROGRAMS {
        archive.program(path);
    }
    let tests = std::env::current_exe().unwrap();
    let own = ["engine-launcher", "engine-fixture", "engine-server"];
    let own = own.map(|name| (name, program(name)));
    for (name, path) in own.into_iter().chain([("process", tests)]) {
        // what is for debuggers is most of it
        let small = folder.join(name);
        let mut strip = Command::new("strip");
        let done = strip.arg("-o").arg(&small).arg(&path).status();
        assert!(done.expect("strip, of package binutils").success());
        archive.libraries(&path);
        archive.file(&format!("tests/{name}"), 0o755, &fs::read(small).unwrap());
    }
    let accounts = "root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n";
    for (path, mode, text) in [
        ("init", 0o755, INIT),
        ("tests/run", 0o644, RUN),
        ("tests/in", 0o644, ENTER),
        ("etc/passwd", 0o644, accounts),
        ("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n"),
        ("etc/hosts", 0o644, ""),
        ("etc/resolv.conf", 0o644, ""),
    ] {
        archive.file(path, mode, text.as_bytes());
    }
    let path = folder.join("root.cpio");
    archive.finish(&path);
    path
}

/// The kernel among the tools of the tests.
fn kernel() -> PathBuf {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-tools");
    let files = fs::read_dir(tools.join("linux/boot"));
    let files = files.expect("a kernel is missing: run `cargo xtask test --setup`");
    let mut files = files.map(|file| file.unwrap().path());
    let is_kernel = |path: &PathBuf| path.to_string_lossy().contains("/vmlinuz-");
    files.find(is_kernel).unwrap()
}

/// A virtual machine, which goes with its test.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // one that has ended is only reaped
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots a machine and returns what it has said until its last line, or its end.
fn boot(kernel: &Path, root: &Path, serial: &Path) -> String {
    let child = Command::new("qemu-system-x86_64")
        .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"])
        .args(["-m", "768", "-nic", "none", "-display", "none"])
        .args(["-monitor", "none", "-no-reboot", "-kernel"])
        .arg(kernel)
        .arg("-initrd")
        .arg(root)
        // the end of the first process is the end of the machine
        .args(["-append", "console=ttyS0 loglevel=0 panic=-1", "-serial"])
        .arg(format!("file:{}", serial.display()))
        .stdin(Stdio::null())
        .spawn()
        .expect("qemu-system-x86_64 is missing: run `cargo xtask test --setup`");
    let mut machine = Machine(child);
    let begun = Instant::now();
    let said = || String::from_utf8_lossy(&fs::read(serial).unwrap_or_default()).into_owned();
    while machine.0.try_wait().unwrap().is_none() && !said().contains(LAST) {
        assert!(begun.elapsed() < LIMIT, "it does not end: {}", said());
        std::thread::sleep(LOOK);
    }
    said()
}

#[test]
#[cfg(target_arch = "x86_64")]
fn limits_are_held_where_there_are_control_groups_of_version_2_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = pack(folder.path());
    let said = boot(&kernel(), &root, &folder.path().join("serial"));
    for line in [
        "test result: ok. 5 passed",
        "root: ended with 0",
        "test result: ok. 3 passed",
        "user: ended with 0",
        "test result: ok. 1 passed",
        "shared: ended with 0",
        // which its server could not do before it had left the group
        "cpu memory pids",
    ] {
        assert!(said.contains(line), "{line} is not in {said}");
    }
}
