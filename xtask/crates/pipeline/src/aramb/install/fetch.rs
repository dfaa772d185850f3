//! Downloads with `curl`, which every system that this runs on has or is offered.

use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

use crate::child::Program;
use crate::interrupt::Interrupts;

/// What curl says of itself in the end is a line or two.
const LONGEST_WORDS: usize = 4096;
/// How curl ends when the server refuses.
const REFUSED: i32 = 22;

/// How long and how much.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Until somebody answers.
    pub(super) connect: Duration,
    /// Without a kilobyte a second.
    pub(super) stall: Duration,
    /// In all.
    pub(super) whole: Duration,
    pub(super) bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            stall: Duration::from_secs(30),
            whole: Duration::from_mins(10),
            bytes: 256 * 1024 * 1024,
        }
    }
}

/// Why something cannot be downloaded.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("curl is not there")]
    NoCurl,
    #[error("interrupted")]
    Interrupted,
    #[error("the server answered {status}")]
    Refused { status: u16 },
    #[error("it is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("{0}")]
    Curl(String),
    #[error("curl cannot be run: {0}")]
    Run(#[source] io::Error),
    /// `take` could not.
    #[error("{0}")]
    Write(#[source] io::Error),
}

/// Hands over the content of an address, piece by piece. What has been handed over before an error
/// is part of it at best.
pub(super) fn fetch(
    url: &str,
    limits: &Limits,
    interrupts: &Interrupts,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), FetchError> {
    let mut words = String::new();
    let curl = Program::new("curl", Path::new("/"))
        .arguments(arguments(url, limits))
        .within(limits.whole + Duration::from_secs(5));
    let read = curl.read(
        interrupts,
        |output| hand_over(output, limits.bytes, &mut take),
        |line| {
            if words.len() + line.len() < LONGEST_WORDS {
                words.push_str(line);
                words.push('\n');
            }
        },
    );
    if interrupts.any() {
        return Err(FetchError::Interrupted);
    }
    let (status, taken) = read.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => FetchError::NoCurl,
        _ => FetchError::Run(error),
    })?;
    // First: curl ends badly because of this.
    taken?;
    if status.success() {
        return Ok(());
    }
    match refusal(&words).filter(|_| status.code() == Some(REFUSED)) {
        Some(status) => Err(FetchError::Refused { status }),
        None if words.is_empty() => Err(FetchError::Curl(format!("curl ended with {status}"))),
        None => Err(FetchError::Curl(words.trim_end().replace('\n', "; "))),
    }
}

/// `--disable` comes first: a `.curlrc` might turn off what is asked for here.
fn arguments(url: &str, limits: &Limits) -> Vec<String> {
    // Plain HTTP is for this machine alone, which no proxy is asked for.
    let (protocols, past_proxies): (_, &[_]) = if url.starts_with("https://") {
        ("=https", &[])
    } else {
        ("=https,http", &["--noproxy", "*"])
    };
    let seconds = |time: Duration| time.as_secs().max(1).to_string();
    let words = [
        "--disable",
        "--silent",
        "--show-error",
        "--fail",
        "--location",
        "--max-redirs",
        "5",
        "--proto",
        protocols,
        "--proto-redir",
        protocols,
        "--tlsv1.2",
        "--connect-timeout",
        &seconds(limits.connect),
        "--speed-limit",
        "1024",
        "--speed-time",
        &seconds(limits.stall),
        "--max-time",
        &seconds(limits.whole),
        "--url",
        url,
    ];
    let words = words.iter().chain(past_proxies);
    words.map(|word| (*word).to_owned()).collect()
}

fn hand_over(
    mut output: io::PipeReader,
    limit: usize,
    take: &mut impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), FetchError> {
    let mut piece = vec![0; 64 * 1024];
    let mut whole = 0;
    loop {
        let count = output.read(&mut piece).map_err(FetchError::Run)?;
        if count == 0 {
            return Ok(());
        }
        whole += count;
        if whole > limit {
            return Err(FetchError::TooLong { limit });
        }
        take(&piece[..count]).map_err(FetchError::Write)?;
    }
}

/// `curl: (22) The requested URL returned error: 404`
fn refusal(words: &str) -> Option<u16> {
    let (_, rest) = words.rsplit_once("returned error: ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
