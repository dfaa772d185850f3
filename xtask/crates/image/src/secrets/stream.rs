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

/// Looks through everything that `source` gives. Lines of texts are still offsets: they are
/// counted when there is something to tell, by [`number_lines`].
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
        let offset = window.offset;
        rules.search(&window.bytes, window.done, end, binary, |at, kind| {
            let at = offset + at as u64;
            let spot = if binary {
                Spot::Byte(at)
            } else {
                Spot::Line(at)
            };
            hits.push(Hit::new(kind, spot));
        });
        if last || hits.len() >= MOST {
            hits.sort();
            hits.truncate(MOST);
            return Ok(hits);
        }
        window.advance(end);
    }
}

/// Turns the offsets of texts into numbers of lines. Reads `source` again, from its start and as
/// far as needed; it is opened when there is anything to number.
pub(super) fn number_lines<R: Read>(
    source: impl FnOnce() -> io::Result<R>,
    hits: &mut [Hit],
) -> io::Result<()> {
    let offsets = hits.iter_mut().filter_map(|hit| match &mut hit.spot {
        Spot::Line(offset) => Some(offset),
        _ => None,
    });
    let mut offsets: Vec<&mut u64> = offsets.collect();
    offsets.sort();
    if offsets.is_empty() {
        return Ok(());
    }
    let mut source = source()?;
    let mut counted = Counted::default();
    for offset in offsets {
        counted.up_to(*offset, &mut source)?;
        *offset = counted.lines + 1;
    }
    Ok(())
}

/// The part of a file that is in memory.
#[derive(Default)]
struct Window {
    bytes: Vec<u8>,
    /// Where in the file it begins.
    offset: u64,
    /// Beginnings before this have been judged.
    done: usize,
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

    /// Forgets what has been judged, but for what later judgements may look back at.
    fn advance(&mut self, end: usize) {
        let start = end.saturating_sub(BEHIND);
        self.bytes.drain(..start);
        self.offset += start as u64;
        self.done = end - start;
    }
}

/// Line feeds of a file that is read once, from its start.
#[derive(Default)]
struct Counted {
    read: u64,
    lines: u64,
}

impl Counted {
    fn up_to(&mut self, offset: u64, source: &mut impl Read) -> io::Result<()> {
        let mut buffer = [0; 8192];
        while self.read < offset {
            let most = buffer
                .len()
                .min(usize::try_from(offset - self.read).unwrap_or(buffer.len()));
            let count = source.read(&mut buffer[..most])?;
            if count == 0 {
                return Ok(());
            }
            self.read += count as u64;
            self.lines += memchr::memchr_iter(b'\n', &buffer[..count]).count() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Not written out, so that no other scanner takes it for real.
    fn token() -> String {
        format!("ghp_{}", "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xYz0cF2hJ")
    }

    /// Where a token that stands at `at` in a text of `length` is found.
    fn found(at: usize, length: usize) -> Vec<Hit> {
        let mut text = vec![b' '; length];
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
                [Hit::new("token of GitHub", Spot::Line(at as u64))],
                "{at}"
            );
        }
    }

    #[test]
    fn lines_are_counted_when_there_is_something_to_tell() {
        let text = format!("one\ntwo {}\n\n{}\n", token(), token());
        let mut hits = scan(&mut text.as_bytes(), &Rules::new()).unwrap();
        number_lines(|| Ok(text.as_bytes()), &mut hits).unwrap();
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
