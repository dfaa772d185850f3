//! A project in a temporary folder, and ways to look at the images made from it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]
#![allow(dead_code, reason = "each test file uses its own part of this module")]

pub(crate) mod docker;
pub(crate) mod tree;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::UtimensatFlags::NoFollowSymlink;
use nix::sys::stat::utimensat;

use deploy_image::{Context, Ignore, Image};
use oci::Store;

/// A project folder, a store beside it.
pub(crate) struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    pub(crate) fn new() -> Self {
        let project = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::create_dir(project.path("context")).unwrap();
        project
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// The build context.
    pub(crate) fn root(&self) -> PathBuf {
        self.path("context")
    }

    pub(crate) fn write(&self, path: &str, content: &str) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub(crate) fn chmod(&self, path: &str, mode: u32) {
        fs::set_permissions(self.root().join(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    pub(crate) fn context(&self) -> Context {
        let root = self.root();
        let ignore = Ignore::find(&root, &root.join("Dockerfile")).unwrap();
        Context::new(root, ignore)
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(self.path("store")).unwrap()
    }

    /// Makes every file of the project look old, as after a coffee.
    pub(crate) fn age(&self) {
        self.set_times(SystemTime::now() - Duration::from_hours(1));
    }

    /// Gives every file and link one time.
    pub(crate) fn set_times(&self, time: SystemTime) {
        for entry in walkdir::WalkDir::new(self.folder.path()) {
            let entry = entry.unwrap();
            let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
            let time = nix::sys::time::TimeSpec::from(since);
            if !entry.file_type().is_dir() {
                utimensat(AT_FDCWD, entry.path(), &time, &time, NoFollowSymlink).unwrap();
            }
        }
    }
}

/// Compiles `text` with the compiler that builds this test.
pub(crate) fn rustc(project: &Project, text: &str, output: &Path, arguments: &[&str]) {
    let source = project.path("source.rs");
    fs::write(&source, text).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command
        .args(["--edition=2024", "-o"])
        .arg(output)
        .args(arguments)
        .arg(&source);
    assert!(command.status().unwrap().success());
}

/// Compiles a small dynamically linked program.
pub(crate) fn compile(project: &Project, name: &str) -> PathBuf {
    let program = project.path(name);
    let text = format!("fn main() {{ println!(\"{name} from inside\"); }}");
    rustc(project, &text, &program, &[]);
    program
}

/// Unpacks all layers of an image over each other.
pub(crate) fn unpack(project: &Project, image: &Image) -> PathBuf {
    let root = project.path("root");
    fs::create_dir(&root).unwrap();
    for layer in &image.layers {
        let blob = image.sources[&layer.digest].open_at(0).unwrap();
        let mut archive = tar::Archive::new(blob);
        archive.set_preserve_permissions(true);
        archive.unpack(&root).unwrap();
    }
    root
}

/// Runs a program of an unpacked image with nothing but the image's files: in a new root where that
/// is allowed, else through the image's own loader and libraries.
pub(crate) fn run_inside(root: &Path, program: &str) -> String {
    let inside = root.join(program.trim_start_matches('/'));
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("chroot");
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.arg(root).arg(program);
        // The loader reads $ORIGIN from /proc, which this root has not; it takes this instead.
        let folder = Path::new(program).parent().unwrap();
        command.env("LD_ORIGIN_PATH", folder);
        command
    } else {
        let loader = fs::canonicalize(root.join("lib64/ld-linux-x86-64.so.2")).unwrap();
        let mut command = Command::new(loader);
        command.env_clear();
        let libraries = root.join("usr/lib/x86_64-linux-gnu");
        command.arg("--library-path").arg(libraries).arg(inside);
        command
    };
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
