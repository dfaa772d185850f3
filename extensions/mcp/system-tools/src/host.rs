//! `host_info`: what kind of machine this is and how it fares.

use std::collections::HashMap;
use std::path::Path;

use mcp_common::{Reply, ToolError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::disk::{self, Disk};
use crate::{procfs, text};

/// Arguments of `host_info`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostArguments {
    /// Absolute path whose file system is reported.
    #[serde(default = "root")]
    #[schemars(length(min = 1, max = 4096))]
    path: String,
}

fn root() -> String {
    "/".to_owned()
}

/// Facts about a host.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct HostInfo {
    /// The host's name.
    pub hostname: String,
    /// The kernel.
    pub kernel: Kernel,
    /// The operating system (of the container, inside one).
    pub os: OperatingSystem,
    /// Seconds since the machine started.
    pub uptime_seconds: u64,
    /// Load.
    pub load: Load,
    /// Processors.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// The file system that holds the path that was asked for.
    pub disk: Disk,
}

/// The kernel.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Kernel {
    /// As `uname -r` says.
    pub release: String,
    /// As `uname -v` says.
    pub version: String,
    /// `x86_64`, `aarch64`, …
    pub architecture: String,
}

/// The operating system, from `os-release`.
#[derive(Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct OperatingSystem {
    /// `debian`, `alpine`, …
    pub id: Option<String>,
    /// Its version.
    pub version_id: Option<String>,
    /// For people.
    pub pretty_name: Option<String>,
}

/// Load averages, in processes that run or wait to run.
#[derive(Debug, Default, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Load {
    /// Over the last minute.
    pub one_minute: f64,
    /// Over the last five.
    pub five_minutes: f64,
    /// Over the last fifteen.
    pub fifteen_minutes: f64,
}

/// Processors.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Cpu {
    /// Processors that this process may use (affinity and control group counted).
    pub available: u64,
    /// Processors of the machine that are online.
    pub online: u64,
    /// Name of the first one.
    pub model: Option<String>,
}

/// Memory in bytes.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(
    clippy::struct_field_names,
    reason = "the names are the wire's and carry their unit"
)]
pub(crate) struct Memory {
    /// All of the machine's.
    pub total_bytes: u64,
    /// What new programs can get without swapping.
    pub available_bytes: u64,
    /// Swap space.
    pub swap_total_bytes: u64,
    /// Unused swap space.
    pub swap_free_bytes: u64,
    /// Limit of this process's control group, where it has one.
    pub control_group_limit_bytes: Option<u64>,
}

pub(crate) fn read(arguments: &HostArguments) -> Result<Reply<HostInfo>, ToolError> {
    // The argument first: a wrong one needs no reading.
    let disk = disk::read(&arguments.path)?;
    let info = HostInfo {
        hostname: line("/proc/sys/kernel/hostname")?,
        kernel: Kernel {
            release: line("/proc/sys/kernel/osrelease")?,
            version: line("/proc/sys/kernel/version")?,
            architecture: std::env::consts::ARCH.to_owned(),
        },
        os: operating_system(),
        uptime_seconds: procfs::age(procfs::uptime().map_err(unreadable("/proc/uptime"))?, 0, 1),
        load: load(&line("/proc/loadavg")?),
        cpu: cpu()?,
        memory: memory(&line("/proc/meminfo")?),
        disk,
    };
    Ok(Reply::new(describe(&info), info))
}

fn line(path: &str) -> Result<String, ToolError> {
    procfs::read(path)
        .map(|text| text.trim().to_owned())
        .map_err(unreadable(path))
}

fn unreadable(path: &str) -> impl Fn(std::io::Error) -> ToolError {
    move |error| ToolError::new(format!("cannot read {path}: {error}"))
}

fn operating_system() -> OperatingSystem {
    // os-release(5): the second place holds where the first is missing.
    let text = procfs::read("/etc/os-release").or_else(|_| procfs::read("/usr/lib/os-release"));
    parse_os_release(&text.unwrap_or_default())
}

fn parse_os_release(text: &str) -> OperatingSystem {
    let values: HashMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim(), value.trim().trim_matches(['"', '\''])))
        .collect();
    let get = |key| values.get(key).map(|v| (*v).to_owned());
    OperatingSystem {
        id: get("ID"),
        version_id: get("VERSION_ID"),
        pretty_name: get("PRETTY_NAME"),
    }
}

fn load(text: &str) -> Load {
    let mut numbers = text.split_whitespace().map(|n| n.parse().unwrap_or(0.0));
    let mut next = || numbers.next().unwrap_or(0.0);
    Load {
        one_minute: next(),
        five_minutes: next(),
        fifteen_minutes: next(),
    }
}

fn cpu() -> Result<Cpu, ToolError> {
    let online = line("/sys/devices/system/cpu/online")
        .ok()
        .map(|ranges| count_ranges(&ranges));
    let available = std::thread::available_parallelism()
        .map(|n| n.get() as u64)
        .map_err(unreadable("the processor affinity"))?;
    let model = procfs::read("/proc/cpuinfo").ok().and_then(|text| {
        let fields = text.lines().find(|l| l.starts_with("model name"))?;
        Some(fields.split_once(':')?.1.trim().to_owned())
    });
    Ok(Cpu {
        available,
        online: online.unwrap_or(available),
        model,
    })
}

/// `0-3,8` is five.
fn count_ranges(text: &str) -> u64 {
    let count = |range: &str| -> Option<u64> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        Some(last.checked_sub(first)? + 1)
    };
    text.split(',').filter_map(|r| count(r.trim())).sum()
}

fn memory(meminfo: &str) -> Memory {
    let fields = procfs::fields(meminfo);
    let get = |name| {
        fields
            .get(name)
            .and_then(|v| procfs::kibibytes(v))
            .unwrap_or(0)
    };
    Memory {
        total_bytes: get("MemTotal"),
        available_bytes: get("MemAvailable"),
        swap_total_bytes: get("SwapTotal"),
        swap_free_bytes: get("SwapFree"),
        control_group_limit_bytes: control_group_limit(),
    }
}

/// The tightest limit on the way up the control groups (version 2); `max` is none.
fn control_group_limit() -> Option<u64> {
    let groups = procfs::read("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(group);
    own.ancestors()
        .take_while(|folder| folder.starts_with(root))
        .filter_map(|folder| procfs::read(folder.join("memory.max")).ok())
        .filter_map(|text| text.trim().parse().ok())
        .min()
}

fn describe(info: &HostInfo) -> String {
    let HostInfo {
        kernel,
        load,
        memory,
        disk,
        ..
    } = info;
    let limit = memory
        .control_group_limit_bytes
        .map(|limit| format!(", limited to {}", text::bytes(limit)))
        .unwrap_or_default();
    [
        format!("host    {}", info.hostname),
        format!("os      {}", text::or_dash(info.os.pretty_name.as_ref())),
        format!("kernel  {} ({})", kernel.release, kernel.architecture),
        format!("up      {}", text::duration(info.uptime_seconds)),
        format!(
            "load    {} {} {}",
            load.one_minute, load.five_minutes, load.fifteen_minutes
        ),
        format!(
            "cpu     {} of {} online, {}",
            info.cpu.available,
            info.cpu.online,
            text::or_dash(info.cpu.model.as_ref())
        ),
        format!(
            "memory  {} available of {}{limit}; swap {} free of {}",
            text::bytes(memory.available_bytes),
            text::bytes(memory.total_bytes),
            text::bytes(memory.swap_free_bytes),
            text::bytes(memory.swap_total_bytes)
        ),
        format!(
            "disk    {} available of {} at {} ({}{})",
            text::bytes(disk.available_bytes),
            text::bytes(disk.total_bytes),
            text::or_dash(disk.mount_point.as_ref()),
            text::or_dash(disk.file_system.as_ref()),
            if disk.read_only { ", read only" } else { "" }
        ),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_with_and_without_quotes() {
        let os = parse_os_release("ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME='Debian 12'\n# x\n");
        assert_eq!(os.id.as_deref(), Some("debian"));
        assert_eq!(os.version_id.as_deref(), Some("12"));
        assert_eq!(os.pretty_name.as_deref(), Some("Debian 12"));
        assert_eq!(parse_os_release(""), OperatingSystem::default());
    }

    #[test]
    fn processor_ranges_are_counted() {
        assert_eq!(count_ranges("0-3,8"), 5);
        assert_eq!(count_ranges("0"), 1);
        assert_eq!(count_ranges("3-1,x,"), 0);
    }

    #[test]
    fn load_and_memory_are_read() {
        let read = load("0.50 1.25 2.00 1/99 4");
        assert!((read.five_minutes - 1.25).abs() < 1e-9);
        assert_eq!(load(""), Load::default());
        let memory = memory("MemTotal:  10 kB\nMemAvailable: 4 kB\nSwapTotal: 0 kB\n");
        assert_eq!((memory.total_bytes, memory.available_bytes), (10_240, 4096));
    }
}
