//! Bytes into lines: split at line feeds, and where a line has no end in sight.

/// The longest line; longer ones go on in the next.
pub(super) const MAX_LINE: usize = 64 << 10;

/// What has come of a line that is not complete.
#[derive(Default)]
pub(crate) struct Splitter {
    pending: Vec<u8>,
}

impl Splitter {
    /// Takes bytes and gives the lines that are complete with them.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.pending.extend_from_slice(part);
            while self.pending.len() > MAX_LINE && self.pending[..=MAX_LINE].last() != Some(&b'\n')
            {
                let rest = self.pending.split_off(character_end(&self.pending));
                lines.push(text(&std::mem::replace(&mut self.pending, rest)));
            }
            if self.pending.last() == Some(&b'\n') {
                lines.push(text(&std::mem::take(&mut self.pending)));
            }
        }
        lines
    }

    /// Whether all that came is out again.
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// What was left without a line feed when the stream ended.
    pub(crate) fn finish(&mut self) -> Option<String> {
        (!self.pending.is_empty()).then(|| text(&std::mem::take(&mut self.pending)))
    }
}

/// The last place up to [`MAX_LINE`] that does not cut a UTF-8 character in two.
fn character_end(bytes: &[u8]) -> usize {
    let continues = |at: usize| bytes[at] & 0b1100_0000 == 0b1000_0000;
    (MAX_LINE - 3..=MAX_LINE)
        .rev()
        .find(|at| !continues(*at))
        .unwrap_or(MAX_LINE)
}

fn text(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_the_bytes_come() {
        let mut splitter = Splitter::default();
        assert_eq!(splitter.push(b"one\ntw"), ["one"]);
        assert_eq!(splitter.push(b"o\r\n\nthree"), ["two", ""]);
        assert_eq!(splitter.finish().as_deref(), Some("three"));
        assert_eq!(splitter.finish(), None);
    }

    #[test]
    fn lines_without_end_are_split_between_characters() {
        let mut splitter = Splitter::default();
        let long = "€".repeat(MAX_LINE);
        let mut lines = splitter.push(long.as_bytes());
        lines.extend(splitter.finish());
        assert!(
            lines
                .iter()
                .all(|line| line.len() <= MAX_LINE && !line.contains('\u{fffd}'))
        );
        assert_eq!(lines.concat(), long);
    }

    #[test]
    fn a_line_of_the_longest_length_stays_whole() {
        let mut splitter = Splitter::default();
        let mut line = vec![b'x'; MAX_LINE];
        line.push(b'\n');
        let lines = splitter.push(&line);
        assert_eq!(
            lines.iter().map(String::len).collect::<Vec<_>>(),
            [MAX_LINE]
        );
        assert_eq!(splitter.finish(), None);
    }

    #[test]
    fn what_is_not_utf8_is_replaced() {
        let mut splitter = Splitter::default();
        assert_eq!(splitter.push(b"a\xffb\n"), ["a\u{fffd}b"]);
        assert_eq!(splitter.push(&vec![0x80; MAX_LINE * 2]).len(), 1);
    }
}
