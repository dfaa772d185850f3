//! One input out of others: parts of two put together, bytes and words changed, lines repeated.

use crate::random::Random;

/// No input grows beyond this.
const LONGEST: usize = 64 * 1024;
/// Bytes at which readers of numbers, names and texts turn.
const TURNING: &[u8] =
    b"\0\t\n\r \"#$%&'()*+,-./0179:;<=>?@AZ[\\]^_`az{|}~\x7f\x80\xbf\xc3\xfe\xff";

pub(crate) struct Mutator<'a> {
    pub(crate) random: Random,
    pub(crate) seeds: Vec<&'a [u8]>,
    pub(crate) words: &'a [&'a str],
}

impl Mutator<'_> {
    pub(crate) fn input(&mut self) -> Vec<u8> {
        let mut input = self.seed().to_vec();
        // Mostly few changes, so that much of the input still means something.
        let changes = 1 + self.random.below(4) * self.random.below(4);
        for _ in 0..changes {
            self.change(&mut input);
            input.truncate(LONGEST);
        }
        input
    }

    fn seed(&mut self) -> &[u8] {
        let at = self.random.below(self.seeds.len());
        self.seeds.get(at).copied().unwrap_or_default()
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let at = self.random.below(input.len() + 1);
        let range = at..(at + self.length()).min(input.len());
        match self.random.below(9) {
            0 => self.flip(input, at),
            1 => drop(input.drain(range)),
            2 => self.insert_turning(input, at),
            3 => self.insert_word(input, at),
            4 => self.repeat(input, range),
            5 => self.splice(input, at),
            6 => self.overwrite(input, at),
            7 => self.cross_lines(input),
            _ => self.swap_number(input, at),
        }
    }

    /// Mostly short.
    fn length(&mut self) -> usize {
        let longest = [2, 8, 64, 1024][self.random.below(4)];
        1 + self.random.below(longest)
    }

    fn flip(&mut self, input: &mut [u8], at: usize) {
        let bit = self.random.below(8);
        if let Some(byte) = input.get_mut(at) {
            *byte ^= 1 << bit;
        }
    }

    fn insert_turning(&mut self, input: &mut Vec<u8>, at: usize) {
        let byte = TURNING[self.random.below(TURNING.len())];
        let count = if self.random.below(20) == 0 {
            self.length()
        } else {
            1
        };
        input.splice(at..at, std::iter::repeat_n(byte, count));
    }

    fn insert_word(&mut self, input: &mut Vec<u8>, at: usize) {
        let word = self.random.below(self.words.len());
        let word = self.words.get(word).copied().unwrap_or_default();
        input.splice(at..at, word.bytes());
    }

    fn repeat(&mut self, input: &mut Vec<u8>, range: std::ops::Range<usize>) {
        let part = input[range.clone()].to_vec();
        let most = if self.random.below(10) == 0 { 200 } else { 3 };
        let times = 1 + self.random.below(most);
        input.splice(range.start..range.start, part.repeat(times));
    }

    /// The rest of another input in place of the rest of this one.
    fn splice(&mut self, input: &mut Vec<u8>, at: usize) {
        let other = self.seed().to_vec();
        let from = self.random.below(other.len() + 1);
        input.truncate(at);
        input.extend_from_slice(&other[from..]);
    }

    fn overwrite(&mut self, input: &mut [u8], at: usize) {
        let end = (at + self.length()).min(input.len());
        for byte in &mut input[at..end] {
            *byte = self.random.byte();
        }
    }

    /// A line of another input between two of this one.
    fn cross_lines(&mut self, input: &mut Vec<u8>) {
        let other = self.seed().to_vec();
        let lines: Vec<&[u8]> = other.split_inclusive(|byte| *byte == b'\n').collect();
        let line = self.random.below(lines.len());
        let line = lines.get(line).copied().unwrap_or_default();
        let ends = input.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        let ends: Vec<usize> = ends.map(|(at, _)| at + 1).collect();
        let at = self.random.below(ends.len());
        let at = ends.get(at).copied().unwrap_or(input.len());
        input.splice(at..at, line.iter().copied());
    }

    /// Another number in place of the digits at `at`.
    fn swap_number(&mut self, input: &mut Vec<u8>, at: usize) {
        const NUMBERS: [&str; 12] = [
            "0",
            "-1",
            "1",
            "7777777",
            "77777777777",
            "255",
            "256",
            "65536",
            "4294967296",
            "18446744073709551615",
            "18446744073709551616",
            "1e9",
        ];
        let number = NUMBERS[self.random.below(NUMBERS.len())];
        let Some(start) = input[at..].iter().position(u8::is_ascii_digit) else {
            return;
        };
        let start = at + start;
        let digits = input[start..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        input.splice(start..start + digits, number.bytes());
    }
}
