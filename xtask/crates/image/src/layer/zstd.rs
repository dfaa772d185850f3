//! zstd by the program of that name: a library for it would double the time to compile the tool,
//! for a format that is off unless asked for.

use std::io::{self, Read, Write};
use std::process::{Child, Stdio};
use std::thread;

use crate::base::tool;

/// As much of what it complains of as is read: less than a pipe holds, so that it cannot block.
const COMPLAINT: u64 = 4096;
/// Bytes handed over at a time.
const BUFFER: usize = 256 * 1024;

/// Compresses `input` into `output`; gives `input` back. `zstd` uses all processors; what comes out
/// depends on its version, not on their number.
pub(crate) fn compress<R: Read + Send>(
    input: R,
    output: &mut dyn Write,
    level: u32,
) -> io::Result<R> {
    let mut child = Running::start(level)?;
    let pipes = child.0.stdin.take().zip(child.0.stdout.take());
    let (stdin, mut stdout) = pipes.ok_or_else(|| io::Error::other("zstd has no pipes"))?;
    thread::scope(|scope| {
        let feeder = scope.spawn(move || feed(input, stdin));
        let written = pass_on(&mut stdout, output);
        // Closing the pipe ends a feeder that nobody reads from any more.
        drop(stdout);
        let fed = feeder
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (fed, written) {
            (Err(error), _) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            (_, Err(error)) => Err(error),
            // It closed its input: why, it says itself.
            (Err(error), Ok(())) => child.finish().and(Err(error)),
            (Ok(input), Ok(())) => child.finish().map(|()| input),
        }
    })
}

/// The program, which never outlives its use.
struct Running(Child);

impl Running {
    fn start(level: u32) -> io::Result<Self> {
        let child = tool("zstd")
            .args(["--quiet", "--stdout", "--threads=0"])
            .arg(format!("-{}", level.clamp(1, 19)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        child.map(Self).map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::NotFound => "is not installed".to_owned(),
                _ => format!("cannot be run: {error}"),
            };
            io::Error::new(error.kind(), format!("the program zstd {why}"))
        })
    }

    fn finish(&mut self) -> io::Result<()> {
        let mut complaint = String::new();
        if let Some(stderr) = self.0.stderr.take() {
            stderr.take(COMPLAINT).read_to_string(&mut complaint)?;
        }
        let status = self.0.wait()?;
        if status.success() {
            return Ok(());
        }
        let text = format!("zstd ended with {status}: {}", complaint.trim());
        Err(io::Error::other(text))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After `finish` both find nothing to do.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn feed<R: Read>(mut input: R, mut stdin: impl Write) -> io::Result<R> {
    pass_on(&mut input, &mut stdin)?;
    Ok(input)
}

fn pass_on(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return to.flush(),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
