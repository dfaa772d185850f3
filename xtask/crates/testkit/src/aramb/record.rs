//! What the double has been called for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// One call. It has not ended when it was killed or still runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// `deploy status`, `deploy --help`, `--version`; `refused` where it could not be read.
    pub command: String,
    /// All words behind the name of the program.
    pub arguments: Vec<String>,
    /// Where it ran.
    pub folder: PathBuf,
    /// The variable of that name.
    pub docker_repository: Option<String>,
    /// The names of the variables that it was given.
    pub variables: Vec<String>,
    /// Its process.
    pub pid: u32,
    /// In microseconds since 1970.
    pub begun: u64,
    /// In microseconds since 1970.
    pub ended: Option<u64>,
    /// How it has ended.
    pub code: Option<i32>,
    /// The `aramb.toml` that it was given, when it deploys.
    pub given: Option<Vec<u8>>,
    /// Processes that it has left.
    pub children: Vec<u32>,
}

impl Call {
    /// The value of a flag, in either form.
    #[must_use]
    pub fn flag(&self, name: &str) -> Option<&str> {
        let mut words = self.arguments.iter();
        while let Some(word) = words.next() {
            if word == name {
                return words.next().map(String::as_str);
            }
            if let Some((flag, value)) = word.split_once('=')
                && flag == name
            {
                return Some(value);
            }
        }
        None
    }

    /// Whether this is one of its words.
    #[must_use]
    pub fn has(&self, word: &str) -> bool {
        self.arguments.iter().any(|argument| argument == word)
    }

    /// Whether it was given a variable of this name.
    #[must_use]
    pub fn was_given(&self, variable: &str) -> bool {
        self.variables.iter().any(|name| name == variable)
    }

    /// Whether both ran at one time.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let end = |call: &Self| call.ended.unwrap_or(u64::MAX);
        self.begun < end(other) && other.begun < end(self)
    }
}

/// Reads the record of a double. Panics when a token was seen among the arguments.
pub(super) fn read(folder: &Path) -> Vec<Call> {
    let text = fs::read_to_string(folder.join("record")).unwrap_or_default();
    let mut calls = BTreeMap::new();
    // The last line may still be on its way.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let event: Value = serde_json::from_str(line).expect("a line of the record");
        let number = event["call"].as_u64().expect("the number of a call");
        if event["event"] == "begin" {
            let given = fs::read(folder.join(format!("kept/given/{number}"))).ok();
            calls.insert(number, begun(&event, given));
            continue;
        }
        // A call that was forgotten while it ran.
        let Some(call): Option<&mut Call> = calls.get_mut(&number) else {
            continue;
        };
        if event["event"] == "end" {
            call.ended = event["at"].as_u64();
            let code = event["code"].as_i64().expect("an exit code");
            call.code = i32::try_from(code).ok();
        } else {
            call.children.push(id(&event["pid"]));
        }
    }
    calls.into_values().collect()
}

fn begun(event: &Value, given: Option<Vec<u8>>) -> Call {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let texts = |value: &Value| {
        let list = value.as_array().into_iter().flatten();
        list.filter_map(text).collect()
    };
    let call = Call {
        command: text(&event["command"]).expect("a command"),
        arguments: texts(&event["arguments"]),
        folder: text(&event["folder"]).expect("a folder").into(),
        docker_repository: text(&event["docker_repository"]),
        variables: texts(&event["variables"]),
        pid: id(&event["pid"]),
        begun: event["at"].as_u64().expect("a time"),
        ended: None,
        code: None,
        given,
        children: Vec::new(),
    };
    let in_the_open = event["token_in_the_open"] == Value::Bool(true);
    assert!(!in_the_open, "the token is among the arguments: {call:?}");
    call
}

fn id(value: &Value) -> u32 {
    let id = value.as_u64().expect("a process id");
    u32::try_from(id).expect("process ids are small")
}
