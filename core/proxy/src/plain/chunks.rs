//! Where a chunked body ends (RFC 9112 section 7.1). It is handed on as it came, so nothing of it is decoded; what another
//! reader might take for something else is refused.

/// The longest chunk size in digits: more does not fit a length.
const SIZE_DIGITS: u8 = 16;
/// The most bytes of all chunk extensions and trailers of one body together.
const EXTRAS: u32 = 64 * 1024;

/// The body is not chunked as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chunks of the body are not valid")]
pub(super) struct BadChunks;

/// How far the body has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    state: State,
    extras: u32,
    /// How much of what was read is content.
    content: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size {
        size: u64,
        digits: u8,
    },
    /// In the space after the size, which some put there to a fixed width.
    Space {
        size: u64,
    },
    Extension {
        size: u64,
    },
    SizeEnd {
        size: u64,
    },
    Data {
        left: u64,
    },
    DataEnd,
    DataEndLine,
    /// At the begin of a line after the last chunk.
    Trailer,
    /// In the name of a field after the last chunk.
    TrailerName,
    TrailerLine,
    TrailerEnd,
    LastEnd,
    Done,
}

const FIRST: State = State::Size { size: 0, digits: 0 };

impl Chunks {
    pub(super) fn new() -> Self {
        Self {
            state: FIRST,
            extras: 0,
            content: 0,
        }
    }

    /// How many bytes of content there were since this was last asked.
    pub(super) fn content(&mut self) -> usize {
        std::mem::take(&mut self.content)
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads on; returns how many of the bytes belong to the body.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<usize, BadChunks> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            if let State::Data { left } = self.state {
                let there = bytes.len() - at;
                let taken = usize::try_from(left).map_or(there, |left| left.min(there));
                at += taken;
                self.content += taken;
                self.state = match left - taken as u64 {
                    0 => State::DataEnd,
                    left => State::Data { left },
                };
            } else {
                self.state = self.step(bytes[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    fn step(&mut self, byte: u8) -> Result<State, BadChunks> {
        match (self.state, byte) {
            (State::Size { size, digits }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                if digits == SIZE_DIGITS {
                    return Err(BadChunks);
                }
                Ok(State::Size {
                    size: size << 4 | digit,
                    digits: digits + 1,
                })
            }
            (State::Size { digits: 0, .. }, _) => Err(BadChunks),
            (
                State::Size { size, .. } | State::Space { size } | State::Extension { size },
                b'\r',
            ) => Ok(State::SizeEnd { size }),
            (State::Size { size, .. } | State::Space { size }, b' ' | b'\t') => {
                Ok(State::Space { size })
            }
            (State::Size { size, .. } | State::Space { size }, b';') => {
                Ok(State::Extension { size })
            }
            (State::Extension { .. } | State::TrailerLine, _) if is_text(byte) => self.extra(),
            (State::SizeEnd { size: 0 } | State::TrailerEnd, b'\n') => Ok(State::Trailer),
            (State::SizeEnd { size }, b'\n') => Ok(State::Data { left: size }),
            (State::DataEnd, b'\r') => Ok(State::DataEndLine),
            (State::DataEndLine, b'\n') => Ok(FIRST),
            (State::Trailer, b'\r') => Ok(State::LastEnd),
            (State::Trailer | State::TrailerName, _) if is_token(byte) => {
                self.state = State::TrailerName;
                self.extra()
            }
            (State::TrailerName, b':') => Ok(State::TrailerLine),
            (State::TrailerLine, b'\r') => Ok(State::TrailerEnd),
            (State::LastEnd, b'\n') => Ok(State::Done),
            _ => Err(BadChunks),
        }
    }

    /// One more byte of an extension or a trailer.
    fn extra(&mut self) -> Result<State, BadChunks> {
        self.extras += 1;
        if self.extras > EXTRAS {
            return Err(BadChunks);
        }
        Ok(self.state)
    }
}

fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Whether it may be part of the name of a field (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How much of `bytes` is the body, read in pieces of `piece` bytes; none when it does not end there.
    fn end(bytes: &[u8], piece: usize) -> Result<Option<usize>, BadChunks> {
        let (mut chunks, mut read) = (Chunks::new(), 0);
        for part in bytes.chunks(piece) {
            read += chunks.read(part)?;
            if chunks.is_done() {
                return Ok(Some(read));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_body_ends_where_it_says_however_it_comes() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "5;name=\"v\"\r\nhello\r\n00a \r\n0123456789\r\n000\r\n\r\n",
            "1\r\n\r\r\n2\r\n\r\n\r\n0\r\nexpires: never\r\nx: y\r\n\r\n",
            "A\r\n0123456789\r\n0\r\n\r\n",
            "5  \t;x\r\nhello\r\n0   \r\n\r\n",
        ] {
            let followed = format!("{body}HTTP/1.1 200 OK\r\n");
            for piece in 1..followed.len() {
                assert_eq!(
                    end(followed.as_bytes(), piece),
                    Ok(Some(body.len())),
                    "{body:?}"
                );
            }
            for cut in 0..body.len() {
                assert_eq!(
                    end(&body.as_bytes()[..cut], 3),
                    Ok(None),
                    "{body:?} to {cut}"
                );
            }
        }
    }

    #[test]
    fn content_is_counted_without_what_is_around_it() {
        let mut chunks = Chunks::new();
        chunks.read(b"5;x\r\nhel").unwrap();
        assert_eq!(chunks.content(), 3);
        chunks.read(b"lo\r\n1\r\n!\r\n0\r\n\r\n").unwrap();
        assert_eq!((chunks.content(), chunks.content()), (3, 0));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for body in [
            "\r\n",
            ";x\r\n",
            "-1\r\n",
            "0x5\r\nhello\r\n",
            "5\nhello\n0\n\n",
            "5\r\nhello0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\r\nhello\r\n",
            "11111111111111111\r\n",
            "5;\0\r\nhello\r\n",
            "5;a\nb\r\nhello\r\n",
            "0\r\nx: \0\r\n\r\n",
            "0\r\nx: y\n\r\n",
            "0\r\n\rX",
            "5 5\r\nhello\r\n0\r\n\r\n",
            "5 x;y\r\nhello\r\n0\r\n\r\n",
            "0\r\n x: y\r\n\r\n",
            "0\r\n: y\r\n\r\n",
            "0\r\nx\r\n\r\n",
            "0\r\nx : y\r\n\r\n",
            "0\r\nHTTP/1.1 200 OK\r\nx: y\r\n\r\n",
        ] {
            for piece in 1..=body.len() {
                assert_eq!(end(body.as_bytes(), piece), Err(BadChunks), "{body:?}");
            }
        }
    }

    #[test]
    fn extensions_and_trailers_have_an_end() {
        let long = "x".repeat(EXTRAS as usize + 1);
        assert_eq!(end(format!("1;{long}").as_bytes(), 4096), Err(BadChunks));
        assert_eq!(end(format!("0\r\n{long}").as_bytes(), 4096), Err(BadChunks));
        let padded = format!("{}0\r\n\r\n", "1      \r\n.\r\n".repeat(EXTRAS as usize));
        assert_eq!(end(padded.as_bytes(), 4096), Ok(Some(padded.len())));
        let many = "1;xxxx\r\n.\r\n".repeat(EXTRAS as usize / 4 + 1);
        assert_eq!(end(many.as_bytes(), 4096), Err(BadChunks));
    }
}
