//! The folder that holds what a test has asked for and what has happened: `NAME/bin/aramb` is this
//! program, `NAME` is its state. No variable is needed that somebody might take away.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    Old,
    New,
}

pub struct State {
    pub folder: PathBuf,
}

impl State {
    pub fn of_this_program() -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let folder = program.parent().and_then(Path::parent);
        Self {
            folder: folder.expect("this program is in a folder").to_owned(),
        }
    }

    /// Whether the test is over: a state is removed with its test.
    pub fn is_gone(&self) -> bool {
        !self.folder.join("settings").exists()
    }

    pub fn generation(&self) -> Generation {
        match self.setting("generation").as_deref() {
            Some("new") => Generation::New,
            _ => Generation::Old,
        }
    }

    pub fn has(&self, setting: &str) -> bool {
        self.folder.join("settings").join(setting).exists()
    }

    pub fn setting(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.folder.join("settings").join(name)).ok()
    }

    /// What was set for one service.
    pub fn setting_of(&self, service: &str, name: &str) -> Option<String> {
        self.setting(&format!("services/{}/{name}", hexadecimal(service)))
    }

    /// Nobody else looks at what is kept or changes it meanwhile.
    pub fn alone<T>(&self, act: impl FnOnce() -> T) -> T {
        let lock = File::create(self.folder.join("lock")).expect("the state can be locked");
        lock.lock().expect("the state can be locked");
        act()
    }

    /// A text that is kept from one call to the next.
    pub fn kept(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.folder.join("kept").join(name)).ok()
    }

    pub fn keep(&self, name: &str, text: impl AsRef<[u8]>) {
        let file = self.folder.join("kept").join(name);
        fs::create_dir_all(file.parent().expect("it is in a folder")).expect("a folder is made");
        fs::write(file, text).expect("the state can be written");
    }

    /// One more than the last time.
    pub fn count(&self, name: &str) -> usize {
        let before = self.kept(name).and_then(|text| text.parse().ok());
        let now = before.unwrap_or(0) + 1;
        self.keep(name, now.to_string());
        now
    }

    /// A line of the record, in one write.
    pub fn record(&self, fields: &[(&str, String)]) {
        let fields = fields
            .iter()
            .map(|(name, value)| format!("{}:{value}", quoted(name)));
        let line = format!("{{{}}}\n", fields.collect::<Vec<_>>().join(","));
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.folder.join("record"))
            .expect("the record can be opened");
        file.write_all(line.as_bytes())
            .expect("the record can be written");
    }
}

/// A name that may hold anything, as part of a path.
pub fn hexadecimal(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// A JSON string.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A JSON list of strings.
pub fn quoted_all<'a>(texts: impl IntoIterator<Item = &'a str>) -> String {
    let texts: Vec<_> = texts.into_iter().map(quoted).collect();
    format!("[{}]", texts.join(","))
}

/// Microseconds since 1970, comparable between processes.
pub fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| time.as_micros()).to_string()
}
