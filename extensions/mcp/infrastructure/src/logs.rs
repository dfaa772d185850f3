//! `logs`: what a tenant's application wrote.

use management_api::client::LogQuery;
use management_api::types::LogLine;
use mcp_common::{Platform, Reply, ToolError, bounded};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

const MAX_TAIL: u64 = 1000;
/// Characters of one line that are shown.
const MAX_LINE: usize = 2000;
/// Characters of all lines together: more would fill a model's memory.
const MAX_TEXT: usize = 100_000;

/// Arguments of `logs`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogArguments {
    /// The tenant; the configured one, or the only one, when absent.
    #[schemars(length(min = 1, max = 100))]
    tenant: Option<String>,
    /// Only the last so many lines.
    #[serde(default = "hundred")]
    #[schemars(range(min = 1, max = 1000))]
    tail: u64,
    /// Only lines since then: `10m`, `2h`, `1d`, or an RFC 3339 time.
    #[schemars(length(min = 1, max = 40))]
    since: Option<String>,
    /// Only lines that hold this text.
    #[schemars(length(min = 1, max = 200))]
    filter: Option<String>,
}

fn hundred() -> u64 {
    100
}

/// Lines of a log.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Logs {
    /// The tenant.
    pub tenant: String,
    /// The lines, oldest first.
    pub lines: Vec<LogLine>,
    /// Whether older lines or ends of long lines were left out to keep the answer short.
    pub truncated: bool,
}

pub(crate) async fn read(
    platform: &Platform,
    arguments: LogArguments,
) -> Result<Reply<Logs>, ToolError> {
    check(&arguments)?;
    platform
        .call(move |connection| {
            let tenant = connection.tenant(arguments.tenant)?;
            let query = LogQuery {
                since: arguments.since,
                filter: arguments.filter,
                tail: Some(arguments.tail),
                ..LogQuery::default()
            };
            let lines = connection.client.logs(&tenant, &query)?;
            let logs = shortened(tenant, lines);
            Ok(Reply::new(describe(&logs), logs))
        })
        .await
}

fn check(arguments: &LogArguments) -> Result<(), ToolError> {
    if !(1..=MAX_TAIL).contains(&arguments.tail) {
        let why = format!("is not within 1 to {MAX_TAIL}");
        return Err(ToolError::argument("tail", why));
    }
    if let Some(since) = &arguments.since {
        bounded("since", since, 40)?;
    }
    if let Some(filter) = &arguments.filter {
        bounded("filter", filter, 200)?;
    }
    Ok(())
}

fn shortened(tenant: String, mut lines: Vec<LogLine>) -> Logs {
    let mut truncated = false;
    for line in &mut lines {
        truncated |= shorten(&mut line.line);
    }
    let mut room = MAX_TEXT;
    let kept = lines
        .iter()
        .rev()
        .take_while(|line| {
            let length = line.line.chars().count();
            let fits = length <= room;
            room = room.saturating_sub(length);
            fits
        })
        .count();
    truncated |= kept < lines.len();
    let lines = lines.split_off(lines.len() - kept);
    Logs {
        tenant,
        lines,
        truncated,
    }
}

fn shorten(line: &mut String) -> bool {
    let Some((end, _)) = line.char_indices().nth(MAX_LINE) else {
        return false;
    };
    line.truncate(end);
    line.push('…');
    true
}

fn describe(logs: &Logs) -> String {
    if logs.lines.is_empty() {
        return format!("no such lines in the log of {}", logs.tenant);
    }
    let left_out = if logs.truncated {
        ", some left out"
    } else {
        ""
    };
    let mut text = vec![format!(
        "{} lines of the log of {}{left_out}",
        logs.lines.len(),
        logs.tenant
    )];
    text.extend(logs.lines.iter().map(|line| {
        format!(
            "{} #{} {}  {}",
            line.at.format("%Y-%m-%dT%H:%M:%S%.3fZ"),
            line.deployment,
            line.stream,
            printable(&line.line)
        )
    }));
    text.join("\n")
}

/// Escape sequences of terminals and other control characters could forge what a reader sees.
fn printable(line: &str) -> String {
    line.chars()
        .map(|c| if c.is_control() && c != '\t' { '·' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> LogLine {
        serde_json::from_value(serde_json::json!({
            "at": "2026-01-02T03:04:05Z", "deployment": 1, "stream": "stdout", "line": text,
        }))
        .unwrap()
    }

    #[test]
    fn the_newest_lines_are_kept() {
        let lines = (0..100).map(|n| line(&format!("{n:02000}"))).collect();
        let logs = shortened("t".to_owned(), lines);
        assert!(logs.truncated);
        assert_eq!(logs.lines.len(), MAX_TEXT / 2000);
        assert!(logs.lines.last().unwrap().line.ends_with("99"));
    }

    #[test]
    fn a_long_line_is_cut() {
        let logs = shortened("t".to_owned(), vec![line(&"é".repeat(MAX_LINE + 1))]);
        assert!(logs.truncated);
        assert_eq!(logs.lines[0].line.chars().count(), MAX_LINE + 1);
    }

    #[test]
    fn control_characters_are_not_passed_on_as_text() {
        let logs = shortened("t".to_owned(), vec![line("a\u{1b}[2Jb\tc")]);
        assert!(describe(&logs).ends_with("a·[2Jb\tc"));
        assert!(!logs.truncated);
    }
}
