//! The file system that holds a path.

use std::path::Path;

use mcp_common::{ToolError, bounded};
use nix::sys::statvfs::{Statvfs, statvfs};
use schemars::JsonSchema;
use serde::Serialize;

use crate::procfs;

/// The file system that holds a path.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Disk {
    /// The path that was asked for.
    pub path: String,
    /// Where the file system is mounted.
    pub mount_point: Option<String>,
    /// `ext4`, `overlay`, …
    pub file_system: Option<String>,
    /// Size in bytes.
    pub total_bytes: u64,
    /// Bytes that an ordinary user can still write.
    pub available_bytes: u64,
    /// Whether it is mounted read only.
    pub read_only: bool,
    /// Number of files that it can hold; 0 where it has no such limit.
    pub total_inodes: u64,
    /// Number of files that can still be made.
    pub available_inodes: u64,
}

pub(crate) fn read(path: &str) -> Result<Disk, ToolError> {
    bounded("path", path, 4096)?;
    if !path.starts_with('/') {
        return Err(ToolError::argument("path", "is not absolute").next("begin it with `/`"));
    }
    // The kernel resolves the path; links and `..` name a file system too and show no content.
    let facts = statvfs(Path::new(path))
        .map_err(|error| ToolError::argument("path", format!("cannot be looked at: {error}")))?;
    let mount = mount_of(path);
    Ok(disk(path, &facts, mount))
}

fn disk(path: &str, facts: &Statvfs, mount: Option<Mount>) -> Disk {
    let fragment = facts.fragment_size();
    let (mount_point, file_system) = mount.map(|m| (m.point, m.file_system)).unzip();
    Disk {
        path: path.to_owned(),
        mount_point,
        file_system,
        total_bytes: facts.blocks().saturating_mul(fragment),
        available_bytes: facts.blocks_available().saturating_mul(fragment),
        read_only: facts
            .flags()
            .contains(nix::sys::statvfs::FsFlags::ST_RDONLY),
        total_inodes: facts.files(),
        available_inodes: facts.files_available(),
    }
}

#[derive(Debug, PartialEq)]
struct Mount {
    point: String,
    file_system: String,
}

fn mount_of(path: &str) -> Option<Mount> {
    let real = std::fs::canonicalize(path).ok()?;
    let table = procfs::read("/proc/self/mountinfo").ok()?;
    longest(&table, &real)
}

/// The last mount at the longest mount point above the path: later ones cover earlier ones.
fn longest(table: &str, path: &Path) -> Option<Mount> {
    table
        .lines()
        .filter_map(parse)
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.len())
}

/// `36 35 98:0 /root /mount/point options - ext4 source options`, spaces written as `\040`.
fn parse(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let point = left.split(' ').nth(4)?;
    Some(Mount {
        point: point.replace("\\040", " ").replace("\\011", "\t"),
        file_system: right.split(' ').next()?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
        1 0 0:1 / / rw - overlay overlay rw\n\
        2 1 0:2 / /data rw shared:1 - ext4 /dev/a rw\n\
        3 2 0:3 / /data/my\\040files rw - xfs /dev/b rw\n\
        4 1 0:4 / /data rw - btrfs /dev/c rw\n";

    fn file_system(path: &str) -> Option<String> {
        longest(TABLE, Path::new(path)).map(|mount| mount.file_system)
    }

    #[test]
    fn the_deepest_and_latest_mount_counts() {
        assert_eq!(file_system("/etc").as_deref(), Some("overlay"));
        assert_eq!(file_system("/database").as_deref(), Some("overlay"));
        assert_eq!(file_system("/data/x").as_deref(), Some("btrfs"));
        assert_eq!(file_system("/data/my files/x").as_deref(), Some("xfs"));
    }

    #[test]
    fn paths_are_checked() {
        assert!(read("/").unwrap().total_bytes > 0);
        for bad in ["", "etc", "/no/such/path", "/a\0b"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }
}
