//! Amounts of memory as people write them: `512M`, `2G`.

use std::fmt;
use std::str::FromStr;

/// Bytes each, the largest first. Powers of 1024, as Docker and Kubernetes' `Mi` have them.
const UNITS: [(&str, u64); 4] = [
    ("T", 1 << 40),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
];

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Memory {
    bytes: u64,
}

/// A text that is no [`Memory`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no amount of memory: write a whole number with K, M, G or T, as in `512M`")]
pub struct InvalidMemory(String);

impl Memory {
    /// So many, if they are whole kilobytes and any at all.
    #[must_use]
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        (bytes > 0 && bytes.is_multiple_of(1024)).then_some(Self { bytes })
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.bytes
    }
}

impl FromStr for Memory {
    type Err = InvalidMemory;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidMemory(text.to_owned());
        let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
        let (unit, worth) = unit.ok_or_else(invalid)?;
        let number = text.strip_suffix(unit).unwrap_or_default();
        let digits = number.bytes().all(|byte| byte.is_ascii_digit());
        let number = number
            .parse::<u64>()
            .ok()
            .filter(|number| digits && *number > 0);
        let bytes = number.and_then(|number| number.checked_mul(*worth));
        bytes.map(|bytes| Self { bytes }).ok_or_else(invalid)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS
            .iter()
            .find(|(_, worth)| self.bytes.is_multiple_of(*worth));
        // The smallest unit divides whatever was read.
        let (unit, worth) = whole.unwrap_or(&("K", 1 << 10));
        f.pad(&format!("{}{unit}", self.bytes / worth))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_back() {
        for (text, bytes, written) in [
            ("512M", 512 << 20, "512M"),
            ("1024M", 1 << 30, "1G"),
            ("1536K", 1536 << 10, "1536K"),
            ("2T", 2 << 40, "2T"),
        ] {
            let memory: Memory = text.parse().unwrap();
            assert_eq!(
                (memory.bytes(), memory.to_string().as_str()),
                (bytes, written)
            );
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "M",
            "512",
            "512m",
            "512 M",
            "1.5G",
            "-1M",
            "+1M",
            "0M",
            "99999999999T",
        ] {
            let refused = text.parse::<Memory>().unwrap_err().to_string();
            assert!(refused.contains("as in `512M`"), "{refused}");
        }
    }
}
