//! An application whose environment says how it behaves. Standard library only: the tests compile
//! it with `rustc` and put it into an image alone.
//!
//! `MODE`: `ok` (default), `slow` (listens after `START_MS`), `exit` (prints and ends with
//! `EXIT_CODE`), `abort` (ends by a signal), `wrong-port`, `unhealthy` (answers 500 to the health
//! check), `silent` (accepts and never answers), `crash` (ends with 4 after `CRASH_MS`), `faulty` (answers 500
//! to everything but health checks), `lazy` (takes `DELAY_MS` for each answer, health checks included), `chatty`
//! (prints a number every few milliseconds), `worker` (listens nowhere), `hungry` (takes `EAT_MB` of memory before it listens).
//!
//! `NEEDS`: an address that something has to listen on when it starts, as a database would; else it ends with 5.
//!
//! `DATA`: a directory that nobody else may have; who finds somebody in it ends with 8. `/write/TEXT` adds a line to a file there, `/lines` tells
//! them, `/about/NAME` tells owner, group and mode of something in it, and its text.
//! `STOPS_AT`: with such a line there it ends with 9, as a database does that finds the files of a later version.
//!
//! `LINES`: so many lines are written at the start. `LONG`: then one of this length.
//!
//! Paths: `/health`, `/version` (`VERSION`), `/env/NAME`, `/slow/MS` (answers late), `/exit/CODE`,
//! `/exit-of/VERSION` (ends with 6 if it is of that version), `/hang-of/VERSION` (answers nothing any more), `/sick` (health checks fail from now on), `/well`
//! (no longer), `/ask/NAME` (the version that answers at the URL in a variable), `/download/CHUNKS` (slowly), `/echo` (another protocol on the same connection), `/alive` (until `/dead`).

use std::env;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

static SICK: AtomicBool = AtomicBool::new(false);
static DEAD: AtomicBool = AtomicBool::new(false);
static HUNG: AtomicBool = AtomicBool::new(false);

fn main() {
    if let Some(command) = env::args().nth(1) {
        return once(&command);
    }
    let mode = variable("MODE", "ok");
    println!("starting in mode {mode}, version {}", variable("VERSION", "none"));
    for line in 0..number("LINES", 0) {
        println!("line {line}");
    }
    if let length @ 1.. = number("LONG", 0) as usize {
        println!("{}", "x".repeat(length));
    }
    let needed = variable("NEEDS", "");
    if !needed.is_empty() && TcpStream::connect(&needed).is_err() {
        eprintln!("{needed} is not there");
        std::process::exit(5);
    }
    let _held = hold(&variable("DATA", ""));
    let unknown = variable("STOPS_AT", "");
    if !unknown.is_empty() && fs::read_to_string(kept()).is_ok_and(|text| text.lines().any(|line| line == unknown)) {
        eprintln!("{unknown} is of a later version");
        std::process::exit(9);
    }
    match mode.as_str() {
        "exit" => {
            // All on one stream: the order of two is nobody's.
            for line in 1..=30 {
                eprintln!("line {line}");
            }
            eprintln!("fatal: told to end");
            std::process::exit(number("EXIT_CODE", 3) as i32);
        }
        "abort" => std::process::abort(),
        "slow" => thread::sleep(Duration::from_millis(number("START_MS", 1000))),
        "unhealthy" => SICK.store(true, Ordering::Relaxed),
        "crash" => {
            thread::spawn(|| {
                thread::sleep(Duration::from_millis(number("CRASH_MS", 1000)));
                println!("crashing");
                std::process::exit(4);
            });
        }
        "worker" => loop {
            thread::sleep(Duration::from_secs(3600));
        },
        "hungry" => {
            let count = number("EAT_MB", 64) as usize;
            let all: Vec<Vec<u8>> = (0..count).map(|n| vec![n as u8 | 1; 1 << 20]).collect();
            println!("took {}", std::hint::black_box(&all).len());
        }
        "chatty" => {
            thread::spawn(|| {
                for tick in 0_u64.. {
                    println!("tick {tick}");
                    thread::sleep(Duration::from_millis(5));
                }
            });
        }
        _ => {}
    }
    let port = if mode == "wrong-port" { 0 } else { number("PORT", 0) as u16 };
    let host = variable("HOST", "127.0.0.1");
    let listener = TcpListener::bind((host.as_str(), port)).expect("the port can be had");
    println!("listening on {}", listener.local_addr().expect("a bound listener has an address"));
    for stream in listener.incoming().flatten() {
        let mode = mode.clone();
        thread::spawn(move || serve(stream, &mode));
    }
}

/// Nobody else has what is kept in `folder` as long as the file is open.
fn hold(folder: &str) -> Option<File> {
    if folder.is_empty() {
        return None;
    }
    let lock = File::create(format!("{folder}/.lock")).expect("the directory can be written to");
    if lock.try_lock().is_err() {
        eprintln!("somebody else is in {folder}");
        std::process::exit(8);
    }
    Some(lock)
}

fn kept() -> String {
    format!("{}/lines", variable("DATA", ""))
}

fn write_line(text: &str) -> std::io::Result<String> {
    let mut file = File::options().create(true).append(true).open(kept())?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    Ok("written".to_owned())
}

fn about(name: &str) -> std::io::Result<String> {
    let path = format!("{}/{name}", variable("DATA", ""));
    let found = fs::metadata(&path)?;
    let text = if found.is_file() { fs::read_to_string(&path)? } else { String::new() };
    Ok(format!("{}:{} {:o} {text}", found.uid(), found.gid(), found.mode() & 0o7777))
}

/// What a release command does: `print` says so and ends well, `fail` ends with 9, `hang` never ends, `ask` ends well where a
/// database answers, unless it is of the version in `REFUSES`. What a check does: `check PATH` asks the instance that it runs in, and ends with 1 and the answer's last line
/// when that is not 200; `leave NAME` leaves an orphan called so, in a group of its own, and ends well; `leave NAME hang` does not
/// end then.
fn once(command: &str) {
    if command == "check" {
        let path = env::args().nth(2).unwrap_or_default();
        let mut answer = String::new();
        let mut stream = TcpStream::connect(("127.0.0.1", number("PORT", 0) as u16)).expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("it takes requests");
        std::io::Read::read_to_string(&mut stream, &mut answer).expect("it answers");
        println!("{answer}");
        std::process::exit(i32::from(!answer.starts_with("HTTP/1.1 200 ")));
    }
    if command == "leave" {
        return leave();
    }
    println!("running {command} for version {}", variable("VERSION", "none"));
    match command {
        "print" => {}
        "fail" => std::process::exit(9),
        "ask" => {
            let answer = ask(&variable("DB_INTERNAL_URL", "")).unwrap_or_default();
            println!("the database is {answer}");
            let refused = variable("REFUSES", "");
            std::process::exit(i32::from(answer.is_empty() || answer == refused));
        }
        _ => loop {
            thread::sleep(Duration::from_secs(3600));
        },
    }
}

fn leave() {
    let own = env::current_exe().expect("a program has a file");
    let name = env::args().nth(2).unwrap_or_default();
    let begin = |words: &[&str]| {
        let mut command = Command::new(&own);
        command.args(words).process_group(0).spawn().expect("a program can be started")
    };
    match env::args().nth(3).as_deref() {
        Some("parent") => drop(begin(&["orphan", &name])),
        how => {
            begin(&["leave", &name, "parent"]).wait().expect("a child ends");
            if how == Some("hang") {
                thread::sleep(Duration::from_secs(3600));
            }
        }
    }
}

fn serve(stream: TcpStream, mode: &str) {
    let Ok(reading) = stream.try_clone() else { return };
    let mut reader = BufReader::new(reading);
    let mut writer = stream;
    while let Some((path, keep_alive, head)) = request(&mut reader) {
        if HUNG.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_secs(3600));
        }
        match mode {
            "silent" => thread::sleep(Duration::from_secs(3600)),
            "lazy" => thread::sleep(Duration::from_millis(number("DELAY_MS", 100))),
            _ => {}
        }
        if let Some(chunks) = path.strip_prefix("/download/") {
            let chunks = chunks.parse().unwrap_or(1);
            if download(&mut writer, chunks).is_err() || !keep_alive {
                return;
            }
            continue;
        }
        if path == "/echo" {
            return echo(&mut reader, &mut writer);
        }
        let (status, body) = answer(&path, &head, mode);
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let response = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: {connection}\r\n\r\n{body}",
            body.len()
        );
        // In one piece: the second of two would wait for the acknowledgement of the first.
        if writer.write_all(response.as_bytes()).is_err() || !keep_alive {
            return;
        }
    }
}

/// So many chunks of 64 KiB, one every 25 ms.
fn download(writer: &mut TcpStream, chunks: usize) -> std::io::Result<()> {
    let chunk = [b'x'; 64 * 1024];
    write!(writer, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", chunks * chunk.len())?;
    for _ in 0..chunks {
        writer.write_all(&chunk)?;
        thread::sleep(Duration::from_millis(25));
    }
    Ok(())
}

/// Changes the protocol, as a WebSocket does, to one that repeats each line.
fn echo(reader: &mut impl BufRead, writer: &mut TcpStream) {
    let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    if writer.write_all(head.as_bytes()).is_err() {
        return;
    }
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|read| read > 0) {
        if writer.write_all(line.as_bytes()).is_err() {
            return;
        }
        line.clear();
    }
}

/// Path, whether the connection goes on, and the headers in lower case.
fn request(reader: &mut impl BufRead) -> Option<(String, bool, String)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let path = line.split_whitespace().nth(1)?.to_owned();
    let mut keep_alive = true;
    let mut head = String::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|read| *read > 0)?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            return Some((path, keep_alive, head));
        }
        head.push_str(&header);
        head.push('\n');
        if header == "connection: close" {
            keep_alive = false;
        }
    }
}

fn answer(path: &str, head: &str, mode: &str) -> (&'static str, String) {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (first, rest) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    match first {
        "health" if SICK.load(Ordering::Relaxed) => ("500 Internal Server Error", "sick".into()),
        "health" => ("200 OK", "fine".into()),
        _ if mode == "faulty" => ("500 Internal Server Error", "faulty".into()),
        "version" => ("200 OK", variable("VERSION", "none")),
        "env" => ("200 OK", variable(rest, "")),
        "write" => ("200 OK", write_line(rest).unwrap_or_else(|error| error.to_string())),
        "lines" => ("200 OK", fs::read_to_string(kept()).unwrap_or_else(|error| error.to_string())),
        "about" => ("200 OK", about(rest).unwrap_or_else(|error| error.to_string())),
        "ask" => ("200 OK", ask(&variable(rest, "")).unwrap_or_else(|error| error.to_string())),
        "header" => {
            let mut lines = head.lines();
            let found = lines.find_map(|line| line.strip_prefix(rest)?.strip_prefix(": "));
            ("200 OK", found.unwrap_or("").to_owned())
        }
        "slow" => {
            thread::sleep(Duration::from_millis(rest.parse().unwrap_or(100)));
            ("200 OK", variable("VERSION", "none"))
        }
        "exit" => {
            println!("told to end with {rest}");
            std::process::exit(rest.parse().unwrap_or(1));
        }
        "hang-of" if rest == variable("VERSION", "none") => {
            HUNG.store(true, Ordering::Relaxed);
            ("200 OK", "hangs from now on".into())
        }
        "hang-of" => ("200 OK", "goes on".into()),
        "exit-of" if rest == variable("VERSION", "none") => std::process::exit(6),
        "exit-of" => ("200 OK", "stays".into()),
        "well" => {
            SICK.store(false, Ordering::Relaxed);
            ("200 OK", "well from now on".into())
        }
        "alive" if DEAD.load(Ordering::Relaxed) => ("500 Internal Server Error", "dead".into()),
        "alive" => ("200 OK", "alive".into()),
        "dead" => {
            DEAD.store(true, Ordering::Relaxed);
            ("200 OK", "dead from now on".into())
        }
        "sick" => {
            SICK.store(true, Ordering::Relaxed);
            ("200 OK", "sick from now on".into())
        }
        _ => ("404 Not Found", "nothing here".into()),
    }
}

/// The version that whoever listens at a URL is of.
fn ask(url: &str) -> std::io::Result<String> {
    let address = url.rsplit('/').next().unwrap_or(url);
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /version HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.rsplit("\r\n\r\n").next().unwrap_or("").to_owned())
}

fn variable(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
