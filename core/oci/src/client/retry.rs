//! Patience: how often, how long and with which pauses to try again.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::error::ClientError;
use super::options::ClientOptions;

/// A try that moved this many bytes has not failed: only tries in a row that bring nothing count.
pub(super) const PROGRESS: u64 = 1024 * 1024;

/// How long an interruption may go unnoticed in a pause.
const SLICE: Duration = Duration::from_millis(50);

/// The tries of one operation.
#[derive(Debug)]
pub(super) struct Patience<'a> {
    options: &'a ClientOptions,
    started: Instant,
    failures: u32,
}

impl<'a> Patience<'a> {
    pub(super) fn new(options: &'a ClientOptions) -> Self {
        Self {
            options,
            started: Instant::now(),
            failures: 0,
        }
    }

    /// After a failure: waits and returns, or gives the error back when it is final.
    pub(super) fn wait_after(&mut self, error: ClientError) -> Result<(), ClientError> {
        match self.pause_after(&error) {
            Some(pause) => self.sleep(pause),
            None => Err(error),
        }
    }

    /// In slices: whoever presses Ctrl-C does not want to wait for a registry's `Retry-After`.
    fn sleep(&self, pause: Duration) -> Result<(), ClientError> {
        let until = Instant::now() + pause;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.options.is_interrupted() {
                return Err(ClientError::Interrupted);
            }
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(SLICE));
        }
    }

    fn pause_after(&mut self, error: &ClientError) -> Option<Duration> {
        if !error.is_transient() {
            return None;
        }
        self.failures += 1;
        let pause = error.retry_after().unwrap_or_else(|| self.own_pause());
        let allowed = self.failures < self.options.retry.attempts
            && self.started.elapsed() + pause <= self.options.retry.total;
        allowed.then_some(pause)
    }

    /// Doubles with each failure; half of it is random, so that many clients do not come back at once.
    fn own_pause(&self) -> Duration {
        let doubled = self.options.retry.first_pause * 2_u32.pow((self.failures - 1).min(16));
        let full = doubled.min(self.options.retry.longest_pause);
        full / 2 + full.mul_f64(random_fraction() / 2.0)
    }
}

/// Reads `Retry-After`: seconds, or a date.
pub(super) fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = UNIX_EPOCH + Duration::from_secs(parse_http_date(value)?);
    Some(at.duration_since(now).unwrap_or_default())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` as seconds since 1970; the older forms of RFC 9110 are not sent any more.
fn parse_http_date(value: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_weekday, rest) = value.split_once(", ")?;
    let parts: Vec<&str> = rest.split([' ', ':']).collect();
    let &[day, month, year, hour, minute, second, "GMT"] = parts.as_slice() else {
        return None;
    };
    let month = MONTHS.iter().position(|name| *name == month)?;
    let days = days_since_1970(year.parse().ok()?, month, day.parse().ok()?)?;
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number <= 60);
    Some(days * 86_400 + number(hour)? * 3600 + number(minute)? * 60 + number(second)?)
}

/// `month` counts from 0.
fn days_since_1970(year: u64, month: usize, day: u64) -> Option<u64> {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    if !(1970..10_000).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    let leap_days_before = |year: u64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let whole_years = (year - 1970) * 365 + leap_days_before(year) - leap_days_before(1970);
    Some(whole_years + BEFORE[month] + u64::from(leap && month > 1) + day - 1)
}

/// The standard library seeds its hash maps randomly; that is random enough for a pause.
#[expect(
    clippy::cast_precision_loss,
    reason = "53 bits of a random number are plenty"
)]
fn random_fraction() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::super::error::{Answer, CallSite};
    use super::super::options::RetryPolicy;
    use super::*;

    fn options() -> ClientOptions {
        let retry = RetryPolicy {
            attempts: 4,
            total: Duration::from_mins(1),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_millis(300),
        };
        ClientOptions {
            retry,
            ..ClientOptions::default()
        }
    }

    fn failure(status: u16, retry_after: Option<Duration>) -> ClientError {
        let site = CallSite {
            call: "try",
            target: String::new(),
        };
        let answer = Answer {
            status,
            code: None,
            message: String::new(),
        };
        ClientError::from_answer(site, answer, retry_after)
    }

    #[test]
    fn pauses_grow_to_the_limit_and_end() {
        let options = options();
        let mut patience = Patience::new(&options);
        let error = failure(503, None);
        for full in [100, 200, 300] {
            let pause = patience.pause_after(&error).unwrap().as_millis();
            assert!((full / 2..=full).contains(&pause), "{pause} of {full}");
        }
        assert_eq!(patience.pause_after(&error), None);
    }

    #[test]
    fn the_registrys_wish_counts_within_the_total() {
        let options = options();
        let mut patience = Patience::new(&options);
        let short = Duration::from_secs(2);
        assert_eq!(
            patience.pause_after(&failure(429, Some(short))),
            Some(short)
        );
        assert_eq!(
            patience.pause_after(&failure(429, Some(Duration::from_secs(61)))),
            None
        );
    }

    #[test]
    fn what_is_permanent_is_not_tried_again() {
        assert_eq!(
            Patience::new(&options()).pause_after(&failure(403, None)),
            None
        );
    }

    #[test]
    fn retry_after_reads_seconds_and_dates() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(parse_retry_after("7", at(0)), Some(Duration::from_secs(7)));
        assert_eq!(
            parse_retry_after(date, at(784_111_770)),
            Some(Duration::from_secs(7))
        );
        assert_eq!(
            parse_retry_after(date, at(784_111_800)),
            Some(Duration::ZERO)
        );
        assert_eq!(
            parse_http_date("Thu, 29 Feb 2024 00:00:00 GMT"),
            Some(1_709_164_800)
        );
        assert_eq!(
            parse_http_date("Fri, 01 Mar 2024 00:00:00 GMT"),
            Some(1_709_251_200)
        );
        for nonsense in [
            "",
            "soon",
            "-1",
            "Sun, 06 Foo 1994 08:49:37 GMT",
            "x, 1 Jan 1 1:1:1 GMT",
        ] {
            assert_eq!(parse_retry_after(nonsense, at(0)), None, "{nonsense}");
        }
    }
}
