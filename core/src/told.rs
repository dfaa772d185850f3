//! What the program says on its standard streams. Where they take nothing, because their disk is full or their reader has gone,
//! it goes on: what was done is done, and a server has more to do than to say so.

use std::io::{self, Write};

/// A line of a command's result on standard output; on standard error where that does not take it.
pub(crate) fn result(line: &str) {
    tell(line, &mut io::stdout().lock(), &mut io::stderr());
}

/// A line on standard error, for people.
pub(crate) fn remark(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

fn tell(line: &str, first: &mut impl Write, second: &mut impl Write) {
    let text = format!("{line}\n");
    let told = first.write_all(text.as_bytes());
    if told.and_then(|()| first.flush()).is_err() {
        let _ = second.write_all(text.as_bytes());
    }
}

/// Standard error for the log, which takes everything.
pub(crate) struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Of a line that cannot be written nobody can be told: whoever tries panics, in the midst of a rollout.
        let _ = io::stderr().lock().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_standard_output_does_not_take_goes_to_standard_error() {
        let (mut taken, mut kept) = (Vec::new(), Vec::new());
        tell("whole", &mut taken, &mut kept);
        assert_eq!((&*taken, &*kept), (&b"whole\n"[..], &b""[..]));
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        tell("whole", &mut full, &mut kept);
        assert_eq!(kept, b"whole\n");
        let mut none = File::options().write(true).open("/dev/full").unwrap();
        tell("whole", &mut full, &mut none);
    }
}
