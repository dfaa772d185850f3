//! What goes wrong because a test wants it to: at which calls, and step by step what.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::commands::Answer;
use crate::state::{State, now};

/// Nothing here outlives a test by more than this, even when the test is killed.
const LONGEST: Duration = Duration::from_mins(10);
/// A gate that nobody opens.
const GATE: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(5);

/// How it goes on behind a mishap.
pub enum Outcome {
    Goes(Answer),
    Ends(i32),
}

/// One mishap that happens to this call.
pub struct Mishap {
    steps: Vec<PathBuf>,
    /// Behind the work and before its answer, not before both.
    pub is_late: bool,
}

/// The mishaps of this call. Each counts each call that it is for, once.
pub fn of_this_call(state: &State, command: &str, arguments: &[String]) -> Vec<Mishap> {
    let mut chosen = Vec::new();
    for folder in sorted(&state.folder.join("mishaps")) {
        let text = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let is_for = text("command").is_some_and(|wanted| wanted == "*" || wanted == command);
        let argument = text("argument");
        let names_it = argument.is_none_or(|wanted| arguments.contains(&wanted));
        if !is_for || !names_it {
            continue;
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let nth = state.count(&format!("mishaps/{name}"));
        let number = |name: &str, default: usize| {
            let text = text(name).and_then(|text| text.parse().ok());
            text.unwrap_or(default)
        };
        if (number("first", 1)..=number("last", usize::MAX)).contains(&nth) {
            chosen.push(Mishap {
                steps: sorted(&folder.join("steps")),
                is_late: folder.join("late").exists(),
            });
        }
    }
    chosen
}

impl Mishap {
    pub fn happen(&self, state: &State, call: usize, mut answer: Answer) -> Outcome {
        for step in &self.steps {
            let name = step.file_name().unwrap_or_default().to_string_lossy();
            let (_, kind) = name.split_once('-').unwrap_or_default();
            let bytes = fs::read(step).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            match kind {
                "stdout" => say(&mut std::io::stdout(), &bytes),
                "stderr" => say(&mut std::io::stderr(), &bytes),
                "token" => tell_the_token(),
                "huge" => say_much(text.parse().unwrap_or(0)),
                "child" => leave_a_child(state, call),
                "write" => append_to_the_file(&bytes),
                "gate" => wait_for(Path::new(&*text), state),
                "truncate" => answer.stdout.truncate(answer.stdout.len() / 2),
                "exit" => return Outcome::Ends(text.parse().unwrap_or(1)),
                "signal" => die_by(&text, state),
                "hang" => hang(state),
                "stubborn" => hang_stubbornly(state),
                other => panic!("an unknown mishap: {other}"),
            }
        }
        Outcome::Goes(answer)
    }
}

/// Whoever reads may have gone.
pub fn say(to: &mut impl std::io::Write, bytes: &[u8]) {
    let _ = to.write_all(bytes).and_then(|()| to.flush());
}

fn tell_the_token() {
    let token = std::env::var("ARAMB_API_TOKEN").unwrap_or_default();
    say(
        &mut std::io::stdout(),
        format!("using token {token}\n").as_bytes(),
    );
    let words = format!("Error: Authorization: Bearer {token} was not accepted\n");
    say(&mut std::io::stderr(), words.as_bytes());
}

fn say_much(bytes: usize) {
    let line = [&[b'x'; 119][..], b"\n"].concat();
    for _ in 0..bytes / (2 * line.len()) {
        say(&mut std::io::stdout(), &line);
        say(&mut std::io::stderr(), &line);
    }
}

/// It holds both outputs open, as a daemon does that was started carelessly.
fn leave_a_child(state: &State, call: usize) {
    let child = shell(WHILE_THERE, state)
        .stdin(Stdio::null())
        .spawn()
        .expect("a child can be started");
    let pid = child.id().to_string();
    let call = call.to_string();
    state.alone(|| state.record(&[("event", "\"child\"".into()), ("call", call), ("pid", pid)]));
}

/// Runs as long as the state is there, and no longer than ten minutes.
const WHILE_THERE: &str =
    "n=0; while [ -e \"$1\" ] && [ $n -lt 6000 ]; do sleep 0.1; n=$((n + 1)); done";

/// Does not know the token: whoever looks for it in the environment of processes would find it.
fn shell(script: &str, state: &State) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", script, "sh"])
        .arg(state.folder.join("settings"))
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin");
    shell
}

fn append_to_the_file(bytes: &[u8]) {
    let file = fs::OpenOptions::new().append(true).open("aramb.toml");
    let written = file.and_then(|mut file| file.write_all(bytes));
    written.expect("aramb.toml can be written");
}

fn wait_for(gate: &Path, state: &State) {
    let begun = Instant::now();
    while !gate.exists() {
        if begun.elapsed() > GATE || state.is_gone() {
            say(&mut std::io::stderr(), b"nobody has opened the gate\n");
            std::process::exit(98);
        }
        thread::sleep(POLL);
    }
}

fn die_by(signal: &str, state: &State) {
    let kill = format!("kill -{signal} {}", std::process::id());
    // The first SIGSEGV goes to a handler of the standard library, which lets go of the second.
    for _ in 0..3 {
        let _ = shell(&kill, state).status();
        thread::sleep(POLL);
    }
    panic!("SIG{signal} does not end this program");
}

fn hang(state: &State) {
    let begun = Instant::now();
    while begun.elapsed() < LONGEST && !state.is_gone() {
        thread::sleep(POLL);
    }
    std::process::exit(99);
}

/// What is ignored stays so in the program that takes this one's place.
fn hang_stubbornly(state: &State) {
    let script = format!("trap '' INT TERM HUP; {WHILE_THERE}");
    let error = shell(&script, state).exec();
    panic!("{}: no shell: {error}", now());
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
