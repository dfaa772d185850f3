//! `HEALTHCHECK` and the durations in its flags.

use super::error::Problem;
use super::flags::Flags;
use super::instruction::CommandLine;

/// `HEALTHCHECK`; durations in nanoseconds, as the image configuration stores them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `HEALTHCHECK NONE`: no check, not even an inherited one.
    Disabled,
    /// `HEALTHCHECK CMD …`
    Command {
        /// What runs.
        command: CommandLine,
        /// `--interval`
        interval: Option<u64>,
        /// `--timeout`
        timeout: Option<u64>,
        /// `--start-period`
        start_period: Option<u64>,
        /// `--start-interval`
        start_interval: Option<u64>,
        /// `--retries`
        retries: Option<u32>,
    },
}

pub(super) fn read(mut flags: Flags, rest: &str) -> Result<Healthcheck, Problem> {
    let expected = "NONE, or CMD and a command";
    let fault = Problem::Arguments {
        instruction: "HEALTHCHECK",
        expected,
    };
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim();
    let health = match kind.to_ascii_uppercase().as_str() {
        "NONE" if command.is_empty() => Healthcheck::Disabled,
        "CMD" if !command.is_empty() => Healthcheck::Command {
            command: CommandLine::read(command)?,
            interval: duration_flag(&mut flags, "interval")?,
            timeout: duration_flag(&mut flags, "timeout")?,
            start_period: duration_flag(&mut flags, "start-period")?,
            start_interval: duration_flag(&mut flags, "start-interval")?,
            retries: retries(&mut flags)?,
        },
        _ => return Err(fault),
    };
    flags.finish("HEALTHCHECK")?;
    Ok(health)
}

fn retries(flags: &mut Flags) -> Result<Option<u32>, Problem> {
    let Some(text) = flags.value("retries")? else {
        return Ok(None);
    };
    let fault = |_| Problem::Value {
        what: "--retries",
        value: text.clone(),
        reason: "it must be a number, 0 or more".into(),
    };
    text.parse().map(Some).map_err(fault)
}

fn duration_flag(flags: &mut Flags, name: &'static str) -> Result<Option<u64>, Problem> {
    let Some(text) = flags.value(name)? else {
        return Ok(None);
    };
    let fault = |reason: &str| Problem::Value {
        what: "the duration",
        value: text.clone(),
        reason: reason.into(),
    };
    match nanoseconds(&text) {
        None => Err(fault("write it as 30s, 1m30s or 500ms")),
        Some(0) => Ok(None),
        // The engine refuses shorter ones when the container is created: too late.
        Some(short) if short < 1_000_000 => Err(fault("the shortest duration is 1ms")),
        Some(duration) => Ok(Some(duration)),
    }
}

/// A duration in Go's notation: a sequence of decimal numbers, each with its unit.
fn nanoseconds(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let unit_end = after
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        total = total.checked_add(scaled(number, unit)?)?;
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

fn scaled(number: &str, unit: &str) -> Option<u64> {
    let scale: u64 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() {
        0
    } else {
        whole.parse().ok()?
    };
    let mut nanoseconds = whole.checked_mul(scale)?;
    let mut place = scale;
    for digit in fraction.chars() {
        place /= 10;
        nanoseconds =
            nanoseconds.checked_add(place.checked_mul(u64::from(digit.to_digit(10)?))?)?;
    }
    Some(nanoseconds)
}
