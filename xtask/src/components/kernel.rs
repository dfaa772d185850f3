//! A kernel for a virtual machine, from a package that is unpacked and not installed: this machine goes on with its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use xshell::{Shell, cmd};

use super::{say, tools};

/// Packages of Debian and Ubuntu that depend on the newest kernel for virtual machines.
const NAMES: [&str; 2] = ["linux-image-cloud-amd64", "linux-image-virtual"];

/// The kernel among the tools.
pub(super) fn find(root: &Path) -> Option<PathBuf> {
    let files = fs::read_dir(folder(root).join("boot")).ok()?.flatten();
    let mut kernels =
        files.filter(|file| file.file_name().to_string_lossy().starts_with("vmlinuz-"));
    kernels.next().map(|file| file.path())
}

/// What [`install`] does, for people.
pub(super) fn command() -> String {
    format!(
        "cargo xtask test --setup, which unpacks the kernel of {}",
        NAMES.join(" or ")
    )
}

/// Downloads the kernel's package and unpacks the kernel alone: its modules would take four times the room.
pub(super) fn install(shell: &Shell, root: &Path) -> Result<()> {
    let names = NAMES.iter().filter_map(|name| {
        let listed = cmd!(shell, "apt-cache depends {name}");
        package(&listed.quiet().ignore_stderr().read().ok()?)
    });
    let Some(package) = names.into_iter().next() else {
        let names = NAMES.join(" nor ");
        bail!(
            "apt-get knows neither {names}: run `apt-get update`, or install a kernel by other means into {}/boot",
            folder(root).display()
        );
    };
    say(&format!("unpacking {package}"));
    let folder = folder(root);
    let downloads = folder.join("downloads");
    fs::create_dir_all(&downloads).context("cannot create the folder of the kernel")?;
    let _folder = shell.push_dir(&downloads);
    cmd!(
        shell,
        "apt-get -qq -o APT::Sandbox::User=root download {package}"
    )
    .quiet()
    .run()
    .context("cannot download the kernel")?;
    for package in shell.read_dir(&downloads)? {
        let all = downloads.join("all");
        cmd!(shell, "dpkg -x {package} {all}")
            .quiet()
            .run()
            .context("cannot unpack the kernel")?;
        fs::rename(all.join("boot"), folder.join("boot")).context("cannot keep the kernel")?;
    }
    shell
        .remove_path(&downloads)
        .context("cannot remove the downloads")
}

/// The package of the kernel itself, of what `apt-cache depends` says.
fn package(listed: &str) -> Option<String> {
    let depends = listed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "));
    let mut images = depends.filter(|name| name.starts_with("linux-image-"));
    images.next().map(str::to_owned)
}

fn folder(root: &Path) -> PathBuf {
    tools(root).join("linux")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_what_the_newest_one_depends_on() {
        let listed = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(
            package(listed).as_deref(),
            Some("linux-image-6.1.0-56-cloud-amd64")
        );
        let other = "linux-image-virtual\n  Depends: <other>\n  Suggests: linux-image-x\n";
        assert_eq!(package(other), None);
    }
}
