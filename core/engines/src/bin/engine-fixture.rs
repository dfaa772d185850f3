//! A program for the images that the tests of this crate run. Little more than the standard library, so
//! that the images stay small.

#![expect(
    clippy::print_stdout,
    reason = "what it prints is what the tests look at"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["listen"] => listen(&std::env::var("PORT").unwrap_or_default()),
        ["listen", port] => listen(port),
        ["look"] => look(),
        ["write", lines, width] => write(lines, width),
        ["eat", mebibytes] => eat(mebibytes),
        ["spawn", count] => spawn(count),
        ["burn", milliseconds] => burn(milliseconds),
        ["leave", seconds] => leave(seconds),
        ["leave", seconds, "hidden"] => leave_hidden(seconds),
        ["session", seconds] => session(seconds),
        ["answer", socket, line] => answer(socket, line),
        _ => return ExitCode::from(64),
    }
    ExitCode::SUCCESS
}

fn listen(port: &str) {
    let host = std::env::var("HOST").unwrap_or_default();
    let listener = TcpListener::bind(format!("{host}:{port}")).expect("the port is free");
    println!("listening on {port}");
    for connection in listener.incoming() {
        let mut connection = connection.expect("a client");
        let mut request = [0; 4096];
        let _ = connection.read(&mut request);
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    }
}

/// Has so much memory, really.
fn eat(mebibytes: &str) {
    let mebibytes: usize = mebibytes.parse().expect("a number");
    let mut all = Vec::new();
    for number in 0..mebibytes {
        // other than zero, or the kernel would give one page for all
        all.push(vec![u8::try_from(number % 255 + 1).unwrap_or(1); 1 << 20]);
    }
    println!("had {}", std::hint::black_box(&all).len());
}

/// Starts children until that is refused.
fn spawn(count: &str) {
    let count: usize = count.parse().expect("a number");
    let children = (0..count).map_while(|_| Command::new("/bin/sleep").arg("600").spawn().ok());
    let mut children: Vec<_> = children.collect();
    println!("spawned {}", children.len());
    for child in &mut children {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Leaves a process behind in a process group of its own.
#[expect(clippy::zombie_processes, reason = "what is tested is who ends it")]
fn leave(seconds: &str) {
    let mut sleep = Command::new("/bin/sleep");
    sleep.arg(seconds).process_group(0);
    sleep.spawn().expect("it starts");
}

/// Leaves a process behind that has a session of its own, works elsewhere and knows of nothing.
#[expect(clippy::zombie_processes, reason = "what is tested is who ends it")]
fn leave_hidden(seconds: &str) {
    let own = std::env::current_exe().expect("a program has a file");
    let mut child = Command::new(own);
    child.args(["session", seconds]).env_clear();
    child.current_dir("/").spawn().expect("it starts");
}

fn session(seconds: &str) {
    nix::unistd::setsid().expect("it leads no group yet");
    let error = Command::new("/bin/sleep").arg(seconds).exec();
    panic!("it sleeps: {error}");
}

/// Is busy for so long, and prints for how long of that it had a processor.
fn burn(milliseconds: &str) {
    let time = Duration::from_millis(milliseconds.parse().expect("a number"));
    let begun = Instant::now();
    let mut number = 1_u64;
    while begun.elapsed() < time {
        number = std::hint::black_box(number.wrapping_mul(31));
    }
    let had = fs::read_to_string("/proc/self/schedstat").expect("/proc");
    let nanoseconds: u64 = had
        .split_whitespace()
        .next()
        .and_then(|had| had.parse().ok())
        .expect("nanoseconds");
    println!("used {}", nanoseconds / 1_000_000);
}

/// Says the same to whoever connects, as a guard of another version would.
fn answer(socket: &str, line: &str) {
    let listener = UnixListener::bind(socket).expect("a place for a socket");
    println!("listening");
    let mut connections = Vec::new();
    for connection in listener.incoming() {
        let mut connection = connection.expect("a server");
        let _ = writeln!(connection, "{line}");
        connections.push(connection);
    }
}

/// Prints what an instance can see of itself and of the machine.
fn look() {
    for (name, value) in std::env::vars() {
        println!("env {name}={value}");
    }
    println!("args {:?}", std::env::args().collect::<Vec<_>>());
    println!(
        "cwd {}",
        std::env::current_dir().expect("a directory").display()
    );
    println!("pid {}", std::process::id());
    let status = fs::read_to_string("/proc/self/status").expect("/proc");
    for line in status.lines() {
        println!("status {}", line.replace('\t', " "));
    }
    let names = |path: &str| {
        let entries = fs::read_dir(path).expect(path);
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect(path).file_name().to_string_lossy().into())
            .collect();
        names.sort();
        names.join(" ")
    };
    println!("root {}", names("/"));
    println!("proc {}", names("/proc"));
    println!("dev {}", names("/dev"));
    println!("fds {}", names("/proc/self/fd"));
    println!(
        "limits {}",
        fs::read_to_string("/proc/self/limits")
            .expect("/proc")
            .replace('\n', ";")
    );
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/1/exe",
        "/dev/null",
        "/tmp/new",
        "/new",
    ] {
        let opened = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path);
        println!(
            "write {path} {}",
            opened.map_or_else(|error| error.to_string(), |_| "ok".into())
        );
    }
}

fn write(lines: &str, width: &str) {
    let text = "x".repeat(width.parse().expect("a width"));
    let mut output = std::io::stdout().lock();
    for number in 0..lines.parse().expect("a number of lines") {
        writeln!(output, "{number} {text}").expect("standard output");
    }
}
