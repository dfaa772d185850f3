//! Looks for secrets where none may be: outputs, files, command lines and the environment of
//! child processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem::Finder;

/// Short enough to see a command that only starts, asks and ends.
const PERIOD: Duration = Duration::from_millis(2);

/// Watches every process of the machine while the test runs.
#[derive(Debug)]
pub struct Watch {
    secrets: Vec<String>,
    allowed: Vec<PathBuf>,
    trusted: Vec<String>,
    seen: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
    sampling: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to look for these values, also in the encoded forms in which programs store them.
    #[must_use]
    pub fn over(secrets: impl IntoIterator<Item = String>) -> Self {
        let secrets: Vec<_> = not_empty(secrets).collect();
        let seen = Arc::new(Mutex::default());
        let stop = Arc::new(AtomicBool::new(false));
        let needles = with_encodings(&secrets);
        let sampling = thread::spawn({
            let (seen, stop) = (Arc::clone(&seen), Arc::clone(&stop));
            move || sample_until(&stop, &needles, &seen)
        });
        Self {
            secrets,
            allowed: Vec::new(),
            trusted: Vec::new(),
            seen,
            stop,
            sampling: Some(sampling),
        }
    }

    /// A file that holds the secret on purpose, such as the stored credentials.
    #[must_use]
    pub fn allowing(mut self, file: impl Into<PathBuf>) -> Self {
        self.allowed.push(file.into());
        self
    }

    /// A program that is given the secret in its environment on purpose. On its command line it may be no more than elsewhere.
    #[must_use]
    pub fn given_to(mut self, program: &str) -> Self {
        self.trusted.push(environment_of(program));
        self
    }

    /// Also looks for values that became known while the test ran.
    pub fn also(&mut self, secrets: impl IntoIterator<Item = String>) {
        self.secrets.extend(not_empty(secrets));
    }

    /// Panics when a secret was in a command line or a child's environment, is in one of the
    /// outputs, or is in any file below the folders.
    #[track_caller]
    pub fn assert_none<'a>(
        mut self,
        outputs: impl IntoIterator<Item = &'a str>,
        folders: &[&Path],
    ) {
        self.end();
        let needles = with_encodings(&self.secrets);
        let mut found: Vec<String> = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *seen).into_iter().collect()
        };
        found.retain(|sighting| !self.trusted.contains(sighting));
        for output in outputs {
            if let Some(line) = line_with(output, &needles) {
                found.push(format!("an output: {line}"));
            }
        }
        for folder in folders {
            search(folder, &needles, &self.allowed, &mut found);
        }
        assert!(found.is_empty(), "a secret is in:\n{}", found.join("\n"));
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(sampling) = self.sampling.take() {
            let _ = sampling.join();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
    }
}

/// An open registry has no password to look for.
fn not_empty(secrets: impl IntoIterator<Item = String>) -> impl Iterator<Item = String> {
    secrets.into_iter().filter(|secret| !secret.is_empty())
}

/// A password is stored in base64 alone, or behind a user name as in `~/.docker/config.json`,
/// where its own encoding depends on the length of that name.
fn with_encodings(secrets: &[String]) -> Vec<Finder<'static>> {
    let finder = |text: &str| Finder::new(text).into_owned();
    let mut needles = Vec::new();
    for secret in secrets {
        needles.push(finder(secret));
        for before in 0..3 {
            let encoded =
                STANDARD.encode([vec![b' '; before], secret.clone().into_bytes()].concat());
            // The first and last characters also hold bits of the neighbours.
            let whole = encoded.trim_end_matches('=');
            let inner = &whole[(before * 4).div_ceil(3)..whole.len() - 1];
            if inner.len() >= 8 {
                needles.push(finder(inner));
            }
        }
    }
    needles
}

fn sample_until(stop: &AtomicBool, needles: &[Finder<'_>], seen: &Mutex<BTreeSet<String>>) {
    let mut processes = Processes::default();
    while !stop.load(Ordering::SeqCst) {
        for process in processes.news() {
            if let Some(sighting) = sighting(&process, needles) {
                seen.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(sighting);
            }
        }
        thread::sleep(PERIOD);
    }
}

/// What the kernel told a program at its start.
#[derive(PartialEq)]
enum Start {
    /// Among it, where it has put the arguments and the environment: elsewhere at each exec.
    Told(Vec<u8>),
    /// It cannot be read.
    Secret,
    /// It is no program but a thread of the kernel, or has ended.
    Nothing,
}

impl Start {
    fn of(process: &Path) -> Self {
        match fs::read(process.join("auxv")) {
            Ok(told) if !told.is_empty() => Self::Told(told),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Self::Secret,
            Ok(_) | Err(_) => Self::Nothing,
        }
    }
}

/// A process, and whether it was looked at.
struct Known {
    start: Start,
    is_seen: bool,
}

/// What is known of the machine's processes. All of what each of them says, read and searched hundreds of times a second by
/// several tests at a time, would leave little of the machine to what they test.
#[derive(Default)]
struct Processes {
    known: BTreeMap<u32, Known>,
    /// The number of the last one that was made.
    last: Option<String>,
}

impl Processes {
    /// Those whose command line and environment are not known yet.
    fn news(&mut self) -> Vec<PathBuf> {
        self.list();
        let mut news = Vec::new();
        for (process, known) in &mut self.known {
            if known.is_seen && known.start == Start::Nothing {
                continue;
            }
            let folder = PathBuf::from(format!("/proc/{process}"));
            let start = Start::of(&folder);
            if known.is_seen && start == known.start && start != Start::Secret {
                continue;
            }
            if start != Start::Nothing {
                news.push(folder);
            }
            *known = Known {
                start,
                is_seen: true,
            };
        }
        news
    }

    /// Lists them, unless none was made since the last time.
    fn list(&mut self) {
        let last = fs::read_to_string("/proc/loadavg").ok();
        let last = last.and_then(|text| Some(text.split_whitespace().last()?.to_owned()));
        if last.is_some() && last == self.last {
            return;
        }
        // One that is made from now on is seen the next time.
        self.last = last;
        let entries = fs::read_dir("/proc").expect("read /proc").flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let listed: BTreeSet<u32> = numbers.collect();
        self.known.retain(|process, _| listed.contains(process));
        for process in listed {
            let new = || Known {
                start: Start::Nothing,
                is_seen: false,
            };
            self.known.entry(process).or_insert_with(new);
        }
    }
}

/// The deploy tool itself is given its token in its environment; nothing that it starts may
/// inherit it. A process is named by its program, before and after it is looked at: between fork
/// and exec a child still is its parent.
fn sighting(process: &Path, needles: &[Finder<'_>]) -> Option<String> {
    let program = program_of(process)?;
    let holds = |file: &str| {
        let text = fs::read(process.join(file)).unwrap_or_default();
        holds_any(&text, needles)
    };
    let sighting = if holds("cmdline") {
        format!("the command line of {program}")
    } else if program != "xtask" && holds("environ") {
        environment_of(&program)
    } else {
        return None;
    };
    let unchanged = program_of(process).as_ref() == Some(&program);
    unchanged.then_some(sighting)
}

fn environment_of(program: &str) -> String {
    format!("the environment of {program}")
}

fn program_of(process: &Path) -> Option<String> {
    let file = fs::read_link(process.join("exe")).ok()?;
    // A program that was built anew while it ran is marked as deleted.
    let name = file.file_name()?.to_string_lossy().into_owned();
    Some(name.trim_end_matches(" (deleted)").to_owned())
}

fn line_with(text: &str, needles: &[Finder<'_>]) -> Option<String> {
    text.lines()
        .find(|line| holds_any(line.as_bytes(), needles))
        .map(str::to_owned)
}

fn search(path: &Path, needles: &[Finder<'_>], allowed: &[PathBuf], found: &mut Vec<String>) {
    let Ok(facts) = fs::symlink_metadata(path) else {
        return;
    };
    if facts.is_dir() {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            search(&entry.path(), needles, allowed, found);
        }
    } else if facts.is_file()
        && !allowed.iter().any(|file| file == path)
        && file_holds(path, needles)
    {
        found.push(format!("the file {}", path.display()));
    }
}

/// Reads in pieces that overlap by the longest needle, so that none hides on a border.
fn file_holds(path: &Path, needles: &[Finder<'_>]) -> bool {
    let Ok(mut file) = File::open(path) else {
        return false;
    };
    let lengths = needles.iter().map(|needle| needle.needle().len());
    let overlap = lengths.max().unwrap_or(0);
    let mut window = Vec::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut piece).unwrap_or(0);
        if count == 0 {
            return false;
        }
        window.extend_from_slice(&piece[..count]);
        if holds_any(&window, needles) {
            return true;
        }
        let keep = window.len().saturating_sub(overlap);
        window.drain(..keep);
    }
}

fn holds_any(text: &[u8], needles: &[Finder<'_>]) -> bool {
    needles.iter().any(|needle| needle.find(text).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::eventually;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    fn secret() -> String {
        // Unknown to every other process of this machine.
        crate::management::token_that_ends(std::time::SystemTime::now())
    }

    /// Runs a program with the secret until the watch has had the time to see it.
    fn holding(command: &mut Command, watch: &Watch) {
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        eventually(Duration::from_secs(10), || {
            !watch.seen.lock().unwrap().is_empty()
        });
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    #[should_panic(expected = "the command line of ")]
    fn a_command_line_is_seen() {
        let secret = secret();
        let watch = Watch::over([secret.clone()]);
        holding(
            Command::new("sh").args(["-c", "read x; exit 0", &secret]),
            &watch,
        );
        watch.assert_none([], &[]);
    }

    #[test]
    #[should_panic(expected = "the environment of cat")]
    fn an_environment_is_seen() {
        let secret = secret();
        let watch = Watch::over([secret.clone()]);
        holding(Command::new("cat").env("TOKEN", &secret), &watch);
        watch.assert_none([], &[]);
    }

    #[test]
    fn a_process_is_looked_at_once_more_when_it_becomes_another_program() {
        let (secret, mut processes) = (secret(), Processes::default());
        let needles = with_encodings(std::slice::from_ref(&secret));
        let mut shell = Command::new("sh");
        let shell = shell.args(["-c", "read secret; TOKEN=$secret exec cat"]);
        let mut shell = shell.stdin(Stdio::piped()).spawn().unwrap();
        let folder = PathBuf::from(format!("/proc/{}", shell.id()));
        let own = program_of(Path::new("/proc/self"));
        let wait = |what: &mut dyn FnMut() -> bool| {
            assert!(eventually(Duration::from_secs(10), what));
        };
        wait(&mut || program_of(&folder) != own);
        wait(&mut || !processes.news().contains(&folder));
        let mut input = shell.stdin.take().unwrap();
        writeln!(input, "{secret}").unwrap();
        wait(&mut || {
            let is_new = processes.news().contains(&folder);
            is_new && sighting(&folder, &needles) == Some("the environment of cat".to_owned())
        });
        drop(input);
        shell.wait().unwrap();
    }

    #[test]
    fn a_program_that_is_given_it_may_not_show_it() {
        let secret = secret();
        let check = |command: &mut Command| {
            let watch = Watch::over([secret.clone()]).given_to("cat");
            holding(command, &watch);
            thread::spawn(move || watch.assert_none([], &[])).join()
        };
        assert!(check(Command::new("cat").env("TOKEN", &secret)).is_ok());
        assert!(check(Command::new("cat").args(["-", &secret])).is_err());
    }

    #[test]
    fn outputs_and_files_are_searched_also_for_encoded_forms() {
        let (folder, secret) = (tempfile::tempdir().unwrap(), secret());
        let file = folder.path().join("deep/config.json");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let check = |output: &str, allowed: &str| {
            let watch = Watch::over([secret.clone()]).allowing(folder.path().join(allowed));
            let (output, folder) = (output.to_owned(), folder.path().to_owned());
            thread::spawn(move || watch.assert_none([output.as_str()], &[&folder])).join()
        };
        assert!(check("all is well", "-").is_ok());
        assert!(check(&format!("token {secret}"), "-").is_err());
        for user in ["x", "ab", "abc", "robot"] {
            let encoded = STANDARD.encode(format!("{user}:{secret}"));
            fs::write(&file, format!(r#"{{"auth":"{encoded}"}}"#)).unwrap();
            assert!(check("", "-").is_err(), "{user}");
        }
        assert!(check("", "deep/config.json").is_ok());
        fs::write(
            &file,
            [vec![b'.'; (1 << 20) - 5], secret.clone().into_bytes()].concat(),
        )
        .unwrap();
        assert!(check("", "-").is_err());
    }
}
