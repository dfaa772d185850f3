//! gzip with several threads, one stream: blocks are compressed apart, each with the end of the
//! one before as its dictionary, and joined at byte boundaries (RFC 1951, section 3.2.4: an empty
//! stored block ends on one). The output depends on the input and the level alone, not on how many
//! threads there are.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use flate2::{Compress, Crc, FlushCompress, Status};

/// Bytes compressed at a time. Larger ones compress no better with the dictionary kept.
const BLOCK: usize = 512 * 1024;
/// How far back deflate looks.
const WINDOW: usize = 32 * 1024;
/// RFC 1952: deflate, no name, no time, unknown system. The same on every machine.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Compresses `input` into `output`; gives `input` back.
pub(crate) fn compress<R: Read + Send>(
    input: R,
    output: &mut dyn Write,
    level: u32,
    threads: usize,
) -> io::Result<R> {
    let threads = threads.max(1);
    output.write_all(&HEADER)?;
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
        let crc = join(done, output);
        match (feeder.join(), crc) {
            (Ok(Ok(input)), Ok(crc)) => {
                output.write_all(&crc.sum().to_le_bytes())?;
                output.write_all(&crc.amount().to_le_bytes())?;
                Ok(input)
            }
            // The input's failure is the cause of a failure to write, never the other way round.
            (Ok(Err(error)), _) | (Ok(Ok(_)), Err(error)) => Err(error),
            (Err(panic), _) => std::panic::resume_unwind(panic),
        }
    })
}

struct Job {
    bytes: Vec<u8>,
    dictionary: Vec<u8>,
    last: bool,
    done: SyncSender<io::Result<Block>>,
}

struct Block {
    bytes: Vec<u8>,
    crc: Crc,
}

/// Cuts the input into blocks. Ends early, without an error, when nobody wants more of them.
fn feed<R: Read>(
    mut input: R,
    jobs: &SyncSender<Job>,
    order: &SyncSender<Receiver<io::Result<Block>>>,
) -> io::Result<R> {
    let mut dictionary = Vec::new();
    let mut bytes = block(&mut input)?;
    loop {
        let following = if bytes.len() == BLOCK {
            block(&mut input)?
        } else {
            Vec::new()
        };
        let last = following.is_empty();
        let tail = bytes[bytes.len().saturating_sub(WINDOW)..].to_vec();
        let (done, result) = sync_channel(1);
        let job = Job {
            bytes,
            dictionary: std::mem::replace(&mut dictionary, tail),
            last,
            done,
        };
        if jobs.send(job).is_err() || order.send(result).is_err() || last {
            return Ok(input);
        }
        bytes = following;
    }
}

fn block(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(BLOCK);
    input.take(BLOCK as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn work(queue: &Mutex<Receiver<Job>>, level: u32) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        let result = deflate(&job, level);
        // Whoever asked may have given up.
        let _ = job.done.send(result);
    }
}

fn deflate(job: &Job, level: u32) -> io::Result<Block> {
    let mut deflater = Compress::new(flate2::Compression::new(level.clamp(1, 9)), false);
    if !job.dictionary.is_empty() {
        deflater
            .set_dictionary(&job.dictionary)
            .map_err(io::Error::other)?;
    }
    let flush = if job.last {
        FlushCompress::Finish
    } else {
        FlushCompress::Sync
    };
    let mut bytes = Vec::with_capacity(job.bytes.len() / 2 + 1024);
    loop {
        let read = usize::try_from(deflater.total_in()).map_err(io::Error::other)?;
        let status = deflater
            .compress_vec(&job.bytes[read..], &mut bytes, flush)
            .map_err(io::Error::other)?;
        let complete = match status {
            Status::StreamEnd => true,
            // Room left over: everything was taken and flushed.
            Status::Ok | Status::BufError => !job.last && bytes.len() < bytes.capacity(),
        };
        if complete {
            let mut crc = Crc::new();
            crc.update(&job.bytes);
            return Ok(Block { bytes, crc });
        }
        bytes.reserve(64 * 1024);
    }
}

/// Writes the blocks in their order.
fn join(done: Receiver<Receiver<io::Result<Block>>>, output: &mut dyn Write) -> io::Result<Crc> {
    let mut crc = Crc::new();
    for result in done {
        let block = result
            .recv()
            .map_err(|_| io::Error::other("a compressing thread ended early"))??;
        output.write_all(&block.bytes)?;
        crc.combine(&block.crc);
    }
    Ok(crc)
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
    fn a_reader_of_one_stream_gets_everything_back() {
        for length in [
            0,
            1,
            WINDOW,
            BLOCK - 1,
            BLOCK,
            BLOCK + 1,
            3 * BLOCK,
            3 * BLOCK + 7,
        ] {
            let bytes = text(length);
            let out = compressed(&bytes, 2);
            // Reads one member and no more: the stream is a single one.
            let mut decoder = flate2::bufread::GzDecoder::new(&out[..]);
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
