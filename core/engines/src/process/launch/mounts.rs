//! The root directory of an instance: the image, what Linux programs expect in it, and nothing of
//! the machine but its name resolution.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{chdir, pivot_root};

use super::protocol::{Failure, Namespaces, RootMount, Volume};
use crate::process::rootpath::{self, Last};
use crate::process::tree;

const NONE: Option<&str> = None;

/// No set-uid programs, no devices.
const PLAIN: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV);
const FIXED_ROOT: MsFlags = PLAIN.union(MsFlags::MS_RDONLY);

/// The devices every program may use.
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Parts of `/proc` that speak about the whole machine, as Docker hides them.
const HIDDEN: [&str; 8] = [
    "acpi",
    "asound",
    "kcore",
    "keys",
    "latency_stats",
    "scsi",
    "sched_debug",
    "timer_list",
];

/// Parts of `/proc` through which root changes the machine.
const FIXED: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// Builds the root and moves into it. Nothing of the machine's own tree can be reached afterwards.
pub(super) fn enter_root(namespaces: &Namespaces) -> Result<(), Failure> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NONE, "/", NONE, private, NONE).map_err(Failure::at("make mounts private"))?;
    let root = Root {
        target: &namespaces.target,
    };
    root.image(&namespaces.root)?;
    root.proc()?;
    root.dev()?;
    for volume in &namespaces.volumes {
        root.volume(volume)?;
    }
    if let RootMount::Overlay {
        read_only: true, ..
    } = namespaces.root
    {
        remount(root.target, FIXED_ROOT, "make the root read-only")?;
    }
    for file in ["/etc/resolv.conf", "/etc/hosts"] {
        root.machine_file(file)?;
    }
    root.pivot()
}

struct Root<'a> {
    target: &'a Path,
}

impl Root<'_> {
    fn image(&self, root: &RootMount) -> Result<(), Failure> {
        match root {
            RootMount::Overlay {
                image,
                upper,
                work,
                read_only,
            } => {
                self.overlay(image, upper, work)?;
                if *read_only { self.tmp() } else { Ok(()) }
            }
            RootMount::ReadOnly { image } => {
                bind(image, self.target, "mount the image")?;
                remount(self.target, FIXED_ROOT, "make the image read-only")?;
                self.tmp()
            }
        }
    }

    fn tmp(&self) -> Result<(), Failure> {
        let tmp = self.place("/tmp")?;
        self.tmpfs(&tmp, PLAIN, "mode=1777")
    }

    /// `userxattr` is what a user namespace may keep its notes in; root uses the attributes that
    /// programs cannot forge.
    fn overlay(&self, image: &Path, upper: &Path, work: &Path) -> Result<(), Failure> {
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            image.display(),
            upper.display(),
            work.display()
        );
        let try_with = |options: &str| {
            mount(
                Some("overlay"),
                self.target,
                Some("overlay"),
                PLAIN,
                Some(options),
            )
        };
        try_with(&layers)
            .or_else(|_| try_with(&format!("{layers},userxattr")))
            .map_err(Failure::at("overlay the image"))
    }

    fn proc(&self) -> Result<(), Failure> {
        let proc = self.place("/proc")?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("proc"), &proc, Some("proc"), flags, NONE)
            .map_err(Failure::at("mount /proc"))?;
        for path in FIXED
            .map(|name| proc.join(name))
            .iter()
            .filter(|path| path.exists())
        {
            bind(path, path, "fix parts of /proc")?;
            remount(path, MsFlags::MS_RDONLY, "fix parts of /proc")?;
        }
        for path in HIDDEN
            .map(|name| proc.join(name))
            .iter()
            .filter(|path| path.exists())
        {
            if path.is_dir() {
                self.tmpfs(path, MsFlags::MS_RDONLY, "size=0")?;
            } else {
                bind(Path::new("/dev/null"), path, "hide parts of /proc")?;
            }
        }
        Ok(())
    }

    fn dev(&self) -> Result<(), Failure> {
        let step = "mount /dev";
        let dev = self.place("/dev")?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        self.tmpfs(&dev, flags, "mode=755,size=64k")?;
        for name in DEVICES {
            let machine = Path::new("/dev").join(name);
            if machine.exists() {
                fs::write(dev.join(name), b"").map_err(Failure::at(step))?;
                bind(&machine, &dev.join(name), step)?;
            }
        }
        for (name, target) in LINKS {
            symlink(target, dev.join(name)).map_err(Failure::at(step))?;
        }
        let shared = dev.join("shm");
        fs::create_dir(&shared).map_err(Failure::at(step))?;
        let flags = flags | MsFlags::MS_NODEV;
        self.tmpfs(&shared, flags, "mode=1777,size=64m")
    }

    fn volume(&self, volume: &Volume) -> Result<(), Failure> {
        let step = format!("mount a volume at {}", volume.path.display());
        let place = self.place_of(&volume.path)?;
        tree::make_open(&place).map_err(|error| {
            Failure::new(&step, format!("the image has no such directory: {error}"))
        })?;
        bind(&volume.source, &place, &step)?;
        remount(&place, PLAIN, &step)
    }

    /// Name resolution is the machine's, as its network is. A machine without the file has none.
    fn machine_file(&self, path: &str) -> Result<(), Failure> {
        let place = self.place(path)?;
        if !Path::new(path).is_file() || !place.is_file() {
            return Ok(());
        }
        let step = format!("mount {path}");
        bind(Path::new(path), &place, &step)?;
        remount(&place, MsFlags::MS_RDONLY, &step)
    }

    /// The image is not trusted: its links must not lead a mount elsewhere.
    fn place(&self, path: &str) -> Result<PathBuf, Failure> {
        self.place_of(Path::new(path))
    }

    fn place_of(&self, path: &Path) -> Result<PathBuf, Failure> {
        let step = format!("find {} in the image", path.display());
        rootpath::resolve(self.target, path, Last::Follow).map_err(Failure::at(&step))
    }

    #[expect(clippy::unused_self, reason = "reads as the other mounts do")]
    fn tmpfs(&self, place: &Path, flags: MsFlags, options: &str) -> Result<(), Failure> {
        let step = format!("mount a tmpfs at {}", place.display());
        mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some(options)).map_err(Failure::at(&step))
    }

    /// Both roots in one place: the old one lies on top and is taken off, so that no directory for
    /// it has to exist in the image.
    fn pivot(&self) -> Result<(), Failure> {
        let step = "change the root directory";
        chdir(self.target).map_err(Failure::at(step))?;
        pivot_root(".", ".").map_err(Failure::at(step))?;
        umount2(".", MntFlags::MNT_DETACH).map_err(Failure::at(step))?;
        chdir("/").map_err(Failure::at(step))
    }
}

fn bind(source: &Path, target: &Path, step: &str) -> Result<(), Failure> {
    mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE)
        .map_err(|error| Failure::new(step, format!("{}: {error}", target.display())))
}

/// Adds `flags` to a bind mount. A user namespace may not take any off that were there.
fn remount(target: &Path, flags: MsFlags, step: &str) -> Result<(), Failure> {
    let failed = |error| Failure::new(step, format!("{}: {error}", target.display()));
    let there = statvfs(target).map_err(failed)?.flags();
    let kept = [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ];
    let kept = kept.into_iter().filter(|(found, _)| there.contains(*found));
    let all = kept.fold(flags, |all, (_, flag)| all | flag);
    let flags = all | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    mount(NONE, target, NONE, flags, NONE).map_err(failed)
}
