//! Secrets that somebody types on a terminal: not shown, and Ctrl-C ends the wait.

use nix::sys::signal::Signal;
use testkit::AtTerminal;
use testkit::management::Variant;
use testkit::workspace::{Layout, api_variables};

use crate::world::{World, XTASK};

const LOGIN: (&[&str], &str) = (&["login", "-e", "production"], "press Enter: ");
const SET: (&[&str], &str) = (
    &["secrets", "set", "API_KEY", "-e", "production"],
    "Ctrl-D:",
);

fn asked(world: &World, (arguments, question): (&[&str], &str)) -> AtTerminal {
    let url = world.api.url();
    let variables = api_variables(&url, world.api.token());
    let mut command = world.workspace.command(XTASK);
    command.args(arguments).envs(variables);
    let asked = AtTerminal::asked(&command, question);
    assert!(!asked.echoes(), "{arguments:?}");
    asked
}

#[test]
fn what_is_typed_is_taken_and_not_shown() {
    let world = World::open(Variant::Current, &Layout::default());
    let mut login = asked(&world, LOGIN);
    login.types(&format!("{}\n", world.api.token()));
    let (status, echoes, said) = login.ended();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(echoes, "the terminal stays silent");
    assert!(said.contains("logged in at"), "{said}");
    assert!(!said.contains(world.api.token()), "{said}");
    let kept = world.workspace.read(".systemprompt/credentials.json");
    assert!(kept.contains(world.api.token()));

    let mut set = asked(&world, SET);
    set.types("first line\nsecond line\n\u{4}");
    let (status, echoes, said) = set.ended();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(echoes, "the terminal stays silent");
    assert!(
        !said.contains("first") && !said.contains("second"),
        "{said}"
    );
    let secrets = world.api.secrets();
    assert_eq!(
        secrets[0]["secrets"]["API_KEY"], "first line\nsecond line",
        "{secrets:?}"
    );
}

#[test]
fn whoever_interrupts_has_the_terminal_back_as_it_was() {
    let world = World::open(Variant::Current, &Layout::default());
    for what in [LOGIN, SET] {
        let mut by_key = asked(&world, what);
        by_key.types("half a sec\u{3}");
        is_interrupted(by_key);
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            let mut by_signal = asked(&world, what);
            by_signal.types("half a sec");
            by_signal.signal(signal);
            is_interrupted(by_signal);
        }
    }
    assert!(world.api.secrets().is_empty());
    assert!(!world.workspace.exists(".systemprompt/credentials.json"));
}

#[test]
fn what_a_terminal_has_mutilated_is_no_secret() {
    let world = World::open(Variant::Current, &Layout::default());
    let long = format!("{}\n", "x".repeat(5000));
    for (typed, told) in [
        (long.as_str(), "4,095 bytes"),
        ("half\u{1c} a\u{1a} sec\n", "Ctrl-C leaves"),
    ] {
        for (what, end) in [(LOGIN, ""), (SET, "\u{4}")] {
            let mut at_terminal = asked(&world, what);
            at_terminal.types(&format!("{typed}{end}"));
            let (status, echoes, said) = at_terminal.ended();
            assert!(status.code().is_some_and(|code| code != 0), "{said}");
            assert!(echoes, "the terminal stays silent: {said}");
            assert!(said.contains(told) && said.contains("< FILE"), "{said}");
            assert!(!said.contains("xxx") && !said.contains("half"), "{said}");
        }
    }
    assert!(world.api.secrets().is_empty());
}

fn is_interrupted(at_terminal: AtTerminal) {
    let (status, echoes, said) = at_terminal.ended();
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(echoes, "the terminal stays silent: {said}");
    assert!(said.contains("nothing has changed"), "{said}");
    assert!(!said.contains("half a sec"), "{said}");
}
