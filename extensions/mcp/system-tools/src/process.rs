//! `process`: one process in detail.

use std::fs::File;
use std::io::{ErrorKind, Read as _};

use mcp_common::{Reply, ToolError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::processes::effective;
use crate::procfs::{self, Stat};
use crate::redact::redact;
use crate::text;
use crate::users::Users;

/// The kernel's own limit of process ids on 64-bit machines.
const MAX_PID: u32 = 4_194_304;
/// Of a command line, so much is read and so many arguments are shown.
const MAX_COMMAND: u64 = 64 * 1024;
const MAX_ARGUMENTS: usize = 100;
const MAX_ARGUMENT: usize = 1000;

/// Arguments of `process`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProcessArguments {
    /// Id of the process, as `processes` lists it.
    #[schemars(range(min = 1, max = 4_194_304))]
    pid: u32,
}

/// One process.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ProcessDetails {
    /// Its id.
    pub pid: u32,
    /// Its parent's id.
    pub parent: u32,
    /// Its name, as the kernel keeps it.
    pub name: String,
    /// What it is doing.
    pub state: String,
    /// User id that it acts as.
    pub user_id: Option<u32>,
    /// That user's name.
    pub user: Option<String>,
    /// Group id that it acts as.
    pub group_id: Option<u32>,
    /// Its command line; what looks like a secret is replaced by `[redacted]`. Empty for threads
    /// of the kernel.
    pub command_line: Vec<String>,
    /// Whether the command line is longer than what is shown.
    pub command_line_truncated: bool,
    /// The file it runs.
    pub executable: Option<String>,
    /// Number of its threads.
    pub threads: u64,
    /// Seconds since its start.
    pub age_seconds: u64,
    /// Seconds of processor time in its own code.
    pub user_cpu_seconds: f64,
    /// Seconds of processor time in the kernel on its behalf.
    pub system_cpu_seconds: f64,
    /// Memory.
    pub memory: ProcessMemory,
    /// Number of its open file descriptors.
    pub open_files: Option<usize>,
    /// Its resource limits.
    pub limits: Option<Vec<Limit>>,
    /// Its control groups.
    pub control_groups: Vec<String>,
}

/// Memory of a process in bytes.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(
    clippy::struct_field_names,
    reason = "the names are the wire's and carry their unit"
)]
pub(crate) struct ProcessMemory {
    /// What it holds now.
    pub resident_bytes: u64,
    /// The most it ever held.
    pub peak_resident_bytes: u64,
    /// Its address space.
    pub virtual_bytes: u64,
    /// What of it lies in the swap space.
    pub swapped_bytes: u64,
}

/// One resource limit.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Limit {
    /// `Max open files`, …
    pub name: String,
    /// What holds now; `unlimited` is null.
    pub soft: Option<u64>,
    /// What it may be raised to; `unlimited` is null.
    pub hard: Option<u64>,
    /// `bytes`, `files`, …
    pub unit: Option<String>,
}

pub(crate) fn read(arguments: &ProcessArguments) -> Result<Reply<ProcessDetails>, ToolError> {
    let pid = arguments.pid;
    if !(1..=MAX_PID).contains(&pid) {
        return Err(ToolError::argument(
            "pid",
            format!("is not within 1 to {MAX_PID}"),
        ));
    }
    let stat = Stat::read(pid).map_err(|error| unreadable(pid, &error))?;
    let status =
        procfs::read(format!("/proc/{pid}/status")).map_err(|error| unreadable(pid, &error))?;
    let details = details(pid, stat, &status)?;
    Ok(Reply::new(describe(&details), details))
}

fn unreadable(pid: u32, error: &std::io::Error) -> ToolError {
    // ESRCH: it ended between opening and reading.
    if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH) {
        return ToolError::new(format!("there is no process {pid}"))
            .next("list them with `processes`");
    }
    ToolError::new(format!("cannot read process {pid}: {error}"))
}

fn details(pid: u32, stat: Stat, status: &str) -> Result<ProcessDetails, ToolError> {
    let fields = procfs::fields(status);
    let ticks = procfs::ticks_per_second();
    let uptime = procfs::uptime()
        .map_err(|error| ToolError::new(format!("cannot read /proc/uptime: {error}")))?;
    let bytes = |name| {
        fields
            .get(name)
            .and_then(|value| procfs::kibibytes(value))
            .unwrap_or(0)
    };
    let user_id = fields.get("Uid").and_then(|ids| effective(ids));
    let (command_line, command_line_truncated) = command_line(pid);
    Ok(ProcessDetails {
        pid,
        parent: stat.parent,
        state: procfs::state_name(stat.state).to_owned(),
        user: user_id.and_then(|id| Users::read().name(id)),
        user_id,
        group_id: fields.get("Gid").and_then(|ids| effective(ids)),
        command_line,
        command_line_truncated,
        executable: executable(pid),
        threads: stat.threads,
        age_seconds: procfs::age(uptime, stat.start_ticks, ticks),
        user_cpu_seconds: procfs::seconds(stat.user_ticks, ticks),
        system_cpu_seconds: procfs::seconds(stat.system_ticks, ticks),
        memory: ProcessMemory {
            resident_bytes: bytes("VmRSS"),
            peak_resident_bytes: bytes("VmHWM"),
            virtual_bytes: bytes("VmSize"),
            swapped_bytes: bytes("VmSwap"),
        },
        open_files: open_files(pid),
        limits: limits(pid),
        control_groups: control_groups(pid),
        name: stat.name,
    })
}

/// The redacted command line, and whether it is cut short. It is redacted before it is cut: a
/// secret cut in half would no longer be known as one.
fn command_line(pid: u32) -> (Vec<String>, bool) {
    let mut bytes = Vec::new();
    let read = File::open(format!("/proc/{pid}/cmdline"))
        .and_then(|file| file.take(MAX_COMMAND).read_to_end(&mut bytes));
    if read.is_err() {
        return (Vec::new(), false);
    }
    let whole = (bytes.len() as u64) < MAX_COMMAND;
    let mut arguments = split(&bytes);
    if !whole {
        // The last one may be half a secret.
        arguments.pop();
    }
    let mut shown = redact(&arguments);
    let mut cut = !whole || shown.len() > MAX_ARGUMENTS;
    shown.truncate(MAX_ARGUMENTS);
    for argument in &mut shown {
        cut |= shorten(argument);
    }
    (shown, cut)
}

/// Arguments end with a zero byte each; a program that wrote over them may leave none.
fn split(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes
        .split(|&byte| byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

fn shorten(argument: &mut String) -> bool {
    let Some((end, _)) = argument.char_indices().nth(MAX_ARGUMENT) else {
        return false;
    };
    argument.truncate(end);
    argument.push('…');
    true
}

fn executable(pid: u32) -> Option<String> {
    let path = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(path.to_string_lossy().into_owned())
}

fn open_files(pid: u32) -> Option<usize> {
    Some(std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

fn limits(pid: u32) -> Option<Vec<Limit>> {
    let text = procfs::read(format!("/proc/{pid}/limits")).ok()?;
    Some(text.lines().skip(1).filter_map(parse_limit).collect())
}

/// Columns are padded: `Max open files            1024                 4096                 files`.
fn parse_limit(line: &str) -> Option<Limit> {
    let name = line.get(..26)?.trim().to_owned();
    let mut words = line.get(26..)?.split_whitespace();
    let (soft, hard) = (words.next()?, words.next()?);
    Some(Limit {
        name,
        soft: soft.parse().ok(),
        hard: hard.parse().ok(),
        unit: words.next().map(str::to_owned),
    })
}

fn control_groups(pid: u32) -> Vec<String> {
    let text = procfs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines().take(32).map(str::to_owned).collect()
}

fn describe(process: &ProcessDetails) -> String {
    let user = process
        .user
        .clone()
        .unwrap_or_else(|| text::or_dash(process.user_id.as_ref()));
    let mut lines = vec![
        format!("process     {} {}", process.pid, process.name),
        format!("command     {}", process.command_line.join(" ")),
        format!("executable  {}", text::or_dash(process.executable.as_ref())),
        format!("state       {}, parent {}", process.state, process.parent),
        format!("user        {user}"),
        format!("age         {}", text::duration(process.age_seconds)),
        format!(
            "cpu         {:.1}s own, {:.1}s in the kernel, {} threads",
            process.user_cpu_seconds, process.system_cpu_seconds, process.threads
        ),
        format!(
            "memory      {} (peak {}, swapped {})",
            text::bytes(process.memory.resident_bytes),
            text::bytes(process.memory.peak_resident_bytes),
            text::bytes(process.memory.swapped_bytes)
        ),
        format!("open files  {}", text::or_dash(process.open_files.as_ref())),
    ];
    let finite = process.limits.iter().flatten().filter(|l| l.soft.is_some());
    lines.extend(finite.map(|limit| {
        format!(
            "limit       {}: {} (at most {}) {}",
            limit.name,
            text::or_dash(limit.soft.as_ref()),
            limit.hard.map_or("unlimited".to_owned(), |l| l.to_string()),
            limit.unit.as_deref().unwrap_or_default()
        )
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        let line = "Max open files            1024                 unlimited            files     ";
        assert_eq!(
            parse_limit(line),
            Some(Limit {
                name: "Max open files".to_owned(),
                soft: Some(1024),
                hard: None,
                unit: Some("files".to_owned()),
            })
        );
        let line = "Max nice priority         0                    0                    ";
        assert_eq!(parse_limit(line).unwrap().unit, None);
        assert_eq!(parse_limit("short"), None);
    }

    #[test]
    fn command_lines_are_split_at_zero_bytes() {
        assert_eq!(split(b"a\0\0b c\0"), ["a", "", "b c"]);
        assert_eq!(split(b"title: worker"), ["title: worker"]);
        assert!(split(b"").is_empty());
    }

    #[test]
    fn long_arguments_are_cut_at_a_character() {
        let mut argument = "é".repeat(MAX_ARGUMENT + 1);
        assert!(shorten(&mut argument));
        assert_eq!(argument.chars().count(), MAX_ARGUMENT + 1);
        assert!(!shorten(&mut "short".to_owned()));
    }

    #[test]
    fn this_process_is_read_and_no_other() {
        let me = std::process::id();
        let process = read(&ProcessArguments { pid: me }).unwrap().value;
        assert_eq!(process.pid, me);
        assert!(process.open_files.unwrap() >= 3);
        assert!(
            process
                .limits
                .unwrap()
                .iter()
                .any(|l| l.name == "Max open files")
        );
        for pid in [0, MAX_PID + 1, MAX_PID] {
            assert!(read(&ProcessArguments { pid }).is_err(), "{pid}");
        }
    }
}
