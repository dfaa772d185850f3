//! The server that holds the platform's folder: by a lock, from before it says where it listens until it is gone. Its number is in
//! the file that it locks.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::folder::FolderId;
use super::process::Process;

/// The file that it locks, in the platform's folder.
pub(super) const FILE: &str = "lock";
/// How long it may take between its lock and its number.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// The server that holds the platform in `folder`, if one does. A look keeps servers off for a moment: only whoever may
/// start one looks.
pub(super) fn of(folder: &Path) -> io::Result<Option<Process>> {
    let limit = Instant::now() + PATIENCE;
    loop {
        let mut file = match File::open(folder.join(FILE)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        match file.try_lock_shared() {
            Ok(()) => return Ok(None),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if let Some(process) = named(&mut file)? {
            return Ok(Some(process));
        }
        if Instant::now() > limit {
            return Err(io::Error::other(
                "it is locked, and not by the process that it names",
            ));
        }
        std::thread::sleep(LOOK);
    }
}

/// Keeps servers off the platform in `folder` for as long as the file is open. None where one holds it.
pub(super) fn keep_off(folder: &Path) -> io::Result<Option<File>> {
    let mut options = File::options();
    let options = options.create(true).append(true).mode(0o600);
    let file = options.open(folder.join(FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The process that a locked file names. Until whoever locked it has written its own number, that is an earlier one, which
/// may be anybody's by now: only the holder has the file open.
fn named(file: &mut File) -> io::Result<Option<Process>> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let lock = FolderId::from(&file.metadata()?);
    let process = text.trim().parse().ok().and_then(Process::of);
    Ok(process.filter(|process| {
        let open = fs::read_dir(format!("/proc/{}/fd", process.pid));
        let mut open = open.into_iter().flatten().flatten();
        open.any(|entry| lock.is(&entry.path()))
    }))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use deploy_plan::failure::Failure;
    use nix::sys::signal::Signal;
    use testkit::process::{Running as Child, eventually};

    use super::super::{Platform, Running, Start, Volumes};
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);
    /// How long something takes that is slow.
    const SLOWLY: Duration = Duration::from_millis(500);

    fn platform() -> (tempfile::TempDir, Platform) {
        let state = tempfile::tempdir().unwrap();
        let platform = Platform::of(state.path());
        platform.make_folder().unwrap();
        (state, platform)
    }

    /// Starts a program of this text for a server.
    fn start(platform: &Platform, text: &str) -> Result<Running, Failure> {
        let binary = platform.folder().with_extension("server");
        fs::write(&binary, format!("#!/bin/sh\ncd \"$3\"\n{text}\n")).unwrap();
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
        platform.start(&Start {
            binary: &binary,
            listen: None,
            insecure: false,
            web: None,
            services: None,
        })
    }

    /// A process that holds the folder as a server does, has said nothing, and goes on with `text`.
    fn holding(platform: &Platform, text: &str) -> Child {
        // Of package util-linux.
        let mut command = Command::new("flock");
        let text = format!("echo $$ > {FILE}; {text}");
        let command = command.args([FILE, "sh", "-c", &text]);
        let child = Child::start(command.current_dir(platform.folder()));
        let is_held = || matches!(of(platform.folder()), Ok(Some(_)));
        assert!(eventually(LIMIT, is_held), "it does not hold the folder");
        child
    }

    /// Answers every request as a healthy server does.
    fn answer(listener: &TcpListener) {
        let body = r#"{"status":"healthy","version":"0","timestamp":"2026-01-01T00:00:00Z"}"#;
        let length = body.len();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close";
            let _ = write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{body}");
        }
    }

    #[test]
    fn a_server_that_starts_is_waited_for_and_keeps_its_address() {
        let (_state, platform) = platform();
        let folder = platform.folder().to_owned();
        // This process is the server.
        let mut lock = keep_off(&folder).unwrap().unwrap();
        writeln!(lock, "{}", std::process::id()).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            std::thread::sleep(SLOWLY);
            fs::write(folder.join("token"), "token").unwrap();
            let announced = serde_json::json!({
                "pid": std::process::id(),
                "address": address,
                "url": format!("http://{address}"),
            });
            fs::write(folder.join("coming"), announced.to_string()).unwrap();
            fs::rename(folder.join("coming"), folder.join("server.json")).unwrap();
            answer(&listener);
        });
        let running = start(&platform, "echo a second server; exit 2").unwrap();
        assert_eq!(running.url, format!("http://{address}"));
        let kept = fs::read_to_string(platform.folder().join("listen")).unwrap();
        assert_eq!(kept, address.to_string());
        drop(lock);
    }

    #[test]
    fn a_server_that_ends_is_waited_for_before_another_is_started() {
        let (_state, platform) = platform();
        let slowly = format!("exec sleep {}", SLOWLY.as_secs_f32());
        let ending = holding(&platform, &slowly);
        let failure = start(&platform, "flock -n lock echo it is free; exit 2").unwrap_err();
        assert!(failure.details.contains("it is free"), "{failure}");
        let _ = ending.wait(LIMIT);
        // Nothing is kept of an address where nobody has served.
        assert!(!platform.folder().join("listen").exists());
    }

    #[test]
    fn a_server_that_takes_the_folder_before_ours_is_waited_for() {
        let (_state, platform) = platform();
        let text = format!(
            "test -e first && {{ echo none is there; exit 2; }}
             touch first
             flock lock sh -c 'echo $$ > lock; touch taken; exec sleep {}' &
             until test -e taken; do :; done
             echo another server works on it; exit 1",
            SLOWLY.as_secs_f32()
        );
        let failure = start(&platform, &text).unwrap_err();
        assert!(failure.details.contains("none is there"), "{failure}");
    }

    #[test]
    fn a_server_that_says_nothing_is_ended_before_its_folder_goes() {
        let (state, platform) = platform();
        let ended = state.path().join("ended");
        let signalled = |then: &str| {
            let text = format!("trap '{then}; exit' INT; while :; do sleep 0.02; done");
            holding(&platform, &text)
        };
        let server = signalled("true");
        assert!(platform.stop().unwrap());
        let _ = server.wait(LIMIT);
        assert!(!platform.stop().unwrap());
        let server = signalled(&format!("test -e $PWD/lock && touch {}", ended.display()));
        platform.reset(Volumes::Remove).unwrap();
        assert!(ended.exists(), "the folder went first");
        assert!(!platform.folder().exists());
        let _ = server.wait(LIMIT);
    }

    #[test]
    fn whoever_was_the_holder_before_is_not_taken_for_it() {
        let (_state, platform) = platform();
        let server = holding(&platform, "exec sleep 600");
        let mut lock = File::open(platform.folder().join(FILE)).unwrap();
        let process = named(&mut lock).unwrap().unwrap();
        assert!(process.is_alive());
        // Its number is another program's by now.
        let other = Child::start(Command::new("sleep").arg("600"));
        fs::write(platform.folder().join(FILE), other.pid().to_string()).unwrap();
        let mut lock = File::open(platform.folder().join(FILE)).unwrap();
        assert!(named(&mut lock).unwrap().is_none());
        server.signal_group(Signal::SIGKILL);
        let _ = server.wait(LIMIT);
        assert!(of(platform.folder()).unwrap().is_none());
    }
}
