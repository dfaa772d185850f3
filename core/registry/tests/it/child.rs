//! Pushes by processes of their own: what they may take of memory, and what is left when one is killed.
//!
//! The process is this test program once more, told by its environment to be the child.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use oci::{
    BlobSource, BlobSources, Descriptor, Digest, ImageManifest, ImagePush, Known, media_type,
    push_image,
};

use crate::image::{TestImage, client, repository, tag};
use crate::server::ALICE;

const JOB: &str = "REGISTRY_TEST_CHILD";
const ADDRESS: &str = "REGISTRY_TEST_ADDRESS";
/// For what takes seconds, on a machine that does other things as well.
const LONG: Duration = Duration::from_mins(2);

/// Does nothing unless this process is a child.
#[test]
fn child() {
    let Ok(job) = std::env::var(JOB) else {
        return;
    };
    let address = std::env::var(ADDRESS).unwrap();
    match job.as_str() {
        "large" => push_large_blobs(&address),
        _ => push_until_killed(&address),
    }
}

fn start(job: &str, address: &str) -> Process {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(program);
    command
        .args(["--exact", "child::child", "--nocapture"])
        .env(JOB, job)
        .env(ADDRESS, address)
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    Process { child, output }
}

struct Process {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Process {
    /// What follows `word` in the first line that begins with it.
    fn says(&mut self, word: &str) -> String {
        for line in (&mut self.output).lines() {
            if let Some(rest) = line.unwrap().strip_prefix(word) {
                return rest.to_owned();
            }
        }
        panic!("the child ended without `{word}`");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGKILL; one that has ended already is reaped all the same.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[expect(
    clippy::print_stdout,
    reason = "it is how the child speaks to its parent"
)]
fn say(text: &str) {
    println!("{text}");
}

const LARGE: u64 = 512 * 1024 * 1024;

/// Two gigabytes in four blobs that go at the same time.
fn push_large_blobs(address: &str) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse");
    File::create(&path).unwrap().set_len(LARGE).unwrap();
    let mut sources = BlobSources::new();
    let mut described = |name: &str, size| {
        // The other side looks at lengths only.
        let digest = Digest::of(name.as_bytes());
        sources.insert(digest, Box::new(path.clone()));
        Descriptor::new(media_type::OCI_LAYER, digest, size)
    };
    let config = described("config", 100);
    let layers = ["a", "b", "c", "d"].map(|name| described(name, LARGE));
    let push = ImagePush {
        repository: &repository("large"),
        manifest: &ImageManifest::new(config, layers.to_vec()),
        sources: &sources,
        tag: Some(&tag("v1")),
        mount_from: &[],
        known: &Known::new(),
        store: None,
        ahead: None,
    };
    let pushed = push_image(&client(address, None), &push).unwrap();
    assert_eq!(pushed.uploaded, 5);
    // Whoever hears the word kills this process.
    drop(folder);
    say(&format!("\npeak {}", crate::own::peak_memory()));
}

#[test]
fn two_gigabytes_take_no_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            std::thread::spawn(move || swallow(&connection.unwrap()));
        }
    });
    let peak: u64 = start("large", &address).says("peak ").parse().unwrap();
    assert!(peak < 64 * 1024, "{peak} kB");
}

/// A registry that has nothing, takes everything and keeps nothing.
fn swallow(stream: &TcpStream) -> io::Result<()> {
    let mut reader = BufReader::with_capacity(256 * 1024, stream);
    let mut writer = stream;
    loop {
        let (mut method, mut length, mut expects) = (String::new(), 0, false);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if method.is_empty() {
                line.split(' ')
                    .next()
                    .unwrap_or_default()
                    .clone_into(&mut method);
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            expects |= line.starts_with("expect:");
            if line.is_empty() {
                break;
            }
        }
        if expects {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        io::copy(&mut (&mut reader).take(length), &mut io::sink())?;
        let answer = match method.as_str() {
            "HEAD" => "404 Not Found\r\n",
            "POST" => "202 Accepted\r\nlocation: /v2/large/blobs/uploads/1\r\n",
            _ => "201 Created\r\n",
        };
        write!(writer, "HTTP/1.1 {answer}content-length: 0\r\n\r\n")?;
    }
}

/// What the child and its parent both push.
fn image() -> TestImage {
    TestImage::new(90, &[8_000_000, 50_000])
}

/// Stops half-way in the largest blob and waits for its end.
fn push_until_killed(address: &str) {
    struct HalfWay(Vec<u8>);
    impl BlobSource for HalfWay {
        fn open_at(&self, _: u64) -> io::Result<Box<dyn Read + '_>> {
            Ok(Box::new(self.0[..self.0.len() / 2].chain(Stopped)))
        }
    }
    struct Stopped;
    impl Read for Stopped {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            say("\nhalf-way ");
            std::thread::sleep(LONG);
            Ok(0)
        }
    }
    let image = image();
    let (largest, bytes) = &image.blobs[0];
    let mut sources = image.sources();
    sources.insert(largest.digest, Box::new(HalfWay(bytes.clone())));
    let push = ImagePush {
        repository: &repository("alice/killed"),
        manifest: &image.manifest,
        sources: &sources,
        tag: Some(&tag("v1")),
        mount_from: &[],
        known: &Known::new(),
        store: None,
        ahead: None,
    };
    push_image(&client(address, Some(ALICE)), &push).unwrap();
}

/// Killed in the middle of a blob, when another one had arrived: the next push sends what is missing.
pub(crate) fn a_killed_push_goes_on(address: &str) {
    let (image, name) = (image(), repository("alice/killed"));
    let client = client(address, Some(ALICE));
    let mut child = start("killed", address);
    child.says("half-way");
    let (small, small_bytes) = &image.blobs[1];
    let deadline = Instant::now() + LONG;
    while !client.blob_exists(&name, &small.digest).unwrap() {
        assert!(Instant::now() < deadline, "the small blob never came");
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(child);
    assert_eq!(client.manifest_exists(&name, &tag("v1")).unwrap(), None);

    let pushed = image.push(&client, "alice/killed", "v1");
    assert_eq!((pushed.existing, pushed.uploaded), (1, 2));
    let all: usize = image.blobs.iter().map(|(_, bytes)| bytes.len()).sum();
    let expected = all - small_bytes.len() + image.manifest.to_vec().len();
    assert_eq!(pushed.bytes, expected as u64);
    for (descriptor, bytes) in &image.blobs {
        let mut copy = Vec::new();
        client.get_blob(&name, descriptor, &mut copy).unwrap();
        assert!(copy == *bytes);
    }
    assert_eq!(image.push(&client, "alice/killed", "v1").requests, 1);
}
