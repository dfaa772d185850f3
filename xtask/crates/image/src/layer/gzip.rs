//! gzip with several threads: blocks are compressed apart, each a member of its own (RFC 1952,
//! section 2.2: a gzip file is a series of members). Every reader of layers takes such files; seekable
//! images are made of them. The output depends on the input and the level alone, not on how many
//! threads there are.
//!
//! libdeflate compresses machine code three times as fast as zlib's kin to the same size, and cannot
//! go on where another block ended: hence the members.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use libdeflater::{CompressionLvl, Compressor};

/// Bytes compressed at a time: larger ones are hardly smaller afterwards.
const BLOCK: usize = 1024 * 1024;

/// Compresses `input` into `output`; gives `input` back.
pub(crate) fn compress<R: Read + Send>(
    input: R,
    output: &mut dyn Write,
    level: u32,
    threads: usize,
) -> io::Result<R> {
    let threads = threads.max(1);
    thread::scope(|scope| {
        let (jobs, queue) = sync_channel::<Job>(threads);
        let (order, done) = sync_channel(threads * 2);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            scope.spawn(move || work(&queue, level));
        }
        // With the workers gone, so is the queue: whoever feeds it then learns of it.
        drop(queue);
        let feeder = scope.spawn(move || feed(input, &jobs, &order));
        let written = join(done, output);
        let fed = feeder
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // The input's failure is the cause of a failure to write, never the other way round.
        let input = fed?;
        written.map(|()| input)
    })
}

struct Job {
    bytes: Vec<u8>,
    done: SyncSender<io::Result<Vec<u8>>>,
}

/// Cuts the input into blocks. Ends early, without an error, when nobody wants more of them.
fn feed<R: Read>(
    mut input: R,
    jobs: &SyncSender<Job>,
    order: &SyncSender<Receiver<io::Result<Vec<u8>>>>,
) -> io::Result<R> {
    loop {
        let mut bytes = Vec::with_capacity(BLOCK);
        input.by_ref().take(BLOCK as u64).read_to_end(&mut bytes)?;
        let last = bytes.len() < BLOCK;
        let (done, result) = sync_channel(1);
        if jobs.send(Job { bytes, done }).is_err() || order.send(result).is_err() || last {
            return Ok(input);
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>, level: u32) {
    // libdeflate has levels to 12; those above 9 are no gzip that others know by its number.
    let level = i32::try_from(level.clamp(1, 9)).unwrap_or(1);
    let mut compressor = CompressionLvl::new(level).map(Compressor::new);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let result = match &mut compressor {
            Ok(compressor) => member(compressor, &job.bytes),
            Err(_) => Err(io::Error::other(format!("gzip has no level {level}"))),
        };
        // Whoever asked may have given up.
        let _ = job.done.send(result);
    }
}

fn member(compressor: &mut Compressor, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut member = vec![0; compressor.gzip_compress_bound(bytes.len())];
    let length = compressor
        .gzip_compress(bytes, &mut member)
        .map_err(io::Error::other)?;
    member.truncate(length);
    Ok(member)
}

/// Writes the members in their order.
fn join(done: Receiver<Receiver<io::Result<Vec<u8>>>>, output: &mut dyn Write) -> io::Result<()> {
    for result in done {
        let member = result
            .recv()
            .map_err(|_| io::Error::other("a compressing thread ended early"))??;
        output.write_all(&member)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text that compresses, with repetitions over more than a window.
    fn text(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            bytes.extend_from_slice(format!("line {} of some text\n", state >> 20).as_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    fn compressed(bytes: &[u8], threads: usize) -> Vec<u8> {
        let mut out = Vec::new();
        compress(bytes, &mut out, 4, threads).unwrap();
        out
    }

    #[test]
    fn a_reader_of_members_gets_everything_back() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK, 3 * BLOCK + 7] {
            let bytes = text(length);
            let out = compressed(&bytes, 2);
            let mut decoder = flate2::bufread::MultiGzDecoder::new(&out[..]);
            let mut back = Vec::new();
            decoder.read_to_end(&mut back).unwrap();
            assert!(back == bytes, "{length}");
            assert_eq!(decoder.into_inner().len(), 0, "{length}");
        }
    }

    #[test]
    fn threads_change_nothing() {
        let bytes = text(5 * BLOCK + 100);
        let one = compressed(&bytes, 1);
        assert!(one.len() < bytes.len() / 3);
        for threads in [2, 3, 8] {
            assert!(compressed(&bytes, threads) == one);
        }
    }

    #[test]
    fn gzip_itself_reads_it() {
        let bytes = text(2 * BLOCK + 5);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("text.gz");
        std::fs::write(&file, compressed(&bytes, 2)).unwrap();
        let gzip = std::process::Command::new("gzip")
            .args(["-dc"])
            .arg(&file)
            .output()
            .unwrap();
        assert!(gzip.status.success() && gzip.stdout == bytes);
    }

    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("broken input"))
        }
    }

    impl Write for Broken {
        fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
            match buffer.len() {
                ..=10 => Ok(buffer.len()),
                _ => Err(io::Error::other("broken output")),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn failures_end_it() {
        let bytes = text(20 * BLOCK);
        let input = bytes.chain(Broken);
        let error = compress(input, &mut Vec::new(), 1, 2).err().unwrap();
        assert_eq!(error.to_string(), "broken input");
        let bytes = text(20 * BLOCK);
        let error = compress(&bytes[..], &mut Broken, 1, 2).err().unwrap();
        assert_eq!(error.to_string(), "broken output");
    }
}
