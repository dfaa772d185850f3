//! The reader against small Dockerfiles, and the expansion of words.

use super::*;

fn parse(text: &str) -> Dockerfile {
    Dockerfile::parse("Dockerfile", text).unwrap()
}

/// The instructions below the first FROM.
fn instructions(text: &str) -> Vec<Instruction> {
    let dockerfile = parse(&format!("FROM scratch\n{text}"));
    dockerfile.stages[0]
        .lines
        .iter()
        .map(|line| line.instruction.clone())
        .collect()
}

fn one(text: &str) -> Instruction {
    let mut all = instructions(text);
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0)
}

fn refused(text: &str) -> (usize, Problem) {
    let error = Dockerfile::parse("Dockerfile", text).unwrap_err();
    assert!(!error.resolution().is_empty());
    (error.line, error.problem)
}

fn copy(sources: &[&str], destination: &str) -> Copy {
    Copy {
        sources: sources.iter().map(ToString::to_string).collect(),
        destination: destination.into(),
        ..Copy::default()
    }
}

#[test]
fn instructions_may_be_in_any_case_and_know_their_lines() {
    let dockerfile =
        parse("# a comment\n\nfrom scratch\n\n  Copy a \\\n    b \\\n\n # inside\n  c/\n");
    let line = &dockerfile.stages[0].lines[0];
    assert_eq!(line.span, Span { first: 5, last: 9 });
    assert_eq!(line.name, "COPY");
    assert_eq!(line.instruction, Instruction::Copy(copy(&["a", "b"], "c/")));
}

#[test]
fn copy_takes_flags_lists_and_json() {
    let all = Copy {
        from: Some("build".into()),
        chown: Some("1000:1000".into()),
        chmod: Some("0755".into()),
        link: true,
        parents: true,
        exclude: vec!["*.md".into(), "x".into()],
        ..copy(&["a b", "c"], "/d/")
    };
    let flags =
        "--from=build --chown=1000:1000 --chmod=0755 --link --parents --exclude=*.md --exclude=x";
    assert_eq!(
        one(&format!("COPY {flags} [\"a b\", \"c\", \"/d/\"]")),
        Instruction::Copy(all)
    );
    assert_eq!(
        one("COPY --link=false a b"),
        Instruction::Copy(copy(&["a"], "b"))
    );
    assert_eq!(
        one("COPY a\t b   c"),
        Instruction::Copy(copy(&["a", "b"], "c"))
    );
}

#[test]
fn heredocs_belong_to_their_instruction() {
    let text = "COPY <<one <<-'two' plain /d/\n$A\none\n\t\tb\n\ttwo\nUSER 1\n";
    let all = instructions(text);
    let Instruction::Copy(copy) = &all[0] else {
        panic!("{all:?}")
    };
    assert_eq!(copy.sources, ["plain"]);
    let heredoc = |name: &str, content: &str, expand| Heredoc {
        name: name.into(),
        content: content.into(),
        expand,
    };
    assert_eq!(
        copy.heredocs,
        [heredoc("one", "$A\n", true), heredoc("two", "b\n", false)]
    );
    assert_eq!(all[1], Instruction::User("1".into()));
    assert_eq!(
        instructions("RUN <<EOF cat\nFROM x\nEOF\n"),
        [Instruction::Run]
    );
}

#[test]
fn env_and_label_have_two_forms() {
    let pairs = |pairs: &[(&str, &str)]| {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect::<Vec<_>>()
    };
    assert_eq!(
        one("ENV A=1 B=\"x y\" C=a\\ b"),
        Instruction::Env(pairs(&[("A", "1"), ("B", "\"x y\""), ("C", "a\\ b")]))
    );
    assert_eq!(
        one("ENV NAME  some value = here"),
        Instruction::Env(pairs(&[("NAME", "some value = here")]))
    );
    assert_eq!(
        one("LABEL a.b=c"),
        Instruction::Label(pairs(&[("a.b", "c")]))
    );
}

#[test]
fn commands_are_lists_or_shell_lines() {
    let exec = |words: &[&str]| CommandLine::Exec(words.iter().map(ToString::to_string).collect());
    assert_eq!(
        one(r#"CMD ["a", "b c"]"#),
        Instruction::Cmd(exec(&["a", "b c"]))
    );
    assert_eq!(
        one("CMD a  b"),
        Instruction::Cmd(CommandLine::Shell("a  b".into()))
    );
    assert_eq!(one("ENTRYPOINT []"), Instruction::Entrypoint(exec(&[])));
    // What is no JSON is a shell line, even when it looks like a list.
    assert_eq!(
        one("CMD ['a']"),
        Instruction::Cmd(CommandLine::Shell("['a']".into()))
    );
    assert_eq!(refused("FROM scratch\nCMD [1]").1, Problem::JsonNotStrings);
}

#[test]
fn healthchecks_have_durations() {
    let text = "HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=1.5h --retries=3 CMD x";
    let expected = Healthcheck::Command {
        command: CommandLine::Shell("x".into()),
        interval: Some(90_000_000_000),
        timeout: Some(500_000_000),
        start_period: Some(5_400_000_000_000),
        start_interval: None,
        retries: Some(3),
    };
    assert_eq!(one(text), Instruction::Healthcheck(expected));
    assert_eq!(
        one("HEALTHCHECK none"),
        Instruction::Healthcheck(Healthcheck::Disabled)
    );
    for wrong in [
        "NONE x",
        "CMD",
        "x",
        "--interval=3 CMD x",
        "--interval=1us CMD x",
        "--retries=-1 CMD x",
    ] {
        let text = format!("FROM scratch\nHEALTHCHECK {wrong}");
        assert!(Dockerfile::parse("Dockerfile", &text).is_err(), "{wrong}");
    }
}

#[test]
fn parser_directives_stand_first() {
    let dockerfile =
        parse("# escape=`\n# syntax=docker/dockerfile:1\nFROM scratch\nENV A=x `\n  B=y\n");
    assert_eq!(dockerfile.escape, '`');
    assert_eq!(dockerfile.stages[0].lines.len(), 1);
    assert_eq!(parse("# note\n# escape=`\nFROM scratch\n").escape, '\\');
    assert_eq!(refused("# escape=x\nFROM scratch").0, 1);
    assert_eq!(refused("# escape=`\n# ESCAPE = `\nFROM scratch").0, 2);
}

#[test]
fn a_doubled_escape_does_not_continue_the_line() {
    let all = instructions("ENV A=x\\\\\nUSER 1\n");
    assert_eq!(all.len(), 2);
    assert_eq!(instructions("ENV A=x\\   \n  B=y").len(), 1);
}

#[test]
fn stages_have_names() {
    let dockerfile = parse("ARG V=1\nFROM --platform=linux/amd64 a:$V AS Build\nFROM b\n");
    let from = &dockerfile.stages[0].from;
    assert_eq!(
        (from.image.as_str(), from.name.as_deref()),
        ("a:$V", Some("build"))
    );
    assert_eq!(from.platform.as_deref(), Some("linux/amd64"));
    assert_eq!(dockerfile.arguments.len(), 1);
    assert_eq!(dockerfile.stages[1].line.span.first, 3);
}

#[test]
fn faults_name_their_line_and_what_to_do() {
    let check = |text: &str, line: usize, problem: &str, resolution: &str| {
        let error = Dockerfile::parse("Dockerfile", text).unwrap_err();
        assert_eq!(error.line, line, "{text}");
        assert_eq!(error.problem.to_string(), problem, "{text}");
        assert_eq!(error.resolution(), resolution, "{text}");
    };
    check(
        "",
        1,
        "the file has no instruction",
        "add at least a FROM line",
    );
    check(
        "FROM scratch\nCOPPY a b",
        2,
        "unknown instruction COPPY",
        "did you mean COPY?",
    );
    check(
        "USER 1\nFROM a",
        1,
        "USER stands before the first FROM",
        "move the line below FROM; only ARG may stand above it",
    );
    check(
        "FROM a\n\nCOPY a",
        3,
        "COPY takes one or more sources and a destination",
        "give the line one or more sources and a destination",
    );
    check(
        "FROM a\nCOPY <<x /d\nno end",
        2,
        "the heredoc x has no closing line",
        "add a line that holds only `x`",
    );
    check(
        "FROM a\nENV A=1 B",
        2,
        "no `=` in `B`",
        "write `B=value`, or quote the value",
    );
    let flag = "correct or remove the flag, see docs.docker.com/reference/dockerfile";
    check(
        "FROM a\nCOPY --form=x a b",
        2,
        "COPY has no flag --form",
        flag,
    );
    check(
        "FROM a\nCOPY --from=x --from=y a b",
        2,
        "--from: it may stand only once",
        flag,
    );
    check(
        "FROM a\nUSER",
        2,
        "USER takes one argument",
        "give the line one argument",
    );
    check(
        "FROM a b c",
        1,
        "FROM takes image [AS name]",
        "give the line image [AS name]",
    );
}

#[test]
fn an_error_shows_the_line() {
    let error = Dockerfile::parse("deploy/Dockerfile", "FROM a\n  WHAT is this\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "deploy/Dockerfile:2: cannot read `WHAT is this`"
    );
}

fn variables(name: &str) -> Option<String> {
    let value = match name {
        "X" => "value",
        "EMPTY" => "",
        "PATH" => "/usr/local/bin:/bin",
        "FILE" => "a.tar.gz",
        "WORDS" => "one two",
        _ => return None,
    };
    Some(value.to_owned())
}

#[test]
fn variables_are_expanded_as_docker_does() {
    let check = |word: &str, expected: &str| {
        let found = Lexer::new('\\', &variables).word(word);
        assert_eq!(found.as_deref(), Ok(expected), "{word}");
    };
    check("$X", "value");
    check("${X}y", "valuey");
    check("a$Xb", "a");
    check("$UNSET.", ".");
    check("${X:-d}", "value");
    check("${UNSET:-d}", "d");
    check("${UNSET-d}", "d");
    check("${EMPTY:-d}", "d");
    check("${EMPTY-d}", "");
    check("${X:+a}", "a");
    check("${EMPTY:+a}", "");
    check("${EMPTY+a}", "a");
    check("${UNSET:-$X}", "value");
    check("${UNSET:-${EMPTY:-deep}}", "deep");
    check("${X:?no}", "value");
    check("\\$X", "$X");
    check("'$X'", "$X");
    check("\"$X y\"", "value y");
    check("\"a\\\"b\\c\"", "a\"b\\c");
    check("a\\ b", "a b");
    check("$", "$");
    check("a$/b", "a$/b");
    check("${PATH##*/}", "bin");
    check("${PATH#*/}", "usr/local/bin:/bin");
    check("${FILE%.*}", "a.tar");
    check("${FILE%%.*}", "a");
    check("${FILE/a/b}", "b.tar.gz");
    check("${FILE//a/b}", "b.tbr.gz");
    check("${FILE/./\\/}", "a\\/tar.gz");
    check("$1x", "x");
}

#[test]
fn words_are_split_after_expansion_outside_of_quotes() {
    let check = |line: &str, expected: &[&str]| {
        assert_eq!(
            Lexer::new('\\', &variables).words(line).unwrap(),
            expected,
            "{line}"
        );
    };
    check("a  b", &["a", "b"]);
    check("$WORDS", &["one", "two"]);
    check("\"$WORDS\"", &["one two"]);
    check("a\\ b", &["a b"]);
    check("'a b'c", &["a bc"]);
    check("", &[]);
}

#[test]
fn broken_expansions_are_refused() {
    for word in [
        "${X",
        "${}",
        "${:x}",
        "'a",
        "\"a",
        "${X:=a}",
        "${X!a}",
        "${UNSET:?message}",
        "${X/a",
    ] {
        assert!(Lexer::new('\\', &variables).word(word).is_err(), "{word}");
    }
    let message = Lexer::new('\\', &variables)
        .word("${UNSET:?message}")
        .unwrap_err();
    assert_eq!(message, "UNSET: message");
}

#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| "${U:-".repeat(depth) + "x" + &"}".repeat(depth);
    let word = |depth| Lexer::new('\\', &variables).word(&nested(depth));
    assert_eq!(word(100).as_deref(), Ok("x"));
    assert!(word(20_000).is_err());
}

#[test]
fn patterns_with_many_stars_are_quick() {
    let value = |_: &str| Some("a".repeat(300));
    let pattern = "*a".repeat(100);
    let word = Lexer::new('\\', &value).word(&format!("${{X%{pattern}b}}"));
    assert_eq!(word, Ok("a".repeat(300)));
    let word = Lexer::new('\\', &value).word(&format!("x${{X##{pattern}*}}"));
    assert_eq!(word.as_deref(), Ok("x"));
}
