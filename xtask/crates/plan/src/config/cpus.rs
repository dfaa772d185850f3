//! Processors as people write them: `1.5` is one and a half, `0` as many as there are.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The most that may be asked for.
const MOST: u32 = 1000;

/// How much of the processors, in thousandths of one; none when it is not bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpus {
    millis: u32,
}

impl Cpus {
    /// Thousandths of a processor, if there is a bound.
    #[must_use]
    pub fn millis(self) -> Option<u32> {
        (self.millis > 0).then_some(self.millis)
    }

    /// So many, if they may be asked for: thousandths of one, 10 at least.
    #[must_use]
    pub fn from_millis(millis: u32) -> Option<Self> {
        Self::of(f64::from(millis) / 1000.0)
    }

    fn of(number: f64) -> Option<Self> {
        let thousandths = (number * 1000.0).round();
        let near = (number * 1000.0 - thousandths).abs() < 1e-6;
        // Less than a hundredth is less than the kernel deals out.
        let inside = thousandths == 0.0 || (10.0..=f64::from(MOST * 1000)).contains(&thousandths);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is whole and within the range by now"
        )]
        (near && inside).then_some(Self {
            millis: thousandths as u32,
        })
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(self.millis) / 1000.0)
    }
}

impl Serialize for Cpus {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        if self.millis.is_multiple_of(1000) {
            return output.serialize_u32(self.millis / 1000);
        }
        output.serialize_f64(f64::from(self.millis) / 1000.0)
    }
}

impl<'de> Deserialize<'de> for Cpus {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let number = f64::deserialize(input)?;
        Self::of(number).ok_or_else(|| {
            D::Error::custom(format!(
                "`{number}` is no number of processors: write 0.01 to {MOST} with at most three \
                 digits after the point, as in 1.5, or 0 for as many as there are"
            ))
        })
    }
}

impl JsonSchema for Cpus {
    fn schema_name() -> Cow<'static, str> {
        "Cpus".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "maximum": MOST, "examples": [1.5] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Cpus, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_of_processors_are_read_and_written_back() {
        for (text, millis) in [
            ("0", None),
            ("1", Some(1000)),
            ("1.5", Some(1500)),
            ("0.1", Some(100)),
            ("0.01", Some(10)),
            ("1000", Some(1_000_000)),
        ] {
            let cpus = read(text).unwrap();
            assert_eq!(cpus.millis(), millis, "{text}");
            assert_eq!(serde_json::to_string(&cpus).unwrap(), text);
            assert_eq!(cpus.to_string(), text);
        }
    }

    #[test]
    fn others_are_refused() {
        for text in ["-1", "0.001", "0.0105001", "1001", "1e9"] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains("as in 1.5"), "{refused}");
        }
    }
}
