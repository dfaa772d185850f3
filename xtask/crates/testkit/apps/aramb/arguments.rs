//! Which commands there are, with which flags, and what is said of them.

use std::collections::BTreeMap;

use crate::state::Generation;

pub struct Flag {
    pub long: &'static str,
    short: Option<&'static str>,
    /// What follows it; nothing for a switch.
    value: Option<&'static str>,
    about: &'static str,
}

pub struct Command {
    /// `deploy status`
    pub words: &'static str,
    /// What may stand beside the flags.
    place: Option<&'static str>,
    about: &'static str,
    flags: Vec<Flag>,
}

/// A command line that could be read.
pub struct Call {
    pub words: &'static str,
    pub flags: BTreeMap<&'static str, String>,
    pub place: Option<String>,
}

pub enum Parsed {
    Call(Call),
    /// `--help`, of a command or of all.
    Help {
        of: &'static str,
        text: String,
    },
    Version,
    /// With what is said on standard error.
    Refused(String),
}

fn takes(long: &'static str, value: &'static str, about: &'static str) -> Flag {
    Flag {
        long,
        short: None,
        value: Some(value),
        about,
    }
}

fn switch(long: &'static str, about: &'static str) -> Flag {
    Flag {
        long,
        short: None,
        value: None,
        about,
    }
}

fn short(short: &'static str, flag: Flag) -> Flag {
    Flag {
        short: Some(short),
        ..flag
    }
}

fn output() -> Flag {
    short("-o", takes("--output", "FORMAT", "text or json"))
}

/// The flag with which a deployment goes by `aramb.toml`.
pub fn from_toml(generation: Generation) -> &'static str {
    match generation {
        Generation::Old => "--deploy-from-toml",
        Generation::New => "--from-toml",
    }
}

pub fn commands(generation: Generation) -> Vec<Command> {
    let by_file = "deploy the services of aramb.toml";
    vec![
        Command {
            words: "applications get",
            place: None,
            about: "show an application",
            flags: vec![
                short("-i", takes("--id", "ID", "which application")),
                output(),
            ],
        },
        Command {
            words: "services list",
            place: None,
            about: "list the services of an application",
            flags: vec![
                short("-a", takes("--application", "ID", "of which application")),
                takes("--filter", "KEY=VALUES", "only some of them"),
                output(),
            ],
        },
        Command {
            words: "build",
            place: Some("PATH"),
            about: "build an image",
            flags: vec![
                short("-n", takes("--name", "NAME", "what the image is called")),
                short("-t", takes("--tag", "TAG", "its tag")),
                switch("--push", "push it to the registry as well"),
                takes("--service", "SLUG", "for which service it is built"),
                takes("--static-outdir", "FOLDER", "where a static site is built"),
            ],
        },
        Command {
            words: "deploy status",
            place: None,
            about: "show how services are",
            flags: vec![
                short("-s", takes("--service", "NAME", "of which service")),
                short("-l", switch("--loop", "until it is well or has failed")),
                short("-i", takes("--interval", "SECONDS", "between two looks")),
                output(),
            ],
        },
        Command {
            words: "deploy history",
            place: None,
            about: "list earlier deployments",
            flags: vec![
                short("-l", takes("--limit", "NUMBER", "how many at most")),
                output(),
            ],
        },
        Command {
            words: "deploy",
            place: None,
            about: "deploy services",
            flags: vec![
                switch(from_toml(generation), by_file),
                takes(
                    "--services",
                    "NAMES",
                    "only these, with commas between them",
                ),
                short("-y", switch("--yes", "do not ask")),
            ],
        },
    ]
}

pub fn parse(generation: Generation, arguments: &[String]) -> Parsed {
    let commands = commands(generation);
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => return refused("aramb", "no command is given"),
        ["--version" | "-v"] => return Parsed::Version,
        ["--help" | "-h" | "help", ..] => return overall_help(&commands, ""),
        _ => {}
    }
    let found = commands.iter().find_map(|command| {
        let name: Vec<_> = command.words.split(' ').collect();
        let rest = words.strip_prefix(&name[..])?;
        Some((command, rest))
    });
    if let Some((command, rest)) = found {
        return command.read(rest);
    }
    let group = format!("{} ", words[0]);
    let is_group = commands.iter().any(|c| c.words.starts_with(&group));
    match words[1..] {
        ["--help" | "-h", ..] if is_group => overall_help(&commands, &group),
        _ => refused("aramb", &format!("unknown command {:?}", words.join(" "))),
    }
}

impl Command {
    fn read(&self, arguments: &[&str]) -> Parsed {
        let mut call = Call {
            words: self.words,
            flags: BTreeMap::new(),
            place: None,
        };
        let mut arguments = arguments.iter();
        while let Some(&argument) = arguments.next() {
            if ["--help", "-h"].contains(&argument) {
                return Parsed::Help {
                    of: self.words,
                    text: self.help(),
                };
            }
            if !argument.starts_with('-') {
                if self.place.is_none() || call.place.is_some() {
                    return refused(self.words, &format!("unexpected argument {argument:?}"));
                }
                call.place = Some(argument.to_owned());
                continue;
            }
            let (name, joined) = match argument.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (argument, None),
            };
            let known = self.flags.iter();
            let mut known = known.filter(|flag| flag.long == name || flag.short == Some(name));
            let Some(flag) = known.next() else {
                return refused(self.words, &format!("unknown flag: {name}"));
            };
            let value = match flag.value {
                None => joined.or(Some("true")),
                Some(_) => joined.or_else(|| arguments.next().copied()),
            };
            let Some(value) = value else {
                return refused(self.words, &format!("flag needs an argument: {name}"));
            };
            if call.flags.insert(flag.long, value.to_owned()).is_some() {
                return refused(self.words, &format!("given twice: {name}"));
            }
        }
        Parsed::Call(call)
    }

    fn help(&self) -> String {
        let place = self
            .place
            .map_or_else(String::new, |place| format!(" [{place}]"));
        let mut text = format!(
            "{}\n\nUsage:\n  aramb {}{place} [flags]\n\nFlags:\n",
            self.about, self.words
        );
        for flag in &self.flags {
            let short = flag
                .short
                .map_or_else(|| "    ".to_owned(), |s| format!("{s}, "));
            let value = flag.value.map_or_else(String::new, |v| format!(" {v}"));
            let names = format!("{short}{}{value}", flag.long);
            text.push_str(&format!("  {names:<28}{}\n", flag.about));
        }
        text.push_str("  -h, --help                  this\n");
        text
    }
}

fn overall_help(commands: &[Command], group: &str) -> Parsed {
    let mut text = format!("Usage:\n  aramb {group}[command]\n\nCommands:\n");
    for command in commands.iter().filter(|c| c.words.starts_with(group)) {
        text.push_str(&format!("  {:<18}{}\n", command.words, command.about));
    }
    text.push_str("\nFlags:\n  -h, --help      this\n  -v, --version   which version\n");
    Parsed::Help { of: "", text }
}

fn refused(words: &str, reason: &str) -> Parsed {
    let words = words.trim_start_matches("aramb");
    let usage = if words.is_empty() {
        "aramb [command]".to_owned()
    } else {
        format!("aramb {words} [flags]")
    };
    Parsed::Refused(format!("Error: {reason}\nUsage:\n  {usage}\n"))
}
