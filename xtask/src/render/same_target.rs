//! The commands that messages name, with the target that this one was called for: whoever copies one out of a message
//! must not reach another environment with it. What variables say stays said, and is not repeated.

use std::path::Path;
use std::sync::OnceLock;

use deploy_plan::failure::Failure;

use crate::cli::Target;

/// What was given on the command line, once for all messages of this process.
static TARGET: OnceLock<String> = OnceLock::new();
static PROJECT: OnceLock<String> = OnceLock::new();

const PROGRAM: &str = "cargo xtask ";
/// Commands that are about a target.
const TARGETED: [&str; 11] = [
    "abort",
    "build-all",
    "deploy",
    "doctor",
    "history",
    "lock",
    "login",
    "logs",
    "promote",
    "rollback",
    "status",
];
/// Commands whose second word takes the options.
const OF_TWO_WORDS: [&str; 3] = ["config", "local", "secrets"];

/// Notes what the command line says about the target.
pub(crate) fn note(target: &Target) {
    let flags = [
        ("-e", &target.environment),
        ("--tenant", &target.tenant),
        ("--api-url", &target.api_url),
    ];
    let given: String = flags
        .iter()
        .filter_map(|(flag, value)| value.as_deref().map(|value| option(flag, value)))
        .collect();
    let _ = TARGET.set(given);
}

/// Notes where the command line says the project is.
pub(crate) fn note_project(folder: &Path) {
    let _ = PROJECT.set(option("--project-path", &folder.to_string_lossy()));
}

/// The failure with commands that reach what this one was about.
pub(crate) fn failure(failure: &Failure) -> Failure {
    Failure {
        details: text(&failure.details),
        resolution: text(&failure.resolution),
        ..failure.clone()
    }
}

/// The text with commands that reach what this one was about.
pub(crate) fn text(text: &str) -> String {
    let given = |noted: &'static OnceLock<String>| noted.get().map_or("", String::as_str);
    completed(text, given(&TARGET), given(&PROJECT))
}

fn completed(text: &str, target: &str, project: &str) -> String {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(PROGRAM) {
        let (before, command) = rest.split_at(at + PROGRAM.len());
        done.push_str(before);
        let first = word(command);
        let mut end = first.len();
        if OF_TWO_WORDS.contains(&first)
            && let Some(second) = command[end..].strip_prefix(' ')
        {
            end += " ".len() + word(second).len();
        }
        let (command, after) = command.split_at(end);
        done.push_str(command);
        let is_targeted = TARGETED.contains(&first)
            || first == "secrets" && command != first
            || command == "config show";
        // A message that names an environment means that one.
        if is_targeted && !after.starts_with(" -e ") {
            done.push_str(target);
        }
        if !first.is_empty() {
            done.push_str(project);
        }
        rest = after;
    }
    done.push_str(rest);
    done
}

/// The word at the beginning.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_lowercase() && c != '-');
    &text[..end.unwrap_or(text.len())]
}

/// An option with a space before it, as a shell takes it.
fn option(flag: &str, value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=,".contains(c);
    if !value.is_empty() && value.chars().all(is_plain) {
        format!(" {flag} {value}")
    } else {
        format!(" {flag} '{}'", value.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::{completed, option};

    #[test]
    fn commands_about_a_target_name_it() {
        for (text, completed_) in [
            ("see `cargo xtask status`", "see `cargo xtask status -e x`"),
            (
                "cargo xtask deploy --skip-push, or cargo xtask rollback",
                "cargo xtask deploy -e x --skip-push, or cargo xtask rollback -e x",
            ),
            (
                "`cargo xtask secrets set NAME < FILE`",
                "`cargo xtask secrets set -e x NAME < FILE`",
            ),
            (
                "cargo xtask config show --origin",
                "cargo xtask config show -e x --origin",
            ),
            ("cargo xtask local up", "cargo xtask local up"),
            ("cargo xtask login -e y", "cargo xtask login -e y"),
            ("cargo xtask help exit-codes", "cargo xtask help exit-codes"),
            ("every cargo xtask ", "every cargo xtask "),
        ] {
            assert_eq!(completed(text, " -e x", ""), completed_);
            assert_eq!(completed(text, "", ""), text);
        }
        assert_eq!(
            completed("`cargo xtask local up`", " -e x", " --project-path p"),
            "`cargo xtask local up --project-path p`"
        );
    }

    #[test]
    fn a_shell_reads_an_option_as_it_was() {
        assert_eq!(option("-e", "production"), " -e production");
        assert_eq!(
            option("--project-path", "it's here"),
            r" --project-path 'it'\''s here'"
        );
    }
}
