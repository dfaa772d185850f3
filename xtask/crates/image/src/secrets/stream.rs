//! A file of any size through a window of a fixed one.

use std::io::{self, Read};

use super::rules::Rules;
use super::{Hit, Spot, pem, tokens};

/// Bytes read at a time: they fit into the second-level cache, which every rule goes through anew.
const STEP: usize = 256 * 1024;
/// What must follow a beginning so that it can be judged.
const AHEAD: usize = pem::LIMIT;
/// What must stand before one.
const BEHIND: usize = tokens::PAIR;
/// Nobody reads a longer list about one file.
const MOST: usize = 20;
/// As git and grep do it: a zero byte in the first few thousand makes a binary.
const HEAD: usize = 8 * 1024;

/// Looks through everything that `source` gives, once: it may be one that cannot be read again.
pub(super) fn scan(source: &mut dyn Read, rules: &Rules) -> io::Result<Vec<Hit>> {
    let mut window = Window::default();
    let mut hits = Vec::new();
    let mut binary = None;
    loop {
        let last = window.fill(source)?;
        let binary = *binary.get_or_insert_with(|| {
            let head = &window.bytes[..window.bytes.len().min(HEAD)];
            memchr::memchr(0, head).is_some()
        });
        let end = if last {
            window.bytes.len()
        } else {
            window.bytes.len() - AHEAD
        };
        rules.search(&window.bytes, window.done, end, binary, |at, kind| {
            let spot = if binary {
                Spot::Byte(window.offset + at as u64)
            } else {
                Spot::Line(window.line(at))
            };
            hits.push(Hit::new(kind, spot));
        });
        if last || hits.len() >= MOST {
            hits.sort();
            hits.truncate(MOST);
            return Ok(hits);
        }
        window.advance(end, binary);
    }
}

/// The part of a file that is in memory.
#[derive(Default)]
struct Window {
    bytes: Vec<u8>,
    /// Where in the file it begins.
    offset: u64,
    /// Beginnings before this have been judged.
    done: usize,
    /// Line feeds before it, of a text.
    lines: u64,
}

impl Window {
    /// Reads until it is full; whether the file is at its end.
    fn fill(&mut self, source: &mut dyn Read) -> io::Result<bool> {
        let full = BEHIND + STEP + AHEAD;
        let wanted = (full - self.bytes.len()) as u64;
        self.bytes.reserve_exact(full - self.bytes.len());
        let read = source.take(wanted).read_to_end(&mut self.bytes)?;
        Ok((read as u64) < wanted)
    }

    /// The number of the line that a place in it stands in.
    fn line(&self, at: usize) -> u64 {
        self.lines + line_feeds(&self.bytes[..at]) + 1
    }

    /// Forgets what has been judged, but for what later judgements may look back at.
    fn advance(&mut self, end: usize, binary: bool) {
        let start = end.saturating_sub(BEHIND);
        if !binary {
            self.lines += line_feeds(&self.bytes[..start]);
        }
        self.bytes.drain(..start);
        self.offset += start as u64;
        self.done = end - start;
    }
}

fn line_feeds(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not written out, so that no other scanner takes it for real.
    fn token() -> String {
        format!("ghp_{}", "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xYz0cF2hJ")
    }

    /// Where a token that stands at `at` in a text of `length` empty lines is found.
    fn found(at: usize, length: usize) -> Vec<Hit> {
        let mut text = vec![b'\n'; length];
        text.splice(at..at + 40, token().into_bytes());
        scan(&mut text.as_slice(), &Rules::new()).unwrap()
    }

    #[test]
    fn no_edge_of_the_window_hides_a_token() {
        let length = 2 * STEP + AHEAD;
        let edges = [STEP + BEHIND, 2 * STEP + BEHIND];
        let near = edges
            .iter()
            .flat_map(|edge| [0, 1, 4, 20, 40, 41].map(|less| edge - less));
        for at in near.chain([length - 40]) {
            assert_eq!(
                found(at, length),
                [Hit::new("token of GitHub", Spot::Line(at as u64 + 1))],
                "{at}"
            );
        }
    }

    #[test]
    fn lines_are_counted_from_one() {
        let text = format!("one\ntwo {}\n\n{}\n", token(), token());
        let hits = scan(&mut text.as_bytes(), &Rules::new()).unwrap();
        let spots: Vec<_> = hits.iter().map(|hit| hit.spot).collect();
        assert_eq!(spots, [Spot::Line(2), Spot::Line(4)]);
    }

    #[test]
    fn a_binary_is_told_by_byte() {
        let mut bytes = vec![0; 100];
        bytes.extend(token().into_bytes());
        let hits = scan(&mut bytes.as_slice(), &Rules::new()).unwrap();
        assert_eq!(hits, [Hit::new("token of GitHub", Spot::Byte(100))]);
    }
}
