//! A step of a canary as people write it: `10% 30s`, or `10%` to wait for `cargo xtask promote`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Duration;

/// How much of the traffic the new release gets, and for how long it is watched then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CanaryStep {
    /// Per cent, 1 to 99.
    pub weight: u32,
    /// Without one the step waits for somebody to promote it.
    pub pause: Option<Duration>,
}

/// A text that is no [`CanaryStep`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no step: write per cent of the traffic (1 to 99) and the time to watch it, as in \
     `10% 30s`; without a time it waits for `cargo xtask promote`"
)]
pub struct InvalidCanaryStep(String);

impl FromStr for CanaryStep {
    type Err = InvalidCanaryStep;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidCanaryStep(text.to_owned());
        let mut words = text.split_ascii_whitespace();
        let weight = words.next().and_then(|word| word.strip_suffix('%'));
        let weight = weight.and_then(|number| number.parse().ok());
        let weight = weight.filter(|weight| (1..=99).contains(weight));
        let pause = words.next().map(|word| word.parse().map_err(|_| invalid()));
        match (weight, words.next()) {
            (Some(weight), None) => Ok(Self {
                weight,
                pause: pause.transpose()?,
            }),
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for CanaryStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.weight)?;
        match self.pause {
            Some(pause) => write!(f, " {pause}"),
            None => Ok(()),
        }
    }
}

impl Serialize for CanaryStep {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CanaryStep {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for CanaryStep {
    fn schema_name() -> Cow<'static, str> {
        "CanaryStep".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Per cent of the traffic, and the time in which it is watched.",
            "type": "string",
            "pattern": r"^[1-9][0-9]?%( (\d+(d|h|m|s|ms))+)?$",
            "examples": ["10% 30s", "50%"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, shown) in [
            ("10% 30s", "10% 30s"),
            ("99%", "99%"),
            ("1%  90m", "1% 1h30m"),
        ] {
            let step: CanaryStep = text.parse().unwrap();
            assert_eq!(step.to_string(), shown);
            assert_eq!(shown.parse(), Ok(step));
        }
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "10",
            "0%",
            "100%",
            "-1%",
            "10% soon",
            "10% 5s 5s",
            "%",
            "10 %",
        ] {
            let refused = text.parse::<CanaryStep>().unwrap_err();
            assert!(refused.to_string().contains("10% 30s"), "{text}");
        }
    }
}
