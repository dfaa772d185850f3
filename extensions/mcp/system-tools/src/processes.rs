//! `processes`: who uses most memory or processor time.

use std::cmp::Reverse;

use mcp_common::{Reply, ToolError, bounded};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::procfs::{self, Stat};
use crate::text;
use crate::users::Users;

const MAX_LIMIT: usize = 200;

/// Arguments of `processes`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProcessListArguments {
    /// What comes first.
    #[serde(default)]
    sort: Sort,
    /// Only processes whose name holds this text, in any case. Command lines are not searched.
    #[schemars(length(min = 1, max = 64))]
    filter: Option<String>,
    /// How many at most.
    #[serde(default = "twenty")]
    #[schemars(range(min = 1, max = 200))]
    limit: usize,
}

fn twenty() -> usize {
    20
}

/// What comes first.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sort {
    /// Most resident memory.
    #[default]
    Memory,
    /// Most processor time since its start.
    CpuTime,
    /// Latest start.
    Newest,
}

/// Processes of a host.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ProcessList {
    /// Processes that can be seen.
    pub total: usize,
    /// Processes that the filter lets through.
    pub matched: usize,
    /// The first of them.
    pub processes: Vec<ProcessSummary>,
}

/// One process in a list.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ProcessSummary {
    /// Its id.
    pub pid: u32,
    /// Its parent's id; 0 for the first one.
    pub parent: u32,
    /// Its name, as the kernel keeps it (15 characters).
    pub name: String,
    /// What it is doing.
    pub state: String,
    /// User id that it acts as.
    pub user_id: Option<u32>,
    /// That user's name.
    pub user: Option<String>,
    /// Bytes of memory it holds; 0 for threads of the kernel.
    pub resident_bytes: u64,
    /// Seconds of processor time since its start.
    pub cpu_seconds: f64,
    /// Seconds since its start.
    pub age_seconds: u64,
    /// Number of its threads.
    pub threads: u64,
}

pub(crate) fn list(arguments: &ProcessListArguments) -> Result<Reply<ProcessList>, ToolError> {
    if !(1..=MAX_LIMIT).contains(&arguments.limit) {
        return Err(ToolError::argument(
            "limit",
            format!("is not within 1 to {MAX_LIMIT}"),
        ));
    }
    if let Some(filter) = &arguments.filter {
        bounded("filter", filter, 64)?;
    }
    let all = read_all()?;
    let total = all.len();
    let mut processes = matching(all, arguments.filter.as_deref());
    let matched = processes.len();
    sort(&mut processes, arguments.sort);
    processes.truncate(arguments.limit);
    let list = ProcessList {
        total,
        matched,
        processes,
    };
    Ok(Reply::new(describe(&list), list))
}

fn read_all() -> Result<Vec<ProcessSummary>, ToolError> {
    let failed = |error| ToolError::new(format!("cannot read /proc: {error}"));
    let reader = Reader {
        uptime: procfs::uptime().map_err(failed)?,
        ticks: procfs::ticks_per_second(),
        users: Users::read(),
    };
    let pids = procfs::pids().map_err(failed)?;
    Ok(pids
        .into_iter()
        .filter_map(|pid| reader.read(pid))
        .collect())
}

struct Reader {
    uptime: f64,
    ticks: u64,
    users: Users,
}

impl Reader {
    /// `None` for a process that ended while it was looked at.
    fn read(&self, pid: u32) -> Option<ProcessSummary> {
        let stat = Stat::read(pid).ok()?;
        let status = procfs::read(format!("/proc/{pid}/status")).ok()?;
        let fields = procfs::fields(&status);
        let user_id = fields.get("Uid").and_then(|ids| effective(ids));
        Some(ProcessSummary {
            pid,
            parent: stat.parent,
            state: procfs::state_name(stat.state).to_owned(),
            user: user_id.and_then(|id| self.users.name(id)),
            user_id,
            resident_bytes: fields
                .get("VmRSS")
                .and_then(|value| procfs::kibibytes(value))
                .unwrap_or(0),
            cpu_seconds: procfs::seconds(stat.user_ticks + stat.system_ticks, self.ticks),
            age_seconds: procfs::age(self.uptime, stat.start_ticks, self.ticks),
            threads: stat.threads,
            name: stat.name,
        })
    }
}

/// The second of `real effective saved filesystem`.
pub(crate) fn effective(ids: &str) -> Option<u32> {
    ids.split_whitespace().nth(1)?.parse().ok()
}

/// Only names are searched: a filter over command lines would let its user guess, letter by
/// letter, what the redaction hides.
fn matching(all: Vec<ProcessSummary>, filter: Option<&str>) -> Vec<ProcessSummary> {
    let Some(filter) = filter.map(str::to_lowercase) else {
        return all;
    };
    all.into_iter()
        .filter(|process| process.name.to_lowercase().contains(&filter))
        .collect()
}

fn sort(processes: &mut [ProcessSummary], by: Sort) {
    match by {
        Sort::Memory => processes.sort_by_key(|p| (Reverse(p.resident_bytes), p.pid)),
        Sort::CpuTime => processes.sort_by(|a, b| {
            b.cpu_seconds
                .total_cmp(&a.cpu_seconds)
                .then(a.pid.cmp(&b.pid))
        }),
        Sort::Newest => processes.sort_by_key(|p| (p.age_seconds, Reverse(p.pid))),
    }
}

fn describe(list: &ProcessList) -> String {
    let mut lines = vec![
        format!(
            "{} of {} matching processes ({} in all)",
            list.processes.len(),
            list.matched,
            list.total
        ),
        format!(
            "{:>7} {:>10} {:>10} {:>8} {:>4}  {:<10} {:<8} {}",
            "pid", "memory", "cpu", "age", "thr", "user", "state", "name"
        ),
    ];
    lines.extend(list.processes.iter().map(|p| {
        format!(
            "{:>7} {:>10} {:>9.1}s {:>8} {:>4}  {:<10} {:<8} {}",
            p.pid,
            text::bytes(p.resident_bytes),
            p.cpu_seconds,
            text::duration(p.age_seconds),
            p.threads,
            p.user
                .clone()
                .unwrap_or_else(|| text::or_dash(p.user_id.as_ref())),
            p.state,
            p.name
        )
    }));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(sort: Sort, filter: Option<&str>, limit: usize) -> ProcessListArguments {
        ProcessListArguments {
            sort,
            filter: filter.map(str::to_owned),
            limit,
        }
    }

    #[test]
    fn every_order_is_kept() {
        for sort in [Sort::Memory, Sort::CpuTime, Sort::Newest] {
            let list = list(&arguments(sort, None, 200)).unwrap().value.processes;
            assert!(list.windows(2).all(|pair| match sort {
                Sort::Memory => pair[0].resident_bytes >= pair[1].resident_bytes,
                Sort::CpuTime => pair[0].cpu_seconds >= pair[1].cpu_seconds,
                Sort::Newest => pair[0].age_seconds <= pair[1].age_seconds,
            }));
        }
    }

    #[test]
    fn the_filter_and_the_limit_hold() {
        let reply = list(&arguments(Sort::Memory, None, 1)).unwrap();
        assert_eq!(reply.value.processes.len(), 1);
        let none = list(&arguments(Sort::Memory, Some("no such name"), 5)).unwrap();
        assert_eq!((none.value.matched, none.value.processes.len()), (0, 0));
    }

    #[test]
    fn limits_are_checked() {
        for limit in [0, MAX_LIMIT + 1] {
            assert!(list(&arguments(Sort::Memory, None, limit)).is_err());
        }
        let long = "x".repeat(65);
        assert!(list(&arguments(Sort::Memory, Some(&long), 1)).is_err());
    }
}
