//! A double of the `aramb` command, for tests alone. What it is like is said in `testkit::aramb`.

mod arguments;
mod commands;
mod mishaps;
mod services;
mod state;
mod toml;

use std::ffi::OsString;

use arguments::Parsed;
use commands::Answer;
use mishaps::{Mishap, Outcome, say};
use state::{Generation, State, now, quoted, quoted_all};

/// The token was where every user of the machine can read it.
const TOKEN_IN_THE_OPEN: i32 = 97;

fn main() {
    let state = State::of_this_program();
    let arguments = std::env::args_os().skip(1).map(in_words);
    let arguments: Vec<_> = arguments.collect();
    let parsed = arguments::parse(state.generation(), &arguments);
    let command = name_of(&parsed);
    let call = begin(&state, &command, &arguments);
    if holds_the_token(&arguments) {
        say(
            &mut std::io::stderr(),
            b"the token is among the arguments\n",
        );
        end(&state, call.number, TOKEN_IN_THE_OPEN);
    }
    let nothing = Answer::default();
    call.meet(&state, false, nothing);
    let answer = match &parsed {
        Parsed::Call(parsed) => commands::answer(&state, parsed),
        Parsed::Help { text, .. } => Answer::says(text),
        Parsed::Version => Answer::says(version(state.generation())),
        Parsed::Refused(text) => Answer::usage(text),
    };
    let answer = call.meet(&state, true, answer);
    say(&mut std::io::stderr(), answer.stderr.as_bytes());
    say(&mut std::io::stdout(), answer.stdout.as_bytes());
    end(&state, call.number, answer.code);
}

/// This call, as it stands in the record.
struct Call {
    number: usize,
    mishaps: Vec<Mishap>,
}

impl Call {
    /// Has happen to it what is to happen before its work, or behind it.
    fn meet(&self, state: &State, is_late: bool, mut answer: Answer) -> Answer {
        for mishap in self.mishaps.iter().filter(|m| m.is_late == is_late) {
            match mishap.happen(state, self.number, answer) {
                Outcome::Goes(on) => answer = on,
                Outcome::Ends(code) => end(state, self.number, code),
            }
        }
        answer
    }
}

/// How tests name what was called.
fn name_of(parsed: &Parsed) -> String {
    match parsed {
        Parsed::Call(call) => call.words.to_owned(),
        Parsed::Help { of, .. } => format!("{of} --help").trim().to_owned(),
        Parsed::Version => "--version".to_owned(),
        Parsed::Refused(_) => "refused".to_owned(),
    }
}

fn version(generation: Generation) -> &'static str {
    match generation {
        Generation::Old => "aramb version 0.4.2\n",
        Generation::New => "aramb version 1.1.0\n",
    }
}

/// Writes down what there is to know of a call before anything else happens.
fn begin(state: &State, command: &str, arguments: &[String]) -> Call {
    let repository = std::env::var("DOCKER_REPOSITORY");
    let repository = repository.map_or_else(|_| "null".to_owned(), |name| quoted(&name));
    let names: Vec<_> = std::env::vars_os()
        .map(|(name, _)| in_words(name))
        .collect();
    let folder = std::env::current_dir().unwrap_or_default();
    let shown: Vec<_> = arguments.iter().map(|text| without_token(text)).collect();
    state.alone(|| {
        let number = state.count("calls");
        let fields = [
            ("event", quoted("begin")),
            ("call", number.to_string()),
            ("command", quoted(command)),
            ("pid", std::process::id().to_string()),
            ("at", now()),
            ("arguments", quoted_all(shown.iter().map(String::as_str))),
            ("folder", quoted(&folder.to_string_lossy())),
            ("docker_repository", repository),
            ("variables", quoted_all(names.iter().map(String::as_str))),
            ("token_in_the_open", holds_the_token(arguments).to_string()),
        ];
        if command == "deploy" {
            if let Ok(bytes) = std::fs::read("aramb.toml") {
                state.keep(&format!("given/{number}"), &bytes);
            }
        }
        // Whoever sees the call may take back what is to happen to the next ones.
        let mishaps = mishaps::of_this_call(state, command, arguments);
        state.record(&fields);
        Call { number, mishaps }
    })
}

fn end(state: &State, call: usize, code: i32) -> ! {
    let fields = [
        ("event", quoted("end")),
        ("call", call.to_string()),
        ("at", now()),
        ("code", code.to_string()),
    ];
    state.alone(|| state.record(&fields));
    std::process::exit(code)
}

fn holds_the_token(arguments: &[String]) -> bool {
    let token = token();
    !token.is_empty() && arguments.iter().any(|text| text.contains(&token))
}

/// The record is read by people.
fn without_token(text: &str) -> String {
    match token() {
        token if token.is_empty() => text.to_owned(),
        token => text.replace(&token, "(token)"),
    }
}

fn token() -> String {
    std::env::var("ARAMB_API_TOKEN").unwrap_or_default()
}

fn in_words(text: OsString) -> String {
    text.to_string_lossy().into_owned()
}
