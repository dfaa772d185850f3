//! Reading `/proc`: small files with a bound, and the facts of a process that `stat` and `status`
//! hold. Format: proc(5).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

/// No file that is read whole is longer.
const MAX_FILE: u64 = 1024 * 1024;

/// Reads a small file. Bytes that are not UTF-8 are replaced: process names are arbitrary.
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `Name:   value` lines.
pub(crate) fn fields(text: &str) -> HashMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim(), value.trim()))
        .collect()
}

/// The bytes of a `123 kB` value.
pub(crate) fn kibibytes(value: &str) -> Option<u64> {
    let number: u64 = value.split_whitespace().next()?.parse().ok()?;
    number.checked_mul(1024)
}

/// Ids of all processes, in no order.
pub(crate) fn pids() -> io::Result<Vec<u32>> {
    let pids = std::fs::read_dir("/proc")?
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    Ok(pids)
}

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stat {
    pub name: String,
    pub state: char,
    pub parent: u32,
    pub user_ticks: u64,
    pub system_ticks: u64,
    pub threads: u64,
    pub start_ticks: u64,
}

impl Stat {
    pub(crate) fn read(pid: u32) -> io::Result<Self> {
        let text = read(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("/proc/{pid}/stat has an unknown form"),
            )
        })
    }

    /// The name stands in parentheses and may itself hold spaces and parentheses.
    fn parse(text: &str) -> Option<Self> {
        let open = text.find('(')?;
        let close = text.rfind(')')?;
        let name = text.get(open + 1..close)?.to_owned();
        let rest: Vec<&str> = text.get(close + 1..)?.split_whitespace().collect();
        // `rest` begins with field 3 of proc(5).
        let number = |field: usize| rest.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            name,
            state: rest.first()?.chars().next()?,
            parent: u32::try_from(number(4)?).ok()?,
            user_ticks: number(14)?,
            system_ticks: number(15)?,
            threads: number(20)?,
            start_ticks: number(22)?,
        })
    }
}

/// The state's letter in words.
pub(crate) fn state_name(letter: char) -> &'static str {
    match letter {
        'R' => "running",
        'S' => "sleeping",
        'D' => "waiting for a disk",
        'Z' => "zombie",
        'T' => "stopped",
        't' => "traced",
        'I' => "idle",
        'X' | 'x' => "dead",
        _ => "unknown",
    }
}

/// Clock ticks a second, in which `/proc` counts processor time: `AT_CLKTCK` of the auxiliary
/// vector, which needs no call into the C library.
pub(crate) fn ticks_per_second() -> u64 {
    const AT_CLKTCK: usize = 17;
    // 100 on every architecture that Rust's standard library supports.
    const USUAL: u64 = 100;
    let word = size_of::<usize>();
    let Ok(vector) = std::fs::read("/proc/self/auxv") else {
        return USUAL;
    };
    let words: Vec<usize> = vector
        .chunks_exact(word)
        .filter_map(|chunk| chunk.try_into().ok().map(usize::from_ne_bytes))
        .collect();
    words
        .chunks_exact(2)
        .find(|pair| pair[0] == AT_CLKTCK)
        .and_then(|pair| u64::try_from(pair[1]).ok())
        .filter(|&ticks| ticks > 0)
        .unwrap_or(USUAL)
}

/// Seconds since the machine started.
pub(crate) fn uptime() -> io::Result<f64> {
    read("/proc/uptime")?
        .split_whitespace()
        .next()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/uptime is empty"))
}

/// Ticks as seconds. Processor times are far below 2^52, so nothing is lost.
#[expect(
    clippy::cast_precision_loss,
    reason = "2^52 ticks are more than a million years"
)]
pub(crate) fn seconds(ticks: u64, per_second: u64) -> f64 {
    ticks as f64 / per_second as f64
}

/// Whole seconds since a process started.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the value is clamped to zero and an uptime is far below 2^63"
)]
pub(crate) fn age(uptime: f64, start_ticks: u64, per_second: u64) -> u64 {
    (uptime - seconds(start_ticks, per_second)).max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_is_read() {
        let text = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 150 25 0 0 20 0 7 0 1234 99 5 x";
        assert_eq!(
            Stat::parse(text),
            Some(Stat {
                name: "a) b (c)".to_owned(),
                state: 'S',
                parent: 1,
                user_ticks: 150,
                system_ticks: 25,
                threads: 7,
                start_ticks: 1234,
            })
        );
    }

    #[test]
    fn a_line_cut_short_is_no_process() {
        assert_eq!(Stat::parse("42 (a) S 1"), None);
        assert_eq!(Stat::parse(")("), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn this_process_is_found() {
        let me = std::process::id();
        assert!(pids().unwrap().contains(&me));
        let stat = Stat::read(me).unwrap();
        assert!(stat.threads >= 1);
        assert!(ticks_per_second() > 0);
        assert!(uptime().unwrap() > 0.0);
    }

    #[test]
    fn ages_are_never_negative() {
        assert_eq!(age(10.0, 500, 100), 5);
        assert_eq!(age(1.0, 500, 100), 0);
    }
}
