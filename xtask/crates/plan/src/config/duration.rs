//! Lengths of time as people write them: `5m`, `1500ms`, `1h30m`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration as StdDuration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest first, as they are written. Milliseconds each.
const UNITS: [(&str, u64); 5] = [
    ("d", 24 * 60 * 60 * 1000),
    ("h", 60 * 60 * 1000),
    ("m", 60 * 1000),
    ("s", 1000),
    ("ms", 1),
];

/// A length of time in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duration {
    milliseconds: u64,
}

/// A text that is no [`Duration`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDuration {
    /// Not of the form.
    #[error(
        "`{0}` is not a length of time: write whole numbers with d, h, m, s or ms, the longest \
         unit first, as in `30s`, `1500ms` or `1h30m`"
    )]
    Form(String),
    /// More than fits.
    #[error("`{0}` is longer than any length of time that can be handled")]
    TooLong(String),
}

impl Duration {
    /// A length of whole seconds.
    ///
    /// # Panics
    ///
    /// When the seconds exceed `u64::MAX / 1000`; it is meant for constants.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self {
            milliseconds: seconds * 1000,
        }
    }

    /// A length of milliseconds.
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self { milliseconds }
    }

    /// The same length as the standard library's type.
    #[must_use]
    pub const fn as_std(self) -> StdDuration {
        StdDuration::from_millis(self.milliseconds)
    }

    /// In milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.milliseconds
    }
}

impl From<Duration> for StdDuration {
    fn from(duration: Duration) -> Self {
        duration.as_std()
    }
}

impl FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = || InvalidDuration::Form(text.to_owned());
        let too_long = || InvalidDuration::TooLong(text.to_owned());
        let mut units = UNITS.iter();
        let mut rest = text;
        let mut milliseconds = 0_u64;
        while !rest.is_empty() || text.is_empty() {
            let (number, after) = split_where(rest, |c| !c.is_ascii_digit()).ok_or_else(form)?;
            let (unit, after) = split_where(after, |c| c.is_ascii_digit()).ok_or_else(form)?;
            // The iterator is shared by all turns: a unit can only be followed by shorter ones.
            let (_, worth) = units.find(|(name, _)| *name == unit).ok_or_else(form)?;
            milliseconds = number
                .parse::<u64>()
                .ok()
                .and_then(|number| number.checked_mul(*worth))
                .and_then(|part| milliseconds.checked_add(part))
                .ok_or_else(too_long)?;
            rest = after;
        }
        Ok(Self { milliseconds })
    }
}

/// Splits before the first character that ends the run; `None` where the run is empty.
fn split_where(text: &str, ends: impl Fn(char) -> bool) -> Option<(&str, &str)> {
    let (run, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
    (!run.is_empty()).then_some((run, rest))
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.milliseconds == 0 {
            return f.pad("0s");
        }
        let mut rest = self.milliseconds;
        let mut text = String::new();
        for (unit, worth) in UNITS {
            if rest >= worth {
                text.push_str(&(rest / worth).to_string());
                text.push_str(unit);
                rest %= worth;
            }
        }
        f.pad(&text)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A length of time: whole numbers with d, h, m, s or ms, the longest unit first.",
            "type": "string",
            "pattern": r"^(\d+(d|h|m|s|ms))+$",
            "examples": ["30s", "1500ms", "1h30m"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str) -> String {
        match text.parse::<Duration>() {
            Ok(duration) => format!("{} = {duration}", duration.as_millis()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn forms() {
        assert_eq!(check("5m"), "300000 = 5m");
        assert_eq!(check("1500ms"), "1500 = 1s500ms");
        assert_eq!(check("1h30m"), "5400000 = 1h30m");
        assert_eq!(check("90m"), "5400000 = 1h30m");
        assert_eq!(check("0s"), "0 = 0s");
        assert_eq!(check("2d"), "172800000 = 2d");
    }

    #[test]
    fn refused() {
        for text in [
            "", "5", "m", "5 m", "1.5s", "-1s", "30m1h", "1m1m", "5min", "٣s", "1ms2s",
        ] {
            assert_eq!(
                check(text),
                InvalidDuration::Form(text.to_owned()).to_string(),
                "{text}"
            );
        }
        for text in ["99999999999999999999s", "18446744073709551615h"] {
            assert_eq!(
                check(text),
                InvalidDuration::TooLong(text.to_owned()).to_string()
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(milliseconds: u64) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "[0-9dhms .-]{0,12}") {
            let _ = text.parse::<Duration>();
        }

        #[test]
        fn json_round_trip(milliseconds: u64) {
            let duration = Duration::from_millis(milliseconds);
            let json = serde_json::to_string(&duration).unwrap();
            prop_assert_eq!(serde_json::from_str::<Duration>(&json).unwrap(), duration);
        }
    }
}
