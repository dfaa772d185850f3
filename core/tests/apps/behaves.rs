//! An application whose environment says how it behaves. Standard library only: the tests compile
//! it with `rustc` and put it into an image alone.
//!
//! `MODE`: `ok` (default), `slow` (listens after `START_MS`), `exit` (prints and ends with
//! `EXIT_CODE`), `abort` (ends by a signal), `wrong-port`, `unhealthy` (answers 500 to the health
//! check), `silent` (accepts and never answers), `crash` (ends with 4 after `CRASH_MS`), `faulty` (answers 500
//! to everything but health checks), `lazy` (takes `DELAY_MS` for each answer, health checks included), `chatty`
//! (prints a number every few milliseconds), `hungry` (takes `EAT_MB` of memory before it listens).
//!
//! Paths: `/health`, `/version` (`VERSION`), `/env/NAME`, `/slow/MS` (answers late), `/exit/CODE`,
//! `/sick` (health checks fail from now on).

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

static SICK: AtomicBool = AtomicBool::new(false);

fn main() {
    if let Some(command) = env::args().nth(1) {
        return once(&command);
    }
    let mode = variable("MODE", "ok");
    println!("starting in mode {mode}, version {}", variable("VERSION", "none"));
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
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("the port can be had");
    println!("listening on {}", listener.local_addr().expect("a bound listener has an address"));
    for stream in listener.incoming().flatten() {
        let mode = mode.clone();
        thread::spawn(move || serve(stream, &mode));
    }
}

/// What a release command does: `print` says so and ends well, `fail` ends with 9, `hang` never ends.
fn once(command: &str) {
    println!("running {command} for version {}", variable("VERSION", "none"));
    match command {
        "print" => {}
        "fail" => std::process::exit(9),
        _ => loop {
            thread::sleep(Duration::from_secs(3600));
        },
    }
}

fn serve(stream: TcpStream, mode: &str) {
    let Ok(reading) = stream.try_clone() else { return };
    let mut reader = BufReader::new(reading);
    let mut writer = stream;
    while let Some((path, keep_alive)) = request(&mut reader) {
        match mode {
            "silent" => thread::sleep(Duration::from_secs(3600)),
            "lazy" => thread::sleep(Duration::from_millis(number("DELAY_MS", 100))),
            _ => {}
        }
        let (status, body) = answer(&path, mode);
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let written = write!(
            writer,
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: {connection}\r\n\r\n{body}",
            body.len()
        );
        if written.is_err() || !keep_alive {
            return;
        }
    }
}

fn request(reader: &mut impl BufRead) -> Option<(String, bool)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let path = line.split_whitespace().nth(1)?.to_owned();
    let mut keep_alive = true;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|read| *read > 0)?;
        let header = header.trim().to_ascii_lowercase();
        if header.is_empty() {
            return Some((path, keep_alive));
        }
        if header == "connection: close" {
            keep_alive = false;
        }
    }
}

fn answer(path: &str, mode: &str) -> (&'static str, String) {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (first, rest) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    match first {
        "health" if SICK.load(Ordering::Relaxed) => ("500 Internal Server Error", "sick".into()),
        "health" => ("200 OK", "fine".into()),
        _ if mode == "faulty" => ("500 Internal Server Error", "faulty".into()),
        "version" => ("200 OK", variable("VERSION", "none")),
        "env" => ("200 OK", variable(rest, "")),
        "slow" => {
            thread::sleep(Duration::from_millis(rest.parse().unwrap_or(100)));
            ("200 OK", variable("VERSION", "none"))
        }
        "exit" => {
            println!("told to end with {rest}");
            std::process::exit(rest.parse().unwrap_or(1));
        }
        "sick" => {
            SICK.store(true, Ordering::Relaxed);
            ("200 OK", "sick from now on".into())
        }
        _ => ("404 Not Found", "nothing here".into()),
    }
}

fn variable(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
