//! Commands that are run inside a running instance.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engines::process::{IsolationMode, Level, ProcessEngine};
use engines::{Command, CommandOutcome, EngineError, Exit, Instance};
use oci::RunConfig;

use crate::images::{PROGRAM, command};
use crate::server::Server;
use crate::setup::{Bench, MODES, PATIENCE, is_root, processes, until};

/// Long enough for many to be there at once.
const SHORT: Duration = Duration::from_secs(8);

fn words(words: &[&str], limit: Duration) -> Command {
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    Command::new(words, limit)
}

async fn shell(instance: &Instance, script: &str) -> CommandOutcome {
    let command = words(&["/bin/sh", "-c", script], PATIENCE);
    instance.run(command).await.unwrap()
}

async fn sleeping(bench: &Bench, run: RunConfig) -> Instance {
    let image = bench.app(RunConfig {
        entrypoint: Some(vec!["/bin/sleep".to_owned(), "600".to_owned()]),
        ..run
    });
    bench.engine.start(bench.spec("one", image)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_has_what_the_program_has_and_tells_how_it_ended() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let run = RunConfig {
            user: Some("app".to_owned()),
            working_dir: Some("/app".to_owned()),
            env: vec!["COLOUR=blue".to_owned(), "PATH=/bin:/app".to_owned()],
            ..RunConfig::default()
        };
        let instance = sleeping(&bench, run).await;
        let outcome = shell(&instance, "echo out; echo err >&2; exit 3").await;
        assert_eq!(outcome.exit, Some(Exit::Code(3)));
        assert_eq!(outcome.output, "out\nerr\n");
        let outcome = shell(&instance, "kill -TERM $$").await;
        assert_eq!(outcome.exit, Some(Exit::Signal(15)));
        // by its name, with the variables of image and instance and one of its own
        let mut look = words(&["fixture", "look"], PATIENCE);
        look.env = BTreeMap::from([("OWN".to_owned(), "yes".to_owned())]);
        let outcome = instance.run(look).await.unwrap();
        assert_eq!(outcome.exit, Some(Exit::Code(0)));
        let all = "echo $COLOUR $OWN $MARK $PORT $HOME; cat config.toml";
        let mut variables = words(&["/bin/sh", "-c", all], PATIENCE);
        variables.env = BTreeMap::from([("OWN".to_owned(), "yes".to_owned())]);
        let outcome = instance.run(variables).await.unwrap();
        let port = instance.address().port();
        let expected = format!("blue yes {} {port} /home/app\n", bench.mark());
        assert_eq!(outcome.output, expected + "configured = true\n");
        assert_eq!(instance.exited(), None);
        let log = instance.log_tail(9);
        let engines = log.iter().all(|line| line.starts_with("[engine] "));
        assert!(engines, "the log is the program's: {log:#?}");
        instance.stop(Duration::ZERO).await;
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_is_the_programs() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let run = RunConfig {
            user: Some("app".to_owned()),
            ..RunConfig::default()
        };
        let instance = sleeping(&bench, run).await;
        let status = "while read name value; do case $name in Uid:|CapEff:|NoNewPrivs:) \
                      echo $name $value;; esac; done < /proc/self/status";
        let outcome = shell(&instance, status).await.output;
        assert!(outcome.contains("NoNewPrivs: 1"), "{outcome}");
        if is_root() && bench.engine.isolation().level != Level::UserNamespaces {
            assert!(outcome.contains("Uid: 1001 1001 1001 1001"), "{outcome}");
            assert!(outcome.contains("CapEff: 0000000000000000"), "{outcome}");
        }
        instance.stop(Duration::ZERO).await;
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_sees_the_files_and_processes_of_the_instance_only() {
    let bench = Bench::new(IsolationMode::Auto);
    if !bench.engine.isolation().has_namespaces() {
        // the machine's are all there are
        return bench.check_nothing_left();
    }
    let instance = sleeping(&bench, RunConfig::default()).await;
    let outcome = shell(
        &instance,
        "echo x > /tmp/written; echo /proc/[0-9]*; echo /tmp/*",
    )
    .await;
    // the init, the program and itself
    assert!(
        outcome.output.starts_with("/proc/1 /proc/2 /proc/"),
        "{outcome:?}"
    );
    assert_eq!(outcome.output.lines().next().unwrap().split(' ').count(), 3);
    assert!(outcome.output.contains("/tmp/written"), "{outcome:?}");
    assert!(!std::path::Path::new("/tmp/written").exists());
    instance.stop(Duration::ZERO).await;
    bench.check_nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_it_is_left_when_it_ends_or_its_time_is_over() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let run = RunConfig {
            working_dir: Some("/app".to_owned()),
            ..RunConfig::default()
        };
        let instance = sleeping(&bench, run).await;
        let folder = bench.folder.path().to_owned();
        until("only the program runs", || processes(&folder).len() >= 2).await;
        let before = processes(&folder);
        // a child, an orphan, and one that has a session and a group of its own
        let leave = "sleep 600 & (sleep 600 &); (trap '' TERM HUP; ./fixture leave 600) & ";
        for (end, exit) in [
            ("sleep 0.1; exit 5", Some(Exit::Code(5))),
            ("sleep 600", None),
        ] {
            let limit = exit.map_or(Duration::from_secs(3), |_| PATIENCE);
            let script = format!("{leave} echo begun; {end}");
            let begun = Instant::now();
            let run = instance.run(words(&["/bin/sh", "-c", &script], limit));
            let outcome = run.await.unwrap();
            assert_eq!(outcome.exit, exit);
            assert_eq!(outcome.output, "begun\n");
            assert!(exit.is_some() || begun.elapsed() >= limit);
            assert_eq!(processes(&folder), before, "{mode:?} {end}");
        }
        assert_eq!(instance.exited(), None);
        instance.stop(Duration::ZERO).await;
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_much_output_is_kept_and_nobody_waits_for_all_of_it() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let instance = sleeping(&bench, RunConfig::default()).await;
        let many = words(&[PROGRAM, "write", "5000", "40"], PATIENCE);
        let outcome = instance.run(many).await.unwrap();
        assert_eq!(outcome.exit, Some(Exit::Code(0)));
        assert_eq!(outcome.output.len(), 4096);
        let last = outcome.output.lines().last().unwrap();
        assert_eq!(last, format!("4999 {}", "x".repeat(40)));
        let endless = "while :; do echo again; done";
        let endless = words(&["/bin/sh", "-c", endless], Duration::from_secs(3));
        let outcome = instance.run(endless).await.unwrap();
        assert_eq!(outcome.exit, None);
        assert!(outcome.output.contains("again\nagain\n"));
        let closed = words(
            &["/bin/sh", "-c", "exec >&- 2>&-; sleep 0.05; exit 4"],
            PATIENCE,
        );
        assert_eq!(
            instance.run(closed).await.unwrap().exit,
            Some(Exit::Code(4))
        );
        instance.stop(Duration::ZERO).await;
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_run_is_named() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let instance = sleeping(&bench, RunConfig::default()).await;
        let cases: [(&[&str], &str); 4] = [
            (&["absent"], "program `absent` not found in the image"),
            (&["/app/garbage"], "exec format error"),
            (&["/app/config.toml"], "ermission denied"),
            (&[], "not found in the image"),
        ];
        for (command, expected) in cases {
            let error = instance.run(words(command, PATIENCE)).await.unwrap_err();
            assert!(error.to_string().contains(expected), "{command:?}: {error}");
        }
        // those that run are bounded, and whoever comes too much is told
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (instance, long) = (instance.clone(), words(&["/bin/sleep", "600"], SHORT));
            all.spawn(async move { instance.run(long).await });
        }
        let all = all.join_all().await;
        let refused = all.iter().filter(|one| match one {
            Err(error) => error.to_string().contains("16 commands run in it already"),
            Ok(_) => false,
        });
        assert_eq!(refused.count(), 4);
        instance.stop(Duration::ZERO).await;
        let after = instance.run(words(&["/bin/sh", "-c", ":"], PATIENCE)).await;
        assert!(matches!(after, Err(EngineError::NotRunning { .. })));
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_instance_is_the_end_of_its_commands() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let instance = sleeping(&bench, RunConfig::default()).await;
        let long = instance.clone();
        let waiting = tokio::spawn(async move {
            let command = words(&["/bin/sleep", "600"], PATIENCE);
            long.run(command).await
        });
        let folder = bench.folder.path().to_owned();
        until("it runs", || processes(&folder).len() >= 3).await;
        instance.stop(PATIENCE).await;
        let ended = waiting.await.unwrap();
        assert!(
            matches!(ended, Err(EngineError::NotRunning { .. })),
            "{ended:?}"
        );
        bench.check_nothing_left();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_server_runs_commands_in_what_it_has_taken_over() {
    for mode in MODES {
        let bench = Bench::new(mode);
        let image = bench.app(command(&["/bin/sleep", "600"]));
        let mut server = Server::start(&bench, mode, image, PATIENCE);
        server.kill();
        let engine = ProcessEngine::new(bench.settings(mode, &server.root)).unwrap();
        let [instance] = &engine.adopt().await.unwrap()[..] else {
            panic!("one instance")
        };
        let outcome = shell(instance, "echo $MARK").await;
        assert_eq!(outcome.output, format!("{}\n", server.root.display()));
        instance.stop(Duration::ZERO).await;
        drop(engine);
        bench.check_nothing_left();
    }
}
