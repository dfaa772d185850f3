//! What an instance may use of the machine.

use std::fmt;

/// Bounds of one instance. What is absent is not bounded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources {
    /// Bytes of memory, of all its processes together.
    pub memory: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u32>,
    /// Processes and threads.
    pub pids: Option<u32>,
    /// Nothing of the image can be written to; `/tmp` and volumes can.
    pub read_only: bool,
    /// Run it without the bounds that this machine cannot enforce, rather than not at all.
    pub best_effort: bool,
}

/// Bytes in the largest unit that divides them.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "G"), (20, "M"), (10, "K")];
        let whole = |(shift, _): &&(u32, &str)| self.0 > 0 && self.0.is_multiple_of(1 << shift);
        match units.iter().find(whole) {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_said_as_people_write_them() {
        let cases = [
            (512 << 20, "512M"),
            (2 << 30, "2G"),
            (1536 << 10, "1536K"),
            (1000, "1000 bytes"),
            (0, "0 bytes"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(Bytes(bytes).to_string(), expected);
        }
    }
}
