//! What a program is started with, and what is said when it cannot be started.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use engines::process::{IsolationMode, Level};
use engines::{EngineError, Exit};
use oci::RunConfig;

use crate::images::{PROGRAM, command};
use crate::setup::{Bench, MODES, is_root, until};

fn has(log: &[String], line: &str) -> bool {
    log.iter().any(|found| found == line)
}

fn value<'a>(log: &'a [String], start: &str) -> &'a str {
    let found = log.iter().find_map(|line| line.strip_prefix(start));
    found.unwrap_or_else(|| panic!("no `{start}` in {log:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_where_it_is_told_to() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&[PROGRAM, "listen"]));
        let spec = bench.spec("web", image);
        let port = spec.port;
        let instance = bench.engine.start(spec).await.unwrap();
        assert_eq!(instance.id(), "web");
        assert_eq!(instance.address().to_string(), format!("127.0.0.1:{port}"));
        until("it listens", || {
            instance.listening_ports().unwrap() == [port]
        })
        .await;
        let mut client = TcpStream::connect(instance.address()).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = [0; 15];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        let name = std::fs::read_to_string(format!("/proc/{}/comm", instance.pid())).unwrap();
        assert!(!name.contains("engine-launcher"), "{name}");
        assert_eq!(instance.exited(), None);
        assert_eq!(
            instance.stop(Duration::from_secs(10)).await,
            Exit::Signal(15)
        );
        assert!(instance.listening_ports().unwrap().is_empty());
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_port_is_told() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let wrong = crate::setup::free_port();
        let image = bench.app(command(&[PROGRAM, "listen", &wrong.to_string()]));
        let instance = bench.engine.start(bench.spec("web", image)).await.unwrap();
        until("it listens", || {
            !instance.listening_ports().unwrap().is_empty()
        })
        .await;
        assert_eq!(instance.listening_ports().unwrap(), [wrong]);
        instance.stop(Duration::from_secs(10)).await;
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_the_images_then_the_callers_then_ours() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let mut run = command(&["fixture", "look"]);
        run.env
            .extend(["A=image", "B=image", "PORT=1", "CONFIG=/app/config.toml"].map(String::from));
        run.working_dir = Some("/app".to_owned());
        let image = bench.app(run);
        let mut spec = bench.spec("one", image);
        spec.env.extend(
            [("B", "caller"), ("C", "caller"), ("HOST", "0.0.0.0")]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let port = spec.port;
        let instance = bench.engine.start(spec).await.unwrap();
        assert_eq!(
            instance.wait().await,
            Exit::Code(0),
            "{:#?}",
            instance.log_tail(100)
        );
        let log = instance.log_tail(1000);
        for line in [
            "env A=image",
            "env B=caller",
            "env C=caller",
            "env HOST=127.0.0.1",
        ] {
            assert!(has(&log, line), "{line} in {log:#?}");
        }
        assert!(has(&log, &format!("env PORT={port}")));
        assert!(value(&log, "env CONFIG=").ends_with("/app/config.toml"));
        assert!(value(&log, "cwd ").ends_with("/app"));
        let mut expected = vec![
            "A", "B", "C", "CONFIG", "HOME", "HOST", "MARK", "PATH", "PORT",
        ];
        if !bench.engine.isolation().has_namespaces() {
            // by which its processes are found
            expected.push("SYSTEMPROMPT_INSTANCE");
        }
        let mut names: Vec<_> = log
            .iter()
            .filter_map(|line| line.strip_prefix("env "))
            .collect();
        names = names
            .into_iter()
            .filter_map(|pair| Some(pair.split_once('=')?.0))
            .collect();
        names.sort_unstable();
        assert_eq!(names, expected, "nothing of the server's own");
        instance.stop(Duration::ZERO).await;
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn powers_are_given_up() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let (exit, log) = bench.run(command(&[PROGRAM, "look"])).await;
        assert_eq!(exit, Exit::Code(0), "{log:#?}");
        assert!(has(&log, "status NoNewPrivs: 1"));
        let limits = value(&log, "limits ");
        assert!(
            limits.contains("Max core file size        0                    0"),
            "{limits}"
        );
        assert_eq!(
            value(&log, "fds "),
            "0 1 2 3",
            "the fourth is the listing itself"
        );
        let capabilities = u64::from_str_radix(value(&log, "status CapBnd: "), 16).unwrap();
        let sys_admin = capabilities >> 21 & 1;
        assert!(sys_admin == 0 || !is_root(), "{capabilities:x}");
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_signals_are_exact() {
    let cases = [
        ("exit 0", Exit::Code(0)),
        ("exit 7", Exit::Code(7)),
        ("exit 137", Exit::Code(137)),
        ("exit 255", Exit::Code(255)),
        ("kill -KILL $$", Exit::Signal(9)),
        ("kill -SEGV $$", Exit::Signal(11)),
        ("kill -TERM $$", Exit::Signal(15)),
    ];
    for mode in MODES {
        let bench = Bench::new(mode);
        // one process deeper: the first one of a namespace cannot kill itself, ours is not that
        for (script, expected) in cases {
            let (exit, log) = bench.run(command(&["/bin/sh", "-c", script])).await;
            assert_eq!(exit, expected, "{script}: {log:#?}");
        }
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_is_entrypoint_and_cmd() {
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
    for mode in MODES {
        let bench = Bench::new(mode);
        let run = RunConfig {
            entrypoint: words(&["/bin/sh", "-c", "echo \"$@\"", "name"]),
            cmd: words(&["from", "image"]),
            ..command(&[])
        };
        let (_, log) = bench.run(run.clone()).await;
        assert_eq!(log, ["from image"]);
        let image = bench.app(run);
        let mut spec = bench.spec("two", image);
        spec.command = words(&["from", "caller"]);
        let instance = bench.engine.start(spec).await.unwrap();
        instance.wait().await;
        assert_eq!(instance.log_tail(10), ["from caller"]);
        instance.stop(Duration::ZERO).await;
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_run_with_the_images_shell() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let (exit, log) = bench.run(command(&["script", "this"])).await;
        assert_eq!(
            (exit, log),
            (Exit::Code(0), vec!["script ran with this".to_owned()])
        );
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_run_is_named() {
    let cases: [(&[&str], &str); 6] = [
        (&["absent"], "program `absent` not found in the image"),
        (
            &["/app/absent"],
            "program `/app/absent` not found in the image",
        ),
        (&["/app/garbage"], "exec format error"),
        (
            &["/app/orphan"],
            "its interpreter `/bin/absent` is not in the image",
        ),
        (&["/app/config.toml"], "ermission denied"),
        (&[], "has neither ENTRYPOINT nor CMD"),
    ];
    for mode in MODES {
        let bench = Bench::new(mode);
        for (words, expected) in cases {
            let image = bench.app(command(words));
            let error = bench
                .engine
                .start(bench.spec("one", image))
                .await
                .unwrap_err();
            assert!(error.to_string().contains(expected), "{words:?}: {error}");
        }
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_is_the_images_where_we_are_root() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let run = RunConfig {
            user: Some("app".to_owned()),
            ..command(&[PROGRAM, "look"])
        };
        let (exit, log) = bench.run(run).await;
        assert_eq!(exit, Exit::Code(0), "{log:#?}");
        if is_root() && bench.engine.isolation().level != Level::UserNamespaces {
            assert!(has(&log, "status Uid: 1001 1001 1001 1001"), "{log:#?}");
            assert!(has(&log, "status Gid: 1002 1002 1002 1002"));
            assert!(value(&log, "status Groups:").trim() == "1003", "{log:#?}");
            assert!(has(&log, "status CapEff: 0000000000000000"));
            assert!(has(&log, "env HOME=/home/app"));
        } else {
            let notes = bench.engine.isolation().notes.join("\n");
            assert!(notes.contains("whatever USER"), "{notes}");
        }
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_cannot_reach_the_image_is_told_about() {
    if !is_root() {
        // an ordinary user has nobody to become; the test above holds what is said then
        return;
    }
    let bench = Bench::new(IsolationMode::Off);
    close(bench.folder.path());
    let run = RunConfig {
        user: Some("app".to_owned()),
        ..command(&[PROGRAM, "look"])
    };
    let (exit, log) = bench.run(run).await;
    assert_eq!(exit, Exit::Code(0), "{log:#?}");
    assert!(
        log.iter()
            .any(|line| line.starts_with("[engine] user app runs as root: it may not enter")),
        "{log:#?}"
    );
    assert!(has(&log, "status Uid: 0 0 0 0"));
    bench.check_nothing_left();
}

fn close(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_user_is_named() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let run = RunConfig {
            user: Some("stranger".to_owned()),
            ..command(&[PROGRAM, "look"])
        };
        let image = bench.app(run);
        let error = bench
            .engine
            .start(bench.spec("one", image))
            .await
            .unwrap_err();
        assert!(
            matches!(&error, EngineError::UserNotFound { user } if user == "stranger"),
            "{error}"
        );
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_cannot_be_passed_on_is_named_without_its_value() {
    let bench = Bench::new(IsolationMode::Auto);
    let image = bench.app(command(&[PROGRAM, "look"]));
    for (name, value) in [("", "secret"), ("A=B", "secret"), ("C", "secret\0")] {
        let mut spec = bench.spec("one", image);
        spec.env.insert(name.to_owned(), value.to_owned());
        let error = bench.engine.start(spec).await.unwrap_err().to_string();
        assert!(error.contains(&format!("variable `{name}`")), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_taken_until_its_instance_is_gone() {
    let bench = Bench::new(IsolationMode::Auto);
    let image = bench.app(command(&["/bin/sleep", "600"]));
    let instance = bench.engine.start(bench.spec("one", image)).await.unwrap();
    let error = bench
        .engine
        .start(bench.spec("one", image))
        .await
        .unwrap_err();
    assert!(matches!(error, EngineError::DuplicateId { .. }), "{error}");
    instance.stop(Duration::ZERO).await;
    let again = bench.engine.start(bench.spec("one", image)).await.unwrap();
    again.stop(Duration::ZERO).await;
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_gives_up_leaves_nothing_running() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&["/bin/sleep", "600"]));
        bench.engine.prepare(&image).await.unwrap();
        for milliseconds in [0, 1, 3, 6, 10, 20] {
            let spec = bench.spec(&format!("given-up-{milliseconds}"), image);
            let start = bench.engine.start(spec);
            let wait = Duration::from_millis(milliseconds);
            if let Ok(instance) = tokio::time::timeout(wait, start).await {
                instance.unwrap().stop(Duration::ZERO).await;
            }
        }
        let instances = bench.root().join("instances");
        until("all is gone", || {
            std::fs::read_dir(&instances).unwrap().next().is_none()
        })
        .await;
        bench.check_nothing_left();
    }
}
